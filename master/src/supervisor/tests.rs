//! Jobs under the supervisor, with workers that a test speaks for: how a job survives its own actor, how a stop ends without
//! workers, and who is waited for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_common::control::{JobState, JobView, StopMode, Stopped};
use millstream_common::ids::{Epoch, Generation, Incarnation, JobName};
use millstream_common::link::{BarrierCommand, BarrierKind, Held, JobGeneration, ToWorker};
use millstream_common::log::entry::{EpochEntry, JobEntry, JobProgress};
use millstream_common::log::{self, Entry};
use millstream_common::plan::JobPlan;
use millstream_common::store::StoreRef;
use millstream_common::time::EventTime;
use ractor::rpc::CallResult;
use ractor::{ActorRef, call};

use super::supervisor_actor::*;
use crate::job::job_actor::JobMessage;
use crate::replay::ReplayedJob;
use crate::testing::{
    Answers, ENDLESS, FakeWorker, MemoryStore, memory, plan, soon, supervise, supervise_begun,
};

pub(super) fn job(name: &str, plan: JobPlan) -> JobEntry {
    JobEntry {
        job: name.into(),
        incarnation: Incarnation::fresh(),
        sql: String::new(),
        plan,
        submitted_at_us: 0,
        submission: None,
    }
}

pub(super) async fn find(
    supervisor: &ActorRef<SupervisorMessage>,
    name: &str,
) -> ActorRef<JobMessage> {
    let name = JobName::from(name);
    let found = call!(supervisor, |reply| SupervisorMessage::FindJob(
        name.clone(),
        reply
    ));
    found.expect("call").expect("the job is there")
}

/// The job once everything said to the supervisor before has reached it.
async fn view(supervisor: &ActorRef<SupervisorMessage>, job: &ActorRef<JobMessage>) -> JobView {
    soon(async {
        call!(supervisor, SupervisorMessage::AllWorkers).expect("call");
        call!(job, JobMessage::View).expect("view")
    })
    .await
}

async fn epochs(store: &Arc<MemoryStore>) -> Vec<EpochEntry> {
    let store: StoreRef = store.clone();
    let objects = log::read_all(&store).await.expect("read");
    let entries = objects.into_iter().flat_map(|(_, object)| object.entries);
    let epochs = entries.filter_map(|entry| match entry {
        Entry::Epoch(epoch) => Some(*epoch),
        _ => None,
    });
    epochs.collect()
}

/// Stops the job; the answer comes when it has ended.
pub(super) fn stop(job: &ActorRef<JobMessage>) -> impl Future<Output = Stopped> + use<> {
    end(job, StopMode::Stop)
}

/// The same by draining it.
fn end(job: &ActorRef<JobMessage>, mode: StopMode) -> impl Future<Output = Stopped> + use<> {
    let job = job.clone();
    async move {
        let stopped = job.call(|reply| JobMessage::Stop { mode, reply }, None);
        match soon(stopped).await.expect("call") {
            CallResult::Success(stopped) => stopped,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_actor_started_anew_knows_the_epoch_that_its_predecessor_had_on_its_way() {
    let store = memory();
    let supervisor = supervise(&store, vec![job("clicks", plan(ENDLESS))]).await;
    let mut worker = FakeWorker::join(&supervisor, "alpha").await;
    worker.deployed().await;
    let (at, barrier) = worker.barrier().await;

    store.answer(Answers::Reads);
    let failing = find(&supervisor, "clicks").await;
    worker.report(&at, barrier.epoch, 5);
    view(&supervisor, &failing).await;
    failing.kill();
    // Time enough for one that read the log at once.
    tokio::time::sleep(Duration::from_secs(1)).await;
    store.answer(Answers::All);

    let deploy = worker.deployed().await;
    assert!(deploy.at.generation > at.generation);
    assert_eq!(deploy.restore.epoch, barrier.epoch);
    let (at, barrier) = worker.barrier().await;
    worker.report(&at, barrier.epoch, 5);
    worker.committed().await;
    let mut progress = JobProgress::default();
    for epoch in epochs(&store).await {
        progress.apply(&epoch).expect("one chain (INV-1)");
    }
    assert_eq!(progress.epoch, barrier.epoch);
}

#[tokio::test(start_paused = true)]
async fn a_drained_source_is_at_the_end_of_time_though_no_split_has_told_its_own() {
    let timed = "\
        CREATE SOURCE ticks (ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts) \
        WITH (connector = 'datagen', rows_per_second = '10');\
        CREATE SOURCE untimed (n BIGINT) WITH (connector = 'datagen', rows_per_second = '10');\
        CREATE VIEW both AS SELECT 1 AS n FROM ticks UNION ALL SELECT 2 AS n FROM untimed;\
        CREATE SINK nowhere FROM both WITH (connector = 'blackhole');";
    let supervisor = supervise(&memory(), vec![job("ticks", plan(timed))]).await;
    let mut worker = FakeWorker::join(&supervisor, "alpha").await;
    worker.deployed().await;
    let draining = end(&find(&supervisor, "ticks").await, StopMode::Drain);
    let drained = tokio::select! {
        drained = draining => drained.job,
        () = worker.pass_for_ever() => panic!("there are always barriers"),
    };
    assert_eq!(drained.state, JobState::Finished);
    assert_eq!(drained.watermark, Some(EventTime::MAX));
    assert_eq!(drained.sources[0].watermark, Some(EventTime::MAX));
    assert_eq!(drained.sources[1].watermark, None, "it keeps no time");
}

#[tokio::test(start_paused = true)]
async fn heartbeats_go_on_while_storage_does_not_answer_and_a_job_is_started_anew() {
    let store = memory();
    let supervisor = supervise(&store, vec![job("clicks", plan(ENDLESS))]).await;
    let mut worker = FakeWorker::join(&supervisor, "alpha").await;
    worker.deployed().await;
    store.answer(Answers::None);
    find(&supervisor, "clicks").await.kill();
    soon(async { while find_now(&supervisor, "clicks").await.is_some() {} }).await;
    let workers = soon(async { call!(supervisor, SupervisorMessage::AllWorkers) }).await;
    assert_eq!(workers.expect("call").len(), 1);
    store.answer(Answers::All);
    worker.deployed().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_actors_keep_failing_is_kept_as_failed_with_the_cause() {
    let store = memory();
    let sql = format!("SET restart_budget = '2'; {ENDLESS}");
    let supervisor = supervise(&store, vec![job("clicks", plan(&sql))]).await;
    for _ in 0..3 {
        let failing = soon(running(&supervisor, "clicks")).await;
        failing.kill();
        soon(async {
            while find_now(&supervisor, "clicks")
                .await
                .is_some_and(|job| job.get_id() == failing.get_id())
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let kept = soon(running(&supervisor, "clicks")).await;
    let view = call!(kept, JobMessage::View).expect("view");
    assert_eq!(view.state, JobState::Failed);
    assert!(view.cause.is_some_and(|cause| cause.contains("killed")));
}

async fn find_now(
    supervisor: &ActorRef<SupervisorMessage>,
    name: &str,
) -> Option<ActorRef<JobMessage>> {
    let name = JobName::from(name);
    let found = call!(supervisor, |reply| SupervisorMessage::FindJob(
        name.clone(),
        reply
    ));
    found.expect("call").ok()
}

/// The job's actor, once there is one.
async fn running(supervisor: &ActorRef<SupervisorMessage>, name: &str) -> ActorRef<JobMessage> {
    loop {
        if let Some(job) = find_now(supervisor, name).await {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_cannot_be_started_is_failed_and_holds_up_no_other() {
    let unresolved = "\
        CREATE SOURCE rows (n BIGINT) WITH (connector = 'files', path = '${MILLSTREAM_TEST_NOT_SET}/in', format = 'json');\
        CREATE SINK nowhere FROM rows WITH (connector = 'blackhole');";
    let jobs = vec![
        job("broken", plan(unresolved)),
        job("clicks", plan(ENDLESS)),
    ];
    let supervisor = supervise(&memory(), jobs).await;
    let broken = find(&supervisor, "broken").await;
    let view = call!(broken, JobMessage::View).expect("view");
    assert_eq!(view.state, JobState::Failed);
    let cause = view.cause.expect("a cause");
    assert!(cause.contains("MILLSTREAM_TEST_NOT_SET"), "{cause}");
    let mut worker = FakeWorker::join(&supervisor, "alpha").await;
    assert_eq!(worker.deployed().await.at.job, JobName::from("clicks"));
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_although_its_last_worker_goes_before_the_last_barrier() {
    let supervisor = supervise(&memory(), vec![job("clicks", plan(ENDLESS))]).await;
    let mut worker = FakeWorker::join(&supervisor, "alpha").await;
    worker.deployed().await;
    worker.barrier().await;
    let clicks = find(&supervisor, "clicks").await;
    let stopped = stop(&clicks);
    let (stopped, ()) = tokio::join!(stopped, async {
        // Behind the stop in the actor's mailbox.
        call!(clicks, JobMessage::View).expect("view");
        worker.leave();
    });
    assert_eq!(stopped.job.state, JobState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_although_its_last_worker_goes_before_the_last_epoch_is_delivered() {
    let supervisor = supervise(&memory(), vec![job("clicks", plan(ENDLESS))]).await;
    let mut worker = FakeWorker::join(&supervisor, "alpha").await;
    worker.deployed().await;
    let (at, first) = worker.barrier().await;
    let clicks = find(&supervisor, "clicks").await;
    let stopped = stop(&clicks);
    let (stopped, last) = tokio::join!(stopped, async {
        worker.report(&at, first.epoch, 5);
        let (at, last) = worker.barrier().await;
        worker.report(&at, last.epoch, 5);
        while worker.committed().await.1 < last.epoch {}
        worker.leave();
        last.epoch
    });
    assert_eq!(stopped.job.state, JobState::Stopped);
    assert_eq!(
        (stopped.job.epoch, stopped.lagging_sinks),
        (last, vec!["nowhere".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn a_recovery_is_over_although_nobody_sends_a_row() {
    let supervisor = supervise(&memory(), vec![job("clicks", plan(ENDLESS))]).await;
    let mut lost = FakeWorker::join(&supervisor, "alpha").await;
    lost.deployed().await;
    lost.leave();
    let mut worker = FakeWorker::join(&supervisor, "beta").await;
    worker.deployed().await;
    let (at, barrier) = worker.barrier().await;
    let clicks = find(&supervisor, "clicks").await;
    let before = view(&supervisor, &clicks).await;
    assert_eq!(before.last_recovery_ms, None, "no barrier has been passed");
    worker.report(&at, barrier.epoch, 0);
    let view = view(&supervisor, &clicks).await;
    assert!(view.last_recovery_ms.is_some());
    assert_eq!(view.epoch.0, 0, "there was nothing to commit");
}

#[tokio::test(start_paused = true)]
async fn an_epoch_does_not_wait_for_workers_that_have_no_task() {
    let supervisor = supervise(&memory(), vec![job("clicks", plan(ENDLESS))]).await;
    let mut first = FakeWorker::join(&supervisor, "w000").await;
    first.deployed().await;
    let mut workers = BTreeMap::new();
    for index in 1..257 {
        let name = format!("w{index:03}");
        workers.insert(name.clone(), FakeWorker::join(&supervisor, &name).await);
    }
    // The first has everything; the others get their share once they have been gathered.
    loop {
        let (at, barrier) = first.barrier().await;
        first.report(&at, barrier.epoch, 1);
        if barrier.kind == BarrierKind::Stop {
            break;
        }
    }
    workers.insert("w000".to_owned(), first);
    for worker in workers.values_mut() {
        worker.deployed().await;
    }
    let mut barriers = Vec::new();
    for worker in workers.values_mut() {
        barriers.push(worker.barrier().await);
    }
    let (at, epoch) = (barriers[0].0.clone(), barriers[0].1.epoch);
    for (name, worker) in &workers {
        if name != "w256" {
            worker.report(&at, epoch, 1);
        }
    }
    let worker = workers.get_mut("w000").expect("it has joined");
    assert_eq!(worker.committed().await, (at.generation, epoch));
}

/// A job that alpha and beta ran as generation 7 up to epoch 5, under a master that is lost.
pub(super) fn begun() -> ReplayedJob {
    begun_as(plan(ENDLESS), &["alpha", "beta"])
}

/// A job of that plan that those workers ran as generation 7 up to epoch 5, under a master that is lost.
pub(super) fn begun_as(plan: JobPlan, workers: &[&str]) -> ReplayedJob {
    let entry = job("clicks", plan);
    let candidate = |worker: &&str| crate::assign::Candidate {
        worker: (*worker).into(),
        slots: 1,
    };
    let workers: Vec<_> = workers.iter().map(candidate).collect();
    let assignment = crate::assign::assign(&entry.plan, &workers, &BTreeMap::new());
    ReplayedJob {
        entry,
        progress: JobProgress {
            epoch: Epoch(5),
            ..JobProgress::default()
        },
        end: None,
        generation: Generation(7),
        assignment: Some(assignment),
        letters: Default::default(),
        retold: Default::default(),
        savepoints: BTreeMap::new(),
    }
}

/// What a worker holds of it that has passed the barrier of `epoch`.
pub(super) fn held(job: &ReplayedJob, generation: u64, epoch: u64) -> Vec<Held> {
    vec![Held {
        at: JobGeneration {
            job: job.entry.job.clone(),
            generation: Generation(generation),
        },
        incarnation: job.entry.incarnation,
        restored: Epoch(0),
        barrier: Some(BarrierCommand {
            epoch: Epoch(epoch),
            kind: BarrierKind::Checkpoint,
            watermarks: BTreeMap::new(),
        }),
        committed: Epoch(5),
        given: Vec::new(),
    }]
}

pub(super) fn is<T: PartialEq>(expected: T) -> impl Fn(T) -> Option<()> {
    move |found| (found == expected).then_some(())
}

#[tokio::test(start_paused = true)]
async fn a_new_master_goes_on_with_what_all_workers_hold_and_collects_the_open_barrier() {
    let store = memory();
    let job = begun();
    let supervisor = supervise_begun(&store, vec![job.clone()]).await;
    let mut alpha = FakeWorker::join_holding(&supervisor, "alpha", held(&job, 7, 5)).await;
    let mut beta = FakeWorker::join_holding(&supervisor, "beta", held(&job, 7, 6)).await;
    let at = held(&job, 7, 5)[0].at.clone();
    for worker in [&mut alpha, &mut beta] {
        worker.frame(is(ToWorker::Resume(at.clone()))).await;
        let (at, barrier) = worker.barrier().await;
        assert_eq!((at.generation, barrier.epoch), (Generation(7), Epoch(6)));
        worker.report(&at, barrier.epoch, 5);
    }
    for worker in [&mut alpha, &mut beta] {
        assert_eq!(worker.committed().await, (Generation(7), Epoch(6)));
        let (at, barrier) = worker.barrier().await;
        assert_eq!((at.generation, barrier.epoch), (Generation(7), Epoch(7)));
    }
    let committed = epochs(&store).await;
    let [epoch] = committed.as_slice() else {
        panic!("{committed:?}");
    };
    assert_eq!((epoch.parent, epoch.generation), (Epoch(5), Generation(7)));
    assert_eq!(
        epoch.counters[&millstream_common::ids::SourceIndex(0)].read,
        10
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_is_rewound_where_a_worker_has_lost_what_it_held_and_the_others_end_theirs() {
    let store = memory();
    let job = begun();
    let supervisor = supervise_begun(&store, vec![job.clone()]).await;
    let mut alpha = FakeWorker::join_holding(&supervisor, "alpha", held(&job, 7, 5)).await;
    let mut beta = FakeWorker::join_holding(&supervisor, "beta", Vec::new()).await;
    let at = held(&job, 7, 5)[0].at.clone();
    alpha.frame(is(ToWorker::Teardown(at))).await;
    for worker in [&mut alpha, &mut beta] {
        let deploy = worker.deployed().await;
        assert!(deploy.at.generation != Generation(7));
        assert_eq!(deploy.restore.epoch, Epoch(5));
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_is_rewound_where_a_worker_does_not_come_back_in_time_and_late_ones_end_theirs() {
    let store = memory();
    let job = begun();
    let supervisor = supervise_begun(&store, vec![job.clone()]).await;
    let mut alpha = FakeWorker::join_holding(&supervisor, "alpha", held(&job, 7, 5)).await;
    let deploy = alpha.deployed().await;
    assert!(deploy.at.generation != Generation(7));
    let at = held(&job, 7, 5)[0].at.clone();
    let mut beta = FakeWorker::join_holding(&supervisor, "beta", held(&job, 7, 5)).await;
    beta.frame(is(ToWorker::Teardown(at))).await;
}
