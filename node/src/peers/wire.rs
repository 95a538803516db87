//! Bytes between peers: frames on the two bodies of one long HTTP/2 exchange.
//!
//! A frame is a length (4 bytes, big endian) and that many bytes. First the handshake's frames ([`super::handshake`]),
//! then one message a frame.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

/// Bytes of a frame, at most: a delta page with one record of the largest size, and room.
pub(super) const FRAME_BYTES_MAX: usize = 64 << 20;
/// The same before the other end has proved the secret: a hello, which names every member and table, and room. Whoever
/// can reach the port could make this node hold so much.
pub(super) const STRANGER_FRAME_BYTES_MAX: usize = 64 << 10;

/// What can go wrong while frames are read.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The other end closed the connection.
    #[error("the peer closed the connection")]
    Closed,
    /// A frame is longer than any we would send.
    #[error("the peer sent a frame of {bytes} bytes, more than {bytes_max}")]
    Oversized {
        /// Its length.
        bytes: usize,
        /// The longest that is taken.
        bytes_max: usize,
    },
    /// The connection broke.
    #[error("failed to read from the peer")]
    Read(#[source] hyper::Error),
    /// The bytes make no sense.
    #[error("the peer sent what cannot be read")]
    Decode(#[from] mneme_replica::codec::DecodeError),
    /// The bytes of a handshake make no sense.
    #[error("the peer sent a malformed handshake")]
    Handshake,
}

impl WireError {
    /// Whether the other end sent what no node sends; else the connection ended or broke.
    pub(super) fn is_malformed(&self) -> bool {
        match self {
            Self::Oversized { .. } | Self::Decode(_) | Self::Handshake => true,
            Self::Closed | Self::Read(_) => false,
        }
    }
}

/// Frames of one body.
#[derive(Debug)]
pub(super) struct FrameReader<B = Incoming> {
    body: B,
    buffer: BytesMut,
    frame_bytes_max: usize,
}

impl<B: Body<Data = Bytes, Error = hyper::Error> + Unpin> FrameReader<B> {
    /// A reader of what a stranger sends.
    pub(super) fn new(body: B) -> Self {
        Self { body, buffer: BytesMut::new(), frame_bytes_max: STRANGER_FRAME_BYTES_MAX }
    }

    /// The other end has proved the secret: from here on frames may be as long as a peer's.
    pub(super) fn trust(&mut self) {
        self.frame_bytes_max = FRAME_BYTES_MAX;
    }

    /// The next frame. Cancel safety: safe, what was read stays in the buffer.
    pub(super) async fn next(&mut self) -> Result<Bytes, WireError> {
        loop {
            if let Some(frame) = self.next_read()? {
                return Ok(frame);
            }
            let frame = self.body.frame().await.ok_or(WireError::Closed)?.map_err(WireError::Read)?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }

    /// The next frame, if it has been read already.
    pub(super) fn next_read(&mut self) -> Result<Option<Bytes>, WireError> {
        let Some(length) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.frame_bytes_max {
            return Err(WireError::Oversized { bytes: length, bytes_max: self.frame_bytes_max });
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// Appends a frame whose bytes `write` appends.
pub(super) fn put_frame(buffer: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    write(buffer);
    // A longer one is refused by the peer, by name.
    let length = u32::try_from(buffer.len() - start - 4).unwrap_or(u32::MAX);
    buffer[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn reader(frames: &[usize]) -> FrameReader<impl Body<Data = Bytes, Error = hyper::Error> + Unpin> {
        let mut buffer = Vec::new();
        for bytes in frames {
            put_frame(&mut buffer, |buffer| buffer.resize(buffer.len() + bytes, 7));
        }
        FrameReader::new(Full::new(Bytes::from(buffer)).map_err(|never| match never {}))
    }

    #[tokio::test]
    async fn a_stranger_sends_short_frames_and_a_peer_long_ones() {
        let mut reader = reader(&[3, STRANGER_FRAME_BYTES_MAX, STRANGER_FRAME_BYTES_MAX + 1, 4]);
        assert_eq!(reader.next().await.expect("short").len(), 3);
        assert_eq!(reader.next().await.expect("as long as may be").len(), STRANGER_FRAME_BYTES_MAX);
        let error = reader.next().await.expect_err("too long").to_string();
        assert!(error.contains("65537") && error.contains("65536"), "{error}");
        reader.trust();
        assert_eq!(reader.next().await.expect("a peer's").len(), STRANGER_FRAME_BYTES_MAX + 1);
        assert_eq!(reader.next().await.expect("the next").len(), 4);
        assert!(matches!(reader.next().await, Err(WireError::Closed)));
    }

    #[tokio::test]
    async fn frames_that_were_read_already_are_told_from_those_to_wait_for() {
        let mut reader = reader(&[3, 4]);
        assert!(matches!(reader.next_read(), Ok(None)), "nothing was read");
        assert_eq!(reader.next().await.expect("the first").len(), 3);
        assert_eq!(reader.next_read().expect("well-formed").map(|frame| frame.len()), Some(4));
        assert!(matches!(reader.next_read(), Ok(None)), "all were taken");
    }

    #[tokio::test]
    async fn a_peers_frames_have_a_bound_too() {
        let body = Full::new(Bytes::from_static(&[0xff; 8])).map_err(|never| match never {});
        let mut reader = FrameReader::new(body);
        reader.trust();
        assert!(matches!(reader.next().await, Err(WireError::Oversized { .. })));
    }
}
