//! What a delta brings to an empty node: as large as its memory, and one entry.

use mneme_replica::record::Row;
use mneme_replica::version_vector::VersionVector;

use super::*;

/// Records of the delta.
const RECORDS: usize = 680;
/// Bytes of each.
pub(super) const VALUE_BYTES: usize = 100_000;
/// No frame is larger; all of them together are far larger.
pub(super) const FRAME_BYTES_MAX: usize = 2 << 20;

/// What another node holds, and its vector.
pub(super) async fn delta() -> (Vec<Row>, VersionVector) {
    let loaded = recovery::load(MemoryStorage::default(), wall_clock::sample(), settings, || 3).await;
    let donor = Bench::new(loaded.expect("a new storage").replica, 0);
    let value = vec![7; VALUE_BYTES];
    let keys: Vec<String> = (0..RECORDS).map(|number| format!("k/{number}")).collect();
    for key in &keys {
        donor.put("sessions", key, &[&value[..], key.as_bytes()].concat());
    }
    let replica = donor.replica.lock();
    let table = replica.table(&"sessions".parse().expect("a name")).expect("declared");
    let hash = |key: &String| mneme_replica::id::KeyHash::of(&Key::from_path(key).expect("a key"));
    let rows = keys.iter().map(|key| table.row(hash(key)).expect("held")).collect();
    (rows, replica.vector())
}

#[track_caller]
pub(super) fn assert_holds_all(replica: &Replica) {
    for number in 0..RECORDS {
        let key = format!("k/{number}");
        assert_value(replica, "sessions", &key, &[&vec![7; VALUE_BYTES][..], key.as_bytes()].concat());
    }
}

pub(super) async fn frames(storage: &mut SqliteStorage) -> Vec<usize> {
    let frames = storage.frames(0, usize::MAX).await.expect("readable");
    frames.iter().map(|frame| frame.body.len()).collect()
}

/// Hands entries to the writer of a new file.
pub(super) async fn write(directory: &Path, options: &Options, items: Vec<PersistItem>) -> Arc<Bench> {
    let sample = wall_clock::sample();
    let recovered = recovery::recover(directory, options, sample, settings, rand::random::<u64>).await;
    let recovered = recovered.expect("a new file");
    let bench = Bench::new(recovered.replica, u64::MAX / 4);
    for (number, item) in (1..).zip(items) {
        bench.queue.push(number, item, true);
    }
    write_all(&bench, recovered.storage, recovered.stored).await;
    bench
}

#[tokio::test]
async fn a_delta_of_any_size_goes_into_frames_of_a_bounded_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let (rows, vector) = delta().await;
    let items = vec![PersistItem::Rows(rows.into()), PersistItem::Vector(vector.clone())];
    write(directory.path(), &Options::default(), items).await;
    let mut again = recover(directory.path()).await.expect("a good file");
    assert_holds_all(&again.replica);
    assert!(vector.agrees_with(&again.stored.vector), "{:?}", again.stored.vector);
    let frames = frames(&mut again.storage).await;
    assert!(frames.iter().all(|bytes| *bytes <= FRAME_BYTES_MAX), "{frames:?}");
    assert!(frames.iter().sum::<usize>() > RECORDS * VALUE_BYTES);
}

#[tokio::test]
async fn of_a_delta_that_does_not_fit_nothing_is_in_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    // Half of it would fit.
    let options = Options { pages_max: Some(8_000), ..Options::default() };
    let bench = write(directory.path(), &options, vec![PersistItem::Rows(delta().await.0.into())]).await;
    assert_eq!((*bench.through.lock(), *bench.failures.lock()), (0, 1));
    let mut again = recover(directory.path()).await.expect("a good file");
    assert!(frames(&mut again.storage).await.is_empty());
}
