//! The rows of a shard by key hash: a hash table of places, and chunks of one size in which the rows are.
//!
//! A hash table doubles when it is full, so that up to half of it is empty. With the rows in it, or with a pointer and an
//! allocation for each, that is most of what memory holds beyond the data; a place is four bytes.

use hashbrown::HashTable;

use crate::id::KeyHash;

/// What rows are found by.
pub(super) trait Hashed {
    fn hash(&self) -> KeyHash;
}

/// Rows by key hash, each hash at most once.
pub(super) struct Rows<T> {
    places: HashTable<Place>,
    slab: Slab<T>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { places: HashTable::new(), slab: Slab::default() }
    }
}

impl<T: Hashed> Rows<T> {
    /// Where the row of a hash is.
    pub(super) fn place(&self, hash: KeyHash) -> Option<Place> {
        self.places.find(hash.number(), |place| self.slab.get(*place).hash() == hash).copied()
    }

    pub(super) fn get(&self, hash: KeyHash) -> Option<&T> {
        self.place(hash).map(|place| self.slab.get(place))
    }

    pub(super) fn get_mut(&mut self, hash: KeyHash) -> Option<&mut T> {
        self.place(hash).map(|place| self.slab.get_mut(place))
    }

    /// The row at a place that is taken.
    pub(super) fn at(&self, place: Place) -> &T {
        self.slab.get(place)
    }

    /// The same, to change.
    pub(super) fn at_mut(&mut self, place: Place) -> &mut T {
        self.slab.get_mut(place)
    }

    /// Adds a row whose hash is not there.
    pub(super) fn insert(&mut self, row: T) -> Place {
        let number = row.hash().number();
        let place = self.slab.insert(row);
        let slab = &self.slab;
        self.places.insert_unique(number, place, |other| slab.get(*other).hash().number());
        place
    }

    pub(super) fn remove(&mut self, hash: KeyHash) -> Option<T> {
        let slab = &self.slab;
        let found = self.places.find_entry(hash.number(), |place| slab.get(*place).hash() == hash).ok()?;
        let (place, _) = found.remove();
        Some(self.slab.remove(place))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slab.iter()
    }

    /// The rows whose hash has this number, and perhaps others.
    pub(super) fn iter_number(&self, number: u64) -> impl Iterator<Item = &T> {
        self.places.iter_hash(number).map(|place| self.slab.get(*place))
    }

    /// Changes the rows whose hash has this number.
    pub(super) fn each_of_number(&mut self, number: u64, mut change: impl FnMut(&mut T)) {
        for place in self.places.iter_hash(number) {
            let row = self.slab.get_mut(*place);
            if row.hash().number() == number {
                change(row);
            }
        }
    }
}

/// Rows of a chunk: as many as a word has bits.
const CHUNK_ROWS: usize = 64;

/// Rows by place. A place is given again after its row was removed.
struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// Chunks with room, each once.
    open: Vec<u32>,
}

struct Chunk<T> {
    /// Empty, and without an allocation, or `CHUNK_ROWS` long.
    rows: Box<[Option<T>]>,
    /// Which are taken.
    taken: u64,
}

/// Where a row is, as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    fn new(chunk: u32, row: u32) -> Self {
        Self(chunk << 6 | row)
    }

    const fn chunk(self) -> usize {
        (self.0 >> 6) as usize
    }

    const fn row(self) -> usize {
        (self.0 & 63) as usize
    }

    #[cfg(test)]
    pub(super) fn numbered(number: usize) -> Self {
        Self(u32::try_from(number).expect("few"))
    }

    #[cfg(test)]
    pub(super) const fn number(self) -> usize {
        self.0 as usize
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), open: Vec::new() }
    }
}

impl<T> Slab<T> {
    fn get(&self, place: Place) -> &T {
        self.chunks[place.chunk()].rows[place.row()].as_ref().expect("a place is given for a row")
    }

    fn get_mut(&mut self, place: Place) -> &mut T {
        self.chunks[place.chunk()].rows[place.row()].as_mut().expect("a place is given for a row")
    }

    fn insert(&mut self, row: T) -> Place {
        let number = self.open.last().copied().unwrap_or_else(|| {
            let number = u32::try_from(self.chunks.len()).expect("memory ends before");
            self.chunks.push(Chunk { rows: Box::default(), taken: 0 });
            self.open.push(number);
            number
        });
        let chunk = &mut self.chunks[number as usize];
        if chunk.rows.is_empty() {
            chunk.rows = (0..CHUNK_ROWS).map(|_| None).collect();
        }
        let free = chunk.taken.trailing_ones();
        chunk.taken |= 1 << free;
        if chunk.taken == u64::MAX {
            self.open.pop();
        }
        chunk.rows[free as usize] = Some(row);
        Place::new(number, free)
    }

    fn remove(&mut self, place: Place) -> T {
        let chunk = &mut self.chunks[place.chunk()];
        if chunk.taken == u64::MAX {
            self.open.push(place.0 >> 6);
        }
        chunk.taken &= !(1 << place.row());
        let row = chunk.rows[place.row()].take();
        if chunk.taken == 0 {
            // Given back at once: a mass expiry must not leave its memory behind.
            chunk.rows = Box::default();
        }
        row.expect("a place is given for a row")
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.rows.iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn allocated(slab: &Slab<u64>) -> usize {
        slab.chunks.iter().filter(|chunk| !chunk.rows.is_empty()).count()
    }

    proptest! {
        /// As a map from places to rows, whatever is put in and taken out.
        #[test]
        fn a_slab_keeps_what_it_is_given(steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..600)) {
            let (mut slab, mut model) = (Slab::default(), BTreeMap::<u32, u64>::new());
            for (number, (is_removal, index)) in (0u64..).zip(steps) {
                if is_removal && !model.is_empty() {
                    let place = *model.keys().nth(index.index(model.len())).expect("there is one");
                    prop_assert_eq!(slab.remove(Place(place)), model.remove(&place).expect("known"));
                } else {
                    let place = slab.insert(number);
                    prop_assert_eq!(model.insert(place.0, number), None, "a place that is taken was given");
                }
                for (place, row) in &model {
                    prop_assert_eq!(slab.get(Place(*place)), row);
                }
            }
            let rows: Vec<u64> = slab.iter().copied().collect();
            prop_assert_eq!(rows, model.values().copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn empty_chunks_are_given_back_and_room_is_used_before_new_ones_are_made() {
        let mut slab = Slab::default();
        let places: Vec<Place> = (0..1_000).map(|number| slab.insert(number)).collect();
        assert_eq!(allocated(&slab), 16);
        for place in &places[..960] {
            slab.remove(*place);
        }
        assert_eq!(allocated(&slab), 1);
        for number in 0..960 {
            slab.insert(number);
        }
        assert_eq!((allocated(&slab), slab.chunks.len()), (16, 16));
    }
}
