//! Claims: the splits of a job, from being found to being recorded with an Epoch.
//!
//! Pure; owned by a job's actor. A found split is given to a reader at an assignment, or between two epochs while the job
//! runs; its first Epoch entry records it. Until then a failure takes the claim back and it is given out again (INV-5:
//! nothing before that entry has happened). What a bounded source consists of is recorded before its turn comes, as
//! [`SplitStatus::Expected`]: whoever goes on with the job must not find more.

use std::collections::BTreeMap;

use millstream_common::ids::{SourceIndex, SplitId};
use millstream_common::log::entry::{Assignment, JobProgress, SplitPlacement};
use millstream_common::mutant::{self, Mutant};
use millstream_common::plan::JobPlan;
use millstream_common::report::{AssignedSplit, SplitProgress, SplitStart, SplitStatus};

use crate::assign::{self, SplitsBySource};

/// Found, but in no Epoch entry yet.
#[derive(Debug, Default)]
pub struct Claims {
    found: BTreeMap<SourceIndex, BTreeMap<SplitId, Found>>,
}

#[derive(Debug)]
struct Found {
    progress: SplitProgress,
    /// A reader of the running generation has it.
    given: bool,
}

impl Found {
    fn is_expected(&self) -> bool {
        is_expected(&self.progress)
    }

    /// A reader has to be given it.
    fn is_ungiven(&self) -> bool {
        !self.given && !self.is_expected()
    }
}

impl Claims {
    /// Takes splits that an enumerator has found; of those known already only what was expected begins now.
    pub fn add(
        &mut self,
        source: SourceIndex,
        splits: impl IntoIterator<Item = (SplitId, SplitProgress)>,
        recorded: &JobProgress,
    ) {
        let known = recorded.splits.get(&source);
        let found = self.found.entry(source).or_default();
        for (split, progress) in splits {
            let recorded = known.and_then(|known| known.get(&split));
            let is_begun = recorded.is_some_and(|recorded| !is_expected(recorded));
            let is_found = found.get(&split).is_some_and(|found| !found.is_expected());
            if !is_begun && !is_found {
                let given = false;
                found.insert(split, Found { progress, given });
            }
        }
    }

    /// What no reader is given and the next Epoch entry has to record.
    pub fn expected(&self) -> BTreeMap<SourceIndex, BTreeMap<SplitId, SplitProgress>> {
        let of_source = |found: &BTreeMap<SplitId, Found>| {
            let expected = found.iter().filter(|(_, found)| found.is_expected());
            expected
                .map(|(split, found)| (split.clone(), found.progress.clone()))
                .collect()
        };
        self.found
            .iter()
            .map(|(source, found)| (*source, of_source(found)))
            .collect()
    }

    /// Whether a split of `source` waits for its first Epoch entry.
    pub fn is_waiting(&self, source: SourceIndex) -> bool {
        self.found
            .get(&source)
            .is_some_and(|found| !found.is_empty())
    }

    /// Whether any split waits to be given to a reader.
    pub fn has_ungiven(&self) -> bool {
        self.found
            .values()
            .flat_map(BTreeMap::values)
            .any(Found::is_ungiven)
    }

    /// Forgets what an Epoch entry has recorded.
    pub fn recorded(&mut self, recorded: &JobProgress) {
        for (source, found) in &mut self.found {
            if let Some(known) = recorded.splits.get(source) {
                found.retain(|split, found| match known.get(split) {
                    None => true,
                    Some(known) => is_expected(known) && !found.is_expected(),
                });
            }
        }
    }

    /// All splits that a new generation has to read, recorded or found; they count as given.
    pub fn give_all(&mut self, recorded: &JobProgress) -> Vec<SplitStart> {
        let mut starts = Vec::new();
        for (source, splits) in &recorded.splits {
            let open = splits
                .iter()
                .filter(|(_, progress)| is_open(progress.status));
            starts.extend(open.map(|(split, progress)| {
                SplitStart {
                    source: *source,
                    split: split.clone(),
                    progress: SplitProgress {
                        watermark: progress
                            .watermark
                            .filter(|_| !mutant::is(Mutant::ForgetSplitWatermark)),
                        ..progress.clone()
                    },
                }
            }));
        }
        self.take_back();
        starts.extend(self.give_new(recorded));
        starts
    }

    /// The found splits that no reader has, to be begun at the source's recorded watermark.
    pub fn give_new(&mut self, recorded: &JobProgress) -> Vec<SplitStart> {
        let mut starts = Vec::new();
        for (source, found) in &mut self.found {
            let floor = recorded.watermarks.get(source).copied();
            for (split, found) in found.iter_mut().filter(|(_, found)| found.is_ungiven()) {
                found.given = !mutant::is(Mutant::GiveSplitTwice);
                let mut progress = found.progress.clone();
                progress.watermark = progress.watermark.max(floor);
                starts.push(SplitStart {
                    source: *source,
                    split: split.clone(),
                    progress,
                });
            }
        }
        starts
    }

    /// The generation that was given splits is gone.
    fn take_back(&mut self) {
        for found in self.found.values_mut().flat_map(BTreeMap::values_mut) {
            found.given = false;
        }
    }
}

fn is_expected(progress: &SplitProgress) -> bool {
    progress.status == SplitStatus::Expected
}

/// Whether a reader of each generation reads such a split.
fn is_open(status: SplitStatus) -> bool {
    match status {
        SplitStatus::Active | SplitStatus::Idle => true,
        SplitStatus::Expected | SplitStatus::Ended => false,
    }
}

/// Whether every source has ended: all its splits have, and no more can come.
pub fn all_ended(
    plan: &JobPlan,
    exhausted: &[bool],
    claims: &Claims,
    recorded: &JobProgress,
) -> bool {
    (0..plan.sources.len()).all(|index| {
        let source = SourceIndex(index as u32);
        let splits = recorded.splits.get(&source);
        let ended = |progress: &SplitProgress| progress.status == SplitStatus::Ended;
        let all_splits = splits.is_none_or(|splits| splits.values().all(ended));
        exhausted[index] && all_splits && !claims.is_waiting(source)
    })
}

/// Takes splits that have ended out of an assignment: nobody reads them any more.
pub fn forget_ended(
    assignment: &mut Assignment,
    moved: &BTreeMap<SourceIndex, BTreeMap<SplitId, SplitProgress>>,
) {
    let has_ended = |placed: &SplitPlacement| {
        let splits = moved.get(&placed.source);
        let progress = splits.and_then(|splits| splits.get(&placed.split));
        progress.is_some_and(|progress| progress.status == SplitStatus::Ended)
    };
    assignment.splits.retain(|placed| !has_ended(placed));
}

/// The splits by source, for an assignment.
pub fn by_source(starts: &[SplitStart]) -> SplitsBySource {
    let mut splits = SplitsBySource::new();
    for start in starts {
        splits
            .entry(start.source)
            .or_default()
            .push(start.split.clone());
    }
    splits
}

/// The starts with the readers that `assignment` names for them.
pub fn with_readers(starts: Vec<SplitStart>, assignment: &Assignment) -> Vec<AssignedSplit> {
    let readers: BTreeMap<(SourceIndex, &SplitId), u32> = assignment
        .splits
        .iter()
        .map(|placement| ((placement.source, &placement.split), placement.task_index))
        .collect();
    let assigned = starts.into_iter().filter_map(|start| {
        let task_index = *readers.get(&(start.source, &start.split))?;
        Some(AssignedSplit { task_index, start })
    });
    assigned.collect()
}

/// Places new starts in a running assignment.
pub fn place_new(
    starts: Vec<SplitStart>,
    assignment: &mut Assignment,
    task_count: u32,
) -> Vec<AssignedSplit> {
    for (source, splits) in by_source(&starts) {
        assign::add_splits(assignment, task_count, source, &splits);
    }
    with_readers(starts, assignment)
}

#[cfg(test)]
mod tests {
    use millstream_common::time::EventTime;

    use super::*;

    const SOURCE: SourceIndex = SourceIndex(0);

    fn at(position: i64, status: SplitStatus) -> SplitProgress {
        SplitProgress {
            position,
            end: None,
            watermark: None,
            status,
            identity: None,
            gaps: None,
        }
    }

    fn recorded(splits: &[(&str, SplitProgress)]) -> JobProgress {
        let named = splits
            .iter()
            .map(|(name, progress)| (SplitId::from(*name), progress.clone()));
        JobProgress {
            splits: BTreeMap::from([(SOURCE, named.collect())]),
            watermarks: BTreeMap::from([(SOURCE, EventTime(60))]),
            ..JobProgress::default()
        }
    }

    #[test]
    fn a_found_split_begins_at_the_recorded_watermark_and_is_given_once() {
        let recorded = recorded(&[]);
        let mut claims = Claims::default();
        claims.add(
            SOURCE,
            [("t-1".into(), at(5, SplitStatus::Active))],
            &recorded,
        );
        let starts = claims.give_new(&recorded);
        assert_eq!(starts.len(), 1);
        assert_eq!(starts[0].progress.watermark, Some(EventTime(60)));
        assert!(claims.give_new(&recorded).is_empty());
        assert!(claims.is_waiting(SOURCE), "until an entry records it");
    }

    #[test]
    fn after_a_failure_unrecorded_claims_are_given_again_and_ended_splits_are_not() {
        let recorded = recorded(&[
            ("old", at(9, SplitStatus::Active)),
            ("done", at(3, SplitStatus::Ended)),
        ]);
        let mut claims = Claims::default();
        claims.add(
            SOURCE,
            [("new".into(), at(0, SplitStatus::Active))],
            &recorded,
        );
        claims.give_new(&recorded);
        let names: Vec<String> = claims
            .give_all(&recorded)
            .into_iter()
            .map(|start| start.split.0)
            .collect();
        assert_eq!(names, ["old", "new"]);
    }

    #[test]
    fn a_recorded_split_is_not_claimed_again() {
        let recorded = recorded(&[("old", at(9, SplitStatus::Active))]);
        let mut claims = Claims::default();
        claims.add(
            SOURCE,
            [("old".into(), at(0, SplitStatus::Active))],
            &recorded,
        );
        assert!(!claims.is_waiting(SOURCE));
    }
    #[test]
    fn what_is_expected_is_recorded_without_a_reader_and_given_when_its_turn_comes() {
        let mut claims = Claims::default();
        let empty = recorded(&[]);
        let expected = ("b".into(), at(0, SplitStatus::Expected));
        let begun = ("a".into(), at(0, SplitStatus::Active));
        claims.add(SOURCE, [begun, expected], &empty);
        let names = |starts: Vec<SplitStart>| -> Vec<String> {
            starts.into_iter().map(|start| start.split.0).collect()
        };
        assert_eq!(names(claims.give_new(&empty)), ["a"]);
        assert!(!claims.has_ungiven());
        let to_record: Vec<SplitId> = claims
            .expected()
            .remove(&SOURCE)
            .map_or_else(Vec::new, |of_source| of_source.into_keys().collect());
        assert_eq!(to_record, ["b".into()]);

        let after = recorded(&[
            ("a", at(3, SplitStatus::Ended)),
            ("b", at(0, SplitStatus::Expected)),
        ]);
        claims.recorded(&after);
        assert!(!claims.is_waiting(SOURCE));
        assert!(claims.expected()[&SOURCE].is_empty());
        // Whoever goes on gives it to nobody before its turn comes.
        let mut of_the_next = Claims::default();
        assert!(of_the_next.give_all(&after).is_empty());
        let begun = ("b".into(), at(0, SplitStatus::Active));
        of_the_next.add(SOURCE, [begun], &after);
        of_the_next.recorded(&after);
        assert!(
            of_the_next.is_waiting(SOURCE),
            "it has begun in no epoch yet"
        );
        assert_eq!(names(of_the_next.give_all(&after)), ["b"]);
    }
    #[test]
    fn an_assignment_forgets_a_split_when_an_epoch_says_that_it_has_ended() {
        let mut assignment = Assignment::default();
        let found = ["a", "b"].map(SplitId::from);
        assign::add_splits(&mut assignment, 1, SOURCE, &found);
        let moved = [
            ("a", at(3, SplitStatus::Ended)),
            ("b", at(3, SplitStatus::Active)),
        ];
        forget_ended(&mut assignment, &recorded(&moved).splits);
        let left: Vec<&SplitId> = assignment
            .splits
            .iter()
            .map(|placed| &placed.split)
            .collect();
        assert_eq!(left, [&found[1]]);
    }
}
