//! Records that are gone before they were read: what a lost position comes to, in numbers.
//!
//! Called by `reader_thread.rs` when the client says that a position is not in its partition. Retention that has passed a position
//! leaves a gap, which a person may have allowed to be passed over (`on_gap = 'skip'`): a step of its own, recorded with the
//! positions (INV-5). A position that the partition should have had and has not is another matter: what is there
//! now may be other records under the same offsets, so that is never passed over. Pure.

use millstream_common::error::Kind;
use millstream_common::plan::connector::OnGap;

use crate::consume::ConsumeError;

/// What a partition holds, and how far it has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holds {
    pub(super) partition: i32,
    /// The next offset to be read.
    pub(super) position: i64,
    /// The first that is there.
    pub(super) first: i64,
    /// The next to be written.
    pub(super) next: i64,
}

/// What to do about a lost position.
#[derive(Debug)]
pub(super) enum Found {
    /// Go on behind the gap.
    Skip,
    /// The reader ends.
    Fail(ConsumeError),
}

impl Holds {
    pub(super) fn has_gap(&self) -> bool {
        self.position < self.first
    }
}

/// Decides about `lost`; `others` are the partitions that are read beside it, for a person to know of all at once.
pub(super) fn decide(
    on_gap: OnGap,
    (source, topic): (&str, &str),
    lost: Holds,
    others: &[Holds],
) -> Found {
    match (lost.has_gap(), on_gap) {
        (true, OnGap::Skip) => Found::Skip,
        (true, OnGap::Fail) => {
            let all = others.iter().filter(|other| other.has_gap());
            let gaps: Vec<String> = [&lost].into_iter().chain(all).map(gap_text).collect();
            Found::Fail(failed(
                topic,
                lost.partition,
                format!(
                    "retention passed what the job has read: {}; write on_gap = 'skip' in source {source} and go on behind the gap \
                 with --from-checkpoint latest, or begin again at what is there with --fresh; raise retention.ms for the next time",
                    gaps.join("; ")
                ),
            ))
        }
        (false, OnGap::Skip | OnGap::Fail) => Found::Fail(failed(
            topic,
            lost.partition,
            format!(
                "offset {} was not in the partition, which holds offsets {} to {}: the topic was made anew, or a broker lost records; \
             no offset means what it did, so start the job with --fresh to begin again at what is there",
                lost.position,
                lost.first,
                lost.next - 1
            ),
        )),
    }
}

fn gap_text(holds: &Holds) -> String {
    let Holds {
        partition,
        position,
        first,
        next: _,
    } = holds;
    format!(
        "partition {partition} is read up to offset {position} and begins at {first}, so {} records (offsets {position} to {}) are gone",
        first - position,
        first - 1
    )
}

fn failed(topic: &str, partition: i32, cause: String) -> ConsumeError {
    ConsumeError {
        kind: Kind::User,
        what: format!("read partition {topic}-{partition}"),
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(partition: i32, position: i64, first: i64) -> Holds {
        Holds {
            partition,
            position,
            first,
            next: 1_000,
        }
    }

    fn refusal(on_gap: OnGap, lost: Holds, others: &[Holds]) -> String {
        match decide(on_gap, ("clicks", "clicks_topic"), lost, others) {
            Found::Skip => panic!("it is passed over"),
            Found::Fail(error) => error.to_string(),
        }
    }

    #[test]
    fn a_gap_is_told_in_numbers_with_those_beside_it_and_what_to_do() {
        let others = [holds(1, 7, 7), holds(2, 0, 30)];
        let text = refusal(OnGap::Fail, holds(0, 5, 105), &others);
        for part in [
            "read partition clicks_topic-0: ",
            "partition 0 is read up to offset 5 and begins at 105, so 100 records (offsets 5 to 104) are gone",
            "partition 2 is read up to offset 0 and begins at 30, so 30 records",
            "on_gap = 'skip' in source clicks",
            "--from-checkpoint latest",
            "--fresh",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(!text.contains("partition 1 "), "{text}");
    }

    #[test]
    fn only_what_lies_before_the_first_record_is_passed_over() {
        let skipped = decide(OnGap::Skip, ("clicks", "t"), holds(0, 5, 105), &[]);
        assert!(matches!(skipped, Found::Skip));
        for lost in [holds(0, 5_000, 105), holds(0, 500, 105)] {
            let text = refusal(OnGap::Skip, lost, &[]);
            assert!(text.contains("holds offsets 105 to 999"), "{text}");
        }
    }
}
