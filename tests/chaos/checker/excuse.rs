//! What the product does not promise: two nodes that cannot talk.
//!
//! A read may miss what was acknowledged on the other side of a cut, from the cut until the cluster is whole again.
//! Of two writes on two sides the one with the higher clock wins, and that of a node that has not seen the other may be
//! the earlier one, by as much as the clocks differ. Nothing else is excused: not kills, freezes, lost data or wrong
//! clocks of nodes that can talk.

use crate::history::{Disturbance, Operation};

/// By how much the clocks of two nodes of one machine may differ. A node refuses what is further ahead.
pub(super) const CLOCKS_DIFFER_US: u64 = 500_000;

/// The disturbances of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Excuses<'a> {
    disturbances: &'a [Disturbance],
}

impl<'a> Excuses<'a> {
    pub(super) fn of(disturbances: &'a [Disturbance]) -> Self {
        Self { disturbances }
    }

    /// Whether `reader` may miss, at `from_us`, what was acknowledged at `writer` at `acknowledged_us`.
    pub(super) fn may_miss(
        &self,
        (writer, acknowledged_us): (usize, u64),
        (reader, from_us): (usize, u64),
    ) -> bool {
        self.cuts(writer, reader).any(|cut| cut.start_us <= acknowledged_us && from_us <= cut.whole_us)
    }

    /// Whether a write at `later` may lose against one that was acknowledged at `earlier` just before it began.
    pub(super) fn may_lose(
        &self,
        (later, began_us): (usize, u64),
        (earlier, acknowledged_us): (usize, u64),
    ) -> bool {
        began_us.saturating_sub(acknowledged_us) <= CLOCKS_DIFFER_US
            && self
                .cuts(later, earlier)
                .any(|cut| cut.start_us <= acknowledged_us && began_us <= cut.whole_us)
    }

    /// Whether a node's clock was wrong during a request.
    pub(super) fn is_clock_wrong(&self, node: usize, from_us: u64, to_us: u64) -> bool {
        self.disturbances.iter().any(|disturbance| {
            disturbance.wrong_clock == Some(node)
                && disturbance.start_us <= to_us
                && from_us <= disturbance.whole_us
        })
    }

    /// As [`Excuses::is_clock_wrong`], of the node that was asked.
    pub(super) fn was_clock_wrong(&self, operation: &Operation) -> bool {
        self.is_clock_wrong(operation.node, operation.start_us, operation.end_us)
    }

    fn cuts(&self, one: usize, other: usize) -> impl Iterator<Item = &'a Disturbance> {
        self.disturbances.iter().filter(move |disturbance| {
            disturbance.cut.contains(&(one, other)) || disturbance.cut.contains(&(other, one))
        })
    }
}
