//! Compaction: how much of it goes with one commit, and what it does with what it finds.

use std::sync::atomic::Ordering;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::full::{OnVolume, ROOMY_BYTES};
use super::large::{FRAME_BYTES_MAX, VALUE_BYTES, assert_holds_all, delta, frames, write};
use super::*;

/// Bytes of one transaction while each write is alone in one: the write, and a share.
const APPENDED_BYTES_MAX: usize = 600_000;
/// Bytes that are cut off at once, and a frame more.
const CUT_BYTES_MAX: usize = 3 << 20;

#[tokio::test]
async fn a_commit_waits_for_no_more_than_a_share() {
    for live_bytes in LIVE_BYTES {
        let storage = MemoryStorage::default();
        let loaded = recovery::load(storage, wall_clock::sample(), settings, rand::random::<u64>).await;
        let loaded = loaded.expect("a new storage");
        let bench = Bench::new(loaded.replica, live_bytes);
        let storage = OnVolume::new(loaded.storage, ROOMY_BYTES);
        let largest = storage.largest();
        let writer = Writer::new(storage, loaded.stored, bench.queue.clone(), bench.clone());
        let writing = async {
            // 100 MB, of which nothing is superseded for the first 2 MB and nearly all of the rest is.
            for number in 0..1_000_u16 {
                let key = format!("k/{}", number % 20);
                bench.put("sessions", &key, &[&[7; VALUE_BYTES][..], &number.to_be_bytes()].concat());
                while *bench.through.lock() < bench.replica.lock().persist_number() {
                    tokio::task::yield_now().await;
                }
            }
            bench.queue.close();
        };
        let (written, ()) = tokio::join!(writer.run(), writing);
        written.expect("a good volume");
        let largest = *largest.lock();
        assert!(largest.cuts > 1 && largest.cut_bytes <= CUT_BYTES_MAX, "{live_bytes}: {largest:?}");
        assert!(largest.appended_bytes <= APPENDED_BYTES_MAX, "{live_bytes}: {largest:?}");
    }
}

/// Values of a run, and what they take: less than is copied.
const KEYS: u64 = 1_200;
const KEY_VALUE_BYTES: usize = 10_000;
const COPIED_LIVE_BYTES: u64 = 12 << 20;

/// Writes as they come to keys of which most are alive, until so many bytes were put; a commit takes a few of them.
async fn write_at_random(bench: &Arc<Bench>, random: &mut StdRng, bytes: usize) {
    let (mut written, mut generation) = (0, 0);
    while written < bytes {
        let number = random.random_range(0..KEYS);
        let (table, key) = if number % 4 == 0 {
            (CACHE, format!("cart/{number}"))
        } else {
            // A key that was deleted is not used again.
            ("sessions", format!("user/{number}/{}", if number % 4 == 1 { generation } else { 0 }))
        };
        let later = Some(std::time::Duration::from_secs(random.random_range(1_800..3_600)).as_millis());
        let ttl_ms = later.map(|ms| u64::try_from(ms).expect("hours"));
        match random.random_range(0..10) {
            0 => bench.apply(table, &key, Action::Touch { ttl_ms, exact: random.random_bool(0.5) }),
            1 if number % 4 < 2 => bench.apply(table, &key, Action::Delete),
            // A put of a deleted session is refused.
            _ if matches!(read(&bench.replica.lock(), table, &key), Lookup::Gone { .. }) => {}
            _ => {
                let mut value = vec![0; KEY_VALUE_BYTES];
                value[..8].copy_from_slice(&random.random::<u64>().to_le_bytes());
                bench.put(table, &key, &value);
                written += value.len();
            }
        }
        if random.random_bool(0.2) {
            generation += u64::from(random.random_bool(0.000_5));
            while *bench.through.lock() < bench.replica.lock().persist_number() {
                tokio::task::yield_now().await;
            }
        }
    }
}

#[tokio::test]
async fn what_a_copy_leaves_out_is_in_the_frames_that_stay() {
    for (seed, bytes) in [(1, 120 << 20), (2, 131 << 20), (3, 142 << 20)] {
        let storage = MemoryStorage::default();
        let loaded = recovery::load(storage, wall_clock::sample(), settings, rand::random::<u64>).await;
        let loaded = loaded.expect("a new storage");
        let bench = Bench::new(loaded.replica, COPIED_LIVE_BYTES);
        let storage = OnVolume::new(loaded.storage, usize::MAX);
        let (largest, all_bytes, left) = (storage.largest(), storage.all_bytes(), storage.left());
        let writer = Writer::new(storage, loaded.stored, bench.queue.clone(), bench.clone());
        let writing = async {
            write_at_random(&bench, &mut StdRng::seed_from_u64(seed), bytes).await;
            bench.queue.close();
        };
        let (written, ()) = tokio::join!(writer.run(), writing);
        written.expect("a good volume");

        let storage = left.lock().take().expect("closed");
        let again = recovery::load(storage, wall_clock::sample(), settings, rand::random::<u64>).await;
        let again = again.expect("a good storage");
        let before = bench.replica.lock();
        assert!(again.replica.vector().agrees_with(&before.vector()), "seed {seed}");
        for table in before.tables() {
            let after = again.replica.table(table.name()).expect("declared");
            let keys =
                |table: &Table| (0..SHARDS).flat_map(|shard| table.shard_keys(shard)).collect::<Vec<_>>();
            assert_eq!(keys(table).len(), keys(&after).len(), "seed {seed}: {table:?}");
            for key in keys(table) {
                assert!(table.row(key) == after.row(key), "seed {seed}: {table:?}, {key:?}");
            }
        }
        // All that is alive, each time that 40 MiB are not, would be 36 MB and more.
        let copied = all_bytes.load(Ordering::Relaxed).saturating_sub(bytes);
        assert!(largest.lock().cuts > 30, "seed {seed}: {largest:?}");
        assert!(copied < 20 << 20, "seed {seed}: {copied} bytes");
    }
}

#[tokio::test]
async fn a_copy_that_grows_too_large_is_given_up_and_nothing_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let (rows, vector) = delta().await;
    let items = vec![PersistItem::Rows(rows.into()), PersistItem::Vector(vector)];
    write(directory.path(), &Options::default(), items).await;
    let recovered = recover(directory.path()).await.expect("a good file");
    // 68 MB are alive, of which the estimate knows nothing.
    let (bytes, bench) = (recovered.stored.bytes, Bench::new(recovered.replica, LIVE_BYTES[0]));
    let writer = Writer::new(recovered.storage, recovered.stored, bench.queue.clone(), bench.clone());
    let cut = async {
        let mut most = 0;
        let started = std::time::Instant::now();
        while most <= bytes || *bench.frame_bytes.lock() >= most {
            most = most.max(*bench.frame_bytes.lock());
            assert!(started.elapsed() < PATIENCE, "nothing was cut off");
            tokio::task::yield_now().await;
        }
        bench.queue.close();
        most
    };
    let (written, most) = tokio::join!(writer.run(), cut);
    written.expect("a good volume");
    assert!(most < bytes + (40 << 20), "{most} bytes of frames: all of it was copied");
    let again = recover(directory.path()).await.expect("a good file");
    assert!(again.stored.first > 1);
    assert_holds_all(&again.replica);
}

#[tokio::test]
async fn compaction_cuts_up_a_frame_that_is_too_large() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut storage = open(directory.path()).await;
    // One entry of rows, as earlier versions wrote a delta.
    let mut rows = Vec::new();
    mneme_replica::codec::encode_rows(&delta().await.0, &mut rows);
    let entry_bytes = u32::try_from(rows.len()).expect("68 MB").to_be_bytes();
    let entry = [&[2], &entry_bytes[..], &rows].concat();
    let sum = xxhash_rust::xxh3::xxh3_64(&[&1_u64.to_be_bytes()[..], &entry].concat());
    let body = [&[1], &sum.to_be_bytes()[..], &entry].concat();
    storage.append(vec![StoredFrame { id: 1, body }], None).await.expect("writable");
    storage.close().await.expect("closable");

    let recovered = recover(directory.path()).await.expect("a good file");
    let bench = Bench::new(recovered.replica, LIVE_BYTES[1]);
    let writer = Writer::new(recovered.storage, recovered.stored, bench.queue.clone(), bench.clone());
    let compacted = async {
        let started = std::time::Instant::now();
        while *bench.frame_bytes.lock() == 0 {
            assert!(started.elapsed() < PATIENCE, "nothing was compacted");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        bench.queue.close();
    };
    let (written, ()) = tokio::join!(writer.run(), compacted);
    written.expect("a good volume");
    let mut again = recover(directory.path()).await.expect("a good file");
    assert_holds_all(&again.replica);
    assert!(again.stored.first > 1);
    let frames = frames(&mut again.storage).await;
    assert!(frames.iter().all(|bytes| *bytes <= FRAME_BYTES_MAX), "{frames:?}");
}
