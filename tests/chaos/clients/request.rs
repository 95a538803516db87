//! An action as a request, and the answer as an outcome.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use mneme_api::{BatchAnswer, ListAnswer};
use mneme_tests::connection::{Connection, Failure};
use serde_json::json;

use crate::history::{Action, Outcome, Seen, user_of};

/// Longest wait for an answer: longer than a node takes to say that it does not know.
const ANSWER_WAIT: Duration = Duration::from_secs(8);
/// Bytes of a value, as sessions have.
const VALUE_BYTES: usize = 300;
/// Records of a page.
const PAGE: usize = 1_000;

/// Sends what an action asks. `Err`: an answer that should never be given, in words.
pub(super) async fn send(
    connection: &mut Connection,
    action: &Action,
    is_local: bool,
) -> Result<Outcome, String> {
    let ack = if is_local { "local" } else { "all" };
    match action {
        Action::SignIn { session, value, ttl_ms } => {
            let ttl = ttl_ms.map_or("30m".to_owned(), |ms| format!("{ms}ms"));
            let target = format!("{}?ttl={ttl}&ack={ack}", record(*session));
            let headers = [("if-none-match", "*")];
            let answer = exchange(connection, "PUT", &target, &headers, body(*value)).await;
            written(answer, &[201], &[])
        }
        Action::Rewrite { session, value } => {
            let target = format!("{}?ttl=30m&ack={ack}", record(*session));
            match exchange(connection, "PUT", &target, &[], body(*value)).await {
                // It had to be created.
                Ok((StatusCode::CREATED, _)) => Ok(Outcome::Saw(Seen::Value(None))),
                answer => written(answer, &[204], &[404, 410]),
            }
        }
        Action::Touch { session, ttl_ms } => {
            let target =
                format!("/v1/tables/sessions/touch/{}?ttl={ttl_ms}ms&ack={ack}", session_key(*session));
            written(exchange(connection, "POST", &target, &[], Bytes::new()).await, &[204], &[404, 410])
        }
        Action::Read { session } => read(connection, &record(*session)).await,
        Action::SignOut { session } => {
            let target = format!("{}?ack={ack}", record(*session));
            written(exchange(connection, "DELETE", &target, &[], Bytes::new()).await, &[204], &[])
        }
        Action::SignOutEverywhere { user } => {
            let target = format!("/v1/tables/sessions/records?match=user/{user}/**&ack={ack}");
            written(exchange(connection, "DELETE", &target, &[], Bytes::new()).await, &[200], &[])
        }
        Action::List { user } => list(connection, *user).await,
        Action::WritePair { pair, value } => {
            let put = |side| json!({"op": "put", "key": pair_key(*pair, side), "value": STANDARD.encode(body(*value)), "ttlMs": 86_400_000});
            let batch = json!({"ops": [put("left"), put("right")]});
            let target = format!("/v1/tables/pairs/batch?ack={ack}");
            written(exchange(connection, "POST", &target, &JSON, batch.to_string().into()).await, &[200], &[])
        }
        Action::ReadPair { pair } => read_pair(connection, *pair).await,
        Action::CachePut { key, value } => {
            let target = format!("{}?ttl=24h&ack={ack}", page(*key));
            written(exchange(connection, "PUT", &target, &[], body(*value)).await, &[201, 204], &[])
        }
        Action::CacheDelete { key } => {
            let target = format!("{}?ack={ack}", page(*key));
            written(exchange(connection, "DELETE", &target, &[], Bytes::new()).await, &[204], &[])
        }
        Action::CacheRead { key } => read(connection, &page(*key)).await,
    }
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

type Answer = Result<(StatusCode, Bytes), Failure>;

async fn exchange(
    connection: &mut Connection,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Answer {
    connection.send(method, target, headers, body, ANSWER_WAIT).await
}

/// What came of a write.
fn written(answer: Answer, done: &[u16], nothing: &[u16]) -> Result<Outcome, String> {
    match failed(answer)? {
        Err(outcome) => Ok(outcome),
        Ok((status, _)) if done.contains(&status.as_u16()) => Ok(Outcome::Ok),
        Ok((status, _)) if nothing.contains(&status.as_u16()) => {
            Ok(Outcome::Rejected { found_nothing: true })
        }
        Ok((status, body)) => Err(format!("{status} {}", String::from_utf8_lossy(&body))),
    }
}

/// `Ok(Err(_))`: no answer, or one that says that it was not done.
fn failed(answer: Answer) -> Result<Result<(StatusCode, Bytes), Outcome>, String> {
    match answer {
        Err(Failure::NotSent) => Ok(Err(Outcome::Rejected { found_nothing: false })),
        Err(Failure::Unknown) => Ok(Err(Outcome::Unknown)),
        Ok((StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE, _)) => {
            Ok(Err(Outcome::Rejected { found_nothing: false }))
        }
        Ok((StatusCode::GATEWAY_TIMEOUT, _)) => Ok(Err(Outcome::Unknown)),
        Ok((status, body)) if status.is_server_error() => {
            Err(format!("{status} {}", String::from_utf8_lossy(&body)))
        }
        Ok(answer) => Ok(Ok(answer)),
    }
}

async fn read(connection: &mut Connection, target: &str) -> Result<Outcome, String> {
    let answer = exchange(connection, "GET", target, &[], Bytes::new()).await;
    let (status, body) = match failed(answer)? {
        Err(outcome) => return Ok(outcome),
        Ok(answer) => answer,
    };
    match status.as_u16() {
        200 => Ok(Outcome::Saw(Seen::Value(Some(number(&body)?)))),
        404 | 410 => Ok(Outcome::Saw(Seen::Value(None))),
        _ => Err(format!("{status} {}", String::from_utf8_lossy(&body))),
    }
}

async fn list(connection: &mut Connection, user: Option<u64>) -> Result<Outcome, String> {
    let pattern = user.map_or("user/**".to_owned(), |user| format!("user/{user}/**"));
    let mut sessions = Vec::new();
    let mut cursor = String::new();
    loop {
        let target = format!("/v1/tables/sessions/records?match={pattern}&values=true&limit={PAGE}{cursor}");
        let (status, body) = match failed(exchange(connection, "GET", &target, &[], Bytes::new()).await)? {
            Err(outcome) => return Ok(outcome),
            Ok(answer) => answer,
        };
        if status != StatusCode::OK {
            return Err(format!("{status} {}", String::from_utf8_lossy(&body)));
        }
        let page: ListAnswer = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        for record in page.records {
            let segments = record.key.segments();
            let session = segments.last().and_then(|last| std::str::from_utf8(last).ok()?.parse().ok());
            let value = record.value.ok_or("a record without its value")?;
            sessions.push((session.ok_or("a key of nobody")?, number(&value.0)?));
        }
        match page.cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(Outcome::Saw(Seen::List(sessions))),
        }
    }
}

async fn read_pair(connection: &mut Connection, pair: u64) -> Result<Outcome, String> {
    let get = |side| json!({"op": "get", "key": pair_key(pair, side)});
    let batch = json!({"ops": [get("left"), get("right")]});
    let answer =
        exchange(connection, "POST", "/v1/tables/pairs/batch", &JSON, batch.to_string().into()).await;
    let (status, body) = match failed(answer)? {
        Err(outcome) => return Ok(outcome),
        Ok(answer) => answer,
    };
    if status != StatusCode::OK {
        return Err(format!("{status} {}", String::from_utf8_lossy(&body)));
    }
    let answer: BatchAnswer = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let mut values = answer.results.into_iter().map(|result| match (result.status, result.value) {
        (200, Some(value)) => number(&value.0).map(Some),
        (404 | 410, None) => Ok(None),
        (status, _) => Err(format!("{status} for a read in a batch")),
    });
    match (values.next(), values.next()) {
        (Some(left), Some(right)) => Ok(Outcome::Saw(Seen::Pair(left?, right?))),
        _ => Err("fewer results than operations".to_owned()),
    }
}

fn session_key(session: u64) -> String {
    format!("user/{}/session/{session}", user_of(session))
}

fn record(session: u64) -> String {
    format!("/v1/tables/sessions/records/{}", session_key(session))
}

fn page(key: u64) -> String {
    format!("/v1/tables/pages/records/page/{key}")
}

fn pair_key(pair: u64, side: &str) -> [String; 3] {
    ["pair".to_owned(), pair.to_string(), side.to_owned()]
}

/// A number, and blanks up to the length of a session.
fn body(value: u64) -> Bytes {
    format!("{value:<VALUE_BYTES$}").into()
}

fn number(body: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(body);
    text.trim_end().parse().map_err(|_| format!("a value that nobody wrote: {text:?}"))
}
