//! What clients were promised. The properties that follow are in `invariants/`, one a file.

use std::collections::{BTreeMap, BTreeSet};

use mneme_api::Key;
use mneme_replica::record::Value;
use mneme_replica::table::Lookup;

use crate::fault::Fault;
use crate::world::World;

/// Two nodes that could talk this long have no excuse: a second to be suspected, and a heartbeat
/// with its delays to be told.
pub(crate) const TALKED_MS: u64 = 2_000;

/// What is known of one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    /// Node that acknowledged the sign-in.
    pub(crate) signed_in: Option<usize>,
    /// A delete was sent, acknowledged or not.
    pub(crate) is_delete_tried: bool,
    /// Node that acknowledged the sign-out.
    pub(crate) signed_out: Option<usize>,
    /// Highest value that was acknowledged by everyone, and where; values only grow.
    pub(crate) value: u64,
    pub(crate) value_node: usize,
    /// Values of which nobody learned whether they were taken: each may appear at any time, even over one that was acknowledged
    /// later by a clock that is behind.
    pub(crate) unknown_values: BTreeSet<u64>,
    /// Simulated time at which it has expired by every clock; `None` while it is kept alive.
    pub(crate) expired_ms: Option<u64>,
}

impl Session {
    /// A touch of it can prolong nothing: it was to be signed out, and nobody waits for its expiry.
    pub(crate) fn is_signed_out_for_good(&self) -> bool {
        self.is_delete_tried && self.expired_ms.is_none()
    }
}

/// What broke.
#[derive(Clone, Debug)]
pub(crate) struct Violation(pub(crate) String);

/// All promises given so far.
#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) sessions: BTreeMap<Key, Session>,
}

impl Oracle {
    /// Whoever wrote a value never learned whether it was taken.
    pub(crate) fn note_unknown(&mut self, key: &Key, number: u64) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.unknown_values.insert(number);
        }
    }
}

/// A value as the clients write it: a number.
pub(crate) fn value(number: u64) -> Value {
    Value::new("text/plain", &number.to_le_bytes())
}

/// The number in a value.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// Reads as a request handler does: the gate, the table, the gate again. `None`: not served.
pub(crate) fn read(world: &World, node: usize, key: &Key) -> Option<Lookup> {
    if world.is_frozen(node) {
        return None;
    }
    let replica = world.nodes[node].replica.as_ref()?;
    let gate = replica.gate();
    let boot_ms = world.boot_ms();
    let mut now_ms = match world.fault {
        Some(Fault::ReturningServesAtOnce) => gate.now_ms(boot_ms),
        _ => gate.check(boot_ms)?,
    };
    if world.fault == Some(Fault::ExpiryIgnored) {
        now_ms = 0;
    }
    Some(replica.table(&World::sessions())?.read(key, now_ms))
}
