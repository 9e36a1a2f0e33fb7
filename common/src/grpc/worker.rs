//! Workers to and from generated messages, field by field.

use millstream_proto::v1;

use crate::control::{WorkerState, WorkerView};
use crate::ids::{JobName, WorkerId};

impl From<WorkerState> for v1::WorkerState {
    fn from(state: WorkerState) -> Self {
        match state {
            WorkerState::Active => Self::Active,
            WorkerState::Draining => Self::Draining,
            WorkerState::Drained => Self::Drained,
        }
    }
}

impl From<v1::WorkerState> for WorkerState {
    fn from(state: v1::WorkerState) -> Self {
        match state {
            // Masters of before knew no other state.
            v1::WorkerState::Unspecified | v1::WorkerState::Active => Self::Active,
            v1::WorkerState::Draining => Self::Draining,
            v1::WorkerState::Drained => Self::Drained,
        }
    }
}

impl From<WorkerView> for v1::Worker {
    fn from(worker: WorkerView) -> Self {
        Self {
            id: worker.id.0,
            flight_address: worker.flight_address,
            slots: worker.slots,
            tasks: worker.tasks,
            splits: worker.splits,
            jobs: worker.jobs.into_iter().map(|name| name.0).collect(),
            age_ms: worker.age_ms,
            heartbeat_age_ms: worker.heartbeat_age_ms,
            version: worker.version,
            state: v1::WorkerState::from(worker.state).into(),
        }
    }
}

impl From<v1::Worker> for WorkerView {
    fn from(worker: v1::Worker) -> Self {
        Self {
            state: worker.state().into(),
            id: WorkerId(worker.id),
            flight_address: worker.flight_address,
            slots: worker.slots,
            tasks: worker.tasks,
            splits: worker.splits,
            jobs: worker.jobs.into_iter().map(JobName).collect(),
            age_ms: worker.age_ms,
            heartbeat_age_ms: worker.heartbeat_age_ms,
            version: worker.version,
        }
    }
}
