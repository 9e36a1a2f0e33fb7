//! Barrier alignment: decides which epoch a message belongs to when a task reads several edges.
//!
//! On the path between a task's mailbox and its state: every message of every edge passes
//! [`Alignment::accept`] first. Pure: no clock, no I/O, no actor.
//! Owns the messages of edges that are ahead, until the slowest edge has shown the same barrier.
//! Keeps INV-5: the rows of an epoch are exactly those in front of its barrier, on every edge.
//! Keeps INV-9: a held batch keeps its permit, so no more is held than the edges' credits admit.
//! Failure: an edge that breaks the order is a broken peer, never repaired here; the caller fails the pipeline.
//!
//! Source: aligned snapshots, Carbone et al., "Lightweight Asynchronous Snapshots for Distributed
//! Dataflows", 2015, algorithm 1.

use std::collections::{BTreeMap, VecDeque};

use millstream_common::ids::Epoch;
use millstream_common::mutant::{self, Mutant};

use super::message::{BarrierKind, EdgeBarrier, EdgeBatch, EdgeId, StreamMessage};

#[cfg(test)]
mod tests;

/// What the caller has to do, in the order given.
#[derive(Debug)]
pub enum Outcome {
    /// Fold the batch into the state of the running epoch, then drop its permit.
    Fold {
        /// The edge it came by.
        edge: EdgeId,
        /// The rows with their permit.
        batch: EdgeBatch,
    },
    /// All edges have shown the barrier: snapshot the state, then pass the barrier on.
    Snapshot(EdgeBarrier),
}

/// An edge that breaks the order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlignError {
    /// The wiring or a peer is wrong about who sends to whom.
    #[error("align barriers: {0} is no input of this task")]
    UnknownEdge(EdgeId),
    /// An edge shows another barrier than the one being aligned.
    #[error("align barriers: edge {edge} sent {found} while {expected} is being aligned")]
    OutOfTurn {
        /// The edge.
        edge: EdgeId,
        /// What the first edge showed.
        expected: Epoch,
        /// What this edge showed.
        found: Epoch,
    },
    /// An edge shows the right epoch with other contents than the first edge did.
    #[error("align barriers: edge {edge} disagrees about the contents of barrier {epoch}")]
    Disagreement {
        /// The edge.
        edge: EdgeId,
        /// The barrier.
        epoch: Epoch,
    },
    /// Epochs only grow.
    #[error("align barriers: edge {edge} sent {found} after {last} was aligned")]
    Backwards {
        /// The edge.
        edge: EdgeId,
        /// The last aligned barrier.
        last: Epoch,
        /// What the edge showed.
        found: Epoch,
    },
    /// Nothing follows a stop barrier.
    #[error("align barriers: edge {0} sent a message behind its stop barrier")]
    AfterStop(EdgeId),
}

/// The alignment of one task's inputs.
#[derive(Debug)]
pub struct Alignment {
    inputs: BTreeMap<EdgeId, Input>,
    /// Inputs that have shown the barrier being aligned.
    ahead_count: usize,
    /// The barrier that some inputs have shown and others have not.
    aligning: Option<EdgeBarrier>,
    /// The last barrier that all inputs have shown.
    aligned: Option<(Epoch, BarrierKind)>,
}

#[derive(Debug, Default)]
struct Input {
    /// Has shown the barrier being aligned; its later messages are held.
    ahead: bool,
    held: VecDeque<StreamMessage>,
}

impl Alignment {
    /// For a task that reads these edges; at least one.
    pub fn new(edges: impl IntoIterator<Item = EdgeId>) -> Self {
        let inputs: BTreeMap<EdgeId, Input> = edges
            .into_iter()
            .map(|edge| (edge, Input::default()))
            .collect();
        assert!(!inputs.is_empty(), "a task reads at least one edge");
        Self {
            inputs,
            ahead_count: 0,
            aligning: None,
            aligned: None,
        }
    }

    /// Takes the next message of `edge` and returns what may be done now, in order; nothing where the message is
    /// held.
    ///
    /// # Errors
    /// Where an edge breaks the order; the alignment is of no use afterwards.
    pub fn accept(
        &mut self,
        edge: EdgeId,
        message: StreamMessage,
    ) -> Result<Vec<Outcome>, AlignError> {
        let mut outcomes = Vec::new();
        let input = self
            .inputs
            .get_mut(&edge)
            .ok_or(AlignError::UnknownEdge(edge))?;
        if input.ahead && !mutant::is(Mutant::FoldBehindBarrier) {
            input.held.push_back(message);
            return Ok(outcomes);
        }
        self.pass(edge, message, &mut outcomes)?;
        while self.ahead_count == self.inputs.len() {
            outcomes.push(Outcome::Snapshot(self.finish_epoch()));
            self.release(&mut outcomes)?;
        }
        Ok(outcomes)
    }

    fn pass(
        &mut self,
        edge: EdgeId,
        message: StreamMessage,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), AlignError> {
        if let Some((_, BarrierKind::Stop)) = self.aligned {
            return Err(AlignError::AfterStop(edge));
        }
        match message {
            StreamMessage::Batch(batch) => outcomes.push(Outcome::Fold { edge, batch }),
            StreamMessage::Barrier(barrier) => {
                self.agree(edge, barrier)?;
                if let Some(input) = self.inputs.get_mut(&edge) {
                    input.ahead = true;
                    self.ahead_count += 1;
                }
            }
        }
        Ok(())
    }

    /// The first edge to show a barrier decides what the others have to show.
    fn agree(&mut self, edge: EdgeId, barrier: EdgeBarrier) -> Result<(), AlignError> {
        let found = barrier.epoch;
        if let Some(aligning) = &self.aligning {
            let expected = aligning.epoch;
            return match *aligning == barrier {
                true => Ok(()),
                false if expected == found => Err(AlignError::Disagreement { edge, epoch: found }),
                false => Err(AlignError::OutOfTurn {
                    edge,
                    expected,
                    found,
                }),
            };
        }
        if let Some((last, _)) = self.aligned
            && found <= last
        {
            return Err(AlignError::Backwards { edge, last, found });
        }
        self.aligning = Some(barrier);
        Ok(())
    }

    fn finish_epoch(&mut self) -> EdgeBarrier {
        for input in self.inputs.values_mut() {
            input.ahead = false;
        }
        self.ahead_count = 0;
        let barrier = self
            .aligning
            .take()
            .expect("an input is ahead only of a barrier being aligned");
        self.aligned = Some((barrier.epoch, barrier.kind));
        barrier
    }

    /// Lets held messages through, edge by edge, each up to that edge's next barrier.
    fn release(&mut self, outcomes: &mut Vec<Outcome>) -> Result<(), AlignError> {
        let held: Vec<EdgeId> = self
            .inputs
            .iter()
            .filter(|(_, input)| !input.held.is_empty())
            .map(|(edge, _)| *edge)
            .collect();
        for edge in held {
            while let Some(message) = self.next_released(edge) {
                self.pass(edge, message, outcomes)?;
            }
        }
        Ok(())
    }

    fn next_released(&mut self, edge: EdgeId) -> Option<StreamMessage> {
        let input = self.inputs.get_mut(&edge)?;
        if input.ahead {
            return None;
        }
        input.held.pop_front()
    }
}
