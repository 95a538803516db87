//! One connection of the driver, and the bare server it compares with.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, HOST};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: String,
}

/// A connection that is kept.
pub(crate) struct Connection {
    requests: SendRequest<Full<Bytes>>,
    host: HeaderValue,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("{address} does not answer"))?;
        stream.set_nodelay(true)?;
        let (requests, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends with the connection.
        tokio::spawn(connection);
        Ok(Self { requests, host: HeaderValue::try_from(address.to_string())? })
    }

    /// Sends a request and reads the answer; says whether it was a success.
    pub(crate) async fn send(&mut self, operation: &Operation) -> anyhow::Result<bool> {
        let request = Request::builder()
            .method(operation.method)
            .uri(&operation.path)
            .header(HOST, &self.host)
            .body(Full::new(Bytes::from(operation.body.clone())))?;
        self.requests.ready().await?;
        let response = self.requests.send_request(request).await?;
        let is_success = response.status().is_success();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok(is_success)
    }
}

/// Answers every request with the headers and as many bytes as a node would.
pub(crate) async fn serve_bare(address: SocketAddr, value_bytes: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let value = Bytes::from("v".repeat(value_bytes));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let value = value.clone();
        let service = service_fn(move |_request| {
            let mut response = Response::new(Full::new(value.clone()));
            let headers = response.headers_mut();
            let etag = "\"1a20d6f40610000-b0dd520eae4d03445365b1d1a086a9a0\"";
            headers.insert(ETAG, HeaderValue::from_static(etag));
            headers.insert("mneme-ttl-ms", HeaderValue::from_static("1799991"));
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            async move { Ok::<_, std::convert::Infallible>(response) }
        });
        // Ends with the connection.
        tokio::spawn(async move {
            let mut builder = hyper::server::conn::http1::Builder::new();
            let _ = builder.pipeline_flush(true).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
