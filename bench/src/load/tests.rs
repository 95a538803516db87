use tokio::task::LocalSet;
use tokio::time::sleep;

use super::*;
use crate::workload::{Operation, Shape};

/// Where tasks that stay on one thread can be spawned.
async fn on_one_thread<F: Future>(future: F) -> F::Output {
    LocalSet::new().run_until(future).await
}

/// Answers in a millisecond, but stalls once, all clients at the same time.
#[derive(Clone)]
struct Stalling {
    began: Instant,
}

const STALL_FROM: Duration = Duration::from_millis(1_000);
const STALL_UNTIL: Duration = Duration::from_millis(1_500);

impl Client for Stalling {
    async fn send(&mut self, requests: &[Request]) -> anyhow::Result<usize> {
        sleep(MILLISECOND).await;
        if (STALL_FROM..STALL_UNTIL).contains(&self.began.elapsed()) {
            sleep_until(self.began + STALL_UNTIL).await;
        }
        Ok(requests.len())
    }
}

/// Milliseconds of the paused clock.
struct Virtual {
    began: Instant,
    passed: u32,
}

impl Virtual {
    fn start() -> Self {
        Self { began: Instant::now(), passed: 0 }
    }
}

impl Ticks for Virtual {
    fn began(&self) -> Instant {
        self.began
    }

    async fn next(&mut self) -> anyhow::Result<u64> {
        self.passed += 1;
        sleep_until(self.began + MILLISECOND * self.passed).await;
        Ok(1)
    }
}

fn spec(rate: Option<u32>) -> Spec {
    let (warm, measured) = (Duration::from_millis(500), Duration::from_millis(2_000));
    Spec { operation: Operation::Write, shape: Shape::Single, clients: 4, rate, keys: 100, warm, measured }
}

fn clients() -> Vec<Stalling> {
    (0..4).map(|_| Stalling { began: Instant::now() }).collect()
}

#[tokio::test(start_paused = true)]
async fn a_stall_shows_in_the_percentiles_of_an_open_loop_and_not_in_those_of_a_closed_one() {
    let spec = spec(Some(1_000));
    let open = on_one_thread(open(clients(), &spec, 1_000, Virtual::start(), || ()));
    let ((), (), open) = open.await.expect("an open loop");
    // Half of the second after the stall's begin was due while nothing was answered.
    assert!(open.writes.value_at_quantile(0.9) > 200_000_000, "{}", open.writes.value_at_quantile(0.9));
    assert_eq!((open.failed, open.unanswered), (0, 0));
    assert!(open.writes.len().abs_diff(2_000) <= 1, "{}", open.writes.len());

    let closed = on_one_thread(closed(clients(), &spec, || ()));
    let ((), (), closed) = closed.await.expect("a closed loop");
    assert!(closed.writes.value_at_quantile(0.9) < 5_000_000);
    assert_eq!(closed.operations, closed.writes.len());
}

/// Answers nothing from some time on.
struct Dead;

impl Client for Dead {
    async fn send(&mut self, _: &[Request]) -> anyhow::Result<usize> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_never_answered_are_counted() {
    let spec = spec(Some(1_000));
    let open = on_one_thread(open(vec![Dead, Dead], &spec, 1_000, Virtual::start(), || ()));
    let ((), (), tally) = open.await.expect("an open loop");
    assert_eq!((tally.operations, tally.unanswered), (0, 2_000));
}

#[tokio::test(start_paused = true)]
async fn latency_counts_from_when_a_request_was_due_also_when_the_loop_begins_late() {
    let (spec, ticks) = (spec(Some(1_000)), Virtual::start());
    sleep(Duration::from_millis(3)).await;
    let clients = vec![Stalling { began: Instant::now() + Duration::from_secs(60) }; 4];
    let ((), (), open) =
        on_one_thread(open(clients, &spec, 1_000, ticks, || ())).await.expect("an open loop");
    // The millisecond that the client takes, to the histogram's three digits.
    assert!((999_000..1_001_000).contains(&open.writes.min()), "{}", open.writes.min());
}

#[tokio::test]
async fn milliseconds_of_the_kernel_are_over_when_they_are_told() {
    let mut timer = Timer::start().expect("a timer");
    let mut passed = 0;
    while passed < 3 {
        passed += timer.next().await.expect("a tick");
        assert!(u128::from(passed) <= timer.began().elapsed().as_millis());
    }
}

#[tokio::test]
async fn a_fill_writes_every_record_once() {
    struct Remembering(Rc<RefCell<Vec<u64>>>);
    impl Client for Remembering {
        async fn send(&mut self, requests: &[Request]) -> anyhow::Result<usize> {
            self.0.borrow_mut().extend(requests[0].numbers());
            tokio::task::yield_now().await;
            Ok(1)
        }
    }
    let written = Rc::new(RefCell::new(Vec::new()));
    let clients = (0..3).map(|_| Remembering(written.clone())).collect();
    on_one_thread(fill(clients, 5..33, 10)).await.expect("a fill");
    written.borrow_mut().sort_unstable();
    assert_eq!(*written.borrow(), (5..33).collect::<Vec<_>>());
}
