//! Jobs that go on under another actor or another master, with workers that a test speaks for: what a backlog of undelivered
//! epochs does not do to a takeover, and what a person has said that holds on.

use millstream_common::control::{ControlError, SinkCommand, SinkView};
use millstream_common::ids::{Epoch, Generation, SinkIndex};
use millstream_common::link::{Held, ToWorker};
use millstream_common::log::entry::CommittedEpoch;
use millstream_common::log::{self, Entry, backlog};
use millstream_common::store::{Store, StoreRef};
use ractor::{ActorRef, call};

use super::submission::Submission;
use super::supervisor_actor::*;
use super::tests::{begun, find, held, is, job, stop};
use crate::job::job_actor::JobMessage;
use crate::replay::ReplayedJob;
use crate::retention::history::read_history;
use crate::testing::{
    Answers, ENDLESS, FakeWorker, memory, plan, soon, supervise, supervise_begun,
};

/// As [`begun`], with a sink that has been down for `count` epochs, of which beta's pipeline knows all and alpha's the first few.
fn begun_with_a_backlog(count: u64) -> ReplayedJob {
    let mut job = begun();
    job.progress.epoch = Epoch(count);
    let undelivered = (1..=count).map(|epoch| CommittedEpoch {
        epoch: Epoch(epoch),
        parent: Epoch(epoch - 1),
        segments: Vec::new(),
        refused: Vec::new(),
        last: false,
    });
    job.progress.recent = undelivered.collect();
    job
}

/// What a worker holds of it that knows the epochs up to `committed`.
fn held_up_to(job: &ReplayedJob, committed: u64) -> Vec<Held> {
    let mut held = held(job, 7, job.progress.epoch.0);
    held[0].committed = Epoch(committed);
    held
}

#[tokio::test(start_paused = true)]
async fn a_new_master_says_again_only_the_commits_that_a_worker_may_not_have_heard() {
    let job = begun_with_a_backlog(9_000);
    let supervisor = supervise_begun(&memory(), vec![job.clone()]).await;
    let mut alpha = FakeWorker::join_holding(&supervisor, "alpha", held_up_to(&job, 8_998)).await;
    let mut beta = FakeWorker::join_holding(&supervisor, "beta", held_up_to(&job, 9_000)).await;
    for epoch in [8_999, 9_000] {
        let committed = alpha.committed().await;
        assert_eq!(committed, (Generation(7), Epoch(epoch)));
    }
    for worker in [&mut alpha, &mut beta] {
        let next = worker
            .frame(|frame| match frame {
                ToWorker::EpochCommitted { .. } => panic!("{frame:?}"),
                ToWorker::Barrier(_, barrier) => Some(barrier.epoch),
                _ => None,
            })
            .await;
        assert_eq!(next, Epoch(9_001));
    }
}

#[tokio::test(start_paused = true)]
async fn the_session_of_a_worker_that_takes_no_frames_ends_with_the_reason_and_its_jobs_go_on() {
    let job = begun_with_a_backlog(9_000);
    let supervisor = supervise_begun(&memory(), vec![job.clone()]).await;
    let mut alpha = FakeWorker::join_holding(&supervisor, "alpha", held_up_to(&job, 1)).await;
    let mut beta = FakeWorker::join_holding(&supervisor, "beta", held_up_to(&job, 9_000)).await;
    let reason = alpha.over().await;
    assert!(reason.contains("does not take its frames"), "{reason}");
    let deploy = beta.deployed().await;
    assert!(deploy.at.generation != Generation(7));
    assert_eq!(deploy.restore.epoch, Epoch(9_000));
}

#[tokio::test(start_paused = true)]
async fn pipelines_of_a_job_whose_actor_has_failed_end_though_no_generation_follows() {
    let store = memory();
    let supervisor = supervise(&store, vec![job("clicks", plan(ENDLESS))]).await;
    let mut worker = FakeWorker::join(&supervisor, "alpha").await;
    worker.deployed().await;
    let (at, _) = worker.barrier().await;
    find(&supervisor, "clicks").await.kill();
    worker.frame(is(ToWorker::Teardown(at))).await;
}

#[tokio::test(start_paused = true)]
async fn epochs_that_a_sink_lacks_for_long_are_put_away_and_a_deploy_stays_small() {
    let store = memory();
    let job = begun_with_a_backlog(9_000);
    let supervisor = supervise_begun(&store, vec![job.clone()]).await;
    let mut alpha = FakeWorker::join_holding(&supervisor, "alpha", held_up_to(&job, 9_000)).await;
    let mut beta = FakeWorker::join_holding(&supervisor, "beta", held_up_to(&job, 9_000)).await;
    for worker in [&mut alpha, &mut beta] {
        let (at, barrier) = worker.barrier().await;
        worker.report(&at, barrier.epoch, 1);
    }
    let parts = beta
        .frame(|frame| match frame {
            ToWorker::Backlog(_, parts) => Some(parts),
            _ => None,
        })
        .await;
    alpha.leave();
    let restore = beta.deployed().await.restore;
    assert_eq!(restore.backlog, parts);
    assert_eq!((parts.len(), parts[0].parent), (1, Epoch(0)));
    assert_eq!(restore.undelivered[0].parent, parts[0].last);
    assert_eq!(restore.undelivered.len(), 9_001 - 4_096);
    let store: StoreRef = store;
    let put_away = backlog::load(&store, &parts[0]).await.expect("load");
    assert_eq!(put_away, job.progress.recent[..4_096]);
    let clicks = find(&supervisor, "clicks").await;
    let view = call!(clicks, JobMessage::View).expect("view");
    assert_eq!(view.sinks[0].lag_epochs, 9_001);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_has_ended_says_nothing_more_of_epochs_that_it_was_putting_away() {
    let store = memory();
    store.answer(Answers::AllBut("backlog/"));
    let begun = begun_with_a_backlog(9_000);
    let supervisor = supervise_begun(&store, vec![begun.clone()]).await;
    let held = || held_up_to(&begun, 9_000);
    let mut alpha = FakeWorker::join_holding(&supervisor, "alpha", held()).await;
    let mut beta = FakeWorker::join_holding(&supervisor, "beta", held()).await;
    for worker in [&mut alpha, &mut beta] {
        let (at, barrier) = worker.barrier().await;
        worker.report(&at, barrier.epoch, 1);
    }
    beta.committed().await;
    alpha.leave();
    beta.leave();
    stop(&find(&supervisor, "clicks").await).await;
    store.answer(Answers::All);
    let is_stored = async || !store.list("backlog/").await.expect("list").is_empty();
    soon(async { while !is_stored().await {} }).await;
    let resumed = Box::new(Submission {
        job: "clicks".into(),
        sql: begun.entry.sql.clone(),
        plan: begun.entry.plan.clone(),
        fresh: false,
        from: None,
        trace: Default::default(),
        id: None,
    });
    let resumed = call!(supervisor, |reply| SupervisorMessage::Submit {
        submission: resumed,
        reply
    });
    resumed.expect("call").expect("it goes on");
    let store: StoreRef = store.clone();
    let objects = log::read_all(&store).await.expect("read");
    let mut entries = objects.iter().flat_map(|(_, object)| &object.entries);
    let of_backlog = entries.find(|entry| matches!(entry, Entry::Backlog { .. }));
    assert_eq!(of_backlog, None);
}

/// Tells the only sink of `clicks` something.
async fn command_sink(
    supervisor: &ActorRef<SupervisorMessage>,
    sink: &str,
    command: SinkCommand,
) -> Result<SinkView, ControlError> {
    let clicks = find(supervisor, "clicks").await;
    let commanded = call!(clicks, |reply| JobMessage::CommandSink {
        sink: sink.to_owned(),
        command,
        reply
    });
    commanded.expect("call")
}

#[tokio::test(start_paused = true)]
async fn a_paused_sink_stays_paused_under_another_actor_and_under_another_master() {
    let store = memory();
    let supervisor = supervise(&store, vec![job("clicks", plan(ENDLESS))]).await;
    let mut worker = FakeWorker::join(&supervisor, "alpha").await;
    worker.deployed().await;
    let paused = command_sink(&supervisor, "nowhere", SinkCommand::Pause).await;
    assert!(paused.expect("it runs").paused);
    find(&supervisor, "clicks").await.kill();
    let restore = worker.deployed().await.restore;
    assert_eq!(restore.paused_sinks, [SinkIndex(0)].into());
    let logged = read_history(&(store.clone() as StoreRef)).await;
    let jobs = logged.expect("read").jobs.into_values().collect();
    let next = supervise_begun(&memory(), jobs).await;
    let mut worker = FakeWorker::join(&next, "beta").await;
    let restore = worker.deployed().await.restore;
    assert_eq!(restore.paused_sinks, [SinkIndex(0)].into());
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_does_not_exist_or_whose_job_is_stopped_is_not_paused() {
    let supervisor = supervise(&memory(), vec![job("clicks", plan(ENDLESS))]).await;
    let unknown = command_sink(&supervisor, "nowere", SinkCommand::Pause).await;
    let told = unknown.expect_err("no such sink").to_string();
    assert!(told.contains("did you mean nowhere"), "{told}");
    stop(&find(&supervisor, "clicks").await).await;
    let stopped = command_sink(&supervisor, "nowhere", SinkCommand::Pause).await;
    let told = stopped.expect_err("stopped").to_string();
    assert_eq!(told, "job clicks does not run: it is stopped");
}
