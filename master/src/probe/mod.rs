//! Probes: what brokers and databases hold, asked before a job starts.
//!
//! Called by `check` and by submission, which compare the answers with the plan; nothing is changed outside. Each
//! question is one connection, made and closed here, and answered or refused within ten seconds.
//! Failure: [`ProbeError`] says who has to act: an address without an answer may be there later, a wrong password will
//! not become right.

mod kafka;
mod postgres;

use millstream_common::blocking::BlockingRef;
use millstream_common::error::Kind;
use millstream_common::plan::connector::KafkaSourceSpec;

pub use postgres::{ColumnInfo, TableInfo};

/// What a probe can fail with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct ProbeError {
    /// Who has to act.
    pub kind: Kind,
    /// "verb noun", with the address but no secret.
    pub what: String,
    /// What the other side says, and what to do next.
    pub cause: String,
}

/// A topic of a Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partition_count: usize,
}

/// Asks the real services.
#[derive(Clone)]
pub struct RealProbe {
    blocking: BlockingRef,
}

impl RealProbe {
    /// A probe that asks Kafka in `blocking` work.
    pub fn new(blocking: BlockingRef) -> Self {
        Self { blocking }
    }

    /// The topics of the cluster that a source reads from, by name; the cluster's own are left out.
    pub async fn kafka_topics(&self, spec: &KafkaSourceSpec) -> Result<Vec<TopicInfo>, ProbeError> {
        kafka::topics(&self.blocking, spec).await
    }

    /// A table's columns and keys; `None`: there is no such table. `url` may hold references; `table` is read as
    /// Postgres reads a name.
    pub async fn postgres_table(
        &self,
        url: &str,
        table: &str,
    ) -> Result<Option<TableInfo>, ProbeError> {
        postgres::table(url, table).await
    }
}
