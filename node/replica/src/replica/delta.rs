//! Deltas: what an asker lacks, in its current state, and the donor's vector from before.

use std::collections::BTreeSet;
use std::sync::Arc;

use mneme_api::TableName;

use super::Replica;
use crate::effect::{Effect, Notice, PersistItem};
use crate::id::{Dot, KeyHash, NodeId};
use crate::limits::{
    DELTA_ALONE_MS, DELTA_DONATIONS_MAX, DELTA_LAST_PAGE_BYTES, DELTA_PAGE_BYTES, DELTA_RETRY_MS,
    DELTA_SERVED_BYTES_MAX, DELTA_STALL_MS, DELTA_UNHEARD_MS, DELTA_WRITTEN_MAX, HEARTBEAT_MS, LISTED_ROWS,
    VERSION_AHEAD_MS_MAX,
};
use crate::message::Message;
use crate::record::{Row, row_bytes};
use crate::table::SHARDS;
use crate::version_vector::VersionVector;

/// A delta that was asked for: pages wait here and are published in one step at the end.
#[derive(Debug)]
pub(super) struct Delta {
    pub(super) donor: NodeId,
    staged: Vec<Row>,
    staged_bytes: usize,
    next_page: u64,
    /// Dots of rows that were refused, because their versions are ahead: every row of such a write stays out.
    refused: BTreeSet<Dot>,
    /// How far ahead the furthest of them is, in milliseconds.
    refused_ahead_ms: u64,
    /// Everything was asked for, whatever the vector covers.
    is_of_everything: bool,
    asked_boot_ms: u64,
    progress_boot_ms: u64,
}

/// A delta that is being given.
///
/// The vector and the set of keys are fixed before the first page. A vector taken at the end would
/// claim writes that came after their key's page.
#[derive(Debug)]
pub(super) struct Donation {
    vector: VersionVector,
    /// What the asker holds.
    asker: VersionVector,
    /// Shards of tables whose keys are still to be listed. What is written meanwhile may be listed too; what it
    /// supersedes need not be.
    unlisted: Vec<(TableName, usize)>,
    keys: Vec<(TableName, KeyHash)>,
    /// Keys of what was written together since the set of keys was begun. A page may hold one of them in its new state
    /// and another page its companion in the old one: all go again, in one state, before the end.
    written: BTreeSet<(TableName, KeyHash)>,
    next_page: u64,
    /// The next page was asked for while keys were still being listed.
    is_wanted: bool,
    progress_boot_ms: u64,
}

impl Delta {
    /// Whether publishing it takes so long that nothing is served meanwhile.
    pub(super) fn is_large(&self) -> bool {
        self.staged_bytes > DELTA_SERVED_BYTES_MAX
    }
}

impl Replica {
    /// Asks a peer for what this node lacks, unless it was asked already.
    pub(super) fn ask_delta(&mut self, donor: NodeId) {
        let is_asked = self.deltas.values().any(|delta| delta.donor == donor);
        let may_retry =
            self.members.get(&donor).is_some_and(|member| member.retry_delta_boot_ms <= self.boot_ms);
        if is_asked || !may_retry {
            return;
        }
        let number = self.next_number();
        let is_of_everything = self.lacks_from.contains(&donor);
        let delta = Delta {
            donor,
            staged: Vec::new(),
            staged_bytes: 0,
            next_page: 0,
            refused: BTreeSet::new(),
            refused_ahead_ms: 0,
            is_of_everything,
            asked_boot_ms: self.boot_ms,
            progress_boot_ms: self.boot_ms,
        };
        self.deltas.insert(number, delta);
        self.counters.deltas_asked += 1;
        let vector = if is_of_everything { VersionVector::default() } else { self.applied.certain() };
        self.send(donor, Message::DeltaRequest { delta: number, vector });
    }

    /// Whether a delta is under way that may bring what is missing soon.
    pub(super) fn is_being_brought(&self) -> bool {
        let is_soon = |delta: &Delta| self.boot_ms.saturating_sub(delta.asked_boot_ms) < DELTA_ALONE_MS;
        self.deltas.values().any(is_soon)
    }

    pub(super) fn give_delta(&mut self, peer: NodeId, delta: u64, vector: &VersionVector) {
        if self.donations.len() >= DELTA_DONATIONS_MAX {
            self.send(peer, Message::DeltaRefused { delta });
            return;
        }
        let shards = |(name, _): (&TableName, _)| (0..SHARDS).map(|shard| (name.clone(), shard)).collect();
        let unlisted: Vec<Vec<(TableName, usize)>> = self.tables.iter().map(shards).collect();
        // What may be missing here must not be claimed by others.
        let is_whole = self.lacks_from.is_empty() && !self.lacks_until_met;
        let donation = Donation {
            vector: if is_whole { self.applied.certain() } else { VersionVector::default() },
            asker: vector.clone(),
            unlisted: unlisted.into_iter().flatten().collect(),
            keys: Vec::new(),
            written: BTreeSet::new(),
            next_page: 1,
            is_wanted: false,
            progress_boot_ms: self.boot_ms,
        };
        self.donations.insert((peer, delta), donation);
        // Empty: it says that the question was heard. Of two links that are made at once one goes, and what was asked
        // or answered on it; listing the keys may take longer than that should go unnoticed.
        self.send(peer, Message::DeltaPage { delta, page: 0, rows: Vec::new(), vector: None });
        self.list_donations();
    }

    /// Goes on listing what askers lack, a slice at a time; the first page follows the last slice.
    pub(super) fn list_donations(&mut self) {
        let unlisted = self.donations.iter_mut().find(|(_, donation)| !donation.unlisted.is_empty());
        let Some((&(peer, delta), donation)) = unlisted else { return };
        donation.progress_boot_ms = self.boot_ms;
        let mut examined = 0;
        while examined < LISTED_ROWS
            && let Some((name, shard)) = donation.unlisted.pop()
        {
            let Some(state) = self.tables.get(&name) else { continue };
            state.table.visit_shard(shard, |hash, record| {
                examined += 1;
                if record.dots().any(|dot| !donation.asker.covers(dot)) {
                    donation.keys.push((name.clone(), hash));
                }
            });
        }
        if donation.unlisted.is_empty() && donation.is_wanted {
            let page = donation.next_page;
            self.give_page(peer, delta, page);
        }
        if self.donations.values().any(|donation| !donation.unlisted.is_empty()) {
            self.effects.push(Effect::Continue);
        }
    }

    pub(super) fn give_page(&mut self, peer: NodeId, delta: u64, page: u64) {
        let boot_ms = self.boot_ms;
        let Some(donation) = self.donations.get_mut(&(peer, delta)) else { return };
        if page != donation.next_page {
            // Repeated or late: the asker's stall timer starts the delta again.
            return;
        }
        if !donation.unlisted.is_empty() {
            donation.is_wanted = true;
            return;
        }
        donation.next_page += 1;
        donation.progress_boot_ms = boot_ms;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while bytes < DELTA_PAGE_BYTES
            && let Some((name, hash)) = donation.keys.pop()
        {
            // What is no longer held was dropped as expired: nothing to send.
            let row = self.tables.get(&name).and_then(|state| state.table.row(hash));
            bytes += row.as_ref().map_or(0, row_bytes);
            rows.extend(row);
        }
        let mut vector = None;
        if donation.keys.is_empty() {
            let row = |(name, hash): &(TableName, KeyHash)| self.tables.get(name)?.table.row(*hash);
            let again: Vec<Row> = donation.written.iter().filter_map(row).collect();
            if bytes + again.iter().map(row_bytes).sum::<usize>() <= DELTA_LAST_PAGE_BYTES {
                rows.extend(again);
                vector = Some(donation.vector.clone());
            } else {
                // Too much for the last page; less will be written while these go.
                donation.keys = std::mem::take(&mut donation.written).into_iter().collect();
            }
        }
        if vector.is_some() {
            self.donations.remove(&(peer, delta));
        }
        self.send(peer, Message::DeltaPage { delta, page, rows, vector });
    }

    /// Notes for the deltas being given that these rows were joined together.
    pub(super) fn note_together(&mut self, rows: &[Row]) {
        if rows.len() < 2 || self.donations.is_empty() {
            return;
        }
        let mut overrun = Vec::new();
        for (asked, donation) in &mut self.donations {
            donation.written.extend(rows.iter().map(|row| (row.table.clone(), row.hash)));
            if donation.written.len() > DELTA_WRITTEN_MAX {
                overrun.push(*asked);
            }
        }
        for (peer, delta) in overrun {
            // It asks again, and begins with what is here then.
            self.donations.remove(&(peer, delta));
            self.send(peer, Message::DeltaRefused { delta });
        }
    }

    pub(super) fn take_page(
        &mut self,
        peer: NodeId,
        number: u64,
        page: u64,
        rows: Vec<Row>,
        vector: Option<VersionVector>,
    ) {
        let (ahead, rows): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| self.is_ahead(row));
        let now_ms = self.now_ms;
        let Some(delta) = self.deltas.get_mut(&number).filter(|delta| delta.donor == peer) else { return };
        if page != delta.next_page {
            return;
        }
        delta.next_page += 1;
        delta.progress_boot_ms = self.boot_ms;
        for row in &ahead {
            delta.refused.extend(row.record.dots());
            delta.refused_ahead_ms =
                delta.refused_ahead_ms.max(row.record.version_ms().saturating_sub(now_ms));
        }
        delta.staged_bytes += rows.iter().map(row_bytes).sum::<usize>();
        delta.staged.extend(rows);
        let Some(vector) = vector else {
            let page = delta.next_page;
            self.send(peer, Message::DeltaNext { delta: number, page });
            return;
        };
        if let Some(delta) = self.deltas.remove(&number) {
            self.publish(delta, &vector);
        }
    }

    /// Publishes a delta that has arrived whole: rows first, then the vector, in memory and in the
    /// file alike.
    fn publish(&mut self, mut delta: Delta, vector: &VersionVector) {
        let is_whole = delta.refused.is_empty();
        if !is_whole {
            delta.staged.retain(|row| row.record.dots().all(|dot| !delta.refused.contains(&dot)));
        }
        let rows = delta.staged.len();
        self.tables.merge(&delta.staged);
        self.note_together(&delta.staged);
        if rows > 0 {
            self.persist(PersistItem::Rows(Arc::new(delta.staged)), true);
            self.brought_number = self.persist_number;
        }
        self.counters.delta_rows += rows as u64;
        if let Some(member) = self.members.get_mut(&delta.donor) {
            member.is_delta_refused = !is_whole;
            if is_whole && vector.is_empty() {
                // The donor is not whole itself.
                member.retry_delta_boot_ms = self.boot_ms + HEARTBEAT_MS;
            } else if !is_whole {
                // Sooner when they are sooner in order.
                let in_order_ms = delta.refused_ahead_ms.saturating_sub(VERSION_AHEAD_MS_MAX) + HEARTBEAT_MS;
                member.retry_delta_boot_ms = self.boot_ms + in_order_ms.min(DELTA_RETRY_MS);
            }
        }
        if !is_whole {
            self.refuse_clock(delta.donor);
            return;
        }
        if delta.is_of_everything {
            self.lacks_from.remove(&delta.donor);
        }
        if !self.applied.dominates(vector) {
            self.applied.join(vector);
            self.persist(PersistItem::Vector(vector.clone()), true);
        }
        self.notice(Notice::DeltaApplied { peer: delta.donor, rows });
        self.catch_up_exchanges();
        self.retry_deferred(false);
    }

    /// The donor gives none now: asked again in a while.
    pub(super) fn delta_refused(&mut self, donor: NodeId, number: u64) {
        if self.deltas.get(&number).is_some_and(|delta| delta.donor == donor) {
            self.deltas.remove(&number);
            if let Some(member) = self.members.get_mut(&donor) {
                member.retry_delta_boot_ms = self.boot_ms + HEARTBEAT_MS;
            }
        }
    }

    /// Gives up deltas that stand still; heartbeats ask again.
    pub(super) fn drop_stalled_deltas(&mut self) {
        let oldest = self.boot_ms.saturating_sub(DELTA_STALL_MS);
        let unheard = self.boot_ms.saturating_sub(DELTA_UNHEARD_MS);
        let since = |delta: &Delta| if delta.next_page == 0 { unheard } else { oldest };
        self.deltas.retain(|_, delta| delta.progress_boot_ms >= since(delta));
        self.donations.retain(|_, donation| donation.progress_boot_ms >= oldest);
    }
}
