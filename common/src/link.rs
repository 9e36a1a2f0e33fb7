//! The frames of the stream between a worker and its master, as plain types.
//!
//! Used by `master/src/cluster` and `worker/src/link`; the generated types stop here. Compound documents
//! travel as JSON in the form of the log. Failure: a frame that does not decode is a broken peer; the
//! link is closed with [`FrameError`].

use std::collections::BTreeMap;

use millstream_proto::v1;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Failure;
use crate::ids::{
    Epoch, Generation, Incarnation, JobName, SinkIndex, SourceIndex, SplitId, Term, WorkerId,
};
use crate::log::entry::{Assignment, CommittedEpoch};
use crate::plan::JobPlan;
use crate::report::{AssignedSplit, PipelineReport, Refusal, RestorePoint, SplitProgress};
use crate::time::EventTime;

/// A frame that is not what the contract says.
#[derive(Debug, thiserror::Error)]
#[error("read link frame: {0}")]
pub struct FrameError(String);

/// One assignment of one job: what every frame about a job names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobGeneration {
    /// The job.
    pub job: JobName,
    /// Frames of an older one are dropped (INV-4).
    pub generation: Generation,
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq)]
pub enum ToMaster {
    /// First frame.
    Hello(WorkerHello),
    /// I am alive.
    Heartbeat,
    /// The tasks are built and wait for Start.
    Deployed(JobGeneration),
    /// The barrier has passed all tasks here, and what they wrote is durable.
    Snapshotted(JobGeneration, Box<PipelineReport>),
    /// The pipeline has ended by itself.
    PipelineFailed(JobGeneration, Failure),
    /// A sink holds everything up to `marker`.
    SinkAdvanced {
        /// Whose.
        at: JobGeneration,
        /// Which sink.
        sink: SinkIndex,
        /// What it holds.
        marker: Epoch,
        /// Rows it took since the last report.
        row_count: u64,
    },
    /// A sink retries or is suspended; an empty cause means that it is well again.
    SinkTroubled {
        /// Whose.
        at: JobGeneration,
        /// Which sink.
        sink: SinkIndex,
        /// Why.
        cause: String,
        /// It waits for a person.
        suspended: bool,
    },
    /// A sink refused rows and waits with its run until the log says so. Said again until it does.
    SinkRefused(JobGeneration, Box<Refusal>),
    /// Nothing of the generation is left.
    TornDown(JobGeneration),
}

/// Who a worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerHello {
    /// The name it gave itself.
    pub worker: WorkerId,
    /// Where other workers reach its Flight server.
    pub flight_address: String,
    /// Tasks of each stage that it runs.
    pub slots: u32,
    /// Of the program.
    pub version: String,
}

/// What a master says.
#[derive(Clone, Debug, PartialEq)]
pub enum ToWorker {
    /// First frame.
    Welcome {
        /// The master's reign.
        term: Term,
        /// Where state and segments go.
        storage_url: String,
    },
    /// Build the tasks of a generation.
    Deploy(Box<Deploy>),
    /// All workers have deployed: read.
    Start(JobGeneration),
    /// Cut the streams.
    Barrier(JobGeneration, BarrierCommand),
    /// An epoch is in the log.
    EpochCommitted {
        /// Whose.
        at: JobGeneration,
        /// For the sinks.
        epoch: CommittedEpoch,
        /// For outside tools: positions of the splits that moved.
        positions: SplitPositions,
    },
    /// Splits found while the job runs.
    AssignSplits(JobGeneration, Vec<AssignedSplit>),
    /// End everything of the generation.
    Teardown(JobGeneration),
    /// Keeps the stream known to be alive.
    Ping,
}

/// Positions by source and split.
pub type SplitPositions = BTreeMap<SourceIndex, BTreeMap<SplitId, SplitProgress>>;

/// What a worker needs to build its share of a generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Deploy {
    /// Whose.
    pub at: JobGeneration,
    /// Which life of the job's state.
    pub incarnation: Incarnation,
    /// What to run.
    pub plan: JobPlan,
    /// Who runs what.
    pub assignment: Assignment,
    /// What to begin with.
    pub restore: RestorePoint,
    /// Flight addresses of all workers of the assignment.
    pub flight_addresses: BTreeMap<WorkerId, String>,
}

/// A barrier, as readers insert it and every edge carries it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BarrierCommand {
    /// The epoch that ends.
    pub epoch: Epoch,
    /// What comes after it.
    pub kind: BarrierKind,
    /// The sources' watermarks on which operators act at this barrier.
    pub watermarks: BTreeMap<SourceIndex, EventTime>,
}

/// What comes after a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BarrierKind {
    /// The next epoch.
    Checkpoint,
    /// No row from any source, but one more barrier, at the end of time, that closes all windows.
    Drain,
    /// Nothing: the last message of its generation.
    Stop,
}

impl BarrierKind {
    /// Whether readers hand on rows after it.
    pub fn reads_on(self) -> bool {
        matches!(self, Self::Checkpoint)
    }
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    serde_json::to_vec(value).map_err(|error| FrameError(error.to_string()))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(bytes).map_err(|error| FrameError(error.to_string()))
}

fn at(job: String, generation: u64) -> JobGeneration {
    JobGeneration {
        job: JobName(job),
        generation: Generation(generation),
    }
}

impl TryFrom<ToMaster> for v1::WorkerFrame {
    type Error = FrameError;

    fn try_from(frame: ToMaster) -> Result<Self, FrameError> {
        use v1::worker_frame::Frame;
        let frame = match frame {
            ToMaster::Hello(hello) => Frame::Hello(v1::Hello {
                worker: hello.worker.0,
                flight_address: hello.flight_address,
                slots: hello.slots,
                version: hello.version,
            }),
            ToMaster::Heartbeat => Frame::Heartbeat(v1::Heartbeat {}),
            ToMaster::Deployed(at) => Frame::Deployed(v1::Deployed {
                job: at.job.0,
                generation: at.generation.0,
            }),
            ToMaster::Snapshotted(at, report) => Frame::Snapshotted(v1::Snapshotted {
                job: at.job.0,
                generation: at.generation.0,
                epoch: report.epoch.0,
                report: json(&report)?,
            }),
            ToMaster::PipelineFailed(at, failure) => Frame::PipelineFailed(v1::PipelineFailed {
                job: at.job.0,
                generation: at.generation.0,
                failure: json(&failure)?,
            }),
            ToMaster::SinkAdvanced {
                at,
                sink,
                marker,
                row_count,
            } => Frame::SinkAdvanced(v1::SinkAdvanced {
                job: at.job.0,
                generation: at.generation.0,
                sink: sink.0,
                marker: marker.0,
                rows: row_count,
            }),
            ToMaster::SinkTroubled {
                at,
                sink,
                cause,
                suspended,
            } => Frame::SinkTroubled(v1::SinkTroubled {
                job: at.job.0,
                generation: at.generation.0,
                sink: sink.0,
                cause,
                suspended,
            }),
            ToMaster::SinkRefused(at, refusal) => Frame::SinkRefused(v1::SinkRefused {
                job: at.job.0,
                generation: at.generation.0,
                refusal: json(&refusal)?,
            }),
            ToMaster::TornDown(at) => Frame::TornDown(v1::TornDown {
                job: at.job.0,
                generation: at.generation.0,
            }),
        };
        Ok(Self { frame: Some(frame) })
    }
}

impl TryFrom<v1::WorkerFrame> for ToMaster {
    type Error = FrameError;

    fn try_from(frame: v1::WorkerFrame) -> Result<Self, FrameError> {
        use v1::worker_frame::Frame;
        let frame = frame
            .frame
            .ok_or_else(|| FrameError("empty frame".to_owned()))?;
        Ok(match frame {
            Frame::Hello(hello) => Self::Hello(WorkerHello {
                worker: WorkerId(hello.worker),
                flight_address: hello.flight_address,
                slots: hello.slots,
                version: hello.version,
            }),
            Frame::Heartbeat(_) => Self::Heartbeat,
            Frame::Deployed(frame) => Self::Deployed(at(frame.job, frame.generation)),
            Frame::Snapshotted(frame) => {
                Self::Snapshotted(at(frame.job, frame.generation), parse(&frame.report)?)
            }
            Frame::PipelineFailed(frame) => {
                Self::PipelineFailed(at(frame.job, frame.generation), parse(&frame.failure)?)
            }
            Frame::SinkAdvanced(frame) => Self::SinkAdvanced {
                at: at(frame.job, frame.generation),
                sink: SinkIndex(frame.sink),
                marker: Epoch(frame.marker),
                row_count: frame.rows,
            },
            Frame::SinkTroubled(frame) => Self::SinkTroubled {
                at: at(frame.job, frame.generation),
                sink: SinkIndex(frame.sink),
                cause: frame.cause,
                suspended: frame.suspended,
            },
            Frame::SinkRefused(frame) => {
                Self::SinkRefused(at(frame.job, frame.generation), parse(&frame.refusal)?)
            }
            Frame::TornDown(frame) => Self::TornDown(at(frame.job, frame.generation)),
        })
    }
}

impl TryFrom<ToWorker> for v1::MasterFrame {
    type Error = FrameError;

    fn try_from(frame: ToWorker) -> Result<Self, FrameError> {
        use v1::master_frame::Frame;
        let frame = match frame {
            ToWorker::Welcome { term, storage_url } => Frame::Welcome(v1::Welcome {
                term: term.0,
                storage_url,
            }),
            ToWorker::Deploy(deploy) => Frame::Deploy(deploy_frame(*deploy)?),
            ToWorker::Start(at) => Frame::Start(v1::Start {
                job: at.job.0,
                generation: at.generation.0,
            }),
            ToWorker::Barrier(at, barrier) => Frame::Barrier(barrier_frame(at, barrier)),
            ToWorker::EpochCommitted {
                at,
                epoch,
                positions,
            } => Frame::EpochCommitted(v1::EpochCommitted {
                job: at.job.0,
                generation: at.generation.0,
                epoch: json(&epoch)?,
                positions: json(&positions)?,
            }),
            ToWorker::AssignSplits(at, splits) => Frame::AssignSplits(v1::AssignSplits {
                job: at.job.0,
                generation: at.generation.0,
                splits: json(&splits)?,
            }),
            ToWorker::Teardown(at) => Frame::Teardown(v1::Teardown {
                job: at.job.0,
                generation: at.generation.0,
            }),
            ToWorker::Ping => Frame::Ping(v1::Ping {}),
        };
        Ok(Self { frame: Some(frame) })
    }
}

fn deploy_frame(deploy: Deploy) -> Result<v1::Deploy, FrameError> {
    let addresses = deploy.flight_addresses.into_iter();
    Ok(v1::Deploy {
        job: deploy.at.job.0,
        incarnation: deploy.incarnation.to_string(),
        generation: deploy.at.generation.0,
        plan: json(&deploy.plan)?,
        assignment: json(&deploy.assignment)?,
        restore: json(&deploy.restore)?,
        flight_addresses: addresses
            .map(|(worker, address)| (worker.0, address))
            .collect(),
    })
}

fn barrier_frame(at: JobGeneration, barrier: BarrierCommand) -> v1::Barrier {
    let kind = match barrier.kind {
        BarrierKind::Checkpoint => v1::BarrierKind::Checkpoint,
        BarrierKind::Drain => v1::BarrierKind::Drain,
        BarrierKind::Stop => v1::BarrierKind::Stop,
    };
    let watermarks = barrier.watermarks.into_iter();
    v1::Barrier {
        job: at.job.0,
        generation: at.generation.0,
        epoch: barrier.epoch.0,
        kind: kind.into(),
        watermarks: watermarks
            .map(|(source, watermark)| (source.0, watermark.0))
            .collect(),
    }
}

impl TryFrom<v1::MasterFrame> for ToWorker {
    type Error = FrameError;

    fn try_from(frame: v1::MasterFrame) -> Result<Self, FrameError> {
        use v1::master_frame::Frame;
        let frame = frame
            .frame
            .ok_or_else(|| FrameError("empty frame".to_owned()))?;
        Ok(match frame {
            Frame::Welcome(welcome) => Self::Welcome {
                term: Term(welcome.term),
                storage_url: welcome.storage_url,
            },
            Frame::Deploy(deploy) => Self::Deploy(Box::new(deploy_of_frame(deploy)?)),
            Frame::Start(frame) => Self::Start(at(frame.job, frame.generation)),
            Frame::Barrier(frame) => {
                let kind = match frame.kind() {
                    v1::BarrierKind::Stop => BarrierKind::Stop,
                    v1::BarrierKind::Checkpoint => BarrierKind::Checkpoint,
                    v1::BarrierKind::Drain => BarrierKind::Drain,
                    v1::BarrierKind::Unspecified => {
                        return Err(FrameError("a barrier of no known kind".to_owned()));
                    }
                };
                let watermarks = frame.watermarks.into_iter();
                let barrier = BarrierCommand {
                    epoch: Epoch(frame.epoch),
                    kind,
                    watermarks: watermarks
                        .map(|(source, watermark)| (SourceIndex(source), EventTime(watermark)))
                        .collect(),
                };
                Self::Barrier(at(frame.job, frame.generation), barrier)
            }
            Frame::EpochCommitted(frame) => Self::EpochCommitted {
                at: at(frame.job, frame.generation),
                epoch: parse(&frame.epoch)?,
                positions: parse(&frame.positions)?,
            },
            Frame::AssignSplits(frame) => {
                Self::AssignSplits(at(frame.job, frame.generation), parse(&frame.splits)?)
            }
            Frame::Teardown(frame) => Self::Teardown(at(frame.job, frame.generation)),
            Frame::Ping(_) => Self::Ping,
        })
    }
}

fn deploy_of_frame(frame: v1::Deploy) -> Result<Deploy, FrameError> {
    let incarnation = frame
        .incarnation
        .parse()
        .map_err(|error| FrameError(format!("incarnation: {error}")))?;
    let addresses = frame.flight_addresses.into_iter();
    Ok(Deploy {
        at: at(frame.job, frame.generation),
        incarnation: Incarnation(incarnation),
        plan: parse(&frame.plan)?,
        assignment: parse(&frame.assignment)?,
        restore: parse(&frame.restore)?,
        flight_addresses: addresses
            .map(|(worker, address)| (WorkerId(worker), address))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_about_a_job_survive_the_wire() {
        let at = JobGeneration {
            job: "clicks".into(),
            generation: Generation(7),
        };
        let barrier = BarrierCommand {
            epoch: Epoch(3),
            kind: BarrierKind::Stop,
            watermarks: BTreeMap::from([(SourceIndex(0), EventTime(-5))]),
        };
        let frame = ToWorker::Barrier(at.clone(), barrier);
        let wire = v1::MasterFrame::try_from(frame.clone()).expect("encode");
        assert_eq!(ToWorker::try_from(wire).expect("decode"), frame);

        let report = PipelineReport {
            epoch: Epoch(3),
            worker: "w1".into(),
            splits: BTreeMap::new(),
            parts: BTreeMap::new(),
            segments: Vec::new(),
            counters: BTreeMap::new(),
            flows: BTreeMap::new(),
            lag: BTreeMap::new(),
            troubles: BTreeMap::new(),
        };
        let frame = ToMaster::Snapshotted(at, Box::new(report));
        let wire = v1::WorkerFrame::try_from(frame.clone()).expect("encode");
        assert_eq!(ToMaster::try_from(wire).expect("decode"), frame);
    }
}
