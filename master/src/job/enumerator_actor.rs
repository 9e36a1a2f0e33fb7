//! Looks for the splits of one source, so that the job's actor never waits for a broker or a folder.
//!
//! Child of a job's actor, one a source. Asked with [`EnumeratorMessage::Discover`], answers with
//! `JobMessage::Discovered`; one look at a time. Failure: an error is an answer like any other; the job decides when to ask again.

use std::collections::BTreeMap;

use millstream_common::error::Failure;
use millstream_common::ids::{SourceIndex, SplitId};
use millstream_common::report::SplitProgress;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::job_actor::{JobConfig, JobMessage};
use crate::enumerate::Enumerator;

/// What the enumerator takes.
pub enum EnumeratorMessage {
    /// Look once.
    Discover {
        /// The splits that need not be told again.
        known: BTreeMap<SplitId, SplitProgress>,
    },
}

/// What one look brought.
pub struct Discovery {
    /// Splits that were not known.
    pub found: Vec<(SplitId, SplitProgress)>,
    /// No split can appear any more.
    pub exhausted: bool,
}

/// The actor.
pub struct EnumeratorActor;

/// What it looks through and for whom.
pub struct EnumeratorConfig {
    /// The source.
    pub source: SourceIndex,
    /// The source's name, for failures.
    pub name: String,
    /// The client.
    pub enumerator: Box<dyn Enumerator>,
    /// Who is told.
    pub job: ActorRef<JobMessage>,
}

impl Actor for EnumeratorActor {
    type Msg = EnumeratorMessage;
    type State = EnumeratorConfig;
    type Arguments = EnumeratorConfig;

    async fn pre_start(
        &self,
        _: ActorRef<EnumeratorMessage>,
        config: EnumeratorConfig,
    ) -> Result<EnumeratorConfig, ActorProcessingErr> {
        Ok(config)
    }

    async fn handle(
        &self,
        _: ActorRef<EnumeratorMessage>,
        message: EnumeratorMessage,
        state: &mut EnumeratorConfig,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            EnumeratorMessage::Discover { known } => state.discover(known).await,
        }
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<EnumeratorMessage>,
        event: SupervisionEvent,
        _: &mut EnumeratorConfig,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
            SupervisionEvent::ActorTerminated(child, _, _)
            | SupervisionEvent::ActorFailed(child, _) => Err(format!(
                "an enumerator has no children, but {} ended",
                child.get_id()
            )
            .into()),
        }
    }
}

impl EnumeratorConfig {
    async fn discover(
        &mut self,
        known: BTreeMap<SplitId, SplitProgress>,
    ) -> Result<(), ActorProcessingErr> {
        let result = match self.enumerator.discover(&known).await {
            Ok(found) => Ok(Discovery {
                found: found
                    .into_iter()
                    .map(|found| (found.split, found.progress))
                    .collect(),
                exhausted: self.enumerator.is_exhausted(),
            }),
            Err(error) => Err(Failure::new(error.kind, &self.name, &error)),
        };
        self.job.cast(JobMessage::Discovered {
            source: self.source,
            result,
        })?;
        Ok(())
    }
}

/// Starts one enumerator for each source of a job, linked to the job's actor.
pub(super) async fn spawn_enumerators(
    config: &JobConfig,
    job: &ActorRef<JobMessage>,
) -> Result<Vec<ActorRef<EnumeratorMessage>>, ActorProcessingErr> {
    let mut enumerators = Vec::new();
    for (index, source) in config.entry.plan.sources.iter().enumerate() {
        let arguments = EnumeratorConfig {
            source: SourceIndex(index as u32),
            name: source.name.clone(),
            enumerator: config.connectors.enumerator(source)?,
            job: job.clone(),
        };
        let (actor, _) =
            Actor::spawn_linked(None, EnumeratorActor, arguments, job.get_cell()).await?;
        enumerators.push(actor);
    }
    Ok(enumerators)
}
