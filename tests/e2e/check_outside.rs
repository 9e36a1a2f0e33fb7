//! What a job names outside and is not there, or does not let it in: `check` and `run` both say what, where in the file, and
//! how to mend it, and start nothing.

use std::collections::BTreeMap;

use futures::future::join_all;
use millstream_tests::process::run_to_end;
use millstream_tests::services::Services;
use tempfile::TempDir;

use crate::clicks::{Clicks, job};

/// Never to be shown.
const SECRET: &str = "not-the-password";

/// A job in an environment that does not fit it.
struct Unfit {
    file: &'static str,
    sql: String,
    environment: BTreeMap<&'static str, String>,
}

impl Unfit {
    /// `jobs/<file>` where everything fits.
    async fn from(file: &'static str, test: &str) -> Self {
        let clicks = Clicks::shared(test).await.expect("services");
        Self {
            file,
            sql: job(file).expect("a job of the project"),
            environment: clicks.environment().into_iter().collect(),
        }
    }

    fn set(mut self, variable: &'static str, value: impl Into<String>) -> Self {
        self.environment.insert(variable, value.into());
        self
    }

    /// Expects that `check` and `run` end with 1 and say all of `parts`.
    async fn told(self, parts: &[&str]) {
        let folder = TempDir::new().expect("folder");
        let file = folder.path().join(self.file).display().to_string();
        std::fs::write(&file, &self.sql).expect("write");
        let storage = folder.path().join("storage").display().to_string();
        let environment = self.environment.iter();
        let environment: Vec<(&str, &str)> = environment
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let verbs = [
            vec!["check", &file],
            vec!["run", &file, "--storage", &storage],
        ];
        let runs = verbs
            .iter()
            .map(|arguments| run_to_end(arguments, &environment));
        for (verb, ended) in verbs.iter().zip(join_all(runs).await) {
            let (code, stdout, stderr) = ended.expect("run millstream");
            let said = format!("{}: {stdout}{stderr}", verb[0]);
            assert_eq!(code, 1, "{said}");
            let place = format!("{}:", self.file);
            for part in parts.iter().chain([&place.as_str(), &"^"]) {
                assert!(said.contains(part), "{part}: {said}");
            }
            assert!(!said.contains(SECRET), "{said}");
            assert!(!said.contains("Ctrl-C stops it"), "{said}");
        }
    }
}

/// The shared Postgres under another user and database.
fn postgres(user_and_password: &str, database: &str) -> String {
    let url = Services::shared().expect("services").postgres;
    let (_, rest) = url.rsplit_once('@').expect("a user in the URL");
    let (host, _) = rest.split_once('/').expect("a database in the URL");
    format!("postgres://{user_and_password}@{host}/{database}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_postgres_refuses_is_told_and_not_shown() {
    let url = postgres(&format!("millstream:{SECRET}"), "millstream");
    let unfit = Unfit::from("page_views.sql", "wrong_password").await;
    let told = ["authentication failed", "the user and the password"];
    unfit.set("POSTGRES_URL", url).told(&told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_told_with_the_way_to_create_it() {
    let whole = Services::shared().expect("services").postgres;
    let (base, _) = whole.rsplit_once('/').expect("a database in the URL");
    let unfit = Unfit::from("page_views.sql", "no_database").await;
    let told = ["\"no_such_database\" does not exist", "createdb"];
    let unfit = unfit.set("POSTGRES_URL", format!("{base}/no_such_database"));
    unfit.told(&told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_there_is_told_with_the_statement_that_creates_it() {
    let folder = TempDir::new().expect("folder");
    let unfit = Unfit::from("user_activity.sql", "no_table").await;
    let unfit = unfit.set("USER_ACTIVITY_FOLDER", folder.path().display().to_string());
    let told = [
        "there is no table user_activity",
        "there is no table user_activity_errors",
        "CREATE TABLE user_activity (",
        "create = 'if_missing'",
    ];
    unfit.told(&told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_not_there_is_told_with_the_command_that_creates_it() {
    let folder = TempDir::new().expect("folder");
    let missing = folder.path().join("input").display().to_string();
    let unfit = Unfit::from("user_activity.sql", "no_folder").await;
    let told = format!("mkdir -p {missing}");
    let unfit = unfit.set("USER_ACTIVITY_FOLDER", missing);
    unfit.told(&["there is no folder", &told]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_is_told_with_the_command_that_creates_it() {
    let unfit = Unfit::from("page_views.sql", "no_topic").await;
    let told = [
        "there is no topic no-such-topic",
        "kafka-topics --create --topic no-such-topic",
    ];
    unfit.set("CLICKS_TOPIC", "no-such-topic").told(&told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_is_told_with_its_address() {
    let unfit = Unfit::from("page_views.sql", "no_broker").await;
    let told = ["127.0.0.1:1", "check the address"];
    unfit.set("KAFKA_BROKERS", "127.0.0.1:1").told(&told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_kafka_does_not_take_is_told_and_the_password_not_shown() {
    let mut unfit = Unfit::from("page_views.sql", "sasl").await;
    let login = "start = 'earliest',\n  \
         \"kafka.security.protocol\" = 'SASL_PLAINTEXT',\n  \
         \"kafka.sasl.mechanism\" = 'PLAIN',\n  \
         \"kafka.sasl.username\" = 'me',\n  \
         \"kafka.sasl.password\" = '${KAFKA_PASSWORD}'";
    let sql = unfit.sql.replace("start = 'earliest'", login);
    assert_ne!(sql, unfit.sql);
    unfit.sql = sql;
    let brokers = unfit.environment["KAFKA_BROKERS"].clone();
    let unfit = unfit.set("KAFKA_PASSWORD", SECRET);
    unfit
        .told(&[&brokers, "SASL", "check \"kafka.sasl.username\""])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_not_there_is_told_although_the_table_would_be_created() {
    let mut unfit = Unfit::from("page_views.sql", "no_schema").await;
    let table = "table = 'fact_page_views'";
    assert!(unfit.sql.contains(table));
    unfit.sql = unfit
        .sql
        .replace(table, "table = 'nowhere.fact_page_views'");
    let told = ["there is no schema nowhere", "CREATE SCHEMA nowhere;"];
    unfit.told(&told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_files_or_kafka_sink_would_miss_once_it_runs_is_told_before() {
    let folder = TempDir::new().expect("folder");
    let file = folder.path().join("views").display().to_string();
    std::fs::write(&file, "x").expect("write");
    let mut unfit = Unfit::from("page_views.sql", "no_output").await;
    let topic = unfit.environment["CLICKS_TOPIC"].clone();
    unfit.sql.push_str(&format!(
        "CREATE SINK blocked FROM page_views WITH (connector = 'files', path = '{file}', format = 'csv', emit = 'final');
         CREATE SINK unset FROM page_views WITH (connector = 'files', path = '${{NO_SUCH_FOLDER}}', format = 'csv', emit = 'final');
         CREATE SINK remote FROM page_views WITH (connector = 'files', path = 's3://bucket/x', format = 'csv', emit = 'final');
         CREATE SINK records FROM page_views WITH (connector = 'kafka', brokers = '${{KAFKA_BROKERS}}',
           topic = '{topic}', progress_topic = '${{NO_SUCH_TOPIC}}', emit = 'final');"
    ));
    let blocked = format!("{file} is no folder");
    let told = [
        blocked.as_str(),
        "NO_SUCH_FOLDER is not set",
        "only folders of the local file system are supported yet",
        "read option progress_topic: environment variable NO_SUCH_TOPIC is not set",
    ];
    unfit.told(&told).await;
}
