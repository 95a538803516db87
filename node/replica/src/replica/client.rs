//! A client's command becomes one write: checked, stamped, taken in, pushed.

use std::collections::BTreeSet;
use std::sync::Arc;

use mneme_api::{Key, Pattern, TableKind, TableName};

use super::Replica;
use crate::acknowledgement::Answer;
use crate::effect::{Effect, OperationResult, Outcome, Rejection};
use crate::event::{AckMode, Action, Command, Condition, Operation, RequestId, ScanStart};
use crate::id::{Dot, KeyHash, Origin};
use crate::limits::{
    BATCH_OPERATIONS_MAX, BURY_MARGIN_MS, SWEPT_ROWS, UNKNOWN_TOMBSTONES_MAX, VERSION_AHEAD_MS_MAX,
    WRITES_IN_FLIGHT_MAX,
};
use crate::record::{Body, Record, Row, Subject, TouchRegister, Value, ValueRegister, Write};
use crate::table::{Stored, Table};
use crate::tables::{Rules, TableState};
use crate::version::Version;

/// Records evicted for one put, at most: what one write may carry besides. Small records may have to make room for a
/// large one.
const EVICTIONS_MAX: usize = BATCH_OPERATIONS_MAX;
/// Records of which it is looked for one put whether they have expired, at most.
const EXPIRIES_MAX: usize = 1_024;

/// What a command did.
struct Prepared {
    rows: Vec<Row>,
    answer: Answer,
}

/// The writer's view while it turns operations into rows.
struct Stamper<'a> {
    table: &'a Table,
    rules: Rules,
    now_ms: u64,
    origin: Origin,
    sequence: u64,
    bury_ms: u64,
}

/// Row and result of one operation; a row is missing when nothing has to be written.
type Stamped = (OperationResult, Option<Record>);

impl Replica {
    pub(super) fn client(&mut self, request: RequestId, command: Command, ack: AckMode, timeout_ms: u64) {
        let prepared = match self.admit().and_then(|()| self.prepare(command)) {
            Ok(prepared) => prepared,
            Err(outcome) => {
                self.effects.push(Effect::Reply { request, outcome });
                return;
            }
        };
        if prepared.rows.is_empty() {
            let outcome = prepared.answer.done(self.acks(0));
            self.effects.push(Effect::Reply { request, outcome });
            return;
        }
        self.counters.writes_taken += 1;
        self.sequence += 1;
        let dot = Dot { origin: self.settings.origin, sequence: self.sequence };
        let write = Arc::new(Write::new(dot, prepared.rows));
        // Pushed and persisted side by side: the reply waits for both.
        self.take_in(&write, true);
        self.push(&write);
        let deadline_boot_ms = self.boot_ms.saturating_add(timeout_ms);
        self.pending.wait(self.sequence, ack, request, prepared.answer, deadline_boot_ms);
    }

    /// Whether this node takes writes at all now.
    fn admit(&self) -> Result<(), Outcome> {
        let rejection = if self.is_draining {
            Rejection::Draining
        } else if self.is_clock_wrong() || self.time.is_in_doubt() {
            Rejection::Clock
        } else if !self.gate.is_open() {
            Rejection::NotReady
        } else if self.is_read_only() {
            Rejection::ReadOnly
        } else if self.pending.len() >= WRITES_IN_FLIGHT_MAX {
            Rejection::Overloaded
        } else {
            return Ok(());
        };
        Err(Outcome::Rejected(rejection))
    }

    fn prepare(&mut self, command: Command) -> Result<Prepared, Outcome> {
        match command {
            Command::Apply { table, operations, is_batch } => self.apply(&table, operations, is_batch),
            Command::DeleteMatching { table, pattern, after, start } => {
                self.delete_matching(&table, &pattern, after.as_ref(), &start)
            }
        }
    }

    fn stamper<'a>(&self, table: &'a Table, rules: Rules, max_age_ever_ms: u64) -> Stamper<'a> {
        Stamper {
            table,
            rules,
            now_ms: self.now_ms,
            origin: self.settings.origin,
            sequence: self.sequence + 1,
            bury_ms: max_age_ever_ms.saturating_add(BURY_MARGIN_MS),
        }
    }

    /// A table that this node's configuration declares: clients use no other.
    fn declared(&self, name: &TableName) -> Result<(&TableState, Rules), Outcome> {
        let state = self.tables.get(name).and_then(|state| Some((state, state.rules?)));
        state.ok_or(Outcome::Rejected(Rejection::UnknownTable))
    }

    fn apply(
        &mut self,
        name: &TableName,
        operations: Vec<Operation>,
        is_batch: bool,
    ) -> Result<Prepared, Outcome> {
        let (state, rules) = self.declared(name)?;
        check_operations(&rules, &operations).map_err(Outcome::Rejected)?;
        let table = state.table.clone();
        let stamper = self.stamper(&table, rules, state.max_age_ever_ms);
        let hashes: Vec<KeyHash> = operations.iter().map(|operation| KeyHash::of(&operation.key)).collect();
        let stamped: Vec<Stamped> =
            operations.iter().zip(&hashes).map(|(operation, hash)| stamper.stamp(operation, *hash)).collect();
        let is_failed = |(operation, (result, _)): (&Operation, &Stamped)| fails_a_batch(operation, result);
        if is_batch && operations.iter().zip(&stamped).any(is_failed) {
            return Err(Outcome::BatchFailed { results: blame(&operations, stamped) });
        }
        let (mut results, mut rows) = (Vec::with_capacity(stamped.len()), Vec::new());
        for ((operation, hash), (result, record)) in operations.into_iter().zip(hashes).zip(stamped) {
            results.push(result);
            if let Some(record) = record {
                let is_put = record.live().is_some();
                let subject = if is_put { Subject::Key(operation.key) } else { Subject::Hash(hash) };
                rows.push(Row { table: name.clone(), kind: table.kind(), subject, hash, record });
            }
        }
        self.make_room(name, rules, &mut rows).map_err(Outcome::Rejected)?;
        Ok(Prepared { rows, answer: Answer::Results(results) })
    }

    /// Checks the bounds of the table, and evicts what stands nearest to its expiry if it may.
    fn make_room(&mut self, name: &TableName, rules: Rules, rows: &mut Vec<Row>) -> Result<(), Rejection> {
        let Some(state) = self.tables.get(name) else { return Ok(()) };
        let is_unknown_tombstone =
            |row: &Row| row.record.is_deleted() && state.table.outline(row.hash).is_none();
        let unknown = rows.iter().filter(|row| is_unknown_tombstone(row)).count();
        if unknown > 0 && state.unknown_tombstones + unknown > UNKNOWN_TOMBSTONES_MAX {
            return Err(Rejection::Overloaded);
        }
        let mut excess_bytes = excess_bytes(state, rules, rows);
        if excess_bytes == 0 {
            return Ok(());
        }
        // What has expired leaves the count first: where much has, the sweep may not be there yet.
        let (expired_second, mut looked_at) = (self.expired_second(), 0);
        let Some(state) = self.tables.get_mut(name) else { return Ok(()) };
        while let Some(second) = expired_second.filter(|_| excess_bytes > 0 && looked_at < EXPIRIES_MAX) {
            let expired = state.expire(second, SWEPT_ROWS);
            if expired == 0 {
                break;
            }
            looked_at += expired;
            excess_bytes = self::excess_bytes(state, rules, rows);
        }
        if excess_bytes == 0 {
            return Ok(());
        }
        if !rules.evicts {
            return Err(Rejection::TableFull);
        }
        let victims = state.nearest_expiry(self.now_ms, excess_bytes, EVICTIONS_MAX);
        let (mut freed_bytes, mut evicted) = (0, 0);
        let written: BTreeSet<KeyHash> = rows.iter().map(|row| row.hash).collect();
        let table = state.table.clone();
        let stamper = self.stamper(&table, rules, 0);
        for hash in victims.into_iter().filter(|hash| !written.contains(hash)) {
            let held = table.outline(hash);
            let touch = held.and_then(|held| stamper.exact_touch(&held, self.now_ms));
            let Some(touch) = touch else { continue };
            freed_bytes += table.live_bytes(hash) as u64;
            evicted += 1;
            let record = Record { value: None, touch: Some(touch) };
            let (table, kind) = (name.clone(), table.kind());
            rows.push(Row { table, kind, subject: Subject::Hash(hash), hash, record });
        }
        if freed_bytes < excess_bytes {
            return Err(Rejection::TableFull);
        }
        self.counters.evicted += evicted;
        Ok(())
    }

    fn delete_matching(
        &mut self,
        name: &TableName,
        pattern: &Pattern,
        after: Option<&Key>,
        start: &ScanStart,
    ) -> Result<Prepared, Outcome> {
        let (state, rules) = self.declared(name)?;
        let (table, max_age_ever_ms) = (state.table.clone(), state.max_age_ever_ms);
        let stamper = self.stamper(&table, rules, max_age_ever_ms);
        let page = table.scan(pattern, after, BATCH_OPERATIONS_MAX, self.now_ms);
        let mut rows = Vec::with_capacity(page.records.len());
        for (key, found) in page.records {
            // Created while the scan was under way: not meant. What was held when it began may have been rewritten
            // since, and clocks differ: when in doubt the session is signed out, never missed.
            let created_ms = found.absolute_deadline_ms.saturating_sub(max_age_ever_ms);
            let is_later = created_ms > start.now_ms.saturating_add(VERSION_AHEAD_MS_MAX);
            let dot = table.outline(KeyHash::of(&key)).and_then(|held| Some(held.value?.dot()));
            if is_later && dot.is_some_and(|dot| !start.held.covers(dot)) {
                continue;
            }
            let hash = KeyHash::of(&key);
            let held = table.outline(hash);
            let record = stamper.delete(held.as_ref());
            let (table, kind) = (name.clone(), table.kind());
            rows.push(Row { table, kind, subject: Subject::Hash(hash), hash, record });
        }
        let answer = Answer::Swept { deleted: rows.len(), resume_after: page.resume_after };
        Ok(Prepared { rows, answer })
    }
}

fn check_operations(rules: &Rules, operations: &[Operation]) -> Result<(), Rejection> {
    let mut written = BTreeSet::new();
    if operations.is_empty() || operations.len() > BATCH_OPERATIONS_MAX {
        return Err(Rejection::BadBatch { reason: "a batch has 1 to 1000 operations" });
    }
    for operation in operations {
        let too_long = |parameter, ms: Option<u64>| {
            let is_too_long = ms.is_some_and(|ms| ms > rules.max_age_ms);
            is_too_long.then_some(Rejection::LifetimeTooLong { parameter, limit_ms: rules.max_age_ms })
        };
        let rejection = match &operation.action {
            Action::Put { value, ttl_ms, max_age_ms } => {
                if value.bytes().len() as u64 > rules.max_value_bytes {
                    return Err(Rejection::ValueTooLarge { limit_bytes: rules.max_value_bytes });
                }
                too_long("ttl", *ttl_ms).or_else(|| too_long("max_age", *max_age_ms))
            }
            Action::Touch { ttl_ms, .. } => too_long("ttl", *ttl_ms),
            Action::Delete | Action::Get => None,
        };
        if let Some(rejection) = rejection {
            return Err(rejection);
        }
        let is_alone = operations.len() == 1;
        if !is_alone && operation.action != Action::Get && !written.insert(&operation.key) {
            return Err(Rejection::BadBatch { reason: "a key occurs twice among the writes" });
        }
    }
    Ok(())
}

/// Whether an operation stops the batch it is in: a failed condition, or a put on a deleted key. A
/// touch or a get of nothing stops nothing.
fn fails_a_batch(operation: &Operation, result: &OperationResult) -> bool {
    match result {
        OperationResult::ConditionFailed { .. } => true,
        OperationResult::Gone { .. } => matches!(operation.action, Action::Put { .. }),
        OperationResult::Created { .. }
        | OperationResult::Replaced { .. }
        | OperationResult::Touched { .. }
        | OperationResult::Deleted { .. }
        | OperationResult::Found { .. }
        | OperationResult::Missing
        | OperationResult::NotApplied => false,
    }
}

/// The results of a batch of which some operation failed: none is applied.
fn blame(operations: &[Operation], stamped: Vec<Stamped>) -> Vec<OperationResult> {
    let results = operations.iter().zip(stamped).map(|(operation, (result, _))| {
        if fails_a_batch(operation, &result) { result } else { OperationResult::NotApplied }
    });
    results.collect()
}

impl Stamper<'_> {
    fn stamp(&self, operation: &Operation, hash: KeyHash) -> Stamped {
        let held = self.table.outline(hash);
        let live = held.as_ref().filter(|held| held.deadline_ms() > self.now_ms);
        let tombstone = held.as_ref().and_then(|held| held.value.as_ref()).filter(|value| value.is_deleted());
        if let (TableKind::Session, Some(tombstone), false) =
            (self.table.kind(), tombstone, operation.action == Action::Delete)
        {
            return (OperationResult::Gone { etag: tombstone.version.etag() }, None);
        }
        let etag = || live.and_then(|live| live.value.as_ref()).map(|value| value.version.etag());
        match &operation.action {
            Action::Put { value, ttl_ms, max_age_ms } => {
                if !holds(&operation.condition, etag) {
                    return (OperationResult::ConditionFailed { current: etag() }, None);
                }
                let record = self.put(held.as_ref(), live, value, *ttl_ms, *max_age_ms);
                let version = record.value.as_ref().map(|value| value.version.etag()).unwrap_or_default();
                let result = if live.is_some() {
                    OperationResult::Replaced { etag: version }
                } else {
                    OperationResult::Created { etag: version }
                };
                (result, Some(record))
            }
            Action::Delete => {
                if !holds(&operation.condition, etag) {
                    return (OperationResult::ConditionFailed { current: etag() }, None);
                }
                let record = self.delete(held.as_ref());
                let etag = record.value.as_ref().map(|value| value.version.etag()).unwrap_or_default();
                (OperationResult::Deleted { etag }, Some(record))
            }
            Action::Touch { ttl_ms, exact } => match (live, etag()) {
                (Some(live), Some(etag)) => {
                    let touch = self.touch(live, ttl_ms.unwrap_or(self.rules.default_ttl_ms), *exact);
                    let record = touch.map(|touch| Record { value: None, touch: Some(touch) });
                    (OperationResult::Touched { etag }, record)
                }
                _ => (OperationResult::Missing, None),
            },
            Action::Get => match (live, self.table.row(hash)) {
                (Some(live), Some(Row { record, .. })) => {
                    let value = record.live().map(|(_, value)| value.clone());
                    let ttl_ms = live.deadline_ms() - self.now_ms;
                    let found = value.map(|value| OperationResult::Found {
                        etag: etag().unwrap_or_default(),
                        value,
                        ttl_ms,
                    });
                    (found.unwrap_or(OperationResult::Missing), None)
                }
                _ => (OperationResult::Missing, None),
            },
        }
    }

    /// The version of a write: above everything this node saw of the key, touches included.
    fn version(&self, held: Option<&Record<Stored>>) -> Version {
        let value = held.and_then(|held| held.value.as_ref()).map(|value| value.version);
        let base = held.and_then(|held| held.touch).map(|touch| touch.base);
        Version::next(self.now_ms, value.max(base), self.origin)
    }

    fn dot(&self) -> Dot {
        Dot { origin: self.origin, sequence: self.sequence }
    }

    fn put(
        &self,
        held: Option<&Record<Stored>>,
        live: Option<&Record<Stored>>,
        value: &Value,
        ttl_ms: Option<u64>,
        max_age_ms: Option<u64>,
    ) -> Record {
        let version = self.version(held);
        let held_value = held.and_then(|held| held.value.as_ref());
        let absolute_deadline_ms = match live.and(held_value) {
            Some(value) => value.absolute_deadline_ms,
            None => self.now_ms + max_age_ms.unwrap_or(self.rules.max_age_ms),
        };
        let register = ValueRegister {
            version,
            sequence: self.sequence,
            absolute_deadline_ms,
            bury_until_ms: held_value.map_or(0, |value| value.bury_until_ms),
            body: Body::Live(value.clone()),
            unknown: None,
        };
        let ttl_ms = ttl_ms.unwrap_or(self.rules.default_ttl_ms);
        let idle_deadline_ms = (self.now_ms + ttl_ms).min(absolute_deadline_ms);
        let touch = self.deadline(held.and_then(|held| held.touch), idle_deadline_ms, ttl_ms, version);
        Record { value: Some(register), touch }
    }

    /// The touch register of a put: later keeps the base; shorter than what touches round up to
    /// starts a new one; in between, what is stored stays (a rewrite never ends a session early).
    fn deadline(
        &self,
        held: Option<TouchRegister>,
        idle_deadline_ms: u64,
        ttl_ms: u64,
        version: Version,
    ) -> Option<TouchRegister> {
        let dot = self.dot();
        let Some(held) = held else {
            return Some(TouchRegister { base: version, idle_deadline_ms, dot });
        };
        let rounded_ms = idle_deadline_ms.saturating_add(self.rules.touch_resolution_ms(ttl_ms));
        if idle_deadline_ms > held.idle_deadline_ms {
            Some(TouchRegister { base: held.base, idle_deadline_ms, dot })
        } else if held.idle_deadline_ms > rounded_ms {
            Some(TouchRegister { base: version, idle_deadline_ms, dot })
        } else {
            None
        }
    }

    fn touch(&self, held: &Record<Stored>, ttl_ms: u64, exact: bool) -> Option<TouchRegister> {
        let asked_ms = self.now_ms.saturating_add(ttl_ms);
        if exact {
            return self.exact_touch(held, asked_ms);
        }
        let (touch, absolute_ms) = (held.touch?, held.value.as_ref()?.absolute_deadline_ms);
        if asked_ms <= touch.idle_deadline_ms {
            return None;
        }
        let idle_deadline_ms = (asked_ms + self.rules.touch_resolution_ms(ttl_ms)).min(absolute_ms);
        let dot = self.dot();
        (idle_deadline_ms > touch.idle_deadline_ms).then_some(TouchRegister {
            idle_deadline_ms,
            dot,
            ..touch
        })
    }

    /// Sets the deadline, even earlier: then it is a new base, so that later touches of others on
    /// the old base lose.
    fn exact_touch(&self, held: &Record<Stored>, deadline_ms: u64) -> Option<TouchRegister> {
        let (touch, absolute_ms) = (held.touch?, held.value.as_ref()?.absolute_deadline_ms);
        let idle_deadline_ms = deadline_ms.min(absolute_ms);
        if idle_deadline_ms == touch.idle_deadline_ms {
            return None;
        }
        let is_later = idle_deadline_ms > touch.idle_deadline_ms;
        let base = if is_later { touch.base } else { self.version(Some(held)) };
        Some(TouchRegister { base, idle_deadline_ms, dot: self.dot() })
    }

    /// A tombstone: it stands until no copy anywhere can still be alive, whoever holds it.
    fn delete(&self, held: Option<&Record<Stored>>) -> Record {
        // What it replaces may have been made by a clock that is ahead: it has to outlive that too.
        let replaced_ms = held.and_then(|held| held.value.as_ref()).map_or(0, |value| {
            value.bury_until_ms.max(value.absolute_deadline_ms.saturating_add(BURY_MARGIN_MS))
        });
        let register = ValueRegister {
            version: self.version(held),
            sequence: self.sequence,
            absolute_deadline_ms: 0,
            bury_until_ms: self.now_ms.saturating_add(self.bury_ms).max(replaced_ms),
            body: Body::Deleted,
            unknown: None,
        };
        Record { value: Some(register), touch: None }
    }
}

/// By how much a table would be larger than it may be with these rows; 0 when they make it no larger.
fn excess_bytes(state: &TableState, rules: Rules, rows: &[Row]) -> u64 {
    let growth = |row: &Row| {
        let (_, value) = row.record.live()?;
        let Subject::Key(key) = &row.subject else { return None };
        let bytes = key.bytes() + value.bytes().len();
        Some(bytes.saturating_sub(state.table.live_bytes(row.hash)))
    };
    let growth: usize = rows.iter().filter_map(growth).sum();
    let wanted = state.counted.live_bytes.saturating_add(growth as u64);
    if rules.max_bytes == 0 || growth == 0 { 0 } else { wanted.saturating_sub(rules.max_bytes) }
}

fn holds(condition: &Condition, current: impl FnOnce() -> Option<String>) -> bool {
    match condition {
        Condition::Always => true,
        Condition::Absent => current().is_none(),
        Condition::Present => current().is_some(),
        Condition::Matches(etags) => current().is_some_and(|current| etags.contains(&current)),
    }
}
