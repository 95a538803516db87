//! A bad link: a relay of TCP connections that delays, stalls and breaks them.
//!
//! One runs in the network namespace of every node, under the address that the node advertises, so all that peers say to
//! it passes through. How bad it is stands in a file that is read again and again. A stream loses nothing: what a lossy
//! link does to it is that everything waits for what is sent once more, and that connections end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What is read at once, at most.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks on their way in one direction of a connection, at most; then the sender waits.
const CHUNKS_MAX: usize = 256;

/// How bad a link is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Badness {
    /// Everything takes so long.
    pub(crate) delay_ms: u64,
    /// And up to so much longer.
    pub(crate) jitter_ms: u64,
    /// So many chunks of a thousand are sent once more.
    pub(crate) lost_per_mille: u32,
    /// How long that takes.
    pub(crate) resend_ms: u64,
    /// At so many chunks of ten thousand the connection ends.
    pub(crate) broken_per_myriad: u32,
}

impl Badness {
    /// Puts it into the file that a relay reads.
    pub(crate) fn write(self, file: &Path) -> anyhow::Result<()> {
        // In one step: a relay never reads half of it.
        let new = file.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&self)?)?;
        std::fs::rename(&new, file).with_context(|| format!("failed to replace {}", file.display()))
    }

    fn delay(self) -> Duration {
        let mut random = rand::rng();
        let mut ms = self.delay_ms + random.random_range(0..=self.jitter_ms);
        if random.random_ratio(self.lost_per_mille.min(1_000), 1_000) {
            ms += self.resend_ms;
        }
        Duration::from_millis(ms)
    }

    fn breaks(self) -> bool {
        rand::rng().random_ratio(self.broken_per_myriad.min(10_000), 10_000)
    }
}

/// Relays connections.
#[derive(Debug, Args)]
pub(crate) struct Link {
    /// Where connections come from.
    #[arg(long)]
    listen: SocketAddr,
    /// Where they go.
    #[arg(long)]
    to: SocketAddr,
    /// File that says how bad it is.
    #[arg(long)]
    badness: PathBuf,
}

impl Link {
    /// Relays until the process ends.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen at {}", self.listen))?;
        let badness = Arc::new(Mutex::new(Badness::default()));
        tokio::spawn(watch(self.badness, badness.clone()));
        loop {
            let (from, _) = listener.accept().await?;
            let badness = badness.clone();
            tokio::spawn(async move {
                // A node that is down: the connection ends, as it would without a relay.
                if let Ok(to) = TcpStream::connect(self.to).await {
                    relay(from, to, badness).await;
                }
            });
        }
    }
}

async fn watch(file: PathBuf, badness: Arc<Mutex<Badness>>) {
    loop {
        let read = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        *badness.lock().unwrap_or_else(PoisonError::into_inner) = read.unwrap_or_default();
        tokio::time::sleep(LOOK).await;
    }
}

async fn relay(from: TcpStream, to: TcpStream, badness: Arc<Mutex<Badness>>) {
    // Both only fail for a connection that is gone, which the first read tells.
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
    // Whichever direction ends first ends both: the halves are dropped.
    tokio::select! {
        () = carry(from_read, to_write, badness.clone()) => {}
        () = carry(to_read, from_write, badness) => {}
    }
}

async fn carry(mut read: OwnedReadHalf, mut write: OwnedWriteHalf, badness: Arc<Mutex<Badness>>) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Bytes)>(CHUNKS_MAX);
    let reading = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = read.read(&mut buffer).await {
            let badness = *badness.lock().unwrap_or_else(PoisonError::into_inner);
            if badness.breaks() {
                return;
            }
            let due = Instant::now() + badness.delay();
            if sender.send((due, Bytes::copy_from_slice(&buffer[..count]))).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, chunk)) = chunks.recv().await {
            tokio::time::sleep_until(due).await;
            if write.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn through(badness: Badness) -> anyhow::Result<(Vec<u8>, Duration)> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("badness");
        badness.write(&file)?;
        let echo = TcpListener::bind("127.0.0.1:0").await?;
        let listen = mneme_tests::ports::free_loopback();
        let link = Link { listen, to: echo.local_addr()?, badness: file };
        let link = tokio::spawn(link.run());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }
        });
        mneme_tests::wait::wait_until(Duration::from_secs(5), "the relay listens", async || {
            TcpStream::connect(listen).await.is_ok()
        })
        .await;
        let mut stream = TcpStream::connect(listen).await?;
        let sent = Instant::now();
        stream.write_all(b"hello").await?;
        let mut answer = vec![0; 5];
        stream.read_exact(&mut answer).await?;
        link.abort();
        Ok((answer, sent.elapsed()))
    }

    #[tokio::test]
    async fn bytes_arrive_as_late_as_it_says() {
        let delayed = Badness { delay_ms: 40, lost_per_mille: 1_000, resend_ms: 10, ..Badness::default() };
        let (answer, took) = through(delayed).await.expect("an answer");
        assert_eq!(answer, b"hello");
        assert!(took >= Duration::from_millis(100), "there and back: {took:?}");
    }

    #[tokio::test]
    async fn a_broken_link_ends_connections() {
        let broken = Badness { broken_per_myriad: 10_000, ..Badness::default() };
        assert!(through(broken).await.is_err());
    }
}
