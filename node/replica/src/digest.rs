//! What a table holds, in brief: order-independent sums over buckets of keys.
//!
//! A row is in the sums exactly while it is held, and rows are dropped only at whole steps of
//! `DIGEST_STEP_MS` by a rule that looks at the row alone: so two replicas with equal vectors and
//! equal steps have equal sums, whatever they went through.

use crate::id::{KeyHash, Origin};
use crate::limits::DIGEST_BUCKETS;
use crate::record::Record;

/// Sums of one table.
#[derive(Debug)]
pub(crate) struct Digest(Box<[u64]>);

impl Default for Digest {
    fn default() -> Self {
        Self(vec![0; DIGEST_BUCKETS].into())
    }
}

impl Digest {
    /// Replaces a row's share of its bucket.
    pub(crate) fn replace<V: Clone>(
        &mut self,
        hash: KeyHash,
        before: Option<&Record<V>>,
        after: Option<&Record<V>>,
    ) {
        let share = |record: Option<&Record<V>>| record.map_or(0, |record| row_sum(hash, record));
        let sum = &mut self.0[hash.bucket()];
        *sum = sum.wrapping_sub(share(before)).wrapping_add(share(after));
    }

    /// All sums, in bucket order.
    pub(crate) fn sums(&self) -> &[u64] {
        &self.0
    }
}

/// Sum of one row: every field that a merge looks at; a version stands for its value.
pub(crate) fn row_sum<V: Clone>(hash: KeyHash, record: &Record<V>) -> u64 {
    let mut sum = Sum(hash.number());
    if let Some(value) = &record.value {
        sum.add(1 + u64::from(value.is_deleted()));
        sum.add(value.version.stamp.bits());
        sum.add_origin(value.version.origin);
        sum.add(value.sequence);
        sum.add(value.absolute_deadline_ms);
        sum.add(value.bury_until_ms);
    }
    if let Some(touch) = &record.touch {
        sum.add(3);
        sum.add(touch.base.stamp.bits());
        sum.add_origin(touch.base.origin);
        sum.add(touch.idle_deadline_ms);
        sum.add_origin(touch.dot.origin);
        sum.add(touch.dot.sequence);
    }
    sum.0
}

/// A 64-bit mix (the finalizer of SplitMix64 after each word): stable on every machine.
struct Sum(u64);

impl Sum {
    fn add(&mut self, word: u64) {
        let mut mixed = (self.0 ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = mixed ^ (mixed >> 31);
    }

    fn add_origin(&mut self, origin: Origin) {
        self.add(origin.node.number());
        self.add(origin.epoch);
    }
}
