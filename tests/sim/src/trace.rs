//! The trace of one simulation: every message, call, fault and commit with its virtual time, as one hash.
//!
//! Written by the simulated network and services through [`event!`], read once at the end. One a thread, for one thread is one
//! simulation. Two runs of a seed are equal if their hashes are. Cannot fail.

use std::cell::RefCell;
use std::fmt::Arguments;
use std::time::Duration;

/// What a simulation left behind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trace {
    /// FNV-1a of all lines.
    pub(crate) hash: u64,
    /// How many there were.
    pub(crate) event_count: u64,
    /// Print lines as they come.
    pub(crate) is_dumped: bool,
    /// When the driver has nothing running, the time of its last step.
    now: Duration,
}

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

thread_local! {
    static TRACE: RefCell<Trace> = RefCell::default();
}

/// Begins a trace.
pub(crate) fn begin(is_dumped: bool) {
    TRACE.set(Trace {
        hash: OFFSET,
        is_dumped,
        ..Trace::default()
    });
}

/// The driver is about to make the step at `now`.
pub(crate) fn advance_to(now: Duration) {
    TRACE.with_borrow_mut(|trace| trace.now = now);
}

/// Virtual time since the start, exact inside a host.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_else(|| TRACE.with_borrow(|trace| trace.now))
}

/// The trace so far.
pub(crate) fn so_far() -> Trace {
    TRACE.with_borrow(|trace| *trace)
}

/// Adds a line. Use [`event!`].
pub(crate) fn add(what: Arguments<'_>) {
    let line = format!("{:>12} {what}", now().as_micros());
    TRACE.with_borrow_mut(|trace| {
        trace.hash = hash(trace.hash, line.as_bytes());
        trace.event_count += 1;
        if trace.is_dumped {
            println!("{line}");
        }
    });
}

/// FNV-1a over `bytes`, going on from `state`.
pub(crate) fn hash(state: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    bytes.iter().fold(state, step)
}

/// The hash of some bytes alone, short enough for a line.
pub(crate) fn digest(bytes: &[u8]) -> u32 {
    let hash = hash(OFFSET, bytes);
    (hash ^ (hash >> 32)) as u32
}

/// Adds a line to the trace.
macro_rules! event {
    ($($text:tt)*) => { $crate::trace::add(format_args!($($text)*)) };
}
pub(crate) use event;
