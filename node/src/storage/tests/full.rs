//! Both storages on a volume that fills and is given room again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mneme_replica::status::NodeState;

use super::*;

/// Room that a first record has, and a large one has not.
const SMALL_BYTES: usize = 150_000;
/// Room for everything.
pub(super) const ROOMY_BYTES: usize = 100 << 20;
const LARGE_BYTES: usize = 200_000;
/// The disk answers nothing.
const HUNG: usize = 0;

/// A storage whose room can be changed.
pub(super) trait Resize: Storage {
    fn resize(&mut self, bytes: usize) -> impl Future<Output = ()> + Send;
}

impl Resize for MemoryStorage {
    async fn resize(&mut self, bytes: usize) {
        self.capacity_bytes = Some(bytes);
    }
}

impl Resize for SqliteStorage {
    async fn resize(&mut self, bytes: usize) {
        self.set_pages_max(bytes / 4_096).await.expect("a statement");
    }
}

/// A storage on a volume whose room a test changes while the writer owns it, that knows its largest transactions, and that
/// is left when it is closed.
pub(super) struct OnVolume<S> {
    storage: S,
    bytes: Arc<AtomicUsize>,
    largest: Arc<Mutex<Largest>>,
    all_bytes: Arc<AtomicUsize>,
    left: Arc<Mutex<Option<S>>>,
    has_checkpoints: bool,
}

/// The most that transactions did; sizes are those of [`Storage::size`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Largest {
    pub(super) appended_bytes: usize,
    pub(super) cut_bytes: usize,
    pub(super) cuts: usize,
}

impl<S> OnVolume<S> {
    pub(super) fn new(storage: S, bytes: usize) -> Self {
        let bytes = Arc::new(AtomicUsize::new(bytes));
        let (largest, all_bytes, left) = Default::default();
        Self { storage, bytes, largest, all_bytes, left, has_checkpoints: true }
    }

    /// The same, where no checkpoint ever ends.
    pub(super) fn without_checkpoints(self) -> Self {
        Self { has_checkpoints: false, ..self }
    }

    pub(super) fn largest(&self) -> Arc<Mutex<Largest>> {
        self.largest.clone()
    }

    /// Bytes of all frames that were ever appended.
    pub(super) fn all_bytes(&self) -> Arc<AtomicUsize> {
        self.all_bytes.clone()
    }

    /// What is left once it is closed.
    pub(super) fn left(&self) -> Arc<Mutex<Option<S>>> {
        self.left.clone()
    }
}

impl<S: Resize> Storage for OnVolume<S> {
    async fn identity(&mut self) -> Result<Identity, StorageError> {
        self.storage.identity().await
    }

    async fn put_node(&mut self, node: NodeId) -> Result<(), StorageError> {
        self.storage.put_node(node).await
    }

    async fn put_meta(&mut self, meta: &Meta) -> Result<(), StorageError> {
        self.storage.put_meta(meta).await
    }

    async fn frames(&mut self, after: u64, bytes: usize) -> Result<Vec<StoredFrame>, StorageError> {
        self.storage.frames(after, bytes).await
    }

    async fn frame_sizes(&mut self, after: u64, bytes: usize) -> Result<Vec<(u64, usize)>, StorageError> {
        self.storage.frame_sizes(after, bytes).await
    }

    async fn append(
        &mut self,
        frames: impl IntoIterator<Item = StoredFrame, IntoIter: Send> + Send,
        first: Option<u64>,
    ) -> Result<(), StorageError> {
        while self.bytes.load(Ordering::Relaxed) == HUNG {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.storage.resize(self.bytes.load(Ordering::Relaxed)).await;
        let frames: Vec<StoredFrame> = frames.into_iter().collect();
        let appended_bytes: usize = frames.iter().map(|frame| frame.body.len()).sum();
        let before = self.storage.size().await?.file_bytes;
        self.storage.append(frames, first).await?;
        let kept = self.storage.size().await?.file_bytes.saturating_sub(appended_bytes as u64);
        let cut_bytes = usize::try_from(before.saturating_sub(kept)).expect("little");
        self.all_bytes.fetch_add(appended_bytes, Ordering::Relaxed);
        let mut largest = self.largest.lock();
        largest.appended_bytes = largest.appended_bytes.max(appended_bytes);
        largest.cut_bytes = largest.cut_bytes.max(cut_bytes);
        largest.cuts += usize::from(first.is_some());
        Ok(())
    }

    async fn size(&mut self) -> Result<FileSize, StorageError> {
        self.storage.size().await
    }

    async fn shrink(&mut self) -> Result<bool, StorageError> {
        self.storage.shrink().await
    }

    async fn checkpoint(&mut self) -> Result<(), StorageError> {
        if !self.has_checkpoints {
            std::future::pending().await
        }
        self.storage.checkpoint().await
    }

    async fn close(self) -> Result<(), StorageError> {
        *self.left.lock() = Some(self.storage);
        Ok(())
    }
}

/// Ticks until `condition` holds.
async fn tick_until(bench: &Bench, what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            bench.step(Event::Tick);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect(what);
}

/// Fills the volume, gives it room, and answers the replica and what it left.
async fn check_full_volume<S: Resize>(storage: S) -> (Arc<Bench>, S) {
    let loaded = recovery::load(storage, wall_clock::sample(), settings, rand::random::<u64>).await;
    let loaded = loaded.expect("a new storage");
    let bench = Bench::new(loaded.replica, u64::MAX / 4);
    let storage = OnVolume::new(loaded.storage, SMALL_BYTES);
    let (bytes, left) = (storage.bytes.clone(), storage.left.clone());
    let writer = Writer::new(storage, loaded.stored, bench.queue.clone(), bench.clone());
    let is_written = || *bench.through.lock() == bench.replica.lock().persist_number();
    let state = || bench.replica.lock().status().state;
    let using = async {
        bench.put("sessions", "early", b"v");
        tick_until(&bench, "the first is written", is_written).await;
        for number in 0..3 {
            bench.put("sessions", &format!("large/{number}"), &[number; LARGE_BYTES]);
        }
        // The second failure is of what memory has and the file lacks.
        tick_until(&bench, "the volume is full", || *bench.failures.lock() >= 2).await;
        assert_eq!(state(), NodeState::ReadOnly);
        // Nothing is taken while the file is behind.
        bench.apply("sessions", "early", Action::Delete);
        assert!(matches!(read(&bench.replica.lock(), "sessions", "early"), Lookup::Found(_)));

        bytes.store(ROOMY_BYTES, Ordering::Relaxed);
        tick_until(&bench, "the volume has room", || state() == NodeState::Ready).await;
        bench.put("sessions", "late", b"v");
        bench.apply("sessions", "early", Action::Delete);
        tick_until(&bench, "the last is written", is_written).await;
        bench.queue.close();
    };
    let (written, ()) = tokio::join!(writer.run(), using);
    written.expect("a full volume is no error");
    let left = left.lock().take().expect("it was closed");
    (bench, left)
}

#[track_caller]
fn assert_whole<S>(again: &Recovered<S>, bench: &Bench) {
    for number in 0..3 {
        assert_value(&again.replica, "sessions", &format!("large/{number}"), &[number; LARGE_BYTES]);
    }
    assert_value(&again.replica, "sessions", "late", b"v");
    assert!(matches!(read(&again.replica, "sessions", "early"), Lookup::Gone { .. }));
    assert!(again.stored.vector.agrees_with(&bench.replica.lock().vector()), "{:?}", again.stored.vector);
    assert!(
        again.stored.vector.iter().all(|(_, entry)| entry.last_write_ms > 0),
        "an origin would be forgotten"
    );
}

#[tokio::test]
async fn in_memory_a_full_volume_that_gets_room_is_caught_up() {
    let (bench, storage) = check_full_volume(MemoryStorage::default()).await;
    let again = recovery::load(storage, wall_clock::sample(), settings, rand::random::<u64>).await;
    assert_whole(&again.expect("a good storage"), &bench);
}

#[tokio::test]
async fn in_sqlite_a_full_volume_that_gets_room_is_caught_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let (bench, storage) = check_full_volume(open(directory.path()).await).await;
    storage.close().await.expect("closable");
    assert_whole(&recover(directory.path()).await.expect("a good file"), &bench);
}

#[tokio::test]
async fn a_disk_that_hangs_is_caught_up_when_it_answers_again() {
    let loaded =
        recovery::load(MemoryStorage::default(), wall_clock::sample(), settings, rand::random::<u64>).await;
    let loaded = loaded.expect("a new storage");
    let bench = Bench::new(loaded.replica, u64::MAX / 4);
    let storage = OnVolume::new(loaded.storage, HUNG);
    let (bytes, left) = (storage.bytes.clone(), storage.left.clone());
    let writer = Writer::new(storage, loaded.stored, bench.queue.clone(), bench.clone());
    let state = || bench.replica.lock().status().state;
    let using = async {
        let mut number = 0u16;
        while !bench.queue.is_overfull() {
            bench.put("sessions", &format!("large/{number}"), &[7; LARGE_BYTES]);
            number += 1;
        }
        tick_until(&bench, "nothing is answered", || bench.replica.lock().is_commit_stalled()).await;
        // As the driver does.
        bench.step(Event::PersistFailed { through: 0 });
        bench.queue.give_up(bench.replica.lock().persist_number());
        assert_eq!((bench.queue.bytes(), state()), (0, NodeState::ReadOnly));
        bytes.store(ROOMY_BYTES, Ordering::Relaxed);
        tick_until(&bench, "the file is caught up", || state() == NodeState::Ready).await;
        bench.queue.close();
        number
    };
    let (written, number) = tokio::join!(writer.run(), using);
    written.expect("a slow disk is no error");
    let left = left.lock().take().expect("it was closed");
    let again = recovery::load(left, wall_clock::sample(), settings, rand::random::<u64>).await;
    let again = again.expect("a good storage");
    assert!(number > 100);
    for number in 0..number {
        assert_value(&again.replica, "sessions", &format!("large/{number}"), &[7; LARGE_BYTES]);
    }
    assert!(again.stored.vector.agrees_with(&bench.replica.lock().vector()), "{:?}", again.stored.vector);
}
