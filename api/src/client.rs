//! A typed async client of the client API.
//!
//! One client talks to one node (the one beside the application, or a load balancer before several) over a pool of
//! HTTP/1.1 connections. Cheap to clone. It retries nothing: whether a write may be repeated is the application's to
//! know.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::{BatchAnswer, BatchRequest, DeletedAnswer, Key, ListAnswer, Problem, TableName, format_duration};

/// Bytes of an answer, at most.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Time that an answer takes, at most, unless [`Client::with_timeout`] says otherwise: longer than a write waits.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address of the node, or the token, is malformed.
    #[error("failed to make a client: {0}")]
    Configure(String),
    /// The node was not reached, or the connection broke: a write may have been applied.
    #[error("failed to reach the node")]
    Reach(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time: a write may have been applied.
    #[error("the node did not answer in time")]
    Timeout,
    /// The node answered 504: the write may have been applied, and carries this version if it was.
    #[error("the outcome of the write is unknown")]
    Unknown {
        /// Version of the attempt.
        etag: Option<String>,
    },
    /// The node refused: certainly nothing was applied.
    #[error("the node refused: {} ({})", .0.detail, .0.status)]
    Refused(Problem),
    /// The answer makes no sense.
    #[error("the node's answer cannot be read: {0}")]
    Answer(String),
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The value.
    pub value: Bytes,
    /// Its media type; `application/octet-stream` when none was given.
    pub content_type: String,
    /// Its version.
    pub etag: String,
    /// Time until it expires.
    pub ttl: Duration,
}

/// How a read ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// There it is.
    Found(Record),
    /// Nothing is there.
    Absent,
    /// It was deleted, for good.
    Deleted,
}

/// How a put ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A record was made; its version.
    Created(String),
    /// A value was replaced; its version.
    Replaced(String),
    /// The key was deleted before, for good: nothing was stored.
    Deleted,
    /// The condition does not hold: nothing was stored.
    ConditionFailed,
}

/// Choices of a put.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// Idle time to live; `None` is the table's.
    pub ttl: Option<Duration>,
    /// Longest life; `None` is the table's.
    pub max_age: Option<Duration>,
    /// Media type of the value.
    pub content_type: Option<String>,
    /// Only when nothing is there.
    pub only_new: bool,
    /// Only when this version is there.
    pub if_match: Option<String>,
}

/// A client of one node.
#[derive(Clone, Debug)]
pub struct Client {
    http: HyperClient<HttpConnector, Full<Bytes>>,
    base: String,
    token: Option<HeaderValue>,
    timeout: Duration,
}

impl Client {
    /// A client of the node at `base`, such as `http://127.0.0.1:7070`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Configure`] when that is no such address.
    pub fn new(base: &str) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/').to_owned();
        let uri: http::Uri =
            base.parse().map_err(|error| ClientError::Configure(format!("{base:?}: {error}")))?;
        if uri.scheme_str() != Some("http") || uri.authority().is_none() {
            return Err(ClientError::Configure(format!("{base:?} is not http://host:port")));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        let http = HyperClient::builder(TokioExecutor::new()).build(connector);
        Ok(Self { http, base, token: None, timeout: TIMEOUT })
    }

    /// The same with a token for `Authorization: Bearer`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Configure`] when the token cannot stand in a header.
    pub fn with_token(mut self, token: &str) -> Result<Self, ClientError> {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| ClientError::Configure("the token cannot stand in a header".to_owned()))?;
        value.set_sensitive(true);
        self.token = Some(value);
        Ok(self)
    }

    /// The same with another bound on the time an answer takes.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Reads a record; with `touch` also moves its idle deadline later, without waiting for that.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`] but `Unknown`.
    pub async fn get(
        &self,
        table: &TableName,
        key: &Key,
        touch: Option<Duration>,
    ) -> Result<Read, ClientError> {
        let mut path = record_path(table, key);
        if let Some(touch) = touch {
            path = format!("{path}?touch={}", format_duration(touch));
        }
        let response = self.send(Method::GET, &path, |request| request, Bytes::new()).await?;
        match response.status() {
            StatusCode::OK => {
                let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
                let record = Record {
                    content_type: header("content-type").unwrap_or_default().to_owned(),
                    etag: header("etag").unwrap_or_default().to_owned(),
                    ttl: header("mneme-ttl-ms")
                        .and_then(|ms| ms.parse().ok())
                        .map(Duration::from_millis)
                        .ok_or_else(|| ClientError::Answer("Mneme-Ttl-Ms is missing".to_owned()))?,
                    value: response.into_body(),
                };
                Ok(Read::Found(record))
            }
            StatusCode::NOT_FOUND if is_problem(&response, "record-absent") => Ok(Read::Absent),
            StatusCode::GONE => Ok(Read::Deleted),
            _ => Err(refused(&response)),
        }
    }

    /// Stores a value.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub async fn put(
        &self,
        table: &TableName,
        key: &Key,
        value: impl Into<Bytes>,
        options: &PutOptions,
    ) -> Result<Stored, ClientError> {
        let mut query = Vec::new();
        query.extend(options.ttl.map(|ttl| format!("ttl={}", format_duration(ttl))));
        query.extend(options.max_age.map(|max_age| format!("max_age={}", format_duration(max_age))));
        let mut path = record_path(table, key);
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        let with_headers = |mut request: http::request::Builder| {
            if let Some(content_type) = &options.content_type {
                request = request.header(CONTENT_TYPE, content_type);
            }
            if options.only_new {
                request = request.header(IF_NONE_MATCH, "*");
            }
            if let Some(etag) = &options.if_match {
                request = request.header(IF_MATCH, etag);
            }
            request
        };
        let response = self.send(Method::PUT, &path, with_headers, value.into()).await?;
        match response.status() {
            StatusCode::CREATED => Ok(Stored::Created(etag(&response).unwrap_or_default())),
            StatusCode::NO_CONTENT => Ok(Stored::Replaced(etag(&response).unwrap_or_default())),
            StatusCode::GONE => Ok(Stored::Deleted),
            StatusCode::PRECONDITION_FAILED => Ok(Stored::ConditionFailed),
            _ => Err(refused(&response)),
        }
    }

    /// Moves a record's idle deadline later; says whether there was one.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub async fn touch(
        &self,
        table: &TableName,
        key: &Key,
        ttl: Option<Duration>,
    ) -> Result<bool, ClientError> {
        let ttl = ttl.map(|ttl| format!("?ttl={}", format_duration(ttl))).unwrap_or_default();
        let path = format!("/v1/tables/{table}/touch/{}{ttl}", key.to_path());
        let response = self.send(Method::POST, &path, |request| request, Bytes::new()).await?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(true),
            StatusCode::NOT_FOUND if is_problem(&response, "record-absent") => Ok(false),
            StatusCode::GONE => Ok(false),
            _ => Err(refused(&response)),
        }
    }

    /// Deletes a record, there or not.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`].
    pub async fn delete(&self, table: &TableName, key: &Key) -> Result<(), ClientError> {
        let response =
            self.send(Method::DELETE, &record_path(table, key), |request| request, Bytes::new()).await?;
        if response.status() == StatusCode::NO_CONTENT { Ok(()) } else { Err(refused(&response)) }
    }

    /// Deletes every record whose key matches `pattern`, written as in a URL; how many there were.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; after [`ClientError::Unknown`] some may be deleted: repeat it.
    pub async fn delete_matching(&self, table: &TableName, pattern: &str) -> Result<u64, ClientError> {
        let path = format!("/v1/tables/{table}/records?match={pattern}");
        let response = self.send(Method::DELETE, &path, |request| request, Bytes::new()).await?;
        json::<DeletedAnswer>(&response).map(|answer| answer.deleted)
    }

    /// Lists records in key order: those that match `pattern`, or all; from `cursor` on.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`] but `Unknown`.
    pub async fn list(
        &self,
        table: &TableName,
        pattern: Option<&str>,
        cursor: Option<&str>,
        with_values: bool,
    ) -> Result<ListAnswer, ClientError> {
        let mut path = format!("/v1/tables/{table}/records?values={with_values}");
        for (name, value) in [("match", pattern), ("cursor", cursor)] {
            if let Some(value) = value {
                path = format!("{path}&{name}={value}");
            }
        }
        let with_headers = |request: http::request::Builder| request.header(ACCEPT, "application/json");
        let response = self.send(Method::GET, &path, with_headers, Bytes::new()).await?;
        json(&response)
    }

    /// Runs a batch: all of its writes or none.
    ///
    /// # Errors
    ///
    /// Any [`ClientError`]; [`ClientError::Refused`] with status 412 says which operations failed.
    pub async fn batch(&self, table: &TableName, batch: &BatchRequest) -> Result<BatchAnswer, ClientError> {
        let body = serde_json::to_vec(batch).map_err(|error| ClientError::Answer(error.to_string()))?;
        let path = format!("/v1/tables/{table}/batch");
        let with_headers = |request: http::request::Builder| request.header(CONTENT_TYPE, "application/json");
        let response = self.send(Method::POST, &path, with_headers, body.into()).await?;
        json(&response)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        with_headers: impl FnOnce(http::request::Builder) -> http::request::Builder,
        body: Bytes,
    ) -> Result<Response<Bytes>, ClientError> {
        let mut request = with_headers(Request::builder().method(method).uri(format!("{}{path}", self.base)));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let request =
            request.body(Full::new(body)).map_err(|error| ClientError::Configure(error.to_string()))?;
        let exchange = async {
            let response =
                self.http.request(request).await.map_err(|error| ClientError::Reach(Box::new(error)))?;
            let (parts, body) = response.into_parts();
            let body =
                Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(ClientError::Reach)?.to_bytes();
            Ok(Response::from_parts(parts, body))
        };
        tokio::time::timeout(self.timeout, exchange).await.map_err(|_| ClientError::Timeout)?
    }
}

fn record_path(table: &TableName, key: &Key) -> String {
    format!("/v1/tables/{table}/records/{}", key.to_path())
}

fn etag(response: &Response<Bytes>) -> Option<String> {
    response.headers().get(ETAG)?.to_str().ok().map(str::to_owned)
}

fn problem(response: &Response<Bytes>) -> Option<Problem> {
    serde_json::from_slice(response.body()).ok()
}

fn is_problem(response: &Response<Bytes>, kind: &str) -> bool {
    problem(response).is_some_and(|problem| problem.kind.ends_with(kind))
}

fn refused(response: &Response<Bytes>) -> ClientError {
    let status = response.status();
    if status == StatusCode::GATEWAY_TIMEOUT {
        return ClientError::Unknown { etag: etag(response) };
    }
    match problem(response) {
        Some(problem) => ClientError::Refused(problem),
        None => ClientError::Answer(format!("status {status} without a problem")),
    }
}

fn json<T: serde::de::DeserializeOwned>(response: &Response<Bytes>) -> Result<T, ClientError> {
    if response.status() != StatusCode::OK {
        return Err(refused(response));
    }
    serde_json::from_slice(response.body()).map_err(|error| ClientError::Answer(error.to_string()))
}
