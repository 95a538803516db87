//! Dialling: one task an address, which keeps a link to whoever answers there.

use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mneme_replica::event::Event;
use mneme_replica::message::{Lane, Refusal};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::handshake::{ClusterSecret, Preface, Verdict};
use super::lanes::{LaneBody, lane};
use super::link::{HANDSHAKE_MAX, LaneEnds, Link};
use super::wire::{FrameReader, WireError};
use super::{CONNECTION_WINDOW_BYTES, LINK_PATH, Peers, STREAM_WINDOW_BYTES};
use crate::driver::Denied;

/// First pause after a failed trial; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause between trials: how late a healed cut is noticed, at most.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Pause when the address turned out to be this node's own.
const MYSELF_PAUSE: Duration = Duration::from_secs(30);
/// How often a link that the other end dialled is looked after.
const LINKED_PAUSE: Duration = Duration::from_millis(250);
/// A connection takes no longer to be made.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// Why a trial failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// No connection.
    #[error("failed to connect")]
    Connect(#[source] std::io::Error),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// HTTP/2 failed.
    #[error("failed to speak HTTP/2 with the peer")]
    Http(#[source] hyper::Error),
    /// The other end is no peer port.
    #[error("the address answers with status {0}: it is no peer port of Mneme")]
    Status(http::StatusCode),
    /// The handshake failed.
    #[error("the handshake failed")]
    Wire(#[from] WireError),
    /// One end does not know the secret of the other.
    #[error("the cluster secrets differ")]
    Secret,
}

/// How a trial ended.
enum Ended {
    /// A link was up, and is no more.
    Lost,
    /// A link that the other end dialled is up.
    Linked,
    Refused(Refusal),
    Failed(DialError),
}

impl Peers {
    /// Keeps a link to whoever answers at `address`. After `leave` no new link is made and the one that is up stays;
    /// `stop` ends it.
    pub(super) async fn keep_dialling(
        self: Arc<Self>,
        address: String,
        leave: CancellationToken,
        stop: CancellationToken,
    ) {
        let mut backoff = BACKOFF_MIN;
        let mut last_error = String::new();
        while !leave.is_cancelled() && !stop.is_cancelled() {
            let pause = if self.is_in_contact(&address) {
                LINKED_PAUSE
            } else {
                let ended = tokio::select! {
                    () = stop.cancelled() => return,
                    ended = self.dial(&address) => ended,
                };
                self.conclude(&address, ended, &mut backoff, &mut last_error)
            };
            tokio::select! {
                () = leave.cancelled() => return,
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Tells the replica how a trial ended, and how long to pause.
    fn conclude(
        &self,
        address: &str,
        ended: Ended,
        backoff: &mut Duration,
        last_error: &mut String,
    ) -> Duration {
        match ended {
            Ended::Lost => {
                *backoff = BACKOFF_MIN;
                BACKOFF_MIN
            }
            Ended::Linked => LINKED_PAUSE,
            Ended::Refused(refusal) => {
                let pause = match &refusal {
                    Refusal::Myself => MYSELF_PAUSE,
                    Refusal::Predecessor { .. } | Refusal::Stopping => LINKED_PAUSE,
                    _ => BACKOFF_MAX,
                };
                self.driver.step(Event::Refused { address: address.to_owned(), refusal });
                pause
            }
            Ended::Failed(error) => {
                self.driver.step(Event::DialFailed { address: address.to_owned() });
                let text = crate::telemetry::chain(&error);
                // The same failure again and again is one line.
                if text != *last_error {
                    tracing::info!(peer.address = address, error = %text, "failed to reach the peer");
                    *last_error = text;
                }
                let pause = jitter(*backoff);
                *backoff = (*backoff * 2).min(BACKOFF_MAX);
                pause
            }
        }
    }

    async fn dial(&self, address: &str) -> Ended {
        let number = rand::random();
        let made = tokio::time::timeout(HANDSHAKE_MAX, self.make_link(address, number)).await;
        let (link, verdict) = match made {
            Ok(Ok(made)) => made,
            Ok(Err(error)) => return Ended::Failed(error),
            Err(_) => return Ended::Failed(DialError::Timeout),
        };
        let hello = match verdict {
            Verdict::Hello(mut hello) => {
                if hello.address.is_empty() || hello.address.starts_with(':') {
                    // It does not know how it is reached; here it is known.
                    hello.address = address.to_owned();
                }
                *hello
            }
            Verdict::Refused(refusal) => return Ended::Refused(refusal),
            Verdict::Secret => return Ended::Failed(DialError::Secret),
            Verdict::Linked(node) => {
                self.answered.lock().insert(address.to_owned(), node);
                return Ended::Linked;
            }
        };
        self.answered.lock().insert(address.to_owned(), hello.origin.node);
        match link.run(&self.driver, hello, Some(address.to_owned()), |_| None).await {
            Ok(()) => Ended::Lost,
            Err(Denied::Linked) => Ended::Linked,
            // The replica has said so already; the other end does not know.
            Err(Denied::Refused(refusal)) => Ended::Refused(refusal),
        }
    }

    async fn make_link(&self, address: &str, number: u64) -> Result<(Link, Verdict), DialError> {
        let secret = self.secret.borrow().clone();
        let [push, heartbeat, bulk] =
            [Lane::Push, Lane::Heartbeat, Lane::Bulk].map(|lane| self.open(address, number, lane, &secret));
        let (push, mut heartbeat, bulk) = tokio::try_join!(push, heartbeat, bulk)?;
        let verdict = Verdict::decode(&heartbeat.reader.next().await?)?;
        let link = Link::new(number, vec![push, heartbeat, bulk]).ok_or(WireError::Handshake)?;
        Ok((link, verdict))
    }

    /// Opens one connection and proves the secret on it.
    async fn open(
        &self,
        address: &str,
        number: u64,
        lane_kind: Lane,
        secret: &ClusterSecret,
    ) -> Result<LaneEnds, DialError> {
        let connected = tokio::time::timeout(CONNECT_MAX, self.connect(address)).await;
        let stream = connected.map_err(|_| DialError::Timeout)?.map_err(DialError::Connect)?;
        stream.set_nodelay(true).map_err(DialError::Connect)?;
        let (sender, body) = lane(Arc::default());
        // Closed with everything else when the handshake fails half-way.
        let guard = sender.close.clone().drop_guard();
        let mut requests = handshake(stream, sender.close.clone()).await?;

        let preface = Preface::new(number, lane_kind);
        // Two frames fit in, and two are sent.
        let _ = sender.handshake.try_send(preface.encode());
        let request = http::Request::post(format!("http://{address}{LINK_PATH}")).body(body);
        let request = request.map_err(|_| DialError::Wire(WireError::Handshake))?;
        let response = requests.send_request(request).await.map_err(DialError::Http)?;
        if response.status() != http::StatusCode::OK {
            return Err(DialError::Status(response.status()));
        }
        let mut reader = FrameReader::new(response.into_body());
        let answer = reader.next().await?;
        let answer = preface.check_answer(secret, &answer)?.ok_or(DialError::Secret)?;
        reader.trust();
        // Only now: a process that loads its file takes connections before it answers, and a hello says how long this one
        // has run.
        let hello = (lane_kind == Lane::Heartbeat).then(|| self.driver.hello());
        let _ = sender.handshake.try_send(preface.prove(secret, &answer, hello.as_ref()));
        guard.disarm();
        Ok(LaneEnds { lane: lane_kind, reader, sender })
    }

    async fn connect(&self, address: &str) -> std::io::Result<TcpStream> {
        match &self.dns {
            Some(dns) => {
                let addresses = dns.resolve(address).await.map_err(std::io::Error::other)?;
                TcpStream::connect(&addresses[..]).await
            }
            None => TcpStream::connect(address).await,
        }
    }
}

async fn handshake(
    stream: TcpStream,
    close: CancellationToken,
) -> Result<http2::SendRequest<LaneBody>, DialError> {
    let (requests, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake::<_, LaneBody>(TokioIo::new(stream))
        .await
        .map_err(DialError::Http)?;
    // Ends with the link: its owner cancels `close`, and the body ends when the link is dropped.
    tokio::spawn(async move {
        tokio::select! {
            () = close.cancelled() => {}
            // The link's readers see the same and say so.
            _ = connection => {}
        }
    });
    Ok(requests)
}

/// Up to a quarter less, so that nodes that lost each other do not dial in step.
fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.75..1.0))
}
