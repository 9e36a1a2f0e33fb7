//! What the queries have to count, summed up from the clicks themselves.
//!
//! Used by `timed.rs` and `peers/`. Shares the generator with the topic and nothing with what is measured. Pure.

use std::collections::BTreeMap;

use super::queries::Query;
use crate::clicks::Clicks;

/// Minute as in a timestamp's text, url.
pub(super) type Group = (String, String);

/// The right answers.
pub(super) struct Expected {
    /// Clicks.
    pub(super) read: u64,
    /// Of them, those whose eventid came before.
    pub(super) duplicates: u64,
    /// Views by minute and url, duplicates among them.
    pub(super) views: BTreeMap<Group, u64>,
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
            views: BTreeMap::new(),
            unique_views: BTreeMap::new(),
        };
        // All of a group, and how many of them came again. A duplicate comes right behind its click.
        let mut views: BTreeMap<Group, (u64, u64)> = BTreeMap::new();
        let mut last = String::new();
        for _ in 0..count {
            let click = clicks.next();
            let is_duplicate = click == last;
            expected.duplicates += u64::from(is_duplicate);
            let mut texts = click.split('"').skip(3).step_by(4);
            let (_, _, url) = (texts.next(), texts.next(), texts.next().unwrap_or_default());
            let minute = texts.next().map(|time| &time[..16]).unwrap_or_default();
            if texts.next() == Some("view") {
                let group = (minute.to_owned(), url.to_owned());
                let (all, repeated) = views.entry(group).or_default();
                *all += 1;
                *repeated += u64::from(is_duplicate);
            }
            if !is_duplicate {
                click.clone_into(&mut last);
            }
        }
        for (group, (all, repeated)) in views {
            expected.unique_views.insert(group.clone(), all - repeated);
            expected.views.insert(group, all);
        }
        expected
    }

    /// What a query counts.
    pub(super) fn views_of(&self, query: &Query) -> &BTreeMap<Group, u64> {
        match query.dedups {
            true => &self.unique_views,
            false => &self.views,
        }
    }
}
