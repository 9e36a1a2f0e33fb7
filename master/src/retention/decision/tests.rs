//! The rules of collection: what is named or can be named stays, what is not understood stays, the rest goes.

use proptest::prelude::*;

use super::*;

const LIFE: &str = "0190e5a0-0000-7000-8000-000000000001";
const FORMER: &str = "0190e5a0-0000-7000-8000-000000000002";

fn part(life: &str, epoch: u64, name: &str) -> String {
    format!("state/{life}/views/aggregate/0/{epoch:012}-7-0-{name}.arrow")
}

fn segment(life: &str, output: u32, epoch: u64) -> String {
    format!("segments/{life}/{output}/{epoch:012}-7-worker-a.arrow")
}

fn needed(head: u64, delivered: u64, parts: &[String]) -> Needed {
    let life = Life {
        head: Epoch(head),
        parts: parts.iter().cloned().collect(),
        forgotten: Epoch(delivered),
        kept_outputs: BTreeSet::from(["1".to_owned()]),
        ..Life::default()
    };
    Needed {
        lives: BTreeMap::from([(LIFE.to_owned(), life)]),
        ..Needed::default()
    }
}

fn boundary(seq: u64, made_at_s: i64) -> Boundary {
    Boundary {
        seq: Seq(seq),
        made_at_us: made_at_s * 1_000_000,
    }
}

#[test]
fn state_that_no_retained_checkpoint_names_goes_and_what_is_on_its_way_stays() {
    let live = part(LIFE, 3, "live");
    let needed = needed(9, 0, std::slice::from_ref(&live));
    assert!(!needed.may_go(&live));
    assert!(needed.may_go(&part(LIFE, 3, "replaced")));
    assert!(needed.may_go(&part(LIFE, 9, "of a zombie")));
    assert!(!needed.may_go(&part(LIFE, 10, "uploaded, not yet committed")));
    assert!(needed.may_go(&part(FORMER, 10, "of a former life")));
}

#[test]
fn state_of_a_former_life_that_another_was_begun_from_stays() {
    let carried = part(FORMER, 7, "carried");
    let needed = needed(9, 0, std::slice::from_ref(&carried));
    assert!(!needed.may_go(&carried));
    assert!(needed.may_go(&part(FORMER, 7, "other")));
}

#[test]
fn segments_stay_until_every_sink_has_held_them_long_enough() {
    let needed = needed(9, 5, &[]);
    assert!(needed.may_go(&segment(LIFE, 0, 5)));
    assert!(!needed.may_go(&segment(LIFE, 0, 6)));
    assert!(
        !needed.may_go(&segment(LIFE, 0, 0)),
        "an epoch that none has"
    );
    assert!(
        !needed.may_go(&segment(LIFE, 1, 5)),
        "dead letters have their own retention"
    );
    assert!(needed.may_go(&segment(FORMER, 0, 50)));
}

#[test]
fn letters_that_no_epoch_names_go_once_their_generation_is_over() {
    let mut needed = needed(9, 9, &[]);
    let letters = segment(LIFE, 1, 5);
    let paged = segment(LIFE, 1, 3);
    let rejects = |epoch: u64| format!("rejects/{LIFE}/0/{epoch:012}-attempt-1.arrow");
    let life = needed.lives.get_mut(LIFE).expect("a life");
    life.letters = KeptLetters {
        named: BTreeSet::from([letters.clone()]),
        pages: BTreeSet::new(),
        paged_through: Epoch(4),
        first: Some(Epoch(2)),
        generation: Generation(7),
        unnamed_rejects: [(rejects(6), Generation(7)), (rejects(7), Generation(6))].into(),
    };
    let kept = needed.clone();
    assert!(
        !kept.may_go(&segment(LIFE, 1, 6)),
        "generation 7 runs still"
    );
    assert!(!kept.may_go(&rejects(6)), "it may be about to be named");
    assert!(kept.may_go(&rejects(7)), "it was there before generation 7");
    assert!(
        !kept.may_go(&rejects(8)),
        "a named one, or one not seen yet"
    );
    needed
        .lives
        .get_mut(LIFE)
        .expect("a life")
        .letters
        .generation = Generation(8);
    assert!(!needed.may_go(&letters), "an epoch names it");
    assert!(needed.may_go(&segment(LIFE, 1, 6)));
    assert!(!needed.may_go(&paged), "a page may name it");
    assert!(
        needed.may_go(&segment(LIFE, 1, 1)),
        "all that is kept is newer"
    );
    assert!(needed.may_go(&format!("rejects/{FORMER}/0/000000000001-a-1.arrow")));
}

#[test]
fn replays_and_pages_go_with_their_life_and_replays_once_read_and_old() {
    let mut needed = needed(9, 9, &[]);
    let replay = |life: &str, name: &str| format!("replays/{life}/0/{name}.arrow");
    let life = needed.lives.get_mut(LIFE).expect("a life");
    life.read_replays.insert(replay(LIFE, "read"));
    assert!(needed.may_go(&replay(LIFE, "read")));
    assert!(!needed.may_go(&replay(LIFE, "not yet in the log")));
    assert!(needed.may_go(&replay(FORMER, "a")));
    let life = needed.lives.get_mut(LIFE).expect("a life");
    life.unread_replays = [replay(FORMER, "a"), replay(LIFE, "read")].into();
    assert!(
        !needed.may_go(&replay(FORMER, "a")),
        "this life began from that one"
    );
    assert!(
        !needed.may_go(&replay(LIFE, "read")),
        "not behind a savepoint"
    );
    assert!(needed.may_go(&format!("letters/{FORMER}/000000000003-a.json")));
}

#[test]
fn rows_to_be_sent_that_no_entry_names_go_under_the_next_master() {
    let mut needed = needed(9, 9, &[]);
    let replay = |term: u64, name: &str| format!("replays/{LIFE}/0/{term:012}-{name}-a.arrow");
    needed.term = Term(4);
    let life = needed.lives.get_mut(LIFE).expect("a life");
    life.named_replays = [replay(3, "named")].into();
    assert!(needed.may_go(&replay(3, "left")));
    assert!(!needed.may_go(&replay(3, "named")));
    assert!(
        !needed.may_go(&replay(4, "on its way")),
        "its master may be about to name it"
    );
    let life = Life {
        named_replays: [replay(3, "left")].into(),
        ..Life::default()
    };
    needed.lives.insert(FORMER.to_owned(), life);
    assert!(!needed.may_go(&replay(3, "left")), "another life names it");
}

#[test]
fn a_page_that_no_boundary_names_goes_once_its_maker_has_had_its_time() {
    let mut needed = needed(9, 9, &[]);
    let page = |seq: u64, name: &str| format!("letters/{LIFE}/{seq:012}-{name}.json");
    let life = needed.lives.get_mut(LIFE).expect("a life");
    life.letters.pages = [page(7, "named")].into();
    assert!(!needed.may_go(&page(7, "left")), "no boundary is old");
    needed.log_floor = Some(Seq(7));
    assert!(needed.may_go(&page(7, "left")));
    assert!(!needed.may_go(&page(7, "named")));
    assert!(
        !needed.may_go(&page(8, "left")),
        "a master that sleeps may be about to name it"
    );
}

#[test]
fn epochs_that_were_put_away_stay_until_every_sink_has_held_them_long_enough() {
    let needed = needed(9, 5, &[]);
    let backlog = |life: &str, last: u64| format!("backlog/{life}/{last:012}-nonce");
    assert!(needed.may_go(&backlog(LIFE, 5)));
    assert!(!needed.may_go(&backlog(LIFE, 6)));
    assert!(needed.may_go(&backlog(FORMER, 50)));
    assert!(!needed.may_go("backlog/unknown/000000000001-a"));
}

#[test]
fn what_is_not_understood_stays() {
    let mut needed = needed(9, 9, &[]);
    needed.log_floor = Some(Seq(100));
    for key in [
        "log/1",
        "log/00000000000x",
        "masters/heartbeat",
        "boundary/7",
        "state/clicks/a/000000000001-1-0-a.arrow",
        "segments/unknown/0/000000000001-1-a-b.arrow",
        "rejects/0190e5a0-0000-7000-8000-000000000002/0/000000000001.jsonl",
    ] {
        assert!(!needed.may_go(key), "{key}");
    }
    assert!(!needed.may_go(&format!("state/{LIFE}/a/1-1-0-a.arrow")));
}

#[test]
fn log_objects_go_behind_a_boundary_that_is_old_enough_and_the_newest_boundary_never() {
    let retention = Retention {
        log: Duration::from_secs(160),
        ..Retention::default()
    };
    let known: BTreeSet<Boundary> = [(10, 0), (20, 30), (30, 35), (40, 60), (50, 199)]
        .map(|(seq, made)| boundary(seq, made))
        .into();
    let (kept, floor) = keep_boundaries(&known, &retention, 200_000_000);
    assert_eq!(floor, Some(Seq(30)));
    assert_eq!(
        kept,
        [(30, 35), (40, 60), (50, 199)]
            .map(|(seq, made)| boundary(seq, made))
            .into()
    );
    let needed = Needed {
        log_floor: floor,
        boundaries: kept,
        ..Needed::default()
    };
    assert!(needed.may_go("log/000000000030"));
    assert!(!needed.may_go("log/000000000031"));
    assert!(needed.may_go(&boundary(10, 0).key()));
    assert!(
        !needed.may_go(&boundary(60, 201).key()),
        "another master's, made meanwhile"
    );
    let (kept, floor) = keep_boundaries(&known, &retention, 100_000_000);
    assert_eq!(
        (floor, kept.len()),
        (None, 4),
        "the third is too near to the second"
    );
    assert!(Needed::default().boundaries.is_empty());
    assert!(!Needed::default().may_go(&boundary(10, 0).key()));
}

#[test]
fn a_look_takes_no_more_than_it_may_and_the_oldest_first() {
    let keys = [
        segment(LIFE, 0, 1),
        segment(LIFE, 0, 2),
        segment(LIFE, 0, 3),
    ];
    let needed = needed(9, 5, &[]);
    let garbage = needed.garbage(keys.iter().map(String::as_str), 2);
    assert_eq!(garbage, [keys[0].as_str(), keys[1].as_str()]);
}

proptest! {
    #[test]
    fn nothing_goes_that_is_named_or_can_be(
        head in 0_u64..20,
        delivered in 0_u64..30,
        epoch in 0_u64..30,
        is_named in any::<bool>(),
        output in 0_u32..3,
    ) {
        let key = part(LIFE, epoch, "a");
        let named = if is_named { vec![key.clone()] } else { Vec::new() };
        let needed = needed(head, delivered, &named);
        prop_assert_eq!(needed.may_go(&key), !is_named && epoch <= head);
        let goes = needed.may_go(&segment(LIFE, output, epoch));
        prop_assert!(!goes || (epoch <= head && epoch <= delivered && output != 1));
    }

    #[test]
    fn the_newest_boundary_and_one_that_covers_what_is_collected_always_stay(
        made in proptest::collection::vec(0_i64..1_000, 1..20),
        now in 0_i64..2_000,
    ) {
        let mut made = made;
        made.sort_unstable();
        let known: BTreeSet<Boundary> = made
            .iter()
            .enumerate()
            .map(|(index, made)| boundary(index as u64 + 1, *made))
            .collect();
        let retention = Retention { log: Duration::from_secs(100), ..Retention::default() };
        let (kept, floor) = keep_boundaries(&known, &retention, now * 1_000_000);
        prop_assert!(kept.contains(known.last().expect("one")));
        if let Some(floor) = floor {
            prop_assert!(kept.iter().any(|boundary| boundary.seq == floor));
        }
    }
}
