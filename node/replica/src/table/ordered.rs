//! The rows of a shard in the order of their keys: runs of places, each run in order, the runs in order.
//!
//! A place stays when a value is replaced, so that a rewrite changes nothing here. Where a key belongs is nearly always
//! seen without a look at another row's key, each of which would be a wait for memory: beside each place are the four
//! bytes of its key that follow what all keys of the run begin with.

use std::cmp::Ordering;
use std::ops::Bound;

use super::rows::Place;

/// Places of a run, at most: few enough that one in between is inserted at once, many enough that the runs are few.
const RUN_PLACES_MAX: usize = 128;

/// Where the keys are.
pub(super) trait Keys {
    /// The key of the row at a place that is taken.
    fn key(&self, place: Place) -> &[u8];
}

/// Places in the order of their rows' keys. Each method is given the rows, which hold every place in it.
#[derive(Debug, Default)]
pub(super) struct Ordered {
    /// None is empty.
    runs: Vec<Run>,
}

/// Places of neighbours.
#[derive(Debug)]
struct Run {
    /// No key of this run is before it, and none of the run before is not.
    first: Box<[u8]>,
    /// Bytes that all keys of this run and `first` begin with.
    shared: usize,
    marked: Vec<Marked>,
}

/// A place and the bytes of its key after those that the run's keys share, in their order as a number.
#[derive(Clone, Copy, Debug)]
struct Marked {
    mark: u32,
    place: Place,
}

/// The four bytes after `shared`; those that are not there count as the smallest.
fn mark(key: &[u8], shared: usize) -> u32 {
    let rest = &key[shared..];
    if let Some(bytes) = rest.first_chunk::<4>() {
        return u32::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 4];
    bytes[..rest.len()].copy_from_slice(rest);
    u32::from_be_bytes(bytes)
}

/// How many bytes two keys begin with alike.
fn alike(one: &[u8], two: &[u8]) -> usize {
    one.iter().zip(two).take_while(|(one, two)| one == two).count()
}

impl Run {
    /// A run of these places, in order, of which there is one at least.
    fn new(keys: &impl Keys, marked: Vec<Marked>) -> Self {
        let first = marked.first().map_or(&[][..], |first| keys.key(first.place));
        let mut run = Self { first: first.into(), shared: 0, marked };
        run.mark_anew(keys);
        run
    }

    /// Finds out what the keys share, and marks them by what follows.
    fn mark_anew(&mut self, keys: &impl Keys) {
        let last = self.marked.last().map_or(&[][..], |last| keys.key(last.place));
        self.shared = alike(&self.first, last);
        for marked in &mut self.marked {
            marked.mark = mark(keys.key(marked.place), self.shared);
        }
    }

    fn find(&self, keys: &impl Keys, key: &[u8]) -> Result<usize, usize> {
        let shared = &self.first[..self.shared];
        match key[..key.len().min(shared.len())].cmp(shared) {
            // Shorter than what is shared, or before it.
            Ordering::Less => Err(0),
            Ordering::Greater => Err(self.marked.len()),
            Ordering::Equal => {
                let wanted = mark(key, self.shared);
                self.marked.binary_search_by(|marked| {
                    marked.mark.cmp(&wanted).then_with(|| keys.key(marked.place).cmp(key))
                })
            }
        }
    }

    fn insert(&mut self, keys: &impl Keys, at: usize, place: Place) {
        let key = keys.key(place);
        let shared = self.shared.min(alike(&self.first, key));
        if *key < *self.first {
            self.first = key.into();
        }
        self.marked.insert(at, Marked { mark: 0, place });
        if shared < self.shared {
            self.mark_anew(keys);
        } else {
            self.marked[at].mark = mark(key, shared);
        }
    }
}

impl Ordered {
    /// The run in which `key` is or would be, and where in it.
    fn find(&self, keys: &impl Keys, key: &[u8]) -> (usize, Result<usize, usize>) {
        let run = self.runs.partition_point(|run| *run.first <= *key).saturating_sub(1);
        (run, self.runs.get(run).map_or(Err(0), |run| run.find(keys, key)))
    }

    /// Adds the place of a row whose key is not here.
    pub(super) fn insert(&mut self, keys: &impl Keys, place: Place) {
        let (number, Err(at)) = self.find(keys, keys.key(place)) else { return };
        let Some(run) = self.runs.get_mut(number) else {
            self.runs.push(Run::new(keys, vec![Marked { mark: 0, place }]));
            return;
        };
        if run.marked.len() < RUN_PLACES_MAX {
            run.insert(keys, at, place);
            return;
        }
        // Keys that come in order fill a run before they begin another.
        let middle = if at == run.marked.len() { at } else { run.marked.len() / 2 };
        let mut second = Vec::with_capacity(RUN_PLACES_MAX);
        second.extend(run.marked.drain(middle..));
        if at < middle {
            run.insert(keys, at, place);
        } else {
            second.insert(at - middle, Marked { mark: 0, place });
        }
        run.mark_anew(keys);
        self.runs.insert(number + 1, Run::new(keys, second));
    }

    /// Takes the place of the row with this key out.
    pub(super) fn remove(&mut self, keys: &impl Keys, key: &[u8]) {
        let (number, Ok(at)) = self.find(keys, key) else { return };
        self.runs[number].marked.remove(at);
        if self.runs[number].marked.is_empty() {
            self.runs.remove(number);
            return;
        }
        // What is left of many must not keep the room of many.
        let is_small =
            |pair: &[Run]| pair.iter().map(|run| run.marked.len()).sum::<usize>() <= RUN_PLACES_MAX / 2;
        let pairs = [number.checked_sub(1), Some(number)].into_iter().flatten();
        let mut small = pairs.filter(|first| self.runs.get(*first..first + 2).is_some_and(is_small));
        if let Some(first) = small.next() {
            let second = self.runs.remove(first + 1);
            self.runs[first].marked.extend(second.marked);
            self.runs[first].mark_anew(keys);
        }
    }

    /// The places from a key on.
    pub(super) fn places(&self, keys: &impl Keys, start: Bound<&[u8]>) -> impl Iterator<Item = Place> {
        let (number, at) = match start {
            Bound::Unbounded => (0, 0),
            Bound::Included(key) | Bound::Excluded(key) => match self.find(keys, key) {
                (number, Ok(at)) => (number, at + usize::from(start == Bound::Excluded(key))),
                (number, Err(at)) => (number, at),
            },
        };
        let (first, rest) = match self.runs.get(number..) {
            Some([first, rest @ ..]) => (&first.marked[at..], rest),
            _ => (&[][..], &[][..]),
        };
        first.iter().chain(rest.iter().flat_map(|run| &run.marked)).map(|marked| marked.place)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Keys by the numbers of their places.
    struct Numbered(Vec<Vec<u8>>);

    impl Keys for Numbered {
        fn key(&self, place: Place) -> &[u8] {
            &self.0[place.number()]
        }
    }

    /// Two thousand that begin alike for longer or shorter, not in their order; some are what others begin with.
    fn keys() -> Numbered {
        let key = |number: u16| {
            let number = number.wrapping_mul(40_503);
            let mut key = vec![b'u'; usize::from(number % 3)];
            key.extend((0..4).map(|digit| b'a' * u8::from(number >> (digit * 4) & 8 != 0)));
            key.extend(number.to_be_bytes());
            key.truncate(key.len() - usize::from(number.is_multiple_of(7)));
            key
        };
        let keys: BTreeSet<Vec<u8>> = (0..2_000).map(key).collect();
        let mut keys: Vec<Vec<u8>> = keys.into_iter().collect();
        let count = keys.len();
        (0..count).for_each(|index| keys.swap(index, index * 7_919 % count));
        Numbered(keys)
    }

    #[track_caller]
    fn check(ordered: &Ordered, keys: &Numbered, model: &BTreeSet<Vec<u8>>) {
        let all: Vec<&[u8]> = ordered.places(keys, Bound::Unbounded).map(|place| keys.key(place)).collect();
        assert_eq!(all, model.iter().map(|key| &key[..]).collect::<Vec<_>>());
        assert!(ordered.runs.iter().all(|run| (1..=RUN_PLACES_MAX).contains(&run.marked.len())));
    }

    proptest! {
        /// As a set of keys, whatever is put in and taken out, in whatever order.
        #[test]
        fn places_are_in_the_order_of_their_keys(
            steps in prop::collection::vec((prop::bool::weighted(0.3), any::<prop::sample::Index>()), 0..1_500),
            from in prop::collection::vec(prop::sample::select(vec![0, b'a', b'b', b'u', 255]), 0..6),
        ) {
            let (keys, mut ordered, mut model) = (keys(), Ordered::default(), BTreeSet::new());
            for (is_removal, index) in steps {
                let place = Place::numbered(index.index(keys.0.len()));
                let key = keys.key(place);
                if is_removal {
                    ordered.remove(&keys, key);
                    model.remove(key);
                } else if model.insert(key.to_vec()) {
                    ordered.insert(&keys, place);
                }
            }
            check(&ordered, &keys, &model);
            for start in [Bound::Included(&from[..]), Bound::Excluded(&from[..])] {
                let found: Vec<&[u8]> = ordered.places(&keys, start).map(|place| keys.key(place)).collect();
                let wanted = model.range::<[u8], _>((start, Bound::Unbounded));
                prop_assert_eq!(found, wanted.map(|key| &key[..]).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn keys_in_order_fill_their_runs_and_what_is_left_of_many_takes_the_room_of_few() {
        let keys = Numbered((0..2_000_u16).map(|number| number.to_be_bytes().to_vec()).collect());
        let (mut ordered, mut model) = (Ordered::default(), BTreeSet::new());
        for number in 0..2_000 {
            ordered.insert(&keys, Place::numbered(number));
            model.insert(keys.0[number].clone());
        }
        check(&ordered, &keys, &model);
        assert_eq!(ordered.runs.len(), 2_000_usize.div_ceil(RUN_PLACES_MAX));
        for key in keys.0.iter().filter(|key| key[1] % 32 != 0) {
            ordered.remove(&keys, key);
            model.remove(key);
        }
        check(&ordered, &keys, &model);
        assert!(ordered.runs.len() <= 4, "{}", ordered.runs.len());
    }

    #[test]
    fn an_empty_one_has_no_places() {
        let (keys, ordered) = (keys(), Ordered::default());
        assert_eq!(ordered.places(&keys, Bound::Included(&[])).count(), 0);
    }
}
