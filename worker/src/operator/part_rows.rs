//! The rows of a state part, on their way from an operator to storage.
//!
//! Made by operators at a barrier, taken by `snapshot/writer`. What an operator hands over is its own no more: it goes on with the next
//! epoch while these become a batch elsewhere. Failure: rows that do not fit their schema, which is a defect.

use std::fmt;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

type Make = Box<dyn FnOnce() -> Result<RecordBatch, ArrowError> + Send>;

/// Rows that become a batch where that costs the path of rows nothing.
pub struct PartRows {
    count: usize,
    make: Make,
}

impl PartRows {
    /// `count` rows, made later and in another thread.
    pub fn later(
        count: usize,
        make: impl FnOnce() -> Result<RecordBatch, ArrowError> + Send + 'static,
    ) -> Self {
        let make = Box::new(make);
        Self { count, make }
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The batch.
    pub fn make(self) -> Result<RecordBatch, ArrowError> {
        (self.make)()
    }
}

impl From<RecordBatch> for PartRows {
    fn from(batch: RecordBatch) -> Self {
        Self::later(batch.num_rows(), move || Ok(batch))
    }
}

impl fmt::Debug for PartRows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} rows", self.count)
    }
}
