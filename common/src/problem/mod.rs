//! What is wrong with a job's SQL, where, and what to write instead.
//!
//! Made by every module of the master's `plan`, printed by the command line, carried by the control API. Problems
//! are gathered, never thrown: one run of `check` shows them all. [`render`] hides literal passwords, so
//! that a refused secret is not printed by its own refusal.

mod mask;

use std::fmt::Write;

use serde::Serialize;

use self::mask::mask_passwords;

/// A place in the SQL text. Lines and columns count from 1; all zero is no place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column of the first character.
    pub column: u64,
    /// How many characters; 0 goes to the end of the line.
    pub length: u64,
}

/// One thing that is wrong, or a warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The line, from 1; 0 is no place.
    pub line: u64,
    /// The column, from 1.
    pub column: u64,
    /// How many characters are meant; 0 goes to the end of the line.
    pub length: u64,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to write or do instead.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem at `place`.
    pub fn at(place: Place, message: impl Into<String>) -> Self {
        Self {
            line: place.line,
            column: place.column,
            length: place.length,
            message: message.into(),
            hint: None,
        }
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the nearest of `candidates` to `name` as the hint, where one is near enough.
    #[must_use]
    pub fn nearest<'a>(self, name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match crate::suggest::nearest(name, candidates) {
            Some(nearest) => self.hint(format!("did you mean {nearest}?")),
            None => self,
        }
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        Place {
            line: self.line,
            column: self.column,
            length: self.length,
        }
    }
}

/// The problems as people read them: `file:line:column: message`, the line, a caret underline and the hint.
pub fn render(problems: &[Problem], file_name: &str, sql: &str) -> String {
    let lines: Vec<&str> = sql.lines().collect();
    let mut text = String::new();
    for problem in problems {
        render_one(&mut text, problem, file_name, &lines);
    }
    text
}

fn render_one(text: &mut String, problem: &Problem, file_name: &str, lines: &[&str]) {
    if problem.line == 0 {
        let _ = writeln!(text, "{file_name}: {}", problem.message);
    } else {
        let _ = writeln!(
            text,
            "{file_name}:{}:{}: {}",
            problem.line, problem.column, problem.message
        );
    }
    let index = usize::try_from(problem.line).unwrap_or(usize::MAX);
    if let Some(line) = index.checked_sub(1).and_then(|index| lines.get(index)) {
        let start = usize::try_from(problem.column.max(1) - 1).unwrap_or(0);
        let available = line.chars().count().saturating_sub(start).max(1);
        let length = match usize::try_from(problem.length) {
            Ok(length) if length > 0 => length.min(available),
            _ => available,
        };
        let number = problem.line.to_string();
        let margin = " ".repeat(number.len());
        // Tabs stay tabs, so that the carets stand under what they mean.
        let indent: String = line
            .chars()
            .take(start)
            .map(|character| if character == '\t' { '\t' } else { ' ' })
            .collect();
        let _ = writeln!(text, " {number} | {}", mask_passwords(line));
        let _ = writeln!(text, " {margin} | {indent}{}", "^".repeat(length));
    }
    if let Some(hint) = &problem.hint {
        for (index, line) in hint.lines().enumerate() {
            let label = if index == 0 { "hint:" } else { "     " };
            let _ = writeln!(text, "   {label} {line}");
        }
    }
}

/// `1 problem`, `3 problems`.
pub fn count(problem_count: usize) -> String {
    match problem_count {
        1 => "1 problem".to_owned(),
        more => format!("{more} problems"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_its_line_carets_and_hint() {
        let sql = "SET a = 'b';\nCREATE VIEW v AS SELECT eventid FROM clicks;\n";
        let place = Place {
            line: 2,
            column: 25,
            length: 7,
        };
        let problem = Problem::at(place, "unknown column eventid").nearest("eventid", ["event_id"]);
        assert_eq!(
            render(&[problem], "job.sql", sql),
            "job.sql:2:25: unknown column eventid\n \
             2 | CREATE VIEW v AS SELECT eventid FROM clicks;\n   \
             |                         ^^^^^^^\n   \
             hint: did you mean event_id?\n"
        );
    }

    #[test]
    fn a_problem_without_a_place_shows_no_line() {
        let problem = Problem::at(Place::default(), "no sink");
        assert_eq!(render(&[problem], "job.sql", "x"), "job.sql: no sink\n");
    }
}
