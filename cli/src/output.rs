//! What verbs print: answers on stdout, problems on stderr.

use std::io::{self, Write};

use millstream_common::problem::{self, Problem};
use serde::Serialize;

/// Prints `text` on stdout. A closed pipe is an error that `main` takes for the end.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Prints `value` as JSON on stdout.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(print(&text)?)
}

/// Prints all problems of a file on stderr, then how many there are.
pub(crate) fn print_problems(problems: &[Problem], file: &str, sql: &str) {
    let shown = problem::render(problems, file, sql);
    eprintln!("{shown}{file}: {}", problem::count(problems.len()));
}

/// Prints what is allowed but may not be meant, on stderr.
pub(crate) fn print_warnings(warnings: &[Problem], file: &str, sql: &str) {
    for warning in warnings {
        let shown = problem::render(std::slice::from_ref(warning), file, sql);
        eprint!("warning: {shown}");
    }
}
