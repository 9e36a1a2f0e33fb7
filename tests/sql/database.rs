//! The statements of a case, as the runner of SQL logic tests hands them over.
//!
//! `SET` and `CREATE` are Millstream's and gather into one job; a statement that makes the job wrong is refused, and is not part of it.
//! `INSERT INTO topic PARTITION p` or `INSERT INTO folder FILE name`, followed by records is a step of the job's input (`script.rs`). The first
//! `SELECT column, … FROM sink [LAST BY [key, …]]` runs the job to its end; it reads what the sink got, with LAST BY as a sink
//! with that primary key holds it. `DROP JOB` begins another job.
//!
//! In options `{kafka topic}` is a topic of the case's own broker (two partitions, JSON), `{folder name}` a folder of
//! input files, `{files name}` a files sink (its files are read) and `{segments}` a sink that keeps nothing (its output's segments are read).
//! Failure: the texts of the job's problems, or what went wrong while it ran.

use std::path::PathBuf;

use millstream_common::secret::Environment;
use millstream_master::plan;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};
use tempfile::TempDir;

use crate::broker::Broker;
use crate::cluster::{Cluster, Job};
use crate::rows;
use crate::script::{Fault, Step};

/// Epochs follow each other fast, so that a run has many of them.
const SETTINGS: &str = "SET checkpoint_interval = '100 milliseconds';\n";
/// The one problem that a job has until its last statement is there.
const UNFINISHED: &str = "the job has no sink";

/// Why a statement of a case fails.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failed(String);

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self(format!("{error:#}"))
    }
}

pub(crate) struct Database {
    fault: Fault,
    broker: Broker,
    folder: TempDir,
    topics: Vec<String>,
    statements: Vec<String>,
    steps: Vec<Step>,
    job_count: usize,
    cluster: Option<Cluster>,
}

impl Database {
    pub(crate) async fn start(fault: Fault) -> Result<Self, Failed> {
        let folder = tempfile::tempdir().map_err(anyhow::Error::from)?;
        Ok(Self {
            fault,
            broker: Broker::start()?,
            folder,
            topics: Vec::new(),
            statements: Vec::new(),
            steps: Vec::new(),
            job_count: 0,
            cluster: None,
        })
    }

    /// Takes a statement of the job, unless it is wrong.
    fn add(&mut self, statement: &str) -> Result<(), Failed> {
        if self.cluster.is_some() {
            return Err(Failed(
                "the job has run; DROP JOB begins another".to_owned(),
            ));
        }
        let statement = self.filled(statement)?;
        self.statements.push(statement);
        let Err(problems) = plan::plan_job(&self.sql(), &Environment) else {
            return Ok(());
        };
        let told = problems.iter().map(|problem| match &problem.hint {
            Some(hint) => format!("{}; {hint}", problem.message),
            None => problem.message.clone(),
        });
        let told: Vec<String> = told.filter(|text| !text.starts_with(UNFINISHED)).collect();
        if told.is_empty() {
            return Ok(());
        }
        self.statements.pop();
        Err(Failed(told.join("\n")))
    }

    fn sql(&self) -> String {
        let given = self.statements.iter();
        let text: String = given.map(|statement| format!("{statement};\n")).collect();
        match text.contains("checkpoint_interval") {
            true => text,
            false => format!("{SETTINGS}{text}"),
        }
    }

    /// The statement with the options that only this run knows.
    fn filled(&mut self, statement: &str) -> Result<String, Failed> {
        let mut filled = String::new();
        let mut rest = statement;
        while let Some((before, after)) = rest.split_once('{') {
            let (inside, after) = after
                .split_once('}')
                .ok_or(Failed("{ lacks its }".to_owned()))?;
            filled.push_str(before);
            match inside.split_once(' ') {
                Some(("kafka", topic)) => filled.push_str(&self.kafka(topic)?),
                Some(("folder", name)) => filled.push_str(&self.folder(name)?),
                Some(("files", name)) => filled.push_str(&self.files(name)),
                None if inside == "segments" => filled.push_str("connector = 'blackhole'"),
                _ => filled.push_str(&format!("{{{inside}}}")),
            }
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn kafka(&mut self, topic: &str) -> Result<String, Failed> {
        if !self.topics.iter().any(|known| known == topic) {
            self.broker.create_topic(topic)?;
            self.topics.push(topic.to_owned());
        }
        let brokers = self.broker.addresses()?;
        Ok(format!(
            "connector = 'kafka', brokers = '{brokers}', topic = '{topic}', format = 'json', \
             start = 'earliest'"
        ))
    }

    fn input(&self) -> PathBuf {
        self.folder.path().join("input")
    }

    fn folder(&self, name: &str) -> Result<String, Failed> {
        let path = self.input().join(name);
        std::fs::create_dir_all(&path).map_err(anyhow::Error::from)?;
        Ok(format!(
            "connector = 'files', path = '{}', settle = '50 milliseconds', \
             discovery_interval = '50 milliseconds'",
            path.display()
        ))
    }

    fn files(&self, name: &str) -> String {
        let path = self.folder.path().join("output").join(name);
        format!(
            "connector = 'files', format = 'json', path = '{}', roll_interval = '100 milliseconds'",
            path.display()
        )
    }

    /// Runs the job to its end, at the first call.
    async fn run_job(&mut self) -> Result<&Cluster, Failed> {
        if self.cluster.is_none() {
            self.job_count += 1;
            let storage = self
                .folder
                .path()
                .join(format!("storage-{}", self.job_count));
            let mut cluster = Cluster::start(&storage).await?;
            let sql = self.sql();
            let job = Job {
                sql: &sql,
                steps: &self.steps,
                input: &self.input(),
                bounded: ["end = 'latest'", "watch = false"]
                    .iter()
                    .any(|end| sql.contains(end)),
            };
            let ran = cluster.run(&job, &self.broker, self.fault).await;
            self.cluster = Some(cluster);
            ran?;
        }
        self.cluster.as_ref().ok_or(Failed("no cluster".to_owned()))
    }

    /// `SELECT a, b FROM sink [LAST BY c, d]`.
    async fn query(&mut self, query: &str) -> Result<DBOutput<DefaultColumnType>, Failed> {
        let query = query.split_whitespace().collect::<Vec<_>>().join(" ");
        let (columns, from) = query
            .split_once(" FROM ")
            .ok_or(Failed("no FROM".to_owned()))?;
        let (sink, key) = match from.split_once(" LAST BY") {
            Some((sink, key)) => (sink, Some(key)),
            None => (from, None),
        };
        let cluster = self.run_job().await?;
        let mut found = rows::read(&cluster.store, sink).await?;
        if let Some(key) = key {
            let key = key
                .split(", ")
                .map(str::trim)
                .filter(|name| !name.is_empty());
            let key = key.map(|name| found.column(name));
            let key = key.collect::<anyhow::Result<Vec<_>>>()?;
            found.last_by(&key);
        }
        let columns = match columns {
            "*" => (0..found.schema.fields().len()).collect(),
            names => {
                let names = names.split(", ").map(|name| found.column(name));
                names.collect::<anyhow::Result<Vec<_>>>()?
            }
        };
        let row = |row: &rows::Row| {
            columns
                .iter()
                .map(|index| row.values[*index].clone())
                .collect()
        };
        Ok(DBOutput::Rows {
            types: found.types(&columns),
            rows: found.rows.iter().map(row).collect(),
        })
    }

    async fn drop_job(&mut self) {
        self.statements.clear();
        self.steps.clear();
        if let Some(cluster) = self.cluster.take() {
            cluster.shutdown().await;
        }
    }
}

#[async_trait::async_trait]
impl AsyncDB for Database {
    type Error = Failed;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, statement: &str) -> Result<DBOutput<DefaultColumnType>, Failed> {
        let words: Vec<&str> = statement.split_whitespace().take(2).collect();
        match words.as_slice() {
            ["SELECT", _] => return self.query(statement["SELECT ".len()..].trim()).await,
            ["SELECT", ..] => return Err(Failed("SELECT what?".to_owned())),
            ["INSERT", _] => self.steps.push(Step::parse(statement).map_err(Failed)?),
            ["DROP", "JOB"] => self.drop_job().await,
            _ => self.add(statement)?,
        }
        Ok(DBOutput::StatementComplete(0))
    }

    async fn shutdown(&mut self) {
        self.drop_job().await;
    }
}
