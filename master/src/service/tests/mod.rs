//! The service, the client and what lies between them, over an in-memory network and a master that
//! answers from a script.

mod reaching;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use millstream_common::client::{self, ControlClient};
use millstream_common::control::{
    CheckpointView, ControlError, DeadLetterView, JobState, JobView, LetterPage, LetterQuery,
    LetterTotals, PlanView, PreviewHeader, PreviewPart, PreviewRows, ReplayRequest, Replayed,
    RewindTerms, SavepointView, SinkCommand, SinkView, SkippedLetters, StopMode, Stopped,
    SubmitRequest, Submitted, WorkerView,
};
use millstream_common::ids::{Epoch, Generation, JobName, WorkerId};
use millstream_common::net::{self, MemoryNet, NetRef};
use millstream_common::problem::Problem;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::letters::listing::Listed;
use crate::preview::Previewed;

fn view(state: JobState) -> JobView {
    JobView {
        name: "clicks".into(),
        state,
        incarnation: "life".to_owned(),
        generation: Generation(3),
        epoch: Epoch(17),
        watermark: None,
        rows_read: 5,
        rows_rejected: 1,
        rows_per_second: 2.5,
        lag_records: Some(9),
        sources: Vec::new(),
        sinks: Vec::new(),
        cause: Some("waits for a worker".to_owned()),
        restarts: 0,
        submitted_at_us: 1,
        last_recovery_ms: None,
        checkpoint_interval_ms: 1000,
        storage: None,
        stages: Vec::new(),
        rows_unaccounted: 0,
        rows_reread: 0,
        last_failure: None,
    }
}

/// Knows one job, `clicks`, that is finished when it is looked at for the third time.
#[derive(Default)]
struct Script {
    looks: AtomicUsize,
    /// Stands by for so many calls for the workers, with which clients find out who reigns.
    standing_by: AtomicUsize,
    /// So many submissions are taken without an answer of use.
    lost_answers: AtomicUsize,
    /// What tries of submissions were called.
    tries: Mutex<Vec<Option<String>>>,
    stopped: Mutex<Option<StopMode>>,
}

#[async_trait]
impl ControlBackend for Script {
    async fn submit(&self, request: SubmitRequest) -> Result<Submitted, ControlError> {
        if request.sql.is_empty() {
            return Err(ControlError::Problems(vec![Problem {
                line: 1,
                column: 1,
                length: 1,
                message: "no statement".to_owned(),
                hint: None,
            }]));
        }
        self.tries.lock().unwrap().push(request.id);
        let lost = self.lost_answers.load(Ordering::Relaxed);
        if lost > 0 {
            self.lost_answers.store(lost - 1, Ordering::Relaxed);
            return Err(ControlError::Unavailable {
                cause: "it is ending".to_owned(),
                active: None,
            });
        }
        Ok(Submitted {
            job: view(JobState::Waiting),
            resumed_from: request.fresh.then_some(Epoch(4)),
            unchanged: false,
            warnings: vec![unread()],
        })
    }

    async fn stop(&self, _: &JobName, mode: StopMode) -> Result<Stopped, ControlError> {
        *self.stopped.lock().unwrap() = Some(mode);
        Ok(Stopped {
            job: view(JobState::Stopped),
            lagging_sinks: vec!["warehouse".to_owned()],
        })
    }

    async fn command_sink(
        &self,
        name: &JobName,
        sink: &str,
        command: SinkCommand,
    ) -> Result<SinkView, ControlError> {
        if sink != "warehouse" {
            let cause = format!("job {name} has no sink {sink}");
            return Err(ControlError::Invalid(cause));
        }
        Ok(SinkView {
            name: sink.to_owned(),
            connector: "postgres".to_owned(),
            relation: "page_views".to_owned(),
            marker: Epoch(3),
            lag_epochs: 2,
            lag_rows: 20,
            lag_bytes: 400,
            lag_age_ms: Some(1_500),
            paused: command == SinkCommand::Pause,
            rows_delivered: 7,
            rows_refused: 1,
            delivered_age_ms: None,
            rows_dropped: 0,
            suspended: false,
            retained_from: Epoch(2),
            quota: None,
            cause: None,
            worker: None,
        })
    }

    async fn rewind_sink(
        &self,
        name: &JobName,
        sink: &str,
        terms: RewindTerms,
    ) -> Result<SinkView, ControlError> {
        let command = SinkCommand::Resume;
        let sink = self.command_sink(name, sink, command).await?;
        match terms.to {
            Some(to) if terms.may_duplicate => Ok(SinkView { marker: to, ..sink }),
            _ => Err(ControlError::Invalid("it appends rows".to_owned())),
        }
    }

    async fn get(&self, name: &JobName) -> Result<JobView, ControlError> {
        if name.as_str() != "clicks" {
            return Err(ControlError::NotFound {
                name: name.to_string(),
                nearest: Some("clicks".to_owned()),
            });
        }
        let looks = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(view(match looks {
            3.. => JobState::Finished,
            _ => JobState::Running,
        }))
    }

    async fn list(&self) -> Result<Vec<JobView>, ControlError> {
        Ok(vec![view(JobState::Running)])
    }

    async fn workers(&self) -> Result<Vec<WorkerView>, ControlError> {
        let left = |count: usize| count.checked_sub(1);
        let order = Ordering::Relaxed;
        if self.standing_by.fetch_update(order, order, left).is_ok() {
            return Err(ControlError::Unavailable {
                cause: "it stands by".to_owned(),
                active: Some("gone:1".to_owned()),
            });
        }
        Ok(Vec::new())
    }

    async fn watermarks(
        &self,
        name: &JobName,
    ) -> Result<millstream_common::control::WatermarksView, ControlError> {
        Err(ControlError::Internal(format!("{name} keeps no time")))
    }

    async fn plan(&self, name: &JobName) -> Result<PlanView, ControlError> {
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

    async fn checkpoints(
        &self,
        _: &JobName,
        limit: usize,
    ) -> Result<Vec<CheckpointView>, ControlError> {
        Ok(vec![CheckpointView {
            epoch: Epoch(limit as u64),
            parent: Epoch(0),
            generation: Generation(1),
            watermark: None,
            rows_read: 0,
            segments: 0,
            segment_bytes: 0,
            state_parts: 0,
            state_bytes: 0,
            duration_ms: None,
            collect_ms: None,
            commit_ms: None,
            deliver_ms: None,
        }])
    }

    /// As many parts of a letter as are wanted, then the totals.
    async fn dead_letters(&self, _: &JobName, query: LetterQuery) -> Result<Listed, ControlError> {
        let parts = (0..query.limit).map(|index| LetterPage {
            letters: vec![letter(index as i64)],
            totals: None,
        });
        let last = LetterPage {
            letters: Vec::new(),
            totals: Some(LetterTotals {
                counts: Vec::new(),
                dropped: 7,
            }),
        };
        Ok(futures::stream::iter(parts.chain([last]).map(Ok)).boxed())
    }

    async fn preview(&self, name: &JobName, relation: &str) -> Result<Previewed, ControlError> {
        let header = PreviewHeader {
            relation: format!("{name}/{relation}"),
            ..PreviewHeader::default()
        };
        let rows = PreviewRows {
            worker: "w1".into(),
            arrow_stream: vec![1, 2],
            skipped_rows: 3,
        };
        let ended = ControlError::Unavailable {
            cause: "worker w1: its tasks have ended".to_owned(),
            active: None,
        };
        let parts = [
            Ok(PreviewPart::Header(header)),
            Ok(PreviewPart::Rows(rows)),
            Err(ended),
        ];
        Ok(futures::stream::iter(parts).boxed())
    }

    async fn replay(&self, _: &JobName, request: ReplayRequest) -> Result<Replayed, ControlError> {
        let rows = request.corrected.unwrap_or_default();
        Ok(Replayed {
            split: request.filter.owner,
            rows: rows.len() as u64,
            known: request.again,
            skipped: vec![SkippedLetters {
                rows: rows.iter().map(Vec::len).sum::<usize>() as u64,
                reason: "are bytes".to_owned(),
            }],
        })
    }
}

fn letter(position: i64) -> DeadLetterView {
    DeadLetterView {
        source: "clicks".to_owned(),
        origin: "clicks-0".to_owned(),
        position,
        payload: Some("\\xFF".to_owned()),
        payload_bytes: Some(vec![255]),
        code: "malformed".to_owned(),
        reason: "no JSON".to_owned(),
        event_time_us: None,
        received_at_us: 5,
        epoch: Epoch(3),
        is_cut: false,
    }
}

/// No worker calls here.
struct NoLink;

#[tonic::async_trait]
impl WorkerLink for NoLink {
    type AttachStream = BoxStream<'static, Result<v1::MasterFrame, Status>>;

    async fn attach(
        &self,
        _: Request<Streaming<v1::WorkerFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Ok(Response::new(futures::stream::pending().boxed()))
    }
}

struct Served {
    net: NetRef,
    script: Arc<Script>,
    stop: oneshot::Sender<()>,
    server: JoinSet<Result<(), Error>>,
}

const ADDRESS: &str = "master:7070";

async fn serve_script() -> Served {
    let net: NetRef = Arc::new(MemoryNet::default());
    let listener = net.listen(ADDRESS).await.unwrap();
    let script = Arc::new(Script::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let mut server = JoinSet::new();
    let shutdown = stopped.map(|_| ());
    server.spawn(serve(
        listener,
        script.clone(),
        NoLink,
        AccessLayer::open(),
        shutdown,
    ));
    Served {
        net,
        script,
        stop,
        server,
    }
}

async fn connect(served: &Served) -> ControlClient {
    ControlClient::connect(served.net.clone(), ADDRESS)
        .await
        .unwrap()
}

fn request(name: &str, sql: &str) -> SubmitRequest {
    SubmitRequest {
        name: name.into(),
        sql: sql.to_owned(),
        file: "clicks.sql".to_owned(),
        fresh: true,
        from: None,
        id: None,
    }
}

/// A warning.
fn unread() -> Problem {
    Problem {
        line: 3,
        column: 1,
        length: 4,
        message: "source clicks is read by no view and no sink".to_owned(),
        hint: None,
    }
}

#[tokio::test]
async fn calls_reach_the_master_and_answers_come_back_whole() {
    let served = serve_script().await;
    let client = connect(&served).await;
    let submitted = client.submit(request("clicks", "SELECT 1")).await.unwrap();
    assert_eq!(submitted.job, view(JobState::Waiting));
    assert_eq!(submitted.resumed_from, Some(Epoch(4)));
    assert_eq!(submitted.warnings, [unread()]);
    assert_eq!(client.jobs().await.unwrap(), [view(JobState::Running)]);
    let name = JobName::from("clicks");
    let checkpoints = client.checkpoints(&name, 0).await.unwrap();
    assert_eq!(checkpoints[0].epoch, Epoch(20), "the default limit");
    let stopped = client.stop(&name, StopMode::Drain).await.unwrap();
    assert_eq!(stopped.lagging_sinks, ["warehouse"]);
    assert_eq!(
        *served.script.stopped.lock().unwrap(),
        Some(StopMode::Drain)
    );
}

#[tokio::test]
async fn dead_letters_come_part_by_part_and_corrected_rows_arrive_whole() {
    let served = serve_script().await;
    let client = connect(&served).await;
    let name = JobName::from("clicks");
    let query = LetterQuery {
        filter: Default::default(),
        limit: 3,
    };
    let parts = client.dead_letters(&name, query).await.unwrap();
    let parts: Vec<LetterPage> = parts.map(|part| part.unwrap()).collect().await;
    assert_eq!(parts.len(), 4);
    assert_eq!(parts[2].letters, [letter(2)]);
    let totals = parts[3].totals.as_ref().expect("totals");
    assert_eq!(totals.dropped, 7);
    // More than a server takes in one message.
    let request = ReplayRequest {
        corrected: Some(vec![vec![b'x'; 1 << 20]; 6]),
        again: true,
        ..ReplayRequest::default()
    };
    let replayed = client.replay(&name, request).await.unwrap();
    assert_eq!((replayed.rows, replayed.known), (6, true));
    assert_eq!((replayed.split, replayed.skipped[0].rows), (None, 6 << 20));
}

#[tokio::test]
async fn refusals_come_back_as_the_master_made_them() {
    let served = serve_script().await;
    let client = connect(&served).await;
    let refusal = |error| match error {
        client::Error::Refused(refusal) => refusal,
        other => panic!("{other}"),
    };
    let empty = client.submit(request("clicks", "")).await.unwrap_err();
    assert!(matches!(refusal(empty), ControlError::Problems(problems) if problems.len() == 1));
    let unnamed = client.submit(request("a b", "SELECT 1")).await.unwrap_err();
    assert!(matches!(refusal(unnamed), ControlError::Invalid(text) if text.contains("a b")));
    let missing = client.job(&"click".into()).await.unwrap_err();
    assert_eq!(
        missing.to_string(),
        "no job click, did you mean clicks?; `millstream jobs` lists them"
    );
    assert!(client.watch(&"click".into()).await.is_err());
}

#[tokio::test]
async fn a_watch_ends_with_the_job() {
    let served = serve_script().await;
    let client = connect(&served).await;
    let jobs = client.watch(&"clicks".into()).await.unwrap();
    let states: Vec<JobState> = jobs.map(|job| job.unwrap().state).collect().await;
    assert_eq!(
        states,
        [JobState::Running, JobState::Running, JobState::Finished]
    );
}

#[tokio::test]
async fn a_preview_says_what_it_shows_then_rows_and_at_last_that_it_has_to_be_asked_for_again() {
    let served = serve_script().await;
    let client = connect(&served).await;
    let preview = client.preview(&"clicks".into(), "seen").await;
    let (header, rows) = preview.expect("a preview");
    assert_eq!(header.relation, "clicks/seen");
    let rows: Vec<_> = rows.collect().await;
    let [Ok(first), Err(ended)] = rows.as_slice() else {
        panic!("{rows:?}");
    };
    assert_eq!(
        (first.arrow_stream.as_slice(), first.skipped_rows),
        (&[1, 2][..], 3)
    );
    assert!(ended.kind().is_retryable(), "{ended}");
}
