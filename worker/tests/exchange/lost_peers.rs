//! Edges whose other side goes away.
//!
//! Goal: whoever is left learns which edge and which peer it lost, once, and no send waits for ever. Method: senders,
//! pipelines and whole runtimes are dropped in the middle of a stream.

use futures::FutureExt;
use millstream_common::ids::WorkerId;
use millstream_worker::exchange::sender::SendError;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::{
    Opened, PATIENCE, Receiver, batch, dialer, edge, first_number, losses, mailbox, nets,
    next_batch, soon,
};

#[tokio::test]
async fn a_sender_that_goes_before_its_stop_barrier_is_reported_behind_what_it_sent() {
    for (net, listen) in nets() {
        let mut opened = Opened::new(&net, listen, &[edge(0, 0)]).await;
        let mut sender = opened.senders.remove(0);
        sender.send_batch(batch(1)).await.expect("send");
        drop(sender);
        let lost = soon(opened.receiver_losses.recv()).await.expect("reported");
        assert_eq!(lost.edge, edge(0, 0));
        assert_eq!(lost.peer, WorkerId::from("sender"));
        assert_eq!(
            first_number(next_batch(&mut opened.mailbox).await.rows.batch()),
            1
        );
        drop(opened.registered.take());
        assert!(opened.receiver_losses.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_receiving_pipeline_that_ends_is_reported_and_ends_sends_that_wait() {
    for (net, listen) in nets() {
        let mut opened = Opened::new(&net, listen, &[edge(0, 0)]).await;
        let mut sender = opened.senders.remove(0);
        let mut held = Vec::new();
        for number in 0..4 {
            sender.send_batch(batch(number)).await.expect("send");
            held.push(next_batch(&mut opened.mailbox).await);
        }
        let mut waiting = Box::pin(sender.send_batch(batch(4)));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(opened.registered.take());
        let lost = soon(opened.sender_losses.recv()).await.expect("reported");
        assert_eq!(lost.edge, edge(0, 0));
        assert_eq!(lost.peer, WorkerId::from("receiver"));
        let ended = soon(waiting).await;
        assert!(matches!(ended, Err(SendError::Closed { .. })));
        assert!(opened.receiver_losses.try_recv().is_err());
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("runtime")
}

/// Whether the sender of an edge, or else its receiver, is the one that dies.
fn dies(is_sender: bool) {
    for (net, listen) in nets() {
        let (sending, receiving) = (runtime(), runtime());
        let (deliver, _mailbox) = mailbox();
        let (on_receiver_lost, mut receiver_losses) = losses();
        let (on_sender_lost, mut sender_losses) = losses();
        let mut receiver_tasks = JoinSet::new();
        let mut tasks = JoinSet::new();
        let started = Receiver::start(&net, listen, PATIENCE, &mut receiver_tasks);
        let receiver = receiving.block_on(started);
        let _registered = receiver.register(1, &[edge(0, 0)], &deliver, &on_receiver_lost);
        let outgoing = receiver.outgoing(&[edge(0, 0)]);
        let dialer = dialer(&net, 1);
        let opened = sending.block_on(dialer.open_all(outgoing, &on_sender_lost, &mut tasks));
        let _senders = opened.expect("open");
        let (dying, left, losses, peer) = match is_sender {
            true => (sending, receiving, &mut receiver_losses, "sender"),
            false => (receiving, sending, &mut sender_losses, "receiver"),
        };
        dying.shutdown_timeout(PATIENCE);
        let lost = left.block_on(soon(losses.recv())).expect("reported");
        assert_eq!(lost.edge, edge(0, 0));
        assert_eq!(lost.peer, WorkerId::from(peer));
    }
}

#[test]
fn a_worker_that_dies_is_reported_by_the_other_side_of_its_edges() {
    dies(true);
    dies(false);
}
