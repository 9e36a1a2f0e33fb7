//! How the store's groups move to disk, and back.
//!
//! Called by the operator in `mod.rs`. The oldest parts go first: their groups have not changed for longest. A group comes back when rows of it come, and
//! leaves from disk when its window closes. Where most of what storage has of the parts on disk is garbage, or these are many, a sweep takes the groups
//! of the worst back, some a barrier, in the order in which they lie; they are appended again, and may move again. Groups whose change was not emitted yet
//! stay in memory, with all of their part. Failure: the disk's.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use hashbrown::HashTable;

use super::super::spill::{SpillError, TaskSpill};
use super::keys::GroupKeys;
use super::pending::PendingGroups;
use super::slots::{NO_SLOT, SlotIndex};
use super::spilled::{Place, RowCodec, SpilledGroups, SpilledRows, Wanted, behind, place_of};
use super::store::{PART_COUNT_MAX, Part, StateStore};

/// Rows that are encoded at once.
const CHUNK_ROWS: usize = 8_192;
/// Groups on disk that a sweep looks at at one barrier: a share of them, within these bounds.
const SWEPT_MIN: usize = 1 << 18;
const SWEPT_MAX: usize = 1 << 21;
const SWEPT_SHARE: usize = 128;
/// What a group takes beside its row: its slot, its place in the index and in the list of its window.
const GROUP_BYTES: usize = 40;
/// The window end of groups without windows.
const NO_WINDOW: i64 = 0;

/// The groups of some parts on disk are taken back.
pub(super) struct Sweep {
    parts: BTreeSet<u32>,
    /// Those before it were.
    from: Place,
}

/// Groups that were on disk, with the places of their keys among those that were looked for, in this order.
pub(super) struct Recalled {
    pub(super) rows: RecordBatch,
    pub(super) places: Vec<usize>,
}

/// Groups that leave from disk.
pub(super) struct Leaving {
    pub(super) rows: RecordBatch,
    /// Where those behind them begin; `None` if there are none.
    pub(super) next: Option<Place>,
}

impl StateStore {
    /// Moves the groups of the oldest parts to disk until so many bytes are free. True if some stayed only for a change that was not emitted yet.
    pub(super) fn spill(
        &mut self,
        bytes: usize,
        pending: &mut PendingGroups,
        codec: &RowCodec,
        spill: &TaskSpill,
    ) -> Result<bool, DataFusionError> {
        let (parts, is_pending) = self.parts_to_spill(bytes, pending);
        if parts.is_empty() {
            return Ok(is_pending);
        }
        let places = self.places_of(&parts);
        if !places.is_empty() {
            let mut spilled = match self.spilled.take() {
                Some(spilled) => spilled,
                None => SpilledGroups::open(spill).map_err(external)?,
            };
            self.write(&places, &mut spilled, codec)?;
            spilled.live_count += places.len();
            self.spilled = Some(spilled);
        }
        for (_, slot) in places {
            self.slots.remove(slot);
        }
        for id in parts {
            if let Some(part) = self.parts.get_mut(&id) {
                part.batch = None;
                part.slots = Vec::new();
                part.bytes = 0;
            }
        }
        pending.renumber(&self.renumber());
        Ok(is_pending)
    }

    /// The oldest parts in memory that take so many bytes, without those of which a group's change was not emitted yet, and whether there were
    /// such.
    fn parts_to_spill(&self, bytes: usize, pending: &PendingGroups) -> (BTreeSet<u32>, bool) {
        let (mut chosen, mut is_pending) = (BTreeSet::new(), false);
        let mut freed = 0;
        for (id, part) in self.parts.iter().filter(|(_, part)| part.batch.is_some()) {
            if freed >= bytes {
                break;
            }
            let rows = part.slots.iter().enumerate();
            let mut live = rows.filter(|(row, slot)| self.slots.is_at(**slot, *id, *row));
            if live.any(|(_, slot)| pending.contains(*slot)) {
                is_pending = true;
                continue;
            }
            freed += part.bytes + part.live_count * GROUP_BYTES;
            chosen.insert(*id);
        }
        (chosen, is_pending)
    }

    /// The groups of these parts, by place.
    fn places_of(&self, parts: &BTreeSet<u32>) -> Vec<(Place, SlotIndex)> {
        let windows = self.windows.iter();
        let in_windows = windows.flat_map(|(end, slots)| slots.iter().map(|slot| (*end, *slot)));
        let without = self.windows.is_empty().then(|| self.slots.live());
        let without = without.into_iter().flatten().map(|slot| (NO_WINDOW, slot));
        let groups = in_windows.chain(without).filter_map(|(end, index)| {
            let slot = self.slots.get(index);
            let is_chosen = parts.contains(&slot.part);
            is_chosen.then(|| (place_of(end, slot.fingerprint), index))
        });
        let mut places: Vec<(Place, SlotIndex)> = groups.collect();
        places.sort_unstable();
        places
    }

    fn write(
        &self,
        places: &[(Place, SlotIndex)],
        spilled: &mut SpilledGroups,
        codec: &RowCodec,
    ) -> Result<(), DataFusionError> {
        let mut run = spilled.write().map_err(external)?;
        let mut value = Vec::new();
        for chunk in places.chunks(CHUNK_ROWS) {
            let slots: Vec<SlotIndex> = chunk.iter().map(|(_, slot)| *slot).collect();
            let rows = codec.encode(&self.gather(&slots)?)?;
            for ((place, slot), row) in chunk.iter().zip(rows.iter()) {
                value.clear();
                value.extend_from_slice(&self.slots.get(*slot).part.to_le_bytes());
                value.extend_from_slice(row.data());
                run.add(place, &value).map_err(external)?;
            }
        }
        run.finish().map_err(external)
    }

    /// Gives slots the lowest numbers, so that those of groups that have gone take no memory.
    fn renumber(&mut self) -> Vec<SlotIndex> {
        for (id, part) in &mut self.parts {
            for (row, slot) in part.slots.iter_mut().enumerate() {
                if !self.slots.is_at(*slot, *id, row) {
                    *slot = NO_SLOT;
                }
            }
        }
        let renumbered = self.slots.renumber();
        let number = |slot: &mut SlotIndex| {
            if *slot != NO_SLOT {
                *slot = renumbered[*slot as usize];
            }
        };
        let parts = self.parts.values_mut();
        parts.for_each(|part| part.slots.iter_mut().for_each(number));
        self.windows.retain(|_, slots| {
            slots.iter_mut().for_each(number);
            slots.retain(|slot| *slot != NO_SLOT);
            slots.shrink_to_fit();
            !slots.is_empty()
        });
        let slots = &self.slots;
        let hash_of = |slot: &SlotIndex| slots.get(*slot).fingerprint.hash();
        let mut index = HashTable::with_capacity(slots.live_count());
        for slot in slots.live() {
            index.insert_unique(hash_of(&slot), slot, hash_of);
        }
        self.index = index;
        renumbered
    }

    /// Of files.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.spilled.as_ref().map_or(0, SpilledGroups::disk_bytes)
    }

    pub(super) fn has_spilled(&self) -> bool {
        self.spilled.is_some()
    }

    /// Takes back the groups of those keys that are not in memory and are on disk. `ends` is empty without windows.
    pub(super) fn recall(
        &mut self,
        keys: &GroupKeys,
        ends: &[i64],
        known: &[Option<SlotIndex>],
        codec: &RowCodec,
    ) -> Result<Option<Recalled>, DataFusionError> {
        let Some(spilled) = &mut self.spilled else {
            return Ok(None);
        };
        let mut taken = SpilledRows::default();
        let mut places = Vec::new();
        for (place, (key, known)) in keys.iter().zip(known).enumerate() {
            let end = ends.get(place).copied().unwrap_or(NO_WINDOW);
            if known.is_none() && spilled.take(end, key, &mut taken).map_err(external)? {
                places.push(place);
            }
        }
        self.release(&taken);
        if places.is_empty() {
            return Ok(None);
        }
        let rows = codec.decode(&taken)?;
        Ok(Some(Recalled { rows, places }))
    }

    /// Groups on disk whose windows end at or before the watermark, some at once; `from` is where the last ones ended. They are gone then, and
    /// with the last of them their windows are closed.
    pub(super) fn close_spilled(
        &mut self,
        watermark: i64,
        from: Option<Place>,
        codec: &RowCodec,
    ) -> Result<Option<Leaving>, DataFusionError> {
        let leaving = self.read_spilled(from, behind(watermark))?;
        let Some(spilled) = &mut self.spilled else {
            return Ok(None);
        };
        if leaving.as_ref().is_none_or(|(_, next)| next.is_none()) {
            spilled.close(watermark).map_err(external)?;
        }
        let Some((rows, next)) = leaving else {
            return Ok(None);
        };
        spilled.live_count -= rows.len();
        self.release(&rows);
        let rows = codec.decode(&rows)?;
        Ok(Some(Leaving { rows, next }))
    }

    /// Groups on disk from a place on, some at once; they stay.
    pub(super) fn show_spilled(
        &self,
        from: Option<Place>,
        codec: &RowCodec,
    ) -> Result<Option<Leaving>, DataFusionError> {
        let Some((rows, next)) = self.read_spilled(from, None)? else {
            return Ok(None);
        };
        let rows = codec.decode(&rows)?;
        Ok(Some(Leaving { rows, next }))
    }

    fn read_spilled(
        &self,
        from: Option<Place>,
        to: Option<Place>,
    ) -> Result<Option<(SpilledRows, Option<Place>)>, DataFusionError> {
        let Some(spilled) = &self.spilled else {
            return Ok(None);
        };
        let (mut rows, mut count) = (SpilledRows::default(), 0);
        let wants = |_| {
            count += 1;
            match count > CHUNK_ROWS {
                true => Wanted::Stop,
                false => Wanted::Yes,
            }
        };
        let next = spilled.scan(from.unwrap_or_default(), to, wants, &mut rows);
        let next = next.map_err(external)?;
        Ok((rows.len() > 0).then_some((rows, next)))
    }

    /// Takes back some groups of parts on disk, if that makes storage smaller; none of a window that the watermark has closed.
    pub(super) fn sweep(
        &mut self,
        watermark: Option<i64>,
        changed_count: usize,
        codec: &RowCodec,
    ) -> Result<Option<RecordBatch>, DataFusionError> {
        let parts = &self.parts;
        let is_open = |sweep: &Sweep| sweep.parts.iter().any(|part| parts.contains_key(part));
        self.sweep = match self.sweep.take().filter(is_open) {
            None => self.sweep_due(),
            open => open,
        };
        let taken_max = self.rewritten_max(changed_count);
        let (Some(sweep), Some(spilled)) = (&mut self.sweep, &mut self.spilled) else {
            return Ok(None);
        };
        let open = match watermark {
            Some(watermark) => behind(watermark),
            None => Some(Place::default()),
        };
        let mut taken = SpilledRows::default();
        let mut next = None;
        if let Some(open) = open {
            let seen_max = spilled.live_count / SWEPT_SHARE;
            let seen_max = seen_max.clamp(SWEPT_MIN, SWEPT_MAX);
            let (mut seen, mut wanted) = (0, 0);
            let wants = |part| {
                seen += 1;
                let is_wanted = sweep.parts.contains(&part);
                wanted += usize::from(is_wanted);
                match (seen > seen_max || wanted > taken_max, is_wanted) {
                    (true, _) => Wanted::Stop,
                    (false, true) => Wanted::Yes,
                    (false, false) => Wanted::No,
                }
            };
            let from = sweep.from.max(open);
            next = spilled
                .scan(from, None, wants, &mut taken)
                .map_err(external)?;
        }
        for place in &taken.places {
            spilled.remove(place).map_err(external)?;
        }
        match next {
            Some(next) => sweep.from = next,
            None => self.sweep = None,
        }
        self.release(&taken);
        match taken.len() {
            0 => Ok(None),
            _ => Ok(Some(codec.decode(&taken)?)),
        }
    }

    /// The worse half of the parts on disk, if storage has too many or too much.
    fn sweep_due(&self) -> Option<Sweep> {
        let outweighs = self.outweighs();
        if !outweighs && self.parts.len() <= PART_COUNT_MAX {
            return None;
        }
        let parts = self.parts.iter();
        let is_chosen = |part: &Part| part.batch.is_none() && part.is_worth(outweighs);
        let mut parts: Vec<_> = parts.filter(|(_, part)| is_chosen(part)).collect();
        parts.sort_by_key(|(_, part)| part.worth(outweighs));
        let half = parts.len().div_ceil(2);
        let parts: BTreeSet<u32> = parts.into_iter().take(half).map(|(id, _)| *id).collect();
        (!parts.is_empty()).then(|| Sweep {
            parts,
            from: Place::default(),
        })
    }

    /// The rows of groups that were on disk are garbage in their parts from now on. Behind the last group nothing is on disk any more.
    fn release(&mut self, rows: &SpilledRows) {
        if self
            .spilled
            .as_ref()
            .is_some_and(|spilled| spilled.live_count == 0)
        {
            (self.spilled, self.sweep) = (None, None);
        }
        for part in &rows.parts {
            if let Some(part) = self.parts.get_mut(part) {
                part.live_count -= 1;
            }
        }
    }
}

fn external(error: SpillError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
