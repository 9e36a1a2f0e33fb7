//! State parts: what an operator's keys look like in storage, and the list of parts that a task needs.
//!
//! Written by the task of `writer` at each barrier. A part is written before the Epoch entry that names it (INV-8); parts
//! of an epoch that is never committed are orphans that nothing refers to. Failure: see [`ObjectError`].

pub(crate) mod writer;

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, FieldRef};
use millstream_common::ids::{Epoch, Generation, Incarnation, OperatorId, TaskId};
use millstream_common::mutant::{self, Mutant};
use millstream_common::report::StatePart;
use millstream_common::store::StoreRef;

use crate::operator::{PartRows, StateWrite};
use millstream_common::ipc::{self, EncodedObject, ObjectError};

/// Whose parts.
#[derive(Clone, Debug)]
pub struct PartScope {
    /// Which life of the job's state.
    pub incarnation: Incarnation,
    /// The generation that writes.
    pub generation: Generation,
    /// The operator.
    pub operator: OperatorId,
    /// The task that writes.
    pub task: TaskId,
}

impl PartScope {
    fn path(&self, epoch: Epoch) -> String {
        format!(
            "state/{}/{}/{:012}-{}-{}-{}.arrow",
            self.incarnation,
            self.operator,
            epoch.0,
            self.generation,
            self.task.index,
            ipc::attempt()
        )
    }
}

/// A part on its way to storage.
#[derive(Clone, Debug)]
pub struct PendingPart {
    /// As the log will name it.
    pub part: StatePart,
    object: EncodedObject,
}

impl PendingPart {
    /// Stores it.
    pub async fn store(&self, store: &StoreRef) -> Result<(), ObjectError> {
        if mutant::is(Mutant::ReportUnstoredPart) {
            return Ok(());
        }
        ipc::create(store, &self.part.path, &self.object).await
    }
}

/// The parts that one task needs, oldest first.
#[derive(Clone, Debug, Default)]
pub struct LiveParts {
    parts: Vec<StatePart>,
}

impl LiveParts {
    /// The parts a task was restored from.
    pub fn new(parts: Vec<StatePart>) -> Self {
        Self { parts }
    }

    /// Drops the parts of these epochs.
    pub fn forget(&mut self, epochs: &BTreeSet<Epoch>) {
        self.parts.retain(|part| !epochs.contains(&part.epoch));
    }

    /// What a barrier wants stored, if anything, and whether it takes the place of all parts.
    pub fn rows_of(write: StateWrite) -> Option<(PartRows, bool)> {
        match write {
            StateWrite::Nothing => None,
            StateWrite::Delta(_) if mutant::is(Mutant::LoseStateDelta) => None,
            StateWrite::Delta(rows) => Some((rows, false)),
            StateWrite::Full(rows) => Some((rows, true)),
        }
    }

    /// The next part takes the place of all.
    pub fn clear(&mut self) {
        self.parts.clear();
    }

    /// Adds a part that is stored.
    pub fn add(&mut self, part: StatePart) {
        self.parts.push(part);
    }

    /// The parts, oldest first.
    pub fn list(&self) -> &[StatePart] {
        &self.parts
    }
}

/// Makes and encodes the part of an epoch; takes a moment.
fn encode_part(path: String, epoch: Epoch, rows: PartRows) -> Result<PendingPart, ObjectError> {
    let batch = match rows.make() {
        Ok(batch) => batch,
        Err(source) => return Err(ObjectError::Arrow { path, source }),
    };
    let schema = batch.schema();
    let is_print = |field: &FieldRef| matches!(field.data_type(), DataType::FixedSizeBinary(_));
    // Fingerprints of keys are most of the part that they are in.
    let object = match schema.fields().iter().any(is_print) {
        true => ipc::encode_plain(&path, &batch)?,
        false => ipc::encode(&path, &schema, std::slice::from_ref(&batch))?,
    };
    let part = StatePart {
        path,
        epoch,
        bytes: object.bytes.len() as u64,
        checksum: object.checksum,
        row_count: batch.num_rows() as u64,
    };
    Ok(PendingPart { part, object })
}
