//! What the reader's thread does: one file after another, and where it stands.
//!
//! Driven by `mod.rs`, which passes commands in and events out. Owns the decoder, the queue of files and the progress
//! of each. After a restart a file is decoded from its beginning and the rows that are in the log already are left out: only so
//! does its watermark, which moves at its end, come out the same.
//! Keeps INV-5: a position is moved in the same step that makes the rows before it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;

use millstream_common::dead_letter::Code;
use millstream_common::error::Kind;
use millstream_common::file_pattern::{fixed_part, without_scheme};
use millstream_common::ids::SplitId;
use millstream_common::plan::connector::Compression;
use millstream_common::plan::{FormatSpec, SourcePlan, SourceSpec};
use millstream_common::report::{SplitProgress, SplitStart, SplitStatus};
use millstream_common::secret;

use super::input::{Input, Window};
use super::parquet::ParquetFile;
use super::source::{FileSourceRef, Identify, OpenFile};
use super::text::TextFile;
use super::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, FileError, Part, Place};
use crate::consume::{ConsumeError, CutRequest, DecodedRows, SourceCut};
use crate::decode::{OpenSplit, SourceDecoder, SplitSlot, WatermarkMoves};

/// Why a file is lost that is not there.
const GONE: &str =
    "the file is gone since it was claimed; files must stay until the job has read them";

/// What is wrong where its folder is not there either.
const NO_FOLDER: &str = "its folder is not on this machine: workers read files themselves, at the path where the master found \
                         them; mount it there";

/// The files of one reader.
pub(super) struct Reading {
    plan: SourcePlan,
    files: FileSourceRef,
    /// What of the source's path has no wildcards.
    fixed: PathBuf,
    decoder: SourceDecoder,
    window: Window,
    /// Not begun, in order.
    waiting: VecDeque<SplitId>,
    current: Option<CurrentFile>,
    /// Every split that is not long ended.
    progress: BTreeMap<SplitId, SplitProgress>,
    is_stopped: bool,
}

struct CurrentFile {
    split: SplitId,
    slot: SplitSlot,
    /// Records decoded.
    position: i64,
    /// Records that are in the log already.
    committed: i64,
    content: Content,
    identify: Identify,
    /// Why nothing more of it is read, while the dead letter that says so is still to come.
    lost: Option<String>,
}

enum Content {
    Text(Box<TextFile>),
    Parquet(Box<ParquetFile>),
}

impl Reading {
    pub(super) fn new(plan: SourcePlan, files: FileSourceRef, decoder: SourceDecoder) -> Self {
        let record_bytes_max = match &plan.format {
            FormatSpec::Json {
                record_bytes_max, ..
            }
            | FormatSpec::Csv {
                record_bytes_max, ..
            } => *record_bytes_max,
            FormatSpec::Parquet | FormatSpec::Native => 0,
        };
        // A record, and enough behind it to see that it is too long.
        let window_bytes = BATCH_BYTES_MAX.max(record_bytes_max.saturating_add(4));
        Self {
            fixed: fixed_part_of(&plan.spec),
            plan,
            files,
            decoder,
            window: Window::new(window_bytes),
            waiting: VecDeque::new(),
            current: None,
            progress: BTreeMap::new(),
            is_stopped: false,
        }
    }

    /// Whether [`Self::step`] has something to do.
    pub(super) fn has_work(&self) -> bool {
        !self.is_stopped && (self.current.is_some() || !self.waiting.is_empty())
    }

    /// Queues more files.
    pub(super) fn add(&mut self, starts: Vec<SplitStart>) {
        for start in starts {
            if start.progress.status == SplitStatus::Ended {
                continue;
            }
            self.waiting.push_back(start.split.clone());
            self.progress.insert(start.split, start.progress);
        }
    }

    /// Where every file stands; those that have ended are told once.
    pub(super) fn cut(&mut self, request: CutRequest) -> SourceCut {
        self.is_stopped |= request.stop;
        let splits = self.progress.clone();
        self.progress
            .retain(|_, progress| progress.status != SplitStatus::Ended);
        SourceCut {
            epoch: request.epoch,
            splits,
        }
    }

    /// Reads on; the rows to hand on, if there are any.
    pub(super) fn step(&mut self) -> Result<Option<DecodedRows>, ConsumeError> {
        let Some(mut current) = self.current.take() else {
            return match self.waiting.pop_front() {
                Some(split) => self.begin(split),
                None => Ok(None),
            };
        };
        if let Some(reason) = current.lost.take() {
            return self.refuse_rest(&current.split, current.slot, reason);
        }
        let part = self
            .read(&mut current)
            .map_err(|error| error.naming(&current.split))?;
        current.position += part.record_count;
        let is_new = current.position > current.committed || part.record_count == 0;
        let rows = part.rows.filter(|_| is_new);
        if is_new {
            self.progress_of(&current.split)?.position = current.position.max(current.committed);
        }
        match part.is_last {
            true => self.end(current)?,
            false => self.current = Some(current),
        }
        Ok(rows)
    }

    fn begin(&mut self, split: SplitId) -> Result<Option<DecodedRows>, ConsumeError> {
        let SplitProgress {
            position: committed,
            watermark,
            identity: claimed,
            ..
        } = self.progress_of(&split)?.clone();
        self.window.clear();
        let slot = self.decoder.open_split(OpenSplit {
            origin: split.0.clone(),
            partition: None,
            watermark,
            moves: WatermarkMoves::AtEnd,
        });
        match self.open(&split, claimed.as_deref()) {
            Ok((content, identify)) => {
                self.current = Some(CurrentFile {
                    split,
                    slot,
                    position: 0,
                    committed,
                    content,
                    identify,
                    lost: None,
                });
                Ok(None)
            }
            Err(FileError::Lost(reason)) => self.refuse_rest(&split, slot, reason),
            Err(error) => Err(error.naming(&split)),
        }
    }

    /// Opens a file that still is what was claimed.
    fn open(
        &self,
        split: &SplitId,
        claimed: Option<&str>,
    ) -> Result<(Content, Identify), FileError> {
        let path = split.as_str();
        let file = self.files.open(path).map_err(|error| {
            let is_absent = error.kind() == io::ErrorKind::NotFound;
            match (is_absent, self.files.has_folder(&self.fixed, path)) {
                (false, _) => FileError::Disk(error),
                (true, true) => FileError::Lost(GONE.to_owned()),
                (true, false) => FileError::Disk(io::Error::other(NO_FOLDER)),
            }
        })?;
        let OpenFile { bytes, identify } = file;
        let found = identify()?;
        if let Some(claimed) = claimed.filter(|claimed| **claimed != found) {
            return Err(FileError::Lost(format!(
                "the file has changed since it was claimed: size and time were {claimed} and are {found}; give new \
                 content a new name"
            )));
        }
        if self.plan.format == FormatSpec::Parquet {
            let parquet = ParquetFile::new(bytes, &self.plan)?;
            return Ok((Content::Parquet(Box::new(parquet)), identify));
        }
        let compression = match &self.plan.spec {
            SourceSpec::Files(spec) => spec.compression,
            SourceSpec::Kafka(_) | SourceSpec::Datagen(_) => Compression::Auto,
        };
        let input = Input::new(bytes, path, compression)?;
        let text = TextFile::new(input, &self.plan.format, &self.decoder)?;
        Ok((Content::Text(Box::new(text)), identify))
    }

    fn read(&mut self, current: &mut CurrentFile) -> Result<Part, FileError> {
        let uncommitted = current.committed - current.position;
        let records_max = match usize::try_from(uncommitted) {
            // A batch ends where the new records begin.
            Ok(count) if count > 0 => count.min(BATCH_ROWS_MAX),
            _ => BATCH_ROWS_MAX,
        };
        let place = Place {
            slot: current.slot,
            position: current.position,
            records_max,
        };
        match &mut current.content {
            Content::Text(text) => text.next(&mut self.window, &mut self.decoder, place),
            Content::Parquet(parquet) => parquet.next(&mut self.decoder, place),
        }
    }

    /// A file was read to its end: it is done with, unless it is not what was claimed.
    fn end(&mut self, mut current: CurrentFile) -> Result<(), ConsumeError> {
        let split = &current.split;
        let found = (current.identify)();
        let found = found.map_err(|error| FileError::from(error).naming(split))?;
        let claimed = self.progress_of(split)?.identity.clone();
        current.lost = match claimed.filter(|claimed| *claimed != found) {
            Some(claimed) => Some(format!(
                "the file changed while it was read, and what it held by then was taken as it was: size and time were \
                 {claimed} and are {found}; give new content a new name"
            )),
            None if current.position < current.committed => Some(format!(
                "the file has {} records where {} were read before",
                current.position, current.committed
            )),
            None => return self.close(split, current.slot, current.position),
        };
        self.current = Some(current);
        Ok(())
    }

    /// One dead letter stands for all that was not read of a file, which is done with (INV-5: its position moves by one).
    fn refuse_rest(
        &mut self,
        split: &SplitId,
        slot: SplitSlot,
        reason: String,
    ) -> Result<Option<DecodedRows>, ConsumeError> {
        let position = self.progress_of(split)?.position + 1;
        let rows = self
            .decoder
            .refuse(slot, position, None, Code::Malformed, reason)
            .map_err(|error| FileError::from(error).naming(split))?;
        self.close(split, slot, position)?;
        Ok(Some(rows))
    }

    fn close(
        &mut self,
        split: &SplitId,
        slot: SplitSlot,
        position: i64,
    ) -> Result<(), ConsumeError> {
        let watermark = self.decoder.close_split(slot);
        let progress = self.progress_of(split)?;
        progress.position = position;
        progress.end = Some(position);
        progress.watermark = watermark;
        progress.status = SplitStatus::Ended;
        Ok(())
    }

    fn progress_of(&mut self, split: &SplitId) -> Result<&mut SplitProgress, ConsumeError> {
        self.progress.get_mut(split).ok_or_else(|| ConsumeError {
            kind: Kind::Internal,
            what: format!("read file {split}"),
            cause: "it is read but was never assigned".to_owned(),
        })
    }
}

/// Of the path of a source; empty where its references do not resolve here, as they need not.
fn fixed_part_of(spec: &SourceSpec) -> PathBuf {
    match spec {
        SourceSpec::Files(files) => secret::resolve(&files.path).map_or_else(
            |_| PathBuf::new(),
            |path| fixed_part(without_scheme(path.expose())),
        ),
        SourceSpec::Kafka(_) | SourceSpec::Datagen(_) => PathBuf::new(),
    }
}

impl FileError {
    /// The error of the file `split`.
    fn naming(self, split: &SplitId) -> ConsumeError {
        let (kind, cause) = match self {
            Self::Disk(error) => (Kind::External, error.to_string()),
            Self::Decode(error) => (error.kind(), error.to_string()),
            Self::Lost(cause) => (Kind::Internal, cause),
        };
        ConsumeError {
            kind,
            what: format!("read file {split}"),
            cause,
        }
    }
}
