//! Rows that go through the job again: splits of any source that are read from storage, beside those of its client.
//!
//! Stands between a reader's loop and its client, whatever that is. A replay passes the same decoder, rules and branches as the
//! rows of the client, is cut by the same barriers, and its position is recorded with theirs: what is restored is read on
//! from there (INV-5). It ends once, with its last row. Failure: an object that is not what the log says ends the pipeline by name.
//!
//! Its watermark. A replay's rows are of any time and in no order, so their times say nothing about what is still to come: the master
//! leaves replays out of the source's watermark, which one neither raises nor holds back (`master/src/checkpoint/coordinator.rs`).
//! A row is late exactly if it is older than what operators act on: the split begins at the source's recorded watermark, as any new
//! split does, and each barrier raises it to the watermark that operators act on from that barrier on, as it raises that of a
//! split that was idle. In between it stands still: a row is not late because a younger one was sent before it.

use std::collections::{BTreeMap, VecDeque};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use millstream_common::error::{Kind, chain};
use millstream_common::ids::SplitId;
use millstream_common::ipc;
use millstream_common::plan::connector::TimestampFormat;
use millstream_common::plan::{ColumnOrigin, FormatSpec, OnViolation, SourcePlan};
use millstream_common::replay_split::{ReplayIdentity, ReplayRow, is_replay, rows};
use millstream_common::report::{SplitProgress, SplitStart, SplitStatus};
use millstream_common::store::StoreRef;
use millstream_common::time::EventTime;

use super::{
    ConsumeError, CutRequest, DecodedRows, ReaderContext, SourceCut, SourceEvent, SourceReader,
};
use crate::decode::{OpenSplit, RecordRef, SourceDecoder, SplitSlot, WatermarkMoves};

/// Rows of one event.
const BATCH_ROWS_MAX: usize = 8_192;
/// About the bytes behind one event.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Corrected rows of sources whose own format has no bound.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// A client with the replays of its task.
pub struct ReplayReader {
    client: Box<dyn SourceReader>,
    replays: Replays,
    /// Asked of the client, and not answered.
    cuts: VecDeque<CutRequest>,
}

/// The replays of one source task.
pub struct Replays {
    /// For texts.
    source: String,
    decoder: SourceDecoder,
    store: StoreRef,
    /// The field with the event time, where it can be given anew.
    time_field: Option<String>,
    /// Not begun.
    waiting: VecDeque<SplitStart>,
    /// Of the first that waits. Kept over calls: a busy client has an event before storage answers, every time.
    loading: Option<BoxFuture<'static, Result<Vec<ReplayRow>, ConsumeError>>>,
    open: Option<OpenReplay>,
    /// Ended since the last cut.
    ended: BTreeMap<SplitId, SplitProgress>,
    stopped: bool,
}

/// The replay that is being read.
struct OpenReplay {
    split: SplitId,
    slot: SplitSlot,
    /// `position` is the number of rows read.
    progress: SplitProgress,
    rows: Vec<ReplayRow>,
    /// Goes into each row, as its last field.
    event_time: Option<String>,
}

impl ReplayReader {
    /// Puts `replays` beside `client`.
    pub fn new(client: Box<dyn SourceReader>, replays: Replays) -> Self {
        Self {
            client,
            replays,
            cuts: VecDeque::new(),
        }
    }

    /// The cut of the client with where the replays stand: everything they have handed on came before it.
    fn cut_here(&mut self, mut cut: SourceCut) -> SourceCut {
        if let Some(request) = self.cuts.pop_front() {
            self.replays.cut(request, &mut cut.splits);
        }
        cut
    }
}

#[async_trait]
impl SourceReader for ReplayReader {
    async fn next(&mut self) -> Result<SourceEvent, ConsumeError> {
        let event = match self.replays.has_work() {
            false => self.client.next().await?,
            // Neither waits for the other: a replay ends beside a busy topic and beside a silent one.
            true => tokio::select! {
                event = self.client.next() => event?,
                rows = self.replays.read() => SourceEvent::Rows(rows?),
            },
        };
        Ok(match event {
            SourceEvent::Rows(rows) => SourceEvent::Rows(rows),
            SourceEvent::Cut(cut) => SourceEvent::Cut(self.cut_here(cut)),
        })
    }

    fn cut(&mut self, request: CutRequest) {
        self.cuts.push_back(request);
        self.client.cut(request);
    }

    fn add_splits(&mut self, splits: Vec<SplitStart>) {
        let (replays, own): (Vec<_>, Vec<_>) = splits
            .into_iter()
            .partition(|start| is_replay(&start.split));
        self.replays.waiting.extend(replays);
        if !own.is_empty() {
            self.client.add_splits(own);
        }
    }

    fn committed(&mut self, positions: &BTreeMap<SplitId, SplitProgress>) {
        if !positions.keys().any(is_replay) {
            return self.client.committed(positions);
        }
        let own = positions.iter().filter(|(split, _)| !is_replay(split));
        let own: BTreeMap<_, _> = own
            .map(|(split, progress)| (split.clone(), progress.clone()))
            .collect();
        self.client.committed(&own);
    }

    fn trouble(&self) -> Option<String> {
        self.client.trouble()
    }

    fn lags(&self) -> BTreeMap<SplitId, u64> {
        self.client.lags()
    }
}

impl Replays {
    /// For a task of `plan`. Rows are JSON, whatever the source's own format is, and one that breaks a rule never ends the job:
    /// the job would end again whenever it went on.
    pub fn new(
        plan: &SourcePlan,
        context: &ReaderContext,
        store: StoreRef,
    ) -> Result<Self, ConsumeError> {
        let mut read_as = plan.clone();
        read_as.format = json_format(&plan.format);
        if plan.on_violation == OnViolation::Fail {
            read_as.on_violation = OnViolation::DeadLetter;
        }
        let decoder = SourceDecoder::new(
            &read_as,
            &context.functions,
            context.clock.clone(),
            context.late_rows_needed,
        );
        let decoder = decoder.map_err(|error| ConsumeError {
            kind: error.kind(),
            what: format!("read source {} again", plan.name),
            cause: error.to_string(),
        })?;
        let time_column = plan
            .watermark
            .and_then(|watermark| plan.columns.get(watermark.column));
        let time_field = time_column.filter(|column| column.origin == ColumnOrigin::Record);
        Ok(Self {
            source: plan.name.clone(),
            decoder,
            store,
            time_field: time_field.map(|column| column.field.name().clone()),
            waiting: VecDeque::new(),
            loading: None,
            open: None,
            ended: BTreeMap::new(),
            stopped: false,
        })
    }

    fn has_work(&self) -> bool {
        !self.stopped && (self.open.is_some() || !self.waiting.is_empty())
    }

    /// The next rows. Nothing is lost, and nothing begun anew, where the caller goes away while the object is being loaded.
    async fn read(&mut self) -> Result<DecodedRows, ConsumeError> {
        loop {
            if self.open.is_none() {
                let Some(start) = self.waiting.front() else {
                    return std::future::pending().await;
                };
                let loading = match self.loading.take() {
                    Some(loading) => loading,
                    None => self.load(start)?,
                };
                let rows = self.loading.insert(loading).await;
                self.loading = None;
                let rows = rows?;
                self.open_next(rows);
            }
            match self.decode()? {
                Some(rows) => return Ok(rows),
                None => self.end(),
            }
        }
    }

    fn load(
        &self,
        start: &SplitStart,
    ) -> Result<BoxFuture<'static, Result<Vec<ReplayRow>, ConsumeError>>, ConsumeError> {
        let what = format!("read {} of source {}", start.split, self.source);
        let Some(identity) = ReplayIdentity::of(&start.progress) else {
            return Err(ConsumeError {
                kind: Kind::Internal,
                what,
                cause: "its progress does not say what it reads".to_owned(),
            });
        };
        let store = self.store.clone();
        let load = async move {
            let loaded = ipc::load(&store, &identity.path, identity.checksum).await;
            let all = loaded.and_then(|batches| rows(&identity.path, &batches));
            all.map_err(|error| ConsumeError {
                kind: error.kind(),
                what,
                cause: chain(&error),
            })
        };
        Ok(load.boxed())
    }

    /// Opens the first that waits, whose rows these are.
    fn open_next(&mut self, rows: Vec<ReplayRow>) {
        let Some(start) = self.waiting.pop_front() else {
            return;
        };
        let slot = self.decoder.open_split(OpenSplit {
            origin: start.split.to_string(),
            partition: None,
            watermark: start.progress.watermark,
            moves: WatermarkMoves::AtEnd,
        });
        let event_time_us =
            ReplayIdentity::of(&start.progress).and_then(|identity| identity.event_time_us);
        let event_time = event_time_us.zip(self.time_field.as_ref());
        self.open = Some(OpenReplay {
            split: start.split,
            slot,
            progress: start.progress,
            rows,
            event_time: event_time.map(|(micros, field)| time_member(field, EventTime(micros))),
        });
    }

    /// Decodes the next rows of the open replay; `None` behind the last.
    fn decode(&mut self) -> Result<Option<DecodedRows>, ConsumeError> {
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        let first = usize::try_from(open.progress.position).unwrap_or_default();
        let mut payloads = Vec::new();
        let mut bytes = 0;
        for row in open.rows.iter().skip(first).take(BATCH_ROWS_MAX) {
            if bytes >= BATCH_BYTES_MAX {
                break;
            }
            bytes += row.payload.len();
            payloads.push(match &open.event_time {
                Some(member) => with_member(&row.payload, member),
                None => row.payload.clone(),
            });
        }
        if payloads.is_empty() {
            return Ok(None);
        }
        let numbered = (open.progress.position + 1..).zip(&payloads);
        let records: Vec<RecordRef<'_>> = numbered
            .map(|(position, payload)| RecordRef {
                slot: open.slot,
                position,
                payload: Some(payload),
                key: None,
                timestamp_ms: None,
                headers: None,
            })
            .collect();
        let decoded = self.decoder.decode_records(&records);
        open.progress.position += payloads.len() as i64;
        decoded.map(Some).map_err(|error| ConsumeError {
            kind: error.kind(),
            what: format!("read {} of source {}", open.split, self.source),
            cause: error.to_string(),
        })
    }

    fn end(&mut self) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        // What its rows say of time is no watermark of anything.
        open.progress.watermark = self.decoder.watermark(open.slot);
        let _ = self.decoder.close_split(open.slot);
        open.progress.status = SplitStatus::Ended;
        self.ended.insert(open.split, open.progress);
    }

    /// Where the replays stand at a cut; from here on no row is older than what operators act on.
    fn cut(&mut self, request: CutRequest, splits: &mut BTreeMap<SplitId, SplitProgress>) {
        let is_read = |open: &OpenReplay| open.progress.position >= open.rows.len() as i64;
        if self.open.as_ref().is_some_and(is_read) {
            self.end();
        }
        splits.extend(std::mem::take(&mut self.ended));
        if let Some(open) = &mut self.open {
            if let Some(watermark) = request.watermark {
                self.decoder.raise_watermark(open.slot, watermark);
            }
            open.progress.watermark = self.decoder.watermark(open.slot);
            splits.insert(open.split.clone(), open.progress.clone());
        }
        for start in &mut self.waiting {
            start.progress.watermark = start.progress.watermark.max(request.watermark);
            splits.insert(start.split.clone(), start.progress.clone());
        }
        self.stopped |= request.stop;
    }
}

/// How the rows of a replay are written, for a source whose own are written so.
fn json_format(format: &FormatSpec) -> FormatSpec {
    match format {
        FormatSpec::Json { .. } => format.clone(),
        FormatSpec::Csv {
            timestamp_format,
            record_bytes_max,
            ..
        } => FormatSpec::Json {
            timestamp_format: *timestamp_format,
            record_bytes_max: *record_bytes_max,
        },
        FormatSpec::Parquet | FormatSpec::Native => FormatSpec::Json {
            timestamp_format: TimestampFormat::Iso,
            record_bytes_max: RECORD_BYTES_MAX,
        },
    }
}

/// `"created_at":"2026-01-17T10:15:00.000000Z"`.
fn time_member(field: &str, time: EventTime) -> String {
    let name = serde_json::Value::from(field);
    format!("{name}:\"{time}\"")
}

/// The JSON object with `member` as its last: of members of one name the last one counts, and the rest stays as it was written.
/// What is no object stays as it is, and is refused as it was.
fn with_member(payload: &[u8], member: &str) -> Vec<u8> {
    let trimmed = payload.trim_ascii_end();
    let Some(body) = trimmed.strip_suffix(b"}") else {
        return payload.to_vec();
    };
    let mut with = body.to_vec();
    if body.trim_ascii() != b"{" {
        with.push(b',');
    }
    with.extend_from_slice(member.as_bytes());
    with.push(b'}');
    with
}

#[cfg(test)]
mod tests;
