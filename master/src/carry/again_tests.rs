//! Plans of SQL that has changed more than once: what the second change must not forget, and must not promise.

use millstream_common::ids::Epoch;
use millstream_common::log::entry::JobProgress;
use millstream_common::plan::JobPlan;

use super::outputs::numbered_as;
use super::tests::{GOES_ON, SINKS, VIEWS, old, progress, sql, with_sink};
use super::*;

/// Goes on with `new`, which has to fit.
fn on(old: &JobPlan, new: JobPlan, progress: &JobProgress) -> (JobPlan, JobProgress) {
    let new = numbered_as(old, new);
    let carried = carry(old, &new, progress, GOES_ON).expect("it fits");
    (new, carried.progress)
}

fn refusal(old: &JobPlan, new: JobPlan, progress: &JobProgress) -> String {
    let new = numbered_as(old, new);
    let refused = carry(old, &new, progress, GOES_ON);
    refused.expect_err("it does not fit").join("; ")
}

/// From a long past.
fn kept_from_4() -> JobProgress {
    JobProgress {
        retained_from: Epoch(4),
        ..progress()
    }
}

const RETAINED: &str = ", start = 'retained'";

#[test]
fn a_snapshot_that_no_barrier_has_asked_for_yet_is_asked_for_under_the_next_plan_too() {
    let changes = || with_sink("views", ", emit = 'changes'");
    let (first, begun) = on(&old(), changes(), &progress());
    assert_eq!(begun.snapshots.len(), 1);
    let (_, again) = on(&first, changes(), &begun);
    assert_eq!(again.snapshots, begun.snapshots);
    let late = "CREATE SINK late FROM clicks.dead_letters WITH (connector = 'console');\
        CREATE SINK all FROM firsts WITH (connector = 'console');";
    let without = numbered_as(&first, sql("", late));
    let terms = Terms {
        may_drop: true,
        ..GOES_ON
    };
    let carried = carry(&first, &without, &begun, terms).expect("it fits");
    assert!(
        carried.progress.snapshots.is_empty(),
        "its operator is gone"
    );
}

#[test]
fn what_nobody_was_shipped_for_a_while_is_not_what_a_sink_begins_with_or_goes_back_to() {
    let (with, begun) = on(&old(), with_sink("firsts", ""), &kept_from_4());
    let firsts = with.sinks[2].output;
    assert_eq!(begun.oldest_of(firsts), Epoch(9), "nobody had read it");
    // Nobody reads it from 12 to 15.
    let at = |epoch: u64, progress: &JobProgress| {
        let sinks = [0, 1, 2].map(|sink| (SinkIndex(sink), Epoch(epoch)));
        JobProgress {
            epoch: Epoch(epoch),
            sink_markers: sinks.into(),
            ..progress.clone()
        }
    };
    let (without, gone) = on(&with, sql(VIEWS, SINKS), &at(12, &begun));
    assert_eq!(
        gone.oldest_of(firsts),
        Epoch(9),
        "it was shipped up to here"
    );
    let other = || {
        let sinks =
            format!("{SINKS}CREATE SINK other FROM firsts WITH (connector = 'console'{RETAINED});");
        sql(VIEWS, &sinks)
    };
    let text = refusal(&without, other(), &at(15, &gone));
    assert!(text.contains("no sink has read firsts"), "{text}");
    let (again, back) = on(&without, with_sink("firsts", ""), &at(15, &gone));
    assert_eq!(back.oldest_of(firsts), Epoch(15));
    let sinks = format!(
        "{SINKS}CREATE SINK more FROM firsts WITH (connector = 'console');\
        CREATE SINK other FROM firsts WITH (connector = 'console'{RETAINED});"
    );
    let (_, beside) = on(&again, sql(VIEWS, &sinks), &at(20, &back));
    assert_eq!(beside.sink_starts[&SinkIndex(3)], Epoch(15));
}

#[test]
fn a_name_that_a_sink_of_the_life_had_does_not_begin_with_what_is_kept() {
    let (with, begun) = on(&old(), with_sink("views", ""), &kept_from_4());
    let (without, gone) = on(&with, sql(VIEWS, SINKS), &begun);
    assert_eq!(gone.former_sinks.iter().collect::<Vec<_>>(), ["more"]);
    let text = refusal(&without, with_sink("views", RETAINED), &gone);
    assert!(
        text.contains("the job had a sink of that name before"),
        "{text}"
    );
    // Also when there was yet another plan between.
    let (same, still) = on(&without, sql(VIEWS, SINKS), &gone);
    let text = refusal(&same, with_sink("views", RETAINED), &still);
    assert!(text.contains("give the new sink another name"), "{text}");
    let (_, now) = on(&same, with_sink("views", ", start = 'now'"), &still);
    assert!(now.former_sinks.is_empty(), "it is there");
}

#[test]
fn a_sink_that_begins_with_what_is_kept_may_be_behind_its_quota_until_it_has_caught_up() {
    let (_, begun) = on(&old(), with_sink("views", RETAINED), &kept_from_4());
    assert_eq!(begun.excused_sinks, [SinkIndex(2)].into());
    let (_, now) = on(&old(), with_sink("views", ""), &kept_from_4());
    assert!(now.excused_sinks.is_empty());
}
