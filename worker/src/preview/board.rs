//! The taps of all pipelines of a worker: pipelines post theirs, DoGet opens them by ticket.
//!
//! One a worker. Keeps INV-4: a ticket of another generation than the one that runs is refused, and readers end with the pipeline that
//! they read. Keeps INV-9: at most [`READERS_MAX`] at once. Failure: an [`OpenError`] that says what the ticket asks for in vain.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_common::ids::{Generation, JobName, StageIndex};
use millstream_common::plan::JobPlan;
use millstream_common::plan::expression::Functions;
use millstream_common::preview::Ticket;
use tokio::sync::{Semaphore, watch};

use super::basket::Basket;
use super::reading::Reading;
use super::tap::StageTap;
use crate::branch::input_schema;
use crate::transform::{BranchProgram, TransformError};

/// Readers at once, of all jobs of the worker.
pub const READERS_MAX: usize = 32;
/// Taps of one ticket: the inputs of a UNION ALL.
const TAPS_MAX: usize = 64;

/// The posted taps of a worker.
pub struct TapBoard {
    pipelines: Mutex<BTreeMap<JobName, PostedPipeline>>,
    readers: Arc<Semaphore>,
}

#[derive(Clone)]
struct PostedPipeline {
    generation: Generation,
    plan: Arc<JobPlan>,
    functions: Functions,
    stages: Arc<[Arc<StageTap>]>,
    /// Ends when the posting is dropped.
    alive: watch::Receiver<()>,
}

/// Keeps the taps of a pipeline open to readers; dropping it ends them.
pub struct PostedTaps {
    board: Arc<TapBoard>,
    job: JobName,
    generation: Generation,
    stages: Arc<[Arc<StageTap>]>,
    /// Dropped with the posting, which is what readers wait for.
    _alive: watch::Sender<()>,
}

/// Why a ticket opens nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("generation {generation} of job {job} does not run here")]
    NotHere {
        job: JobName,
        generation: Generation,
    },
    #[error("{} previews are open at this worker already", READERS_MAX)]
    TooMany,
    #[error("the ticket has {0}")]
    Malformed(&'static str),
    #[error("job {job} has no stage {stage}")]
    Unknown { job: JobName, stage: StageIndex },
    #[error("build preview")]
    Build(#[from] TransformError),
}

impl TapBoard {
    /// Without taps.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            pipelines: Mutex::default(),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
        })
    }

    /// Opens the taps of a pipeline; the newest posting of a job counts.
    pub fn post(
        self: &Arc<Self>,
        job: &JobName,
        generation: Generation,
        plan: Arc<JobPlan>,
        functions: Functions,
    ) -> PostedTaps {
        let (sender, alive) = watch::channel(());
        let stages: Arc<[Arc<StageTap>]> = plan.stages.iter().map(|_| Arc::default()).collect();
        let posted = PostedPipeline {
            generation,
            plan,
            functions,
            stages: stages.clone(),
            alive,
        };
        self.lock().insert(job.clone(), posted);
        PostedTaps {
            board: self.clone(),
            job: job.clone(),
            generation,
            stages,
            _alive: sender,
        }
    }

    /// The reading that `ticket` asks for.
    pub(crate) fn open(&self, ticket: &Ticket) -> Result<Reading, OpenError> {
        let permit = self.readers.clone().try_acquire_owned();
        let permit = permit.map_err(|_| OpenError::TooMany)?;
        let posted = self.lock().get(&ticket.job).cloned();
        let posted = posted.filter(|posted| posted.generation == ticket.generation);
        let posted = posted.ok_or_else(|| OpenError::NotHere {
            job: ticket.job.clone(),
            generation: ticket.generation,
        })?;
        if ticket.taps.len() > TAPS_MAX {
            return Err(OpenError::Malformed("too many taps"));
        }
        let basket = Arc::new(Basket::default());
        let mut programs = Vec::new();
        let mut taps = Vec::new();
        for (index, tap) in ticket.taps.iter().enumerate() {
            let stage = tap.stage.index();
            let planned = posted.plan.stages.get(stage);
            let (Some(planned), Some(stage)) = (planned, posted.stages.get(stage)) else {
                return Err(OpenError::Unknown {
                    job: ticket.job.clone(),
                    stage: tap.stage,
                });
            };
            let input = input_schema(&posted.plan, planned, tap.port);
            programs.push(BranchProgram::tapping(tap, &input, &posted.functions)?);
            taps.push(stage.open(tap.port, index, &basket));
        }
        let schema = match programs.first() {
            Some(first) => first.schema().clone(),
            None => return Err(OpenError::Malformed("no taps")),
        };
        if programs.iter().any(|program| *program.schema() != schema) {
            return Err(OpenError::Malformed("taps with different columns"));
        }
        Ok(Reading::new(
            (basket, taps, programs),
            schema,
            posted.alive,
            permit,
        ))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobName, PostedPipeline>> {
        self.pipelines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl PostedTaps {
    /// The tap of a stage, for its tasks.
    pub fn of(&self, stage: StageIndex) -> Arc<StageTap> {
        self.stages[stage.index()].clone()
    }
}

impl Drop for PostedTaps {
    fn drop(&mut self) {
        let mut pipelines = self.board.lock();
        if let Some(posted) = pipelines.get(&self.job)
            && posted.generation == self.generation
        {
            pipelines.remove(&self.job);
        }
    }
}
