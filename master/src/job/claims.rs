//! Claims: the splits of a job, from being found to being recorded with an Epoch.
//!
//! Pure; owned by a job's actor. A found split is given to a reader at an assignment, or between two epochs while the job
//! runs; its first Epoch entry records it. Until then a failure takes the claim back and it is given out again (INV-5:
//! nothing before that entry has happened).

use std::collections::BTreeMap;

use millstream_common::ids::{SourceIndex, SplitId};
use millstream_common::log::entry::{Assignment, JobProgress};
use millstream_common::mutant::{self, Mutant};
use millstream_common::plan::JobPlan;
use millstream_common::replay_split::is_replay;
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

impl Claims {
    /// Takes splits that an enumerator has found; known ones are left as they are.
    pub fn add(
        &mut self,
        source: SourceIndex,
        splits: impl IntoIterator<Item = (SplitId, SplitProgress)>,
        recorded: &JobProgress,
    ) {
        let known = recorded.splits.get(&source);
        let found = self.found.entry(source).or_default();
        for (split, progress) in splits {
            let is_recorded = known.is_some_and(|known| known.contains_key(&split));
            if !is_recorded {
                found.entry(split).or_insert(Found {
                    progress,
                    given: false,
                });
            }
        }
    }

    /// Every split of `source` that is known, recorded or not; replays are nothing that could be found.
    pub fn known(
        &self,
        source: SourceIndex,
        recorded: &JobProgress,
    ) -> BTreeMap<SplitId, SplitProgress> {
        let mut known = recorded.splits.get(&source).cloned().unwrap_or_default();
        if let Some(found) = self.found.get(&source) {
            known.extend(
                found
                    .iter()
                    .map(|(split, found)| (split.clone(), found.progress.clone())),
            );
        }
        known.retain(|split, _| !is_replay(split));
        known
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
            .any(|found| !found.given)
    }

    /// Forgets what an Epoch entry has recorded.
    pub fn recorded(&mut self, recorded: &JobProgress) {
        for (source, found) in &mut self.found {
            if let Some(known) = recorded.splits.get(source) {
                found.retain(|split, _| !known.contains_key(split));
            }
        }
    }

    /// All splits that a new generation has to read, recorded or found; they count as given.
    pub fn give_all(&mut self, recorded: &JobProgress) -> Vec<SplitStart> {
        let mut starts = Vec::new();
        for (source, splits) in &recorded.splits {
            let open = splits
                .iter()
                .filter(|(_, progress)| progress.status != SplitStatus::Ended);
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
            for (split, found) in found.iter_mut().filter(|(_, found)| !found.given) {
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
        assert_eq!(
            claims.known(SOURCE, &recorded)[&SplitId::from("old")].position,
            9
        );
    }
}
