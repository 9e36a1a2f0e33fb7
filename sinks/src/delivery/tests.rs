//! What a sink is handed next: runs, guards, parts of the backlog and what a marker means.

use millstream_common::report::Segment;

use super::*;

const OUT: SinkIndex = SinkIndex(3);
const MINE: OutputIndex = OutputIndex(1);
const AT_ONCE: Cadence = Cadence {
    run_bytes_max: 100,
    run_epochs_max: 4,
    gather: Duration::ZERO,
};
const GATHERING: Cadence = Cadence {
    gather: Duration::from_secs(60),
    ..AT_ONCE
};

fn segment(output: OutputIndex, bytes: u64) -> Segment {
    Segment {
        output,
        path: format!("segments/{output}"),
        bytes,
        checksum: 0,
        row_count: bytes / 10,
    }
}

fn committed(parent: u64, epoch: u64, bytes: u64) -> CommittedEpoch {
    CommittedEpoch {
        epoch: Epoch(epoch),
        parent: Epoch(parent),
        segments: vec![segment(MINE, bytes), segment(OutputIndex(0), 5)],
        refused: Vec::new(),
        last: false,
    }
}

fn delivery(undelivered: Vec<CommittedEpoch>, head: u64) -> Delivery {
    let lacking = Lacking {
        undelivered,
        head: Epoch(head),
        ..Lacking::default()
    };
    Delivery::new(OUT, MINE, lacking, Duration::ZERO).expect("a chain")
}

fn held(marker: u64) -> Held {
    Held {
        marker: Some(Epoch(marker)),
        begun: None,
    }
}

fn range(next: Next) -> Option<(u64, u64, u64)> {
    match next {
        Next::Apply(run, _) => Some((run.guard.0, run.last.0, run.row_count)),
        _ => None,
    }
}

fn beginning(start: u64, undelivered: Vec<CommittedEpoch>, head: u64) -> Delivery {
    let lacking = Lacking {
        undelivered,
        head: Epoch(head),
        start: Epoch(start),
        ..Lacking::default()
    };
    Delivery::new(OUT, MINE, lacking, Duration::ZERO).expect("a chain")
}

#[test]
fn a_sink_that_begins_behind_an_epoch_gets_nothing_of_it_and_keeps_its_own_chain() {
    let epochs = || {
        vec![
            committed(4, 5, 10),
            committed(5, 7, 20),
            committed(7, 8, 30),
        ]
    };
    let fenced = |delivery: &mut Delivery, marker| delivery.fenced(held(marker));
    let mut new = beginning(7, epochs(), 8);
    assert_eq!(fenced(&mut new, 0).expect("nothing"), Some(Epoch(7)));
    assert_eq!(range(new.next(AT_ONCE, Duration::ZERO)), Some((0, 8, 3)));
    new.applied(Epoch(8));
    new.committed(committed(8, 9, 40), Duration::ZERO)
        .expect("the chain");
    assert_eq!(range(new.next(AT_ONCE, Duration::ZERO)), Some((8, 9, 4)));
    let mut at_head = beginning(8, epochs(), 8);
    assert_eq!(fenced(&mut at_head, 0).expect("nothing"), Some(Epoch(8)));
    assert_eq!(at_head.next(AT_ONCE, Duration::ZERO), Next::Idle);
    at_head
        .committed(committed(8, 9, 40), Duration::ZERO)
        .expect("the chain");
    assert_eq!(
        range(at_head.next(AT_ONCE, Duration::ZERO)),
        Some((0, 9, 4))
    );
    let mut removed_once = beginning(7, epochs(), 8);
    assert_eq!(
        fenced(&mut removed_once, 2).expect("of before"),
        Some(Epoch(7))
    );
    assert_eq!(
        range(removed_once.next(AT_ONCE, Duration::ZERO)),
        Some((2, 8, 3))
    );
    let mut later = beginning(7, vec![committed(8, 9, 40)], 9);
    assert_eq!(fenced(&mut later, 8).expect("its chain"), Some(Epoch(8)));
    assert_eq!(range(later.next(AT_ONCE, Duration::ZERO)), Some((8, 9, 4)));
    let mut lost = beginning(7, vec![committed(8, 9, 40)], 9);
    assert!(fenced(&mut lost, 0).is_err(), "its marker is gone");
}

#[test]
fn epochs_that_were_refused_together_are_tried_one_by_one() {
    let chain = (1..=3).map(|epoch| committed(epoch - 1, epoch, 10));
    let mut delivery = delivery(chain.collect(), 3);
    let next = |delivery: &Delivery| range(delivery.next(AT_ONCE, Duration::ZERO));
    delivery.fenced(held(0)).expect("in the chain");
    assert_eq!(next(&delivery), Some((0, 3, 3)));
    delivery.refused();
    for (parent, epoch) in [(3, 4), (4, 5)] {
        let later = committed(parent, epoch, 10);
        delivery.committed(later, Duration::ZERO).expect("a chain");
    }
    delivery.fenced(held(0)).expect("in the chain");
    for epoch in 1..=3 {
        assert_eq!(next(&delivery), Some((epoch - 1, epoch, 1)));
        delivery.applied(Epoch(epoch));
    }
    assert_eq!(next(&delivery), Some((3, 5, 2)));
}

#[test]
fn nothing_is_applied_before_the_sink_is_fenced() {
    let mut delivery = delivery(vec![committed(0, 1, 10)], 1);
    assert_eq!(delivery.next(AT_ONCE, Duration::ZERO), Next::Fence);
    delivery.fenced(held(0)).expect("in the chain");
    assert_eq!(
        range(delivery.next(AT_ONCE, Duration::ZERO)),
        Some((0, 1, 1))
    );
    delivery.failed();
    assert_eq!(delivery.next(AT_ONCE, Duration::ZERO), Next::Fence);
}

#[test]
fn epochs_the_sink_holds_are_skipped_and_the_rest_follows_its_marker() {
    let mut delivery = delivery(vec![committed(2, 3, 10), committed(3, 7, 20)], 7);
    assert_eq!(delivery.fenced(held(3)).ok(), Some(Some(Epoch(3))));
    assert_eq!(
        range(delivery.next(AT_ONCE, Duration::ZERO)),
        Some((3, 7, 2))
    );
    delivery.applied(Epoch(7));
    assert_eq!(delivery.next(AT_ONCE, Duration::ZERO), Next::Idle);
}

#[test]
fn a_marker_outside_the_chain_is_a_mismatch() {
    for marker in [0, 1, 5, 8] {
        let mut delivery = delivery(vec![committed(2, 3, 10), committed(3, 7, 20)], 7);
        let refused = delivery.fenced(held(marker));
        assert!(
            matches!(refused, Err(SinkError::MarkerMismatch { .. })),
            "{marker}: {refused:?}"
        );
    }
    assert!(delivery(vec![], 4).fenced(held(0)).is_err());
    assert!(delivery(vec![], 4).fenced(held(4)).is_ok());
}

#[test]
fn a_sink_without_a_marker_goes_on_after_what_the_log_holds() {
    let mut delivery = delivery(vec![committed(2, 3, 10)], 3);
    let none = Held {
        marker: None,
        begun: None,
    };
    assert_eq!(delivery.fenced(none).ok(), Some(Some(Epoch(2))));
}

#[test]
fn epochs_are_merged_up_to_the_bounds_but_never_split() {
    let epochs = vec![
        committed(0, 1, 400),
        committed(1, 2, 60),
        committed(2, 3, 40),
        committed(3, 4, 1),
    ];
    let mut delivery = delivery(epochs, 4);
    delivery.fenced(held(0)).expect("in the chain");
    assert_eq!(
        range(delivery.next(AT_ONCE, Duration::ZERO)),
        Some((0, 1, 40))
    );
    delivery.applied(Epoch(1));
    assert_eq!(
        range(delivery.next(AT_ONCE, Duration::ZERO)),
        Some((1, 3, 10))
    );
}

#[test]
fn a_gathering_sink_waits_for_time_bytes_the_end_or_a_hurry() {
    let later = Duration::from_secs(20);
    let mut delivery = delivery(vec![committed(0, 1, 10)], 1);
    delivery.fenced(held(0)).expect("in the chain");
    assert_eq!(
        delivery.next(GATHERING, later),
        Next::Wait(Duration::from_secs(40))
    );
    assert_eq!(
        range(delivery.next(GATHERING, Duration::from_secs(60))),
        Some((0, 1, 1))
    );
    delivery
        .committed(committed(1, 2, 95), later)
        .expect("next");
    assert_eq!(range(delivery.next(GATHERING, later)), Some((0, 1, 1)));
    delivery.applied(Epoch(1));
    assert!(matches!(delivery.next(GATHERING, later), Next::Wait(_)));
    delivery.hurry();
    assert_eq!(range(delivery.next(GATHERING, later)), Some((1, 2, 9)));
    delivery.applied(Epoch(2));
    let end = CommittedEpoch {
        last: true,
        ..committed(2, 3, 10)
    };
    delivery.committed(end, later).expect("next");
    assert_eq!(range(delivery.next(GATHERING, later)), Some((2, 3, 1)));
}

#[test]
fn a_run_that_was_begun_is_finished_exactly() {
    let epochs = vec![committed(0, 1, 1), committed(1, 2, 1), committed(2, 3, 1)];
    let mut delivery = delivery(epochs, 3);
    let begun = Held {
        marker: Some(Epoch(0)),
        begun: Some(Epoch(2)),
    };
    delivery.fenced(begun).expect("in the chain");
    assert_eq!(
        range(delivery.next(GATHERING, Duration::ZERO)),
        Some((0, 2, 0))
    );
    delivery.applied(Epoch(2));
    assert!(matches!(
        delivery.next(GATHERING, Duration::ZERO),
        Next::Wait(_)
    ));
}

#[test]
fn a_sink_without_a_marker_goes_on_where_it_is_known_to_be() {
    let lacking = Lacking {
        undelivered: chain(0, 4),
        head: Epoch(4),
        known: Epoch(2),
        ..Lacking::default()
    };
    let mut delivery = Delivery::new(OUT, MINE, lacking, NOW).expect("a chain");
    let none = Held {
        marker: None,
        begun: None,
    };
    assert_eq!(delivery.fenced(none).expect("known"), Some(Epoch(2)));
    assert_eq!(range(delivery.next(AT_ONCE, NOW)), Some((2, 4, 2)));
}

#[test]
fn an_epoch_out_of_the_chain_is_refused_and_a_known_one_ignored() {
    let mut delivery = delivery(vec![committed(0, 1, 1)], 1);
    let gap = delivery.committed(committed(2, 3, 1), Duration::ZERO);
    assert!(gap.is_err());
    delivery
        .committed(committed(0, 1, 1), Duration::ZERO)
        .expect("known");
    assert_eq!(delivery.head(), Epoch(1));
}

#[test]
fn rows_that_the_log_names_as_refused_are_left_out_of_every_run() {
    let refused = |sink, epoch, rows: &[u64]| RefusedRows {
        sink,
        attempt: "a".to_owned(),
        rows: [(Epoch(epoch), rows.to_vec())].into(),
    };
    let naming = CommittedEpoch {
        refused: vec![refused(OUT, 1, &[2, 0]), refused(SinkIndex(0), 1, &[1])],
        ..committed(1, 2, 10)
    };
    let epochs = vec![committed(0, 1, 30), naming.clone()];
    for mut delivery in [delivery(epochs, 2), delivery(vec![committed(0, 1, 30)], 1)] {
        delivery
            .committed(naming.clone(), Duration::ZERO)
            .expect("next");
        delivery.fenced(held(0)).expect("in the chain");
        let Next::Apply(run, segments) = delivery.next(AT_ONCE, Duration::ZERO) else {
            panic!("a run is due");
        };
        assert_eq!(run.row_count, 2);
        assert_eq!(segments[0].left_out, [0, 2]);
    }
}

/// Epochs behind `parent` up to `last`, in storage.
fn part(parent: u64, last: u64) -> BacklogPart {
    BacklogPart {
        path: format!("backlog/{last}"),
        checksum: 0,
        parent: Epoch(parent),
        last: Epoch(last),
        epoch_count: last - parent,
        outputs: BTreeMap::new(),
    }
}

fn chain(parent: u64, last: u64) -> Vec<CommittedEpoch> {
    let epochs = parent + 1..=last;
    epochs
        .map(|epoch| committed(epoch - 1, epoch, 10))
        .collect()
}

/// Lacks ten epochs in storage and two in memory; a row of epoch 9 was refused.
fn behind() -> Delivery {
    let lacking = Lacking {
        backlog: vec![part(0, 5), part(5, 10)],
        left_out: vec![RefusedRows {
            sink: OUT,
            attempt: "a".to_owned(),
            rows: [(Epoch(9), vec![0])].into(),
        }],
        undelivered: chain(10, 12),
        head: Epoch(12),
        start: Epoch(0),
        known: Epoch(0),
    };
    Delivery::new(OUT, MINE, lacking, Duration::ZERO).expect("a chain")
}

const NOW: Duration = Duration::ZERO;

#[test]
fn parts_in_storage_are_read_when_their_turn_comes_and_every_epoch_is_delivered_once() {
    let mut delivery = behind();
    let marker = delivery.fenced(held(0)).expect("in the chain");
    assert_eq!(marker, Some(Epoch(0)));
    let mut runs = Vec::new();
    loop {
        match delivery.next(AT_ONCE, NOW) {
            Next::Load(read) => {
                let epochs = chain(read.parent.0, read.last.0);
                delivery.loaded(&read, epochs, NOW).expect("the part");
            }
            Next::Apply(run, _) => {
                runs.push((run.guard.0, run.last.0, run.row_count));
                delivery.applied(run.last);
            }
            Next::Idle => break,
            other => panic!("{other:?}"),
        }
    }
    let expected = [(0, 4, 4), (4, 5, 1), (5, 9, 3), (9, 12, 3)];
    assert_eq!(runs, expected);
}

#[test]
fn a_marker_within_a_part_is_believed_once_the_part_was_read() {
    let mut delivery = behind();
    assert_eq!(delivery.fenced(held(7)).expect("perhaps"), None);
    let Next::Load(read) = delivery.next(AT_ONCE, NOW) else {
        panic!("it was believed");
    };
    assert_eq!(read, part(5, 10));
    let marker = delivery.loaded(&read, chain(5, 10), NOW);
    assert_eq!(marker.expect("in the chain"), Some(Epoch(7)));
    assert_eq!(range(delivery.next(AT_ONCE, NOW)), Some((7, 11, 3)));
    let mut delivery = behind();
    delivery.fenced(held(7)).expect("perhaps");
    let mut with_gap = chain(5, 10);
    with_gap.remove(1);
    with_gap[1].parent = Epoch(6);
    let refused = delivery.loaded(&read, with_gap, NOW);
    assert!(matches!(refused, Err(SinkError::MarkerMismatch { .. })));
    assert_eq!(delivery.next(AT_ONCE, NOW), Next::Fence);
}

#[test]
fn what_is_stored_leaves_memory_unless_it_is_next() {
    let mut delivery = delivery(chain(0, 12), 12);
    for stored in [part(0, 3), part(3, 6), part(6, 9)] {
        delivery.folded(stored);
    }
    delivery.fenced(held(0)).expect("in the chain");
    assert_eq!(delivery.waiting.ready().count(), 3, "the next run");
    assert_eq!(range(delivery.next(AT_ONCE, NOW)), Some((0, 3, 3)));
    delivery.applied(Epoch(3));
    assert_eq!(delivery.next(AT_ONCE, NOW), Next::Load(part(3, 6)));
    assert_eq!(delivery.head(), Epoch(12));
}

#[test]
fn a_run_that_was_under_way_when_its_end_was_stored_goes_on_behind_it() {
    let mut delivery = delivery(chain(0, 8), 8);
    delivery.fenced(held(0)).expect("in the chain");
    assert_eq!(range(delivery.next(AT_ONCE, NOW)), Some((0, 4, 4)));
    delivery.folded(part(2, 6));
    delivery.applied(Epoch(4));
    assert_eq!(delivery.next(AT_ONCE, NOW), Next::Load(part(2, 6)));
    delivery
        .loaded(&part(2, 6), chain(2, 6), NOW)
        .expect("the part");
    assert_eq!(range(delivery.next(AT_ONCE, NOW)), Some((4, 8, 4)));
}

#[test]
fn a_run_that_was_begun_reaches_into_a_part() {
    let mut delivery = behind();
    let begun = Held {
        marker: Some(Epoch(4)),
        begun: Some(Epoch(7)),
    };
    delivery.fenced(begun).expect("perhaps");
    for read in [part(0, 5), part(5, 10)] {
        assert_eq!(delivery.next(AT_ONCE, NOW), Next::Load(read.clone()));
        let epochs = chain(read.parent.0, read.last.0);
        delivery.loaded(&read, epochs, NOW).expect("the part");
    }
    assert_eq!(range(delivery.next(AT_ONCE, NOW)), Some((4, 7, 3)));
}

#[test]
fn pauses_double_up_to_ten_seconds_and_scatter() {
    for (attempt, longest) in [(1, 200), (2, 400), (3, 800), (7, 10_000), (60, 10_000)] {
        for seed in 0..50 {
            let pause = backoff(attempt, seed).as_millis() as u64;
            assert!(pause <= longest && pause > longest * 3 / 4 - 1, "{pause}");
        }
    }
}
