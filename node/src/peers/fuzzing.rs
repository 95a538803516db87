//! The parsers of what comes in on the peer port, for the suite that brings hostile bytes to every parser. Nothing else
//! calls this.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hyper::body::{Body, Frame};

use super::handshake::{ClusterSecret, Preface, Verdict};
use super::wire::{FRAME_BYTES_MAX, FrameReader, STRANGER_FRAME_BYTES_MAX};

/// Reads the first frame of a lane and makes it anew; `None` when it is refused.
pub fn preface(bytes: &[u8]) -> Option<Bytes> {
    Preface::decode(bytes).ok().map(|preface| preface.encode())
}

/// Reads how an acceptor ends a handshake and makes it anew; `None` when it is refused.
pub fn verdict(bytes: &[u8]) -> Option<Bytes> {
    Verdict::decode(bytes).ok().map(|verdict| verdict.encode())
}

/// Whether these bytes prove, behind this preface, that whoever sends them knows `secret`.
pub fn is_proved(secret: &str, preface: &[u8], bytes: &[u8]) -> bool {
    let Ok(preface) = Preface::decode(preface) else { return false };
    let secret = ClusterSecret::from_text(secret);
    let dialler = preface.check_proof(&secret, &[7; 32], bytes);
    let acceptor = preface.check_answer(&secret, bytes);
    matches!(dialler, Ok(Some(_))) || matches!(acceptor, Ok(Some(_)))
}

/// Splits what arrives in these pieces into frames, as they are read from a peer that `is_trusted` or from a stranger;
/// and how many bytes the longest may have.
pub fn frames(pieces: &[&[u8]], is_trusted: bool) -> (Vec<Bytes>, usize) {
    let pieces = Pieces(pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect());
    let mut reader = FrameReader::new(pieces);
    if is_trusted {
        reader.trust();
    }
    let (mut frames, mut context) = (Vec::new(), Context::from_waker(Waker::noop()));
    // The pieces are all there, so nothing is ever waited for.
    while let Poll::Ready(Ok(frame)) = std::pin::pin!(reader.next()).poll(&mut context) {
        frames.push(frame);
    }
    (frames, if is_trusted { FRAME_BYTES_MAX } else { STRANGER_FRAME_BYTES_MAX })
}

struct Pieces(VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}
