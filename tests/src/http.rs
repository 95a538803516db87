//! Requests to the processes under test, and their answers.
//!
//! Every request opens a connection of its own: what a test sees never depends on what an earlier one left behind, and
//! a server that was killed in between is noticed at once.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for a whole answer unless a request says otherwise: longer than any promise of the product, so that
/// running into it is always a finding.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// One request, built step by step.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    address: SocketAddr,
    method: Method,
    target: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    version: Version,
    limit: Duration,
}

/// One answer, read whole.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why no answer came.
#[derive(Debug)]
pub enum RequestError {
    /// Not within the limit.
    TimedOut,
    /// The connection failed or the answer was not HTTP.
    Failed(anyhow::Error),
}

impl Request {
    /// A request to `address`; `target` is the path with its query.
    pub fn new(address: SocketAddr, method: &str, target: impl Into<String>) -> Self {
        Self {
            address,
            method: method.parse().expect("a method"),
            target: target.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            version: Version::HTTP_11,
            limit: ANSWER_WAIT,
        }
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a JSON body and its content type.
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// Sends it as HTTP/2 with prior knowledge instead of HTTP/1.1.
    pub fn http2(mut self) -> Self {
        self.version = Version::HTTP_2;
        self
    }

    /// Gives up after `limit` instead of the default.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sends it and reads the answer.
    ///
    /// # Panics
    ///
    /// When no answer came.
    pub async fn send(self) -> Response {
        let name = format!("{} {}{}", self.method, self.address, self.target);
        match self.try_send().await {
            Ok(response) => response,
            Err(error) => panic!("{name}: {error:?}"),
        }
    }

    /// Sends it and reads the answer.
    ///
    /// # Errors
    ///
    /// When no answer came.
    pub async fn try_send(self) -> Result<Response, RequestError> {
        match tokio::time::timeout(self.limit, self.exchange()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(RequestError::Failed(error)),
            Err(_elapsed) => Err(RequestError::TimedOut),
        }
    }

    async fn exchange(self) -> anyhow::Result<Response> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let http2 = self.version == Version::HTTP_2;
        // HTTP/2 takes authority and scheme from the request line; HTTP/1.1 has a Host header and the bare path.
        let target = if http2 { format!("http://{}{}", self.address, self.target) } else { self.target };
        let mut request = http::Request::builder().method(self.method).uri(target);
        if !http2 {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(self.body))?;
        let response = if http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        } else {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response { status: parts.status, headers: parts.headers, body })
    }
}

impl Response {
    /// The status as a number.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.status.as_u16()
    }

    /// A header that may be missing.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// A header that must be there.
    ///
    /// # Panics
    ///
    /// When it is missing.
    #[must_use]
    #[track_caller]
    pub fn required_header(&self, name: &str) -> &str {
        self.header(name).unwrap_or_else(|| panic!("no header {name} in {self:?}"))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}) in {self:?}"))
    }

    /// Checks the status and gives the answer back.
    ///
    /// # Panics
    ///
    /// When it is another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.code(), status, "{} {:?}", self.text(), self.headers);
        self
    }

    /// Checks that this is the answer of an error as the interface promises it: that status, problem JSON with all of
    /// its members, and the status in it the same.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[track_caller]
    pub fn expect_problem(self, status: u16) -> Self {
        let answer = self.expect(status);
        let kind = answer.required_header("content-type");
        assert!(kind.starts_with("application/problem+json"), "an error of the type {kind}");
        let problem = answer.json();
        assert_eq!(problem["status"], status, "{problem}");
        for member in ["type", "title", "detail"] {
            assert!(
                problem[member].as_str().is_some_and(|text| !text.is_empty()),
                "no {member} in {problem}"
            );
        }
        answer
    }
}

/// Sends bytes that need not be HTTP, and reads all that comes back until the server closes the connection or `limit`
/// is over. The status line of the answer, if one came, is its first line.
///
/// # Panics
///
/// When the server cannot be reached.
pub async fn send_raw(address: SocketAddr, bytes: &[u8], limit: Duration) -> String {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    // A server may answer and close before it has read all that was sent; the answer counts, not the write error.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let reading = async {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..count]);
        }
    };
    // Running into the limit is how a connection that the server keeps open ends.
    let _ = tokio::time::timeout(limit, reading).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status in what [`send_raw`] gave back.
///
/// # Panics
///
/// When it is no answer of HTTP/1.
#[must_use]
#[track_caller]
pub fn raw_status(answer: &str) -> u16 {
    answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("no status line in {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_never_answers_is_told_from_one_that_is_not_there() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = silent.local_addr().expect("its address");
        let request = Request::new(address, "GET", "/").within(Duration::from_millis(50));
        assert!(matches!(request.clone().try_send().await, Err(RequestError::TimedOut)));
        drop(silent);
        assert!(matches!(request.try_send().await, Err(RequestError::Failed(_))));
    }

    #[tokio::test]
    async fn a_raw_answer_is_read_up_to_its_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let _ = stream.read(&mut [0; 16]).await;
            let _ = stream.write_all(b"HTTP/1.1 418 I'm a teapot\r\n\r\n").await;
        });
        let answer = send_raw(address, b"nonsense\r\n\r\n", Duration::from_secs(5)).await;
        assert_eq!(raw_status(&answer), 418);
    }
}
