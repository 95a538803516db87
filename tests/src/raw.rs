//! Connections on which any bytes can be sent, for what a well-behaved client never does.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A connection with what came back on it so far.
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl RawConnection {
    /// Connects.
    ///
    /// # Panics
    ///
    /// When nobody listens.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("an open socket");
        Self { stream, received: Vec::new() }
    }

    /// Sends bytes. A server may have answered and closed before it read them all: the answer counts.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Says that nothing more is sent.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads until `count` answers have begun and gives their statuses, 100 included; fewer when the server closes the
    /// connection.
    ///
    /// # Panics
    ///
    /// When they have not within `limit`.
    pub async fn statuses(&mut self, count: usize, limit: Duration) -> Vec<u16> {
        let deadline = Instant::now() + limit;
        loop {
            let statuses = statuses(&self.text());
            if statuses.len() >= count {
                return statuses;
            }
            let mut buffer = [0; 4096];
            let read = tokio::time::timeout_at(deadline, self.stream.read(&mut buffer)).await;
            let read = read.unwrap_or_else(|_| panic!("{count} answers within {limit:?}: {:?}", self.text()));
            match read {
                Ok(length @ 1..) => self.received.extend_from_slice(&buffer[..length]),
                _ => return statuses,
            }
        }
    }

    /// Reads until the server closes the connection and gives all that came.
    ///
    /// # Panics
    ///
    /// When it has not within `limit`.
    pub async fn to_end(mut self, limit: Duration) -> String {
        self.statuses(usize::MAX, limit).await;
        self.text()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

/// The statuses of the answers in a text.
#[must_use]
pub fn statuses(text: &str) -> Vec<u16> {
    let codes = text.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3));
    codes.filter_map(|code| code.parse().ok()).collect()
}
