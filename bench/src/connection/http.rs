//! HTTP/1.1 as Mneme's clients speak it, and HTTP/2 where clients share a connection.

use std::net::SocketAddr;

use ::http::header::CONTENT_TYPE;
use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Protocol;
use crate::load::Client;
use crate::workload::{Kind, Request, VALUE_BYTES, value, write_key};

const TABLE: &str = "/v1/tables/sessions";
/// Fields that an answer may have.
const FIELDS_MAX: usize = 32;

/// PUT, GET, and POST of a batch, on the table `sessions`.
pub(crate) struct Http {
    host: String,
    value: String,
    encoded: String,
    text: String,
    deadline: Option<Instant>,
}

impl Http {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let value = value();
        let encoded = STANDARD.encode(&value);
        Self { host: address.to_string(), value, encoded, text: String::new(), deadline: None }
    }

    /// What is written in batches expires then.
    pub(crate) fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

/// The body of a batch of puts.
fn write_batch(request: Request, encoded: &str, deadline: Option<Instant>, out: &mut String) {
    let life = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_millis().max(1));
    let ttl = life.map(|ms| format!(",\"ttlMs\":{ms}")).unwrap_or_default();
    out.push_str("{\"ops\":[");
    for (place, number) in request.numbers().enumerate() {
        out.push_str(if place == 0 { "" } else { "," });
        out.push_str("{\"op\":\"put\",\"key\":[\"");
        write_key(number, out);
        out.push_str("\"],\"value\":\"");
        out.push_str(encoded);
        out.push('"');
        out.push_str(&ttl);
        out.push('}');
    }
    out.push_str("]}");
}

fn write_path(number: u64, out: &mut String) {
    out.push_str(TABLE);
    out.push_str("/records/");
    write_key(number, out);
}

impl Protocol for Http {
    fn encode(&mut self, request: Request, out: &mut Vec<u8>) {
        let Self { host, value, encoded, text, deadline } = self;
        text.clear();
        if request.records > 1 {
            write_batch(request, encoded, *deadline, text);
            let head = format!(
                "POST {TABLE}/batch HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                text.len()
            );
            out.extend_from_slice(head.as_bytes());
        } else {
            text.push_str(if request.kind == Kind::Write { "PUT " } else { "GET " });
            write_path(request.first, text);
            text.push_str(" HTTP/1.1\r\nhost: ");
            text.push_str(host);
            if request.kind == Kind::Write {
                text.push_str("\r\ncontent-length: 300\r\n\r\n");
                text.push_str(value);
            } else {
                text.push_str("\r\n\r\n");
            }
        }
        out.extend_from_slice(text.as_bytes());
    }

    fn decode(&mut self, request: Request, input: &mut BytesMut) -> anyhow::Result<Option<bool>> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut answer = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(head) = answer.parse(input)? else { return Ok(None) };
        let code = answer.code.unwrap_or(0);
        let field = answer.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
        let body: usize = match field {
            Some(field) => std::str::from_utf8(field.value)?.parse()?,
            None if code == 204 => 0,
            None => anyhow::bail!("an answer {code} without a length"),
        };
        if input.len() < head + body {
            return Ok(None);
        }
        input.advance(head + body);
        Ok(Some((200..300).contains(&code) && (request.kind == Kind::Write || body == VALUE_BYTES)))
    }
}

/// A client of a connection that it shares with others.
#[derive(Clone)]
pub(crate) struct Http2 {
    requests: SendRequest<Full<Bytes>>,
    origin: String,
    value: Bytes,
}

impl Http2 {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("{address} does not answer"))?;
        stream.set_nodelay(true)?;
        let (requests, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // Ends with the last of those that share it.
        tokio::spawn(connection);
        Ok(Self { requests, origin: format!("http://{address}"), value: Bytes::from(value()) })
    }

    async fn one(&mut self, request: Request) -> anyhow::Result<bool> {
        let mut target = self.origin.clone();
        write_path(request.first, &mut target);
        let (method, body) = match request.kind {
            Kind::Write => ("PUT", self.value.clone()),
            Kind::Read => ("GET", Bytes::new()),
        };
        let message = ::http::Request::builder()
            .method(method)
            .uri(target)
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(Full::new(body))?;
        self.requests.ready().await?;
        let answer = self.requests.send_request(message).await?;
        let is_success = answer.status().is_success();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok(is_success && (request.kind == Kind::Write || body.len() == VALUE_BYTES))
    }
}

impl Client for Http2 {
    async fn send(&mut self, requests: &[Request]) -> anyhow::Result<usize> {
        let mut done = 0;
        for request in requests {
            done += usize::from(self.one(*request).await?);
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http() -> Http {
        Http::new(SocketAddr::from(([127, 0, 0, 1], 7070)))
    }

    #[track_caller]
    fn check(kind: Kind, answer: &str, expected: Option<bool>) {
        let request = Request { kind, first: 0, records: 1, keys: 1 };
        let mut input = BytesMut::from(answer);
        assert_eq!(http().decode(request, &mut input).expect("an answer of HTTP"), expected, "{answer}");
        assert_eq!(input.is_empty(), expected.is_some(), "what is left of {answer}");
    }

    #[test]
    fn answers_are_taken_once_they_are_whole() {
        let found = format!("HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n{}", value());
        check(Kind::Read, &found, Some(true));
        check(Kind::Read, &found[..found.len() - 1], None);
        check(Kind::Read, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", Some(false));
        check(Kind::Read, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", Some(false));
        check(Kind::Write, "HTTP/1.1 204 No Content\r\n\r\n", Some(true));
        check(Kind::Write, "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", Some(false));
        check(Kind::Write, "HTTP/1.1 204 No Content\r\n", None);
    }

    #[test]
    fn a_batch_is_json_with_a_put_for_each_record() {
        let request = Request { kind: Kind::Write, first: 98, records: 3, keys: 100 };
        let mut text = String::new();
        write_batch(request, "dg==", Some(Instant::now()), &mut text);
        let body: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(body["ops"].as_array().map(Vec::len), Some(3));
        assert_eq!(body["ops"][2]["op"], "put");
        assert_eq!(body["ops"][2]["ttlMs"], 1);
    }
}
