//! A session whose delete was acknowledged is never readable again, on any node that could be told.

use super::Look;
use crate::oracle::Violation;

pub(super) fn check(look: &Look<'_>) -> Result<(), Violation> {
    match look.session.signed_out.filter(|other| look.was_told(*other)) {
        Some(other) if look.is_found() => {
            Err(Violation(format!("revived session: node {} serves what node {other} deleted", look.node)))
        }
        _ => Ok(()),
    }
}
