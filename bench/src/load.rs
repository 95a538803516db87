//! Closed and open loops of load clients in this process: one thread, one task a client.
//!
//! A closed loop sends the next request when the last is answered: it finds the most a system takes, and says little of
//! latency, because a system that stalls is asked nothing meanwhile. An open loop asks at a fixed rate, whatever the
//! system does, and counts from when a request was due to when it was answered.

mod timer;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

pub(crate) use self::timer::Timer;
use crate::figures::latencies;
use crate::workload::{Kind, Request, Requests, Spec};

/// How long what was due in an open loop may take after its end.
const DRAIN_MAX: Duration = Duration::from_secs(10);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Something that requests can be sent through, one group at a time.
pub(crate) trait Client {
    /// Sends requests together and waits for all answers; gives how many were as expected.
    async fn send(&mut self, requests: &[Request]) -> anyhow::Result<usize>;
}

/// Milliseconds as they pass.
pub(crate) trait Ticks {
    /// When they began: the first is over a millisecond later.
    fn began(&self) -> Instant;

    /// Waits for the next; gives how many passed since the last call.
    async fn next(&mut self) -> anyhow::Result<u64>;
}

/// What clients saw.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Records written or read as they should be, answered within the measured time.
    pub(crate) operations: u64,
    /// Requests that failed.
    pub(crate) failed: u64,
    /// Requests of an open loop that were due in the measured time and not answered.
    pub(crate) unanswered: u64,
    pub(crate) reads: Histogram<u64>,
    pub(crate) writes: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self { operations: 0, failed: 0, unanswered: 0, reads: latencies(), writes: latencies() }
    }
}

impl Tally {
    fn record(&mut self, kind: Kind, latency: Duration) {
        let latencies = if kind == Kind::Write { &mut self.writes } else { &mut self.reads };
        latencies.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Finds out how many requests of an open loop are missing.
    pub(crate) fn count_unanswered(&mut self, spec: &Spec) {
        let due = spec.rate.map_or(0, |rate| {
            let until = due_before(rate, spec.warm + spec.measured);
            until - due_before(rate, spec.warm)
        });
        self.unanswered = due.saturating_sub(self.reads.len() + self.writes.len());
    }
}

/// Requests that are due before a time: those of the millisecond that ends then are not.
fn due_before(rate: u32, time: Duration) -> u64 {
    let ticks = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).saturating_sub(1);
    u64::from(rate) * ticks / 1_000
}

/// What the clients of one loop share.
struct Shared {
    tally: RefCell<Tally>,
    is_measuring: Cell<bool>,
    is_over: Cell<bool>,
    // Of an open loop.
    /// When requests were due that nobody took yet; one permit each.
    due: RefCell<VecDeque<Instant>>,
    permits: Semaphore,
    /// Requests that were due and are not answered.
    pending: Cell<u64>,
    answered: Notify,
}

impl Shared {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            tally: RefCell::default(),
            is_measuring: Cell::new(false),
            is_over: Cell::new(false),
            due: RefCell::default(),
            permits: Semaphore::new(0),
            pending: Cell::new(0),
            answered: Notify::new(),
        })
    }
}

/// Runs a closed loop; `sample` is called at both ends of the measured time.
pub(crate) async fn closed<C: Client + 'static, S>(
    clients: Vec<C>,
    spec: &Spec,
    mut sample: impl FnMut() -> S,
) -> anyhow::Result<(S, S, Tally)> {
    let shared = Shared::new();
    let mut tasks = JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        tasks.spawn_local(ask_again(
            client,
            Requests::new(*spec, number),
            spec.shape.depth(),
            shared.clone(),
        ));
    }
    let began = Instant::now();
    sleep_until(began + spec.warm).await;
    let before = sample();
    shared.is_measuring.set(true);
    sleep_until(began + spec.warm + spec.measured).await;
    shared.is_measuring.set(false);
    let after = sample();
    shared.is_over.set(true);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok((before, after, shared.tally.take()))
}

async fn ask_again<C: Client>(
    mut client: C,
    mut requests: Requests,
    depth: usize,
    shared: Rc<Shared>,
) -> anyhow::Result<()> {
    let mut group = Vec::with_capacity(depth);
    while !shared.is_over.get() {
        group.clear();
        group.extend((0..depth).map(|_| requests.draw()));
        let sent = Instant::now();
        let done = client.send(&group).await?;
        if shared.is_measuring.get() {
            let (mut tally, latency) = (shared.tally.borrow_mut(), sent.elapsed());
            tally.operations += done as u64 * group[0].records;
            tally.failed += (group.len() - done) as u64;
            for request in &group {
                tally.record(request.kind, latency);
            }
        }
    }
    Ok(())
}

/// Runs an open loop of `rate` requests a second, due in groups of a millisecond; `sample` as in [`closed`].
pub(crate) async fn open<C: Client + 'static, S>(
    clients: Vec<C>,
    spec: &Spec,
    rate: u32,
    mut ticks: impl Ticks,
    mut sample: impl FnMut() -> S,
) -> anyhow::Result<(S, S, Tally)> {
    let shared = Shared::new();
    let mut tasks = JoinSet::new();
    // Theirs, not ours: a request must never count from later than when it could be sent.
    let began = ticks.began();
    let measured = began + spec.warm..began + spec.warm + spec.measured;
    for (number, client) in clients.into_iter().enumerate() {
        let requests = Requests::new(*spec, number);
        tasks.spawn_local(ask_when_due(client, requests, measured.clone(), shared.clone()));
    }
    let (mut before, mut passed, rate) = (None, 0u64, u64::from(rate));
    loop {
        for _ in 0..ticks.next().await? {
            passed += 1;
            let at = began + MILLISECOND * u32::try_from(passed).context("an open loop of weeks")?;
            let count = rate * passed / 1_000 - rate * (passed - 1) / 1_000;
            shared.due.borrow_mut().extend((0..count).map(|_| at));
            shared.pending.set(shared.pending.get() + count);
            shared.permits.add_permits(usize::try_from(count)?);
        }
        let now = Instant::now();
        if before.is_none() && now >= measured.start {
            before = Some(sample());
            shared.is_measuring.set(true);
        }
        if now >= measured.end {
            break;
        }
    }
    shared.is_measuring.set(false);
    let after = sample();
    let drained = timeout(DRAIN_MAX, async {
        while shared.pending.get() > 0 {
            shared.answered.notified().await;
        }
    });
    if drained.await.is_ok() {
        shared.permits.close();
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
    } else if let Some(ended) = tasks.try_join_next() {
        // A client that failed leaves its request unanswered: that is the reason to tell.
        ended??;
    }
    let mut tally = shared.tally.take();
    tally.count_unanswered(spec);
    Ok((before.context("a loop without a measured time")?, after, tally))
}

async fn ask_when_due<C: Client>(
    mut client: C,
    mut requests: Requests,
    measured: Range<Instant>,
    shared: Rc<Shared>,
) -> anyhow::Result<()> {
    while let Ok(permit) = shared.permits.acquire().await {
        permit.forget();
        let at = shared.due.borrow_mut().pop_front().context("a permit without a request")?;
        let request = requests.draw();
        let done = client.send(&[request]).await?;
        let mut tally = shared.tally.borrow_mut();
        if shared.is_measuring.get() {
            tally.operations += done as u64 * request.records;
        }
        if measured.contains(&at) {
            tally.failed += 1 - done as u64;
            tally.record(request.kind, at.elapsed());
        }
        shared.pending.set(shared.pending.get() - 1);
        shared.answered.notify_one();
    }
    Ok(())
}

/// Writes every record of `numbers` once, `records` a request.
pub(crate) async fn fill<C: Client + 'static>(
    clients: Vec<C>,
    numbers: Range<u64>,
    records: u64,
) -> anyhow::Result<()> {
    let next = Rc::new(Cell::new(numbers.start));
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let (next, end) = (next.clone(), numbers.end);
        tasks.spawn_local(async move {
            while next.get() < end {
                let first = next.get();
                let records = records.min(end - first);
                next.set(first + records);
                let request = Request { kind: Kind::Write, first, records, keys: end };
                anyhow::ensure!(client.send(&[request]).await? == 1, "a write was refused");
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
