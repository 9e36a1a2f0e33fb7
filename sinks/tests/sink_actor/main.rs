//! The sink actor with a sink that fails on command.
//!
//! Goal: whatever a sink does, each epoch reaches it once and in order, the actor answers all the while, and
//! the observer is told. Method: a sink in memory takes its next failure from a script; tests wait for what the observer
//! is told, never for time to pass.

mod refused;
mod script;

use std::sync::Arc;
use std::time::Duration;

use millstream_common::ids::{Epoch, Token};
use millstream_common::log::backlog::BacklogPart;
use millstream_sinks::sink::SinkError;
use millstream_sinks::sink_actor::{SinkMessage, TroubleState};
use ractor::ActorStatus;
use tokio::sync::Notify;

use crate::script::{Script, Told, committed, lock, start, start_behind};

fn unavailable() -> SinkError {
    SinkError::unavailable("write", "gone for a moment")
}

fn refused() -> SinkError {
    SinkError::refused("write", "no such table")
}

#[tokio::test]
async fn epochs_in_storage_arrive_before_those_in_memory_whatever_the_sink_held() {
    for (marker, expected) in [(0, vec![(0, 3), (3, 7)]), (4, vec![(4, 7)])] {
        let part = |parent: u64, last: u64| BacklogPart {
            path: format!("backlog/{last}"),
            checksum: 0,
            parent: Epoch(parent),
            last: Epoch(last),
            epoch_count: last - parent,
            outputs: Default::default(),
        };
        let script = Script {
            marker,
            ..Script::default()
        };
        let backlog = vec![part(0, 3), part(3, 6)];
        let mut started = start_behind(script, backlog, vec![committed(6, 7)], 7).await;
        while started.next().await != Told::Advanced(7) {}
        assert_eq!(lock(&started.script).runs, expected);
        started.actor.stop(None);
    }
}

#[tokio::test]
async fn old_and_new_epochs_arrive_in_order_after_the_marker() {
    let script = Script {
        marker: 3,
        ..Script::default()
    };
    let undelivered = vec![committed(2, 3), committed(3, 4), committed(4, 6)];
    let mut sink = start(script, undelivered, 6).await;
    assert_eq!(sink.next().await, Told::Advanced(3));
    assert_eq!(sink.next().await, Told::Advanced(6));
    sink.send(SinkMessage::EpochCommitted(committed(6, 7)));
    assert_eq!(sink.next().await, Told::Advanced(7));
    assert_eq!(lock(&sink.script).runs, [(3, 6), (6, 7)]);
    assert_eq!(lock(&sink.script).rows, 6);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_after_fencing_anew() {
    let script = Script {
        fence_errors: [unavailable()].into(),
        apply_errors: [unavailable(), unavailable()].into(),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    let retrying = || {
        Told::Troubled(
            TroubleState::Retrying,
            "write: gone for a moment".to_owned(),
        )
    };
    assert_eq!(sink.next().await, retrying());
    assert_eq!(sink.next().await, Told::Advanced(0));
    assert_eq!(sink.next().await, retrying());
    assert_eq!(sink.next().await, retrying());
    assert_eq!(sink.next().await, Told::Advanced(1));
    assert_eq!(lock(&sink.script).rows, 2);
}

#[tokio::test]
async fn an_apply_whose_answer_was_lost_is_found_done() {
    let script = Script {
        apply_errors: [unavailable()].into(),
        ..Script::default()
    };
    let mut sink = start(script, vec![], 0).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    sink.send(SinkMessage::EpochCommitted(committed(0, 1)));
    assert!(matches!(sink.next().await, Told::Troubled(..)));
    lock(&sink.script).marker = 1;
    assert_eq!(sink.next().await, Told::Advanced(1));
    assert_eq!(lock(&sink.script).runs, []);
}

#[tokio::test]
async fn a_refusing_sink_is_suspended_until_it_is_resumed() {
    let script = Script {
        apply_errors: [refused()].into(),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    let suspended = Told::Troubled(TroubleState::Suspended, "write: no such table".to_owned());
    assert_eq!(sink.next().await, suspended);
    sink.send(SinkMessage::EpochCommitted(committed(1, 2)));
    sink.send(SinkMessage::Resume);
    // Epoch by epoch: what was refused together need not be refused apart.
    assert_eq!(sink.next().await, Told::Advanced(1));
    assert_eq!(sink.next().await, Told::Advanced(2));
}

#[tokio::test]
async fn a_marker_outside_the_chain_suspends_with_advice() {
    let script = Script {
        marker: 9,
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    match sink.next().await {
        Told::Troubled(TroubleState::Suspended, cause) => {
            assert!(cause.contains("ahead of the job's log"), "{cause}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(lock(&sink.script).runs, []);
}

#[tokio::test]
async fn a_fenced_deliverer_ends_quietly() {
    let fenced = SinkError::Fenced { newer: Token(8) };
    let script = Script {
        fence_errors: [fenced].into(),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    sink.ended.await.expect("ends without a panic");
    assert_eq!(sink.actor.get_status(), ActorStatus::Stopped);
    assert!(sink.told.recv().await.is_none(), "nobody is troubled");
}

#[tokio::test]
async fn the_actor_answers_while_its_sink_is_stuck_and_merges_what_came_meanwhile() {
    let gate = Arc::new(Notify::new());
    let script = Script {
        gate: Some(gate.clone()),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    for epoch in 1..4 {
        sink.send(SinkMessage::EpochCommitted(committed(epoch, epoch + 1)));
    }
    sink.send(SinkMessage::Pause);
    gate.notify_one();
    assert_eq!(sink.next().await, Told::Advanced(1));
    gate.notify_one();
    sink.send(SinkMessage::Resume);
    assert_eq!(sink.next().await, Told::Advanced(4));
    assert_eq!(lock(&sink.script).runs, [(0, 1), (1, 4)]);
}

#[tokio::test]
async fn a_sink_that_begins_paused_is_not_even_fenced_before_it_is_resumed() {
    let script = Script {
        begins_paused: true,
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    sink.send(SinkMessage::EpochCommitted(committed(1, 2)));
    let told = tokio::time::timeout(Duration::from_millis(50), sink.next()).await;
    assert!(told.is_err(), "{told:?}");
    sink.send(SinkMessage::Resume);
    assert_eq!(sink.next().await, Told::Advanced(0));
    assert_eq!(sink.next().await, Told::Advanced(2));
}

#[tokio::test]
async fn a_gathering_sink_is_handed_everything_when_the_job_stops() {
    let script = Script {
        gather: Duration::from_secs(3_600),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    sink.send(SinkMessage::EpochCommitted(committed(1, 2)));
    sink.send(SinkMessage::Flush);
    assert_eq!(sink.next().await, Told::Advanced(2));
    assert_eq!(lock(&sink.script).runs, [(0, 2)]);
}

#[tokio::test]
async fn a_gathering_sink_is_handed_a_run_when_its_time_has_come() {
    let script = Script {
        gather: Duration::from_millis(30),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    assert_eq!(sink.next().await, Told::Advanced(1));
}

#[tokio::test]
async fn a_sink_that_panics_fails_its_actor() {
    let script = Script {
        panics: true,
        ..Script::default()
    };
    let sink = start(script, vec![committed(0, 1)], 1).await;
    sink.ended.await.expect("the actor catches the panic");
    assert_eq!(sink.actor.get_status(), ActorStatus::Stopped);
    assert_eq!(lock(&sink.script).runs, []);
}

#[tokio::test]
async fn an_epoch_that_does_not_follow_fails_the_actor() {
    let mut sink = start(Script::default(), vec![], 4).await;
    lock(&sink.script).marker = 4;
    sink.send(SinkMessage::EpochCommitted(committed(5, 6)));
    while sink.told.recv().await.is_some() {}
    sink.ended.await.expect("ends");
    assert_eq!(sink.actor.get_status(), ActorStatus::Stopped);
}
