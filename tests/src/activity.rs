//! CSV files of user activity as people leave them in a hot folder, with everything that goes wrong in one.
//!
//! Pure, and repeatable by its seed. Files come in waves, ten minutes of event time apart: within a wave no good row is
//! late whatever was read before it, and a late row is late beyond doubt once the wave before has been read.

use chrono::DateTime;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// 2026-01-17T10:00:00, in milliseconds.
const FIRST_EVENT_MS: i64 = 1_768_644_000_000;
const MINUTE_MS: i64 = 60_000;
const WAVE_MS: i64 = 10 * MINUTE_MS;
/// Good rows of a wave lie in this span, less than the watermark's delay.
const SPAN_MS: i64 = 4 * MINUTE_MS;
/// Late rows lie so much before the wave before.
const LATENESS_MS: std::ops::Range<i64> = 3 * MINUTE_MS..8 * MINUTE_MS;
const ROWS: usize = 300;
/// More than a record may have (`record_bytes_max`, 1 MiB).
const LONG_BYTES: usize = 1_100_000;

const COLUMNS: [&str; 6] = [
    "event_id",
    "user_id",
    "event_type",
    "product_id",
    "price",
    "event_time",
];

/// A row, its fields in the order of [`COLUMNS`].
type Fields = [String; 6];

/// A file before it is compressed.
#[derive(Clone, Debug)]
pub struct CsvFile {
    /// Ends in `.gz` where it is to be compressed.
    pub name: String,
    /// What stands in it.
    pub text: Vec<u8>,
}

/// How a file is written down.
#[derive(Clone, Copy)]
struct Layout {
    /// Which column stands where.
    order: [usize; 6],
    line_end: &'static str,
    quotes: bool,
    begins: &'static str,
}

const PLAIN: Layout = Layout {
    order: [0, 1, 2, 3, 4, 5],
    line_end: "\n",
    quotes: false,
    begins: "",
};

/// As a spreadsheet on another system exports it.
const FOREIGN: Layout = Layout {
    order: [5, 2, 0, 4, 3, 1],
    line_end: "\r\n",
    quotes: true,
    begins: "\u{feff}",
};

/// Makes files, a wave at a time.
pub struct Activity {
    random: StdRng,
    made: u32,
    wave: i64,
    /// Good rows of the wave.
    recent: Vec<Fields>,
}

impl Activity {
    /// Files that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            made: 0,
            wave: -1,
            recent: Vec::new(),
        }
    }

    /// The files of the next wave.
    pub fn wave(&mut self) -> Vec<CsvFile> {
        self.wave += 1;
        self.recent.clear();
        let mut plain = self.file("plain.csv", PLAIN);
        match self.wave {
            0 => plain.text.extend_from_slice(b"\"torn-0,1,view,2,0.00"),
            1 => {
                plain.text.resize(plain.text.len() + LONG_BYTES, b'x');
                plain.text.extend_from_slice(b"\n\n");
                let after = self.good();
                push_line(&mut plain.text, PLAIN, &after);
            }
            _ => {}
        }
        let foreign = self.file("foreign.csv", FOREIGN);
        let compressed = self.file("compressed.csv.gz", PLAIN);
        let mut refused = self.file("refused.csv", PLAIN);
        let text = String::from_utf8_lossy(&refused.text).into_owned();
        refused.text = match self.wave {
            0 => text.replacen("price", "cost", 1).into_bytes(),
            1 => text
                .replacen("event_id", "event_id,event_id", 1)
                .into_bytes(),
            _ => text.replacen(",event_time\n", "\n", 1).into_bytes(),
        };
        let empty = CsvFile {
            name: self.name("empty.csv"),
            text: match self.wave {
                0 => Vec::new(),
                _ => (COLUMNS.join(",") + "\n").into_bytes(),
            },
        };
        vec![plain, refused, foreign, empty, compressed]
    }

    fn name(&self, name: &str) -> String {
        format!("wave-{}-{name}", self.wave)
    }

    fn file(&mut self, name: &str, layout: Layout) -> CsvFile {
        let mut text = layout.begins.as_bytes().to_vec();
        push_line(&mut text, layout, &COLUMNS.map(str::to_owned));
        let first_of_file = self.recent.len();
        for _ in 0..ROWS {
            self.push_row(&mut text, layout, first_of_file);
        }
        CsvFile {
            name: self.name(name),
            text,
        }
    }

    fn push_row(&mut self, text: &mut Vec<u8>, layout: Layout, first_of_file: usize) {
        match self.random.random_range(0..100) {
            0..2 => {
                let mut fields = self.made_up();
                fields[self.random.random_range(0..6)].clear();
                push_line(text, layout, &fields);
            }
            2..5 => {
                let fields = self.of_wrong_type();
                push_line(text, layout, &fields);
            }
            5..8 => {
                let fields = self.against_a_rule();
                push_line(text, layout, &fields);
            }
            8 => text.extend_from_slice(format!("a,b,c{}", layout.line_end).as_bytes()),
            9 => {
                let mut line = Vec::new();
                let fields = self.made_up();
                push_line(&mut line, layout, &fields);
                // No text in any encoding that begins with ASCII.
                line[1] = 0xff;
                text.extend_from_slice(&line);
            }
            10..13 if self.wave > 0 => {
                let mut fields = self.made_up();
                let late = self.random.random_range(LATENESS_MS);
                fields[5] = moment(FIRST_EVENT_MS + (self.wave - 1) * WAVE_MS - late);
                push_line(text, layout, &fields);
            }
            13..22 if !self.recent.is_empty() => {
                let chosen = self.random.random_range(0..self.recent.len());
                let fields = self.recent[chosen].clone();
                push_line(text, layout, &fields);
            }
            // The same event with other content: in one file the first of them counts.
            22..25 if self.recent.len() > first_of_file => {
                let chosen = self.random.random_range(first_of_file..self.recent.len());
                let mut fields = self.recent[chosen].clone();
                fields[3] = "999999".to_owned();
                push_line(text, layout, &fields);
            }
            _ => {
                let fields = self.good();
                push_line(text, layout, &fields);
            }
        }
    }

    fn good(&mut self) -> Fields {
        let fields = self.made_up();
        self.recent.push(fields.clone());
        fields
    }

    fn made_up(&mut self) -> Fields {
        self.made += 1;
        let time = FIRST_EVENT_MS + self.wave * WAVE_MS + self.random.random_range(0..SPAN_MS);
        let (kind, price) = match self.random.random_bool(0.3) {
            true => ("purchase", self.random.random_range(1..50_000)),
            false => ("view", 0),
        };
        [
            format!("event {}, \"of\" wave {}", self.made, self.wave),
            self.random.random_range(1..1000).to_string(),
            kind.to_owned(),
            self.random.random_range(1..50).to_string(),
            format!("{}.{:02}", price / 100, price % 100),
            moment(time),
        ]
    }

    fn of_wrong_type(&mut self) -> Fields {
        const WRONG: [(usize, &str); 8] = [
            (1, "somebody"),
            (1, "12.5"),
            (1, "3000000000"),
            (3, "0x10"),
            (4, "1.005"),
            (4, "123456789.00"),
            (5, "yesterday"),
            (5, "2026-02-30 10:00:00"),
        ];
        let mut fields = self.made_up();
        let (column, wrong) = WRONG[self.random.random_range(0..WRONG.len())];
        fields[column] = wrong.to_owned();
        fields
    }

    fn against_a_rule(&mut self) -> Fields {
        const AGAINST: [(&str, &str); 3] =
            [("hover", "0.00"), ("purchase", "-0.01"), ("view", "5.00")];
        let mut fields = self.made_up();
        let (kind, price) = AGAINST[self.random.random_range(0..AGAINST.len())];
        (fields[2], fields[4]) = (kind.to_owned(), price.to_owned());
        fields
    }
}

fn push_line(text: &mut Vec<u8>, layout: Layout, fields: &Fields) {
    let written = layout.order.map(|column| {
        let field = &fields[column];
        match layout.quotes || field.contains(',') {
            true => format!("\"{}\"", field.replace('"', "\"\"")),
            false => field.clone(),
        }
    });
    text.extend_from_slice(written.join(",").as_bytes());
    text.extend_from_slice(layout.line_end.as_bytes());
}

fn moment(time_ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(time_ms).expect("a time in this century");
    time.format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_files() {
        let text = |seed| Activity::new(seed).wave()[0].text.clone();
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }
}
