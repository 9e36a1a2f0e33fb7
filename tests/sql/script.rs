//! What a case says besides its SQL: the records of its sources, step by step, and when a worker dies.
//!
//! Parsed by `database.rs` from statements that begin with `INSERT`, played by `cluster.rs`. A step is one
//! statement: its records go to one partition, and are part of a committed epoch before the next step begins,
//! so that the order of rows across partitions is the order of the file. Failure: a text for the reader of the file.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The records of one partition, or of one file, that come together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// A file of the folder that `topic` names.
    pub(crate) file: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) header: Option<(String, String)>,
    /// `None`: a record without a value.
    pub(crate) records: Vec<Option<Vec<u8>>>,
}

impl Step {
    /// `INSERT INTO topic PARTITION p [KEY k] [TIMESTAMP ms] [HEADER name=value]` or `INSERT INTO folder FILE name`, then a
    /// record a line.
    pub(crate) fn parse(statement: &str) -> Result<Self, String> {
        let mut lines = statement.lines();
        let mut words = lines.next().unwrap_or_default().split_whitespace().skip(2);
        let mut step = Self {
            topic: words
                .next()
                .ok_or("INSERT INTO lacks its topic")?
                .to_owned(),
            ..Self::default()
        };
        while let Some(word) = words.next() {
            let value = words.next().ok_or(format!("{word} lacks its value"))?;
            let number = || {
                value
                    .parse::<i64>()
                    .map_err(|error| format!("{word}: {error}"))
            };
            match word {
                "PARTITION" => step.partition = number()? as i32,
                "FILE" => step.file = Some(value.to_owned()),
                "KEY" => step.key = Some(value.to_owned()),
                "TIMESTAMP" => step.timestamp_ms = Some(number()?),
                "HEADER" => {
                    let (name, value) = value.split_once('=').ok_or("HEADER is name=value")?;
                    step.header = Some((name.to_owned(), value.to_owned()));
                }
                _ => return Err(format!("{word} means nothing in INSERT")),
            }
        }
        step.records = lines.map(record).collect::<Result<_, _>>()?;
        Ok(step)
    }
}

/// A line is the record's bytes; `NULL` is none at all, `BYTES ff 00` are bytes that make no text.
fn record(line: &str) -> Result<Option<Vec<u8>>, String> {
    if line == "NULL" {
        return Ok(None);
    }
    let Some(bytes) = line.strip_prefix("BYTES ") else {
        return Ok(Some(line.as_bytes().to_vec()));
    };
    let bytes = bytes
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16));
    let bytes = bytes.collect::<Result<_, _>>();
    bytes.map(Some).map_err(|error| format!("{line}: {error}"))
}

/// What goes wrong while the case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The worker dies at a moment that follows from the seed; another one goes on.
    KillWorker {
        seed: u64,
    },
}

/// A moment of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// In or after this step.
    pub(crate) step: usize,
    /// Before its rows are known to be committed, so that they may have to be read again.
    pub(crate) in_flight: bool,
    /// The next worker is there already.
    pub(crate) overlap: bool,
}

impl Fault {
    /// When the worker dies in a run of `step_count` steps.
    pub(crate) fn moment(self, step_count: usize) -> Option<Moment> {
        let Self::KillWorker { seed } = self else {
            return None;
        };
        let mut random = StdRng::seed_from_u64(seed);
        (step_count > 0).then(|| Moment {
            step: random.random_range(0..step_count),
            in_flight: random.random_bool(0.5),
            overlap: random.random_bool(0.3),
        })
    }
}

#[test]
fn an_insert_is_a_step_of_records() {
    let step = Step::parse("INSERT INTO clicks PARTITION 1 KEY k\n{\"a\": 1}\nNULL\nBYTES ff 00");
    let step = step.expect("an insert");
    assert_eq!((step.topic.as_str(), step.partition), ("clicks", 1));
    assert_eq!(step.key.as_deref(), Some("k"));
    let records = [Some(b"{\"a\": 1}".to_vec()), None, Some(vec![255, 0])];
    assert_eq!(step.records, records);
    let file = Step::parse("INSERT INTO folder FILE a.csv\nid,n\n1,2").expect("an insert");
    assert_eq!(file.file.as_deref(), Some("a.csv"));
    assert!(Step::parse("INSERT INTO clicks PARTITIONS 1").is_err());
    assert!(Step::parse("INSERT INTO clicks PARTITION 1\nBYTES xx").is_err());
}

#[test]
fn a_seed_gives_the_same_moment_each_time() {
    let moments: Vec<_> = (0..20)
        .map(|seed| Fault::KillWorker { seed }.moment(4))
        .collect();
    let again: Vec<_> = (0..20)
        .map(|seed| Fault::KillWorker { seed }.moment(4))
        .collect();
    assert_eq!(moments, again);
    let steps = moments.iter().flatten().map(|moment| moment.step);
    assert!(steps.clone().any(|step| step == 0) && steps.clone().any(|step| step == 3));
    assert_eq!(Fault::None.moment(4), None);
}
