//! A peer that says whatever a test wants it to: the handshake of a node, and messages or bytes of any kind after it.
//!
//! It is written from what travels, not with the node's own code: a mistake that both ends make would not be seen.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mneme_replica::codec::{decode_hello, decode_message, decode_refusal, encode_hello, encode_message};
use mneme_replica::id::{NodeId, Origin};
use mneme_replica::message::{Hello, Lane, Message, Refusal};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Longest wait for an answer: what a node takes for a handshake, and room.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// What a peer says of itself.
#[derive(Clone, Debug)]
pub struct Liar {
    /// Its hello.
    pub hello: Hello,
    /// The line of the cluster's secret that it uses.
    pub secret: Option<String>,
    /// What it says on each lane instead of what it should: for one who repeats what it has heard.
    pub replayed: Option<[Spoken; 3]>,
}

/// The two frames with which a lane begins, as they were sent.
#[derive(Clone, Debug)]
pub struct Spoken {
    preface: Bytes,
    proof: Bytes,
}

/// How a node took a handshake.
#[derive(Debug)]
pub enum Taken {
    /// As a member's; with what it says of itself.
    Linked(Box<Link>),
    /// It told why not.
    Refused(Refusal),
    /// The secret was not proved.
    Secret,
    /// It closed the connection without a word.
    Closed,
}

/// A link to a node.
#[derive(Debug)]
pub struct Link {
    /// What the node said of itself.
    pub hello: Hello,
    lanes: [LaneEnd; 3],
    /// With what each lane began.
    pub spoken: [Spoken; 3],
}

impl Liar {
    /// A member `number` of the cluster `mneme` that proves `secret`.
    #[must_use]
    pub fn new(number: u64, secret: &str) -> Self {
        let hello = Hello {
            cluster: "mneme".to_owned(),
            origin: Origin { node: NodeId::new(number), epoch: number },
            protocol: (1, 1),
            name: format!("liar-{number}"),
            address: String::new(),
            version: "0".to_owned(),
            tables: Vec::new(),
            members: Vec::new(),
            features: Vec::new(),
            uptime_ms: 1,
        };
        Self { hello, secret: Some(secret.to_owned()), replayed: None }
    }

    /// Greets the node whose peer port this is.
    ///
    /// # Panics
    ///
    /// When it cannot be reached, or says neither yes nor no in time.
    pub async fn greet(&self, peer: SocketAddr) -> Taken {
        let greeting = tokio::time::timeout(ANSWER_WAIT, self.try_greet(peer));
        greeting.await.expect("a verdict or the end of the connection in time")
    }

    async fn try_greet(&self, peer: SocketAddr) -> Taken {
        let number: u64 = rand::random();
        let (mut lanes, mut all_spoken) = (Vec::new(), Vec::new());
        for (index, lane) in Lane::ALL.into_iter().enumerate() {
            let mut end = LaneEnd::open(peer).await;
            let preface = match &self.replayed {
                Some(replayed) => replayed[index].preface.clone(),
                None => preface(number, u8::try_from(index).expect("one of three")),
            };
            end.send_frame(&preface);
            let Some(answer) = end.next().await else { return Taken::Closed };
            let proof = match &self.replayed {
                Some(replayed) => replayed[index].proof.clone(),
                None => self.proof(&preface, &answer, lane),
            };
            end.send_frame(&proof);
            all_spoken.push(Spoken { preface, proof });
            lanes.push(end);
        }
        let verdict = lanes[1].next().await;
        let Some(verdict) = verdict else { return Taken::Closed };
        let rest = verdict.get(1..).unwrap_or_default();
        match verdict.first() {
            Some(0) => {
                let hello = decode_hello(rest).expect("the node's own hello");
                let lanes = lanes.try_into().unwrap_or_else(|_| unreachable!("three lanes"));
                let spoken = all_spoken.try_into().unwrap_or_else(|_| unreachable!("three lanes"));
                Taken::Linked(Box::new(Link { hello, lanes, spoken }))
            }
            Some(1) => Taken::Refused(decode_refusal(rest).expect("the node's own refusal")),
            Some(2) => Taken::Secret,
            other => panic!("a verdict that there is not: {other:?}"),
        }
    }

    /// The second frame of a lane: a proof over both nonces, then the hello.
    fn proof(&self, preface: &[u8], answer: &[u8], lane: Lane) -> Bytes {
        let mut frame = Vec::new();
        match &self.secret {
            Some(secret) => {
                let key = blake3::derive_key("mneme cluster secret", secret.as_bytes());
                let mut hasher = blake3::Hasher::new_keyed(&key);
                let (link, nonce) = (&preface[7..15], &preface[16..48]);
                hasher.update(b"dialler").update(nonce).update(&answer[..32]);
                hasher.update(link).update(&preface[15..16]);
                frame.push(1);
                frame.extend_from_slice(hasher.finalize().as_bytes());
            }
            None => frame.push(0),
        }
        if lane == Lane::Heartbeat {
            encode_hello(&self.hello, &mut frame);
        }
        frame.into()
    }
}

fn preface(link: u64, lane: u8) -> Bytes {
    let mut frame = b"mneme-1".to_vec();
    frame.extend_from_slice(&link.to_be_bytes());
    frame.push(lane);
    frame.extend_from_slice(&rand::random::<[u8; 32]>());
    frame.into()
}

impl Link {
    /// Sends a message.
    pub fn send(&self, message: &Message) {
        let mut bytes = Vec::new();
        encode_message(message, &mut bytes);
        self.send_frame(message.lane(), &bytes);
    }

    /// Sends a frame with these bytes in it.
    pub fn send_frame(&self, lane: Lane, bytes: &[u8]) {
        self.lanes[position(lane)].send_frame(bytes);
    }

    /// Sends bytes that need not be frames.
    pub fn send_bytes(&self, lane: Lane, bytes: impl Into<Bytes>) {
        self.lanes[position(lane)].send(bytes.into());
    }

    /// Reads what the node says on a lane until `pick` finds something in it.
    ///
    /// # Panics
    ///
    /// When it did not in time, or the link is lost.
    pub async fn wait_for<T>(&mut self, lane: Lane, pick: impl Fn(&Message) -> Option<T>) -> T {
        let end = &mut self.lanes[position(lane)];
        let waiting = async {
            loop {
                let frame = end.next().await.expect("the link is up");
                let message = decode_message(&frame).expect("a node's message");
                if let Some(found) = pick(&message) {
                    return found;
                }
            }
        };
        tokio::time::timeout(ANSWER_WAIT, waiting).await.expect("a message that is waited for")
    }

    /// Waits until the node has closed the link.
    ///
    /// # Panics
    ///
    /// When it has not in time.
    pub async fn wait_closed(mut self) {
        let closed = async { while self.lanes[1].next().await.is_some() {} };
        tokio::time::timeout(ANSWER_WAIT, closed).await.expect("the node closes the link");
    }
}

fn position(lane: Lane) -> usize {
    Lane::ALL.iter().position(|other| *other == lane).expect("one of all")
}

/// One connection of a link.
#[derive(Debug)]
struct LaneEnd {
    sender: mpsc::UnboundedSender<Bytes>,
    incoming: Incoming,
    buffer: BytesMut,
    connection: JoinHandle<()>,
}

impl LaneEnd {
    async fn open(peer: SocketAddr) -> Self {
        let stream = TcpStream::connect(peer).await.expect("the peer port listens");
        stream.set_nodelay(true).expect("an open socket");
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut requests, connection) = handshake.await.expect("HTTP/2");
        let connection = tokio::spawn(async move {
            // However it ends, its reader sees it.
            let _ = connection.await;
        });
        let (sender, receiver) = mpsc::unbounded_channel();
        let request = http::Request::post(format!("http://{peer}/v1/link")).body(Said(receiver));
        let response = requests.send_request(request.expect("a request")).await.expect("an answer");
        assert_eq!(response.status(), 200, "the peer port makes links");
        Self { sender, incoming: response.into_body(), buffer: BytesMut::new(), connection }
    }

    fn send(&self, bytes: Bytes) {
        // A connection that the node has closed: whoever waits for that sees it.
        let _ = self.sender.send(bytes);
    }

    fn send_frame(&self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("a short frame");
        self.send([&length.to_be_bytes(), bytes].concat().into());
    }

    /// The next frame; `None` when the connection has ended.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(length) = self.buffer.first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if self.buffer.len() >= 4 + length {
                    self.buffer.advance(4);
                    return Some(self.buffer.split_to(length).freeze());
                }
            }
            let frame = self.incoming.frame().await?.ok()?;
            self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    }
}

impl Drop for LaneEnd {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What is sent, as the body of a request.
struct Said(mpsc::UnboundedReceiver<Bytes>);

impl Body for Said {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Opens one connection to a peer port, sends these bytes and reads until the node closes it.
///
/// # Panics
///
/// When it does not in time.
pub async fn say(peer: SocketAddr, bytes: Bytes) {
    let mut end = LaneEnd::open(peer).await;
    end.send(bytes);
    let closed = async { while end.next().await.is_some() {} };
    tokio::time::timeout(ANSWER_WAIT, closed).await.expect("the node closes the connection");
}
