//! A touch never creates: a key that nobody ever signed in is found nowhere.

use mneme_api::Key;
use mneme_replica::table::Lookup;

use crate::oracle::{Violation, read};
use crate::world::World;

pub(crate) fn check(world: &World, node: usize, ghost: &Key) -> Result<(), Violation> {
    match read(world, node, ghost) {
        Some(Lookup::Found(_)) => {
            Err(Violation(format!("a touch created: node {node} serves what nobody stored")))
        }
        _ => Ok(()),
    }
}
