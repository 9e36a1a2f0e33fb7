//! What a worker tells of itself.
//!
//! Part of the one list in `mod.rs`.

use super::super::metric::{Kind, Metric};
use super::metric;

/// 1 while the worker has a master.
pub static WORKER_ATTACHED: Metric = metric(
    "millstream_worker_attached",
    Kind::Gauge,
    None,
    &[],
    "1 while the worker has a master",
);
/// Jobs that run here.
pub static WORKER_PIPELINES: Metric = metric(
    "millstream_worker_pipelines",
    Kind::Gauge,
    None,
    &[],
    "Jobs that run here",
);
/// Rows read here.
pub static WORKER_ROWS: Metric = metric(
    "millstream_worker_read_rows",
    Kind::Counter,
    None,
    &["job"],
    "Rows read here",
);
/// Bytes of payload read here, up to the last barrier.
pub static WORKER_BYTES: Metric = metric(
    "millstream_worker_read_bytes",
    Kind::Counter,
    Some("bytes"),
    &["job"],
    "Bytes of payload read here, up to the last barrier",
);
/// Time that the stage's tasks here worked, up to the last barrier.
pub static WORKER_BUSY: Metric = metric(
    "millstream_worker_busy_seconds",
    Kind::Counter,
    Some("seconds"),
    &["job", "stage"],
    "Time that the stage's tasks here worked, up to the last barrier",
);
/// Time that the stage's tasks here waited for credit, up to the last barrier.
pub static WORKER_BLOCKED: Metric = metric(
    "millstream_worker_blocked_seconds",
    Kind::Counter,
    Some("seconds"),
    &["job", "stage"],
    "Time that the stage's tasks here waited for credit, up to the last barrier",
);
/// Time spent on a step of the path here, up to the last barrier.
pub static WORKER_STEP_TIME: Metric = metric(
    "millstream_worker_step_seconds",
    Kind::Counter,
    Some("seconds"),
    &["job", "stage", "step"],
    "Time spent here on a step of the path, from consume to snapshot, up to the last barrier; consume waits for records too",
);
/// Rows that went into the step here, up to the last barrier.
pub static WORKER_STEP_ROWS: Metric = metric(
    "millstream_worker_step_rows",
    Kind::Counter,
    None,
    &["job", "stage", "step"],
    "Rows that went into the step here, up to the last barrier",
);
/// Keyed state here, at the last barrier: in memory, and on disk for want of room.
pub static WORKER_STATE: Metric = metric(
    "millstream_worker_state_bytes",
    Kind::Gauge,
    Some("bytes"),
    &["place"],
    "Keyed state here, at the last barrier: in memory, and on disk for want of room",
);
/// Memory that keyed state may take here before some moves to disk.
pub static WORKER_STATE_LIMIT: Metric = metric(
    "millstream_worker_state_limit_bytes",
    Kind::Gauge,
    Some("bytes"),
    &[],
    "Memory that keyed state may take here before some moves to disk",
);
/// Segments stored from here.
pub static WORKER_SEGMENTS: Metric = metric(
    "millstream_worker_segment_bytes",
    Kind::Counter,
    Some("bytes"),
    &["job"],
    "Segments stored from here",
);
