//! What clients were promised, and the properties that must hold whatever happens.

use std::collections::BTreeMap;

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
    /// Simulated time at which it has expired by every clock; `None` while it is kept alive.
    pub(crate) expired_ms: Option<u64>,
}

/// What broke.
#[derive(Clone, Debug)]
pub(crate) struct Violation(pub(crate) String);

/// All promises given so far.
#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) sessions: BTreeMap<Key, Session>,
}

/// A value as the clients write it: a number.
pub(crate) fn value(number: u64) -> Value {
    Value::new("text/plain", &number.to_le_bytes())
}

fn number(bytes: &[u8]) -> u64 {
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

impl Oracle {
    /// Checks one read of a session at one node.
    pub(crate) fn check_read(&self, world: &World, node: usize, key: &Key) -> Result<(), Violation> {
        let Some(session) = self.sessions.get(key) else { return Ok(()) };
        let Some(lookup) = read(world, node, key) else { return Ok(()) };
        // A node whose disk was replaced knows nothing of its past until it has met the others.
        let remembers = |other: usize| other == node && world.nodes[node].replaced_ms.is_none();
        let told = |other: usize| remembers(other) || world.could_talk(node, other, TALKED_MS);
        let is_found = matches!(lookup, Lookup::Found(_));
        if let Some(other) = session.signed_out.filter(|other| told(*other))
            && is_found
        {
            return Err(Violation(format!("revived session: node {node} serves what node {other} deleted")));
        }
        if session.expired_ms.is_some_and(|expired_ms| world.now_ms >= expired_ms) {
            return if is_found {
                Err(Violation(format!("expired session: node {node} serves it")))
            } else {
                Ok(())
            };
        }
        let is_kept = session.expired_ms.is_none() && !session.is_delete_tried;
        if let Some(other) = session.signed_in.filter(|other| is_kept && told(*other))
            && !is_found
        {
            return Err(Violation(format!(
                "false logout: node {node} answers {lookup:?} for what node {other} acknowledged"
            )));
        }
        if let Lookup::Found(found) = &lookup
            && is_kept
            && told(session.value_node)
            && number(found.bytes()) < session.value
        {
            return Err(Violation(format!(
                "stale value: node {node} serves {} where node {} acknowledged {}",
                number(found.bytes()),
                session.value_node,
                session.value
            )));
        }
        Ok(())
    }

    /// Checks that two keys of one batch are seen together.
    pub(crate) fn check_pair(world: &World, node: usize, a: &Key, b: &Key) -> Result<(), Violation> {
        let seen = |key: &Key| match read(world, node, key) {
            Some(Lookup::Found(found)) => Some(number(found.bytes())),
            _ => None,
        };
        if read(world, node, a).is_none() || seen(a) == seen(b) {
            return Ok(());
        }
        Err(Violation(format!("torn batch: node {node} has {:?} and {:?}", seen(a), seen(b))))
    }

    /// After heal and quiet: all ready, all equal, every promise kept everywhere.
    pub(crate) fn check_end(&self, world: &World) -> Result<(), Violation> {
        let mut states = Vec::new();
        for (index, node) in world.nodes.iter().enumerate() {
            let Some(replica) = &node.replica else {
                return Err(Violation(format!("node {index} is down at the end")));
            };
            if let Some(refusal) = &node.exited {
                return Err(Violation(format!("node {index} wanted to exit: {refusal}")));
            }
            if !replica.is_ready() {
                return Err(Violation(format!(
                    "node {index} is not ready at the end: {:?}",
                    replica.status()
                )));
            }
            let table = replica.table(&World::sessions());
            let held = self.sessions.keys().map(|key| {
                let hash = mneme_replica::id::KeyHash::of(key);
                table.as_ref().and_then(|table| table.row(hash)).map(|row| row.record)
            });
            let held: Vec<_> = held.collect();
            states.push((replica.vector(), held));
        }
        let (first_vector, first_held) = &states[0];
        for (index, (vector, held)) in states.iter().enumerate() {
            if !vector.agrees_with(first_vector) {
                return Err(Violation(format!("vectors of nodes 0 and {index} differ after heal and quiet")));
            }
            if let Some(position) = held.iter().zip(first_held).position(|(a, b)| a != b) {
                let pair = (&first_held[position], &held[position]);
                return Err(Violation(format!("nodes 0 and {index} differ after heal and quiet: {pair:?}")));
            }
        }
        for index in 0..world.nodes.len() {
            for key in self.sessions.keys() {
                self.check_read(world, index, key)?;
            }
        }
        Ok(())
    }
}
