//! Job parameters: `${key}` outside strings, quoted names and comments becomes a literal.
//!
//! Called before anything is parsed or sent. References inside strings are left alone: they are resolved
//! by the process that connects. A value that reads as a number, TRUE, FALSE or NULL stands as it is, every
//! other one becomes a quoted string, so that no value can become SQL. Pure; failure is a list of
//! problems with their places.

use std::collections::BTreeSet;

use millstream_common::problem::Problem;
use millstream_common::suggest::nearest;

/// `sql` with every parameter replaced by its value of `values`, or by its default (`${key:-default}`).
pub(crate) fn replace(sql: &str, values: &[(String, String)]) -> Result<String, Vec<Problem>> {
    let mut replaced = String::with_capacity(sql.len());
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    let mut rest = sql;
    while !rest.is_empty() {
        let skipped = quoted_length(rest);
        if skipped > 0 {
            replaced.push_str(&rest[..skipped]);
            rest = &rest[skipped..];
            continue;
        }
        if !rest.starts_with("${") {
            let length = rest.chars().next().map_or(0, char::len_utf8);
            replaced.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        let place = place_of(sql, sql.len() - rest.len());
        let Some(end) = rest.find('}') else {
            problems.push(problem(
                place,
                2,
                "the parameter lacks its closing brace",
                "write ${key}",
            ));
            break;
        };
        let reference = &rest[2..end];
        let (key, default) = match reference.split_once(":-") {
            Some((key, default)) => (key, Some(default)),
            None => (reference, None),
        };
        // As in a shell: of two values the last one counts.
        let given = values.iter().rev().find(|(name, _)| name == key);
        match given.map(|(_, value)| value.as_str()).or(default) {
            Some(value) => replaced.push_str(&literal(value)),
            None => {
                let length = rest[..=end].chars().count() as u64;
                let hint = format!("give it with --set {key}=VALUE, or write ${{{key}:-default}}");
                problems.push(problem(
                    place,
                    length,
                    &format!("parameter {key} has no value"),
                    &hint,
                ));
            }
        }
        used.insert(key);
        rest = &rest[end + 1..];
    }
    for (key, _) in values
        .iter()
        .filter(|(key, _)| !used.contains(key.as_str()))
    {
        let hint = match nearest(key, used.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => "references inside strings are taken from the environment".to_owned(),
        };
        let text = format!("--set {key}: the job has no parameter {key}");
        problems.push(problem((0, 0), 0, &text, &hint));
    }
    match problems.is_empty() {
        true => Ok(replaced),
        false => Err(problems),
    }
}

fn problem((line, column): (u64, u64), length: u64, message: &str, hint: &str) -> Problem {
    Problem {
        line,
        column,
        length,
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
    }
}

/// How many bytes at the start of `text` are a string, a quoted name or a comment; 0 if none begins
/// here. What is never closed goes to the end: the parser complains better than we could.
fn quoted_length(text: &str) -> usize {
    let until = |start: usize, mark: &str| match text[start..].find(mark) {
        Some(found) => start + found + mark.len(),
        None => text.len(),
    };
    // A doubled quote closes one string and opens the next: both are skipped.
    if text.starts_with('\'') {
        return until(1, "'");
    }
    if text.starts_with('"') {
        return until(1, "\"");
    }
    if text.starts_with("--") {
        return until(2, "\n");
    }
    if text.starts_with("/*") {
        return block_comment_length(text);
    }
    0
}

/// Block comments nest, as in Postgres.
fn block_comment_length(text: &str) -> usize {
    let mut depth = 0;
    let mut position = 0;
    while position < text.len() {
        let rest = &text[position..];
        if rest.starts_with("/*") {
            depth += 1;
            position += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            position += 2;
            if depth == 0 {
                break;
            }
        } else {
            position += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    position
}

fn literal(value: &str) -> String {
    let is_word = ["true", "false", "null"]
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word));
    let is_number = value.parse::<f64>().is_ok_and(f64::is_finite)
        && value.chars().any(|character| character.is_ascii_digit());
    match is_word || is_number {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\'', "''")),
    }
}

fn place_of(sql: &str, position: usize) -> (u64, u64) {
    let before = &sql[..position];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line as u64, column as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn a_value_becomes_a_literal_and_never_sql() {
        let values = set(&[
            ("day", "2026-01-31"),
            ("n", "-1.5"),
            ("who", "O'Hara; DROP"),
        ]);
        let replaced = replace("WHERE d = DATE ${day} AND n > ${n} AND w = ${who}", &values);
        assert_eq!(
            replaced.unwrap(),
            "WHERE d = DATE '2026-01-31' AND n > -1.5 AND w = 'O''Hara; DROP'"
        );
        let yes = replace("SELECT ${on}, ${no}", &set(&[("on", "TRUE"), ("no", "")]));
        assert_eq!(yes.unwrap(), "SELECT TRUE, ''");
    }

    #[test]
    fn strings_names_and_comments_are_left_alone() {
        let sql = "-- ${a}\nSELECT 'it''s ${a}', \"${a}\" /* ${a} /* ${a} */ ' */, ${a}";
        let replaced = replace(sql, &set(&[("a", "1")])).unwrap();
        assert_eq!(
            replaced,
            "-- ${a}\nSELECT 'it''s ${a}', \"${a}\" /* ${a} /* ${a} */ ' */, 1"
        );
    }

    #[test]
    fn a_default_stands_in_and_the_last_value_counts() {
        assert_eq!(replace("${n:-5}", &[]).unwrap(), "5");
        assert_eq!(
            replace("${n:-5}", &set(&[("n", "6"), ("n", "7")])).unwrap(),
            "7"
        );
    }

    #[test]
    fn all_problems_are_reported_with_their_places() {
        let problems = replace("SELECT 1,\n  ${day}, 'é', ${oops", &set(&[("dya", "1")]));
        let problems = problems.unwrap_err();
        let places: Vec<_> = problems
            .iter()
            .map(|p| (p.line, p.column, p.length))
            .collect();
        assert_eq!(places, [(2, 3, 6), (2, 16, 2), (0, 0, 0)]);
        assert!(
            problems[0]
                .hint
                .as_ref()
                .unwrap()
                .contains("--set day=VALUE")
        );
        assert_eq!(problems[2].hint.as_deref(), Some("did you mean day?"));
    }
}
