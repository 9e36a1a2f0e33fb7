//! What the actor asks of the client's thread, in order, and what the thread lets the actor see.
//!
//! Filled by [`super::KafkaReader`], emptied by `reader_thread.rs`. A command wakes the thread out of its wait, so a
//! cut never waits for input. Bounded by the epochs in flight (INV-9): a later `Committed` replaces one that waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use millstream_common::ids::SplitId;
use millstream_common::report::{SplitProgress, SplitStart};

use super::batch_queue::Waker;
use crate::consume::CutRequest;

/// A command to the thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Answer with a cut.
    Cut(CutRequest),
    /// Read these too.
    AddSplits(Vec<SplitStart>),
    /// These positions are in the log.
    Committed(BTreeMap<SplitId, SplitProgress>),
}

/// Between the actor and the thread.
pub(super) struct Mailbox {
    commands: Mutex<VecDeque<Command>>,
    closed: AtomicBool,
    waker: Waker,
    trouble: Mutex<Option<String>>,
    lags: Mutex<BTreeMap<SplitId, u64>>,
}

impl Mailbox {
    pub(super) fn new() -> Self {
        Self {
            commands: Mutex::default(),
            closed: AtomicBool::new(false),
            waker: Waker::default(),
            trouble: Mutex::default(),
            lags: Mutex::default(),
        }
    }

    /// What the client registers its queue with.
    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub(super) fn push(&self, command: Command) {
        {
            let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(command, Command::Committed(_)) {
                commands.retain(|waiting| !matches!(waiting, Command::Committed(_)));
            }
            commands.push_back(command);
        }
        self.waker.wake();
    }

    /// The oldest command.
    pub(super) fn take(&self) -> Option<Command> {
        self.commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    /// The actor is gone: the thread ends.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set_lags(&self, lags: BTreeMap<SplitId, u64>) {
        *self.lags.lock().unwrap_or_else(PoisonError::into_inner) = lags;
    }

    pub(super) fn lags(&self) -> BTreeMap<SplitId, u64> {
        let lags = self.lags.lock();
        lags.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
