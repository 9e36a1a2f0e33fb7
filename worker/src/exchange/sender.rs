//! The sending end of edges: one [`EdgeSender`] to one task, one [`ExchangeSender`] to all tasks of a stage.
//!
//! Owned by the task that sends, and used by it alone, so that batches and barriers keep their order. Waits for
//! credit, which is backpressure up to the reader. Barriers need no credit: a task that is ahead of the others is
//! held at its barrier by the receiver, and that barrier must get through.
//! Failure: an edge whose other end is gone is [`SendError::Closed`]; the cause comes by another way, from the
//! actor's supervisor or as [`super::message::PeerLost`].

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use futures::FutureExt;
use futures::future::try_join_all;
use millstream_common::error::Kind;
use millstream_common::row_bytes::row_bytes;
use tokio::time::Instant;

use super::credit::{CreditPermit, EdgeCredits};
use super::flight_client::RemoteOutlet;
use super::message::{Deliver, EdgeBarrier, EdgeBatch, EdgeId, OwnedRows, StreamMessage};
use super::route::{Routed, Router, RowHasher};
use super::split::{BATCH_BYTES_MAX, split};

/// Why a message could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The receiving task or its worker is gone, or the last barrier was sent already.
    #[error("send on edge {edge}: the receiving end is gone")]
    Closed {
        /// The edge.
        edge: EdgeId,
    },
    /// Rows of another shape than the edge was opened for.
    #[error("send on edge {edge}: rows have schema {found} where the plan says {expected}")]
    Schema {
        /// The edge.
        edge: EdgeId,
        /// What the edge was opened for.
        expected: SchemaRef,
        /// What the rows have.
        found: SchemaRef,
    },
    /// A single row that does not fit into a message.
    #[error("send on edge {edge}: a row of {bytes} bytes; at most {bytes_max} travel in a message")]
    TooLarge {
        /// The edge.
        edge: EdgeId,
        /// Of the row, encoded.
        bytes: usize,
        /// The most a message holds.
        bytes_max: usize,
    },
    /// Rows could not be split among the tasks.
    #[error("route rows")]
    Route(#[source] ArrowError),
    /// Rows could not be encoded.
    #[error("encode rows for edge {edge}")]
    Encode {
        /// The edge.
        edge: EdgeId,
        /// What Arrow says.
        #[source]
        cause: ArrowError,
    },
}

impl SendError {
    /// Who has to act.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Closed { .. } => Kind::External,
            Self::TooLarge { .. } => Kind::User,
            Self::Schema { .. } | Self::Route(_) | Self::Encode { .. } => Kind::Internal,
        }
    }
}

/// The sending end of one edge.
pub struct EdgeSender {
    edge: EdgeId,
    credits: EdgeCredits,
    outlet: Outlet,
    sent: Sent,
}

/// What went over edges, and how long it waited, since this was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Of rows, as the credit counts them.
    pub bytes: u64,
    /// For credit.
    pub blocked: Duration,
}

enum Outlet {
    Local(Deliver),
    Remote(Box<RemoteOutlet>),
}

impl EdgeSender {
    /// To a task of this process.
    pub fn local(edge: EdgeId, budget_bytes: u32, deliver: Deliver) -> Self {
        Self {
            edge,
            credits: EdgeCredits::new(budget_bytes),
            outlet: Outlet::Local(deliver),
            sent: Sent::default(),
        }
    }

    /// To a task of another worker, over an edge that the worker has accepted.
    pub(super) fn remote(edge: EdgeId, credits: EdgeCredits, outlet: RemoteOutlet) -> Self {
        Self {
            edge,
            credits,
            outlet: Outlet::Remote(Box::new(outlet)),
            sent: Sent::default(),
        }
    }

    /// The edge it sends on.
    pub fn edge(&self) -> EdgeId {
        self.edge
    }

    /// The edge's credits, for metrics, and to close it.
    pub fn credits(&self) -> &EdgeCredits {
        &self.credits
    }

    /// Sends rows to their owner; waits for credit. Within a process they share their batch with other owners; each of them pays for all
    /// of it, for each may hold it.
    ///
    /// # Errors
    /// See [`SendError`]; the pipeline cannot go on.
    pub async fn send_rows(&mut self, rows: OwnedRows) -> Result<(), SendError> {
        let is_shared = rows.choice().is_some() && matches!(self.outlet, Outlet::Local(_));
        if !is_shared {
            let batch = rows.into_batch().map_err(SendError::Route)?;
            return self.send_batch(batch).await;
        }
        let bytes = row_bytes(rows.batch());
        let permit = self.credit(bytes).await?;
        self.sent.bytes += (bytes / rows.batch().num_rows().max(1) * rows.count()) as u64;
        self.send_part(rows, permit).await
    }

    /// Sends rows, in parts of at most 1 MiB; waits for the credit of each.
    ///
    /// # Errors
    /// See [`SendError`]; the pipeline cannot go on.
    pub async fn send_batch(&mut self, batch: RecordBatch) -> Result<(), SendError> {
        for part in split(batch, BATCH_BYTES_MAX) {
            let permit = self.credit(part.bytes).await?;
            self.sent.bytes += part.bytes as u64;
            self.send_part(OwnedRows::whole(part.batch), permit).await?;
        }
        Ok(())
    }

    /// The clock is looked at only where there is something to wait for.
    async fn credit(&mut self, bytes: usize) -> Result<CreditPermit, SendError> {
        let mut acquiring = std::pin::pin!(self.credits.acquire(bytes));
        let acquired = match acquiring.as_mut().now_or_never() {
            Some(acquired) => acquired,
            None => {
                let since = Instant::now();
                let acquired = acquiring.await;
                self.sent.blocked += since.elapsed();
                acquired
            }
        };
        acquired.map_err(|_| SendError::Closed { edge: self.edge })
    }

    /// What it sent, and how long it waited, since this was asked last.
    pub fn take_sent(&mut self) -> Sent {
        std::mem::take(&mut self.sent)
    }

    async fn send_part(&mut self, rows: OwnedRows, permit: CreditPermit) -> Result<(), SendError> {
        let edge = self.edge;
        match &mut self.outlet {
            Outlet::Local(deliver) => {
                let message = StreamMessage::Batch(EdgeBatch { rows, permit });
                deliver(edge, message).map_err(|_| SendError::Closed { edge })
            }
            Outlet::Remote(outlet) => {
                let batch = rows.into_batch().map_err(SendError::Route)?;
                outlet.send_batch(&batch, permit).await
            }
        }
    }

    /// Sends a barrier behind everything sent before, without credit.
    ///
    /// # Errors
    /// [`SendError::Closed`] if the receiving end is gone.
    pub async fn send_barrier(&mut self, barrier: EdgeBarrier) -> Result<(), SendError> {
        let edge = self.edge;
        match &mut self.outlet {
            Outlet::Local(deliver) => deliver(edge, StreamMessage::Barrier(barrier))
                .map_err(|_| SendError::Closed { edge }),
            Outlet::Remote(outlet) => outlet.send_barrier(&barrier).await,
        }
    }
}

/// One branch's fan-out to all tasks of the stage that it leads to.
pub struct ExchangeSender {
    router: Router,
    /// By index of the receiving task.
    edges: Vec<EdgeSender>,
}

impl ExchangeSender {
    /// Over `edges` in order of the receiving tasks' indexes, none missing.
    pub fn new(hasher: Box<dyn RowHasher>, edges: Vec<EdgeSender>) -> Self {
        for (index, edge) in edges.iter().enumerate() {
            let task = edge.edge.to.index as usize;
            assert_eq!(task, index, "edges stand in order of their tasks");
        }
        Self {
            router: Router::new(hasher, edges.len() as u32),
            edges,
        }
    }

    /// Sends each row to the owner of its key. Owners are served side by side: one without credit does not keep
    /// rows from the others, only the next batch.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send_batch(&mut self, batch: RecordBatch) -> Result<(), SendError> {
        let routed = self.router.route(batch);
        let mut edges = self.edges.iter_mut().enumerate();
        let mut sends = Vec::with_capacity(routed.len());
        for Routed { task, rows } in routed {
            let (_, edge) = edges
                .find(|(index, _)| *index == task as usize)
                .expect("rows are routed to tasks that exist, in order");
            sends.push(edge.send_rows(rows));
        }
        try_join_all(sends).await.map(drop)
    }

    /// What was sent, and how long the edges waited, since this was asked last. They wait side by side, so the longest counts.
    pub fn take_sent(&mut self) -> Sent {
        let edges = self.edges.iter_mut().map(EdgeSender::take_sent);
        edges.fold(Sent::default(), |sum, sent| Sent {
            bytes: sum.bytes + sent.bytes,
            blocked: sum.blocked.max(sent.blocked),
        })
    }

    /// Sends the barrier to every task.
    ///
    /// # Errors
    /// [`SendError::Closed`] if one of them is gone.
    pub async fn send_barrier(&mut self, barrier: &EdgeBarrier) -> Result<(), SendError> {
        for edge in &mut self.edges {
            edge.send_barrier(barrier.clone()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use millstream_common::ids::Epoch;

    use super::*;
    use crate::exchange::message::{BarrierKind, Closed};
    use crate::exchange::testing::{ColumnHasher, edge, numbers};

    /// A mailbox without an actor.
    #[derive(Clone, Default)]
    struct Mailbox(Arc<Mutex<Vec<(EdgeId, StreamMessage)>>>);

    impl Mailbox {
        fn deliver(&self) -> Deliver {
            let messages = self.0.clone();
            Arc::new(move |edge, message| {
                messages.lock().expect("no panic").push((edge, message));
                Ok(())
            })
        }

        fn take(&self) -> Vec<(EdgeId, StreamMessage)> {
            std::mem::take(&mut self.0.lock().expect("no panic"))
        }
    }

    fn barrier(epoch: u64) -> EdgeBarrier {
        EdgeBarrier {
            epoch: Epoch(epoch),
            watermarks: BTreeMap::new(),
            kind: BarrierKind::Checkpoint,
        }
    }

    fn row_count(messages: &[(EdgeId, StreamMessage)]) -> usize {
        let rows = |message: &StreamMessage| match message {
            StreamMessage::Batch(batch) => batch.rows.count(),
            StreamMessage::Barrier(_) => 0,
        };
        messages.iter().map(|(_, message)| rows(message)).sum()
    }

    #[tokio::test]
    async fn a_large_batch_is_sent_in_parts_as_credit_comes_back() {
        let mailbox = Mailbox::default();
        let mut sender = EdgeSender::local(edge(0, 0), 1 << 20, mailbox.deliver());
        let row_total = 300_000;
        let mut sending = Box::pin(sender.send_batch(numbers(0..row_total)));
        let mut received = 0;
        while sending.as_mut().now_or_never().is_none() {
            let messages = mailbox.take();
            let parts = messages.len();
            assert!(parts >= 1, "the sender waits though nothing holds credit");
            received += row_count(&messages);
        }
        received += row_count(&mailbox.take());
        assert_eq!(received, row_total as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn only_time_without_credit_counts_as_blocked() {
        let mailbox = Mailbox::default();
        let mut sender = EdgeSender::local(edge(0, 0), 8, mailbox.deliver());
        sender.send_batch(numbers([1])).await.expect("first row");
        assert_eq!(sender.take_sent().blocked, Duration::ZERO);
        let folding = async {
            tokio::time::sleep(Duration::from_millis(7)).await;
            drop(mailbox.take());
        };
        let (sent, ()) = tokio::join!(sender.send_batch(numbers([2])), folding);
        sent.expect("credit came back");
        let sent = sender.take_sent();
        assert!(sent.blocked >= Duration::from_millis(7), "{sent:?}");
        assert!(sent.bytes > 0);
        assert_eq!(sender.take_sent(), Sent::default());
    }

    #[tokio::test]
    async fn a_barrier_needs_no_credit() {
        let mailbox = Mailbox::default();
        let mut sender = EdgeSender::local(edge(0, 0), 8, mailbox.deliver());
        sender.send_batch(numbers([1])).await.expect("first row");
        assert_eq!(sender.credits().free_bytes(), 0);
        sender.send_barrier(barrier(1)).await.expect("barrier");
        let messages = mailbox.take();
        assert!(matches!(
            messages.as_slice(),
            [(_, StreamMessage::Batch(_)), (_, StreamMessage::Barrier(_))]
        ));
    }

    #[tokio::test]
    async fn closing_an_edge_ends_a_send_that_waits() {
        let mailbox = Mailbox::default();
        let mut sender = EdgeSender::local(edge(0, 0), 8, mailbox.deliver());
        sender.send_batch(numbers([1])).await.expect("first row");
        let credits = sender.credits().clone();
        let mut waiting = Box::pin(sender.send_batch(numbers([2])));
        assert!(waiting.as_mut().now_or_never().is_none());
        credits.close();
        assert!(matches!(waiting.await, Err(SendError::Closed { .. })));
    }

    #[tokio::test]
    async fn a_dead_receiver_is_an_error() {
        let mut sender = EdgeSender::local(edge(0, 0), 8, Arc::new(|_, _| Err(Closed)));
        let refused = sender.send_batch(numbers([1])).await;
        assert!(matches!(refused, Err(SendError::Closed { .. })));
    }

    #[tokio::test]
    async fn a_task_without_credit_does_not_keep_rows_from_the_others() {
        let mailboxes: Vec<Mailbox> = (0..2).map(|_| Mailbox::default()).collect();
        let edges = mailboxes.iter().enumerate().map(|(task, mailbox)| {
            let budget_bytes = if task == 0 { 8 } else { 1 << 20 };
            EdgeSender::local(edge(0, task as u32), budget_bytes, mailbox.deliver())
        });
        let mut exchange = ExchangeSender::new(Box::<ColumnHasher>::default(), edges.collect());
        let sent = exchange.send_batch(numbers(0..100)).await;
        sent.expect("a batch over the budget travels alone");
        let first = row_count(&mailboxes[1].take());
        assert!(first > 0);
        let held = mailboxes[0].take();
        let mut sending = Box::pin(exchange.send_batch(numbers(0..100)));
        assert!(sending.as_mut().now_or_never().is_none());
        assert_eq!(row_count(&mailboxes[1].take()), first);
        drop(held);
        sending.await.expect("credit came back");
    }

    #[tokio::test]
    async fn a_barrier_reaches_every_task() {
        let mailbox = Mailbox::default();
        let edges = (0..3).map(|task| EdgeSender::local(edge(0, task), 64, mailbox.deliver()));
        let mut exchange = ExchangeSender::new(Box::<ColumnHasher>::default(), edges.collect());
        exchange.send_barrier(&barrier(3)).await.expect("send");
        let tasks: Vec<u32> = mailbox
            .take()
            .iter()
            .map(|(edge, _)| edge.to.index)
            .collect();
        assert_eq!(tasks, [0, 1, 2]);
    }
}
