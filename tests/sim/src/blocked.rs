//! A sink that is blocked for hours: nobody else notices, what it lacks stays bounded, and it catches up.
//!
//! Run by `millstream-sim blocked --hours 3`. An input flows for hours while one table is locked for most of them; nothing else fails. Looked at
//! with each epoch: the other sinks are at most [`LAG_EPOCHS_MAX`] behind, and what a new master would read first is no larger than ever
//! (INV-9). When the lock is gone, the sink has what it lacked within a fifth of the time. Pure but for what it looks at.

use std::time::Duration;

use millstream_common::ids::Epoch;
use millstream_master::retention::Retention;

use crate::outside::World;
use crate::outside::ledger::Chain;
use crate::scenario::{Action, Scenario};

/// The table that is locked.
const TABLE: &str = "counts";
/// From the beginning to the lock, and from its end to that of the input.
const BEFORE: Duration = Duration::from_secs(60);
const BEHIND: Duration = Duration::from_secs(300);
/// From one record of a partition to its next.
pub(crate) const RECORD_INTERVAL: Duration = Duration::from_secs(3);
/// Sinks apply an epoch while the next one is made.
const LAG_EPOCHS_MAX: usize = 2;
/// Of a snapshot of the log. What a sink lacks weighs two MiB before it is put away.
const BOUNDARY_BYTES_MAX: usize = 4 << 20;
/// How much faster than it came in a backlog has to go out.
const CATCH_UP_FACTOR: u32 = 5;
/// Tables and state are compared with the records this often; each time costs as much as there are records.
pub(crate) const COMPARED_EVERY: u64 = 100;

/// How it goes.
#[derive(Clone, Debug)]
pub(crate) struct Blocked {
    /// For how long the input flows.
    pub(crate) span: Duration,
    looked_at: Epoch,
    lacked_most: usize,
    /// Epochs were taken out of memory.
    was_put_away: bool,
    caught_up_at: Option<Duration>,
}

impl Blocked {
    /// With a lock of `hours`.
    pub(crate) fn new(hours: u32) -> Self {
        Self {
            span: BEFORE + Duration::from_hours(1) * hours + BEHIND,
            looked_at: Epoch(0),
            lacked_most: 0,
            was_put_away: false,
            caught_up_at: None,
        }
    }

    fn unlocked_at(&self) -> Duration {
        self.span - BEHIND
    }

    /// Nothing but the lock.
    pub(crate) fn scenario(&self) -> Scenario {
        let lock = Action::Lock(TABLE, self.unlocked_at());
        Scenario {
            has_standby: false,
            joins_at: None,
            retention: Retention {
                log: Duration::from_mins(10),
                ..Retention::default()
            },
            actions: vec![(BEFORE, lock)],
            ..Scenario::calm(true)
        }
    }

    /// What is wrong at `now`.
    pub(crate) fn broken(&mut self, world: &World, now: Duration) -> Option<String> {
        let chain = world.ledger.chains().last()?;
        let newest = chain.epochs.last().copied()?;
        let is_news = std::mem::replace(&mut self.looked_at, newest) != newest;
        let catches_up = now >= self.unlocked_at() && self.caught_up_at.is_none();
        if !is_news && !catches_up {
            return None;
        }
        let lacked = lacked_of(chain, TABLE);
        self.lacked_most = self.lacked_most.max(lacked);
        if lacked <= LAG_EPOCHS_MAX && now >= self.unlocked_at() {
            self.caught_up_at.get_or_insert(now);
        }
        let mut stored = world.objects.range("backlog/".to_owned()..);
        self.was_put_away |= stored
            .next()
            .is_some_and(|(key, _)| key.starts_with("backlog/"));
        let others = chain.markers.keys().filter(|table| *table != TABLE);
        for table in others {
            // The newest epoch was committed this moment.
            let lacked = lacked_of(chain, table).saturating_sub(1);
            if lacked > LAG_EPOCHS_MAX && now > BEFORE {
                return Some(format!("sink {table} lacks {lacked} epochs at {now:?}"));
            }
        }
        let snapshots = world.objects.range("boundary/".to_owned()..);
        let mut snapshots = snapshots.take_while(|(key, _)| key.starts_with("boundary/"));
        let large = snapshots.find(|(_, snapshot)| snapshot.len() > BOUNDARY_BYTES_MAX);
        large.map(|(key, snapshot)| format!("INV-9: {key} has {} bytes", snapshot.len()))
    }

    /// What is wrong at the end.
    pub(crate) fn verdict(&self) -> Option<String> {
        let locked = self.unlocked_at() - BEFORE;
        let Some(caught_up_at) = self.caught_up_at else {
            return Some(format!("{TABLE} did not catch up"));
        };
        let took = caught_up_at - self.unlocked_at();
        if took > locked / CATCH_UP_FACTOR {
            return Some(format!("{took:?} to catch up {locked:?}"));
        }
        let (lacked, is_long) = (self.lacked_most, locked >= Duration::from_hours(2));
        (is_long && !self.was_put_away)
            .then(|| format!("{lacked} epochs were lacked and none put away"))
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        let took = self.caught_up_at.map(|at| at - self.unlocked_at());
        format!("{} epochs lacked, caught up in {took:?}", self.lacked_most)
    }
}

/// Epochs behind the marker of a table.
fn lacked_of(chain: &Chain, table: &str) -> usize {
    let marker = chain.markers.get(table).copied().unwrap_or_default();
    let behind = chain
        .epochs
        .iter()
        .rev()
        .take_while(|epoch| **epoch > marker);
    behind.count()
}
