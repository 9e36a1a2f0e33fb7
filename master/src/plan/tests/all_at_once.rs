//! One look finds all that is wrong. The expected places stand in the SQL between « and », in order.

use super::refusals::{CLICKS, SINK, marked};
use super::*;

/// Expects these problems and no others, each at its mark.
#[track_caller]
fn all_refused(text: &str, messages: &[&str]) {
    let mut sql = text.to_owned();
    let mut places = Vec::new();
    while sql.contains('«') {
        let (unmarked, place) = marked(&sql);
        places.push(place);
        sql = unmarked;
    }
    let problems = problems_of(&sql);
    let shown = render(&problems, "job.sql", &sql);
    let found: Vec<(&str, Place)> = problems
        .iter()
        .map(|problem| (problem.message.as_str(), problem.place()))
        .collect();
    let expected: Vec<(&str, Place)> = messages.iter().copied().zip(places).collect();
    assert_eq!(found, expected, "{shown}");
}

/// A view over `clicks` with a sink, which is skipped.
#[track_caller]
fn view_refused(query: &str, messages: &[&str]) {
    let sink = SINK.replace(" v ", " «v» ");
    let mut messages = messages.to_vec();
    messages.push("sink s is skipped: it reads v, which has errors");
    all_refused(
        &format!("{CLICKS}CREATE VIEW v AS {query};{sink}"),
        &messages,
    );
}

#[test]
fn every_unknown_name_of_a_select_is_found() {
    view_refused(
        "SELECT «idd», upper(«urll») AS url, «upperr»(id) AS id FROM clicks \
         WHERE «pric» > 1 AND id LIKE 'a%' OR «tss» IS NULL",
        &[
            "unknown column idd",
            "unknown column urll",
            "unknown function upperr",
            "unknown column pric",
            "unknown column tss",
        ],
    );
}

#[test]
fn every_query_and_every_clause_is_searched() {
    view_refused(
        "WITH all_of AS (SELECT id, price AS p FROM clicks), \
         cheap AS (SELECT id, p + «q» AS p FROM all_of) SELECT id FROM cheap",
        &["unknown column q"],
    );
    view_refused(
        "SELECT id AS i, sum(«prize») AS n, count(*) AS m FROM clicks \
         GROUP BY i, «idx» HAVING m > 1 AND max(«mx») > 2 \
         UNION ALL SELECT d.id, 1 AS n, «d.a» FROM (SELECT id, price FROM clicks) AS d WHERE «upperr»(d.id) = 'A' \
         UNION ALL SELECT x FROM «click»",
        &[
            "unknown column prize",
            "unknown column idx",
            "unknown column mx",
            "unknown column a",
            "unknown function upperr",
            "unknown relation click",
        ],
    );
    view_refused(
        "SELECT DISTINCT ON (id, «u») id FROM clicks",
        &["unknown column u"],
    );
}

#[test]
fn what_is_wrong_only_in_its_clause_is_found_for_each_clause() {
    view_refused(
        "SELECT «price», id, «ts», count(*) AS n FROM clicks WHERE «id || 'x'» GROUP BY id",
        &[
            "price is neither in GROUP BY nor inside an aggregate",
            "ts is neither in GROUP BY nor inside an aggregate",
            "a condition is BOOLEAN, and this is TEXT",
        ],
    );
}

#[test]
fn unknown_names_are_found_beside_what_is_refused() {
    view_refused(
        "SELECT «idd», «now»() AS t FROM clicks WHERE «pric» > 1 ORDER BY «idd»",
        &[
            "unknown column idd",
            "now() is not possible here: it differs from call to call",
            "unknown column pric",
            "ORDER BY is not possible in a view: a stream has no last row to sort",
        ],
    );
}

#[test]
fn every_unknown_name_of_a_source_is_found_and_a_broken_column_is_not_unknown() {
    all_refused(
        "CREATE SOURCE plain (id TEXT, n «TXT» CHECK (n > 'a'), \
         u TEXT AS upper(n || «idd») || «idx», CHECK (u <> 'a' AND id > «b» OR «c» > id)) \
         WITH (connector = 'kafka', brokers = 'b', topic = 't');\n\
         CREATE SINK s FROM «plain» WITH (connector = 'blackhole');",
        &[
            "unknown type TXT",
            "unknown column idd",
            "unknown column idx",
            "unknown column b",
            "unknown column c",
            "sink s is skipped: it reads plain, which has errors",
        ],
    );
}

#[test]
fn a_misspelt_option_is_one_problem() {
    all_refused(
        "CREATE SOURCE a (id TEXT) WITH (connector = 'kafka', brokers = 'b', «topik» = 't');\n\
         CREATE SOURCE b (id TEXT) WITH («conector» = 'kafka', brokers = 'b', topic = 't');\n\
         CREATE SINK s FROM a WITH (connector = 'postgres', «urll» = 'postgres://h/d', table = 't');",
        &[
            "source a has no option topik",
            "source b has no option conector",
            "sink s has no option urll",
        ],
    );
}

#[test]
fn a_statement_that_cannot_be_read_does_not_take_the_next_along() {
    all_refused(
        "CREATE SINK s FROM «;»\nSET «checkpoint_intervall» = '1 second';\nCREATE SINK t FROM «missing» \
         WITH (connector = 'blackhole');",
        &[
            "expected identifier, found ;",
            "SET has no option checkpoint_intervall",
            "unknown relation missing",
        ],
    );
}

#[test]
fn dead_letters_of_what_is_broken_are_not_unknown() {
    all_refused(
        "CREATE SOURCE a (id «TXT») WITH (connector = 'kafka', brokers = 'b', topic = 't');\n\
         CREATE VIEW v AS SELECT FROM«;»\n\
         CREATE SINK s FROM «a.dead_letters» WITH (connector = 'blackhole');\n\
         CREATE SINK t FROM «v.dead_letters» WITH (connector = 'blackhole');",
        &[
            "unknown type TXT",
            "expected identifier, found ;",
            "sink s is skipped: it reads a.dead_letters, and a has errors",
            "sink t is skipped: it reads v.dead_letters, and v has errors",
        ],
    );
}
