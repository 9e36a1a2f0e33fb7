//! What the queries have to count, summed up from the clicks themselves.
//!
//! Used by `timed.rs`. Shares the generator with the topic and nothing with what is measured. Pure.

use std::collections::BTreeMap;

use crate::clicks::Clicks;

/// Minute as in a timestamp's text, url.
pub(super) type Group = (String, String);

/// The right answers.
pub(super) struct Expected {
    /// Clicks.
    pub(super) read: u64,
    /// Of them, those whose eventid came before.
    pub(super) duplicates: u64,
    /// Views, duplicates among them.
    pub(super) views: u64,
    /// Views by minute and url, each event once.
    pub(super) unique_views: BTreeMap<Group, u64>,
}

impl Expected {
    /// For so many clicks of a seed.
    pub(super) fn of(count: u64, seed: u64) -> Self {
        let mut clicks = Clicks::new(seed);
        let mut expected = Self {
            read: count,
            duplicates: 0,
            views: 0,
            unique_views: BTreeMap::new(),
        };
        // A duplicate comes right behind its click.
        let mut last = String::new();
        for _ in 0..count {
            let click = clicks.next();
            let is_duplicate = click == last;
            expected.duplicates += u64::from(is_duplicate);
            let mut texts = click.split('"').skip(3).step_by(4);
            let (_, _, url) = (texts.next(), texts.next(), texts.next().unwrap_or_default());
            let minute = texts.next().map(|time| &time[..16]).unwrap_or_default();
            if texts.next() == Some("view") {
                expected.views += 1;
                if !is_duplicate {
                    let group = (minute.to_owned(), url.to_owned());
                    *expected.unique_views.entry(group).or_default() += 1;
                }
            }
            if !is_duplicate {
                click.clone_into(&mut last);
            }
        }
        expected
    }

    /// Views with each event once.
    pub(super) fn unique_count(&self) -> u64 {
        self.unique_views.values().sum()
    }
}
