//! A tracer that keeps every trace, for tests to look at.

use std::sync::{Mutex, PoisonError};

use millstream_common::trace::{Span, SpanCounts, TraceId, Tracer};

/// Keeps every span.
#[derive(Debug, Default)]
pub(crate) struct KeptSpans(Mutex<Vec<Span>>);

impl KeptSpans {
    /// In the order in which they were recorded.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let spans = self.0.lock();
        spans.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What they are called.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.spans().iter().map(|span| span.name).collect()
    }
}

impl Tracer for KeptSpans {
    fn keeps(&self, _: TraceId) -> bool {
        true
    }

    fn record(&self, span: Span) {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spans.push(span);
    }

    fn counts(&self) -> Option<SpanCounts> {
        Some(SpanCounts::default())
    }
}
