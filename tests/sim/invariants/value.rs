//! An acknowledged value is read on every node that could be told of it.

use mneme_replica::table::Lookup;

use super::Look;
use crate::oracle::{Violation, number};

pub(super) fn check(look: &Look<'_>) -> Result<(), Violation> {
    let Lookup::Found(found) = &look.lookup else { return Ok(()) };
    let (session, found) = (look.session, number(found.bytes()));
    let is_older = found < session.value && !session.unknown_values.contains(&found);
    if look.is_kept() && look.was_told(session.value_node) && is_older {
        return Err(Violation(format!(
            "stale value: node {} serves {} where node {} acknowledged {}",
            look.node, found, session.value_node, session.value
        )));
    }
    Ok(())
}
