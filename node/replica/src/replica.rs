//! The replica: the one place that decides. [`Replica::step`] answers an event with effects.
//!
//! - `replica/client.rs`: a client's command becomes one write.
//! - `replica/push.rs`: a peer's writes are merged, acknowledged, asked for.
//! - `replica/delta.rs`: what somebody lacks, asked for and given.
//! - `replica/digest.rs`: the sweep, and the comparison of what is held.
//! - `replica/peers.rs`: greetings, heartbeats, exchanges; who is waited for.
//! - `replica/clocks.rs`: what others say of this node's clock.
//! - `replica/serving.rs`: the tick; when this node may serve.

mod client;
mod clocks;
mod delta;
mod digest;
mod peers;
mod push;
mod serving;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use mneme_api::{TableKind, TableName};

use self::delta::{Delta, Donation};
use self::push::Deferred;
use crate::acknowledgement::Pending;
use crate::effect::{Effect, Meta, Notice, PersistItem};
use crate::event::{Event, ScanStart};
use crate::gate::Gate;
use crate::id::{KeyHash, NodeId, Origin};
use crate::limits;
use crate::membership::{Member, PeerDigest};
use crate::message::{Hello, Lane, MemberInfo, Message};
use crate::record::{Row, Write};
use crate::status::{Counters, Settings};
use crate::table::Table;
use crate::tables::Tables;
use crate::time::{ClockSample, NodeTime};
use crate::version_vector::VersionVector;

/// One replica.
#[derive(Debug)]
pub struct Replica {
    settings: Settings,
    gate: Arc<Gate>,
    time: NodeTime,
    /// Clocks at the step that runs.
    boot_ms: u64,
    now_ms: u64,
    wall_ms: u64,
    started_boot_ms: u64,
    last_tick_boot_ms: u64,
    last_heartbeat_boot_ms: u64,
    tables: Tables,
    applied: VersionVector,
    durable: VersionVector,
    /// Entries handed to the storage and not yet on disk, oldest first.
    unpersisted: VecDeque<(u64, PersistItem)>,
    persist_number: u64,
    /// Number of the last entry for which somebody waits.
    awaited_number: u64,
    /// `Some` while the volume is full, or was and the file has not caught up.
    full_volume: Option<FullVolume>,
    /// Number of the entry with the rows of the last delta.
    brought_number: u64,
    /// Since when the storage owes an answer.
    persist_waits_since_boot_ms: Option<u64>,
    /// Sequence of this origin's last write.
    sequence: u64,
    members: BTreeMap<NodeId, Member>,
    pending: Pending,
    /// Own writes of late, so that records whole can be sent when asked for.
    recent: VecDeque<Arc<Write>>,
    recent_bytes: usize,
    deferred: Vec<Deferred>,
    deferred_bytes: usize,
    deltas: BTreeMap<u64, Delta>,
    donations: BTreeMap<(NodeId, u64), Donation>,
    last_number: u64,
    /// Rows may be missing that the vector covers, because node time was wrong: these peers are still to be asked for
    /// all they have. Until then no vector is given to anybody.
    lacks_from: BTreeSet<NodeId>,
    /// The same, and there was nobody to ask: the first who comes is.
    lacks_until_met: bool,
    /// Digest step up to which the sweep is done.
    swept_step: u64,
    digest_sent_step: u64,
    /// Whether somebody's clock has agreed with this process's.
    is_clock_confirmed: bool,
    join: Join,
    is_draining: bool,
    is_drained: bool,
    meta: Meta,
    counters: Counters,
    effects: Vec<Effect>,
}

/// What the file lacks while the volume is full.
#[derive(Debug)]
enum FullVolume {
    /// Nothing is handed to the storage; try again at this boot time.
    Dropping { retry_boot_ms: u64 },
    /// An empty entry was handed over, to see whether there is space; nothing else is until this number is on disk.
    Probing { through: u64 },
    /// Everything the file lacks was handed over: in order again once this number is on disk.
    CatchingUp { through: u64 },
}

/// How far a starting node is.
#[derive(Debug)]
struct Join {
    is_done: bool,
    /// Who was live last, from the file.
    last_live: BTreeSet<NodeId>,
    has_met_anyone: bool,
    is_empty: bool,
    discovered: Option<(BTreeSet<String>, bool, bool)>,
    failed: BTreeSet<String>,
    dialled: Vec<(String, Option<NodeId>)>,
}

/// A replica that is being loaded from its file.
#[derive(Debug)]
pub struct Recovery {
    settings: Settings,
    sample: ClockSample,
    tables: Tables,
    is_empty: bool,
    /// What this node's clock has shown, in milliseconds, as far as the rows tell.
    shown_ms: u64,
}

impl Recovery {
    /// Merges one stored row: the same merge as replication, so order and duplicates are harmless.
    pub fn load(&mut self, row: Row) {
        self.is_empty = false;
        // Whatever is stamped later than a node's clock shows it refuses, but for another's tombstone of a session.
        let is_own = row
            .record
            .value
            .as_ref()
            .is_some_and(|value| value.version.origin.node == self.settings.origin.node);
        if is_own || row.kind != TableKind::Session || !row.record.is_deleted() {
            self.shown_ms = self.shown_ms.max(row.record.version_ms());
        }
        self.tables.merge(std::slice::from_ref(&row));
    }

    /// The replica, with what the file remembers besides rows. Then call [`Replica::start`].
    pub fn finish(mut self, meta: Meta, vector: VersionVector) -> Replica {
        for info in &meta.tables {
            // A table declared under another kind than the file's was refused before the load.
            let _ = self.tables.know(info);
        }
        let time = NodeTime::start_after(self.sample, self.shown_ms);
        let members = meta.members.iter().map(|info| (info.node, Member::known(info, self.sample.boot_ms)));
        let replica = Replica {
            gate: Arc::default(),
            boot_ms: self.sample.boot_ms,
            now_ms: time.at(self.sample.boot_ms),
            wall_ms: self.sample.wall_ms,
            started_boot_ms: self.sample.boot_ms,
            last_tick_boot_ms: self.sample.boot_ms,
            last_heartbeat_boot_ms: 0,
            time,
            tables: self.tables,
            durable: vector.clone(),
            applied: vector,
            unpersisted: VecDeque::new(),
            persist_number: 0,
            awaited_number: 0,
            brought_number: 0,
            full_volume: None,
            persist_waits_since_boot_ms: None,
            sequence: 0,
            members: members.collect(),
            pending: Pending::default(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            deferred: Vec::new(),
            deferred_bytes: 0,
            deltas: BTreeMap::new(),
            donations: BTreeMap::new(),
            last_number: 0,
            lacks_from: BTreeSet::new(),
            lacks_until_met: false,
            swept_step: 0,
            digest_sent_step: 0,
            is_clock_confirmed: false,
            join: Join {
                is_done: false,
                last_live: meta.last_live.iter().copied().collect(),
                has_met_anyone: meta.has_met_anyone,
                is_empty: self.is_empty,
                discovered: None,
                failed: BTreeSet::new(),
                dialled: Vec::new(),
            },
            is_draining: false,
            is_drained: false,
            meta,
            counters: Counters::default(),
            effects: Vec::new(),
            settings: self.settings,
        };
        replica.gate.tick(replica.boot_ms, replica.time.offset_ms());
        replica
    }
}

impl Replica {
    /// Starts to recover a replica; `sample` is the machine's clocks now.
    ///
    /// # Panics
    ///
    /// When the settings declare one table twice under two kinds, which the configuration refuses.
    pub fn recover(settings: Settings, sample: ClockSample) -> Recovery {
        let mut tables = Tables::default();
        tables.now_ms = sample.wall_ms;
        for config in &settings.tables {
            tables.declare(config).expect("the configuration has each table once");
        }
        Recovery { settings, sample, tables, is_empty: true, shown_ms: 0 }
    }

    /// First effects: the addresses to dial, and whether to serve at once.
    pub fn start(&mut self, now: ClockSample) -> Vec<Effect> {
        self.step(now, Event::Tick)
    }

    /// Advances the replica by one event. The only clock is `now`.
    ///
    /// Effects are in the order they must run.
    pub fn step(&mut self, now: ClockSample, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.step_into(now, event, &mut effects);
        effects
    }

    /// As [`Replica::step`], with effects added to those that are there: whoever steps often keeps one list.
    pub fn step_into(&mut self, now: ClockSample, event: Event, effects: &mut Vec<Effect>) {
        // Between steps the replica's own list is empty.
        std::mem::swap(&mut self.effects, effects);
        self.boot_ms = self.boot_ms.max(now.boot_ms);
        self.now_ms = self.time.at(self.boot_ms);
        self.wall_ms = now.wall_ms;
        self.tables.now_ms = self.now_ms;
        self.notice_stall();
        match event {
            Event::Client { request, command, ack, timeout_ms } => {
                self.client(request, command, ack, timeout_ms);
            }
            Event::Persisted { through } => self.persisted(through),
            Event::PersistFailed { through } => self.persist_failed(through),
            Event::Greeted { connection, hello, dialled } => self.greeted(connection, hello, dialled),
            Event::Refused { address, refusal } => self.refused(address, refusal),
            Event::DialFailed { address } => {
                self.join.failed.insert(address);
            }
            Event::LinkDown { peer, lane } => self.link_down(peer, lane),
            Event::PushesTaken { peer, count } => self.pushes_taken(peer, count),
            Event::Message { from, message } => self.message(from, message),
            Event::Discovered { addresses, is_configured, is_complete } => {
                self.join.discovered = Some((addresses.into_iter().collect(), is_configured, is_complete));
            }
            Event::Tick => self.tick(now),
            Event::Resume => {
                self.sweep();
                self.list_donations();
            }
            Event::Drain => self.is_draining = true,
        }
        self.update_gate();
        std::mem::swap(&mut self.effects, effects);
    }

    fn message(&mut self, from: Origin, message: Message) {
        if self.members.get(&from.node).is_none_or(|member| member.origin != Some(from)) {
            // A process that is no longer, or was never greeted.
            return;
        }
        self.heard_from(from.node);
        if self.is_impossible(&message) {
            self.counters.messages_refused += 1;
            return;
        }
        let peer = from.node;
        match message {
            Message::Push { writes } => self.pushed(from, writes),
            Message::Ack { origin, applied, durable, refused_clock } => {
                self.acked(peer, origin, applied, durable, refused_clock);
            }
            Message::NeedRecords { dot } => self.send_records(peer, dot),
            Message::Heartbeat(heartbeat) => self.heartbeat(peer, *heartbeat),
            Message::Exchange { nonce, vector, approaches } => {
                self.exchange(peer, nonce, &vector, approaches)
            }
            Message::ExchangeReply { nonce, is_counted, vector, live } => {
                self.exchanged(peer, nonce, is_counted, vector, &live);
            }
            Message::DeltaRequest { delta, vector } => self.give_delta(peer, delta, &vector),
            Message::DeltaPage { delta, page, rows, vector } => {
                self.take_page(peer, delta, page, rows, vector)
            }
            Message::DeltaNext { delta, page } => self.give_page(peer, delta, page),
            Message::DeltaRefused { delta } => self.delta_refused(peer, delta),
            Message::Digest { step, vector, tables } => {
                self.compare(peer, PeerDigest { step, vector, tables });
            }
            Message::Bucket { step, table, bucket, vector, rows } => {
                self.compare_bucket(peer, step, &table, bucket, &vector, &rows);
            }
            Message::Repair { table, rows, wanted, is_divergence } => {
                self.repair(peer, &table, rows, &wanted, is_divergence);
            }
            Message::Goodbye => self.said_goodbye(peer),
        }
    }

    /// Whether a message says of this process that it wrote more than it did. Believed, that would acknowledge writes that
    /// nobody holds, and later ones would seem to be held everywhere.
    fn is_impossible(&self, message: &Message) -> bool {
        let (mine, written) = (self.settings.origin, self.sequence);
        let claims = |vector: &VersionVector| vector.contiguous(mine) > written;
        match message {
            Message::Ack { origin, applied, durable, .. } => {
                *origin == mine && (*applied).max(*durable) > written
            }
            Message::Heartbeat(heartbeat) => claims(&heartbeat.applied) || claims(&heartbeat.durable),
            Message::Exchange { vector, .. }
            | Message::ExchangeReply { vector, .. }
            | Message::DeltaRequest { vector, .. }
            | Message::Digest { vector, .. }
            | Message::Bucket { vector, .. } => claims(vector),
            Message::DeltaPage { vector, .. } => vector.as_ref().is_some_and(claims),
            Message::Push { .. }
            | Message::NeedRecords { .. }
            | Message::DeltaNext { .. }
            | Message::DeltaRefused { .. }
            | Message::Repair { .. }
            | Message::Goodbye => false,
        }
    }

    /// Takes a write into memory and hands it to the storage; `is_own`: a client of this node wrote it.
    ///
    /// Memory first: the order of entries in the file is the order of merges, so what is claimed
    /// on disk never runs ahead of what is in it.
    fn take_in(&mut self, write: &Arc<Write>, is_own: bool) {
        self.tables.merge_of(&write.rows, is_own);
        self.note_together(&write.rows);
        let is_awaited = is_own || self.is_awaited_here(write.dot.origin.node);
        if self.applied.claim(write.dot, self.now_ms) {
            self.persist(PersistItem::Write(write.clone()), is_awaited);
        } else {
            self.persist(PersistItem::Rows(Arc::new(write.rows.clone())), is_awaited);
        }
    }

    fn persist(&mut self, item: PersistItem, is_awaited: bool) {
        if matches!(self.full_volume, Some(FullVolume::Dropping { .. } | FullVolume::Probing { .. })) {
            // Caught up from memory once there is space again.
            return;
        }
        self.hand_over(item, is_awaited);
    }

    fn hand_over(&mut self, item: PersistItem, is_awaited: bool) {
        self.persist_number += 1;
        if is_awaited {
            self.awaited_number = self.persist_number;
        }
        self.unpersisted.push_back((self.persist_number, item.clone()));
        self.persist_waits_since_boot_ms.get_or_insert(self.boot_ms);
        self.effects.push(Effect::Persist { number: self.persist_number, item, is_awaited });
    }

    fn persisted(&mut self, through: u64) {
        let now_ms = self.now_ms;
        while let Some((_, item)) = self.unpersisted.pop_front_if(|(number, _)| *number <= through) {
            item.claim(&mut self.durable, now_ms);
        }
        self.persist_waits_since_boot_ms = (!self.unpersisted.is_empty()).then_some(self.boot_ms);
        match self.full_volume {
            Some(FullVolume::Probing { through: wanted }) if wanted <= through => self.catch_file_up(),
            Some(FullVolume::CatchingUp { through: wanted }) if wanted <= through => self.full_volume = None,
            _ => {}
        }
        self.send_acks();
        self.settle();
    }

    /// The storage has dropped what it did not write: the number up to which that is so is
    /// [`Replica::persist_number`] right after this step.
    fn persist_failed(&mut self, through: u64) {
        self.persisted(through);
        self.unpersisted.clear();
        let retry_boot_ms = self.boot_ms + limits::FULL_VOLUME_RETRY_MS;
        self.full_volume = Some(FullVolume::Dropping { retry_boot_ms });
    }

    /// Looks now and then whether there is space again.
    fn retry_full_volume(&mut self) {
        let Some(FullVolume::Dropping { retry_boot_ms }) = self.full_volume else { return };
        if self.boot_ms >= retry_boot_ms {
            self.hand_over(PersistItem::Rows(Arc::default()), true);
            self.full_volume = Some(FullVolume::Probing { through: self.persist_number });
        }
    }

    /// Hands the storage everything that the file lacks, like a delta against its own vector: all rows as one entry,
    /// because a batch is in the file whole or not at all, then what they amount to.
    fn catch_file_up(&mut self) {
        // What is held beyond a gap is in nobody's vector: claimed on, it would stay out of the file's for ever.
        self.applied = self.applied.certain();
        let keys = self.keys_above(&self.durable.certain());
        let row = |(name, hash): &(TableName, KeyHash)| self.tables.get(name)?.table.row(*hash);
        let rows: Vec<Row> = keys.iter().filter_map(row).collect();
        self.hand_over(PersistItem::Rows(Arc::new(rows)), true);
        self.hand_over(PersistItem::Vector(self.applied.certain()), true);
        self.full_volume = Some(FullVolume::CatchingUp { through: self.persist_number });
    }

    /// Number of the last [`Effect::Persist`].
    pub fn persist_number(&self) -> u64 {
        self.persist_number
    }

    /// Whether the storage has answered nothing for so long that this node leaves the durable count.
    pub fn is_commit_stalled(&self) -> bool {
        self.persist_waits_ms() >= limits::COMMIT_STALLED_MS
    }

    /// Whether this disk, which is needed for a majority of two, is still at what a delta brought, and has not been for so
    /// long that the other was told not to wait for it.
    fn is_storing_delta(&self) -> bool {
        let is_told = self.persist_waits_ms() >= limits::COMMIT_STALLED_MS + limits::HEARTBEAT_MS;
        self.unpersisted.front().is_some_and(|(number, _)| *number <= self.brought_number)
            && !is_told
            && self.peers_in_contact().len() == 1
    }

    /// For how long the storage has owed an answer.
    fn persist_waits_ms(&self) -> u64 {
        self.persist_waits_since_boot_ms.map_or(0, |since| self.boot_ms.saturating_sub(since))
    }

    fn is_read_only(&self) -> bool {
        self.full_volume.is_some()
    }

    /// Every key with a dot that `vector` does not cover.
    fn keys_above(&self, vector: &VersionVector) -> Vec<(TableName, KeyHash)> {
        let mut keys = Vec::new();
        for (name, state) in self.tables.iter() {
            state.table.visit(|hash, record| {
                if record.dots().any(|dot| !vector.covers(dot)) {
                    keys.push((name.clone(), hash));
                }
            });
        }
        keys
    }

    fn peers_in_contact(&self) -> Vec<NodeId> {
        self.members.iter().filter(|(_, member)| member.is_in_contact).map(|(peer, _)| *peer).collect()
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.effects.push(Effect::Send { to, message });
    }

    fn notice(&mut self, notice: Notice) {
        self.effects.push(Effect::Notice(notice));
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// The serving gate, for readers.
    pub fn gate(&self) -> Arc<Gate> {
        self.gate.clone()
    }

    /// One table, for readers; declared or met in replication.
    pub fn table(&self, name: &TableName) -> Option<Arc<Table>> {
        self.tables.get(name).map(|state| state.table.clone())
    }

    /// All tables, for readers.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.iter().map(|(_, state)| &state.table)
    }

    /// Where a scan begins that begins now.
    pub fn scan_start(&self) -> ScanStart {
        ScanStart { now_ms: self.now_ms, held: Arc::new(self.applied.clone()) }
    }

    /// Everything applied in memory.
    pub fn vector(&self) -> VersionVector {
        self.applied.certain()
    }

    /// What this node says of itself when a connection opens.
    pub fn hello(&self) -> Hello {
        Hello {
            cluster: self.settings.cluster.clone(),
            origin: self.settings.origin,
            protocol: (1, 1),
            name: self.settings.name.clone(),
            address: self.settings.address.clone(),
            version: self.settings.version.clone(),
            tables: self.tables.infos(),
            members: self.member_infos(),
            features: self.settings.features.clone(),
            uptime_ms: self.boot_ms - self.started_boot_ms,
        }
    }

    /// Whether everybody can do it: a write that one member would not understand is not made.
    fn is_agreed(&self, feature: &String) -> bool {
        self.members.values().all(|member| member.features.contains(feature))
    }

    fn member_infos(&self) -> Vec<MemberInfo> {
        self.members.iter().map(|(node, member)| member.info(*node)).collect()
    }

    fn link_down(&mut self, peer: NodeId, lane: Lane) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        if lane == Lane::Push {
            member.drop_outbox();
            member.pushed_from = self.sequence;
        }
        if lane == Lane::Bulk {
            self.donations.retain(|(to, _), _| *to != peer);
            self.deltas.retain(|_, delta| delta.donor != peer);
        }
    }

    fn pushes_taken(&mut self, peer: NodeId, count: usize) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.pushes_in_flight = member.pushes_in_flight.saturating_sub(count);
        }
        self.flush(peer);
    }

    /// Sends the next batch to a peer unless enough is under way: what waits meanwhile goes together.
    fn flush(&mut self, peer: NodeId) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        while member.pushes_in_flight < limits::PUSHES_IN_FLIGHT_MAX {
            let writes = member.take_push();
            if writes.is_empty() {
                return;
            }
            member.pushes_in_flight += 1;
            self.effects.push(Effect::Send { to: peer, message: Message::Push { writes } });
        }
    }
}
