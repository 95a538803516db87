//! Version vector: per origin, up to where every write is held (or superseded by what is held).

use std::collections::BTreeMap;

use crate::id::{Dot, Origin};

/// What one origin's entry says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// All writes 1 to this one are held; 0 is none.
    pub contiguous: u64,
    /// One interval of sequences, both ends included, applied beyond a gap. Never sent: a peer is
    /// told only what is certain, and what it sends again is harmless.
    beyond: Option<(u64, u64)>,
    /// Node time, in milliseconds, when the entry last grew: when the origin was last heard to write.
    pub last_write_ms: u64,
}

/// Origin → sequence held.
///
/// An origin enters with its first write and is forgotten by [`VersionVector::forget`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionVector {
    entries: BTreeMap<Origin, Entry>,
    /// Entries that are not here and last wrote before this, in milliseconds, were forgotten: a peer that has not
    /// forgotten them yet knows nothing that is lacking here.
    forgotten_before_ms: u64,
}

impl VersionVector {
    /// Whether the write with this dot is held.
    pub fn covers(&self, dot: Dot) -> bool {
        self.entries.get(&dot.origin).is_some_and(|entry| {
            dot.sequence <= entry.contiguous
                || entry.beyond.is_some_and(|(first, last)| (first..=last).contains(&dot.sequence))
        })
    }

    /// Whether a claim of this write would cover it: beyond a second gap it has no place.
    pub(crate) fn has_place_for(&self, dot: Dot) -> bool {
        self.entries.get(&dot.origin).is_none_or(|entry| entry.has_place_for(dot.sequence))
    }

    /// Highest sequence of `origin` up to which all are held.
    pub fn contiguous(&self, origin: Origin) -> u64 {
        self.entries.get(&origin).map_or(0, |entry| entry.contiguous)
    }

    /// Whether all writes that `other` holds for certain are held here.
    pub fn dominates(&self, other: &Self) -> bool {
        let is_held = |(origin, entry): (&Origin, &Entry)| self.contiguous(*origin) >= entry.contiguous;
        other.entries.iter().all(|held| is_held(held) || self.is_forgotten(*held.0, held.1))
    }

    /// Whether a peer's entry is of an origin that was forgotten here.
    fn is_forgotten(&self, origin: Origin, entry: &Entry) -> bool {
        entry.last_write_ms < self.forgotten_before_ms && !self.entries.contains_key(&origin)
    }

    /// Whether both hold for certain the same writes.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.dominates(other) && other.dominates(self)
    }

    /// Claims one write; beyond a gap it joins the interval if it touches it, else it stays
    /// unclaimed (a delta will bring it again).
    ///
    /// Returns whether the write is now covered.
    pub fn claim(&mut self, dot: Dot, now_ms: u64) -> bool {
        let entry = self.entries.entry(dot.origin).or_default();
        entry.last_write_ms = entry.last_write_ms.max(now_ms);
        let sequence = dot.sequence;
        if sequence <= entry.contiguous {
            return true;
        }
        if sequence == entry.contiguous + 1 {
            entry.contiguous = sequence;
            entry.close_gap();
            return true;
        }
        match &mut entry.beyond {
            Some((first, last)) if (*first..=*last).contains(&sequence) => {}
            Some((_, last)) if sequence.checked_sub(1) == Some(*last) => *last = sequence,
            Some((first, _)) if first.checked_sub(1) == Some(sequence) => *first = sequence,
            Some(_) => return false,
            beyond @ None => *beyond = Some((sequence, sequence)),
        }
        true
    }

    /// Adopts `other`: everything it holds for certain is now held here too.
    pub fn join(&mut self, other: &Self) {
        for (origin, theirs) in &other.entries {
            if self.is_forgotten(*origin, theirs) {
                continue;
            }
            let mine = self.entries.entry(*origin).or_default();
            mine.contiguous = mine.contiguous.max(theirs.contiguous);
            mine.last_write_ms = mine.last_write_ms.max(theirs.last_write_ms);
            mine.close_gap();
        }
    }

    /// Sets one entry as it was stored or sent.
    pub fn insert(&mut self, origin: Origin, contiguous: u64, last_write_ms: u64) {
        self.entries.insert(origin, Entry { contiguous, beyond: None, last_write_ms });
    }

    /// Forgets every origin that last wrote before `before_ms`, but for those that `is_kept` names.
    pub fn forget(&mut self, before_ms: u64, mut is_kept: impl FnMut(Origin) -> bool) {
        self.forgotten_before_ms = before_ms;
        self.entries.retain(|origin, entry| entry.last_write_ms >= before_ms || is_kept(*origin));
    }

    /// This vector without the intervals beyond gaps: what is sent and stored.
    pub fn certain(&self) -> Self {
        let mut certain = self.clone();
        certain.forgotten_before_ms = 0;
        for entry in certain.entries.values_mut() {
            entry.beyond = None;
        }
        certain.entries.retain(|_, entry| entry.contiguous > 0);
        certain
    }

    /// All entries in origin order.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, &Entry)> {
        self.entries.iter().map(|(origin, entry)| (*origin, entry))
    }

    /// Number of origins.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no origin is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many writes of `other` are missing here.
    pub fn lag_behind(&self, other: &Self) -> u64 {
        let lag =
            |(origin, entry): (Origin, &Entry)| entry.contiguous.saturating_sub(self.contiguous(origin));
        other.iter().map(lag).fold(0, u64::saturating_add)
    }
}

impl Entry {
    fn has_place_for(&self, sequence: u64) -> bool {
        let is_beside = |(first, last): (u64, u64)| {
            (first.saturating_sub(1)..=last.saturating_add(1)).contains(&sequence)
        };
        sequence <= self.contiguous.saturating_add(1) || self.beyond.is_none_or(is_beside)
    }

    fn close_gap(&mut self) {
        if let Some((first, last)) = self.beyond
            && first <= self.contiguous.saturating_add(1)
        {
            self.contiguous = self.contiguous.max(last);
            self.beyond = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::NodeId;

    fn dot(sequence: u64) -> Dot {
        Dot { origin: Origin { node: NodeId::new(1), epoch: 1 }, sequence }
    }

    #[test]
    fn an_interval_beyond_a_gap_joins_when_the_gap_closes() {
        let mut vector = VersionVector::default();
        assert!(vector.claim(dot(1), 5));
        assert!(vector.claim(dot(3), 5) && vector.claim(dot(4), 5));
        assert_eq!(vector.contiguous(dot(1).origin), 1);
        assert!(!vector.covers(dot(2)) && vector.covers(dot(3)));
        assert!(vector.claim(dot(2), 5));
        assert_eq!(vector.contiguous(dot(1).origin), 4);
    }

    #[test]
    fn a_second_gap_stays_unclaimed() {
        let mut vector = VersionVector::default();
        assert!(vector.claim(dot(3), 5));
        assert!(!vector.claim(dot(9), 5));
        assert!(!vector.covers(dot(9)));
    }

    #[test]
    fn what_is_forgotten_is_neither_adopted_nor_compared() {
        let (gone, live) =
            (Origin { node: NodeId::new(1), epoch: 1 }, Origin { node: NodeId::new(2), epoch: 1 });
        let mut other = VersionVector::default();
        other.insert(gone, 7, 100);
        other.insert(live, 3, 100);
        let mut vector = other.clone();
        vector.forget(200, |origin| origin == live);
        assert_eq!((vector.contiguous(gone), vector.contiguous(live)), (0, 3));
        assert!(vector.dominates(&other));
        vector.join(&other);
        assert_eq!(vector.contiguous(gone), 0);
        // It has written again.
        other.insert(gone, 8, 300);
        assert!(!vector.dominates(&other));
        vector.join(&other);
        assert_eq!(vector.contiguous(gone), 8);
    }

    #[test]
    fn the_last_sequence_there_is_does_no_harm() {
        let mut vector = VersionVector::default();
        assert!(vector.claim(dot(u64::MAX), 5) && !vector.claim(dot(7), 5));
        let mut other = VersionVector::default();
        other.insert(dot(1).origin, u64::MAX, 5);
        other.insert(Origin { node: NodeId::new(2), epoch: 1 }, u64::MAX, 5);
        assert_eq!(vector.lag_behind(&other), u64::MAX);
        vector.join(&other);
        assert_eq!(vector.contiguous(dot(1).origin), u64::MAX);
    }

    proptest! {
        /// A claim never covers a write that was not claimed.
        #[test]
        fn covered_is_claimed(sequences in prop::collection::vec(1u64..20, 0..40)) {
            let mut vector = VersionVector::default();
            for sequence in &sequences {
                let has_place = vector.has_place_for(dot(*sequence));
                prop_assert_eq!(vector.claim(dot(*sequence), 1), has_place);
                prop_assert_eq!(vector.covers(dot(*sequence)), has_place);
            }
            for sequence in 1..20 {
                prop_assert!(!vector.covers(dot(sequence)) || sequences.contains(&sequence));
            }
            let certain = vector.contiguous(dot(1).origin);
            prop_assert!((1..=certain).all(|sequence| sequences.contains(&sequence)));
        }
    }
}
