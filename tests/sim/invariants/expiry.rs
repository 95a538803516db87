//! What has expired by every clock is not readable.

use super::Look;
use crate::oracle::Violation;

pub(super) fn check(look: &Look<'_>) -> Result<(), Violation> {
    if look.is_expired() && look.is_found() {
        return Err(Violation(format!("expired session: node {} serves it", look.node)));
    }
    Ok(())
}
