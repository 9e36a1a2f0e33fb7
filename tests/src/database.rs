//! A Postgres database of one test, and what the jobs wrote there.
//!
//! Called by the end-to-end tests. Each look has a connection of its own: a test may kill Postgres
//! between two looks. The database stays after the test, for a look after a failure; `make test`
//! wipes them all before the next run.

use std::collections::BTreeMap;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, Row};

use crate::oracle::{Group, RejectedCounts};

/// A table that nobody else can read or write while this lives.
pub struct Locked {
    _client: Client,
    _connection: JoinSet<()>,
}

/// A database.
pub struct Database {
    /// Its URL, as `POSTGRES_URL` of a job.
    pub url: String,
}

impl Database {
    /// Creates the database beside the one at `url`.
    pub async fn create(url: &str, test: &str) -> anyhow::Result<Self> {
        let name = format!("{test}_{:08x}", rand::random::<u32>());
        let server = Self {
            url: url.to_owned(),
        };
        server
            .execute(&format!("CREATE DATABASE \"{name}\""))
            .await?;
        let (base, _) = url.rsplit_once('/').context("find database in the URL")?;
        Ok(Self {
            url: format!("{base}/{name}"),
        })
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        let (client, _connection) = self.connect().await?;
        client.batch_execute(sql).await.context("execute SQL")
    }

    /// Rows of a query.
    pub async fn query(&self, sql: &str) -> anyhow::Result<Vec<Row>> {
        let (client, _connection) = self.connect().await?;
        client.query(sql, &[]).await.context("query Postgres")
    }

    /// Locks a table against everybody.
    pub async fn lock(&self, table: &str) -> anyhow::Result<Locked> {
        let (client, connection) = self.connect().await?;
        let sql = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        client.batch_execute(&sql).await.context("lock a table")?;
        Ok(Locked {
            _client: client,
            _connection: connection,
        })
    }

    /// Whether a session waits for a lock of `table`.
    pub async fn waits_for(&self, table: &str) -> anyhow::Result<bool> {
        let sql = format!(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{table}'::regclass"
        );
        let waiting: i64 = self.query(&sql).await?[0].get(0);
        Ok(waiting > 0)
    }

    /// The connection's task ends when the set is dropped.
    async fn connect(&self) -> anyhow::Result<(Client, JoinSet<()>)> {
        let connected = tokio_postgres::connect(&self.url, NoTls).await;
        let (client, connection) = connected.context("connect to Postgres")?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Whoever waits for an answer gets the error too.
            let _ = connection.await;
        });
        Ok((client, task))
    }

    /// What `fact_page_views` holds; nothing while it does not exist.
    pub async fn page_views(&self) -> anyhow::Result<BTreeMap<Group, i64>> {
        self.groups("fact_page_views", "url", "views").await
    }

    /// What `action_counts` holds; nothing while it does not exist.
    pub async fn action_counts(&self) -> anyhow::Result<BTreeMap<Group, i64>> {
        self.groups("action_counts", "action", "actions").await
    }

    async fn groups(
        &self,
        table: &str,
        key: &str,
        count: &str,
    ) -> anyhow::Result<BTreeMap<Group, i64>> {
        if !self.has_table(table).await? {
            return Ok(BTreeMap::new());
        }
        let sql = format!(
            "SELECT (extract(epoch FROM window_start) * 1000000)::bigint, {key}, {count}, \
             window_end - window_start = interval '1 minute' FROM {table}"
        );
        let mut groups = BTreeMap::new();
        for row in self.query(&sql).await? {
            let group = (row.get(0), row.get(1));
            let is_a_minute: bool = row.get(3);
            anyhow::ensure!(is_a_minute, "a window of another size: {group:?}");
            let twice = groups.insert(group.clone(), row.get(2));
            anyhow::ensure!(twice.is_none(), "{table} has {group:?} twice");
        }
        Ok(groups)
    }

    /// How often each dead letter is in `table`; nothing while it does not exist.
    pub async fn rejected(&self, table: &str) -> anyhow::Result<RejectedCounts> {
        if !self.has_table(table).await? {
            return Ok(BTreeMap::new());
        }
        let sql = format!(
            "SELECT origin, position, code, count(*) FROM {table} GROUP BY origin, position, code"
        );
        let mut counts = RejectedCounts::new();
        for row in self.query(&sql).await? {
            let count: i64 = row.get(3);
            counts.insert((row.get(0), row.get(1), row.get(2)), count.try_into()?);
        }
        Ok(counts)
    }

    async fn has_table(&self, table: &str) -> anyhow::Result<bool> {
        let sql = format!("SELECT to_regclass('{table}') IS NOT NULL");
        Ok(self.query(&sql).await?[0].get(0))
    }
}
