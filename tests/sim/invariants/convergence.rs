//! After heal and quiet every node is up and ready, all vectors agree and all rows are equal.

use crate::oracle::{Oracle, Violation};
use crate::world::World;

pub(super) fn check(oracle: &Oracle, world: &World) -> Result<(), Violation> {
    let mut states = Vec::new();
    for (index, node) in world.nodes.iter().enumerate() {
        let Some(replica) = &node.replica else {
            return Err(Violation(format!("node {index} is down at the end")));
        };
        if let Some(refusal) = &node.exited {
            return Err(Violation(format!("node {index} wanted to exit: {refusal}")));
        }
        if !replica.is_ready() {
            return Err(Violation(format!("node {index} is not ready at the end: {:?}", replica.status())));
        }
        let table = replica.table(&World::sessions());
        let held = oracle.sessions.keys().map(|key| {
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
    Ok(())
}
