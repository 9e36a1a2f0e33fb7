//! The sign of life of the active master: one object that it overwrites all the time.
//!
//! Written by the active master, read by those that stand by. Advisory: a lost, late or broken heartbeat costs at most a change of
//! reign, never an epoch. Failure: a heartbeat that cannot be written is tried again with the next.

use std::time::Duration;

use bytes::Bytes;
use millstream_common::error::chain;
use millstream_common::ids::Term;
use millstream_common::store::{Error, StoreRef};
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

/// Where it is.
const KEY: &str = "masters/heartbeat";
/// From one to the next.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// Where a master serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where clients and workers reach it.
    pub address: String,
    /// Where people reach its dashboard, if it has one.
    pub dashboard: Option<String>,
    /// The machine; see [`crate::config::MasterConfig::host`].
    pub host: String,
}

/// What the active master says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Its reign.
    pub term: Term,
    /// Grows with each.
    pub counter: u64,
    /// Where it serves.
    pub address: String,
    /// Where people reach its dashboard, if it has one.
    #[serde(default)]
    pub dashboard: Option<String>,
    /// The machine of that address.
    #[serde(default)]
    pub host: String,
    /// Its name, for people.
    pub master: String,
    /// It has ended in order: nobody need wait for the next.
    pub resigned: bool,
}

impl Heartbeat {
    /// The first one of a reign.
    pub fn new(term: Term, place: &Place, master: &str) -> Self {
        Self {
            term,
            counter: 0,
            address: place.address.clone(),
            dashboard: place.dashboard.clone(),
            host: place.host.clone(),
            master: master.to_owned(),
            resigned: false,
        }
    }
}

/// The newest heartbeat; one that does not decode says as little as none.
pub async fn read(store: &StoreRef) -> Result<Option<Heartbeat>, Error> {
    let bytes = store.get(KEY).await?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Overwrites the heartbeat.
pub async fn write(store: &StoreRef, heartbeat: &Heartbeat) -> Result<(), Error> {
    let bytes = serde_json::to_vec(heartbeat).map_err(|error| Error::Unavailable {
        key: KEY.to_owned(),
        cause: error.to_string(),
    })?;
    store.put(KEY, Bytes::from(bytes)).await
}

/// Overwrites the heartbeat again and again, until another's shows a later term, which is returned: a master that was asleep
/// learns by it that its time is over, also if it has nothing to write to the log.
pub async fn beat(store: StoreRef, mut heartbeat: Heartbeat) -> Term {
    let mut interval = tokio::time::interval(HEARTBEAT_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_heard = true;
    loop {
        interval.tick().await;
        match exchange(&store, &heartbeat).await {
            Ok(Some(later)) => return later,
            Ok(None) if !is_heard => {
                is_heard = true;
                info!("heartbeats can be written again");
            }
            Ok(None) => {}
            Err(error) if is_heard => {
                is_heard = false;
                warn!(error = %chain(&error), "write heartbeat; a standby may take over");
            }
            Err(_) => {}
        }
        heartbeat.counter += 1;
    }
}

/// Writes the heartbeat unless a later term stands there.
async fn exchange(store: &StoreRef, heartbeat: &Heartbeat) -> Result<Option<Term>, Error> {
    let found = read(store).await?;
    if let Some(found) = found.filter(|found| found.term > heartbeat.term) {
        return Ok(Some(found.term));
    }
    write(store, heartbeat).await?;
    Ok(None)
}
