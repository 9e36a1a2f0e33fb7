//! The reader of the topic that numbers are written to, in the order in which a generator makes them: whole epochs only, each once.
//!
//! Started by `readers.rs`. In a quiet moment (`moments.rs`) all numbers up to the last one are there. Failure: what no reader may see.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use millstream_tests::topic::Stored;

use crate::moments::Moments;

/// Looks until it sees what it must not; `looks` counts the moments that were quiet.
pub(crate) async fn follow(mut moments: Moments, looks: &AtomicU64) -> anyhow::Result<()> {
    let mut last = 0;
    loop {
        let moment = moments.next().await?;
        let mut numbers = moment
            .rows
            .iter()
            .map(number)
            .collect::<anyhow::Result<Vec<u64>>>()?;
        numbers.sort_unstable();
        for number in numbers {
            ensure!(
                number == last + 1,
                "at epoch {} number {number} stands behind {last}",
                moment.epoch
            );
            last = number;
        }
        looks.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a record of the topic says.
pub(crate) fn number(record: &Stored) -> anyhow::Result<u64> {
    let key = record.key.as_deref().context("a number has a key")?;
    Ok(std::str::from_utf8(key)?.parse()?)
}
