//! Many records on one node: memory, restart, an empty node that joins, tombstones, the file under rewriting.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use mneme_tests::cluster::Cluster;
use mneme_tests::http::Request;
use mneme_tests::node::{Node, NodeSpec};
use mneme_tests::wait::wait_until;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Session, median};
use crate::figures::{Large, Percentiles, Rewritten, latencies};
use crate::workload::{VALUE_BYTES, value};

const RECORDS: u64 = 1_000_000;
/// Records of which tombstones are made, on an empty node.
const TOMBSTONES: u64 = 500_000;
/// Records that are rewritten, and how often each.
const REWRITTEN: (u64, u64) = (50_000, 20);
/// Records in one batch.
const BATCH: u64 = 500;
/// Batches under way at once.
const CLIENTS: u64 = 4;
/// Longest wait for a node to be ready.
const PATIENCE: Duration = Duration::from_secs(120);
const DAY_MS: u64 = 86_400_000;
/// Clients that write while a node joins, and how often each does.
const WRITERS: u64 = 4;
const WRITE_EVERY: Duration = Duration::from_millis(4);
/// How long they write before a node joins, and after it is ready.
const BESIDE: Duration = Duration::from_secs(2);

pub(super) async fn run(session: &mut Session) -> anyhow::Result<()> {
    let records = session.scaled(RECORDS);
    let (tombstones, memory_bytes_per_tombstone) = tombstones(session.scaled(TOMBSTONES)).await?;
    session.say(&format!("large: {memory_bytes_per_tombstone:.0} bytes a tombstone"));
    let rewritten = rewrite(session.scaled(REWRITTEN.0)).await?;
    session.say(&format!("large: a file of {} bytes after rewriting", rewritten.file_bytes_max));

    let mut cluster = Cluster::connected(["one", "two"].map(NodeSpec::new), &[]);
    cluster[0].spec.peers.clear();
    cluster[0].start_ready().await;
    let empty_bytes = resident_bytes(&cluster[0]);
    let started = Instant::now();
    batches(&cluster[0], 0..records, put).await?;
    let fill_seconds = started.elapsed().as_secs_f64();
    let full_bytes = resident_bytes(&cluster[0]);
    let (user, id) = key(0);
    let key_bytes = "user".len() + user.len() + id.len();
    let per_record = |bytes: u64| bytes.saturating_sub(empty_bytes) as f64 / records as f64;
    let memory = per_record(full_bytes);

    let mut restarts = Vec::new();
    for _ in 0..session.rounds() {
        cluster[0].kill();
        cluster[0].start();
        restarts.push(ready_after(&cluster[0]).await);
    }
    let restarted_bytes = resident_bytes(&cluster[0]);
    let (mut joins, mut joined) = (Vec::new(), 0);
    for _ in 0..session.rounds() {
        cluster[1].start();
        joins.push(ready_after(&cluster[1]).await);
        joined = table(&cluster[1]).await["live"].as_u64().context("a count of records")?;
        cluster[1].kill();
        cluster[1].wipe();
    }
    session.say(&format!("large: restarts {restarts:.2?} s, joins {joins:.2?} s"));
    let (writes, joined_beside_writes) = join_beside_writes(&mut cluster, records).await?;
    session.say(&format!(
        "large: of {} writes beside a join of {joined_beside_writes:.2} s the longest took {:.0} ms",
        writes.count,
        writes.max_us / 1_000.0
    ));
    session.results.large = Some(Large {
        records,
        value_bytes: VALUE_BYTES,
        key_bytes,
        fill_seconds,
        memory_bytes_per_record: memory,
        memory_bytes_per_record_beyond_key_and_value: memory - (key_bytes + VALUE_BYTES) as f64,
        memory_bytes_per_record_after_restart: per_record(restarted_bytes),
        restart_ready_seconds: median(restarts).context("a restart")?,
        empty_node_ready_seconds: median(joins).context("a join")?,
        empty_node_records: joined,
        empty_node_ready_seconds_beside_writes: joined_beside_writes,
        writes_beside_a_join: writes,
        tombstones,
        memory_bytes_per_tombstone,
        rewritten,
    });
    Ok(())
}

/// Lets the empty second node join while clients write to the first, half of them touches. How long the writes took, from
/// when each was due, and after how many seconds the node was ready.
async fn join_beside_writes(cluster: &mut Cluster, records: u64) -> anyhow::Result<(Percentiles, f64)> {
    let is_done = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (node, is_done) = (cluster[0].spec.client, is_done.clone());
        writers.spawn(async move { write_until(node, writer, records, &is_done).await });
    }
    tokio::time::sleep(BESIDE).await;
    cluster[1].start();
    let joined = ready_after(&cluster[1]).await;
    tokio::time::sleep(BESIDE).await;
    is_done.store(true, Ordering::Relaxed);
    let mut all = latencies();
    while let Some(writer) = writers.join_next().await {
        all.add(writer??)?;
    }
    Ok((Percentiles::of(&all).context("writes")?, joined))
}

async fn write_until(
    node: SocketAddr,
    writer: u64,
    records: u64,
    is_done: &AtomicBool,
) -> anyhow::Result<Histogram<u64>> {
    let (mut taken, mut due) = (latencies(), tokio::time::interval(WRITE_EVERY));
    let mut number = writer;
    while !is_done.load(Ordering::Relaxed) {
        let since = due.tick().await;
        // A prime that goes through all of them.
        number = (number + 7_368_787) % records;
        let (user, session) = key(number);
        let request = if number.is_multiple_of(2) {
            Request::new(node, "PUT", format!("/v1/tables/sessions/records/user/{user}/{session}?ttl=1d"))
                .body(value())
        } else {
            Request::new(
                node,
                "POST",
                format!("/v1/tables/sessions/touch/user/{user}/{session}?ttl=2d&exact=true"),
            )
        };
        let code = request.send().await.code();
        anyhow::ensure!(code == 204, "a write was answered {code}");
        taken.record(u64::try_from(since.elapsed().as_nanos())?)?;
    }
    Ok(taken)
}

/// Deletes of keys that never were: their tombstones are all that they leave in memory.
async fn tombstones(count: u64) -> anyhow::Result<(u64, f64)> {
    let cluster = Cluster::start(1).await;
    // What the first requests make is not the tombstones'.
    batches(&cluster[0], 0..BATCH * CLIENTS, delete).await?;
    let before = (resident_bytes(&cluster[0]), tombstones_held(&cluster[0]).await?);
    batches(&cluster[0], BATCH * CLIENTS..count, delete).await?;
    let after = (resident_bytes(&cluster[0]), tombstones_held(&cluster[0]).await?);
    let made = after.1 - before.1;
    Ok((after.1, after.0.saturating_sub(before.0) as f64 / made.max(1) as f64))
}

async fn tombstones_held(node: &Node) -> anyhow::Result<u64> {
    table(node).await["tombstones"].as_u64().context("a count of tombstones")
}

/// Rewrites all records again and again, looking at the file after each time.
async fn rewrite(records: u64) -> anyhow::Result<Rewritten> {
    let cluster = Cluster::start(1).await;
    let mut file_bytes_max = 0;
    for _ in 0..REWRITTEN.1 {
        batches(&cluster[0], 0..records, put).await?;
        let status = cluster[0].status().await;
        file_bytes_max = file_bytes_max.max(status["storage"]["fileBytes"].as_u64().context("a size")?);
    }
    let live_bytes = cluster[0].status().await["storage"]["liveBytes"].as_u64().context("a size")?;
    Ok(Rewritten { records, writes: records * REWRITTEN.1, file_bytes_max, live_bytes })
}

fn resident_bytes(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process().id())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kibibytes| kibibytes.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// The table of the status.
async fn table(node: &Node) -> Value {
    node.status().await["tables"][0].clone()
}

/// User and session of a record.
fn key(number: u64) -> (String, String) {
    (format!("{:06}", number / 3), format!("{number:032x}"))
}

fn put(number: u64) -> Value {
    let (user, session) = key(number);
    json!({"op": "put", "key": ["user", user, session], "value": STANDARD.encode(value()), "ttlMs": DAY_MS})
}

fn delete(number: u64) -> Value {
    let (user, session) = key(number);
    json!({"op": "delete", "key": ["user", user, session]})
}

/// Sends an operation for each number, in batches.
async fn batches(
    node: &Node,
    numbers: std::ops::Range<u64>,
    operation: fn(u64) -> Value,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for client in 0..CLIENTS {
        let (numbers, request) = (numbers.clone(), node.client("POST", "/v1/tables/sessions/batch"));
        tasks.spawn(async move {
            let mut first = numbers.start + client * BATCH;
            while first < numbers.end {
                let ops: Vec<Value> = (first..numbers.end.min(first + BATCH)).map(operation).collect();
                let body = json!({ "ops": ops }).to_string();
                let request = request.clone().header("content-type", "application/json").body(body);
                let answer = request.send().await;
                anyhow::ensure!(answer.code() == 200, "a batch was answered {}", answer.code());
                first += BATCH * CLIENTS;
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

async fn ready_after(node: &Node) -> f64 {
    let started = Instant::now();
    wait_until(PATIENCE, "the node is ready", async || node.is_ready().await).await;
    started.elapsed().as_secs_f64()
}
