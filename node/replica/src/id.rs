//! Who wrote what: node ids, origins, sequences, dots, and the hash that stands for a key.

use std::fmt;
use std::str::FromStr;

use mneme_api::Key;

/// Identity of a node, drawn once and kept in its file; an address is only a hint.
///
/// Shape: 16 lowercase hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// The node with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number behind the text form.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no node id.
#[derive(Debug, thiserror::Error)]
#[error("a node id is 16 hexadecimal digits")]
pub struct ParseNodeIdError;

impl FromStr for NodeId {
    type Err = ParseNodeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 16 {
            return Err(ParseNodeIdError);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| ParseNodeIdError)
    }
}

/// One life of a node: its id and a random boot epoch, new at every process start.
///
/// Sequences are counted per origin, so a file that was rolled back, restored or cloned can never
/// give a sequence out twice: its next process writes under another origin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The node.
    pub node: NodeId,
    /// Random number of this process start.
    pub epoch: u64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:016x}", self.node, self.epoch)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One write at its origin; a batch is one write.
///
/// `sequence` is 1-based and contiguous per origin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Where the write was taken.
    pub origin: Origin,
    /// Its position there.
    pub sequence: u64,
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.origin, self.sequence)
    }
}

/// 16 bytes that stand for a key: shard, digest bucket and the name of a tombstone.
///
/// BLAKE3 truncated, because keys come from clients: nobody can make two keys meet, so nobody can
/// bury somebody else's session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash([u8; 16]);

impl KeyHash {
    /// Hash of `key`.
    pub fn of(key: &Key) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(key.encoded()).as_bytes()[..16]);
        Self(bytes)
    }

    /// The hash as it travels.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes as they travel.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The last eight bytes as a number: uniform, so it is used as a hash without hashing again.
    pub fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[8..]);
        u64::from_le_bytes(bytes)
    }

    /// Number of the digest bucket. Its low bits are the shard's number, so that all keys of a bucket are in one shard
    /// and a bucket is listed without a look at the others.
    pub fn bucket(&self) -> usize {
        (self.number() >> 32) as usize % crate::limits::DIGEST_BUCKETS
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never more than a glimpse: a session id could be guessed against a whole hash.
        write!(f, "key {:02x}{:02x}…", self.0[0], self.0[1])
    }
}
