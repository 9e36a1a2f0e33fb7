//! Literal passwords of a line of SQL, hidden where the line is shown.
//!
//! Called by [`super::render`] for every line it quotes. Pure. A line is not understood but searched for what looks like a
//! password: it hides rather too much than too little, and references stay readable. Cannot fail.

use std::ops::Range;

/// `line` with literal passwords replaced by as many stars: between `:` and `@` of a URL, and what stands behind a name that
/// ends in `password` or `secret`.
pub(super) fn mask_passwords(line: &str) -> String {
    let mut letters: Vec<char> = line.chars().collect();
    for range in url_passwords(&letters)
        .into_iter()
        .chain(named_passwords(&letters))
    {
        mask(&mut letters[range]);
    }
    letters.into_iter().collect()
}

/// Puts stars in place of all but references; of these, in place of the default.
fn mask(letters: &mut [char]) {
    let mut index = 0;
    while index < letters.len() {
        if let Some(end) = reference_end(letters, index) {
            let inside = &letters[index..end - 1];
            let default = inside.windows(2).position(|pair| pair == [':', '-']);
            if let Some(default) = default {
                letters[index + default + 2..end - 1].fill('*');
            }
            index = end;
        } else {
            letters[index] = '*';
            index += 1;
        }
    }
}

/// Behind the closing brace of the reference that begins at `start`.
fn reference_end(letters: &[char], start: usize) -> Option<usize> {
    if !letters[start..].starts_with(&['$', '{']) {
        return None;
    }
    let length = letters[start..].iter().position(|letter| *letter == '}')?;
    Some(start + length + 1)
}

/// Where the SQL string that `start` is inside of ends; two quotes are one of its letters.
fn string_end(letters: &[char], start: usize) -> usize {
    let mut index = start;
    while index < letters.len() {
        match &letters[index..] {
            ['\'', '\'', ..] => index += 2,
            ['\'', ..] => return index,
            _ => index += 1,
        }
    }
    index
}

/// From the first colon that is in no reference up to the last at sign.
fn url_passwords(letters: &[char]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for index in 0..letters.len() {
        if !letters[index..].starts_with(&[':', '/', '/']) {
            continue;
        }
        let start = index + 3;
        let end = string_end(letters, start);
        let at = letters[start..end]
            .iter()
            .rposition(|letter| *letter == '@');
        let Some(at) = at.map(|length| start + length) else {
            continue;
        };
        let mut colon = start;
        while colon < at && letters[colon] != ':' {
            colon = reference_end(letters, colon).unwrap_or(colon + 1);
        }
        if colon < at {
            found.push(colon + 1..at);
        }
    }
    found
}

fn named_passwords(letters: &[char]) -> Vec<Range<usize>> {
    let lower: Vec<char> = letters.iter().map(char::to_ascii_lowercase).collect();
    let mut found = Vec::new();
    for word in ["password", "secret"] {
        let word: Vec<char> = word.chars().collect();
        for index in 0..lower.len() {
            if lower[index..].starts_with(&word) {
                found.extend(named_password(&lower, index + word.len()));
            }
        }
    }
    found
}

/// What the name that ends at `start` is said to be.
fn named_password(letters: &[char], start: usize) -> Option<Range<usize>> {
    let is_between = |letter: &char| matches!(letter, '"' | '=') || letter.is_whitespace();
    let skipped = letters[start..]
        .iter()
        .take_while(|letter| is_between(letter))
        .count();
    let quotes = letters[start + skipped..]
        .iter()
        .take_while(|letter| **letter == '\'')
        .count();
    let begin = start + skipped + quotes;
    if !letters[start..start + skipped].contains(&'=') {
        return None;
    }
    let end = match quotes {
        0 => word_end(letters, begin),
        _ => string_end(letters, begin),
    };
    (end > begin).then_some(begin..end)
}

/// The next blank, comma, `&` or quote that no backslash stands before.
fn word_end(letters: &[char], start: usize) -> usize {
    let mut index = start;
    while let Some(letter) = letters.get(index) {
        index = match letter {
            '\\' => index + 2,
            '&' | ',' | '\'' => return index,
            letter if letter.is_whitespace() => return index,
            _ => reference_end(letters, index).unwrap_or(index + 1),
        };
    }
    letters.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_password_is_never_printed() {
        for line in [
            "url = 'postgres://me:hunter2@db/x'",
            "url = 'postgres://me:hunter2/hunter2?hunter2 hunter2@hunter2@db/x', table = 't'",
            "url = 'postgres://me:it''s hunter2@db/x'",
            "url = 'postgres://${U:-me}:${PW}hunter2@db/x'",
            "url = '${POSTGRES_URL:-postgres://me:hunter2@db/x}'",
            "url = 'postgres://me:${PW:-hunter2}@db/x'",
            "\"kafka.sasl.password\" = 'hunter2'",
            "\"kafka.sasl.password\" = 'it''s hunter2'",
            "url = 'host=db password=hunter2 user=me'",
            "url = 'host=db password\t= hunter2\\ hunter2 user=me'",
            "url = 'host=db password = ''hunter2 hunter2'' user=me'",
            "url = 'host=db password=${PW:-hunter2}'",
        ] {
            let shown = mask_passwords(line);
            assert!(!shown.contains("hunter2"), "{shown}");
            assert_eq!(shown.chars().count(), line.chars().count());
        }
    }

    #[test]
    fn references_and_what_is_no_password_stay_readable() {
        for line in [
            "url = 'postgres://me:${POSTGRES_PASSWORD}@db/x'",
            "url = 'postgres://${U:-me}:${file:/run/secrets/x}@db:5432/x'",
            "url = 'host=db password=${PW} user=me', table = 't'",
            "url = 'http://localhost:8080/x', table = 't'",
            "CREATE VIEW v AS SELECT password FROM users",
        ] {
            assert_eq!(mask_passwords(line), line);
        }
    }
}
