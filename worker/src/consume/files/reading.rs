//! What the reader's thread does: one file after another, and where it stands.
//!
//! Driven by `mod.rs`, which passes commands in and events out. Owns the decoder, the queue of files and the progress
//! of each. After a restart a file is decoded from its beginning and the rows that are in the log already are left out: only so
//! does its watermark, which moves at its end, come out the same.
//! Keeps INV-5: a position is moved in the same step that makes the rows before it.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use millstream_common::error::Kind;
use millstream_common::ids::SplitId;
use millstream_common::plan::connector::Compression;
use millstream_common::plan::{FormatSpec, SourcePlan, SourceSpec};
use millstream_common::report::{SplitProgress, SplitStart, SplitStatus};

use super::input::{Input, Window};
use super::parquet::ParquetFile;
use super::source::FileSourceRef;
use super::text::TextFile;
use super::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, FileError, Part, Place};
use crate::consume::{ConsumeError, CutRequest, DecodedRows, SourceCut};
use crate::decode::{OpenSplit, SourceDecoder, SplitSlot, WatermarkMoves};

/// The files of one reader.
pub(super) struct Reading {
    plan: SourcePlan,
    files: FileSourceRef,
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
            if let Some(split) = self.waiting.pop_front() {
                self.current = Some(self.open(split)?);
            }
            return Ok(None);
        };
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

    fn open(&mut self, split: SplitId) -> Result<CurrentFile, ConsumeError> {
        self.check_identity(&split)?;
        let (committed, watermark) = {
            let progress = self.progress_of(&split)?;
            (progress.position, progress.watermark)
        };
        let content = self
            .open_content(&split)
            .map_err(|error| error.naming(&split))?;
        self.window.clear();
        let slot = self.decoder.open_split(OpenSplit {
            origin: split.0.clone(),
            partition: None,
            watermark,
            moves: WatermarkMoves::AtEnd,
        });
        Ok(CurrentFile {
            split,
            slot,
            position: 0,
            committed,
            content,
        })
    }

    fn open_content(&self, split: &SplitId) -> Result<Content, FileError> {
        let path = split.as_str();
        let file = self.files.open(path)?;
        if self.plan.format == FormatSpec::Parquet {
            return Ok(Content::Parquet(Box::new(ParquetFile::new(
                file, &self.plan,
            )?)));
        }
        let compression = match &self.plan.spec {
            SourceSpec::Files(spec) => spec.compression,
            SourceSpec::Kafka(_) | SourceSpec::Datagen(_) => Compression::Auto,
        };
        let input = Input::new(file, path, compression)?;
        let text = TextFile::new(input, &self.plan.format, &self.decoder)?;
        Ok(Content::Text(Box::new(text)))
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

    fn end(&mut self, current: CurrentFile) -> Result<(), ConsumeError> {
        self.check_identity(&current.split)?;
        if current.position < current.committed {
            let (found, recorded) = (current.position, current.committed);
            return Err(changed(
                &current.split,
                format!("it has {found} records where {recorded} were read before"),
            ));
        }
        let watermark = self.decoder.close_split(current.slot);
        let progress = self.progress_of(&current.split)?;
        progress.position = current.position;
        progress.end = Some(current.position);
        progress.watermark = watermark;
        progress.status = SplitStatus::Ended;
        Ok(())
    }

    /// A file that is gone or has changed since it was claimed cannot be read as it was.
    fn check_identity(&mut self, split: &SplitId) -> Result<(), ConsumeError> {
        let Some(claimed) = self.progress_of(split)?.identity.clone() else {
            return Ok(());
        };
        let found = self.files.identity(split.as_str());
        let found = found.map_err(|error| FileError::from(error).naming(split))?;
        match found == claimed {
            true => Ok(()),
            false => {
                let cause = format!("size and time were {claimed} and are {found}");
                Err(changed(split, cause))
            }
        }
    }

    fn progress_of(&mut self, split: &SplitId) -> Result<&mut SplitProgress, ConsumeError> {
        self.progress.get_mut(split).ok_or_else(|| ConsumeError {
            kind: Kind::Internal,
            what: format!("read file {split}"),
            cause: "it is read but was never assigned".to_owned(),
        })
    }
}

fn changed(split: &SplitId, cause: String) -> ConsumeError {
    ConsumeError {
        kind: Kind::User,
        what: format!("read file {split}"),
        cause: format!("it has changed since it was claimed: {cause}; give new content a new name"),
    }
}

impl FileError {
    /// The error of the file `split`.
    fn naming(self, split: &SplitId) -> ConsumeError {
        let (kind, cause) = match self {
            Self::Disk(error) if error.kind() == io::ErrorKind::NotFound => (
                Kind::User,
                "it is gone since it was claimed; files must stay until the job has read them"
                    .to_owned(),
            ),
            Self::Disk(error) => (Kind::External, error.to_string()),
            Self::Decode(error) => (error.kind(), error.to_string()),
        };
        ConsumeError {
            kind,
            what: format!("read file {split}"),
            cause,
        }
    }
}
