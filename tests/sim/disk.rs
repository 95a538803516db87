//! A simulated file: what was committed survives a crash, what was queued does not.

use std::collections::VecDeque;
use std::sync::Arc;

use mneme_replica::effect::{Meta, PersistItem};
use mneme_replica::record::Row;
use mneme_replica::replica::Recovery;
use mneme_replica::version_vector::VersionVector;

use crate::fault::Fault;

/// The bag of states of one node, and what waits for the next commit.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    committed: Vec<PersistItem>,
    meta: Meta,
    queued: VecDeque<(u64, PersistItem)>,
    queued_meta: Option<Meta>,
    /// Number of the last entry for which somebody waits.
    awaited: u64,
    /// Number of the last entry in the file.
    through: u64,
    /// Something was dropped since the last vector: memory holds what the file does not.
    is_behind: bool,
}

impl Disk {
    pub(crate) fn queue(&mut self, number: u64, item: PersistItem, is_awaited: bool) {
        self.queued.push_back((number, item));
        if is_awaited {
            self.awaited = number;
        }
    }

    /// Whether somebody waits for the next commit.
    pub(crate) fn is_awaited(&self) -> bool {
        self.queued_meta.is_some() || self.queued.front().is_some_and(|(number, _)| *number <= self.awaited)
    }

    pub(crate) fn queue_meta(&mut self, meta: Meta) {
        self.queued_meta = Some(meta);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queued.is_empty() && self.queued_meta.is_none()
    }

    /// Entries in the file.
    pub(crate) fn entries(&self) -> u64 {
        self.committed.len() as u64
    }

    /// One group commit; returns the number of the last entry in the file.
    pub(crate) fn commit(&mut self) -> Option<u64> {
        self.meta = self.queued_meta.take().unwrap_or_else(|| self.meta.clone());
        let last = self.queued.back().map(|(number, _)| *number);
        self.through = last.unwrap_or(self.through);
        self.is_behind &= !self.queued.iter().any(|(_, item)| matches!(item, PersistItem::Vector(_)));
        self.committed.extend(self.queued.drain(..).map(|(_, item)| item));
        last
    }

    /// Drops what waits, because the volume is full; returns the number of the last entry in the file.
    pub(crate) fn drop_queue(&mut self) -> u64 {
        self.queued.clear();
        self.is_behind = true;
        self.through
    }

    /// Replaces the older half of the file by what of it is still current.
    pub(crate) fn compact(&mut self, current: impl Fn(&Row) -> Option<Row>) {
        if self.is_behind {
            return;
        }
        let newer = self.committed.split_off(self.committed.len() / 2);
        let mut vector = VersionVector::default();
        let mut rows = Vec::new();
        for item in std::mem::take(&mut self.committed) {
            item.claim(&mut vector, 0);
            match item {
                PersistItem::Write(write) => rows.extend(write.rows.iter().filter_map(&current)),
                PersistItem::Rows(stored) => rows.extend(stored.iter().filter_map(&current)),
                PersistItem::Vector(_) => {}
            }
        }
        self.committed = vec![PersistItem::Rows(Arc::new(rows)), PersistItem::Vector(vector.certain())];
        self.committed.extend(newer);
    }

    /// The process is gone: what was not committed is lost.
    pub(crate) fn crash(&mut self, memory: Option<VersionVector>, fault: Option<Fault>) {
        self.queued.clear();
        self.queued_meta = None;
        (self.through, self.awaited) = (0, 0);
        self.is_behind = false;
        if fault == Some(Fault::StoredVectorFromMemory) {
            self.committed.extend(memory.map(PersistItem::Vector));
        }
    }

    /// A copy of a disk has no queue.
    pub(crate) fn forget_queue(&mut self) {
        self.queued.clear();
        self.queued_meta = None;
        self.awaited = 0;
    }

    /// Loads everything into a starting replica; the vector is what the entries claim, in order.
    pub(crate) fn load(&self, recovery: &mut Recovery, fault: Option<Fault>) -> (Meta, VersionVector) {
        let mut vector = VersionVector::default();
        let mut load = |row: Row| {
            if fault != Some(Fault::TombstonesNotLoaded) || !row.record.is_deleted() {
                recovery.load(row);
            }
        };
        for item in &self.committed {
            item.claim(&mut vector, 0);
            match item {
                PersistItem::Write(write) => write.rows.iter().cloned().for_each(&mut load),
                PersistItem::Rows(rows) => rows.iter().cloned().for_each(&mut load),
                PersistItem::Vector(_) => {}
            }
        }
        (self.meta.clone(), vector.certain())
    }
}
