//! A client of the control API: one method per call, plain results, a deadline on each.
//!
//! Called by the command line and by tests. Owns a channel that reconnects by itself. Failure: a
//! refusal of the master is the same [`ControlError`] that the master made; everything else names
//! the address and the next step.

mod connect;
mod dead_letters;
mod plan;
mod preview;
mod savepoints;
mod submit;
mod watermarks;

use std::fmt;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use millstream_proto::v1::{self, control_client};
use tonic::{Code, Request, Response, Status};

pub use connect::Role;

use crate::control::{
    CheckpointView, ControlError, JobView, RewindTerms, SinkCommand, SinkView, StopMode, Stopped,
    WorkerView,
};
use crate::error::Kind;
use crate::grpc::{self, Malformed};
use crate::ids::{JobName, WorkerId};
use crate::net::{Channel, NetRef};

/// For calls that only look: the master answers from memory.
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// Planning talks to brokers and databases, each at most ten seconds.
const SUBMIT_DEADLINE: Duration = Duration::from_secs(60);
/// The master waits thirty seconds for sinks to hold the last epoch, then answers anyway.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// Answers are lists of jobs, workers or epochs: far below this.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What a call can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The master refuses.
    #[error(transparent)]
    Refused(#[from] ControlError),
    /// No address answers as a master.
    #[error(
        "no master answers: {causes}; start one with `millstream master`, name another with \
         --master or MILLSTREAM_MASTER, or, where it speaks TLS, its authority with --tls-ca"
    )]
    Unreachable {
        /// Each address with what went wrong there.
        causes: String,
    },
    /// A master answers, and does not let this caller in, or not so far.
    #[error("the master at {address} refuses: {cause}")]
    Denied {
        /// Which one.
        address: String,
        /// What it misses, and the next step.
        cause: String,
    },
    /// Masters answer, but all of them stand by or are ending.
    #[error(
        "no master reigns: {causes}; one that stands by takes over within seconds of the last sign of the active one: \
         try again, or look at its log"
    )]
    Vacant {
        /// Each address with what it says.
        causes: String,
    },
    /// The deadline passed; whether the call had its effect is unknown.
    #[error("{call}: the master at {address} did not answer within {seconds} s; try again")]
    TimedOut {
        /// What was asked.
        call: &'static str,
        /// Of whom.
        address: String,
        /// For how long.
        seconds: u64,
    },
    /// The connection broke, or something that is no master answered.
    #[error("{call}: the master at {address} failed: {cause}")]
    Broken {
        /// What was asked.
        call: &'static str,
        /// Of whom.
        address: String,
        /// What the transport says.
        cause: String,
    },
    /// Every try of a submission was lost: whether the job was taken is unknown.
    #[error(
        "whether job {name} was taken is not known ({cause}); submit it again: a job that runs as it is submitted is left as it is; \
         or look at it with `millstream job {name}`"
    )]
    Unsettled {
        /// The job.
        name: String,
        /// What became of the last try.
        cause: String,
    },
    /// The answer breaks the contract.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Error {
    /// Who has to act.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused(error) => error.kind(),
            Self::Unreachable { .. }
            | Self::Vacant { .. }
            | Self::TimedOut { .. }
            | Self::Broken { .. }
            | Self::Unsettled { .. } => Kind::External,
            Self::Denied { .. } => Kind::User,
            Self::Malformed(_) => Kind::Internal,
        }
    }
}

/// Talks to one master. Clones share the connection.
#[derive(Clone)]
pub struct ControlClient {
    client: control_client::ControlClient<Channel>,
    address: String,
    net: NetRef,
    /// Where the active master may be.
    addresses: String,
}

impl fmt::Debug for ControlClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "ControlClient({} of {})",
            self.address, self.addresses
        )
    }
}

impl ControlClient {
    /// A client of the master that is active now.
    pub async fn reconnect(&self) -> Result<Self, Error> {
        Self::connect(self.net.clone(), &self.addresses).await
    }

    /// The address that answered.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends a job; answers when its last epoch is delivered, or when waiting for that was given up.
    pub async fn stop(&self, name: &JobName, mode: StopMode) -> Result<Stopped, Error> {
        let request = v1::StopJobRequest {
            name: name.0.clone(),
            mode: v1::StopMode::from(mode).into(),
        };
        let mut client = self.client.clone();
        let answer = client.stop_job(timed(request, STOP_DEADLINE));
        let response = self.within("stop job", STOP_DEADLINE, answer).await?;
        Ok(response.try_into()?)
    }

    /// One job as it is now.
    pub async fn job(&self, name: &JobName) -> Result<JobView, Error> {
        let request = v1::GetJobRequest {
            name: name.0.clone(),
        };
        let mut client = self.client.clone();
        let answer = client.get_job(timed(request, READ_DEADLINE));
        let response = self.within("get job", READ_DEADLINE, answer).await?;
        Ok(grpc::job(response.job)?)
    }

    /// All jobs of the cluster, by name.
    pub async fn jobs(&self) -> Result<Vec<JobView>, Error> {
        let mut client = self.client.clone();
        let answer = client.list_jobs(timed(v1::ListJobsRequest {}, READ_DEADLINE));
        let response = self.within("list jobs", READ_DEADLINE, answer).await?;
        let jobs = response.jobs.into_iter().map(JobView::try_from);
        Ok(jobs.collect::<Result<_, _>>()?)
    }

    /// One job again and again until it ends.
    pub async fn watch(
        &self,
        name: &JobName,
    ) -> Result<BoxStream<'static, Result<JobView, Error>>, Error> {
        let request = v1::WatchJobRequest {
            name: name.0.clone(),
        };
        let mut client = self.client.clone();
        let answer = client.watch_job(Request::new(request));
        let snapshots = self.within("watch job", READ_DEADLINE, answer).await?;
        let watcher = self.clone();
        let jobs = snapshots.map(move |snapshot| {
            let snapshot = snapshot.map_err(|status| watcher.failure("watch job", status))?;
            Ok(grpc::job(snapshot.job)?)
        });
        Ok(jobs.boxed())
    }

    /// The workers that have joined and what they run.
    pub async fn workers(&self) -> Result<Vec<WorkerView>, Error> {
        let mut client = self.client.clone();
        let answer = client.list_workers(timed(v1::ListWorkersRequest {}, READ_DEADLINE));
        let response = self.within("list workers", READ_DEADLINE, answer).await?;
        Ok(response.workers.into_iter().map(WorkerView::from).collect())
    }

    /// Gives a worker no more tasks; the worker as it is then.
    pub async fn drain_worker(&self, worker: &WorkerId) -> Result<WorkerView, Error> {
        let request = v1::DrainWorkerRequest {
            id: worker.0.clone(),
        };
        let mut client = self.client.clone();
        let answer = client.drain_worker(timed(request, READ_DEADLINE));
        let response = self.within("drain worker", READ_DEADLINE, answer).await?;
        Ok(WorkerView::from(response.worker.unwrap_or_default()))
    }

    /// The newest `limit` epochs of a job, newest first.
    pub async fn checkpoints(
        &self,
        name: &JobName,
        limit: u32,
    ) -> Result<Vec<CheckpointView>, Error> {
        let request = v1::ListCheckpointsRequest {
            name: name.0.clone(),
            limit,
        };
        let mut client = self.client.clone();
        let answer = client.list_checkpoints(timed(request, READ_DEADLINE));
        let response = self
            .within("list checkpoints", READ_DEADLINE, answer)
            .await?;
        let checkpoints = response.checkpoints.into_iter().map(CheckpointView::from);
        Ok(checkpoints.collect())
    }

    /// Pauses or resumes a sink; the sink as it is then.
    pub async fn command_sink(
        &self,
        name: &JobName,
        sink: &str,
        command: SinkCommand,
    ) -> Result<SinkView, Error> {
        let (name, sink) = (name.0.clone(), sink.to_owned());
        let mut client = self.client.clone();
        let answered = match command {
            SinkCommand::Pause => {
                let request = timed(v1::PauseSinkRequest { name, sink }, READ_DEADLINE);
                let answer = client.pause_sink(request);
                let answer = self.within("pause sink", READ_DEADLINE, answer).await?;
                answer.sink
            }
            SinkCommand::Resume => {
                let request = timed(v1::ResumeSinkRequest { name, sink }, READ_DEADLINE);
                let answer = client.resume_sink(request);
                let answer = self.within("resume sink", READ_DEADLINE, answer).await?;
                answer.sink
            }
        };
        Ok(SinkView::from(answered.unwrap_or_default()))
    }

    /// Sends a sink back to an earlier epoch; the sink as it is then.
    pub async fn rewind_sink(
        &self,
        name: &JobName,
        sink: &str,
        terms: RewindTerms,
    ) -> Result<SinkView, Error> {
        let request = v1::RewindSinkRequest {
            name: name.0.clone(),
            sink: sink.to_owned(),
            to: terms.to.map(|to| to.0),
            may_duplicate: terms.may_duplicate,
        };
        let mut client = self.client.clone();
        let answer = client.rewind_sink(timed(request, READ_DEADLINE));
        let answer = self.within("rewind sink", READ_DEADLINE, answer).await?;
        Ok(SinkView::from(answer.sink.unwrap_or_default()))
    }

    async fn within<T>(
        &self,
        call: &'static str,
        deadline: Duration,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            // tonic says "cancelled" where a deadline passes.
            Ok(Err(status))
                if matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded) =>
            {
                Err(self.timed_out(call, deadline))
            }
            Ok(Err(status)) => Err(self.failure(call, status)),
            Err(_) => Err(self.timed_out(call, deadline)),
        }
    }

    fn timed_out(&self, call: &'static str, deadline: Duration) -> Error {
        Error::TimedOut {
            call,
            address: self.address.clone(),
            seconds: deadline.as_secs(),
        }
    }

    fn failure(&self, call: &'static str, status: Status) -> Error {
        match grpc::from_status(&status) {
            Some(refusal) => Error::Refused(refusal),
            None if is_denial(&status) => Error::Denied {
                address: self.address.clone(),
                cause: status.message().to_owned(),
            },
            None => Error::Broken {
                call,
                address: self.address.clone(),
                cause: grpc::in_plain_words(&status),
            },
        }
    }
}

/// The caller has to show something else; to try again is of no use.
fn is_denial(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unauthenticated | Code::PermissionDenied
    )
}

/// A request that tells the master how long its answer is waited for.
fn timed<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}
