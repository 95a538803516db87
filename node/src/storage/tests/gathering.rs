//! How long a commit waits for company.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::super::writer::Wanted;
use super::*;

fn push(queue: &Queue, number: u64) {
    queue.push(number, PersistItem::Rows(Arc::default()), true);
}

fn push_unawaited(queue: &Queue, number: u64) {
    queue.push(number, PersistItem::Rows(Arc::default()), false);
}

#[tokio::test(start_paused = true)]
async fn a_commit_begins_when_as_many_wait_as_are_wanted() {
    let (queue, begun) = (Queue::default(), Instant::now());
    let mut gathered = std::pin::pin!(queue.gathered(Wanted::Entries(3), begun + Duration::from_secs(1)));
    push(&queue, 1);
    assert!(gathered.as_mut().now_or_never().is_none(), "one of three");
    push(&queue, 2);
    assert!(gathered.as_mut().now_or_never().is_none(), "two of three");
    push(&queue, 3);
    gathered.await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_commit_waits_no_longer_than_it_may_for_those_who_do_not_come() {
    let (queue, begun) = (Queue::default(), Instant::now());
    push(&queue, 1);
    queue.gathered(Wanted::Entries(3), begun + Duration::from_secs(1)).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_waits_for_company_and_not_for_long() {
    let (queue, begun) = (Queue::default(), Instant::now());
    let until = begun + Duration::from_millis(5);
    queue.gathered(Wanted::Awaited, until).await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "nothing waits");
    push_unawaited(&queue, 1);
    let mut gathered = std::pin::pin!(queue.gathered(Wanted::Awaited, until));
    push_unawaited(&queue, 2);
    assert!(gathered.as_mut().now_or_never().is_none(), "nobody waits for either");
    push(&queue, 3);
    gathered.await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let queue = Queue::default();
    push_unawaited(&queue, 1);
    queue.gathered(Wanted::Awaited, until).await;
    assert_eq!(begun.elapsed(), Duration::from_millis(5));
}

#[tokio::test(start_paused = true)]
async fn who_closes_the_file_waits_for_nobody() {
    let (queue, begun) = (Queue::default(), Instant::now());
    let mut gathered = std::pin::pin!(queue.gathered(Wanted::Entries(3), begun + Duration::from_secs(1)));
    assert!(gathered.as_mut().now_or_never().is_none());
    queue.close();
    gathered.await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_file_that_is_closed_while_a_commit_waits_for_company_is_closed() {
    let directory = tempfile::tempdir().expect("a directory");
    let recovered = recover(directory.path()).await.expect("a new file");
    let bench = Bench::new(recovered.replica, 1 << 20);
    let writer = Writer::new(recovered.storage, recovered.stored, bench.queue.clone(), bench.clone());
    let closing = {
        let bench = bench.clone();
        async move {
            for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
                bench.put("sessions", key, b"v");
            }
            let last = bench.replica.lock().persist_number();
            // The next commit would wait for as many again, and none comes.
            while *bench.through.lock() < last {
                tokio::task::yield_now().await;
            }
            tokio::task::yield_now().await;
            bench.queue.close();
        }
    };
    let both = async { tokio::join!(writer.run(), closing) };
    let (written, ()) = tokio::time::timeout(PATIENCE, both).await.expect("the writer ends");
    written.expect("a good volume");
}
