//! Options of `CREATE SINK`: the connector, and what every sink has.

use std::collections::BTreeMap;

use millstream_common::plan::connector::{ConsoleSinkSpec, FilesSinkSpec};
use millstream_common::plan::{Emit, OnQuota, OnViolation, SinkQuota, SinkSpec, SinkStart};
use millstream_common::secret::Lookup;

use super::{Options, connector, files, kafka, postgres, source};
use crate::plan::parse::SinkStatement;
use crate::plan::problem::{Place, Problem};
use crate::plan::value;

/// What the options of a sink mean.
pub(in crate::plan) struct SinkOptions {
    /// `None`: the connector is missing or unknown.
    pub(in crate::plan) spec: Option<SinkSpec>,
    pub(in crate::plan) emit: EmitOption,
    pub(in crate::plan) on_violation: OnViolation,
    pub(in crate::plan) quota: SinkQuota,
    pub(in crate::plan) start: SinkStart,
    pub(in crate::plan) places: BTreeMap<String, Place>,
    pub(in crate::plan) problems: Vec<Problem>,
}

/// `emit`, if given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum EmitOption {
    /// Not given, or wrong: by what the sink and its input are.
    Default,
    /// Given.
    Given(Emit),
}

/// Reads the options of `sink`.
pub(in crate::plan) fn read_sink(sink: &SinkStatement, lookup: &dyn Lookup) -> SinkOptions {
    let owner = format!("sink {}", sink.name.text);
    let mut options = Options::new(owner, sink.name.place, &sink.options, lookup);
    let emit = options
        .parsed("emit", emit)
        .map_or(EmitOption::Default, EmitOption::Given);
    let on_violation = source::on_violation(&mut options);
    let quota = quota(&mut options);
    let starts = [
        ("now", SinkStart::Now),
        ("retained", SinkStart::Retained),
        ("snapshot", SinkStart::Snapshot),
    ];
    let start = options.word("start", &starts).unwrap_or_default();
    let known = ["postgres", "files", "kafka", "console", "blackhole"];
    let spec = match connector(&mut options, &known, "postgres").as_deref() {
        Some("postgres") => Some(SinkSpec::Postgres(postgres::read(&mut options))),
        Some("files") => Some(SinkSpec::Files(files::read_sink(&mut options))),
        Some("kafka") => Some(SinkSpec::Kafka(kafka::read_sink(&mut options))),
        Some("console") => Some(SinkSpec::Console(ConsoleSinkSpec {
            json: options
                .word("format", &[("table", false), ("json", true)])
                .unwrap_or(false),
        })),
        Some("blackhole") => Some(SinkSpec::Blackhole),
        _ => None,
    };
    if let Some(SinkSpec::Files(files)) = &spec {
        check_gathered(&mut options, &quota, files);
    }
    let (places, problems) = options.finish();
    SinkOptions {
        spec,
        emit,
        on_violation,
        quota,
        start,
        places,
        problems,
    }
}

fn quota(options: &mut Options) -> SinkQuota {
    let policies = [
        ("warn", OnQuota::Warn),
        ("backpressure", OnQuota::Backpressure),
        ("suspend", OnQuota::Suspend),
    ];
    let given = options.word("on_quota", &policies);
    let quota = SinkQuota {
        bytes: options.parsed("quota_bytes", value::bytes),
        age_ms: options.parsed("quota_age", quota_age),
        policy: given.unwrap_or_default(),
    };
    let is_bounded = ["quota_bytes", "quota_age"].map(|name| options.places.contains_key(name));
    if given.is_some() && is_bounded == [false, false] {
        let problem = options.refuse("on_quota", "on_quota needs a quota");
        problem.hint = Some("add quota_bytes = '10 GiB' or quota_age = '1 hour'".to_owned());
    }
    quota
}

/// A sink that gathers rows is behind by what it gathers. With a quota that is used up before a run is full it would never count as caught
/// up: each run would be preceded by a suspension, or by a stop of the sources.
fn check_gathered(options: &mut Options, quota: &SinkQuota, files: &FilesSinkSpec) {
    if quota.policy == OnQuota::Warn {
        return;
    }
    let policy = quota.policy;
    if let Some(age_ms) = quota.age_ms
        && age_ms <= files.roll_interval_ms
    {
        let gathered = show_millis(files.roll_interval_ms);
        let message = format!(
            "the sink gathers rows for roll_interval ({gathered}), so with this quota_age on_quota = '{policy}' would act again and again"
        );
        let enough = show_millis(files.roll_interval_ms.saturating_mul(2));
        options.refuse("quota_age", message).hint = Some(format!(
            "write quota_age = '{enough}', or roll_interval = '{}'",
            show_millis((age_ms / 2).max(1))
        ));
    }
    if let Some(bytes) = quota.bytes
        && bytes <= files.roll_bytes
    {
        let message = format!(
            "the sink gathers up to roll_bytes ({} bytes), so with this quota_bytes on_quota = '{policy}' would act again and again",
            files.roll_bytes
        );
        let enough = files.roll_bytes.saturating_mul(2);
        options.refuse("quota_bytes", message).hint = Some(format!(
            "write quota_bytes = '{enough}', or roll_bytes = '{}'",
            (bytes / 2).max(1)
        ));
    }
}

/// As it is written: `90 seconds`, `1500 milliseconds`.
fn show_millis(millis: u64) -> String {
    match millis % 1_000 {
        0 => format!("{} seconds", millis / 1_000),
        _ => format!("{millis} milliseconds"),
    }
}

fn quota_age(text: &str) -> Result<u64, String> {
    match value::duration_millis(text)? {
        0 => Err("a quota of no time is used up at once".to_owned()),
        millis => Ok(millis),
    }
}

fn emit(text: &str) -> Result<Emit, String> {
    match text {
        "final" => Ok(Emit::Final),
        "changes" => Ok(Emit::Changes { interval_ms: 0 }),
        _ => match text.strip_prefix("changes every ") {
            Some(interval) => {
                let interval_ms = value::duration_millis(interval.trim())?;
                Ok(Emit::Changes { interval_ms })
            }
            None => Err(format!(
                "{text:?} is none of 'final', 'changes', 'changes every 10 seconds'"
            )),
        },
    }
}
