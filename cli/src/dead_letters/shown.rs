//! Dead letters, their counts and what became of a replay, as text for people. Pure.

use std::fmt::Write as _;

use millstream_common::control::{DeadLetterView, LetterTotals, Replayed};
use millstream_common::text;
use millstream_common::time::EventTime;

use crate::table::{self, Align, Column};

const LETTERS: [Column; 7] = [
    ("RECEIVED", Align::Left),
    ("ORIGIN", Align::Left),
    ("POSITION", Align::Right),
    ("CODE", Align::Left),
    ("REASON", Align::Left),
    ("EVENT TIME", Align::Left),
    ("PAYLOAD", Align::Left),
];

const COUNTS: [Column; 3] = [
    ("RELATION", Align::Left),
    ("CODE", Align::Left),
    ("ROWS", Align::Right),
];

/// A line for each letter, the payload last and whole.
pub(super) fn letters(letters: &[DeadLetterView]) -> String {
    let rows = letters.iter().map(|letter| {
        let payload = letter.payload.as_deref().map(one_line).unwrap_or_default();
        vec![
            text::moment(letter.received_at_us),
            letter.origin.clone(),
            letter.position.to_string(),
            letter.code.clone(),
            one_line(&letter.reason),
            letter
                .event_time_us
                .map(|time| EventTime(time).to_string())
                .unwrap_or_default(),
            match letter.is_cut {
                true => format!("{payload}..."),
                false => payload,
            },
        ]
    });
    table::render(&LETTERS, &rows.collect::<Vec<_>>())
}

/// A line for each relation and code.
pub(super) fn counts(totals: &LetterTotals) -> String {
    let rows = totals.counts.iter().map(|count| {
        vec![
            format!("{}.dead_letters", count.owner),
            count.code.clone(),
            text::count(count.rows),
        ]
    });
    table::render(&COUNTS, &rows.collect::<Vec<_>>())
}

/// What a listing does not show.
pub(super) fn left_out(totals: &LetterTotals, limit: Option<u64>) -> String {
    let mut shown = String::new();
    // Writing to a String cannot fail.
    if let Some(limit) = limit {
        let _ = writeln!(
            shown,
            "these are the newest {}; --limit lists more, --count counts all",
            text::count(limit)
        );
    }
    if totals.dropped > 0 {
        let dropped = text::count(totals.dropped);
        let _ = writeln!(
            shown,
            "{dropped} older ones were dropped (SET dead_letter_retention)"
        );
    }
    shown
}

/// What became of a replay.
pub(super) fn replayed(replayed: &Replayed) -> String {
    let rows = match replayed.rows {
        1 => "1 row".to_owned(),
        rows => format!("{} rows", text::count(rows)),
    };
    let go = if replayed.rows == 1 { "goes" } else { "go" };
    let were = if replayed.rows == 1 { "was" } else { "were" };
    let mut shown = match (&replayed.split, replayed.known) {
        (None, _) => "nothing is sent\n".to_owned(),
        (Some(split), true) => {
            format!(
                "{rows} {were} sent before as {split}: nothing is sent; --again sends them once more\n"
            )
        }
        (Some(split), false) => {
            format!(
                "{rows} {go} through the job again as {split}; what is refused again has it as its origin\n"
            )
        }
    };
    for skipped in &replayed.skipped {
        let _ = writeln!(shown, "{} {}", text::count(skipped.rows), skipped.reason);
    }
    shown
}

/// Text on one line that no terminal takes for a command; everything else as it is.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use millstream_common::control::{LetterCount, SkippedLetters};
    use millstream_common::ids::Epoch;

    use super::*;

    #[test]
    fn a_payload_is_shown_whole_and_on_one_line() {
        let letter = DeadLetterView {
            source: "clicks".to_owned(),
            origin: "clicks-3".to_owned(),
            position: 41,
            payload: Some("{\"a\":\n \"\\xFF\u{1b}[2J\"".to_owned()),
            payload_bytes: None,
            code: "malformed".to_owned(),
            reason: "expected `}`".to_owned(),
            event_time_us: None,
            received_at_us: 0,
            epoch: Epoch(3),
            is_cut: false,
        };
        let shown = letters(&[letter]);
        let line = shown.lines().nth(1).expect("a letter");
        assert!(line.ends_with("{\"a\":\\n \"\\xFF\\u{1b}[2J\""), "{line}");
        assert!(line.contains("clicks-3") && line.contains("41"), "{line}");
    }

    #[test]
    fn counts_say_what_was_dropped_and_a_replay_what_was_left_out() {
        let totals = LetterTotals {
            counts: vec![LetterCount {
                owner: "clicks".to_owned(),
                code: "late".to_owned(),
                rows: 1_200,
            }],
            dropped: 7,
        };
        assert!(counts(&totals).contains("clicks.dead_letters  late  1,200"));
        assert!(left_out(&totals, None).starts_with("7 older ones"));
        assert_eq!(left_out(&LetterTotals::default(), None), "");
        let sent = replayed(&Replayed {
            split: Some("replay:0a-3".to_owned()),
            rows: 3,
            known: false,
            skipped: vec![SkippedLetters {
                rows: 2,
                reason: "are late".to_owned(),
            }],
        });
        assert!(
            sent.contains("3 rows go") && sent.contains("2 are late"),
            "{sent}"
        );
    }
}
