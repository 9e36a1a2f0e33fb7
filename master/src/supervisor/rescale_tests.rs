//! Workers that join and leave as planned, with workers that a test speaks for: what they run moves behind an epoch, and nothing is rewound.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_common::control::{ControlError, JobState, JobView, StopMode, WorkerState};
use millstream_common::error::{Failure, Kind};
use millstream_common::ids::{Epoch, Generation, Incarnation, JobName, SinkIndex, WorkerId};
use millstream_common::link::{
    BarrierCommand, BarrierKind, Deploy, Held, JobGeneration, ToMaster, ToWorker, WorkerHello,
};
use millstream_common::log::entry::{JobEntry, JobProgress};
use millstream_common::log::{self, Entry};
use millstream_common::store::StoreRef;
use ractor::{ActorRef, call};

use super::submission::Submission;
use super::supervisor_actor::*;
use crate::job::job_actor::JobMessage;
use crate::replay::ReplayedJob;
use crate::testing::{
    Answers, ENDLESS, FakeWorker, MemoryStore, memory, plan, soon, supervise, supervise_begun,
};

fn job(sql: &str) -> JobEntry {
    JobEntry {
        job: "clicks".into(),
        incarnation: Incarnation::fresh(),
        sql: String::new(),
        plan: plan(sql),
        submitted_at_us: 0,
        submission: None,
    }
}

/// The job once everything said before has reached it.
async fn view(supervisor: &ActorRef<SupervisorMessage>) -> JobView {
    soon(async {
        call!(supervisor, SupervisorMessage::AllWorkers).expect("call");
        let found = call!(supervisor, |reply| SupervisorMessage::FindJob(
            JobName::from("clicks"),
            reply
        ));
        let job = found.expect("call").expect("the job is there");
        call!(job, JobMessage::View).expect("view")
    })
    .await
}

async fn state_of(supervisor: &ActorRef<SupervisorMessage>, worker: &str) -> WorkerState {
    let workers = call!(supervisor, SupervisorMessage::AllWorkers).expect("call");
    let known = workers.into_iter().find(|known| known.worker.0 == worker);
    known.expect("it is there").state
}

async fn assignment_count(store: &Arc<MemoryStore>) -> usize {
    let store: StoreRef = store.clone();
    let objects = log::read_all(&store).await.expect("read");
    let entries = objects.iter().flat_map(|(_, object)| &object.entries);
    entries
        .filter(|entry| matches!(entry, Entry::Assign(_)))
        .count()
}

/// All pass barriers, each with a row, up to one that ends the generation.
async fn pass_the_last_barrier(workers: &mut [&mut FakeWorker]) -> Epoch {
    loop {
        let mut passed = None;
        for worker in workers.iter_mut() {
            let (at, barrier) = worker.barrier().await;
            worker.report(&at, barrier.epoch, 1);
            passed = Some(barrier);
        }
        let passed = passed.expect("workers");
        if passed.kind == BarrierKind::Stop {
            return passed.epoch;
        }
    }
}

async fn torn_down(worker: &mut FakeWorker) -> JobGeneration {
    let torn_down = worker.frame(|frame| match frame {
        ToWorker::Teardown(at) => Some(at),
        _ => None,
    });
    torn_down.await
}

/// Waits until nothing counts on the worker; whether it was the last.
async fn released(worker: &mut FakeWorker) -> bool {
    let released = worker.frame(|frame| match frame {
        ToWorker::Released { is_last } => Some(is_last),
        ToWorker::Deploy(deploy) => panic!("deployed again: {deploy:?}"),
        _ => None,
    });
    released.await
}

fn workers_of(deploy: &Deploy) -> Vec<WorkerId> {
    deploy.assignment.workers()
}

/// Alpha and beta run the job together.
async fn two_workers(supervisor: &ActorRef<SupervisorMessage>) -> (FakeWorker, FakeWorker) {
    let mut alpha = FakeWorker::join(supervisor, "alpha").await;
    alpha.deployed().await;
    let mut beta = FakeWorker::join(supervisor, "beta").await;
    pass_the_last_barrier(&mut [&mut alpha]).await;
    alpha.deployed().await;
    beta.deployed().await;
    (alpha, beta)
}

#[tokio::test(start_paused = true)]
async fn a_leaving_worker_is_released_when_its_share_has_moved_behind_an_epoch() {
    let supervisor = supervise(&memory(), vec![job(ENDLESS)]).await;
    let (mut alpha, mut beta) = two_workers(&supervisor).await;
    beta.say(ToMaster::Leaving);
    assert_eq!(state_of(&supervisor, "beta").await, WorkerState::Draining);
    let last = pass_the_last_barrier(&mut [&mut alpha, &mut beta]).await;
    torn_down(&mut beta).await;
    assert!(!released(&mut beta).await, "alpha is there");
    let deploy = alpha.deployed().await;
    assert_eq!(deploy.restore.epoch, last);
    assert_eq!(workers_of(&deploy), ["alpha".into()]);
    assert_eq!(state_of(&supervisor, "beta").await, WorkerState::Drained);
    beta.leave();
    let view = view(&supervisor).await;
    assert_eq!((view.restarts, view.generation), (0, deploy.at.generation));
}

#[tokio::test(start_paused = true)]
async fn the_last_worker_leaves_the_job_at_an_epoch_from_which_another_goes_on() {
    let supervisor = supervise(&memory(), vec![job(ENDLESS)]).await;
    let mut alpha = FakeWorker::join(&supervisor, "alpha").await;
    alpha.deployed().await;
    alpha.say(ToMaster::Leaving);
    let last = pass_the_last_barrier(&mut [&mut alpha]).await;
    assert!(released(&mut alpha).await, "nobody else is there");
    let waiting = view(&supervisor).await;
    assert_eq!((waiting.state, waiting.epoch), (JobState::Waiting, last));
    let cause = waiting.cause.expect("why it waits");
    assert!(cause.contains("every worker is leaving"), "{cause}");
    alpha.leave();
    let mut beta = FakeWorker::join(&supervisor, "beta").await;
    assert_eq!(beta.deployed().await.restore.epoch, last);
    assert_eq!(view(&supervisor).await.restarts, 0);
}

#[tokio::test(start_paused = true)]
async fn two_that_leave_and_one_that_joins_are_one_move() {
    let store = memory();
    let supervisor = supervise(&store, vec![job(ENDLESS)]).await;
    let (mut alpha, mut beta) = two_workers(&supervisor).await;
    let before = assignment_count(&store).await;
    alpha.say(ToMaster::Leaving);
    beta.say(ToMaster::Leaving);
    let mut gamma = FakeWorker::join(&supervisor, "gamma").await;
    let last = pass_the_last_barrier(&mut [&mut alpha, &mut beta]).await;
    let deploy = gamma.deployed().await;
    assert_eq!(deploy.restore.epoch, last);
    assert_eq!(workers_of(&deploy), ["gamma".into()]);
    assert_eq!(assignment_count(&store).await, before + 1);
    assert!(!released(&mut alpha).await && !released(&mut beta).await);
    assert_eq!(view(&supervisor).await.restarts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_a_peer_tells_of_before_the_master_sees_it_is_one_restart() {
    let store = memory();
    let supervisor = supervise(&store, vec![job(ENDLESS)]).await;
    let (mut alpha, mut beta) = two_workers(&supervisor).await;
    let (at, _) = beta.barrier().await;
    alpha.barrier().await;
    store.answer(Answers::AllBut("log/"));
    let failure = Failure {
        kind: Kind::External,
        origin: "exchange".to_owned(),
        cause: "lost worker beta".to_owned(),
    };
    alpha.say(ToMaster::PipelineFailed(at, failure));
    torn_down(&mut alpha).await;
    beta.leave();
    assert_eq!(view(&supervisor).await.restarts, 1);
    store.answer(Answers::All);
    let deploy = alpha.deployed().await;
    assert_eq!(workers_of(&deploy), ["alpha".into()]);
    assert_eq!(view(&supervisor).await.restarts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_while_it_is_leaving_is_lost_like_any_other() {
    let supervisor = supervise(&memory(), vec![job(ENDLESS)]).await;
    let (mut alpha, mut beta) = two_workers(&supervisor).await;
    let committed = view(&supervisor).await.epoch;
    beta.say(ToMaster::Leaving);
    beta.barrier().await;
    beta.leave();
    let deploy = alpha.deployed().await;
    assert_eq!(deploy.restore.epoch, committed, "a rewind");
    assert_eq!(workers_of(&deploy), ["alpha".into()]);
    assert_eq!(view(&supervisor).await.restarts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_leaves_while_the_input_ends_is_released_though_a_sink_still_lags() {
    let supervisor = supervise(&memory(), vec![job(ENDLESS)]).await;
    let (mut alpha, mut beta) = two_workers(&supervisor).await;
    let (at, barrier) = alpha.barrier().await;
    beta.barrier().await;
    beta.say(ToMaster::Leaving);
    let found = call!(supervisor, |reply| SupervisorMessage::FindJob(
        "clicks".into(),
        reply
    ));
    let clicks = found.expect("call").expect("the job is there");
    let mode = StopMode::Drain;
    let (stopped, _) = tokio::sync::oneshot::channel();
    let reply = stopped.into();
    clicks
        .cast(JobMessage::Stop { mode, reply })
        .expect("it lives");
    // The move is due by now, and waits for the barrier under way.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    for worker in [&mut alpha, &mut beta] {
        worker.report(&at, barrier.epoch, 1);
    }
    pass_the_last_barrier(&mut [&mut alpha, &mut beta]).await;
    assert!(!released(&mut beta).await, "alpha is there");
    assert_eq!(workers_of(&alpha.deployed().await), ["alpha".into()]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_job_is_placed_anew_waits_until_sinks_hold_the_last_epoch() {
    let supervisor = supervise(&memory(), vec![job(ENDLESS)]).await;
    let mut alpha = FakeWorker::join(&supervisor, "alpha").await;
    alpha.deployed().await;
    let mut beta = FakeWorker::join(&supervisor, "beta").await;
    let moved_behind = pass_the_last_barrier(&mut [&mut alpha]).await;
    let at = alpha.frame(|frame| match frame {
        ToWorker::Deploy(deploy) => Some(deploy.at),
        _ => None,
    });
    let at = at.await;
    let found = call!(supervisor, |reply| SupervisorMessage::FindJob(
        "clicks".into(),
        reply
    ));
    let clicks = found.expect("call").expect("the job is there");
    let stopped = super::tests::stop(&clicks);
    let (stopped, last) = tokio::join!(stopped, async {
        assert_eq!(view(&supervisor).await.state, JobState::Deploying);
        alpha.say(ToMaster::Deployed(at.clone()));
        beta.deployed().await;
        let last = pass_the_last_barrier(&mut [&mut alpha, &mut beta]).await;
        while alpha.committed().await.1 < last {}
        alpha.say(ToMaster::SinkAdvanced {
            at,
            sink: SinkIndex(0),
            marker: last,
            dropped_count: 0,
        });
        last
    });
    assert!(last > moved_behind);
    assert_eq!(stopped.job.state, JobState::Stopped);
    assert_eq!(
        (stopped.job.epoch, stopped.lagging_sinks),
        (last, Vec::new())
    );
}

#[tokio::test(start_paused = true)]
async fn joins_are_gathered_for_a_second_and_do_not_wait_for_the_interval() {
    let sql = format!("SET checkpoint_interval = '1 minute'; {ENDLESS}");
    let supervisor = supervise(&memory(), vec![job(&sql)]).await;
    let mut alpha = FakeWorker::join(&supervisor, "alpha").await;
    alpha.deployed().await;
    // The first intervals of a generation are short; these rows come when they are over.
    let settled = tokio::time::Instant::now() + std::time::Duration::from_secs(300);
    while tokio::time::Instant::now() < settled {
        let (at, barrier) = alpha.barrier().await;
        assert_eq!(barrier.kind, BarrierKind::Checkpoint);
        alpha.report(&at, barrier.epoch, 1);
    }
    let begun = tokio::time::Instant::now();
    let mut beta = FakeWorker::join(&supervisor, "beta").await;
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    let mut gamma = FakeWorker::join(&supervisor, "gamma").await;
    pass_the_last_barrier(&mut [&mut alpha]).await;
    let deploy = beta.deployed().await;
    assert_eq!(gamma.deployed().await.at, deploy.at);
    assert!(begun.elapsed() < std::time::Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_drained_worker_is_told_and_given_nothing_until_it_goes() {
    let supervisor = supervise(&memory(), vec![job(ENDLESS)]).await;
    let (mut alpha, mut beta) = two_workers(&supervisor).await;
    let drain = |worker: &str| {
        let (supervisor, worker) = (supervisor.clone(), WorkerId::from(worker));
        async move {
            let drained = call!(supervisor, |reply| SupervisorMessage::DrainWorker(
                worker.clone(),
                reply
            ));
            drained.expect("call")
        }
    };
    let Err(ControlError::Invalid(refused)) = drain("bata").await else {
        panic!("there is no such worker");
    };
    assert!(refused.contains("did you mean beta?"), "{refused}");
    drain("beta").await.expect("it is there");
    pass_the_last_barrier(&mut [&mut alpha, &mut beta]).await;
    released(&mut beta).await;
    alpha.deployed().await;
    let submission = Box::new(Submission {
        job: "more".into(),
        sql: String::new(),
        plan: plan(ENDLESS),
        fresh: false,
        from: None,
        trace: Default::default(),
        id: None,
    });
    let started = call!(supervisor, |reply| SupervisorMessage::Submit {
        submission,
        reply
    });
    started.expect("call").expect("submitted");
    let deploy = alpha.deployed().await;
    assert_eq!(workers_of(&deploy), ["alpha".into()]);
    assert_eq!(state_of(&supervisor, "beta").await, WorkerState::Drained);
    // When its process is to end, it asks and may go at once.
    beta.say(ToMaster::Leaving);
    assert!(!released(&mut beta).await);
}

#[tokio::test(start_paused = true)]
async fn a_new_master_goes_on_with_what_a_leaving_worker_holds_and_then_moves_it() {
    let entry = job(ENDLESS);
    let workers = ["alpha", "beta"].map(|worker| crate::assign::Candidate {
        worker: worker.into(),
        slots: 1,
    });
    let begun = ReplayedJob {
        assignment: Some(crate::assign::assign(
            &entry.plan,
            &workers,
            &BTreeMap::new(),
        )),
        progress: JobProgress {
            epoch: Epoch(5),
            ..JobProgress::default()
        },
        end: None,
        savepoints: BTreeMap::new(),
        generation: Generation(7),
        entry,
        letters: Default::default(),
        retold: Default::default(),
    };
    let held = |worker: &str, is_leaving| WorkerHello {
        worker: worker.into(),
        process: worker.to_owned(),
        flight_address: format!("{worker}:1"),
        slots: 1,
        version: "0".to_owned(),
        held: vec![Held {
            at: JobGeneration {
                job: "clicks".into(),
                generation: Generation(7),
            },
            incarnation: begun.entry.incarnation,
            restored: Epoch(0),
            barrier: Some(BarrierCommand {
                epoch: Epoch(5),
                kind: BarrierKind::Checkpoint,
                watermarks: BTreeMap::new(),
            }),
            committed: Epoch(5),
            given: Vec::new(),
        }],
        is_leaving,
    };
    let supervisor = supervise_begun(&memory(), vec![begun.clone()]).await;
    let mut beta = FakeWorker::join_as(&supervisor, held("beta", true)).await;
    let mut alpha = FakeWorker::join_as(&supervisor, held("alpha", false)).await;
    let last = pass_the_last_barrier(&mut [&mut alpha, &mut beta]).await;
    let at = torn_down(&mut beta).await;
    assert_eq!(at.generation, Generation(7), "no rewind");
    assert!(!released(&mut beta).await);
    let deploy = alpha.deployed().await;
    assert_eq!(deploy.restore.epoch, last);
    assert_eq!(workers_of(&deploy), ["alpha".into()]);
}
