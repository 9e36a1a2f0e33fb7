//! A client of the control API: one method per call, plain results, a deadline on each.
//!
//! Called by the command line and by tests. Owns a channel that reconnects by itself. Failure: a
//! refusal of the master is the same [`ControlError`] that the master made; everything else names
//! the address and the next step.

mod dead_letters;

use std::fmt;
use std::time::Duration;

use futures::stream::{BoxStream, FuturesUnordered, StreamExt};
use millstream_proto::v1::{self, control_client};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::control::{
    CheckpointView, ControlError, JobView, SinkCommand, SinkView, StopMode, Stopped, SubmitRequest,
    Submitted, WorkerView,
};
use crate::error::Kind;
use crate::grpc::{self, Malformed};
use crate::ids::{JobName, WorkerId};
use crate::net::{self, NetRef};

mod savepoints;
mod watermarks;

/// For calls that only look: the master answers from memory.
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// Planning talks to brokers and databases, each at most ten seconds.
const SUBMIT_DEADLINE: Duration = Duration::from_secs(60);
/// The master waits thirty seconds for sinks to hold the last epoch, then answers anyway.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// An address has this long to answer.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// The others have this long once one has refused.
const OTHERS_DEADLINE: Duration = Duration::from_secs(1);
/// A standby reigns within this once the active master is gone; the usual takeover takes two seconds.
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks for a master during a takeover.
const TAKEOVER_RETRY_INTERVAL: Duration = Duration::from_millis(200);
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
        "no master answers: {causes}; start one with `millstream master`, or name another with \
         --master or MILLSTREAM_MASTER"
    )]
    Unreachable {
        /// Each address with what went wrong there.
        causes: String,
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
            | Self::Broken { .. } => Kind::External,
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

/// What a master is, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It answers for the cluster.
    Active,
    /// It would take over.
    Standby {
        /// The address of the active one, as far as it knows.
        active: Option<String>,
    },
}

impl ControlClient {
    /// Connects as [`Self::connect`] does; as long as masters answer and none of them reigns, a takeover is waited for.
    pub async fn find(net: NetRef, addresses: &str) -> Result<Self, Error> {
        let mut vacant = match Self::connect(net.clone(), addresses).await {
            Err(error @ Error::Vacant { .. }) => error,
            settled => return settled,
        };
        let look = async {
            loop {
                tokio::time::sleep(TAKEOVER_RETRY_INTERVAL).await;
                match Self::connect(net.clone(), addresses).await {
                    Err(error @ Error::Vacant { .. }) => vacant = error,
                    settled => return settled,
                }
            }
        };
        match tokio::time::timeout(TAKEOVER_PATIENCE, look).await {
            Ok(settled) => settled,
            Err(_) => Err(vacant),
        }
    }

    /// What the master at `address` is; an error says why it does not answer.
    pub async fn role(net: NetRef, address: &str) -> Result<Role, String> {
        match Self::try_address(net, address.to_owned()).await {
            Ok(_) => Ok(Role::Active),
            Err(refusal) if refusal.stands_by => Ok(Role::Standby {
                active: refusal.active,
            }),
            Err(refusal) => Err(refusal.cause),
        }
    }

    /// Connects to the one of `addresses` (separated by commas) that answers as the active master. All are asked at once, for one
    /// that hangs must not hide the next; where one that stands by names the active one, that is asked too.
    pub async fn connect(net: NetRef, addresses: &str) -> Result<Self, Error> {
        let named = addresses.split(',').map(str::trim);
        let mut asked: Vec<String> = Vec::new();
        for address in named.filter(|address| !address.is_empty()) {
            if !asked.iter().any(|known| known == address) {
                asked.push(address.to_owned());
            }
        }
        let mut tries: FuturesUnordered<_> = asked
            .iter()
            .map(|address| Self::try_address(net.clone(), address.clone()))
            .collect();
        let mut causes = Vec::new();
        let mut is_vacant = false;
        // Once one has answered, one that hangs is not waited for as long as if it were the only one.
        let patience = |refused: usize| match refused {
            0 => CONNECT_DEADLINE,
            _ => OTHERS_DEADLINE,
        };
        while let Ok(Some(tried)) = tokio::time::timeout(patience(causes.len()), tries.next()).await
        {
            let refusal = match tried {
                Ok((client, address)) => {
                    return Ok(Self {
                        client,
                        address,
                        net,
                        addresses: asked.join(","),
                    });
                }
                Err(refusal) => refusal,
            };
            if let Some(active) = refusal.active
                && !asked.contains(&active)
            {
                asked.push(active.clone());
                tries.push(Self::try_address(net.clone(), active));
            }
            is_vacant |= refusal.stands_by;
            causes.push((refusal.address, refusal.cause));
        }
        let told = asked.iter().map(|address| {
            let cause = causes.iter().find(|(refused, _)| refused == address);
            let cause = cause.map_or("no answer", |(_, cause)| cause);
            format!("{address} ({cause})")
        });
        let causes = match asked.is_empty() {
            true => "no address is given".to_owned(),
            false => told.collect::<Vec<_>>().join(", "),
        };
        Err(match is_vacant {
            true => Error::Vacant { causes },
            false => Error::Unreachable { causes },
        })
    }

    /// A connection alone proves little: the smallest call shows that an active master is behind it.
    async fn try_address(
        net: NetRef,
        address: String,
    ) -> Result<(control_client::ControlClient<Channel>, String), Refusal> {
        let refusal = |cause: String| Refusal {
            address: address.clone(),
            cause,
            stands_by: false,
            active: None,
        };
        let channel =
            net::channel(&net, &address).map_err(|error| refusal(crate::error::chain(&error)))?;
        let client =
            control_client::ControlClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let mut probe = client.clone();
        let answer = probe.list_workers(v1::ListWorkersRequest {});
        match tokio::time::timeout(CONNECT_DEADLINE, answer).await {
            Ok(Ok(_)) => Ok((client, address)),
            Ok(Err(status)) => Err(match grpc::from_status(&status) {
                Some(ControlError::Unavailable { cause, active }) => Refusal {
                    stands_by: true,
                    active,
                    ..refusal(cause)
                },
                _ => refusal(grpc::in_plain_words(&status)),
            }),
            Err(_) => {
                let cause = format!("no answer in {} s", CONNECT_DEADLINE.as_secs());
                Err(refusal(cause))
            }
        }
    }

    /// A client of the master that is active now.
    pub async fn reconnect(&self) -> Result<Self, Error> {
        Self::connect(self.net.clone(), &self.addresses).await
    }

    /// The address that answered.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Plans, checks and starts a job.
    pub async fn submit(&self, request: SubmitRequest) -> Result<Submitted, Error> {
        let mut client = self.client.clone();
        let answer = client.submit_job(timed(request.into(), SUBMIT_DEADLINE));
        let response = self.within("submit job", SUBMIT_DEADLINE, answer).await?;
        Ok(response.try_into()?)
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
            None => Error::Broken {
                call,
                address: self.address.clone(),
                cause: grpc::in_plain_words(&status),
            },
        }
    }
}

/// Why an address is not that of the active master.
struct Refusal {
    address: String,
    cause: String,
    /// It is a master, but does not reign now.
    stands_by: bool,
    /// Where one that stands by sends its callers.
    active: Option<String>,
}

/// A request that tells the master how long its answer is waited for.
fn timed<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}
