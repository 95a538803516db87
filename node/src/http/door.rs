//! What every request of the client port meets before its handler, whatever it asks for.

use http::header::{EXPECT, HOST};
use http::request::Parts;
use http::{HeaderValue, Version};

use super::auth::AuthTokens;
use super::problem::{HEADER_BYTES_MAX, Problem, ProblemKind};

/// Refuses what no handler should see.
pub(super) fn check(parts: &Parts, tokens: Option<&AuthTokens>) -> Result<(), Problem> {
    if header_bytes(parts) > HEADER_BYTES_MAX {
        return Err(Problem::headers_too_large());
    }
    // RFC 9112, section 3.2: none, or more than one, is an error; one that differs from the target is not.
    if parts.version == Version::HTTP_11 && parts.headers.get_all(HOST).iter().count() != 1 {
        return Err(Problem::bad_request("a request of HTTP/1.1 has one Host header"));
    }
    let is_known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !parts.headers.get_all(EXPECT).iter().all(is_known) {
        return Err(Problem::new(
            ProblemKind::ExpectationUnknown,
            "100-continue is known here, nothing else",
        ));
    }
    if tokens.is_some_and(|tokens| !tokens.admit(&parts.headers)) {
        return Err(Problem::unauthorized());
    }
    Ok(())
}

fn header_bytes(parts: &Parts) -> usize {
    let target_bytes = parts.uri.path().len() + parts.uri.query().map_or(0, str::len);
    let headers = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    target_bytes + headers.sum::<usize>()
}
