//! The reader of files: CSV, JSON lines and Parquet, compressed or not, one after another.
//!
//! Made by the reader actor for a `files` source. One thread reads and decodes; events come over a short queue, commands
//! go over another, and a cut is answered behind everything handed on before it. The queue is the bound: the thread
//! waits while two events are not taken (INV-9). A split is a file, its id the absolute path, its position the number of
//! records read; it ends once, with the file, and its watermark moves only then.
//! Failure: a disk that cannot be read; never what stands in a file. One that is gone or has changed since it was claimed is a
//! dead letter and done, for what it held cannot be read any more, and the others can.

mod input;
mod parquet;
mod reading;
pub mod source;
mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use async_trait::async_trait;
use millstream_common::blocking::BlockingRef;
use millstream_common::error::Kind;
use millstream_common::ids::SplitId;
use millstream_common::plan::SourcePlan;
use millstream_common::plan::expression::Functions;
use millstream_common::report::{SplitProgress, SplitStart};
use millstream_common::time::ClockRef;
use tokio::sync::mpsc;

use self::reading::Reading;
use self::source::FileSourceRef;
use crate::consume::{ConsumeError, CutRequest, DecodedRows, SourceEvent, SourceReader};
use crate::decode::{DecodeError, SourceDecoder, SplitSlot};

/// Rows in an event at most.
const BATCH_ROWS_MAX: usize = 8_192;

/// About the bytes behind an event at most.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Events that wait to be taken.
const EVENTS_WAITING_MAX: usize = 2;

/// Commands that wait for the thread; more mean that the caller does not wait for its cuts.
const COMMANDS_WAITING_MAX: usize = 1_024;

/// What a reader of files needs.
pub struct FilesReaderConfig {
    /// The source.
    pub plan: SourcePlan,
    /// What expressions may call.
    pub functions: Functions,
    /// Labels dead letters.
    pub clock: ClockRef,
    /// Starts the thread.
    pub blocking: BlockingRef,
    /// Where the files are.
    pub files: FileSourceRef,
    /// Late rows stay in the batches, flagged.
    pub late_rows_needed: bool,
}

/// Reads files.
#[derive(Debug)]
pub struct FilesReader {
    commands: SyncSender<Command>,
    events: mpsc::Receiver<Result<SourceEvent, ConsumeError>>,
    /// A command that could not be given.
    is_overrun: bool,
}

#[derive(Debug)]
enum Command {
    Add(Vec<SplitStart>),
    Cut(CutRequest),
}

impl FilesReader {
    /// Starts the thread, which waits for files.
    pub fn new(config: FilesReaderConfig) -> Result<Self, ConsumeError> {
        let FilesReaderConfig {
            plan,
            functions,
            clock,
            blocking,
            files,
            late_rows_needed,
        } = config;
        let name = plan.name.clone();
        let decoder = SourceDecoder::new(&plan, &functions, clock, late_rows_needed);
        let decoder = decoder.map_err(|error| ConsumeError {
            kind: error.kind(),
            what: format!("read source {name}"),
            cause: error.to_string(),
        })?;
        let (command_sender, commands) = sync_channel(COMMANDS_WAITING_MAX);
        let (event_sender, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let work = move || run(Reading::new(plan, files, decoder), &commands, &event_sender);
        blocking.start_thread(format!("files-{name}"), Box::new(work));
        Ok(Self {
            commands: command_sender,
            events,
            is_overrun: false,
        })
    }

    fn command(&mut self, command: Command) {
        // A thread that has ended has left its reason among the events.
        if let Err(std::sync::mpsc::TrySendError::Full(_)) = self.commands.try_send(command) {
            self.is_overrun = true;
        }
    }
}

#[async_trait]
impl SourceReader for FilesReader {
    async fn next(&mut self) -> Result<SourceEvent, ConsumeError> {
        let broken = |cause: &str| ConsumeError {
            kind: Kind::Internal,
            what: "read files".to_owned(),
            cause: cause.to_owned(),
        };
        if self.is_overrun {
            return Err(broken("more commands were given than the reader can hold"));
        }
        match self.events.recv().await {
            Some(event) => event,
            None => Err(broken("the reader's thread has ended")),
        }
    }

    fn cut(&mut self, request: CutRequest) {
        self.command(Command::Cut(request));
    }

    fn add_splits(&mut self, splits: Vec<SplitStart>) {
        self.command(Command::Add(splits));
    }

    fn committed(&mut self, _: &BTreeMap<SplitId, SplitProgress>) {}
}

/// The thread: obeys and reads until its reader is dropped or a file cannot be read.
fn run(
    mut reading: Reading,
    commands: &Receiver<Command>,
    events: &mpsc::Sender<Result<SourceEvent, ConsumeError>>,
) {
    loop {
        let command = match reading.has_work() {
            true => commands.try_recv(),
            false => commands.recv().map_err(|_| TryRecvError::Disconnected),
        };
        let event = match command {
            Ok(Command::Add(splits)) => {
                reading.add(splits);
                continue;
            }
            Ok(Command::Cut(request)) => Ok(SourceEvent::Cut(reading.cut(request))),
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => match reading.step() {
                Ok(None) => continue,
                Ok(Some(rows)) => Ok(SourceEvent::Rows(rows)),
                Err(error) => Err(error),
            },
        };
        let is_failure = event.is_err();
        if events.blocking_send(event).is_err() || is_failure {
            return;
        }
    }
}

/// Where a file is read.
#[derive(Clone, Copy, Debug)]
struct Place {
    slot: SplitSlot,
    /// Records before it.
    position: i64,
    /// Records to read at most.
    records_max: usize,
}

/// What was read of a file.
#[derive(Debug)]
struct Part {
    /// Records, refused ones included; a header is none.
    record_count: i64,
    rows: Option<DecodedRows>,
    /// The file is done with.
    is_last: bool,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It is not what was claimed any more: nothing more of it is read. Says why.
    #[error("{0}")]
    Lost(String),
}
