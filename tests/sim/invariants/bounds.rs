//! Bounds are kept: what waits for a peer, writes in flight, members.

use mneme_replica::Replica;
use mneme_replica::limits::{MEMBERS_MAX, OUTBOX_BYTES_MAX, WRITES_IN_FLIGHT_MAX};

use crate::oracle::Violation;
use crate::world::World;

pub(crate) fn check(world: &World) -> Result<(), Violation> {
    for (index, replica) in world.nodes.iter().map(|node| &node.replica).enumerate() {
        let Some(status) = replica.as_ref().map(Replica::status) else { continue };
        let waiting_bytes = status.members.iter().map(|member| member.outbox_bytes).max().unwrap_or(0);
        if waiting_bytes > OUTBOX_BYTES_MAX
            || status.writes_in_flight > WRITES_IN_FLIGHT_MAX
            || status.members.len() > MEMBERS_MAX
        {
            return Err(Violation(format!("a bound is not kept on node {index}: {status:?}")));
        }
    }
    Ok(())
}
