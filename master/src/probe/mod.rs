//! Probes: what brokers, databases and folders hold, asked before a job starts.
//!
//! Called by `check` and by submission through [`ExternalProbe`]; what follows from the answers is decided in
//! `plan/check`. Nothing is changed outside. Each question is one connection, made and closed here, and answered or
//! refused within ten seconds. Failure: [`ProbeError`] tells an address without an answer from a refused login.

mod folder;
mod kafka;
mod postgres;

use async_trait::async_trait;
use millstream_common::blocking::BlockingRef;
use millstream_common::plan::connector::{FilesSourceSpec, KafkaTopicSpec, PostgresSinkSpec};

use crate::plan::check::{ExternalProbe, Folder, KafkaTopics, PostgresTable, ProbeError};

/// Asks the real services.
#[derive(Clone)]
pub struct RealProbe {
    blocking: BlockingRef,
}

impl RealProbe {
    /// A probe that asks Kafka and the file system in `blocking` work.
    pub fn new(blocking: BlockingRef) -> Self {
        Self { blocking }
    }
}

#[async_trait]
impl ExternalProbe for RealProbe {
    async fn kafka_topics(&self, spec: &KafkaTopicSpec) -> Result<KafkaTopics, ProbeError> {
        kafka::topics(&self.blocking, spec).await
    }

    async fn postgres_table(&self, spec: &PostgresSinkSpec) -> Result<PostgresTable, ProbeError> {
        postgres::table(&spec.url, &spec.table, &self.blocking).await
    }

    async fn folder(&self, spec: &FilesSourceSpec) -> Result<Folder, ProbeError> {
        folder::folder(&self.blocking, spec).await
    }
}
