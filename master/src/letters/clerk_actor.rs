//! The clerk: takes the commands of people to send dead letters through a job again, and sees each through.
//!
//! Child of the master's supervisor; asked by the control service through [`Clerk`]. Which letters were sent before is looked up in the log,
//! so one command at a time holds the turn, from before that look until the log has answered: in a task of this actor, for a client that
//! goes away stops waiting and nothing else. Who waits for the turn waits outside, so that the actor holds the rows of one
//! command (INV-9). The job is asked before anything is stored, and what it then refuses all the same is deleted; what a master
//! leaves behind that dies in between is collected under the next one, by the term in its name. Failure: is the command's answer.

use std::sync::Arc;

use millstream_common::control::{ControlError, ReplayRequest, Replayed};
use millstream_common::error::chain;
use millstream_common::ids::{JobName, Term};
use millstream_common::store::StoreRef;
use millstream_common::task::caught;
use millstream_common::time::ClockRef;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr, call};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinSet;
use tracing::warn;

use super::desk::Desk;
use super::resend;
use crate::backend::gone;
use crate::job::job_actor::JobMessage;
use crate::supervisor::supervisor_actor::{SupervisorMessage, answer};

/// A command to send rows through a job again.
#[derive(Debug)]
pub struct Command {
    name: JobName,
    request: ReplayRequest,
}

/// What the clerk takes.
pub enum ClerkMessage {
    /// Sends rows through a job again.
    Replay {
        /// Which.
        command: Box<Command>,
        /// Held until the log has answered.
        turn: OwnedMutexGuard<()>,
        /// What was sent, or why nothing was.
        reply: RpcReplyPort<Result<Replayed, ControlError>>,
    },
}

/// What a clerk begins with.
#[derive(Clone)]
pub struct ClerkConfig {
    /// Where the log and the letters are.
    pub store: StoreRef,
    /// Time.
    pub clock: ClockRef,
    /// The reign; names what it stores.
    pub term: Term,
    /// Knows the jobs.
    pub supervisor: ActorRef<SupervisorMessage>,
}

/// The clerk of a reign, as others see it.
#[derive(Clone, Debug)]
pub struct Clerk {
    actor: ActorRef<ClerkMessage>,
    turn: Arc<Mutex<()>>,
}

impl Clerk {
    /// Starts it as a child of `parent`.
    pub async fn start(config: ClerkConfig, parent: ActorCell) -> Result<Self, SpawnErr> {
        let (actor, _) = Actor::spawn_linked(None, ClerkActor, config, parent).await?;
        Ok(Self {
            actor,
            turn: Arc::default(),
        })
    }

    /// Sends rows through the job again. Dropped before the turn has come, nothing happens; dropped later, everything does.
    pub async fn replay(
        &self,
        name: &JobName,
        request: ReplayRequest,
    ) -> Result<Replayed, ControlError> {
        let command = Box::new(Command {
            name: name.clone(),
            request,
        });
        let turn = self.turn.clone().lock_owned().await;
        let replayed = call!(self.actor, |reply| ClerkMessage::Replay {
            command,
            turn,
            reply
        });
        replayed.map_err(gone)?
    }
}

/// The state of the clerk's actor.
pub struct ClerkState {
    config: ClerkConfig,
    tasks: JoinSet<()>,
}

/// The actor.
pub struct ClerkActor;

impl Actor for ClerkActor {
    type Msg = ClerkMessage;
    type State = ClerkState;
    type Arguments = ClerkConfig;

    async fn pre_start(
        &self,
        _: ActorRef<ClerkMessage>,
        config: ClerkConfig,
    ) -> Result<ClerkState, ActorProcessingErr> {
        Ok(ClerkState {
            config,
            tasks: JoinSet::new(),
        })
    }

    async fn handle(
        &self,
        _: ActorRef<ClerkMessage>,
        message: ClerkMessage,
        state: &mut ClerkState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ClerkMessage::Replay {
                command,
                turn,
                reply,
            } => state.replay(*command, turn, reply),
        }
        Ok(())
    }
}

impl ClerkState {
    fn replay(
        &mut self,
        command: Command,
        turn: OwnedMutexGuard<()>,
        reply: RpcReplyPort<Result<Replayed, ControlError>>,
    ) {
        while self.tasks.try_join_next().is_some() {}
        let config = self.config.clone();
        self.tasks.spawn(async move {
            let replayed = caught(replay(&config, command)).await;
            let panicked = |panicked| Err(ControlError::Internal(format!("send rows: {panicked}")));
            answer(reply, replayed.unwrap_or_else(panicked));
            drop(turn);
        });
    }
}

async fn replay(config: &ClerkConfig, command: Command) -> Result<Replayed, ControlError> {
    let Command { name, request } = command;
    let found = call!(config.supervisor, |reply| SupervisorMessage::FindJob(
        name.clone(),
        reply
    ));
    let actor = found.map_err(gone)??;
    let job = Desk::new(config.store.clone(), config.clock.clone())
        .job(&name)
        .await?;
    let incarnation = job.entry.incarnation;
    let takes = call!(actor, |reply| JobMessage::TakesReplays {
        incarnation,
        reply
    });
    takes.map_err(gone)??;
    let stamp = resend::Stamp {
        term: config.term,
        now_us: config.clock.unix_micros(),
    };
    let mut prepared = resend::prepare(&config.store, &job, request, stamp).await?;
    if let Some(entry) = prepared.entry {
        let path = entry.object.path.clone();
        let entry = Box::new(entry);
        let added = call!(actor, |reply| JobMessage::Replay { entry, reply });
        match added.map_err(gone)? {
            Ok(is_new) => prepared.replayed.known = !is_new,
            Err(refused) => {
                forget(&config.store, &path).await;
                return Err(refused);
            }
        }
    }
    Ok(prepared.replayed)
}

/// The job has ended between question and entry: nobody will name the rows.
async fn forget(store: &StoreRef, path: &str) {
    if let Err(error) = store.delete(path).await {
        warn!(%path, error = %chain(&error), "delete rows that are not sent; they are collected under the next master");
    }
}
