//! Savepoints and submissions that go on from them, with a worker that a test speaks for.

use std::sync::Arc;

use millstream_common::control::{ControlError, FromCheckpoint, SavepointView, StopMode};
use millstream_common::ids::{Epoch, Incarnation, JobName, SinkIndex};
use millstream_common::link::BarrierKind;
use millstream_common::log::entry::JobEntry;
use millstream_common::log::savepoint::CarriedEntry;
use millstream_common::log::{self, Entry};
use millstream_common::store::StoreRef;
use ractor::rpc::CallResult;
use ractor::{ActorRef, call};

use super::submission::{Started, Submission};
use super::supervisor_actor::*;
use crate::job::job_actor::JobMessage;
use crate::testing::{Answers, ENDLESS, FakeWorker, MemoryStore, memory, plan, soon, supervise};

/// Another sink in front of the old one.
const MORE: &str = "\
    CREATE SOURCE numbers (n BIGINT NOT NULL) WITH (connector = 'datagen', rows_per_second = '10');\
    CREATE SINK shown FROM numbers WITH (connector = 'console');\
    CREATE SINK nowhere FROM numbers WITH (connector = 'blackhole');";

struct Cluster {
    store: Arc<MemoryStore>,
    supervisor: ActorRef<SupervisorMessage>,
    worker: FakeWorker,
    life: Incarnation,
}

impl Cluster {
    async fn start() -> Self {
        let (store, life) = (memory(), Incarnation::fresh());
        let entry = JobEntry {
            job: "clicks".into(),
            incarnation: life,
            sql: String::new(),
            plan: plan(ENDLESS),
            submitted_at_us: 0,
            submission: None,
        };
        let supervisor = supervise(&store, vec![entry]).await;
        let mut worker = FakeWorker::join(&supervisor, "alpha").await;
        worker.deployed().await;
        Self {
            store,
            supervisor,
            worker,
            life,
        }
    }

    async fn job(&self) -> ActorRef<JobMessage> {
        let found = call!(self.supervisor, |reply| SupervisorMessage::FindJob(
            JobName::from("clicks"),
            reply
        ));
        found.expect("call").expect("the job is there")
    }

    /// Passes the next barrier with a row; its epoch.
    async fn pass(&mut self) -> (Epoch, BarrierKind) {
        let (at, barrier) = self.worker.barrier().await;
        self.worker.report(&at, barrier.epoch, 1);
        (barrier.epoch, barrier.kind)
    }

    async fn savepoint(&mut self, name: &str) -> Result<SavepointView, ControlError> {
        let job = self.job().await;
        let name = Some(name.to_owned());
        let asked = async {
            let kept = call!(job, |reply| JobMessage::Savepoint { name, reply });
            kept.expect("call")
        };
        let worker = &mut self.worker;
        let passing = async {
            loop {
                let (at, barrier) = worker.barrier().await;
                worker.report(&at, barrier.epoch, 1);
            }
        };
        soon(async {
            tokio::select! {
                kept = asked => kept,
                () = passing => panic!("there are always barriers"),
            }
        })
        .await
    }

    /// Stops the job; its last epoch.
    async fn stop(&mut self) -> Epoch {
        let job = self.job().await;
        let mode = StopMode::Stop;
        let stopping = job.call(|reply| JobMessage::Stop { mode, reply }, None);
        let passing = async { while self.pass().await.1 != BarrierKind::Stop {} };
        let (stopped, ()) = soon(async { tokio::join!(stopping, passing) }).await;
        match stopped.expect("call") {
            ractor::rpc::CallResult::Success(stopped) => stopped.job.epoch,
            other => panic!("{other:?}"),
        }
    }

    async fn submit(
        &self,
        name: &str,
        sql: &str,
        from: &str,
        fresh: bool,
    ) -> Result<Started, ControlError> {
        let submission = Box::new(Submission {
            job: name.into(),
            sql: sql.to_owned(),
            plan: plan(sql),
            fresh,
            from: Some(FromCheckpoint {
                checkpoint: from.to_owned(),
                may_drop: false,
            }),
            trace: Default::default(),
            id: None,
        });
        let started = soon(async {
            call!(self.supervisor, |reply| SupervisorMessage::Submit {
                submission,
                reply
            })
        });
        started.await.expect("call")
    }

    async fn refusal(&self, name: &str, sql: &str, from: &str) -> String {
        match self.submit(name, sql, from, false).await {
            Ok(started) => panic!("it is taken: {started:?}"),
            Err(refused) => refused.to_string(),
        }
    }

    async fn carried(&self) -> Vec<CarriedEntry> {
        let store: StoreRef = self.store.clone();
        let objects = log::read_all(&store).await.expect("read");
        let entries = objects.into_iter().flat_map(|(_, object)| object.entries);
        let carried = entries.filter_map(|entry| match entry {
            Entry::Carried(carried) => Some(*carried),
            _ => None,
        });
        carried.collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_savepoint_is_of_the_next_epoch_and_its_name_is_its_own() {
    let mut cluster = Cluster::start().await;
    let (first, _) = cluster.pass().await;
    let kept = cluster.savepoint("first").await.expect("kept");
    assert!(
        kept.epoch >= first,
        "{kept:?}: the barrier under way counts"
    );
    for name in ["first", "latest", "12", "a b", ""] {
        let refused = cluster.savepoint(name).await;
        assert!(matches!(refused, Err(ControlError::Invalid(_))), "{name}");
    }
    let last = cluster.stop().await;
    let ended = cluster.job().await;
    let name = Some("end".to_owned());
    let end = call!(ended, |reply| JobMessage::Savepoint { name, reply });
    assert_eq!(end.expect("call").expect("kept").epoch, last);
    let listed = call!(ended, JobMessage::Savepoints).expect("call");
    let names: Vec<&str> = listed.iter().map(|kept| kept.name.as_str()).collect();
    assert_eq!(names, ["first", "end"]);
}

#[tokio::test(start_paused = true)]
async fn the_life_goes_on_from_its_last_epoch_with_other_sql_and_new_sinks_begin_there() {
    let mut cluster = Cluster::start().await;
    cluster.savepoint("old").await.expect("kept");
    let running = cluster.refusal("clicks", MORE, "old").await;
    assert!(running.contains("is running"), "{running}");
    let running = cluster.refusal("more", MORE, "clicks/latest").await;
    assert!(running.contains("millstream savepoint clicks"), "{running}");
    let last = cluster.stop().await;
    let behind = cluster.refusal("clicks", MORE, "old").await;
    assert!(
        behind.contains("sinks may hold what came between"),
        "{behind}"
    );
    let unknown = cluster.refusal("clicks", MORE, "odl").await;
    assert!(unknown.contains("did you mean old?"), "{unknown}");
    let unkept = cluster.refusal("clicks", MORE, "1000").await;
    assert!(unkept.contains("kept are old (epoch"), "{unkept}");

    let started = cluster.submit("clicks", MORE, "latest", false).await;
    assert_eq!(started.expect("it fits").resumed_from, last);
    let deploy = cluster.worker.deployed().await;
    assert_eq!(
        (deploy.incarnation, deploy.restore.epoch),
        (cluster.life, last)
    );
    let starts: Vec<_> = deploy.restore.sink_starts.into_iter().collect();
    assert_eq!(starts, [(SinkIndex(0), last)]);
    let (next, _) = cluster.pass().await;
    assert_eq!(next, last.next());
}

#[tokio::test(start_paused = true)]
async fn what_sinks_still_lack_is_not_forgotten_where_a_life_goes_on_from_its_end_by_name() {
    let mut cluster = Cluster::start().await;
    cluster.pass().await;
    let last = cluster.stop().await;
    let ended = cluster.job().await;
    let name = Some("end".to_owned());
    let end = call!(ended, |reply| JobMessage::Savepoint { name, reply });
    assert_eq!(end.expect("call").expect("kept").epoch, last);
    let started = cluster.submit("clicks", MORE, "end", false).await;
    assert_eq!(started.expect("it fits").resumed_from, last);
    let deploy = cluster.worker.deployed().await;
    let lacking = deploy.restore.undelivered.last().map(|last| last.epoch);
    assert_eq!(lacking, Some(last), "the sink never said that it holds it");
}

#[tokio::test(start_paused = true)]
async fn from_an_older_checkpoint_or_under_another_name_a_new_life_begins() {
    let mut cluster = Cluster::start().await;
    let old = cluster.savepoint("old").await.expect("kept").epoch;
    let other = cluster.submit("other", MORE, "clicks/old", false).await;
    assert_eq!(other.expect("it fits").resumed_from, old);
    let deploy = cluster.worker.deployed().await;
    assert_eq!(deploy.at.job, JobName::from("other"));
    assert_ne!(deploy.incarnation, cluster.life);
    assert!(
        deploy
            .restore
            .sink_starts
            .values()
            .all(|start| *start == old)
    );
    cluster.stop().await;
    let anew = cluster.submit("clicks", MORE, "old", true).await;
    assert_eq!(anew.expect("asked for").resumed_from, old);
    let carried = cluster.carried().await;
    let [_, anew] = carried.as_slice() else {
        panic!("{carried:?}");
    };
    assert_ne!(anew.job.incarnation, cluster.life);
}

/// Lets the job and then the supervisor take what was said to them before.
async fn settle(cluster: &Cluster, job: &ActorRef<JobMessage>) {
    soon(async {
        call!(job, JobMessage::View).expect("view");
        call!(cluster.supervisor, SupervisorMessage::AllWorkers).expect("workers");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nobody_goes_on_from_a_savepoint_once_its_end_is_on_its_way_into_the_log() {
    let mut cluster = Cluster::start().await;
    cluster.savepoint("first").await.expect("kept");
    let job = cluster.job().await;
    cluster.store.answer(Answers::AllBut("log/"));
    let name = "first".to_owned();
    let dropping = job.call(|reply| JobMessage::DropSavepoint { name, reply }, None);
    let submitting = async {
        settle(&cluster, &job).await;
        let refused = cluster.refusal("other", ENDLESS, "clicks/first").await;
        assert!(refused.contains("no savepoint first"), "{refused}");
        cluster.store.answer(Answers::All);
    };
    let (dropped, ()) = soon(async { tokio::join!(dropping, submitting) }).await;
    let is_dropped = matches!(dropped, Ok(CallResult::Success(Ok(_))));
    assert!(is_dropped, "{dropped:?}");
    assert!(cluster.carried().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_savepoint_of_a_stopped_job_is_made_before_a_submission_or_not_at_all() {
    let mut cluster = Cluster::start().await;
    cluster.pass().await;
    cluster.stop().await;
    let job = cluster.job().await;
    cluster.store.answer(Answers::AllBut("log/"));
    let submitting = cluster.submit("clicks", MORE, "latest", false);
    let keeping = async {
        settle(&cluster, &job).await;
        let name = Some("late".to_owned());
        let kept = call!(job, |reply| JobMessage::Savepoint { name, reply });
        cluster.store.answer(Answers::All);
        kept.expect("call")
    };
    let (started, kept) = soon(async { tokio::join!(submitting, keeping) }).await;
    started.expect("it goes on");
    let refused = kept.expect_err("its job is another by then");
    assert!(
        refused.to_string().contains("is being submitted"),
        "{refused}"
    );
}

#[tokio::test(start_paused = true)]
async fn of_a_job_that_has_read_everything_nothing_is_kept() {
    let mut cluster = Cluster::start().await;
    let job = cluster.job().await;
    let mode = StopMode::Drain;
    let drained = soon(async {
        tokio::select! {
            drained = job.call(|reply| JobMessage::Stop { mode, reply }, None) => drained,
            () = cluster.worker.pass_for_ever() => panic!("there are always barriers"),
        }
    });
    let epoch = match drained.await.expect("call") {
        CallResult::Success(drained) => drained.job.epoch,
        other => panic!("{other:?}"),
    };
    let refused = cluster.savepoint("end").await;
    let refused = refused.expect_err("nobody could go on from it").to_string();
    let told = format!("job clicks has read everything up to epoch {epoch}");
    assert!(refused.contains(&told), "{refused}");
}
