//! What waits for one reader of a preview: batches up to [`BYTES_MAX`]; more push out the oldest, which are counted.
//!
//! Filled by the tasks of the tapped stages, emptied by the reader's call. A task is held up by nothing but the lock, under which
//! nothing is computed. Cannot fail.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use tokio::sync::Notify;

/// Memory that the batches of one reader hold, unless a single one is larger.
pub(super) const BYTES_MAX: usize = 4 << 20;

/// A batch of a tap.
#[derive(Debug)]
pub(super) struct Offered {
    /// Which tap of the ticket.
    pub(super) tap: usize,
    /// As the head of the stage gave it.
    pub(super) batch: RecordBatch,
}

/// What was taken out of a basket.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Oldest first.
    pub(super) offered: Vec<Offered>,
    /// Rows that were pushed out since the basket was emptied last.
    pub(super) skipped_rows: u64,
}

/// The content of a basket.
#[derive(Debug, Default)]
struct Content {
    batches: VecDeque<(Offered, usize)>,
    bytes: usize,
    skipped_rows: u64,
}

impl Content {
    /// Takes a batch of so many bytes; a batch larger than the basket is alone in it.
    fn put(&mut self, offered: Offered, bytes: usize) {
        while self.bytes + bytes > BYTES_MAX
            && let Some((oldest, freed)) = self.batches.pop_front()
        {
            self.bytes -= freed;
            self.skipped_rows += oldest.batch.num_rows() as u64;
        }
        self.bytes += bytes;
        self.batches.push_back((offered, bytes));
    }

    fn take(&mut self) -> Taken {
        let content = std::mem::take(self);
        let batches = content.batches.into_iter();
        Taken {
            offered: batches.map(|(offered, _)| offered).collect(),
            skipped_rows: content.skipped_rows,
        }
    }
}

/// One reader's basket.
#[derive(Debug, Default)]
pub(super) struct Basket {
    content: Mutex<Content>,
    filled: Notify,
}

impl Basket {
    /// Puts a batch in; never waits for the reader.
    pub(super) fn offer(&self, offered: Offered) {
        let bytes = offered.batch.get_array_memory_size();
        self.lock().put(offered, bytes);
        self.filled.notify_one();
    }

    /// What is there, once there is anything. For one reader.
    pub(super) async fn take(&self) -> Taken {
        loop {
            let taken = self.lock().take();
            if !taken.offered.is_empty() {
                return taken;
            }
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use futures::FutureExt;

    use super::*;

    fn offered(row_count: i64) -> Offered {
        let rows = Int64Array::from_iter_values(0..row_count);
        let batch = RecordBatch::try_from_iter(vec![("n", Arc::new(rows) as _)]);
        let batch = batch.expect("batch");
        Offered { tap: 0, batch }
    }

    #[test]
    fn what_is_oldest_is_pushed_out_and_counted() {
        let mut content = Content::default();
        for row_count in 1..=3 {
            content.put(offered(row_count), BYTES_MAX / 2);
        }
        let taken = content.take();
        let rows = taken.offered.iter().map(|offered| offered.batch.num_rows());
        assert_eq!(rows.collect::<Vec<_>>(), [2, 3]);
        assert_eq!(taken.skipped_rows, 1);
        assert_eq!(content.take().skipped_rows, 0, "told once");
    }

    #[test]
    fn a_batch_that_is_larger_than_the_basket_is_alone_in_it() {
        let mut content = Content::default();
        content.put(offered(2), 1);
        content.put(offered(5), BYTES_MAX * 3);
        assert_eq!(content.bytes, BYTES_MAX * 3);
        let taken = content.take();
        assert_eq!((taken.offered.len(), taken.skipped_rows), (1, 2));
        assert_eq!(content.bytes, 0);
    }

    #[tokio::test]
    async fn a_reader_waits_until_something_is_offered_and_nobody_waits_for_a_reader() {
        let basket = Basket::default();
        assert!(basket.take().now_or_never().is_none());
        basket.offer(offered(1));
        basket.offer(offered(2));
        assert_eq!(basket.take().await.offered.len(), 2);
        assert!(basket.take().now_or_never().is_none());
    }
}
