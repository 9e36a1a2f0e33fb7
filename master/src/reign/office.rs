//! From standing by to reigning, and back.
//!
//! Run as one task of a master. While it stands by it follows the log and looks for signs of life; when there are none it appends a
//! Fence entry with the next term, and reigns if that lands (INV-4: of several that try one lands, and whatever an older
//! master writes later does not count). A reign ends when the log or a later heartbeat says that another has begun.
//! Failure: storage that does not answer is waited for; a log that cannot be understood, or a defect of the actors, ends the
//! process.

use std::sync::Arc;
use std::time::Duration;

use millstream_common::error::chain;
use millstream_common::ids::{Term, nonce};
use millstream_common::log::{Entry, LogObject};
use millstream_common::mutant::{self, Mutant};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::heartbeat::{self, Heartbeat, Place};
use super::reigning::{Ended, Reign};
use super::role::{Active, Role, Roles};
use super::trail::{Trail, TrailError};
use super::watch::{LOOK_INTERVAL, Sign, Verdict, Watch};
use crate::config::MasterConfig;
use crate::log_actor::{OnTrouble, Stopped, append_until_settled};
use crate::master::{Entrance, MasterError};

/// Storage that hangs must not hold up the end of a process for longer.
const RESIGN_PATIENCE: Duration = Duration::from_secs(1);

/// What is known of the active master before a heartbeat of it has been seen.
const NOBODY: Role = Role::Standby {
    active: None,
    dashboard: None,
};

/// A master's place between standing by and reigning.
pub(crate) struct Office {
    config: MasterConfig,
    /// Where clients and workers reach this master.
    place: Place,
    entrance: Entrance,
    roles: watch::Sender<Role>,
    trail: Trail,
    reign: Option<Reign>,
}

impl Office {
    /// Reads the log, and reigns at once where that disturbs nobody.
    pub(crate) async fn open(
        config: MasterConfig,
        address: String,
        dashboard: Option<String>,
        entrance: Entrance,
    ) -> Result<(Self, Roles), MasterError> {
        let (roles, seen) = watch::channel(NOBODY);
        let mut office = Self {
            trail: Trail::new(config.store.clone()),
            place: Place {
                address,
                dashboard,
                host: config.host.clone(),
            },
            config,
            entrance,
            roles,
            reign: None,
        };
        let sign = office.look().await?;
        office.refuse_lost_end(&sign).await?;
        match office.entrance {
            Entrance::Alone => {
                office.wait_for_silence(sign).await?;
                office.begin().await?;
            }
            Entrance::WhenVacant if sign.is_vacant_for(&office.place) => {
                if let Err(fenced) = office.begin().await {
                    office.fenced(fenced)?;
                }
            }
            Entrance::WhenVacant => office.tell_where(&sign),
        }
        Ok((office, Roles(seen)))
    }

    /// Stands by and reigns in turn, until it is told to end.
    pub(crate) async fn run(mut self, told: oneshot::Receiver<()>) -> Result<(), MasterError> {
        let ended = tokio::select! {
            ended = self.take_turns() => ended,
            _ = told => Ok(()),
        };
        self.resign().await;
        ended
    }

    async fn take_turns(&mut self) -> Result<(), MasterError> {
        loop {
            if self.reign.is_none() {
                self.stand_by().await?;
                if let Err(fenced) = self.begin().await {
                    self.fenced(fenced)?;
                    continue;
                }
            }
            self.reign_on().await?;
        }
    }

    /// Another was faster: it reigns, and this one stands by.
    fn fenced(&self, error: MasterError) -> Result<(), MasterError> {
        match error {
            MasterError::Fenced(Stopped::Fenced { theirs, .. }) => {
                info!(term = %theirs, "another master has begun to reign");
                Ok(())
            }
            other => Err(other),
        }
    }

    /// Returns when nobody reigns.
    async fn stand_by(&mut self) -> Result<(), MasterError> {
        info!(address = %self.place.address, term = %self.trail.term(), "master stands by");
        let mut watch = Watch::default();
        loop {
            match self.look().await {
                Ok(sign) => {
                    self.tell_where(&sign);
                    if watch.look(sign, self.config.clock.monotonic()) == Verdict::Vacant {
                        return Ok(());
                    }
                }
                Err(error) if error.is_passing() => watch.blind(),
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// For one that would not stand by: returns when nobody can be seen to live, and refuses to go on as soon as somebody can.
    /// What a killed process has left is waited for, like a silent master.
    async fn wait_for_silence(&mut self, mut sign: Sign) -> Result<(), MasterError> {
        let left = sign.heartbeat.clone();
        let mut watch = Watch::default();
        while !sign.is_vacant() {
            if watch.look(sign, self.config.clock.monotonic()) == Verdict::Vacant {
                return Ok(());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
            sign = self.look().await?;
            let moved = sign.heartbeat.as_ref();
            let moved = moved.filter(|moved| left.as_ref() != Some(*moved) && !moved.resigned);
            if let Some(alive) = moved {
                return Err(MasterError::Reigned {
                    master: alive.master.clone(),
                    address: alive.address.clone(),
                });
            }
        }
        Ok(())
    }

    /// A heartbeat is written behind the Fence of its term: a log that does not know the term has lost its end.
    async fn refuse_lost_end(&mut self, sign: &Sign) -> Result<(), MasterError> {
        let Some(heartbeat) = &sign.heartbeat else {
            return Ok(());
        };
        if heartbeat.term > self.trail.term() {
            // Both may have been written since the log was read.
            self.trail.follow_to_end().await?;
        }
        if heartbeat.term <= self.trail.term() {
            return Ok(());
        }
        let lost = millstream_common::log::Error::Broken {
            key: millstream_common::log::key(self.trail.next()),
            cause: format!(
                "the log ends in term {}, and master {} has reigned in term {}: its end is missing",
                self.trail.term(),
                heartbeat.master,
                heartbeat.term
            ),
        };
        Err(TrailError::from(lost).into())
    }

    async fn look(&mut self) -> Result<Sign, TrailError> {
        self.trail.follow().await?;
        let heartbeat = heartbeat::read(&self.config.store).await;
        Ok(Sign {
            heartbeat: heartbeat.map_err(millstream_common::log::Error::from)?,
            term: self.trail.term(),
            end: self.trail.next(),
        })
    }

    /// Calls are told where the active master is.
    fn tell_where(&self, sign: &Sign) {
        let reigning = sign.heartbeat.as_ref();
        let reigning = reigning.filter(|heartbeat| !heartbeat.resigned);
        self.roles.send_replace(Role::Standby {
            active: reigning.map(|heartbeat| heartbeat.address.clone()),
            dashboard: reigning.and_then(|heartbeat| heartbeat.dashboard.clone()),
        });
    }

    /// Appends the Fence entry of the next term, and starts the actors behind it. Of two masters that want the same term one gets
    /// it, and the other is fenced.
    async fn begin(&mut self) -> Result<(), MasterError> {
        // What it has followed so far may have been collected behind it.
        self.follow_settled().await?;
        let term = self.trail.term().next();
        if !mutant::is(Mutant::SkipLogFence) {
            self.fence(term).await?;
        }
        let jobs = self.trail.jobs().clone();
        info!(%term, log = self.trail.next().0 - 1, jobs = jobs.len(), address = %self.place.address, "master reigns");
        let heartbeat = Heartbeat::new(term, &self.place, &self.config.name);
        let reign = Reign::begin(&self.config, heartbeat, self.trail.next(), jobs).await;
        let reign = reign.map_err(|error| MasterError::Run(error.to_string()))?;
        self.roles.send_replace(Role::Active(Active {
            term,
            supervisor: reign.supervisor.clone(),
            clerk: reign.clerk.clone(),
        }));
        self.reign = Some(reign);
        Ok(())
    }

    async fn fence(&mut self, term: Term) -> Result<(), MasterError> {
        let fence = LogObject {
            term,
            nonce: nonce(),
            entries: vec![Entry::Fence {
                term,
                master: self.config.name.clone(),
            }],
        };
        let quiet: OnTrouble = Arc::new(|_| {});
        append_until_settled(&self.config.store, self.trail.next(), &fence, &quiet).await?;
        self.follow_settled().await?;
        if self.trail.term() != term {
            return Err(MasterError::Fenced(Stopped::Fenced {
                theirs: self.trail.term(),
                ours: term,
            }));
        }
        Ok(())
    }

    /// Pends while this master reigns; an error is its end.
    async fn reign_on(&mut self) -> Result<(), MasterError> {
        let Some(reign) = &mut self.reign else {
            return Ok(());
        };
        let term = reign.term;
        let ended = reign.ended().await;
        self.roles.send_replace(NOBODY);
        self.reign = None;
        self.follow_settled().await?;
        let newest = self.trail.term();
        if newest <= term && ended == Ended::Root {
            let cause = "its root actor ended by a defect, see its log".to_owned();
            return Err(MasterError::Run(cause));
        }
        warn!(%term, theirs = %newest, "another master has begun to reign; this one has no effect any more");
        match self.entrance {
            Entrance::WhenVacant => Ok(()),
            Entrance::Alone => Err(MasterError::Fenced(Stopped::Fenced {
                theirs: newest,
                ours: term,
            })),
        }
    }

    /// Follows the log to its end, however long the storage takes to answer.
    async fn follow_settled(&mut self) -> Result<(), TrailError> {
        loop {
            match self.trail.follow_to_end().await {
                Err(error) if error.is_passing() => {
                    warn!(error = %chain(&error), "read the log; trying on");
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
                settled => return settled,
            }
        }
    }

    /// Ends the reign, if there is one, so that the next master need not wait.
    async fn resign(mut self) {
        let Some(reign) = self.reign.take() else {
            return;
        };
        let mut heartbeat = Heartbeat::new(reign.term, &self.place, &self.config.name);
        heartbeat.resigned = true;
        drop(reign);
        let written = heartbeat::write(&self.config.store, &heartbeat);
        match tokio::time::timeout(RESIGN_PATIENCE, written).await {
            Ok(Ok(())) => info!("reign laid down"),
            Ok(Err(_)) | Err(_) => warn!("the next master waits until heartbeats have been missed"),
        }
    }
}
