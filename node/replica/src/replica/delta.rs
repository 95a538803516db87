//! Deltas: what an asker lacks, in its current state, and the donor's vector from before.

use std::sync::Arc;

use mneme_api::TableName;

use super::Replica;
use crate::effect::{Effect, Notice, PersistItem};
use crate::id::{KeyHash, NodeId};
use crate::limits::{
    DELTA_DONATIONS_MAX, DELTA_PAGE_BYTES, DELTA_RETRY_MS, DELTA_SERVED_BYTES_MAX, DELTA_STALL_MS, SLICE_ROWS,
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
    is_row_refused: bool,
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
    next_page: u64,
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
        let delta = Delta {
            donor,
            staged: Vec::new(),
            staged_bytes: 0,
            next_page: 0,
            is_row_refused: false,
            progress_boot_ms: self.boot_ms,
        };
        self.deltas.insert(number, delta);
        self.counters.deltas_asked += 1;
        let vector = self.applied.certain();
        self.send(donor, Message::DeltaRequest { delta: number, vector });
    }

    pub(super) fn give_delta(&mut self, peer: NodeId, delta: u64, vector: &VersionVector) {
        if self.donations.len() >= DELTA_DONATIONS_MAX {
            self.send(peer, Message::DeltaRefused { delta });
            return;
        }
        let shards = |(name, _): (&TableName, _)| (0..SHARDS).map(|shard| (name.clone(), shard)).collect();
        let unlisted: Vec<Vec<(TableName, usize)>> = self.tables.iter().map(shards).collect();
        let donation = Donation {
            vector: self.applied.certain(),
            asker: vector.clone(),
            unlisted: unlisted.into_iter().flatten().collect(),
            keys: Vec::new(),
            next_page: 0,
            progress_boot_ms: self.boot_ms,
        };
        self.donations.insert((peer, delta), donation);
        self.list_donations();
    }

    /// Goes on listing what askers lack, a slice at a time; the first page follows the last slice.
    pub(super) fn list_donations(&mut self) {
        let unlisted = self.donations.iter_mut().find(|(_, donation)| !donation.unlisted.is_empty());
        let Some((&(peer, delta), donation)) = unlisted else { return };
        donation.progress_boot_ms = self.boot_ms;
        let mut examined = 0;
        while examined < SLICE_ROWS
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
        if donation.unlisted.is_empty() {
            self.give_page(peer, delta, 0);
        }
        if self.donations.values().any(|donation| !donation.unlisted.is_empty()) {
            self.effects.push(Effect::Continue);
        }
    }

    pub(super) fn give_page(&mut self, peer: NodeId, delta: u64, page: u64) {
        let boot_ms = self.boot_ms;
        let Some(donation) = self.donations.get_mut(&(peer, delta)) else { return };
        if page != donation.next_page || !donation.unlisted.is_empty() {
            // Repeated or late: the asker's stall timer starts the delta again.
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
        let vector = donation.keys.is_empty().then(|| donation.vector.clone());
        if vector.is_some() {
            self.donations.remove(&(peer, delta));
        }
        self.send(peer, Message::DeltaPage { delta, page, rows, vector });
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
        let Some(delta) = self.deltas.get_mut(&number).filter(|delta| delta.donor == peer) else { return };
        if page != delta.next_page {
            return;
        }
        delta.next_page += 1;
        delta.progress_boot_ms = self.boot_ms;
        delta.is_row_refused |= !ahead.is_empty();
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
    fn publish(&mut self, delta: Delta, vector: &VersionVector) {
        let rows = delta.staged.len();
        self.tables.merge(&delta.staged);
        if rows > 0 {
            self.persist(PersistItem::Rows(Arc::new(delta.staged)));
        }
        self.counters.delta_rows += rows as u64;
        if delta.is_row_refused {
            self.refuse_clock(delta.donor);
            if let Some(member) = self.members.get_mut(&delta.donor) {
                member.retry_delta_boot_ms = self.boot_ms + DELTA_RETRY_MS;
            }
            return;
        }
        if !self.applied.dominates(vector) {
            self.applied.join(vector);
            self.persist(PersistItem::Vector(vector.clone()));
        }
        self.notice(Notice::DeltaApplied { peer: delta.donor, rows });
        self.catch_up_exchanges();
        self.retry_deferred(false);
    }

    /// Gives up deltas that stand still; heartbeats ask again.
    pub(super) fn drop_stalled_deltas(&mut self) {
        let oldest = self.boot_ms.saturating_sub(DELTA_STALL_MS);
        self.deltas.retain(|_, delta| delta.progress_boot_ms >= oldest);
        self.donations.retain(|_, donation| donation.progress_boot_ms >= oldest);
    }
}
