//! The actor of one source task: hears commands while its loop waits for rows and credit.
//!
//! Child of the pipeline, one a source task. Owns the loop (`reader_task.rs`) as its one task: it ends with the actor. Failure: what the loop
//! ends with is told to the pipeline, which ends as a whole.

use millstream_common::error::{Failure, Kind};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::reader_task::{ReaderCommand, ReaderTask};
use crate::pipeline::pipeline_actor::PipelineMessage;
use millstream_common::task;

/// Commands that wait for the loop: it hears them between two batches. More than a barrier, its commit and a few claims
/// never wait, for epochs follow one another.
const COMMANDS_MAX: usize = 64;

/// What a reader takes.
pub enum ReaderMessage {
    /// For the loop.
    Command(ReaderCommand),
    /// The loop has ended.
    Ended(Result<(), Failure>),
}

/// The state of a reader.
pub struct ReaderState {
    commands: mpsc::Sender<ReaderCommand>,
    pipeline: ActorRef<PipelineMessage>,
    _tasks: JoinSet<()>,
}

/// The actor.
pub struct ReaderActor;

impl Actor for ReaderActor {
    type Msg = ReaderMessage;
    type State = ReaderState;
    type Arguments = ReaderTask;

    async fn pre_start(
        &self,
        myself: ActorRef<ReaderMessage>,
        task: ReaderTask,
    ) -> Result<ReaderState, ActorProcessingErr> {
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let pipeline = task.pipeline.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let name = task.name.clone();
            let result = task::caught(task.run(received)).await;
            let result = result
                .unwrap_or_else(|panicked| Err(Failure::new(Kind::Internal, name, &panicked)));
            // The actor owns this task and outlives it.
            let _ = myself.cast(ReaderMessage::Ended(result));
        });
        Ok(ReaderState {
            commands,
            pipeline,
            _tasks: tasks,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<ReaderMessage>,
        message: ReaderMessage,
        state: &mut ReaderState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ReaderMessage::Command(command) => state.command(command),
            ReaderMessage::Ended(result) => state.ended(result),
        }
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<ReaderMessage>,
        event: SupervisionEvent,
        _: &mut ReaderState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
            SupervisionEvent::ActorTerminated(child, _, _)
            | SupervisionEvent::ActorFailed(child, _) => {
                Err(format!("a reader has no children, but {} ended", child.get_id()).into())
            }
        }
    }
}

impl ReaderState {
    fn command(&mut self, command: ReaderCommand) -> Result<(), ActorProcessingErr> {
        match self.commands.try_send(command) {
            Ok(()) => Ok(()),
            // The loop has ended; what it ended with is already on its way.
            Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(command)) => Err(format!(
                "{COMMANDS_MAX} commands wait for the reader; no room for {command:?}"
            )
            .into()),
        }
    }

    fn ended(&mut self, result: Result<(), Failure>) -> Result<(), ActorProcessingErr> {
        let failure = match result {
            Err(failure) => failure,
            Ok(()) => Failure {
                kind: Kind::Internal,
                origin: "read".to_owned(),
                cause: "the reader's loop ended by itself".to_owned(),
            },
        };
        self.pipeline.cast(PipelineMessage::Failed(failure))?;
        Ok(())
    }
}
