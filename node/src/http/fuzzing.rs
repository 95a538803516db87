//! The parsers of requests, for the suite that brings hostile bytes to every parser. Nothing else calls this.

use mneme_api::Key;
use mneme_replica::event::{Condition, Operation};

pub use super::extract::Query;
use super::problem::Problem;
use super::{batch, extract};

/// Reads a query of which the parameters in `taken` are known.
///
/// # Errors
///
/// The body of the answer that a client gets.
pub fn query(text: &str, taken: &[&str]) -> Result<Query, Vec<u8>> {
    extract::query(Some(text), taken).map_err(told)
}

/// The cursor behind a page that ends with `key`.
pub fn cursor(key: &Key) -> String {
    extract::cursor(key)
}

/// Reads the values of `If-Match` and `If-None-Match`.
///
/// # Errors
///
/// The body of the answer that a client gets.
pub fn conditions(if_match: Option<&str>, if_none_match: Option<&str>) -> Result<Condition, Vec<u8>> {
    extract::conditions(if_match, if_none_match, "If-Match", "If-None-Match").map_err(told)
}

/// Whether this `Accept` asks for lines of JSON.
pub fn wants_ndjson(accept: &str) -> bool {
    extract::wants_ndjson(accept)
}

/// Reads the JSON of a batch.
///
/// # Errors
///
/// The body of the answer that a client gets.
pub fn operations(bytes: &[u8]) -> Result<Vec<Operation>, Vec<u8>> {
    batch::operations(bytes).map_err(told)
}

fn told(problem: Problem) -> Vec<u8> {
    problem.body()
}
