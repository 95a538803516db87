//! Writes of peers: merged, acknowledged, and asked for whole when a part of a record overtook the rest of it.

use std::sync::Arc;

use mneme_api::TableKind;

use super::Replica;
use crate::effect::{Acks, Effect, Notice};
use crate::id::{Dot, NodeId, Origin};
use crate::limits::{COMMIT_SLOW_MS, DEFERRED_BYTES_MAX, RECENT_BYTES_MAX, VERSION_AHEAD_MS_MAX};
use crate::membership::Member;
use crate::message::Message;
use crate::record::{Record, Row, Write};

/// A pushed write that cannot be claimed yet: what is missing is most likely on its way. It has a part of a record that met
/// nothing of the rest, or comes after two gaps.
#[derive(Debug)]
pub(super) struct Deferred {
    from: NodeId,
    write: Arc<Write>,
    /// Ticks it has waited; then its records are asked for, or it is merged without a claim.
    ticks: u32,
}

/// Ticks that a touch waits for its put before the records are asked for, and a write for those before it.
const DEFERRED_TICKS: u32 = 2;

/// Deferred writes at once; more are left to a delta.
const DEFERRED_MAX: usize = 4_096;

impl Replica {
    /// Looks at the records that pushes among these messages write, for nothing but to have them near when the messages
    /// are taken: memory is waited for once for several of them, not for each in its turn.
    pub fn warm(&self, messages: &[Message]) {
        let pushes = messages.iter().filter_map(|message| match message {
            Message::Push { writes } => Some(writes),
            _ => None,
        });
        let mut rows = pushes.flatten().flat_map(|write| &write.rows).peekable();
        // Nearly always all are of one table.
        let Some(state) = rows.peek().and_then(|row| self.tables.get(&row.table)) else { return };
        let of_table = rows.filter(|row| row.table == *state.table.name());
        state.table.warm(of_table.map(|row| row.hash.number()));
    }

    pub(super) fn pushed(&mut self, from: Origin, writes: Vec<Arc<Write>>) {
        for write in writes {
            if write.dot.origin != from {
                // Each process pushes its own: another's comes by delta, with a vector.
                self.counters.messages_refused += 1;
            } else if self.applied.covers(write.dot) {
                self.counters.writes_repeated += 1;
            } else {
                self.pushed_write(from.node, write);
            }
        }
        if self.deltas.is_empty() {
            self.retry_deferred(false);
        }
        let is_slow = self.persist_waits_ms() >= COMMIT_SLOW_MS;
        if self.unpersisted.back().is_some_and(|(number, _)| is_slow || *number > self.awaited_number) {
            // Its commit may be a while: that it is in memory is waited for all the same.
            self.send_acks();
        }
    }

    /// Whether a member's write is waited for until it is on this disk.
    ///
    /// A majority of disks is enough: the writer's, and those of as many as it takes of the members that follow it in the order of
    /// ids. The others' commits may wait for company, which spares them most of their commits while little is written.
    /// While this disk is at work anyway, whatever comes goes along.
    pub(super) fn is_awaited_here(&self, writer: NodeId) -> bool {
        let is_at_work = self.unpersisted.front().is_some_and(|(number, _)| *number <= self.awaited_number);
        let is_voter = |member: &Member| member.is_counted && !member.is_commit_stalled;
        if is_at_work || self.is_commit_stalled() || !self.members.get(&writer).is_some_and(is_voter) {
            return true;
        }
        let here = self.settings.origin.node;
        let follows = |node: NodeId| (node < writer, node);
        let others = || self.members.iter().filter(|(node, member)| **node != writer && is_voter(member));
        let earlier = others().filter(|(node, _)| follows(**node) < follows(here)).count();
        // Of all who vote (the writer, this node, the others) half, rounded down, and the writer are a majority.
        earlier < (others().count() + 2) / 2
    }

    fn pushed_write(&mut self, from: NodeId, write: Arc<Write>) {
        if write.rows.iter().any(|row| self.is_ahead(row)) {
            self.refuse_clock(from);
            return;
        }
        let is_whole = !self.needs_records(&write);
        let has_room =
            self.deferred.len() < DEFERRED_MAX && self.deferred_bytes + write.bytes() <= DEFERRED_BYTES_MAX;
        if has_room && !(is_whole && self.applied.has_place_for(write.dot)) {
            self.defer(Deferred { from, write, ticks: 0 });
        } else if is_whole {
            self.counters.writes_pushed_here += 1;
            self.take_in(&write, false);
        }
    }

    /// Whether a row's version is too far ahead of this node's clock to be stored. A session
    /// table's tombstone wins by kind, so it is taken from any clock.
    pub(super) fn is_ahead(&self, row: &Row) -> bool {
        if row.kind == TableKind::Session && row.record.is_deleted() {
            return false;
        }
        let limit_ms = self.now_ms + VERSION_AHEAD_MS_MAX;
        let version_ms = row.record.version_ms();
        // Whoever rewrites what everybody holds already goes on from its version: no clock of its own is in it.
        version_ms > limit_ms && self.outline(row).is_none_or(|held| version_ms > held.version_ms())
    }

    pub(super) fn refuse_clock(&mut self, from: NodeId) {
        self.counters.clock_refusals += 1;
        let boot_ms = self.boot_ms;
        if let Some(member) = self.members.get_mut(&from)
            && member.clock_refused_boot_ms.replace(boot_ms).is_none()
        {
            self.notice(Notice::ClockAhead { peer: from });
        }
    }

    fn needs_records(&self, write: &Write) -> bool {
        write.rows.iter().any(|row| self.needs_record(row))
    }

    /// Whether a row is a part of a record whose other part is not held: a touch without the value that it keeps, or a value
    /// without the touch that says how long it lives (a rewrite that left the deadline alone). Merged by itself the latter
    /// would have no deadline, and the sweep take it for long expired.
    fn needs_record(&self, row: &Row) -> bool {
        let Record { value, touch } = &row.record;
        let is_final = |held: &Record<_>| row.kind == TableKind::Session && held.is_deleted();
        match (value, touch) {
            (None, Some(_)) => self.outline(row).is_none_or(|held| held.value.is_none()),
            (Some(value), None) if !value.is_deleted() => {
                self.outline(row).is_none_or(|held| held.touch.is_none() && !is_final(&held))
            }
            _ => false,
        }
    }

    fn outline(&self, row: &Row) -> Option<Record<crate::table::Stored>> {
        self.tables.get(&row.table)?.table.outline(row.hash)
    }

    fn defer(&mut self, deferred: Deferred) {
        self.deferred_bytes += deferred.write.bytes();
        self.deferred.push(deferred);
    }

    /// Looks at deferred writes again: the put may have come. On a tick, asks for what waited long.
    pub(super) fn retry_deferred(&mut self, is_tick: bool) {
        self.deferred_bytes = 0;
        for mut deferred in std::mem::take(&mut self.deferred) {
            if self.applied.covers(deferred.write.dot) {
                continue;
            }
            let is_whole = !self.needs_records(&deferred.write);
            if is_whole
                && (deferred.ticks >= DEFERRED_TICKS || self.applied.has_place_for(deferred.write.dot))
            {
                self.counters.writes_pushed_here += 1;
                self.take_in(&deferred.write, false);
                continue;
            }
            // As long as a member's writes do not wait for this node, a delta is to bring what they need.
            let is_due = self.members.get(&deferred.from).is_some_and(|member| member.exchange.is_counted());
            deferred.ticks += u32::from(is_tick && is_due);
            if !is_whole && deferred.ticks >= DEFERRED_TICKS {
                self.counters.records_needed += 1;
                self.send(deferred.from, Message::NeedRecords { dot: deferred.write.dot });
                // The records come as a push; until then a heartbeat shows the gap, a delta fills it.
            } else {
                self.defer(deferred);
            }
        }
    }

    /// Sends a write again with its records whole, and with every record whose value has the same
    /// dot as one of theirs, so that a batch stays whole.
    pub(super) fn send_records(&mut self, peer: NodeId, dot: Dot) {
        let Some(write) = self.recent.iter().find(|write| write.dot == dot).cloned() else {
            // No longer at hand: a delta brings it.
            return;
        };
        let whole = |row: &Row| self.tables.get(&row.table)?.table.row(row.hash);
        let mut rows: Vec<Row> = write.rows.iter().filter_map(whole).collect();
        let mut dots: Vec<Dot> =
            rows.iter().filter_map(|row| Some(row.record.value.as_ref()?.dot())).collect();
        // What was written lately is at hand, so nearly always it is known what came with a value.
        dots.retain(|dot| {
            let Some(write) = self.recent.iter().find(|write| write.dot == *dot) else { return true };
            for row in write.rows.iter().filter_map(whole) {
                let is_companion = row.record.value.as_ref().is_some_and(|value| value.dot() == *dot);
                let is_there = rows.iter().any(|held| held.hash == row.hash && held.table == row.table);
                if is_companion && !is_there {
                    rows.push(row);
                }
            }
            false
        });
        for (_, state) in self.tables.iter().filter(|_| !dots.is_empty()) {
            let mut companions = Vec::new();
            state.table.visit(|hash, record| {
                if record.value.as_ref().is_some_and(|value| dots.contains(&value.dot())) {
                    companions.push(hash);
                }
            });
            companions
                .retain(|hash| !rows.iter().any(|row| row.hash == *hash && row.table == *state.table.name()));
            rows.extend(companions.into_iter().filter_map(|hash| state.table.row(hash)));
        }
        self.send(peer, Message::Push { writes: vec![Arc::new(Write::new(dot, rows))] });
    }

    /// Keeps an own write at hand for peers that need its records.
    pub(super) fn remember(&mut self, write: &Arc<Write>, bytes: usize) {
        self.recent.push_back(write.clone());
        self.recent_bytes += bytes;
        while self.recent_bytes > RECENT_BYTES_MAX
            && let Some(oldest) = self.recent.pop_front()
        {
            self.recent_bytes -= oldest.bytes();
        }
    }

    /// Tells peers how far their writes are held, where that has changed.
    pub(super) fn send_acks(&mut self) {
        for (peer, member) in &mut self.members {
            let Some(origin) = member.origin.filter(|_| member.is_in_contact) else { continue };
            let ack = (self.applied.contiguous(origin), self.durable.contiguous(origin));
            if ack == member.acked {
                continue;
            }
            member.acked = ack;
            let refused_clock = member.clock_refused_boot_ms.is_some();
            let message = Message::Ack { origin, applied: ack.0, durable: ack.1, refused_clock };
            self.effects.push(Effect::Send { to: *peer, message });
        }
    }

    pub(super) fn acked(
        &mut self,
        peer: NodeId,
        origin: Origin,
        applied: u64,
        durable: u64,
        refused_clock: bool,
    ) {
        if origin != self.settings.origin {
            return;
        }
        if let Some(member) = self.members.get_mut(&peer) {
            member.applied = member.applied.max(applied);
            member.durable = member.durable.max(durable);
            member.note_refusal(refused_clock || member.refuses_clock(), self.boot_ms);
        }
        self.settle();
    }

    /// Answers every client whose write is held as widely as it asked.
    pub(super) fn settle(&mut self) {
        let (is_clock_wrong, boot_ms) = (self.is_clock_wrong(), self.boot_ms);
        loop {
            let (members, durable) = (&self.members, self.durable.contiguous(self.settings.origin));
            let counted = || members.values().filter(|member| member.is_counted);
            let is_held_by_all = |sequence: u64| {
                let waits_for = |member: &&Member| {
                    member.counted_from < sequence && (is_clock_wrong || !member.left_for_its_clock(boot_ms))
                };
                let is_applied = counted().filter(waits_for).all(|member| member.applied >= sequence);
                let voters = counted().filter(waits_for).filter(|member| !member.is_commit_stalled);
                let (all, held) = voters
                    .fold((1, usize::from(durable >= sequence)), |(all, held), member| {
                        (all + 1, held + usize::from(member.durable >= sequence))
                    });
                is_applied && durable >= sequence && held > all / 2
            };
            let settled = self.pending.settled(is_held_by_all, |sequence| durable >= sequence);
            let Some((sequence, waiting)) = settled else { return };
            let acks = self.acks(sequence);
            let outcome = waiting.answer.done(acks);
            self.effects.push(Effect::Reply { request: waiting.request, outcome });
        }
    }

    /// Who holds the write with this sequence, of all known members.
    pub(super) fn acks(&self, sequence: u64) -> Acks {
        let durable_here = self.durable.contiguous(self.settings.origin) >= sequence;
        let held =
            |of: fn(&Member) -> u64| self.members.values().filter(|member| of(member) >= sequence).count();
        Acks {
            applied: 1 + held(|member| member.applied),
            durable: usize::from(durable_here) + held(|member| member.durable),
            members: 1 + self.members.len(),
        }
    }

    /// Gives up waiting for what took too long: those outcomes are unknown.
    pub(super) fn expire_pending(&mut self) {
        while let Some((sequence, waiting)) = self.pending.expired(self.boot_ms) {
            let acks = self.acks(sequence);
            let (request, outcome) = waiting.into_unknown(acks);
            self.effects.push(Effect::Reply { request, outcome });
        }
    }

    /// Queues an own write for every peer in contact.
    pub(super) fn push(&mut self, write: &Arc<Write>) {
        let bytes = write.bytes();
        self.remember(write, bytes);
        let (mut peers, here) = (self.peers_in_contact(), self.settings.origin.node);
        // First to those whose disks it waits for: they follow this node in the order of ids.
        let followers_from = peers.partition_point(|peer| *peer < here);
        peers.rotate_left(followers_from);
        for peer in peers {
            let Some(member) = self.members.get_mut(&peer) else { continue };
            if member.enqueue(write, bytes) {
                member.pushed_from = write.dot.sequence;
                self.counters.outboxes_dropped += 1;
                self.notice(Notice::OutboxDropped { peer });
            }
            self.flush(peer);
        }
    }
}
