//! What `jobs/user_activity.sql` must come to, computed a second time without any of Millstream's code.
//!
//! Fed with the files of a wave at a time (`activity.rs`): what is late in a wave follows from the waves before. Reads CSV
//! character by character; the rules are those that the job states. Pure.

use std::collections::BTreeMap;

use chrono::NaiveDateTime;

/// `WATERMARK FOR event_time AS event_time - INTERVAL '5 minutes'`.
const DELAY_US: i64 = 5 * 60 * 1_000_000;
/// `record_bytes_max` of CSV.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// Columns of a stored event behind its id: user, type, product, price and time, as Postgres shows them.
pub type Event = (i32, String, i32, String, String);

/// A record that broke a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Of the dead letter.
    pub code: &'static str,
    /// The column or rule that its reason must name.
    pub about: &'static str,
    /// The record, where it is text and not cut.
    pub payload: Option<String>,
}

/// The result of the job over the files so far.
#[derive(Debug, Default)]
pub struct ActivityOracle {
    /// Stored events, by id.
    pub events: BTreeMap<String, Event>,
    /// By file and record number.
    pub refused: BTreeMap<(String, i64), Refused>,
    /// Events that had come before.
    pub duplicate_count: usize,
    /// After the files so far, in microseconds.
    pub watermark_us: Option<i64>,
    greatest_us: Option<i64>,
}

/// Why a record is refused: code, and what the reason names.
type Fault = (&'static str, &'static str);

impl ActivityOracle {
    /// Takes all files of a wave: where each is, and what stands in it.
    pub fn take_wave<'a>(&mut self, files: impl IntoIterator<Item = (String, &'a [u8])>) {
        for (origin, text) in files {
            self.take_file(&origin, text);
        }
        self.watermark_us = self.greatest_us.map(|greatest| greatest - DELAY_US);
    }

    fn take_file(&mut self, origin: &str, text: &[u8]) {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let lines = text.split(|byte| *byte == b'\n');
        let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut lines = lines.filter(|line| !line.is_empty());
        let Some(header) = lines.next() else {
            return self.refuse(origin, 0, b"", ("header", "empty"));
        };
        let columns = match columns(header) {
            Ok(columns) => columns,
            Err(about) => return self.refuse(origin, 0, header, ("header", about)),
        };
        for (line, position) in lines.zip(1..) {
            match self.accept(&columns, line) {
                Ok((id, event)) => self.store(id, event),
                Err(fault) => self.refuse(origin, position, line, fault),
            }
        }
    }

    fn store(&mut self, id: String, event: Event) {
        match self.events.contains_key(&id) {
            true => self.duplicate_count += 1,
            false => {
                self.events.insert(id, event);
            }
        }
    }

    fn refuse(&mut self, origin: &str, position: i64, line: &[u8], (code, about): Fault) {
        let payload = match line.len() > RECORD_BYTES_MAX {
            true => None,
            false => String::from_utf8(line.to_vec()).ok(),
        };
        let refused = Refused {
            code,
            about,
            payload,
        };
        self.refused.insert((origin.to_owned(), position), refused);
    }

    fn accept(&mut self, columns: &[String], line: &[u8]) -> Result<(String, Event), Fault> {
        if line.len() > RECORD_BYTES_MAX {
            return Err(("too_long", "record_bytes_max"));
        }
        let text = std::str::from_utf8(line).map_err(|_| ("malformed", "UTF-8"))?;
        let fields = fields(text).ok_or(("malformed", "quote"))?;
        if fields.len() != columns.len() {
            return Err(("columns", "fields"));
        }
        let field = |name: &'static str| {
            let index = columns.iter().position(|column| column == name);
            let value = index
                .map(|index| fields[index].as_str())
                .unwrap_or_default();
            (!value.is_empty())
                .then_some(value)
                .ok_or(("null_violation", name))
        };
        let id = field("event_id")?.to_owned();
        let user = field("user_id")?.parse();
        let user = user.map_err(|_| ("type_mismatch", "user_id"))?;
        let kind = field("event_type")?.to_owned();
        let product = field("product_id")?.parse();
        let product = product.map_err(|_| ("type_mismatch", "product_id"))?;
        let cents = cents(field("price")?).ok_or(("type_mismatch", "price"))?;
        let time = NaiveDateTime::parse_from_str(field("event_time")?, "%Y-%m-%d %H:%M:%S%.f");
        let time = time.map_err(|_| ("type_mismatch", "event_time"))?;
        if kind != "view" && kind != "purchase" {
            return Err(("check_violation", "known_event_type"));
        }
        if cents < 0 {
            return Err(("check_violation", "price_not_negative"));
        }
        if cents != 0 && kind != "purchase" {
            return Err(("check_violation", "price_only_for_purchases"));
        }
        let time_us = time.and_utc().timestamp_micros();
        if self
            .watermark_us
            .is_some_and(|watermark| time_us < watermark)
        {
            return Err(("late", "event_time"));
        }
        self.greatest_us = self.greatest_us.max(Some(time_us));
        let price = format!("{}.{:02}", cents / 100, cents % 100);
        let shown = time.format("%Y-%m-%d %H:%M:%S%.3f").to_string();
        Ok((id, (user, kind, product, price, shown)))
    }
}

/// The columns of a header, or what is wrong with it.
fn columns(header: &[u8]) -> Result<Vec<String>, &'static str> {
    const DECLARED: [&str; 6] = [
        "event_id",
        "user_id",
        "event_type",
        "product_id",
        "price",
        "event_time",
    ];
    let text = String::from_utf8_lossy(header);
    let columns = fields(&text).ok_or("quote")?;
    for (index, column) in columns.iter().enumerate() {
        if !DECLARED.contains(&column.as_str()) {
            return Err("not declared");
        }
        if columns[..index].contains(column) {
            return Err("twice");
        }
    }
    match columns.len() < DECLARED.len() {
        true => Err("lacks"),
        false => Ok(columns),
    }
}

/// `None`: a quote is not closed.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let field = fields.last_mut()?;
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    (!quoted).then_some(fields)
}

/// A NUMERIC(10, 2) in cents.
fn cents(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (whole, cents) = digits.split_once('.')?;
    let fits = whole.len() <= 8 && cents.len() == 2;
    let is_number = whole
        .bytes()
        .chain(cents.bytes())
        .all(|byte| byte.is_ascii_digit());
    let number: i64 = format!("{whole}{cents}").parse().ok()?;
    (fits && is_number).then_some(sign * number)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::activity::Activity;

    #[test]
    fn generated_files_hold_everything_that_goes_wrong() {
        let mut activity = Activity::new(5);
        let mut oracle = ActivityOracle::default();
        for _ in 0..3 {
            let files = activity.wave();
            oracle.take_wave(files.iter().map(|file| (file.name.clone(), &file.text[..])));
        }
        let found: BTreeSet<Fault> = oracle
            .refused
            .values()
            .map(|refused| (refused.code, refused.about))
            .collect();
        let expected = [
            ("header", "not declared"),
            ("header", "twice"),
            ("header", "lacks"),
            ("header", "empty"),
            ("too_long", "record_bytes_max"),
            ("malformed", "UTF-8"),
            ("malformed", "quote"),
            ("columns", "fields"),
            ("null_violation", "event_id"),
            ("null_violation", "price"),
            ("type_mismatch", "user_id"),
            ("type_mismatch", "price"),
            ("type_mismatch", "event_time"),
            ("check_violation", "known_event_type"),
            ("check_violation", "price_not_negative"),
            ("check_violation", "price_only_for_purchases"),
            ("late", "event_time"),
        ];
        for fault in expected {
            assert!(found.contains(&fault), "{fault:?} of {found:?}");
        }
        assert!(oracle.duplicate_count > 100, "{}", oracle.duplicate_count);
    }

    #[test]
    fn what_is_late_follows_from_the_waves_before_and_the_first_of_an_event_counts() {
        let header = "event_id,user_id,event_type,product_id,price,event_time\n";
        let row = |id, product, time| format!("{id},1,view,{product},0.00,2026-01-17 {time}\n");
        let first = [header, &row("a", 1, "10:05:00"), &row("a", 2, "10:06:00")].concat();
        let second = [
            header,
            &row("b", 1, "10:01:00"),
            &row("c", 1, "10:00:59.999"),
        ]
        .concat();
        let mut oracle = ActivityOracle::default();
        oracle.take_wave([("1".to_owned(), first.as_bytes())]);
        oracle.take_wave([("2".to_owned(), second.as_bytes())]);
        assert_eq!(oracle.events["a"].2, 1);
        assert!(oracle.events.contains_key("b"));
        assert_eq!(oracle.refused[&("2".to_owned(), 2)].code, "late");
    }
}
