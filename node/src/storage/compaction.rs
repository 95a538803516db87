//! Compaction: what is still needed of the oldest frames is written anew, a share with each commit, and then they are cut
//! off. Whoever waits for a commit waits for a share at most.
//!
//! Two ways. Where little is held, it is copied from memory, and the old frames are never read: that takes room for as much
//! again. What was written of late is left out, because it is in frames that stay: half of the frames do, and what is in them
//! is known by the sums of its states ([`Newer`]). Where more is held, the oldest frames are judged one by one, and cut off as soon as they are. What is alive is
//! an estimate, and memory holds more for a while after much has expired: a copy that grows too large is given up for the
//! other way.
//!
//! Memory is ahead of the file, so everything that memory holds is taken into the same transaction as a share. A frame is
//! cut off only when what supersedes its states, and what of them nothing supersedes, is in the file.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use mneme_replica::effect::PersistItem;

use mneme_replica::id::KeyHash;
use mneme_replica::record::{Row, row_bytes};
use mneme_replica::table::{SHARDS, Table};

use super::frame::{self, Entry};
use super::recovery::Stored;
use super::writer::Owner;
use super::{Storage, StorageError, StoredFrame};

/// Live bytes up to which a copy is begun; twice as many, and it is given up.
const COPIED_BYTES_MAX: u64 = 16 << 20;
/// Bytes of old frames that are read at once: less than a millisecond.
const READ_BYTES: usize = 256 << 10;
/// Bytes that are judged or copied for one commit: a fraction of a millisecond.
const SHARE_BYTES: usize = 128 << 10;
/// The same while much is written.
const SHARE_BYTES_MAX: usize = 16 << 20;
/// Bytes of frames that are cut off at once: a few milliseconds.
const CUT_BYTES: usize = 2 << 20;
/// Dead bytes that are never worth judging frames.
const DEAD_BYTES_MIN: u64 = 32 << 20;
/// Dead bytes that are never worth a copy, which takes no more room for long than what was written before the newer frames.
const COPY_DEAD_BYTES_MIN: u64 = 40 << 20;
/// States of newer frames that are known, at most, in 9 MB of memory. What is beyond is copied.
const NEWER_STATES_MAX: usize = 1 << 18;
/// What a look at a state that is left out counts of a share: a quarter of what it takes to copy a small one.
const LEFT_OUT_BYTES: usize = 96;
/// Bytes by which the frames have to grow before it is asked again whether one is due.
const ASKED_BYTES: u64 = 1 << 20;

/// How far compaction is.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    stage: Stage,
    /// Frames before this one are to be cut off.
    until: u64,
    /// Bytes of the states that were still current when the last one looked at all of them.
    found_alive_bytes: u64,
    /// The same of the one under way.
    rewritten_bytes: u64,
    /// Bytes of all frames when it was last asked whether one is due.
    bytes_asked: u64,
    /// Bytes of the entries that went along with the last share.
    bytes_alongside: usize,
    /// The frames that the next copy leaves alone.
    newer: Option<Newer>,
    /// The one under way leaves some alone.
    leaves_newer: bool,
}

/// Frames that stay, and what is in them.
#[derive(Debug)]
struct Newer {
    /// The oldest of them.
    first: u64,
    /// [`Row::sum`] of what was written last of a key, by the number of its hash. A state that has this sum need not be
    /// copied; one that has not, because it was written before, or in parts, or was joined from several, is.
    sums: HashMap<u64, u64>,
}

#[derive(Debug, Default)]
enum Stage {
    /// None is under way.
    #[default]
    Idle,
    /// What memory holds is copied.
    Copying(Copying),
    /// All of it is: the old frames are cut off.
    Cutting,
    /// Frames are judged, and cut off.
    Judging(Judged),
}

/// What is still to be copied.
#[derive(Debug)]
struct Copying {
    /// Of what is in frames that stay.
    newer_sums: HashMap<u64, u64>,
    shards: Vec<(Arc<Table>, usize)>,
    /// Keys of the shard under way, with its table.
    keys: Option<(Arc<Table>, Vec<KeyHash>)>,
}

#[derive(Debug)]
struct Judged {
    /// Frames before this one are.
    next: u64,
    /// Bytes of those that are still in the file.
    bytes: usize,
    /// The next ones, read ahead.
    ahead: VecDeque<StoredFrame>,
}

/// What compaction adds to a transaction.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// States that are written anew.
    pub(super) rows: Vec<Row>,
    /// Frames to be cut off.
    pub(super) cut: Option<Cut>,
}

/// Frames to be cut off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// The oldest frame that stays.
    pub(super) first: u64,
    /// Bytes of those that go.
    pub(super) freed_bytes: usize,
}

impl Compaction {
    /// Bytes by which the file has to grow before one for which there was no room is tried again.
    pub(super) const RETRY_BYTES: u64 = DEAD_BYTES_MIN;

    /// Whether the next commit has a share; a compaction is begun when it is due.
    pub(super) fn is_due(&mut self, stored: &Stored, owner: &dyn Owner) -> bool {
        if !matches!(self.stage, Stage::Idle) {
            return true;
        }
        if stored.bytes < self.bytes_asked + ASKED_BYTES {
            return false;
        }
        self.bytes_asked = stored.bytes;
        let estimate = owner.live_bytes();
        // Where the estimate is too low, what the last compaction found alive counts: it must not begin again at once.
        let live_bytes = estimate.max(self.found_alive_bytes.min(estimate * 2));
        let is_copied = live_bytes <= COPIED_BYTES_MAX;
        let bytes_max =
            if is_copied { live_bytes + COPY_DEAD_BYTES_MIN } else { live_bytes * 2 + DEAD_BYTES_MIN };
        if !is_copied {
            self.newer = None;
        } else if self.newer.is_none() && (bytes_max / 2..=bytes_max).contains(&stored.bytes) {
            self.newer = Some(Newer { first: stored.next, sums: HashMap::new() });
        }
        if stored.bytes <= bytes_max {
            return false;
        }
        (self.until, self.bytes_alongside) = (stored.next, 0);
        self.stage = if is_copied {
            let newer = self.newer.take();
            self.leaves_newer = newer.is_some();
            self.until = newer.as_ref().map_or(stored.next, |newer| newer.first);
            let shards = |table: Arc<Table>| (0..SHARDS).map(move |shard| (table.clone(), shard));
            Stage::Copying(Copying {
                newer_sums: newer.map(|newer| newer.sums).unwrap_or_default(),
                shards: owner.tables().into_values().flat_map(shards).collect(),
                keys: None,
            })
        } else {
            Stage::Judging(Judged::from(stored.first))
        };
        true
    }

    /// The next share. The caller takes everything that memory holds into the same transaction.
    ///
    /// # Errors
    ///
    /// As [`Storage::frames`].
    pub(super) async fn share<S: Storage>(
        &mut self,
        storage: &mut S,
        stored: &Stored,
        owner: &dyn Owner,
    ) -> Result<Share, StorageError> {
        // Twice what came alongside: it has to be faster than the writes that go on.
        let share_bytes = (self.bytes_alongside * 2).clamp(SHARE_BYTES, SHARE_BYTES_MAX);
        let share = match &mut self.stage {
            Stage::Idle => Share::default(),
            Stage::Copying(copying) => {
                let rows = copying.copy(share_bytes);
                if copying.is_done() {
                    self.stage = Stage::Cutting;
                } else if self.rewritten_bytes > 2 * COPIED_BYTES_MAX {
                    self.stage = Stage::Judging(Judged::from(stored.first));
                }
                Share { rows, cut: None }
            }
            Stage::Cutting => {
                let sizes = storage.frame_sizes(stored.first - 1, CUT_BYTES).await?;
                let old: Vec<_> = sizes.into_iter().take_while(|(id, _)| *id < self.until).collect();
                let (last, _) = old.last().ok_or_else(|| StorageError::missing(stored.first))?;
                let freed_bytes = old.iter().map(|(_, bytes)| bytes).sum();
                Share { rows: Vec::new(), cut: Some(Cut { first: last + 1, freed_bytes }) }
            }
            Stage::Judging(judged) => {
                let rows = judged.judge(storage, owner, self.until, share_bytes).await?;
                let is_cut = judged.bytes >= CUT_BYTES || judged.next >= self.until;
                let cut = is_cut.then_some(Cut { first: judged.next, freed_bytes: judged.bytes });
                Share { rows, cut }
            }
        };
        self.rewritten_bytes += share.rows.iter().map(row_bytes).sum::<usize>() as u64;
        Ok(share)
    }

    /// These were written.
    pub(super) fn wrote<'a>(&mut self, items: impl Iterator<Item = &'a PersistItem>) {
        let Some(Newer { sums, .. }) = &mut self.newer else { return };
        let rows = items.flat_map(|item| match item {
            PersistItem::Write(write) => &write.rows[..],
            PersistItem::Rows(rows) => rows,
            PersistItem::Vector(_) => &[],
        });
        for row in rows {
            if sums.len() < NEWER_STATES_MAX {
                sums.insert(row.hash.number(), row.sum());
            } else if let Some(sum) = sums.get_mut(&row.hash.number()) {
                *sum = row.sum();
            }
        }
    }

    /// A share was written, with so many bytes of entries alongside.
    pub(super) fn went_along(&mut self, bytes: usize) {
        self.bytes_alongside = bytes;
    }

    /// Frames were cut off; says whether these were the last.
    pub(super) fn cut_off(&mut self, cut: Cut) -> bool {
        if let Stage::Judging(judged) = &mut self.stage {
            judged.bytes = 0;
        }
        let is_done = cut.first >= self.until;
        if is_done {
            let found_before_bytes = if self.leaves_newer { self.found_alive_bytes } else { 0 };
            let found_alive_bytes = self.rewritten_bytes.max(found_before_bytes);
            *self = Self { found_alive_bytes, ..Self::default() };
        }
        is_done
    }

    /// What was to be written anew is not in the file. None begins before the frames have `bytes`.
    pub(super) fn give_up(&mut self, bytes: u64) {
        *self = Self { bytes_asked: bytes, found_alive_bytes: self.found_alive_bytes, ..Self::default() };
    }
}

impl Copying {
    /// The states of the next keys.
    fn copy(&mut self, share_bytes: usize) -> Vec<Row> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while bytes < share_bytes {
            let key = self.keys.as_mut().and_then(|(table, keys)| Some((&*table, keys.pop()?)));
            if let Some((table, key)) = key {
                let newer_sum = self.newer_sums.get(&key.number());
                if newer_sum.is_some_and(|sum| table.sum(key) == Some(*sum)) {
                    bytes += LEFT_OUT_BYTES;
                    continue;
                }
                // What was dropped meanwhile is not needed any more.
                let row = table.row(key);
                bytes += row.as_ref().map_or(0, row_bytes);
                rows.extend(row);
                continue;
            }
            let Some((table, shard)) = self.shards.pop() else {
                self.keys = None;
                break;
            };
            // Keys that come later are in later frames.
            let keys = table.shard_keys(shard);
            self.keys = Some((table, keys));
        }
        rows
    }

    fn is_done(&self) -> bool {
        self.shards.is_empty() && self.keys.is_none()
    }
}

impl Judged {
    fn from(first: u64) -> Self {
        Self { next: first, bytes: 0, ahead: VecDeque::new() }
    }

    /// What is still needed of the next frames before `until`.
    async fn judge<S: Storage>(
        &mut self,
        storage: &mut S,
        owner: &dyn Owner,
        until: u64,
        share_bytes: usize,
    ) -> Result<Vec<Row>, StorageError> {
        let tables = owner.tables();
        let (mut rows, mut looked_at, mut turn) = (Vec::new(), 0, SHARE_BYTES);
        while looked_at < share_bytes && self.next < until {
            if self.ahead.is_empty() {
                self.ahead = storage.frames(self.next - 1, READ_BYTES).await?.into();
            }
            let frame = self.ahead.pop_front().ok_or_else(|| StorageError::missing(self.next))?;
            let still =
                |row: &Row| tables.get(&row.table).map_or(Some(row.clone()), |table| table.current(row));
            for entry in frame::decode(frame.id, &frame.body)? {
                match entry {
                    Entry::Write(write) => rows.extend(write.rows.iter().filter_map(still)),
                    Entry::Rows(stored) => rows.extend(stored.iter().filter_map(still)),
                    // In the vector that is written when the frame is cut off.
                    Entry::Vector(_) | Entry::First(_) => {}
                }
            }
            looked_at += frame.body.len();
            (self.next, self.bytes) = (frame.id + 1, self.bytes + frame.body.len());
            if looked_at >= turn {
                // Everybody else on this thread has a turn.
                tokio::task::yield_now().await;
                turn = looked_at + SHARE_BYTES;
            }
        }
        Ok(rows)
    }
}
