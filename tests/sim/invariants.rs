//! The properties that must hold whatever happens: one a file, each named after what it promises.

mod answered;
mod batch;
mod bounds;
mod convergence;
mod expiry;
mod sign_in;
mod sign_out;
mod touch;
mod value;

use mneme_api::Key;
use mneme_replica::table::Lookup;

use crate::oracle::{Oracle, Session, TALKED_MS, Violation, read};
use crate::world::World;

pub(crate) use self::answered::check as check_answered;
pub(crate) use self::batch::check as check_pair;
pub(crate) use self::bounds::check as check_bounds;
pub(crate) use self::touch::check as check_ghost;

/// One read of a session at one node.
pub(crate) struct Look<'a> {
    world: &'a World,
    node: usize,
    session: &'a Session,
    lookup: Lookup,
}

impl Look<'_> {
    /// Whether this node has to know what `other` acknowledged: its own doing, or it could talk with it for long
    /// enough. A node whose disk was replaced knows nothing of its past until it has met the others; one that booted with
    /// a clock that is ahead takes for expired what is not, until one of them tells it the time.
    fn was_told(&self, other: usize) -> bool {
        let is_lost_in_time =
            self.world.is_clock_in_doubt(self.node) && !self.world.could_talk_with_any(self.node, TALKED_MS);
        let remembers = other == self.node
            && self.world.nodes[self.node].replaced_ms.is_none()
            && !is_lost_in_time
            && !self.world.is_doubled(self.node);
        remembers || other != self.node && self.world.could_talk(self.node, other, TALKED_MS)
    }

    fn is_found(&self) -> bool {
        matches!(self.lookup, Lookup::Found(_))
    }

    fn is_expired(&self) -> bool {
        self.session.expired_ms.is_some_and(|expired_ms| self.world.now_ms >= expired_ms)
    }

    /// Nobody has tried to end it, and it does not end by itself.
    fn is_kept(&self) -> bool {
        self.session.expired_ms.is_none() && !self.session.is_delete_tried
    }
}

/// Checks one read of a session at one node; a node that does not answer promises nothing.
pub(crate) fn check_read(oracle: &Oracle, world: &World, node: usize, key: &Key) -> Result<(), Violation> {
    let Some(session) = oracle.sessions.get(key) else { return Ok(()) };
    let Some(lookup) = read(world, node, key) else { return Ok(()) };
    let look = Look { world, node, session, lookup };
    sign_out::check(&look)?;
    expiry::check(&look)?;
    sign_in::check(&look)?;
    value::check(&look)
}

/// Checks everything after heal and quiet.
pub(crate) fn check_end(oracle: &Oracle, world: &World) -> Result<(), Violation> {
    convergence::check(oracle, world)?;
    check_bounds(world)?;
    for index in 0..world.nodes.len() {
        for key in oracle.sessions.keys() {
            check_read(oracle, world, index, key)?;
        }
    }
    Ok(())
}
