//! Keys that are seen, forgotten, spilled and copied.

use super::super::super::spill::Spill;
use super::*;

fn insert(seen: &mut SeenKeys, fingerprint: u128, time: i64) -> bool {
    seen.insert(fingerprint, time).expect("in memory")
}

/// All live keys, in order.
fn live(seen: &SeenKeys) -> Vec<(u128, i64)> {
    let mut keys = KeyPart::default();
    let next = seen.copy(seen.first_slice(), usize::MAX, &mut keys);
    assert_eq!(next.expect("in memory"), None);
    let mut keys: Vec<_> = keys.iter().collect();
    keys.sort_unstable();
    keys
}

/// So that every table has some; both halves differ.
fn keys(range: std::ops::Range<u128>) -> impl Iterator<Item = u128> {
    range.map(|key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

#[test]
fn a_key_is_seen_until_the_watermark_is_past_its_first_row() {
    let mut seen = SeenKeys::default();
    assert!(insert(&mut seen, 7, 100));
    assert!(!insert(&mut seen, 7, 900));
    seen.forget(100).expect("in memory");
    assert!(!insert(&mut seen, 7, 900));
    seen.forget(101).expect("in memory");
    assert!(insert(&mut seen, 7, 900));
    assert!(!insert(&mut seen, 7, 950));
}

#[test]
fn a_key_that_came_back_is_seen_until_its_new_time() {
    let mut seen = SeenKeys::default();
    insert(&mut seen, 7, 0);
    seen.forget(1).expect("in memory");
    assert!(insert(&mut seen, 7, 500));
    seen.forget(100).expect("in memory");
    assert!(!insert(&mut seen, 7, 600));
    seen.forget(501).expect("in memory");
    assert!(insert(&mut seen, 7, 600));
}

#[test]
fn keys_taken_together_are_as_those_taken_one_by_one() {
    let mut seen = SeenKeys::default();
    let fingerprints: Vec<u128> = keys(0..100).chain(keys(50..200)).collect();
    let mut kept = Vec::new();
    let time_of = |place: usize| place as i64;
    seen.insert_all(&fingerprints, time_of, |place, time| {
        kept.push((place, time));
    })
    .expect("in memory");
    let expected = (0..100).chain(150..250);
    assert!(kept.into_iter().eq(expected.map(|n| (n, n as i64))));
    assert_eq!(seen.held_count(), 200);
    // Those that are forgotten are first once more, and only once.
    seen.forget(75).expect("in memory");
    let again: Vec<u128> = keys(0..100).chain(keys(0..100)).collect();
    let mut kept = Vec::new();
    seen.insert_all(&again, |_| 900, |place, _| kept.push(place))
        .expect("in memory");
    assert!(kept.into_iter().eq(0..75));
}

#[test]
fn every_live_key_is_in_one_of_the_copies() {
    let mut seen = SeenKeys::default();
    for (key, time) in keys(0..10_000).zip(0..) {
        insert(&mut seen, key, time);
    }
    seen.forget(1_000).expect("in memory");
    let (mut copies, mut next) = (KeyPart::default(), Some(seen.first_slice()));
    let mut copy_count = 0;
    while let Some(slice) = next {
        next = seen.copy(slice, 500, &mut copies).expect("in memory");
        copy_count += 1;
    }
    assert!((10..=SHARD_COUNT).contains(&copy_count), "{copy_count}");
    let mut copied: Vec<_> = copies.iter().collect();
    copied.sort_unstable();
    assert_eq!(copied, live(&seen));
}

#[test]
fn slices_of_tables_have_every_live_key_once_from_memory_and_from_disk() {
    let mut seen = SeenKeys::default();
    let year = 365 * 86_400 * 1_000_000_i64;
    let times = (0..).map(|n| if n % 50 == 49 { 9 * year } else { n % 1_000 });
    for (key, time) in keys(0..10_000).zip(times) {
        assert!(insert(&mut seen, key, time));
    }
    let before = live(&seen);
    let spill = Spill::without_limit().task("test");
    seen.spill(seen.bytes() / 2, &spill).expect("spilled");
    assert!(seen.spilled_count() > 1_000 && seen.spilled_count() < 9_000);
    assert_eq!((live(&seen), seen.live_count()), (before.clone(), 10_000));
    for key in keys(0..10_000) {
        assert!(!insert(&mut seen, key, 0));
    }
    let bits = SHARD_BITS + 4;
    let (mut copies, mut next) = (KeyPart::default(), Some(Slice { number: 0, bits }));
    let mut copy_count = 0;
    while let Some(slice) = next {
        next = seen.copy(slice, 60, &mut copies).expect("in memory");
        copy_count += 1;
    }
    assert!(copy_count > 100, "{copy_count}");
    let mut copied: Vec<_> = copies.iter().collect();
    copied.sort_unstable();
    assert_eq!(copied, before);
    seen.forget(500).expect("forgotten");
    let expected = before.into_iter().filter(|(_, time)| *time >= 500);
    assert_eq!(live(&seen), expected.collect::<Vec<_>>());
    for (index, key) in keys(0..10_000).enumerate() {
        let is_forgotten = index % 50 != 49 && index % 1_000 < 500;
        assert_eq!(insert(&mut seen, key, 2_000), is_forgotten, "{index}");
    }
    seen.forget(3_000).expect("forgotten");
    assert!(!seen.has_spilled());
}

#[test]
fn forgotten_keys_are_held_no_longer_than_the_next_ones_take_to_come() {
    let mut seen = SeenKeys::default();
    let per_epoch = 200_000;
    for epoch in 0..40 {
        let first = epoch * per_epoch;
        for key in keys(first..first + per_epoch) {
            assert!(insert(&mut seen, key, epoch as i64));
        }
        seen.forget(epoch as i64).expect("in memory");
        let live = per_epoch as usize;
        let spared = SHARD_COUNT * SWEPT_MIN;
        let held: usize = seen.shards.iter().map(|shard| shard.table.len()).sum();
        assert!(held <= live + live / 4 + spared, "{held}");
        assert_eq!(seen.live_count(), live);
    }
}

#[test]
fn memory_is_given_back_some_sweeps_after_it_was_needed() {
    let mut seen = SeenKeys::default();
    for key in keys(0..1_000_000) {
        insert(&mut seen, key, 0);
    }
    let full = seen.bytes();
    for epoch in 1..40 {
        let first = epoch * 1_000_000;
        for key in keys(first..first + 100_000) {
            insert(&mut seen, key, epoch as i64);
        }
        seen.forget(epoch as i64).expect("in memory");
    }
    assert!(seen.bytes() < full / 2, "{} of {full}", seen.bytes());
}

#[test]
fn times_that_are_very_far_apart_are_told_apart_all_the_same() {
    let year = 365 * 86_400 * 1_000_000_i64;
    let mut seen = SeenKeys::default();
    let keys: Vec<(u128, i64)> = keys(0..4_000).zip((0..).map(|n| n % 40 * year)).collect();
    for (key, time) in &keys {
        assert!(insert(&mut seen, *key, *time));
    }
    for passed in 0..40 {
        seen.forget(passed * year + 1).expect("in memory");
        let mut expected: Vec<_> = keys
            .iter()
            .filter(|(_, time)| *time > passed * year)
            .copied()
            .collect();
        assert_eq!(seen.live_count(), expected.len());
        for (key, _) in &expected {
            assert!(!insert(&mut seen, *key, 40 * year), "{passed}");
        }
        expected.sort_unstable();
        assert_eq!(live(&seen), expected);
    }
    // Each comes back at another time, near or far.
    for (key, time) in &keys {
        assert!(insert(&mut seen, *key, 40 * year + *time));
        assert!(!insert(&mut seen, *key, 0));
    }
}

#[test]
fn a_key_without_time_is_never_forgotten() {
    let mut seen = SeenKeys::default();
    insert(&mut seen, 7, FOREVER);
    seen.forget(i64::MAX).expect("in memory");
    assert!(!insert(&mut seen, 7, FOREVER));
    assert_eq!(live(&seen), [(7, FOREVER)]);
}
