//! Templates of made-up text: `user_{n:05}`, `{uniform:1:6}`, `{hex:8}`.
//!
//! Pure. Parsed once, written for each row. Failure: a placeholder that is none, with what may stand there.

use std::fmt::Write;

use super::random::Chance;

/// Digits that a number may be padded to, or random digits in one go.
const DIGITS_MAX: usize = 64;

/// A parsed template.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The row's number, with zeros in front to this width.
    Number(usize),
    Uniform(i64, i64),
    Hex(usize),
}

impl Template {
    pub(super) fn parse(template: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(start) = rest.find('{') {
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            let inside = &rest[start + 1..];
            let end = inside
                .find('}')
                .ok_or_else(|| format!("template {template:?} lacks a closing brace"))?;
            let part = placeholder(&inside[..end]).ok_or_else(|| {
                format!(
                    "template {template:?} has {{{}}}: write {{n}}, {{n:05}}, {{uniform:1:6}} or {{hex:8}}",
                    &inside[..end]
                )
            })?;
            parts.push(part);
            rest = &inside[end + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// Appends the text of row `number`.
    pub(super) fn write(&self, number: u64, chance: &mut Chance, text: &mut String) {
        for part in &self.0 {
            // Writing to a String cannot fail.
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Number(width) => write!(text, "{number:0width$}").unwrap_or_default(),
                Part::Uniform(min, max) => {
                    write!(text, "{}", chance.between(*min, *max)).unwrap_or_default();
                }
                Part::Hex(digits) => {
                    for _ in 0..*digits {
                        let digit = (chance.next() >> 60) as u32;
                        text.extend(char::from_digit(digit, 16));
                    }
                }
            }
        }
    }
}

fn placeholder(text: &str) -> Option<Part> {
    let mut words = text.split(':');
    let part = match (words.next()?, words.next(), words.next()) {
        ("n", None, None) => Part::Number(0),
        ("n", Some(width), None) => Part::Number(digits(width)?),
        ("hex", Some(count), None) => Part::Hex(digits(count)?),
        ("uniform", Some(min), Some(max)) => {
            let (min, max) = (min.parse().ok()?, max.parse().ok()?);
            (min <= max).then_some(Part::Uniform(min, max))?
        }
        _ => return None,
    };
    words.next().is_none().then_some(part)
}

fn digits(text: &str) -> Option<usize> {
    text.parse().ok().filter(|count| *count <= DIGITS_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::random::ColumnChance;
    use super::*;

    fn written(template: &str, number: u64) -> String {
        let mut text = String::new();
        let mut chance = ColumnChance::new(1, "c").row(number);
        Template::parse(template)
            .expect("a template")
            .write(number, &mut chance, &mut text);
        text
    }

    #[test]
    fn placeholders_are_replaced_and_the_rest_stands() {
        assert_eq!(written("user_{n}@x", 7), "user_7@x");
        assert_eq!(written("user_{n:05}", 7), "user_00007");
        assert_eq!(written("user_{n:02}", 1_234), "user_1234");
        assert_eq!(written("{uniform:4:4}", 7), "4");
        let hex = written("{hex:12}", 7);
        assert!(hex.len() == 12 && hex.chars().all(|digit| digit.is_ascii_hexdigit()));
    }

    #[test]
    fn an_unknown_placeholder_says_what_may_stand_there() {
        for template in ["{m}", "{n:x}", "{uniform:2:1}", "{hex:8:8}", "{hex:999}"] {
            let refused = Template::parse(template).expect_err(template);
            assert!(refused.contains("{hex:8}"), "{refused}");
        }
        assert!(Template::parse("{n").is_err());
    }
}
