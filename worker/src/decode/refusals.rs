//! What is wrong with the records of a batch: for each at most one refusal, the first.
//!
//! Filled by every step of decoding, in the order of DESIGN §2.1; read by `dead_letters.rs` at the end. A step must
//! offer its refusals in column order. Costs nothing while all records are good.

use millstream_common::dead_letter::Code;

/// Why a record is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Its index in the input.
    pub(super) record: usize,
    pub(super) code: Code,
    /// Names column or rule, and the problem.
    pub(super) reason: String,
    /// As far as it was decoded.
    pub(super) event_time: Option<i64>,
}

/// The refusals of one batch.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// By record; empty until the first refusal.
    refused: Vec<bool>,
    list: Vec<Refusal>,
    record_count: usize,
}

impl Refusals {
    /// For an input of `record_count` records.
    pub(super) fn new(record_count: usize) -> Self {
        Self {
            record_count,
            ..Self::default()
        }
    }

    /// Refuses `record`, unless it is refused already.
    #[cold]
    pub(super) fn refuse(&mut self, record: usize, code: Code, reason: impl FnOnce() -> String) {
        if self.refused.is_empty() {
            self.refused.resize(self.record_count, false);
        }
        if std::mem::replace(&mut self.refused[record], true) {
            return;
        }
        self.list.push(Refusal {
            record,
            code,
            reason: reason(),
            event_time: None,
        });
    }

    /// How many records are refused.
    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// Whether `record` is refused.
    #[inline]
    pub(super) fn is_refused(&self, record: usize) -> bool {
        self.refused.get(record).copied().unwrap_or(false)
    }

    /// The refusals from the `first` on, to add what was found out about their records.
    pub(super) fn since(&mut self, first: usize) -> &mut [Refusal] {
        &mut self.list[first..]
    }

    /// All refusals, in order of record.
    pub(super) fn into_sorted(mut self) -> Vec<Refusal> {
        self.list.sort_by_key(|refusal| refusal.record);
        self.list
    }
}

/// The longest value shown in a reason.
const SHOWN_CHARS_MAX: usize = 80;

/// A value for people: cut, control characters escaped.
pub(super) fn shown(value: &str) -> String {
    let mut text: String = value
        .chars()
        .take(SHOWN_CHARS_MAX)
        .flat_map(printable)
        .collect();
    if value.chars().nth(SHOWN_CHARS_MAX).is_some() {
        text.push_str("...");
    }
    text
}

fn printable(character: char) -> impl Iterator<Item = char> {
    let escaped = character.is_control().then(|| character.escape_default());
    let plain = (!character.is_control()).then_some(character);
    escaped.into_iter().flatten().chain(plain)
}
