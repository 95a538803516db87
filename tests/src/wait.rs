//! Waiting for a condition with a deadline. Nothing in the suites sleeps for time to pass.

use std::time::Duration;

use tokio::time::Instant;

/// Pause between two looks at a condition: short beside every time the product promises.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `condition` is true.
///
/// # Panics
///
/// When it is not within `limit`; the message names `what` was waited for.
pub async fn wait_until(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    wait_for(limit, what, async || condition().await.then_some(())).await;
}

/// Waits until `look` finds something, and gives that back.
///
/// # Panics
///
/// When it found nothing within `limit`; the message names `what` was waited for.
pub async fn wait_for<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        let found = wait_for(Duration::from_secs(5), "three looks", async || {
            looks += 1;
            (looks == 3).then_some("found")
        });
        assert_eq!(found.await, "found");
    }

    #[tokio::test]
    #[should_panic(expected = "waited 30ms in vain: pigs that fly")]
    async fn a_condition_that_stays_false_fails_by_its_name() {
        wait_until(Duration::from_millis(30), "pigs that fly", async || false).await;
    }
}
