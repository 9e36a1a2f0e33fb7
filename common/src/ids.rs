//! The names of things: one newtype per kind of id, so that an epoch is never taken for a generation.
//!
//! Used by every crate. Owns no state and cannot fail. Numbers are never reused within a cluster's
//! log; strings are shown to people as they are.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A number that only grows, shown bare.
macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// As an index into the plan's list of these.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

/// A name, shown as it is.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

number_id!(
    /// The number of what lies between two barriers. Epoch 0 is the empty state before the first.
    /// Grows by one or more: an abandoned epoch leaves a gap.
    Epoch, u64
);
number_id!(
    /// One assignment of a job to workers; the log position of its `Assign` entry. Grows at each
    /// failover or rescale.
    Generation, u64
);
number_id!(
    /// One master's reign.
    Term, u64
);
number_id!(
    /// The position of an object in the log; the first is 1.
    Seq, u64
);
number_id!(
    /// What fences older deliverers of a sink: the log position of the assignment that placed it.
    Token, u64
);
number_id!(
    /// A source, as an index into [`crate::plan::JobPlan::sources`].
    SourceIndex, u32
);
number_id!(
    /// A stage, as an index into [`crate::plan::JobPlan::stages`].
    StageIndex, u32
);
number_id!(
    /// An output, as an index into [`crate::plan::JobPlan::outputs`].
    OutputIndex, u32
);
number_id!(
    /// A sink, as an index into [`crate::plan::JobPlan::sinks`].
    SinkIndex, u32
);

text_id!(
    /// The name a job was submitted under; unique among running jobs.
    JobName
);
text_id!(
    /// A worker process, by the name it gave itself at start.
    WorkerId
);
text_id!(
    /// A Kafka partition (`topic-3`), a file's URL, or another unit of input; unique in its source.
    SplitId
);
text_id!(
    /// A stateful operator: `relation/kind/ordinal`. State is matched by it across plans.
    OperatorId
);

/// One life of a job's state: new whenever a job begins from nothing. Part of every sink's marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub Uuid);

impl fmt::Display for Incarnation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// One parallel instance of a stage. `index` counts over all workers: `0..parallelism`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The stage it runs.
    pub stage: StageIndex,
    /// Which of the stage's tasks it is.
    pub index: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.stage, self.index)
    }
}

/// The number of hash buckets that keys are spread over; state moves between tasks by bucket.
pub const VNODE_COUNT: u32 = 256;

/// One of [`VNODE_COUNT`] hash buckets of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vnode(pub u8);

impl Vnode {
    /// The bucket of a key's hash: its top byte.
    pub fn of_hash(hash: u64) -> Self {
        Self((hash >> 56) as u8)
    }

    /// The bucket of a key's fingerprint, whose upper half is the key's hash.
    pub fn of_fingerprint(fingerprint: u128) -> Self {
        Self((fingerprint >> 120) as u8)
    }

    /// The task that owns this bucket among `task_count` tasks: contiguous ranges of equal size.
    pub fn owner(self, task_count: u32) -> u32 {
        u32::from(self.0) * task_count / VNODE_COUNT
    }
}

/// A text that no other call has ever returned: tells our own writes from others'.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that draws random ids"
)]
pub fn nonce() -> String {
    Uuid::new_v4().simple().to_string()
}

impl Incarnation {
    /// A life that no job has had.
    #[allow(
        clippy::disallowed_methods,
        reason = "one of the two places that draw random ids"
    )]
    pub fn fresh() -> Self {
        Self(Uuid::new_v4())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_owns_a_contiguous_share_of_the_vnodes() {
        for task_count in 1..=VNODE_COUNT {
            let owners: Vec<u32> = (0..=255).map(|v| Vnode(v).owner(task_count)).collect();
            assert!(owners.is_sorted());
            assert_eq!(owners[0], 0);
            assert_eq!(owners[255], task_count - 1);
            let distinct = owners.windows(2).filter(|pair| pair[0] != pair[1]).count() as u32 + 1;
            assert_eq!(distinct, task_count);
        }
    }
}
