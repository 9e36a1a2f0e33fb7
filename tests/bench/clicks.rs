//! The clicks of the bench: about 114 bytes each, the same for the same seed.
//!
//! Called by `topic.rs`, `recovery.rs` and the oracle in `throughput/`. Pure. Every click is well formed: what is measured is the path of a good row.
//! One in fifty comes twice, so that the dedup has something to find.

use std::fmt::Write;

use millstream_common::time::EventTime;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// 2026-05-01T10:00:00, in microseconds.
const FIRST_EVENT_US: i64 = 1_777_629_600_000_000;
/// Event time from one click to the next.
const STEP_US: i64 = 1_000;
const URL_COUNT: u32 = 100;
const USER_COUNT: u32 = 1_000;
const ACTIONS: [&str; 4] = ["view", "view", "click", "purchase"];
/// One of this many repeats the click before it.
const DUPLICATE_EVERY: u32 = 50;

/// Makes clicks, one after another.
pub(crate) struct Clicks {
    random: StdRng,
    made: u64,
    text: String,
}

impl Clicks {
    /// Clicks that follow from `seed` alone.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            made: 0,
            text: String::with_capacity(128),
        }
    }

    /// The next click, as JSON.
    pub(crate) fn next(&mut self) -> &str {
        if self.made > 0 && self.random.random_ratio(1, DUPLICATE_EVERY) {
            return &self.text;
        }
        let event = self.made;
        self.made += 1;
        let moment = EventTime(FIRST_EVENT_US + event as i64 * STEP_US).to_string();
        // Milliseconds are what clicks carry.
        let moment = &moment[..moment.len() - 3];
        let user = self.random.random_range(0..USER_COUNT);
        let url = self.random.random_range(0..URL_COUNT);
        let action = ACTIONS[self.random.random_range(0..ACTIONS.len())];
        self.text.clear();
        write!(
            self.text,
            r#"{{"eventid":"e{event:08}","userid":"u{user}","url":"/product/{url}","timestamp":"{moment}","action":"{action}"}}"#
        )
        .expect("a String takes everything");
        &self.text
    }
}
