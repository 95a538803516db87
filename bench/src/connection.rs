//! One connection of a load client: writes requests in one go, reads the answers.
//!
//! Our own, as `wrk` and `redis-benchmark` have their own: clients share the cores with the servers, so what a client
//! costs is missing from the servers' rate. It looks at every answer; one that is not as expected counts as failed.

mod http;
mod resp;

use std::net::SocketAddr;

use anyhow::Context;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) use self::http::{Http, Http2};
pub(crate) use self::resp::Resp;
use crate::load::Client;
use crate::workload::Request;

/// Room for an answer to each request of a pipeline.
const INPUT_BYTES: usize = 64 * 1024;

/// How requests and answers look.
pub(crate) trait Protocol {
    /// Appends a request.
    fn encode(&mut self, request: Request, out: &mut Vec<u8>);

    /// Takes one answer to `request` from the front of `input`, once it is whole; says whether it was as expected.
    fn decode(&mut self, request: Request, input: &mut BytesMut) -> anyhow::Result<Option<bool>>;
}

/// A connection that is kept.
pub(crate) struct Connection<P> {
    protocol: P,
    stream: TcpStream,
    output: Vec<u8>,
    input: BytesMut,
}

impl<P: Protocol> Connection<P> {
    pub(crate) async fn open(address: SocketAddr, protocol: P) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("{address} does not answer"))?;
        stream.set_nodelay(true)?;
        Ok(Self { protocol, stream, output: Vec::new(), input: BytesMut::with_capacity(INPUT_BYTES) })
    }

    async fn answer(&mut self, request: Request) -> anyhow::Result<bool> {
        loop {
            if let Some(is_done) = self.protocol.decode(request, &mut self.input)? {
                return Ok(is_done);
            }
            self.input.reserve(INPUT_BYTES);
            let read = self.stream.read_buf(&mut self.input).await?;
            anyhow::ensure!(read > 0, "a server closed the connection");
        }
    }
}

impl<P: Protocol> Client for Connection<P> {
    async fn send(&mut self, requests: &[Request]) -> anyhow::Result<usize> {
        self.output.clear();
        for request in requests {
            self.protocol.encode(*request, &mut self.output);
        }
        self.stream.write_all(&self.output).await?;
        let mut done = 0;
        for request in requests {
            done += usize::from(self.answer(*request).await?);
        }
        Ok(done)
    }
}
