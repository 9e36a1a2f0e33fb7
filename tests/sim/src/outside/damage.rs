//! Objects of the storage that read wrong: flipped bits, an end that is missing, or all of them gone, until they are put back from a backup.
//!
//! Asked by the simulated storage at each read. Pure but for the chance handed in. What has once read wrong is remembered: a job that
//! gives up, or a sink that waits, has to name it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

/// So many bytes of an Arrow file are hit: a few values of a column.
const WOUND_BYTES: usize = 48;

/// What is damaged, and what is to be.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    /// A coming read of an object under this prefix finds it damaged, until then.
    wanted: Option<(Wound, Duration)>,
    /// Reads that the wound still passes by.
    left_to_skip: u32,
    damaged: BTreeMap<String, (Wound, Duration)>,
}

/// How an object reads wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Wound {
    /// Which objects: `log/`, `state/`, `segments/`.
    pub(crate) prefix: &'static str,
    /// So many reads come before: those of a log begin with its first object.
    pub(crate) skipped_count: u32,
    /// Where, as a share of its length.
    pub(crate) place: f64,
    /// The end from there on is missing; otherwise bits are flipped.
    pub(crate) is_cut: bool,
}

/// Of the cuts into objects that the log names, those that leave nothing.
const GONE_SHARE: f64 = 0.5;

impl Damage {
    /// From now on one object reads wrong, until then.
    pub(crate) fn want(&mut self, wound: Wound, until: Duration) {
        self.left_to_skip = wound.skipped_count;
        self.wanted = Some((wound, until));
    }

    /// What a read of the object brings; `None` if it is gone.
    pub(crate) fn read(&mut self, key: &str, value: Bytes, now: Duration) -> Option<Bytes> {
        let left_to_skip = &mut self.left_to_skip;
        let is_wanted = |(wound, until): &mut (Wound, Duration)| {
            let fits = now < *until && key.starts_with(wound.prefix) && !value.is_empty();
            let is_skipped = fits && *left_to_skip > 0;
            *left_to_skip -= u32::from(is_skipped);
            fits && !is_skipped
        };
        if let Some(wanted) = self.wanted.take_if(is_wanted) {
            self.damaged.insert(key.to_owned(), wanted);
        }
        match self.damaged.get(key) {
            Some((wound, until)) if now < *until => wound.apply(&value),
            _ => Some(value),
        }
    }

    /// A key that was free is written anew.
    pub(crate) fn forget(&mut self, key: &str) {
        self.damaged.remove(key);
    }

    /// Whether a text names an object that has read wrong.
    pub(crate) fn is_named(&self, text: &str) -> bool {
        self.damaged.keys().any(|key| text.contains(key))
    }
}

impl Wound {
    fn apply(&self, value: &Bytes) -> Option<Bytes> {
        // The rows of an Arrow file are at its end, behind twice as much that says what they are.
        let is_text = !matches!(self.prefix, "state/" | "segments/");
        let share = match is_text || self.is_cut {
            true => self.place,
            false => 0.7 + 0.3 * self.place,
        };
        let place = (share * value.len() as f64) as usize;
        let place = place.min(value.len() - 1);
        if self.is_cut {
            let is_gone = !is_text && self.place < GONE_SHARE;
            return (!is_gone).then(|| value.slice(..place));
        }
        let mut bytes = value.to_vec();
        // In a text the worst is another number: it still reads well.
        let next_digit = bytes[place..].iter().position(u8::is_ascii_digit);
        let ahead = next_digit.filter(|_| is_text).unwrap_or_default();
        let first = place + ahead;
        let end = match is_text {
            true => first + 1,
            false => bytes.len().min(first + WOUND_BYTES),
        };
        for byte in &mut bytes[first..end] {
            *byte ^= 1;
        }
        Some(Bytes::from(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_reads_wrong_until_it_is_put_back() {
        let mut damage = Damage::default();
        let wound = Wound {
            prefix: "log/",
            skipped_count: 1,
            place: 0.5,
            is_cut: false,
        };
        damage.want(wound, Duration::from_secs(5));
        let value = Bytes::from_static(b"abcd");
        let mut read = |key: &str, second| {
            let read = damage.read(key, value.clone(), Duration::from_secs(second));
            read == Some(value.clone())
        };
        assert!(read("state/1", 1));
        assert!(read("log/0", 1), "passed by");
        assert!(!read("log/1", 1));
        assert!(read("log/2", 2), "another one");
        assert!(!read("log/1", 4));
        assert!(read("log/1", 5));
        assert!(damage.is_named("read log/1: nonsense"));
    }

    #[test]
    fn of_what_the_log_names_some_objects_are_gone() {
        let value = Bytes::from_static(b"abcdefgh");
        let left = |prefix, place| {
            let wound = Wound {
                prefix,
                skipped_count: 0,
                place,
                is_cut: true,
            };
            wound.apply(&value).map(|left| left.len())
        };
        assert_eq!(left("state/", 0.1), None);
        assert_eq!(left("segments/", 0.75), Some(6));
        assert_eq!(left("log/", 0.25), Some(2), "a log would only be shorter");
    }
}
