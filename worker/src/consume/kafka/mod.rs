//! The Kafka reader: partitions of one topic, from given offsets, through one client on one thread.
//!
//! Driven by `reader_actor.rs` through [`SourceReader`]. Parts: `batch_queue.rs` (the client, and all unsafe code),
//! `reader_thread.rs` (pull, decode, hand on), `wanted.rs` (records), `output.rs`, `splits.rs` (positions and status),
//! `answers.rs` (silence or outage), `mailbox.rs` (commands to the thread), `gaps.rs` (records that are gone), `settings.rs`,
//! `failure.rs`. Payloads never leave the thread: they are decoded before the client takes them back. Partitions are assigned,
//! never subscribed; nothing is committed but what the log holds, for outside tools only (INV-5). Memory is bounded by what the
//! client fetches ahead and two events (INV-9).
//! Failure: lost brokers are retried by the client and told by `trouble`; what cannot heal ends the reader.

mod answers;
mod batch_queue;
mod failure;
mod gaps;
mod mailbox;
mod output;
mod reader_thread;
mod settings;
mod splits;
#[cfg(test)]
mod tests;
mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use millstream_common::error::Kind;
use millstream_common::ids::SplitId;
use millstream_common::plan::{SourcePlan, SourceSpec};
use millstream_common::report::{SplitProgress, SplitStart};
use tokio::sync::mpsc;

use self::mailbox::{Command, Mailbox};
use self::reader_thread::Setup;
use super::{ConsumeError, CutRequest, ReaderContext, SourceEvent, SourceReader};

/// Decoded batches that may wait for the actor.
const EVENTS_MAX: usize = 2;

/// Reads partitions of one topic.
pub struct KafkaReader {
    mailbox: Arc<Mailbox>,
    events: mpsc::Receiver<Result<SourceEvent, ConsumeError>>,
}

impl KafkaReader {
    /// Starts the client's thread; what is wrong with the options comes out of the first `next`.
    ///
    /// # Errors
    /// A plan whose source is not Kafka.
    pub fn start(plan: &SourcePlan, context: ReaderContext) -> Result<Self, ConsumeError> {
        let SourceSpec::Kafka(spec) = &plan.spec else {
            return Err(ConsumeError {
                kind: Kind::Internal,
                what: format!("read source {}", plan.name),
                cause: "its connector is not kafka".to_owned(),
            });
        };
        let mailbox = Arc::new(Mailbox::new());
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let setup = Setup {
            plan: plan.clone(),
            spec: spec.clone(),
            context: context.clone(),
            mailbox: mailbox.clone(),
            events: sender,
        };
        context.blocking.start_thread(
            format!("kafka {}", context.name),
            Box::new(move || reader_thread::run(setup)),
        );
        Ok(Self { mailbox, events })
    }
}

#[async_trait]
impl SourceReader for KafkaReader {
    async fn next(&mut self) -> Result<SourceEvent, ConsumeError> {
        self.events.recv().await.unwrap_or_else(|| {
            Err(ConsumeError {
                kind: Kind::Internal,
                what: "read Kafka".to_owned(),
                cause: "the client's thread has ended".to_owned(),
            })
        })
    }

    fn cut(&mut self, request: CutRequest) {
        self.mailbox.push(Command::Cut(request));
    }

    fn add_splits(&mut self, splits: Vec<SplitStart>) {
        self.mailbox.push(Command::AddSplits(splits));
    }

    fn committed(&mut self, positions: &BTreeMap<SplitId, SplitProgress>) {
        self.mailbox.push(Command::Committed(positions.clone()));
    }

    fn trouble(&self) -> Option<String> {
        self.mailbox.trouble()
    }

    fn lags(&self) -> BTreeMap<SplitId, u64> {
        self.mailbox.lags()
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}
