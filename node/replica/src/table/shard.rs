//! One shard: the states of some keys of a table.

use std::collections::BTreeMap;
use std::ops::Bound;

use mneme_api::{Key, TableKind};

use super::entry::{Block, Entry, Tombstone};
use super::ordered::{Keys, Ordered};
use super::rows::{Place, Rows};
use super::{Origins, Stored};
use crate::expiry::{drop_second, expiry_second};
use crate::id::KeyHash;
use crate::record::{Body, Record, Subject, TouchRegister, Value, ValueRegister};
use crate::version::Version;

/// The states of the keys that fall into one shard.
#[derive(Default)]
pub(super) struct Shard {
    live: Rows<Entry>,
    tombstones: Rows<Tombstone>,
    /// Touch registers without a live value: rare, so not packed.
    orphans: BTreeMap<KeyHash, TouchRegister>,
    /// The live ones.
    ordered: Ordered,
}

/// What a merge did: enough to keep count without looking again.
#[derive(Debug)]
pub(crate) struct Merged {
    /// The state before; `None` when nothing was held.
    pub(crate) before: Option<Record<Stored>>,
    /// The state after; `None` when nothing is held.
    pub(crate) after: Option<Record<Stored>>,
    /// Whether anything changed.
    pub(crate) is_changed: bool,
    /// What counted of the key before.
    pub(crate) held_before: Held,
    /// What counts of it now.
    pub(crate) held_after: Held,
    /// Tombstones of keys that were never held here, before and after.
    pub(crate) unknown_before: bool,
    /// See `unknown_before`.
    pub(crate) unknown_after: bool,
    /// Where the entry is filed among the deadlines; 0 for none and for what is no live entry.
    pub(crate) filed_second: u32,
}

/// What counts of a key in its table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Held {
    /// No value.
    #[default]
    Nothing,
    /// A value that can be read.
    Live {
        /// Bytes of key and value, as limits count them.
        bytes: usize,
    },
    /// A value whose deadline has passed, and that is not dropped yet.
    Expired {
        /// Bytes of key and value, as they lie in memory.
        bytes: usize,
    },
}

/// What a look at a live record came to when the second came under which it was filed.
pub(crate) enum Expired {
    /// It was touched since: to be filed under this second.
    Later {
        /// When it expires.
        second: u32,
    },
    /// Its deadline has passed.
    Ended {
        /// What counted of it until now, and what does from now on.
        held: [Held; 2],
        /// When it is dropped.
        second: u32,
    },
}

/// A record on its way into a shard.
pub(super) struct Arrived<'a> {
    pub(super) subject: &'a Subject,
    pub(super) hash: KeyHash,
    pub(super) record: &'a Record,
    /// Node time, milliseconds.
    pub(super) now_ms: u64,
    /// A client of this node wrote it.
    pub(super) is_own: bool,
}

impl Shard {
    pub(super) fn live(&self, hash: KeyHash) -> Option<&Entry> {
        self.live.get(hash)
    }

    fn live_mut(&mut self, hash: KeyHash) -> Option<&mut Entry> {
        self.live.get_mut(hash)
    }

    fn tombstone(&self, hash: KeyHash) -> Option<&Tombstone> {
        self.tombstones.get(hash)
    }

    pub(super) fn tombstone_version(&self, hash: KeyHash, origins: &Origins) -> Option<Version> {
        self.tombstone(hash).map(|tombstone| tombstone.version(origins))
    }

    pub(super) fn outline(&self, hash: KeyHash, origins: &Origins) -> Option<Record<Stored>> {
        self.outline_at(self.live.place(hash), hash, origins)
    }

    /// The same of a key whose live record is at `place`.
    fn outline_at(&self, place: Option<Place>, hash: KeyHash, origins: &Origins) -> Option<Record<Stored>> {
        match place {
            Some(place) => Some(self.live.at(place).outline(origins)),
            None => self.without_value(hash, origins),
        }
    }

    fn without_value<V>(&self, hash: KeyHash, origins: &Origins) -> Option<Record<V>> {
        let value = self.tombstone(hash).map(|tombstone| tombstone.register(origins));
        let touch = self.orphans.get(&hash).copied();
        (value.is_some() || touch.is_some()).then_some(Record { value, touch })
    }

    pub(super) fn outlines(&self, number: u64, origins: &Origins) -> Vec<(KeyHash, Record<Stored>)> {
        let live = self.live.iter_number(number).map(|entry| entry.hash);
        let dead = self.tombstones.iter_number(number).map(|tombstone| tombstone.hash);
        let orphans = self.orphans.keys().copied();
        let mut hashes: Vec<_> =
            live.chain(dead).chain(orphans).filter(|hash| hash.number() == number).collect();
        hashes.dedup();
        hashes.into_iter().filter_map(|hash| Some((hash, self.outline(hash, origins)?))).collect()
    }

    /// The whole state, with the key where it is known.
    pub(super) fn state(&self, hash: KeyHash, origins: &Origins) -> Option<(Option<Key>, Record)> {
        if let Some(entry) = self.live(hash) {
            let key = Key::from_encoded(entry.block.key()).expect("the block was made from a key");
            return Some((Some(key), entry.state(origins)));
        }
        Some((None, self.without_value(hash, origins)?))
    }

    /// The live ones in the order of their keys.
    pub(super) fn blocks_from(&self, start: Bound<&[u8]>) -> impl Iterator<Item = &Block> {
        self.ordered.places(&self.live, start).map(|place| &self.live.at(place).block)
    }

    pub(super) fn visit(&self, origins: &Origins, visit: &mut impl FnMut(KeyHash, &Record<Stored>)) {
        for entry in self.live.iter() {
            visit(entry.hash, &entry.outline(origins));
        }
        for tombstone in self.tombstones.iter() {
            let touch = self.orphans.get(&tombstone.hash).copied();
            visit(tombstone.hash, &Record { value: Some(tombstone.register(origins)), touch });
        }
        for (hash, touch) in &self.orphans {
            if self.tombstone(*hash).is_none() {
                visit(*hash, &Record { value: None, touch: Some(*touch) });
            }
        }
    }

    pub(super) fn merge(&mut self, kind: TableKind, origins: &Origins, arrived: &Arrived<'_>) -> Merged {
        let Arrived { subject, hash, record, now_ms, is_own } = *arrived;
        let place = self.live.place(hash);
        let before = self.outline_at(place, hash, origins);
        let mut after = before.clone().unwrap_or_default();
        let is_changed = after.merge(kind, &as_new(record));
        let mut merged = self.measure(place, hash, before);
        if is_changed {
            // The rest is bookkeeping of what `Record::merge`, the one rule, decided.
            let place = self.store(origins, place, subject, hash, &after, is_own);
            merged.is_changed = true;
            merged.after = Some(after);
            (merged.held_after, merged.unknown_after) = match place {
                Some(place) => {
                    let entry = self.live.at_mut(place);
                    entry.set_ended(entry.deadline_ms() <= now_ms);
                    (entry.held(), false)
                }
                None => (Held::Nothing, self.is_of_unknown_key(hash)),
            };
        }
        merged
    }

    /// Drops whatever is held of a key.
    pub(super) fn remove(&mut self, hash: KeyHash, origins: &Origins) -> Merged {
        let place = self.live.place(hash);
        let before = self.outline_at(place, hash, origins);
        let mut merged = self.measure(place, hash, before);
        merged.is_changed = merged.before.is_some();
        merged.held_after = Held::Nothing;
        merged.unknown_after = false;
        self.remove_live(hash);
        self.remove_tombstone(hash);
        self.orphans.remove(&hash);
        merged
    }

    /// Replaces an expired record by a tombstone of its version, which stands until its `bury_until`.
    pub(super) fn bury(&mut self, hash: KeyHash, origins: &Origins) -> Merged {
        let place = self.live.place(hash);
        let before = self.outline_at(place, hash, origins);
        let mut merged = self.measure(place, hash, before);
        let Some(register) = merged.before.clone().and_then(|before| before.value) else {
            merged.after.clone_from(&merged.before);
            return merged;
        };
        let register = ValueRegister { absolute_deadline_ms: 0, body: Body::Deleted, ..register };
        let after = Record { value: Some(register), touch: None };
        self.store(origins, place, &Subject::Hash(hash), hash, &after, false);
        merged.is_changed = true;
        merged.after = Some(after);
        merged.held_after = Held::Nothing;
        merged
    }

    /// Reads a live record of this number, down to its key; what comes of it says nothing.
    pub(super) fn peek(&self, number: u64) -> Option<usize> {
        self.live.iter_number(number).next().map(|entry| entry.block.key().len())
    }

    /// See [`Table::expire`](super::Table::expire).
    pub(super) fn expire(&mut self, number: u64, filed: u32, second: u32, mut note: impl FnMut(Expired)) {
        self.live.each_of_number(number, |entry| {
            if entry.filed_second != filed {
                return;
            }
            let expires = expiry_second(entry.deadline_ms());
            if expires > second {
                entry.filed_second = expires;
                note(Expired::Later { second: expires });
                return;
            }
            let before = entry.held();
            entry.set_ended(true);
            entry.filed_second = drop_second(entry.deadline_ms());
            note(Expired::Ended { held: [before, entry.held()], second: entry.filed_second });
        });
    }

    /// Notes in which deadline bucket a live entry is filed.
    pub(super) fn set_filed(&mut self, hash: KeyHash, second: u32) {
        if let Some(entry) = self.live_mut(hash) {
            entry.filed_second = second;
        }
    }

    /// What counts of a key.
    pub(super) fn held(&self, hash: KeyHash) -> Held {
        self.live(hash).map_or(Held::Nothing, Entry::held)
    }

    /// What a merge that changes nothing and leaves nothing says; `place` is that of the live record.
    fn measure(&self, place: Option<Place>, hash: KeyHash, before: Option<Record<Stored>>) -> Merged {
        let entry = place.map(|place| self.live.at(place));
        let held = entry.map_or(Held::Nothing, Entry::held);
        // A live record has no tombstone.
        let is_unknown = entry.is_none() && self.is_of_unknown_key(hash);
        Merged {
            before,
            after: None,
            is_changed: false,
            held_before: held,
            held_after: held,
            unknown_before: is_unknown,
            unknown_after: is_unknown,
            filed_second: entry.map_or(0, |entry| entry.filed_second),
        }
    }

    fn is_of_unknown_key(&self, hash: KeyHash) -> bool {
        self.tombstone(hash).is_some_and(|tombstone| tombstone.is_of_unknown_key)
    }

    /// Stores a state of which the live record, if there is one, is at `place`; says where it is from now on.
    fn store(
        &mut self,
        origins: &Origins,
        place: Option<Place>,
        subject: &Subject,
        hash: KeyHash,
        after: &Record<Stored>,
        is_own: bool,
    ) -> Option<Place> {
        let Some(register) = &after.value else {
            self.store_orphan(hash, after.touch);
            return place;
        };
        let place = match &register.body {
            Body::Live(Stored::Held) => {
                let place = place?;
                self.live.at_mut(place).set_register(register, origins);
                place
            }
            Body::Live(Stored::New(value)) => {
                self.store_live(origins, place, subject, hash, register, value)?
            }
            Body::Deleted => {
                let was_unknown =
                    self.tombstone(hash).map_or(is_own, |tombstone| tombstone.is_of_unknown_key);
                let was_held = self.remove_live(hash);
                self.remove_tombstone(hash);
                let tombstone = Tombstone::new(hash, register, was_unknown && !was_held, origins);
                self.tombstones.insert(tombstone);
                self.store_orphan(hash, after.touch);
                return None;
            }
        };
        self.live.at_mut(place).set_touch(after.touch.as_ref(), origins);
        Some(place)
    }

    /// Stores a value; `None` when it is one of which only the hash of its key is known.
    fn store_live(
        &mut self,
        origins: &Origins,
        place: Option<Place>,
        subject: &Subject,
        hash: KeyHash,
        register: &ValueRegister<Stored>,
        value: &Value,
    ) -> Option<Place> {
        if let Some(place) = place {
            let entry = self.live.at_mut(place);
            entry.set_register(register, origins);
            entry.set_value(value);
            return Some(place);
        }
        // The codec refuses a live value without its key; nothing else makes one.
        let Subject::Key(key) = subject else { return None };
        self.remove_tombstone(hash);
        self.orphans.remove(&hash);
        let entry = Entry::new(hash, key.encoded(), value, register, origins);
        let place = self.live.insert(entry);
        self.ordered.insert(&self.live, place);
        Some(place)
    }

    fn store_orphan(&mut self, hash: KeyHash, touch: Option<TouchRegister>) {
        match touch {
            Some(touch) => self.orphans.insert(hash, touch),
            None => self.orphans.remove(&hash),
        };
    }

    fn remove_live(&mut self, hash: KeyHash) -> bool {
        let Some(entry) = self.live.get(hash) else { return false };
        self.ordered.remove(&self.live, entry.block.key());
        self.live.remove(hash);
        true
    }

    fn remove_tombstone(&mut self, hash: KeyHash) {
        self.tombstones.remove(hash);
    }
}

impl Keys for Rows<Entry> {
    fn key(&self, place: Place) -> &[u8] {
        self.at(place).block.key()
    }
}

fn as_new(record: &Record) -> Record<Stored> {
    let value = record.value.as_ref().map(|register| ValueRegister {
        version: register.version,
        sequence: register.sequence,
        absolute_deadline_ms: register.absolute_deadline_ms,
        bury_until_ms: register.bury_until_ms,
        body: match &register.body {
            Body::Live(value) => Body::Live(Stored::New(value.clone())),
            Body::Deleted => Body::Deleted,
        },
        unknown: register.unknown.clone(),
    });
    Record { value, touch: record.touch }
}
