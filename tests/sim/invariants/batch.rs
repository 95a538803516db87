//! Batches are whole: two keys that are only ever written together are seen together.

use mneme_api::Key;
use mneme_replica::table::Lookup;

use crate::oracle::{Violation, number, read};
use crate::world::World;

pub(crate) fn check(world: &World, node: usize, a: &Key, b: &Key) -> Result<(), Violation> {
    let seen = |key: &Key| match read(world, node, key) {
        Some(Lookup::Found(found)) => Some(number(found.bytes())),
        _ => None,
    };
    if read(world, node, a).is_none() || seen(a) == seen(b) {
        return Ok(());
    }
    Err(Violation(format!("torn batch: node {node} has {:?} and {:?}", seen(a), seen(b))))
}
