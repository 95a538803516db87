//! A link: three connections between two processes, made together, lost together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use mneme_replica::codec;
use mneme_replica::id::Origin;
use mneme_replica::message::{Hello, Lane, Message};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::lanes::{LaneSender, Lanes, Taker, lane_index};
use super::wire::{FrameReader, WireError};
use crate::driver::{Denied, Driver};

/// Silence after which a link is given up: twenty heartbeats. Long enough that a frozen process finds its links when
/// it goes on after a moment, short enough that a cut is noticed before TCP would.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// The whole handshake takes no longer.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(3);
/// How long a connection that was denied stays open, so that the reason arrives.
pub(super) const FAREWELL: Duration = Duration::from_millis(200);

/// Bytes of messages that are taken together, roughly: the replica is taken for a tenth of a millisecond, and then others
/// have their turn.
const TOGETHER_BYTES_MAX: usize = 32 << 10;

/// One connection of a link whose other end has proved the secret.
pub(super) struct LaneEnds {
    pub(super) lane: Lane,
    pub(super) reader: FrameReader,
    pub(super) sender: LaneSender,
}

/// A link that is made and not greeted.
pub(super) struct Link {
    pub(super) number: u64,
    /// In the order of [`lane_index`].
    ends: [LaneEnds; 3],
}

impl Link {
    /// A link of three lanes; `None` when one is there twice.
    pub(super) fn new(number: u64, mut ends: Vec<LaneEnds>) -> Option<Self> {
        ends.sort_by_key(|end| lane_index(end.lane));
        let ends: [LaneEnds; 3] = ends.try_into().ok()?;
        let is_whole = ends.iter().enumerate().all(|(index, end)| lane_index(end.lane) == index);
        is_whole.then_some(Self { number, ends })
    }

    /// Greets the other end and carries its messages until the link breaks or is closed.
    ///
    /// `tell` makes the frame that tells the other end the verdict, when it is for this end to tell.
    pub(super) async fn run(
        self,
        driver: &Arc<Driver>,
        hello: Hello,
        dialled: Option<String>,
        tell: impl FnOnce(&Result<Hello, Denied>) -> Option<Bytes>,
    ) -> Result<(), Denied> {
        let (peer, number) = (hello.origin, self.number);
        let close = CancellationToken::new();
        for end in &self.ends {
            let taker = Taker { driver: driver.clone(), peer: peer.node };
            // Each lane is greeted once.
            let _ = end.sender.taker.set(taker);
        }
        let senders = self.ends.each_ref().map(|end| end.sender.messages.clone());
        let lanes = Lanes::new(peer, number, dialled.is_some(), senders, &close);
        let verdict = driver.greet(hello, dialled, lanes);
        let [push, heartbeat, bulk] = self.ends;
        if let Some(frame) = tell(&verdict) {
            // Two frames fit in; when the connection is gone, so will be the link.
            let _ = heartbeat.sender.handshake.try_send(frame);
        }
        // Closed with this future, however it ends.
        let _closers = [&push, &heartbeat, &bulk].map(|end| end.sender.close.clone().drop_guard());
        // What the replica has sent meanwhile follows the handshake.
        let readers = [push, heartbeat, bulk].map(|end| (end.lane, end.reader));
        match verdict {
            Ok(_) => {
                let _down = LinkGuard { driver, peer, number };
                carry(driver, peer, readers, &close).await;
                Ok(())
            }
            Err(denied) => {
                // The verdict is still on its way.
                tokio::time::sleep(FAREWELL).await;
                Err(denied)
            }
        }
    }
}

/// Says that a link is down, however its task ends.
struct LinkGuard<'a> {
    driver: &'a Arc<Driver>,
    peer: Origin,
    number: u64,
}

impl Drop for LinkGuard<'_> {
    fn drop(&mut self) {
        self.driver.link_down(self.peer.node, self.number);
    }
}

async fn carry(
    driver: &Arc<Driver>,
    peer: Origin,
    ends: [(Lane, FrameReader); 3],
    close: &CancellationToken,
) {
    let mut readers = JoinSet::new();
    for (lane, reader) in ends {
        readers.spawn(receive(driver.clone(), peer, reader, lane));
    }
    tokio::select! {
        () = close.cancelled() => {}
        Some(ended) = readers.join_next() => match ended {
            Ok(Err(WireError::Closed)) | Err(_) => {}
            Ok(Err(error)) => {
                if error.is_malformed() {
                    driver.metrics().messages_unreadable.inc();
                }
                let error: &dyn std::error::Error = &error;
                tracing::warn!(peer.id = %peer.node, error, "link lost");
            }
            Ok(Ok(())) => tracing::warn!(peer.id = %peer.node, "link lost: the peer is silent"),
        },
    }
    readers.shutdown().await;
}

/// Hands a lane's messages to the replica; ends well only when the lane has been silent for too long.
async fn receive(
    driver: Arc<Driver>,
    peer: Origin,
    mut reader: FrameReader,
    lane: Lane,
) -> Result<(), WireError> {
    loop {
        let frame = if lane == Lane::Heartbeat {
            match tokio::time::timeout(SILENCE_MAX, reader.next()).await {
                Ok(frame) => frame?,
                Err(_) => return Ok(()),
            }
        } else {
            reader.next().await?
        };
        let mut messages = Vec::new();
        let ended = read_on(&mut reader, frame, &mut messages);
        let is_stored =
            |message: &Message| matches!(message, Message::Push { .. } | Message::DeltaPage { .. });
        if messages.iter().any(is_stored) {
            // A disk that does not keep up holds up whoever brings it more.
            driver.queue().room().await;
        }
        driver.take_messages(peer, messages);
        ended?;
    }
}

/// Takes the messages that came together. Those before one that cannot be read are taken all the same.
fn read_on<B: Body<Data = Bytes, Error = hyper::Error> + Unpin>(
    reader: &mut FrameReader<B>,
    first: Bytes,
    messages: &mut Vec<Message>,
) -> Result<(), WireError> {
    let (mut next, mut bytes) = (Some(first), 0);
    while let Some(frame) = next {
        bytes += frame.len();
        messages.push(codec::decode_message(&frame)?);
        next = if bytes < TOGETHER_BYTES_MAX { reader.next_read()? } else { None };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;
    use crate::peers::wire::put_frame;

    /// Reads messages of these encodings, which arrive together, as long as they can be read.
    async fn read(encodings: &[Vec<u8>]) -> (Vec<usize>, bool) {
        let mut buffer = Vec::new();
        for encoding in encodings {
            put_frame(&mut buffer, |buffer| buffer.extend_from_slice(encoding));
        }
        let body = Full::new(Bytes::from(buffer)).map_err(|never| match never {});
        let (mut reader, mut turns) = (FrameReader::new(body), Vec::new());
        loop {
            let first = match reader.next().await {
                Ok(first) => first,
                Err(error) => return (turns, error.is_malformed()),
            };
            let mut messages = Vec::new();
            let ended = read_on(&mut reader, first, &mut messages);
            turns.push(messages.len());
            if let Err(error) = ended {
                return (turns, error.is_malformed());
            }
        }
    }

    fn encoded(message: &Message) -> Vec<u8> {
        let mut encoding = Vec::new();
        codec::encode_message(message, &mut encoding);
        encoding
    }

    #[tokio::test]
    async fn what_came_before_a_message_that_cannot_be_read_is_taken() {
        let goodbye = encoded(&Message::Goodbye);
        let encodings = [goodbye.clone(), goodbye.clone(), vec![0xff], goodbye];
        assert_eq!(read(&encodings).await, (vec![2], true));
        assert_eq!(read(&encodings[..2]).await, (vec![2], false), "the body ends");
    }

    #[tokio::test]
    async fn so_much_is_taken_together() {
        let table = "t".parse().expect("a name");
        let wanted = vec![mneme_replica::id::KeyHash::from_bytes([7; 16]); 1_000];
        let repair = encoded(&Message::Repair { table, rows: Vec::new(), wanted, is_divergence: false });
        assert!((TOGETHER_BYTES_MAX / 2..TOGETHER_BYTES_MAX).contains(&repair.len()));
        assert_eq!(read(&[repair.clone(), repair.clone(), repair]).await, (vec![2, 1], false));
    }
}
