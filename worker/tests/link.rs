//! A worker and its master: joining, letting go, and frames of older generations.
//!
//! The master is the test: a served link whose frames it reads and writes itself, or a channel in place of the link.
//! Jobs are one generator without sinks. Nothing waits for time to pass, only for frames.

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
use millstream_common::error::{Failure, Kind};
use millstream_common::ids::{
    Epoch, Generation, Incarnation, SourceIndex, StageIndex, TaskId, Term,
};
use millstream_common::link::{
    BarrierCommand, BarrierKind, Deploy, JobGeneration, ToMaster, ToWorker,
};
use millstream_common::log::entry::{Assignment, TaskPlacement};
use millstream_common::net::{MemoryNet, NetRef};
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
use millstream_worker::exchange::registry::{EdgeRegistry, REGISTER_WAIT};
use millstream_worker::supervisor_actor::{SupervisorActor, SupervisorConfig, SupervisorMessage};
use millstream_worker::{RealConnectors, RealStores, Worker, WorkerConfig};
use ractor::{Actor, ActorRef};
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
    let (sender, links) = mpsc::channel(10);
    let service = WorkerLinkServer::new(Master(sender));
    tasks.spawn(async move {
        let served = Server::builder().add_service(service);
        served
            .serve_with_incoming(listener.incoming)
            .await
            .expect("serve");
    });
    (listener.address, links)
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
        net,
        stores,
        connectors: Arc::new(RealConnectors),
        clock: Arc::new(SystemClock::default()),
        blocking: Arc::new(ThreadPool),
        master,
        slots: 1,
        flight_listen: "worker:0".to_owned(),
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

#[tokio::test]
async fn a_worker_that_cannot_open_the_storage_is_no_member_and_joins_anew() {
    let folder = tempfile::tempdir().expect("folder");
    let net: NetRef = Arc::new(MemoryNet::default());
    let mut tasks = JoinSet::new();
    let (address, mut links) = serve_master(&net, &mut tasks).await;
    let stores = LateStores {
        was_asked: AtomicBool::new(false),
        real: real_stores(),
    };
    let worker = Worker::start(config(WORKER, net, address, Arc::new(stores))).await;
    let worker = worker.expect("a worker");
    let welcome = || ToWorker::Welcome {
        term: Term(1),
        storage_url: storage_url(&folder),
    };
    let mut first = soon(links.recv()).await.expect("a link");
    assert!(matches!(first.next().await, Some(ToMaster::Hello(_))));
    first.say(welcome()).await;
    assert_eq!(first.next().await, None, "the worker lets go");
    let mut second = soon(links.recv()).await.expect("another link");
    assert!(matches!(second.next().await, Some(ToMaster::Hello(_))));
    second.say(welcome()).await;
    second.say(ToWorker::Teardown(generation(1))).await;
    let answer = second.next().await;
    assert_eq!(answer, Some(ToMaster::TornDown(generation(1))));
    worker.shutdown().await;
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

/// A worker's supervisor, attached to the test.
struct Supervisor {
    actor: ActorRef<SupervisorMessage>,
    frames: mpsc::Receiver<ToMaster>,
    _folder: tempfile::TempDir,
}

impl Supervisor {
    async fn start(worker: &str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let net: NetRef = Arc::new(MemoryNet::default());
        let config = SupervisorConfig {
            worker: config(worker, net, "nobody:1".to_owned(), Arc::new(real_stores())),
            flight_address: "worker:1".to_owned(),
            edges: EdgeRegistry::new(REGISTER_WAIT),
        };
        let (actor, _) = Actor::spawn(None, SupervisorActor, config)
            .await
            .expect("an actor");
        let (sender, frames) = mpsc::channel(100);
        let attached = SupervisorMessage::Attached {
            frames: sender,
            storage_url: storage_url(&folder),
        };
        actor.cast(attached).expect("it runs");
        Self {
            actor,
            frames,
            _folder: folder,
        }
    }

    fn say(&self, frame: ToWorker) {
        let message = SupervisorMessage::Frame(Box::new(frame));
        self.actor.cast(message).expect("it runs");
    }

    async fn next(&mut self) -> ToMaster {
        soon(self.frames.recv()).await.expect("it is attached")
    }
}

#[tokio::test]
async fn a_late_failure_of_an_older_generation_does_not_end_the_newer_one() {
    let mut supervisor = Supervisor::start(WORKER).await;
    for number in [1, 2] {
        supervisor.say(deploy(WORKER, number, Incarnation::fresh()));
        let deployed = supervisor.next().await;
        assert_eq!(deployed, ToMaster::Deployed(generation(number)));
    }
    let failure = Failure {
        kind: Kind::Internal,
        origin: "task".to_owned(),
        cause: "late".to_owned(),
    };
    let late = ToMaster::PipelineFailed(generation(1), failure);
    let report = SupervisorMessage::Report(late);
    supervisor.actor.cast(report).expect("it runs");
    supervisor.say(barrier(2, 1));
    loop {
        match supervisor.next().await {
            ToMaster::PipelineFailed(at, _) => assert_eq!(at, generation(1)),
            ToMaster::Snapshotted(at, report) => {
                assert_eq!((at, report.epoch), (generation(2), Epoch(1)));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    supervisor.actor.kill();
}

#[tokio::test]
async fn workers_of_one_process_may_run_the_same_generation() {
    let incarnation = Incarnation::fresh();
    let names = ["worker-1", "worker-2"];
    let mut supervisors = Vec::new();
    for name in names {
        supervisors.push(Supervisor::start(name).await);
    }
    for (name, supervisor) in names.iter().zip(&mut supervisors) {
        supervisor.say(deploy(name, 1, incarnation));
        let deployed = supervisor.next().await;
        assert_eq!(deployed, ToMaster::Deployed(generation(1)));
        supervisor.say(barrier(1, 1));
        let snapshotted = supervisor.next().await;
        assert!(matches!(snapshotted, ToMaster::Snapshotted(..)));
    }
    for supervisor in supervisors {
        supervisor.actor.kill();
    }
}
