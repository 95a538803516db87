//! Every request that a process lived to answer is answered.

use crate::oracle::Violation;

pub(crate) fn check(open: Option<impl std::fmt::Debug>) -> Result<(), Violation> {
    match open {
        Some(wish) => Err(Violation(format!("a request was never answered: {wish:?}"))),
        None => Ok(()),
    }
}
