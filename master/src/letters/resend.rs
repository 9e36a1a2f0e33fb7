//! Rows to be sent through a job again: which they are, and the object that holds them.
//!
//! Called by [`super::clerk_actor`]. A dead letter of a source is sent as the record that it was, a corrected row as the client wrote it.
//! The split is named after what is sent, so a call made twice, by a client that lost the answer, comes to the split that the log
//! knows. The object is each call's own, and says under which term it was stored: what its call did not bring into the log, no other
//! will, and no call of that term once another master reigns. A letter that an earlier entry's object names is left out unless the
//! call says `again`. Failure: what cannot be sent is refused with what to do, or left out and counted; nothing is stored where
//! nothing is to be sent.

use std::collections::{BTreeMap, BTreeSet};

use millstream_common::control::{ControlError, ReplayRequest, Replayed, SkippedLetters};
use millstream_common::ids::{Incarnation, OutputIndex, SourceIndex, SplitId, Term};
use millstream_common::ipc::{self, EncodedObject};
use millstream_common::log::entry::ReplayEntry;
use millstream_common::plan::{ColumnOrigin, FormatSpec, SourcePlan};
use millstream_common::replay_split::{self, LetterName, ReplayObject, ReplayRow};
use millstream_common::store::{Error as StoreError, StoreRef};

use super::index::LetterSegment;
use super::listing::{may_match, wanted};
use super::pages;
use super::rows::{LetterRows, load, unreadable};
use crate::replay::ReplayedJob;

/// Rows of one call.
const ROWS_MAX: usize = 100_000;
/// Their payloads together.
pub const BYTES_MAX: usize = 64 << 20;

/// Rows that are stored, and the entry that lets them go through the job.
#[derive(Debug)]
pub struct Prepared {
    /// For the client.
    pub replayed: Replayed,
    /// `None` where nothing is to be sent, or was before.
    pub entry: Option<ReplayEntry>,
}

impl Prepared {
    fn nothing(replayed: Replayed) -> Self {
        Self {
            replayed,
            entry: None,
        }
    }
}

/// What is said of a call beside its rows.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The reign of the master that stores them.
    pub term: Term,
    /// Its wall clock, microseconds since 1970 UTC.
    pub now_us: i64,
}

/// Stores what `request` wants to be sent.
pub(super) async fn prepare(
    store: &StoreRef,
    job: &ReplayedJob,
    request: ReplayRequest,
    stamp: Stamp,
) -> Result<Prepared, ControlError> {
    let source = source_of(job, &request)?;
    let plan = &job.entry.plan.sources[source.index()];
    check(plan, &request)?;
    let mut skipped = Skipped::default();
    let rows = match &request.corrected {
        Some(rows) => corrected(rows)?,
        None => letters(store, job, source, &request, &mut skipped).await?,
    };
    let skipped = skipped.told();
    if rows.is_empty() {
        return Ok(Prepared::nothing(Replayed {
            skipped,
            ..Replayed::default()
        }));
    }
    let object =
        replay_split::encode("rows to be sent again", &rows).map_err(|error| unreadable(&error))?;
    let time = if request.event_time_now { "-now" } else { "" };
    let base = format!("{:08x}-{}{time}", object.checksum, rows.len());
    let place = place(store, job, (source, request.again), (&base, &object)).await?;
    let replayed = |split: &SplitId, known| Replayed {
        split: Some(split.to_string()),
        rows: rows.len() as u64,
        known,
        skipped,
    };
    let name = match place {
        Place::Free(name) => name,
        Place::Known(split) => return Ok(Prepared::nothing(replayed(&split, true))),
    };
    let life = job.entry.incarnation;
    let path = path_of(life, source, stamp.term, &name);
    let stored = ipc::create(store, &path, &object).await;
    stored.map_err(|error| unreadable(&error))?;
    let object = ReplayObject {
        path,
        bytes: object.bytes.len() as u64,
        checksum: object.checksum,
        row_count: rows.len() as u64,
        event_time_us: request.event_time_now.then_some(stamp.now_us),
        sent_at_us: stamp.now_us,
    };
    let entry = ReplayEntry {
        job: job.entry.job.clone(),
        incarnation: life,
        source,
        split: replay_split::split_of(&name),
        object,
    };
    Ok(Prepared {
        replayed: replayed(&entry.split, false),
        entry: Some(entry),
    })
}

/// Where a call's rows are, and nobody else's.
fn path_of(life: Incarnation, source: SourceIndex, term: Term, name: &str) -> String {
    let attempt = ipc::attempt();
    format!(
        "replays/{life}/{source}/{:012}-{name}-{attempt}.arrow",
        term.0
    )
}

fn source_of(job: &ReplayedJob, request: &ReplayRequest) -> Result<SourceIndex, ControlError> {
    let name = &job.entry.job;
    let Some(owner) = &request.filter.owner else {
        return Err(ControlError::Invalid(
            "rows go through the job again from a source: name it".to_owned(),
        ));
    };
    wanted(job, &request.filter)?;
    let sources = &job.entry.plan.sources;
    match sources.iter().position(|source| source.name == *owner) {
        Some(index) => Ok(SourceIndex(index as u32)),
        None => Err(ControlError::Invalid(format!(
            "{owner} is no source of job {name}: what is behind a source would count a second time in whatever had taken it; \
             correct the records and send them to their source with --file"
        ))),
    }
}

fn check(plan: &SourcePlan, request: &ReplayRequest) -> Result<(), ControlError> {
    let is_csv = matches!(plan.format, FormatSpec::Csv { .. });
    if is_csv && request.corrected.is_none() {
        return Err(ControlError::Invalid(format!(
            "a record of {} does not name its columns (format = 'csv'): write the rows as JSON objects, one a line, and give them \
             with --file",
            plan.name
        )));
    }
    if !request.event_time_now {
        return Ok(());
    }
    let column = plan
        .watermark
        .and_then(|watermark| plan.columns.get(watermark.column));
    match column.map(|column| &column.origin) {
        Some(ColumnOrigin::Record) => Ok(()),
        Some(ColumnOrigin::Computed(_) | ColumnOrigin::Metadata(_)) => {
            Err(ControlError::Invalid(format!(
                "the event time of {} is no field of its records, so it cannot be set to now: give corrected rows with --file",
                plan.name
            )))
        }
        None => Err(ControlError::Invalid(format!(
            "{} has no WATERMARK, so no row of it is late: leave --event-time out",
            plan.name
        ))),
    }
}

fn corrected(rows: &[Vec<u8>]) -> Result<Vec<ReplayRow>, ControlError> {
    let bytes: usize = rows.iter().map(Vec::len).sum();
    within_bounds(rows.len(), bytes)?;
    let rows = rows.iter().map(|row| ReplayRow {
        payload: row.clone(),
        letter: None,
    });
    Ok(rows.collect())
}

fn within_bounds(rows: usize, bytes: usize) -> Result<(), ControlError> {
    if rows > ROWS_MAX || bytes > BYTES_MAX {
        return Err(ControlError::Invalid(format!(
            "more than {ROWS_MAX} rows or {} MiB at once: send them in parts, by --since and --until, --code or --origin, or files",
            BYTES_MAX >> 20
        )));
    }
    Ok(())
}

/// The letters that the request wants, oldest first.
async fn letters(
    store: &StoreRef,
    job: &ReplayedJob,
    source: SourceIndex,
    request: &ReplayRequest,
    skipped: &mut Skipped,
) -> Result<Vec<ReplayRow>, ControlError> {
    let outputs = wanted(job, &request.filter)?;
    let sent = match request.again {
        true => BTreeSet::new(),
        false => sent_before(store, job, source).await?,
    };
    let mut picked = Picked {
        request,
        outputs: &outputs,
        sent: &sent,
        picked: BTreeSet::new(),
        skipped,
        rows: Vec::new(),
        bytes: 0,
    };
    for page in &job.letters.pages {
        let paged = pages::read(store, page).await;
        for segment in &paged.map_err(|error| ControlError::Internal(error.to_string()))? {
            picked.pick(store, segment).await?;
        }
    }
    for segment in &job.letters.segments {
        picked.pick(store, segment).await?;
    }
    Ok(picked.rows)
}

/// The letters that earlier entries have sent; of objects that are gone so are the letters.
async fn sent_before(
    store: &StoreRef,
    job: &ReplayedJob,
    source: SourceIndex,
) -> Result<BTreeSet<Sent>, ControlError> {
    let mut sent = BTreeSet::new();
    for object in job
        .progress
        .replays
        .get(&source)
        .into_iter()
        .flat_map(BTreeMap::values)
    {
        let batches = match ipc::load(store, &object.path, object.checksum).await {
            Err(ipc::ObjectError::Missing { .. }) => continue,
            loaded => loaded.map_err(|error| unreadable(&error))?,
        };
        let rows =
            replay_split::rows(&object.path, &batches).map_err(|error| unreadable(&error))?;
        sent.extend(rows.into_iter().filter_map(|row| {
            let letter = row.letter?;
            Some((letter, ipc::checksum(&row.payload)))
        }));
    }
    Ok(sent)
}

/// A letter and the checksum of its record: under the name of one, a topic that was made anew has another.
type Sent = (LetterName, u32);

struct Picked<'a> {
    request: &'a ReplayRequest,
    outputs: &'a BTreeMap<OutputIndex, String>,
    sent: &'a BTreeSet<Sent>,
    /// By this call.
    picked: BTreeSet<Sent>,
    skipped: &'a mut Skipped,
    rows: Vec<ReplayRow>,
    bytes: usize,
}

impl Picked<'_> {
    async fn pick(
        &mut self,
        store: &StoreRef,
        segment: &LetterSegment,
    ) -> Result<(), ControlError> {
        let filter = &self.request.filter;
        if !self.outputs.contains_key(&segment.segment.output) || !may_match(filter, segment) {
            return Ok(());
        }
        for batch in &load(store, &segment.segment).await? {
            let rows = LetterRows::new(batch)?;
            for row in rows.matching(filter) {
                let Some(payload) = rows.payload(row) else {
                    self.skipped.add(NO_RECORD);
                    continue;
                };
                let name = rows.name(row);
                let letter = (name.clone(), ipc::checksum(payload));
                if let Some(reason) = self.unfit(rows.code(row), &letter) {
                    self.skipped.add(reason);
                    continue;
                }
                if !self.picked.insert(letter) {
                    // Two views failed on one row.
                    continue;
                }
                self.bytes += payload.len();
                within_bounds(self.rows.len() + 1, self.bytes)?;
                self.rows.push(ReplayRow {
                    payload: payload.to_vec(),
                    letter: Some(name),
                });
            }
        }
        Ok(())
    }

    /// Why a letter is not sent again.
    fn unfit(&self, code: &str, letter: &Sent) -> Option<&'static str> {
        let is_named = self.request.filter.code.as_deref() == Some(code);
        match code {
            _ if self.sent.contains(letter) => {
                Some("were sent before; --again sends them once more")
            }
            "late" if !self.request.event_time_now => Some(
                "are late and would be again; --event-time now gives them the time of the command, --file takes corrected rows",
            ),
            "too_long" => Some("are too long to be kept whole; give them with --file"),
            "header" => Some("are headers of files, and no rows"),
            "expression" if !is_named => Some(
                "failed in one view only, others may have taken them; --code expression sends them to all",
            ),
            _ => None,
        }
    }
}

const NO_RECORD: &str = "have no record to be sent";

/// How many letters were left out, by reason.
#[derive(Default)]
struct Skipped(BTreeMap<&'static str, u64>);

impl Skipped {
    fn add(&mut self, reason: &'static str) {
        *self.0.entry(reason).or_default() += 1;
    }

    fn told(self) -> Vec<SkippedLetters> {
        let skipped = self.0.into_iter().map(|(reason, rows)| SkippedLetters {
            rows,
            reason: reason.to_owned(),
        });
        skipped.collect()
    }
}

/// What a name comes to.
enum Place {
    /// The log knows these rows by it.
    Known(SplitId),
    /// It is free.
    Free(String),
}

/// Finds the name that is free for these rows, or by which the log has them.
async fn place(
    store: &StoreRef,
    job: &ReplayedJob,
    (source, again): (SourceIndex, bool),
    (base, object): (&str, &EncodedObject),
) -> Result<Place, ControlError> {
    let known = job.progress.replays.get(&source);
    for turn in 0_u32.. {
        let name = match turn {
            0 => base.to_owned(),
            _ => format!("{base}-{turn}"),
        };
        let split = replay_split::split_of(&name);
        let Some(known) = known.and_then(|known| known.get(&split)) else {
            return Ok(Place::Free(name));
        };
        // What was sent under this name is sent once more under the next.
        if again {
            continue;
        }
        let unavailable = |error: StoreError| unreadable(&error.into());
        let found = store.get(&known.path).await.map_err(unavailable)?;
        // Gone: an old one that was read to its end, of the same rows.
        if found.is_none_or(|found| object.bytes == found[..]) {
            return Ok(Place::Known(split));
        }
    }
    let cause = "no name is left for the rows".to_owned();
    Err(ControlError::Internal(cause))
}
