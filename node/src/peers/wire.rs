//! Bytes between peers: frames on the two bodies of one long HTTP/2 exchange.
//!
//! A frame is a length (4 bytes, big endian) and that many bytes. First the handshake's frames ([`super::handshake`]),
//! then one message a frame.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// Bytes of a frame, at most: a delta page with one record of the largest size, and room.
pub(super) const FRAME_BYTES_MAX: usize = 64 << 20;

/// What can go wrong while frames are read.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The other end closed the connection.
    #[error("the peer closed the connection")]
    Closed,
    /// A frame is longer than any we would send.
    #[error("the peer sent a frame of {0} bytes, more than {FRAME_BYTES_MAX}")]
    Oversized(usize),
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

/// Frames of one body.
#[derive(Debug)]
pub(super) struct FrameReader {
    body: Incoming,
    buffer: BytesMut,
}

impl FrameReader {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// The next frame. Cancel safety: safe, what was read stays in the buffer.
    pub(super) async fn next(&mut self) -> Result<Bytes, WireError> {
        loop {
            if let Some(length) = self.buffer.first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if length > FRAME_BYTES_MAX {
                    return Err(WireError::Oversized(length));
                }
                if self.buffer.len() >= 4 + length {
                    self.buffer.advance(4);
                    return Ok(self.buffer.split_to(length).freeze());
                }
            }
            let frame = self.body.frame().await.ok_or(WireError::Closed)?.map_err(WireError::Read)?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
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
