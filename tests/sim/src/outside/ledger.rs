//! The invariants that can be seen from outside, checked at each log object and each move of a marker.
//!
//! Told by the simulated storage and Postgres, at the moment of the effect. Folds the log as a reader of it would, apart from the
//! production's replay. INV-1 one chain, INV-2 and INV-3 markers, INV-4 terms and generations, INV-5 positions, INV-6
//! watermarks, INV-8 objects. Failure: the first broken rule is kept and ends the simulation.

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_common::ids::{
    Epoch, Generation, Incarnation, JobName, Seq, SourceIndex, SplitId, Term,
};
use millstream_common::log::entry::{AssignEntry, EpochEntry, JobEnd, JobProgress, generation_of};
use millstream_common::log::{self, Entry, LogObject};
use millstream_common::time::EventTime;
use millstream_sinks::sink::EpochRun;

use crate::trace::event;

/// What has been seen.
#[derive(Default)]
pub(crate) struct Ledger {
    read_to: Seq,
    term: Term,
    chains: BTreeMap<String, Chain>,
    violation: Option<String>,
    /// How often a job gave up, with the last cause.
    pub(crate) failures: Vec<String>,
}

/// One life of one job.
#[derive(Default)]
pub(crate) struct Chain {
    pub(crate) progress: JobProgress,
    pub(crate) epochs: Vec<Epoch>,
    pub(crate) generations: Vec<Generation>,
    watermarks: BTreeMap<SourceIndex, EventTime>,
    split_watermarks: BTreeMap<(SourceIndex, SplitId), EventTime>,
    /// By table.
    markers: BTreeMap<String, Epoch>,
}

type Objects = BTreeMap<String, Bytes>;

impl Ledger {
    /// The first rule that was broken.
    pub(crate) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// Keeps what broke a rule, unless something did before.
    pub(crate) fn violated(&mut self, rule: &str, what: impl AsRef<str>) {
        let text = format!("{rule}: {}", what.as_ref());
        event!("violation {text}");
        self.violation.get_or_insert(text);
    }

    /// The lives of jobs.
    pub(crate) fn chains(&self) -> impl Iterator<Item = &Chain> {
        self.chains.values()
    }

    /// Reads what has come to the end of the log.
    pub(crate) fn log_grew(&mut self, objects: &Objects) {
        loop {
            let seq = self.read_to.next();
            let Some(bytes) = objects.get(&log::key(seq)) else {
                return;
            };
            self.read_to = seq;
            match serde_json::from_slice::<LogObject>(bytes) {
                Ok(object) => self.object(seq, &object, objects),
                Err(error) => self.violated("log", format!("object {seq}: {error}")),
            }
        }
    }

    fn object(&mut self, seq: Seq, object: &LogObject, objects: &Objects) {
        if object.term < self.term {
            event!("log {seq}: term {} is over", object.term);
            return;
        }
        let is_fence = matches!(object.entries.first(), Some(Entry::Fence { .. }));
        if object.term > self.term && !is_fence {
            let what = format!("term {} writes {seq} before its Fence", object.term);
            self.violated("INV-4", what);
        }
        if object.term == self.term && is_fence {
            let what = format!("term {} is fenced twice, again at {seq}", object.term);
            self.violated("INV-4", what);
        }
        self.term = object.term;
        for entry in &object.entries {
            self.entry(seq, entry, objects);
        }
    }

    fn entry(&mut self, seq: Seq, entry: &Entry, objects: &Objects) {
        match entry {
            Entry::Fence { term, .. } => event!("log {seq}: fence {term}"),
            Entry::Job(job) => event!("log {seq}: job {}", job.job),
            Entry::Assign(assign) => self.assigned(seq, assign),
            Entry::Epoch(epoch) => self.epoch(seq, epoch, objects),
            Entry::Ended { end, .. } => {
                event!("log {seq}: ended {end:?}");
                if let JobEnd::Failed { failure } = end {
                    self.failures.push(failure.to_string());
                }
            }
            Entry::SinkCommanded { sink, command, .. } => {
                event!("log {seq}: sink {sink} told to {command:?}")
            }
            Entry::Backlog { part, .. } => event!("log {seq}: backlog up to {}", part.last),
            Entry::Resumed { job, .. } => event!("log {seq}: resumed {job}"),
            Entry::Savepoint(kept) => event!("log {seq}: savepoint of {}", kept.epoch),
            Entry::SavepointDropped { name, .. } => event!("log {seq}: dropped {name}"),
            Entry::Carried(carried) => event!("log {seq}: carried {}", carried.job.job),
        }
    }

    fn assigned(&mut self, seq: Seq, assign: &AssignEntry) {
        let generation = generation_of(seq);
        event!(
            "log {seq}: generation {generation} from {}",
            assign.restore_from
        );
        let chain = chain(&mut self.chains, &assign.job, assign.incarnation);
        let head = chain.progress.epoch;
        chain.generations.push(generation);
        if assign.restore_from != head {
            let from = assign.restore_from;
            let what =
                format!("generation {generation} begins at {from}, the chain ends at {head}");
            self.violated("INV-1", what);
        }
    }

    fn epoch(&mut self, seq: Seq, entry: &EpochEntry, objects: &Objects) {
        event!(
            "log {seq}: epoch {} after {} by {}",
            entry.epoch,
            entry.parent,
            entry.generation
        );
        let chain = chain(&mut self.chains, &entry.job, entry.incarnation);
        let mut broken = chain.check(entry);
        if let Err(error) = chain.progress.apply(entry) {
            broken.push(("INV-1", error.to_string()));
        }
        chain.epochs.push(entry.epoch);
        let parts = entry.parts.values().flatten().map(|part| &part.path);
        let segments = entry.segments.iter().map(|segment| &segment.path);
        let missing = parts
            .chain(segments)
            .filter(|path| !objects.contains_key(*path));
        broken.extend(missing.map(|path| ("INV-8", format!("{path} is not in storage"))));
        for (rule, what) in broken {
            self.violated(rule, format!("epoch {}: {what}", entry.epoch));
        }
    }

    /// A sink holds a run now.
    pub(crate) fn delivered(
        &mut self,
        table: &str,
        job: &JobName,
        incarnation: Incarnation,
        run: &EpochRun,
    ) {
        let chain = chain(&mut self.chains, job, incarnation);
        let is_canonical = chain.epochs.contains(&run.last);
        let marker = chain.markers.insert(table.to_owned(), run.last);
        let marker = marker.unwrap_or_default();
        if !is_canonical {
            let what = format!("sink {table} holds epoch {}, the log does not", run.last);
            self.violated("INV-2", what);
        }
        if marker != run.guard || run.last <= run.guard {
            let what = format!("sink {table} goes from {marker} to {}", run.last);
            self.violated("INV-3", what);
        }
    }
}

fn chain<'a>(
    chains: &'a mut BTreeMap<String, Chain>,
    job: &JobName,
    incarnation: Incarnation,
) -> &'a mut Chain {
    chains.entry(format!("{job} {incarnation}")).or_default()
}

impl Chain {
    /// Where it stands, for people.
    pub(crate) fn describe(&self) -> String {
        let (epoch, markers) = (self.progress.epoch, &self.markers);
        let generation = self.generations.last().copied().unwrap_or_default();
        let is_drained = self.progress.drained;
        format!("epoch {epoch}, generation {generation}, drained {is_drained}, markers {markers:?}")
    }

    /// What is wrong with an epoch, seen from its parent.
    fn check(&mut self, entry: &EpochEntry) -> Vec<(&'static str, String)> {
        let mut broken = Vec::new();
        if self.generations.last() != Some(&entry.generation) {
            let newest = self.generations.last();
            let what = format!("by generation {}, but {newest:?} runs", entry.generation);
            broken.push(("INV-4", what));
        }
        for (source, splits) in &entry.splits {
            let known = self.progress.splits.get(source);
            for (split, progress) in splits {
                let before = known.and_then(|known| known.get(split));
                let from = before.map_or(0, |before| before.position);
                let end = progress.end.unwrap_or(i64::MAX);
                if progress.position < from || progress.position > end {
                    let what = format!("{split} goes from {from} to {}", progress.position);
                    broken.push(("INV-5", what));
                }
                let Some(watermark) = progress.watermark else {
                    continue;
                };
                let key = (*source, split.clone());
                let before = self.split_watermarks.insert(key, watermark);
                if before.is_some_and(|before| before > watermark) {
                    broken.push(("INV-6", format!("{split} goes back to {watermark}")));
                }
            }
        }
        for (source, watermark) in &entry.watermarks {
            let before = self.watermarks.insert(*source, *watermark);
            if before.is_some_and(|before| before > *watermark) {
                broken.push(("INV-6", format!("{source} goes back to {watermark}")));
            }
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use millstream_common::log::entry::Assignment;

    use super::*;

    fn assign(incarnation: Incarnation) -> Entry {
        Entry::Assign(Box::new(AssignEntry {
            job: "clicks".into(),
            incarnation,
            restore_from: Epoch(0),
            assignment: Assignment::default(),
        }))
    }

    fn epoch(incarnation: Incarnation, epoch: u64, parent: u64, generation: u64) -> Entry {
        Entry::Epoch(Box::new(EpochEntry {
            job: "clicks".into(),
            incarnation,
            epoch: Epoch(epoch),
            parent: Epoch(parent),
            generation: Generation(generation),
            splits: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            parts: BTreeMap::new(),
            segments: Vec::new(),
            refused: Vec::new(),
            counters: BTreeMap::new(),
            flows: BTreeMap::new(),
            sink_markers: BTreeMap::new(),
            drained: false,
            without_barrier: false,
        }))
    }

    /// What is found wrong with a log of these objects: terms with their entries.
    fn read(objects: Vec<(u64, Vec<Entry>)>) -> Option<String> {
        let mut stored = Objects::new();
        for (index, (term, entries)) in objects.into_iter().enumerate() {
            let object = LogObject {
                term: Term(term),
                nonce: index.to_string(),
                entries,
            };
            let bytes = serde_json::to_vec(&object).expect("plain data");
            stored.insert(log::key(Seq(index as u64 + 1)), Bytes::from(bytes));
        }
        let mut ledger = Ledger::default();
        ledger.log_grew(&stored);
        ledger.violation().map(str::to_owned)
    }

    fn fence(term: u64) -> (u64, Vec<Entry>) {
        let fence = Entry::Fence {
            term: Term(term),
            master: "one".to_owned(),
        };
        (term, vec![fence])
    }

    #[test]
    fn a_log_with_one_chain_is_right_and_an_object_of_an_older_term_does_not_count() {
        let life = Incarnation::fresh();
        let log = vec![
            fence(1),
            (1, vec![assign(life), epoch(life, 1, 0, 2)]),
            fence(2),
            (1, vec![epoch(life, 2, 1, 2)]),
            (2, vec![epoch(life, 2, 1, 2)]),
        ];
        assert_eq!(read(log), None);
    }

    #[test]
    fn two_epochs_with_one_parent_break_the_chain() {
        let life = Incarnation::fresh();
        let entries = vec![assign(life), epoch(life, 1, 0, 2), epoch(life, 2, 0, 2)];
        let broken = read(vec![fence(1), (1, entries)]).expect("broken");
        assert!(broken.starts_with("INV-1"), "{broken}");
    }

    #[test]
    fn an_epoch_of_an_older_generation_is_found() {
        let life = Incarnation::fresh();
        let log = vec![
            fence(1),
            (1, vec![assign(life)]),
            (1, vec![assign(life), epoch(life, 1, 0, 2)]),
        ];
        let broken = read(log).expect("broken");
        assert!(broken.starts_with("INV-4"), "{broken}");
    }

    #[test]
    fn a_term_that_two_masters_fence_is_found() {
        let broken = read(vec![fence(1), fence(1)]).expect("broken");
        assert!(broken.starts_with("INV-4"), "{broken}");
    }
}
