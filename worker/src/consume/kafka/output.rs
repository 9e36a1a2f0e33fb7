//! What leaves the thread: decoded rows, cuts, and errors in words.
//!
//! Used by `reader_thread.rs` only. Owns the decoder and the sending end of the events; a full queue holds the thread, and
//! with it the client (INV-9).

use millstream_common::error::Kind;
use millstream_common::trace::TraceContext;
use tokio::sync::mpsc;

use super::failure::{Verdict, judge};
use crate::consume::{ConsumeError, SourceEvent};
use crate::decode::{RecordRef, SourceDecoder};

/// Why the thread ends.
pub(super) enum Stop {
    /// Nobody takes events any more.
    Closed,
    /// What the reader hands on last.
    Failed(ConsumeError),
}

/// Towards the actor.
pub(super) struct Output {
    pub(super) topic: String,
    pub(super) decoder: SourceDecoder,
    /// The span that one of the next records comes from.
    pub(super) link: Option<TraceContext>,
    pub(super) events: mpsc::Sender<Result<SourceEvent, ConsumeError>>,
}

impl Output {
    /// Decodes the records, which the client still lends, and hands the rows on.
    pub(super) fn decode(&mut self, records: &[RecordRef<'_>]) -> Result<(), Stop> {
        if records.is_empty() {
            return Ok(());
        }
        let mut rows = self
            .decoder
            .decode_records(records)
            .map_err(|error| self.failed(error.kind(), String::new(), error.to_string()))?;
        rows.links.extend(self.link.take());
        self.send(SourceEvent::Rows(rows))
    }

    pub(super) fn send(&self, event: SourceEvent) -> Result<(), Stop> {
        self.events
            .blocking_send(Ok(event))
            .map_err(|_| Stop::Closed)
    }

    /// Judges an error of the client; `Ok` is to be waited for.
    pub(super) fn judge(&self, code: i32, partition: &str, text: &str) -> Result<(), Stop> {
        match judge(code) {
            Verdict::Wait | Verdict::Lost => Ok(()),
            Verdict::Final { kind, advice } => {
                Err(self.failed(kind, partition.to_owned(), format!("{text}: {advice}")))
            }
        }
    }

    /// A call that the client refuses.
    pub(super) fn refused(&self, cause: impl std::fmt::Display) -> Stop {
        self.failed(Kind::External, String::new(), cause.to_string())
    }

    /// A rule of ours that is broken.
    pub(super) fn defect(&self, cause: String) -> Stop {
        self.failed(Kind::Internal, String::new(), cause)
    }

    fn failed(&self, kind: Kind, partition: String, cause: String) -> Stop {
        let topic = &self.topic;
        let what = if partition.is_empty() {
            format!("read topic {topic}")
        } else {
            format!("read partition {topic}-{partition}")
        };
        Stop::Failed(ConsumeError { kind, what, cause })
    }
}
