//! The groups of an aggregate that had no room in memory.
//!
//! Owned by the store in `store.rs`, which looks here for groups that it does not find in memory. A key is 24 bytes: the end of the group's window (its sign
//! flipped, so that earlier ends come first; 0 without windows), then the group's fingerprint. So the groups that a watermark closes lie together. A
//! value is the number of the part that the group's newest row is in, 4 bytes, and that row in Arrow's row format. A group is either here or in memory.
//! Failure: the disk's, or a row of another shape, which is a defect.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt8Array};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use millstream_common::ids::Vnode;

use super::super::spill::{SpillError, SpillTree, SpillWrite, TaskSpill};
use super::slots::Fingerprint;

/// Where a group lies among all.
pub(super) type Place = [u8; 24];

const SIGN: i64 = i64::MIN;

/// The place of the group of this window end and fingerprint.
pub(super) fn place_of(end: i64, fingerprint: Fingerprint) -> Place {
    let mut place = [0; 24];
    place[..8].copy_from_slice(&(end ^ SIGN).to_be_bytes());
    place[8..].copy_from_slice(&fingerprint.value().to_be_bytes());
    place
}

/// Before all groups of windows that end behind this; `None` if there can be none.
pub(super) fn behind(end: i64) -> Option<Place> {
    let next = end.checked_add(1)?;
    Some(place_of(next, Fingerprint::new(0)))
}

fn end_at(place: &[u8]) -> i64 {
    let end = place
        .first_chunk()
        .map_or(SIGN, |end| i64::from_be_bytes(*end));
    end ^ SIGN
}

fn fingerprint_at(place: &[u8]) -> u128 {
    place
        .last_chunk()
        .map_or(0, |print| u128::from_be_bytes(*print))
}

/// Groups as they are on disk: places, the parts that their rows are in, and the rows.
#[derive(Debug, Default)]
pub(super) struct SpilledRows {
    pub(super) places: Vec<Place>,
    pub(super) parts: Vec<u32>,
    rows: Vec<Box<[u8]>>,
}

impl SpilledRows {
    fn push(&mut self, place: Place, value: &[u8]) {
        let (part, row) = split(value);
        self.places.push(place);
        self.parts.push(part);
        self.rows.push(row.into());
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}

/// The part and the row.
fn split(value: &[u8]) -> (u32, &[u8]) {
    match value.split_first_chunk() {
        Some((part, row)) => (u32::from_le_bytes(*part), row),
        None => (u32::MAX, value),
    }
}

/// The groups of one task that are on disk.
pub(super) struct SpilledGroups {
    tree: Box<dyn SpillTree>,
    pub(super) live_count: usize,
    /// Groups of windows that end at or before it have left, though they may still be shown.
    pub(super) closed: i64,
}

impl SpilledGroups {
    pub(super) fn open(spill: &TaskSpill) -> Result<Self, SpillError> {
        Ok(Self {
            tree: spill.open(|place, _| end_at(place))?,
            live_count: 0,
            closed: i64::MIN,
        })
    }

    /// Adds the group at this place to `taken`, and has it no more. Its part still counts it.
    pub(super) fn take(
        &mut self,
        end: i64,
        fingerprint: Fingerprint,
        taken: &mut SpilledRows,
    ) -> Result<bool, SpillError> {
        // Without windows no watermark closes anything, and there is no end before this one.
        if end <= self.closed {
            return Ok(false);
        }
        let place = place_of(end, fingerprint);
        let is_there = self
            .tree
            .get(&place, &mut |value| taken.push(place, value))?;
        if is_there {
            self.remove(&place)?;
        }
        Ok(is_there)
    }

    pub(super) fn remove(&mut self, place: &Place) -> Result<(), SpillError> {
        self.tree.remove(place)?;
        self.live_count -= 1;
        Ok(())
    }

    /// Groups on their way here, by place.
    pub(super) fn write(&mut self) -> Result<Box<dyn SpillWrite + '_>, SpillError> {
        self.tree.write()
    }

    /// Shows live groups in their order: their places and parts, from a place on and up to another one. Names the place of the first one that
    /// was not wanted any more.
    pub(super) fn scan(
        &self,
        from: Place,
        to: Option<Place>,
        mut wants: impl FnMut(u32) -> Wanted,
        found: &mut SpilledRows,
    ) -> Result<Option<Place>, SpillError> {
        let Some(open) = behind(self.closed) else {
            return Ok(None);
        };
        let from = from.max(open);
        let mut stopped = None;
        let mut visit = |place: &[u8], value: &[u8]| {
            let Ok(place) = Place::try_from(place) else {
                return ControlFlow::Continue(());
            };
            match wants(split(value).0) {
                Wanted::Yes => found.push(place, value),
                Wanted::No => {}
                Wanted::Stop => {
                    stopped = Some(place);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        };
        let to = to.as_ref().map(Place::as_slice);
        self.tree.scan(&from, to, &mut visit)?;
        Ok(stopped)
    }

    /// The groups of windows that end at or before this have left.
    pub(super) fn close(&mut self, end: i64) -> Result<(), SpillError> {
        if end <= self.closed {
            return Ok(());
        }
        self.closed = end;
        self.tree.forget_below(end.saturating_add(1))?;
        match behind(end) {
            Some(open) => self.tree.drop_before(&open),
            None => Ok(()),
        }
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.tree.disk_bytes()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.tree.memory_bytes()
    }
}

/// Whether a group that is shown is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Yes,
    No,
    /// Nor any behind it.
    Stop,
}

/// State rows to bytes and back. The `_vnode` column is left out: the fingerprint has it.
#[derive(Debug)]
pub(super) struct RowCodec {
    state: SchemaRef,
    converter: RowConverter,
}

impl RowCodec {
    /// For rows of this schema; an error if a column's type has no row format, or does not come back from it as it was.
    pub(super) fn new(state: SchemaRef) -> Result<Self, ArrowError> {
        let fields = state.fields().iter().skip(1);
        let fields = fields.map(|field| SortField::new(field.data_type().clone()));
        let codec = Self {
            converter: RowConverter::new(fields.collect())?,
            state,
        };
        codec.decode(&SpilledRows::default())?;
        Ok(codec)
    }

    pub(super) fn encode(&self, rows: &RecordBatch) -> Result<Rows, ArrowError> {
        self.converter.convert_columns(&rows.columns()[1..])
    }

    pub(super) fn decode(&self, rows: &SpilledRows) -> Result<RecordBatch, ArrowError> {
        let parser = self.converter.parser();
        let parsed = rows.rows.iter().map(|row| parser.parse(row));
        let columns = self.converter.convert_rows(parsed)?;
        let places = rows.places.iter();
        let vnodes = places.map(|place| Vnode::of_fingerprint(fingerprint_at(place)).0);
        let mut all: Vec<ArrayRef> = vec![Arc::new(UInt8Array::from_iter_values(vnodes))];
        all.extend(columns);
        RecordBatch::try_new(Arc::clone(&self.state), all)
    }
}
