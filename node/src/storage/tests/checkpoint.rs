//! The log of the file: taken into it beside commits, and bounded.

use super::full::{OnVolume, ROOMY_BYTES};
use super::*;

/// Size of the log after so many commits of a frame, each with a checkpoint where one is due.
async fn log_bytes_after(commits: u64, frame_bytes: usize) -> u64 {
    let directory = tempfile::tempdir().expect("a directory");
    let mut storage = open(directory.path()).await;
    for id in 1..=commits {
        storage.append(vec![frame(id, frame_bytes)], None).await.expect("writable");
        storage.checkpoint().await.expect("a good volume");
    }
    let log = std::fs::metadata(directory.path().join(format!("{}-wal", sqlite::FILE_NAME)));
    log.expect("a log").len()
}

#[tokio::test]
async fn the_log_stays_small_whatever_commits_are_like() {
    // One write at a time, what many clients write together, what a delta brings: 4 MB and more without checkpoints.
    for (commits, frame_bytes) in [(1_000, 400), (200, 10_000), (8, 1 << 20)] {
        let log_bytes = log_bytes_after(commits, frame_bytes).await;
        assert!(log_bytes < 4 << 20, "{commits} commits of {frame_bytes} bytes left a log of {log_bytes}");
    }
}

#[tokio::test]
async fn whoever_waits_for_a_commit_does_not_wait_for_a_checkpoint() {
    let loaded =
        recovery::load(MemoryStorage::default(), wall_clock::sample(), settings, rand::random::<u64>).await;
    let loaded = loaded.expect("a new storage");
    let bench = Bench::new(loaded.replica, u64::MAX / 4);
    let storage = OnVolume::new(loaded.storage, ROOMY_BYTES).without_checkpoints();
    let writer = Writer::new(storage, loaded.stored, bench.queue.clone(), bench.clone());
    bench.put("sessions", "a", b"v");
    let last = bench.replica.lock().persist_number();
    let is_written = async {
        while *bench.through.lock() < last {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = writer.run() => panic!("the writer does not go on: {ended:?}"),
        written = tokio::time::timeout(PATIENCE, is_written) => written.expect("the commit counts"),
    }
}
