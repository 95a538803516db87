//! Errors as clients see them: RFC 9457 problem JSON.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, ETAG, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use mneme_api::BatchResult;
use mneme_replica::effect::Rejection;
use mneme_replica::status::NodeState;

/// Bytes of path and headers of a request, at most (431). The connection's buffer is larger, so that the answer can be
/// given before the connection is closed.
pub(super) const HEADER_BYTES_MAX: usize = 16 << 10;
/// The media type of a problem.
const MEDIA_TYPE: &str = "application/problem+json";

/// The type of every answer on the client port's own paths.
pub(super) type Answer = Response<Full<Bytes>>;

/// What kind of problem. "Not found", "deleted" and "failed" are never confused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProblemKind {
    BadRequest,
    Unauthorized,
    RouteUnknown,
    TableUnknown,
    RecordAbsent,
    MethodNotAllowed,
    SlowBody,
    RecordDeleted,
    ConditionFailed,
    TooLarge,
    AnswerTooLarge,
    HeadersTooLarge,
    ExpectationUnknown,
    NotServing,
    Clock,
    Draining,
    Overloaded,
    VersionMissing,
    OutcomeUnknown,
    TableFull,
    ReadOnly,
}

impl ProblemKind {
    /// Status, stable name, title.
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "The request is malformed"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "A valid token is needed"),
            Self::RouteUnknown => (StatusCode::NOT_FOUND, "route-unknown", "There is no such path"),
            Self::TableUnknown => (StatusCode::NOT_FOUND, "table-unknown", "The table is not declared"),
            Self::RecordAbsent => (StatusCode::NOT_FOUND, "record-absent", "There is no such record"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The path does not take this method")
            }
            Self::SlowBody => (StatusCode::REQUEST_TIMEOUT, "slow-body", "The body took too long"),
            Self::RecordDeleted => (StatusCode::GONE, "record-deleted", "The record was deleted"),
            Self::ConditionFailed => {
                (StatusCode::PRECONDITION_FAILED, "condition-failed", "The condition does not hold")
            }
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large"),
            Self::AnswerTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "answer-too-large", "The answer would be too large")
            }
            Self::ExpectationUnknown => {
                (StatusCode::EXPECTATION_FAILED, "expectation-unknown", "The expectation is not known")
            }
            Self::HeadersTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers-too-large",
                "The headers are too large",
            ),
            Self::NotServing => {
                (StatusCode::SERVICE_UNAVAILABLE, "not-serving", "The node does not serve for now")
            }
            Self::Clock => (StatusCode::SERVICE_UNAVAILABLE, "clock", "The node's clock is wrong"),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", "The node is stopping"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too much is in flight"),
            Self::VersionMissing => {
                (StatusCode::SERVICE_UNAVAILABLE, "version-missing", "The version has not arrived yet")
            }
            Self::OutcomeUnknown => {
                (StatusCode::GATEWAY_TIMEOUT, "outcome-unknown", "The write may have been applied")
            }
            Self::TableFull => (StatusCode::INSUFFICIENT_STORAGE, "table-full", "The table is full"),
            Self::ReadOnly => (StatusCode::INSUFFICIENT_STORAGE, "read-only", "The node's volume is full"),
        }
    }
}

/// A problem on its way to the client.
#[derive(Debug)]
pub(super) struct Problem {
    kind: ProblemKind,
    detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    results: Vec<BatchResult>,
}

impl Problem {
    /// A problem; `detail` says what was wrong and what to do, and never repeats a key, a value or a token.
    pub(super) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), headers: Vec::new(), results: Vec::new() }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::BadRequest, detail)
    }

    pub(super) fn route_unknown() -> Self {
        Self::new(ProblemKind::RouteUnknown, "see /openapi.json on the admin port for the paths there are")
    }

    pub(super) fn table_unknown() -> Self {
        Self::new(
            ProblemKind::TableUnknown,
            "the configuration of this node declares no table of this name; declare it under `tables`",
        )
    }

    pub(super) fn record_absent() -> Self {
        Self::new(ProblemKind::RecordAbsent, "nothing is stored under this key, or it has expired")
    }

    pub(super) fn record_deleted(etag: &str) -> Self {
        let detail = "the key was deleted, and in a session table that is final: use a new key";
        Self::new(ProblemKind::RecordDeleted, detail).with_etag(Some(etag))
    }

    pub(super) fn condition_failed(current: Option<&str>) -> Self {
        let detail = match current {
            Some(_) => "another version is stored: its ETag is in the header",
            None => "no live record is stored under this key",
        };
        Self::new(ProblemKind::ConditionFailed, detail).with_etag(current)
    }

    pub(super) fn method_not_allowed(allowed: &'static str) -> Self {
        let detail = format!("this path takes {allowed}");
        Self::new(ProblemKind::MethodNotAllowed, detail).with_header(ALLOW, HeaderValue::from_static(allowed))
    }

    pub(super) fn too_large(limit_bytes: u64) -> Self {
        Self::new(ProblemKind::TooLarge, format!("at most {limit_bytes} bytes are taken here"))
    }

    pub(super) fn headers_too_large() -> Self {
        let detail =
            format!("at most {HEADER_BYTES_MAX} bytes of path and headers are taken, in 100 headers");
        Self::new(ProblemKind::HeadersTooLarge, detail)
    }

    /// What a connection brought is no request.
    pub(super) fn malformed() -> Self {
        Self::bad_request("this is no request of HTTP/1.1; the connection is closed")
    }

    pub(super) fn draining() -> Self {
        Self::new(ProblemKind::Draining, "the node is stopping; use another node")
    }

    pub(super) fn unauthorized() -> Self {
        let detail = "send `Authorization: Bearer <token>` with a token of the node's tokens file";
        Self::new(ProblemKind::Unauthorized, detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// Why a node does not serve that is in this state.
    pub(super) fn not_serving(state: NodeState) -> Self {
        match state {
            NodeState::Draining => Self::draining(),
            NodeState::Starting => {
                let detail = "the node waits for a first answer of the peers it was told of; its log and /v1/status \
                              name them; try again, or another node";
                Self::new(ProblemKind::NotServing, detail)
            }
            NodeState::Joining | NodeState::Ready | NodeState::ReadOnly => {
                let detail = "the node is catching up with its peers; try again, or another node";
                Self::new(ProblemKind::NotServing, detail)
            }
        }
    }

    pub(super) fn outcome_unknown(etag: Option<&str>) -> Self {
        let detail =
            "not every node that has to hold the write has said so in time; read, or repeat the request";
        Self::new(ProblemKind::OutcomeUnknown, detail).with_etag(etag)
    }

    pub(super) fn rejected(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::UnknownTable => Self::table_unknown(),
            Rejection::ValueTooLarge { limit_bytes } => Self::too_large(*limit_bytes),
            Rejection::LifetimeTooLong { parameter, limit_ms } => {
                let limit = mneme_api::format_duration(std::time::Duration::from_millis(*limit_ms));
                Self::bad_request(format!("{parameter} is longer than the table's maxAge, {limit}"))
            }
            Rejection::BadBatch { reason } => Self::bad_request(*reason),
            Rejection::TableFull => {
                let detail =
                    "the table is at its maxBytes; delete records, or raise maxBytes or set whenFull";
                Self::new(ProblemKind::TableFull, detail)
            }
            Rejection::ReadOnly => {
                Self::new(ProblemKind::ReadOnly, "the node's volume is full; make space, or use another node")
            }
            Rejection::Clock => {
                let detail =
                    "most peers find this node's clock ahead of theirs, or it was just set; use another node";
                Self::new(ProblemKind::Clock, detail)
            }
            Rejection::NotReady => Self::not_serving(NodeState::Joining),
            Rejection::Draining => Self::draining(),
            Rejection::Overloaded => {
                Self::new(ProblemKind::Overloaded, "too many writes wait; try again in a moment")
            }
        }
    }

    pub(super) fn with_etag(self, etag: Option<&str>) -> Self {
        match etag.map(HeaderValue::try_from) {
            Some(Ok(etag)) => self.with_header(ETAG, etag),
            _ => self,
        }
    }

    pub(super) fn with_results(self, results: Vec<BatchResult>) -> Self {
        Self { results, ..self }
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The last answer of a connection of HTTP/1, as bytes: for what never became a request.
    pub(super) fn last_answer(self) -> Vec<u8> {
        let (status, _, _) = self.kind.parts();
        let body = self.body();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    }

    pub(super) fn body(&self) -> Vec<u8> {
        let (status, name, title) = self.kind.parts();
        let body = mneme_api::Problem {
            kind: format!("/problems/{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail.clone(),
            results: self.results.clone(),
        };
        // Strings and numbers: nothing that JSON could not hold.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    pub(super) fn answer(self) -> Answer {
        let (status, _, _) = self.kind.parts();
        let body = self.body();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        headers.extend(self.headers);
        response
    }
}
