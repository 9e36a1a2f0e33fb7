//! The sink's marker and fence: one row of `millstream_markers` in the target's own database.
//!
//! Used by `mod.rs` (fence) and `apply.rs` (guard, move). The row is written in the transaction that writes the
//! sink's rows, so both are there or neither (INV-3). Its token fences: a deliverer with a smaller one finds
//! the row changed and stops (INV-4). A rewind moves the epoch back, never forward, and notes its own number in
//! the same row, so it happens once. The table is found by the search path of the connecting role, so that must not
//! change while a job lives. A vanished deliverer that still holds the row's lock is waited for, then its
//! session is ended.

use millstream_common::ids::{Epoch, Token};
use millstream_common::log::rewind::SinkRewind;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement, ToStatement};

use super::error::classify;
use super::session::{Session, application_prefix};
use super::table::is_creation_race;
use crate::sink::{Deliverer, EpochRun, SinkError};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS millstream_markers (\
     job text NOT NULL, incarnation uuid NOT NULL, sink text NOT NULL, \
     partition int NOT NULL, token bigint NOT NULL, epoch bigint NOT NULL, \
     rewound bigint NOT NULL DEFAULT 0, \
     PRIMARY KEY (incarnation, sink, partition))";
const EXISTS: &str = "SELECT to_regclass('millstream_markers') IS NOT NULL";
const INSERT: &str = "INSERT INTO millstream_markers (job, incarnation, sink, partition, token, epoch) \
     VALUES ($1, $2, $3, 0, $4, 0) ON CONFLICT DO NOTHING";
const FENCE: &str = "UPDATE millstream_markers SET token = $3 \
     WHERE incarnation = $1 AND sink = $2 AND partition = 0 AND token <= $3 RETURNING epoch";
const READ: &str = "SELECT token, epoch FROM millstream_markers \
     WHERE incarnation = $1 AND sink = $2 AND partition = 0";
const MOVE: &str = "UPDATE millstream_markers SET epoch = $3 \
     WHERE incarnation = $1 AND sink = $2 AND partition = 0";
const NOTES_REWINDS: &str = "SELECT count(*) FROM pg_catalog.pg_attribute \
     WHERE attrelid = to_regclass('millstream_markers') AND attname = 'rewound' AND NOT attisdropped";
const NOTE_REWINDS: &str =
    "ALTER TABLE millstream_markers ADD COLUMN IF NOT EXISTS rewound bigint NOT NULL DEFAULT 0";
/// A table that was restored from a copy may hold less than the epoch it is sent back to.
const REWIND: &str = "UPDATE millstream_markers SET epoch = least(epoch, $4), rewound = $5 \
     WHERE incarnation = $1 AND sink = $2 AND partition = 0 AND token = $3 AND rewound < $5 RETURNING epoch";
/// Ends the session whose transaction holds the row, if it is an older deliverer of this sink.
const TERMINATE: &str = "SELECT pg_terminate_backend(a.pid) FROM millstream_markers m \
     JOIN pg_catalog.pg_locks l ON l.locktype = 'transactionid' AND l.granted \
       AND l.mode = 'ExclusiveLock' AND l.transactionid = m.xmax \
     JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid AND a.pid <> pg_backend_pid() \
     WHERE m.incarnation = $3 AND m.sink = $4 AND m.partition = 0 \
       AND left(a.application_name, length($1)) = $1 \
       AND CASE WHEN substr(a.application_name, length($1) + 1) ~ '^[0-9]{1,20}$' \
           THEN substr(a.application_name, length($1) + 1)::numeric < $2::bigint ELSE false END";
/// Each try waits for the row as long as `lock_timeout` says.
const FENCE_TRIES: usize = 3;
const SHORT_WAIT: &str = "SET lock_timeout = '5s'";
const LONG_WAIT: &str = "SET lock_timeout = '30s'";

/// What each run asks of the marker, prepared once a session.
pub(super) struct RunStatements {
    guard: Statement,
    advance: Statement,
}

impl RunStatements {
    /// For the session of `client`.
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        Ok(Self {
            guard: client.prepare(&format!("{READ} FOR UPDATE")).await?,
            advance: client.prepare(MOVE).await?,
        })
    }
}

/// What the guard found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// The run is to be applied; the row is locked.
    Open,
    /// The sink holds the run already: an answer was lost.
    Applied,
}

/// Fences all deliverers with a smaller token, then reads the marker.
pub(super) async fn fence(session: &Session, deliverer: &Deliverer) -> Result<Epoch, SinkError> {
    let what = format!("fence sink {} in {}", deliverer.sink, session.address);
    let failed = |error: Error| classify(&what, &error);
    let client = &session.client;
    client.batch_execute(SHORT_WAIT).await.map_err(failed)?;
    ensure_table(client).await.map_err(failed)?;
    let mut tries = 1;
    let fenced = loop {
        match try_fence(client, deliverer).await {
            Err(error) if is_locked(&error) && tries < FENCE_TRIES => {
                tries += 1;
                end_older(client, deliverer).await.map_err(failed)?;
            }
            result => break result.map_err(failed)?,
        }
    };
    let fenced = match (fenced, deliverer.rewind) {
        (Some(epoch), Some(rewind)) => {
            note_rewinds(client, &what).await?;
            let back = go_back(client, deliverer, rewind).await;
            Some(back.map_err(failed)?.unwrap_or(epoch))
        }
        (fenced, _) => fenced,
    };
    client.batch_execute(LONG_WAIT).await.map_err(failed)?;
    match fenced {
        Some(epoch) => Ok(epoch),
        None => {
            let found = read(client, deliverer, READ).await.map_err(failed)?;
            let newer = found.map_or(deliverer.token, |(token, _)| token);
            Err(SinkError::Fenced { newer })
        }
    }
}

async fn try_fence(client: &Client, deliverer: &Deliverer) -> Result<Option<Epoch>, Error> {
    let incarnation = deliverer.incarnation.0;
    let token = deliverer.token.0 as i64;
    let job = deliverer.job.as_str();
    client
        .execute(INSERT, &[&job, &incarnation, &deliverer.sink, &token])
        .await?;
    let row = client
        .query_opt(FENCE, &[&incarnation, &deliverer.sink, &token])
        .await?;
    Ok(row.map(|row| Epoch(row.get::<_, i64>(0) as u64)))
}

/// Moves the marker back, unless this or a later rewind is noted already: whoever comes after a loss goes on from the marker (INV-3). What
/// the sink does not hold is not taken for held, wherever it was to go. The condition on the token is the fence: a newer deliverer
/// decides for itself (INV-4). Returns the marker where it is the first to follow.
async fn go_back(
    client: &Client,
    deliverer: &Deliverer,
    rewind: SinkRewind,
) -> Result<Option<Epoch>, Error> {
    let incarnation = deliverer.incarnation.0;
    let [token, to, at] = [deliverer.token.0, rewind.to.0, rewind.at.0].map(|number| number as i64);
    let row = client
        .query_opt(REWIND, &[&incarnation, &deliverer.sink, &token, &to, &at])
        .await?;
    Ok(row.map(|row| Epoch(row.get::<_, i64>(0) as u64)))
}

/// A table of before has no place for a rewind's number; only its owner can make one.
async fn note_rewinds(client: &Client, what: &str) -> Result<(), SinkError> {
    let found = client.query_one(NOTES_REWINDS, &[]).await;
    let count: i64 = found.map_err(|error| classify(what, &error))?.get(0);
    if count > 0 {
        return Ok(());
    }
    match client.batch_execute(NOTE_REWINDS).await {
        Ok(()) => Ok(()),
        Err(error) => Err(match classify(what, &error) {
            SinkError::Refused { what, cause } => SinkError::refused(
                what,
                format!("{cause}; the owner of the table has to run: {NOTE_REWINDS}"),
            ),
            passing => passing,
        }),
    }
}

/// Looks first: whoever may not create tables can still use one that is there.
async fn ensure_table(client: &Client) -> Result<(), Error> {
    let is_there: bool = client.query_one(EXISTS, &[]).await?.get(0);
    if is_there {
        return Ok(());
    }
    match client.batch_execute(CREATE).await {
        Err(error) if is_creation_race(&error) => client.batch_execute(CREATE).await,
        result => result,
    }
}

async fn end_older(client: &Client, deliverer: &Deliverer) -> Result<(), Error> {
    let prefix = application_prefix(deliverer);
    let token = deliverer.token.0 as i64;
    let incarnation = deliverer.incarnation.0;
    let ended = client
        .query(TERMINATE, &[&prefix, &token, &incarnation, &deliverer.sink])
        .await?;
    tracing::warn!(sink = %deliverer.sink, sessions = ended.len(), "ended sessions of older deliverers");
    Ok(())
}

/// Locks the row within the open transaction and compares it to the run's guard.
pub(super) async fn guard(
    client: &Client,
    statements: &RunStatements,
    deliverer: &Deliverer,
    run: &EpochRun,
    what: &str,
) -> Result<Guard, SinkError> {
    let found = read(client, deliverer, &statements.guard).await;
    let (token, epoch) = match found.map_err(|error| classify(what, &error))? {
        Some(found) => found,
        None => return Err(gone(run)),
    };
    if token > deliverer.token {
        return Err(SinkError::Fenced { newer: token });
    }
    if token < deliverer.token {
        // The database went back to before our fence: what it holds now has to be read anew.
        return Err(SinkError::unavailable(
            what,
            "the fence of this deliverer is gone",
        ));
    }
    if epoch == run.last {
        return Ok(Guard::Applied);
    }
    if epoch != run.guard {
        return Err(SinkError::MarkerMismatch {
            found: epoch,
            expected: run.guard,
            advice: "somebody else moved the marker in millstream_markers".to_owned(),
        });
    }
    Ok(Guard::Open)
}

fn gone(run: &EpochRun) -> SinkError {
    SinkError::MarkerMismatch {
        found: Epoch(0),
        expected: run.guard,
        advice: "the sink's row in millstream_markers is gone".to_owned(),
    }
}

/// Moves the marker to the end of the run, within the open transaction.
pub(super) async fn advance(
    client: &Client,
    statements: &RunStatements,
    deliverer: &Deliverer,
    run: &EpochRun,
) -> Result<(), Error> {
    let incarnation = deliverer.incarnation.0;
    let epoch = run.last.0 as i64;
    let values: [&(dyn ToSql + Sync); 3] = [&incarnation, &deliverer.sink, &epoch];
    client.execute(&statements.advance, &values).await?;
    Ok(())
}

async fn read(
    client: &Client,
    deliverer: &Deliverer,
    statement: &(impl ?Sized + ToStatement),
) -> Result<Option<(Token, Epoch)>, Error> {
    let incarnation = deliverer.incarnation.0;
    let row = client
        .query_opt(statement, &[&incarnation, &deliverer.sink])
        .await?;
    let number = |row: &tokio_postgres::Row, index: usize| row.get::<_, i64>(index) as u64;
    Ok(row.map(|row| (Token(number(&row, 0)), Epoch(number(&row, 1)))))
}

fn is_locked(error: &Error) -> bool {
    error.code().is_some_and(|code| code.code() == "55P03")
}
