//! The writer: the one task that owns the file. Group commit, with a share of a compaction when one is due.
//!
//! What waits goes together: while one commit is under way the next gathers. An entry is never split between
//! transactions, however many frames it needs; a write is not even split between frames.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mneme_api::TableName;
use mneme_replica::effect::{Meta, PersistItem};
use mneme_replica::record::row_bytes;
use mneme_replica::table::Table;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::compaction::{Compaction, Share};
use super::frame::Frames;
use super::recovery::Stored;
use super::{FileSize, Storage, StorageError};

/// Bytes of one group commit, roughly: enough to pay for the fsync, little enough that the next does not wait long.
const COMMIT_BYTES_MAX: usize = 4 << 20;
/// Bytes that may wait for the disk before peers are read no further.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// Time from the end of one commit for which the next waits for those who are about to write again, at most.
const GATHER_MAX: Duration = Duration::from_millis(1);

/// How long an entry for which nobody waits may wait for company.
const UNAWAITED_MAX: Duration = Duration::from_millis(5);

/// What the writer asks of the node.
pub trait Owner: Send + Sync + 'static {
    /// All entries up to this number are in the file.
    fn persisted(&self, through: u64);
    /// The volume is full: entries up to `through` are in the file. Answers the number of the last entry handed over
    /// so far; all up to it are to be dropped.
    fn persist_failed(&self, through: u64) -> u64;
    /// The tables as readers see them.
    fn tables(&self) -> HashMap<TableName, Arc<Table>>;
    /// Returns once every state that is visible in the tables is in the queue.
    fn barrier(&self);
    /// Bytes that a file with nothing dead in it would have, roughly.
    fn live_bytes(&self) -> u64;
    /// A commit took this long.
    fn committed(&self, elapsed: Duration, entries: usize, size: StoredSize);
}

/// How large the frames are.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoredSize {
    /// Bytes of all frames.
    pub frame_bytes: u64,
    /// Size of the file when last asked.
    pub file: FileSize,
}

/// Entries on their way to the file.
#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<(u64, PersistItem)>,
    bytes: usize,
    meta: Option<Meta>,
    is_closed: bool,
    /// Number of the last entry for which somebody waits.
    awaited: u64,
    /// What the writer is told of.
    wanted: Wanted,
    /// What waited was given up, because the disk does not answer: the writer has to know.
    is_given_up: bool,
}

/// What the writer waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Wanted {
    /// Any entry.
    #[default]
    Any,
    /// So many of them.
    Entries(usize),
    /// One for which somebody waits; or none at all.
    Awaited,
}

impl Waiting {
    fn has(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Any => !self.items.is_empty(),
            Wanted::Entries(count) => self.items.len() >= count,
            Wanted::Awaited => self.items.front().is_none_or(|(number, _)| *number <= self.awaited),
        }
    }
}

/// The way to the writer; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    has_work: Notify,
    has_room: Notify,
}

impl Queue {
    /// Queues an entry under its number; `is_awaited` when somebody waits until it is in the file.
    pub fn push(&self, number: u64, item: PersistItem, is_awaited: bool) {
        let bytes = item_bytes(&item);
        let mut waiting = self.0.waiting.lock();
        waiting.bytes += bytes;
        waiting.items.push_back((number, item));
        if is_awaited {
            waiting.awaited = number;
        }
        let is_wanted = waiting.has(waiting.wanted);
        drop(waiting);
        if is_wanted {
            self.0.has_work.notify_one();
        }
    }

    /// Replaces what the file remembers besides states.
    pub fn put_meta(&self, meta: Meta) {
        self.0.waiting.lock().meta = Some(meta);
        self.0.has_work.notify_one();
    }

    /// Lets the writer finish what waits and close the file.
    pub fn close(&self) {
        self.0.waiting.lock().is_closed = true;
        self.0.has_work.notify_one();
    }

    /// Waits until the disk keeps up: whoever brings writes of peers waits here, and the peers with it.
    ///
    /// Cancel safety: safe.
    pub async fn room(&self) {
        loop {
            let notified = self.0.has_room.notified();
            if self.0.waiting.lock().bytes < QUEUE_BYTES_MAX {
                return;
            }
            notified.await;
        }
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.0.waiting.lock().bytes
    }

    /// Whether more waits than a disk that keeps up would let wait.
    pub fn is_overfull(&self) -> bool {
        self.bytes() >= QUEUE_BYTES_MAX
    }

    /// Gives up what waits, up to this number: the disk does not answer, and memory will bring the file up to date.
    pub fn give_up(&self, number: u64) {
        self.0.waiting.lock().is_given_up = true;
        self.drop_through(number);
    }

    /// Waits until what is wanted waits, until `deadline` at most.
    pub(super) async fn gathered(&self, wanted: Wanted, deadline: tokio::time::Instant) {
        let gathered = async {
            loop {
                {
                    let mut waiting = self.0.waiting.lock();
                    if waiting.has(wanted) || waiting.is_closed {
                        return;
                    }
                    waiting.wanted = wanted;
                }
                self.0.has_work.notified().await;
            }
        };
        let _ = tokio::time::timeout_at(deadline, gathered).await;
        let mut waiting = self.0.waiting.lock();
        waiting.wanted = Wanted::Any;
        // The word that something else is to be done may have been taken here.
        if waiting.is_closed || waiting.is_given_up || waiting.meta.is_some() {
            drop(waiting);
            self.0.has_work.notify_one();
        }
    }

    fn take(&self, bytes_max: usize) -> Vec<(u64, PersistItem)> {
        let mut waiting = self.0.waiting.lock();
        let (mut taken, mut taken_bytes) = (Vec::with_capacity(waiting.items.len()), 0);
        while taken_bytes < bytes_max
            && let Some((number, item)) = waiting.items.pop_front()
        {
            taken_bytes += item_bytes(&item);
            taken.push((number, item));
        }
        waiting.bytes -= taken_bytes;
        drop(waiting);
        if taken_bytes > 0 {
            self.0.has_room.notify_waiters();
        }
        taken
    }

    fn drop_through(&self, number: u64) {
        let mut waiting = self.0.waiting.lock();
        waiting.items.retain(|(waits, _)| *waits > number);
        waiting.bytes = waiting.items.iter().map(|(_, item)| item_bytes(item)).sum();
        drop(waiting);
        self.0.has_room.notify_waiters();
    }
}

fn item_bytes(item: &PersistItem) -> usize {
    match item {
        PersistItem::Write(write) => write.bytes(),
        PersistItem::Rows(rows) => rows.iter().map(row_bytes).sum(),
        PersistItem::Vector(vector) => 32 * vector.len(),
    }
}

/// The task that owns the file.
pub struct Writer<S> {
    storage: S,
    stored: Stored,
    queue: Queue,
    owner: Arc<dyn Owner>,
    /// Number of the last entry in the file.
    through: u64,
    /// Entries were dropped: memory holds what neither the file nor the queue does, so nothing may be judged by it.
    is_behind: bool,
    compaction: Compaction,
    /// A compaction freed bytes that the volume may want back.
    is_shrinking: bool,
    file: FileSize,
    /// Entries of the last commit and those that waited when it ended: as many writes are under way.
    under_way: usize,
    /// When the last commit ended.
    committed: tokio::time::Instant,
}

impl<S: Storage> Writer<S> {
    /// A writer that goes on where the file stands.
    pub fn new(storage: S, stored: Stored, queue: Queue, owner: Arc<dyn Owner>) -> Self {
        let compaction = Compaction::default();
        let file = FileSize::default();
        let (through, under_way, is_behind, is_shrinking) = (0, 0, false, false);
        let committed = tokio::time::Instant::now();
        Self {
            storage,
            stored,
            queue,
            owner,
            through,
            is_behind,
            compaction,
            is_shrinking,
            file,
            under_way,
            committed,
        }
    }

    /// Writes until the queue is closed and empty, then closes the file. Not cancel-safe.
    ///
    /// # Errors
    ///
    /// Any [`StorageError`] but a full volume: what the file holds is then unknown, and the process has to end.
    pub async fn run(mut self) -> Result<(), StorageError> {
        self.file = self.storage.size().await?;
        loop {
            let (meta, is_closed) = {
                let mut waiting = self.queue.0.waiting.lock();
                (waiting.meta.take(), waiting.is_closed && waiting.items.is_empty())
            };
            self.notice_given_up();
            if let Some(meta) = meta {
                self.put_meta(meta).await?;
            }
            if is_closed {
                return self.storage.close().await;
            }
            self.gather().await;
            let (items, share) = self.next_commit().await?;
            let is_idle = items.is_empty() && share.is_none();
            self.commit(items, share).await?;
            if is_idle && !self.shrink().await? {
                self.queue.0.has_work.notified().await;
            }
        }
    }

    /// Lets those who are about to write do so: their writes go along.
    ///
    /// Whoever waited for the last commit writes again once it is answered, so five eighths of the writes that were
    /// under way are waited for: fewer and larger commits, on all nodes at about the same time. Of 32 clients on three
    /// nodes (means of three turns) three quarters take 9 % fewer writes a second for the same processor time each, half of
    /// them 3 % more for 2 % more of it. One client, or two, wait for nobody.
    async fn gather(&mut self) {
        // Whoever is ready to run gets its turn in any case.
        tokio::task::yield_now().await;
        // What nobody waits for waits for what somebody waits for.
        self.queue.gathered(Wanted::Awaited, tokio::time::Instant::now() + UNAWAITED_MAX).await;
        let (wanted, deadline) = (self.under_way * 5 / 8, self.committed + GATHER_MAX);
        if wanted > 1 && tokio::time::Instant::now() < deadline {
            self.queue.gathered(Wanted::Entries(wanted), deadline).await;
        }
    }

    async fn put_meta(&mut self, meta: Meta) -> Result<(), StorageError> {
        match self.storage.put_meta(&meta).await {
            Err(StorageError::Full) => {
                // With the next entries, unless newer ones come first.
                self.queue.0.waiting.lock().meta.get_or_insert(meta);
                Ok(())
            }
            done => done,
        }
    }

    /// What the next commit holds.
    async fn next_commit(&mut self) -> Result<(Vec<(u64, PersistItem)>, Option<Share>), StorageError> {
        if self.is_behind || !self.compaction.is_due(&self.stored, &*self.owner) {
            return Ok((self.queue.take(COMMIT_BYTES_MAX), None));
        }
        let share = self.compaction.share(&mut self.storage, &self.stored, &*self.owner).await?;
        self.owner.barrier();
        let items = self.queue.take(usize::MAX);
        // When entries were given up, what was judged by memory is neither in the file nor among these.
        let share = (!self.notice_given_up()).then_some(share);
        Ok((items, share))
    }

    /// Appends entries, and what a compaction adds, in one transaction.
    async fn commit(
        &mut self,
        items: Vec<(u64, PersistItem)>,
        share: Option<Share>,
    ) -> Result<(), StorageError> {
        let cut = share.as_ref().and_then(|share| share.cut);
        let rows = share.as_ref().map_or(&[][..], |share| &share.rows);
        if items.is_empty() && rows.is_empty() && cut.is_none() {
            return Ok(());
        }
        let started = Instant::now();
        let mut vector = self.stored.vector.clone();
        for (_, item) in &items {
            item.claim(&mut vector, 0);
        }
        let mut frames = Frames::new(items.iter().map(|(_, item)| item), self.stored.next);
        frames.push_rows(rows);
        if let Some(cut) = cut {
            frames.push_cut(&vector, cut.first);
        }
        let appended = self.storage.append(&mut frames, cut.map(|cut| cut.first)).await;
        let (next, added_bytes) = (frames.next_number(), frames.bytes());
        match appended {
            Ok(()) => {}
            Err(StorageError::Full) if share.is_some() => {
                // No room to make room: not before the file has grown again. What waits may still fit.
                self.compaction.give_up(self.stored.bytes + Compaction::RETRY_BYTES);
                return Box::pin(self.commit(items, None)).await;
            }
            Err(StorageError::Full) => {
                self.fail();
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.compaction.wrote(items.iter().map(|(_, item)| item));
        self.stored.vector = vector;
        self.stored.next = next;
        self.stored.bytes += added_bytes as u64;
        if share.is_some() {
            self.compaction.went_along(items.iter().map(|(_, item)| item_bytes(item)).sum());
        }
        if let Some(cut) = cut {
            self.stored.first = cut.first;
            self.stored.bytes = self.stored.bytes.saturating_sub(cut.freed_bytes as u64);
        }
        if items.iter().any(|(_, item)| matches!(item, PersistItem::Vector(_))) {
            // The first vector after a failure ends what was caught up from memory.
            self.is_behind = false;
        }
        let size = StoredSize { frame_bytes: self.stored.bytes, file: self.file };
        self.owner.committed(started.elapsed(), items.len(), size);
        if let Some((number, _)) = items.last() {
            self.through = *number;
            self.under_way = items.len() + self.queue.0.waiting.lock().items.len();
            self.committed = tokio::time::Instant::now();
            self.owner.persisted(self.through);
        }
        self.storage.checkpoint().await?;
        if cut.is_some_and(|cut| self.compaction.cut_off(cut)) {
            self.is_shrinking = true;
            self.file = self.storage.size().await?;
        }
        Ok(())
    }

    /// Learns that entries were given up; says whether they were.
    fn notice_given_up(&mut self) -> bool {
        let is_given_up = std::mem::take(&mut self.queue.0.waiting.lock().is_given_up);
        if is_given_up {
            self.fall_behind();
        }
        is_given_up
    }

    fn fail(&mut self) {
        self.fall_behind();
        let dropped = self.owner.persist_failed(self.through);
        self.queue.drop_through(dropped);
    }

    fn fall_behind(&mut self) {
        self.is_behind = true;
        self.compaction.give_up(0);
    }

    /// Gives freed bytes back to the volume, a slice at a time; says whether there may be more.
    async fn shrink(&mut self) -> Result<bool, StorageError> {
        if self.is_shrinking {
            self.is_shrinking = self.storage.shrink().await?;
            self.file = self.storage.size().await?;
        }
        Ok(self.is_shrinking)
    }
}
