//! The taps of one stage: where its tasks on this worker offer the rows of their heads, and readers get them from.
//!
//! Shared by the tasks of the stage (`branch.rs`), the board and its readers. Where nobody reads, an offer is one look at a flag; where
//! somebody does, a batch is shared with each reader and not copied. Cannot fail, and waits for nobody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use millstream_common::plan::Port;

use super::basket::{Basket, Offered};

/// The taps of one stage on this worker.
#[derive(Debug, Default)]
pub struct StageTap {
    /// Somebody reads. A batch that just misses a reader's beginning or sees its end does no harm.
    is_open: AtomicBool,
    readers: Mutex<Vec<Reader>>,
}

#[derive(Debug)]
struct Reader {
    port: Port,
    /// Which tap of the reader's ticket.
    tap: usize,
    basket: Arc<Basket>,
}

/// Ends with the reader.
#[derive(Debug)]
pub(super) struct OpenTap {
    stage: Arc<StageTap>,
    basket: Arc<Basket>,
}

impl StageTap {
    /// Shows a batch of a port to whoever reads it; called by the task for each batch.
    pub fn offer(&self, port: Port, batch: &RecordBatch) {
        if self.is_open.load(Ordering::Relaxed) {
            self.hand_out(port, batch);
        }
    }

    fn hand_out(&self, port: Port, batch: &RecordBatch) {
        for reader in self.lock().iter().filter(|reader| reader.port == port) {
            reader.basket.offer(Offered {
                tap: reader.tap,
                batch: batch.clone(),
            });
        }
    }

    /// From now on the batches of `port` go into `basket`, as those of `tap`.
    pub(super) fn open(self: &Arc<Self>, port: Port, tap: usize, basket: &Arc<Basket>) -> OpenTap {
        self.lock().push(Reader {
            port,
            tap,
            basket: basket.clone(),
        });
        self.is_open.store(true, Ordering::Relaxed);
        OpenTap {
            stage: self.clone(),
            basket: basket.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Reader>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenTap {
    /// A reader that goes takes all its taps of the stage with it.
    fn drop(&mut self) {
        let mut readers = self.stage.lock();
        readers.retain(|reader| !Arc::ptr_eq(&reader.basket, &self.basket));
        let is_open = !readers.is_empty();
        self.stage.is_open.store(is_open, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use futures::FutureExt;

    use super::*;

    fn batch() -> RecordBatch {
        let rows = Int64Array::from(vec![1]);
        RecordBatch::try_from_iter(vec![("n", Arc::new(rows) as _)]).expect("batch")
    }

    fn taps(basket: &Basket) -> Vec<usize> {
        let taken = basket.take().now_or_never().unwrap_or_default();
        taken.offered.iter().map(|offered| offered.tap).collect()
    }

    #[test]
    fn readers_get_what_is_offered_at_their_port_while_they_are_there() {
        let stage = Arc::new(StageTap::default());
        let (one, other) = (Arc::default(), Arc::default());
        stage.offer(Port::Rows, &batch());
        let first = stage.open(Port::Rows, 0, &one);
        let second = stage.open(Port::DeadLetters, 3, &other);
        stage.offer(Port::Rows, &batch());
        assert_eq!((taps(&one), taps(&other)), (vec![0], vec![]));
        drop(first);
        stage.offer(Port::Rows, &batch());
        stage.offer(Port::DeadLetters, &batch());
        assert_eq!((taps(&one), taps(&other)), (vec![], vec![3]));
        drop(second);
        assert!(!stage.is_open.load(Ordering::Relaxed), "nobody reads");
    }
}
