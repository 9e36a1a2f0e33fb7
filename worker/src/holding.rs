//! What a worker remembers of a pipeline, so that it can go on under the next master without a rewind.
//!
//! Pure; one a pipeline, owned by the supervisor's actor, which shows it every frame about the pipeline in both
//! directions. A master may be lost behind any frame: what it was told last counts as unheard until a later frame shows
//! otherwise, and is said again to the next one; what the next one says again is obeyed once.
//! Keeps INV-5: a barrier is passed on once, whoever sends it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millstream_common::ids::{Epoch, Incarnation, SinkIndex};
use millstream_common::link::{
    BarrierCommand, Deploy, Held, JobGeneration, SplitPositions, ToMaster, ToWorker,
};
use millstream_common::log::entry::SplitPlacement;
use millstream_common::mutant::{self, Mutant};
use millstream_common::report::{PipelineReport, SplitStatus};

use crate::spans::PipelineSpans;

/// What is remembered of one pipeline.
#[derive(Debug)]
pub(crate) struct Holding {
    at: JobGeneration,
    incarnation: Incarnation,
    restored: Epoch,
    /// Its readers read: only then is there something to go on with.
    is_started: bool,
    barrier: Option<BarrierCommand>,
    committed: Epoch,
    given: Vec<SplitPlacement>,
    /// Of the last barrier, until it is known to be dealt with.
    report: Option<Box<PipelineReport>>,
    /// Rows that its readers have handed on.
    rows_read: Arc<AtomicU64>,
    /// Of them, those in recorded epochs.
    rows_recorded: u64,
    /// What each sink said last.
    markers: BTreeMap<SinkIndex, Epoch>,
    troubles: BTreeMap<SinkIndex, (String, bool)>,
    spans: Arc<PipelineSpans>,
}

impl Holding {
    /// Of a pipeline that is being built.
    pub(crate) fn new(
        deploy: &Deploy,
        rows_read: Arc<AtomicU64>,
        spans: Arc<PipelineSpans>,
    ) -> Self {
        Self {
            at: deploy.at.clone(),
            incarnation: deploy.incarnation,
            restored: deploy.restore.epoch,
            is_started: false,
            barrier: None,
            committed: deploy.restore.epoch,
            given: Vec::new(),
            report: None,
            rows_read,
            rows_recorded: 0,
            markers: BTreeMap::new(),
            troubles: BTreeMap::new(),
            spans,
        }
    }

    /// Takes note of what a master says; false if it has been obeyed already.
    pub(crate) fn heard(&mut self, frame: &ToWorker) -> bool {
        match frame {
            ToWorker::Start(_) => !std::mem::replace(&mut self.is_started, true),
            ToWorker::Barrier(_, barrier) => self.barrier(barrier),
            ToWorker::EpochCommitted {
                epoch,
                positions,
                trace,
                ..
            } => {
                if epoch.epoch <= self.committed {
                    return false;
                }
                self.committed = epoch.epoch;
                self.spans.committed(epoch.epoch, *trace);
                self.given.retain(|given| !has_ended(given, positions));
                let recorded = self.report.take_if(|report| report.epoch <= epoch.epoch);
                self.rows_recorded += recorded.map_or(0, |report| rows_of(&report));
                true
            }
            ToWorker::AssignSplits(_, splits) => {
                let given = splits.iter().map(|split| SplitPlacement {
                    source: split.start.source,
                    split: split.start.split.clone(),
                    task_index: split.task_index,
                });
                self.given.extend(given);
                true
            }
            ToWorker::Welcome { .. }
            | ToWorker::Deploy(_)
            | ToWorker::Backlog(..)
            | ToWorker::CommandSink(..)
            | ToWorker::Teardown(_)
            | ToWorker::Resume(_)
            | ToWorker::Drain
            | ToWorker::Released { .. }
            | ToWorker::Ping => true,
        }
    }

    /// What it is of.
    pub(crate) fn at(&self) -> &JobGeneration {
        &self.at
    }

    /// Rows that were read and are in no recorded epoch.
    pub(crate) fn rows_unrecorded(&self) -> u64 {
        let rows_read = self.rows_read.load(Ordering::Relaxed);
        rows_read.saturating_sub(self.rows_recorded)
    }

    /// Whether there is anything to go on with.
    pub(crate) fn is_started(&self) -> bool {
        self.is_started
    }

    /// The next barrier is sent when the one before it has been dealt with: recorded, or found to hold nothing.
    fn barrier(&mut self, barrier: &BarrierCommand) -> bool {
        let is_new = self
            .barrier
            .as_ref()
            .is_none_or(|passed| passed.epoch < barrier.epoch);
        if is_new {
            self.barrier = Some(barrier.clone());
            self.report = None;
        }
        is_new
    }

    /// Takes note of what the pipeline says.
    pub(crate) fn said(&mut self, frame: &ToMaster) {
        match frame {
            ToMaster::Snapshotted(_, report) => self.report = Some(report.clone()),
            ToMaster::SinkAdvanced { sink, marker, .. } => {
                self.markers.insert(*sink, *marker);
                self.troubles.remove(sink);
            }
            ToMaster::SinkTroubled {
                sink,
                cause,
                suspended,
                ..
            } => {
                self.troubles.insert(*sink, (cause.clone(), *suspended));
            }
            // The sink says it again until the log has it.
            ToMaster::SinkRefused(..)
            | ToMaster::Hello(_)
            | ToMaster::Heartbeat
            | ToMaster::Deployed(_)
            | ToMaster::PipelineFailed(..)
            | ToMaster::Leaving
            | ToMaster::TornDown(..) => {}
        }
    }

    /// For the next master, if the pipeline has begun.
    pub(crate) fn held(&self) -> Option<Held> {
        self.is_started.then(|| Held {
            at: self.at.clone(),
            incarnation: self.incarnation,
            restored: self.restored,
            barrier: self.barrier.clone(),
            committed: self.committed,
            given: self.given.clone(),
        })
    }

    /// What a master that goes on with the pipeline may not have heard.
    pub(crate) fn unheard(&self) -> Vec<ToMaster> {
        let report = self.report.iter();
        let report = report.filter(|_| !mutant::is(Mutant::ReportOnlyOnce));
        let reports = report.map(|report| ToMaster::Snapshotted(self.at.clone(), report.clone()));
        let markers = self
            .markers
            .iter()
            .map(|(sink, marker)| ToMaster::SinkAdvanced {
                at: self.at.clone(),
                sink: *sink,
                marker: *marker,
                row_count: 0,
            });
        let troubles =
            self.troubles
                .iter()
                .map(|(sink, (cause, suspended))| ToMaster::SinkTroubled {
                    at: self.at.clone(),
                    sink: *sink,
                    cause: cause.clone(),
                    suspended: *suspended,
                });
        reports.chain(markers).chain(troubles).collect()
    }
}

fn rows_of(report: &PipelineReport) -> u64 {
    report.counters.values().map(|count| count.read).sum()
}

fn has_ended(given: &SplitPlacement, positions: &SplitPositions) -> bool {
    let splits = positions.get(&given.source);
    let progress = splits.and_then(|splits| splits.get(&given.split));
    progress.is_some_and(|progress| progress.status == SplitStatus::Ended)
}

#[cfg(test)]
mod tests {
    use millstream_common::ids::{Generation, SourceIndex};
    use millstream_common::link::BarrierKind;
    use millstream_common::log::entry::{Assignment, CommittedEpoch};
    use millstream_common::plan::{JobPlan, JobSettings};
    use millstream_common::report::{
        AssignedSplit, RestorePoint, RowCounters, SplitProgress, SplitStart,
    };

    use millstream_common::blocking::ThreadPool;
    use millstream_common::net::TcpNet;
    use millstream_common::time::SystemClock;
    use millstream_common::trace::NoTracer;

    use super::*;
    use crate::config::{RealConnectors, RealStores, WorkerConfig};

    fn at() -> JobGeneration {
        JobGeneration {
            job: "clicks".into(),
            generation: Generation(7),
        }
    }

    /// Of a pipeline that has begun behind epoch 3.
    fn holding() -> Holding {
        let deploy = Deploy {
            at: at(),
            incarnation: Incarnation::fresh(),
            plan: JobPlan {
                settings: JobSettings::default(),
                sources: Vec::new(),
                stages: Vec::new(),
                outputs: Vec::new(),
                sinks: Vec::new(),
            },
            assignment: Assignment::default(),
            restore: RestorePoint {
                epoch: Epoch(3),
                ..RestorePoint::default()
            },
            flight_addresses: BTreeMap::new(),
            trace: None,
        };
        let worker = WorkerConfig {
            net: Arc::new(TcpNet),
            stores: Arc::new(RealStores {
                blocking: Arc::new(ThreadPool),
            }),
            connectors: Arc::new(RealConnectors),
            clock: Arc::new(SystemClock::new()),
            tracer: Arc::new(NoTracer),
            blocking: Arc::new(ThreadPool),
            master: String::new(),
            slots: 1,
            flight_listen: String::new(),
            http_listen: None,
            advertise: None,
            name: "w".into(),
        };
        let spans = Arc::new(PipelineSpans::new(&deploy, &worker));
        let mut holding = Holding::new(&deploy, Arc::default(), spans);
        assert_eq!(holding.held(), None, "its readers do not read yet");
        assert!(holding.heard(&ToWorker::Start(at())));
        holding
    }

    fn barrier(epoch: u64) -> ToWorker {
        ToWorker::Barrier(
            at(),
            BarrierCommand {
                epoch: Epoch(epoch),
                kind: BarrierKind::Checkpoint,
                watermarks: BTreeMap::new(),
            },
        )
    }

    fn committed(epoch: u64, positions: SplitPositions) -> ToWorker {
        ToWorker::EpochCommitted {
            at: at(),
            epoch: CommittedEpoch {
                epoch: Epoch(epoch),
                parent: Epoch(epoch - 1),
                segments: Vec::new(),
                refused: Vec::new(),
                last: false,
            },
            positions,
            trace: None,
        }
    }

    fn snapshotted(epoch: u64) -> ToMaster {
        let report = PipelineReport {
            epoch: Epoch(epoch),
            worker: "w".into(),
            splits: BTreeMap::new(),
            parts: BTreeMap::new(),
            segments: Vec::new(),
            counters: BTreeMap::new(),
            flows: BTreeMap::new(),
            lag: BTreeMap::new(),
            troubles: BTreeMap::new(),
            figures: Default::default(),
        };
        ToMaster::Snapshotted(at(), Box::new(report))
    }

    #[test]
    fn what_the_next_master_says_again_is_obeyed_once() {
        let mut holding = holding();
        assert!(!holding.heard(&ToWorker::Start(at())));
        for frame in [barrier(4), committed(4, BTreeMap::new()), barrier(6)] {
            assert!(holding.heard(&frame));
            assert!(!holding.heard(&frame), "{frame:?}");
        }
        assert!(!holding.heard(&barrier(5)));
        let held = holding.held().expect("it has begun");
        assert_eq!((held.passed(), held.committed), (Epoch(6), Epoch(4)));
    }

    #[test]
    fn a_report_is_said_again_until_its_epoch_is_dealt_with() {
        let mut holding = holding();
        for settled in [committed(4, BTreeMap::new()), barrier(5)] {
            holding.heard(&barrier(4));
            holding.said(&snapshotted(4));
            assert_eq!(holding.unheard(), [snapshotted(4)]);
            holding.heard(&settled);
            assert_eq!(holding.unheard(), []);
            holding = self::holding();
        }
        holding.heard(&barrier(4));
        holding.said(&snapshotted(4));
        holding.heard(&committed(3, BTreeMap::new()));
        assert_eq!(holding.unheard(), [snapshotted(4)]);
    }

    #[test]
    fn where_a_sink_is_and_what_ails_it_are_said_again() {
        let mut holding = holding();
        let (sink, row_count) = (SinkIndex(0), 0);
        let advanced = |marker| ToMaster::SinkAdvanced {
            at: at(),
            sink,
            marker,
            row_count,
        };
        let troubled = ToMaster::SinkTroubled {
            at: at(),
            sink,
            cause: "down".to_owned(),
            suspended: false,
        };
        for said in [advanced(Epoch(3)), advanced(Epoch(4)), troubled.clone()] {
            holding.said(&said);
        }
        assert_eq!(holding.unheard(), [advanced(Epoch(4)), troubled]);
        holding.said(&advanced(Epoch(5)));
        assert_eq!(holding.unheard(), [advanced(Epoch(5))]);
    }

    #[test]
    fn splits_given_while_it_runs_are_held_until_they_end() {
        let mut holding = holding();
        let progress = |status| SplitProgress {
            position: 0,
            end: None,
            watermark: None,
            status,
            identity: None,
        };
        let given = ["clicks-1", "clicks-2"].map(|split| AssignedSplit {
            task_index: 0,
            start: SplitStart {
                source: SourceIndex(0),
                split: split.into(),
                progress: progress(SplitStatus::Active),
            },
        });
        assert!(holding.heard(&ToWorker::AssignSplits(at(), given.to_vec())));
        let ended = BTreeMap::from([
            ("clicks-1".into(), progress(SplitStatus::Ended)),
            ("clicks-2".into(), progress(SplitStatus::Idle)),
        ]);
        holding.heard(&committed(4, BTreeMap::from([(SourceIndex(0), ended)])));
        let held = holding.held().expect("it has begun");
        let splits: Vec<&str> = held
            .given
            .iter()
            .map(|given| given.split.as_str())
            .collect();
        assert_eq!(splits, ["clicks-2"]);
    }

    #[test]
    fn rows_behind_the_last_recorded_epoch_are_those_that_are_read_again() {
        let mut holding = holding();
        holding.rows_read.store(10, Ordering::Relaxed);
        holding.heard(&barrier(4));
        let ToMaster::Snapshotted(at, mut report) = snapshotted(4) else {
            panic!("a report");
        };
        let counted = RowCounters {
            read: 7,
            ..RowCounters::default()
        };
        report.counters.insert(SourceIndex(0), counted);
        holding.said(&ToMaster::Snapshotted(at, report));
        assert_eq!(holding.rows_unrecorded(), 10, "it may never be recorded");
        holding.heard(&committed(4, BTreeMap::new()));
        assert_eq!(holding.rows_unrecorded(), 3);
    }
}
