//! What tests of a pipeline's parts have in the place of the pipeline itself.
//!
//! Used by tests of actors that report to it. Hands on each message; a test that has gone ends it.

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;

use super::pipeline_actor::PipelineMessage;

/// Stands in for the pipeline: hands on what it is told.
pub(crate) struct Told(pub(crate) mpsc::Sender<PipelineMessage>);

impl Actor for Told {
    type Msg = PipelineMessage;
    type State = ();
    type Arguments = ();

    async fn pre_start(
        &self,
        _: ActorRef<PipelineMessage>,
        (): (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<PipelineMessage>,
        message: PipelineMessage,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(self.0.send(message).await?)
    }
}
