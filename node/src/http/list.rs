//! Lists, and delete by match: "sign out everywhere".

use std::time::Instant;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response};
use http_body_util::Full;
use mneme_api::{DeletedAnswer, Key, ListAnswer, ListedRecord, Pattern};
use mneme_replica::effect::{Acks, Outcome};
use mneme_replica::event::Command;
use mneme_replica::table::Found;

use super::problem::{Answer, Problem};
use super::records::{ascii, shown_content_type, with_acks};
use super::{Api, extract};

/// Bytes of a page's values: a page beyond it ends early, with a cursor.
const PAGE_BYTES_MAX: usize = 8 << 20;

const CURSOR: HeaderName = HeaderName::from_static("mneme-cursor");

impl Api {
    pub(super) async fn list(&self, table: &str, parts: &Parts) -> Result<Answer, Problem> {
        let (table, _) = self.table(table)?;
        let query = extract::query(parts.uri.query(), &["match", "limit", "cursor", "values"])?;
        let pattern = query.pattern.unwrap_or_else(Pattern::any);
        let page = loop {
            let now_ms = self.serving().await?;
            // One more than the page holds: whether there is a next one is known without a page of nothing.
            let page = table.scan(&pattern, query.after.as_ref(), query.limit + 1, now_ms);
            if self.driver.serving().is_some() {
                break (page, now_ms);
            }
        };
        let (page, now_ms) = page;
        let (mut records, mut bytes, mut resume_after) = (Vec::new(), 0, page.resume_after);
        let mut left = page.records.into_iter();
        while let Some((key, found)) = left.next() {
            bytes += if query.has_values { found.bytes().len() } else { 0 };
            records.push(listed(&key, &found, now_ms, query.has_values));
            let is_full = bytes > PAGE_BYTES_MAX || records.len() == query.limit;
            if is_full && left.len() > 0 {
                resume_after = Some(key);
                break;
            }
        }
        let cursor = resume_after.as_ref().map(extract::cursor);
        let is_ndjson = extract::header(&parts.headers, &ACCEPT)?.is_some_and(extract::wants_ndjson);
        Ok(if is_ndjson { ndjson(&records, cursor) } else { json(&ListAnswer { records, cursor }) })
    }

    pub(super) async fn delete_matching(&self, table: &str, parts: &Parts) -> Result<Answer, Problem> {
        let (table, _) = self.table(table)?;
        let query = extract::query(parts.uri.query(), &["match", "ack", "timeout"])?;
        extract::no_condition(&parts.headers, "a delete by match takes none")?;
        let pattern = query.pattern.ok_or_else(|| {
            Problem::bad_request("give match: `match=**` deletes every record of the table")
        })?;
        self.serving().await?;
        let (start, started) = (self.driver.scan_start(), Instant::now());
        let (mut deleted, mut after, mut least) = (0, None, None::<Acks>);
        loop {
            let command = Command::DeleteMatching {
                table: table.name().clone(),
                pattern: pattern.clone(),
                after,
                start: start.clone(),
            };
            let left = query.timeout.saturating_sub(started.elapsed());
            match self.driver.write(command, query.ack, left).await {
                Outcome::Swept { deleted: count, resume_after, acks } => {
                    deleted += count as u64;
                    if count > 0 {
                        least = Some(fewer(least, acks));
                    }
                    after = resume_after;
                }
                Outcome::Rejected(rejection) if deleted == 0 => return Err(Problem::rejected(&rejection)),
                // Some are deleted: neither "nothing was applied" nor done.
                _ => return Err(Problem::outcome_unknown(None)),
            }
            if after.is_none() {
                let answer = json(&DeletedAnswer { deleted });
                return Ok(match least {
                    Some(acks) => with_acks(answer, acks),
                    None => answer,
                });
            }
        }
    }
}

/// The weaker of two slices speaks for both.
fn fewer(one: Option<Acks>, other: Acks) -> Acks {
    one.map_or(other, |one| Acks {
        applied: one.applied.min(other.applied),
        durable: one.durable.min(other.durable),
        members: one.members.max(other.members),
    })
}

/// A record as lists and dumps show it.
pub(crate) fn listed(key: &Key, found: &Found, now_ms: u64, has_value: bool) -> ListedRecord {
    ListedRecord {
        key: key.clone(),
        etag: found.version().etag(),
        ttl_ms: found.ttl_ms(now_ms),
        content_type: shown_content_type(found.content_type()).to_owned(),
        value: has_value.then(|| mneme_api::Bytes(found.bytes().to_vec())),
    }
}

/// An answer in JSON.
pub(super) fn json(body: &impl serde::Serialize) -> Answer {
    // Strings, numbers and arrays: nothing that JSON could not hold.
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn ndjson(records: &[ListedRecord], cursor: Option<String>) -> Answer {
    let mut body = Vec::new();
    for record in records {
        body.extend(serde_json::to_vec(record).unwrap_or_default());
        body.push(b'\n');
    }
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    if let Some(cursor) = cursor {
        headers.insert(CURSOR, ascii(cursor));
    }
    response
}
