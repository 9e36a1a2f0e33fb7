//! What is found outside becomes problems, decided from a probe that answers from a table.

use super::*;
use crate::plan::{Place, draft_job};

const SQL: &str = include_str!("../../../../jobs/page_views.sql");
const ACTIVITY: &str = include_str!("../../../../jobs/user_activity.sql");

struct Named;

impl millstream_common::secret::Lookup for Named {
    fn variable(&self, name: &str) -> Option<String> {
        Some(name.to_lowercase())
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(path.to_owned())
    }
}

/// Answers every question as it is told to.
struct Fake {
    topics: Result<KafkaTopics, ProbeError>,
    table: Result<PostgresTable, ProbeError>,
    folder: Result<Folder, ProbeError>,
    output: OutputFolder,
    /// Options whose references do not resolve.
    unset: Vec<&'static str>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            topics: Ok(KafkaTopics {
                wanted: "clicks_topic".to_owned(),
                topics: vec!["clicks_topic".to_owned()],
            }),
            table: Ok(PostgresTable::Missing {
                tables: Vec::new(),
                obstacle: None,
            }),
            folder: Ok(Folder::There),
            output: OutputFolder::Possible,
            unset: Vec::new(),
        }
    }
}

#[async_trait]
impl ExternalProbe for Fake {
    async fn kafka_topics(&self, _: &KafkaTopicSpec) -> Result<KafkaTopics, ProbeError> {
        self.topics.clone()
    }

    async fn postgres_table(&self, spec: &PostgresSinkSpec) -> Result<PostgresTable, ProbeError> {
        match spec.table.as_str() {
            "fact_page_views" | "user_activity" => self.table.clone(),
            _ => Ok(PostgresTable::Missing {
                tables: Vec::new(),
                obstacle: None,
            }),
        }
    }

    async fn folder(&self, _: &FilesSourceSpec) -> Result<Folder, ProbeError> {
        self.folder.clone()
    }

    async fn output_folder(&self, _: &FilesSinkSpec) -> Result<OutputFolder, ProbeError> {
        Ok(self.output.clone())
    }

    fn resolves(&self, option: &str, _: &str) -> Result<(), ProbeError> {
        if !self.unset.contains(&option) {
            return Ok(());
        }
        Err(ProbeError {
            kind: Kind::User,
            what: format!("read option {option}"),
            cause: "environment variable NOPE is not set".to_owned(),
            is_advised: true,
        })
    }
}

async fn check(sql: &str, fake: &Fake) -> Vec<Problem> {
    let drafted = draft_job(sql, &Named);
    assert!(drafted.planned.is_ok(), "the job plans");
    check_outside(&drafted.outside, fake).await
}

fn column(name: &str, type_text: &str, nullable: bool) -> TableColumn {
    TableColumn {
        name: name.to_owned(),
        type_text: type_text.to_owned(),
        nullable,
        ..TableColumn::default()
    }
}

fn page_views_table() -> TableShape {
    TableShape {
        columns: vec![
            column("window_start", "timestamp without time zone", false),
            column("window_end", "timestamp without time zone", false),
            column("url", "text", false),
            column("views", "bigint", false),
        ],
        unique_indexes: vec![vec!["url".to_owned(), "window_start".to_owned()]],
    }
}

fn found(shape: TableShape) -> Fake {
    Fake {
        table: Ok(PostgresTable::Found(shape)),
        ..Fake::default()
    }
}

#[tokio::test]
async fn a_table_that_fits_and_one_that_will_be_created_are_no_problem() {
    assert_eq!(check(SQL, &Fake::default()).await, vec![]);
    assert_eq!(check(SQL, &found(page_views_table())).await, vec![]);
}

#[tokio::test]
async fn a_missing_topic_is_named_with_the_nearest_and_how_to_create_it() {
    let fake = Fake {
        topics: Ok(KafkaTopics {
            wanted: "click_topic".to_owned(),
            topics: vec!["clicks_topic".to_owned(), "orders".to_owned()],
        }),
        ..Fake::default()
    };
    let problems = check(SQL, &fake).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].message, "there is no topic click_topic");
    let hint = problems[0].hint.as_deref().unwrap_or_default();
    assert!(
        hint.starts_with("did you mean clicks_topic?\nor create it: kafka-topics"),
        "{hint}"
    );
    let line = SQL
        .lines()
        .nth(problems[0].line as usize - 1)
        .unwrap_or_default();
    assert!(line.contains("topic ="), "{line}");
}

#[tokio::test]
async fn a_missing_table_shows_how_to_create_it() {
    let fake = Fake {
        table: Ok(PostgresTable::Missing {
            tables: vec!["user_activities".to_owned()],
            obstacle: None,
        }),
        ..Fake::default()
    };
    let problems = check(ACTIVITY, &fake).await;
    assert_eq!(problems.len(), 2, "{problems:?}");
    let hint = problems[0].hint.as_deref().unwrap_or_default();
    assert_eq!(problems[0].message, "there is no table user_activity");
    assert!(
        hint.starts_with("did you mean user_activities?\nadd create = 'if_missing'"),
        "{hint}"
    );
    assert!(
        hint.contains("CREATE TABLE user_activity (\n  event_id TEXT NOT NULL,"),
        "{hint}"
    );
    assert!(hint.contains("price NUMERIC(10,2) NOT NULL"), "{hint}");
    assert!(hint.contains("PRIMARY KEY (event_id)"), "{hint}");
    assert_eq!(
        problems[1].message,
        "there is no table user_activity_errors"
    );
}

#[tokio::test]
async fn a_column_the_table_lacks_is_named_with_the_nearest_free_one() {
    let mut shape = page_views_table();
    shape.columns[3] = column("view_count", "bigint", true);
    shape.columns.push(column("viewz", "bigint", true));
    let problems = check(SQL, &found(shape)).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(
        problems[0].message,
        "table fact_page_views has no column views"
    );
    let hint = problems[0].hint.as_deref().unwrap_or_default();
    assert!(hint.contains("write AS viewz in the view"), "{hint}");
}

#[tokio::test]
async fn a_type_that_would_lose_something_is_refused() {
    let mut shape = page_views_table();
    shape.columns[3] = column("views", "integer", false);
    let problems = check(SQL, &found(shape)).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(
        problems[0].message,
        "column views is BIGINT, which does not fit integer of table fact_page_views without loss"
    );
}

#[tokio::test]
async fn a_not_null_column_without_rows_is_refused_unless_the_table_fills_it() {
    let mut shape = page_views_table();
    shape.columns.push(column("loaded_by", "text", false));
    let problems = check(SQL, &found(shape.clone())).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].message.contains("loaded_by"),
        "{}",
        problems[0].message
    );
    shape.columns[4].filled = true;
    assert_eq!(check(SQL, &found(shape)).await, vec![]);
}

#[tokio::test]
async fn rows_that_may_be_null_do_not_go_into_a_not_null_column() {
    let sql = SQL
        .replace("url TEXT NOT NULL", "url TEXT")
        .replace("'window_start,url'", "'window_start'")
        .replace("window_end, url, count", "window_end, count")
        .replace("window_end, url;", "window_end;")
        .replace("count(*) AS views", "max(url) AS url, count(*) AS views");
    let mut shape = page_views_table();
    shape.unique_indexes = vec![vec!["window_start".to_owned()]];
    let problems = check(&sql, &found(shape)).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(
        problems[0].message,
        "column url may be NULL, but not in table fact_page_views"
    );
}

#[tokio::test]
async fn a_missing_unique_index_shows_the_statement() {
    let mut shape = page_views_table();
    shape.unique_indexes = vec![vec!["url".to_owned()]];
    let problems = check(SQL, &found(shape)).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(
        problems[0].hint.as_deref(),
        Some("CREATE UNIQUE INDEX ON fact_page_views (window_start, url);")
    );
    assert_ne!(problems[0].place(), Place::default());
}

#[tokio::test]
async fn hosts_that_do_not_answer_and_logins_that_fail_are_told_apart() {
    let fake = Fake {
        topics: Err(ProbeError {
            kind: Kind::External,
            what: "list topics of localhost:9092".to_owned(),
            cause: "connection refused".to_owned(),
            is_advised: false,
        }),
        table: Err(ProbeError {
            kind: Kind::User,
            what: "log in to localhost:5432 as me".to_owned(),
            cause: "password authentication failed".to_owned(),
            is_advised: false,
        }),
        ..Fake::default()
    };
    let problems = check(SQL, &fake).await;
    let advised = Fake {
        topics: fake.topics.clone().map_err(|error| ProbeError {
            is_advised: true,
            ..error
        }),
        ..Fake::default()
    };
    assert_eq!(check(SQL, &advised).await[0].hint, None, "not told twice");
    let shown: Vec<(&str, &str)> = problems
        .iter()
        .map(|problem| {
            (
                problem.message.as_str(),
                problem.hint.as_deref().unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (
                "list topics of localhost:9092: connection refused",
                "start it, or correct brokers or the variable in it"
            ),
            (
                "log in to localhost:5432 as me: password authentication failed",
                "correct url: the address, the user, the password or the variable in it"
            ),
        ]
    );
}

#[tokio::test]
async fn a_missing_folder_says_how_to_make_it() {
    let fake = Fake {
        folder: Ok(Folder::Missing("data/input".to_owned())),
        ..Fake::default()
    };
    let sql = ACTIVITY
        .replace("on_conflict = 'ignore'", "create = 'if_missing'")
        .replace(
            "table = 'user_activity_errors'",
            "table = 'user_activity_errors', create = 'if_missing'",
        );
    let problems = check(&sql, &fake).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(
        problems[0].hint.as_deref(),
        Some("create it: mkdir -p data/input")
    );
}

#[tokio::test]
async fn a_table_that_cannot_be_created_says_what_it_lacks() {
    let missing = |obstacle| Fake {
        table: Ok(PostgresTable::Missing {
            tables: Vec::new(),
            obstacle: Some(obstacle),
        }),
        ..Fake::default()
    };
    let problems = check(SQL, &missing(Obstacle::NoSchema("App".to_owned()))).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].message, "there is no schema App");
    assert_eq!(
        problems[0].hint.as_deref(),
        Some("create it: CREATE SCHEMA \"App\";")
    );
    let not_allowed = Obstacle::NotAllowed {
        schema: "public".to_owned(),
        user: "me".to_owned(),
    };
    let problems = check(SQL, &missing(not_allowed.clone())).await;
    assert_eq!(
        problems[0].hint.as_deref(),
        Some("allow it: GRANT CREATE ON SCHEMA public TO me;")
    );
    let given = SQL.replacen("create = 'if_missing'", "create = 'never'", 1);
    let problems = check(&given, &missing(not_allowed)).await;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].message, "there is no table fact_page_views");
}

#[tokio::test]
async fn what_a_sink_or_source_needs_once_it_runs_is_asked_for_before() {
    let files = "WITH (connector = 'files', path = 'out', format = 'csv', emit = 'final');";
    let clicks = SQL.replace("format = 'json'", "format = 'json', group_id = '${NOPE}'");
    let sql = format!(
        "{clicks}CREATE SINK files FROM page_views {files}\n\
         CREATE SINK topic FROM page_views WITH (connector = 'kafka', brokers = 'b', \
         topic = 'clicks_topic', progress_topic = '${{NOPE}}', emit = 'final');"
    );
    assert_eq!(check(&sql, &Fake::default()).await, vec![]);
    let fake = Fake {
        output: OutputFolder::Blocked("out".to_owned()),
        unset: vec!["group_id", "progress_topic"],
        ..Fake::default()
    };
    let problems = check(&sql, &fake).await;
    let shown: Vec<&str> = problems.iter().map(|each| each.message.as_str()).collect();
    assert_eq!(
        shown,
        [
            "read option group_id: environment variable NOPE is not set",
            "out is no folder",
            "read option progress_topic: environment variable NOPE is not set",
        ]
    );
    for (problem, option) in problems.iter().zip(["group_id", "path", "progress_topic"]) {
        let line = sql
            .lines()
            .nth(problem.line as usize - 1)
            .unwrap_or_default();
        let before: String = line.chars().take(problem.column as usize - 1).collect();
        assert!(before.ends_with(&format!("{option} = ")), "{before}");
    }
}

#[tokio::test]
async fn the_topic_of_a_sink_has_to_be_there_too() {
    let sql = format!(
        "{SQL}CREATE SINK out FROM page_views WITH (connector = 'kafka', brokers = 'b', topic = 'clicks_topik');"
    );
    let fake = Fake {
        topics: Ok(KafkaTopics {
            wanted: "clicks_topik".to_owned(),
            topics: vec!["clicks_topic".to_owned()],
        }),
        ..Fake::default()
    };
    let problems = check(&sql, &fake).await;
    let missing = problems.last().expect("a problem");
    assert_eq!(missing.message, "there is no topic clicks_topik");
    let hint = missing.hint.as_deref().unwrap_or_default();
    assert!(hint.contains("did you mean clicks_topic?"), "{hint}");
}

#[tokio::test]
async fn what_sound_statements_name_is_asked_for_where_others_are_wrong() {
    let sql = SQL
        .replace("count(*) AS views", "count(*) AS views, urll")
        .replace("checkpoint_interval", "checkpoint_intervall");
    assert_ne!(sql, SQL);
    let fake = Fake {
        topics: Ok(KafkaTopics {
            wanted: "clicks_topic".to_owned(),
            topics: Vec::new(),
        }),
        table: Err(ProbeError {
            kind: Kind::External,
            what: "connect to postgres at db:5432".to_owned(),
            cause: "connection refused".to_owned(),
            is_advised: false,
        }),
        ..Fake::default()
    };
    let checked = check_job(draft_job(&sql, &Named), &fake).await;
    let problems = checked.expect_err("problems of the text and outside");
    let found = |text: &str| problems.iter().any(|problem| problem.message == text);
    for text in [
        "there is no topic clicks_topic",
        "connect to postgres at db:5432: connection refused",
        "unknown column urll",
        "sink page_views_postgres is skipped: it reads page_views, which has errors",
    ] {
        assert!(found(text), "{text} in {problems:#?}");
    }
    let places: Vec<Place> = problems.iter().map(Problem::place).collect();
    assert!(places.is_sorted(), "{problems:#?}");
}
