//! Sinks that are sent back, and epochs that are kept for that, under the supervisor, with a worker that a test speaks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_common::control::{
    ControlError, RewindTerms, SinkCommand, SinkView, StopMode, StorageUse,
};
use millstream_common::ids::{Epoch, Generation, JobName, SinkIndex};
use millstream_common::link::{BarrierKind, Deploy, JobGeneration, ToMaster, ToWorker};
use millstream_common::log::entry::JobProgress;
use millstream_common::log::savepoint::Savepoints;
use millstream_common::store::StoreRef;
use ractor::{ActorRef, call};

use super::supervisor_actor::SupervisorMessage;
use super::tests::{find, job};
use crate::job::job_actor::JobMessage;
use crate::letters::index::Letters;
use crate::replay::ReplayedJob;
use crate::retention::Looked;
use crate::retention::history::read_history;
use crate::testing::{Answers, FakeWorker, MemoryStore, memory, plan, soon, supervise_begun};

const SQL: &str = "\
    CREATE SOURCE numbers (n BIGINT NOT NULL) WITH (connector = 'datagen', rows_per_second = '10');\
    CREATE SINK nowhere FROM numbers WITH (connector = 'blackhole');\
    CREATE SINK shown FROM numbers WITH (connector = 'console');";
const NOWHERE: SinkIndex = SinkIndex(0);
const SHOWN: SinkIndex = SinkIndex(1);

struct Cluster {
    store: Arc<MemoryStore>,
    supervisor: ActorRef<SupervisorMessage>,
    worker: FakeWorker,
}

impl Cluster {
    /// After so many epochs, which both sinks hold.
    async fn after(epochs: u64) -> Self {
        Self::begun_with(JobProgress::default(), epochs).await
    }

    async fn begun_with(progress: JobProgress, epochs: u64) -> Self {
        let store = memory();
        let job = ReplayedJob {
            entry: job("clicks", plan(SQL)),
            progress,
            end: None,
            generation: Generation::default(),
            assignment: None,
            letters: Letters::default(),
            retold: Default::default(),
            savepoints: Savepoints::new(),
        };
        let supervisor = supervise_begun(&store, vec![job]).await;
        let mut worker = FakeWorker::join(&supervisor, "alpha").await;
        worker.deployed().await;
        let mut cluster = Self {
            store,
            supervisor,
            worker,
        };
        for _ in 0..epochs {
            let (at, epoch) = cluster.epoch().await;
            for sink in [NOWHERE, SHOWN] {
                cluster.advance(&at, sink, epoch);
            }
        }
        cluster
    }

    async fn epoch(&mut self) -> (JobGeneration, Epoch) {
        let (at, barrier) = self.worker.barrier().await;
        self.worker.report(&at, barrier.epoch, 1);
        self.worker.committed().await;
        (at, barrier.epoch)
    }

    fn advance(&self, at: &JobGeneration, sink: SinkIndex, marker: Epoch) {
        self.worker.say(ToMaster::SinkAdvanced {
            at: at.clone(),
            sink,
            marker,
            dropped_count: 0,
        });
    }

    /// The generation that follows the last barrier of this one.
    async fn moved(&mut self) -> (JobGeneration, Deploy) {
        loop {
            let (at, barrier) = self.worker.barrier().await;
            self.worker.report(&at, barrier.epoch, 1);
            if barrier.kind == BarrierKind::Stop {
                return (at, self.worker.deployed().await);
            }
        }
    }

    async fn rewind(&self, sink: &str, to: u64, may_duplicate: bool) -> Result<SinkView, String> {
        let to = Some(Epoch(to));
        let terms = RewindTerms { to, may_duplicate };
        self.rewind_on(sink, terms).await
    }

    async fn rewind_on(&self, sink: &str, terms: RewindTerms) -> Result<SinkView, String> {
        let clicks = find(&self.supervisor, "clicks").await;
        let sink = sink.to_owned();
        let rewound = soon(async {
            call!(clicks, |reply| JobMessage::RewindSink {
                sink,
                terms,
                reply
            })
            .expect("call")
        });
        rewound.await.map_err(|refused| match refused {
            ControlError::Invalid(cause) => cause,
            other => panic!("{other:?}"),
        })
    }

    async fn sink(&self, sink: SinkIndex) -> SinkView {
        call!(self.supervisor, SupervisorMessage::AllWorkers).expect("call");
        let clicks = find(&self.supervisor, "clicks").await;
        let view = call!(clicks, JobMessage::View).expect("view");
        view.sinks[sink.index()].clone()
    }

    /// The collector says that every sink has held the epochs up to this one for long.
    async fn looked(&self, forgettable: u64) {
        let store: StoreRef = self.store.clone();
        let history = read_history(&store).await.expect("read");
        let looked = Looked {
            used: StorageUse::default(),
            life: history.jobs[&JobName::from("clicks")].entry.incarnation,
            forgettable: Epoch(forgettable),
        };
        let looked = BTreeMap::from([(JobName::from("clicks"), looked)]);
        let said = self.supervisor.cast(SupervisorMessage::Looked(looked));
        said.expect("said");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_goes_back_with_the_next_generation_and_lacks_what_it_held() {
    let mut cluster = Cluster::after(4).await;
    let sent = cluster.rewind("nowhere", 2, false).await.expect("it can");
    assert_eq!((sent.marker, sent.retained_from), (Epoch(2), Epoch(0)));
    let refused = cluster.rewind("nowhere", 1, false).await;
    assert!(refused.expect_err("twice").contains("being sent back"));
    let (old, deploy) = cluster.moved().await;
    let rewind = deploy.restore.sink_rewinds[&NOWHERE];
    assert_eq!(rewind.to, Epoch(2));
    assert!(deploy.at.generation.0 > rewind.at.0 && rewind.at.0 > old.generation.0);
    assert_eq!(deploy.restore.undelivered[0].parent, Epoch(2));
    assert_eq!(deploy.restore.sink_markers[&SHOWN], Epoch(4));
    // What the last generation says late is of the past.
    cluster.advance(&old, NOWHERE, Epoch(4));
    assert_eq!(cluster.sink(NOWHERE).await.marker, Epoch(2));
    cluster.advance(&deploy.at, NOWHERE, Epoch(3));
    assert_eq!(cluster.sink(NOWHERE).await.marker, Epoch(3));
    // It was done: the next deliverer is told nothing of it.
    find(&cluster.supervisor, "clicks").await.kill();
    let deploy = cluster.worker.deployed().await;
    let marker = deploy.restore.sink_markers[&NOWHERE];
    let told = deploy.restore.sink_rewinds.get(&NOWHERE).copied();
    assert!(
        marker == Epoch(3) || told == Some(rewind),
        "{marker} {told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_resumed_after_it_was_sent_back_delivers_only_in_the_next_generation() {
    let mut cluster = Cluster::after(4).await;
    let clicks = find(&cluster.supervisor, "clicks").await;
    for command in [SinkCommand::Pause, SinkCommand::Resume] {
        let commanded = call!(clicks, |reply| JobMessage::CommandSink {
            sink: "nowhere".to_owned(),
            command,
            reply,
        });
        let view = commanded.expect("call").expect("commanded");
        assert_eq!(view.paused, command == SinkCommand::Pause);
        if command == SinkCommand::Pause {
            cluster.rewind("nowhere", 2, false).await.expect("it can");
        }
    }
    let pick = |frame| match frame {
        ToWorker::CommandSink(_, NOWHERE, command) => Some(Ok(command)),
        ToWorker::Barrier(at, barrier) => Some(Err((at, barrier))),
        _ => None,
    };
    let mut told = Vec::new();
    loop {
        match cluster.worker.frame(pick).await {
            Ok(command) => told.push(command),
            Err((at, barrier)) => {
                cluster.worker.report(&at, barrier.epoch, 1);
                if barrier.kind == BarrierKind::Stop {
                    break;
                }
            }
        }
    }
    assert_eq!(told, [SinkCommand::Pause]);
    let deploy = cluster.worker.deployed().await;
    assert!(deploy.restore.paused_sinks.is_empty());
    assert_eq!(deploy.restore.sink_rewinds[&NOWHERE].to, Epoch(2));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_holds_less_than_it_was_sent_back_to_is_believed_while_an_epoch_is_being_written()
 {
    let mut cluster = Cluster::after(4).await;
    cluster.rewind("nowhere", 2, false).await.expect("it can");
    let (_, deploy) = cluster.moved().await;
    cluster.store.answer(Answers::AllBut("log/"));
    let (at, barrier) = cluster.worker.barrier().await;
    cluster.worker.report(&at, barrier.epoch, 1);
    // The entry on its way to the log was made before the sink, restored from something older, has said what it holds.
    call!(cluster.supervisor, SupervisorMessage::AllWorkers).expect("call");
    cluster.advance(&deploy.at, NOWHERE, Epoch(1));
    assert_eq!(cluster.sink(NOWHERE).await.marker, Epoch(1));
    cluster.store.answer(Answers::All);
    assert_eq!(cluster.worker.committed().await.1, barrier.epoch);
    assert_eq!(cluster.sink(NOWHERE).await.marker, Epoch(1));
}

#[tokio::test(start_paused = true)]
async fn a_sink_is_sent_back_only_to_what_is_kept_and_one_that_appends_only_if_that_is_said() {
    let mut cluster = Cluster::after(4).await;
    let refused = cluster.rewind("nowhere", 4, false).await;
    assert!(
        refused
            .expect_err("it holds 4")
            .contains("nothing to deliver again")
    );
    let refused = cluster.rewind("shown", 2, false).await;
    let refused = refused.expect_err("it appends");
    assert!(refused.contains("--allow-duplicates"), "{refused}");
    let refused = cluster.rewind("nowere", 2, false).await;
    assert!(
        refused
            .expect_err("no name")
            .contains("did you mean nowhere")
    );
    cluster.looked(3).await;
    assert_eq!(cluster.sink(NOWHERE).await.retained_from, Epoch(3));
    let refused = cluster.rewind("nowhere", 2, false).await;
    let refused = refused.expect_err("it is gone");
    assert!(
        refused.contains("the oldest epoch there is to go back to is 3"),
        "{refused}"
    );
    assert!(refused.contains("begun with --fresh"), "{refused}");
    cluster.rewind("shown", 3, true).await.expect("it was said");
    // What it needs now is not forgotten, however long ago it was held.
    cluster.looked(4).await;
    assert_eq!(cluster.sink(SHOWN).await.retained_from, Epoch(3));
    let (_, deploy) = cluster.moved().await;
    assert_eq!(deploy.restore.sink_rewinds[&SHOWN].to, Epoch(3));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_began_later_goes_back_to_its_beginning_unless_it_is_sent_further() {
    let begun = JobProgress {
        sink_starts: [(NOWHERE, Epoch(2)), (SHOWN, Epoch(2))].into(),
        ..JobProgress::default()
    };
    let cluster = Cluster::begun_with(begun, 4).await;
    let terms = RewindTerms {
        to: None,
        may_duplicate: true,
    };
    let sent = cluster.rewind_on("nowhere", terms).await.expect("it can");
    assert_eq!((sent.marker, sent.retained_from), (Epoch(2), Epoch(0)));
    let sent = cluster.rewind("shown", 1, true).await;
    assert_eq!(sent.expect("it was said").marker, Epoch(1));
}

#[tokio::test(start_paused = true)]
async fn what_an_ended_job_no_longer_keeps_it_does_not_show_either() {
    let mut cluster = Cluster::after(4).await;
    let clicks = find(&cluster.supervisor, "clicks").await;
    let mode = StopMode::Stop;
    let stop = async { call!(clicks, |reply| JobMessage::Stop { mode, reply }) };
    let pass = async {
        loop {
            let (at, barrier) = cluster.worker.barrier().await;
            cluster.worker.report(&at, barrier.epoch, 0);
            if barrier.kind == BarrierKind::Stop {
                break;
            }
        }
    };
    let (stopped, ()) = soon(async { tokio::join!(stop, pass) }).await;
    assert!(stopped.expect("call").job.state.is_over());
    cluster.looked(3).await;
    assert_eq!(cluster.sink(NOWHERE).await.retained_from, Epoch(3));
}
