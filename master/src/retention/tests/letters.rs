//! Dead letters are kept for their time and their size, pages and replays for as long as something names them.
//!
//! With the collector and the store of the tests around it.

use super::*;

#[tokio::test]
async fn dead_letters_are_kept_for_their_time_and_no_longer_and_what_goes_is_counted() {
    let mut endless = Endless::start_with_letters("20 seconds").await;
    let folder = format!(
        "segments/{}/{}/",
        endless.log.life,
        endless.letters.expect("letters")
    );
    let mut used = BTreeMap::new();
    for epoch in 1..=100 {
        endless.epoch().await;
        used = endless.look().await.expect("look");
        let kept = endless.count(&folder).await;
        assert!(kept >= epoch.min(20) && kept <= 21, "{kept} after {epoch}");
    }
    let used = used[&JobName::from("numbers")].used;
    let kept = endless.count(&folder).await as u64;
    assert_eq!(used.dead_letter_bytes, kept * 10);
    assert_eq!(used.dead_letters_dropped, (100 - kept) * 2);
    // A master that begins from the folded log comes to the same.
    endless.collector = collector(&endless.store, &endless.clock);
    for _ in 0..10 {
        endless.epoch().await;
        endless.look().await.expect("look");
    }
    let used = endless.look().await.expect("look")[&JobName::from("numbers")].used;
    let kept = endless.count(&folder).await as u64;
    assert_eq!(used.dead_letters_dropped, (110 - kept) * 2);
}

#[tokio::test]
async fn dead_letters_take_no_more_room_than_they_may_however_young_they_are() {
    let mut endless = Endless::start_with_letters("1 day, 120 bytes").await;
    let folder = format!(
        "segments/{}/{}/",
        endless.log.life,
        endless.letters.expect("letters")
    );
    for _ in 0..60 {
        endless.epoch().await;
        endless.look().await.expect("look");
    }
    let keys = endless.store.list(&folder).await.expect("list");
    assert_eq!(keys.len(), 12);
    assert!(
        keys[0].contains("/000000000049-"),
        "the newest stay: {keys:?}"
    );
}

#[tokio::test]
async fn letters_that_a_lost_generation_left_behind_go_and_those_of_the_running_one_stay() {
    let mut endless = Endless::start_with_letters("1 day").await;
    endless.epoch().await;
    let (life, output) = (endless.log.life, endless.letters.expect("letters"));
    let orphan = format!(
        "segments/{life}/{output}/000000000002-{}-w-b.arrow",
        endless.log.generation
    );
    let rejects = format!("rejects/{life}/0/000000000001-b-{output}.arrow");
    for key in [&orphan, &rejects] {
        endless.create(key).await;
    }
    for _ in 0..5 {
        endless.epoch().await;
        endless.look().await.expect("look");
    }
    let is_there = async |key: &str| endless.store.get(key).await.expect("get").is_some();
    assert!(
        is_there(&orphan).await && is_there(&rejects).await,
        "they may be named still"
    );
    endless.log.assign().await;
    endless.epoch().await;
    endless.look().await.expect("look");
    let is_there = async |key: &str| endless.store.get(key).await.expect("get").is_some();
    assert!(!is_there(&orphan).await && !is_there(&rejects).await);
    let folder = format!("segments/{life}/{output}/");
    assert_eq!(endless.count(&folder).await, 7, "every named one stays");
}

#[tokio::test]
async fn a_long_list_of_dead_letters_goes_to_pages_and_the_log_stays_small() {
    let mut endless = Endless::start_with_letters("3000 seconds").await;
    let (life, output) = (endless.log.life, endless.letters.expect("letters"));
    for epoch in 1..=4_600 {
        endless.epoch().await;
        if epoch % 100 == 0 {
            endless.look().await.expect("look");
        }
    }
    let history = read_history(&endless.store).await.expect("read");
    let letters = &history.jobs[&JobName::from("numbers")].letters;
    assert!(letters.segments.len() < 2_200, "{}", letters.segments.len());
    assert!(!letters.pages.is_empty());
    let pages = endless.count(&format!("letters/{life}/")).await;
    assert!(
        pages >= letters.pages.len() && pages <= 3,
        "dropped pages are gone: {pages}"
    );
    let paged: u64 = letters.pages.iter().map(|page| page.row_count).sum();
    let unpaged: u64 = letters
        .segments
        .iter()
        .map(|letters| letters.segment.row_count)
        .sum();
    assert_eq!(
        paged + unpaged + letters.dropped_rows,
        2 * 4_600,
        "each is counted once"
    );
    let objects = endless.count(&format!("segments/{life}/{output}/")).await as u64;
    assert!(objects * 2 <= paged + unpaged, "{objects}");
    assert!(objects >= 3_000, "{objects}");
    endless.collector = collector(&endless.store, &endless.clock);
    endless.log.assign().await;
    endless.epoch().await;
    endless.look().await.expect("look");
    let left = endless.count(&format!("segments/{life}/{output}/")).await as u64;
    assert!(
        left >= 3_000,
        "another generation takes nothing that a page names: {left}"
    );
}

#[tokio::test]
async fn a_boundary_holds_the_letters_that_looks_have_kept_however_seldom_one_is_made() {
    let mut endless = Endless::start_with_letters("100 seconds").await;
    endless.collector.retention.objects_per_boundary = 2_350;
    for epoch in 1..=2_400 {
        endless.epoch().await;
        if epoch % 50 == 0 {
            endless.look().await.expect("look");
        }
    }
    assert_eq!(endless.count("boundary/").await, 1);
    let name = JobName::from("numbers");
    let history = read_history(&endless.store).await.expect("read");
    let letters = &history.jobs[&name].letters;
    assert_eq!(*letters, endless.collector.latest.jobs[&name].letters);
    assert!(letters.segments.len() <= 101 && letters.pages.is_empty());
    let kept: u64 = letters
        .segments
        .iter()
        .map(|kept| kept.segment.row_count)
        .sum();
    assert_eq!(
        kept + letters.dropped_rows,
        2 * 2_400,
        "each is counted once"
    );
}

#[tokio::test]
async fn rows_to_be_sent_and_pages_that_nothing_came_to_name_go_and_not_before_nothing_can() {
    let mut endless = Endless::start_with_letters("1 day").await;
    let life = endless.log.life;
    let replay = format!("replays/{life}/0/000000000001-aa-1-x.arrow");
    let page = format!("letters/{life}/000000000002-x.json");
    for key in [&replay, &page] {
        endless.create(key).await;
    }
    for _ in 0..30 {
        endless.epoch().await;
        endless.look().await.expect("look");
    }
    assert_eq!(endless.count("replays/").await, 1, "its master reigns");
    assert_eq!(endless.count("letters/").await, 1, "its maker may sleep");
    endless.log.term = Term(2);
    for _ in 0..30 {
        endless.epoch().await;
        endless.look().await.expect("look");
    }
    assert_eq!(endless.count("replays/").await, 0);
    assert_eq!(endless.count("letters/").await, 0);
}
