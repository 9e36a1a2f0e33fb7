//! Whether what a job names outside is there and fits: topics, tables, folders.
//!
//! Called by `check`, `run` and `submit` before anything starts, also where the text itself has problems, with an
//! [`ExternalProbe`] that asks the real Kafka and Postgres. What is
//! asked lies behind the trait, what follows from the answers is decided here and is pure. All sources and sinks are asked at
//! once. Failure: each finding is a [`Problem`] at the option that names the thing, with the way to create or fix it.

mod table;
#[cfg(test)]
mod tests;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::future::join_all;
use millstream_common::error::Kind;
use millstream_common::plan::connector::{
    FilesSinkSpec, FilesSourceSpec, KafkaTopicSpec, PostgresSinkSpec, SinkSpec, SourceSpec,
};

use super::problem::Problem;
use super::{DraftedJob, PlannedJob, StatementPlaces};

/// Asks Kafka, Postgres and the file system. Implementations resolve references and give up within ten seconds.
#[async_trait]
pub trait ExternalProbe: Send + Sync {
    /// The topics of the brokers of a source or sink.
    async fn kafka_topics(&self, spec: &KafkaTopicSpec) -> Result<KafkaTopics, ProbeError>;
    /// The table of the sink.
    async fn postgres_table(&self, spec: &PostgresSinkSpec) -> Result<PostgresTable, ProbeError>;
    /// Whether the folder of the source is there; of a glob, the folder in front of the first wildcard.
    async fn folder(&self, spec: &FilesSourceSpec) -> Result<Folder, ProbeError>;
    /// Whether the folder of the sink is there or can be made.
    async fn output_folder(&self, spec: &FilesSinkSpec) -> Result<OutputFolder, ProbeError>;
    /// Whether the references in the value of `option` resolve, where nothing outside is asked about it.
    fn resolves(&self, option: &str, value: &str) -> Result<(), ProbeError>;
}

/// What Kafka has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaTopics {
    /// The topic of the source or sink, with its references resolved.
    pub wanted: String,
    /// It alone if it is there, or those that may have been meant.
    pub topics: Vec<String>,
}

/// What Postgres has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostgresTable {
    /// No such table.
    Missing {
        /// The tables of its schema.
        tables: Vec<String>,
        /// Why it could not be created, if it could not.
        obstacle: Option<Obstacle>,
    },
    /// The table as it is.
    Found(TableShape),
}

/// Why a table cannot be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// There is no schema of this name.
    NoSchema(String),
    /// The user may not create tables in the schema.
    NotAllowed {
        /// The schema.
        schema: String,
        /// Who asked.
        user: String,
    },
}

/// A table as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableShape {
    /// In order.
    pub columns: Vec<TableColumn>,
    /// The columns of each unique index that can stand behind ON CONFLICT, the primary key's too.
    pub unique_indexes: Vec<Vec<String>>,
}

/// A column of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// As `format_type` shows it: `numeric(10,2)`, `timestamp without time zone`.
    pub type_text: String,
    /// NULL is allowed.
    pub nullable: bool,
    /// The table fills it in where a row does not: a default, an identity, a generated column.
    pub filled: bool,
}

/// What stands where a folder is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    /// A folder.
    There,
    /// Nothing; the path with its references resolved.
    Missing(String),
}

/// What stands where a folder is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputFolder {
    /// A folder, or nothing: then it is made.
    Possible,
    /// This, which is no folder.
    Blocked(String),
}

/// Why nothing could be asked; without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct ProbeError {
    /// External: no answer. User: the login is refused, or a reference does not resolve.
    pub kind: Kind,
    /// "verb noun", with the address.
    pub what: String,
    /// What the other side says.
    pub cause: String,
    /// The cause says what to do already.
    pub is_advised: bool,
}

/// What the sound statements of a job name outside.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// Connectors and their places.
    pub(super) sources: Vec<(SourceSpec, StatementPlaces)>,
    pub(super) sinks: Vec<OutsideSink>,
}

/// A sink to ask for.
#[derive(Clone, Debug)]
pub(super) struct OutsideSink {
    pub(super) spec: SinkSpec,
    /// The rows it gets; `None` if these are not known, as something else is wrong.
    pub(super) schema: Option<SchemaRef>,
    pub(super) places: StatementPlaces,
}

/// The job, or every problem of its text and of what it names outside, in order of place.
pub async fn check_job(
    drafted: DraftedJob,
    probe: &dyn ExternalProbe,
) -> Result<PlannedJob, Vec<Problem>> {
    let found = check_outside(&drafted.outside, probe).await;
    match drafted.planned {
        Ok(planned) if found.is_empty() => Ok(planned),
        Ok(_) => Err(found),
        Err(mut problems) => {
            problems.extend(found);
            problems.sort_by_key(Problem::place);
            Err(problems)
        }
    }
}

/// Every finding about what a job names outside, in order of place.
pub async fn check_outside(outside: &Outside, probe: &dyn ExternalProbe) -> Vec<Problem> {
    let sources = outside.sources.iter();
    let of_sources = join_all(sources.map(|(spec, places)| check_source(spec, places, probe)));
    let of_sinks = join_all(outside.sinks.iter().map(|sink| check_sink(sink, probe)));
    let (of_sources, of_sinks) = futures::future::join(of_sources, of_sinks).await;
    let mut problems: Vec<Problem> = of_sources.into_iter().chain(of_sinks).flatten().collect();
    problems.sort_by_key(Problem::place);
    problems
}

async fn check_source(
    spec: &SourceSpec,
    places: &StatementPlaces,
    probe: &dyn ExternalProbe,
) -> Vec<Problem> {
    match spec {
        SourceSpec::Kafka(spec) => {
            let mut problems = check_topic(&spec.topic_spec(), places, probe).await;
            let group_id = spec.group_id.as_deref().unwrap_or_default();
            problems.extend(unresolved("group_id", group_id, places, probe));
            problems
        }
        SourceSpec::Files(spec) => match probe.folder(spec).await {
            Ok(Folder::There) => Vec::new(),
            Ok(Folder::Missing(path)) => {
                let message = format!("there is no folder {path}");
                let problem = Problem::at(places.option("path"), message);
                vec![problem.hint(format!("create it: mkdir -p {path}"))]
            }
            Err(error) => vec![unasked(&error, "path", places)],
        },
        SourceSpec::Datagen(_) => Vec::new(),
    }
}

async fn check_topic(
    spec: &KafkaTopicSpec,
    places: &StatementPlaces,
    probe: &dyn ExternalProbe,
) -> Vec<Problem> {
    match probe.kafka_topics(spec).await {
        Ok(topics) => missing_topic(&topics, places).into_iter().collect(),
        Err(error) => vec![unasked(&error, "brokers", places)],
    }
}

fn missing_topic(topics: &KafkaTopics, places: &StatementPlaces) -> Option<Problem> {
    let wanted = &topics.wanted;
    if topics.topics.contains(wanted) {
        return None;
    }
    let problem = Problem::at(
        places.option("topic"),
        format!("there is no topic {wanted}"),
    );
    let names = topics.topics.iter().map(String::as_str);
    let create = format!("create it: kafka-topics --create --topic {wanted} --partitions 4");
    Some(match millstream_common::suggest::nearest(wanted, names) {
        Some(nearest) => problem.hint(format!("did you mean {nearest}?\nor {create}")),
        None => problem.hint(create),
    })
}

async fn check_sink(sink: &OutsideSink, probe: &dyn ExternalProbe) -> Vec<Problem> {
    match &sink.spec {
        SinkSpec::Postgres(spec) => check_table(sink, spec, probe).await,
        SinkSpec::Kafka(spec) => {
            let places = &sink.places;
            let mut problems = check_topic(&spec.topic_spec(), places, probe).await;
            let topic = &spec.progress_topic;
            problems.extend(unresolved("progress_topic", topic, places, probe));
            problems
        }
        SinkSpec::Files(spec) => check_output(spec, &sink.places, probe).await,
        SinkSpec::Console(_) | SinkSpec::Blackhole => Vec::new(),
    }
}

async fn check_output(
    spec: &FilesSinkSpec,
    places: &StatementPlaces,
    probe: &dyn ExternalProbe,
) -> Vec<Problem> {
    match probe.output_folder(spec).await {
        Ok(OutputFolder::Possible) => Vec::new(),
        Ok(OutputFolder::Blocked(path)) => {
            let problem = Problem::at(places.option("path"), format!("{path} is no folder"));
            vec![problem.hint("move it away, or write another path")]
        }
        Err(error) => vec![unasked(&error, "path", places)],
    }
}

fn unresolved(
    option: &str,
    value: &str,
    places: &StatementPlaces,
    probe: &dyn ExternalProbe,
) -> Option<Problem> {
    let error = probe.resolves(option, value).err()?;
    Some(unasked(&error, option, places))
}

async fn check_table(
    sink: &OutsideSink,
    spec: &PostgresSinkSpec,
    probe: &dyn ExternalProbe,
) -> Vec<Problem> {
    let (schema, places) = (sink.schema.as_deref(), &sink.places);
    match (probe.postgres_table(spec).await, schema) {
        (Ok(PostgresTable::Missing { tables, obstacle }), _) => {
            let matters = |obstacle: &Obstacle| {
                spec.create_if_missing || matches!(obstacle, Obstacle::NoSchema(_))
            };
            let obstacle = obstacle.filter(matters);
            let mut problems: Vec<Problem> = obstacle
                .map(|obstacle| table::obstacle(&obstacle, places))
                .into_iter()
                .collect();
            if !spec.create_if_missing {
                problems.push(table::missing(spec, schema, &tables, places));
            }
            problems
        }
        (Ok(PostgresTable::Found(shape)), Some(schema)) => {
            table::compare(spec, schema, &shape, places)
        }
        (Ok(PostgresTable::Found(_)), None) => Vec::new(),
        (Err(error), _) => vec![unasked(&error, "url", places)],
    }
}

/// Nothing could be asked: which option to look at, and what to do.
fn unasked(error: &ProbeError, option: &str, places: &StatementPlaces) -> Problem {
    let problem = Problem::at(places.option(option), error.to_string());
    if error.is_advised {
        return problem;
    }
    match error.kind {
        Kind::External => problem.hint(format!(
            "start it, or correct {option} or the variable in it"
        )),
        Kind::User => problem.hint(format!(
            "correct {option}: the address, the user, the password or the variable in it"
        )),
        Kind::Internal => problem,
    }
}
