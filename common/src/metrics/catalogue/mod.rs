//! Every metric: its name, kind, unit, labels and meaning.
//!
//! The one list: what is not in it cannot be exposed, and `deploy/metrics.md` shows the same (kept by a test). Names follow
//! OpenMetrics: base units as suffix, counters get `_total` in the text, information `_info`.

mod worker;

pub use self::worker::*;
use super::metric::{Kind, Metric};

const fn metric(
    name: &'static str,
    kind: Kind,
    unit: Option<&'static str>,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        unit,
        labels,
        help,
    }
}

/// Version and role of the process.
pub static BUILD: Metric = metric(
    "millstream_build",
    Kind::Info,
    None,
    &["version", "role"],
    "Version and role of the process",
);
/// Memory of the process that is in RAM.
pub static PROCESS_MEMORY: Metric = metric(
    "millstream_process_resident_memory_bytes",
    Kind::Gauge,
    Some("bytes"),
    &[],
    "Memory of the process that is in RAM",
);
/// Spans of this process: exported, failed (the collector refused them or was away), dropped (the queue was full).
pub static TRACE_SPANS: Metric = metric(
    "millstream_trace_spans",
    Kind::Counter,
    None,
    &["outcome"],
    "Spans of this process: exported, failed (the collector refused them or was away), dropped (the queue was full)",
);
/// 1 on the master that reigns, 0 on one that stands by.
pub static MASTER_ACTIVE: Metric = metric(
    "millstream_master_active",
    Kind::Gauge,
    None,
    &[],
    "1 on the master that reigns, 0 on one that stands by",
);
/// Number of the reign.
pub static MASTER_TERM: Metric = metric(
    "millstream_master_term",
    Kind::Gauge,
    None,
    &[],
    "Number of the reign",
);
/// Workers that have joined: active, draining, drained.
pub static WORKERS: Metric = metric(
    "millstream_workers",
    Kind::Gauge,
    None,
    &["state"],
    "Workers that have joined: active, draining, drained",
);
/// Size of the log and its boundaries, of all jobs together.
pub static LOG_BYTES: Metric = metric(
    "millstream_log_bytes",
    Kind::Gauge,
    Some("bytes"),
    &[],
    "Size of the log and its boundaries, of all jobs together",
);
/// 1 for the state that the job is in.
pub static JOB_STATE: Metric = metric(
    "millstream_job_state",
    Kind::Gauge,
    None,
    &["job", "state"],
    "1 for the state that the job is in",
);
/// The last committed epoch.
pub static JOB_EPOCH: Metric = metric(
    "millstream_job_epoch",
    Kind::Gauge,
    None,
    &["job"],
    "The last committed epoch",
);
/// The running assignment; grows at each failover and rescale.
pub static JOB_GENERATION: Metric = metric(
    "millstream_job_generation",
    Kind::Gauge,
    None,
    &["job"],
    "The running assignment; grows at each failover and rescale",
);
/// Failures that rewound the job, since this master began.
pub static JOB_RESTARTS: Metric = metric(
    "millstream_job_restarts",
    Kind::Counter,
    None,
    &["job"],
    "Failures that rewound the job, since this master began",
);
/// From the last failure to the next committed epoch.
pub static JOB_RECOVERY: Metric = metric(
    "millstream_job_last_recovery_seconds",
    Kind::Gauge,
    Some("seconds"),
    &["job"],
    "From the last failure to the next committed epoch",
);
/// Rows that are in none of the counters; not zero means rows were lost or doubled.
pub static JOB_UNACCOUNTED: Metric = metric(
    "millstream_job_unaccounted_rows",
    Kind::Gauge,
    None,
    &["job"],
    "Rows that are in none of the counters; not zero means rows were lost or doubled",
);
/// Rows read behind the last committed epoch when tasks were ended, and read again, since this master began.
pub static JOB_REREAD: Metric = metric(
    "millstream_job_reread_rows",
    Kind::Counter,
    None,
    &["job"],
    "Rows read behind the last committed epoch when tasks were ended, and read again, since this master began",
);
/// Size of the state that the job would be restored from.
pub static STATE_BYTES: Metric = metric(
    "millstream_state_bytes",
    Kind::Gauge,
    Some("bytes"),
    &["job"],
    "Size of the state that the job would be restored from",
);
/// Objects that hold that state.
pub static STATE_PARTS: Metric = metric(
    "millstream_state_parts",
    Kind::Gauge,
    None,
    &["job"],
    "Objects that hold that state",
);
/// What storage holds for the job as of the collector's last look: state, segments, dead_letters (these are among the segments).
pub static STORAGE: Metric = metric(
    "millstream_storage_bytes",
    Kind::Gauge,
    Some("bytes"),
    &["job", "kind"],
    "What storage holds for the job as of the collector's last look: state, segments, dead_letters (these are among the segments)",
);
/// Dead letters that dead_letter_retention has dropped.
pub static LETTERS_DROPPED: Metric = metric(
    "millstream_dead_letters_dropped_rows",
    Kind::Counter,
    None,
    &["job"],
    "Dead letters that dead_letter_retention has dropped",
);
/// Epochs committed since this master began.
pub static EPOCHS: Metric = metric(
    "millstream_epochs",
    Kind::Counter,
    None,
    &["job"],
    "Epochs committed since this master began",
);
/// Since the last epoch, empty ones among them, or since this master began, if that is later; of a job that is to have another.
pub static EPOCH_AGE: Metric = metric(
    "millstream_epoch_age_seconds",
    Kind::Gauge,
    Some("seconds"),
    &["job"],
    "Since the last epoch, empty ones among them, or since this master began, if that is later; of a job that is to have another",
);
/// Epochs by phase: collect (barrier to the last worker's report), commit (to the log's answer), total.
pub static EPOCH_DURATION: Metric = metric(
    "millstream_epoch_duration_seconds",
    Kind::Histogram,
    Some("seconds"),
    &["job", "phase"],
    "Epochs by phase: collect (barrier to the last worker's report), commit (to the log's answer), total",
);
/// Rows read from the source: accepted, rejected, dropped.
pub static SOURCE_ROWS: Metric = metric(
    "millstream_source_rows",
    Kind::Counter,
    None,
    &["job", "source", "outcome"],
    "Rows read from the source: accepted, rejected, dropped",
);
/// Bytes of payload read from the source.
pub static SOURCE_BYTES: Metric = metric(
    "millstream_source_read_bytes",
    Kind::Counter,
    Some("bytes"),
    &["job", "source"],
    "Bytes of payload read from the source",
);
/// Splits of the source: expected (their turn has not come), active, idle, ended.
pub static SOURCE_SPLITS: Metric = metric(
    "millstream_source_splits",
    Kind::Gauge,
    None,
    &["job", "source", "status"],
    "Splits of the source: expected (their turn has not come), active, idle, ended",
);
/// Records between the positions and the ends of the source's splits, where that is known.
pub static SOURCE_LAG: Metric = metric(
    "millstream_source_lag_records",
    Kind::Gauge,
    None,
    &["job", "source"],
    "Records between the positions and the ends of the source's splits, where that is known",
);
/// The same of one Kafka partition.
pub static SPLIT_LAG: Metric = metric(
    "millstream_split_lag_records",
    Kind::Gauge,
    None,
    &["job", "source", "split"],
    "The same of one Kafka partition",
);
/// The watermark: no older row will come; seconds since 1970.
pub static SOURCE_WATERMARK: Metric = metric(
    "millstream_source_watermark_timestamp_seconds",
    Kind::Gauge,
    Some("seconds"),
    &["job", "source"],
    "The watermark: no older row will come; seconds since 1970",
);
/// 1 while the source keeps time and has no watermark: some split of it has told no time yet.
pub static SOURCE_WITHOUT_WATERMARK: Metric = metric(
    "millstream_source_without_watermark",
    Kind::Gauge,
    None,
    &["job", "source"],
    "1 while the source keeps time and has no watermark: some split of it has told no time yet",
);
/// How far the watermark is behind the wall clock.
pub static SOURCE_WATERMARK_DELAY: Metric = metric(
    "millstream_source_watermark_delay_seconds",
    Kind::Gauge,
    Some("seconds"),
    &["job", "source"],
    "How far the watermark is behind the wall clock",
);
/// Rows that became dead letters, by who refused them and why: a source's since this master began, others' since the life of the job did.
pub static REJECTED: Metric = metric(
    "millstream_rejected_rows",
    Kind::Counter,
    None,
    &["job", "owner", "code"],
    "Rows that became dead letters, by who refused them and why: a source's since this master began, others' since the life of the job did",
);
/// Rows of a stage: received, late, duplicate, folded, failed, dropped.
pub static STAGE_ROWS: Metric = metric(
    "millstream_stage_rows",
    Kind::Counter,
    None,
    &["job", "stage", "outcome"],
    "Rows of a stage: received, late, duplicate, folded, failed, dropped",
);
/// Time that the stage's tasks worked, without waiting, since this master began.
pub static STAGE_BUSY: Metric = metric(
    "millstream_stage_busy_seconds",
    Kind::Counter,
    Some("seconds"),
    &["job", "stage"],
    "Time that the stage's tasks worked, without waiting, since this master began",
);
/// Backpressure: time that the stage's tasks waited for credit, since this master began.
pub static STAGE_BLOCKED: Metric = metric(
    "millstream_stage_blocked_seconds",
    Kind::Counter,
    Some("seconds"),
    &["job", "stage"],
    "Backpressure: time that the stage's tasks waited for credit, since this master began",
);
/// The epoch that the sink holds.
pub static SINK_EPOCH: Metric = metric(
    "millstream_sink_epoch",
    Kind::Gauge,
    None,
    &["job", "sink"],
    "The epoch that the sink holds",
);
/// Rows that the sink holds, since the life of the job began; stands while a sink that was sent back catches up.
pub static SINK_ROWS: Metric = metric(
    "millstream_sink_delivered_rows",
    Kind::Counter,
    None,
    &["job", "sink"],
    "Rows that the sink holds, since the life of the job began; stands while a sink that was sent back catches up",
);
/// Rows that the sink refused since the life of the job began; they are in its dead letters.
pub static SINK_REFUSED: Metric = metric(
    "millstream_sink_refused_rows",
    Kind::Counter,
    None,
    &["job", "sink"],
    "Rows that the sink refused since the life of the job began; they are in its dead letters",
);
/// Rows that the sink refused since the life of the job began, and that on_violation = 'drop' has dropped.
pub static SINK_DROPPED: Metric = metric(
    "millstream_sink_dropped_rows",
    Kind::Counter,
    None,
    &["job", "sink"],
    "Rows that the sink refused since the life of the job began, and that on_violation = 'drop' has dropped",
);
/// Epochs committed and not delivered.
pub static SINK_LAG_EPOCHS: Metric = metric(
    "millstream_sink_lag_epochs",
    Kind::Gauge,
    None,
    &["job", "sink"],
    "Epochs committed and not delivered",
);
/// Rows committed and not delivered.
pub static SINK_LAG_ROWS: Metric = metric(
    "millstream_sink_lag_rows",
    Kind::Gauge,
    None,
    &["job", "sink"],
    "Rows committed and not delivered",
);
/// Size of their segments.
pub static SINK_LAG_BYTES: Metric = metric(
    "millstream_sink_lag_bytes",
    Kind::Gauge,
    Some("bytes"),
    &["job", "sink"],
    "Size of their segments",
);
/// Since the oldest epoch that is not delivered was committed, or since this master began, if that is later; 0 while none waits, and once the job is over.
pub static SINK_AGE: Metric = metric(
    "millstream_sink_delivery_age_seconds",
    Kind::Gauge,
    Some("seconds"),
    &["job", "sink"],
    "Since the oldest epoch that is not delivered was committed, or since this master began, if that is later; 0 while none waits, and once the job is over",
);
/// How much of the sink's quota is used up; 1 is all of it; until the job is over.
pub static SINK_QUOTA: Metric = metric(
    "millstream_sink_quota_used_ratio",
    Kind::Gauge,
    Some("ratio"),
    &["job", "sink"],
    "How much of the sink's quota is used up; 1 is all of it; until the job is over",
);
/// 1 while delivery fails and is tried again, or is suspended, and the job is not over.
pub static SINK_TROUBLED: Metric = metric(
    "millstream_sink_troubled",
    Kind::Gauge,
    None,
    &["job", "sink"],
    "1 while delivery fails and is tried again, or is suspended, and the job is not over",
);
/// 1 while the sink is paused: by a person, or because its quota is used up.
pub static SINK_PAUSED: Metric = metric(
    "millstream_sink_paused",
    Kind::Gauge,
    None,
    &["job", "sink"],
    "1 while the sink is paused: by a person, or because its quota is used up",
);

/// All of them, in the order of the text.
pub static METRICS: &[&Metric] = &[
    &BUILD,
    &PROCESS_MEMORY,
    &TRACE_SPANS,
    &MASTER_ACTIVE,
    &MASTER_TERM,
    &WORKERS,
    &LOG_BYTES,
    &JOB_STATE,
    &JOB_EPOCH,
    &JOB_GENERATION,
    &JOB_RESTARTS,
    &JOB_RECOVERY,
    &JOB_UNACCOUNTED,
    &JOB_REREAD,
    &STATE_BYTES,
    &STATE_PARTS,
    &STORAGE,
    &LETTERS_DROPPED,
    &EPOCHS,
    &EPOCH_AGE,
    &EPOCH_DURATION,
    &SOURCE_ROWS,
    &SOURCE_BYTES,
    &SOURCE_SPLITS,
    &SOURCE_LAG,
    &SPLIT_LAG,
    &SOURCE_WATERMARK,
    &SOURCE_WATERMARK_DELAY,
    &SOURCE_WITHOUT_WATERMARK,
    &REJECTED,
    &STAGE_ROWS,
    &STAGE_BUSY,
    &STAGE_BLOCKED,
    &SINK_EPOCH,
    &SINK_ROWS,
    &SINK_REFUSED,
    &SINK_DROPPED,
    &SINK_LAG_EPOCHS,
    &SINK_LAG_ROWS,
    &SINK_LAG_BYTES,
    &SINK_AGE,
    &SINK_QUOTA,
    &SINK_TROUBLED,
    &SINK_PAUSED,
    &WORKER_ATTACHED,
    &WORKER_PIPELINES,
    &WORKER_ROWS,
    &WORKER_BYTES,
    &WORKER_BUSY,
    &WORKER_BLOCKED,
    &WORKER_STEP_TIME,
    &WORKER_STEP_ROWS,
    &WORKER_STATE,
    &WORKER_STATE_LIMIT,
    &WORKER_SEGMENTS,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_is_ours_has_its_unit_at_the_end_and_is_listed_once() {
        let mut names = BTreeSet::new();
        for metric in METRICS {
            assert!(metric.name.starts_with("millstream_"), "{}", metric.name);
            assert!(names.insert(metric.name), "{} is there twice", metric.name);
            if let Some(unit) = metric.unit {
                assert!(metric.name.ends_with(&format!("_{unit}")), "{metric:?}");
            }
        }
    }

    #[test]
    fn the_table_for_people_shows_what_can_be_scraped() {
        let table = include_str!("../../../../deploy/metrics.md");
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        let told: Vec<&str> = rows.collect();
        let listed: Vec<String> = METRICS.iter().map(|metric| row(metric)).collect();
        assert_eq!(
            told,
            listed,
            "write in deploy/metrics.md:\n{}",
            listed.join("\n")
        );
    }

    fn row(metric: &Metric) -> String {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let labels = metric.labels.join(", ");
        format!(
            "| `{}` | {kind} | {labels} | {} |",
            metric.exposed(),
            metric.help
        )
    }
}
