//! What a job tells of its epochs and placements, span by span.

use std::sync::Arc;

use millstream_common::time::SystemClock;

use super::again::{AGAIN, LONG_AGO_US};
use super::*;
use crate::replay::retold::Retold;
use crate::testing::{ENDLESS, KeptSpans, plan};

fn job_entry() -> JobEntry {
    JobEntry {
        job: "numbers".into(),
        incarnation: Incarnation::fresh(),
        sql: String::new(),
        plan: plan(ENDLESS),
        submitted_at_us: 10,
        submission: None,
    }
}

fn epoch_entry(job: &JobEntry) -> EpochEntry {
    EpochEntry::empty(
        (&job.job, job.incarnation),
        Epoch(0),
        Epoch(2),
        Generation(2),
    )
}

/// Of `entry`, with the spans that it tells.
fn traces(entry: &JobEntry) -> (JobTraces, Arc<KeptSpans>) {
    let kept = Arc::new(KeptSpans::default());
    let traces = JobTraces::new(kept.clone(), Arc::new(SystemClock::new()), entry);
    (traces, kept)
}

#[test]
fn a_loss_during_a_recovery_prolongs_it_and_the_trace_is_whole() {
    let (mut traces, kept) = traces(&job_entry());
    traces.lost(Generation(3), "worker w1 is lost", 100, 900);
    let placement = traces.of_placement();
    traces.assigned(Generation(5), 950);
    traces.lost(Generation(5), "worker w2 is lost", 960, 970);
    assert_eq!(traces.of_placement(), placement, "it is the same recovery");
    traces.assigned(Generation(7), 980);
    traces.deployed(Generation(7), 990);
    traces.settled(Some(Epoch(8)), Generation(7), 1_000);
    traces.settled(Some(Epoch(9)), Generation(7), 2_000);
    assert_eq!(
        kept.names(),
        [
            "detect",
            "assign",
            "detect",
            "assign",
            "deploy",
            "first_epoch",
            "recovery"
        ]
    );
    let spans = kept.spans();
    let root = spans.last().expect("the root");
    assert_eq!((root.parent, root.start_us, root.end_us), (0, 100, 1_000));
    for span in spans.iter().take(spans.len() - 1) {
        assert_eq!(span.parent, root.context.span, "{span:?}");
    }
    let first = &spans[spans.len() - 2];
    assert_eq!(first.links, Vec::from_iter(traces.of_epoch(Epoch(8))));
}

#[test]
fn a_submission_is_told_by_who_takes_it_and_an_epoch_begins_where_the_last_one_ended() {
    let entry = job_entry();
    let (mut traces, kept) = traces(&entry);
    traces.submitted(&entry, Epoch(0), 10);
    traces.assigned(Generation(2), 20);
    traces.deployed(Generation(2), 30);
    traces.barrier_sent(80);
    traces.collected(90);
    traces.barrier_sent(180);
    traces.collected(190);
    let committed = epoch_entry(&entry);
    traces.appended(&committed, 190);
    traces.committed(&committed, 200);
    traces.settled(Some(committed.epoch), Generation(2), 200);
    assert_eq!(
        kept.names(),
        [
            "assign",
            "deploy",
            "collect",
            "commit",
            "epoch",
            "first_epoch"
        ]
    );
    let spans = kept.spans();
    let (collect, commit, epoch) = (&spans[2], &spans[3], &spans[4]);
    assert_eq!((epoch.start_us, epoch.end_us), (80, 200));
    assert_eq!((collect.start_us, collect.end_us), (180, 190));
    assert_eq!((commit.start_us, commit.parent), (190, epoch.context.span));
}

#[test]
fn a_loss_while_an_epoch_is_on_its_way_into_the_log_leaves_the_epoch_whole() {
    let entry = job_entry();
    let (mut traces, kept) = traces(&entry);
    traces.deployed(Generation(2), 30);
    traces.barrier_sent(80);
    traces.collected(90);
    let committed = epoch_entry(&entry);
    traces.appended(&committed, 91);
    traces.lost(Generation(2), "worker w1 is lost", 85, 95);
    traces.committed(&committed, 99);
    let spans = kept.spans();
    let told = |name: &str| {
        let span = spans.iter().find(|span| span.name == name);
        span.map(|span| (span.start_us, span.end_us))
    };
    assert_eq!(told("collect"), Some((80, 90)));
    assert_eq!(told("commit"), Some((90, 99)));
    assert_eq!(told("epoch"), Some((30, 99)));
}

#[test]
fn an_epoch_without_a_barrier_has_nothing_of_a_barrier_that_came_to_nothing() {
    let entry = job_entry();
    let (mut traces, kept) = traces(&entry);
    traces.barrier_sent(80);
    traces.collected(90);
    traces.found_empty();
    let mut without = epoch_entry(&entry);
    without.without_barrier = true;
    traces.appended(&without, 700);
    traces.committed(&without, 710);
    assert_eq!(kept.names(), ["commit", "epoch"]);
    for span in kept.spans() {
        assert_eq!((span.start_us, span.end_us), (700, 710));
    }
}

#[test]
fn a_takeover_is_a_trace_whether_the_generation_goes_on_or_is_lost() {
    let entry = job_entry();
    let (mut traces, kept) = traces(&entry);
    traces.taken_over(Generation(3), 100);
    traces.reattached(Generation(3), 150);
    traces.barrier_sent(160);
    traces.collected(170);
    let committed = epoch_entry(&entry);
    traces.appended(&committed, 171);
    traces.committed(&committed, 180);
    traces.settled(Some(committed.epoch), Generation(3), 180);
    let whole = [
        "collect",
        "commit",
        "epoch",
        "reattach",
        "first_epoch",
        "takeover",
    ];
    assert_eq!(kept.names(), whole);
    let spans = kept.spans();
    assert_eq!(
        spans[2].start_us, 100,
        "what was read since is of this epoch"
    );
    traces.taken_over(Generation(3), 300);
    traces.lost(Generation(3), "not all workers came back", 300, 400);
    traces.assigned(Generation(5), 410);
    traces.deployed(Generation(5), 420);
    traces.settled(None, Generation(5), 430);
    let names = kept.names();
    let lost = ["detect", "assign", "deploy", "first_epoch", "takeover"];
    assert_eq!(names[whole.len()..], lost);
    let spans = kept.spans();
    let nothing_to_commit = &spans[spans.len() - 2];
    assert!(nothing_to_commit.links.is_empty());
    let told = &nothing_to_commit.attributes;
    assert!(told.iter().all(|(name, _)| *name != "epoch"), "{told:?}");
    let mut roots = spans.iter().filter(|span| span.name == "takeover");
    let ids: Vec<_> = roots.by_ref().map(|root| root.context.trace).collect();
    assert_ne!(ids[0], ids[1], "a generation is taken over twice");
}

#[test]
fn a_placement_that_is_not_seen_to_its_end_has_its_root() {
    let (mut traces, kept) = traces(&job_entry());
    traces.lost(Generation(3), "worker w1 is lost", 100, 900);
    traces.assigned(Generation(5), 950);
    drop(traces);
    assert_eq!(kept.names(), ["detect", "assign", "recovery"]);
    let spans = kept.spans();
    assert!(spans[2].error.is_some(), "it did not come to its end");
    assert_eq!(spans[0].parent, spans[2].context.span);
}

#[test]
fn roots_that_the_last_master_may_have_taken_with_it_are_told_again() {
    let entry = job_entry();
    let mut newest = Retold::default();
    let mut last = epoch_entry(&entry);
    last.committed_at_us = 1_000;
    newest.note(&last);
    (last.epoch, last.parent, last.committed_at_us) = (Epoch(3), Epoch(2), 1_200);
    newest.note(&last);
    let (traces, kept) = traces(&entry);
    traces.tell_again(&newest, true, 1_300 + LONG_AGO_US);
    assert!(kept.spans().is_empty(), "that master has had the time");
    traces.tell_again(&newest, false, 1_300 + LONG_AGO_US);
    assert_eq!(kept.names(), ["epoch", "epoch"]);
    let spans = kept.spans();
    let root = traces.of_epoch(Epoch(3)).expect("kept");
    assert_eq!((spans[1].context, spans[1].parent), (root, 0));
    assert_eq!((spans[1].start_us, spans[1].end_us), (1_000, 1_200));
    assert!(
        spans
            .iter()
            .all(|span| span.attributes.iter().any(|(name, _)| *name == AGAIN))
    );
}

#[test]
fn the_root_of_a_submission_is_told_again_by_a_master_that_comes_soon() {
    let mut entry = job_entry();
    entry.submitted_at_us = 500;
    let mut newest = Retold::default();
    newest.begun(Epoch(0));
    let (traces, kept) = traces(&entry);
    traces.tell_submission_again(&entry, &newest, 501 + LONG_AGO_US);
    assert!(kept.spans().is_empty(), "the last master has had the time");
    traces.tell_submission_again(&entry, &newest, 900);
    let trace = TraceId::of_submission(entry.incarnation, 500, Epoch(0));
    let told = &kept.spans()[0];
    assert_eq!(
        (told.name, told.context.trace, told.parent),
        (SUBMIT, trace, 0)
    );
    assert_eq!(told.start_us, 500);
    // It goes on behind an epoch: when that was follows from the first one behind it.
    let mut first = epoch_entry(&entry);
    (first.epoch, first.parent, first.committed_at_us) = (Epoch(8), Epoch(7), 800);
    newest.note(&first);
    newest.begun(Epoch(7));
    traces.tell_submission_again(&entry, &newest, 900);
    assert_eq!(kept.spans()[1].start_us, 800);
}

#[test]
fn a_placement_that_is_lost_with_its_master_has_a_root_by_the_log_and_no_step_that_lacks_it() {
    let entry = job_entry();
    let (mut traces, kept) = traces(&entry);
    let mut roots = Vec::new();
    let mut retold = Retold::default();
    traces.lost(Generation(3), "worker w1 is lost", 100, 900);
    // A worker that knows since when says so before the next one is told of.
    traces.lost(Generation(3), "worker w1 is lost", 90, 901);
    roots.extend(traces.of_placement());
    retold.placed(Generation(5), traces.placement().as_ref());
    traces.moves(Generation(5), 1_000);
    roots.extend(traces.of_placement());
    retold.placed(Generation(7), traces.placement().as_ref());
    traces.taken_over(Generation(7), 1_100);
    traces.lost(Generation(7), "not all workers came back", 1_050, 1_200);
    roots.extend(traces.of_placement());
    retold.placed(Generation(9), traces.placement().as_ref());
    let told = kept.names();
    assert_eq!(told, ["detect", "detect", "recovery", "rescale"], "so far");
    traces.tell_again(&retold, false, 1_300);
    let spans = kept.spans();
    let again = &spans[told.len()..];
    let names: Vec<_> = again.iter().map(|span| span.name).collect();
    assert_eq!(names, ["recovery", "rescale", "takeover"]);
    let contexts: Vec<_> = again.iter().map(|span| span.context).collect();
    assert_eq!(contexts, roots);
    assert!(again.iter().all(|span| span.parent == 0));
    // A submission has its root from who takes it.
    traces.submitted(&entry, Epoch(0), 2_000);
    assert_eq!(traces.placement(), None);
}
