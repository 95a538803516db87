//! One cache table: what readers see, what the replica merges into.
//!
//! 64 shards by key hash, each behind a lock of its own that is held for one look-up or one merge:
//! a reader never waits for a write to be stored, sent or acknowledged. In a shard a hash table
//! finds a key, runs of places in key order list keys. Only the replica writes.

mod entry;
mod ordered;
mod rows;
mod scan;
mod shard;

use std::fmt;
use std::sync::Arc;

use mneme_api::{Key, TableKind, TableName};
use parking_lot::{RwLock, RwLockWriteGuard};

pub use self::scan::Page;
use self::shard::{Arrived, Shard};
pub(crate) use self::shard::{Expired, Held, Merged};
use crate::id::{KeyHash, Origin};
use crate::limits::DIGEST_BUCKETS;
use crate::record::{Record, Row, Subject};
use crate::version::Version;

#[cfg(test)]
mod tests;

/// Shards of a table: enough that readers on every core of a large machine rarely meet the writer.
pub const SHARDS: usize = 64;

/// Origins by number, so that a record holds four bytes for each instead of sixteen.
///
/// Shared by all tables of a replica; grows by one for each process start that ever wrote. Readers wait for nobody; only
/// the replica adds to it.
#[derive(Debug, Default)]
pub struct Origins(boxcar::Vec<Origin>);

impl Origins {
    fn number(&self, origin: Origin) -> u32 {
        // From the end: those alive now were met last.
        let known = (0..self.0.count()).rev().find(|number| self.0[*number] == origin);
        let number = known.unwrap_or_else(|| self.0.push(origin));
        u32::try_from(number).expect("a process never meets four billion others")
    }

    fn get(&self, number: u32) -> Origin {
        self.0[number as usize]
    }
}

/// One table, shared between the replica and its readers.
pub struct Table {
    name: TableName,
    kind: TableKind,
    origins: Arc<Origins>,
    shards: Box<[RwLock<Shard>]>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({}, {:?})", self.name, self.kind)
    }
}

/// A live record as a reader took it.
#[derive(Clone)]
pub struct Found {
    /// Key and value in one block.
    data: entry::Data,
    version: Version,
    /// When it expires, in milliseconds since the Unix epoch.
    pub deadline_ms: u64,
    /// Its absolute deadline, in milliseconds since the Unix epoch: no touch goes beyond.
    pub absolute_deadline_ms: u64,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Found({:?})", self.version)
    }
}

impl Found {
    /// The value's bytes.
    pub fn bytes(&self) -> &[u8] {
        entry::value_bytes(&self.data.slice)
    }

    /// The media type the client gave; empty when it gave none.
    pub fn content_type(&self) -> &str {
        entry::content_type(&self.data.slice)
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Milliseconds until it expires.
    pub fn ttl_ms(&self, now_ms: u64) -> u64 {
        self.deadline_ms.saturating_sub(now_ms)
    }
}

/// What a reader finds under a key.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// A live record.
    Found(Found),
    /// Deleted, in a session table: 410.
    Gone {
        /// Version of the tombstone.
        version: Version,
    },
    /// Nothing, expired, or deleted in a cache table: 404.
    Absent {
        /// Version of a tombstone in a cache table, for reads that wait for it.
        tombstone: Option<Version>,
    },
}

impl Table {
    pub(crate) fn new(name: TableName, kind: TableKind, origins: Arc<Origins>) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { name, kind, origins, shards }
    }

    /// Its name.
    pub fn name(&self) -> &TableName {
        &self.name
    }

    /// Its kind.
    pub fn kind(&self) -> TableKind {
        self.kind
    }

    /// Reads one key at node time `now_ms`.
    pub fn read(&self, key: &Key, now_ms: u64) -> Lookup {
        let hash = KeyHash::of(key);
        let shard = self.shards[shard_of(hash.number())].read();
        if let Some(entry) = shard.live(hash)
            && entry.deadline_ms() > now_ms
        {
            return Lookup::Found(entry.found(&self.origins));
        }
        let tombstone = shard.tombstone_version(hash, &self.origins);
        match (self.kind, tombstone) {
            (TableKind::Session, Some(version)) => Lookup::Gone { version },
            (_, tombstone) => Lookup::Absent { tombstone },
        }
    }

    /// The whole state of one key, as it travels in a delta; `None` when nothing is held.
    pub fn row(&self, hash: KeyHash) -> Option<Row> {
        let shard = self.shards[shard_of(hash.number())].read();
        let (key, record) = shard.state(hash, &self.origins)?;
        let subject = key.map_or(Subject::Hash(hash), Subject::Key);
        Some(Row { table: self.name.clone(), kind: self.kind, subject, hash, record })
    }

    /// [`Row::sum`] of the state of one key; `None` when nothing is held.
    pub fn sum(&self, hash: KeyHash) -> Option<u64> {
        self.outline(hash).map(|held| crate::digest::row_sum(hash, &held))
    }

    /// Every key in one of the [`SHARDS`] shards.
    pub fn shard_keys(&self, shard: usize) -> Vec<KeyHash> {
        let mut keys = Vec::new();
        self.visit_shard(shard, |key, _| keys.push(key));
        keys
    }

    /// What of a stored row is still needed; `None` when something in memory supersedes all of it.
    ///
    /// For compaction: what supersedes it must be in the same transaction or before. A register that
    /// is still current is given as memory has it now, because `bury_until` merges by maximum
    /// whoever wins; for the same reason a superseded tombstone of a `cache` table gives way only to
    /// the value that took its `bury_until` over.
    pub fn current(&self, stored: &Row) -> Option<Row> {
        let held = self.outline(stored.hash)?;
        let dot = |record: &Record<Stored>| record.value.as_ref().map(crate::record::ValueRegister::dot);
        let is_value_current = stored.record.value.as_ref().is_some_and(|value| {
            Some(value.dot()) == dot(&held) || self.kind == TableKind::Cache && value.bury_until_ms > 0
        });
        let touch = stored.record.touch.filter(|touch| held.touch == Some(*touch));
        if !is_value_current {
            let record = Record { value: None, touch };
            return touch.map(|_| Row { record, ..stored.clone() });
        }
        let row = self.row(stored.hash)?;
        Some(Row { record: Record { value: row.record.value, touch }, ..row })
    }

    /// The registers of every key with this number (nearly always one or none), without values.
    pub(crate) fn outlines(&self, number: u64) -> Vec<(KeyHash, Record<Stored>)> {
        self.shards[shard_of(number)].read().outlines(number, &self.origins)
    }

    /// The registers of one key without its value.
    pub(crate) fn outline(&self, hash: KeyHash) -> Option<Record<Stored>> {
        self.shards[shard_of(hash.number())].read().outline(hash, &self.origins)
    }

    /// Locks the shards of these keys, so that a batch becomes visible at once.
    pub(crate) fn lock(&self, hashes: impl Iterator<Item = KeyHash>) -> Locked<'_> {
        self.lock_for(hashes, false)
    }

    /// As [`Table::lock`]; `is_own` says whether a client of this node wrote: only then a tombstone of a key that is not
    /// held counts as one of an unknown key. Others' clients are counted where they are served, and what comes from the
    /// file or in a delta was most likely held once.
    pub(crate) fn lock_for(&self, hashes: impl Iterator<Item = KeyHash>, is_own: bool) -> Locked<'_> {
        let mut wanted = hashes.fold(0_u64, |wanted, hash| wanted | 1 << shard_of(hash.number()));
        let mut guards = Vec::with_capacity(wanted.count_ones() as usize);
        // In shard order: readers lock one at a time, the replica is the only one to lock several.
        while wanted != 0 {
            let shard = wanted.trailing_zeros() as usize;
            guards.push((shard, self.shards[shard].write()));
            wanted &= wanted - 1;
        }
        Locked { guards, table: self, is_own }
    }

    /// Looks at the live records of these numbers, for nothing but to have them near: memory is waited for once for several of
    /// them, not for each in its turn.
    pub(crate) fn warm(&self, numbers: impl Iterator<Item = u64> + Clone) {
        if numbers.clone().nth(1).is_none() {
            // One is waited for as long here as where it is needed.
            return;
        }
        let mut shards = [const { None }; SHARDS];
        for shard in numbers.clone().map(shard_of) {
            shards[shard].get_or_insert_with(|| self.shards[shard].read());
        }
        // Without a lock between two of them, each of which would wait for what comes before it.
        let seen = numbers.map(|number| shards[shard_of(number)].as_ref()?.peek(number));
        std::hint::black_box(seen.flatten().fold(0, usize::wrapping_add));
    }

    /// Ends the live records of this number that are filed under the second `filed` and whose deadline has passed by
    /// `second`, notes where they are filed from now on, and says what came of each.
    pub(crate) fn expire(&self, number: u64, filed: u32, second: u32, note: impl FnMut(Expired)) {
        self.shards[shard_of(number)].write().expire(number, filed, second, note);
    }

    /// Calls `visit` with the outline of every key.
    pub(crate) fn visit(&self, mut visit: impl FnMut(KeyHash, &Record<Stored>)) {
        for shard in 0..SHARDS {
            self.visit_shard(shard, &mut visit);
        }
    }

    /// Calls `visit` with the outline of every key of one digest bucket.
    pub(crate) fn visit_bucket(&self, bucket: usize, mut visit: impl FnMut(KeyHash, &Record<Stored>)) {
        self.visit_shard(bucket % SHARDS, |hash, record| {
            if hash.bucket() == bucket {
                visit(hash, record);
            }
        });
    }

    /// Calls `visit` with the outline of every key of one shard.
    pub(crate) fn visit_shard(&self, shard: usize, mut visit: impl FnMut(KeyHash, &Record<Stored>)) {
        self.shards[shard].read().visit(&self.origins, &mut visit);
    }

    /// Bytes of key and value of a live key; 0 when none is held.
    pub(crate) fn live_bytes(&self, hash: KeyHash) -> usize {
        match self.shards[shard_of(hash.number())].read().held(hash) {
            Held::Live { bytes } => bytes,
            Held::Nothing | Held::Expired { .. } => 0,
        }
    }

    /// Second of the deadline bucket in which a live record is filed; 0 when none is held.
    pub(crate) fn filed_second(&self, hash: KeyHash) -> u32 {
        self.shards[shard_of(hash.number())].read().live(hash).map_or(0, |entry| entry.filed_second)
    }
}

/// Mark in a record's body for "the value that is stored": what comparing needs instead of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// The value that the table holds.
    Held,
    /// A value that came with a row.
    New(crate::record::Value),
}

/// Write access to some shards of a table, taken together.
pub(crate) struct Locked<'a> {
    /// By the number of the shard.
    guards: Vec<(usize, RwLockWriteGuard<'a, Shard>)>,
    table: &'a Table,
    is_own: bool,
}

impl Locked<'_> {
    /// Joins `record` into the state of a key at node time `now_ms`; its shard must be among those locked.
    pub(crate) fn merge(&mut self, subject: &Subject, hash: KeyHash, record: &Record, now_ms: u64) -> Merged {
        let (table, is_own) = (self.table, self.is_own);
        let arrived = Arrived { subject, hash, record, now_ms, is_own };
        self.shard(hash).merge(table.kind, &table.origins, &arrived)
    }

    /// Gives up the value of an expired record whose key was deleted before: what stays is a tombstone with its version.
    pub(crate) fn bury(&mut self, hash: KeyHash) -> Merged {
        let table = self.table;
        self.shard(hash).bury(hash, &table.origins)
    }

    /// Drops whatever is held of a key.
    pub(crate) fn remove(&mut self, hash: KeyHash) -> Merged {
        let table = self.table;
        self.shard(hash).remove(hash, &table.origins)
    }

    /// Notes in which deadline bucket a live record is filed.
    pub(crate) fn set_filed(&mut self, hash: KeyHash, second: u32) {
        self.shard(hash).set_filed(hash, second);
    }

    fn shard(&mut self, hash: KeyHash) -> &mut Shard {
        let number = shard_of(hash.number());
        let place = self.guards.binary_search_by_key(&number, |(shard, _)| *shard);
        &mut self.guards[place.expect("the caller locked the shards of its keys")].1
    }
}

/// Bits that the shard's hash table uses neither for its index nor for its tags.
fn shard_of(number: u64) -> usize {
    (number >> 32) as usize % SHARDS
}

const _: () = assert!(SHARDS <= u64::BITS as usize, "the shards of a write are bits of a word");
const _: () = assert!(DIGEST_BUCKETS.is_multiple_of(SHARDS), "a digest bucket lies in one shard");
