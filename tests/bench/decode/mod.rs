//! Decode: JSON records to Arrow, beside arrow-json in the same build and run, on one thread.
//!
//! Called by `main.rs`, and by `instructions` for what is counted there; needs no services. Both read the same records in batches of the
//! size that readers use, and take turns. What they make of the records is compared before anything is timed. Failure: rows that differ.

mod shapes;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use clap::Args;
use millstream_common::plan::SourcePlan;
use millstream_common::plan::expression::Functions;
use millstream_common::time::{Clock, SystemClock};
use millstream_worker::decode::{OpenSplit, RecordRef, SourceDecoder, SplitSlot, WatermarkMoves};

use self::shapes::SHAPES;
pub(crate) use self::shapes::Shape;
use crate::report::{self, Spread};

/// Records at once: about as many clicks as readers decode together.
pub(crate) const BATCH_ROWS: usize = 9_000;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Records of each shape.
    #[arg(long, default_value_t = 500_000)]
    rows: usize,
    /// Of the records.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each is measured.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Only ours: for a profiler.
    #[arg(long)]
    only_ours: bool,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            rows: 500_000,
            seed: 1,
            rounds: 7,
            only_ours: false,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    for shape in SHAPES {
        let records = shape.records(arguments.rows, arguments.seed);
        let measured = measure(shape, &records, arguments);
        print(shape, &records, &measured.with_context(|| shape.title())?);
    }
    Ok(())
}

/// Decodes `rows` records of a shape so often.
pub(crate) fn repeat(shape: Shape, rows: usize, seed: u64, times: usize) -> anyhow::Result<()> {
    let records = shape.records(rows, seed);
    let mut decoding = Decoding::new(&shape.plan()?)?;
    for _ in 0..times {
        decoding.begin();
        for batch in records.chunks(BATCH_ROWS) {
            black_box(decoding.decode(batch)?);
        }
    }
    Ok(())
}

/// Times of all rounds.
#[derive(Default)]
struct Measured {
    ours: Vec<Duration>,
    arrow_json: Vec<Duration>,
}

fn measure(shape: Shape, records: &[String], arguments: &Arguments) -> anyhow::Result<Measured> {
    let plan = shape.plan()?;
    let mut ours = Decoding::new(&plan)?;
    let mut theirs = ArrowJson::of(&plan)?;
    let lines: Vec<String> = records
        .chunks(BATCH_ROWS)
        .map(|batch| batch.join("\n"))
        .collect();
    ours.begin();
    for (batch, lines) in records.chunks(BATCH_ROWS).zip(&lines) {
        ensure!(ours.decode(batch)? == theirs.decode(lines)?, "rows differ");
    }
    let clock = SystemClock::new();
    let mut measured = Measured::default();
    for _ in 0..arguments.rounds.max(1) {
        ours.begin();
        let begun = clock.monotonic();
        for batch in records.chunks(BATCH_ROWS) {
            black_box(ours.decode(batch)?);
        }
        measured.ours.push(clock.monotonic() - begun);
        if arguments.only_ours {
            continue;
        }
        let begun = clock.monotonic();
        for lines in &lines {
            black_box(theirs.decode(lines)?);
        }
        measured.arrow_json.push(clock.monotonic() - begun);
    }
    Ok(measured)
}

fn print(shape: Shape, records: &[String], measured: &Measured) {
    let bytes: usize = records.iter().map(String::len).sum();
    let spread = |times: &[Duration]| {
        let rates = times.iter();
        Spread::of(
            rates
                .map(|time| report::rate(records.len() as u64, *time))
                .collect(),
        )
    };
    let (ours, theirs) = (spread(&measured.ours), spread(&measured.arrow_json));
    let title = format!(
        "{}, {} bytes each",
        shape.title(),
        bytes / records.len().max(1)
    );
    let rows = [
        report::row("rows/s", ours.rows_per_second()),
        report::row("arrow-json", theirs.rows_per_second()),
        report::row("ratio", format!("{:.2}", ours.median / theirs.median)),
    ];
    report::table(&title, &rows);
}

/// The decoder of a source as readers use it: rows are counted, checked and given their places too.
pub(crate) struct Decoding {
    decoder: SourceDecoder,
    slot: SplitSlot,
}

impl Decoding {
    pub(crate) fn new(plan: &SourcePlan) -> anyhow::Result<Self> {
        let clock = Arc::new(SystemClock::new());
        let mut decoder = SourceDecoder::new(plan, &Functions::new(), clock, false)?;
        let slot = decoder.open_split(split());
        Ok(Self { decoder, slot })
    }

    /// Begins the records again, with a split that has no watermark yet.
    fn begin(&mut self) {
        self.decoder.close_split(self.slot);
        self.slot = self.decoder.open_split(split());
    }

    /// Rows of records, in order.
    pub(crate) fn decode(&mut self, records: &[String]) -> anyhow::Result<RecordBatch> {
        let lent = (0..).zip(records).map(|(position, record)| RecordRef {
            slot: self.slot,
            position,
            payload: Some(record.as_bytes()),
            key: None,
            timestamp_ms: None,
            headers: None,
        });
        let lent: Vec<RecordRef<'_>> = lent.collect();
        Ok(self.decoder.decode_records(&lent)?.batch)
    }
}

fn split() -> OpenSplit {
    OpenSplit {
        origin: "records-0".to_owned(),
        partition: Some(0),
        watermark: None,
        moves: WatermarkMoves::WithRows,
    }
}

/// What Arrow itself brings along.
struct ArrowJson {
    decoder: Decoder,
}

impl ArrowJson {
    fn of(plan: &SourcePlan) -> anyhow::Result<Self> {
        let columns = plan.columns.iter().map(|column| column.field.clone());
        let schema: SchemaRef = Arc::new(Schema::new(columns.collect::<Vec<_>>()));
        let builder = ReaderBuilder::new(schema).with_batch_size(BATCH_ROWS);
        Ok(Self {
            decoder: builder.build_decoder()?,
        })
    }

    fn decode(&mut self, lines: &str) -> anyhow::Result<RecordBatch> {
        let read = self.decoder.decode(lines.as_bytes())?;
        ensure!(read == lines.len(), "arrow-json has left bytes");
        self.decoder.flush()?.context("arrow-json has no rows")
    }
}
