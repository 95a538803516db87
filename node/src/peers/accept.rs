//! Accepting: lanes arrive one by one and make a link when the third is there.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mneme_replica::codec;
use mneme_replica::message::{Hello, Lane};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::handshake::{Preface, Verdict, nonce};
use super::lanes::{LaneSender, PeerBody, Taker, lane};
use super::link::{FAREWELL, HANDSHAKE_MAX, LaneEnds, Link};
use super::wire::{FrameReader, WireError};
use super::{CONNECTION_WINDOW_BYTES, LINK_PATH, Peers, STREAM_WINDOW_BYTES};
use crate::driver::Denied;

/// Connections on the peer port at once: three for each member, twice over, and room for those that are refused.
const CONNECTIONS_MAX: usize = 256;
/// Links that wait for their other lanes at once.
const GATHERING_MAX: usize = 64;
/// Pause after a failed accept: out of file descriptors is over in a moment or not at all.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Lanes of a link that is not whole yet.
#[derive(Default)]
pub(super) struct Gathering {
    links: HashMap<u64, Gathered>,
}

/// What there is of a link.
struct Gathered {
    since: Instant,
    ends: Vec<LaneEnds>,
    /// And when it came.
    hello: Option<(Hello, Instant)>,
}

impl Gathering {
    /// Adds a lane; the link when it is whole.
    fn add(&mut self, number: u64, end: LaneEnds, hello: Option<Hello>) -> Option<(Link, Hello)> {
        let now = Instant::now();
        self.links.retain(|_, link| now.duration_since(link.since) < HANDSHAKE_MAX);
        if self.links.len() >= GATHERING_MAX && !self.links.contains_key(&number) {
            return None;
        }
        let empty = || Gathered { since: now, ends: Vec::new(), hello: None };
        let link = self.links.entry(number).or_insert_with(empty);
        link.ends.push(end);
        link.hello = link.hello.take().or(hello.map(|hello| (hello, now)));
        if link.ends.len() < Lane::ALL.len() {
            return None;
        }
        let Gathered { ends, hello, .. } = self.links.remove(&number)?;
        let (mut hello, came) = hello?;
        // It has waited for the other lanes.
        let waited_ms = u64::try_from(now.duration_since(came).as_millis()).unwrap_or(u64::MAX);
        hello.uptime_ms = hello.uptime_ms.saturating_add(waited_ms);
        Some((Link::new(number, ends)?, hello))
    }
}

impl Peers {
    /// Takes connections on the peer port until `stop`.
    pub(super) async fn accept(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a peer's connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = permits.clone().try_acquire_owned() else {
                if self.warned.lock().is_due("connections", "", Instant::now()) {
                    tracing::warn!("too many connections on the peer port: some were closed");
                }
                continue;
            };
            let (peers, stop) = (self.clone(), stop.clone());
            self.tasks.spawn(async move {
                let _permit = permit;
                peers.serve(stream, stop).await;
            });
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, stop: CancellationToken) {
        // Without it messages would wait for acknowledgements of TCP; the connection works all the same.
        let _ = stream.set_nodelay(true);
        let (close, remote) = (stop.child_token(), stream.peer_addr().ok().map(|address| address.ip()));
        let taker = Arc::new(OnceLock::new());
        let service = service_fn(|request| {
            let response = self.clone().answer(request, remote, taker.clone(), close.clone());
            async move { Ok::<_, std::convert::Infallible>(response) }
        });
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(1)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            () = close.cancelled() => {}
            // Whoever reads the lane sees the same and says so.
            _ = connection => {}
            () = unlinked(&taker) => tracing::debug!("a connection on the peer port came to no link in time"),
        }
        // A lane that waits for the others of its link waits no longer.
        close.cancel();
    }

    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        remote: Option<IpAddr>,
        taker: Arc<OnceLock<Taker>>,
        close: CancellationToken,
    ) -> Response<PeerBody> {
        if request.method() != Method::POST || request.uri().path() != LINK_PATH {
            let mut response = Response::new(Empty::new().boxed_unsync());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
        let (sender, body) = lane(taker);
        let reader = FrameReader::new(request.into_body());
        let peers = self.clone();
        self.tasks.spawn(async move {
            let lane_close = sender.close.clone();
            let carry = async {
                let arrived = tokio::time::timeout(HANDSHAKE_MAX, peers.arrive(sender, reader, remote)).await;
                match arrived {
                    Ok(Ok(Some((link, hello)))) => peers.take_link(link, complete(hello, remote)).await,
                    // The link is taken by the task of its last lane.
                    Ok(Ok(None)) => lane_close.cancelled().await,
                    Ok(Err(error)) => {
                        if error.is_malformed() {
                            peers.driver.metrics().link_refusals.inc();
                        }
                        tracing::debug!(%error, "a handshake on the peer port failed");
                    }
                    Err(_) => tracing::debug!("a handshake on the peer port took too long"),
                }
            };
            tokio::select! {
                () = close.cancelled() => {}
                () = carry => close.cancel(),
            }
        });
        Response::new(body.boxed_body())
    }

    /// Lets a lane prove the secret; the link when it is whole.
    async fn arrive(
        &self,
        sender: LaneSender,
        mut reader: FrameReader,
        remote: Option<IpAddr>,
    ) -> Result<Option<(Link, Hello)>, WireError> {
        let guard = sender.close.clone().drop_guard();
        let secret = self.secret.borrow().clone();
        let preface = Preface::decode(&reader.next().await?)?;
        let answer = nonce();
        // Two frames fit in, and two are sent.
        let _ = sender.handshake.try_send(preface.answer(&secret, &answer));
        let proof = reader.next().await?;
        let Some(hello) = preface.check_proof(&secret, &answer, &proof)? else {
            let from = remote.map(|remote| remote.to_canonical().to_string()).unwrap_or_default();
            if self.warned.lock().is_due(&from, "", Instant::now()) {
                tracing::warn!(peer.ip = from, "a peer without the cluster secret was refused");
            }
            self.driver.metrics().link_refusals.inc();
            let _ = sender.handshake.try_send(Verdict::Secret.encode());
            drop(sender.handshake);
            tokio::time::sleep(FAREWELL).await;
            return Ok(None);
        };
        reader.trust();
        let lane = preface.lane();
        let hello = if lane == Lane::Heartbeat { Some(codec::decode_hello(hello)?) } else { None };
        let whole = self.gathering.lock().add(preface.link, LaneEnds { lane, reader, sender }, hello);
        guard.disarm();
        Ok(whole)
    }

    async fn take_link(&self, link: Link, hello: Hello) {
        let tell = |verdict: &Result<Hello, Denied>| {
            let verdict = match verdict {
                Ok(hello) => Verdict::Hello(Box::new(hello.clone())),
                Err(Denied::Refused(refusal)) => Verdict::Refused(refusal.clone()),
                Err(Denied::Linked) => Verdict::Linked(self.driver.origin().node),
            };
            Some(verdict.encode())
        };
        // What was wrong is in the log already, and told to the other end.
        let _ = link.run(&self.driver, hello, None, tell).await;
    }
}

/// Waits until a connection has had its time and is part of no link: whoever sends nothing, or one lane of three, must
/// not hold a place that peers need.
async fn unlinked(taker: &OnceLock<Taker>) {
    tokio::time::sleep(HANDSHAKE_MAX).await;
    if taker.get().is_some() {
        std::future::pending().await
    }
}

/// A node that does not know its own address says the port alone: the rest is what is seen here.
fn complete(mut hello: Hello, remote: Option<IpAddr>) -> Hello {
    if let (Some(port), Some(remote)) = (hello.address.strip_prefix(':'), remote)
        && let Ok(port) = port.parse()
    {
        hello.address = SocketAddr::new(remote.to_canonical(), port).to_string();
    }
    hello
}
