//! What is refused in the options, columns and checks of a source. The expected place stands in the SQL between « and ».

use super::refusals::{CLICKS, COUNTS, marked, refused};
use super::*;

/// A source with these options, and a sink.
fn source(options: &str) -> String {
    format!(
        "CREATE SOURCE clicks (id TEXT) WITH ({options});\nCREATE SINK s FROM clicks WITH (connector = 'blackhole');"
    )
}

#[test]
fn options_of_kafka_are_checked_at_their_place() {
    let kafka = |more: &str| {
        source(&format!(
            "connector = 'kafka', brokers = 'b', topic = 't', {more}"
        ))
    };
    refused(
        &kafka("«topik» = 'x'"),
        "source clicks has no option topik",
        "did you mean topic?",
    );
    refused(
        &kafka("start = «'earlyest'»"),
        "option start: \"earlyest\" is neither 'earliest', 'latest' nor a time as '2026-01-17T10:15:00Z'",
        "",
    );
    refused(
        &kafka("idle_timeout = «'5'»"),
        "option idle_timeout: \"5\" lacks its unit: write '5 seconds' or '5 ms'",
        "",
    );
    refused(
        &kafka("format = «'jsn'»"),
        "option format cannot be \"jsn\"",
        "did you mean 'json'?",
    );
    refused(
        &kafka("«'kafka.securty.protocol'» = 'ssl'"),
        "kafka property securty.protocol cannot be set",
        "\"kafka.security.protocol\"",
    );
    refused(
        &kafka("«\"kafka.securty.protocol\"» = 'ssl'"),
        "kafka property securty.protocol cannot be set",
        "\"kafka.security.protocol\"",
    );
    #[cfg(not(feature = "kafka-tls"))]
    refused(
        &kafka("\"kafka.security.protocol\" = «'SASL_SSL'»"),
        "this millstream was built without TLS to Kafka, which security.protocol = 'SASL_SSL' needs",
        "--features millstream-cli/kafka-tls",
    );
    refused(
        &kafka("«kafka».client.id = 'x'"),
        "an option whose name has a point needs quotes",
        "quote it",
    );
    refused(
        &kafka("discovery_interval = «'${NOPE}'»"),
        "option discovery_interval: environment variable NOPE is not set: set it, or write ${NOPE:-default}",
        "",
    );
}

#[test]
fn options_of_any_source_are_checked_at_their_place() {
    refused(
        &source("connector = «'kafke'»"),
        "unknown connector 'kafke'",
        "did you mean 'kafka'?",
    );
    refused(
        &source("connector = 'files', path = 'p', format = 'csv', max_files_per_epoch = «0»"),
        "option max_files_per_epoch: \"0\" is no whole number of at least 1",
        "",
    );
    refused(
        &source("connector = 'datagen', «\"fields.idd.kind\"» = 'choice'"),
        "unknown column idd",
        "did you mean id?",
    );
    refused(
        &source("connector = 'datagen', \"fields.id.kind\" = «'uniform'»"),
        "kind 'uniform' does not make TEXT for column id",
        "choice",
    );
    let missing = problems_of("CREATE SOURCE clicks (id TEXT) WITH (connector = 'kafka');");
    let messages: Vec<&str> = missing
        .iter()
        .map(|problem| problem.message.as_str())
        .collect();
    assert_eq!(
        messages,
        [
            "source clicks lacks the option brokers",
            "source clicks lacks the option topic"
        ]
    );
}

#[test]
fn literal_secrets_are_refused_with_the_line_to_write_and_never_printed() {
    let (sql, _) = marked(&format!(
        "{CLICKS}{COUNTS}CREATE SINK s FROM v WITH (connector = 'postgres', url = «'postgres://me:hunter2@db/x'», table = 't');"
    ));
    let problems = problems_of(&sql);
    assert_eq!(problems[0].message, "the url holds a literal password");
    assert_eq!(
        problems[0].hint.as_deref(),
        Some("write url = 'postgres://me:${POSTGRES_PASSWORD}@db/x' and set that variable")
    );
    let shown = render(&problems, "job.sql", &sql);
    assert!(!shown.contains("hunter2"), "{shown}");
    refused(
        "CREATE SOURCE c (id TEXT) WITH (connector = 'kafka', brokers = 'b', topic = 't', \"kafka.sasl.password\" = «'hunter2'»);\nCREATE SINK s FROM c WITH (connector = 'blackhole');",
        "sasl.password is a literal secret",
        "write \"kafka.sasl.password\" = '${KAFKA_SASL_PASSWORD}'",
    );
}

#[test]
fn types_and_checks_of_a_source_are_checked() {
    let source = |columns: &str| {
        format!(
            "CREATE SOURCE c ({columns}) WITH (connector = 'kafka', brokers = 'b', topic = 't');\nCREATE SINK s FROM c WITH (connector = 'blackhole');"
        )
    };
    refused(
        &source("id TEXT, n «BIGNIT»"),
        "unknown type BIGNIT",
        "did you mean BIGINT?",
    );
    refused(
        &source("id TEXT, CHECK («idd» <> '')"),
        "unknown column idd",
        "did you mean id?",
    );
    refused(
        &source("id TEXT CHECK («length(id»))"),
        "a check is true or false, not INTEGER",
        "",
    );
    refused(
        &source("id TEXT, INCLUDE «key2» AS k"),
        "unknown metadata key2",
        "did you mean key?",
    );
    refused(
        &source("id TEXT, INCLUDE «file» AS f"),
        "connector 'kafka' has no file",
        "it has key",
    );
    refused(
        &source("id TEXT «PRIMARY» KEY"),
        "a source enforces NOT NULL and CHECK only",
        "DISTINCT ON",
    );
    refused(
        &source("id TEXT, at TIMESTAMP AS «now»()"),
        "now() is not possible here: it differs from call to call",
        "",
    );
}

#[test]
fn a_column_of_a_benchmark_table_is_one_that_it_has_with_its_type() {
    let source = |column: &str, table: &str| {
        format!(
            "CREATE SOURCE d ({column}) WITH (connector = 'datagen', rows = 10, \"nexmark.table.type\" = {table});\nCREATE SINK s FROM d WITH (connector = 'blackhole');"
        )
    };
    refused(
        &source("price BIGINT", "«'bids'»"),
        "option nexmark.table.type cannot be \"bids\"",
        "did you mean 'bid'?",
    );
    refused(
        &source("prise BIGINT", "«'bid'»"),
        "the table has no column prise",
        "did you mean price?",
    );
    refused(
        &source("price INTEGER", "«'bid'»"),
        "column price is INTEGER, and BIGINT in the benchmark",
        "declare it BIGINT",
    );
}

#[test]
fn what_is_made_up_has_to_fit_its_column() {
    let source = |column: &str, options: &str| {
        format!(
            "CREATE SOURCE d ({column}) WITH (connector = 'datagen', rows = 40000, {options});\nCREATE SINK s FROM d WITH (connector = 'blackhole');"
        )
    };
    refused(
        &source("t TEXT", "\"fields.t.template\" = «'x{nn}'»"),
        "column t is TEXT: template \"x{nn}\" has {nn}: write {n}, {n:05}, {uniform:1:6} or {hex:8}",
        "",
    );
    refused(
        &source("n BIGINT", "\"fields.n.values\" = «'1, one'»"),
        "column n is BIGINT: \"one\" does not fit",
        "",
    );
    refused(
        &source(
            "n INTEGER",
            "\"fields.n.min\" = 1, \"fields.n.max\" = «1e12»",
        ),
        "column n is INTEGER: 1000000000000 does not fit",
        "",
    );
    refused(
        &source(
            "n INTEGER",
            "\"fields.n.min\" = «1.2», \"fields.n.max\" = 1.8",
        ),
        "column n is INTEGER: there is no whole number between 1.2 and 1.8",
        "",
    );
    refused(
        &source("n SMALLINT", "\"fields.n.start\" = 1").replace(" d (", " «d» ("),
        "column n is SMALLINT: 40000, the last of all rows, does not fit",
        "add \"fields.n.step\" = ...",
    );
}
