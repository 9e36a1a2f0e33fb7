//! Follows one job to its end: shows progress, and turns interrupts into an orderly stop.
//!
//! Called by `run`, where an interrupt stops the job, and by `submit --watch`, where it only ends the
//! watching; `stop` and `savepoint` show a job through it while they wait. Owns the stop call while it is
//! under way. Failure: a watch that breaks is taken up again for half a minute, in which another master may
//! have begun; then it is an error. The job itself is not touched by it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, Stream, StreamExt};
use millstream_common::client::{self, ControlClient};
use millstream_common::control::{JobView, StopMode, Stopped};
use millstream_common::ids::JobName;
use millstream_common::time::SystemClock;

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

/// How long and how often a broken watch is taken up again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
const RETRIES_MAX: u32 = 60;

/// What is done within this needs no progress.
const QUICK: Duration = Duration::from_secs(1);

type Stopping = BoxFuture<'static, Result<Stopped, client::Error>>;

/// Shows the job until it ends or an interrupt says otherwise.
pub(crate) async fn follow(
    client: &ControlClient,
    name: &JobName,
    on_interrupt: OnInterrupt,
    interrupts: &mut (impl Stream<Item = ()> + Unpin),
    progress: &mut Progress,
) -> anyhow::Result<End> {
    let mut jobs = watch(client, name);
    let mut stopping: Option<Stopping> = None;
    loop {
        tokio::select! {
            // Once the job is being stopped, the answer to that says how it ended.
            Some(snapshot) = jobs.next() => match snapshot {
                Ok(job) => {
                    progress.show(&job);
                    if job.state.is_over() && stopping.is_none() {
                        return Ok(End::Job(job));
                    }
                }
                Err(error) if stopping.is_none() => return Err(broken(error, name)),
                Err(_) => {}
            },
            Some(()) = interrupts.next() => match (on_interrupt, &stopping) {
                (OnInterrupt::Leave, _) => return Ok(End::Left),
                (OnInterrupt::Stop, Some(_)) => return Ok(End::Abandoned),
                (OnInterrupt::Stop, None) => {
                    progress.note("stopping with a last epoch; Ctrl-C again ends at once");
                    stopping = Some(stop(client, name));
                }
            },
            stopped = pending_unless(&mut stopping) => {
                return end_of_stop(client, name, stopped).await;
            }
        }
    }
}

/// Waits for what is done to a job, and shows the job meanwhile once that takes long.
pub(crate) async fn meanwhile<T>(
    client: &ControlClient,
    name: &JobName,
    doing: impl Future<Output = T>,
) -> T {
    let mut doing = std::pin::pin!(doing);
    if let Ok(done) = tokio::time::timeout(QUICK, &mut doing).await {
        return done;
    }
    let mut jobs = watch(client, name).fuse();
    let mut progress = Progress::new(Arc::new(SystemClock::new()));
    let done = loop {
        tokio::select! {
            done = &mut doing => break done,
            Some(Ok(job)) = jobs.next() => progress.show(&job),
        }
    };
    progress.finish();
    done
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
pub(crate) async fn end_of_stop(
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
        _ => Err(error.into()),
    }
}

fn broken(error: client::Error, name: &JobName) -> anyhow::Error {
    let text =
        format!("the job goes on without being watched; look at it with `millstream job {name}`");
    anyhow!(error).context(text)
}

/// The job again and again until it ends, over as many connections as it takes; an error is the last
/// item.
fn watch(
    client: &ControlClient,
    name: &JobName,
) -> BoxStream<'static, Result<JobView, client::Error>> {
    let watch = Watch {
        client: client.clone(),
        name: name.clone(),
        jobs: None,
        retry_count: 0,
        is_over: false,
    };
    stream::unfold(watch, Watch::advance).boxed()
}

struct Watch {
    client: ControlClient,
    name: JobName,
    jobs: Option<BoxStream<'static, Result<JobView, client::Error>>>,
    /// Since the last snapshot.
    retry_count: u32,
    is_over: bool,
}

impl Watch {
    async fn advance(mut self) -> Option<(Result<JobView, client::Error>, Self)> {
        while !self.is_over {
            let problem = match self.next_snapshot().await {
                Ok(Some(job)) => {
                    self.retry_count = 0;
                    self.is_over = job.state.is_over();
                    return Some((Ok(job), self));
                }
                // A master that goes down ends its watches without an error.
                Ok(None) => None,
                Err(error) => Some(error),
            };
            self.jobs = None;
            if let Some(error) = problem {
                let may_work_later = error.kind().is_retryable();
                if !may_work_later || self.retry_count == RETRIES_MAX {
                    self.is_over = true;
                    return Some((Err(error), self));
                }
            }
            self.retry_count += 1;
            tokio::time::sleep(RETRY_INTERVAL).await;
            // Another master may reign now; where none answers, the old one is asked again.
            if let Ok(client) = self.client.reconnect().await {
                self.client = client;
            }
        }
        None
    }

    async fn next_snapshot(&mut self) -> Result<Option<JobView>, client::Error> {
        if self.jobs.is_none() {
            self.jobs = Some(self.client.watch(&self.name).await?);
        }
        match &mut self.jobs {
            Some(jobs) => jobs.next().await.transpose(),
            None => Ok(None),
        }
    }
}
