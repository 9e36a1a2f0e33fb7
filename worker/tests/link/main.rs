//! A worker and its master: joining, letting go, and frames of older generations.
//!
//! The master is the test: a served link whose frames it reads and writes itself, or a channel in place of the link.
//! Jobs are one generator without sinks. Nothing waits for time to pass, only for frames.

mod supervisor;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::datatypes::{DataType, Field};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use millstream_common::blocking::ThreadPool;
use millstream_common::ids::{
    Epoch, Generation, Incarnation, SourceIndex, StageIndex, TaskId, Term,
};
use millstream_common::link::{
    BarrierCommand, BarrierKind, Deploy, JobGeneration, ToMaster, ToWorker, WorkerHello,
};
use millstream_common::log::entry::{Assignment, TaskPlacement};
use millstream_common::net::{Listener, MemoryNet, NetRef};
use millstream_common::plan::connector::{DatagenField, DatagenKind, DatagenSpec};
use millstream_common::plan::{
    ColumnOrigin, FormatSpec, JobPlan, JobSettings, OnViolation, SourceColumn, SourcePlan,
    SourceSpec, StageHead, StagePlan,
};
use millstream_common::report::RestorePoint;
use millstream_common::store::{self, StoreRef};
use millstream_common::time::SystemClock;
use millstream_proto::v1;
use millstream_proto::v1::worker_link_server::{WorkerLink, WorkerLinkServer};
use millstream_worker::config::OpenStore;
use millstream_worker::leaving::Left;
use millstream_worker::operator::spill::Spill;
use millstream_worker::{RealConnectors, RealStores, Worker, WorkerConfig};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// What waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const WORKER: &str = "worker-1";

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, what).await;
    done.expect("it happens before patience ends")
}

/// The master's end of one link.
struct Link {
    heard: Streaming<v1::WorkerFrame>,
    say: mpsc::Sender<ToWorker>,
}

impl Link {
    /// The worker's next frame beside heartbeats; `None` at the end of the link.
    async fn next(&mut self) -> Option<ToMaster> {
        loop {
            let frame = soon(self.heard.message()).await.ok()??;
            match ToMaster::try_from(frame).expect("a frame") {
                ToMaster::Heartbeat => {}
                frame => return Some(frame),
            }
        }
    }

    async fn say(&self, frame: ToWorker) {
        self.say.send(frame).await.expect("the link is open");
    }
}

/// Hands every link that a worker opens to the test.
struct Master(mpsc::Sender<Link>);

#[tonic::async_trait]
impl WorkerLink for Master {
    type AttachStream = BoxStream<'static, Result<v1::MasterFrame, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::WorkerFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (say, said) = mpsc::channel(100);
        let heard = request.into_inner();
        let link = Link { heard, say };
        self.0.send(link).await.expect("the test listens");
        let frames = ReceiverStream::new(said)
            .map(|frame| v1::MasterFrame::try_from(frame).map_err(|_| Status::internal("frame")));
        Ok(Response::new(frames.boxed()))
    }
}

/// A served master: its address, its links as they come.
async fn serve_master(net: &NetRef, tasks: &mut JoinSet<()>) -> (String, mpsc::Receiver<Link>) {
    let listener = net.listen("master:0").await.expect("listen");
    (listener.address.clone(), serve(listener, tasks))
}

fn serve(listener: Listener, tasks: &mut JoinSet<()>) -> mpsc::Receiver<Link> {
    let (sender, links) = mpsc::channel(10);
    let service = WorkerLinkServer::new(Master(sender));
    tasks.spawn(async move {
        let served = Server::builder().add_service(service);
        served
            .serve_with_incoming(listener.incoming)
            .await
            .expect("serve");
    });
    links
}

/// Storage that cannot be opened at first.
struct LateStores {
    was_asked: AtomicBool,
    real: RealStores,
}

#[async_trait]
impl OpenStore for LateStores {
    async fn open(&self, url: &str) -> Result<StoreRef, store::Error> {
        match self.was_asked.swap(true, Ordering::SeqCst) {
            true => self.real.open(url).await,
            false => Err(store::Error::Unavailable {
                key: String::new(),
                cause: "not yet".to_owned(),
            }),
        }
    }
}

fn config(name: &str, net: NetRef, master: String, stores: Arc<dyn OpenStore>) -> WorkerConfig {
    WorkerConfig {
        spill: Spill::without_limit(),
        exchange_net: net.clone(),
        net,
        stores,
        connectors: Arc::new(RealConnectors),
        clock: Arc::new(SystemClock::default()),
        blocking: Arc::new(ThreadPool),
        master,
        slots: 1,
        flight_listen: "worker:0".to_owned(),
        http: None,
        tracer: std::sync::Arc::new(millstream_common::trace::NoTracer),
        advertise: None,
        name: name.into(),
    }
}

fn real_stores() -> RealStores {
    RealStores {
        blocking: Arc::new(ThreadPool),
    }
}

fn storage_url(folder: &tempfile::TempDir) -> String {
    format!("file://{}", folder.path().display())
}

/// A worker, and the master that it looks for.
struct Member {
    worker: Worker,
    links: mpsc::Receiver<Link>,
    folder: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Member {
    async fn start(stores: Arc<dyn OpenStore>) -> Self {
        let net: NetRef = Arc::new(MemoryNet::default());
        let mut tasks = JoinSet::new();
        let (address, links) = serve_master(&net, &mut tasks).await;
        let worker = Worker::start(config(WORKER, net, address, stores)).await;
        Self {
            worker: worker.expect("a worker"),
            links,
            folder: tempfile::tempdir().expect("folder"),
            _tasks: tasks,
        }
    }

    async fn joined(&mut self) -> (Link, WorkerHello) {
        joined(&mut self.links).await
    }

    fn welcome(&self, term: u64) -> ToWorker {
        welcome(term, &self.folder)
    }
}

/// The next link, whose worker has said Hello.
async fn joined(links: &mut mpsc::Receiver<Link>) -> (Link, WorkerHello) {
    let mut link = soon(links.recv()).await.expect("a link");
    match link.next().await {
        Some(ToMaster::Hello(hello)) => (link, hello),
        other => panic!("{other:?}"),
    }
}

fn welcome(term: u64, folder: &tempfile::TempDir) -> ToWorker {
    ToWorker::Welcome {
        term: Term(term),
        storage_url: storage_url(folder),
    }
}

#[tokio::test]
async fn a_worker_that_cannot_open_the_storage_is_no_member_and_joins_anew() {
    let stores = LateStores {
        was_asked: AtomicBool::new(false),
        real: real_stores(),
    };
    let mut member = Member::start(Arc::new(stores)).await;
    let (mut first, _) = member.joined().await;
    first.say(member.welcome(1)).await;
    assert_eq!(first.next().await, None, "the worker lets go");
    let (mut second, _) = member.joined().await;
    second.say(member.welcome(1)).await;
    second.say(ToWorker::Teardown(generation(1))).await;
    let answer = second.next().await;
    assert_eq!(answer, Some(ToMaster::TornDown(generation(1), 0)));
    member.worker.shutdown().await;
}

#[tokio::test]
async fn pipelines_go_on_without_a_master_and_the_next_one_hears_what_the_last_may_not_have() {
    let mut member = Member::start(Arc::new(real_stores())).await;
    let (mut first, hello) = member.joined().await;
    assert_eq!(hello.held, []);
    first.say(member.welcome(1)).await;
    let incarnation = Incarnation::fresh();
    first.say(deploy(WORKER, 1, incarnation)).await;
    let deployed = first.next().await;
    assert_eq!(deployed, Some(ToMaster::Deployed(generation(1))));
    first.say(ToWorker::Start(generation(1))).await;
    first.say(barrier(1, 1)).await;
    let snapshotted = first.next().await;
    assert!(matches!(snapshotted, Some(ToMaster::Snapshotted(..))));
    drop(first);
    let (mut second, hello) = member.joined().await;
    let [held] = hello.held.as_slice() else {
        panic!("{hello:?}");
    };
    assert_eq!((&held.at, held.incarnation), (&generation(1), incarnation));
    assert_eq!(held.passed(), Epoch(1));
    second.say(member.welcome(2)).await;
    second.say(ToWorker::Resume(generation(1))).await;
    assert_eq!(second.next().await, snapshotted);
    second.say(barrier(1, 1)).await;
    second.say(barrier(1, 2)).await;
    match second.next().await {
        Some(ToMaster::Snapshotted(_, report)) => assert_eq!(report.epoch, Epoch(2)),
        other => panic!("{other:?}"),
    }
    member.worker.shutdown().await;
}

#[tokio::test]
async fn a_master_of_an_older_reign_is_let_go_and_what_it_says_has_no_effect() {
    let mut member = Member::start(Arc::new(real_stores())).await;
    let (mut newest, _) = member.joined().await;
    newest.say(member.welcome(2)).await;
    newest.say(deploy(WORKER, 1, Incarnation::fresh())).await;
    let deployed = newest.next().await;
    assert_eq!(deployed, Some(ToMaster::Deployed(generation(1))));
    newest.say(ToWorker::Start(generation(1))).await;
    newest.say(barrier(1, 1)).await;
    let snapshotted = newest.next().await;
    assert!(matches!(snapshotted, Some(ToMaster::Snapshotted(..))));
    drop(newest);
    let (mut stale, _) = member.joined().await;
    stale.say(member.welcome(1)).await;
    stale.say(ToWorker::Teardown(generation(1))).await;
    assert_eq!(stale.next().await, None);
    let (_next, hello) = member.joined().await;
    assert_eq!(hello.held.len(), 1, "what it said had no effect");
    member.worker.shutdown().await;
}

#[tokio::test]
async fn a_master_that_was_let_go_is_dialled_again_only_after_the_others() {
    let folder = tempfile::tempdir().expect("folder");
    let net: NetRef = Arc::new(MemoryNet::default());
    let mut tasks = JoinSet::new();
    let (stale, mut stale_links) = serve_master(&net, &mut tasks).await;
    let newest = net.listen("master:0").await.expect("listen");
    let both = format!("{stale},{}", newest.address);
    let worker = Worker::start(config(WORKER, net, both, Arc::new(real_stores()))).await;
    let worker = worker.expect("a worker");
    // The other does not answer yet.
    let (mut link, _) = joined(&mut stale_links).await;
    link.say(welcome(2, &folder)).await;
    link.say(ToWorker::Teardown(generation(1))).await;
    assert!(link.next().await.is_some(), "it is attached");
    drop(link);
    let (mut link, _) = joined(&mut stale_links).await;
    let mut newest_links = serve(newest, &mut tasks);
    link.say(welcome(1, &folder)).await;
    assert_eq!(link.next().await, None, "it is let go");
    joined(&mut newest_links).await;
    assert!(stale_links.try_recv().is_err(), "it was not even dialled");
    worker.shutdown().await;
}

#[tokio::test]
async fn a_worker_that_is_told_to_end_works_on_until_nothing_counts_on_it() {
    let Member {
        worker,
        mut links,
        folder,
        _tasks,
    } = Member::start(Arc::new(real_stores())).await;
    let (mut first, hello) = joined(&mut links).await;
    assert!(!hello.is_leaving);
    first.say(welcome(1, &folder)).await;
    first.say(deploy(WORKER, 1, Incarnation::fresh())).await;
    first.say(ToWorker::Start(generation(1))).await;
    let deployed = first.next().await;
    assert_eq!(deployed, Some(ToMaster::Deployed(generation(1))));
    let (left, ()) = tokio::join!(worker.leave(PATIENCE), async {
        assert_eq!(first.next().await, Some(ToMaster::Leaving));
        first.say(barrier(1, 1)).await;
        let snapshotted = first.next().await;
        assert!(matches!(snapshotted, Some(ToMaster::Snapshotted(..))));
        drop(first);
        // Another master learns it from Hello, and from the frame if Hello was said before.
        let (mut second, hello) = joined(&mut links).await;
        assert!(hello.is_leaving && hello.held.len() == 1, "{hello:?}");
        second.say(welcome(2, &folder)).await;
        assert_eq!(second.next().await, Some(ToMaster::Leaving));
        second.say(ToWorker::Teardown(generation(1))).await;
        let torn_down = second.next().await;
        assert_eq!(torn_down, Some(ToMaster::TornDown(generation(1), 0)));
        second.say(ToWorker::Released { is_last: false }).await;
    });
    assert_eq!(left, Left::Released { is_last: false });
    worker.shutdown().await;
}

#[tokio::test]
async fn a_drained_worker_remembers_it_and_one_that_has_nothing_needs_no_master_to_end() {
    let mut member = Member::start(Arc::new(real_stores())).await;
    let (mut first, _) = member.joined().await;
    first.say(member.welcome(1)).await;
    first.say(ToWorker::Drain).await;
    first.say(ToWorker::Teardown(generation(1))).await;
    let heard = first.next().await;
    assert_eq!(heard, Some(ToMaster::TornDown(generation(1), 0)));
    drop(first);
    let (_second, hello) = member.joined().await;
    assert!(hello.is_leaving);
    assert_eq!(member.worker.leave(PATIENCE).await, Left::Idle);
    member.worker.shutdown().await;
}

fn generation(number: u64) -> JobGeneration {
    JobGeneration {
        job: "numbers".into(),
        generation: Generation(number),
    }
}

/// One reader of a generator, whose rows go nowhere.
fn deploy(worker: &str, number: u64, incarnation: Incarnation) -> ToWorker {
    let source = SourcePlan {
        name: "numbers".to_owned(),
        spec: SourceSpec::Datagen(DatagenSpec {
            row_count: None,
            rows_per_second: Some(1),
            seed: 1,
            fields: vec![DatagenField {
                column: "n".to_owned(),
                kind: DatagenKind::Sequence { start: 1, step: 1 },
                null_rate: 0.0,
            }],
        }),
        format: FormatSpec::Native,
        columns: vec![SourceColumn {
            field: Field::new("n", DataType::Int64, false),
            origin: ColumnOrigin::Record,
            type_name: "BIGINT".to_owned(),
        }],
        checks: Vec::new(),
        on_violation: OnViolation::DeadLetter,
        watermark: None,
        keeps_time: false,
        idle_timeout_ms: None,
        bounded: false,
    };
    let task = TaskId {
        stage: StageIndex(0),
        index: 0,
    };
    ToWorker::Deploy(Box::new(Deploy {
        at: generation(number),
        incarnation,
        plan: JobPlan {
            settings: JobSettings::default(),
            sources: vec![source],
            stages: vec![StagePlan {
                name: "numbers".to_owned(),
                head: StageHead::Source(SourceIndex(0)),
                sources: vec![SourceIndex(0)],
                branches: Vec::new(),
            }],
            outputs: Vec::new(),
            sinks: Vec::new(),
        },
        assignment: Assignment {
            tasks: vec![TaskPlacement {
                task,
                worker: worker.into(),
            }],
            splits: Vec::new(),
            sinks: Vec::new(),
        },
        restore: RestorePoint::default(),
        flight_addresses: BTreeMap::new(),
        trace: None,
    }))
}

fn barrier(number: u64, epoch: u64) -> ToWorker {
    ToWorker::Barrier(
        generation(number),
        BarrierCommand {
            epoch: Epoch(epoch),
            kind: BarrierKind::Checkpoint,
            watermarks: BTreeMap::new(),
        },
    )
}
