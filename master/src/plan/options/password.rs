//! Literal passwords in the url of Postgres, found by the rules by which the driver reads it.
//!
//! Called by `postgres.rs`. Pure. References become one letter first, so that nothing inside of them is taken for a part of
//! the url; what then stands where the driver looks for a password, and is no reference, is literal. Failure: none; a text
//! that the driver will not understand is read as far as it goes, finding rather a password too many than one too few.

use std::ops::Range;

/// What is written instead.
const REFERENCE: &str = "${POSTGRES_PASSWORD}";
/// Stands for a reference while the url is read; no url has this letter.
const TOKEN: char = '\u{e000}';

/// What to write instead of the literal password in `url`, showing no part of it; `None` if it has none.
pub(super) fn instead_of_literal(url: &str) -> Option<String> {
    let read = Read::new(url.trim(), |_| None);
    let literal = literals(&read.text);
    if literal.is_empty() {
        // What a reference falls back on is as literal as the rest.
        let with_defaults = Read::new(url.trim(), |reference| Some(reference.split_once(":-")?.1));
        let found = !literals(&with_defaults.text).is_empty();
        return found
            .then(|| "leave the default out of the reference and set its variable".to_owned());
    }
    // Where a password ends is sure only if there is one end it can have.
    if read.text.matches('@').count() > 1 {
        return Some("write url = '${POSTGRES_URL}' and set that variable".to_owned());
    }
    // As it stands in SQL.
    let shown = read.with_reference_at(&literal).replace('\'', "''");
    Some(format!("write url = '{shown}' and set that variable"))
}

/// A url with a [`TOKEN`] in place of each reference.
struct Read<'a> {
    text: String,
    /// As they are written.
    references: Vec<&'a str>,
}

impl<'a> Read<'a> {
    /// `replace` may give another text for the inside of a reference.
    fn new(url: &'a str, replace: impl Fn(&'a str) -> Option<&'a str>) -> Self {
        let mut read = Self {
            text: String::with_capacity(url.len()),
            references: Vec::new(),
        };
        let mut rest = url;
        while let Some((before, behind)) = rest.split_once("${")
            && let Some((reference, after)) = behind.split_once('}')
        {
            read.text.push_str(before);
            match replace(reference) {
                Some(replaced) => read.text.push_str(replaced),
                None => {
                    read.text.push(TOKEN);
                    read.references.push(reference);
                }
            }
            rest = after;
        }
        read.text.push_str(rest);
        read
    }

    /// The url as it was written, with [`REFERENCE`] at `ranges` of the text.
    fn with_reference_at(&self, ranges: &[Range<usize>]) -> String {
        let mut shown = String::with_capacity(self.text.len());
        let mut references = self.references.iter();
        for (index, letter) in self.text.char_indices() {
            let reference = (letter == TOKEN).then(|| references.next()).flatten();
            if let Some(range) = ranges.iter().find(|range| range.contains(&index)) {
                if range.start == index {
                    shown.push_str(REFERENCE);
                }
                continue;
            }
            match reference {
                Some(reference) => shown.extend(["${", reference, "}"]),
                None => shown.push(letter),
            }
        }
        shown
    }
}

/// Where passwords stand that are more than references.
fn literals(text: &str) -> Vec<Range<usize>> {
    let mut found = passwords(text);
    found.retain(|range| text[range.clone()].contains(|letter| letter != TOKEN));
    found
}

/// Where the driver looks for a password. A reference at the start may stand for the start of either form.
fn passwords(text: &str) -> Vec<Range<usize>> {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    let is_parameter = |letter: char| letter.is_whitespace() || letter == '=';
    let scheme = scheme.filter(|scheme| !scheme.contains(is_parameter));
    let mut found = match scheme {
        Some(scheme) => in_url(text, scheme.len() + "://".len()),
        None if text.starts_with(TOKEN) => in_url(text, 0),
        None => Vec::new(),
    };
    if scheme.is_none() {
        found.extend(in_parameters(text));
    }
    found
}

/// `scheme://user:password@host/database?password=password`, from behind the scheme. As the driver reads it, the user and the
/// password go up to the first at sign, whatever stands before it.
fn in_url(text: &str, start: usize) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut host = start;
    if let Some(length) = text[start..].find('@') {
        let at = start + length;
        if let Some(colon) = text[start..at].find(':') {
            found.push(start + colon + 1..at);
        }
        host = at + 1;
    }
    let Some(mark) = text[host..].find('?') else {
        return found;
    };
    let mut from = host + mark + 1;
    for parameter in text[from..].split('&') {
        if let Some((name, value)) = parameter.split_once('=') {
            // No name needs an escape; one that has any may hide this one.
            if is_password(name) || name.contains('%') {
                let value_start = from + name.len() + 1;
                found.push(value_start..value_start + value.len());
            }
        }
        from += parameter.len() + 1;
    }
    found
}

/// `host = db password = 'my password'`.
fn in_parameters(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        at += blanks(&text[at..]);
        let ends = |letter: char| letter.is_whitespace() || letter == '=';
        let length = text[at..].find(ends).unwrap_or(text.len() - at);
        let keyword = &text[at..at + length];
        at += length;
        at += blanks(&text[at..]);
        if !text[at..].starts_with('=') {
            continue;
        }
        at += 1;
        at += blanks(&text[at..]);
        let is_quoted = text[at..].starts_with('\'');
        at += usize::from(is_quoted);
        let length = value_length(&text[at..], is_quoted);
        if is_password(keyword) {
            found.push(at..at + length);
        }
        at += length + usize::from(is_quoted);
    }
    found
}

fn is_password(name: &str) -> bool {
    name.eq_ignore_ascii_case("password")
}

fn blanks(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// Up to the closing quote or the next blank; a backslash takes the meaning from what follows it.
fn value_length(text: &str, is_quoted: bool) -> usize {
    let mut is_escaped = false;
    for (index, letter) in text.char_indices() {
        let ends = match is_quoted {
            true => letter == '\'',
            false => letter.is_whitespace(),
        };
        if ends && !is_escaped {
            return index;
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(url: &str) -> String {
        let advice = instead_of_literal(url).expect(url);
        let shown = advice
            .strip_prefix("write url = '")
            .expect("the line to write");
        let shown = shown.strip_suffix("' and set that variable");
        shown.expect("what to set").to_owned()
    }

    #[test]
    fn a_literal_password_is_replaced_by_a_reference() {
        for (url, instead) in [
            (
                "postgres://me:pw@db:5432/x",
                "postgres://me:${POSTGRES_PASSWORD}@db:5432/x",
            ),
            (
                "postgresql://${U:-me}:pa/s?s@db/x?sslmode=disable",
                "postgresql://${U:-me}:${POSTGRES_PASSWORD}@db/x?sslmode=disable",
            ),
            (
                "postgres://me:${A}pw@${HOST:-db}/x",
                "postgres://me:${POSTGRES_PASSWORD}@${HOST:-db}/x",
            ),
            (
                "postgres://me@db/x?sslmode=disable&password=pw",
                "postgres://me@db/x?sslmode=disable&password=${POSTGRES_PASSWORD}",
            ),
            (
                "postgres://db/x?pass%77ord=pw&connect_timeout=3",
                "postgres://db/x?pass%77ord=${POSTGRES_PASSWORD}&connect_timeout=3",
            ),
            ("${BASE}:pw@db/x", "${BASE}:${POSTGRES_PASSWORD}@db/x"),
            (
                "host=db password=pw user=me",
                "host=db password=${POSTGRES_PASSWORD} user=me",
            ),
            (
                "host = db password = my\\ pw user = me",
                "host = db password = ${POSTGRES_PASSWORD} user = me",
            ),
            (
                "password='it\\'s mine' host=${HOST}",
                "password=''${POSTGRES_PASSWORD}'' host=${HOST}",
            ),
            (
                "${BASE} password=pw",
                "${BASE} password=${POSTGRES_PASSWORD}",
            ),
        ] {
            assert_eq!(written(url), instead, "{url}");
        }
    }

    #[test]
    fn a_password_with_two_possible_ends_is_not_shown_in_part() {
        assert_eq!(written("postgres://me:hun@ter2@db/x"), "${POSTGRES_URL}");
    }

    #[test]
    fn the_default_of_a_reference_is_literal_too() {
        for url in [
            "postgres://me:${POSTGRES_PASSWORD:-hunter2}@db/x",
            "${POSTGRES_URL:-postgres://me:hunter2@db/x}",
            "host=db password=${PW:-hunter2}",
        ] {
            let advice = instead_of_literal(url).expect(url);
            assert!(advice.starts_with("leave the default out"), "{advice}");
        }
    }

    #[test]
    fn references_and_urls_without_a_password_are_taken() {
        for url in [
            "${POSTGRES_URL}",
            "${POSTGRES_URL:-postgres://me@db/x}",
            "postgres://me@db/x",
            "postgres://db:5432/x?sslmode=disable",
            "postgres://me:${PASSWORD}@db/x",
            "postgres://${U:-me}:${PW}@db/x",
            "postgres://me:${A}${B}@db/x",
            "postgres://me:${file:/run/secrets/me@db:x}@db/x",
            "postgres://${CREDENTIALS}@${HOST:-db}:${PORT:-5432}/x?password=${PW}",
            "host=db password=${PASSWORD}",
            "host = db password = '${file:/run/secrets/a b}' user=me",
            "host=db user=password application_name='password=x'",
        ] {
            assert_eq!(instead_of_literal(url), None, "{url}");
        }
    }
}
