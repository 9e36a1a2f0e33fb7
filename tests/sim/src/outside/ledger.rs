//! The invariants that can be seen from outside, checked at each log object and each move of a marker.
//!
//! Told by the simulated storage and Postgres, at the moment of the effect. Folds the log as a reader of it would, apart from the
//! production's replay. INV-1 one chain, INV-2 and INV-3 markers (with `sent_back.rs`), INV-4 terms, generations and tokens, INV-5
//! positions, INV-6 watermarks, INV-8 objects, INV-9 by `pace.rs`, INV-10 by `sums.rs`. What has to be compared with the records (INV-7) is
//! handed to the driver, which knows them.
//! Failure: the first broken rule is kept and ends the simulation.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millstream_common::ids::{
    Epoch, Generation, Incarnation, JobName, OperatorId, OutputIndex, Seq, SourceIndex, SplitId,
    Term, Token,
};
use millstream_common::log::entry::{AssignEntry, EpochEntry, JobEnd, JobProgress, generation_of};
use millstream_common::log::savepoint::SavepointEntry;
use millstream_common::log::{self, Boundary, Entry, LogObject};
use millstream_common::plan::JobPlan;
use millstream_common::report::StatePart;
use millstream_common::time::EventTime;
use millstream_sinks::sink::{Deliverer, EpochRun};

use super::pace::Pace;
use super::sent_back::WayBack;
use super::sums;
use crate::expected::Progress;
use crate::trace::event;

/// The only source of the job.
const SOURCE: SourceIndex = SourceIndex(0);

/// What has been seen.
#[derive(Default)]
pub(crate) struct Ledger {
    read_to: Seq,
    term: Term,
    pub(super) chains: BTreeMap<String, Chain>,
    violation: Option<String>,
    /// The greatest token that has fenced each table.
    pub(super) tokens: BTreeMap<String, Token>,
    /// Tables whose marker has moved since the driver looked.
    pub(crate) moved: BTreeSet<String>,
    /// Epochs that have come since the driver looked.
    pub(crate) come: Vec<Come>,
    /// Sinks of the job.
    pub(crate) sink_count: usize,
    /// How often a job gave up, with the last cause.
    pub(crate) failures: Vec<String>,
}

/// One life of one job.
#[derive(Default)]
pub(crate) struct Chain {
    pub(crate) progress: JobProgress,
    plan: Option<JobPlan>,
    pub(crate) epochs: Vec<Epoch>,
    pub(crate) generations: Vec<Generation>,
    watermarks: BTreeMap<SourceIndex, EventTime>,
    split_watermarks: BTreeMap<(SourceIndex, SplitId), EventTime>,
    /// By table.
    pub(crate) markers: BTreeMap<String, Epoch>,
    /// How far each epoch has come.
    pub(super) history: BTreeMap<Epoch, Progress>,
    /// The segments that are in storage, by path.
    pub(super) segments: BTreeMap<String, Kept>,
    /// The state that each savepoint needs.
    savepoints: BTreeMap<String, BTreeSet<String>>,
    pub(super) way_back: WayBack,
    pub(super) pace: Pace,
}

/// A segment that an epoch names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) epoch: Epoch,
    pub(super) output: OutputIndex,
    pub(super) bytes: u64,
}

/// An epoch that has come, for a look at the state that it names.
pub(crate) struct Come {
    pub(crate) epoch: Epoch,
    pub(crate) progress: Progress,
    pub(crate) parts: BTreeMap<OperatorId, Vec<StatePart>>,
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
            match log::decode(&log::key(seq), bytes) {
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
            Entry::Job(job) => {
                event!("log {seq}: job {}", job.job);
                let chain = chain(&mut self.chains, &job.job, job.incarnation);
                chain.pace.set(&job.plan);
                chain.plan = Some(job.plan.clone());
                if self.chains.len() > 1 {
                    let what = format!("job {} begins a second life, and nobody asked", job.job);
                    self.violated("lives", what);
                }
            }
            Entry::Assign(assign) => self.assigned(seq, assign),
            Entry::Epoch(epoch) => self.epoch(seq, epoch, objects),
            Entry::Ended { end, .. } => {
                event!("log {seq}: ended {end:?}");
                if let JobEnd::Failed { failure } = end {
                    self.failures.push(failure.to_string());
                }
            }
            Entry::Replay(replay) => event!("log {seq}: replay {}", replay.split),
            Entry::SinkCommanded {
                job,
                incarnation,
                sink,
                command,
                by_quota,
            } => {
                event!("log {seq}: sink {sink} told to {command:?}, by quota {by_quota}");
                let chain = chain(&mut self.chains, job, *incarnation);
                if let Some(what) = chain.commanded(seq, *sink, *command, *by_quota) {
                    self.violated("quota", what);
                }
            }
            Entry::SinkRewound {
                job,
                incarnation,
                sink,
                to,
            } => {
                event!("log {seq}: sink {sink} is sent back to {to}");
                let chain = chain(&mut self.chains, job, *incarnation);
                if let Some(what) = chain.sent_back(seq, *sink, *to) {
                    self.violated("INV-8", what);
                }
            }
            Entry::Forgotten {
                job,
                incarnation,
                through,
            } => {
                event!("log {seq}: forget up to {through}");
                let chain = chain(&mut self.chains, job, *incarnation);
                chain.progress.forget(*through);
            }
            Entry::Backlog { part, .. } => {
                event!("log {seq}: backlog up to {}", part.last);
                if !objects.contains_key(&part.path) {
                    self.violated("INV-8", format!("{} is not in storage", part.path));
                }
            }
            Entry::Resumed { job, .. } => event!("log {seq}: resumed {job}"),
            Entry::Savepoint(kept) => self.kept(seq, kept),
            Entry::SavepointDropped { name, .. } => self.dropped(seq, name),
            Entry::Carried(carried) => event!("log {seq}: carried {}", carried.job.job),
        }
    }

    fn kept(&mut self, seq: Seq, kept: &SavepointEntry) {
        event!("log {seq}: savepoint of {}", kept.epoch);
        let chain = chain(&mut self.chains, &kept.job, kept.incarnation);
        chain.keep(kept);
    }

    fn dropped(&mut self, seq: Seq, name: &str) {
        event!("log {seq}: dropped {name}");
        for chain in self.chains.values_mut() {
            chain.savepoints.remove(name);
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
        chain.pace.assigned();
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
        broken.extend(chain.check_pace(entry).map(|what| ("INV-9", what)));
        if let Err(error) = chain.progress.apply(entry) {
            broken.push(("INV-1", error.to_string()));
        }
        chain.progress.note_delivered(self.sink_count);
        chain.epochs.push(entry.epoch);
        let progress = chain.note(entry);
        self.come.push(Come {
            epoch: entry.epoch,
            progress,
            parts: chain.progress.parts.clone(),
        });
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

    /// A deliverer has fenced the ones before it.
    pub(crate) fn fenced(&mut self, table: &str, token: Token) {
        let newest = self.tokens.entry(table.to_owned()).or_default();
        *newest = token.max(*newest);
    }

    /// A sink holds a run now.
    pub(crate) fn delivered(&mut self, table: &str, deliverer: &Deliverer, run: &EpochRun) {
        let newest = self.tokens.get(table).copied().unwrap_or_default();
        if deliverer.token < newest {
            let token = deliverer.token;
            let what = format!("sink {table} takes rows of token {token} after {newest} fenced it");
            self.violated("INV-4", what);
        }
        let key = chain_key(&deliverer.job, deliverer.incarnation);
        let known = self.chains.get(&key);
        let marker = known.and_then(|chain| chain.markers.get(table));
        let marker = marker.copied().unwrap_or_default();
        if marker != run.guard || run.last <= run.guard {
            let what = format!("sink {table} goes from {marker} to {}", run.last);
            self.violated("INV-3", what);
        }
        self.check_paused(table, &key, deliverer.token);
        self.holds(table, &key, run.last);
    }

    /// A sink holds everything up to `epoch` now.
    pub(crate) fn holds(&mut self, table: &str, chain: &str, epoch: Epoch) {
        let chain = self.chains.entry(chain.to_owned()).or_default();
        let before = chain.markers.insert(table.to_owned(), epoch);
        // Before the first epoch there is nothing, which a sink that was sent back there says as well.
        let is_canonical = epoch == Epoch(0) || chain.epochs.contains(&epoch);
        if before != Some(epoch) {
            self.moved.insert(table.to_owned());
        }
        if !is_canonical {
            let what = format!("sink {table} holds epoch {epoch}, the log does not");
            self.violated("INV-2", what);
        }
        if before.is_some_and(|before| before > epoch) {
            let what = format!("sink {table} goes back to {epoch}");
            self.violated("INV-3", what);
        }
    }

    /// What the marker of a table says: its epoch, and how far that has come. The table of the newest life counts.
    pub(crate) fn held_by(&self, table: &str) -> Option<(Epoch, Progress)> {
        let chain = self.chains.values().last()?;
        let epoch = chain.markers.get(table)?;
        Some((*epoch, chain.history.get(epoch)?.clone()))
    }

    /// An object is gone from storage.
    pub(crate) fn deleted(&mut self, key: &str, objects: &Objects) {
        let sink_count = self.sink_count;
        let is_needed = match key.split('/').next() {
            Some("log") => {
                let boundaries = objects.range("boundary/".to_owned()..);
                let mut behind = boundaries.map_while(|(key, _)| Boundary::from_key(key));
                !behind.any(|boundary| log::key(boundary.seq).as_str() >= key)
            }
            Some("state") => self.chains.values().any(|chain| chain.needs_part(key)),
            Some("segments") => {
                let mut chains = self.chains.values();
                chains.any(|chain| chain.needs_segment(key, sink_count))
            }
            _ => false,
        };
        if is_needed {
            self.violated("INV-8", format!("{key} is deleted and needed"));
        }
        for chain in self.chains.values_mut() {
            chain.segments.remove(key);
        }
    }
}

pub(super) fn chain_key(job: &JobName, incarnation: Incarnation) -> String {
    format!("{job} {incarnation}")
}

pub(super) fn chain<'a>(
    chains: &'a mut BTreeMap<String, Chain>,
    job: &JobName,
    incarnation: Incarnation,
) -> &'a mut Chain {
    chains.entry(chain_key(job, incarnation)).or_default()
}

impl Chain {
    /// Where it stands, for people.
    pub(crate) fn describe(&self) -> String {
        let (epoch, markers) = (self.progress.epoch, &self.markers);
        let generation = self.generations.last().copied().unwrap_or_default();
        let is_drained = self.progress.drained;
        format!("epoch {epoch}, generation {generation}, drained {is_drained}, markers {markers:?}")
    }

    /// Notes how far an epoch has come that was folded in.
    fn note(&mut self, entry: &EpochEntry) -> Progress {
        let splits = self.progress.splits.get(&SOURCE).into_iter().flatten();
        let acted = self.progress.acted_watermarks.get(&SOURCE);
        let progress = Progress {
            positions: splits
                .map(|(split, progress)| (split.clone(), progress.position))
                .collect(),
            closed_to_us: match entry.drained {
                true => Some(i64::MAX),
                false => acted.map(|watermark| watermark.0),
            },
        };
        self.history.insert(entry.epoch, progress.clone());
        let segments = entry.segments.iter();
        let segments = segments.map(|segment| {
            let kept = Kept {
                epoch: entry.epoch,
                output: segment.output,
                bytes: segment.bytes,
            };
            (segment.path.clone(), kept)
        });
        self.segments.extend(segments);
        progress
    }

    /// The newest epoch is kept by name.
    fn keep(&mut self, kept: &SavepointEntry) {
        if kept.epoch != self.progress.epoch {
            return;
        }
        let parts = self.progress.parts.values().flatten();
        let parts = parts.map(|part| part.path.clone()).collect();
        self.savepoints.entry(kept.name.clone()).or_insert(parts);
    }

    fn needs_part(&self, key: &str) -> bool {
        let mut parts = self.progress.parts.values().flatten();
        let mut kept = self.savepoints.values();
        parts.any(|part| part.path == key) || kept.any(|parts| parts.contains(key))
    }

    /// Whether a sink lacks the epoch of a segment, or may still be sent back to before it: the log does not say that it is forgotten.
    fn needs_segment(&self, key: &str, sink_count: usize) -> bool {
        let held = match self.markers.len() < sink_count {
            true => None,
            false => self.markers.values().min(),
        };
        let needs = |epoch: Epoch| {
            let is_lacked = held.is_none_or(|held| epoch > *held);
            is_lacked || epoch > self.progress.retained_from
        };
        let segment = self.segments.get(key);
        segment.is_some_and(|segment| needs(segment.epoch))
    }

    /// What is wrong with an epoch, seen from its parent.
    fn check(&mut self, entry: &EpochEntry) -> Vec<(&'static str, String)> {
        let mut broken = Vec::new();
        if self.generations.last() != Some(&entry.generation) {
            let newest = self.generations.last();
            let what = format!("by generation {}, but {newest:?} runs", entry.generation);
            broken.push(("INV-4", what));
        }
        let mut moved = 0;
        for (source, splits) in &entry.splits {
            let known = self.progress.splits.get(source);
            for (split, progress) in splits {
                let before = known.and_then(|known| known.get(split));
                let from = before.map_or(0, |before| before.position);
                moved += progress.position - from;
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
        let read: u64 = entry.counters.values().map(|counters| counters.read).sum();
        if moved != read as i64 {
            let what = format!("{read} records were read, the positions move by {moved}");
            broken.push(("INV-5", what));
        }
        let plan = self.plan.as_ref();
        let open = plan.and_then(|plan| sums::open_count(plan, entry));
        broken.extend(open.map(|what| ("INV-10", what)));
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
            placement: None,
        }))
    }

    fn epoch(incarnation: Incarnation, epoch: u64, parent: u64, generation: u64) -> Entry {
        Entry::Epoch(Box::new(EpochEntry {
            job: "clicks".into(),
            incarnation,
            epoch: Epoch(epoch),
            parent: Epoch(parent),
            committed_at_us: 0,
            generation: Generation(generation),
            splits: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            parts: BTreeMap::new(),
            segments: Vec::new(),
            refused: Vec::new(),
            dropped: BTreeMap::new(),
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
            let bytes = log::encode(&object).expect("plain data");
            stored.insert(log::key(Seq(index as u64 + 1)), bytes);
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
