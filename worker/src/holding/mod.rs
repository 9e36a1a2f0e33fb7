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

    /// What its tasks did of the epoch in flight.
    pub(crate) fn spans(&self) -> &Arc<PipelineSpans> {
        &self.spans
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
                // Said once: counted twice would be worse than lost.
                dropped_count: 0,
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
mod tests;
