//! `run` from submission to exit code, against a master that answers from a script over an in-memory
//! network.

use std::sync::Mutex;

use async_trait::async_trait;
use millstream_common::control::{
    CheckpointView, JobState, JobView, LetterQuery, ReplayRequest, Replayed, RewindTerms,
    SavepointView, SinkCommand, SinkView, Stopped, SubmitRequest, WorkerView,
};
use millstream_common::ids::{Epoch, Generation, WorkerId};
use millstream_common::problem::Problem;
use millstream_master::letters::listing::Listed;
use millstream_master::preview::Previewed;
use millstream_master::service::access::AccessLayer;
use millstream_master::service::{self, ControlBackend};
use millstream_proto::v1;
use millstream_proto::v1::worker_link_server::WorkerLink;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tonic::{Request, Response, Status, Streaming};

use super::*;

/// A master with one job. Its state is what the test says.
struct Script {
    state: Mutex<JobState>,
    calls: Mutex<Vec<&'static str>>,
    /// A stop answers at once, or never.
    stop_answers: bool,
    watched: Notify,
}

impl Script {
    fn new(state: JobState, stop_answers: bool) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(state),
            calls: Mutex::default(),
            stop_answers,
            watched: Notify::new(),
        })
    }

    fn note(&self, call: &'static str) {
        self.calls.lock().unwrap().push(call);
    }

    fn view(&self) -> JobView {
        let state = *self.state.lock().unwrap();
        JobView {
            name: "clicks".into(),
            state,
            incarnation: String::new(),
            generation: Generation(1),
            epoch: Epoch(7),
            watermark: None,
            rows_read: 0,
            rows_rejected: 0,
            rows_per_second: 0.0,
            lag_records: None,
            sources: Vec::new(),
            sinks: Vec::new(),
            cause: (state == JobState::Failed).then(|| "disk full".to_owned()),
            restarts: 0,
            submitted_at_us: 0,
            last_recovery_ms: None,
            checkpoint_interval_ms: 1000,
            storage: None,
            stages: Vec::new(),
            rows_unaccounted: 0,
            rows_reread: 0,
            last_failure: None,
        }
    }
}

#[async_trait]
impl ControlBackend for Script {
    async fn submit(&self, request: SubmitRequest) -> Result<Submitted, ControlError> {
        self.note("submit");
        if request.sql.is_empty() {
            return Err(ControlError::Problems(vec![Problem {
                line: 0,
                column: 0,
                length: 0,
                message: "no statement".to_owned(),
                hint: None,
            }]));
        }
        let mut state = self.state.lock().unwrap();
        match *state {
            JobState::Running => {
                return Err(ControlError::AlreadyRunning {
                    name: request.name.0,
                });
            }
            JobState::Stopped => *state = JobState::Running,
            _ => {}
        }
        drop(state);
        Ok(Submitted {
            job: self.view(),
            resumed_from: None,
            unchanged: false,
            warnings: Vec::new(),
        })
    }

    async fn stop(&self, _: &JobName, _: StopMode) -> Result<Stopped, ControlError> {
        self.note("stop");
        self.watched.notify_one();
        if !self.stop_answers {
            std::future::pending::<()>().await;
        }
        *self.state.lock().unwrap() = JobState::Stopped;
        Ok(Stopped {
            job: self.view(),
            lagging_sinks: Vec::new(),
        })
    }

    async fn command_sink(
        &self,
        _: &JobName,
        sink: &str,
        _: SinkCommand,
    ) -> Result<SinkView, ControlError> {
        Err(ControlError::Invalid(format!("no sink {sink}")))
    }

    async fn rewind_sink(
        &self,
        _: &JobName,
        sink: &str,
        _: RewindTerms,
    ) -> Result<SinkView, ControlError> {
        Err(ControlError::Invalid(format!("no sink {sink}")))
    }

    async fn get(&self, _: &JobName) -> Result<JobView, ControlError> {
        self.watched.notify_one();
        Ok(self.view())
    }

    async fn list(&self) -> Result<Vec<JobView>, ControlError> {
        Ok(vec![self.view()])
    }

    async fn workers(&self) -> Result<Vec<WorkerView>, ControlError> {
        Ok(Vec::new())
    }

    async fn watermarks(
        &self,
        name: &JobName,
    ) -> Result<millstream_common::control::WatermarksView, ControlError> {
        Err(ControlError::Internal(format!("{name} keeps no time")))
    }

    async fn plan(
        &self,
        name: &JobName,
    ) -> Result<millstream_common::control::PlanView, ControlError> {
        Err(ControlError::Internal(format!("{name} has no plan")))
    }

    fn dashboard_of_active(&self) -> Option<String> {
        None
    }

    async fn create_savepoint(
        &self,
        name: &JobName,
        _: Option<String>,
    ) -> Result<SavepointView, ControlError> {
        Err(ControlError::Invalid(format!("{name} has no epoch")))
    }

    async fn savepoints(&self, _: &JobName) -> Result<Vec<SavepointView>, ControlError> {
        Ok(Vec::new())
    }

    async fn drop_savepoint(
        &self,
        _: &JobName,
        savepoint: &str,
    ) -> Result<SavepointView, ControlError> {
        Err(ControlError::Invalid(format!("no savepoint {savepoint}")))
    }

    async fn drain_worker(&self, worker: &WorkerId) -> Result<WorkerView, ControlError> {
        Err(ControlError::Invalid(format!("no worker {worker}")))
    }

    async fn dead_letters(&self, _: &JobName, _: LetterQuery) -> Result<Listed, ControlError> {
        Err(ControlError::Invalid("no dead letters".to_owned()))
    }

    async fn preview(&self, _: &JobName, relation: &str) -> Result<Previewed, ControlError> {
        Err(ControlError::Invalid(format!("no relation {relation}")))
    }

    async fn replay(&self, _: &JobName, _: ReplayRequest) -> Result<Replayed, ControlError> {
        Err(ControlError::Invalid("no dead letters".to_owned()))
    }

    async fn checkpoints(
        &self,
        _: &JobName,
        _: usize,
    ) -> Result<Vec<CheckpointView>, ControlError> {
        Ok(Vec::new())
    }
}

struct NoLink;

#[tonic::async_trait]
impl WorkerLink for NoLink {
    type AttachStream = BoxStream<'static, Result<v1::MasterFrame, Status>>;

    async fn attach(
        &self,
        _: Request<Streaming<v1::WorkerFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("no worker calls here"))
    }
}

/// Runs the script's job with `sql` and these interrupts.
async fn run_job(
    script: &Arc<Script>,
    sql: &str,
    mut interrupts: BoxStream<'static, ()>,
) -> anyhow::Result<Outcome> {
    let net: NetRef = Arc::new(MemoryNet::default());
    let listener = net.listen("master:1").await.unwrap();
    let mut server = JoinSet::new();
    let never = std::future::pending();
    server.spawn(service::serve(
        listener,
        script.clone(),
        NoLink,
        AccessLayer::open(),
        never,
    ));
    let job = Job {
        client: ControlClient::connect(net, "master:1").await.unwrap(),
        name: "clicks".into(),
        beginning: Beginning::default(),
    };
    let text = JobText {
        file: "clicks.sql".to_owned(),
        sql: sql.to_owned(),
    };
    let mut progress = Progress::new(Arc::new(SystemClock::new()));
    job.run(&text, &mut interrupts, &mut progress).await
}

/// An interrupt each time the master is looked at or told to stop, `count` times.
fn interrupts(script: &Arc<Script>, count: usize) -> BoxStream<'static, ()> {
    let notices = stream::unfold(script.clone(), |script| async {
        script.watched.notified().await;
        Some(((), script))
    });
    notices.take(count).chain(stream::pending()).boxed()
}

#[tokio::test]
async fn the_first_interrupt_stops_the_job_and_is_no_failure() {
    let script = Script::new(JobState::Stopped, true);
    let outcome = run_job(&script, "SELECT 1", interrupts(&script, 1)).await;
    assert_eq!(outcome.unwrap(), Outcome::Done(ExitCode::SUCCESS));
    assert_eq!(*script.calls.lock().unwrap(), ["submit", "stop"]);
}

#[tokio::test]
async fn the_second_interrupt_does_not_wait_for_the_stop() {
    let script = Script::new(JobState::Stopped, false);
    let outcome = run_job(&script, "SELECT 1", interrupts(&script, 2)).await;
    assert_eq!(outcome.unwrap(), Outcome::Interrupted);
}

#[tokio::test]
async fn a_finished_job_succeeds_and_a_failed_one_fails() {
    let finished = Script::new(JobState::Finished, true);
    let outcome = run_job(&finished, "SELECT 1", stream::pending().boxed()).await;
    assert_eq!(outcome.unwrap(), Outcome::Done(ExitCode::SUCCESS));
    let failed = Script::new(JobState::Failed, true);
    let outcome = run_job(&failed, "SELECT 1", stream::pending().boxed()).await;
    assert_eq!(outcome.unwrap(), Outcome::Done(ExitCode::FAILURE));
}

#[tokio::test]
async fn problems_of_the_sql_fail_and_start_nothing() {
    let script = Script::new(JobState::Stopped, true);
    let outcome = run_job(&script, "", stream::pending().boxed()).await;
    assert_eq!(outcome.unwrap(), Outcome::Done(ExitCode::FAILURE));
    assert_eq!(*script.calls.lock().unwrap(), ["submit"]);
}

#[tokio::test]
async fn what_a_killed_process_left_running_is_stopped_and_goes_on() {
    let script = Script::new(JobState::Running, true);
    // The first notice comes from the stop of what was left, the next one from watching.
    let interrupts = interrupts(&script, 2).skip(1).boxed();
    let outcome = run_job(&script, "SELECT 1", interrupts).await;
    assert_eq!(outcome.unwrap(), Outcome::Done(ExitCode::SUCCESS));
    assert_eq!(
        *script.calls.lock().unwrap(),
        ["submit", "stop", "submit", "stop"]
    );
}

#[tokio::test]
async fn an_interrupt_while_what_was_left_is_stopped_still_ends_in_an_orderly_stop() {
    let script = Script::new(JobState::Running, true);
    let outcome = run_job(&script, "SELECT 1", interrupts(&script, 1)).await;
    assert_eq!(outcome.unwrap(), Outcome::Done(ExitCode::SUCCESS));
    assert_eq!(
        *script.calls.lock().unwrap(),
        ["submit", "stop", "submit", "stop"]
    );
}

#[tokio::test]
async fn a_second_interrupt_does_not_wait_for_what_was_left() {
    let script = Script::new(JobState::Running, false);
    let mut notices = interrupts(&script, 1);
    // The first comes when the stop of what was left has begun, which never answers; the second right after it.
    let twice = stream::once(async move { notices.next().await }).filter_map(std::future::ready);
    let twice = twice.chain(stream::iter([()])).chain(stream::pending());
    let outcome = run_job(&script, "SELECT 1", twice.boxed()).await;
    assert_eq!(outcome.unwrap(), Outcome::Interrupted);
    assert_eq!(*script.calls.lock().unwrap(), ["submit", "stop"]);
}

#[test]
fn whoever_waits_for_a_stop_is_told_what_for() {
    let mut job = crate::progress::tests::job();
    assert_eq!(
        waits_for(&job),
        "waiting for its last epoch, at most a minute"
    );
    job.sinks.push(crate::progress::tests::sink());
    assert_eq!(
        waits_for(&job),
        "waiting for the delivery to warehouse, at most a minute | connection refused"
    );
    job.state = JobState::Recovering;
    job.cause = Some("disk\nfull".to_owned());
    assert_eq!(
        waits_for(&job),
        "waiting for its tasks to go on from epoch 41, at most a minute | disk full | connection refused"
    );
}

#[tokio::test]
async fn a_failed_stop_is_named_once() {
    let net: NetRef = Arc::new(MemoryNet::default());
    let script = Script::new(JobState::Running, true);
    let listener = net.listen("master:1").await.unwrap();
    let mut server = JoinSet::new();
    let never = std::future::pending();
    server.spawn(service::serve(
        listener,
        script.clone(),
        NoLink,
        AccessLayer::open(),
        never,
    ));
    let client = ControlClient::connect(net, "master:1").await.unwrap();
    let broken = client::Error::TimedOut {
        call: "stop job",
        address: "master:1".to_owned(),
        seconds: 60,
    };
    let name = "clicks".into();
    let ended = crate::follow::end_of_stop(&client, &name, Err(broken)).await;
    let text = millstream_common::error::chain(ended.unwrap_err().as_ref());
    assert_eq!(text.matches("stop job").count(), 1, "{text}");
}

#[tokio::test]
async fn a_watch_goes_on_with_the_next_master() {
    let net: NetRef = Arc::new(MemoryNet::default());
    let first = Script::new(JobState::Stopped, true);
    let second = Script::new(JobState::Finished, true);
    let mut servers = JoinSet::new();
    let listener = net.listen("master:1").await.unwrap();
    let watched = first.clone();
    let once_watched = async move { watched.watched.notified().await };
    servers.spawn(service::serve(
        listener,
        first,
        NoLink,
        AccessLayer::open(),
        once_watched,
    ));
    let job = Job {
        client: ControlClient::connect(net.clone(), "master:1")
            .await
            .unwrap(),
        name: "clicks".into(),
        beginning: Beginning::default(),
    };
    let text = JobText {
        file: "clicks.sql".to_owned(),
        sql: "SELECT 1".to_owned(),
    };
    let mut progress = Progress::new(Arc::new(SystemClock::new()));
    let mut interrupts = stream::pending().boxed();
    let succeed = async {
        servers.join_next().await;
        let listener = net.listen("master:1").await.unwrap();
        let never = std::future::pending();
        servers.spawn(service::serve(
            listener,
            second,
            NoLink,
            AccessLayer::open(),
            never,
        ));
    };
    let run = job.run(&text, &mut interrupts, &mut progress);
    let (outcome, ()) = futures::join!(run, succeed);
    assert_eq!(outcome.unwrap(), Outcome::Done(ExitCode::SUCCESS));
}
