//! Compares what the cluster delivered with the independent count. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use millstream_common::text;

use super::oracle::Oracle;
use super::results::{Counts, Rejects};

/// Differences listed in full; of more, only how many.
const DIFFERENCES_SHOWN: usize = 10;

/// What the comparison came to.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Windows and dead letters that are not as they must be.
    pub(super) differences: Vec<String>,
    lines: Vec<String>,
}

impl Verdict {
    /// Compares everything that was delivered with everything that had to be.
    pub(super) fn new(oracle: &Oracle, counts: &Counts, rejects: &Rejects) -> Self {
        let mut differences = Vec::new();
        let equal = compare(&oracle.counts, counts, &mut differences);
        let expected: BTreeMap<_, _> = oracle
            .rejected
            .iter()
            .map(|(position, code)| (*position, (*code).to_owned()))
            .collect();
        let rejected = compare(&expected, rejects, &mut differences);
        let minutes: BTreeSet<i64> = oracle.counts.keys().map(|(minute, _)| *minute).collect();
        let lines = vec![
            format!(
                "generated  {} records in {} minutes of event time, {} of them duplicates",
                text::count(oracle.record_count),
                minutes.len(),
                text::count(oracle.duplicate_count)
            ),
            format!(
                "counts     {} of {} equal the independent count",
                text::count(equal),
                text::count(oracle.counts.len() as u64)
            ),
            format!(
                "rejected   {} of {} bad or late records are in dead letters, once and with their reason",
                text::count(rejected),
                text::count(oracle.rejected.len() as u64)
            ),
        ];
        Self { differences, lines }
    }

    /// The verdict as it is printed.
    pub(super) fn render(&self) -> String {
        let mut shown = self.lines.clone();
        let cut = self.differences.iter().take(DIFFERENCES_SHOWN).cloned();
        shown.extend(cut);
        if self.differences.len() > DIFFERENCES_SHOWN {
            let more = self.differences.len() - DIFFERENCES_SHOWN;
            shown.push(format!("and {} more differences", text::count(more as u64)));
        }
        shown.push(match self.differences.is_empty() {
            true => "verdict    equal: nothing lost, nothing doubled".to_owned(),
            false => "verdict    DIFFERENT".to_owned(),
        });
        shown.join("\n")
    }
}

/// How many keys have exactly the value expected; whatever has not is a difference.
fn compare<K: Ord + Debug, V: PartialEq + Debug>(
    expected: &BTreeMap<K, V>,
    found: &BTreeMap<K, Vec<V>>,
    differences: &mut Vec<String>,
) -> u64 {
    let mut equal = 0;
    for (key, value) in expected {
        match found.get(key).map(Vec::as_slice) {
            Some([only]) if only == value => equal += 1,
            Some(others) => {
                differences.push(format!("{key:?}: {value:?} expected, {others:?} found"))
            }
            None => differences.push(format!("{key:?}: {value:?} expected, nothing found")),
        }
    }
    for (key, values) in found {
        if !expected.contains_key(key) {
            differences.push(format!("{key:?}: nothing expected, {values:?} found"));
        }
    }
    equal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Oracle {
        let mut oracle = Oracle::default();
        oracle.counts.insert((0, "view".to_owned()), 3);
        oracle.counts.insert((60, "view".to_owned()), 5);
        oracle.rejected.insert((2, 7), "late");
        oracle
    }

    fn counts(first: &[u64], second: &[u64]) -> Counts {
        Counts::from([
            ((0, "view".to_owned()), first.to_vec()),
            ((60, "view".to_owned()), second.to_vec()),
        ])
    }

    fn rejects() -> Rejects {
        Rejects::from([((2, 7), vec!["late".to_owned()])])
    }

    #[test]
    fn equal_is_equal() {
        let verdict = Verdict::new(&expected(), &counts(&[3], &[5]), &rejects());
        assert!(verdict.differences.is_empty(), "{verdict:?}");
        assert!(
            verdict
                .render()
                .ends_with("equal: nothing lost, nothing doubled")
        );
    }

    #[test]
    fn lost_doubled_wrong_and_invented_rows_are_all_found() {
        let doubled = Verdict::new(&expected(), &counts(&[3, 3], &[4]), &rejects());
        assert_eq!(doubled.differences.len(), 2);
        let lost = Verdict::new(&expected(), &Counts::new(), &Rejects::new());
        assert_eq!(lost.differences.len(), 3);
        let mut invented = rejects();
        invented.insert((0, 0), vec!["late".to_owned()]);
        let verdict = Verdict::new(&expected(), &counts(&[3], &[5]), &invented);
        assert_eq!(verdict.differences.len(), 1);
        assert!(verdict.render().ends_with("DIFFERENT"));
    }
}
