//! What is refused, where, and with which hint. The expected place stands in the SQL between « and ».

use super::*;

pub(super) const CLICKS: &str = "CREATE SOURCE clicks (id TEXT NOT NULL, \"Url\" TEXT NOT NULL, price BIGINT, \
ts TIMESTAMP NOT NULL,\nWATERMARK FOR ts AS ts - INTERVAL '1 minute') \
WITH (connector = 'kafka', brokers = 'b', topic = 't');\n";
const PLAIN: &str = "CREATE SOURCE plain (id TEXT NOT NULL, ts TIMESTAMP NOT NULL) \
WITH (connector = 'kafka', brokers = 'b', topic = 't');\n";
pub(super) const COUNTS: &str = "CREATE VIEW v AS SELECT window_start, window_end, id, count(*) AS n \
FROM TUMBLE(clicks, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, id;\n";
const TOTALS: &str = "CREATE VIEW v AS SELECT id, count(*) AS n FROM clicks GROUP BY id;\n";
pub(super) const SINK: &str = "\nCREATE SINK s FROM v WITH (connector = 'blackhole');";

/// The text without its marks, and the place between them.
pub(super) fn marked(text: &str) -> (String, Place) {
    let (before, rest) = text.split_once('«').expect("a mark");
    let (inside, after) = rest.split_once('»').expect("an end of the mark");
    let last_line = before.rsplit('\n').next().unwrap_or(before);
    let place = Place {
        line: before.matches('\n').count() as u64 + 1,
        column: last_line.chars().count() as u64 + 1,
        length: inside.chars().count() as u64,
    };
    (format!("{before}{inside}{after}"), place)
}

/// Expects exactly one problem.
#[track_caller]
pub(super) fn refused(text: &str, message: &str, hint: &str) {
    let (sql, place) = marked(text);
    let mut problems = problems_of(&sql);
    problems.retain(|problem| !problem.message.contains(" is skipped: "));
    let shown = render(&problems, "job.sql", &sql);
    assert_eq!(problems.len(), 1, "{shown}");
    assert_eq!(problems[0].message, message, "{shown}");
    assert_eq!(problems[0].place(), place, "{shown}");
    let found = problems[0].hint.as_deref().unwrap_or_default();
    assert!(found.contains(hint), "{shown}");
}

/// A view over `clicks` with a sink.
#[track_caller]
fn view_refused(query: &str, message: &str, hint: &str) {
    refused(
        &format!("{CLICKS}CREATE VIEW v AS {query};{SINK}"),
        message,
        hint,
    );
}

#[test]
fn unknown_names_in_a_view_are_met_with_the_nearest() {
    view_refused(
        "SELECT «idd» FROM clicks",
        "unknown column idd",
        "did you mean id?",
    );
    view_refused(
        "SELECT id FROM clicks WHERE «pric» > 1",
        "unknown column pric",
        "mean price?",
    );
    view_refused(
        "SELECT «url» FROM clicks",
        "unknown column url",
        "quote it: \"Url\"",
    );
    view_refused(
        "SELECT id FROM «click»",
        "unknown relation click",
        "did you mean clicks?",
    );
    view_refused(
        "SELECT «upperr»(id) FROM clicks",
        "unknown function upperr",
        "did you mean upper?",
    );
}

#[test]
fn errors_of_the_planner_speak_of_the_query() {
    view_refused(
        "SELECT «c2.id» FROM clicks AS c1",
        "unknown column c2.id",
        "did you mean c1.id?",
    );
    view_refused(
        "SELECT id, «price» FROM clicks GROUP BY id",
        "price is neither in GROUP BY nor inside an aggregate",
        "add it to GROUP BY, or write max(price)",
    );
    view_refused(
        "SELECT CAST(id AS «BIGNIT») AS n FROM clicks",
        "unknown type BIGNIT",
        "did you mean BIGINT?",
    );
    refused(
        &format!("{CLICKS}CREATE VIEW «v» AS SELECT id, id FROM clicks;{SINK}"),
        "column id stands twice",
        "another name with AS",
    );
    refused(
        &format!("{CLICKS}CREATE VIEW v AS SELECT id FROM clicks WHERE «price»;{SINK}"),
        "a condition is BOOLEAN, and this is BIGINT",
        "compare it",
    );
    view_refused(
        "SELECT «price + id» AS n FROM clicks",
        "BIGINT + TEXT cannot be computed",
        "CAST(x AS BIGINT)",
    );
}

#[test]
fn what_a_stream_cannot_do_is_refused_by_name() {
    let no_order = "ORDER BY is not possible in a view: a stream has no last row to sort";
    view_refused(
        "SELECT id FROM clicks ORDER BY «id»",
        no_order,
        "leave it out",
    );
    view_refused(
        "SELECT DISTINCT ON (id) * FROM clicks ORDER BY «id, ts»",
        no_order,
        "leave it out",
    );
    view_refused(
        "SELECT id FROM clicks LIMIT «10»",
        "LIMIT is not possible in a view: a stream has no first rows",
        "limit where the sink is read",
    );
    view_refused(
        "SELECT id, «now»() AS at FROM clicks",
        "now() is not possible here: it differs from call to call",
        "INCLUDE timestamp",
    );
    view_refused(
        "SELECT id, «current_date» AS day FROM clicks",
        "current_date() is not possible here: it differs from call to call",
        "event time",
    );
    view_refused(
        "SELECT id, «random»() AS dice FROM clicks",
        "random() is not possible here: it differs from call to call",
        "must be the same",
    );
}

#[test]
fn what_is_not_supported_yet_is_refused_by_name() {
    view_refused(
        "SELECT a.id FROM clicks a JOIN «clicks b» ON a.id = b.id",
        "joins are not supported yet",
        "UNION ALL",
    );
    view_refused(
        "SELECT id FROM «HOP»(clicks, ts, INTERVAL '1 minute', INTERVAL '5 minutes')",
        "HOP windows are not supported yet",
        "TUMBLE",
    );
    view_refused(
        "SELECT id FROM «SESSION»(clicks, ts, INTERVAL '1 minute')",
        "SESSION windows are not supported yet",
        "TUMBLE",
    );
    view_refused(
        "SELECT id FROM clicks WHERE «id IN (SELECT id FROM clicks»)",
        "a query inside an expression is not supported yet",
        "make it a view",
    );
    view_refused(
        "SELECT id FROM clicks EXCEPT «SELECT id FROM clicks»",
        "EXCEPT is not supported yet",
        "only UNION ALL",
    );
    view_refused(
        "SELECT id FROM clicks UNION «SELECT id FROM clicks»",
        "UNION is not supported yet",
        "write UNION ALL",
    );
    view_refused(
        "SELECT id, «array_agg»(price) AS prices FROM clicks GROUP BY id",
        "the aggregate array_agg is not supported yet",
        "count",
    );
}

#[test]
fn a_window_needs_event_time_and_a_fixed_size() {
    refused(
        &format!(
            "{PLAIN}CREATE VIEW v AS SELECT window_start, count(*) AS n FROM TUMBLE(plain, «ts», INTERVAL '1 minute') GROUP BY window_start;{SINK}"
        ),
        "ts is no event time, so its windows could never close",
        "add to CREATE SOURCE plain: WATERMARK FOR ts AS ts - INTERVAL '5 minutes'",
    );
    view_refused(
        "SELECT window_start FROM TUMBLE((«clicks»), ts, INTERVAL '1 minute')",
        "(clicks) is no relation",
        "write TUMBLE(relation, time, INTERVAL '1 minute')",
    );
    view_refused(
        "SELECT window_start FROM «TUMBLE»(clicks, ts)",
        "TUMBLE takes a relation, its event time and the size of the window",
        "write TUMBLE(relation, time, INTERVAL '1 minute')",
    );
    view_refused(
        "SELECT window_start FROM TUMBLE(clicks, «id», INTERVAL '1 minute')",
        "the time of a window is a TIMESTAMP, but id is TEXT",
        "",
    );
}

#[test]
fn months_and_other_columns_are_no_window() {
    let months = "months differ in length, so they are no window";
    let (sql, place) = marked(&format!(
        "{CLICKS}CREATE VIEW v AS SELECT window_start FROM TUMBLE(clicks, ts, «INTERVAL '1 month'»);{SINK}"
    ));
    let problems = problems_of(&sql);
    assert_eq!(problems[0].message, months);
    assert_eq!(
        (problems[0].line, problems[0].hint.is_some()),
        (place.line, true)
    );
    refused(
        &format!(
            "{CLICKS}CREATE VIEW w AS SELECT id, ts + INTERVAL '1 hour' AS later FROM clicks;\nCREATE VIEW v AS SELECT window_start FROM TUMBLE(w, «later», INTERVAL '1 minute');{SINK}"
        ),
        "later is no event time, so its windows could never close",
        "event time is the watermark column of the source, unchanged: here ts",
    );
}

#[test]
fn distinct_on_an_endless_stream_needs_a_watermark() {
    refused(
        &format!("{PLAIN}CREATE VIEW v AS SELECT DISTINCT ON («id») * FROM plain;{SINK}"),
        "DISTINCT on a stream that never ends needs a watermark, or it would remember every key for ever",
        "add to CREATE SOURCE plain: WATERMARK FOR ts AS ts - INTERVAL '5 minutes'",
    );
}

#[test]
fn state_over_rows_that_are_taken_back_is_refused() {
    refused(
        &format!(
            "{CLICKS}{TOTALS}CREATE VIEW w AS SELECT n, count(*) AS m FROM v GROUP BY «n»;\nCREATE SINK s FROM w WITH (connector = 'console', emit = 'changes');"
        ),
        "an aggregate over a GROUP BY without a window is not supported yet",
        "give the inner GROUP BY a window",
    );
}

#[test]
fn columns_that_stand_twice_are_refused() {
    refused(
        "CREATE SOURCE clicks (id TEXT, «ID» BIGINT) WITH (connector = 'kafka', brokers = 'b', topic = 't');\nCREATE SINK s FROM clicks WITH (connector = 'blackhole');",
        "column id stands twice",
        "already declared in line 1",
    );
}

#[test]
fn a_watermark_is_its_column_less_a_constant() {
    let source = |watermark: &str| {
        format!(
            "CREATE SOURCE clicks (id TEXT, ts TIMESTAMP NOT NULL, WATERMARK FOR {watermark}) WITH (connector = 'kafka', brokers = 'b', topic = 't');\nCREATE SINK s FROM clicks WITH (connector = 'blackhole');"
        )
    };
    refused(
        &source("ts AS «ts + INTERVAL '1 minute»'").replace("minute»'", "minute'»"),
        "a watermark is its column less a constant interval",
        "write WATERMARK FOR ts AS ts - INTERVAL '5 minutes'",
    );
    refused(
        &source("«id» AS id"),
        "event time is TIMESTAMP or TIMESTAMPTZ, but id is TEXT",
        "ts TIMESTAMP AS to_timestamp(id)",
    );
    refused(
        &source("«tss» AS tss"),
        "unknown column tss",
        "did you mean ts?",
    );
}

#[test]
fn groups_without_a_window_are_only_ever_changes() {
    refused(
        &format!(
            "{CLICKS}{TOTALS}CREATE SINK s FROM v WITH (connector = 'console', emit = «'final'»);"
        ),
        "groups without a window never close, so emit = 'final' would never fire",
        "write emit = 'changes'",
    );
    refused(
        &format!(
            "{CLICKS}{TOTALS}CREATE SINK «s» FROM v WITH (connector = 'postgres', url = '${{U}}', table = 't');"
        ),
        "groups without a window never close, so emit = 'final' would never fire",
        "add primary_key = 'id', emit = 'changes'",
    );
}

#[test]
fn changes_go_where_rows_can_change() {
    refused(
        &format!(
            "{CLICKS}{COUNTS}CREATE SINK s FROM v WITH (connector = 'files', path = 'p', format = 'csv', emit = «'changes'»);"
        ),
        "files cannot take changed rows back",
        "write emit = 'final'",
    );
    refused(
        &format!(
            "{CLICKS}{COUNTS}CREATE SINK s FROM v WITH (connector = 'postgres', url = '${{U}}', table = 't', emit = «'changes every 10 seconds'»);"
        ),
        "changes need a key, to know which row of the table changes",
        "add primary_key = 'window_start,id'",
    );
}

#[test]
fn a_key_exists_is_never_null_and_determines_the_group() {
    let sink = |key: &str| {
        format!(
            "{CLICKS}{COUNTS}CREATE SINK s FROM v WITH (connector = 'postgres', url = '${{U}}', table = 't', primary_key = «'{key}'»);"
        )
    };
    refused(
        &sink("window_start,idd"),
        "unknown column idd",
        "did you mean id?",
    );
    refused(
        &sink("window_start"),
        "primary_key lacks id: several groups would share one key",
        "write primary_key = 'window_start,id'",
    );
    refused(
        &sink("window_start,id,n"),
        "primary_key has a column that is no group column, so it could change",
        "write primary_key = 'window_start,id'",
    );
    refused(
        &format!(
            "{CLICKS}CREATE SINK s FROM clicks WITH (connector = 'postgres', url = '${{U}}', table = 't', primary_key = «'price'»);"
        ),
        "primary_key column price may be NULL",
        "declare it NOT NULL",
    );
}

#[test]
fn one_syntax_error_a_statement_is_reported() {
    let sql = "CREATE SORCE a (id TEXT);\nSET checkpoint_interval '1 s';\nSELECT 1;\nCREATE SOURCE c (id TEXT WITH (connector = 'kafka');\nSET nope = 1;\n";
    let problems = problems_of(sql);
    let shown: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}:{}: {}", problem.line, problem.column, problem.message))
        .collect();
    assert_eq!(
        shown,
        [
            "1:1: unknown statement CREATE SORCE",
            "2:25: expected = after the option's name, found '1 s'",
            "3:1: unknown statement SELECT",
            "4:26: expected , or ) after a column, found WITH",
            "5:5: SET has no option nope",
        ]
    );
}

#[test]
fn text_that_is_no_sql_at_all_is_one_problem() {
    let problems = problems_of("SET a = 'open;\n");
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].line, problems[0].column), (1, 9));
}

#[test]
fn what_reads_something_broken_is_skipped_and_not_reported_again() {
    let problems = problems_of(&format!(
        "{CLICKS}CREATE VIEW a AS SELECT nope FROM clicks;\nCREATE VIEW b AS SELECT * FROM a;\nCREATE SINK s FROM b WITH (connector = 'blackhole');"
    ));
    let messages: Vec<&str> = problems
        .iter()
        .map(|problem| problem.message.as_str())
        .collect();
    assert_eq!(
        messages,
        [
            "unknown column nope",
            "view b is skipped: it reads a, which has errors",
            "sink s is skipped: it reads b, which has errors",
        ]
    );
}

#[test]
fn a_job_without_a_sink_is_refused() {
    let problems = problems_of(CLICKS);
    assert_eq!(
        problems[0].message,
        "the job has no sink, so it does nothing"
    );
}

#[test]
fn a_files_sink_keeps_a_column_for_its_files() {
    refused(
        &format!(
            "{CLICKS}CREATE VIEW v AS SELECT id, price FROM clicks;\n\
             CREATE SINK s FROM v WITH (connector = 'files', path = 'p', format = 'csv', partition_by = «'price, id'»);"
        ),
        "every column names a folder, so nothing is left for the files",
        "leave out those that are rows",
    );
}
