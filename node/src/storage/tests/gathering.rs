//! How long a commit waits for company.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::*;

fn push(queue: &Queue, number: u64) {
    queue.push(number, PersistItem::Rows(Arc::default()));
}

#[tokio::test(start_paused = true)]
async fn a_commit_begins_when_as_many_wait_as_are_wanted() {
    let (queue, begun) = (Queue::default(), Instant::now());
    let mut gathered = std::pin::pin!(queue.gathered(3, begun + Duration::from_secs(1)));
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
    queue.gathered(3, begun + Duration::from_secs(1)).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn who_closes_the_file_waits_for_nobody() {
    let (queue, begun) = (Queue::default(), Instant::now());
    let mut gathered = std::pin::pin!(queue.gathered(3, begun + Duration::from_secs(1)));
    assert!(gathered.as_mut().now_or_never().is_none());
    queue.close();
    gathered.await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
