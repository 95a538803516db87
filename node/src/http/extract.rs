//! What requests say, parsed once: query parameters, conditions, headers.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName};
use mneme_api::{Key, Pattern, parse_duration};
use mneme_replica::event::{AckMode, Condition};
use mneme_replica::version::Version;

use super::problem::Problem;

/// How long a write waits unless it says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// How long a write may say that it waits: its connection is held that long.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Records in a page, at most and by default.
const PAGE_RECORDS_MAX: usize = 1_000;
const PAGE_RECORDS_DEFAULT: usize = 100;
/// Bytes of a media type, at most.
const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// Query parameters of every route; each route says which it takes.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    /// `ttl`, milliseconds.
    pub ttl_ms: Option<u64>,
    /// `max_age`, milliseconds.
    pub max_age_ms: Option<u64>,
    /// `touch`, milliseconds.
    pub touch_ms: Option<u64>,
    /// `exact`.
    pub is_exact: bool,
    /// `ack`.
    pub ack: AckMode,
    /// `timeout`: how long a write waits.
    pub timeout: Duration,
    /// `match`.
    pub pattern: Option<Pattern>,
    /// `limit`: records in a page.
    pub limit: usize,
    /// `cursor`: the key behind which the page begins.
    pub after: Option<Key>,
    /// `values`.
    pub has_values: bool,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            ttl_ms: None,
            max_age_ms: None,
            touch_ms: None,
            is_exact: false,
            ack: AckMode::All,
            timeout: TIMEOUT_DEFAULT,
            pattern: None,
            limit: PAGE_RECORDS_DEFAULT,
            after: None,
            has_values: false,
        }
    }
}

/// Parses a query of which only the parameters in `taken` are known.
pub(super) fn query(query: Option<&str>, taken: &[&str]) -> Result<Query, Problem> {
    let mut parsed = Query::default();
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(parsed) };
    let mut seen: Vec<&str> = Vec::new();
    // Nothing between two separators, or after the last, is nothing.
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, raw) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        let Some(name) = taken.iter().find(|taken| **taken == name) else {
            let names = taken.join(", ");
            return Err(Problem::bad_request(format!("there is an unknown query parameter; known: {names}")));
        };
        if seen.contains(name) {
            return Err(Problem::bad_request(format!("the query parameter {name} is there twice")));
        }
        seen.push(name);
        parsed.set(name, raw)?;
    }
    Ok(parsed)
}

impl Query {
    fn set(&mut self, name: &str, raw: &str) -> Result<(), Problem> {
        let bad = |reason: &dyn std::fmt::Display| Problem::bad_request(format!("{name}: {reason}"));
        if name == "match" {
            // Not decoded here: only an unencoded `*` is a wildcard, and `+` is a plus sign.
            self.pattern = Some(Pattern::from_path(raw).map_err(|error| bad(&error))?);
            return Ok(());
        }
        let decoded = percent_encoding::percent_decode_str(raw).decode_utf8();
        let value: Cow<'_, str> = decoded.map_err(|_| bad(&"the value is not UTF-8"))?;
        let duration_ms = || {
            let duration = parse_duration(&value).map_err(|error| bad(&error))?;
            Ok(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
        };
        let flag = || match value.as_ref() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(bad(&"give true or false")),
        };
        match name {
            "ttl" => self.ttl_ms = Some(duration_ms()?),
            "max_age" => self.max_age_ms = Some(duration_ms()?),
            "touch" => self.touch_ms = Some(duration_ms()?),
            "timeout" => self.timeout = Duration::from_millis(duration_ms()?).min(TIMEOUT_MAX),
            "exact" => self.is_exact = flag()?,
            "values" => self.has_values = flag()?,
            "ack" => {
                self.ack = match value.as_ref() {
                    "all" => AckMode::All,
                    "local" => AckMode::Local,
                    _ => return Err(bad(&"give local or all")),
                };
            }
            "limit" => {
                let is_number = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
                if value.is_empty() || !is_number {
                    return Err(bad(&"give a number from 1 to 1000"));
                }
                // What no number type holds is as good as the largest page.
                self.limit = value.parse::<usize>().unwrap_or(usize::MAX).min(PAGE_RECORDS_MAX);
            }
            // The only one left.
            _ => {
                self.after = Some(cursor_key(&value).ok_or_else(|| bad(&"it is no cursor of a list answer"))?)
            }
        }
        Ok(())
    }
}

/// The cursor behind a page that ends with `key`.
pub(super) fn cursor(key: &Key) -> String {
    URL_SAFE_NO_PAD.encode(key.encoded())
}

fn cursor_key(cursor: &str) -> Option<Key> {
    Key::from_encoded(&URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
}

/// `If-Match` and `If-None-Match` of a write.
pub(super) fn condition(headers: &HeaderMap) -> Result<Condition, Problem> {
    let if_match = header(headers, &IF_MATCH)?;
    let if_none_match = header(headers, &IF_NONE_MATCH)?;
    conditions(if_match, if_none_match, "If-Match", "If-None-Match")
}

/// What the conditions of a read say about a record that is there.
pub(super) enum ReadCondition {
    /// The client has this version.
    NotModified,
    /// It wants another.
    Failed,
}

/// `If-Match` and `If-None-Match` of a read, as RFC 9110 has them; `None`: the value is wanted.
pub(super) fn read_condition(
    headers: &HeaderMap,
    version: Version,
) -> Result<Option<ReadCondition>, Problem> {
    let (if_match, if_none_match) = (header(headers, &IF_MATCH)?, header(headers, &IF_NONE_MATCH)?);
    if if_match.is_none() && if_none_match.is_none() {
        return Ok(None);
    }
    let etag = version.etag();
    let names = |list: &str, is_weak: bool| {
        list.trim() == "*"
            || list.split(',').map(str::trim).any(|named| {
                named == etag || is_weak && named.strip_prefix("W/").is_some_and(|named| named == etag)
            })
    };
    if if_match.is_some_and(|list| !names(list, false)) {
        return Ok(Some(ReadCondition::Failed));
    }
    let is_known = if_none_match.is_some_and(|list| names(list, true));
    Ok(is_known.then_some(ReadCondition::NotModified))
}

/// Refuses conditions where none is looked at: a client that gives one relies on it.
pub(super) fn no_condition(headers: &HeaderMap, instead: &str) -> Result<(), Problem> {
    if headers.contains_key(IF_MATCH) || headers.contains_key(IF_NONE_MATCH) {
        return Err(Problem::bad_request(format!(
            "If-Match and If-None-Match are not taken here: {instead}"
        )));
    }
    Ok(())
}

/// Whether `Accept` asks for lines of JSON: named, not refused, and wanted no less than JSON where that is named too.
pub(super) fn wants_ndjson(accept: &str) -> bool {
    let (mut lines, mut json) = (0.0_f32, 0.0_f32);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality = quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0));
        match media_type.as_str() {
            "application/x-ndjson" | "application/ndjson" => lines = quality,
            "application/json" => json = quality,
            _ => {}
        }
    }
    lines > 0.0 && lines >= json
}

/// The same from a batch's fields.
pub(super) fn conditions(
    if_match: Option<&str>,
    if_none_match: Option<&str>,
    match_name: &str,
    none_match_name: &str,
) -> Result<Condition, Problem> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::Always),
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(_)) => Err(Problem::bad_request(format!("{none_match_name} takes * alone"))),
        (Some("*"), None) => Ok(Condition::Present),
        (Some(etags), None) => {
            let etags: Vec<String> = etags.split(',').map(|etag| etag.trim().to_owned()).collect();
            let is_etag = |etag: &String| {
                let inner = etag.strip_prefix("W/").unwrap_or(etag);
                inner.len() >= 2 && inner.starts_with('"') && inner.ends_with('"')
            };
            if etags.iter().all(is_etag) {
                Ok(Condition::Matches(etags))
            } else {
                Err(Problem::bad_request(format!("{match_name} takes * or ETags, quotes included")))
            }
        }
        (Some(_), Some(_)) => {
            Err(Problem::bad_request(format!("give {match_name} or {none_match_name}, not both")))
        }
    }
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| Problem::bad_request(format!("the header {name} is not ASCII")))
}

/// The media type a value comes with; empty when none is given.
pub(super) fn content_type(headers: &HeaderMap) -> Result<&str, Problem> {
    check_content_type(header(headers, &CONTENT_TYPE)?.unwrap_or_default())
}

/// Refuses what could not stand in a header again.
pub(super) fn check_content_type(content_type: &str) -> Result<&str, Problem> {
    let is_printable = content_type.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if content_type.len() > CONTENT_TYPE_BYTES_MAX || !is_printable {
        return Err(Problem::bad_request("the content type is at most 255 printable ASCII characters"));
    }
    Ok(content_type)
}

/// The key of a record's path.
pub(super) fn key(path: &str) -> Result<Key, Problem> {
    Key::from_path(path).map_err(|error| Problem::bad_request(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(text: &str) {
        let taken = ["ttl", "limit", "cursor", "match", "ack", "values", "timeout"];
        assert!(query(Some(text), &taken).is_err(), "{text}");
    }

    #[test]
    fn bad_parameters_are_refused() {
        for text in [
            "nope=1",
            "ttl=0s",
            "ttl=5",
            "ttl",
            "ttl=1s&ttl=2s",
            "limit=0",
            "limit=-1",
            "limit=x",
            "limit=+5",
            "limit=01",
            "limit=",
            "cursor=!",
            "cursor=AA",
            "match=",
            "match=a*",
            "match=**/a",
            "match=a//b",
            "match=%zz",
            "ack=some",
            "values=1",
            "timeout=99999d",
            "ttl=%ff",
            "=",
        ] {
            check_refused(text);
        }
    }

    #[test]
    fn a_limit_is_cut_and_a_cursor_comes_back() {
        let key = Key::from_path("user/42").expect("a key");
        let text = format!("limit=5000&cursor={}", cursor(&key));
        let parsed = query(Some(&text), &["limit", "cursor"]).expect("well-formed");
        assert_eq!((parsed.limit, parsed.after), (1_000, Some(key)));
    }

    #[test]
    fn names_may_be_encoded_and_separators_may_be_too_many() {
        for text in ["tt%6c=30m&", "&ttl=30m", "ttl=30m&&limit=5"] {
            let parsed = query(Some(text), &["ttl", "limit"]).expect(text);
            assert_eq!(parsed.ttl_ms, Some(1_800_000), "{text}");
        }
        assert!(query(Some("&"), &[]).is_ok());
        assert!(query(Some("ttl=1m&tt%6c=1m"), &["ttl"]).is_err());
    }

    #[test]
    fn lines_are_for_those_who_ask_for_them() {
        for accept in [
            "application/x-ndjson",
            "Application/X-NDJSON;q=0.5",
            "application/json, application/x-ndjson",
            "application/json;q=0.1, application/x-ndjson;q=0.2",
        ] {
            assert!(wants_ndjson(accept), "{accept}");
        }
        for accept in ["", "*/*", "application/x-ndjson;q=0", "application/json, application/x-ndjson; q=0.9"]
        {
            assert!(!wants_ndjson(accept), "{accept}");
        }
    }

    #[test]
    fn conditions_are_one_choice() {
        let check = |if_match, if_none_match| conditions(if_match, if_none_match, "a", "b").ok();
        assert_eq!(check(None, None), Some(Condition::Always));
        assert_eq!(check(None, Some("*")), Some(Condition::Absent));
        assert_eq!(check(Some("*"), None), Some(Condition::Present));
        let etags = Condition::Matches(vec!["\"a\"".to_owned(), "\"b\"".to_owned()]);
        assert_eq!(check(Some("\"a\", \"b\""), None), Some(etags));
        for (if_match, if_none_match) in
            [(Some("a"), None), (None, Some("\"a\"")), (Some("*"), Some("*")), (Some(""), None)]
        {
            assert_eq!(check(if_match, if_none_match), None);
        }
    }
}
