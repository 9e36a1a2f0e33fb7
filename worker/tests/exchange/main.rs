//! Edges between two workers, over both networks: order, credit, barriers, early and late dials, and the loss of either end.
//!
//! Each test has its own workers: a registry served over Flight, and a dialer. A mailbox is a channel that the test reads;
//! nothing waits for time to pass, only for messages. A worker that dies is a runtime that is dropped with all
//! that runs in it, connections included.

mod dialing;
mod lost_peers;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use futures::FutureExt;
use millstream_common::ids::{
    Epoch, Generation, JobName, SourceIndex, StageIndex, TaskId, WorkerId,
};
use millstream_common::net::{MemoryNet, NetRef, TcpNet};
use millstream_common::time::EventTime;
use millstream_worker::exchange::align::{Alignment, Outcome};
use millstream_worker::exchange::flight_client::{ExchangeDialer, OutgoingEdge};
use millstream_worker::exchange::flight_server::{serve, service};
use millstream_worker::exchange::message::{
    BarrierKind, Closed, Deliver, EdgeBarrier, EdgeBatch, EdgeId, OnLost, PeerLost, StreamMessage,
};
use millstream_worker::exchange::registry::{EdgeRegistry, IncomingEdge, RegisteredEdges};
use millstream_worker::exchange::route::RowHasher;
use millstream_worker::exchange::sender::{EdgeSender, ExchangeSender, SendError};
use millstream_worker::preview::board::TapBoard;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of a batch of [`ROWS`] rows.
const BATCH_BYTES: u32 = 8 * ROWS as u32;
const ROWS: i64 = 1_000;

fn nets() -> Vec<(NetRef, &'static str)> {
    vec![
        (Arc::new(MemoryNet::default()), "worker:0"),
        (Arc::new(TcpNet), "127.0.0.1:0"),
    ]
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, what).await;
    done.expect("it happens before patience ends")
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

fn batch(first: i64) -> RecordBatch {
    let column = Int64Array::from_iter_values(first..first + ROWS);
    RecordBatch::try_new(schema(), vec![Arc::new(column)]).expect("batch")
}

fn first_number(batch: &RecordBatch) -> i64 {
    batch.column(0).as_primitive::<Int64Type>().value(0)
}

fn barrier(epoch: u64, kind: BarrierKind) -> EdgeBarrier {
    EdgeBarrier {
        epoch: Epoch(epoch),
        watermarks: BTreeMap::from([(SourceIndex(0), EventTime(epoch as i64))]),
        kind,
    }
}

fn edge(from: u32, to: u32) -> EdgeId {
    let task = |stage, index| TaskId {
        stage: StageIndex(stage),
        index,
    };
    EdgeId {
        from: task(0, from),
        to: task(1, to),
        branch: 0,
    }
}

/// Messages of a task, as they arrive.
type Mailbox = mpsc::Receiver<(EdgeId, StreamMessage)>;

fn mailbox() -> (Deliver, Mailbox) {
    let (sender, receiver) = mpsc::channel(10_000);
    let deliver = move |edge, message| sender.try_send((edge, message)).map_err(|_| Closed);
    (Arc::new(deliver), receiver)
}

async fn next(mailbox: &mut Mailbox) -> StreamMessage {
    let (_, message) = soon(mailbox.recv()).await.expect("the edge is open");
    message
}

async fn next_batch(mailbox: &mut Mailbox) -> EdgeBatch {
    match next(mailbox).await {
        StreamMessage::Batch(batch) => batch,
        StreamMessage::Barrier(barrier) => panic!("a batch is next, not {barrier:?}"),
    }
}

fn losses() -> (OnLost, mpsc::Receiver<PeerLost>) {
    let (sender, receiver) = mpsc::channel(100);
    let report = move |lost| sender.try_send(lost).expect("the test counts losses");
    (Arc::new(report), receiver)
}

/// A worker that receives: its registry, served.
struct Receiver {
    registry: Arc<EdgeRegistry>,
    address: String,
}

impl Receiver {
    async fn start(net: &NetRef, listen: &str, wait: Duration, tasks: &mut JoinSet<()>) -> Self {
        let listener = net.listen(listen).await.expect("listen");
        let registry = EdgeRegistry::new(wait);
        let address = listener.address.clone();
        let served = serve(
            listener,
            service(registry.clone(), TapBoard::new()),
            tonic_health::server::health_reporter().1,
            std::future::pending(),
        );
        tasks.spawn(async move { served.await.expect("serve") });
        Self { registry, address }
    }

    fn register(
        &self,
        generation: u64,
        edges: &[EdgeId],
        deliver: &Deliver,
        on_lost: &OnLost,
    ) -> RegisteredEdges {
        let incoming = edges.iter().map(|edge| IncomingEdge {
            edge: *edge,
            schema: schema(),
            budget_bytes: 4 * BATCH_BYTES,
            deliver: deliver.clone(),
        });
        let job = JobName::from("clicks");
        let edges = incoming.collect();
        self.registry
            .register(&job, Generation(generation), edges, on_lost.clone())
            .expect("not stale")
    }

    fn outgoing(&self, edges: &[EdgeId]) -> Vec<OutgoingEdge> {
        let outgoing = edges.iter().map(|edge| OutgoingEdge {
            edge: *edge,
            peer: WorkerId::from("receiver"),
            address: self.address.clone(),
            schema: schema(),
        });
        outgoing.collect()
    }
}

fn dialer(net: &NetRef, generation: u64) -> ExchangeDialer {
    ExchangeDialer {
        net: net.clone(),
        worker: WorkerId::from("sender"),
        job: JobName::from("clicks"),
        generation: Generation(generation),
        answer_wait: PATIENCE,
    }
}

/// A receiving worker and a sender, with every edge open.
struct Opened {
    senders: Vec<EdgeSender>,
    mailbox: Mailbox,
    registered: Option<RegisteredEdges>,
    receiver_losses: mpsc::Receiver<PeerLost>,
    sender_losses: mpsc::Receiver<PeerLost>,
    sender_tasks: JoinSet<()>,
    _receiver_tasks: JoinSet<()>,
}

impl Opened {
    async fn new(net: &NetRef, listen: &str, edges: &[EdgeId]) -> Self {
        let mut receiver_tasks = JoinSet::new();
        let mut sender_tasks = JoinSet::new();
        let receiver = Receiver::start(net, listen, PATIENCE, &mut receiver_tasks).await;
        let (deliver, mailbox) = mailbox();
        let (on_receiver_lost, receiver_losses) = losses();
        let (on_sender_lost, sender_losses) = losses();
        let registered = receiver.register(1, edges, &deliver, &on_receiver_lost);
        let senders = dialer(net, 1)
            .open_all(receiver.outgoing(edges), &on_sender_lost, &mut sender_tasks)
            .await
            .expect("open");
        Self {
            senders,
            mailbox,
            registered: Some(registered),
            receiver_losses,
            sender_losses,
            sender_tasks,
            _receiver_tasks: receiver_tasks,
        }
    }
}

/// Uses up the credit of an edge; as long as the batches are held, it has none.
async fn use_up_credit(sender: &mut EdgeSender, mailbox: &mut Mailbox) -> Vec<EdgeBatch> {
    let mut held = Vec::new();
    for number in 0..4 {
        sender.send_batch(batch(number)).await.expect("send");
        held.push(next_batch(mailbox).await);
    }
    held
}

#[tokio::test]
async fn an_edge_keeps_the_order_of_batches_and_barriers_and_ends_with_the_stop_barrier() {
    for (net, listen) in nets() {
        let mut opened = Opened::new(&net, listen, &[edge(0, 0)]).await;
        let mut sender = opened.senders.remove(0);
        let send = async move {
            for number in 0..50 {
                sender.send_batch(batch(number)).await.expect("send");
                let barrier = barrier(number as u64 + 1, BarrierKind::Checkpoint);
                sender.send_barrier(barrier).await.expect("send");
            }
            let stop = barrier(51, BarrierKind::Stop);
            sender.send_barrier(stop.clone()).await.expect("send");
            let refused = sender.send_barrier(stop).await;
            assert!(matches!(refused, Err(SendError::Closed { .. })));
            sender
        };
        let receive = async {
            for number in 0..50 {
                let received = next_batch(&mut opened.mailbox).await;
                assert_eq!(*received.rows.batch(), batch(number));
                assert_eq!(received.permit.bytes(), BATCH_BYTES);
                let StreamMessage::Barrier(received) = next(&mut opened.mailbox).await else {
                    panic!("a barrier stands behind each batch");
                };
                assert_eq!(
                    received,
                    barrier(number as u64 + 1, BarrierKind::Checkpoint)
                );
            }
            let StreamMessage::Barrier(last) = next(&mut opened.mailbox).await else {
                panic!("the stop barrier is last");
            };
            assert_eq!(last.kind, BarrierKind::Stop);
        };
        let (_sender, ()) = tokio::join!(send, receive);
        let ended = soon(opened.sender_tasks.join_next()).await;
        ended.expect("one task an edge").expect("no panic");
        drop(opened.registered.take());
        assert!(opened.sender_losses.try_recv().is_err());
        assert!(opened.receiver_losses.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_sender_waits_until_the_receiver_drops_a_permit() {
    for (net, listen) in nets() {
        let mut opened = Opened::new(&net, listen, &[edge(0, 0)]).await;
        let mut sender = opened.senders.remove(0);
        let mut held = use_up_credit(&mut sender, &mut opened.mailbox).await;
        let mut fifth = Box::pin(sender.send_batch(batch(4)));
        assert!(fifth.as_mut().now_or_never().is_none());
        drop(held.remove(0));
        soon(fifth).await.expect("send");
        held.push(next_batch(&mut opened.mailbox).await);
        let held_bytes: u32 = held.iter().map(|batch| batch.permit.bytes()).sum();
        assert_eq!(held_bytes, 4 * BATCH_BYTES);
        assert_eq!(first_number(held[3].rows.batch()), 4);
    }
}

#[tokio::test]
async fn a_barrier_passes_an_edge_without_credit() {
    for (net, listen) in nets() {
        let mut opened = Opened::new(&net, listen, &[edge(0, 0)]).await;
        let mut sender = opened.senders.remove(0);
        for number in 0..4 {
            sender.send_batch(batch(number)).await.expect("send");
        }
        let mark = barrier(1, BarrierKind::Checkpoint);
        soon(sender.send_barrier(mark)).await.expect("send");
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(next_batch(&mut opened.mailbox).await);
        }
        assert_eq!(sender.credits().free_bytes(), 0);
        let message = next(&mut opened.mailbox).await;
        assert!(matches!(message, StreamMessage::Barrier(_)));
    }
}

#[tokio::test]
async fn a_blocked_edge_does_not_block_another_on_its_connection() {
    for (net, listen) in nets() {
        let mut opened = Opened::new(&net, listen, &[edge(0, 0), edge(0, 1)]).await;
        let mut free = opened.senders.remove(1);
        let mut blocked = opened.senders.remove(0);
        let _held = use_up_credit(&mut blocked, &mut opened.mailbox).await;
        let mut waiting = Box::pin(blocked.send_batch(batch(4)));
        assert!(waiting.as_mut().now_or_never().is_none());
        for number in 0..40 {
            soon(free.send_batch(batch(number))).await.expect("send");
            let received = next_batch(&mut opened.mailbox).await;
            assert_eq!(first_number(received.rows.batch()), number);
        }
        assert!(waiting.as_mut().now_or_never().is_none());
    }
}

/// The value is the hash, so that a test decides who owns a row.
#[derive(Default)]
struct ValueHasher(Vec<u128>);

impl RowHasher for ValueHasher {
    fn fingerprints(&mut self, batch: &RecordBatch) -> &[u128] {
        let values = batch.column(0).as_primitive::<Int64Type>().values();
        self.0 = values.iter().map(|value| (*value as u128) << 120).collect();
        &self.0
    }
}

#[tokio::test]
async fn rows_reach_their_owner_once_in_their_epoch_from_here_and_from_afar() {
    const EPOCHS: u64 = 20;
    for (net, listen) in nets() {
        // Task 0 of the sending stage runs beside both receiving tasks, task 1 on another worker.
        let remote = [edge(1, 0), edge(1, 1)];
        let mut opened = Opened::new(&net, listen, &remote).await;
        let (deliver, mut here) = mailbox();
        let local = (0..2).map(|to| EdgeSender::local(edge(0, to), BATCH_BYTES, deliver.clone()));
        let local = local.collect();
        let remote = std::mem::take(&mut opened.senders);
        let mut sending = JoinSet::new();
        for edges in [local, remote] {
            let mut exchange = ExchangeSender::new(Box::<ValueHasher>::default(), edges);
            sending.spawn(async move {
                for epoch in 1..=EPOCHS {
                    exchange.send_batch(batch(0)).await.expect("send");
                    let barrier = barrier(epoch, BarrierKind::Checkpoint);
                    exchange.send_barrier(&barrier).await.expect("send");
                }
                exchange
            });
        }
        let mut tasks: Vec<(Alignment, u64, usize)> = (0..2)
            .map(|to| (Alignment::new([edge(0, to), edge(1, to)]), 0, 0))
            .collect();
        while tasks.iter().any(|(_, epoch, _)| *epoch < EPOCHS) {
            let (edge, message) = soon(async {
                tokio::select! {
                    received = here.recv() => received,
                    received = opened.mailbox.recv() => received,
                }
            })
            .await
            .expect("edges are open");
            let (alignment, epoch, row_count) = &mut tasks[edge.to.index as usize];
            for outcome in alignment.accept(edge, message).expect("in order") {
                match outcome {
                    Outcome::Fold { batch, .. } => *row_count += batch.rows.count(),
                    Outcome::Snapshot(barrier) => {
                        *epoch += 1;
                        assert_eq!(barrier.epoch, Epoch(*epoch));
                        // Values 0..1000 repeat the 256 vnodes; each task owns one half of those.
                        let owned = (0..ROWS).filter(|n| (n % 256 >= 128) == (edge.to.index == 1));
                        assert_eq!(*row_count, 2 * owned.count());
                        *row_count = 0;
                    }
                }
            }
        }
        while let Some(sent) = soon(sending.join_next()).await {
            drop(sent.expect("no panic"));
        }
    }
}
