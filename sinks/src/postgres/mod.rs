//! Rows into a table of Postgres, each run in one transaction with its marker.
//!
//! The order of a run: lock and check the marker row, copy and merge the rows, wait until the log names the refused ones,
//! move the marker, commit. What needs no answer before the next is sent goes out together with it, so that an epoch of up to
//! 8 MiB waits for the server four times, five where rows have a key, six where some are deleted. A commit whose answer is lost
//! is never repeated: the connection is dropped, and the next fence reads from the marker what became of it. Owns one
//! connection, dropped after any error. Failure: see `error.rs`.

mod apply;
mod compact;
mod copy;
mod error;
mod marker;
mod names;
mod numeric;
mod rounds;
pub mod session;
mod statements;
mod table;
mod tls;
mod types;

use std::pin::pin;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::future::maybe_done;
use futures::{join, poll};
use millstream_common::blocking::BlockingRef;
use millstream_common::plan::OnViolation;
use millstream_common::plan::connector::PostgresSinkSpec;

use self::apply::{Plan, Written};
use self::error::classify;
use self::marker::{Guard, RunStatements};
use self::session::{Session, application_name};
use self::statements::Statements;
use self::table::Target;
use crate::sink::{Applied, Cadence, Deliverer, EpochRun, Held, Rejects, RunRows, Sink, SinkError};

/// A table of Postgres.
pub struct PostgresSink {
    spec: PostgresSinkSpec,
    deliverer: Deliverer,
    /// Without `_op`.
    schema: SchemaRef,
    on_violation: OnViolation,
    blocking: BlockingRef,
    open: Option<Open>,
}

struct Open {
    session: Session,
    marker: RunStatements,
    plan: Plan,
}

impl PostgresSink {
    /// A sink for rows of `schema` (without `_op`); connects when it is fenced.
    pub fn new(
        spec: PostgresSinkSpec,
        deliverer: Deliverer,
        schema: SchemaRef,
        on_violation: OnViolation,
        blocking: BlockingRef,
    ) -> Self {
        Self {
            spec,
            deliverer,
            schema,
            on_violation,
            blocking,
            open: None,
        }
    }

    async fn open(&self) -> Result<(Open, Held), SinkError> {
        let name = application_name(&self.deliverer);
        let session = Session::open(&self.spec.url, &name, &self.blocking).await?;
        let marker = marker::fence(&session, &self.deliverer).await?;
        let address = &session.address;
        let client = &session.client;
        let target = Target::load(client, &self.spec, &self.schema, address).await?;
        let what = format!("write to table {} of {}", self.spec.table, session.address);
        let failed = |error: tokio_postgres::Error| classify(&what, &error);
        let statements = Statements::new(&target);
        if target.is_keyed() {
            let created = client.batch_execute(&statements.create_stage).await;
            created.map_err(failed)?;
        }
        let copy = client.prepare(&statements.copy).await.map_err(failed)?;
        let run_statements = RunStatements::prepare(client).await.map_err(failed)?;
        let plan = Plan {
            target,
            statements,
            copy,
            what,
            on_violation: self.on_violation,
        };
        let held = Held {
            marker: Some(marker),
            begun: None,
        };
        let open = Open {
            session,
            marker: run_statements,
            plan,
        };
        Ok((open, held))
    }
}

/// Connects and finds all that a sink would refuse about its table, given the output's columns (without `_op`);
/// changes nothing.
pub async fn check(
    spec: &PostgresSinkSpec,
    schema: &SchemaRef,
    blocking: &BlockingRef,
) -> Result<(), SinkError> {
    let session = Session::open(&spec.url, "millstream/check", blocking).await?;
    Target::check(&session.client, spec, schema, &session.address).await
}

#[async_trait]
impl Sink for PostgresSink {
    fn cadence(&self) -> Cadence {
        Cadence {
            run_bytes_max: 64 << 20,
            run_epochs_max: 64,
            gather: Duration::ZERO,
        }
    }

    async fn fence(&mut self) -> Result<Held, SinkError> {
        self.open = None;
        let (open, held) = self.open().await?;
        self.open = Some(open);
        Ok(held)
    }

    async fn apply(
        &mut self,
        run: &EpochRun,
        rows: &dyn RunRows,
        rejects: &dyn Rejects,
    ) -> Result<Applied, SinkError> {
        // Taken out: an error, or a caller that goes away, drops the connection and so the transaction.
        let open = self.open.take().ok_or_else(|| {
            SinkError::unavailable("write to postgres", "the sink is not connected")
        })?;
        let applied = open.apply(&self.deliverer, run, rows, rejects).await?;
        self.open = Some(open);
        Ok(applied)
    }
}

impl Open {
    async fn apply(
        &self,
        deliverer: &Deliverer,
        run: &EpochRun,
        rows: &dyn RunRows,
        rejects: &dyn Rejects,
    ) -> Result<Applied, SinkError> {
        let client = &self.session.client;
        let what = &self.plan.what;
        let failed = |error: tokio_postgres::Error| classify(what, &error);
        let guard = marker::guard(client, &self.marker, deliverer, run, what);
        let (begun, guard) = join!(client.batch_execute("BEGIN"), guard);
        begun.map_err(failed)?;
        if guard? == Guard::Applied {
            client.batch_execute("ROLLBACK").await.map_err(failed)?;
            return Ok(Applied {
                row_count: run.row_count,
                ..Applied::default()
            });
        }
        let written = if run.row_count == 0 {
            Written::default()
        } else {
            rounds::write(client, &self.plan, rows).await?
        };
        if !written.rejected.is_empty() {
            rejects.keep(run, &written.rejected).await?;
            if written.has_displaced {
                // The log names the refused rows by now, so the next try is without them and each other row counts.
                let cause = "refused rows may have displaced others of their keys; the rest is tried without them";
                return Err(SinkError::unavailable(what, cause));
            }
        }
        let committed = self.commit(deliverer, run, written.savepoint).await;
        committed.map_err(failed)?;
        Ok(written.applied())
    }

    /// Moves the marker and commits, which it waits for once. The marker's row is changed outside of any savepoint, so that the lock on it is
    /// the transaction's own: that is how whoever takes over finds this session.
    async fn commit(
        &self,
        deliverer: &Deliverer,
        run: &EpochRun,
        savepoint: Option<&str>,
    ) -> Result<(), tokio_postgres::Error> {
        let client = &self.session.client;
        let released = async {
            match savepoint {
                Some(name) => {
                    let release = format!("RELEASE SAVEPOINT {name}");
                    client.batch_execute(&release).await
                }
                None => Ok(()),
            }
        };
        let mut released = pin!(maybe_done(released));
        let moved = marker::advance(client, &self.marker, deliverer, run);
        let mut moved = pin!(maybe_done(moved));
        // Each is sent when it is first asked for, and what the server refuses breaks the transaction, so that COMMIT rolls it back. But COMMIT
        // must not follow a move that could not be sent.
        let _ = poll!(released.as_mut());
        let _ = poll!(moved.as_mut());
        let mut committed = Ok(());
        if moved
            .as_mut()
            .output_mut()
            .is_none_or(|moved| moved.is_ok())
        {
            let commit = client.batch_execute("COMMIT");
            (_, _, committed) = join!(released.as_mut(), moved.as_mut(), commit);
        }
        released.take_output().unwrap_or(Ok(()))?;
        moved.take_output().unwrap_or(Ok(()))?;
        committed
    }
}

impl Written {
    fn applied(&self) -> Applied {
        let rejected_count = self.rejected.len() as u64;
        Applied {
            row_count: self.row_count - self.refused_count,
            rejected_count,
            dropped_count: self.refused_count - rejected_count,
        }
    }
}
