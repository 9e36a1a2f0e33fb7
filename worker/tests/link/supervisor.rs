//! A worker's supervisor, without a network: what it does about failures, lost masters and generations side by side.
//!
//! Goal: what ends is told once, to the master that can act on it. Method: the test is the link.

use millstream_common::error::{Failure, Kind};
use millstream_common::link::Held;
use millstream_common::trace::NoTracer;
use millstream_worker::exchange::registry::{EdgeRegistry, REGISTER_WAIT};
use millstream_worker::figures::Figures;
use millstream_worker::preview::board::TapBoard;
use millstream_worker::supervisor_actor::{SupervisorActor, SupervisorConfig, SupervisorMessage};
use ractor::{Actor, ActorRef, call};
use tokio::sync::watch;

use super::*;

/// A worker's supervisor, attached to the test.
struct Supervisor {
    actor: ActorRef<SupervisorMessage>,
    frames: mpsc::Receiver<ToMaster>,
    folder: tempfile::TempDir,
}

impl Supervisor {
    async fn start(worker: &str) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let net: NetRef = Arc::new(MemoryNet::default());
        let (has_joined, joined) = watch::channel(false);
        let worker = config(worker, net, "nobody:1".to_owned(), Arc::new(real_stores()));
        let state = worker.spill.budget.clone();
        let config = SupervisorConfig {
            worker,
            flight_address: "worker:1".to_owned(),
            edges: EdgeRegistry::new(REGISTER_WAIT),
            taps: TapBoard::new(),
            figures: Arc::new(Figures::new(Arc::new(NoTracer), joined, state)),
            has_joined,
        };
        let (actor, _) = Actor::spawn(None, SupervisorActor, config)
            .await
            .expect("an actor");
        let (_, frames) = mpsc::channel(1);
        let mut supervisor = Self {
            actor,
            frames,
            folder,
        };
        supervisor.attach(1);
        supervisor
    }

    fn attach(&mut self, term: u64) {
        let (sender, frames) = mpsc::channel(100);
        self.frames = frames;
        self.tell(SupervisorMessage::Attached {
            frames: sender,
            term: Term(term),
            storage_url: storage_url(&self.folder),
        });
    }

    fn tell(&self, message: SupervisorMessage) {
        self.actor.cast(message).expect("it runs");
    }

    async fn held(&self) -> Vec<Held> {
        let hello = call!(self.actor, SupervisorMessage::Hello);
        hello.expect("it runs").held
    }

    fn say(&self, frame: ToWorker) {
        self.tell(SupervisorMessage::Frame(Box::new(frame)));
    }

    async fn next(&mut self) -> ToMaster {
        soon(self.frames.recv()).await.expect("it is attached")
    }

    async fn deploy(&mut self, number: u64) {
        self.say(deploy(WORKER, number, Incarnation::fresh()));
        let deployed = self.next().await;
        assert_eq!(deployed, ToMaster::Deployed(generation(number)));
    }
}

#[tokio::test]
async fn a_late_failure_of_an_older_generation_does_not_end_the_newer_one() {
    let mut supervisor = Supervisor::start(WORKER).await;
    supervisor.deploy(1).await;
    supervisor.deploy(2).await;
    let failure = Failure {
        kind: Kind::Internal,
        origin: "task".to_owned(),
        cause: "late".to_owned(),
    };
    let late = ToMaster::PipelineFailed(generation(1), failure);
    supervisor.tell(SupervisorMessage::Report(late));
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
async fn a_pipeline_that_no_master_goes_on_with_ends_and_is_not_waited_for() {
    let mut supervisor = Supervisor::start(WORKER).await;
    supervisor.deploy(1).await;
    supervisor.deploy(2).await;
    assert_eq!(supervisor.held().await, [], "it has not begun");
    supervisor.say(ToWorker::Start(generation(2)));
    supervisor.tell(SupervisorMessage::Detached);
    supervisor.tell(SupervisorMessage::GiveUp { loss: 0 });
    assert_eq!(supervisor.held().await.len(), 1);
    supervisor.tell(SupervisorMessage::GiveUp { loss: 1 });
    assert_eq!(supervisor.held().await, []);
    supervisor.attach(0);
    supervisor.say(ToWorker::Resume(generation(2)));
    match supervisor.next().await {
        ToMaster::PipelineFailed(at, _) => assert_eq!(at, generation(2)),
        other => panic!("{other:?}"),
    }
    supervisor.actor.kill();
}

#[tokio::test]
async fn a_failure_without_a_master_is_told_to_the_next_one() {
    let mut supervisor = Supervisor::start(WORKER).await;
    supervisor.deploy(1).await;
    supervisor.say(ToWorker::Start(generation(1)));
    supervisor.tell(SupervisorMessage::Detached);
    let failure = Failure {
        kind: Kind::External,
        origin: "task".to_owned(),
        cause: "a broker is gone".to_owned(),
    };
    let failed = ToMaster::PipelineFailed(generation(1), failure);
    supervisor.tell(SupervisorMessage::Report(failed.clone()));
    assert_eq!(supervisor.held().await, []);
    supervisor.attach(2);
    assert_eq!(supervisor.next().await, failed);
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
