//! A generation of a job begins on this worker: its pipeline takes the place of the one before.
//!
//! Called by the supervisor's actor, which owns the pipelines. Keeps INV-4: a generation that is not newer than the running one has
//! no effect. Failure: a pipeline that cannot be spawned ends the worker; one that cannot be built says so by itself.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use millstream_common::link::Deploy;
use ractor::{Actor, ActorProcessingErr};
use tracing::info;

use crate::holding::Holding;
use crate::pipeline::pipeline_actor::{PipelineActor, PipelineConfig};
use crate::spans::PipelineSpans;
use crate::supervisor_actor::{Pipeline, SupervisorState};

impl SupervisorState {
    pub(crate) async fn deploy(&mut self, deploy: Deploy) -> Result<(), ActorProcessingErr> {
        let Some((_, store)) = &self.attached else {
            return Ok(());
        };
        let job = deploy.at.job.clone();
        let at = deploy.at.clone();
        let store = store.clone();
        if self
            .pipelines
            .get(&job)
            .is_some_and(|old| old.holding.at().generation >= at.generation)
        {
            return Ok(());
        }
        self.end_pipeline(&job);
        let rows_read = Arc::new(AtomicU64::new(0));
        let spans = Arc::new(PipelineSpans::new(&deploy, &self.config.worker));
        let holding = Holding::new(&deploy, rows_read.clone(), spans.clone());
        self.config.figures.begun(&job, rows_read.clone());
        info!(%job, generation = %at.generation, epoch = %deploy.restore.epoch, "deploy");
        let config = PipelineConfig {
            deploy: Box::new(deploy),
            worker: self.config.worker.clone(),
            functions: self.functions.clone(),
            store,
            edges: self.config.edges.clone(),
            taps: self.config.taps.clone(),
            supervisor: self.myself.clone(),
            rows_read,
            figures: self.config.figures.clone(),
            spans,
        };
        let name = config.actor_name("pipeline");
        let supervisor = self.myself.get_cell();
        let (actor, _) = Actor::spawn_linked(Some(name), PipelineActor, config, supervisor).await?;
        let pipeline = Pipeline {
            holding,
            actor,
            is_orphan: false,
        };
        self.pipelines.insert(job, pipeline);
        Ok(())
    }
}
