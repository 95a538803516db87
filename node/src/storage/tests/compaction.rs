//! Compaction: how much of it goes with one commit, and what it does with what it finds.

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
