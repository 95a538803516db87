//! HTTP/2 frame by frame, so that a test can send what no client library would.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// DATA.
pub const DATA: u8 = 0;
/// HEADERS.
pub const HEADERS: u8 = 1;
/// RST_STREAM.
pub const RST_STREAM: u8 = 3;
/// SETTINGS.
pub const SETTINGS: u8 = 4;
/// PING.
pub const PING: u8 = 6;
/// GOAWAY.
pub const GOAWAY: u8 = 7;
/// WINDOW_UPDATE.
pub const WINDOW_UPDATE: u8 = 8;
/// CONTINUATION.
pub const CONTINUATION: u8 = 9;

/// END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
pub const END_STREAM: u8 = 1;
/// END_HEADERS of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;

/// Bytes sent at once.
const CHUNK_BYTES: usize = 64 << 10;

/// A frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut frame = Vec::with_capacity(9 + payload.len());
    frame.extend_from_slice(&length[1..]);
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// What every connection begins with: the preface and settings of these identifiers and values.
#[must_use]
pub fn preface(settings: &[(u16, u32)]) -> Vec<u8> {
    let pair = |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let settings: Vec<u8> = settings.iter().flat_map(pair).collect();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &settings)[..]].concat()
}

/// The header block of a request, each header in full.
#[must_use]
pub fn header_block(method: &str, path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x")] {
        put_header(&mut block, name, value);
    }
    block
}

/// Appends a header in full, in neither side's table.
pub fn put_header(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        put_length(block, text.len());
        block.extend_from_slice(text.as_bytes());
    }
}

/// An integer with a prefix of seven bits (RFC 7541, section 5.1).
fn put_length(block: &mut Vec<u8>, length: usize) {
    let byte = |number: usize| u8::try_from(number).expect("less than 256");
    if length < 127 {
        block.push(byte(length));
        return;
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(byte(rest % 128 + 128));
        rest /= 128;
    }
    block.push(byte(rest));
}

/// How a flood ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The server took all of it.
    Taken,
    /// The server closed the connection, or told it to go away.
    Closed,
    /// The server stopped reading.
    Held,
}

/// Sends bytes, made in turn, and reads what comes back, until all are sent and answered or the server has had enough.
///
/// A last ping tells whether the server took all: it answers in order. `limit` is for a server that no longer reads.
///
/// # Panics
///
/// When the server cannot be reached.
pub async fn flood(address: SocketAddr, pieces: impl Iterator<Item = Vec<u8>>, limit: Duration) -> Ended {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let (mut reader, mut writer) = stream.into_split();
    let last = [0x5a; 8];
    let sending = async {
        let mut chunk = Vec::new();
        for piece in pieces.chain([frame(PING, 0, 0, &last)]) {
            chunk.extend_from_slice(&piece);
            if chunk.len() >= CHUNK_BYTES {
                if writer.write_all(&chunk).await.is_err() {
                    return writer;
                }
                chunk.clear();
            }
        }
        // What went wrong is seen by whoever reads.
        let _ = writer.write_all(&chunk).await;
        writer
    };
    let reading = async {
        let (mut received, mut buffer) = (Vec::new(), vec![0; CHUNK_BYTES]);
        loop {
            match reader.read(&mut buffer).await {
                Ok(count @ 1..) => received.extend_from_slice(&buffer[..count]),
                _ => return Ended::Closed,
            }
            while let Some((kind, flags, payload, length)) = first_frame(&received) {
                let is_last = kind == PING && flags & END_STREAM != 0 && payload == last;
                if is_last {
                    return Ended::Taken;
                }
                if kind == GOAWAY {
                    return Ended::Closed;
                }
                received.drain(..length);
            }
        }
    };
    let both = async {
        tokio::pin!(reading);
        tokio::select! {
            ended = &mut reading => ended,
            writer = sending => {
                // Open until the answer is there.
                let ended = reading.await;
                drop(writer);
                ended
            }
        }
    };
    tokio::time::timeout(limit, both).await.unwrap_or(Ended::Held)
}

/// Kind, flags, payload and length of the first frame, when it is whole.
fn first_frame(bytes: &[u8]) -> Option<(u8, u8, &[u8], usize)> {
    let head = bytes.first_chunk::<9>()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    Some((head[3], head[4], bytes.get(9..9 + length)?, 9 + length))
}
