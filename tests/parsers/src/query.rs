//! What the rest of a request says: query, conditions, what it accepts.

use std::time::Duration;

use mneme_node::http::fuzzing::{self, Query};
use mneme_replica::event::{AckMode, Condition};
use mneme_replica::version::Version;

use crate::assert_tells_nothing;

/// All parameters that some route takes.
const NAMES: [&str; 10] =
    ["ttl", "max_age", "touch", "exact", "ack", "timeout", "match", "limit", "cursor", "values"];
/// Milliseconds of the longest duration there is: 3650 days.
const DURATION_MS_MAX: u64 = 3_650 * 86_400_000;

/// Reads the input's lines as query, `If-Match`, `If-None-Match` and `Accept`.
///
/// # Panics
///
/// When something does not hold.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n');
    let query = lines.next().unwrap_or_default();
    check_query(query);
    let (if_match, if_none_match) = (lines.next(), lines.next());
    match fuzzing::conditions(if_match, if_none_match) {
        Err(told) => assert_tells_nothing(&told),
        Ok(Condition::Matches(etags)) => {
            assert!(if_match.is_some() && if_none_match.is_none() && !etags.is_empty());
            assert!(etags.iter().all(|etag| etag.ends_with('"') && etag.len() >= 2));
        }
        Ok(Condition::Absent) => assert_eq!((if_match, if_none_match), (None, Some("*"))),
        Ok(Condition::Present) => assert_eq!((if_match, if_none_match), (Some("*"), None)),
        Ok(Condition::Always) => assert_eq!((if_match, if_none_match), (None, None)),
    }
    if let Some(etag) = if_match
        && let Some(version) = Version::from_etag(etag)
    {
        assert_eq!(Version::from_etag(&version.etag()), Some(version), "an ETag names one version");
    }
    if let Some(accept) = lines.next() {
        let wanted = fuzzing::wants_ndjson(accept);
        assert!(!wanted || accept.to_ascii_lowercase().contains("ndjson"));
    }
}

fn check_query(text: &str) {
    // Each route takes some of them only.
    for taken in [&NAMES[..], &NAMES[..6], &NAMES[6..]] {
        let parsed = match fuzzing::query(text, taken) {
            Ok(parsed) => parsed,
            Err(told) => {
                assert_tells_nothing(&told);
                continue;
            }
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).count();
        assert!(pairs <= taken.len(), "a parameter is there once, and known");
        let durations = [parsed.ttl_ms, parsed.max_age_ms, parsed.touch_ms];
        assert!(durations.into_iter().flatten().all(|ms| (1..=DURATION_MS_MAX).contains(&ms)));
        assert!((Duration::from_millis(1)..=Duration::from_secs(60)).contains(&parsed.timeout));
        assert!((1..=1_000).contains(&parsed.limit));
        parsed.after.iter().for_each(crate::key::check_key);
        let written = written(&parsed, text);
        assert_eq!(fuzzing::query(&written, taken).as_ref(), Ok(&parsed), "{written}");
    }
}

/// The query anew. A pattern is not to be had from what was parsed: it is taken from the text.
fn written(query: &Query, text: &str) -> String {
    let standard = Query::default();
    let mut pairs = Vec::new();
    for (name, ms) in [("ttl", query.ttl_ms), ("max_age", query.max_age_ms), ("touch", query.touch_ms)] {
        pairs.extend(ms.map(|ms| format!("{name}={ms}ms")));
    }
    if query.is_exact {
        pairs.push("exact=true".to_owned());
    }
    if query.has_values {
        pairs.push("values=true".to_owned());
    }
    if query.ack == AckMode::Local {
        pairs.push("ack=local".to_owned());
    }
    if query.timeout != standard.timeout {
        pairs.push(format!("timeout={}ms", query.timeout.as_millis()));
    }
    if query.limit != standard.limit {
        pairs.push(format!("limit={}", query.limit));
    }
    pairs.extend(query.after.as_ref().map(|key| format!("cursor={}", fuzzing::cursor(key))));
    if query.pattern.is_some() {
        // The name may be percent-encoded.
        let is_match = |pair: &&str| {
            let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
            crate::key::decoded(name).as_deref() == Some(b"match")
        };
        let raw = text.split('&').find(is_match).and_then(|pair| pair.split_once('='));
        pairs.push(format!("match={}", raw.expect("a pattern came from somewhere").1));
    }
    pairs.join("&")
}
