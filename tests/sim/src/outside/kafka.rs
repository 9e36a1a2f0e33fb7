//! A Kafka topic in memory: partitions whose records appear one by one, and a client that reads them.
//!
//! Behind the traits of all readers and enumerators; records are decoded by the worker's real decoder. Reads from any offset again
//! and again, always the same records (INV-5). A topic is bounded: its ends are fixed before the first record is there. Failure: an
//! outage brings no records until it is over.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millstream_common::error::Kind;
use millstream_common::ids::SplitId;
use millstream_common::plan::SourcePlan;
use millstream_common::report::{SplitProgress, SplitStart, SplitStatus};
use millstream_master::enumerate::{EnumerateError, Enumerator, FoundSplit};
use millstream_worker::consume::{
    ConsumeError, CutRequest, ReaderContext, SourceCut, SourceEvent, SourceReader,
};
use millstream_worker::decode::{
    DecodeError, OpenSplit, RecordRef, SourceDecoder, SplitSlot, WatermarkMoves,
};

use super::{Outside, World};
use crate::trace::{self, event};

/// A record and when it appears.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) at: Duration,
    pub(crate) payload: String,
}

/// Partitions by name.
pub(crate) type Topic = BTreeMap<SplitId, Vec<Record>>;

/// Most records of one fetch.
const FETCH_RECORDS_MAX: usize = 16;
/// The way to the broker and back.
const FETCH_TIME: Duration = Duration::from_millis(3);

/// Reads partitions of the topic.
pub(crate) struct SimulatedReader {
    host: String,
    name: String,
    topic: Arc<Topic>,
    outside: Arc<Outside>,
    decoder: SourceDecoder,
    splits: BTreeMap<SplitId, Open>,
    /// Ended since the last cut.
    ended: BTreeMap<SplitId, SplitProgress>,
    cuts: VecDeque<CutRequest>,
    is_stopped: bool,
}

struct Open {
    slot: SplitSlot,
    progress: SplitProgress,
}

impl SimulatedReader {
    pub(crate) fn new(
        host: &str,
        topic: Arc<Topic>,
        outside: Arc<Outside>,
        plan: &SourcePlan,
        context: &ReaderContext,
    ) -> Result<Self, ConsumeError> {
        let late = context.late_rows_needed;
        let clock = context.clock.clone();
        let decoder = SourceDecoder::new(plan, &context.functions, clock, late);
        Ok(Self {
            host: host.to_owned(),
            name: context.name.clone(),
            topic,
            outside,
            decoder: decoder.map_err(failed)?,
            splits: BTreeMap::new(),
            ended: BTreeMap::new(),
            cuts: VecDeque::new(),
            is_stopped: false,
        })
    }

    /// Decodes the next records that are there, of the split that lags most.
    fn fetch(&mut self, now: Duration) -> Result<Option<SourceEvent>, ConsumeError> {
        let due = |split: &SplitId, open: &Open| {
            let position = usize::try_from(open.progress.position).ok()?;
            let next = self.topic[split].get(position)?;
            (next.at <= now).then_some((next.at, split.clone()))
        };
        let lagging = self
            .splits
            .iter()
            .filter_map(|(split, open)| due(split, open));
        let Some((_, split)) = lagging.min() else {
            return Ok(None);
        };
        let open = self.splits.get_mut(&split).expect("found above");
        let from = open.progress.position as usize;
        let there = self.topic[&split][from..].iter();
        let records = there.take_while(|record| record.at <= now);
        let records: Vec<RecordRef<'_>> = records
            .take(FETCH_RECORDS_MAX)
            .zip(open.progress.position..)
            .map(|(record, position)| RecordRef {
                slot: open.slot,
                position,
                payload: Some(record.payload.as_bytes()),
                key: None,
                timestamp_ms: None,
                headers: None,
            })
            .collect();
        event!("read {} {split} {from}+{}", self.name, records.len());
        open.progress.position += records.len() as i64;
        let rows = self.decoder.decode_records(&records).map_err(failed)?;
        self.end_finished();
        Ok(Some(SourceEvent::Rows(rows)))
    }

    fn end_finished(&mut self) {
        let is_over = |open: &Open| Some(open.progress.position) == open.progress.end;
        let over = self.splits.extract_if(.., |_, open| is_over(open));
        for (split, mut open) in over {
            open.progress.watermark = self.decoder.close_split(open.slot);
            open.progress.status = SplitStatus::Ended;
            self.ended.insert(split, open.progress);
        }
    }

    fn answer(&mut self, request: CutRequest) -> SourceCut {
        let mut splits = std::mem::take(&mut self.ended);
        for (split, open) in &mut self.splits {
            if let Some(watermark) = request.watermark {
                self.decoder.raise_watermark(open.slot, watermark);
            }
            open.progress.watermark = self.decoder.watermark(open.slot);
            splits.insert(split.clone(), open.progress.clone());
        }
        self.is_stopped |= request.stop;
        SourceCut {
            epoch: request.epoch,
            splits,
        }
    }
}

fn failed(error: DecodeError) -> ConsumeError {
    ConsumeError {
        kind: error.kind(),
        what: "decode simulated records".to_owned(),
        cause: error.to_string(),
    }
}

#[async_trait]
impl SourceReader for SimulatedReader {
    async fn next(&mut self) -> Result<SourceEvent, ConsumeError> {
        loop {
            if let Some(request) = self.cuts.pop_front() {
                return Ok(SourceEvent::Cut(self.answer(request)));
            }
            if self.splits.is_empty() || self.is_stopped {
                return std::future::pending().await;
            }
            tokio::time::sleep(FETCH_TIME).await;
            self.outside.thaw(&self.host).await;
            let now = trace::now();
            let down_until = self.outside.with(|world| world.weather.kafka_down_until);
            if now < down_until {
                tokio::time::sleep(down_until - now).await;
            } else if let Some(event) = self.fetch(now)? {
                return Ok(event);
            }
        }
    }

    fn cut(&mut self, request: CutRequest) {
        self.cuts.push_back(request);
    }

    fn add_splits(&mut self, starts: Vec<SplitStart>) {
        for start in starts {
            let slot = self.decoder.open_split(OpenSplit {
                origin: start.split.to_string(),
                partition: None,
                watermark: start.progress.watermark,
                moves: WatermarkMoves::WithRows,
            });
            let progress = start.progress;
            self.splits.insert(start.split, Open { slot, progress });
        }
        self.end_finished();
    }

    /// No outside tool looks at the group.
    fn committed(&mut self, _: &BTreeMap<SplitId, SplitProgress>) {}
}

/// Finds all partitions at the first look.
pub(crate) struct SimulatedEnumerator {
    pub(crate) topic: Arc<Topic>,
    pub(crate) outside: Arc<Outside>,
    pub(crate) host: String,
}

#[async_trait]
impl Enumerator for SimulatedEnumerator {
    async fn discover(
        &mut self,
        known: &BTreeMap<SplitId, SplitProgress>,
    ) -> Result<Vec<FoundSplit>, EnumerateError> {
        let look = |world: &mut World| trace::now() < world.weather.kafka_down_until;
        let outside = &self.outside;
        let is_down = outside.call(&self.host, "find splits", Duration::ZERO, look);
        if is_down.await {
            return Err(EnumerateError {
                kind: Kind::External,
                what: "find partitions".to_owned(),
                cause: "the simulated broker is down".to_owned(),
            });
        }
        let new = self
            .topic
            .iter()
            .filter(|(split, _)| !known.contains_key(*split));
        let found = new.map(|(split, records)| FoundSplit {
            split: split.clone(),
            progress: SplitProgress {
                position: 0,
                end: Some(records.len() as i64),
                watermark: None,
                status: SplitStatus::Active,
                identity: None,
                gaps: None,
            },
        });
        Ok(found.collect())
    }

    fn is_exhausted(&self) -> bool {
        true
    }
}
