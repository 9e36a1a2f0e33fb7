//! Postgres in memory: tables with a marker and a fence beside the rows, changed in one atomic unit.
//!
//! Behind the trait of all sinks, in the place of `sinks/src/postgres`. What a real transaction does at COMMIT happens at once at
//! the server: the token and the guard are compared, the rows change, the marker moves. Keeps INV-3 and INV-4 as a server keeps them,
//! and tells the ledger of each move. Failure: as the weather says; an ambiguous commit is an error whose rows are there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, Int8Array, RecordBatch};
use arrow::datatypes::{DataType, Int8Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use async_trait::async_trait;
use futures::StreamExt;
use millstream_common::ids::{Epoch, Seq, Token};
use millstream_common::mutant::{self, Mutant};
use millstream_common::plan::connector::PostgresSinkSpec;
use millstream_sinks::sink::{
    Applied, Cadence, Deliverer, EpochRun, Held, RejectedRow, Rejects, RunRows, Sink, SinkError,
};

use super::weather::Failure;
use super::{Outside, World};
use crate::trace::event;

/// A value of a row, in an order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cell {
    Null,
    /// Whole numbers, and times as microseconds since 1970.
    Number(i64),
    Text(String),
}

/// A row by the names of its columns.
pub(crate) type Row = BTreeMap<String, Cell>;

type Keyed = BTreeMap<Vec<Cell>, Row>;

/// All tables by name.
pub(crate) type Tables = BTreeMap<String, Table>;

/// One table with what stands beside it.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// The newest deliverer.
    token: Token,
    /// By incarnation.
    markers: BTreeMap<String, Epoch>,
    /// By primary key.
    keyed: Keyed,
    /// Where there is none.
    appended: Vec<Row>,
    /// Copies of all of it, by the epoch that it held.
    copies: BTreeMap<Epoch, Copied>,
    /// The last rewind that its sink has followed.
    rewound: Seq,
}

/// A table as it was once, with what stands beside it.
#[derive(Clone, Debug, Default)]
struct Copied {
    token: Token,
    keyed: Keyed,
    appended: Vec<Row>,
    rewound: Seq,
}

impl Table {
    /// All rows, sorted.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.keyed.values().chain(&self.appended).cloned().collect();
        rows.sort();
        rows
    }

    /// Is as it was at `to`.
    fn restore(&mut self, to: Epoch) {
        let copy = self.copies.get(&to).cloned().unwrap_or_default();
        (self.keyed, self.appended) = (copy.keyed, copy.appended);
        (self.token, self.rewound) = (copy.token, copy.rewound);
        for marker in self.markers.values_mut() {
            *marker = to;
        }
    }

    fn change(&mut self, primary_key: &[String], changes: Vec<(Row, bool)>) {
        for (row, is_delete) in changes {
            if primary_key.is_empty() {
                self.appended.push(row);
                continue;
            }
            let key = primary_key.iter().map(|column| row[column].clone());
            let key: Vec<Cell> = key.collect();
            match is_delete {
                true => self.keyed.remove(&key),
                false => self.keyed.insert(key, row),
            };
        }
    }
}

/// This table has a constraint.
pub(crate) const CONSTRAINED: &str = "distinct_clicks";

/// Whether the constraint refuses the event of that id.
pub(crate) fn is_refused(id: i64) -> bool {
    id % 11 == 3
}

/// A sink into one table.
pub(crate) struct SimulatedPostgres {
    pub(crate) host: String,
    pub(crate) outside: Arc<Outside>,
    pub(crate) spec: PostgresSinkSpec,
    pub(crate) deliverer: Deliverer,
}

fn refuse_connection() -> SinkError {
    SinkError::unavailable("connect to postgres", "connection refused")
}

#[async_trait]
impl Sink for SimulatedPostgres {
    fn cadence(&self) -> Cadence {
        Cadence {
            run_bytes_max: 1 << 20,
            run_epochs_max: 8,
            gather: Duration::ZERO,
        }
    }

    async fn fence(&mut self) -> Result<Held, SinkError> {
        let fate = self.outside.fate(Some(&self.spec.table));
        let (name, deliverer) = (self.spec.table.clone(), self.deliverer.clone());
        let effect = move |world: &mut World| {
            // A session that its client has lost keeps its locks until the server has ended it: nothing comes late.
            if matches!(fate.failure, Some(Failure::Before | Failure::Late(_))) {
                return Err(refuse_connection());
            }
            let table = world.tables.entry(name.clone()).or_default();
            if table.token > deliverer.token {
                let newer = table.token;
                event!("sink {name} refuses token {}", deliverer.token);
                return Err(SinkError::Fenced { newer });
            }
            if !mutant::is(Mutant::ForgetToken) {
                table.token = deliverer.token;
            }
            world.ledger.fenced(&name, deliverer.token);
            go_back(world, &name, &deliverer);
            let table = world.tables.entry(name.clone()).or_default();
            let marker = table.markers.get(&deliverer.incarnation.to_string());
            let marker = marker.copied().unwrap_or_default();
            event!("sink {name} fenced by {} at {marker}", deliverer.token);
            match fate.failure {
                None => Ok(Held {
                    marker: Some(marker),
                    begun: None,
                }),
                Some(_) => Err(SinkError::unavailable("fence", "connection reset")),
            }
        };
        let step = "fence postgres";
        self.outside
            .call(&self.host, step, fate.delay, effect)
            .await
    }

    async fn apply(
        &mut self,
        run: &EpochRun,
        rows: &dyn RunRows,
        rejects: &dyn Rejects,
    ) -> Result<Applied, SinkError> {
        let mut changes = Vec::new();
        let mut batches = rows.batches();
        while let Some(batch) = batches.next().await {
            changes.extend(changes_of(&batch?));
        }
        let given_count = changes.len() as u64;
        let refused = self.take_refused(&mut changes);
        if !refused.is_empty() {
            rejects.keep(run, &refused).await?;
        }
        let fate = self.outside.fate(Some(&self.spec.table));
        let commit = Commit {
            spec: self.spec.clone(),
            deliverer: self.deliverer.clone(),
            run: *run,
            given_count,
            changes,
        };
        let effect = move |world: &mut World| match fate.failure {
            Some(Failure::Before | Failure::Late(_) | Failure::Full) => Err(refuse_connection()),
            None => commit.make(world),
            Some(Failure::After | Failure::AfterExists) => commit
                .make(world)
                .and(Err(SinkError::unavailable("commit", "connection reset"))),
        };
        let step = "apply postgres";
        self.outside
            .call(&self.host, step, fate.delay, effect)
            .await
    }
}

impl SimulatedPostgres {
    /// Takes the rows out that a constraint of the table refuses.
    fn take_refused(&self, changes: &mut Vec<(Row, bool)>) -> Vec<RejectedRow> {
        if self.spec.table != CONSTRAINED {
            return Vec::new();
        }
        let mut refused = Vec::new();
        let mut place = 0;
        changes.retain(|(row, _)| {
            let is_refused = matches!(row["eventid"], Cell::Number(id) if is_refused(id));
            if is_refused {
                refused.push(RejectedRow {
                    row: place,
                    payload: format!("{row:?}"),
                    reason: "violates a check constraint".to_owned(),
                });
            }
            place += 1;
            !is_refused
        });
        refused
    }
}

/// A transaction at its COMMIT.
struct Commit {
    spec: PostgresSinkSpec,
    deliverer: Deliverer,
    run: EpochRun,
    /// Refused rows among them.
    given_count: u64,
    changes: Vec<(Row, bool)>,
}

impl Commit {
    fn make(self, world: &mut World) -> Result<Applied, SinkError> {
        let name = self.spec.table.clone();
        let incarnation = self.deliverer.incarnation;
        let table = world.tables.entry(name.clone()).or_default();
        if table.token > self.deliverer.token && !mutant::is(Mutant::ForgetToken) {
            event!("sink {name} stops token {}", self.deliverer.token);
            return Err(SinkError::Fenced { newer: table.token });
        }
        if table.token < self.deliverer.token && !mutant::is(Mutant::ForgetToken) {
            let cause = "the fence of this deliverer is gone";
            return Err(SinkError::unavailable("commit", cause));
        }
        let marker = table.markers.entry(incarnation.to_string()).or_default();
        if *marker == self.run.last {
            return Ok(Applied::default());
        }
        if *marker != self.run.guard {
            return Err(SinkError::MarkerMismatch {
                found: *marker,
                expected: self.run.guard,
                advice: "none in a simulation".to_owned(),
            });
        }
        *marker = self.run.last;
        let row_count = self.changes.len() as u64;
        event!("sink {name} holds {} with {row_count} rows", self.run.last);
        if self.given_count != self.run.row_count {
            let (given, said) = (self.given_count, self.run.row_count);
            let what = format!("sink {name}: {given} rows where the log says {said}");
            world.ledger.violated("INV-2", what);
        }
        table.change(&self.spec.primary_key, self.changes);
        let copy = Copied {
            token: table.token,
            keyed: table.keyed.clone(),
            appended: table.appended.clone(),
            rewound: table.rewound,
        };
        table.copies.insert(self.run.last, copy);
        world.ledger.delivered(&name, &self.deliverer, &self.run);
        Ok(Applied {
            row_count,
            ..Applied::default()
        })
    }
}

/// Follows a rewind that the table has not noted yet, in the unit that fences: the marker moves back, never forward, and no row changes.
fn go_back(world: &mut World, name: &str, deliverer: &Deliverer) {
    let table = world.tables.entry(name.to_owned()).or_default();
    let Some(rewind) = deliverer.rewind.filter(|rewind| rewind.at > table.rewound) else {
        return;
    };
    if !mutant::is(Mutant::ForgetRewind) {
        table.rewound = rewind.at;
    }
    let incarnation = deliverer.incarnation.to_string();
    let marker = table.markers.entry(incarnation).or_default();
    let held = *marker;
    *marker = match mutant::is(Mutant::RewindForward) {
        true => rewind.to,
        false => rewind.to.min(held),
    };
    let to = *marker;
    event!("sink {name} goes back from {held} to {to}");
    world.ledger.went_back(name, deliverer, rewind, to);
}

impl World {
    /// The epoch that a table held at such a share of its past; 0 is before the first.
    pub(crate) fn copy_at(&self, name: &str, share: f64) -> Epoch {
        let Some(table) = self.tables.get(name) else {
            return Epoch(0);
        };
        let newest = table.markers.values().max().copied().unwrap_or_default();
        let held: Vec<&Epoch> = table
            .copies
            .range(..=newest)
            .map(|(held, _)| held)
            .collect();
        let place = (held.len() as f64 * share) as usize;
        held.get(place.wrapping_sub(1))
            .map_or(Epoch(0), |held| **held)
    }

    /// The newest copy that is older than that of `to`.
    pub(crate) fn copy_before(&self, name: &str, to: Epoch) -> Option<Epoch> {
        let older = self.tables.get(name)?.copies.range(..to).next_back();
        older.map(|(held, _)| *held)
    }

    /// Somebody restores the table, and what stands beside it, from its copy of then.
    pub(crate) fn restore(&mut self, name: &str, to: Epoch) {
        let Some(table) = self.tables.get_mut(name) else {
            return;
        };
        event!("table {name} is restored as of {to}");
        table.restore(to);
        let (token, rewound) = (table.token, table.rewound);
        self.ledger.restored(name, to, token, rewound);
    }
}

/// The rows of a batch, each with whether it is a delete.
fn changes_of(batch: &RecordBatch) -> Vec<(Row, bool)> {
    let schema = batch.schema();
    let ops: Option<&Int8Array> = batch
        .column_by_name("_op")
        .and_then(|column| column.as_primitive_opt::<Int8Type>());
    let row_of = |index: usize| {
        let cells = schema.fields().iter().zip(batch.columns());
        let cells = cells.filter(|(field, _)| field.name() != "_op");
        let row = cells.map(|(field, column)| (field.name().clone(), cell(column, index)));
        (row.collect(), ops.is_some_and(|ops| ops.value(index) == 1))
    };
    (0..batch.num_rows()).map(row_of).collect()
}

fn cell(column: &dyn Array, index: usize) -> Cell {
    if column.is_null(index) {
        return Cell::Null;
    }
    match column.data_type() {
        DataType::Int64 => Cell::Number(column.as_primitive::<Int64Type>().value(index)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let times = column.as_primitive::<TimestampMicrosecondType>();
            Cell::Number(times.value(index))
        }
        _ => Cell::Text(array_value_to_string(column, index).unwrap_or_default()),
    }
}
