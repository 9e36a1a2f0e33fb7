//! The services outside the cluster: object storage, Kafka, Postgres. They outlive every host and have weather.
//!
//! Shared by all hosts of a simulation, beside turmoil's network. A call is a request on its way, an effect at its time, and an
//! answer on its way back: the effect comes about even if the caller has died meanwhile, as with a real service. The driver runs
//! effects that are due before each step. Failure: drawn from the weather, before or after the effect.

pub(crate) mod damage;
pub(crate) mod disk;
pub(crate) mod kafka;
pub(crate) mod ledger;
mod pace;
pub(crate) mod postgres;
pub(crate) mod sent_back;
pub(crate) mod store;
mod stragglers;
mod sums;
pub(crate) mod topics;
pub(crate) mod trap;
mod weather;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use millstream_sinks::kafka::MemoryCluster;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::oneshot;

use self::damage::Damage;
use self::ledger::Ledger;
use self::postgres::Tables;
use self::stragglers::{Behind, Stragglers};
use self::trap::{Moment, Trap};
pub(crate) use self::weather::{Fate, Weather};
use crate::people::{Errand, Wish};
use crate::trace::{self, event};

type Effect = Box<dyn FnOnce(&mut World) + Send>;

/// A request on its way.
struct Request {
    host: String,
    service: &'static str,
    /// Whoever asks fences those who came before.
    fences: bool,
    effect: Effect,
}

/// The services and what is known of them.
pub(crate) struct Outside {
    inner: Mutex<Inner>,
}

struct Inner {
    /// Effects by the time at which they come about, then in the order in which they were asked for.
    due: BTreeMap<(Duration, u64), Request>,
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
    /// What is written to Kafka.
    pub(crate) cluster: MemoryCluster,
    /// A transaction has ended since the driver looked.
    pub(crate) has_topic_changed: bool,
    /// Markers in the topic of markers that the driver has looked at.
    pub(crate) topic_said_count: usize,
    /// A file may have changed since the driver looked.
    pub(crate) has_disk_changed: bool,
    /// What the log and the markers have said so far, and what was wrong with it.
    pub(crate) ledger: Ledger,
    /// What fails at present.
    pub(crate) weather: Weather,
    /// Which objects of the storage read wrong.
    pub(crate) damage: Damage,
    /// Sinks that a person has yet to send back, in order.
    pub(crate) errands: Vec<Errand>,
    /// What a person has yet to ask of the job, in order.
    pub(crate) wishes: Vec<Wish>,
    /// When a person begins to resume suspended sinks.
    pub(crate) resumed_from: Duration,
    /// The step that the matrix, or an ambush, waits for.
    pub(crate) trap: Option<Trap>,
    /// What comes about late.
    pub(crate) stragglers: Stragglers,
}

/// Longest way to a service, without weather.
const WAY_MAX: Duration = Duration::from_millis(12);
/// How much later than its sender's end a request may come.
const LINGER_MS_MAX: u64 = 4_000;
/// Calls that wait for their effect at once (INV-9): above what three workers ask for to restore two operators each, and far above what
/// five hosts with their sinks, uploads and the log need.
const WAITING_CALLS_MAX: usize = 256;

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
            let request = entry.remove();
            let (service, fences) = (request.service, request.fences);
            for late in inner.world.stragglers.due_before(service, fences) {
                late(&mut inner.world);
            }
            (request.effect)(&mut inner.world);
        }
    }

    /// Whoever asked from `host` has died: what is on its way may come much later, behind what others ask meanwhile.
    pub(crate) fn linger(&self, host: &str) {
        let mut inner = self.inner();
        let of_host = inner.due.extract_if(.., |_, request| request.host == host);
        let requests: Vec<_> = of_host.collect();
        for (key, request) in requests {
            inner.insert_late(key, request);
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
        step: &str,
        delay: Duration,
        effect: impl FnOnce(&mut World) -> T + Send + 'static,
    ) -> T {
        let met = self.meet(step);
        if met == Some(Moment::Before) && self.spring(host) {
            return std::future::pending().await;
        }
        let (answer, answered) = oneshot::channel();
        let back = {
            let mut inner = self.inner();
            let start = trace::now().max(inner.world.weather.frozen_until(host));
            let way_us = WAY_MAX.as_micros() as u64;
            let there = Duration::from_micros(inner.chance.random_range(200..way_us));
            let back = Duration::from_micros(inner.chance.random_range(200..way_us));
            inner.asked_count += 1;
            let key = (start + there + delay, inner.asked_count);
            let name = host.to_owned();
            let effect: Effect = Box::new(move |world| {
                let value = effect(world);
                if met == Some(Moment::Applied) && world.spring(&name, None) {
                    return;
                }
                // A caller that has died gets no answer.
                let _ = answer.send(value);
            });
            let request = Request {
                host: host.to_owned(),
                service: service_of(step),
                fences: step.split(' ').any(|word| word == "fence"),
                effect,
            };
            let is_caught = met == Some(Moment::Sent) && inner.world.spring(host, None);
            match is_caught {
                true => inner.insert_late(key, request),
                false => {
                    inner.due.insert(key, request);
                }
            }
            if inner.due.len() > WAITING_CALLS_MAX {
                let what = format!("{} calls wait at once", inner.due.len());
                inner.world.ledger.violated("INV-9", what);
            }
            back
        };
        let Ok(value) = answered.await else {
            // The simulation has ended, or the caller is to.
            return std::future::pending().await;
        };
        tokio::time::sleep(back).await;
        self.thaw(host).await;
        if met == Some(Moment::Answered) {
            self.spring(host);
        }
        value
    }

    /// A step is about to be made: what is to happen to it.
    pub(crate) fn meet(&self, step: &str) -> Option<Moment> {
        let mut inner = self.inner();
        let trap = inner.world.trap.as_mut()?;
        let is_met = trap.is_met_by(step, trace::now());
        is_met.then_some(trap.moment)
    }

    fn spring(&self, host: &str) -> bool {
        self.with(|world| world.spring(host, None))
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

impl Inner {
    /// Who made the request is dead, or as good as that.
    fn insert_late(&mut self, (at, number): (Duration, u64), request: Request) {
        let late = match self.chance.random_range(0..4) {
            0 => Duration::ZERO,
            1 => Duration::from_millis(self.chance.random_range(0..LINGER_MS_MAX)),
            _ => {
                let behind = Behind::draw(&mut self.chance);
                let Request {
                    service, effect, ..
                } = request;
                self.world.stragglers.add(service, behind, effect);
                return;
            }
        };
        self.due.insert((at + late, number), request);
    }
}

/// Who is asked in a step of that name.
fn service_of(step: &str) -> &'static str {
    match step.rsplit(' ').next() {
        Some("kafka") => topics::NAME,
        Some("postgres") => "postgres",
        Some("disk") => disk::NAME,
        Some("splits") => "broker",
        _ => "storage",
    }
}

impl World {
    /// The trap closes on `host`, which spoke to `peer` if its step is a frame; whether the step ends here.
    pub(crate) fn spring(&mut self, host: &str, peer: Option<&str>) -> bool {
        let Some(trap) = &mut self.trap else {
            return false;
        };
        event!("{host} is caught at {} ({:?})", trap.step, trap.moment);
        trap.sprung = Some((host.to_owned(), peer.map(str::to_owned)));
        trap.stops
    }
}
