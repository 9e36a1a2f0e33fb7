//! Object storage in memory, with the semantics of S3: create-only, whole objects, answers that may be lost.
//!
//! One [`SimulatedStore`] a host, all over the same objects. Log objects go through the ledger as they are created. Failure: as the
//! weather says; an applied create may be answered with an error, or with "exists", as a retrying client sees it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millstream_common::log::{self, Entry};
use millstream_common::store::{self, Error, Store, StoreRef};
use millstream_worker::config::OpenStore;

use super::weather::Failure;
use super::{Fate, Outside, World};
use crate::trace::{self, event};

/// The storage as one host reaches it.
#[derive(Clone)]
pub(crate) struct SimulatedStore {
    pub(crate) host: String,
    pub(crate) outside: Arc<Outside>,
}

fn unavailable(key: &str, cause: &str) -> Error {
    Error::Unavailable {
        key: key.to_owned(),
        cause: cause.to_owned(),
    }
}

impl SimulatedStore {
    /// One call: `effect` on the objects, between the failures that the weather brings.
    async fn call<T: Send + 'static>(
        &self,
        verb: &'static str,
        key: &str,
        effect: impl FnOnce(&mut World) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let fate = self.outside.fate(None);
        let step = format!("{verb} {}", kind_of(key));
        self.call_as(&step, fate, verb, key, effect).await
    }

    async fn call_as<T: Send + 'static>(
        &self,
        step: &str,
        fate: Fate,
        verb: &'static str,
        key: &str,
        effect: impl FnOnce(&mut World) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (host, name) = (self.host.clone(), key.to_owned());
        let is_write = matches!(verb, "create" | "put");
        let effect = move |world: &mut World| {
            let result = match fate.failure {
                Some(Failure::Before) => Err(unavailable(&name, "503 slow down")),
                Some(Failure::Full) if is_write => Err(unavailable(&name, "no space left")),
                Some(Failure::Late(behind)) => {
                    let late = move |world: &mut World| {
                        // Nobody hears what became of it.
                        let _ = effect(world);
                    };
                    if matches!(verb, "create" | "put" | "delete") {
                        world.stragglers.add("storage", behind, Box::new(late));
                    }
                    Err(unavailable(&name, "timed out"))
                }
                None | Some(Failure::Full) => effect(world),
                Some(Failure::After) if verb == "get" => {
                    Err(unavailable(&name, "the body ended early"))
                }
                Some(Failure::AfterExists) if verb == "create" => {
                    effect(world).and(Err(Error::Exists { key: name.clone() }))
                }
                Some(Failure::After | Failure::AfterExists) => {
                    effect(world).and(Err(unavailable(&name, "connection reset")))
                }
            };
            let outcome = match &result {
                Ok(_) => "done".to_owned(),
                Err(error) => error.to_string(),
            };
            event!("store {host} {verb} {name}: {outcome}");
            result
        };
        let outside = &self.outside;
        let stalls = outside.with(|world| world.weather.stalls(&self.host, trace::now()));
        let delay = fate.delay.max(stalls);
        outside.call(&self.host, step, delay, effect).await
    }
}

/// The kind of an object, for the name of a step.
fn kind_of(key: &str) -> &str {
    key.split('/').next().unwrap_or_default()
}

/// What a log object says first, for the name of a step.
fn entry_of(value: &Bytes) -> &'static str {
    let object = log::decode("", value);
    let first = object
        .ok()
        .and_then(|object| object.entries.into_iter().next());
    match first {
        None => "nothing",
        Some(Entry::Fence { .. }) => "fence",
        Some(Entry::Job(_)) => "job",
        Some(Entry::Assign(_)) => "assign",
        Some(Entry::Epoch(_)) => "epoch",
        Some(Entry::Ended { .. }) => "ended",
        Some(Entry::Resumed { .. }) => "resumed",
        Some(Entry::Backlog { .. }) => "backlog",
        Some(Entry::Replay(_)) => "replay",
        Some(Entry::SinkCommanded { .. }) => "command",
        Some(Entry::SinkRewound { .. }) => "rewind",
        Some(Entry::Forgotten { .. }) => "forgotten",
        Some(Entry::Savepoint(_)) => "savepoint",
        Some(Entry::SavepointDropped { .. }) => "savepoint dropped",
        Some(Entry::Carried(_)) => "carried",
    }
}

#[async_trait]
impl Store for SimulatedStore {
    async fn create(&self, key: &str, value: Bytes) -> Result<(), Error> {
        let name = key.to_owned();
        let step = match key.starts_with("log/") {
            true => format!("create log {}", entry_of(&value)),
            false => format!("create {}", kind_of(key)),
        };
        let create = move |world: &mut World| {
            if world.objects.contains_key(&name) {
                return Err(Error::Exists { key: name });
            }
            event!("object {name} {:08x}", trace::digest(&value));
            world.damage.forget(&name);
            world.objects.insert(name.clone(), value);
            if name.starts_with("log/") {
                world.ledger.log_grew(&world.objects);
            }
            Ok(())
        };
        let fate = self.outside.fate(None);
        self.call_as(&step, fate, "create", key, create).await
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<(), Error> {
        let name = key.to_owned();
        let put = move |world: &mut World| {
            world.objects.insert(name, value);
            Ok(())
        };
        self.call("put", key, put).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        let name = key.to_owned();
        let get = move |world: &mut World| {
            let value = world.objects.get(&name).cloned();
            Ok(value.and_then(|value| world.damage.read(&name, value, trace::now())))
        };
        self.call("get", key, get).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let prefix_owned = prefix.to_owned();
        let list = move |world: &mut World| {
            let from = world.objects.range(prefix_owned.clone()..);
            let keys = from.map(|(key, _)| key.clone());
            Ok(keys
                .take_while(|key| key.starts_with(&prefix_owned))
                .collect())
        };
        self.call("list", prefix, list).await
    }

    async fn list_sized(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error> {
        let prefix_owned = prefix.to_owned();
        let list = move |world: &mut World| {
            let from = world.objects.range(prefix_owned.clone()..);
            let sized = from.map(|(key, value)| (key.clone(), value.len() as u64));
            Ok(sized
                .take_while(|(key, _)| key.starts_with(&prefix_owned))
                .collect())
        };
        self.call("list", prefix, list).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        let name = key.to_owned();
        let delete = move |world: &mut World| {
            world.objects.remove(&name);
            world.ledger.deleted(&name, &world.objects);
            Ok(())
        };
        self.call("delete", key, delete).await
    }
}

/// Opening it takes a moment and cannot fail.
#[async_trait]
impl OpenStore for SimulatedStore {
    async fn open(&self, _: &str) -> Result<StoreRef, store::Error> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(Arc::new(self.clone()))
    }
}
