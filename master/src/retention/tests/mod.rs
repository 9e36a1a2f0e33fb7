//! An endless job in memory: what storage holds stays bounded, and a start from the folded log knows what one from the whole
//! log would.

mod letters;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use millstream_common::ids::{
    Epoch, Generation, Incarnation, JobName, OutputIndex, Seq, SinkIndex, Term,
};
use millstream_common::log::backlog::RECENT_WEIGHT_MAX;
use millstream_common::log::savepoint::SavepointEntry;
use millstream_common::log::{self, Appended, Entry, LogObject};
use millstream_common::report::{Segment, StatePart};
use millstream_common::store::{Store, StoreRef};
use millstream_common::time::Clock;

use super::collector_actor::Collector;
use super::history::{HistoryError, read_history};
use super::{Looked, Retention};
use crate::replay::Replay;
use crate::testing::{ENDLESS, MemoryStore, ToldLog, memory, plan};

/// Stands still until it is told.
#[derive(Debug, Default)]
struct HandClock(AtomicU64);

impl HandClock {
    fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn unix_micros(&self) -> i64 {
        self.monotonic().as_micros() as i64
    }
}

const RETENTION: Retention = Retention {
    interval: Duration::from_secs(1),
    log: Duration::from_secs(32),
    segments: Duration::from_secs(8),
    checkpoints: 3,
    objects_per_boundary: 4,
    deletes_max: 100,
    recent_weight_max: RECENT_WEIGHT_MAX,
};

struct Endless {
    memory: Arc<MemoryStore>,
    store: StoreRef,
    clock: Arc<HandClock>,
    collector: Collector,
    log: ToldLog,
    /// What the sink reads.
    output: OutputIndex,
    /// What the last look found that every sink has held for long.
    forgettable: Epoch,
    /// The output with dead letters, of which each epoch has a segment of ten bytes, if any.
    letters: Option<OutputIndex>,
}

impl Endless {
    async fn start() -> Self {
        Self::start_as(ENDLESS).await
    }

    /// With dead letters, of which `retention` says what is kept.
    async fn start_with_letters(retention: &str) -> Self {
        let sql = format!("SET dead_letter_retention = '{retention}'; {ENDLESS}");
        let mut endless = Self::start_as(&sql).await;
        let outputs = plan(&sql).outputs;
        let letters = outputs
            .iter()
            .position(|output| output.relation == "numbers.dead_letters");
        endless.letters = letters.map(|index| OutputIndex(index as u32));
        endless
    }

    async fn start_as(sql: &str) -> Self {
        let memory = memory();
        let store: StoreRef = memory.clone();
        let clock = Arc::new(HandClock::default());
        Self {
            collector: collector(&store, &clock),
            log: ToldLog::begin(store.clone(), "numbers", sql).await,
            memory,
            store,
            clock,
            output: plan(ENDLESS).sinks[0].output,
            forgettable: Epoch(0),
            letters: None,
        }
    }

    async fn create(&self, key: &str) {
        let created = self.memory.create(key, Bytes::from_static(b"ten bytes!"));
        created.await.expect("create");
    }

    /// Looks, as the collector does; what may be forgotten is said with the next epoch.
    async fn look(&mut self) -> Result<BTreeMap<JobName, Looked>, HistoryError> {
        let looked = self.collector.look().await?;
        self.forgettable = looked[&JobName::from("numbers")].forgettable;
        Ok(looked)
    }

    /// A second and an epoch with one state part and one segment; the sink is one epoch behind.
    async fn epoch(&mut self) {
        self.clock.pass(1);
        let mut entry = self.log.next_epoch();
        let (life, epoch) = (self.log.life, entry.epoch.0);
        let part = StatePart {
            path: format!("state/{life}/numbers/x/0/{epoch:012}-2-0-a.arrow"),
            epoch: entry.epoch,
            bytes: 10,
            checksum: 0,
            row_count: 1,
        };
        let segment = format!("segments/{life}/{}/{epoch:012}-2-w-a.arrow", self.output);
        for key in [&part.path, &segment] {
            self.create(key).await;
        }
        if let Some(output) = self.letters {
            let generation = entry.generation;
            let path = format!("segments/{life}/{output}/{epoch:012}-{generation}-w-a.arrow");
            self.create(&path).await;
            entry.segments.push(Segment {
                output,
                path,
                bytes: 10,
                checksum: 0,
                row_count: 2,
            });
        }
        entry.committed_at_us = self.clock.unix_micros();
        entry.parts = BTreeMap::from([("numbers/x/0".into(), vec![part])]);
        entry.sink_markers = BTreeMap::from([(SinkIndex(0), entry.parent)]);
        let forgotten = Entry::Forgotten {
            job: self.log.job.clone(),
            incarnation: life,
            through: self.forgettable,
        };
        self.log.commit_behind(vec![forgotten], entry).await;
    }

    async fn count(&self, folder: &str) -> usize {
        self.store.list(folder).await.expect("list").len()
    }
}

fn collector(store: &StoreRef, clock: &Arc<HandClock>) -> Collector {
    Collector {
        store: store.clone(),
        clock: clock.clone(),
        retention: RETENTION,
        folded: None,
        behind: VecDeque::new(),
        latest: Replay::default(),
        lives: BTreeMap::new(),
    }
}

#[tokio::test]
async fn an_endless_job_holds_a_bounded_number_of_objects_and_says_how_many_bytes() {
    let mut endless = Endless::start().await;
    let mut used = BTreeMap::new();
    for _ in 0..300 {
        endless.epoch().await;
        used = endless.look().await.expect("look");
        assert!(endless.count("log/").await < 60, "log");
        assert!(endless.count("boundary/").await < 30, "boundaries");
        assert_eq!(
            endless.count("state/").await,
            endless.log.epoch.0.min(3) as usize
        );
        assert!(endless.count("segments/").await < 15, "segments");
    }
    let used = used[&JobName::from("numbers")].used;
    assert_eq!(used.state_bytes, 30);
    assert!(
        used.segment_bytes >= 80 && used.log_bytes > 1_000,
        "{used:?}"
    );
}

#[tokio::test]
async fn a_start_from_the_folded_log_knows_what_one_from_the_whole_log_would() {
    let mut collected = Endless::start().await;
    for _ in 0..100 {
        collected.epoch().await;
        collected.look().await.expect("look");
    }
    let first = log::read(&collected.store, Seq(1)).await.expect("read");
    assert_eq!(first, None, "the beginning is collected");
    let history = read_history(&collected.store).await.expect("read");
    assert_eq!((history.through, history.term), (Seq(102), Term(1)));
    let job = &history.jobs[&JobName::from("numbers")];
    assert_eq!(job.progress.epoch, Epoch(100));
    assert_eq!(job.generation, Generation(2));
    assert_eq!(job.entry.sql, ENDLESS);
    assert_eq!(job.progress.delivered, Epoch(99));
    let kept = job.progress.recent.iter().map(|epoch| epoch.epoch.0);
    assert_eq!(kept.collect::<Vec<_>>(), (91..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_second_collector_begins_where_the_first_has_folded() {
    let mut endless = Endless::start().await;
    for _ in 0..50 {
        endless.epoch().await;
        endless.look().await.expect("look");
    }
    endless.collector = collector(&endless.store, &endless.clock);
    for _ in 0..50 {
        endless.epoch().await;
        endless.look().await.expect("look");
    }
    assert!(endless.count("log/").await < 60);
    assert_eq!(endless.count("state/").await, 3);
}

#[tokio::test]
async fn nothing_is_collected_while_the_log_is_not_understood() {
    let mut endless = Endless::start().await;
    for _ in 0..20 {
        endless.epoch().await;
    }
    endless
        .memory
        .delete(&log::key(Seq(7)))
        .await
        .expect("delete");
    let before = endless.count("state/").await;
    let refused = endless.look().await.expect_err("a gap").to_string();
    assert!(refused.contains("log/000000000007"), "{refused}");
    assert_eq!(endless.count("state/").await, before);
    let start = read_history(&endless.store).await.expect_err("a gap");
    assert!(!start.is_passing());
}

#[tokio::test]
async fn a_master_that_slept_past_the_collection_finds_that_it_has_not_written() {
    let mut endless = Endless::start().await;
    for _ in 0..100 {
        endless.epoch().await;
        endless.look().await.expect("look");
    }
    let object = LogObject {
        term: Term(1),
        nonce: "slept".to_owned(),
        entries: Vec::new(),
    };
    let appended = log::append(&endless.store, Seq(3), &object).await;
    assert_eq!(appended.expect("append"), Appended::Collected);
    let history = read_history(&endless.store).await.expect("read");
    assert_eq!(history.through, Seq(102));
    endless.epoch().await;
    endless.look().await.expect("look");
    let left = log::read(&endless.store, Seq(3)).await.expect("read");
    assert_eq!(left, None, "what it left there is collected too");
}

#[tokio::test]
async fn the_state_of_a_savepoint_is_kept_until_it_is_dropped_also_over_a_new_life() {
    let mut endless = Endless::start().await;
    endless.epoch().await;
    let kept = SavepointEntry {
        job: "numbers".into(),
        incarnation: endless.log.life,
        epoch: Epoch(1),
        name: "first".to_owned(),
        made_at_us: 0,
    };
    endless.log.append(Entry::Savepoint(kept)).await;
    let state = format!("state/{}/", endless.log.life);
    for _ in 0..50 {
        endless.epoch().await;
        endless.look().await.expect("look");
        assert!(endless.count(&state).await <= 4);
    }
    let left = endless.store.list(&state).await.expect("list");
    assert!(
        left.len() == 4 && left[0].contains("/000000000001-"),
        "{left:?}"
    );
    let history = read_history(&endless.store).await.expect("read");
    let job = &history.jobs[&JobName::from("numbers")];
    assert_eq!(job.savepoints["first"].progress.epoch, Epoch(1));

    let mut entry = job.entry.clone();
    entry.incarnation = Incarnation::fresh();
    endless.log.append(Entry::Job(Box::new(entry))).await;
    endless.look().await.expect("look");
    assert_eq!(endless.count(&state).await, 1, "only the savepoint's");
    let dropped = Entry::SavepointDropped {
        job: "numbers".into(),
        name: "first".to_owned(),
    };
    endless.log.append(dropped).await;
    endless.look().await.expect("look");
    assert_eq!(endless.count(&state).await, 0);
}

#[tokio::test]
async fn what_a_sink_is_sent_back_to_before_is_kept_although_it_was_held_for_long() {
    let mut endless = Endless::start().await;
    for _ in 0..30 {
        endless.epoch().await;
        endless.look().await.expect("look");
    }
    let oldest = endless.store.list("segments/").await.expect("list")[0].clone();
    let history = read_history(&endless.store).await.expect("read");
    let kept = history.jobs[&JobName::from("numbers")]
        .progress
        .retained_from;
    let rewind = |to| Entry::SinkRewound {
        job: "numbers".into(),
        incarnation: endless.log.life,
        sink: SinkIndex(0),
        to,
    };
    let (too_far, to) = (rewind(Epoch(kept.0 - 1)), rewind(kept));
    endless.log.append(too_far).await;
    let history = read_history(&endless.store).await.expect("read");
    let progress = &history.jobs[&JobName::from("numbers")].progress;
    assert!(progress.sink_rewinds.is_empty(), "its segments may be gone");
    endless.log.append(to).await;
    for _ in 0..30 {
        // Nobody places the job anew: the epochs are of a generation that does not know of it.
        endless.epoch().await;
        endless.look().await.expect("look");
    }
    let left = endless.store.list("segments/").await.expect("list");
    assert_eq!((&left[0], left.len()), (&oldest, 60 - kept.0 as usize));
    let history = read_history(&endless.store).await.expect("read");
    let progress = &history.jobs[&JobName::from("numbers")].progress;
    assert_eq!(
        (progress.delivered, progress.marker(SinkIndex(0))),
        (kept, kept)
    );
}
