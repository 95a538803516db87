//! Both storages under one suite; then what only a file can suffer; then the writer.

mod checkpoint;
mod compaction;
mod full;
mod gathering;
mod large;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mneme_api::{Key, TableConfig, TableKind, TableName};
use mneme_replica::Replica;
use mneme_replica::effect::{Effect, Meta, PersistItem};
use mneme_replica::event::{AckMode, Action, Command, Condition, Event, Operation, RequestId};
use mneme_replica::id::{NodeId, Origin};
use mneme_replica::message::MemberInfo;
use mneme_replica::record::Value;
use mneme_replica::status::Settings;
use mneme_replica::table::{Lookup, SHARDS, Table};
use parking_lot::Mutex;

use super::frame::FrameBuilder;
use super::memory::MemoryStorage;
use super::recovery::{self, RecoverError, Recovered, Stored};
use super::sqlite::{self, Options, SqliteStorage};
use super::writer::{Owner, Queue, StoredSize, Writer};
use super::*;
use crate::wall_clock;

fn frame(id: u64, bytes: usize) -> StoredFrame {
    StoredFrame { id, body: vec![7; bytes] }
}

async fn ids<S: Storage>(storage: &mut S, after: u64, bytes: usize) -> Vec<u64> {
    storage.frames(after, bytes).await.expect("readable").into_iter().map(|frame| frame.id).collect()
}

/// What every storage does.
async fn check_storage<S: Storage>(mut storage: S) -> S {
    assert_eq!(storage.identity().await.expect("readable"), Identity::default());
    storage.put_node(NodeId::new(7)).await.expect("writable");
    let member = MemberInfo {
        node: NodeId::new(8),
        epoch: 1,
        name: "eight".to_owned(),
        address: "eight:7071".to_owned(),
        is_live: false,
    };
    let meta = Meta {
        members: vec![member],
        last_live: vec![NodeId::new(8)],
        tables: Vec::new(),
        has_met_anyone: true,
    };
    storage.put_meta(&Meta::default()).await.expect("writable");
    storage.put_meta(&meta).await.expect("writable");
    let identity = Identity { node: Some(NodeId::new(7)), meta };
    assert_eq!(storage.identity().await.expect("readable"), identity);

    for id in 1..=4 {
        storage.append(vec![frame(id, 1_000)], None).await.expect("writable");
    }
    assert_eq!(ids(&mut storage, 0, usize::MAX).await, [1, 2, 3, 4]);
    assert_eq!(ids(&mut storage, 1, 1_500).await, [2, 3]);
    assert_eq!(storage.frame_sizes(1, 1_500).await.expect("readable"), [(2, 1_000), (3, 1_000)]);
    assert!(storage.frame_sizes(4, usize::MAX).await.expect("readable").is_empty());
    assert!(ids(&mut storage, 4, usize::MAX).await.is_empty());
    storage.append(vec![frame(5, 10), frame(6, 20)], Some(4)).await.expect("writable");
    assert_eq!(ids(&mut storage, 0, usize::MAX).await, [4, 5, 6]);
    assert_eq!(storage.frames(5, 1).await.expect("readable"), [frame(6, 20)]);
    assert!(storage.size().await.expect("readable").file_bytes > 1_000);
    storage
}

async fn open(directory: &Path) -> SqliteStorage {
    SqliteStorage::open(directory, &Options::default()).await.expect("a good file")
}

#[tokio::test]
async fn the_twin_in_memory_does_what_a_storage_does() {
    check_storage(MemoryStorage::default()).await;
}

#[tokio::test]
async fn sqlite_does_what_a_storage_does_and_remembers_it() {
    let directory = tempfile::tempdir().expect("a directory");
    check_storage(open(directory.path()).await).await.close().await.expect("closable");
    let mut storage = open(directory.path()).await;
    assert_eq!(ids(&mut storage, 0, usize::MAX).await, [4, 5, 6]);
    assert_eq!(storage.identity().await.expect("readable").node, Some(NodeId::new(7)));
}

#[tokio::test]
async fn the_library_has_no_known_corruption_bug() {
    let version = sqlite::library_version().await.expect("a library");
    assert!(sqlite::check_library(&version).is_ok(), "{version}");
    for old in ["3.40.1", "3.51.2", "2.9.9"] {
        assert!(matches!(sqlite::check_library(old), Err(StorageError::OldSqlite { .. })), "{old}");
    }
}

async fn execute(directory: &Path, statement: &'static str) {
    use sqlx::{ConnectOptions, Connection};
    let options = sqlx::sqlite::SqliteConnectOptions::new();
    let options = options.filename(sqlite::file_in(directory)).create_if_missing(true);
    let mut connection = options.connect().await.expect("a file");
    sqlx::query(statement).execute(&mut connection).await.expect("a statement");
    connection.close().await.expect("closable");
}

/// Every file in a directory, byte for byte.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    entries.map(|entry| (entry.path(), std::fs::read(entry.path()).expect("a file"))).collect()
}

async fn assert_newer_is_left_untouched(directory: &Path) {
    let before = snapshot(directory);
    let error = SqliteStorage::open(directory, &Options::default()).await.expect_err("newer");
    assert!(matches!(error, StorageError::Newer { found: 2, .. }), "{error}");
    assert!(error.to_string().contains("mneme.db"), "{error}");
    let after = snapshot(directory);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    assert!(before == after, "a byte was changed");
}

#[tokio::test]
async fn a_newer_file_is_refused_by_name_and_left_untouched() {
    let directory = tempfile::tempdir().expect("a directory");
    open(directory.path()).await.close().await.expect("closable");
    execute(directory.path(), "PRAGMA user_version = 2").await;
    assert_newer_is_left_untouched(directory.path()).await;
}

#[tokio::test]
async fn a_newer_file_of_a_killed_process_is_left_untouched_with_its_log() {
    use sqlx::{ConnectOptions, Connection};
    let directory = tempfile::tempdir().expect("a directory");
    open(directory.path()).await.close().await.expect("closable");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(sqlite::file_in(directory.path()));
    let mut connection = options.connect().await.expect("a file");
    // In the log alone: it goes into the file when the connection is closed.
    sqlx::query("PRAGMA user_version = 2").execute(&mut connection).await.expect("a statement");
    let killed = tempfile::tempdir().expect("a directory");
    for suffix in ["", "-wal"] {
        let name = format!("{}{suffix}", sqlite::FILE_NAME);
        std::fs::copy(directory.path().join(&name), killed.path().join(&name)).expect("a file");
    }
    connection.close().await.expect("closable");
    assert!(std::fs::metadata(killed.path().join("mneme.db-wal")).expect("a log").len() > 0);
    assert_newer_is_left_untouched(killed.path()).await;
}

#[tokio::test]
async fn a_first_start_that_was_cut_short_is_begun_again() {
    use sqlx::{ConnectOptions, Connection};
    let directory = tempfile::tempdir().expect("a directory");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(sqlite::file_in(directory.path()));
    let mut connection = options.create_if_missing(true).connect().await.expect("a file");
    // Enough that some of it is in the file before the transaction ends.
    for statement in [
        "PRAGMA cache_size = 2",
        "BEGIN",
        "CREATE TABLE half (x)",
        "INSERT INTO half SELECT randomblob(3000) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT i FROM n)",
    ] {
        sqlx::query(statement).execute(&mut connection).await.expect("a statement");
    }
    let killed = tempfile::tempdir().expect("a directory");
    for suffix in ["", "-journal"] {
        let name = format!("{}{suffix}", sqlite::FILE_NAME);
        std::fs::copy(directory.path().join(&name), killed.path().join(&name)).expect("a file");
    }
    connection.close().await.expect("closable");
    assert!(std::fs::metadata(sqlite::file_in(killed.path())).expect("a file").len() > 0);
    let mut storage = open(killed.path()).await;
    assert!(ids(&mut storage, 0, usize::MAX).await.is_empty());
}

#[tokio::test]
async fn a_file_of_somebody_else_is_no_file_of_ours() {
    let directory = tempfile::tempdir().expect("a directory");
    execute(directory.path(), "CREATE TABLE theirs (x)").await;
    let opened = SqliteStorage::open(directory.path(), &Options::default()).await;
    assert!(matches!(opened, Err(StorageError::Corrupt { .. })));
    std::fs::write(
        sqlite::file_in(directory.path()),
        "no database at all, but long enough to be read as one",
    )
    .expect("writable");
    let opened = SqliteStorage::open(directory.path(), &Options::default()).await;
    assert!(matches!(opened, Err(StorageError::Corrupt { .. })));
}

#[tokio::test]
async fn a_full_volume_leaves_the_file_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options { pages_max: Some(20), ..Options::default() };
    let mut storage = SqliteStorage::open(directory.path(), &options).await.expect("a new file");
    storage.append(vec![frame(1, 1_000)], None).await.expect("it fits");
    let full = storage.append(vec![frame(2, 200_000)], None).await;
    assert!(matches!(full, Err(StorageError::Full)), "{full:?}");
    let full = storage.append(vec![frame(2, 1_000), frame(3, 200_000)], Some(2)).await;
    assert!(matches!(full, Err(StorageError::Full)), "{full:?}");
    assert_eq!(ids(&mut storage, 0, usize::MAX).await, [1]);
    storage.append(vec![frame(2, 1_000)], None).await.expect("a smaller one fits");
}

#[test]
fn a_second_lock_on_a_directory_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let held = lock::lock(directory.path()).expect("free");
    let error = lock::lock(directory.path()).expect_err("held");
    assert!(error.to_string().contains(&directory.path().display().to_string()), "{error}");
    drop(held);
    lock::lock(directory.path()).expect("free again");
}

const CACHE: &str = "carts";

fn settings(origin: Origin) -> Settings {
    let table = |name: &str, kind| TableConfig {
        kind,
        ..TableConfig::new(name.parse::<TableName>().expect("a name"))
    };
    Settings {
        origin,
        cluster: "test".to_owned(),
        name: String::new(),
        address: "here:1".to_owned(),
        version: String::new(),
        tables: vec![table("sessions", TableKind::Session), table(CACHE, TableKind::Cache)],
        join_timeout_ms: 1_000,
        features: Vec::new(),
    }
}

/// A replica that stands alone, with its effects under way to a writer.
struct Bench {
    replica: Mutex<Replica>,
    queue: Queue,
    through: Mutex<u64>,
    failures: Mutex<usize>,
    frame_bytes: Mutex<u64>,
    live_bytes: u64,
}

impl Bench {
    fn new(replica: Replica, live_bytes: u64) -> Arc<Self> {
        let queue = Queue::default();
        let bench = Arc::new(Self {
            replica: Mutex::new(replica),
            queue,
            through: Mutex::default(),
            failures: Mutex::default(),
            frame_bytes: Mutex::default(),
            live_bytes,
        });
        bench.step(Event::Discovered { addresses: Vec::new(), is_configured: false, is_complete: true });
        bench.step(Event::Tick);
        bench
    }

    fn step(&self, event: Event) {
        let mut replica = self.replica.lock();
        for effect in replica.step(wall_clock::sample(), event) {
            match effect {
                Effect::Persist { number, item, is_awaited } => self.queue.push(number, item, is_awaited),
                Effect::PersistMeta(meta) => self.queue.put_meta(meta),
                _ => {}
            }
        }
    }

    fn apply(&self, table: &str, key: &str, action: Action) {
        let operation =
            Operation { key: Key::from_path(key).expect("a key"), action, condition: Condition::Always };
        let table = table.parse().expect("a name");
        let command = Command::Apply { table, operations: vec![operation], is_batch: false };
        self.step(Event::Client { request: RequestId(0), command, ack: AckMode::Local, timeout_ms: 1_000 });
    }

    fn put(&self, table: &str, key: &str, bytes: &[u8]) {
        self.apply(table, key, Action::Put { value: Value::new("", bytes), ttl_ms: None, max_age_ms: None });
    }
}

impl Owner for Bench {
    fn persisted(&self, through: u64) {
        *self.through.lock() = through;
        self.step(Event::Persisted { through });
    }

    fn persist_failed(&self, through: u64) -> u64 {
        *self.failures.lock() += 1;
        self.step(Event::PersistFailed { through });
        self.replica.lock().persist_number()
    }

    fn tables(&self) -> HashMap<TableName, Arc<Table>> {
        self.replica.lock().tables().map(|table| (table.name().clone(), table.clone())).collect()
    }

    fn barrier(&self) {
        drop(self.replica.lock());
    }

    fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    fn committed(&self, _: std::time::Duration, _: usize, size: StoredSize) {
        *self.frame_bytes.lock() = size.frame_bytes;
    }
}

async fn recover(directory: &Path) -> Result<Recovered<SqliteStorage>, RecoverError> {
    let options = Options::default();
    recovery::recover(directory, &options, wall_clock::sample(), settings, rand::random::<u64>).await
}

fn read(replica: &Replica, table: &str, key: &str) -> Lookup {
    let table = replica.table(&table.parse().expect("a name")).expect("a declared table");
    table.read(&Key::from_path(key).expect("a key"), wall_clock::sample().wall_ms)
}

#[track_caller]
fn assert_value(replica: &Replica, table: &str, key: &str, bytes: &[u8]) {
    match read(replica, table, key) {
        Lookup::Found(found) => assert!(found.bytes() == bytes, "{key} has another value"),
        other => panic!("{key}: {other:?}"),
    }
}

/// Runs a writer until everything the bench has done is in the file.
async fn write_all(bench: &Arc<Bench>, storage: SqliteStorage, stored: Stored) {
    let writer = Writer::new(storage, stored, bench.queue.clone(), bench.clone());
    bench.queue.close();
    writer.run().await.expect("a good volume");
}

/// Longest wait for the writer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
/// Times that each record is rewritten.
const ROUNDS: u8 = 100;

/// Live bytes that are copied, and more than are.
const LIVE_BYTES: [u64; 2] = [1 << 20, (16 << 20) + 1];

#[tokio::test]
async fn what_was_written_comes_back_and_compaction_drops_only_what_is_superseded() {
    for live_bytes in LIVE_BYTES {
        check_compaction(live_bytes).await;
    }
}

async fn check_compaction(live_bytes: u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let recovered = recover(directory.path()).await.expect("a new file");
    let bench = Bench::new(recovered.replica, live_bytes);
    // A bury_until that outlives its tombstone, beneath a later value.
    bench.put(CACHE, "again", b"first");
    bench.apply(CACHE, "again", Action::Delete);
    bench.put(CACHE, "again", b"second");
    let before = bench.replica.lock().table(&CACHE.parse().expect("a name")).expect("declared");
    let hash = mneme_replica::id::KeyHash::of(&Key::from_path("again").expect("a key"));
    let row_before = before.row(hash).expect("held");
    let large = vec![9; 100_000];
    let writing = {
        let bench = bench.clone();
        async move {
            for round in 0..ROUNDS {
                for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
                    bench.put("sessions", key, &[&large[..], &[round]].concat());
                }
                bench.put("sessions", &format!("out/{round}"), b"v");
                bench.apply("sessions", &format!("out/{round}"), Action::Delete);
                tokio::task::yield_now().await;
                bench.queue.room().await;
            }
            // 80 MB were written, 0.8 MB are live.
            let (last, started) = (bench.replica.lock().persist_number(), std::time::Instant::now());
            while *bench.through.lock() < last || *bench.frame_bytes.lock() > 48 << 20 {
                assert!(started.elapsed() < PATIENCE, "{} bytes of frames", *bench.frame_bytes.lock());
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            bench.queue.close();
        }
    };
    let writer = Writer::new(recovered.storage, recovered.stored, bench.queue.clone(), bench.clone());
    let (written, ()) = tokio::join!(writer.run(), writing);
    written.expect("a good volume");

    let again = recover(directory.path()).await.expect("a good file");
    let large = vec![9; 100_000];
    for key in ["a", "h"] {
        assert_value(&again.replica, "sessions", key, &[&large[..], &[ROUNDS - 1]].concat());
    }
    for round in 0..ROUNDS {
        let looked_up = read(&again.replica, "sessions", &format!("out/{round}"));
        assert!(matches!(looked_up, Lookup::Gone { .. }), "{round}: {looked_up:?}");
    }
    assert_value(&again.replica, CACHE, "again", b"second");
    let after = again.replica.table(&CACHE.parse().expect("a name")).expect("declared");
    assert_eq!(after.row(hash).expect("held"), row_before);
    assert!(again.replica.vector().agrees_with(&bench.replica.lock().vector()));
    assert!(again.stored.first > 1, "nothing was compacted");
    assert!(again.stored.bytes <= 49 << 20, "{}", again.stored.bytes);
}

/// Writes some records, stops, and lets `damage` loose on the file.
async fn damaged(damage: impl FnOnce(&Path)) -> (tempfile::TempDir, Recovered<SqliteStorage>) {
    let directory = tempfile::tempdir().expect("a directory");
    let recovered = recover(directory.path()).await.expect("a new file");
    let id = recovered.replica.hello().origin.node;
    let bench = Bench::new(recovered.replica, 1 << 20);
    for number in 0..50 {
        bench.put("sessions", &format!("k/{number}"), &[b'v'; 2_000]);
    }
    write_all(&bench, recovered.storage, recovered.stored).await;
    damage(&sqlite::file_in(directory.path()));
    let again = recover(directory.path()).await.expect("a damaged file is no reason not to start");
    let aside = again.set_aside.clone().expect("the file is set aside");
    assert!(aside.exists(), "{}", aside.display());
    assert_ne!(again.replica.hello().origin.node, id);
    assert!(matches!(read(&again.replica, "sessions", "k/1"), Lookup::Absent { .. }));
    (directory, again)
}

#[tokio::test]
async fn a_flipped_byte_is_found_wherever_it_is() {
    damaged(|file| {
        let mut bytes = std::fs::read(file).expect("a file");
        let at =
            bytes.windows(500).rposition(|window| window.iter().all(|byte| *byte == b'v')).expect("a value");
        bytes[at] ^= 0x10;
        std::fs::write(file, bytes).expect("writable");
    })
    .await;
}

#[tokio::test]
async fn a_truncated_file_is_found() {
    damaged(|file| {
        let length = std::fs::metadata(file).expect("a file").len();
        let file = std::fs::File::options().write(true).open(file).expect("writable");
        file.set_len(length / 2).expect("writable");
    })
    .await;
}

#[tokio::test]
async fn a_missing_frame_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut storage = open(directory.path()).await;
    for id in [1, 2, 4] {
        storage.append(vec![FrameBuilder::default().finish(id)], None).await.expect("writable");
    }
    let error = recovery::read(&mut storage, |_| {}).await.expect_err("frame 3 is missing");
    assert!(error.to_string().contains("frame 3"), "{error}");
    let mut first = FrameBuilder::default();
    first.push_first(5);
    storage.append(vec![first.finish(5)], Some(5)).await.expect("writable");
    assert_eq!(recovery::read(&mut storage, |_| {}).await.expect("whole").first, 5);
    storage.append(vec![FrameBuilder::default().finish(6)], Some(6)).await.expect("writable");
    assert!(recovery::read(&mut storage, |_| {}).await.is_err(), "frame 5 is missing");
}

#[test]
fn a_frame_is_good_only_whole_and_in_its_place() {
    let mut builder = FrameBuilder::default();
    builder.push_vector(&Default::default());
    builder.push_first(3);
    let good = builder.finish(9);
    assert_eq!(frame::decode(9, &good.body).expect("as written").len(), 2);
    assert!(frame::decode(8, &good.body).is_err(), "another frame's place");
    for at in 0..good.body.len() {
        let mut bad = good.body.clone();
        bad[at] ^= 1;
        assert!(frame::decode(9, &bad).is_err(), "byte {at} flipped");
        assert!(frame::decode(9, &good.body[..at]).is_err(), "cut at {at}");
    }
}
