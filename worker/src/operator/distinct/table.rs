//! A table of keys that is nearly full, and grows by a quarter of its size.
//!
//! Owned by `seen.rs`, which spreads keys over many of them. Tables of the usual kind are doubled when they are full, and then half empty. Here the groups
//! of places stand in the order of the keys' hash, so that a table can have any number of them, and growing or sweeping it goes through memory in order.
//! In a group a byte of each key says at once which of them may be meant, as in Google's Swiss tables; a full group's keys go on into the next ones.
//! INV-9: a key takes 27 to 34 bytes, once there are some thousands. Pure; cannot fail.

use std::mem::size_of;

/// Low half, high half, and the time.
type Slot = [u64; 3];
/// A byte for each place of a group, the first one lowest: 0 if it is free, else its highest bit and some bits of the key that is there.
type Tags = [u64; 2];

const GROUP_SLOTS: usize = size_of::<Tags>();

const TAKEN: u8 = 0x80;
/// A byte a place.
const LOWEST_BITS: u64 = 0x0101_0101_0101_0101;
const HIGHEST_BITS: u64 = LOWEST_BITS << 7;
/// Groups behind those that are homes, for what the last of them cannot take. Where they do not suffice there come more.
const SPARE_COUNT: usize = 4;
/// Of so many places of a table, one stays free.
const FREE_PART: usize = 12;
/// A large table grows by one part of so many.
const GROWN_PART: usize = 4;

/// A fingerprint in halves, with the event time of its first row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) high: u64,
    /// Says where it stands.
    pub(super) low: u64,
    pub(super) time: i64,
}

/// Keys, in groups by their low half.
#[derive(Debug)]
pub(super) struct KeyTable {
    tags: Vec<Tags>,
    /// [`GROUP_SLOTS`] a group.
    slots: Vec<Slot>,
    count: usize,
    /// The groups that are the home of keys.
    homes: usize,
    /// Groups from which on it is large; a smaller one is doubled.
    large_homes: usize,
}

/// Where a key is, or the first free place for it.
enum Place {
    Taken(usize),
    Free(usize),
}

impl KeyTable {
    /// Empty. Tables that are large from different numbers of groups on do not grow at the same time.
    pub(super) fn new(large_homes: usize) -> Self {
        Self::with_homes(1, large_homes)
    }

    fn with_homes(homes: usize, large_homes: usize) -> Self {
        Self {
            tags: vec![[0; 2]; homes + SPARE_COUNT],
            slots: vec![[0; 3]; (homes + SPARE_COUNT) * GROUP_SLOTS],
            count: 0,
            homes,
            large_homes,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Keys that it can hold before it grows.
    pub(super) fn room(&self) -> usize {
        let places = self.homes * GROUP_SLOTS;
        places - places / FREE_PART
    }

    pub(super) fn bytes(&self) -> usize {
        self.tags.capacity() * size_of::<Tags>() + self.slots.capacity() * size_of::<Slot>()
    }

    /// Looks at the place where a key may be, which brings it near.
    #[inline]
    pub(super) fn look_at(&self, high: u64, low: u64) -> u64 {
        let home = home(low, self.homes);
        let tags = self.tags[home];
        let maybe = places_of(tags, tag_of(high)) | free_places(tags);
        self.slots[home * GROUP_SLOTS + first_place(maybe) % GROUP_SLOTS][0]
    }

    /// Takes a key. If it is there already, `replaces` decides by its time whether the new one takes its place. Says whether it was taken.
    #[inline]
    pub(super) fn insert(&mut self, key: Key, replaces: impl Fn(i64) -> bool) -> bool {
        match self.find(key) {
            Place::Taken(at) => {
                if !replaces(self.slots[at][2] as i64) {
                    return false;
                }
                self.slots[at] = slot_of(key);
            }
            Place::Free(at) if self.count < self.room() => self.put(at, key),
            Place::Free(_) => self.put_grown(key),
        }
        true
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Key> {
        let groups = self.tags.iter().zip(self.slots.chunks_exact(GROUP_SLOTS));
        groups.flat_map(|(tags, slots)| taken_keys(*tags, slots))
    }

    /// Leaves out the keys that are not to be kept.
    pub(super) fn retain(&mut self, keep: impl Fn(Key) -> bool) {
        self.rebuild(self.homes, keep);
    }

    /// Gives back the memory that is not needed for those that it has, nor for so many.
    pub(super) fn shrink_to(&mut self, room: usize) {
        let places = room.max(self.count) * FREE_PART / (FREE_PART - 1);
        let homes = places / GROUP_SLOTS + 1;
        if homes < self.homes {
            self.rebuild(homes, |_| true);
        }
    }

    #[inline]
    fn find(&self, key: Key) -> Place {
        let tag = tag_of(key.high);
        let first = home(key.low, self.homes);
        for (group, tags) in self.tags.iter().enumerate().skip(first) {
            let mut maybe = places_of(*tags, tag);
            while maybe != 0 {
                let at = group * GROUP_SLOTS + first_place(maybe);
                let slot = &self.slots[at];
                if slot[0] == key.low && slot[1] == key.high {
                    return Place::Taken(at);
                }
                maybe &= maybe - 1;
            }
            let free = free_places(*tags);
            if free != 0 {
                return Place::Free(group * GROUP_SLOTS + first_place(free));
            }
        }
        Place::Free(self.slots.len())
    }

    #[inline]
    fn put(&mut self, at: usize, key: Key) {
        if at == self.slots.len() {
            self.tags.push([0; 2]);
            self.slots.resize(at + GROUP_SLOTS, [0; 3]);
        }
        let (group, place) = (at / GROUP_SLOTS, at % GROUP_SLOTS);
        self.tags[group][place / 8] |= u64::from(tag_of(key.high)) << (place % 8 * 8);
        self.slots[at] = slot_of(key);
        self.count += 1;
    }

    #[cold]
    fn put_grown(&mut self, key: Key) {
        self.rebuild(self.grown(), |_| true);
        let (Place::Taken(at) | Place::Free(at)) = self.find(key);
        self.put(at, key);
    }

    fn grown(&self) -> usize {
        match self.homes < self.large_homes {
            true => self.large_homes.min(2 * self.homes),
            false => self.homes + self.homes / GROWN_PART + 1,
        }
    }

    /// Moves the keys that are kept, in their order, to a table of so many groups.
    fn rebuild(&mut self, homes: usize, keep: impl Fn(Key) -> bool) {
        let mut table = Self::with_homes(homes, self.large_homes);
        for (tags, slots) in self.tags.iter().zip(self.slots.chunks_exact(GROUP_SLOTS)) {
            for key in taken_keys(*tags, slots) {
                if keep(key) {
                    table.append(key);
                }
            }
        }
        *self = table;
    }

    /// Takes a key that is not there, whatever room there is.
    #[inline]
    fn append(&mut self, key: Key) {
        let first = home(key.low, self.homes);
        for (group, tags) in self.tags.iter().enumerate().skip(first) {
            let free = free_places(*tags);
            if free != 0 {
                return self.put(group * GROUP_SLOTS + first_place(free), key);
            }
        }
        self.put(self.slots.len(), key);
    }
}

#[inline]
fn slot_of(key: Key) -> Slot {
    [key.low, key.high, key.time as u64]
}

/// The keys of a group.
#[inline]
fn taken_keys(tags: Tags, slots: &[Slot]) -> impl Iterator<Item = Key> {
    let mut taken = !free_places(tags);
    std::iter::from_fn(move || {
        let [low, high, time] = *slots.get(first_place(taken))?;
        taken &= taken - 1;
        let time = time as i64;
        Some(Key { high, low, time })
    })
}

/// Greater keys have no smaller home.
#[inline]
fn home(low: u64, homes: usize) -> usize {
    ((u128::from(low) * homes as u128) >> 64) as usize
}

/// Bits that neither vnodes nor tables are chosen by.
#[inline]
fn tag_of(high: u64) -> u8 {
    high as u8 | TAKEN
}

/// The free places, a bit each.
#[inline]
fn free_places(tags: Tags) -> u16 {
    packed(tags.map(|half| !half & HIGHEST_BITS))
}

/// The places whose byte is this tag, a bit each; perhaps some that are not. ("Determine if a word has a zero byte", in Anderson's "Bit
/// twiddling hacks".)
#[inline]
fn places_of(tags: Tags, tag: u8) -> u16 {
    let same = |half: u64| {
        let differing = half ^ (LOWEST_BITS * u64::from(tag));
        differing.wrapping_sub(LOWEST_BITS) & !differing & HIGHEST_BITS
    };
    packed(tags.map(same))
}

/// The highest bits of all bytes, side by side.
#[inline]
fn packed(highest_bits: Tags) -> u16 {
    let [low, high] =
        highest_bits.map(|half| (half >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56);
    (high << 8 | low) as u16
}

/// [`GROUP_SLOTS`] if there is none.
#[inline]
fn first_place(places: u16) -> usize {
    places.trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Both halves differ; those of one table are far apart, or close together.
    fn key(number: u64, spread: u64, time: i64) -> Key {
        let low = number.wrapping_mul(spread);
        let high = number.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        Key { high, low, time }
    }

    const FAR: u64 = 0x9e37_79b9_7f4a_7c15;

    fn sorted(table: &KeyTable) -> Vec<(u64, u64, i64)> {
        let keys = table.iter().map(|key| (key.low, key.high, key.time));
        let mut keys: Vec<_> = keys.collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn it_holds_what_a_map_would_hold() {
        for spread in [FAR, 1, u64::MAX, 0] {
            let mut table = KeyTable::new(4);
            let mut map = BTreeMap::new();
            for number in (0..3_000).chain(1_000..2_000) {
                let (key, time) = (key(number, spread, number as i64), number as i64);
                let replaces = |earlier: i64| earlier % 2 == 0;
                let known = map.get(&(key.low, key.high)).copied();
                let is_taken = known.is_none_or(replaces);
                if is_taken {
                    map.insert((key.low, key.high), time);
                }
                assert_eq!(table.insert(key, replaces), is_taken);
            }
            let expected = map.iter().map(|((low, high), time)| (*low, *high, *time));
            assert!(sorted(&table).into_iter().eq(expected), "{spread}");
            assert_eq!(table.len(), map.len());
            table.retain(|key| key.time % 3 == 0);
            map.retain(|_, time| *time % 3 == 0);
            assert_eq!(table.len(), map.len());
            for ((low, high), time) in map {
                let key = Key { low, high, time };
                assert!(!table.insert(key, |_| false), "{key:?}");
            }
        }
    }

    #[test]
    fn a_large_table_is_nearly_full() {
        let mut table = KeyTable::new(64);
        for number in 0..1_000_000 {
            table.insert(key(number, FAR, 0), |_| false);
            let per_key = table.bytes() as f64 / table.len() as f64;
            assert!(number < 5_000 || per_key < 36.0, "{per_key} of {number}");
        }
    }

    #[test]
    fn memory_is_given_back() {
        let mut table = KeyTable::new(64);
        for number in 0..100_000 {
            table.insert(key(number, FAR, number as i64), |_| false);
        }
        let full = table.bytes();
        table.retain(|key| key.time < 1_000);
        assert_eq!(table.bytes(), full);
        table.shrink_to(2_000);
        assert!(table.room() >= 2_000);
        assert!(table.bytes() < full / 20);
        assert!(!table.insert(key(7, FAR, 0), |_| false));
        assert_eq!(table.len(), 1_000);
    }
}
