//! The frames of the link on the wire: to the generated types and back.
//!
//! Used through the conversions of [`super::ToMaster`] and [`super::ToWorker`]. Failure: [`FrameError`].

use millstream_proto::v1;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

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
                process: hello.process,
                flight_address: hello.flight_address,
                slots: hello.slots,
                version: hello.version,
                held: json(&hello.held)?,
                is_leaving: hello.is_leaving,
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
                dropped_count,
            } => Frame::SinkAdvanced(v1::SinkAdvanced {
                job: at.job.0,
                generation: at.generation.0,
                sink: sink.0,
                marker: marker.0,
                rows_dropped: dropped_count,
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
            ToMaster::TornDown(at, rows_reread) => Frame::TornDown(v1::TornDown {
                job: at.job.0,
                generation: at.generation.0,
                rows_reread,
            }),
            ToMaster::Leaving => Frame::Leaving(v1::Leaving {}),
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
                process: hello.process,
                flight_address: hello.flight_address,
                slots: hello.slots,
                version: hello.version,
                held: parse(&hello.held)?,
                is_leaving: hello.is_leaving,
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
                dropped_count: frame.rows_dropped,
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
            Frame::TornDown(frame) => {
                Self::TornDown(at(frame.job, frame.generation), frame.rows_reread)
            }
            Frame::Leaving(_) => Self::Leaving,
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
                trace,
            } => Frame::EpochCommitted(v1::EpochCommitted {
                job: at.job.0,
                generation: at.generation.0,
                epoch: json(&epoch)?,
                positions: json(&positions)?,
                traceparent: header(trace),
            }),
            ToWorker::Backlog(at, parts) => Frame::Backlog(v1::Backlog {
                job: at.job.0,
                generation: at.generation.0,
                parts: json(&parts)?,
            }),
            ToWorker::AssignSplits(at, splits) => Frame::AssignSplits(v1::AssignSplits {
                job: at.job.0,
                generation: at.generation.0,
                splits: json(&splits)?,
            }),
            ToWorker::CommandSink(at, sink, SinkCommand::Pause) => {
                Frame::PauseSink(v1::PauseSink {
                    job: at.job.0,
                    generation: at.generation.0,
                    sink: sink.0,
                })
            }
            ToWorker::CommandSink(at, sink, SinkCommand::Resume) => {
                Frame::ResumeSink(v1::ResumeSink {
                    job: at.job.0,
                    generation: at.generation.0,
                    sink: sink.0,
                })
            }
            ToWorker::Teardown(at) => Frame::Teardown(v1::Teardown {
                job: at.job.0,
                generation: at.generation.0,
            }),
            ToWorker::Resume(at) => Frame::Resume(v1::Resume {
                job: at.job.0,
                generation: at.generation.0,
            }),
            ToWorker::Drain => Frame::Drain(v1::Drain {}),
            ToWorker::Released { is_last } => Frame::Released(v1::Released { is_last }),
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
        traceparent: header(deploy.trace),
    })
}

fn header(trace: Option<TraceContext>) -> String {
    trace.map_or(String::new(), |trace| trace.to_string())
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
                trace: frame.traceparent.parse().ok(),
            },
            Frame::Backlog(frame) => {
                Self::Backlog(at(frame.job, frame.generation), parse(&frame.parts)?)
            }
            Frame::AssignSplits(frame) => {
                Self::AssignSplits(at(frame.job, frame.generation), parse(&frame.splits)?)
            }
            Frame::PauseSink(frame) => Self::CommandSink(
                at(frame.job, frame.generation),
                SinkIndex(frame.sink),
                SinkCommand::Pause,
            ),
            Frame::ResumeSink(frame) => Self::CommandSink(
                at(frame.job, frame.generation),
                SinkIndex(frame.sink),
                SinkCommand::Resume,
            ),
            Frame::Teardown(frame) => Self::Teardown(at(frame.job, frame.generation)),
            Frame::Resume(frame) => Self::Resume(at(frame.job, frame.generation)),
            Frame::Drain(_) => Self::Drain,
            Frame::Released(frame) => Self::Released {
                is_last: frame.is_last,
            },
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
        trace: frame.traceparent.parse().ok(),
    })
}
