//! The rules of alignment one by one, then any interleaving of any edges against a model that recomputes everything
//! from the whole history after each message.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::FutureExt;
use millstream_common::ids::SourceIndex;
use millstream_common::time::EventTime;
use proptest::prelude::*;

use super::*;
use crate::exchange::credit::EdgeCredits;
use crate::exchange::message::OwnedRows;
use crate::exchange::testing::{edge, numbers};

fn batch_with(credits: &EdgeCredits, number: i64) -> StreamMessage {
    let permit = credits
        .acquire(1)
        .now_or_never()
        .expect("free")
        .expect("open");
    StreamMessage::Batch(EdgeBatch {
        rows: OwnedRows::whole(numbers([number])),
        permit,
    })
}

fn batch(number: i64) -> StreamMessage {
    batch_with(&EdgeCredits::new(1), number)
}

fn barrier_of(epoch: u64, kind: BarrierKind, watermark: i64) -> StreamMessage {
    StreamMessage::Barrier(EdgeBarrier {
        epoch: Epoch(epoch),
        watermarks: BTreeMap::from([(SourceIndex(0), EventTime(watermark))]),
        kind,
    })
}

fn barrier(epoch: u64) -> StreamMessage {
    barrier_of(epoch, BarrierKind::Checkpoint, epoch as i64)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Folded(EdgeId, i64),
    Aligned(u64),
}

fn number(batch: &RecordBatch) -> i64 {
    batch.column(0).as_primitive::<Int64Type>().value(0)
}

fn seen(outcomes: &[Outcome]) -> Vec<Seen> {
    let see = |outcome: &Outcome| match outcome {
        Outcome::Fold { edge, batch } => Seen::Folded(*edge, number(batch.rows.batch())),
        Outcome::Snapshot(barrier) => Seen::Aligned(barrier.epoch.0),
    };
    outcomes.iter().map(see).collect()
}

fn accepted(alignment: &mut Alignment, from: EdgeId, message: StreamMessage) -> Vec<Seen> {
    seen(&alignment.accept(from, message).expect("in order"))
}

fn two_edges() -> (Alignment, EdgeId, EdgeId) {
    let (left, right) = (edge(0, 0), edge(1, 0));
    (Alignment::new([left, right]), left, right)
}

#[test]
fn rows_behind_a_barrier_wait_for_the_slowest_edge() {
    let (mut alignment, left, right) = two_edges();
    assert_eq!(accepted(&mut alignment, left, barrier(7)), []);
    assert_eq!(accepted(&mut alignment, left, batch(2)), []);
    assert_eq!(
        accepted(&mut alignment, right, batch(1)),
        [Seen::Folded(right, 1)]
    );
    assert_eq!(
        accepted(&mut alignment, right, barrier(7)),
        [Seen::Aligned(7), Seen::Folded(left, 2)]
    );
}

#[test]
fn an_edge_two_epochs_ahead_is_released_one_epoch_at_a_time() {
    let (mut alignment, left, right) = two_edges();
    for message in [barrier(1), batch(2), barrier(4), batch(3)] {
        assert_eq!(accepted(&mut alignment, left, message), []);
    }
    assert_eq!(
        accepted(&mut alignment, right, barrier(1)),
        [Seen::Aligned(1), Seen::Folded(left, 2)]
    );
    assert_eq!(
        accepted(&mut alignment, right, barrier(4)),
        [Seen::Aligned(4), Seen::Folded(left, 3)]
    );
}

#[test]
fn a_single_edge_is_never_held() {
    let only = edge(0, 0);
    let mut alignment = Alignment::new([only]);
    assert_eq!(
        accepted(&mut alignment, only, barrier(1)),
        [Seen::Aligned(1)]
    );
    assert_eq!(
        accepted(&mut alignment, only, batch(5)),
        [Seen::Folded(only, 5)]
    );
}

#[test]
fn a_held_batch_keeps_its_permit() {
    let (mut alignment, left, right) = two_edges();
    let credits = EdgeCredits::new(3);
    accepted(&mut alignment, left, barrier(1));
    accepted(&mut alignment, left, batch_with(&credits, 1));
    assert_eq!(credits.free_bytes(), 2);
    let released = alignment.accept(right, barrier(1)).expect("in order");
    assert_eq!(credits.free_bytes(), 2);
    drop(released);
    assert_eq!(credits.free_bytes(), 3);
}

#[test]
fn a_barrier_out_of_turn_is_refused() {
    let (mut alignment, left, right) = two_edges();
    accepted(&mut alignment, left, barrier(4));
    let refused = alignment
        .accept(right, barrier(5))
        .expect_err("out of turn");
    let expected = AlignError::OutOfTurn {
        edge: right,
        expected: Epoch(4),
        found: Epoch(5),
    };
    assert_eq!(refused, expected);
}

#[test]
fn edges_have_to_agree_about_kind_and_watermarks() {
    let others = [
        barrier_of(4, BarrierKind::Stop, 4),
        barrier_of(4, BarrierKind::Checkpoint, 3),
    ];
    for other in others {
        let (mut alignment, left, right) = two_edges();
        accepted(&mut alignment, left, barrier(4));
        let refused = alignment.accept(right, other).expect_err("disagreement");
        let epoch = Epoch(4);
        assert_eq!(refused, AlignError::Disagreement { edge: right, epoch });
    }
}

#[test]
fn epochs_only_grow() {
    let (mut alignment, left, right) = two_edges();
    accepted(&mut alignment, left, barrier(4));
    accepted(&mut alignment, right, barrier(4));
    let refused = alignment.accept(left, barrier(4)).expect_err("backwards");
    let expected = AlignError::Backwards {
        edge: left,
        last: Epoch(4),
        found: Epoch(4),
    };
    assert_eq!(refused, expected);
}

#[test]
fn nothing_follows_a_stop_barrier() {
    let (mut alignment, left, right) = two_edges();
    let stop = || barrier_of(4, BarrierKind::Stop, 4);
    accepted(&mut alignment, left, stop());
    assert_eq!(accepted(&mut alignment, right, stop()), [Seen::Aligned(4)]);
    let refused = alignment.accept(left, batch(1)).expect_err("after stop");
    assert_eq!(refused, AlignError::AfterStop(left));

    let (mut held, left, right) = two_edges();
    accepted(&mut held, left, stop());
    accepted(&mut held, left, batch(1));
    let refused = held.accept(right, stop()).expect_err("after stop");
    assert_eq!(refused, AlignError::AfterStop(left));
}

#[test]
fn a_stranger_is_refused() {
    let (mut alignment, ..) = two_edges();
    let stranger = edge(9, 0);
    let refused = alignment.accept(stranger, batch(1)).expect_err("stranger");
    assert_eq!(refused, AlignError::UnknownEdge(stranger));
}

/// What an edge sends: a batch, or its next barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Batch,
    Barrier,
}

/// Recomputes from the whole history what must have been done by now.
#[derive(Default)]
struct Model {
    /// By edge: the number of each batch with how many barriers stood before it, and the count of barriers.
    edges: BTreeMap<EdgeId, (Vec<(i64, u64)>, u64)>,
}

impl Model {
    fn epochs_done(&self) -> u64 {
        let counts = self.edges.values().map(|(_, barriers)| *barriers);
        counts.min().unwrap_or(0)
    }

    /// The batches of each edge that belong to the running epoch or an earlier one, with their epoch's number.
    fn folded(&self) -> BTreeMap<EdgeId, Vec<(i64, u64)>> {
        let done = self.epochs_done();
        let of_edge = |batches: &Vec<(i64, u64)>| {
            let reached = batches.iter().filter(|(_, epoch)| *epoch <= done);
            reached.copied().collect()
        };
        let edges = self.edges.iter();
        edges
            .map(|(edge, (batches, _))| (*edge, of_edge(batches)))
            .collect()
    }
}

proptest! {
    #[test]
    fn any_interleaving_gives_what_the_whole_history_says(
        edge_count in 1u32..5,
        sent in prop::collection::vec((0u32..5, prop_oneof![Just(Sent::Batch), Just(Sent::Barrier)]), 0..120),
    ) {
        let edges: Vec<EdgeId> = (0..edge_count).map(|from| edge(from, 0)).collect();
        let mut alignment = Alignment::new(edges.iter().copied());
        let mut model = Model::default();
        let mut folded: BTreeMap<EdgeId, Vec<(i64, u64)>> = BTreeMap::new();
        for edge in &edges {
            model.edges.insert(*edge, (Vec::new(), 0));
            folded.insert(*edge, Vec::new());
        }
        let mut epochs_done = 0;
        for (number, (from, sent)) in sent.into_iter().enumerate() {
            let from = edges[(from % edge_count) as usize];
            let (batches, barriers) = model.edges.get_mut(&from).expect("known");
            let message = match sent {
                Sent::Batch => {
                    batches.push((number as i64, *barriers));
                    batch(number as i64)
                }
                Sent::Barrier => {
                    *barriers += 1;
                    barrier(*barriers)
                }
            };
            for outcome in accepted(&mut alignment, from, message) {
                match outcome {
                    Seen::Folded(edge, number) => {
                        folded.get_mut(&edge).expect("known").push((number, epochs_done));
                    }
                    Seen::Aligned(epoch) => {
                        epochs_done += 1;
                        prop_assert_eq!(epoch, epochs_done);
                    }
                }
            }
            prop_assert_eq!(epochs_done, model.epochs_done());
            prop_assert_eq!(&folded, &model.folded());
        }
    }
}
