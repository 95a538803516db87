//! The vector that a file's entries claim.

use crate::effect::PersistItem;
use crate::version_vector::VersionVector;

/// Folds the entries of a file, in the order they were persisted, into what they claim.
///
/// A file that claimed what memory held would lose acknowledged writes: memory is ahead of it.
#[derive(Clone, Debug, Default)]
pub struct StoredVector(VersionVector);

impl StoredVector {
    /// Takes in the next entry; `now_ms` (node time) is when its origins count as heard from.
    pub fn absorb(&mut self, item: &PersistItem, now_ms: u64) {
        match item {
            PersistItem::Write(write) => {
                self.0.claim(write.dot, now_ms);
            }
            PersistItem::Rows(_) => {}
            PersistItem::Vector(vector) => self.0.join(vector),
        }
    }

    /// What is in the file for certain.
    pub fn certain(&self) -> VersionVector {
        self.0.certain()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::{Dot, NodeId, Origin};
    use crate::record::Write;

    #[test]
    fn rows_claim_nothing_and_a_gap_is_not_claimed_over() {
        let origin = Origin { node: NodeId::new(1), epoch: 1 };
        let write = |sequence| {
            PersistItem::Write(Arc::new(Write { dot: Dot { origin, sequence }, rows: Vec::new() }))
        };
        let mut stored = StoredVector::default();
        for item in [write(1), PersistItem::Rows(Arc::default()), write(3)] {
            stored.absorb(&item, 5);
        }
        assert_eq!(stored.certain().contiguous(origin), 1);
        stored.absorb(&write(2), 5);
        assert_eq!(stored.certain().contiguous(origin), 3);
    }
}
