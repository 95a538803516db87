//! An acknowledged value is read on every node that could be told of it.

use mneme_replica::table::Lookup;

use super::Look;
use crate::oracle::{Violation, number};

pub(super) fn check(look: &Look<'_>) -> Result<(), Violation> {
    let Lookup::Found(found) = &look.lookup else { return Ok(()) };
    let session = look.session;
    if look.is_kept() && look.was_told(session.value_node) && number(found.bytes()) < session.value {
        return Err(Violation(format!(
            "stale value: node {} serves {} where node {} acknowledged {}",
            look.node,
            number(found.bytes()),
            session.value_node,
            session.value
        )));
    }
    Ok(())
}
