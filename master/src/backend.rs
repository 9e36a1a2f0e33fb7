//! The master behind its control API: questions of clients as messages to the supervisor and the jobs.
//!
//! Called by `service/control.rs`. A master that stands by answers nothing itself and says who does. Plans submissions itself, in
//! blocking work, so that no actor and no heartbeat waits for a planner or a broker. Failure: an actor that does not answer is
//! `Unavailable`; everything else is the user's and says what to do.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_common::blocking::{self, BlockingRef};
use millstream_common::control::{
    CheckpointView, ControlError, JobState, JobView, LetterQuery, PlanView, ReplayRequest,
    Replayed, RewindTerms, SavepointView, SinkCommand, SinkView, StopMode, Stopped, SubmitRequest,
    Submitted, WatermarksView, WorkerView,
};
use millstream_common::ids::{Epoch, JobName, WorkerId};
use millstream_common::problem::{Place, Problem};
use millstream_common::secret;
use millstream_common::time::ClockRef;
use millstream_common::trace::TracerRef;
use ractor::{ActorRef, call};

use crate::job::job_actor::JobMessage;
use crate::letters::desk::Desk;
use crate::letters::listing::Listed;
use crate::plan::{self, check::ExternalProbe};
use crate::preview::{PreviewDesk, Previewed};
use crate::reign::role::Roles;
use crate::service::ControlBackend;
use crate::submission_trace::SubmissionTrace;
use crate::supervisor::submission::{Submission, Unchanged};
use crate::supervisor::supervisor_actor::SupervisorMessage;

/// The handle of a running master.
pub struct Backend {
    roles: Roles,
    blocking: BlockingRef,
    probe: Arc<dyn ExternalProbe>,
    letters: Desk,
    previews: PreviewDesk,
    /// Where spans of submissions go, with the time.
    traced: Option<(TracerRef, ClockRef)>,
}

impl Backend {
    /// In front of the actors of a reign; plans in `blocking` work; `probe` looks at topics, tables and folders before a job is taken;
    /// `letters` answers about dead letters, `previews` shows rows.
    pub fn new(
        roles: Roles,
        blocking: BlockingRef,
        probe: Arc<dyn ExternalProbe>,
        (letters, previews): (Desk, PreviewDesk),
    ) -> Self {
        Self {
            roles,
            blocking,
            probe,
            letters,
            previews,
            traced: None,
        }
    }

    /// With spans of submissions.
    #[must_use]
    pub fn traced(mut self, tracer: TracerRef, clock: ClockRef) -> Self {
        self.traced = Some((tracer, clock));
        self
    }

    /// Plans the SQL and looks at what it names outside; the text is given back.
    async fn plan(&self, sql: String) -> Result<(String, plan::PlannedJob), ControlError> {
        let drafted = blocking::run(&self.blocking, move || {
            let drafted = plan::draft_job(&sql, &secret::Environment);
            (sql, drafted)
        });
        let (sql, drafted) = match drafted.await {
            Ok(drafted) => drafted,
            Err(panicked) => {
                return Err(ControlError::Internal(format!("plan the job: {panicked}")));
            }
        };
        let checked = plan::check_job(drafted, self.probe.as_ref()).await;
        Ok((sql, checked.map_err(ControlError::Problems)?))
    }

    /// Plans a submission and has it recorded. Whoever calls may hang up at any time; what has gone to the supervisor goes on.
    async fn take(
        &self,
        request: SubmitRequest,
        mut trace: SubmissionTrace,
    ) -> Result<Submitted, ControlError> {
        let (sql, planned) = match self.plan(request.sql).await {
            Ok(planned) => planned,
            Err(refused) => {
                trace.refused(&refused);
                return Err(refused);
            }
        };
        trace.planned();
        let submission = Submission {
            trace,
            job: request.name,
            sql,
            plan: planned.plan,
            fresh: request.fresh,
            from: request.from,
            id: request.id,
        };
        let submission = Box::new(submission);
        let started = call!(self.supervisor()?, |reply| SupervisorMessage::Submit {
            submission,
            reply
        });
        let started = started.map_err(gone)??;
        let job = call!(started.actor, JobMessage::View).map_err(gone)?;
        if started.unchanged == Unchanged::Alike && job.state == JobState::Stopping {
            // Somebody stops it: it can be resumed then.
            return Err(ControlError::Unavailable {
                cause: format!("job {} is about to end", job.name),
                active: None,
            });
        }
        let resumed_from = (started.resumed_from > Epoch(0)).then_some(started.resumed_from);
        let notes = started.notes.into_iter();
        let notes = notes.map(|note| Problem::at(Place::default(), note));
        Ok(Submitted {
            job,
            resumed_from,
            unchanged: started.unchanged != Unchanged::No,
            warnings: planned.warnings.into_iter().chain(notes).collect(),
        })
    }

    /// What the SQL of a running job is planned to now; nothing where it is planned no more, as where a variable is gone.
    async fn planned_again(&self, sql: String) -> Result<Option<plan::PlannedJob>, ControlError> {
        let plan = move || plan::plan_job(&sql, &secret::Environment).ok();
        let planned = blocking::run(&self.blocking, plan).await;
        planned.map_err(|panicked| ControlError::Internal(format!("plan the job: {panicked}")))
    }

    fn supervisor(&self) -> Result<ActorRef<SupervisorMessage>, ControlError> {
        Ok(self.roles.active()?.supervisor)
    }

    async fn job(&self, name: &JobName) -> Result<ActorRef<JobMessage>, ControlError> {
        let found = call!(self.supervisor()?, |reply| SupervisorMessage::FindJob(
            name.clone(),
            reply
        ));
        found.map_err(gone)?
    }
}

/// The actor has ended: the master is going down, or was fenced.
pub(crate) fn gone<T>(error: ractor::RactorErr<T>) -> ControlError {
    ControlError::Unavailable {
        cause: format!("it is ending ({error})"),
        active: None,
    }
}

#[async_trait]
impl ControlBackend for Backend {
    async fn submit(&self, request: SubmitRequest) -> Result<Submitted, ControlError> {
        // Nothing is planned for somebody else.
        self.roles.active()?;
        let trace = match &self.traced {
            Some((tracer, clock)) => {
                SubmissionTrace::begin(tracer.clone(), clock.clone(), &request.name)
            }
            None => SubmissionTrace::default(),
        };
        self.take(request, trace).await
    }

    async fn stop(&self, name: &JobName, mode: StopMode) -> Result<Stopped, ControlError> {
        let job = self.job(name).await?;
        let before = call!(job, JobMessage::View).map_err(gone)?;
        if before.state.is_over() {
            return Err(ControlError::NotRunning {
                name: name.to_string(),
                state: before.state.to_string(),
            });
        }
        call!(job, |reply| JobMessage::Stop { mode, reply }).map_err(gone)
    }

    async fn command_sink(
        &self,
        name: &JobName,
        sink: &str,
        command: SinkCommand,
    ) -> Result<SinkView, ControlError> {
        let job = self.job(name).await?;
        let sink = sink.to_owned();
        let commanded = call!(job, |reply| JobMessage::CommandSink {
            sink,
            command,
            reply
        });
        commanded.map_err(gone)?
    }

    async fn rewind_sink(
        &self,
        name: &JobName,
        sink: &str,
        terms: RewindTerms,
    ) -> Result<SinkView, ControlError> {
        let job = self.job(name).await?;
        let sink = sink.to_owned();
        let rewound = call!(job, |reply| JobMessage::RewindSink { sink, terms, reply });
        rewound.map_err(gone)?
    }

    async fn get(&self, name: &JobName) -> Result<JobView, ControlError> {
        let job = self.job(name).await?;
        call!(job, JobMessage::View).map_err(gone)
    }

    async fn list(&self) -> Result<Vec<JobView>, ControlError> {
        let jobs = call!(self.supervisor()?, SupervisorMessage::AllJobs).map_err(gone)?;
        let mut views = Vec::with_capacity(jobs.len());
        for job in jobs {
            // A job that ends between the two questions is left out; the next list has it again.
            if let Ok(view) = call!(job, JobMessage::View) {
                views.push(view);
            }
        }
        Ok(views)
    }

    async fn workers(&self) -> Result<Vec<WorkerView>, ControlError> {
        let statuses = call!(self.supervisor()?, SupervisorMessage::AllWorkers).map_err(gone)?;
        let jobs = call!(self.supervisor()?, SupervisorMessage::AllJobs).map_err(gone)?;
        let mut shares = Vec::new();
        for job in jobs {
            if let Ok(of_job) = call!(job, JobMessage::Shares) {
                shares.extend(of_job);
            }
        }
        let views = statuses.into_iter().map(|status| {
            let own: Vec<_> = shares
                .iter()
                .filter(|share| share.worker == status.worker)
                .collect();
            WorkerView {
                tasks: own.iter().map(|share| share.tasks).sum(),
                splits: own.iter().map(|share| share.splits).sum(),
                jobs: own.iter().map(|share| share.job.clone()).collect(),
                id: status.worker,
                state: status.state,
                flight_address: status.flight_address,
                slots: status.slots,
                age_ms: status.age.as_millis() as u64,
                heartbeat_age_ms: status.heartbeat_age.as_millis() as u64,
                version: status.version,
            }
        });
        Ok(views.collect())
    }

    async fn watermarks(&self, name: &JobName) -> Result<WatermarksView, ControlError> {
        let job = self.job(name).await?;
        call!(job, JobMessage::Watermarks).map_err(gone)
    }

    async fn plan(&self, name: &JobName) -> Result<PlanView, ControlError> {
        let job = self.job(name).await?;
        call!(job, JobMessage::Plan).map_err(gone)
    }

    fn dashboard_of_active(&self) -> Option<String> {
        self.roles.dashboard_of_active()
    }

    async fn create_savepoint(
        &self,
        name: &JobName,
        savepoint: Option<String>,
    ) -> Result<SavepointView, ControlError> {
        let job = self.job(name).await?;
        let created = call!(job, |reply| JobMessage::Savepoint {
            name: savepoint,
            reply
        });
        created.map_err(gone)?
    }

    async fn savepoints(&self, name: &JobName) -> Result<Vec<SavepointView>, ControlError> {
        let job = self.job(name).await?;
        call!(job, JobMessage::Savepoints).map_err(gone)
    }

    async fn drop_savepoint(
        &self,
        name: &JobName,
        savepoint: &str,
    ) -> Result<SavepointView, ControlError> {
        let job = self.job(name).await?;
        let dropped = call!(job, |reply| JobMessage::DropSavepoint {
            name: savepoint.to_owned(),
            reply
        });
        dropped.map_err(gone)?
    }

    async fn drain_worker(&self, worker: &WorkerId) -> Result<WorkerView, ControlError> {
        let drained = call!(self.supervisor()?, |reply| SupervisorMessage::DrainWorker(
            worker.clone(),
            reply
        ));
        drained.map_err(gone)??;
        let workers = self.workers().await?;
        let named = workers.into_iter().find(|known| known.id == *worker);
        named.ok_or_else(|| ControlError::Unavailable {
            cause: format!("worker {worker} has just left"),
            active: None,
        })
    }

    async fn checkpoints(
        &self,
        name: &JobName,
        limit: usize,
    ) -> Result<Vec<CheckpointView>, ControlError> {
        let job = self.job(name).await?;
        call!(job, |reply| JobMessage::Checkpoints(limit, reply)).map_err(gone)
    }

    async fn dead_letters(
        &self,
        name: &JobName,
        query: LetterQuery,
    ) -> Result<Listed, ControlError> {
        // One that stands by knows as much, but says who is asked.
        self.roles.active()?;
        self.letters.list(name, query).await
    }

    async fn preview(&self, name: &JobName, relation: &str) -> Result<Previewed, ControlError> {
        let job = self.job(name).await?;
        let placed = call!(job, JobMessage::Placed).map_err(gone)??;
        let planned = self.planned_again(placed.sql.clone()).await?;
        self.previews.open(placed, planned.as_ref(), relation).await
    }

    async fn replay(
        &self,
        name: &JobName,
        request: ReplayRequest,
    ) -> Result<Replayed, ControlError> {
        self.roles.active()?.clerk.replay(name, request).await
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use millstream_common::blocking::{Blocking, Panicked};
    use millstream_common::net::MemoryNet;
    use millstream_common::time::SystemClock;

    use super::*;
    use crate::probe::RealProbe;
    use crate::testing::{memory, reigning, supervise};

    /// Runs everything at once, and counts.
    #[derive(Default)]
    struct Counted(AtomicUsize);

    #[async_trait]
    impl Blocking for Counted {
        async fn run_boxed(
            &self,
            work: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
        ) -> Result<Box<dyn Any + Send>, Panicked> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(work())
        }

        fn start_thread(&self, _: String, _: Box<dyn FnOnce() + Send>) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_is_planned_in_blocking_work_so_that_heartbeats_go_on() {
        let supervisor = supervise(&memory(), Vec::new()).await;
        let counted = Arc::new(Counted::default());
        let probe = Arc::new(RealProbe::new(counted.clone()));
        let clock = Arc::new(SystemClock::new());
        let desk = Desk::new(memory(), clock);
        let roles = reigning(memory(), supervisor).await;
        let previews = PreviewDesk::new(Arc::new(MemoryNet::default()));
        let backend = Backend::new(roles, counted.clone(), probe, (desk, previews));
        let request = SubmitRequest {
            name: "clicks".into(),
            sql: "SELEC".to_owned(),
            file: "clicks.sql".to_owned(),
            fresh: false,
            from: None,
            id: None,
        };
        let refused = backend.submit(request).await.expect_err("no SQL");
        assert!(matches!(refused, ControlError::Problems(_)), "{refused:?}");
        assert_eq!(counted.0.load(Ordering::Relaxed), 1);
    }
}
