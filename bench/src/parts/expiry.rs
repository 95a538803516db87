//! Reads of records that stay, at a fixed rate, while many others expire within one second.
//!
//! Expired records are unreadable at once; a minute later they are dropped from memory and file. Both times are measured.
//! A p99 of some seconds is what a machine's neighbours make of it: the median of several turns counts.

use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::Session;
use crate::connection::{Connection, Http};
use crate::figures::{Expiry, ExpiryTurn, Percentiles, latencies};
use crate::load::{self, Client};
use crate::system::{Running, System};
use crate::workload::{KEYS, Kind, Operation, Request, Spec};

const RECORDS: u64 = 1_000_000;
/// Time for the fill and for the quiet seconds after it.
const LIFE: Duration = Duration::from_secs(30);
const LIFE_QUICK: Duration = Duration::from_secs(4);
/// Expired records are kept this long (`EXPIRED_KEPT_MS` of the core).
const KEPT: Duration = Duration::from_secs(60);
/// How long dropping is watched.
const DROPPED: Duration = Duration::from_secs(8);
const CLIENTS: usize = 32;
const READS_PER_SECOND: u32 = 5_000;
/// Of the expired records, how many are read afterwards.
const CHECKED: u64 = 1_000;
/// Records of a filling request, connections that fill.
const FILL: (u64, usize) = (500, 4);

pub(super) async fn run(session: &mut Session) -> anyhow::Result<()> {
    let mut turns = Vec::new();
    for _ in 0..session.rounds() {
        turns.push(turn(session).await?);
    }
    session.results.expiry =
        Some(Expiry { records: session.scaled(RECORDS), reads_per_second: READS_PER_SECOND, turns });
    Ok(())
}

async fn turn(session: &mut Session) -> anyhow::Result<ExpiryTurn> {
    let records = session.scaled(RECORDS);
    let life = if session.is_quick { LIFE_QUICK } else { LIFE };
    let mut running = session.start(System::MnemeFsync, 1).await?;
    let deadline = Instant::now() + life;
    fill(&running, records, deadline).await?;
    session.say(&format!(
        "expiry: {records} records expire in {:.1} s",
        (deadline - Instant::now()).as_secs_f64()
    ));

    let second = spec(session);
    let (mut quiet, mut expiring, mut dropping) = (Seen::default(), Seen::default(), Seen::default());
    while Instant::now() + second.measured < deadline {
        quiet.read(&mut running, &second).await?;
    }
    sleep_until(deadline).await;
    let mut gone_after = None;
    while deadline.elapsed() < Duration::from_secs(2) || gone_after.is_none() {
        expiring.read(&mut running, &second).await?;
        if gone_after.is_none() && live(&running).await? <= KEYS {
            gone_after = Some(deadline.elapsed());
        }
        anyhow::ensure!(deadline.elapsed() < KEPT, "expired records are still counted after a minute");
    }
    let read_after_deadline = read_expired(&running, records).await?;
    if !session.is_quick {
        session.say("expiry: waiting until the expired records are dropped");
        sleep_until(deadline + KEPT - second.measured).await;
        while deadline.elapsed() < KEPT + DROPPED {
            dropping.read(&mut running, &second).await?;
        }
    }
    let percentiles = |seen: &Seen| Percentiles::of(&seen.reads).unwrap_or(Percentiles::NONE);
    let turn = ExpiryTurn {
        quiet: Percentiles::of(&quiet.reads).context("no quiet second: the fill took too long")?,
        expiring: percentiles(&expiring),
        dropping: percentiles(&dropping),
        failed: quiet.failed + expiring.failed + dropping.failed,
        gone_seconds: gone_after.unwrap_or_default().as_secs_f64(),
        read_after_deadline,
    };
    session.say(&format!(
        "expiry: read p99 {:.0} us, {:.0} us while they expire, {:.0} us while they are dropped, {} failed",
        turn.quiet.p99_us, turn.expiring.p99_us, turn.dropping.p99_us, turn.failed
    ));
    Ok(turn)
}

/// Reads of the records that stay, for a second.
fn spec(session: &Session) -> Spec {
    let measured = Duration::from_millis(if session.is_quick { 300 } else { 1_000 });
    let spec = session.spec(Operation::Read, CLIENTS);
    Spec { rate: Some(READS_PER_SECOND), warm: Duration::from_millis(1), measured, ..spec }
}

/// What readers saw in some seconds.
struct Seen {
    reads: Histogram<u64>,
    failed: u64,
}

impl Default for Seen {
    fn default() -> Self {
        Self { reads: latencies(), failed: 0 }
    }
}

impl Seen {
    /// Reads for one more second.
    async fn read(&mut self, running: &mut Running, spec: &Spec) -> anyhow::Result<()> {
        let (_, _, tally) = running.run(spec).await?;
        self.reads.add(tally.reads)?;
        self.failed += tally.failed + tally.unanswered;
        Ok(())
    }
}

/// The records that expire: numbers from [`KEYS`] on.
async fn fill(running: &Running, records: u64, deadline: Instant) -> anyhow::Result<()> {
    let address = running.address().context("a node")?;
    let mut clients = Vec::new();
    for _ in 0..FILL.1 {
        clients.push(Connection::open(address, Http::new(address).with_deadline(deadline)).await?);
    }
    load::fill(clients, KEYS..KEYS + records, FILL.0).await
}

/// Records that the node counts as live.
async fn live(running: &Running) -> anyhow::Result<u64> {
    let cluster = running.cluster().context("nodes")?;
    let status: Value = cluster[0].status().await;
    status["tables"][0]["live"].as_u64().context("a count of records")
}

/// How many of some expired records can be read: none.
async fn read_expired(running: &Running, records: u64) -> anyhow::Result<u64> {
    let address = running.address().context("a node")?;
    let mut client = Connection::open(address, Http::new(address)).await?;
    let mut found = 0;
    for number in 0..CHECKED.min(records) {
        let keys = KEYS + records;
        let request = Request {
            kind: Kind::Read,
            first: KEYS + number * (records / CHECKED.min(records)),
            records: 1,
            keys,
        };
        found += client.send(&[request]).await? as u64;
    }
    Ok(found)
}
