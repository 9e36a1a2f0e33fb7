//! A source whose records are fed, and what came of them as text.
//!
//! Used by `json.rs` and `csv.rs`. The plan is the real one of a job; a clock that stands still, so that two runs can be equal.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use millstream_common::plan::SourcePlan;
use millstream_common::plan::expression::Functions;
use millstream_common::secret::Environment;
use millstream_common::time::Clock;
use millstream_master::plan::plan_job;
use millstream_worker::consume::DecodedRows;
use millstream_worker::decode::{OpenSplit, SourceDecoder, SplitSlot, WatermarkMoves};

/// A column of each type, rules and event time.
const COLUMNS: &str = "id BIGINT NOT NULL CHECK (id >= 0), small SMALLINT, whole INTEGER, ratio DOUBLE, price NUMERIC(10, 2), \
     name TEXT, flag BOOLEAN, day DATE, instant TIMESTAMPTZ, object JSON, moment TIMESTAMP, \
     WATERMARK FOR moment AS moment - INTERVAL '5 seconds'";

/// The source of a job that reads those columns with these options.
pub(crate) fn source(options: &str) -> SourcePlan {
    let sql = format!(
        "CREATE SOURCE fed ({COLUMNS}) WITH ({options});\n\
         CREATE SINK out FROM fed WITH (connector = 'blackhole');"
    );
    let planned = plan_job(&sql, &Environment).expect("a sound job");
    let mut sources = planned.plan.sources.into_iter();
    sources.next().expect("one source")
}

#[derive(Debug)]
struct StillClock;

impl Clock for StillClock {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn unix_micros(&self) -> i64 {
        1_767_225_600_000_000
    }
}

/// A decoder that is fed again and again: to make one takes as long as thousands of records.
pub(crate) struct Fed {
    decoder: SourceDecoder,
    slot: Option<SplitSlot>,
}

impl Fed {
    /// A decoder for `plan`.
    pub(crate) fn new(plan: &SourcePlan) -> Self {
        let clock = Arc::new(StillClock);
        let decoder = SourceDecoder::new(plan, &Functions::new(), clock, false);
        Self {
            decoder: decoder.expect("a decoder"),
            slot: None,
        }
    }

    /// Begins anew, with a split that has no watermark yet.
    pub(crate) fn begin(&mut self) -> (&mut SourceDecoder, SplitSlot) {
        if let Some(last) = self.slot.take() {
            self.decoder.close_split(last);
        }
        let slot = self.decoder.open_split(OpenSplit {
            origin: "fed-0".to_owned(),
            partition: None,
            watermark: None,
            moves: WatermarkMoves::WithRows,
        });
        self.slot = Some(slot);
        (&mut self.decoder, slot)
    }
}

/// What came of records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) rows: Vec<String>,
    pub(crate) letters: Vec<String>,
}

impl Told {
    /// Adds a batch, whose counters have to close the sum (INV-10).
    pub(crate) fn add(&mut self, decoded: &DecodedRows) {
        let (rows, letters) = (self.rows.len(), self.letters.len());
        self.rows.extend(lines(&decoded.batch));
        self.letters.extend(decoded.rejects.iter().flat_map(lines));
        let counters = &decoded.counters;
        let sum = counters.accepted + counters.rejected + counters.dropped;
        assert_eq!(counters.read, sum, "INV-10: {counters:?}");
        let accepted = (self.rows.len() - rows) as u64;
        let rejected = (self.letters.len() - letters) as u64;
        assert_eq!(counters.accepted, accepted, "rows that count as accepted");
        assert_eq!(counters.rejected, rejected, "dead letters that count");
    }
}

fn lines(batch: &RecordBatch) -> Vec<String> {
    let cell = |column, row| array_value_to_string(column, row).expect("a cell as text");
    let line = |row| {
        let cells = batch.columns().iter().map(|column| cell(column, row));
        cells.collect::<Vec<_>>().join(" | ")
    };
    (0..batch.num_rows()).map(line).collect()
}
