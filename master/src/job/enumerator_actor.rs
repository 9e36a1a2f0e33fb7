//! Looks for the splits of one source, so that the job's actor never waits for a broker or a folder.
//!
//! Child of a job's actor, one a source. Asked with [`EnumeratorMessage::Discover`], answers with
//! `JobMessage::Discovered`; one look at a time. Owns the list of the splits that are known: those of the log as the actor
//! starts and what it has found since, for the job keeps each answer until the log has it. So a look costs what it
//! finds, however many files have been read. Failure: an error is an answer like any other; the job decides when to ask again.

use std::collections::BTreeMap;

use millstream_common::error::Failure;
use millstream_common::ids::{SourceIndex, SplitId};
use millstream_common::replay_split::is_replay;
use millstream_common::report::SplitProgress;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::job_actor::{JobConfig, JobMessage};
use crate::enumerate::{EnumerateError, Enumerator};

/// What the enumerator takes.
pub enum EnumeratorMessage {
    /// Look once.
    Discover,
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
    /// How it looks.
    pub looking: Looking,
    /// Who is told.
    pub job: ActorRef<JobMessage>,
}

/// One look after the other at the same source.
pub struct Looking {
    /// The client.
    pub enumerator: Box<dyn Enumerator>,
    /// The splits that need not be told again.
    pub known: BTreeMap<SplitId, SplitProgress>,
}

impl Looking {
    async fn look(&mut self) -> Result<Discovery, EnumerateError> {
        let found = self.enumerator.discover(&self.known).await?;
        let found: Vec<(SplitId, SplitProgress)> = found
            .into_iter()
            .map(|found| (found.split, found.progress))
            .collect();
        self.known.extend(found.iter().cloned());
        Ok(Discovery {
            found,
            exhausted: self.enumerator.is_exhausted(),
        })
    }
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
            EnumeratorMessage::Discover => state.discover().await,
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
    async fn discover(&mut self) -> Result<(), ActorProcessingErr> {
        let result = self.looking.look().await;
        self.job.cast(JobMessage::Discovered {
            source: self.source,
            result: result.map_err(|error| Failure::new(error.kind, &self.name, &error)),
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
        let index = SourceIndex(index as u32);
        let mut known = config.progress.splits.get(&index).cloned();
        if let Some(known) = &mut known {
            // Nothing that could be found.
            known.retain(|split, _| !is_replay(split));
        }
        let arguments = EnumeratorConfig {
            source: index,
            name: source.name.clone(),
            looking: Looking {
                enumerator: config.connectors.enumerator(source)?,
                known: known.unwrap_or_default(),
            },
            job: job.clone(),
        };
        let (actor, _) =
            Actor::spawn_linked(None, EnumeratorActor, arguments, job.get_cell()).await?;
        enumerators.push(actor);
    }
    Ok(enumerators)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use millstream_common::report::SplitStatus;

    use super::*;
    use crate::enumerate::FoundSplit;

    /// Finds its splits until they are known.
    struct Listing(Vec<FoundSplit>);

    #[async_trait]
    impl Enumerator for Listing {
        async fn discover(
            &mut self,
            known: &BTreeMap<SplitId, SplitProgress>,
        ) -> Result<Vec<FoundSplit>, EnumerateError> {
            let found = self.0.iter();
            let new = found.filter(|found| known.get(&found.split) != Some(&found.progress));
            Ok(new.cloned().collect())
        }

        fn is_exhausted(&self) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn what_a_look_has_found_is_known_to_the_next() {
        let progress = SplitProgress {
            position: 0,
            end: None,
            watermark: None,
            status: SplitStatus::Active,
            identity: None,
            gaps: None,
        };
        let named = |name: &str| (SplitId::from(name), progress.clone());
        let listed = ["old", "new"].map(named);
        let listed = listed.map(|(split, progress)| FoundSplit { split, progress });
        let mut looking = Looking {
            enumerator: Box::new(Listing(listed.to_vec())),
            known: BTreeMap::from([named("old")]),
        };
        let found = looking.look().await.expect("an answer").found;
        assert_eq!(found, vec![named("new")]);
        let found = looking.look().await.expect("an answer").found;
        assert_eq!(found, vec![]);
    }
}
