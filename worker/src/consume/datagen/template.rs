//! The text of a row, after its template.
//!
//! Pure; called by `rows.rs` for each row. Cannot fail.

use std::fmt::Write;

use millstream_common::datagen::template::{Part, Template};

use super::random::Chance;

/// Appends the text of row `number`.
pub(super) fn write(template: &Template, number: u64, chance: &mut Chance, text: &mut String) {
    for part in template.parts() {
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

#[cfg(test)]
mod tests {
    use super::super::random::ColumnChance;
    use super::*;

    fn written(template: &str, number: u64) -> String {
        let template = Template::parse(template).expect("a template");
        let mut text = String::new();
        let mut chance = ColumnChance::new(1, "c").row(number);
        write(&template, number, &mut chance, &mut text);
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
}
