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
use millstream_common::error::Kind;
use millstream_common::plan::connector::{
    FilesSinkSpec, FilesSourceSpec, KafkaTopicSpec, PostgresSinkSpec,
};
use millstream_common::secret;

use crate::plan::check::{
    ExternalProbe, Folder, KafkaTopics, OutputFolder, PostgresTable, ProbeError,
};

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

    async fn output_folder(&self, spec: &FilesSinkSpec) -> Result<OutputFolder, ProbeError> {
        folder::output(&self.blocking, spec).await
    }

    fn resolves(&self, option: &str, value: &str) -> Result<(), ProbeError> {
        match secret::resolve(value) {
            Ok(_) => Ok(()),
            Err(error) => Err(ProbeError {
                kind: Kind::User,
                what: format!("read option {option}"),
                cause: error.to_string(),
                // It says what to set.
                is_advised: true,
            }),
        }
    }
}
