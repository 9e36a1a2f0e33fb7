//! The rules of the log: one winner a position, read-back after an unknown result, terms that fence,
//! and a chain of epochs without forks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::entry::{EpochEntry, JobProgress};
use super::*;
use crate::blocking::ThreadPool;
use crate::ids::{Epoch, Generation, Incarnation, Seq, SinkIndex, SourceIndex};
use crate::report::RefusedRows;
use crate::store::{FileStore, Store};
use crate::time::EventTime;

fn object(term: u64, nonce: &str) -> LogObject {
    let fence = Entry::Fence {
        term: Term(term),
        master: nonce.to_owned(),
    };
    LogObject {
        term: Term(term),
        nonce: nonce.to_owned(),
        entries: vec![fence],
    }
}

/// Applies one create and then says that it does not know.
struct LosesOneAnswer {
    inner: FileStore,
    lost: AtomicBool,
}

#[async_trait]
impl Store for LosesOneAnswer {
    async fn create(&self, key: &str, value: Bytes) -> Result<(), StoreError> {
        self.inner.create(key, value).await?;
        if self.lost.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        Err(StoreError::Unavailable {
            key: key.to_owned(),
            cause: "timed out".to_owned(),
        })
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<(), StoreError> {
        self.inner.put(key, value).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }
}

async fn file_store(folder: &tempfile::TempDir) -> FileStore {
    let path = folder.path().to_string_lossy().into_owned();
    FileStore::open(&path, Arc::new(ThreadPool))
        .await
        .expect("open")
}

#[tokio::test]
async fn the_second_master_at_a_position_reads_the_first_ones_object() {
    let folder = tempfile::tempdir().expect("folder");
    let store: StoreRef = Arc::new(file_store(&folder).await);
    assert_eq!(
        append(&store, Seq(1), &object(1, "a"))
            .await
            .expect("append"),
        Appended::Written
    );
    let second = append(&store, Seq(1), &object(2, "b"))
        .await
        .expect("append");
    assert_eq!(second, Appended::Taken(Box::new(object(1, "a"))));
}

#[tokio::test]
async fn an_append_whose_answer_was_lost_is_found_written() {
    let folder = tempfile::tempdir().expect("folder");
    let store: StoreRef = Arc::new(LosesOneAnswer {
        inner: file_store(&folder).await,
        lost: AtomicBool::new(false),
    });
    assert_eq!(
        append(&store, Seq(1), &object(1, "a"))
            .await
            .expect("append"),
        Appended::Written
    );
    assert_eq!(
        read_all(&store).await.expect("read"),
        [(Seq(1), object(1, "a"))]
    );
}

#[test]
fn entries_of_a_fenced_term_do_not_count() {
    let objects = [
        (Seq(1), object(1, "a")),
        (Seq(2), object(2, "b")),
        (Seq(3), object(1, "late")),
        (Seq(4), object(2, "c")),
    ];
    let counted: Vec<Seq> = canonical(&objects)
        .into_iter()
        .map(|(seq, _)| seq)
        .collect();
    assert_eq!(counted, [Seq(1), Seq(2), Seq(4)]);
}

fn epoch(epoch: u64, parent: u64) -> EpochEntry {
    let life = (&"clicks".into(), Incarnation(uuid::Uuid::nil()));
    EpochEntry::empty(life, Epoch(parent), Epoch(epoch), Generation(1))
}

#[test]
fn an_epoch_must_name_the_head_of_the_chain_as_its_parent() {
    let mut progress = JobProgress::default();
    progress.apply(&epoch(1, 0)).expect("first");
    progress
        .apply(&epoch(4, 1))
        .expect("gaps are abandoned epochs");
    let fork = progress.apply(&epoch(5, 1)).expect_err("a fork");
    assert_eq!(fork.head, Epoch(4));
    assert!(
        progress.apply(&epoch(4, 4)).is_err(),
        "an epoch is after its parent"
    );
}

#[test]
fn operators_have_acted_on_the_watermarks_of_the_epoch_before() {
    let source = SourceIndex(0);
    let with_watermark = |number: u64, micros: i64| EpochEntry {
        watermarks: BTreeMap::from([(source, EventTime(micros))]),
        ..epoch(number, number - 1)
    };
    let mut progress = JobProgress::default();
    progress.apply(&with_watermark(1, 10)).expect("first");
    assert_eq!(progress.acted_watermarks.get(&source), None);
    progress.apply(&with_watermark(2, 20)).expect("second");
    assert_eq!(progress.acted_watermarks[&source], EventTime(10));
    assert_eq!(progress.watermarks[&source], EventTime(20));

    let named = EpochEntry {
        without_barrier: true,
        ..epoch(3, 2)
    };
    progress.apply(&named).expect("third");
    assert_eq!(
        progress.acted_watermarks[&source],
        EventTime(10),
        "no barrier has told the operators"
    );
}

#[test]
fn epochs_are_kept_until_they_are_forgotten_and_the_slowest_sink_holds_them() {
    let mut progress = JobProgress::default();
    for number in 1..=3 {
        progress.apply(&epoch(number, number - 1)).expect("chain");
    }
    progress.sink_markers.insert(SinkIndex(0), Epoch(3));
    progress.note_delivered(2);
    progress.forget(Epoch(2));
    assert_eq!(
        progress.recent.len(),
        3,
        "the second sink holds nothing yet"
    );
    progress.sink_markers.insert(SinkIndex(1), Epoch(2));
    progress.note_delivered(2);
    assert_eq!(progress.recent.len(), 3, "one may be sent back");
    assert_eq!(progress.lacked().1, 2);
    progress.forget(Epoch(3));
    let left: Vec<Epoch> = progress
        .recent
        .iter()
        .map(|committed| committed.epoch)
        .collect();
    assert_eq!(left, [Epoch(3)]);
}

#[tokio::test]
async fn epochs_that_are_put_away_leave_what_their_sinks_still_need() {
    let folder = tempfile::tempdir().expect("folder");
    let store: StoreRef = Arc::new(file_store(&folder).await);
    let mut progress = JobProgress::default();
    for number in 1..=6 {
        let mut entry = epoch(number, number - 1);
        if number > 1 {
            let rows = [(Epoch(number - 1), vec![0])].into();
            entry.refused.push(RefusedRows {
                sink: SinkIndex(0),
                attempt: number.to_string(),
                rows,
            });
        }
        progress.apply(&entry).expect("chain");
    }
    progress.sink_markers.insert(SinkIndex(0), Epoch(2));
    progress.sink_markers.insert(SinkIndex(1), Epoch(5));
    progress.note_delivered(2);
    progress.forget(Epoch(2));
    let incarnation = Incarnation(uuid::Uuid::nil());
    let old = progress.recent[..3].to_vec();
    let part = backlog::store(&store, incarnation, &old).await;
    let part = part.expect("store").expect("some");
    progress.fold(&part);
    assert_eq!(backlog::load(&store, &part).await.expect("load"), old);
    assert_eq!((progress.delivered, progress.recent.len()), (Epoch(2), 1));
    let attempts = progress.left_out.iter().map(|refused| &*refused.attempt);
    assert_eq!(attempts.collect::<Vec<_>>(), ["4", "5"]);
    progress.sink_markers.insert(SinkIndex(0), Epoch(5));
    progress.note_delivered(2);
    progress.forget(Epoch(5));
    assert_eq!((progress.backlog.len(), progress.left_out.len()), (0, 0));
    let mut late = JobProgress::default();
    late.apply(&epoch(9, 0)).expect("chain");
    late.note_delivered(0);
    late.forget(Epoch(9));
    late.fold(&part);
    assert!(late.backlog.is_empty(), "every sink holds it by now");
    let mut damaged = part.clone();
    damaged.checksum ^= 1;
    let refused = backlog::load(&store, &damaged).await.expect_err("damaged");
    assert!(refused.to_string().contains(&part.path), "{refused}");
}

#[tokio::test]
async fn a_missing_object_with_others_behind_it_is_named_and_nothing_is_read_past_it() {
    let folder = tempfile::tempdir().expect("folder");
    let store: StoreRef = Arc::new(file_store(&folder).await);
    for seq in 1..=3 {
        let appended = append(&store, Seq(seq), &object(1, &format!("{seq}"))).await;
        assert_eq!(appended.expect("append"), Appended::Written);
    }
    store.delete(&key(Seq(2))).await.expect("delete");
    let refused = read_all(&store).await.expect_err("a gap").to_string();
    assert!(refused.contains("log/000000000002"), "{refused}");
    assert!(refused.contains("missing"), "{refused}");
    assert_eq!(read_from(&store, Seq(3)).await.expect("read").len(), 1);
}

#[tokio::test]
async fn a_master_that_slept_until_its_position_was_collected_has_not_written() {
    let folder = tempfile::tempdir().expect("folder");
    let store: StoreRef = Arc::new(file_store(&folder).await);
    let boundary = Boundary {
        seq: Seq(5),
        made_at_us: 17,
    };
    assert_eq!(Boundary::from_key(&boundary.key()), Some(boundary.clone()));
    boundary.write(&store, b"folded").await.expect("write");
    for (seq, expected) in [(5, Appended::Collected), (6, Appended::Written)] {
        let appended = append(&store, Seq(seq), &object(1, "slept")).await;
        assert_eq!(appended.expect("append"), expected, "{seq}");
    }
}

#[tokio::test]
async fn a_boundary_that_was_cut_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    let store: StoreRef = Arc::new(file_store(&folder).await);
    let boundary = Boundary {
        seq: Seq(5),
        made_at_us: 17,
    };
    boundary.write(&store, b"folded").await.expect("write");
    let whole = boundary.read(&store).await.expect("read");
    assert_eq!(whole.as_deref(), Some(b"folded".as_slice()));
    let sealed = store.get(&boundary.key()).await.expect("get");
    let cut = sealed.expect("there").slice(..12);
    store.put(&boundary.key(), cut).await.expect("put");
    let refused = boundary.read(&store).await.expect_err("cut").to_string();
    assert!(refused.contains("boundary/000000000005-17"), "{refused}");
}

#[test]
fn a_sink_that_tells_of_less_than_it_was_sent_back_to_is_believed_by_who_reads_the_log() {
    let mut progress = JobProgress::default();
    let sink = SinkIndex(0);
    let say = |number: u64, generation: u64, marker: u64, progress: &mut JobProgress| {
        let mut entry = epoch(number, number - 1);
        entry.generation = Generation(generation);
        entry.sink_markers.insert(sink, Epoch(marker));
        progress.apply(&entry).expect("chain");
    };
    for number in 1..=5 {
        say(number, 2, number - 1, &mut progress);
    }
    assert!(progress.rewind_sink(sink, Epoch(3), Seq(20)));
    say(6, 21, 3, &mut progress);
    assert!(
        progress.open_rewind(sink).is_some(),
        "it has told nothing yet"
    );
    say(7, 21, 1, &mut progress);
    assert_eq!(
        progress.marker(sink),
        Epoch(1),
        "an older copy was restored"
    );
    say(8, 21, 4, &mut progress);
    say(9, 21, 2, &mut progress);
    assert_eq!(
        progress.marker(sink),
        Epoch(4),
        "from there it goes forward"
    );
}

#[test]
fn a_sink_goes_back_once_and_what_older_generations_say_of_it_is_of_the_past() {
    let mut progress = JobProgress::default();
    let sink = SinkIndex(0);
    let say = |number: u64, generation: u64, marker: u64, progress: &mut JobProgress| {
        let mut entry = epoch(number, number - 1);
        entry.generation = Generation(generation);
        entry.sink_markers.insert(sink, Epoch(marker));
        progress.apply(&entry).expect("chain");
        progress.note_delivered(1);
    };
    for number in 1..=9 {
        say(number, 5, number - 1, &mut progress);
    }
    progress.forget(Epoch(3));
    assert!(!progress.rewind_sink(sink, Epoch(2), Seq(20)), "it is gone");
    assert!(progress.rewind_sink(sink, Epoch(4), Seq(20)));
    say(10, 5, 9, &mut progress);
    assert_eq!(
        (progress.marker(sink), progress.delivered),
        (Epoch(4), Epoch(4))
    );
    assert!(progress.is_going_back(sink, Generation(5)));
    assert!(
        progress.is_going_back(sink, Generation(20)),
        "in one object"
    );
    assert!(!progress.is_going_back(sink, Generation(21)));
    let open = progress.open_rewind(sink).map(|rewind| rewind.to);
    assert_eq!(open, Some(Epoch(4)));
    progress.forget(Epoch(9));
    assert_eq!(
        progress.recent[0].epoch,
        Epoch(4),
        "it may hold less than it was sent back to, and has not told"
    );
    say(11, 21, 6, &mut progress);
    assert_eq!(progress.marker(sink), Epoch(6));
    assert_eq!(
        progress.open_rewind(sink),
        None,
        "the marker says what is held"
    );
}

#[test]
fn rows_that_sinks_refused_do_not_fill_the_memory_however_long_epochs_are_kept() {
    let mut progress = JobProgress::default();
    let refused = |epoch: u64| RefusedRows {
        sink: SinkIndex(0),
        attempt: epoch.to_string(),
        rows: [(Epoch(epoch), vec![0])].into(),
    };
    progress.left_out = (1..=60_000).map(refused).collect();
    assert_eq!(progress.crowded(), Epoch(0));
    progress.left_out.extend((60_001..=70_000).map(refused));
    let through = progress.crowded();
    assert!(through > Epoch(0) && through < Epoch(10_000), "{through}");
    progress.delivered = Epoch(100);
    progress.forget(through);
    assert_eq!(
        progress.retained_from,
        Epoch(100),
        "only what every sink holds"
    );
    progress.delivered = Epoch(70_000);
    progress.forget(through);
    assert_eq!(progress.crowded(), Epoch(0));
}
