//! The writer: the one task that owns the file. Group commit, then compaction in slices.
//!
//! What waits goes together: while one commit is under way the next gathers. An entry is never split between
//! transactions, however many frames it needs; a write is not even split between frames.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mneme_api::TableName;
use mneme_replica::effect::{Meta, PersistItem};
use mneme_replica::record::{Row, row_bytes};
use mneme_replica::table::Table;
use mneme_replica::version_vector::VersionVector;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::frame::{self, Entry, FrameBuilder, Frames};
use super::recovery::Stored;
use super::{FileSize, Storage, StorageError, StoredFrame};

/// Bytes of one group commit, roughly: enough to pay for the fsync, little enough that the next does not wait long.
const COMMIT_BYTES_MAX: usize = 4 << 20;
/// Bytes that may wait for the disk before peers are read no further.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Bytes of old frames rewritten in one slice: a few milliseconds.
const COMPACTION_SLICE_BYTES: usize = 512 << 10;
/// The same while much is written.
const COMPACTION_SLICE_BYTES_MAX: usize = 16 << 20;
/// Dead bytes that are never worth a compaction.
const DEAD_BYTES_MIN: u64 = 16 << 20;

/// Time from the end of one commit for which the next waits for those who are about to write again, at most.
const GATHER_MAX: Duration = Duration::from_millis(1);

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
    /// The writer is told once so many entries wait; 0: of each.
    wanted: usize,
    /// What waited was given up, because the disk does not answer: the writer has to know.
    is_given_up: bool,
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
    /// Queues an entry under its number.
    pub fn push(&self, number: u64, item: PersistItem) {
        let bytes = item_bytes(&item);
        let mut waiting = self.0.waiting.lock();
        waiting.bytes += bytes;
        waiting.items.push_back((number, item));
        let is_wanted = waiting.items.len() >= waiting.wanted;
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

    /// Waits until so many entries wait, until `deadline` at most.
    pub(super) async fn gathered(&self, wanted: usize, deadline: tokio::time::Instant) {
        let gathered = async {
            loop {
                {
                    let mut waiting = self.0.waiting.lock();
                    if waiting.items.len() >= wanted || waiting.is_closed {
                        return;
                    }
                    waiting.wanted = wanted;
                }
                self.0.has_work.notified().await;
            }
        };
        let _ = tokio::time::timeout_at(deadline, gathered).await;
        let mut waiting = self.0.waiting.lock();
        waiting.wanted = 0;
        // The word that something else is to be done may have been taken here.
        if waiting.is_closed || waiting.is_given_up || waiting.meta.is_some() {
            drop(waiting);
            self.0.has_work.notify_one();
        }
    }

    fn take(&self, bytes_max: usize) -> Vec<(u64, PersistItem)> {
        let mut waiting = self.0.waiting.lock();
        let (mut taken, mut taken_bytes) = (Vec::new(), 0);
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
    file: FileSize,
    /// Entries of the last commit and those that waited when it ended: as many writes are under way.
    under_way: usize,
    /// When the last commit ended.
    committed: tokio::time::Instant,
}

/// How far compaction is.
#[derive(Debug, Default)]
struct Compaction {
    /// Frames before this one are still to be rewritten; 0 when none is under way.
    until: u64,
    /// Bytes of the states that were still current when the last one looked.
    found_alive_bytes: u64,
    /// The same of the one under way.
    rewritten_bytes: u64,
    /// Bytes of all frames when it was last asked whether one is due.
    bytes_asked: u64,
    /// Bytes appended since the last slice.
    bytes_appended: usize,
    is_shrinking: bool,
}

impl<S: Storage> Writer<S> {
    /// A writer that goes on where the file stands.
    pub fn new(storage: S, stored: Stored, queue: Queue, owner: Arc<dyn Owner>) -> Self {
        let compaction = Compaction::default();
        let file = FileSize::default();
        let (through, under_way, is_behind) = (0, 0, false);
        let committed = tokio::time::Instant::now();
        Self { storage, stored, queue, owner, through, is_behind, compaction, file, under_way, committed }
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
            let is_idle = if self.is_compaction_due() {
                self.compact().await?;
                false
            } else {
                self.gather().await;
                let items = self.queue.take(COMMIT_BYTES_MAX);
                let is_idle = items.is_empty();
                self.commit(items, None).await?;
                is_idle
            };
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
        let (wanted, deadline) = (self.under_way * 5 / 8, self.committed + GATHER_MAX);
        if wanted > 1 && tokio::time::Instant::now() < deadline {
            self.queue.gathered(wanted, deadline).await;
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

    /// Appends entries, and what a compaction adds, in one transaction.
    async fn commit(
        &mut self,
        items: Vec<(u64, PersistItem)>,
        compacted: Option<Compacted>,
    ) -> Result<(), StorageError> {
        if items.is_empty() && compacted.is_none() {
            return Ok(());
        }
        let started = Instant::now();
        let mut vector = self.stored.vector.clone();
        for (_, item) in &items {
            item.claim(&mut vector, 0);
        }
        let first = compacted.as_ref().map(|compacted| compacted.first);
        let freed_bytes = compacted.as_ref().map_or(0, |compacted| compacted.freed_bytes);
        let compacted = compacted.map_or_else(Vec::new, |compacted| compacted.finish(&vector));
        let mut frames = Frames::new(items.iter().map(|(_, item)| item), compacted, self.stored.next);
        let appended = self.storage.append(&mut frames, first).await;
        let (next, added_bytes) = (frames.next_number(), frames.bytes());
        match appended {
            Ok(()) => {}
            Err(StorageError::Full) if first.is_some() => {
                // No room to make room: not before the file has grown again. What waits may still fit.
                self.compaction =
                    Compaction { bytes_asked: self.stored.bytes + DEAD_BYTES_MIN, ..Compaction::default() };
                return Box::pin(self.commit(items, None)).await;
            }
            Err(StorageError::Full) => {
                self.fail();
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.compaction.bytes_appended += added_bytes;
        self.stored.vector = vector;
        self.stored.next = next;
        self.stored.first = first.unwrap_or(self.stored.first);
        self.stored.bytes = (self.stored.bytes + added_bytes as u64).saturating_sub(freed_bytes);
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
        Ok(())
    }

    /// Learns that entries were given up; says whether they were.
    fn notice_given_up(&mut self) -> bool {
        let is_given_up = std::mem::take(&mut self.queue.0.waiting.lock().is_given_up);
        if is_given_up {
            self.is_behind = true;
            self.compaction.until = 0;
        }
        is_given_up
    }

    fn fail(&mut self) {
        self.is_behind = true;
        self.compaction.until = 0;
        let dropped = self.owner.persist_failed(self.through);
        self.queue.drop_through(dropped);
    }

    fn is_compaction_due(&mut self) -> bool {
        if self.is_behind {
            return false;
        }
        if self.compaction.until > self.stored.first {
            return true;
        }
        let bytes = self.stored.bytes;
        if bytes < self.compaction.bytes_asked + (DEAD_BYTES_MIN / 16) {
            return false;
        }
        self.compaction.bytes_asked = bytes;
        let estimate = self.owner.live_bytes();
        // Where the estimate is too low, what the last compaction found alive counts: it must not begin again at once.
        let live_bytes = estimate.max(self.compaction.found_alive_bytes.min(estimate * 2));
        let is_due = bytes > live_bytes * 2 + DEAD_BYTES_MIN;
        if is_due {
            self.compaction.until = self.stored.next;
        }
        is_due
    }

    /// Rewrites the oldest frames without what is superseded.
    ///
    /// Currency is judged first, by memory, which is ahead of the file; then everything that made it so is taken into
    /// the same transaction. So a state is dropped only when what supersedes it is in the file.
    async fn compact(&mut self) -> Result<(), StorageError> {
        // Twice what was appended meanwhile: it has to be faster than the writes that go on.
        let appended = std::mem::take(&mut self.compaction.bytes_appended);
        let slice_bytes = (appended * 2).clamp(COMPACTION_SLICE_BYTES, COMPACTION_SLICE_BYTES_MAX);
        let frames = self.storage.frames(self.stored.first - 1, slice_bytes).await?;
        let frames: Vec<StoredFrame> =
            frames.into_iter().filter(|frame| frame.id < self.compaction.until).collect();
        let Some(last) = frames.last().map(|frame| frame.id) else {
            self.compaction.until = 0;
            return Ok(());
        };
        let tables = self.owner.tables();
        let (mut current, mut freed_bytes) = (Vec::new(), 0);
        for frame in &frames {
            freed_bytes += frame.body.len() as u64;
            let still =
                |row: &Row| tables.get(&row.table).map_or(Some(row.clone()), |table| table.current(row));
            for entry in frame::decode(frame.id, &frame.body)? {
                match entry {
                    Entry::Write(write) => current.extend(write.rows.iter().filter_map(still)),
                    Entry::Rows(stored) => current.extend(stored.iter().filter_map(still)),
                    // In the vector that the new frame ends with.
                    Entry::Vector(_) | Entry::First(_) => {}
                }
            }
        }
        let rows = FrameBuilder::of_rows(&current);
        self.compaction.rewritten_bytes += rows.iter().map(|rows| rows.bytes() as u64).sum::<u64>();
        self.owner.barrier();
        let items = self.queue.take(usize::MAX);
        if self.notice_given_up() {
            // What was judged by memory is neither in the file nor among these.
            return self.commit(items, None).await;
        }
        self.commit(items, Some(Compacted { rows, first: last + 1, freed_bytes })).await?;
        if self.compaction.until <= self.stored.first && self.compaction.until > 0 {
            self.compaction = Compaction {
                found_alive_bytes: self.compaction.rewritten_bytes,
                is_shrinking: true,
                ..Compaction::default()
            };
            self.file = self.storage.size().await?;
        }
        Ok(())
    }

    /// Gives freed bytes back to the volume, a slice at a time; says whether there may be more.
    async fn shrink(&mut self) -> Result<bool, StorageError> {
        if self.compaction.is_shrinking {
            self.compaction.is_shrinking = self.storage.shrink().await?;
            self.file = self.storage.size().await?;
        }
        Ok(self.compaction.is_shrinking)
    }
}

/// What a slice of compaction adds to a transaction.
struct Compacted {
    rows: Vec<FrameBuilder>,
    /// The oldest frame that stays.
    first: u64,
    freed_bytes: u64,
}

impl Compacted {
    /// The last of its frames says what all that came before amounts to.
    fn finish(mut self, vector: &VersionVector) -> Vec<FrameBuilder> {
        if let Some(last) = self.rows.last_mut() {
            last.push_vector(vector);
            last.push_first(self.first);
        }
        self.rows
    }
}
