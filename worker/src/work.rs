//! What a task did within an epoch: when it began and ended, how long it worked, how long it waited for credit.
//!
//! Kept by the tasks of the path, which look at the clock once or twice a batch and never for a row; told at the barrier with
//! everything else that a task says of an epoch (`pipeline/report.rs`). From these come the busy and blocked times of the metrics
//! and the spans of an epoch's trace. Pure.

use std::time::Duration;

use millstream_common::trace::TraceContext;

/// A step of the path, named as its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Records taken from the client.
    Consume,
    /// Bytes to rows.
    Decode,
    /// Filters and projections of rows.
    Transform,
    /// Rows into state, and what that brings about; in front of an exchange, rows into states of their groups.
    Operator,
    /// Rows to the owners of their keys.
    Exchange,
    /// Rows into segments, and these into storage.
    Ship,
    /// State into storage.
    Snapshot,
}

impl Step {
    /// The directory.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Decode => "decode",
            Self::Transform => "transform",
            Self::Operator => "operator",
            Self::Exchange => "exchange",
            Self::Ship => "ship",
            Self::Snapshot => "snapshot",
        }
    }
}

/// All that a task did of one step within an epoch, as if it were one piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Monotonic time of the first work, if there was any.
    pub begun: Option<Duration>,
    /// Of the end of the last work.
    pub ended: Duration,
    /// The sum of the pieces.
    pub busy: Duration,
    /// Rows that went in.
    pub rows: u64,
    /// Bytes of them, as far as the step knows.
    pub bytes: u64,
}

impl Stretch {
    /// Adds a piece of work.
    pub fn add(&mut self, begun: Duration, ended: Duration) {
        self.begun.get_or_insert(begun);
        self.ended = self.ended.max(ended);
        self.busy += ended.saturating_sub(begun);
    }

    /// Adds a piece of work on rows.
    pub fn add_rows(&mut self, begun: Duration, ended: Duration, rows: u64, bytes: u64) {
        self.add(begun, ended);
        self.rows += rows;
        self.bytes += bytes;
    }
}

/// What one task did within an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskWork {
    /// The steps that it did anything of.
    pub steps: Vec<(Step, Stretch)>,
    /// How long it worked.
    pub busy: Duration,
    /// How long it waited for credit: backpressure.
    pub blocked: Duration,
    /// Spans of other programs that some of its records came from.
    pub links: Vec<TraceContext>,
}

/// Links of one task and epoch: a sample of what came.
pub const LINKS_MAX: usize = 8;

impl TaskWork {
    /// Adds a step, if anything was done of it.
    pub fn step(&mut self, step: Step, stretch: Stretch) {
        if stretch.begun.is_some() {
            self.steps.push((step, stretch));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_one_stretch_that_knows_how_long_it_worked() {
        let at = Duration::from_millis;
        let mut stretch = Stretch::default();
        stretch.add_rows(at(10), at(12), 5, 50);
        stretch.add(at(20), at(25));
        assert_eq!(stretch.begun, Some(at(10)));
        assert_eq!((stretch.ended, stretch.busy), (at(25), at(7)));
        let mut work = TaskWork::default();
        work.step(Step::Operator, stretch);
        work.step(Step::Snapshot, Stretch::default());
        assert_eq!(work.steps.len(), 1, "what was not done is not told");
    }
}
