//! The thread of a Kafka reader: pull a batch, decode it, hand it on, and answer cuts in between.
//!
//! Started by [`super::KafkaReader`]; ends when that is dropped, or at the first error, which it hands on last. Owns
//! the client, the decoder and the positions. A round is: commands, word of the client, one batch. A quiet input is
//! waited for without burning a core (a command ends the wait) and its first record waits [`LINGER`] for company;
//! a loud one fills batches without waiting.
//!
//! Keeps INV-6: at a cut every partition's watermark is raised to the source's as its owners will act on it. For a
//! partition that counted in it this changes nothing; one that was idle cannot bring an older row when it
//! wakes, nor one that woke before the owners had moved on.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use millstream_common::error::Kind;
use millstream_common::ids::SplitId;
use millstream_common::plan::SourcePlan;
use millstream_common::plan::connector::{KafkaSourceSpec, OnGap};
use millstream_common::report::{SplitProgress, SplitStart, SplitStatus};
use millstream_common::secret;
use millstream_common::trace::{TRACEPARENT, TraceContext};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::answers::{Answers, Heard};
use super::batch_queue::{BatchConsumer, ClientNote, Delivery, Message};
use super::failure::{Verdict, judge};
use super::gaps::{self, Found, Holds};
use super::mailbox::{Command, Mailbox};
use super::output::{Output, Stop};
use super::settings::{client_config, partition_of};
use super::splits::{ReadSplit, SplitTable};
use super::wanted::{BATCH_BYTES, BATCH_RECORDS_MAX, Wanted, recycle, room_for};
use crate::consume::{ConsumeError, CutRequest, ReaderContext, SourceCut, SourceEvent};
use crate::decode::{HeaderLookup, OpenSplit, RecordRef, SourceDecoder, WatermarkMoves};

/// How long a wait lasts where nothing comes and nothing is asked: the client's notes are read this often.
const IDLE_WAIT: Duration = Duration::from_millis(200);
/// How long a record of a quiet input waits for others.
const LINGER: Duration = Duration::from_millis(5);
/// How long a look at what a partition holds may take: cuts wait meanwhile.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);
/// How often the lag is looked up.
const LAG_INTERVAL: Duration = Duration::from_millis(500);
/// Log lines of the client at this level or below (syslog's warning) are worth showing.
const LOG_LEVEL_SHOWN: i32 = 4;

const ALL_BROKERS_DOWN: i32 = RDKafkaRespErr::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN as i32;

/// What the thread starts with.
pub(super) struct Setup {
    pub(super) plan: SourcePlan,
    pub(super) spec: KafkaSourceSpec,
    pub(super) context: ReaderContext,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) events: mpsc::Sender<Result<SourceEvent, ConsumeError>>,
}

/// Reads until the reader is dropped or something fails.
pub(super) fn run(setup: Setup) {
    let events = setup.events.clone();
    let what = format!("start reader of source {}", setup.plan.name);
    // An error of a send means that nobody is there to be told.
    match ReaderThread::new(setup) {
        Err((kind, cause)) => {
            let error = ConsumeError { kind, what, cause };
            events.blocking_send(Err(error)).ok();
        }
        Ok(mut thread) => {
            if let Stop::Failed(error) = thread.serve() {
                events.blocking_send(Err(error)).ok();
            }
        }
    }
}

struct ReaderThread {
    /// For people.
    source: String,
    on_gap: OnGap,
    topic_text: CString,
    commits_group: bool,
    wanted: Wanted,
    idle_timeout: Option<Duration>,
    context: ReaderContext,
    mailbox: Arc<Mailbox>,
    consumer: BatchConsumer,
    output: Output,
    splits: SplitTable,
    /// Partitions ever assigned here: whose positions this client may commit.
    assigned: BTreeSet<i32>,
    /// Holds nothing between batches but its memory.
    records: Vec<RecordRef<'static>>,
    /// Records to ask for, so that a batch has about [`BATCH_BYTES`].
    room: usize,
    answers: Answers,
    /// What was known of the answers when the client last had nothing more.
    heard: Heard,
    /// Partitions whose position the client has not found.
    lost: BTreeSet<i32>,
    lag_at: Duration,
    in_trouble: bool,
    stopped: bool,
}

impl ReaderThread {
    fn new(setup: Setup) -> Result<Self, (Kind, String)> {
        let Setup {
            plan,
            spec,
            context,
            mailbox,
            events,
        } = setup;
        let topic = secret::resolve(&spec.topic).map_err(for_user)?;
        let topic = topic.expose().to_owned();
        let topic_text = CString::new(topic.as_str()).map_err(for_user)?;
        let group_id = spec.group_id.as_deref().unwrap_or(&context.group_id);
        let config = client_config(&spec, group_id).map_err(for_user)?;
        let decoder = SourceDecoder::new(
            &plan,
            &context.functions,
            context.clock.clone(),
            context.late_rows_needed,
        )
        .map_err(|error| (error.kind(), error.to_string()))?;
        let consumer =
            BatchConsumer::new(&config, BATCH_RECORDS_MAX, mailbox.waker()).map_err(for_user)?;
        let now = context.clock.monotonic();
        let answers = Answers::new(now);
        Ok(Self {
            source: plan.name.clone(),
            on_gap: spec.on_gap,
            topic_text,
            commits_group: spec.group_id.is_some(),
            wanted: Wanted::by(&plan),
            idle_timeout: plan.idle_timeout_ms.map(Duration::from_millis),
            context,
            mailbox,
            consumer,
            output: Output {
                topic,
                decoder,
                link: None,
                events,
            },
            splits: SplitTable::default(),
            assigned: BTreeSet::new(),
            records: Vec::with_capacity(BATCH_RECORDS_MAX),
            room: BATCH_RECORDS_MAX,
            heard: answers.so_far(),
            answers,
            lost: BTreeSet::new(),
            lag_at: now,
            in_trouble: false,
            stopped: false,
        })
    }

    fn serve(&mut self) -> Stop {
        while !self.mailbox.is_closed() {
            if let Err(stop) = self.round() {
                return stop;
            }
        }
        Stop::Closed
    }

    fn round(&mut self) -> Result<(), Stop> {
        while let Some(command) = self.mailbox.take() {
            match command {
                Command::Cut(request) => self.cut(request)?,
                Command::AddSplits(splits) => self.add_splits(splits)?,
                Command::Committed(positions) => self.commit(&positions),
            }
        }
        for note in self.consumer.take_notes() {
            self.heed(note)?;
        }
        self.read()
    }

    /// Everything read so far has been handed on already, so the cut stands behind it.
    fn cut(&mut self, request: CutRequest) -> Result<(), Stop> {
        let decoder = &mut self.output.decoder;
        if let Some(watermark) = request.watermark {
            for (_, slot, _) in self.splits.reading() {
                decoder.raise_watermark(slot, watermark);
            }
        }
        let splits = self.splits.cut(self.heard, self.idle_timeout, |slot| {
            decoder.watermark(slot)
        });
        if request.stop {
            self.stopped = true;
            let stopped = self.consumer.client().unassign();
            stopped.map_err(|error| self.output.refused(error))?;
        }
        self.output.send(SourceEvent::Cut(SourceCut {
            epoch: request.epoch,
            splits,
        }))
    }

    fn add_splits(&mut self, starts: Vec<SplitStart>) -> Result<(), Stop> {
        let now = self.context.clock.monotonic();
        let mut assignment = TopicPartitionList::new();
        for start in starts {
            let split = start.split.clone();
            let progress = &start.progress;
            let Some(partition) = partition_of(split.as_str(), &self.output.topic) else {
                let cause = format!("split {split} is no partition of the topic");
                return Err(self.output.defect(cause));
            };
            self.assigned.insert(partition);
            let is_finished = progress.end.is_some_and(|end| progress.position >= end);
            if is_finished || progress.status == SplitStatus::Ended {
                self.splits.add_ended(split, start.progress);
                continue;
            }
            let offset = Offset::Offset(progress.position);
            assignment
                .add_partition_offset(&self.output.topic, partition, offset)
                .map_err(|error| self.output.refused(error))?;
            let slot = self.output.decoder.open_split(OpenSplit {
                origin: split.to_string(),
                partition: Some(partition),
                watermark: progress.watermark,
                moves: WatermarkMoves::WithRows,
            });
            let opened = self
                .splits
                .open(partition, ReadSplit::new(start, slot, now));
            if !opened {
                let cause = format!("split {split} is being read already");
                return Err(self.output.defect(cause));
            }
        }
        if assignment.count() == 0 || self.stopped {
            return Ok(());
        }
        let assigned = self.consumer.client().incremental_assign(&assignment);
        assigned.map_err(|error| self.output.refused(error))
    }

    /// For outside tools, so an error is worth a line and no more.
    fn commit(&self, positions: &BTreeMap<SplitId, SplitProgress>) {
        if !self.commits_group {
            return;
        }
        let topic = &self.output.topic;
        let mut offsets = TopicPartitionList::new();
        for (split, progress) in positions {
            let partition =
                partition_of(split.as_str(), topic).filter(|number| self.assigned.contains(number));
            let Some(partition) = partition else {
                continue;
            };
            let offset = Offset::Offset(progress.position);
            if let Err(error) = offsets.add_partition_offset(topic, partition, offset) {
                tracing::warn!(%split, %error, "commit group offset");
            }
        }
        if offsets.count() == 0 {
            return;
        }
        if let Err(error) = self.consumer.client().commit(&offsets, CommitMode::Async) {
            tracing::warn!(reader = %self.context.name, %error, "commit group offsets");
        }
    }

    fn heed(&mut self, note: ClientNote) -> Result<(), Stop> {
        match note {
            ClientNote::Error { code, text } => {
                self.output.judge(code, "", &text)?;
                // That all are down says less than why the first was.
                if !self.in_trouble || code != ALL_BROKERS_DOWN {
                    self.mailbox.set_trouble(Some(text));
                }
                self.in_trouble = true;
            }
            ClientNote::Statistics(json) => {
                let reading = self.splits.reading().map(|(partition, _, _)| partition);
                let now = self.context.clock.monotonic();
                if self.answers.heard(&json, reading, now) && self.in_trouble {
                    self.in_trouble = false;
                    self.mailbox.set_trouble(None);
                }
            }
            ClientNote::Log { level, text } if level <= LOG_LEVEL_SHOWN => {
                tracing::warn!(reader = %self.context.name, "{text}");
            }
            ClientNote::Log { text, .. } => {
                tracing::debug!(reader = %self.context.name, "{text}");
            }
        }
        Ok(())
    }

    /// Waits for a record or a command, then takes what has come with it.
    fn read(&mut self) -> Result<(), Stop> {
        let first = self.consumer.fill(IDLE_WAIT, 1);
        if self.stopped {
            self.consumer.clear();
            return Ok(());
        }
        let room = self.room - 1;
        let drained = first == 0 || self.consumer.fill(LINGER, room) < room;
        let now = self.context.clock.monotonic();
        if drained {
            self.heard = self.answers.so_far();
        }
        if first > 0 {
            let handed_on = self.hand_on(now);
            self.consumer.clear();
            handed_on?;
            self.end_finished()?;
        }
        self.find_lost()?;
        if now.saturating_sub(self.lag_at) >= LAG_INTERVAL {
            self.lag_at = now;
            self.mailbox.set_lags(self.lags());
        }
        Ok(())
    }

    /// Decodes the messages held and hands the rows on.
    fn hand_on(&mut self, now: Duration) -> Result<(), Stop> {
        let mut records = recycle(std::mem::take(&mut self.records));
        let mut bytes = 0;
        let mut bytes_all = 0;
        for message in self.consumer.messages() {
            match message.delivery() {
                Delivery::Record => {
                    let offset = message.offset();
                    let Some(slot) = self.splits.accept(message.partition(), offset, now) else {
                        continue;
                    };
                    let record = self.wanted.record(slot, offset, message);
                    if self.context.links_wanted && records.is_empty() {
                        self.output.link = link_of(message);
                    }
                    bytes += record.payload.map_or(0, <[u8]>::len);
                    records.push(record);
                    if bytes >= BATCH_BYTES {
                        self.output.decode(&records)?;
                        records.clear();
                        bytes_all += std::mem::take(&mut bytes);
                    }
                }
                Delivery::EndOfPartition => {
                    self.splits.reach_end(message.partition(), message.offset());
                }
                Delivery::Error { code, text } => {
                    if judge(code) == Verdict::Lost {
                        self.lost.insert(message.partition());
                    }
                    let partition = message.partition().to_string();
                    self.output.judge(code, &partition, &text)?;
                    self.in_trouble = true;
                    self.mailbox.set_trouble(Some(text.into_owned()));
                }
            }
        }
        self.output.decode(&records)?;
        self.room = room_for(bytes_all + bytes, self.consumer.messages().len());
        self.records = recycle(records);
        Ok(())
    }

    /// Lets go of the partitions that have been read to their end for ever.
    fn end_finished(&mut self) -> Result<(), Stop> {
        let decoder = &mut self.output.decoder;
        let finished = self.splits.take_finished(|slot| decoder.close_split(slot));
        if finished.is_empty() {
            return Ok(());
        }
        let mut assignment = TopicPartitionList::new();
        for partition in finished {
            assignment.add_partition(&self.output.topic, partition);
        }
        let ended = self.consumer.client().incremental_unassign(&assignment);
        ended.map_err(|error| self.output.refused(error))
    }

    /// Looks what partitions hold whose positions they do not, and goes on behind what is gone where that is allowed.
    fn find_lost(&mut self) -> Result<(), Stop> {
        while let Some(partition) = self.lost.first().copied() {
            let reading = self.splits.reading();
            let reading: BTreeMap<i32, i64> = reading
                .map(|(partition, _, position)| (partition, position))
                .collect();
            let held = match reading.get(&partition) {
                None => None,
                Some(position) => match self.look(partition, *position) {
                    Some(held) => Some(held),
                    // Nobody answers: the next round asks again.
                    None => return Ok(()),
                },
            };
            self.lost.remove(&partition);
            let Some(lost) = held else {
                continue;
            };
            let others: Vec<Holds> = match (lost.has_gap(), self.on_gap) {
                (true, OnGap::Fail) => reading
                    .into_iter()
                    .filter(|(other, _)| *other != partition)
                    .filter_map(|(other, position)| self.look(other, position))
                    .collect(),
                (false, _) | (true, OnGap::Skip) => Vec::new(),
            };
            let names = (self.source.as_str(), self.output.topic.as_str());
            match gaps::decide(self.on_gap, names, lost, &others) {
                Found::Skip => self.skip(lost)?,
                Found::Fail(error) => return Err(Stop::Failed(error)),
            }
        }
        Ok(())
    }

    fn look(&self, partition: i32, position: i64) -> Option<Holds> {
        let client = self.consumer.client();
        let found = client.fetch_watermarks(&self.output.topic, partition, LOOK_PATIENCE);
        match found {
            Ok((first, next)) => Some(Holds {
                partition,
                position,
                first,
                next,
            }),
            Err(error) => {
                let topic = &self.output.topic;
                let trouble = format!("look what partition {topic}-{partition} holds: {error}");
                self.mailbox.set_trouble(Some(trouble));
                None
            }
        }
    }

    fn skip(&mut self, lost: Holds) -> Result<(), Stop> {
        let Holds {
            partition,
            position,
            first,
            next: _,
        } = lost;
        let topic = self.output.topic.as_str();
        tracing::warn!(
            reader = %self.context.name, topic, partition, from = position, to = first, records = first - position,
            "records are gone before they were read; passed over (on_gap = 'skip')"
        );
        let Some(offset) = self.splits.skip_to(partition, first) else {
            return self.end_finished();
        };
        let mut assignment = TopicPartitionList::new();
        let added = assignment.add_partition_offset(topic, partition, Offset::Offset(offset));
        added.map_err(|error| self.output.refused(error))?;
        let client = self.consumer.client();
        // The client has given the partition up where it stood.
        let gone_on = client.incremental_unassign(&assignment);
        let gone_on = gone_on.and_then(|()| client.incremental_assign(&assignment));
        gone_on.map_err(|error| self.output.refused(error))
    }

    fn lags(&self) -> BTreeMap<SplitId, u64> {
        let positions = self.splits.positions();
        let lags = positions.filter_map(|(partition, split, position)| {
            let high = self.consumer.high_watermark(&self.topic_text, partition)?;
            Some((split.clone(), u64::try_from(high - position).unwrap_or(0)))
        });
        lags.collect()
    }
}

/// The span that a record says it comes from. Asked of the first of a batch only: it costs a call.
fn link_of(message: &Message) -> Option<TraceContext> {
    let header = message.last(TRACEPARENT)?;
    std::str::from_utf8(header).ok()?.parse().ok()
}

fn for_user(error: impl std::fmt::Display) -> (Kind, String) {
    (Kind::User, error.to_string())
}
