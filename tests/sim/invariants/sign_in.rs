//! No acknowledged sign-in is lost: whoever could be told of it answers it.

use super::Look;
use crate::oracle::Violation;

pub(super) fn check(look: &Look<'_>) -> Result<(), Violation> {
    match look.session.signed_in.filter(|other| look.is_kept() && look.was_told(*other)) {
        Some(other) if !look.is_found() => Err(Violation(format!(
            "false logout: node {} answers {:?} for what node {other} acknowledged, {}",
            look.node,
            look.lookup,
            look.world.describe_clocks()
        ))),
        _ => Ok(()),
    }
}
