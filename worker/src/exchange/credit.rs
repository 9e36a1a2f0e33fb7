//! Byte credits of an edge: no credit, no send. This is what bounds mailboxes, which are unbounded by themselves.
//!
//! The sending end waits in [`EdgeCredits::acquire`]; the permit rides in the message and comes back when the
//! receiving task drops it, after the rows are folded or while they wait in `align.rs`. On a remote edge the
//! permit's drop adds its bytes to `CreditReturns`, from where `flight_server.rs` sends them back.
//! Keeps INV-9. Barriers need no credit. Failure: a closed edge wakes every waiter with [`Closed`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::message::Closed;

/// What all edges into one task may hold together, as long as each has its least.
const TASK_BUDGET_BYTES: usize = 32 << 20;
/// The most that one edge is given: four full batches, so that a sender goes on while the receiver folds. More only
/// makes barriers wait behind more.
pub const EDGE_BUDGET_BYTES: u32 = 4 << 20;
/// A quarter of a full batch: with less, a message costs more than its rows.
const EDGE_BUDGET_BYTES_MIN: usize = 256 << 10;

/// The budget of each edge into a task that reads `edge_count` of them.
pub fn edge_budget_bytes(edge_count: usize) -> u32 {
    let share = TASK_BUDGET_BYTES / edge_count.max(1);
    share.clamp(EDGE_BUDGET_BYTES_MIN, EDGE_BUDGET_BYTES as usize) as u32
}

/// The sending end's view of an edge's budget. Clones share it.
#[derive(Clone, Debug)]
pub struct EdgeCredits {
    free: Arc<Semaphore>,
    budget_bytes: u32,
}

impl EdgeCredits {
    /// All of `budget_bytes` is free; it must not be zero.
    pub fn new(budget_bytes: u32) -> Self {
        assert!(budget_bytes > 0, "an edge without budget carries nothing");
        Self {
            free: Arc::new(Semaphore::new(budget_bytes as usize)),
            budget_bytes,
        }
    }

    /// Waits until `bytes` are free and takes them; more than the budget counts as the whole budget, so that a large
    /// row travels alone. Waiters are served in order.
    ///
    /// # Errors
    /// [`Closed`] if the edge is or gets closed.
    pub async fn acquire(&self, bytes: usize) -> Result<CreditPermit, Closed> {
        let clamped = u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .clamp(1, self.budget_bytes);
        match self.free.clone().acquire_many_owned(clamped).await {
            Ok(permit) => Ok(CreditPermit(Held::Local(permit))),
            Err(_) => Err(Closed),
        }
    }

    /// Lets no one send any more; waiters return with an error.
    pub fn close(&self) {
        self.free.close();
    }

    /// What can be taken without waiting.
    pub fn free_bytes(&self) -> usize {
        self.free.available_permits()
    }

    /// Credit that came back over the network; refused where more comes back than was taken.
    pub(super) fn give_back(&self, bytes: u32) -> Result<(), TooMuch> {
        let free_bytes = self.free.available_permits();
        let budget_bytes = self.budget_bytes as usize;
        if free_bytes + bytes as usize > budget_bytes {
            return Err(TooMuch);
        }
        self.free.add_permits(bytes as usize);
        Ok(())
    }
}

/// The peer returned credit that it did not hold.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("returned more credit than was taken")]
pub(super) struct TooMuch;

/// Bytes of an edge's budget; free again when dropped.
#[derive(Debug)]
#[must_use = "dropping the permit lets the sender send again"]
pub struct CreditPermit(Held);

#[derive(Debug)]
enum Held {
    Local(OwnedSemaphorePermit),
    Remote(RemoteHeld),
}

#[derive(Debug)]
struct RemoteHeld {
    bytes: u32,
    returns: Arc<CreditReturns>,
}

impl CreditPermit {
    /// Credit that another worker took and sent along with a batch.
    pub(super) fn remote(bytes: u32, returns: Arc<CreditReturns>) -> Self {
        Self(Held::Remote(RemoteHeld { bytes, returns }))
    }

    /// How much it holds.
    pub fn bytes(&self) -> u32 {
        match &self.0 {
            Held::Local(permit) => permit.num_permits() as u32,
            Held::Remote(held) => held.bytes,
        }
    }

    /// Gives the credit to the wire: it is not free until the peer returns it.
    pub(super) fn into_wire(self) -> u32 {
        let bytes = self.bytes();
        if let Held::Local(permit) = self.0 {
            permit.forget();
        }
        bytes
    }
}

impl Drop for RemoteHeld {
    fn drop(&mut self) {
        self.returns.add(self.bytes);
    }
}

/// What the permits of a remote edge gave back and was not sent yet. A sum, not a queue, so it cannot grow.
#[derive(Debug, Default)]
pub(super) struct CreditReturns {
    bytes: AtomicU64,
    added: Notify,
}

impl CreditReturns {
    fn add(&self, bytes: u32) {
        self.bytes.fetch_add(u64::from(bytes), Ordering::AcqRel);
        self.added.notify_one();
    }

    /// Waits for a sum above zero and takes it. Cancel-safe: nothing is taken before it returns.
    pub(super) async fn take(&self) -> u64 {
        loop {
            let bytes = self.bytes.swap(0, Ordering::AcqRel);
            if bytes > 0 {
                return bytes;
            }
            self.added.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn many_edges_share_the_budget_of_their_task() {
        assert_eq!(edge_budget_bytes(1), 4 << 20);
        assert_eq!(edge_budget_bytes(32), 1 << 20);
        assert_eq!(edge_budget_bytes(10_000), 256 << 10);
    }

    #[tokio::test]
    async fn a_sender_waits_until_a_permit_is_dropped() {
        let credits = EdgeCredits::new(100);
        let held = credits.acquire(60).await.expect("open");
        let mut waiting = Box::pin(credits.acquire(60));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(held);
        assert_eq!(waiting.await.expect("open").bytes(), 60);
    }

    #[tokio::test]
    async fn more_than_the_budget_takes_the_whole_budget() {
        let credits = EdgeCredits::new(100);
        let permit = credits.acquire(1_000_000).await.expect("open");
        assert_eq!(permit.bytes(), 100);
        assert_eq!(credits.free_bytes(), 0);
    }

    #[tokio::test]
    async fn closing_an_edge_wakes_its_waiters_with_an_error() {
        let credits = EdgeCredits::new(10);
        let _held = credits.acquire(10).await.expect("open");
        let mut waiting = Box::pin(credits.acquire(1));
        assert!(waiting.as_mut().now_or_never().is_none());
        credits.close();
        assert_eq!(waiting.await.expect_err("closed"), Closed);
        assert!(credits.acquire(1).await.is_err());
    }

    #[tokio::test]
    async fn credit_given_to_the_wire_is_free_only_when_returned() {
        let credits = EdgeCredits::new(10);
        let bytes = credits.acquire(4).await.expect("open").into_wire();
        assert_eq!(credits.free_bytes(), 6);
        let returns = Arc::new(CreditReturns::default());
        drop(CreditPermit::remote(bytes, returns.clone()));
        let returned = returns.take().await;
        assert_eq!(returned, 4);
        assert_eq!(credits.give_back(4), Ok(()));
        assert_eq!(credits.give_back(1), Err(TooMuch));
        assert_eq!(credits.free_bytes(), 10);
    }

    #[tokio::test]
    async fn returns_are_summed_while_nobody_takes_them() {
        let returns = Arc::new(CreditReturns::default());
        for bytes in [1, 2, 3] {
            drop(CreditPermit::remote(bytes, returns.clone()));
        }
        assert_eq!(returns.take().await, 6);
        assert!(returns.take().now_or_never().is_none());
    }
}
