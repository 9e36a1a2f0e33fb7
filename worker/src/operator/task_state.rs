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
}

impl TaskState {
    /// Of an operator without keys.
    pub fn new(operator: Box<dyn KeyedOperator>, spill: TaskSpill) -> Self {
        Self { operator, spill }
    }

    /// The operator.
    pub fn operator(&mut self) -> &mut dyn KeyedOperator {
        self.operator.as_mut()
    }

    /// Calls of it belong on a thread that may wait.
    fn waits_for_disk(&self) -> bool {
        self.operator.waits_for_disk()
    }

    /// Bytes of memory that it has to give back.
    fn excess(&self) -> usize {
        self.spill.note_disk(self.operator.disk_bytes());
        self.spill.excess(self.operator.state_bytes())
    }

    /// Gives back what it has to, if it can; returns what is left of that.
    pub fn give_back(&mut self) -> Result<usize, OperatorError> {
        let excess = self.excess();
        if excess == 0 {
            return Ok(0);
        }
        self.operator.spill(excess, &self.spill)?;
        Ok(self.excess())
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
            Some(state) if !state.waits_for_disk() => {
                let result = call(state.operator());
                result.map_err(|error| self.failure(&error))
            }
            _ => self.call_elsewhere(|state| call(state.operator())).await,
        }
    }

    /// Gives back the memory that it has to; false if it still holds too much.
    pub async fn give_back(&mut self) -> Result<bool, Failure> {
        if self.state.as_ref().is_some_and(|state| state.excess() == 0) {
            return Ok(true);
        }
        let left = self.call_elsewhere(TaskState::give_back).await?;
        Ok(left == 0)
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
