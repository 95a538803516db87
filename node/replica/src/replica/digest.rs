//! The sweep, and the comparison of what replicas hold.

use std::collections::{BTreeMap, BTreeSet};

use mneme_api::TableName;

use super::Replica;
use crate::digest::row_sum;
use crate::effect::{Effect, Notice, PersistItem};
use crate::id::{Dot, KeyHash, NodeId};
use crate::limits::{DIGEST_BUCKETS, DIGEST_REPAIRS_MAX, DIGEST_STEP_MS, SWEPT_ROWS, WALL_STEP_ALONE_MS};
use crate::membership::PeerDigest;
use crate::message::Message;
use crate::record::Row;
use crate::status::DigestState;
use crate::version_vector::VersionVector;

/// Of how many digests one compares the same share of buckets while vectors are unequal.
const ROTATION: u64 = 64;

impl Replica {
    /// Drops what may be dropped by now, a slice at a time; then compares digests once a step.
    pub(super) fn sweep(&mut self) {
        let Some(now_second) = self.expired_second() else { return };
        if self.tables.expire(now_second, SWEPT_ROWS) {
            self.effects.push(Effect::Continue);
            return;
        }
        let step = self.now_ms / DIGEST_STEP_MS;
        if step <= self.swept_step {
            return;
        }
        let second = u32::try_from(step * DIGEST_STEP_MS / 1_000).unwrap_or(u32::MAX);
        let (dropped, is_more_due) = self.tables.sweep(second, SWEPT_ROWS);
        self.counters.swept += dropped as u64;
        if is_more_due {
            self.effects.push(Effect::Continue);
            return;
        }
        self.swept_step = step;
        self.forget_origins();
        self.send_digests();
    }

    /// The second up to which what has expired may be judged; `None` for as long as nothing may.
    pub(super) fn expired_second(&self) -> Option<u32> {
        self.may_judge_expiry().then(|| u32::try_from(self.now_ms / 1_000).unwrap_or(u32::MAX))
    }

    /// Takes rows in again that the sweep has passed, where it may not have: one that is dropped when it is merged is
    /// claimed all the same, and a compaction takes it out of the file. Before anybody was met there was nobody to say that
    /// the clock is wrong.
    pub(super) fn spare_expired(&mut self) {
        if !self.may_judge_expiry() {
            self.tables.unsweep(0);
        }
    }

    /// Whether what has expired by this node's clock may be dropped. A machine may boot with a clock that is far ahead;
    /// whoever knows of others waits for one to tell it the time, but not for ever.
    fn may_judge_expiry(&self) -> bool {
        let is_told = || self.members.values().any(|member| member.is_in_contact && member.is_clock_known());
        let runs_ms = self.boot_ms.saturating_sub(self.started_boot_ms);
        !self.time.is_in_doubt()
            && !self.is_clock_disputed()
            && (self.members.is_empty() || is_told() || runs_ms > WALL_STEP_ALONE_MS)
    }

    fn send_digests(&mut self) {
        if self.digest_sent_step == self.swept_step {
            return;
        }
        self.digest_sent_step = self.swept_step;
        let (step, vector, tables) = (self.swept_step, self.applied.certain(), self.tables.digests());
        let peers = self.peers_in_contact();
        for peer in peers {
            self.send(peer, Message::Digest { step, vector: vector.clone(), tables: tables.clone() });
        }
        let early =
            self.members.iter_mut().filter_map(|(peer, member)| Some((*peer, member.early_digest.take()?)));
        for (peer, digest) in early.collect::<Vec<_>>() {
            self.compare(peer, digest);
        }
    }

    /// Compares a peer's sums with ours and lists the buckets that differ.
    pub(super) fn compare(&mut self, peer: NodeId, digest: PeerDigest) {
        if digest.step == self.swept_step + 1 {
            // Its clock or its tick is a moment ahead, this time and every time: compared when this node is there too.
            if let Some(member) = self.members.get_mut(&peer) {
                member.early_digest = Some(digest);
            }
            return;
        }
        let PeerDigest { step, vector, tables } = &digest;
        if *step != self.swept_step {
            return;
        }
        let (step, is_agreed) = (*step, self.applied.agrees_with(vector));
        let mut unequal = Vec::new();
        for digest in tables.iter().filter(|digest| digest.sums.len() == DIGEST_BUCKETS) {
            let ours = self.tables.get(&digest.table).map(|state| state.digest.sums());
            let sum = |bucket: usize| ours.map_or(0, |ours| ours[bucket]);
            let differing = (0..DIGEST_BUCKETS).filter(|bucket| sum(*bucket) != digest.sums[*bucket]);
            let in_turn = |bucket: &usize| is_agreed || *bucket as u64 % ROTATION == step % ROTATION;
            unequal.extend(differing.filter(in_turn).map(|bucket| (digest.table.clone(), bucket)));
        }
        if let Some(member) = self.members.get_mut(&peer)
            && is_agreed
        {
            member.digest = if unequal.is_empty() { DigestState::Equal } else { DigestState::Unequal };
        }
        self.counters.digest_mismatches += u64::from(is_agreed && !unequal.is_empty());
        for (table, bucket) in unequal.into_iter().take(DIGEST_REPAIRS_MAX) {
            let rows = self.bucket_rows(&table, bucket, vector);
            let rows = rows.into_iter().collect();
            let bucket = u32::try_from(bucket).unwrap_or(u32::MAX);
            let vector = self.applied.certain();
            self.send(peer, Message::Bucket { step, table, bucket, vector, rows });
        }
    }

    /// Sums of the rows of a bucket; while vectors differ without those that the peer's does not cover.
    fn bucket_rows(
        &self,
        table: &TableName,
        bucket: usize,
        vector: &VersionVector,
    ) -> BTreeMap<KeyHash, u64> {
        let mut rows = BTreeMap::new();
        let Some(state) = self.tables.get(table) else { return rows };
        // Equal vectors: every difference counts, also under an origin that both have forgotten, and what is held
        // beyond a gap that nobody can fill any more.
        let is_agreed = self.applied.agrees_with(vector);
        state.table.visit_bucket(bucket, |hash, record| {
            if is_agreed || record.dots().all(|dot| vector.covers(dot)) {
                rows.insert(hash, row_sum(hash, record));
            }
        });
        rows
    }

    /// Sends our rows that the peer lacks or has otherwise, and asks for its own.
    pub(super) fn compare_bucket(
        &mut self,
        peer: NodeId,
        step: u64,
        table: &TableName,
        bucket: u32,
        vector: &VersionVector,
        theirs: &[(KeyHash, u64)],
    ) {
        if step != self.swept_step {
            return;
        }
        let ours = self.bucket_rows(table, bucket as usize, vector);
        let theirs: BTreeMap<KeyHash, u64> = theirs.iter().copied().collect();
        let differs = |hash: &&KeyHash| ours.get(hash) != theirs.get(hash);
        let wanted: Vec<KeyHash> = theirs.keys().filter(differs).copied().collect();
        let sent: Vec<KeyHash> = ours.keys().filter(differs).copied().collect();
        if wanted.is_empty() && sent.is_empty() {
            return;
        }
        let rows = self.whole_rows(table, &sent, vector);
        let is_divergence = self.applied.agrees_with(vector);
        self.send(peer, Message::Repair { table: table.clone(), rows, wanted, is_divergence });
    }

    /// Rows in their present state, with every row that shares a dot which `vector` does not cover: a row of a batch
    /// that the peer lacks never travels alone.
    fn whole_rows(&self, table: &TableName, hashes: &[KeyHash], vector: &VersionVector) -> Vec<Row> {
        let Some(state) = self.tables.get(table) else { return Vec::new() };
        let mut wanted: BTreeSet<KeyHash> = hashes.iter().copied().collect();
        let mut dots = BTreeSet::new();
        loop {
            let outlines = wanted.iter().filter_map(|hash| state.table.outline(*hash));
            let uncovered: BTreeSet<Dot> = outlines
                .flat_map(|record| record.dots().collect::<Vec<_>>())
                .filter(|dot| !vector.covers(*dot))
                .collect();
            if uncovered.is_subset(&dots) {
                break;
            }
            dots = uncovered;
            state.table.visit(|hash, record| {
                if record.dots().any(|dot| dots.contains(&dot)) {
                    wanted.insert(hash);
                }
            });
        }
        wanted.into_iter().filter_map(|hash| state.table.row(hash)).collect()
    }

    /// Joins rows that differed, and answers with those that the peer wants.
    pub(super) fn repair(
        &mut self,
        peer: NodeId,
        table: &TableName,
        rows: Vec<Row>,
        wanted: &[KeyHash],
        is_divergence: bool,
    ) {
        let (ahead, mut rows): (Vec<Row>, Vec<Row>) =
            rows.into_iter().filter(|row| row.table == *table).partition(|row| self.is_ahead(row));
        let refused: BTreeSet<Dot> =
            ahead.iter().flat_map(|row| row.record.dots().collect::<Vec<_>>()).collect();
        rows.retain(|row| row.record.dots().all(|dot| !refused.contains(&dot)));
        let changed = self.tables.merge(&rows).into_iter().filter(|is_changed| *is_changed).count();
        self.note_together(&rows);
        if changed > 0 {
            self.persist(PersistItem::Rows(rows.into()), true);
            if is_divergence {
                self.counters.divergence_repaired += changed as u64;
                self.notice(Notice::DivergenceRepaired { peer, rows: changed });
            }
        }
        if !wanted.is_empty() {
            let held = self.members.get(&peer).map(|member| member.vector.clone()).unwrap_or_default();
            let rows = self.whole_rows(table, wanted, &held);
            self.send(
                peer,
                Message::Repair { table: table.clone(), rows, wanted: Vec::new(), is_divergence },
            );
        }
    }
}
