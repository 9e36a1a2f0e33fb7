//! Traces: what happened when, across processes, for one epoch, one submission or one recovery.
//!
//! Spans are recorded once, when they are over, by whoever did the work; never one for a row or a batch. Ids are not drawn but
//! derived: the trace of an epoch from the life of the job and the epoch's number, a span from its trace, its name and who did it.
//! So every process knows them without being told, also the next master and a sink that takes an epoch hours later, a span that is
//! told twice is the same span, and a simulation stays what its seed makes it. What has to be told is only whether a trace is
//! kept, which goes with the context over the worker link.
//! Where the spans go is a [`Tracer`]: nowhere, or to a collector (`otlp.rs`). Cannot fail: what a collector does not take is dropped.

pub mod otlp;
mod sampler;

use std::ffi::CStr;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::ids::{Epoch, Generation, Incarnation, JobName};

/// The header in which a context travels between programs, as librdkafka takes names.
pub const TRACEPARENT: &CStr = c"traceparent";

/// A trace; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub u128);

impl TraceId {
    /// Of an epoch of a life of a job: only one of that number is ever committed (INV-1).
    pub fn of_epoch(incarnation: Incarnation, epoch: Epoch) -> Self {
        Self::derived("epoch", incarnation, epoch.0)
    }

    /// Of a submission that begins a life of a job, or goes on with one behind the epoch `from`; by the time of the life's first.
    pub fn of_submission(incarnation: Incarnation, submitted_at_us: i64, from: Epoch) -> Self {
        let kind = format!("submit/{from}/");
        Self::derived(&kind, incarnation, submitted_at_us.unsigned_abs())
    }

    /// Of a recovery, by the generation that was lost first.
    pub fn of_recovery(incarnation: Incarnation, lost: Generation) -> Self {
        Self::derived("recovery", incarnation, lost.0)
    }

    /// Of a takeover by another master, by its time: a generation may be taken over more than once.
    pub fn of_takeover(incarnation: Incarnation, at_us: i64) -> Self {
        Self::derived("takeover", incarnation, at_us.unsigned_abs())
    }

    /// Of a move of the shares of a generation to other workers.
    pub fn of_rescale(incarnation: Incarnation, before: Generation) -> Self {
        Self::derived("rescale", incarnation, before.0)
    }

    /// Of a submission that is refused.
    pub fn of_refused(job: &JobName, at_us: i64) -> Self {
        let text = format!("refused/{job}/{at_us}");
        Self(xxh3_128(text.as_bytes()).max(1))
    }

    fn derived(kind: &str, incarnation: Incarnation, number: u64) -> Self {
        let mut bytes = kind.as_bytes().to_vec();
        bytes.extend(incarnation.0.as_bytes());
        bytes.extend(number.to_be_bytes());
        Self(xxh3_128(&bytes).max(1))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// A span of a trace that is kept, for those who add to it or point at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span; never zero.
    pub span: u64,
}

impl TraceContext {
    /// The one span of a trace without a parent.
    pub fn root(trace: TraceId) -> Self {
        Self {
            trace,
            span: xxh3_64(&trace.0.to_be_bytes()).max(1),
        }
    }

    /// The span `name` of `who` in the same trace.
    pub fn child(self, name: &str, who: &str) -> Self {
        let mut bytes = self.trace.0.to_be_bytes().to_vec();
        bytes.extend(self.span.to_be_bytes());
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(who.as_bytes());
        Self {
            trace: self.trace,
            span: xxh3_64(&bytes).max(1),
        }
    }
}

/// As in W3C Trace Context.
impl fmt::Display for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "00-{}-{:016x}-01", self.trace, self.span)
    }
}

/// What a header says that is no context, or one of a trace that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no context of a trace that is kept")]
pub struct NoContext;

impl FromStr for TraceContext {
    type Err = NoContext;

    fn from_str(text: &str) -> Result<Self, NoContext> {
        let mut parts = text.trim().split('-');
        let mut part = |length: usize| {
            let part = parts.next().filter(|part| part.len() == length);
            part.filter(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .ok_or(NoContext)
        };
        let version = part(2)?;
        let trace = u128::from_str_radix(part(32)?, 16).map_err(|_| NoContext)?;
        let span = u64::from_str_radix(part(16)?, 16).map_err(|_| NoContext)?;
        let flags = u8::from_str_radix(part(2)?, 16).map_err(|_| NoContext)?;
        let is_kept = flags & 1 == 1 && version != "ff";
        match is_kept && trace > 0 && span > 0 {
            true => Ok(Self {
                trace: TraceId(trace),
                span,
            }),
            false => Err(NoContext),
        }
    }
}

/// What is told with a span.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A name.
    Text(String),
    /// A count.
    Number(i64),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// Work that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// What was done: the name of a directory of the path, where it has one.
    pub name: &'static str,
    /// Itself.
    pub context: TraceContext,
    /// The span above it; 0 for a root.
    pub parent: u64,
    /// Microseconds since 1970 UTC.
    pub start_us: i64,
    /// Microseconds since 1970 UTC.
    pub end_us: i64,
    /// In order.
    pub attributes: Vec<(&'static str, Value)>,
    /// Spans of other traces that this one has to do with.
    pub links: Vec<TraceContext>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Span {
    /// The root of the trace of `context`, from `start_us` to `end_us`.
    pub fn root(name: &'static str, context: TraceContext, start_us: i64, end_us: i64) -> Self {
        Self {
            name,
            context,
            parent: 0,
            start_us: start_us.min(end_us),
            end_us,
            attributes: Vec::new(),
            links: Vec::new(),
            error: None,
        }
    }

    /// What `who` did below `parent`.
    pub fn child(
        parent: TraceContext,
        name: &'static str,
        who: &str,
        (start_us, end_us): (i64, i64),
    ) -> Self {
        Self {
            parent: parent.span,
            ..Self::root(name, parent.child(name, who), start_us, end_us)
        }
    }

    /// Tells something with it.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }
}

/// How many spans of this process went where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// A collector has them.
    pub exported: u64,
    /// The collector refused them, or was not there.
    pub failed: u64,
    /// There was no room for them.
    pub dropped: u64,
}

/// Where spans go. Must not block.
pub trait Tracer: Send + Sync + fmt::Debug {
    /// Whether a trace that begins in this process is kept.
    fn keeps(&self, trace: TraceId) -> bool;
    /// Takes a span of a trace that is kept.
    fn record(&self, span: Span);
    /// What became of the spans; `None` where none are wanted.
    fn counts(&self) -> Option<SpanCounts>;

    /// The root of a trace, if it is kept.
    fn root(&self, trace: TraceId) -> Option<TraceContext> {
        self.keeps(trace).then(|| TraceContext::root(trace))
    }

    /// Whether any span can be wanted at all.
    fn is_on(&self) -> bool {
        self.counts().is_some()
    }
}

/// A shared tracer.
pub type TracerRef = Arc<dyn Tracer>;

/// Keeps nothing: no collector is configured.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTracer;

impl Tracer for NoTracer {
    fn keeps(&self, _: TraceId) -> bool {
        false
    }

    fn record(&self, _: Span) {}

    fn counts(&self) -> Option<SpanCounts> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_same_wherever_they_are_derived_and_differ_by_what_they_are_of() {
        let incarnation = Incarnation::fresh();
        let epoch = |number| TraceContext::root(TraceId::of_epoch(incarnation, Epoch(number)));
        assert_eq!(epoch(7), epoch(7));
        assert_ne!(epoch(7).trace, epoch(8).trace);
        let recovery = TraceId::of_recovery(incarnation, Generation(7));
        assert_ne!(epoch(7).trace, recovery);
        let child = epoch(7).child("decode", "w1/0.1");
        assert_eq!(child.trace, epoch(7).trace);
        assert_ne!(child.span, epoch(7).child("decode", "w1/0.2").span);
        assert_ne!(child.span, epoch(7).child("consume", "w1/0.1").span);
    }

    #[test]
    fn a_context_survives_its_header_and_one_that_is_not_kept_is_none() {
        let context = TraceContext::root(TraceId(0x2a));
        assert_eq!(context.to_string().parse(), Ok(context));
        let known = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed: TraceContext = known.parse().expect("the standard's own example");
        assert_eq!(parsed.to_string(), known);
        for refused in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ] {
            assert!(refused.parse::<TraceContext>().is_err(), "{refused}");
        }
    }
}
