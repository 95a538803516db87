//! A connection that is kept, for clients that send many requests. See [`crate::http`] for one that is not.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Why no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was sent: the server was not there.
    NotSent,
    /// Something was sent. It may have been done, or may be still.
    Unknown,
}

/// One connection to one server, opened when it is needed. Not cancel safe: a request that is dropped half way leaves
/// the connection in the middle of an answer, so drop the connection with it.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    host: HeaderValue,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// A connection to `address` that is not open yet.
    ///
    /// # Panics
    ///
    /// Never: an address is a header value.
    #[must_use]
    pub fn to(address: SocketAddr) -> Self {
        let host = HeaderValue::try_from(address.to_string()).expect("digits, dots and colons");
        Self { address, host, open: None }
    }

    /// Where it goes.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request and reads the whole answer. Connecting and answering may take `limit` each.
    ///
    /// # Errors
    ///
    /// When no answer came; the connection is closed then, and opened anew by the next request.
    ///
    /// # Panics
    ///
    /// When method, target or headers are none of HTTP's.
    pub async fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let mut sender = match self.reuse().await {
            Some(sender) => sender,
            None => timeout(limit, self.connect()).await.ok().flatten().ok_or(Failure::NotSent)?,
        };
        let mut request = Request::builder().method(method).uri(target).header(HOST, &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("a request");
        let exchange = async {
            let response = sender.send_request(request).await.ok()?;
            let status = response.status();
            let body = response.into_body().collect().await.ok()?.to_bytes();
            Some((status, body))
        };
        let answer = timeout(limit, exchange).await.ok().flatten().ok_or(Failure::Unknown)?;
        self.open = Some(sender);
        Ok(answer)
    }

    /// The open connection, unless the server has closed it.
    async fn reuse(&mut self) -> Option<SendRequest<Full<Bytes>>> {
        let mut sender = self.open.take()?;
        sender.ready().await.ok()?;
        Some(sender)
    }

    async fn connect(&self) -> Option<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        // Ends with the sender.
        tokio::spawn(connection);
        Some(sender)
    }
}
