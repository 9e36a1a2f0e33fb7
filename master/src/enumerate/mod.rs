//! Enumerators: which splits a source has, and from where each is to be read.
//!
//! Called by the job's actor: once at submit, then every discovery interval until [`Enumerator::is_exhausted`]. What is
//! found becomes true only when the log says so; an enumerator is told what the log knows at each call and keeps
//! nothing that a restart of the master would lose, but for the settling of files.
//! Failure: [`EnumerateError`] within ten seconds; the next call begins anew.

mod datagen;
pub(crate) mod files;
mod kafka;
pub(crate) mod kafka_client;

use std::collections::BTreeMap;

use async_trait::async_trait;
use millstream_common::blocking::{BlockingRef, Panicked};
use millstream_common::error::Kind;
use millstream_common::ids::SplitId;
use millstream_common::plan::{SourcePlan, SourceSpec};
use millstream_common::report::{SplitProgress, SplitStatus};
use millstream_common::time::ClockRef;

/// What discovery can fail with.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct EnumerateError {
    /// Who has to act.
    pub kind: Kind,
    /// "verb noun", such as `find partitions of topic clicks`.
    pub what: String,
    /// What is wrong, and what to do next.
    pub cause: String,
}

/// A split that was not known, or that was expected and is to be read now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSplit {
    /// Its name.
    pub split: SplitId,
    /// From where it is to be read, and to where. Its watermark is for the caller to set: the source's recorded one.
    pub progress: SplitProgress,
}

/// Finds the splits of one source.
#[async_trait]
pub trait Enumerator: Send {
    /// The splits that are not in `known`, in the order in which they are to be read. A split handed out and not `known`
    /// at the next call is handed out again. `known` is empty only before the job has read anything. A source that ends hands
    /// out all that it consists of then, as [`SplitStatus::Expected`] what is to be read later, and that again when its
    /// turn has come.
    async fn discover(
        &mut self,
        known: &BTreeMap<SplitId, SplitProgress>,
    ) -> Result<Vec<FoundSplit>, EnumerateError>;

    /// Whether no split can appear any more that the last `discover` has not handed out or known.
    fn is_exhausted(&self) -> bool;
}

/// The enumerator of a source.
///
/// # Errors
/// Options that do not resolve.
pub fn enumerator_for(
    plan: &SourcePlan,
    blocking: BlockingRef,
    clock: ClockRef,
) -> Result<Box<dyn Enumerator>, EnumerateError> {
    Ok(match &plan.spec {
        SourceSpec::Kafka(spec) => Box::new(kafka::KafkaEnumerator::new(spec.clone(), blocking)),
        SourceSpec::Files(spec) => Box::new(files::FilesEnumerator::new(spec, blocking, clock)?),
        SourceSpec::Datagen(spec) => Box::new(datagen::DatagenEnumerator::new(spec)),
    })
}

/// A split that begins at `position`.
fn found(split: SplitId, position: i64, end: Option<i64>) -> FoundSplit {
    FoundSplit {
        split,
        progress: SplitProgress {
            position,
            end,
            watermark: None,
            status: SplitStatus::Active,
            identity: None,
            gaps: None,
        },
    }
}

/// A closure of ours panicked.
fn panicked(what: &str, error: &Panicked) -> EnumerateError {
    EnumerateError {
        kind: Kind::Internal,
        what: what.to_owned(),
        cause: error.to_string(),
    }
}
