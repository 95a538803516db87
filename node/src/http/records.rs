//! One record: read, store, delete. The hot path: dispatched by hand, the table is read without a task switch.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use mneme_api::{Key, TableConfig};
use mneme_replica::effect::{Acks, OperationResult, Outcome};
use mneme_replica::event::{Action, Command, Condition, Operation};
use mneme_replica::record::Value;
use mneme_replica::table::{Found, Lookup, Table};
use mneme_replica::version::Version;

use super::extract::ReadCondition;
use super::problem::{Answer, Problem, ProblemKind};
use super::request_body::RequestBody;
use super::{Api, extract};

/// How long a read waits while the node may not serve.
const SERVING_WAIT: Duration = Duration::from_secs(2);
/// How long a read waits for the version it asks for.
const VERSION_WAIT: Duration = Duration::from_millis(50);
/// How often it looks.
const VERSION_PAUSE: Duration = Duration::from_millis(2);

const TTL_MS: HeaderName = HeaderName::from_static("mneme-ttl-ms");
const ACKS: HeaderName = HeaderName::from_static("mneme-acks");
const MIN_VERSION: HeaderName = HeaderName::from_static("mneme-min-version");

impl Api {
    /// A table of the configuration.
    pub(super) fn table(&self, name: &str) -> Result<&(Arc<Table>, TableConfig), Problem> {
        let name = name.parse().map_err(|_| Problem::table_unknown())?;
        self.driver.table(&name).ok_or_else(Problem::table_unknown)
    }

    /// Waits while the node may not serve; node time when it may.
    pub(super) async fn serving(&self) -> Result<u64, Problem> {
        if let Some(now_ms) = self.driver.serving() {
            return Ok(now_ms);
        }
        // A node that is stopping will not serve again.
        tokio::select! {
            serving = self.driver.wait_until_serving(SERVING_WAIT) => {
                serving.ok_or_else(|| Problem::not_serving(self.driver.status().state))
            }
            () = self.draining.cancelled() => Err(Problem::draining()),
        }
    }

    /// Reads a key so that the answer is one this node may give: a process that was stopped between the look-up and
    /// the answer looks again.
    pub(super) async fn look_up(&self, table: &Table, key: &Key) -> Result<(Lookup, u64), Problem> {
        loop {
            let now_ms = self.serving().await?;
            let lookup = table.read(key, now_ms);
            if self.driver.serving().is_some() {
                return Ok((lookup, now_ms));
            }
        }
    }

    pub(super) async fn read_record(
        &self,
        table: &str,
        path: &str,
        parts: &Parts,
    ) -> Result<Answer, Problem> {
        let (table, config) = self.table(table)?;
        let key = extract::key(path)?;
        let query = extract::query(parts.uri.query(), &["touch"])?;
        check_lifetime("touch", query.touch_ms, config)?;
        let wanted = min_version(parts)?;
        let (lookup, now_ms) = self.look_up(table, &key).await?;
        let (lookup, now_ms) = match wanted {
            Some(wanted) if !has_version(&lookup, wanted) => self.wait_for(table, &key, wanted).await?,
            _ => (lookup, now_ms),
        };
        match lookup {
            Lookup::Found(found) => {
                if let Some(answer) = extract::read_condition(&parts.headers, found.version())? {
                    return answer_of_condition(answer, &found, now_ms);
                }
                let ttl_ms = match query.touch_ms {
                    Some(ttl_ms) => self.touch_after_read(table, key, &found, now_ms, ttl_ms),
                    None => found.ttl_ms(now_ms),
                };
                Ok(found_answer(&found, ttl_ms))
            }
            Lookup::Gone { version } => Err(Problem::record_deleted(&version.etag())),
            Lookup::Absent { .. } => Err(Problem::record_absent()),
        }
    }

    async fn wait_for(&self, table: &Table, key: &Key, wanted: Version) -> Result<(Lookup, u64), Problem> {
        let deadline = tokio::time::Instant::now() + VERSION_WAIT;
        loop {
            let (lookup, now_ms) = self.look_up(table, key).await?;
            if has_version(&lookup, wanted) {
                return Ok((lookup, now_ms));
            }
            if tokio::time::Instant::now() >= deadline {
                let detail =
                    "the version that the request asks for has not arrived; try again, or another node";
                return Err(Problem::new(ProblemKind::VersionMissing, detail));
            }
            tokio::time::sleep(VERSION_PAUSE).await;
        }
    }

    /// Moves the deadline later without waiting; most reads of a session find it far enough away. Gives the time to
    /// live that is left then: memory has it at once, or never when the touch is refused.
    fn touch_after_read(&self, table: &Table, key: Key, found: &Found, now_ms: u64, ttl_ms: u64) -> u64 {
        let is_due = now_ms + ttl_ms > found.deadline_ms && found.deadline_ms < found.absolute_deadline_ms;
        if !is_due {
            return found.ttl_ms(now_ms);
        }
        let action = Action::Touch { ttl_ms: Some(ttl_ms), exact: false };
        self.driver.write_in_background(single(table, key.clone(), action, Condition::Always));
        match table.read(&key, now_ms) {
            Lookup::Found(touched) => touched.ttl_ms(now_ms),
            Lookup::Gone { .. } | Lookup::Absent { .. } => found.ttl_ms(now_ms),
        }
    }

    pub(super) async fn put_record<B>(
        &self,
        table: &str,
        path: &str,
        parts: &Parts,
        body: &mut RequestBody<B>,
    ) -> Result<Answer, Problem>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let (table, config) = self.table(table)?;
        let key = extract::key(path)?;
        let query = extract::query(parts.uri.query(), &["ttl", "max_age", "ack", "timeout"])?;
        let condition = extract::condition(&parts.headers)?;
        let content_type = extract::content_type(&parts.headers)?;
        let bytes = body.read(config.max_value_bytes, &self.draining).await?;
        let value = Value::new(content_type, &bytes);
        let action = Action::Put { value, ttl_ms: query.ttl_ms, max_age_ms: query.max_age_ms };
        self.serving().await?;
        let command = single(table, key, action, condition);
        single_answer(self.driver.write(command, query.ack, query.timeout).await)
    }

    pub(super) async fn delete_record(
        &self,
        table: &str,
        path: &str,
        parts: &Parts,
    ) -> Result<Answer, Problem> {
        let (table, _) = self.table(table)?;
        let key = extract::key(path)?;
        let query = extract::query(parts.uri.query(), &["ack", "timeout"])?;
        let condition = extract::condition(&parts.headers)?;
        if condition == Condition::Absent {
            return Err(Problem::bad_request("a delete takes If-Match alone"));
        }
        self.serving().await?;
        let command = single(table, key, Action::Delete, condition);
        single_answer(self.driver.write(command, query.ack, query.timeout).await)
    }

    pub(super) async fn touch_record(
        &self,
        table: &str,
        path: &str,
        parts: &Parts,
    ) -> Result<Answer, Problem> {
        let (table, _) = self.table(table)?;
        let key = extract::key(path)?;
        let query = extract::query(parts.uri.query(), &["ttl", "exact", "ack", "timeout"])?;
        extract::no_condition(&parts.headers, "a touch takes none")?;
        self.serving().await?;
        let action = Action::Touch { ttl_ms: query.ttl_ms, exact: query.is_exact };
        let command = single(table, key, action, Condition::Always);
        single_answer(self.driver.write(command, query.ack, query.timeout).await)
    }

    /// One record's routes by method.
    pub(super) async fn record<B>(
        &self,
        table: &str,
        path: &str,
        parts: &Parts,
        body: &mut RequestBody<B>,
    ) -> Result<Answer, Problem>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        match parts.method {
            Method::GET | Method::HEAD => self.read_record(table, path, parts).await,
            Method::PUT => self.put_record(table, path, parts, body).await,
            Method::DELETE => self.delete_record(table, path, parts).await,
            _ => Err(Problem::method_not_allowed("GET, HEAD, PUT, DELETE")),
        }
    }
}

fn single(table: &Table, key: Key, action: Action, condition: Condition) -> Command {
    let operations = vec![Operation { key, action, condition }];
    Command::Apply { table: table.name().clone(), operations, is_batch: false }
}

/// A read's touch is checked here, because nobody waits for the replica's answer to it.
fn check_lifetime(parameter: &str, ms: Option<u64>, config: &TableConfig) -> Result<(), Problem> {
    if ms.is_some_and(|ms| u128::from(ms) > config.max_age.as_millis()) {
        let limit = mneme_api::format_duration(config.max_age);
        return Err(Problem::bad_request(format!("{parameter} is longer than the table's maxAge, {limit}")));
    }
    Ok(())
}

fn min_version(parts: &Parts) -> Result<Option<Version>, Problem> {
    let Some(etag) = extract::header(&parts.headers, &MIN_VERSION)? else { return Ok(None) };
    let version = Version::from_etag(etag);
    version.map(Some).ok_or_else(|| Problem::bad_request("Mneme-Min-Version takes an ETag, quotes included"))
}

/// Whether a read shows at least this version, or a tombstone.
fn has_version(lookup: &Lookup, wanted: Version) -> bool {
    match lookup {
        Lookup::Found(found) => found.version() >= wanted,
        Lookup::Gone { .. } | Lookup::Absent { tombstone: Some(_) } => true,
        Lookup::Absent { tombstone: None } => false,
    }
}

/// The answer to a read whose condition says that the value is not wanted.
fn answer_of_condition(answer: ReadCondition, found: &Found, now_ms: u64) -> Result<Answer, Problem> {
    match answer {
        ReadCondition::NotModified => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().insert(ETAG, ascii(found.version().etag()));
            response.headers_mut().insert(TTL_MS, HeaderValue::from(found.ttl_ms(now_ms)));
            Ok(response)
        }
        ReadCondition::Failed => Err(Problem::condition_failed(Some(&found.version().etag()))),
    }
}

/// The media type of a value as clients see it.
pub(crate) fn shown_content_type(content_type: &str) -> &str {
    if content_type.is_empty() { "application/octet-stream" } else { content_type }
}

fn found_answer(found: &Found, ttl_ms: u64) -> Answer {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(found.bytes())));
    let headers = response.headers_mut();
    headers.reserve(5);
    headers.insert(ETAG, ascii(found.version().etag()));
    headers.insert(TTL_MS, HeaderValue::from(ttl_ms));
    let content_type = match found.content_type() {
        "" => HeaderValue::from_static("application/octet-stream"),
        content_type => ascii(content_type.to_owned()),
    };
    headers.insert(CONTENT_TYPE, content_type);
    response
}

/// A header of text that was checked when it came in, or made here.
pub(super) fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// The outcome of a single operation as an answer.
fn single_answer(outcome: Outcome) -> Result<Answer, Problem> {
    match outcome {
        Outcome::Done { results, acks } => match results.into_iter().next() {
            Some(OperationResult::Created { etag }) => Ok(written(StatusCode::CREATED, etag, acks)),
            Some(
                OperationResult::Replaced { etag }
                | OperationResult::Touched { etag }
                | OperationResult::Deleted { etag },
            ) => Ok(written(StatusCode::NO_CONTENT, etag, acks)),
            Some(OperationResult::Gone { etag }) => Err(Problem::record_deleted(&etag)),
            Some(OperationResult::ConditionFailed { current }) => {
                Err(Problem::condition_failed(current.as_deref()))
            }
            _ => Err(Problem::record_absent()),
        },
        Outcome::Rejected(rejection) => Err(Problem::rejected(&rejection)),
        Outcome::Unknown { results, .. } => {
            let etag = results.first().and_then(attempt_etag);
            Err(Problem::outcome_unknown(etag))
        }
        // Only batches and deletes by match end so.
        Outcome::Swept { .. } | Outcome::BatchFailed { .. } => Err(Problem::record_absent()),
    }
}

fn attempt_etag(result: &OperationResult) -> Option<&str> {
    match result {
        OperationResult::Created { etag }
        | OperationResult::Replaced { etag }
        | OperationResult::Touched { etag }
        | OperationResult::Deleted { etag } => Some(etag),
        _ => None,
    }
}

fn written(status: StatusCode, etag: String, acks: Acks) -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(ETAG, ascii(etag));
    headers.insert(ACKS, acks_header(acks));
    response
}

/// Who holds a write, of the known members.
pub(super) fn acks_header(acks: Acks) -> HeaderValue {
    let Acks { applied, durable, members } = acks;
    let mut text = String::with_capacity(64);
    // Writing to a string cannot fail.
    let _ = write!(text, "applied={applied}/{members} durable={durable}/{members}");
    ascii(text)
}

/// Adds who holds a write.
pub(super) fn with_acks(mut answer: Answer, acks: Acks) -> Answer {
    answer.headers_mut().insert(ACKS, acks_header(acks));
    answer
}
