//! What has expired by every clock is not readable.

use super::Look;
use crate::oracle::Violation;

pub(super) fn check(look: &Look<'_>) -> Result<(), Violation> {
    // Expiry is judged by node time; a node that has yet to follow a step of all clocks is behind, and not ready.
    // A touch by a clock that was ahead, at a node that was alone, prolongs by as much.
    let is_clock_fit = !look.world.is_clock_in_doubt(look.node) && look.world.stamped_until_ms == 0;
    if look.is_expired() && look.is_found() && is_clock_fit {
        return Err(Violation(format!("expired session: node {} serves it", look.node)));
    }
    Ok(())
}
