//! Gathers what the tasks of a pipeline say of an epoch, until all have spoken.
//!
//! Pure; owned by the pipeline's actor. A task is heard once an epoch, when everything it wrote for it is durable; the report to the master
//! goes out with the last one.

use std::collections::{BTreeMap, BTreeSet};

use millstream_common::dead_letter::Code;
use millstream_common::ids::{
    Epoch, OperatorId, OutputIndex, SourceIndex, SplitId, TaskId, WorkerId,
};
use millstream_common::report::{
    PipelineReport, RowCounters, Segment, SplitProgress, StageFlow, StageTimes, StatePart,
};

use crate::work::TaskWork;

/// What one task says of an epoch.
#[derive(Debug)]
pub enum TaskReport {
    /// A reader has cut.
    Read {
        /// The reader.
        task: TaskId,
        /// Its source.
        source: SourceIndex,
        /// The epoch.
        epoch: Epoch,
        /// Progress of its splits.
        splits: BTreeMap<SplitId, SplitProgress>,
        /// What became of its rows.
        counters: RowCounters,
        /// What became of them behind the decoder.
        flow: StageFlow,
        /// By split, records between its position and its end, where that is known.
        lags: BTreeMap<SplitId, u64>,
        /// The rows that it rejected, by code.
        rejects: BTreeMap<Code, u64>,
        /// What hinders its client.
        trouble: Option<String>,
        /// What it did.
        work: TaskWork,
    },
    /// An operator's state is durable.
    Snapshotted {
        /// The task.
        task: TaskId,
        /// The operator.
        operator: OperatorId,
        /// The epoch.
        epoch: Epoch,
        /// The parts it needs from now on.
        parts: Vec<StatePart>,
        /// What became of the rows it received.
        flow: StageFlow,
        /// What it did.
        work: TaskWork,
    },
    /// An output's segments are durable.
    Shipped {
        /// The output.
        output: OutputIndex,
        /// The epoch.
        epoch: Epoch,
        /// In order.
        segments: Vec<Segment>,
        /// What it did.
        work: TaskWork,
    },
}

/// Who has to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speaker {
    /// A reader or an operator.
    Task(TaskId),
    /// The ship actor of an output.
    Output(OutputIndex),
}

impl TaskReport {
    /// What the task did within the epoch.
    pub fn work(&self) -> &TaskWork {
        match self {
            Self::Read { work, .. }
            | Self::Snapshotted { work, .. }
            | Self::Shipped { work, .. } => work,
        }
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::Read { epoch, .. }
            | Self::Snapshotted { epoch, .. }
            | Self::Shipped { epoch, .. } => *epoch,
        }
    }

    /// Who speaks.
    pub fn speaker(&self) -> Speaker {
        match self {
            Self::Read { task, .. } | Self::Snapshotted { task, .. } => Speaker::Task(*task),
            Self::Shipped { output, .. } => Speaker::Output(*output),
        }
    }
}

/// The reports of a pipeline's epochs.
#[derive(Debug)]
pub struct Gathering {
    worker: WorkerId,
    speakers: BTreeSet<Speaker>,
    open: BTreeMap<Epoch, Open>,
}

#[derive(Debug)]
struct Open {
    missing: BTreeSet<Speaker>,
    report: PipelineReport,
}

impl Gathering {
    /// For a pipeline whose epochs need the words of `speakers`.
    pub fn new(worker: WorkerId, speakers: BTreeSet<Speaker>) -> Self {
        Self {
            worker,
            speakers,
            open: BTreeMap::new(),
        }
    }

    /// Takes what a task says; returns the whole report with the last of them.
    pub fn take(&mut self, said: TaskReport) -> Option<PipelineReport> {
        let epoch = said.epoch();
        let open = self.open.entry(epoch).or_insert_with(|| Open {
            missing: self.speakers.clone(),
            report: PipelineReport {
                epoch,
                worker: self.worker.clone(),
                splits: BTreeMap::new(),
                parts: BTreeMap::new(),
                segments: Vec::new(),
                counters: BTreeMap::new(),
                flows: BTreeMap::new(),
                troubles: BTreeMap::new(),
                figures: Default::default(),
            },
        });
        if !open.missing.remove(&said.speaker()) {
            return None;
        }
        add(&mut open.report, said);
        if !open.missing.is_empty() {
            return None;
        }
        let mut report = self.open.remove(&epoch)?.report;
        report.segments.sort_by_key(|segment| segment.output);
        Some(report)
    }
}

fn add(report: &mut PipelineReport, said: TaskReport) {
    if let Speaker::Task(task) = said.speaker() {
        let times = StageTimes {
            busy_us: said.work().busy.as_micros() as u64,
            blocked_us: said.work().blocked.as_micros() as u64,
        };
        let of_stages = &mut report.figures.times;
        of_stages.entry(task.stage).or_default().add(&times);
    }
    match said {
        TaskReport::Read {
            source,
            task,
            splits,
            counters,
            flow,
            lags,
            rejects,
            trouble,
            ..
        } => {
            report.flows.entry(task.stage).or_default().add(&flow);
            report.splits.entry(source).or_default().extend(splits);
            report.counters.entry(source).or_default().add(&counters);
            if !lags.is_empty() {
                let of_source = report.figures.split_lags.entry(source).or_default();
                of_source.extend(lags);
            }
            for (code, count) in rejects {
                let of_source = report.figures.rejects.entry(source).or_default();
                *of_source.entry(code.to_string()).or_default() += count;
            }
            // What hinders one reader of a source hinders the others as well: one reason is enough.
            report.troubles.extend(trouble.map(|cause| (source, cause)));
        }
        TaskReport::Snapshotted {
            task,
            operator,
            parts,
            flow,
            ..
        } => {
            report.flows.entry(task.stage).or_default().add(&flow);
            report.parts.entry(operator).or_default().extend(parts);
        }
        TaskReport::Shipped { segments, .. } => report.segments.extend(segments),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millstream_common::ids::StageIndex;

    use super::*;

    fn task(index: u32) -> TaskId {
        TaskId {
            stage: StageIndex(0),
            index,
        }
    }

    fn read(index: u32, epoch: u64) -> TaskReport {
        TaskReport::Read {
            task: task(index),
            source: SourceIndex(0),
            epoch: Epoch(epoch),
            splits: BTreeMap::new(),
            counters: RowCounters {
                read: 10,
                ..RowCounters::default()
            },
            flow: StageFlow {
                received: 9,
                ..StageFlow::default()
            },
            lags: BTreeMap::from([(format!("clicks-{index}").as_str().into(), 1)]),
            rejects: BTreeMap::from([(Code::Late, 2)]),
            work: TaskWork {
                busy: Duration::from_millis(3),
                ..TaskWork::default()
            },
            trouble: (index == 0).then(|| "no broker".to_owned()),
        }
    }

    #[test]
    fn the_report_goes_out_when_the_last_task_has_spoken_once() {
        let speakers = BTreeSet::from([Speaker::Task(task(0)), Speaker::Task(task(1))]);
        let mut gathering = Gathering::new("w".into(), speakers);
        assert_eq!(gathering.take(read(0, 1)), None);
        assert_eq!(
            gathering.take(read(0, 1)),
            None,
            "the same task again counts once"
        );
        assert_eq!(gathering.take(read(0, 2)), None, "the next epoch may begin");
        let report = gathering.take(read(1, 1)).expect("complete");
        assert_eq!(report.epoch, Epoch(1));
        assert_eq!(report.counters[&SourceIndex(0)].read, 20);
        assert_eq!(report.flows[&StageIndex(0)].received, 18);
        let figures = &report.figures;
        assert_eq!(figures.split_lags[&SourceIndex(0)].len(), 2);
        assert_eq!(figures.rejects[&SourceIndex(0)]["late"], 4);
        assert_eq!(figures.times[&StageIndex(0)].busy_us, 6_000);
        assert_eq!(report.troubles[&SourceIndex(0)], "no broker");
    }
}
