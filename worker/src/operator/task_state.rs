//! The keyed state of a task: its operator, and its share of the worker's memory.
//!
//! Made when a pipeline is built, filled from parts (`pipeline/restore`), then owned by the keyed actor. Calls of an operator that has state on disk run on
//! threads that may wait, and so does what moves state there; all others run where they are called. Failure: the operator's, and that of a disk; a call
//! that panicked takes the state with it.

use millstream_common::blocking::{self, BlockingRef};
use millstream_common::error::{Failure, Kind};

use super::spill::TaskSpill;
use super::{KeyedOperator, OperatorError};

/// An operator with its share of memory.
pub struct TaskState {
    operator: Box<dyn KeyedOperator>,
    spill: TaskSpill,
    /// What was held after the last spill, if that was still too much: another is not worth it before there is a quarter more.
    stuck_bytes: usize,
}

impl TaskState {
    /// Of an operator without keys.
    pub fn new(operator: Box<dyn KeyedOperator>, spill: TaskSpill) -> Self {
        Self {
            operator,
            spill,
            stuck_bytes: 0,
        }
    }

    /// The operator.
    pub fn operator(&mut self) -> &mut dyn KeyedOperator {
        self.operator.as_mut()
    }

    /// Says what is held; returns how many bytes of memory have to be given back.
    fn note_held(&self) -> usize {
        self.spill.note_disk(self.operator.disk_bytes());
        self.spill.note_held(self.operator.state_bytes())
    }

    /// Gives back the memory that it has to, if it can. True if that needs changes to be emitted that were not due.
    pub fn give_back(&mut self) -> Result<bool, OperatorError> {
        let excess = self.note_held();
        if excess == 0 {
            self.stuck_bytes = 0;
            return Ok(false);
        }
        if self.operator.state_bytes() < self.stuck_bytes / 4 * 5 {
            return Ok(false);
        }
        let has_pending = self.operator.spill(excess, &self.spill)?;
        let is_enough = self.note_held() == 0;
        self.stuck_bytes = match is_enough || has_pending {
            true => 0,
            false => self.operator.state_bytes(),
        };
        if self.stuck_bytes > 0 {
            self.spill.warn_of_stuck(self.stuck_bytes);
        }
        Ok(has_pending && !is_enough)
    }
}

/// A task's state that calls may take to another thread.
pub struct StateSeat {
    /// Gone only while a call has it, and for good if that panicked.
    state: Option<Box<TaskState>>,
    blocking: BlockingRef,
    /// For texts.
    name: String,
}

impl StateSeat {
    /// For the actor of that name.
    pub fn new(state: TaskState, blocking: BlockingRef, name: String) -> Self {
        Self {
            state: Some(Box::new(state)),
            blocking,
            name,
        }
    }

    /// Calls the operator.
    pub async fn call<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&mut dyn KeyedOperator) -> Result<T, OperatorError> + Send + 'static,
    ) -> Result<T, Failure> {
        match &mut self.state {
            Some(state) if !state.operator.waits_for_disk() => {
                let result = call(state.operator());
                result.map_err(|error| self.failure(&error))
            }
            _ => self.call_elsewhere(|state| call(state.operator())).await,
        }
    }

    /// Gives back the memory that it has to. True if that needs changes to be emitted that were not due.
    pub async fn give_back(&mut self) -> Result<bool, Failure> {
        match &self.state {
            Some(state) if !state.operator.waits_for_disk() && state.note_held() == 0 => Ok(false),
            _ => self.call_elsewhere(TaskState::give_back).await,
        }
    }

    async fn call_elsewhere<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&mut TaskState) -> Result<T, OperatorError> + Send + 'static,
    ) -> Result<T, Failure> {
        let state = self.state.take();
        let mut state = state.ok_or_else(|| self.lost("a call of it did not come back"))?;
        let work = move || {
            let result = call(&mut state);
            (state, result)
        };
        let (state, result) = blocking::run(&self.blocking, work)
            .await
            .map_err(|panicked| self.lost(&panicked.to_string()))?;
        self.state = Some(state);
        result.map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &OperatorError) -> Failure {
        Failure::new(error.kind(), &self.name, error)
    }

    fn lost(&self, cause: &str) -> Failure {
        Failure {
            kind: Kind::Internal,
            origin: self.name.clone(),
            cause: cause.to_owned(),
        }
    }
}
