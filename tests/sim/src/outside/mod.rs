//! The services outside the cluster: object storage, Kafka, Postgres. They outlive every host and have weather.
//!
//! Shared by all hosts of a simulation, beside turmoil's network. A call is a request on its way, an effect at its time, and an
//! answer on its way back: the effect comes about even if the caller has died meanwhile, as with a real service. The driver runs
//! effects that are due before each step. Failure: drawn from the weather, before or after the effect.

pub(crate) mod kafka;
pub(crate) mod ledger;
pub(crate) mod postgres;
pub(crate) mod store;
mod weather;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

use self::ledger::Ledger;
use self::postgres::Tables;
pub(crate) use self::weather::{Fate, Weather};
use crate::trace;

type Effect = Box<dyn FnOnce(&mut World) + Send>;

/// The services and what is known of them.
pub(crate) struct Outside {
    inner: Mutex<Inner>,
}

struct Inner {
    /// Effects by the time at which they come about, then in the order in which they were asked for.
    due: BTreeMap<(Duration, u64), Effect>,
    asked_count: u64,
    chance: SmallRng,
    world: World,
}

/// What the services hold.
#[derive(Default)]
pub(crate) struct World {
    /// Of the object storage.
    pub(crate) objects: BTreeMap<String, Bytes>,
    /// Of Postgres.
    pub(crate) tables: Tables,
    /// What the log and the markers have said so far, and what was wrong with it.
    pub(crate) ledger: Ledger,
    /// What fails at present.
    pub(crate) weather: Weather,
}

/// Longest way to a service, without weather.
const WAY_MAX: Duration = Duration::from_millis(12);

impl Outside {
    /// Empty services whose chance comes from `seed`.
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let inner = Inner {
            due: BTreeMap::new(),
            asked_count: 0,
            chance: SmallRng::seed_from_u64(seed ^ 0x5707_AA6E),
            world: World::default(),
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at, or changes, what the services hold.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.inner().world)
    }

    /// Lets everything come about that is due at `now`.
    pub(crate) fn run_due(&self, now: Duration) {
        loop {
            let mut inner = self.inner();
            let Some(entry) = inner.due.first_entry().filter(|entry| entry.key().0 <= now) else {
                return;
            };
            let effect = entry.remove();
            effect(&mut inner.world);
        }
    }

    /// What becomes of the next call to the store or, with a table's name, to Postgres.
    fn fate(&self, table: Option<&str>) -> Fate {
        let now = trace::now();
        let mut inner = self.inner();
        let Inner { chance, world, .. } = &mut *inner;
        world.weather.fate(chance, now, table)
    }

    /// Asks a service from `host`: `effect` comes about after the way there and `delay`, the answer after the way back.
    async fn call<T: Send + 'static>(
        &self,
        host: &str,
        delay: Duration,
        effect: impl FnOnce(&mut World) -> T + Send + 'static,
    ) -> T {
        let (answer, answered) = oneshot::channel();
        let back = {
            let mut inner = self.inner();
            let start = trace::now().max(inner.world.weather.frozen_until(host));
            let way_us = WAY_MAX.as_micros() as u64;
            let there = Duration::from_micros(inner.chance.random_range(200..way_us));
            let back = Duration::from_micros(inner.chance.random_range(200..way_us));
            inner.asked_count += 1;
            let key = (start + there + delay, inner.asked_count);
            let effect: Effect = Box::new(move |world| {
                // A caller that has died gets no answer.
                let _ = answer.send(effect(world));
            });
            inner.due.insert(key, effect);
            back
        };
        let Ok(value) = answered.await else {
            // The simulation has ended.
            return std::future::pending().await;
        };
        tokio::time::sleep(back).await;
        self.thaw(host).await;
        value
    }

    /// Pends while `host` is frozen.
    async fn thaw(&self, host: &str) {
        loop {
            let until = self.with(|world| world.weather.frozen_until(host));
            let left = until.saturating_sub(trace::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}
