//! Quotas of sinks, and what sinks say of rows, under the supervisor, with workers that a test speaks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_common::control::{JobState, JobView, RewindTerms, SinkCommand, StopMode};
use millstream_common::error::{Failure, Kind};
use millstream_common::ids::{Epoch, JobName, OutputIndex, SinkIndex};
use millstream_common::link::{BarrierCommand, BarrierKind, JobGeneration, ToMaster, ToWorker};
use millstream_common::report::{PipelineReport, Segment};
use millstream_common::store::StoreRef;
use ractor::{ActorRef, call};

use super::supervisor_actor::SupervisorMessage;
use super::tests::{begun_as, find, held, job};
use crate::job::job_actor::JobMessage;
use crate::retention::history::read_history;
use crate::testing::{FakeWorker, MemoryStore, memory, plan, soon, supervise, supervise_begun};

const SINK: SinkIndex = SinkIndex(0);

fn sql(options: &str) -> String {
    format!(
        "CREATE SOURCE numbers (n BIGINT NOT NULL) WITH (connector = 'datagen', rows_per_second = '10');\
         CREATE SINK nowhere FROM numbers WITH (connector = 'blackhole'{options});"
    )
}

/// A running job with one worker.
async fn begin(options: &str) -> (ActorRef<SupervisorMessage>, FakeWorker) {
    let begun = vec![job("clicks", plan(&sql(options)))];
    let supervisor = supervise(&memory(), begun).await;
    let mut worker = FakeWorker::join(&supervisor, "alpha").await;
    worker.deployed().await;
    (supervisor, worker)
}

/// The job once everything said before has reached it.
async fn view(supervisor: &ActorRef<SupervisorMessage>) -> JobView {
    soon(async {
        call!(supervisor, SupervisorMessage::AllWorkers).expect("call");
        let clicks = find(supervisor, "clicks").await;
        call!(clicks, JobMessage::View).expect("view")
    })
    .await
}

/// Reports a segment of the sink's output, of ten bytes a row; or nothing.
fn report(worker: &FakeWorker, to: &(JobGeneration, BarrierCommand), row_count: u64) {
    let segment = Segment {
        output: OutputIndex(1),
        path: format!("segments/{}", to.1.epoch),
        bytes: row_count * 10,
        checksum: 0,
        row_count,
    };
    let report = PipelineReport {
        epoch: to.1.epoch,
        worker: "alpha".into(),
        splits: BTreeMap::new(),
        parts: BTreeMap::new(),
        segments: Some(segment)
            .filter(|_| row_count > 0)
            .into_iter()
            .collect(),
        counters: BTreeMap::new(),
        flows: BTreeMap::new(),
        troubles: BTreeMap::new(),
        figures: Default::default(),
    };
    worker.say(ToMaster::Snapshotted(to.0.clone(), Box::new(report)));
}

/// An epoch of so many rows.
async fn epoch(worker: &mut FakeWorker, row_count: u64) -> (JobGeneration, Epoch) {
    let barrier = worker.barrier().await;
    report(worker, &barrier, row_count);
    worker.committed().await;
    (barrier.0, barrier.1.epoch)
}

fn advance(worker: &FakeWorker, at: &JobGeneration, marker: Epoch, dropped_count: u64) {
    worker.say(ToMaster::SinkAdvanced {
        at: at.clone(),
        sink: SINK,
        marker,
        dropped_count,
    });
}

/// The next thing that a sink is told.
async fn told(worker: &mut FakeWorker) -> SinkCommand {
    let pick = |frame| match frame {
        ToWorker::CommandSink(_, SINK, command) => Some(command),
        _ => None,
    };
    worker.frame(pick).await
}

async fn started(worker: &mut FakeWorker) {
    let pick = |frame| matches!(frame, ToWorker::Start(_)).then_some(());
    worker.frame(pick).await;
}

#[test]
fn the_output_of_the_sink_is_the_one_that_reports_are_of() {
    assert_eq!(plan(&sql("")).sinks[0].output, OutputIndex(1));
}

#[tokio::test(start_paused = true)]
async fn a_sink_with_backpressure_holds_reading_back_until_it_has_caught_up() {
    let options = ", quota_bytes = '100', on_quota = 'backpressure'";
    let (supervisor, mut worker) = begin(options).await;
    started(&mut worker).await;
    let (_, first) = epoch(&mut worker, 6).await;
    let (_, second) = epoch(&mut worker, 6).await;
    let last = worker.barrier().await;
    assert_eq!(last.1.kind, BarrierKind::Stop, "120 of 100 bytes wait");
    report(&worker, &last, 0);
    worker.deployed().await;
    // Barriers go on, so that a savepoint or a stop need not wait.
    let barrier = worker.barrier().await;
    assert_eq!(barrier.1.kind, BarrierKind::Checkpoint);
    let cause = view(&supervisor).await.cause.expect("a cause");
    assert!(cause.contains("nowhere"), "{cause}");
    let at = barrier.0.clone();
    advance(&worker, &at, first, 0);
    started(&mut worker).await;
    let view = view(&supervisor).await;
    assert_eq!(view.cause, None);
    assert_eq!(view.sinks[0].quota.map(|quota| quota.used), Some(0.6));
    assert!(view.epoch == second && view.restarts == 0, "{view:?}");
}

#[tokio::test(start_paused = true)]
async fn readers_that_wait_for_a_sink_wait_on_under_another_worker() {
    let options = ", quota_bytes = '50', on_quota = 'backpressure'";
    let (_, mut worker) = begin(options).await;
    let (at, _) = epoch(&mut worker, 6).await;
    let last = worker.barrier().await;
    report(&worker, &last, 0);
    worker.deployed().await;
    let failed = Failure {
        kind: Kind::Internal,
        origin: "task".to_owned(),
        cause: "told to".to_owned(),
    };
    let (held, _) = worker.barrier().await;
    assert!(held.generation > at.generation);
    worker.say(ToMaster::PipelineFailed(held, failed));
    worker.deployed().await;
    let begun = |frame| match frame {
        ToWorker::Start(_) => Some(true),
        ToWorker::Barrier(..) => Some(false),
        _ => None,
    };
    assert!(!worker.frame(begun).await, "it was started");
}

#[tokio::test(start_paused = true)]
async fn neither_a_savepoint_nor_a_stop_waits_for_the_sink_that_readers_wait_for() {
    let options = ", quota_bytes = '50', on_quota = 'backpressure'";
    let (supervisor, mut worker) = begin(options).await;
    let (_, held) = epoch(&mut worker, 6).await;
    let last = worker.barrier().await;
    report(&worker, &last, 0);
    worker.deployed().await;
    let clicks = find(&supervisor, "clicks").await;
    let keep = async { call!(clicks, |reply| JobMessage::Savepoint { name: None, reply }) };
    let pass = async {
        let barrier = worker.barrier().await;
        report(&worker, &barrier, 0);
    };
    let (kept, ()) = soon(async { tokio::join!(keep, pass) }).await;
    assert_eq!(kept.expect("call").expect("kept").epoch, held);
    let mode = StopMode::Stop;
    let stop = async { call!(clicks, |reply| JobMessage::Stop { mode, reply }) };
    let pass = async {
        loop {
            let barrier = worker.barrier().await;
            report(&worker, &barrier, 0);
            if barrier.1.kind == BarrierKind::Stop {
                break;
            }
        }
    };
    let (stopped, ()) = tokio::join!(stop, pass);
    let stopped = stopped.expect("call");
    assert_eq!(stopped.lagging_sinks, ["nowhere"]);
    assert!(stopped.job.state.is_over(), "{:?}", stopped.job);
}

#[tokio::test(start_paused = true)]
async fn readers_that_waited_under_the_last_master_are_started_if_the_sink_has_caught_up() {
    let options = ", quota_bytes = '50', on_quota = 'backpressure'";
    let job = begun_as(plan(&sql(options)), &["alpha"]);
    let supervisor = supervise_begun(&memory(), vec![job.clone()]).await;
    let mut worker = FakeWorker::join_holding(&supervisor, "alpha", held(&job, 7, 5)).await;
    started(&mut worker).await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_is_suspended_at_its_quota_and_once_resumed_not_again_before_it_has_caught_up() {
    let options = ", quota_bytes = '100', on_quota = 'suspend'";
    let (supervisor, mut worker) = begin(options).await;
    epoch(&mut worker, 12).await;
    assert_eq!(told(&mut worker).await, SinkCommand::Pause);
    let suspended = view(&supervisor).await;
    let sink = &suspended.sinks[0];
    assert!(sink.paused && sink.suspended && suspended.cause.is_none());
    let cause = sink.cause.clone().expect("a cause");
    assert!(
        cause.contains("millstream sink resume clicks nowhere"),
        "{cause}"
    );

    let clicks = find(&supervisor, "clicks").await;
    let resumed = call!(clicks, |reply| JobMessage::CommandSink {
        sink: "nowhere".to_owned(),
        command: SinkCommand::Resume,
        reply,
    });
    let resumed = resumed.expect("call").expect("resumed");
    assert!(!resumed.paused && !resumed.suspended);
    assert_eq!(told(&mut worker).await, SinkCommand::Resume);
    let (at, newest) = epoch(&mut worker, 12).await;
    let view_of = view(&supervisor).await;
    assert!(!view_of.sinks[0].suspended, "it was to catch up");
    advance(&worker, &at, newest, 0);
    epoch(&mut worker, 12).await;
    assert_eq!(told(&mut worker).await, SinkCommand::Pause);
    assert!(view(&supervisor).await.sinks[0].suspended);
}

#[tokio::test(start_paused = true)]
async fn what_a_sink_holds_and_dropped_is_known_to_an_actor_that_did_not_hear_of_it() {
    let (supervisor, mut worker) = begin(", on_violation = 'drop'").await;
    let (at, first) = epoch(&mut worker, 10).await;
    epoch(&mut worker, 5).await;
    advance(&worker, &at, first, 2);
    // There is nothing else to say: the count alone is worth an epoch.
    epoch(&mut worker, 0).await;
    let rows = |view: &JobView| (view.sinks[0].rows_delivered, view.sinks[0].rows_dropped);
    let before = view(&supervisor).await;
    assert_eq!((rows(&before), before.dropped_count()), ((8, 2), 2));
    let failing = find(&supervisor, "clicks").await;
    failing.kill();
    worker.deployed().await;
    assert_eq!(rows(&view(&supervisor).await), (8, 2));
}

#[tokio::test(start_paused = true)]
async fn a_sink_is_not_suspended_any_more_when_the_job_only_waits_for_its_sinks() {
    let options = ", quota_bytes = '100', on_quota = 'suspend'";
    let (supervisor, mut worker) = begin(options).await;
    started(&mut worker).await;
    let clicks = find(&supervisor, "clicks").await;
    let mode = StopMode::Drain;
    let drain = async { call!(clicks, |reply| JobMessage::Stop { mode, reply }) };
    let pass = async {
        let (first, last) = (
            epoch(&mut worker, 6).await,
            loop {
                let barrier = worker.barrier().await;
                let is_last = barrier.1.kind == BarrierKind::Stop;
                report(&worker, &barrier, if is_last { 12 } else { 0 });
                if is_last {
                    worker.committed().await;
                    break barrier;
                }
            },
        );
        advance(&worker, &first.0, first.1, 0);
        advance(&worker, &last.0, last.1.epoch, 0);
    };
    let (drained, ()) = soon(async { tokio::join!(drain, pass) }).await;
    let sink = &drained.expect("call").job.sinks[0];
    assert!(!sink.paused && !sink.suspended, "{sink:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_sent_back_does_not_stop_reading_until_it_has_once_caught_up() {
    let options = ", quota_bytes = '100', on_quota = 'backpressure'";
    let store = memory();
    let supervisor = supervise(&store, vec![job("clicks", plan(&sql(options)))]).await;
    let mut worker = FakeWorker::join(&supervisor, "alpha").await;
    worker.deployed().await;
    for _ in 0..2 {
        let (at, newest) = epoch(&mut worker, 6).await;
        advance(&worker, &at, newest, 0);
    }
    let old = send_back(&supervisor, &mut worker).await;
    worker.deployed().await;
    let begun = |frame| match frame {
        ToWorker::Start(_) => Some(true),
        ToWorker::Barrier(..) => Some(false),
        _ => None,
    };
    assert!(worker.frame(begun).await, "120 of 100 bytes, as was wanted");
    // Once it has caught up the log says so, and its quota counts again.
    assert!(is_excused(&store).await);
    let (at, newest) = epoch(&mut worker, 1).await;
    assert!(at.generation > old.generation);
    advance(&worker, &at, newest, 0);
    epoch(&mut worker, 12).await;
    let held = worker.barrier().await;
    assert_eq!(held.1.kind, BarrierKind::Stop);
    assert!(!is_excused(&store).await);
}

/// Sends the sink back to the beginning; the generation ends.
async fn send_back(
    supervisor: &ActorRef<SupervisorMessage>,
    worker: &mut FakeWorker,
) -> JobGeneration {
    let clicks = find(supervisor, "clicks").await;
    let terms = RewindTerms {
        to: Some(Epoch(0)),
        may_duplicate: false,
    };
    let sink = "nowhere".to_owned();
    let rewound = call!(clicks, |reply| JobMessage::RewindSink {
        sink,
        terms,
        reply
    });
    rewound.expect("call").expect("it can");
    loop {
        let barrier = worker.barrier().await;
        report(worker, &barrier, 0);
        if barrier.1.kind == BarrierKind::Stop {
            return barrier.0;
        }
    }
}

/// Whether the log has the sink excused from its quota.
async fn is_excused(store: &Arc<MemoryStore>) -> bool {
    let store: StoreRef = store.clone();
    let history = read_history(&store).await.expect("read");
    let progress = &history.jobs[&JobName::from("clicks")].progress;
    progress.excused_sinks.contains(&SINK)
}

#[tokio::test(start_paused = true)]
async fn reading_that_waits_for_a_sink_which_a_person_has_paused_says_how_it_goes_on() {
    let options = ", quota_bytes = '50', on_quota = 'backpressure'";
    let (supervisor, mut worker) = begin(options).await;
    let clicks = find(&supervisor, "clicks").await;
    let paused = call!(clicks, |reply| JobMessage::CommandSink {
        sink: "nowhere".to_owned(),
        command: SinkCommand::Pause,
        reply,
    });
    paused.expect("call").expect("paused");
    epoch(&mut worker, 6).await;
    let cause = view(&supervisor).await.cause.expect("a cause");
    assert!(
        cause.contains("millstream sink resume clicks nowhere"),
        "{cause}"
    );
}

#[tokio::test(start_paused = true)]
async fn rows_that_a_sink_drops_again_because_it_was_sent_back_are_counted_once() {
    let (supervisor, mut worker) = begin(", on_violation = 'drop'").await;
    let (at, first) = epoch(&mut worker, 10).await;
    advance(&worker, &at, first, 2);
    let old = send_back(&supervisor, &mut worker).await;
    let deploy = worker.deployed().await;
    advance(&worker, &deploy.at, first, 2);
    let (at, second) = epoch(&mut worker, 10).await;
    assert!(at.generation > old.generation);
    advance(&worker, &at, second, 1);
    let view = view(&supervisor).await;
    assert_eq!(
        (view.sinks[0].rows_delivered, view.sinks[0].rows_dropped),
        (17, 3)
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_that_has_read_everything_says_which_suspended_sink_keeps_it_from_its_end() {
    let options = ", quota_bytes = '100', on_quota = 'suspend'";
    let (supervisor, mut worker) = begin(options).await;
    let (at, newest) = epoch(&mut worker, 12).await;
    assert_eq!(told(&mut worker).await, SinkCommand::Pause);
    let clicks = find(&supervisor, "clicks").await;
    let mode = StopMode::Drain;
    let stopping = clicks.clone();
    let mut draining = Box::pin(async move {
        let drained = call!(stopping, |reply| JobMessage::Stop { mode, reply });
        drained.expect("call")
    });
    let passing = async {
        loop {
            let barrier = worker.barrier().await;
            let is_last = barrier.1.kind == BarrierKind::Stop;
            report(&worker, &barrier, u64::from(is_last));
            if is_last {
                worker.committed().await;
                break (barrier.0, barrier.1.epoch);
            }
        }
    };
    let last = soon(async {
        tokio::select! {
            _ = &mut draining => panic!("the sink lacks rows"),
            last = passing => last,
        }
    })
    .await;
    let cause = view(&supervisor).await.cause.expect("a cause");
    assert!(
        cause.contains("sink nowhere is suspended")
            && cause.contains("millstream sink resume clicks nowhere"),
        "{cause}"
    );
    let resumed = call!(clicks, |reply| JobMessage::CommandSink {
        sink: "nowhere".to_owned(),
        command: SinkCommand::Resume,
        reply,
    });
    resumed.expect("call").expect("resumed");
    assert_eq!(view(&supervisor).await.cause, None);
    assert!(last.0.generation >= at.generation && last.1 > newest);
    advance(&worker, &last.0, last.1, 0);
    let drained = soon(draining).await;
    assert_eq!(drained.job.state, JobState::Finished);
}
