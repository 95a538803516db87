//! What goes out on a link: three lanes, so that heartbeats and deltas never wait behind pushes.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use mneme_replica::codec;
use mneme_replica::event::Event;
use mneme_replica::id::{NodeId, Origin};
use mneme_replica::message::{Lane, Message};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::wire;
use crate::driver::Driver;

/// Messages that wait on one lane, at most: pushes are bounded by the replica, the rest is repeated by heartbeats.
const LANE_MESSAGES_MAX: usize = 256;
/// Bytes that most chunks have at most.
const BUFFER_BYTES: usize = 8 << 10;
/// Bytes handed to HTTP/2 at once.
const CHUNK_BYTES: usize = 128 << 10;
/// Turns that everybody else has, with a look at the sockets after each, before what waits is sent. With one turn and no
/// such look a write costs four hundredths more processor time; with four turns it costs as much.
const TURNS: usize = 2;

/// The sending ends of a link. Dropping them closes the link.
#[derive(Debug)]
pub struct Lanes {
    peer: Origin,
    link: u64,
    is_dialled_here: bool,
    senders: [mpsc::Sender<Message>; 3],
    _guard: DropGuard,
}

impl Lanes {
    pub(super) fn new(
        peer: Origin,
        link: u64,
        is_dialled_here: bool,
        senders: [mpsc::Sender<Message>; 3],
        close: &CancellationToken,
    ) -> Self {
        Self { peer, link, is_dialled_here, senders, _guard: close.clone().drop_guard() }
    }

    /// Number of the link, drawn by whoever dialled.
    pub fn link(&self) -> u64 {
        self.link
    }

    /// Whether this link stays when both processes dialled each other: the one that the smaller id dialled does, so
    /// both ends agree without a word.
    pub fn stays_beside(&self, other: &Self, here: NodeId) -> bool {
        let is_first_choice = |lanes: &Self| lanes.is_dialled_here == (here < lanes.peer.node);
        self.peer == other.peer && is_first_choice(self) && !is_first_choice(other)
    }

    /// Hands a message to a lane; says whether it was taken.
    pub fn send(&self, lane: Lane, message: Message) -> bool {
        self.senders[lane_index(lane)].try_send(message).is_ok()
    }
}

/// Number of a lane on the wire.
pub(super) fn lane_number(lane: Lane) -> u8 {
    match lane {
        Lane::Push => 0,
        Lane::Heartbeat => 1,
        Lane::Bulk => 2,
    }
}

/// Position of a lane in arrays.
pub(super) fn lane_index(lane: Lane) -> usize {
    usize::from(lane_number(lane))
}

/// The sending end of one connection.
pub(super) struct LaneSender {
    /// Frames of the handshake. Messages wait until this is dropped.
    pub(super) handshake: mpsc::Sender<Bytes>,
    pub(super) messages: mpsc::Sender<Message>,
    /// Set when the link is greeted.
    pub(super) taker: Arc<OnceLock<Taker>>,
    /// Closes the connection.
    pub(super) close: CancellationToken,
}

/// Makes a lane: what is sent comes out of the body. `taker` is set when its link is greeted.
pub(super) fn lane(taker: Arc<OnceLock<Taker>>) -> (LaneSender, LaneBody) {
    let (handshake, handshake_receiver) = mpsc::channel(2);
    let (messages, receiver) = mpsc::channel(LANE_MESSAGES_MAX);
    let close = CancellationToken::new();
    let closed = Box::pin(close.clone().cancelled_owned());
    let handshake_receiver = Some(handshake_receiver);
    let body = LaneBody {
        handshake: handshake_receiver,
        receiver,
        has_company: false,
        turns: 0,
        turn: None,
        closed,
        taker: taker.clone(),
    };
    (LaneSender { handshake, messages, taker, close }, body)
}

/// Who is told that a push was taken; set when the link is greeted.
#[derive(Clone)]
pub(super) struct Taker {
    pub(super) driver: Arc<Driver>,
    pub(super) peer: NodeId,
}

/// A lane as the body of a request or an answer.
pub(super) struct LaneBody {
    handshake: Option<mpsc::Receiver<Bytes>>,
    receiver: mpsc::Receiver<Message>,
    /// The last chunk had more than one message: the next may, too.
    has_company: bool,
    /// Turns that others had since the last chunk.
    turns: usize,
    /// The one they are having.
    turn: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    closed: Pin<Box<tokio_util::sync::WaitForCancellationFutureOwned>>,
    taker: Arc<OnceLock<Taker>>,
}

impl Body for LaneBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.closed.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        while let Some(handshake) = &mut self.handshake {
            match std::task::ready!(handshake.poll_recv(context)) {
                Some(frame) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
                None => self.handshake = None,
            }
        }
        // Whoever is about to write gets its turn first, and its write goes along: one system call for many. Where nobody was
        // the last time, a write goes at once.
        while self.has_company && self.turns < TURNS && !self.receiver.is_empty() {
            let turn = self.turn.get_or_insert_with(|| Box::pin(tokio::task::yield_now()));
            std::task::ready!(turn.as_mut().poll(context));
            self.turn = None;
            self.turns += 1;
        }
        let Some(first) = std::task::ready!(self.receiver.poll_recv(context)) else {
            return Poll::Ready(None);
        };
        self.turns = 0;
        // What waits goes together: one chunk, one write to the socket. Pushes that are taken make room for the next, which
        // go along.
        let (mut buffer, mut next, mut messages) = (Vec::with_capacity(BUFFER_BYTES), Some(first), 0);
        let (mut last_ack, mut pushes) = (None, 0);
        while let Some(message) = next {
            messages += 1;
            if matches!(message, Message::Ack { .. }) {
                // Says all that an earlier one does: the last of a chunk goes, at its end. Beside it are pushes and requests for
                // records, which mean the same before it and after.
                last_ack = Some(message);
            } else {
                put_message(&mut buffer, &message);
                pushes += usize::from(matches!(message, Message::Push { .. }));
            }
            let is_full = buffer.len() >= CHUNK_BYTES;
            next = if is_full { None } else { self.receiver.try_recv().ok() };
            if let (None, 1.., Some(taker)) = (&next, pushes, self.taker.get()) {
                taker
                    .driver
                    .step(Event::PushesTaken { peer: taker.peer, count: std::mem::take(&mut pushes) });
                next = if is_full { None } else { self.receiver.try_recv().ok() };
            }
        }
        last_ack.iter().for_each(|message| put_message(&mut buffer, message));
        self.has_company = messages > 1;
        Poll::Ready(Some(Ok(Frame::data(buffer.into()))))
    }
}

fn put_message(buffer: &mut Vec<u8>, message: &Message) {
    wire::put_frame(buffer, |buffer| codec::encode_message(message, buffer));
}

/// The body type of answers on the peer port.
pub(super) type PeerBody = http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>;

impl LaneBody {
    pub(super) fn boxed_body(self) -> PeerBody {
        self.boxed_unsync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::wire::FrameReader;

    #[tokio::test]
    async fn of_the_acknowledgements_in_a_chunk_the_last_goes() {
        let (LaneSender { handshake, messages, .. }, mut lane) = lane(Arc::default());
        drop(handshake);
        let origin = Origin { node: NodeId::new(1), epoch: 1 };
        let ack = |applied| Message::Ack { origin, applied, durable: 1, refused_clock: false };
        for message in [ack(1), Message::DeltaRefused { delta: 7 }, ack(2), Message::Goodbye, ack(3)] {
            messages.try_send(message).expect("there is room");
        }
        let chunk = lane.frame().await.expect("open").expect("never fails").into_data().expect("bytes");
        let whole = http_body_util::Full::new(chunk).map_err(|never| match never {});
        let (mut reader, mut received) = (FrameReader::new(whole), Vec::new());
        while let Ok(frame) = reader.next().await {
            received.push(codec::decode_message(&frame).expect("it was just written"));
        }
        assert_eq!(received, [Message::DeltaRefused { delta: 7 }, Message::Goodbye, ack(3)]);
        messages.try_send(ack(4)).expect("there is room");
        assert!(lane.frame().await.is_some(), "one that is alone goes alone");
    }
}
