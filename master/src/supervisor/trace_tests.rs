//! Traces of jobs as their workers and masters come and go: none is without its root.

use std::sync::Arc;

use millstream_common::ids::{Epoch, Generation};
use millstream_common::link::ToWorker;
use millstream_common::time::{ClockRef, SystemClock};
use millstream_common::trace::Span;

use super::submission::Submission;
use super::supervisor_actor::SupervisorMessage;
use super::tests::{begun, held, is};
use crate::submission_trace::SubmissionTrace;
use crate::testing::{ENDLESS, FakeWorker, KeptSpans, memory, plan, soon, supervise_traced};

/// The root of that name, with everything below it.
fn trace(kept: &KeptSpans, name: &str) -> Option<(Span, Vec<&'static str>)> {
    let spans = kept.spans();
    let root = spans
        .iter()
        .find(|span| span.parent == 0 && span.name == name)?;
    let below = spans.iter().filter(|span| span.parent == root.context.span);
    Some((root.clone(), below.map(|span| span.name).collect()))
}

#[tokio::test(start_paused = true)]
async fn a_submission_whose_caller_hangs_up_goes_on_and_has_its_root() {
    let (supervisor, kept) = supervise_traced(&memory(), Vec::new()).await;
    let clock: ClockRef = Arc::new(SystemClock::new());
    let job = "clicks".into();
    let submission = Submission {
        id: None,
        trace: SubmissionTrace::begin(kept.clone(), clock, &job),
        job,
        sql: String::new(),
        plan: plan(ENDLESS),
        fresh: false,
        from: None,
    };
    let (reply, answer) = ractor::concurrency::oneshot();
    drop(answer);
    let message = SupervisorMessage::Submit {
        submission: Box::new(submission),
        reply: reply.into(),
    };
    supervisor.cast(message).expect("it lives");
    let mut worker = FakeWorker::join(&supervisor, "alpha").await;
    worker.deployed().await;
    worker.barrier().await;
    let (root, below) = trace(&kept, "submit").expect("a root");
    assert_eq!(root.error, None);
    assert_eq!(below, ["plan", "record", "assign", "deploy"]);
}

#[tokio::test(start_paused = true)]
async fn a_takeover_that_goes_on_with_an_open_barrier_is_a_trace_and_its_epoch_is_whole() {
    let job = begun();
    let (supervisor, kept) = supervise_traced(&memory(), vec![job.clone()]).await;
    let mut alpha = FakeWorker::join_holding(&supervisor, "alpha", held(&job, 7, 5)).await;
    let mut beta = FakeWorker::join_holding(&supervisor, "beta", held(&job, 7, 6)).await;
    let at = held(&job, 7, 5)[0].at.clone();
    for worker in [&mut alpha, &mut beta] {
        worker.frame(is(ToWorker::Resume(at.clone()))).await;
        let (at, barrier) = worker.barrier().await;
        worker.report(&at, barrier.epoch, 5);
    }
    assert_eq!(alpha.committed().await, (Generation(7), Epoch(6)));
    let (root, below) = trace(&kept, "takeover").expect("a root");
    assert_eq!(root.error, None);
    assert_eq!(below, ["reattach", "first_epoch"]);
    let (_, below) = trace(&kept, "epoch").expect("a root");
    assert_eq!(below, ["collect", "commit"]);
}

#[tokio::test(start_paused = true)]
async fn a_recovery_of_a_job_that_has_read_everything_is_over_when_it_is_built() {
    let mut job = begun();
    job.progress.drained = true;
    let (supervisor, kept) = supervise_traced(&memory(), vec![job]).await;
    let mut lost = FakeWorker::join(&supervisor, "alpha").await;
    lost.deployed().await;
    lost.leave();
    let mut worker = FakeWorker::join(&supervisor, "beta").await;
    worker.deployed().await;
    let is_over = || trace(&kept, "recovery");
    soon(async {
        while is_over().is_none() {
            tokio::task::yield_now().await
        }
    })
    .await;
    let (root, below) = is_over().expect("a root");
    assert_eq!(root.error, None);
    assert_eq!(below, ["detect", "assign", "deploy", "first_epoch"]);
}
