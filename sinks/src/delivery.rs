//! What a sink is to be handed next: the decisions of `sink_actor.rs`, without clock, tasks or I/O.
//!
//! Owns the queue of committed epochs that the sink does not hold yet, as references to segments only, so a sink
//! that is down for hours costs a few hundred bytes an epoch (INV-9). Keeps INV-3: the marker is a member of the
//! job's chain and only moves forward along it. Failure: a marker outside the chain is a
//! [`SinkError::MarkerMismatch`]; an epoch that does not follow the chain is a defect of whoever sent it.

use std::collections::VecDeque;
use std::time::Duration;

use millstream_common::ids::{Epoch, OutputIndex, SinkIndex};
use millstream_common::log::entry::{BrokenChain, CommittedEpoch};
use millstream_common::report::{RefusedRows, Segment};

use crate::left_out::{RunSegment, run_segments};
use crate::sink::{Cadence, EpochRun, Held, SinkError};

/// The part of a job's chain that a sink is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The sink begins behind this epoch: for the sink it is epoch 0, for its marker says that it has nothing.
    pub start: Epoch,
    /// The last committed epoch.
    pub head: Epoch,
}

/// The epoch as a sink numbers it that begins behind `start`.
fn seen(start: Epoch, epoch: Epoch) -> Epoch {
    match epoch <= start {
        true => Epoch::default(),
        false => epoch,
    }
}

/// The epochs that one sink has yet to take.
#[derive(Debug)]
pub struct Delivery {
    sink: SinkIndex,
    output: OutputIndex,
    start: Epoch,
    /// The parent of the first pending epoch, or the end of the chain, as the sink numbers it.
    base: Epoch,
    pending: VecDeque<PendingEpoch>,
    /// Known after fencing.
    held: Option<Held>,
    /// Deliver what waits without gathering, until nothing waits.
    hurried: bool,
    /// Up to here each epoch is a run of its own: the limit of refused rows is one of an epoch.
    apart_up_to: Epoch,
}

#[derive(Debug)]
struct PendingEpoch {
    epoch: Epoch,
    segments: Vec<Segment>,
    /// Places of the rows that the sink refused, ascending: they are dead letters.
    left_out: Vec<u64>,
    last: bool,
    /// Monotonic time at which this process learned of it.
    arrived: Duration,
}

impl PendingEpoch {
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }
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
    /// Apply this run.
    Apply(EpochRun, Vec<RunSegment>),
}

impl Delivery {
    /// For `sink`, which reads `output`: `undelivered` in order, at the end of `chain`.
    pub fn new(
        sink: SinkIndex,
        output: OutputIndex,
        undelivered: Vec<CommittedEpoch>,
        chain: Chain,
        now: Duration,
    ) -> Result<Self, BrokenChain> {
        let first = undelivered.first();
        let mut delivery = Self {
            sink,
            output,
            start: chain.start,
            base: seen(chain.start, first.map_or(chain.head, |first| first.parent)),
            pending: VecDeque::new(),
            held: None,
            hurried: false,
            apart_up_to: Epoch::default(),
        };
        for committed in undelivered {
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
        if committed.epoch <= head.max(self.start) {
            return Ok(());
        }
        if seen(self.start, committed.parent) != head {
            return Err(BrokenChain {
                epoch: committed.epoch,
                parent: committed.parent,
                head,
            });
        }
        for refused in &committed.refused {
            if refused.sink == self.sink {
                self.leave_out(refused);
            }
        }
        let mut segments = committed.segments;
        segments.retain(|segment| segment.output == self.output);
        self.pending.push_back(PendingEpoch {
            epoch: committed.epoch,
            segments,
            left_out: Vec::new(),
            last: committed.last,
            arrived: now,
        });
        Ok(())
    }

    /// The log names rows that the sink refused; those of epochs that the sink holds are left out already.
    fn leave_out(&mut self, refused: &RefusedRows) {
        for (epoch, rows) in &refused.rows {
            let pending = self.pending.iter_mut().find(|next| next.epoch == *epoch);
            if let Some(pending) = pending {
                pending.left_out.extend(rows);
                pending.left_out.sort_unstable();
                pending.left_out.dedup();
            }
        }
    }

    /// The newest committed epoch.
    pub fn head(&self) -> Epoch {
        self.pending.back().map_or(self.base, |last| last.epoch)
    }

    /// Takes what the sink held when it was fenced and drops the epochs in it. Returns the marker.
    pub fn fenced(&mut self, held: Held) -> Result<Epoch, SinkError> {
        let marker = held.marker.unwrap_or(self.base);
        let in_chain =
            marker == self.base || self.pending.iter().any(|pending| pending.epoch == marker);
        if !in_chain {
            return Err(self.mismatch(marker));
        }
        let begun = held.begun.filter(|begun| *begun > marker);
        self.held = Some(Held {
            marker: Some(marker),
            begun,
        });
        self.forget_up_to(marker);
        // Whoever asks how far the sink is counts by the job's chain.
        Ok(marker.max(self.start))
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
    }

    /// The sink refuses a run: what waits now is tried epoch by epoch.
    pub fn refused(&mut self) {
        self.failed();
        self.apart_up_to = self.head();
    }

    /// Delivers what waits now without gathering; for a job that is being stopped.
    pub fn hurry(&mut self) {
        self.hurried = !self.pending.is_empty();
    }

    /// What to do at `now`.
    pub fn next(&self, cadence: Cadence, now: Duration) -> Next {
        let Some(held) = self.held else {
            return Next::Fence;
        };
        let Some(first) = self.pending.front() else {
            return Next::Idle;
        };
        if let Some(begun) = held.begun {
            return self.finish_begun(begun);
        }
        if first.epoch <= self.apart_up_to {
            return self.run_of(1);
        }
        let count = self.full_run(cadence);
        let is_full = count < self.pending.len() || count == cadence.run_epochs_max;
        let is_last = self.pending.iter().any(|pending| pending.last);
        let waited = now.saturating_sub(first.arrived);
        if is_full || is_last || self.hurried || waited >= cadence.gather {
            return self.run_of(count);
        }
        Next::Wait(cadence.gather - waited)
    }

    fn finish_begun(&self, begun: Epoch) -> Next {
        let position = self.pending.iter().position(|next| next.epoch == begun);
        match position {
            Some(index) => self.run_of(index + 1),
            None => Next::Idle,
        }
    }

    /// How many epochs from the first make the largest run; at least one.
    fn full_run(&self, cadence: Cadence) -> usize {
        let mut bytes = 0;
        let mut count = 0;
        for pending in self.pending.iter().take(cadence.run_epochs_max) {
            bytes += pending.bytes();
            if count > 0 && bytes > cadence.run_bytes_max {
                break;
            }
            count += 1;
        }
        count
    }

    fn run_of(&self, count: usize) -> Next {
        let epochs = self.pending.iter().take(count);
        let segments: Vec<RunSegment> = epochs
            .flat_map(|next| run_segments(next.epoch, &next.segments, &next.left_out))
            .collect();
        let run = EpochRun {
            guard: self.base,
            last: self.pending[count - 1].epoch,
            row_count: segments.iter().map(RunSegment::row_count).sum(),
        };
        Next::Apply(run, segments)
    }

    fn forget_up_to(&mut self, marker: Epoch) {
        while let Some(first) = self.pending.front() {
            if first.epoch > marker {
                break;
            }
            self.pending.pop_front();
        }
        self.base = marker;
        if self.pending.is_empty() {
            self.hurried = false;
        }
    }

    fn mismatch(&self, found: Epoch) -> SinkError {
        let advice = if found > self.head() {
            "the sink is ahead of the job's log: was the storage restored from an older copy?"
        } else if found == Epoch(0) {
            "the sink's marker is gone while its rows may be there: put the marker back, or empty the sink and submit the job with --fresh"
        } else {
            "the sink is behind what the log still holds: was it restored from an older copy? empty it and submit the job with --fresh"
        };
        SinkError::MarkerMismatch {
            found,
            expected: self.base,
            advice: advice.to_owned(),
        }
    }
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
mod tests {
    use super::*;

    const OUT: SinkIndex = SinkIndex(3);
    const MINE: OutputIndex = OutputIndex(1);
    const AT_ONCE: Cadence = Cadence {
        run_bytes_max: 100,
        run_epochs_max: 4,
        gather: Duration::ZERO,
    };
    const GATHERING: Cadence = Cadence {
        gather: Duration::from_secs(60),
        ..AT_ONCE
    };

    fn segment(output: OutputIndex, bytes: u64) -> Segment {
        Segment {
            output,
            path: format!("segments/{output}"),
            bytes,
            checksum: 0,
            row_count: bytes / 10,
        }
    }

    fn committed(parent: u64, epoch: u64, bytes: u64) -> CommittedEpoch {
        CommittedEpoch {
            epoch: Epoch(epoch),
            parent: Epoch(parent),
            segments: vec![segment(MINE, bytes), segment(OutputIndex(0), 5)],
            refused: Vec::new(),
            last: false,
        }
    }

    fn delivery(undelivered: Vec<CommittedEpoch>, head: u64) -> Delivery {
        behind(0, undelivered, head)
    }

    fn behind(start: u64, undelivered: Vec<CommittedEpoch>, head: u64) -> Delivery {
        let (start, head) = (Epoch(start), Epoch(head));
        let chain = Chain { start, head };
        Delivery::new(OUT, MINE, undelivered, chain, Duration::ZERO).expect("a chain")
    }

    fn held(marker: u64) -> Held {
        Held {
            marker: Some(Epoch(marker)),
            begun: None,
        }
    }

    fn range(next: Next) -> Option<(u64, u64, u64)> {
        match next {
            Next::Apply(run, _) => Some((run.guard.0, run.last.0, run.row_count)),
            _ => None,
        }
    }

    #[test]
    fn a_sink_that_begins_behind_an_epoch_gets_nothing_of_it_and_keeps_its_own_chain() {
        let epochs = || {
            vec![
                committed(4, 5, 10),
                committed(5, 7, 20),
                committed(7, 8, 30),
            ]
        };
        let mut new = behind(7, epochs(), 8);
        assert_eq!(new.fenced(held(0)).expect("it holds nothing"), Epoch(7));
        assert_eq!(range(new.next(AT_ONCE, Duration::ZERO)), Some((0, 8, 3)));
        let mut at_head = behind(8, epochs(), 8);
        assert_eq!(at_head.fenced(held(0)).expect("nothing"), Epoch(8));
        assert_eq!(at_head.next(AT_ONCE, Duration::ZERO), Next::Idle);
        at_head
            .committed(committed(8, 9, 40), Duration::ZERO)
            .expect("the chain");
        assert_eq!(
            range(at_head.next(AT_ONCE, Duration::ZERO)),
            Some((0, 9, 4))
        );
        let mut later = behind(7, vec![committed(8, 9, 40)], 9);
        assert_eq!(later.fenced(held(8)).expect("its chain"), Epoch(8));
        assert_eq!(range(later.next(AT_ONCE, Duration::ZERO)), Some((8, 9, 4)));
        let mut lost = behind(7, vec![committed(8, 9, 40)], 9);
        assert!(lost.fenced(held(0)).is_err(), "its marker is gone");
    }

    #[test]
    fn epochs_that_were_refused_together_are_tried_one_by_one() {
        let chain = (1..=3).map(|epoch| committed(epoch - 1, epoch, 10));
        let mut delivery = delivery(chain.collect(), 3);
        let next = |delivery: &Delivery| range(delivery.next(AT_ONCE, Duration::ZERO));
        delivery.fenced(held(0)).expect("in the chain");
        assert_eq!(next(&delivery), Some((0, 3, 3)));
        delivery.refused();
        for (parent, epoch) in [(3, 4), (4, 5)] {
            let later = committed(parent, epoch, 10);
            delivery.committed(later, Duration::ZERO).expect("a chain");
        }
        delivery.fenced(held(0)).expect("in the chain");
        for epoch in 1..=3 {
            assert_eq!(next(&delivery), Some((epoch - 1, epoch, 1)));
            delivery.applied(Epoch(epoch));
        }
        assert_eq!(next(&delivery), Some((3, 5, 2)));
    }

    #[test]
    fn nothing_is_applied_before_the_sink_is_fenced() {
        let mut delivery = delivery(vec![committed(0, 1, 10)], 1);
        assert_eq!(delivery.next(AT_ONCE, Duration::ZERO), Next::Fence);
        delivery.fenced(held(0)).expect("in the chain");
        assert_eq!(
            range(delivery.next(AT_ONCE, Duration::ZERO)),
            Some((0, 1, 1))
        );
        delivery.failed();
        assert_eq!(delivery.next(AT_ONCE, Duration::ZERO), Next::Fence);
    }

    #[test]
    fn epochs_the_sink_holds_are_skipped_and_the_rest_follows_its_marker() {
        let mut delivery = delivery(vec![committed(2, 3, 10), committed(3, 7, 20)], 7);
        assert_eq!(delivery.fenced(held(3)).ok(), Some(Epoch(3)));
        assert_eq!(
            range(delivery.next(AT_ONCE, Duration::ZERO)),
            Some((3, 7, 2))
        );
        delivery.applied(Epoch(7));
        assert_eq!(delivery.next(AT_ONCE, Duration::ZERO), Next::Idle);
    }

    #[test]
    fn a_marker_outside_the_chain_is_a_mismatch() {
        for marker in [0, 1, 5, 8] {
            let mut delivery = delivery(vec![committed(2, 3, 10), committed(3, 7, 20)], 7);
            let refused = delivery.fenced(held(marker));
            assert!(
                matches!(refused, Err(SinkError::MarkerMismatch { .. })),
                "{marker}: {refused:?}"
            );
        }
        assert!(delivery(vec![], 4).fenced(held(0)).is_err());
        assert!(delivery(vec![], 4).fenced(held(4)).is_ok());
    }

    #[test]
    fn a_sink_without_a_marker_goes_on_after_what_the_log_holds() {
        let mut delivery = delivery(vec![committed(2, 3, 10)], 3);
        let none = Held {
            marker: None,
            begun: None,
        };
        assert_eq!(delivery.fenced(none).ok(), Some(Epoch(2)));
    }

    #[test]
    fn epochs_are_merged_up_to_the_bounds_but_never_split() {
        let epochs = vec![
            committed(0, 1, 400),
            committed(1, 2, 60),
            committed(2, 3, 40),
            committed(3, 4, 1),
        ];
        let mut delivery = delivery(epochs, 4);
        delivery.fenced(held(0)).expect("in the chain");
        assert_eq!(
            range(delivery.next(AT_ONCE, Duration::ZERO)),
            Some((0, 1, 40))
        );
        delivery.applied(Epoch(1));
        assert_eq!(
            range(delivery.next(AT_ONCE, Duration::ZERO)),
            Some((1, 3, 10))
        );
    }

    #[test]
    fn a_gathering_sink_waits_for_time_bytes_the_end_or_a_hurry() {
        let later = Duration::from_secs(20);
        let mut delivery = delivery(vec![committed(0, 1, 10)], 1);
        delivery.fenced(held(0)).expect("in the chain");
        assert_eq!(
            delivery.next(GATHERING, later),
            Next::Wait(Duration::from_secs(40))
        );
        assert_eq!(
            range(delivery.next(GATHERING, Duration::from_secs(60))),
            Some((0, 1, 1))
        );
        delivery
            .committed(committed(1, 2, 95), later)
            .expect("next");
        assert_eq!(range(delivery.next(GATHERING, later)), Some((0, 1, 1)));
        delivery.applied(Epoch(1));
        assert!(matches!(delivery.next(GATHERING, later), Next::Wait(_)));
        delivery.hurry();
        assert_eq!(range(delivery.next(GATHERING, later)), Some((1, 2, 9)));
        delivery.applied(Epoch(2));
        let end = CommittedEpoch {
            last: true,
            ..committed(2, 3, 10)
        };
        delivery.committed(end, later).expect("next");
        assert_eq!(range(delivery.next(GATHERING, later)), Some((2, 3, 1)));
    }

    #[test]
    fn a_run_that_was_begun_is_finished_exactly() {
        let epochs = vec![committed(0, 1, 1), committed(1, 2, 1), committed(2, 3, 1)];
        let mut delivery = delivery(epochs, 3);
        let begun = Held {
            marker: Some(Epoch(0)),
            begun: Some(Epoch(2)),
        };
        delivery.fenced(begun).expect("in the chain");
        assert_eq!(
            range(delivery.next(GATHERING, Duration::ZERO)),
            Some((0, 2, 0))
        );
        delivery.applied(Epoch(2));
        assert!(matches!(
            delivery.next(GATHERING, Duration::ZERO),
            Next::Wait(_)
        ));
    }

    #[test]
    fn an_epoch_out_of_the_chain_is_refused_and_a_known_one_ignored() {
        let mut delivery = delivery(vec![committed(0, 1, 1)], 1);
        let gap = delivery.committed(committed(2, 3, 1), Duration::ZERO);
        assert!(gap.is_err());
        delivery
            .committed(committed(0, 1, 1), Duration::ZERO)
            .expect("known");
        assert_eq!(delivery.head(), Epoch(1));
    }

    #[test]
    fn rows_that_the_log_names_as_refused_are_left_out_of_every_run() {
        let refused = |sink, epoch, rows: &[u64]| RefusedRows {
            sink,
            attempt: "a".to_owned(),
            rows: [(Epoch(epoch), rows.to_vec())].into(),
        };
        let naming = CommittedEpoch {
            refused: vec![refused(OUT, 1, &[2, 0]), refused(SinkIndex(0), 1, &[1])],
            ..committed(1, 2, 10)
        };
        let epochs = vec![committed(0, 1, 30), naming.clone()];
        for mut delivery in [delivery(epochs, 2), delivery(vec![committed(0, 1, 30)], 1)] {
            delivery
                .committed(naming.clone(), Duration::ZERO)
                .expect("next");
            delivery.fenced(held(0)).expect("in the chain");
            let Next::Apply(run, segments) = delivery.next(AT_ONCE, Duration::ZERO) else {
                panic!("a run is due");
            };
            assert_eq!(run.row_count, 2);
            assert_eq!(segments[0].left_out, [0, 2]);
        }
    }

    #[test]
    fn pauses_double_up_to_ten_seconds_and_scatter() {
        for (attempt, longest) in [(1, 200), (2, 400), (3, 800), (7, 10_000), (60, 10_000)] {
            for seed in 0..50 {
                let pause = backoff(attempt, seed).as_millis() as u64;
                assert!(pause <= longest && pause > longest * 3 / 4 - 1, "{pause}");
            }
        }
    }
}
