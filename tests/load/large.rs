//! Many records on one node: memory, restart, and an empty node that joins.

use std::time::{Duration, Instant};

use mneme_tests::cluster::Cluster;
use mneme_tests::node::{Node, NodeSpec};
use mneme_tests::wait::wait_until;
use serde_json::{Value, json};

use crate::client::{Connection, Operation};

/// Records in one batch.
const BATCH: u64 = 500;
/// Batches under way at once.
const CLIENTS: u64 = 4;
/// Longest wait for a node to be ready.
const PATIENCE: Duration = Duration::from_secs(120);

fn resident_bytes(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process().id())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kibibytes| kibibytes.parse::<u64>().ok()).unwrap_or(0) << 10
}

fn key(number: u64) -> (String, String) {
    (format!("{:06}", number / 3), format!("{number:032x}"))
}

async fn fill(node: &Node, records: u64, value_bytes: usize) -> anyhow::Result<()> {
    use base64::Engine;
    let value = base64::engine::general_purpose::STANDARD.encode("v".repeat(value_bytes));
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let mut connection = Connection::open(node.spec.client).await?;
        let value = value.clone();
        tasks.spawn(async move {
            let mut first = client * BATCH;
            while first < records {
                let ops: Vec<Value> = (first..records.min(first + BATCH))
                    .map(|number| {
                        let (user, session) = key(number);
                        json!({"op": "put", "key": ["user", user, session], "value": value, "ttlMs": 86_400_000})
                    })
                    .collect();
                let body = json!({ "ops": ops }).to_string();
                let path = "/v1/tables/sessions/batch".to_owned();
                let is_done = connection.send(&Operation { method: "POST", path, body }).await?;
                anyhow::ensure!(is_done, "a batch was refused");
                first += BATCH * CLIENTS;
            }
            anyhow::Ok(())
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

pub(crate) async fn run(records: u64, value_bytes: usize) -> anyhow::Result<Value> {
    let mut cluster = Cluster::connected(["one", "two"].map(NodeSpec::new), &[]);
    cluster[0].spec.peers.clear();
    cluster[0].start_ready().await;
    let empty_bytes = resident_bytes(&cluster[0]);
    let started = Instant::now();
    fill(&cluster[0], records, value_bytes).await?;
    let fill_seconds = started.elapsed().as_secs_f64();
    let full_bytes = resident_bytes(&cluster[0]);
    let (user, session) = key(0);
    let key_bytes = "user".len() + user.len() + session.len();
    let per_record = (full_bytes - empty_bytes) as f64 / records as f64;
    let status = cluster[0].status().await;

    cluster[0].kill();
    cluster[0].start();
    let restart_seconds = ready_after(&cluster[0]).await;
    let restarted_bytes = resident_bytes(&cluster[0]);
    cluster[1].start();
    let join_seconds = ready_after(&cluster[1]).await;
    let joined = cluster[1].status().await["tables"][0]["live"].clone();
    Ok(json!({
        "records": records,
        "valueBytes": value_bytes,
        "keyBytes": key_bytes,
        "fillSeconds": fill_seconds,
        "memoryBytesPerRecord": per_record,
        "memoryBytesPerRecordBeyondKeyAndValue": per_record - (key_bytes + value_bytes) as f64,
        "memoryBytesPerRecordAfterRestart": (restarted_bytes.saturating_sub(empty_bytes)) as f64 / records as f64,
        "fileBytes": status["storage"]["fileBytes"],
        "restartReadySeconds": restart_seconds,
        "emptyNodeReadySeconds": join_seconds,
        "emptyNodeRecords": joined,
    }))
}
