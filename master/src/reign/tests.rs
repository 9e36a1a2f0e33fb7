//! Masters on one storage: who reigns, who is told what, and what one that has lost its reign can still do.

use std::sync::Arc;
use std::time::Duration;

use millstream_common::blocking::ThreadPool;
use millstream_common::control::ControlError;
use millstream_common::ids::{Seq, Term};
use millstream_common::log::{Entry, LogObject};
use millstream_common::net::MemoryNet;
use millstream_common::store::StoreRef;
use millstream_common::time::{Clock, ClockRef};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::heartbeat::{Heartbeat, Place, beat};
use super::office::Office;
use super::role::{Active, Roles};
use crate::config::{MasterConfig, RealConnectors};
use crate::log_actor::{OnTrouble, append_until_settled};
use crate::master::{Entrance, MasterError};
use crate::service::access::Access;
use crate::testing::{Answers, MemoryStore, memory, soon};

/// The runtime's time, which a test can pause.
#[derive(Debug)]
struct RuntimeClock(tokio::time::Instant);

impl Clock for RuntimeClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn unix_micros(&self) -> i64 {
        0
    }
}

fn config(store: &Arc<MemoryStore>, name: &str) -> MasterConfig {
    let clock: ClockRef = Arc::new(RuntimeClock(tokio::time::Instant::now()));
    MasterConfig {
        net: Arc::new(MemoryNet::default()),
        workers_net: Arc::new(MemoryNet::default()),
        access: Access::Open,
        store: store.clone() as StoreRef,
        storage_url: "memory://".to_owned(),
        clock: clock.clone(),
        blocking: Arc::new(ThreadPool),
        connectors: Arc::new(RealConnectors {
            blocking: Arc::new(ThreadPool),
            clock,
        }),
        listen: format!("{name}:0"),
        http_listen: None,
        tracer: std::sync::Arc::new(millstream_common::trace::NoTracer),
        name: name.to_owned(),
        host: name.to_owned(),
        retention: Default::default(),
    }
}

/// An office that runs.
struct Running {
    roles: Roles,
    leave: oneshot::Sender<()>,
    tasks: JoinSet<Result<(), MasterError>>,
}

async fn open(store: &Arc<MemoryStore>, name: &str) -> (Office, Roles) {
    let address = format!("{name}:7070");
    let opened = Office::open(config(store, name), address, None, Entrance::WhenVacant).await;
    opened.expect("open")
}

fn run((office, roles): (Office, Roles)) -> Running {
    let (leave, told) = oneshot::channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(office.run(told));
    Running {
        roles,
        leave,
        tasks,
    }
}

async fn start(store: &Arc<MemoryStore>, name: &str) -> Running {
    run(open(store, name).await)
}

/// Waits until the master reigns.
async fn reigns(running: &mut Running) -> Active {
    soon(async {
        loop {
            if let Ok(active) = running.roles.active() {
                return active;
            }
            running.roles.0.changed().await.expect("it runs");
        }
    })
    .await
}

/// Where one that stands by sends its callers.
async fn sends_to(running: &mut Running, address: &str) {
    soon(async {
        loop {
            match running.roles.active() {
                Err(ControlError::Unavailable { active, .. })
                    if active.as_deref() == Some(address) =>
                {
                    return;
                }
                _ => running.roles.0.changed().await.expect("it runs"),
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_second_master_stands_by_and_says_who_reigns() {
    let store = memory();
    let mut one = start(&store, "one").await;
    assert_eq!(reigns(&mut one).await.term, Term(1));
    let mut two = start(&store, "two").await;
    sends_to(&mut two, "one:7070").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(one.roles.active().is_ok() && two.roles.active().is_err());
}

#[tokio::test(start_paused = true)]
async fn of_two_masters_that_start_at_the_same_moment_exactly_one_reigns() {
    let store = memory();
    let (one, two) = tokio::join!(open(&store, "one"), open(&store, "two"));
    let reigning = [&one, &two].map(|(_, roles)| roles.active().is_ok());
    assert_ne!(reigning[0], reigning[1]);
    let (mut one, mut two) = (run(one), run(two));
    let (active, standby) = match reigning[0] {
        true => (&mut one, &mut two),
        false => (&mut two, &mut one),
    };
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(reigns(active).await.term, Term(1));
    assert!(standby.roles.active().is_err());
}

#[tokio::test(start_paused = true)]
async fn when_the_active_master_dies_the_other_reigns_within_two_seconds() {
    let store = memory();
    let mut one = start(&store, "one").await;
    reigns(&mut one).await;
    let mut two = start(&store, "two").await;
    sends_to(&mut two, "one:7070").await;
    one.tasks.shutdown().await;
    let died = tokio::time::Instant::now();
    assert_eq!(reigns(&mut two).await.term, Term(2));
    let took = died.elapsed();
    let bounds = Duration::from_millis(1_000)..Duration::from_millis(2_050);
    assert!(bounds.contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_resigns_is_followed_at_the_next_look() {
    let store = memory();
    let mut one = start(&store, "one").await;
    reigns(&mut one).await;
    let mut two = start(&store, "two").await;
    sends_to(&mut two, "one:7070").await;
    let resigned = tokio::time::Instant::now();
    one.leave.send(()).expect("it runs");
    reigns(&mut two).await;
    assert!(resigned.elapsed() < Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn one_whose_reign_was_taken_stands_by_with_its_actors_gone() {
    let store = memory();
    let mut one = start(&store, "one").await;
    let deposed = reigns(&mut one).await;
    // One that could not see it live.
    let term = Term(2);
    let fence = LogObject {
        term,
        nonce: "two".to_owned(),
        entries: vec![Entry::Fence {
            term,
            master: "two".to_owned(),
        }],
    };
    let shared: StoreRef = store.clone();
    let quiet: OnTrouble = Arc::new(|_| {});
    let landed = append_until_settled(&shared, Seq(2), &fence, &quiet).await;
    landed.expect("append");
    let place = Place {
        address: "two:7070".to_owned(),
        dashboard: None,
        host: "two".to_owned(),
    };
    let mut two = JoinSet::new();
    two.spawn(beat(shared, Heartbeat::new(term, &place, "two")));
    sends_to(&mut one, "two:7070").await;
    let status = deposed.supervisor.get_status();
    assert_eq!(status, ractor::ActorStatus::Stopped);
    two.shutdown().await;
    assert_eq!(reigns(&mut one).await.term, Term(3), "and is ready again");
}

#[tokio::test(start_paused = true)]
async fn one_that_would_not_stand_by_refuses_to_take_a_living_masters_reign_and_takes_a_dead_ones()
{
    let store = memory();
    let mut one = start(&store, "one").await;
    reigns(&mut one).await;
    let alone = || {
        let address = "one:7070".to_owned();
        Office::open(config(&store, "one"), address, None, Entrance::Alone)
    };
    let refused = alone().await.map(drop).expect_err("one lives").to_string();
    assert!(
        refused.contains("\"one\" at one:7070") && refused.contains("--storage"),
        "{refused}"
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(reigns(&mut one).await.term, Term(1), "undisturbed");
    one.tasks.shutdown().await;
    let mut two = run(alone().await.expect("nobody lives"));
    assert_eq!(reigns(&mut two).await.term, Term(2));
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_over_because_the_storage_is_silent() {
    let store = memory();
    let mut one = start(&store, "one").await;
    reigns(&mut one).await;
    let mut two = start(&store, "two").await;
    sends_to(&mut two, "one:7070").await;
    store.answer(Answers::None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    store.answer(Answers::All);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(reigns(&mut one).await.term, Term(1));
    assert!(two.roles.active().is_err());
}

#[tokio::test]
async fn a_log_that_has_lost_its_end_is_refused_by_a_later_sign_of_life() {
    let store = memory();
    let place = Place {
        address: "one:7070".to_owned(),
        dashboard: None,
        host: "one".to_owned(),
    };
    let heartbeat = Heartbeat::new(Term(3), &place, "one");
    let shared = store.clone() as StoreRef;
    super::heartbeat::write(&shared, &heartbeat)
        .await
        .expect("write");
    let address = "two:7070".to_owned();
    let opened = Office::open(config(&store, "two"), address, None, Entrance::WhenVacant).await;
    let refused = opened.err().expect("it is refused").to_string();
    assert!(refused.contains("log/000000000001"), "{refused}");
    assert!(refused.contains("reigned in term 3"), "{refused}");
}
