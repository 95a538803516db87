//! The replica's tables with what only it needs: digests, deadlines, counts, limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use mneme_api::{TableConfig, TableKind, TableName};

use crate::digest::Digest;
use crate::expiry::{Deadlines, drop_second, expiry_second};
use crate::id::KeyHash;
use crate::message::{TableDigest, TableInfo};
use crate::record::{Record, Row};
use crate::table::{Expired, Held, Locked, Merged, Origins, Stored, Table};

/// Times as the replica uses them: a declared table's settings in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) default_ttl_ms: u64,
    pub(crate) max_age_ms: u64,
    pub(crate) max_value_bytes: u64,
    /// 0: no bound.
    pub(crate) max_bytes: u64,
    pub(crate) evicts: bool,
    /// `None`: a sixteenth of the ttl, at most 60 s.
    pub(crate) touch_resolution_ms: Option<u64>,
}

/// A touch is rounded up to this much by default, at most.
const TOUCH_RESOLUTION_MS_MAX: u64 = 60_000;

impl Rules {
    fn of(config: &TableConfig) -> Self {
        let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            default_ttl_ms: ms(config.default_ttl),
            max_age_ms: ms(config.max_age),
            max_value_bytes: config.max_value_bytes,
            max_bytes: config.max_bytes,
            evicts: config.when_full == mneme_api::WhenFull::EvictNearestExpiry,
            touch_resolution_ms: config.touch_resolution.map(ms),
        }
    }

    /// By how much a stored deadline goes beyond the one asked for, so that touches coalesce.
    pub(crate) fn touch_resolution_ms(&self, ttl_ms: u64) -> u64 {
        self.touch_resolution_ms.unwrap_or_else(|| (ttl_ms / 16).min(TOUCH_RESOLUTION_MS_MAX))
    }
}

/// Values of a table, and their bytes with those of their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Those that can be read.
    pub(crate) live: u64,
    pub(crate) live_bytes: u64,
    /// Those whose deadline has passed and that are not dropped yet.
    pub(crate) expired: u64,
    pub(crate) expired_bytes: u64,
}

impl Counted {
    fn replace(&mut self, before: Held, after: Held) {
        if let Some((values, bytes, held)) = self.of(before) {
            *values -= 1;
            *bytes -= held;
        }
        if let Some((values, bytes, held)) = self.of(after) {
            *values += 1;
            *bytes += held;
        }
    }

    /// Where this is counted, and its bytes.
    fn of(&mut self, held: Held) -> Option<(&mut u64, &mut u64, u64)> {
        match held {
            Held::Nothing => None,
            Held::Live { bytes } => Some((&mut self.live, &mut self.live_bytes, as_u64(bytes))),
            Held::Expired { bytes } => Some((&mut self.expired, &mut self.expired_bytes, as_u64(bytes))),
        }
    }
}

/// One table and its bookkeeping.
#[derive(Debug)]
pub(crate) struct TableState {
    pub(crate) table: Arc<Table>,
    /// `None` when this node's configuration does not declare it: stored and passed on only.
    pub(crate) rules: Option<Rules>,
    pub(crate) max_age_ever_ms: u64,
    pub(crate) digest: Digest,
    /// Live rows by the second in which they expire: from then on they are not counted.
    pub(crate) expiries: Deadlines,
    /// Expired rows and tombstones by the second in which they are dropped.
    pub(crate) deadlines: Deadlines,
    pub(crate) counted: Counted,
    pub(crate) tombstones: u64,
    pub(crate) unknown_tombstones: usize,
}

impl TableState {
    /// Counts what a merge or a removal changed, and files the row under its deadline.
    fn account(&mut self, locked: &mut Locked<'_>, hash: KeyHash, merged: &Merged) {
        self.digest.replace(hash, merged.before.as_ref(), merged.after.as_ref());
        let is_dead = |record: &Option<Record<Stored>>| record.as_ref().is_some_and(Record::is_deleted);
        self.counted.replace(merged.held_before, merged.held_after);
        adjust(&mut self.tombstones, is_dead(&merged.before).into(), is_dead(&merged.after).into());
        self.unknown_tombstones += usize::from(merged.unknown_after);
        self.unknown_tombstones = self.unknown_tombstones.saturating_sub(usize::from(merged.unknown_before));
        let Some(after) = &merged.after else { return };
        if after.live().is_some() {
            let second = expiry_second(after.deadline_ms());
            // Filed at or before its deadline: nothing to do. Else it was shortened.
            let was_live = merged.before.as_ref().is_some_and(|before| before.live().is_some());
            if !was_live || merged.filed_second == 0 || merged.filed_second > second {
                self.expiries.file(second, hash.number());
                locked.set_filed(hash, second);
            }
            return;
        }
        // A tombstone's time only grows; filed when it came, looked at again when due.
        if merged.before.as_ref().is_none_or(|before| before.live().is_some()) {
            self.deadlines.file(drop_second(after.keep_until_ms()), hash.number());
        }
    }

    /// Counts no more what has expired by `second`, and files it to be dropped; at most `limit` rows are looked at.
    /// Returns how many were.
    pub(crate) fn expire(&mut self, second: u32, limit: usize) -> usize {
        let due = self.expiries.due(second, limit);
        let looked_at = due.len();
        self.table.warm(due.iter().map(|(_, number)| *number));
        for (filed, number) in due {
            self.table.expire(number, filed, second, |expired| match expired {
                Expired::Later { second } => self.expiries.file(second, number),
                Expired::Ended { held: [before, after], second } => {
                    self.counted.replace(before, after);
                    self.deadlines.file(second, number);
                }
            });
        }
        looked_at
    }

    /// Drops what is due at `second`; at most `limit` rows are looked at. Returns how many were
    /// looked at and how many dropped.
    pub(crate) fn sweep(&mut self, second: u32, limit: usize) -> (usize, usize) {
        let due = self.deadlines.due(second, limit);
        let looked_at = due.len();
        let mut dropped = 0;
        self.table.warm(due.iter().map(|(_, number)| *number));
        for (filed, number) in due {
            for (hash, record) in self.table.clone().outlines(number) {
                let drop_at = drop_second(record.keep_until_ms());
                if drop_at <= second {
                    dropped += 1;
                    self.drop_expired(hash, &record, second);
                } else if record.live().is_none() {
                    self.deadlines.file(drop_at, number);
                } else if self.table.filed_second(hash) == filed {
                    // Alive again, by a touch that came late.
                    let expires = expiry_second(record.deadline_ms());
                    self.expiries.file(expires, number);
                    self.table.clone().lock(std::iter::once(hash)).set_filed(hash, expires);
                }
            }
        }
        (looked_at, dropped)
    }

    /// Drops one row, or of a value in a grave its value.
    fn drop_expired(&mut self, hash: KeyHash, record: &Record<Stored>, second: u32) {
        let table = self.table.clone();
        let mut locked = table.lock(std::iter::once(hash));
        let merged = if leaves_tombstone(record, second) { locked.bury(hash) } else { locked.remove(hash) };
        self.account(&mut locked, hash, &merged);
    }

    /// The live rows nearest to their expiry, until `bytes` are found or `limit` were looked at.
    pub(crate) fn nearest_expiry(&mut self, now_ms: u64, bytes: u64, limit: usize) -> Vec<KeyHash> {
        let table = self.table.clone();
        let (mut found, mut kept, mut found_bytes) = (Vec::new(), Vec::new(), 0);
        for _ in 0..limit {
            if found_bytes >= bytes {
                break;
            }
            // What is filed up to here expires within a second, or has.
            let Some((filed, number)) = self.expiries.earliest_after(expiry_second(now_ms)) else { break };
            for (hash, record) in table.outlines(number) {
                if record.live().is_none() || table.filed_second(hash) != filed {
                    continue;
                }
                let second = expiry_second(record.deadline_ms());
                if second <= filed {
                    found_bytes += as_u64(table.live_bytes(hash));
                    found.push(hash);
                    kept.push((second, hash));
                } else {
                    // Touched since it was filed: file it where it belongs and look further.
                    self.expiries.file(second, number);
                    table.lock(std::iter::once(hash)).set_filed(hash, second);
                }
            }
        }
        for (second, hash) in kept {
            self.expiries.file(second, hash.number());
            table.lock(std::iter::once(hash)).set_filed(hash, second);
        }
        found
    }
}

fn as_u64(bytes: usize) -> u64 {
    bytes as u64
}

fn adjust(count: &mut u64, before: u64, after: u64) {
    *count = count.wrapping_sub(before).wrapping_add(after);
}

/// All tables of a replica.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    states: BTreeMap<TableName, TableState>,
    origins: Arc<Origins>,
    /// Node time, milliseconds: what is written with a deadline before it counts no more.
    pub(crate) now_ms: u64,
    /// Rows that may be dropped at this second are not taken in: see [`crate::digest`].
    swept_second: u32,
}

/// A table is known under another kind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KindConflict;

impl Tables {
    /// Declares a table of the configuration.
    pub(crate) fn declare(&mut self, config: &TableConfig) -> Result<(), KindConflict> {
        let rules = Rules::of(config);
        let info =
            TableInfo { name: config.name.clone(), kind: config.kind, max_age_ever_ms: rules.max_age_ms };
        self.know(&info)?;
        if let Some(state) = self.states.get_mut(&config.name) {
            state.rules = Some(rules);
        }
        Ok(())
    }

    /// Takes in what a peer or the file knows of a table.
    pub(crate) fn know(&mut self, info: &TableInfo) -> Result<(), KindConflict> {
        let state = self.state_of(&info.name, info.kind)?;
        state.max_age_ever_ms = state.max_age_ever_ms.max(info.max_age_ever_ms);
        Ok(())
    }

    fn state_of(&mut self, name: &TableName, kind: TableKind) -> Result<&mut TableState, KindConflict> {
        let origins = &self.origins;
        let state = self.states.entry(name.clone()).or_insert_with(|| TableState {
            table: Arc::new(Table::new(name.clone(), kind, origins.clone())),
            rules: None,
            max_age_ever_ms: 0,
            digest: Digest::default(),
            expiries: Deadlines::default(),
            deadlines: Deadlines::default(),
            counted: Counted::default(),
            tombstones: 0,
            unknown_tombstones: 0,
        });
        if state.table.kind() == kind { Ok(state) } else { Err(KindConflict) }
    }

    /// One table.
    pub(crate) fn get(&self, name: &TableName) -> Option<&TableState> {
        self.states.get(name)
    }

    /// One table, to change.
    pub(crate) fn get_mut(&mut self, name: &TableName) -> Option<&mut TableState> {
        self.states.get_mut(name)
    }

    /// All tables, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TableName, &TableState)> {
        self.states.iter()
    }

    /// What peers and the file are told of the tables.
    pub(crate) fn infos(&self) -> Vec<TableInfo> {
        let info = |(name, state): (&TableName, &TableState)| TableInfo {
            name: name.clone(),
            kind: state.table.kind(),
            max_age_ever_ms: state.max_age_ever_ms,
        };
        self.states.iter().map(info).collect()
    }

    /// The largest `max_age` any table ever had, milliseconds.
    pub(crate) fn max_age_ever_ms(&self) -> u64 {
        self.states.values().map(|state| state.max_age_ever_ms).max().unwrap_or(0)
    }

    /// Joins rows, all of them visible at once. Returns for each whether it changed anything.
    ///
    /// A row of a table that is known under another kind is left out; callers refuse such peers.
    pub(crate) fn merge(&mut self, rows: &[Row]) -> Vec<bool> {
        let mut changed = vec![false; rows.len()];
        self.merge_noting(rows, false, &mut |index, is_changed| changed[index] = is_changed);
        changed
    }

    /// Joins the rows of a write as [`Tables::merge`] does; `is_own` as for [`Table::lock_for`].
    pub(crate) fn merge_of(&mut self, rows: &[Row], is_own: bool) {
        self.merge_noting(rows, is_own, &mut |_, _| {});
    }

    fn merge_noting(&mut self, rows: &[Row], is_own: bool, note: &mut dyn FnMut(usize, bool)) {
        if let [row] = rows {
            return self.merge_one_table(&[row], is_own, note);
        }
        let mut by_table: BTreeMap<&TableName, Vec<usize>> = BTreeMap::new();
        for (index, row) in rows.iter().enumerate() {
            by_table.entry(&row.table).or_default().push(index);
        }
        for indexes in by_table.values() {
            let chosen: Vec<&Row> = indexes.iter().map(|index| &rows[*index]).collect();
            self.merge_one_table(&chosen, is_own, &mut |position, is_changed| {
                note(indexes[position], is_changed);
            });
        }
    }

    fn merge_one_table(&mut self, rows: &[&Row], is_own: bool, note: &mut dyn FnMut(usize, bool)) {
        let (swept_second, now_ms) = (self.swept_second, self.now_ms);
        let Some(first) = rows.first() else { return };
        let Ok(state) = self.state_of(&first.table, first.kind) else { return };
        let table = state.table.clone();
        let mut locked = table.lock_for(rows.iter().map(|row| row.hash), is_own);
        for (position, row) in rows.iter().enumerate() {
            let merged = merge_row(&mut locked, row, swept_second, now_ms);
            if merged.is_changed {
                state.account(&mut locked, row.hash, &merged);
            }
            note(position, merged.is_changed);
        }
    }

    /// Drops expired rows and purged tombstones up to `second`, looking at `limit` rows at most.
    /// Returns how many were dropped and whether more is due.
    pub(crate) fn sweep(&mut self, second: u32, limit: usize) -> (usize, bool) {
        self.swept_second = self.swept_second.max(second);
        let (mut looked_at, mut dropped) = (0, 0);
        for state in self.states.values_mut() {
            let (seen, gone) = state.sweep(self.swept_second, limit - looked_at);
            looked_at += seen;
            dropped += gone;
            if looked_at >= limit {
                return (dropped, true);
            }
        }
        (dropped, false)
    }

    /// Node time went back to `now_ms`: rows that end after it are taken in again.
    pub(crate) fn unsweep(&mut self, now_ms: u64) {
        self.swept_second = self.swept_second.min(u32::try_from(now_ms / 1_000).unwrap_or(u32::MAX));
    }

    /// Counts no more what has expired by `second`, looking at `limit` rows at most; says whether more is due.
    pub(crate) fn expire(&mut self, second: u32, limit: usize) -> bool {
        let mut looked_at = 0;
        for state in self.states.values_mut() {
            looked_at += state.expire(second, limit - looked_at);
            if looked_at >= limit {
                return true;
            }
        }
        false
    }

    /// Digests of all tables that hold anything.
    pub(crate) fn digests(&self) -> Vec<TableDigest> {
        let digest = |(name, state): (&TableName, &TableState)| TableDigest {
            table: name.clone(),
            sums: state.digest.sums().to_vec(),
        };
        self.states.iter().map(digest).collect()
    }
}

/// Whether something has to stand on when this record is dropped: a value that was put after a delete gave way to
/// nothing older, and must not now.
fn leaves_tombstone(record: &Record<Stored>, second: u32) -> bool {
    let bury_until_ms = record.live().map_or(0, |(value, _)| value.bury_until_ms);
    bury_until_ms > 0 && drop_second(bury_until_ms) > second
}

/// Joins one row, and drops the result at once when the sweep has already passed it.
fn merge_row(locked: &mut Locked<'_>, row: &Row, swept_second: u32, now_ms: u64) -> Merged {
    let merged = locked.merge(&row.subject, row.hash, &row.record, now_ms);
    let keep = |after: &Record<Stored>| drop_second(after.keep_until_ms()) > swept_second;
    if !merged.is_changed || merged.after.as_ref().is_none_or(keep) {
        return merged;
    }
    let is_buried = merged.after.as_ref().is_some_and(|after| leaves_tombstone(after, swept_second));
    let removed = if is_buried { locked.bury(row.hash) } else { locked.remove(row.hash) };
    Merged {
        is_changed: is_buried || merged.before.is_some(),
        before: merged.before,
        held_before: merged.held_before,
        ..removed
    }
}
