//! What a sink is to be handed next: the decisions of `sink_actor.rs`, without clock, tasks or I/O.
//!
//! Owns the queue of committed epochs that the sink does not hold yet (`waiting.rs`), as references to segments or to stored parts,
//! so that a sink may be down for days (INV-9). Keeps INV-3: the marker is a member of the
//! job's chain and only moves forward along it. Failure: a marker outside the chain is a
//! [`SinkError::MarkerMismatch`]; an epoch that does not follow the chain is a defect of whoever sent it.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_common::ids::{Epoch, OutputIndex, SinkIndex};
use millstream_common::log::backlog::BacklogPart;
use millstream_common::log::entry::{BrokenChain, CommittedEpoch};
use millstream_common::report::RefusedRows;

use crate::left_out::{RunSegment, run_segments};
use crate::sink::{Cadence, EpochRun, Held, SinkError};
use crate::waiting::{PendingEpoch, Place, Waiting};

/// What a sink may lack of its job's epochs.
#[derive(Clone, Debug, Default)]
pub struct Lacking {
    /// The oldest, in order.
    pub backlog: Vec<BacklogPart>,
    /// Rows that they name as refused.
    pub left_out: Vec<RefusedRows>,
    /// The rest, in order.
    pub undelivered: Vec<CommittedEpoch>,
    /// The job's last committed epoch.
    pub head: Epoch,
    /// The sink begins behind this epoch: its marker is of before, if it has one. 0 is from the life's first epoch on.
    pub start: Epoch,
    /// How far the master knows the sink to be: one that keeps no marker goes on from here.
    pub known: Epoch,
}

/// The epochs that one sink has yet to take.
#[derive(Debug)]
pub struct Delivery {
    sink: SinkIndex,
    output: OutputIndex,
    start: Epoch,
    known: Epoch,
    /// What its marker says while it has taken nothing since.
    before: Epoch,
    /// The epoch before the first that waits, or the end of the chain.
    base: Epoch,
    waiting: Waiting,
    /// By epoch, places of the rows that the sink refused, ascending: they are dead letters.
    left_out: BTreeMap<Epoch, Vec<u64>>,
    /// Known after fencing.
    held: Option<Held>,
    /// What the sink says it holds lies in a part that has to be read before it is believed.
    claimed: Option<Held>,
    /// Deliver what waits without gathering, until nothing waits.
    hurried: bool,
    /// Up to here each epoch is a run of its own: the limit of refused rows is one of an epoch.
    apart_up_to: Epoch,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Fence first.
    Fence,
    /// Nothing until another epoch is committed.
    Idle,
    /// Nothing until this much time has passed, or another epoch is committed.
    Wait(Duration),
    /// Read this part of the backlog.
    Load(BacklogPart),
    /// Apply this run.
    Apply(EpochRun, Vec<RunSegment>),
}

/// An epoch that a sink has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveredEpoch {
    /// Its number.
    pub epoch: Epoch,
    /// Rows in its segments.
    pub rows: u64,
    /// Size of these in storage.
    pub bytes: u64,
}

impl Delivery {
    /// For `sink`, which reads `output`.
    pub fn new(
        sink: SinkIndex,
        output: OutputIndex,
        lacking: Lacking,
        now: Duration,
    ) -> Result<Self, BrokenChain> {
        let oldest = lacking.backlog.first().map(|part| part.parent);
        let oldest = oldest.or(lacking.undelivered.first().map(|first| first.parent));
        let mut delivery = Self {
            sink,
            output,
            start: lacking.start,
            known: lacking.known,
            before: Epoch(0),
            base: oldest.unwrap_or(lacking.head),
            waiting: Waiting::new(lacking.backlog),
            left_out: BTreeMap::new(),
            held: None,
            claimed: None,
            hurried: false,
            apart_up_to: Epoch::default(),
        };
        for refused in &lacking.left_out {
            delivery.leave_out(refused);
        }
        for committed in lacking.undelivered {
            delivery.committed(committed, now)?;
        }
        Ok(delivery)
    }

    /// Takes the next committed epoch; one that is known already is ignored.
    pub fn committed(
        &mut self,
        committed: CommittedEpoch,
        now: Duration,
    ) -> Result<(), BrokenChain> {
        let head = self.head();
        if committed.epoch <= head {
            return Ok(());
        }
        if committed.parent != head {
            return Err(BrokenChain {
                epoch: committed.epoch,
                parent: committed.parent,
                head,
            });
        }
        for refused in &committed.refused {
            self.leave_out(refused);
        }
        self.waiting
            .push(PendingEpoch::new(committed, self.output, now));
        Ok(())
    }

    /// The log names rows that a sink refused; those of epochs that this one holds are left out already.
    fn leave_out(&mut self, refused: &RefusedRows) {
        if refused.sink != self.sink {
            return;
        }
        for (epoch, rows) in refused.rows.range(self.base.next()..) {
            let left_out = self.left_out.entry(*epoch).or_default();
            left_out.extend(rows);
            left_out.sort_unstable();
            left_out.dedup();
        }
    }

    /// Epochs that wait are in storage by now.
    pub fn folded(&mut self, part: BacklogPart) {
        self.waiting.fold(part);
    }

    /// Takes the epochs of a part that was read. Returns the marker if it was this part that says whether it is one.
    pub fn loaded(
        &mut self,
        part: &BacklogPart,
        epochs: Vec<CommittedEpoch>,
        now: Duration,
    ) -> Result<Option<Epoch>, SinkError> {
        let mut head = part.parent;
        let mut pending = Vec::with_capacity(epochs.len());
        for committed in epochs {
            if committed.parent != head {
                return Err(not_the_part(part));
            }
            head = committed.epoch;
            if head > self.base {
                pending.push(PendingEpoch::new(committed, self.output, now));
            }
        }
        if head != part.last {
            return Err(not_the_part(part));
        }
        self.waiting.unfold(part, pending);
        match self.claimed.take() {
            Some(claimed) => self.fenced(claimed),
            None => Ok(None),
        }
    }

    /// The newest committed epoch.
    pub fn head(&self) -> Epoch {
        self.waiting.head().unwrap_or(self.base)
    }

    /// Takes what the sink held when it was fenced and drops the epochs in it. Returns the marker, unless a part has to be
    /// read first to believe it.
    pub fn fenced(&mut self, held: Held) -> Result<Option<Epoch>, SinkError> {
        let marker = match held.marker {
            // It has taken nothing since it began, or was begun anew: what lies before is not for it.
            Some(before) if before <= self.start => {
                self.before = before;
                self.start
            }
            Some(marker) => marker,
            None => self.base.max(self.start).max(self.known),
        };
        match self.waiting.find(marker) {
            Place::InPart if marker != self.base => {
                self.claimed = Some(Held {
                    marker: Some(marker),
                    ..held
                });
                return Ok(None);
            }
            Place::Nowhere if marker != self.base => return Err(self.mismatch(marker)),
            Place::Known | Place::InPart | Place::Nowhere => {}
        }
        let begun = held.begun.filter(|begun| *begun > marker);
        self.held = Some(Held {
            marker: Some(marker),
            begun,
        });
        self.forget_up_to(marker);
        Ok(Some(marker))
    }

    /// The epochs of the run last handed out, which ends with `last`.
    pub fn run_up_to(&self, last: Epoch) -> Vec<DeliveredEpoch> {
        let run = self.waiting.ready().take_while(|next| next.epoch <= last);
        run.map(|next| DeliveredEpoch {
            epoch: next.epoch,
            rows: next.segments.iter().map(|each| each.row_count).sum(),
            bytes: next.segments.iter().map(|each| each.bytes).sum(),
        })
        .collect()
    }

    /// The sink holds everything up to `marker`, the end of the run last handed out.
    pub fn applied(&mut self, marker: Epoch) {
        debug_assert!(self.base < marker, "INV-3: the marker moves forward");
        self.held = Some(Held {
            marker: Some(marker),
            begun: None,
        });
        self.forget_up_to(marker);
    }

    /// What the sink holds is unknown: fence before anything else.
    pub fn failed(&mut self) {
        self.held = None;
        self.claimed = None;
    }

    /// The sink refuses a run: what waits now is tried epoch by epoch.
    pub fn refused(&mut self) {
        self.failed();
        self.apart_up_to = self.head();
    }

    /// Delivers what waits now without gathering; for a job that is being stopped.
    pub fn hurry(&mut self) {
        self.hurried = !self.waiting.is_empty();
    }

    /// What to do at `now`.
    pub fn next(&self, cadence: Cadence, now: Duration) -> Next {
        let claimed = self.claimed.and_then(|claimed| claimed.marker);
        if let Some(part) = claimed.and_then(|marker| self.waiting.part_around(marker)) {
            return Next::Load(part.clone());
        }
        let Some(held) = self.held else {
            return Next::Fence;
        };
        let Some(first) = self.waiting.ready().next() else {
            let part = self.waiting.first_part();
            return part.map_or(Next::Idle, |part| Next::Load(part.clone()));
        };
        if let Some(begun) = held.begun {
            return self.finish_begun(begun);
        }
        if first.epoch <= self.apart_up_to {
            return self.run_of(1);
        }
        let count = self.full_run(cadence);
        let is_full = self.waiting.is_longer_than(count) || count == cadence.run_epochs_max;
        let waited = now.saturating_sub(first.arrived);
        if is_full || self.waiting.has_last() || self.hurried || waited >= cadence.gather {
            return self.run_of(count);
        }
        Next::Wait(cadence.gather - waited)
    }

    /// A run that was begun may reach into a part that was stored since.
    fn finish_begun(&self, begun: Epoch) -> Next {
        let position = self.waiting.ready().position(|next| next.epoch == begun);
        match (position, self.waiting.first_part()) {
            (Some(index), _) => self.run_of(index + 1),
            (None, Some(part)) => Next::Load(part.clone()),
            (None, None) => Next::Idle,
        }
    }

    /// How many epochs from the first make the largest run; at least one.
    fn full_run(&self, cadence: Cadence) -> usize {
        let mut bytes = 0;
        let mut count = 0;
        for pending in self.waiting.ready().take(cadence.run_epochs_max) {
            bytes += pending.bytes();
            if count > 0 && bytes > cadence.run_bytes_max {
                break;
            }
            count += 1;
        }
        count
    }

    fn run_of(&self, count: usize) -> Next {
        let mut last = self.base;
        let mut segments: Vec<RunSegment> = Vec::new();
        for next in self.waiting.ready().take(count) {
            let left_out = self.left_out.get(&next.epoch);
            let left_out = left_out.map(Vec::as_slice).unwrap_or_default();
            segments.extend(run_segments(next.epoch, &next.segments, left_out));
            last = next.epoch;
        }
        let run = EpochRun {
            guard: match self.base <= self.start {
                true => self.before,
                false => self.base,
            },
            last,
            row_count: segments.iter().map(RunSegment::row_count).sum(),
        };
        Next::Apply(run, segments)
    }

    fn forget_up_to(&mut self, marker: Epoch) {
        self.waiting.forget_up_to(marker);
        self.left_out = self.left_out.split_off(&marker.next());
        self.base = marker;
        if self.waiting.is_empty() {
            self.hurried = false;
        }
    }

    fn mismatch(&self, found: Epoch) -> SinkError {
        let advice = if found > self.head() {
            "the sink is ahead of the job's log: was the storage restored from an older copy?"
        } else if found == Epoch(0) {
            "the sink's marker is gone while its rows may be there: put the marker back, or empty the sink and submit the job with --fresh"
        } else {
            "the sink is behind what is delivered to it: was it restored from an older copy? send it back there with `millstream sink rewind` and \
             --to that epoch, or, if that is not kept any more, empty it and submit the job with --fresh"
        };
        SinkError::MarkerMismatch {
            found,
            expected: self.base,
            advice: advice.to_owned(),
        }
    }
}

fn not_the_part(part: &BacklogPart) -> SinkError {
    let cause = format!("{} does not hold the epochs it was written for", part.path);
    SinkError::refused("read backlog", cause)
}

/// The pause before try number `attempt` (from 1): doubling from 200 ms to 10 s, less up to a
/// quarter of it by `seed`, so that sinks of one database do not all come back at once.
pub fn backoff(attempt: u32, seed: u64) -> Duration {
    const FIRST_MS: u64 = 200;
    const LONGEST_MS: u64 = 10_000;
    let doubled = FIRST_MS.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    let pause = doubled.min(LONGEST_MS);
    let scattered = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    Duration::from_millis(pause - scattered % (pause / 4))
}

#[cfg(test)]
mod tests;
