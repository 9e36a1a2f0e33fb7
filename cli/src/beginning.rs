//! What a job begins with, as `submit` and `run` are told.

use clap::Args;
use millstream_common::control::FromCheckpoint;

/// By default the same SQL goes on from its last epoch, and a new name begins with nothing.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Beginning {
    /// Begin a new life of its state; append sinks receive their rows again.
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Go on from a checkpoint, also with other SQL: a savepoint's name, its epoch's number or `latest`; of another job as JOB/NAME.
    #[arg(long, value_name = "CHECKPOINT")]
    from_checkpoint: Option<String>,
    /// With --from-checkpoint: drop state that the SQL has no place for any more.
    #[arg(long, requires = "from_checkpoint")]
    allow_dropped_state: bool,
}

impl Beginning {
    /// What it goes on from, if that was said.
    pub(crate) fn from(&self) -> Option<FromCheckpoint> {
        let checkpoint = self.from_checkpoint.clone()?;
        Some(FromCheckpoint {
            checkpoint,
            may_drop: self.allow_dropped_state,
        })
    }
}
