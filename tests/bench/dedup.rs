//! Dedup: the operator of DISTINCT ON beside a bare hash set of the same fingerprints, at several numbers of live keys, on one thread.
//!
//! Called by `main.rs`, and by `instructions` for what is counted there; needs no services. Both take the same keys in batches and turns,
//! first until so many are live, then more of them, then some that they know. The operator takes them as in a task: with a time each, noted
//! for the next state part, first rows handed on. What an epoch costs its task, and what the part that follows costs beside it, is printed
//! too. Failure: a row too few or too many.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use clap::Args;
use millstream_common::ids::Epoch;
use millstream_common::ipc;
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{KeyedKind, KeyedPlan, PlanSchema};
use millstream_common::time::{Clock, SystemClock};
use millstream_worker::exchange::message::OwnedRows;
use millstream_worker::operator::task_state::TaskState;
use millstream_worker::operator::{self, BarrierRequest, StateWrite};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::memory::{Memory, MemoryArguments};
use crate::process;
use crate::report::{self, Spread};

/// Keys at once: about as many as a task is sent together.
const BATCH_KEYS: usize = 4_096;
/// Keys of an epoch, in percent of those that are live.
const CHANGED_PERCENT: usize = 1;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Live keys.
    #[arg(long, value_delimiter = ',', default_values_t = SIZES)]
    keys: Vec<usize>,
    /// Of the keys.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[command(flatten)]
    memory: MemoryArguments,
}

const SIZES: [usize; 3] = [1_000_000, 10_000_000, 50_000_000];

impl Default for Arguments {
    fn default() -> Self {
        Self {
            keys: SIZES.to_vec(),
            seed: 1,
            rounds: 3,
            memory: MemoryArguments::default(),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    for &count in &arguments.keys {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..arguments.rounds.max(1) {
            // Ours first: what the other gives back is with this process for a while.
            let memory = Memory::new(arguments.memory)?;
            ours.push(measure(&mut Ours::new(memory)?, count, arguments.seed)?);
            bare.push(measure(&mut Bare::default(), count, arguments.seed)?);
        }
        print(count, &ours, &bare);
    }
    Ok(())
}

/// Gives the operator `count` new keys `new_times` over, then those of the first time again `known_times` over.
pub(crate) fn repeat(
    new_times: usize,
    count: usize,
    known_times: usize,
    seed: u64,
) -> anyhow::Result<()> {
    let mut keys = Ours::new(Memory::new(MemoryArguments::default())?)?;
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..new_times {
        insert(&mut keys, &mut random, count, count)?;
    }
    for _ in 0..known_times {
        insert(&mut keys, &mut StdRng::seed_from_u64(seed), count, 0)?;
    }
    Ok(())
}

/// What takes keys.
trait Keys {
    /// Takes them; how many were new.
    fn insert(&mut self, fingerprints: &[u128]) -> anyhow::Result<usize>;
    /// Ends an epoch; what that took, and what the part took that follows, with its size.
    fn end_epoch(&mut self) -> anyhow::Result<EpochCost>;
    /// Bytes of memory held.
    fn bytes(&mut self) -> usize;
    /// Bytes on disk.
    fn disk_bytes(&self) -> anyhow::Result<Option<u64>>;
}

#[derive(Clone, Copy, Default)]
struct EpochCost {
    barrier: Duration,
    /// Moving to disk what has no room.
    spilled: Duration,
    part: Duration,
    part_bytes: u64,
}

/// One round of one of them.
struct Measured {
    /// A key on the way to so many.
    filled_ns: f64,
    /// A new key when so many are live.
    new_ns: f64,
    /// A key that is known.
    known_ns: f64,
    /// Of a key.
    bytes: f64,
    /// Memory of this process at the end.
    resident_bytes: u64,
    disk_bytes: Option<u64>,
    epoch: EpochCost,
}

fn measure(keys: &mut dyn Keys, count: usize, seed: u64) -> anyhow::Result<Measured> {
    let changed = (count * CHANGED_PERCENT / 100).max(BATCH_KEYS);
    let mut random = StdRng::seed_from_u64(seed);
    let mut filled = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let some = left.min(1 << 20);
        filled += insert(keys, &mut random, some, some)?;
        filled += keys.end_epoch()?.spilled;
        left -= some;
    }
    let new = insert(keys, &mut random, changed, changed)?;
    let epoch = keys.end_epoch()?;
    let mut again = StdRng::seed_from_u64(seed);
    let known = insert(keys, &mut again, changed.min(count), 0)?;
    let nanos = |span: Duration, keys: usize| span.as_secs_f64() * 1e9 / keys as f64;
    Ok(Measured {
        filled_ns: nanos(filled, count),
        new_ns: nanos(new, changed),
        known_ns: nanos(known, changed.min(count)),
        bytes: keys.bytes() as f64 / (count + changed) as f64,
        resident_bytes: process::own_rss(),
        disk_bytes: keys.disk_bytes()?,
        epoch,
    })
}

/// Only the inserting is timed, not the making of keys.
fn insert(
    keys: &mut dyn Keys,
    random: &mut StdRng,
    count: usize,
    expected_new: usize,
) -> anyhow::Result<Duration> {
    let clock = SystemClock::new();
    let (mut taken, mut left, mut new_count) = (Duration::ZERO, count, 0);
    let mut batch = Vec::with_capacity(BATCH_KEYS);
    while left > 0 {
        batch.clear();
        batch.extend((0..left.min(BATCH_KEYS)).map(|_| random.random::<u128>()));
        let begun = clock.monotonic();
        new_count += keys.insert(&batch)?;
        taken += clock.monotonic() - begun;
        left -= batch.len();
    }
    ensure!(
        new_count == expected_new,
        "{new_count} of {count} keys are new, not {expected_new}"
    );
    Ok(taken)
}

fn print(count: usize, ours: &[Measured], bare: &[Measured]) {
    let spread = |runs: &[Measured], value: fn(&Measured) -> f64| {
        Spread::of(runs.iter().map(value).collect())
    };
    let mut rows = Vec::new();
    type Value = fn(&Measured) -> f64;
    let lines: [(&str, Value); 3] = [
        ("a key until then", |run| run.filled_ns),
        ("a new key", |run| run.new_ns),
        ("a known key", |run| run.known_ns),
    ];
    for (name, value) in lines {
        let (ours, bare) = (spread(ours, value), spread(bare, value));
        let text = format!(
            "{:6.1} ns, bare set {:6.1} ns, rate {:.2} x ({:.1} to {:.1} ns)",
            ours.median,
            bare.median,
            bare.median / ours.median,
            ours.least,
            ours.greatest
        );
        rows.push(report::row(name, text));
    }
    let (held, bare_held) = (spread(ours, |run| run.bytes), spread(bare, |run| run.bytes));
    let text = format!("{:.1}, bare set {:.1}", held.median, bare_held.median);
    rows.push(report::row("bytes a key", text));
    let resident = ours.first().map_or(0, |run| run.resident_bytes);
    rows.push(report::row(
        "memory of this process with ours",
        report::mebibytes(resident),
    ));
    if let Some(bytes) = ours.first().and_then(|run| run.disk_bytes) {
        rows.push(report::row("on disk", report::mebibytes(bytes)));
    }
    let barrier = spread(ours, |run| run.epoch.barrier.as_secs_f64() * 1e3);
    let part = spread(ours, |run| run.epoch.part.as_secs_f64() * 1e3);
    let bytes = ours.last().map_or(0, |run| run.epoch.part_bytes);
    let text = format!(
        "{:.1} ms at the barrier, {:.1} ms beside the next epoch for a part of {}",
        barrier.median,
        part.median,
        report::mebibytes(bytes)
    );
    rows.push(report::row("an epoch of 1 %", text));
    report::table(&format!("{} live keys", report::count(count as u64)), &rows);
}

/// The operator, its keys in one task.
struct Ours {
    state: TaskState,
    memory: Memory,
    plan: KeyedPlan,
    epoch: Epoch,
    time: i64,
}

impl Ours {
    fn new(memory: Memory) -> anyhow::Result<Self> {
        let at = Field::new(
            "at",
            DataType::Timestamp(TimeUnit::Microsecond, None),
            false,
        );
        let plan = KeyedPlan {
            operator: "bench/distinct/0".into(),
            fingerprint: "bench".to_owned(),
            input: PlanSchema::from_fields(vec![at]),
            key_columns: vec![0],
            kind: KeyedKind::Distinct {
                time_column: Some(0),
            },
        };
        Ok(Self {
            state: memory.task(operator::build(&plan, &Functions::new())?),
            memory,
            plan,
            epoch: Epoch(0),
            time: 0,
        })
    }
}

impl Keys for Ours {
    fn insert(&mut self, fingerprints: &[u128]) -> anyhow::Result<usize> {
        let count = fingerprints.len();
        let times = self.time..self.time + count as i64;
        self.time = times.end;
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(times));
        let batch = RecordBatch::try_new(self.plan.input.0.clone(), vec![times])?;
        let rows = (0..count as u32).collect();
        let rows = OwnedRows::chosen(batch, rows, fingerprints.to_vec());
        let emitted = self.state.operator().fold(rows)?;
        Ok(emitted.iter().map(|rows| rows.batch.num_rows()).sum())
    }

    fn end_epoch(&mut self) -> anyhow::Result<EpochCost> {
        self.epoch = self.epoch.next();
        let clock = SystemClock::new();
        let begun = clock.monotonic();
        let outcome = self.state.operator().barrier(&BarrierRequest {
            epoch: self.epoch,
            watermark: None,
            emit_changes: true,
        })?;
        let ended = clock.monotonic();
        let mut cost = EpochCost {
            barrier: ended - begun,
            ..EpochCost::default()
        };
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

    fn bytes(&mut self) -> usize {
        self.state.operator().state_bytes()
    }

    fn disk_bytes(&self) -> anyhow::Result<Option<u64>> {
        self.memory.disk_bytes()
    }
}

/// A set of fingerprints and nothing else.
#[derive(Default)]
struct Bare(HashSet<u128, BuildHasherDefault<Half>>);

/// Fingerprints are hashes already.
#[derive(Default)]
struct Half(u64);

impl Hasher for Half {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are hashed");
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }
}

impl Keys for Bare {
    fn insert(&mut self, fingerprints: &[u128]) -> anyhow::Result<usize> {
        let new = fingerprints.iter().filter(|print| self.0.insert(**print));
        Ok(new.count())
    }

    fn end_epoch(&mut self) -> anyhow::Result<EpochCost> {
        Ok(EpochCost::default())
    }

    /// As the set of the standard library lays them out: a byte beside each place, at most 7 of 8 taken.
    fn bytes(&mut self) -> usize {
        let places = (self.0.capacity() * 8 / 7).next_power_of_two();
        places * (size_of::<u128>() + 1)
    }

    fn disk_bytes(&self) -> anyhow::Result<Option<u64>> {
        Ok(None)
    }
}
