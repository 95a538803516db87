//! What every request of the client port meets before its handler, whatever it asks for.

use http::Version;
use http::header::{EXPECT, HOST};
use http::request::Parts;

use super::auth::AuthTokens;
use super::problem::{HEADER_BYTES_MAX, Problem, ProblemKind};

/// Refuses what no handler should see.
pub(super) fn check(parts: &Parts, tokens: Option<&AuthTokens>) -> Result<(), Problem> {
    let target_bytes = parts.uri.path().len() + parts.uri.query().map_or(0, str::len);
    let (mut header_bytes, mut hosts, mut is_expectation_known) = (target_bytes, 0, true);
    // One pass: it is on the way of every request.
    for (name, value) in &parts.headers {
        header_bytes += name.as_str().len() + value.len() + 4;
        if name == HOST {
            hosts += 1;
        } else if name == EXPECT {
            is_expectation_known &= value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        }
    }
    if header_bytes > HEADER_BYTES_MAX {
        return Err(Problem::headers_too_large());
    }
    // RFC 9112, section 3.2: none, or more than one, is an error; one that differs from the target is not.
    if parts.version == Version::HTTP_11 && hosts != 1 {
        return Err(Problem::bad_request("a request of HTTP/1.1 has one Host header"));
    }
    if !is_expectation_known {
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
