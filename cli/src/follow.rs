//! Follows one job to its end: shows progress, and turns interrupts into an orderly stop.
//!
//! Called by `run`, where an interrupt stops the job, and by `submit --watch`, where it only ends the
//! watching. Owns the stop call while it is under way. Failure: a broken watch is an error; the job
//! itself is not touched by it.

use anyhow::{Context, anyhow};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, StreamExt};
use millstream_common::client::{self, ControlClient};
use millstream_common::control::{JobView, StopMode, Stopped};
use millstream_common::ids::JobName;

use crate::progress::Progress;

/// What an interrupt means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnInterrupt {
    /// Stop the job with a last, delivered epoch; a second interrupt gives that up.
    Stop,
    /// Leave the job alone and watch no longer.
    Leave,
}

/// How following a job came to its end.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// The job ended by itself.
    Job(JobView),
    /// The job was stopped by an interrupt.
    Stopped(Stopped),
    /// An interrupt ended the watching.
    Left,
    /// A second interrupt came while the job was being stopped.
    Abandoned,
}

type Stopping = BoxFuture<'static, Result<Stopped, client::Error>>;

/// Shows the job until it ends or an interrupt says otherwise.
pub(crate) async fn follow(
    client: &ControlClient,
    name: &JobName,
    on_interrupt: OnInterrupt,
    interrupts: &mut BoxStream<'static, ()>,
    progress: &mut Progress,
) -> anyhow::Result<End> {
    let mut jobs = client.watch(name).await?.fuse();
    let mut stopping: Option<Stopping> = None;
    loop {
        tokio::select! {
            snapshot = jobs.next(), if !jobs.is_done() => match snapshot {
                Some(Ok(job)) => {
                    progress.show(&job);
                    if job.state.is_over() && stopping.is_none() {
                        return Ok(End::Job(job));
                    }
                }
                Some(Err(error)) if stopping.is_none() => return Err(broken(error, name)),
                None if stopping.is_none() => return Err(ended_early(name)),
                // The answer to the stop says how the job ended.
                Some(Err(_)) | None => {}
            },
            Some(()) = interrupts.next() => match (on_interrupt, &stopping) {
                (OnInterrupt::Leave, _) => return Ok(End::Left),
                (OnInterrupt::Stop, Some(_)) => return Ok(End::Abandoned),
                (OnInterrupt::Stop, None) => stopping = Some(stop(client, name)),
            },
            stopped = pending_unless(&mut stopping) => {
                return end_of_stop(client, name, stopped).await;
            }
        }
    }
}

fn stop(client: &ControlClient, name: &JobName) -> Stopping {
    let client = client.clone();
    let name = name.clone();
    async move { client.stop(&name, StopMode::Stop).await }.boxed()
}

async fn pending_unless(stopping: &mut Option<Stopping>) -> Result<Stopped, client::Error> {
    match stopping {
        Some(stopping) => stopping.await,
        None => std::future::pending().await,
    }
}

/// A job that ended by itself just before the stop arrived has no stop to report.
async fn end_of_stop(
    client: &ControlClient,
    name: &JobName,
    stopped: Result<Stopped, client::Error>,
) -> anyhow::Result<End> {
    let error = match stopped {
        Ok(stopped) => return Ok(End::Stopped(stopped)),
        Err(error) => error,
    };
    match client.job(name).await {
        Ok(job) if job.state.is_over() => Ok(End::Job(job)),
        _ => Err(error).context("stop job"),
    }
}

fn broken(error: client::Error, name: &JobName) -> anyhow::Error {
    let text =
        format!("the job goes on without being watched; look at it with `millstream job {name}`");
    anyhow!(error).context(text)
}

fn ended_early(name: &JobName) -> anyhow::Error {
    anyhow!(
        "the master ended while the job was being watched; the job goes on with the next master: \
         `millstream job {name}`"
    )
}
