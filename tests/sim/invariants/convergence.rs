//! After heal and quiet every node is up and ready, all vectors agree, all rows are equal and every table lists the same.

use mneme_api::{Pattern, TableName};
use mneme_replica::Replica;
use mneme_replica::record::Record;
use mneme_replica::status::{DigestState, MemberState, MemberStatus};

use crate::oracle::{Oracle, Violation};
use crate::world::World;

pub(super) fn check(oracle: &Oracle, world: &World) -> Result<(), Violation> {
    let mut states = Vec::new();
    // One time for all: clocks differ, and deadlines fall between them.
    let now_ms = world.nodes[0].replica.as_ref().map_or(0, |replica| replica.status().now_ms);
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
        let members = replica.status().members;
        let is_unsure =
            |member: &&MemberStatus| member.state == MemberState::Live && member.digest != DigestState::Equal;
        if let Some(member) = members.iter().find(is_unsure) {
            return Err(Violation(format!("node {index} does not know that it is equal to {member:?}")));
        }
        let table = replica.table(&World::sessions());
        let held = oracle.sessions.keys().map(|key| {
            let hash = mneme_replica::id::KeyHash::of(key);
            // What has expired is dropped at steps of ten seconds, on some a moment before others.
            let is_kept = |record: &Record| record.is_deleted() || record.deadline_ms() > now_ms;
            table.as_ref().and_then(|table| table.row(hash)).map(|row| row.record).filter(is_kept)
        });
        let held: Vec<_> = held.collect();
        let lists = [World::sessions(), World::cache()].map(|name| list(replica, &name, now_ms));
        states.push((replica.vector(), held, lists));
    }
    let (first_vector, first_held, first_lists) = &states[0];
    for (index, (vector, held, lists)) in states.iter().enumerate() {
        if !vector.agrees_with(first_vector) {
            return Err(Violation(format!("vectors of nodes 0 and {index} differ after heal and quiet")));
        }
        if let Some(position) = held.iter().zip(first_held).position(|(a, b)| a != b) {
            let pair = (&first_held[position], &held[position]);
            return Err(Violation(format!("nodes 0 and {index} differ after heal and quiet: {pair:?}")));
        }
        if lists != first_lists {
            let pair = (first_lists, lists);
            return Err(Violation(format!(
                "nodes 0 and {index} list otherwise after heal and quiet: {pair:?}"
            )));
        }
    }
    Ok(())
}

/// Records whose end is not so near that clocks decide, with their versions.
fn list(replica: &Replica, name: &TableName, now_ms: u64) -> Vec<String> {
    let pattern = Pattern::from_path("**").expect("a pattern");
    let page =
        replica.table(name).map(|table| table.scan(&pattern, None, usize::MAX, now_ms)).unwrap_or_default();
    let is_lasting = |ttl_ms: u64| ttl_ms > 2_000;
    let lasting = page.records.into_iter().filter(|(_, found)| is_lasting(found.ttl_ms(now_ms)));
    lasting.map(|(key, found)| format!("{key:?} {} {:?}", found.version().etag(), found.bytes())).collect()
}
