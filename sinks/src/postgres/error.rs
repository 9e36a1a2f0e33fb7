//! What Postgres answers, sorted by who has to act.
//!
//! Used by everything in this folder. Only SQLSTATE classes 22 (data) and 23 (constraints) are a row's fault;
//! lost connections, restarts, locks and full disks pass by themselves; the rest (missing table,
//! permission, type) waits for a person.

use tokio_postgres::Error;
use tokio_postgres::error::DbError;

use crate::sink::SinkError;

/// Sorts `error`; `what` says what was being done, with the address but no secret.
pub(super) fn classify(what: &str, error: &Error) -> SinkError {
    let Some(answer) = error.as_db_error() else {
        let cause = millstream_common::error::chain(error);
        return match cause.contains("password missing") {
            true => SinkError::refused(what, format!("{cause}: write it into the url")),
            false => SinkError::unavailable(what, cause),
        };
    };
    let cause = describe(answer);
    if passes_by_itself(answer.code().code()) {
        SinkError::unavailable(what, cause)
    } else {
        SinkError::refused(what, cause)
    }
}

/// Whether a try later may work without anybody's help.
fn passes_by_itself(code: &str) -> bool {
    /// Connection, transaction rollback (deadlock), resources, not in the right state (locks), operator
    /// intervention (restart), system (I/O), server defect.
    const CLASSES: [&str; 7] = ["08", "40", "53", "55", "57", "58", "XX"];
    /// In a standby or during a failover; idle in transaction for too long; a statement that was prepared is gone with its session, of which
    /// a pooler has made another.
    const CODES: [&str; 3] = ["25006", "25P03", "26000"];
    CODES.contains(&code) || CLASSES.iter().any(|class| code.starts_with(class))
}

/// Why a row was refused, if it is a row's fault.
pub(super) fn row_refusal(error: &Error) -> Option<String> {
    let answer = error.as_db_error()?;
    let code = answer.code().code();
    (code.starts_with("22") || code.starts_with("23")).then(|| describe(answer))
}

/// The message, with the column and constraint it is about.
fn describe(answer: &DbError) -> String {
    let mut text = answer.message().to_owned();
    let named = [
        ("column", answer.column()),
        ("constraint", answer.constraint()),
    ];
    for (kind, name) in named {
        if let Some(name) = name.filter(|name| !text.contains(*name)) {
            text.push_str(&format!(" ({kind} {name})"));
        }
    }
    if let Some(detail) = answer.detail() {
        text.push_str(": ");
        text.push_str(detail);
    } else if let Some(column) = copied_column(answer.where_())
        && !text.contains(column)
    {
        text.push_str(&format!(" (column {column})"));
    }
    if let Some(hint) = answer.hint() {
        text.push_str(&format!(" ({hint})"));
    }
    let code = answer.code().code();
    if let Some(step) = next_step(code) {
        text.push_str(&format!(": {step}"));
    }
    format!("{text} [{code}]")
}

/// What a person can do where the answer does not say it.
fn next_step(code: &str) -> Option<&'static str> {
    match code {
        "28P01" => Some("check the user and the password in the url"),
        "3D000" => Some("create it with createdb"),
        _ => None,
    }
}

/// The column that COPY was reading: `COPY t, line 3, column url: "..."`.
fn copied_column(context: Option<&str>) -> Option<&str> {
    let (_, rest) = context?.split_once(", column ")?;
    let end = rest.find([':', '\n']).unwrap_or(rest.len());
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_locks_and_lost_connections_pass_but_missing_tables_do_not() {
        for code in [
            "08006", "40P01", "53300", "55P03", "57P01", "25006", "XX000",
        ] {
            assert!(passes_by_itself(code), "{code}");
        }
        for code in ["42P01", "28P01", "42501", "3D000", "22001", "25001"] {
            assert!(!passes_by_itself(code), "{code}");
        }
    }

    #[test]
    fn the_column_of_a_failed_copy_is_found_in_its_context() {
        let context = Some("COPY clicks, line 3, column url: \"abc\"");
        assert_eq!(copied_column(context), Some("url"));
        assert_eq!(
            copied_column(Some("COPY clicks, line 3, column url")),
            Some("url")
        );
        assert_eq!(copied_column(Some("SQL function f")), None);
        assert_eq!(copied_column(None), None);
    }
}
