//! A live record as it lies in memory: 96 bytes and one block for key and value.

use std::cmp::Ordering;
use std::sync::Arc;

use mneme_api::Key;
use triomphe::ThinArc;

use super::rows::Hashed;
use super::{Found, Held, Origins, Stored};
use crate::id::{Dot, KeyHash};
use crate::record::{Body, Record, TouchRegister, Value, ValueRegister};
use crate::version::{Stamp, Version};

/// Key and value in one block. Shape: key length (2 bytes, little endian), the key's encoding, the
/// value's packed form.
#[derive(Clone)]
pub(super) struct Block(Data);

/// Bytes of a block that is put together without an allocation of its own.
const SMALL_BYTES: usize = 1 << 10;

/// A thin pointer: one word in each of the places that hold it, where `Arc<[u8]>` is two.
pub(super) type Data = ThinArc<(), u8>;

impl Block {
    fn new(key: &[u8], value: &Value) -> Self {
        let length = u16::try_from(key.len()).expect("an encoded key is at most 1056 bytes");
        let parts = [&length.to_le_bytes(), key, value.packed()];
        let bytes = parts.iter().map(|part| part.len()).sum();
        let mut small = [0; SMALL_BYTES];
        if let Some(mut rest) = small.get_mut(..bytes) {
            for part in parts {
                let (place, after) = rest.split_at_mut(part.len());
                place.copy_from_slice(part);
                rest = after;
            }
            return Self(ThinArc::from_header_and_slice((), &small[..bytes]));
        }
        Self(ThinArc::from_header_and_slice((), &parts.concat()))
    }

    fn bytes(&self) -> &[u8] {
        &self.0.slice
    }

    pub(super) fn key(&self) -> &[u8] {
        let bytes = self.bytes();
        &bytes[2..2 + key_length(bytes)]
    }

    fn value(&self) -> Value {
        let bytes = self.bytes();
        Value::from_packed(packed_value(bytes)).expect("the block was made from a value")
    }
}

fn key_length(block: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([block[0], block[1]]))
}

/// Content type of the value in a block.
pub(super) fn content_type(block: &[u8]) -> &str {
    let packed = packed_value(block);
    std::str::from_utf8(&packed[1..=usize::from(packed[0])]).unwrap_or("")
}

/// Bytes of the value in a block.
pub(super) fn value_bytes(block: &[u8]) -> &[u8] {
    let packed = packed_value(block);
    &packed[1 + usize::from(packed[0])..]
}

fn packed_value(block: &[u8]) -> &[u8] {
    &block[2 + key_length(block)..]
}

// Ordered by key alone, so that a scan walks keys.
impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Block {}
impl PartialOrd for Block {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Block {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

/// What few records have: kept out of line.
struct Rare {
    bury_until_ms: u64,
    unknown: Option<Arc<[u8]>>,
}

/// A live record (readable or expired), packed: origins by number, the rare fields out of line.
pub(super) struct Entry {
    pub(super) hash: KeyHash,
    pub(super) block: Block,
    stamp: Stamp,
    sequence: u64,
    absolute_deadline_ms: u64,
    base_stamp: Stamp,
    idle_deadline: IdleDeadline,
    /// 0: no touch register.
    touch_sequence: u64,
    rare: Option<Box<Rare>>,
    origin: u32,
    base_origin: u32,
    touch_origin: u32,
    /// Second of the deadline bucket in which this entry is filed; 0 when in none.
    pub(super) filed_second: u32,
}

/// The idle deadline in milliseconds, and in the top bit whether the record has ended: its deadline has passed, it is no
/// longer counted. The codec refuses deadlines that need that bit.
#[derive(Clone, Copy, Default)]
struct IdleDeadline(u64);

impl IdleDeadline {
    const ENDED: u64 = 1 << 63;

    const fn ms(self) -> u64 {
        self.0 & !Self::ENDED
    }

    const fn is_ended(self) -> bool {
        self.0 & Self::ENDED != 0
    }

    fn set_ms(&mut self, ms: u64) {
        self.0 = self.0 & Self::ENDED | ms & !Self::ENDED;
    }

    fn set_ended(&mut self, is_ended: bool) {
        self.0 = self.ms() | if is_ended { Self::ENDED } else { 0 };
    }
}

// Rows lie side by side, so every byte counts; an empty place takes no more than a row.
const _: () = assert!(size_of::<Option<Entry>>() == 96 && size_of::<Option<Tombstone>>() == 48);

impl Entry {
    /// A new entry; `register`'s own body is not looked at.
    pub(super) fn new(
        hash: KeyHash,
        key: &[u8],
        value: &Value,
        register: &ValueRegister<Stored>,
        origins: &Origins,
    ) -> Self {
        let mut entry = Self {
            hash,
            block: Block::new(key, value),
            stamp: register.version.stamp,
            sequence: 0,
            absolute_deadline_ms: 0,
            base_stamp: Stamp::at(0),
            idle_deadline: IdleDeadline::default(),
            touch_sequence: 0,
            rare: None,
            origin: 0,
            base_origin: 0,
            touch_origin: 0,
            filed_second: 0,
        };
        entry.set_register(register, origins);
        entry
    }

    /// Takes the value register's fields, without its value.
    pub(super) fn set_register(&mut self, register: &ValueRegister<Stored>, origins: &Origins) {
        self.stamp = register.version.stamp;
        self.origin = origins.number(register.version.origin);
        self.sequence = register.sequence;
        self.absolute_deadline_ms = register.absolute_deadline_ms;
        self.rare = (register.bury_until_ms != 0 || register.unknown.is_some()).then(|| {
            Box::new(Rare { bury_until_ms: register.bury_until_ms, unknown: register.unknown.clone() })
        });
    }

    /// Takes another value under the same key.
    pub(super) fn set_value(&mut self, value: &Value) {
        self.block = Block::new(self.block.key(), value);
    }

    /// Takes the touch register's fields.
    pub(super) fn set_touch(&mut self, touch: Option<&TouchRegister>, origins: &Origins) {
        let Some(touch) = touch else {
            self.touch_sequence = 0;
            return;
        };
        self.base_stamp = touch.base.stamp;
        self.base_origin = origins.number(touch.base.origin);
        self.idle_deadline.set_ms(touch.idle_deadline_ms);
        self.touch_origin = origins.number(touch.dot.origin);
        self.touch_sequence = touch.dot.sequence;
    }

    pub(super) fn version(&self, origins: &Origins) -> Version {
        Version { stamp: self.stamp, origin: origins.get(self.origin) }
    }

    /// When it stops being readable; 0 without a touch register.
    pub(super) fn deadline_ms(&self) -> u64 {
        if self.touch_sequence == 0 { 0 } else { self.idle_deadline.ms().min(self.absolute_deadline_ms) }
    }

    /// Whether its deadline has passed: it is no longer counted.
    pub(super) fn is_ended(&self) -> bool {
        self.idle_deadline.is_ended()
    }

    pub(super) fn set_ended(&mut self, is_ended: bool) {
        self.idle_deadline.set_ended(is_ended);
    }

    /// What counts of it.
    pub(super) fn held(&self) -> Held {
        if self.is_ended() {
            return Held::Expired { bytes: self.block.bytes().len() };
        }
        let bytes = Key::bytes_of_encoded(self.block.key()) + value_bytes(self.block.bytes()).len();
        Held::Live { bytes }
    }

    pub(super) fn found(&self, origins: &Origins) -> Found {
        Found {
            data: self.block.0.clone(),
            version: self.version(origins),
            deadline_ms: self.deadline_ms(),
            absolute_deadline_ms: self.absolute_deadline_ms,
        }
    }

    /// The registers with a mark in place of the value.
    pub(super) fn outline(&self, origins: &Origins) -> Record<Stored> {
        self.record(origins, Stored::Held)
    }

    /// The registers with the value.
    pub(super) fn state(&self, origins: &Origins) -> Record {
        self.record(origins, self.block.value())
    }

    fn record<V>(&self, origins: &Origins, value: V) -> Record<V> {
        let touch = (self.touch_sequence != 0).then(|| TouchRegister {
            base: Version { stamp: self.base_stamp, origin: origins.get(self.base_origin) },
            idle_deadline_ms: self.idle_deadline.ms(),
            dot: Dot { origin: origins.get(self.touch_origin), sequence: self.touch_sequence },
        });
        let rare = self.rare.as_deref();
        let register = ValueRegister {
            version: self.version(origins),
            sequence: self.sequence,
            absolute_deadline_ms: self.absolute_deadline_ms,
            bury_until_ms: rare.map_or(0, |rare| rare.bury_until_ms),
            body: Body::Live(value),
            unknown: rare.and_then(|rare| rare.unknown.clone()),
        };
        Record { value: Some(register), touch }
    }
}

impl Hashed for Entry {
    fn hash(&self) -> KeyHash {
        self.hash
    }
}

impl Hashed for Tombstone {
    fn hash(&self) -> KeyHash {
        self.hash
    }
}

/// A tombstone as it lies in memory: 48 bytes.
#[derive(Clone, Copy)]
pub(super) struct Tombstone {
    pub(super) hash: KeyHash,
    stamp: Stamp,
    sequence: u64,
    bury_until_ms: u64,
    origin: u32,
    /// Whether the deleted key was never held here.
    pub(super) is_of_unknown_key: bool,
}

impl Tombstone {
    pub(super) fn new(
        hash: KeyHash,
        register: &ValueRegister<Stored>,
        is_of_unknown_key: bool,
        origins: &Origins,
    ) -> Self {
        Self {
            hash,
            stamp: register.version.stamp,
            sequence: register.sequence,
            bury_until_ms: register.bury_until_ms,
            origin: origins.number(register.version.origin),
            is_of_unknown_key,
        }
    }

    pub(super) fn version(&self, origins: &Origins) -> Version {
        Version { stamp: self.stamp, origin: origins.get(self.origin) }
    }

    pub(super) fn register<V>(&self, origins: &Origins) -> ValueRegister<V> {
        ValueRegister {
            version: self.version(origins),
            sequence: self.sequence,
            absolute_deadline_ms: 0,
            bury_until_ms: self.bury_until_ms,
            body: Body::Deleted,
            unknown: None,
        }
    }
}
