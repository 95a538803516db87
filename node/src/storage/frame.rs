//! Frames: what one group commit appends.
//!
//! Shape: format (1 byte), XXH3-64 of the number and the entries (8 bytes, big endian), entries. An entry is a tag (1
//! byte), a length (4 bytes, big endian), and that many bytes. XXH3 finds the accidents of disks; nobody forges frames
//! who could not write the whole file.

use mneme_replica::codec;
use mneme_replica::effect::PersistItem;
use mneme_replica::record::{Row, Write};
use mneme_replica::version_vector::VersionVector;
use xxhash_rust::xxh3::Xxh3;

/// Format of the frames written here.
const FORMAT: u8 = 1;
/// Bytes before the entries.
const HEAD_BYTES: usize = 9;

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
        let mut body = Vec::with_capacity(4_096);
        body.push(FORMAT);
        body.resize(HEAD_BYTES, 0);
        Self { body }
    }
}

impl FrameBuilder {
    /// Adds an entry of the replica.
    pub fn push(&mut self, item: &PersistItem) {
        match item {
            PersistItem::Write(write) => self.entry(WRITE, |body| body.extend_from_slice(write.encoded())),
            PersistItem::Rows(rows) => self.push_rows(rows),
            PersistItem::Vector(vector) => self.push_vector(vector),
        }
    }

    /// Adds states that claim nothing.
    pub fn push_rows(&mut self, rows: &[Row]) {
        self.entry(ROWS, |body| codec::encode_rows(rows, body));
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
        let length = u32::try_from(length).expect("a frame is filled to a few MiB, an entry to a batch");
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
    let (head, mut rest) = body.split_at_checked(HEAD_BYTES).ok_or(error("it is too short"))?;
    if head[0] != FORMAT {
        return Err(error("its format is unknown"));
    }
    if head[1..] != checksum(id, rest).to_be_bytes() {
        return Err(error("its checksum does not match"));
    }
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (tag, length, tail) = split_head(rest).ok_or(error("an entry is cut"))?;
        let (content, tail) = tail.split_at_checked(length).ok_or(error("an entry is cut"))?;
        entries.push(entry(tag, content).ok_or(error("an entry is malformed"))?);
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
