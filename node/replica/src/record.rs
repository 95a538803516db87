//! A record is two registers, each merged by its own rule, and the merge is a join: in any order,
//! with any duplication and any batching, the same writes give the same state.
//!
//! - The value register: in a `session` table deleted beats live whatever the versions; else the
//!   higher version wins. `bury_until` merges by maximum, whoever wins. (A value of a `cache` table that
//!   expires before its key's `bury_until` becomes a tombstone of its own version; of the two the value wins.)
//! - The touch register: the higher base wins; at an equal base the later deadline.
//!
//! Property tests of the laws: `record/tests.rs`.

use std::fmt;
use std::sync::{Arc, OnceLock};

use mneme_api::{Key, TableKind, TableName};

use crate::id::{Dot, KeyHash};
use crate::version::Version;

#[cfg(test)]
mod tests;

/// Value bytes with their content type, in one allocation.
///
/// Shape: one length byte, the content type, the value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value(Arc<[u8]>);

impl Value {
    /// A value; a content type longer than 255 bytes is cut by the caller's check, not here.
    pub fn new(content_type: &str, bytes: &[u8]) -> Self {
        let length = u8::try_from(content_type.len()).unwrap_or(0);
        let content_type = &content_type.as_bytes()[..usize::from(length)];
        let mut packed = Vec::with_capacity(1 + content_type.len() + bytes.len());
        packed.push(length);
        packed.extend_from_slice(content_type);
        packed.extend_from_slice(bytes);
        Self(packed.into())
    }

    /// The value from its packed form, as it travels; `None` when it is malformed.
    pub fn from_packed(packed: &[u8]) -> Option<Self> {
        let length = usize::from(*packed.first()?);
        std::str::from_utf8(packed.get(1..=length)?).ok()?;
        Some(Self(packed.into()))
    }

    /// The packed form: one length byte, the content type, the value.
    pub fn packed(&self) -> &[u8] {
        &self.0
    }

    /// The media type the client gave; empty when it gave none.
    pub fn content_type(&self) -> &str {
        std::str::from_utf8(&self.0[1..=usize::from(self.0[0])]).unwrap_or("")
    }

    /// The client's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0[1 + usize::from(self.0[0])..]
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} value bytes", self.bytes().len())
    }
}

/// What a value register holds.
///
/// `V` is how the value is present: itself, or for the table's own merges a mark that says
/// "the stored one", so that comparing two states copies no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<V = Value> {
    /// A value, readable while its deadlines lie ahead.
    Live(V),
    /// A tombstone.
    Deleted,
}

/// The half of a record that a put or a delete writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueRegister<V = Value> {
    /// Version of the write that won; its origin is also the dot's.
    pub version: Version,
    /// Sequence of that write at `version.origin`.
    pub sequence: u64,
    /// Milliseconds since the Unix epoch; fixed at creation. 0 in a tombstone.
    pub absolute_deadline_ms: u64,
    /// Milliseconds since the Unix epoch until which a tombstone of this key must stand; 0 when it
    /// was never deleted.
    pub bury_until_ms: u64,
    /// The value or its absence.
    pub body: Body<V>,
    /// Fields of a newer version of the protocol, kept and passed on as they came.
    pub unknown: Option<Arc<[u8]>>,
}

impl<V: Clone> ValueRegister<V> {
    /// The dot of the write that won.
    pub fn dot(&self) -> Dot {
        Dot { origin: self.version.origin, sequence: self.sequence }
    }

    /// Whether this is a tombstone.
    pub fn is_deleted(&self) -> bool {
        matches!(self.body, Body::Deleted)
    }

    /// Joins `other` into `self`; says whether anything changed.
    pub fn merge(&mut self, kind: TableKind, other: &Self) -> bool {
        let bury_until_ms = self.bury_until_ms.max(other.bury_until_ms);
        let other_wins = match kind {
            TableKind::Session => (other.is_deleted(), other.version) > (self.is_deleted(), self.version),
            // At one version there are two only where one side has given up an expired value already.
            TableKind::Cache => (other.version, !other.is_deleted()) > (self.version, !self.is_deleted()),
        };
        let changed = other_wins || bury_until_ms != self.bury_until_ms;
        if other_wins {
            self.clone_from(other);
        }
        self.bury_until_ms = bury_until_ms;
        changed
    }
}

/// The half of a record that moves its idle deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TouchRegister {
    /// Version of the write that last *shortened* the deadline (or of the creation). A later
    /// deadline keeps the base, so concurrent touches join by maximum and none is lost.
    pub base: Version,
    /// Milliseconds since the Unix epoch; capped by the value's absolute deadline when read.
    pub idle_deadline_ms: u64,
    /// The write that set it.
    pub dot: Dot,
}

impl TouchRegister {
    fn rank(&self) -> (Version, u64, Dot) {
        // The dot last: two writes that set the same deadline must still pick one of the two.
        (self.base, self.idle_deadline_ms, self.dot)
    }

    /// Joins `other` into `self`; says whether anything changed.
    pub fn merge(&mut self, other: &Self) -> bool {
        let other_wins = other.rank() > self.rank();
        if other_wins {
            *self = *other;
        }
        other_wins
    }
}

/// The state of one key: what is stored, sent in a delta, and merged.
///
/// In a `session` table a tombstone swallows the touch register: no put can follow, so nothing
/// would ever read it. In a `cache` table it is kept beside the tombstone, because a later put
/// merges with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<V = Value> {
    /// `None` for a touch that met no value (yet).
    pub value: Option<ValueRegister<V>>,
    /// `None` in tombstones.
    pub touch: Option<TouchRegister>,
}

impl<V> Default for Record<V> {
    fn default() -> Self {
        Self { value: None, touch: None }
    }
}

impl<V: Clone> Record<V> {
    /// Joins `other` into `self`; says whether anything changed.
    pub fn merge(&mut self, kind: TableKind, other: &Self) -> bool {
        let mut changed = match (&mut self.value, &other.value) {
            (Some(mine), Some(theirs)) => mine.merge(kind, theirs),
            (None, Some(theirs)) => {
                self.value = Some(theirs.clone());
                true
            }
            (_, None) => false,
        };
        if kind == TableKind::Session && self.is_deleted() {
            // Swallowed, whether it was here before the delete or arrives after it.
            return self.touch.take().is_some() || changed;
        }
        changed |= match (&mut self.touch, &other.touch) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (None, Some(theirs)) => {
                self.touch = Some(*theirs);
                true
            }
            (_, None) => false,
        };
        changed
    }

    /// Whether the value is a tombstone.
    pub fn is_deleted(&self) -> bool {
        self.value.as_ref().is_some_and(ValueRegister::is_deleted)
    }

    /// When this record stops being readable, in milliseconds since the Unix epoch.
    ///
    /// 0 for what never is: a tombstone, a touch without a value, a value without a touch.
    pub fn deadline_ms(&self) -> u64 {
        match (&self.value, &self.touch) {
            (Some(value), Some(touch)) if !value.is_deleted() => {
                value.absolute_deadline_ms.min(touch.idle_deadline_ms)
            }
            _ => 0,
        }
    }

    /// Until when this state has to be kept, in milliseconds since the Unix epoch: the deadline of
    /// a live record (with a `bury_until` beyond it, it then becomes a tombstone), `bury_until` of a tombstone, the
    /// deadline of a touch without a value.
    pub fn keep_until_ms(&self) -> u64 {
        let touch_ms = self.touch.map_or(0, |touch| touch.idle_deadline_ms);
        match &self.value {
            Some(value) if value.is_deleted() => value.bury_until_ms.max(touch_ms),
            Some(_) => self.deadline_ms(),
            None => touch_ms,
        }
    }

    /// Time of the highest version in it, in milliseconds since the Unix epoch; 0 of nothing.
    pub fn version_ms(&self) -> u64 {
        let value_ms = self.value.as_ref().map_or(0, |value| value.version.stamp.ms());
        value_ms.max(self.touch.as_ref().map_or(0, |touch| touch.base.stamp.ms()))
    }

    /// The dots of both registers.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.value.as_ref().map(ValueRegister::dot).into_iter().chain(self.touch.map(|touch| touch.dot))
    }

    /// The value, if it is a live one.
    pub fn live(&self) -> Option<(&ValueRegister<V>, &V)> {
        match &self.value {
            Some(register) => match &register.body {
                Body::Live(value) => Some((register, value)),
                Body::Deleted => None,
            },
            None => None,
        }
    }
}

/// How a row names its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The key itself, with every live value.
    Key(Key),
    /// Its hash: enough for tombstones and touches.
    Hash(KeyHash),
}

impl Subject {
    /// The hash of the key.
    pub fn hash(&self) -> KeyHash {
        match self {
            Self::Key(key) => KeyHash::of(key),
            Self::Hash(hash) => *hash,
        }
    }
}

/// The state of one key as it is stored and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The table.
    pub table: TableName,
    /// The table's kind, so that a node without the table in its configuration merges it right.
    pub kind: TableKind,
    /// The key; always [`Subject::Key`] when the value is live.
    pub subject: Subject,
    /// Hash of the key, computed once.
    pub hash: KeyHash,
    /// The registers, whole or only those that the write changed.
    pub record: Record,
}

impl Row {
    /// Sum of all that a merge looks at, in which a version stands for its value: states of one key that have one sum are
    /// the same.
    pub fn sum(&self) -> u64 {
        crate::digest::row_sum(self.hash, &self.record)
    }
}

/// One write: what a put, touch, delete, eviction or batch changed, atomic on every node.
#[derive(Clone)]
pub struct Write {
    /// Its position at its origin.
    pub dot: Dot,
    /// The changed registers; 1 to `BATCH_OPERATIONS_MAX`, each key once.
    pub rows: Vec<Row>,
    /// Its bytes, made once: the same go to every peer and into the file.
    encoded: OnceLock<Arc<[u8]>>,
}

impl PartialEq for Write {
    fn eq(&self, other: &Self) -> bool {
        self.dot == other.dot && self.rows == other.rows
    }
}

impl Eq for Write {}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write").field("dot", &self.dot).field("rows", &self.rows).finish()
    }
}

/// Bytes by which an encoded row may exceed [`row_bytes`].
const ENCODED_EXTRA_BYTES: usize = 48;

impl Write {
    /// A write of these rows.
    pub fn new(dot: Dot, rows: Vec<Row>) -> Self {
        Self { dot, rows, encoded: OnceLock::new() }
    }

    /// Remembers the bytes from which this write was read.
    pub(crate) fn with_encoded(self, encoded: &[u8]) -> Self {
        Self { encoded: OnceLock::from(Arc::from(encoded)), ..self }
    }

    /// Its bytes, as [`crate::codec::encode_write`] writes them; made at the first call.
    pub fn encoded(&self) -> &Arc<[u8]> {
        self.encoded.get_or_init(|| {
            let mut bytes = Vec::with_capacity(self.encoded_bytes_max());
            crate::codec::encode_write(self, &mut bytes);
            bytes.into()
        })
    }

    /// Bytes that its encoding takes at most, without what a newer peer may have added.
    pub(crate) fn encoded_bytes_max(&self) -> usize {
        self.bytes() + self.rows.len() * ENCODED_EXTRA_BYTES
    }

    /// Memory and wire size, roughly, in bytes: what queues are bounded by.
    pub fn bytes(&self) -> usize {
        32 + self.rows.iter().map(row_bytes).sum::<usize>()
    }
}

/// Memory and wire size of a row, roughly, in bytes.
pub fn row_bytes(row: &Row) -> usize {
    let key_bytes = match &row.subject {
        Subject::Key(key) => key.encoded().len(),
        Subject::Hash(_) => 16,
    };
    let value_bytes = row.record.live().map_or(0, |(_, value)| value.packed().len());
    96 + row.table.as_str().len() + key_bytes + value_bytes
}
