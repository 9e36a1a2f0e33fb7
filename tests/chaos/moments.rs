//! What a topic that a job writes holds, from one quiet moment to the next: new rows, and the marker of the sink.
//!
//! Used by the readers of such topics. In a quiet moment no transaction is under way in any partition of the topic nor in that of the
//! marker, so what is there is whole epochs. A moment in which Kafka does not answer, or that is not quiet, is passed by. Failure: a
//! marker that goes back, or rows without a newer one.

use std::time::Duration;

use anyhow::ensure;
use millstream_common::blocking::{self, BlockingRef};
use millstream_tests::quiet::{From, read_quiet};
use millstream_tests::topic::{Stored, Topic};
use serde_json::Value;
use tokio::time::Interval;

const LOOK_INTERVAL: Duration = Duration::from_millis(700);
const PROGRESS_TOPIC: &str = "__millstream_progress";
const PROGRESS_PARTITION_COUNT: i32 = 16;

/// The quiet moments of one sink.
pub(crate) struct Moments {
    sink: &'static str,
    brokers: String,
    blocking: BlockingRef,
    ticks: Interval,
    /// Where each partition of the topic is read on.
    from: Vec<From>,
    /// Which partition of the topic of markers has the sink's.
    marker_at: Option<i32>,
    marker: u64,
}

/// One of them.
pub(crate) struct Moment {
    /// The epoch that the sink says it holds.
    pub(crate) epoch: u64,
    /// What has come since the last one.
    pub(crate) rows: Vec<Stored>,
}

impl Moments {
    /// Of the sink that alone writes to the topic.
    pub(crate) fn of(sink: &'static str, topic: &Topic, blocking: BlockingRef) -> Self {
        Self {
            sink,
            brokers: topic.brokers().to_owned(),
            blocking,
            ticks: tokio::time::interval(LOOK_INTERVAL),
            from: topic.beginnings(),
            marker_at: None,
            marker: 0,
        }
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Moment> {
        loop {
            self.ticks.tick().await;
            let mut read = self.read().await?;
            match (self.marker_at, read.pop()) {
                (Some(_), Some(markers)) => return self.moment(&read, &markers),
                (None, Some(last)) => {
                    read.push(last);
                    let found = read.iter().position(|one| self.marker_in(one).is_some());
                    self.marker_at = found.and_then(|index| i32::try_from(index).ok());
                }
                (_, None) => {}
            }
        }
    }

    /// The rows of each partition and then the markers; until it is known where those are, the whole topic of markers. Nothing where the
    /// moment is not quiet.
    async fn read(&self) -> anyhow::Result<Vec<Vec<Stored>>> {
        let brokers = self.brokers.clone();
        let wanted = match self.marker_at {
            Some(partition) => {
                let mut wanted = self.from.clone();
                wanted.push(beginning_of(partition));
                wanted
            }
            // Where the marker is, only the marker says.
            None => (0..PROGRESS_PARTITION_COUNT).map(beginning_of).collect(),
        };
        let read = blocking::run(&self.blocking, move || read_quiet(&brokers, &wanted));
        Ok(read.await?.unwrap_or_default())
    }

    fn moment(&mut self, read: &[Vec<Stored>], markers: &[Stored]) -> anyhow::Result<Moment> {
        let epoch = self.marker_in(markers).unwrap_or_default();
        let (before, rows) = (self.marker, read.concat());
        ensure!(epoch >= before, "the marker was {before} and is {epoch}");
        ensure!(
            rows.is_empty() || epoch > before,
            "{} rows came without a newer marker than {epoch}",
            rows.len()
        );
        for (from, records) in self.from.iter_mut().zip(read) {
            from.offset = records.last().map_or(from.offset, |last| last.offset + 1);
        }
        self.marker = epoch;
        Ok(Moment { epoch, rows })
    }

    /// The newest marker of the sink among the records of a partition.
    fn marker_in(&self, records: &[Stored]) -> Option<u64> {
        let mut markers = records.iter().filter_map(|record| {
            let key: Value = serde_json::from_slice(record.key.as_deref()?).ok()?;
            let value: Value = serde_json::from_slice(record.payload.as_deref()?).ok()?;
            let is_ours = key["kind"] == "marker" && key["sink"] == self.sink;
            is_ours.then(|| value["epoch"].as_u64()).flatten()
        });
        markers.next_back()
    }
}

fn beginning_of(partition: i32) -> From {
    From {
        topic: PROGRESS_TOPIC.to_owned(),
        partition,
        offset: 0,
    }
}
