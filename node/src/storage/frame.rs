//! Frames: what a group commit appends, one, or several when it is large.
//!
//! Shape: format (1 byte), XXH3-64 of the number and the entries (8 bytes, big endian), entries. An entry is a tag (1
//! byte), a length (4 bytes, big endian), and that many bytes. XXH3 finds the accidents of disks; nobody forges frames
//! who could not write the whole file.

use std::collections::VecDeque;

use mneme_replica::codec;
use mneme_replica::effect::PersistItem;
use mneme_replica::record::{Row, Write, row_bytes};
use mneme_replica::version_vector::VersionVector;
use xxhash_rust::xxh3::Xxh3;

/// Format of the frames written here.
const FORMAT: u8 = 1;
/// Bytes before the entries.
const HEAD_BYTES: usize = 9;
/// Bytes before the content of an entry.
const ENTRY_HEAD_BYTES: usize = 5;

/// Bytes from which a frame takes no further entry.
///
/// Far below what SQLite takes as one value (10^9), and little for compaction to read and rewrite at once; what a delta
/// brings to an empty node is as large as its memory.
pub const FRAME_BYTES: usize = 1 << 20;
/// Bytes of rows from which an entry takes no further one. A write is one entry, whatever its size: it is never split.
const ROWS_BYTES: usize = 256 << 10;

const WRITE: u8 = 1;
const ROWS: u8 = 2;
const VECTOR: u8 = 3;
const FIRST: u8 = 4;

/// Bytes that are no frame. Never says what they hold.
#[derive(Debug, thiserror::Error)]
#[error("frame {id}: {what}")]
pub struct FrameError {
    id: u64,
    what: &'static str,
}

/// One entry of a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// States of one write; claims its dot.
    Write(Write),
    /// States that claim nothing.
    Rows(Vec<Row>),
    /// Everything in this vector is in the entries before.
    Vector(VersionVector),
    /// Frames before this number were compacted.
    First(u64),
}

/// A frame that is being filled.
#[derive(Debug)]
pub struct FrameBuilder {
    body: Vec<u8>,
}

impl Default for FrameBuilder {
    fn default() -> Self {
        Self::with_capacity(HEAD_BYTES)
    }
}

impl FrameBuilder {
    fn with_capacity(bytes: usize) -> Self {
        let mut body = Vec::with_capacity(bytes);
        body.push(FORMAT);
        body.resize(HEAD_BYTES, 0);
        Self { body }
    }

    /// Takes parts until the frame is full; `None` when there are none left.
    fn fill(parts: &mut VecDeque<Part<'_>>) -> Option<Self> {
        // Room for the writes that come first, which is nearly always all: a frame that grows is moved.
        let mut room = HEAD_BYTES;
        for part in parts.iter() {
            let Part::Write(write) = part else { break };
            room += ENTRY_HEAD_BYTES + write.encoded().len();
            if room >= FRAME_BYTES {
                break;
            }
        }
        let mut builder = Self::with_capacity(room);
        while builder.bytes() < FRAME_BYTES
            && let Some(part) = parts.pop_front()
        {
            match part {
                Part::Write(write) => {
                    builder.entry(WRITE, |body| body.extend_from_slice(write.encoded()));
                }
                Part::Rows(rows) => builder.entry(ROWS, |body| codec::encode_rows(rows, body)),
                Part::Vector(vector) => builder.push_vector(vector),
                Part::First(first) => builder.push_first(first),
            }
        }
        (!builder.is_empty()).then_some(builder)
    }

    /// Adds what the entries so far amount to.
    pub fn push_vector(&mut self, vector: &VersionVector) {
        self.entry(VECTOR, |body| codec::encode_vector(vector, body));
    }

    /// Says that frames before `first` are gone.
    pub fn push_first(&mut self, first: u64) {
        self.entry(FIRST, |body| body.extend_from_slice(&first.to_be_bytes()));
    }

    fn entry(&mut self, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
        self.body.push(tag);
        let length_at = self.body.len();
        self.body.extend_from_slice(&[0; 4]);
        write(&mut self.body);
        let length = self.body.len() - length_at - 4;
        let length = u32::try_from(length).expect("an entry is some rows, or a write that came in a message");
        self.body[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.body.len() == HEAD_BYTES
    }

    /// The finished frame.
    pub fn finish(mut self, id: u64) -> super::StoredFrame {
        let sum = checksum(id, &self.body[HEAD_BYTES..]);
        self.body[1..HEAD_BYTES].copy_from_slice(&sum.to_be_bytes());
        super::StoredFrame { id, body: self.body }
    }
}

/// What becomes one entry.
#[derive(Debug)]
enum Part<'a> {
    Write(&'a Write),
    Rows(&'a [Row]),
    Vector(&'a VersionVector),
    First(u64),
}

/// Rows in pieces of about [`ROWS_BYTES`].
fn pieces(mut rest: &[Row]) -> impl Iterator<Item = &[Row]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|row| {
            let has_room = bytes < ROWS_BYTES;
            bytes += row_bytes(row);
            has_room
        });
        let (piece, tail) = rest.split_at(fitting.count());
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The frames of one transaction, in order: entries of the replica over as many as they need, then what compaction
/// adds.
///
/// Made one at a time, as they are written: what a delta brought to an empty node is not in memory a second time.
#[derive(Debug)]
pub struct Frames<'a> {
    parts: VecDeque<Part<'a>>,
    next: u64,
    bytes: usize,
}

impl<'a> Frames<'a> {
    /// Frames from number `next` on.
    pub fn new(items: impl Iterator<Item = &'a PersistItem>, next: u64) -> Self {
        let mut parts = VecDeque::with_capacity(items.size_hint().0);
        for item in items {
            match item {
                PersistItem::Write(write) => parts.push_back(Part::Write(write)),
                PersistItem::Rows(rows) => parts.extend(pieces(rows).map(Part::Rows)),
                PersistItem::Vector(vector) => parts.push_back(Part::Vector(vector)),
            }
        }
        Self { parts, next, bytes: 0 }
    }

    /// Adds states that claim nothing.
    pub fn push_rows(&mut self, rows: &'a [Row]) {
        self.parts.extend(pieces(rows).map(Part::Rows));
    }

    /// Says that frames before `first` are gone, and what all frames that ever were amount to.
    pub fn push_cut(&mut self, vector: &'a VersionVector, first: u64) {
        self.parts.extend([Part::Vector(vector), Part::First(first)]);
    }

    /// Number of the next frame.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Bytes of the frames so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Iterator for Frames<'_> {
    type Item = super::StoredFrame;

    fn next(&mut self) -> Option<Self::Item> {
        let builder = FrameBuilder::fill(&mut self.parts)?;
        let frame = builder.finish(self.next);
        self.next += 1;
        self.bytes += frame.body.len();
        Some(frame)
    }
}

/// The number is in the sum, so that a frame in another's place is found.
fn checksum(id: u64, entries: &[u8]) -> u64 {
    let mut sum = Xxh3::new();
    sum.update(&id.to_be_bytes());
    sum.update(entries);
    sum.digest()
}

/// Reads a frame.
///
/// # Errors
///
/// [`FrameError`] for anything but what a [`FrameBuilder`] made under this number.
pub fn decode(id: u64, body: &[u8]) -> Result<Vec<Entry>, FrameError> {
    let error = |what| FrameError { id, what };
    let (head, rest) = body.split_at_checked(HEAD_BYTES).ok_or(error("it is too short"))?;
    if head[0] != FORMAT {
        return Err(error("its format is unknown"));
    }
    if head[1..] != checksum(id, rest).to_be_bytes() {
        return Err(error("its checksum does not match"));
    }
    entries(rest).map_err(error)
}

/// Reads the entries of a frame whose checksum matched.
///
/// # Errors
///
/// What is wrong with them.
pub fn entries(mut rest: &[u8]) -> Result<Vec<Entry>, &'static str> {
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (tag, length, tail) = split_head(rest).ok_or("an entry is cut")?;
        let (content, tail) = tail.split_at_checked(length).ok_or("an entry is cut")?;
        entries.push(entry(tag, content).ok_or("an entry is malformed")?);
        rest = tail;
    }
    Ok(entries)
}

fn split_head(bytes: &[u8]) -> Option<(u8, usize, &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (length, tail) = rest.split_first_chunk::<4>()?;
    Some((*tag, u32::from_be_bytes(*length) as usize, tail))
}

fn entry(tag: u8, content: &[u8]) -> Option<Entry> {
    let (entry, taken) = match tag {
        WRITE => codec::decode_write(content).map(|(write, taken)| (Entry::Write(write), taken)).ok()?,
        ROWS => codec::decode_rows(content).map(|(rows, taken)| (Entry::Rows(rows), taken)).ok()?,
        VECTOR => codec::decode_vector(content).map(|(vector, taken)| (Entry::Vector(vector), taken)).ok()?,
        FIRST => (Entry::First(u64::from_be_bytes(*content.first_chunk::<8>()?)), 8),
        _ => return None,
    };
    (taken == content.len()).then_some(entry)
}
