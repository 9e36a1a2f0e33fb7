//! Groups: what an aggregate's live groups take in memory, and what an epoch costs beside so many of them, on one thread.
//!
//! Called by `main.rs`; needs no services. The operator counts clicks by window and page, as in jobs/page_views.sql. First every group comes once, so many
//! an epoch; then epochs in which one in a hundred of them changes are timed, by what they do: folding the rows, the barrier, and the state part, which is
//! made beside the next epoch. Failure: a group too few or too many.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use clap::Args;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::lit;
use millstream_common::ids::Epoch;
use millstream_common::ipc;
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{
    KeyedKind, KeyedPlan, NamedExpression, PlanExpression, PlanSchema, WindowPlan,
};
use millstream_common::time::{Clock, EventSpan, SystemClock};
use millstream_worker::exchange::message::OwnedRows;
use millstream_worker::operator::task_state::TaskState;
use millstream_worker::operator::{self, BarrierRequest, PartialAggregate, StateWrite};

use crate::memory::{Memory, MemoryArguments};
use crate::process;
use crate::report::{self, Spread};

/// Rows at once: about as many as a task is sent together.
const BATCH_ROWS: usize = 8_192;
/// New groups of an epoch until there are enough.
const EPOCH_GROUPS: usize = 1 << 20;
/// Groups of which one changes in an epoch that is timed.
const CHANGED_PART: usize = 100;
/// Pages of a window.
const PAGES: usize = 10_000_000;
const MINUTE_US: i64 = 60_000_000;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Live groups; each number in a table of its own.
    #[arg(long, value_delimiter = ',', default_values_t = SIZES)]
    groups: Vec<usize>,
    /// Epochs that are timed.
    #[arg(long, default_value_t = 20)]
    epochs: usize,
    #[command(flatten)]
    memory: MemoryArguments,
}

const SIZES: [usize; 3] = [1_000_000, 10_000_000, 50_000_000];

impl Default for Arguments {
    fn default() -> Self {
        Self {
            groups: SIZES.to_vec(),
            epochs: 20,
            memory: MemoryArguments::default(),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    for &count in &arguments.groups {
        let mut groups = Groups::new(Memory::new(arguments.memory)?)?;
        let filled = groups.fill(count)?;
        let held = groups.state.operator().key_count();
        ensure!(held == count, "{held} groups, not {count}");
        let changed = (count / CHANGED_PART).max(1);
        let mut costs = Vec::new();
        for epoch in 0..arguments.epochs.max(1) {
            // Spread over all groups, and others each time.
            let rows = (0..changed).map(|place| (epoch + place * CHANGED_PART) % count);
            costs.push(groups.epoch(rows)?);
        }
        print(
            count,
            filled,
            changed,
            &costs,
            groups.state.operator().state_bytes(),
            groups.memory.disk_bytes()?,
        );
    }
    Ok(())
}

/// One epoch.
#[derive(Clone, Copy, Default)]
struct Cost {
    fold: Duration,
    barrier: Duration,
    /// Moving to disk what has no room.
    spilled: Duration,
    part: Duration,
    part_bytes: u64,
}

/// The operator of one task, with what stands in front of it.
struct Groups {
    state: TaskState,
    memory: Memory,
    partial: PartialAggregate,
    plan: KeyedPlan,
    epoch: Epoch,
}

impl Groups {
    fn new(memory: Memory) -> anyhow::Result<Self> {
        let plan = plan()?;
        let functions = Functions::new();
        let partial = PartialAggregate::new(&plan, &functions)?;
        Ok(Self {
            state: memory.task(operator::build(&plan, &functions)?),
            memory,
            partial: partial.ok_or_else(|| anyhow::anyhow!("the plan is no aggregate"))?,
            plan,
            epoch: Epoch(0),
        })
    }

    /// Makes the first `count` groups; what that took.
    fn fill(&mut self, count: usize) -> anyhow::Result<Duration> {
        let mut taken = Duration::ZERO;
        let mut first = 0;
        while first < count {
            let last = count.min(first + EPOCH_GROUPS);
            let cost = self.epoch(first..last)?;
            taken += cost.fold + cost.barrier + cost.spilled;
            first = last;
        }
        Ok(taken)
    }

    /// An epoch with a row of each of these groups.
    fn epoch(&mut self, numbers: impl Iterator<Item = usize>) -> anyhow::Result<Cost> {
        let clock = SystemClock::new();
        let mut cost = Cost::default();
        let mut numbers = numbers.peekable();
        while numbers.peek().is_some() {
            let batch = self.rows(numbers.by_ref().take(BATCH_ROWS))?;
            let begun = clock.monotonic();
            let states = self.partial.fold(&batch)?;
            self.take(states)?;
            cost.fold += clock.monotonic() - begun;
        }
        let begun = clock.monotonic();
        let states = self.partial.finish_epoch()?;
        self.take(states)?;
        let folded = clock.monotonic();
        self.epoch = self.epoch.next();
        let outcome = self.state.operator().barrier(&BarrierRequest {
            epoch: self.epoch,
            watermark: None,
            emit_changes: true,
        })?;
        let ended = clock.monotonic();
        cost.fold += folded - begun;
        cost.barrier = ended - folded;
        if let StateWrite::Delta(rows) | StateWrite::Full(rows) = outcome.write {
            let object = ipc::encode_plain("bench", &rows.make()?)?;
            cost.part = clock.monotonic() - ended;
            cost.part_bytes = object.bytes.len() as u64;
        }
        let begun = clock.monotonic();
        self.state.give_back()?;
        cost.spilled = clock.monotonic() - begun;
        Ok(cost)
    }

    fn take(&mut self, states: Option<RecordBatch>) -> anyhow::Result<()> {
        if let Some(states) = states {
            self.state.operator().fold(OwnedRows::whole(states))?;
        }
        Ok(())
    }

    fn rows(&self, numbers: impl Iterator<Item = usize>) -> anyhow::Result<RecordBatch> {
        let (mut windows, mut pages) = (Vec::new(), Vec::new());
        for number in numbers {
            windows.push((number / PAGES) as i64 * MINUTE_US);
            pages.push(format!("/products/{:08}", number % PAGES));
        }
        let windows: ArrayRef = Arc::new(TimestampMicrosecondArray::from(windows));
        let pages: ArrayRef = Arc::new(StringArray::from(pages));
        let schema = Arc::clone(&self.plan.input.0);
        Ok(RecordBatch::try_new(schema, vec![windows, pages])?)
    }
}

fn plan() -> anyhow::Result<KeyedPlan> {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let groups = vec![
        Field::new("window_start", time, false),
        Field::new("page", DataType::Utf8, false),
    ];
    let mut output = groups.clone();
    output.push(Field::new("views", DataType::Int64, false));
    let views = NamedExpression {
        name: "views".to_owned(),
        expression: PlanExpression::encode(&count(lit(1_i64)), "views")?,
    };
    Ok(KeyedPlan {
        operator: "bench/aggregate/0".into(),
        fingerprint: "bench".to_owned(),
        input: PlanSchema::from_fields(groups),
        key_columns: vec![0, 1],
        kind: KeyedKind::Aggregate {
            aggregates: vec![views],
            window: Some(WindowPlan {
                column: 0,
                end_offset: EventSpan(MINUTE_US),
            }),
            output: PlanSchema::from_fields(output),
        },
    })
}

fn print(
    count: usize,
    filled: Duration,
    changed: usize,
    costs: &[Cost],
    state_bytes: usize,
    disk_bytes: Option<u64>,
) {
    let spread = |value: fn(&Cost) -> Duration| {
        let millis = costs.iter().map(|cost| value(cost).as_secs_f64() * 1e3);
        let spread = Spread::of(millis.collect());
        format!(
            "{:.1} ms ({:.1} to {:.1})",
            spread.median, spread.least, spread.greatest
        )
    };
    let per_group = |amount: f64| amount / count as f64;
    let part_bytes = costs.iter().map(|cost| cost.part_bytes).max();
    let mut rows = vec![
        report::row(
            "a group until then",
            format!("{:.0} ns", per_group(filled.as_secs_f64() * 1e9)),
        ),
        report::row(
            "bytes a group",
            format!("{:.1}", per_group(state_bytes as f64)),
        ),
        report::row(
            "peak memory of all so far",
            report::mebibytes(process::own_peak_rss()),
        ),
        report::row(
            "rows of an epoch",
            format!(
                "{}, a group each, folded in {}",
                report::count(changed as u64),
                spread(|cost| cost.fold)
            ),
        ),
        report::row("at its barrier", spread(|cost| cost.barrier)),
        report::row(
            "its part, beside the next epoch",
            format!(
                "{}, at most {}",
                spread(|cost| cost.part),
                report::mebibytes(part_bytes.unwrap_or_default())
            ),
        ),
    ];
    if let Some(bytes) = disk_bytes {
        rows.push(report::row("on disk", report::mebibytes(bytes)));
        let text = spread(|cost| cost.spilled);
        rows.push(report::row("moving to disk, behind the barrier", text));
    }
    report::table(
        &format!("{} live groups", report::count(count as u64)),
        &rows,
    );
}
