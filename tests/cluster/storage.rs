//! The file under kill -9 and on a full volume.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mneme_tests::binary;
use mneme_tests::cluster::Cluster;
use mneme_tests::http::Request;
use mneme_tests::node::NodeSpec;
use mneme_tests::records::record;
use mneme_tests::volume::Volume;
use mneme_tests::wait::wait_until;

/// Kills of the loop.
const KILLS: usize = 50;
/// Clients that write at once.
const WRITERS: usize = 6;
/// Keys that each rewrites.
const KEYS: u64 = 4;
/// Large enough that a few kills' worth of rewriting makes compaction run.
const VALUE_BYTES: usize = 60_000;
const SOON: Duration = Duration::from_secs(30);

/// What one client was told.
#[derive(Default)]
struct Told {
    /// Highest number acknowledged, by key; all below it are superseded.
    acknowledged: BTreeMap<u64, u64>,
    /// Sessions whose delete was acknowledged.
    signed_out: Vec<String>,
    next: u64,
}

fn value(number: u64) -> String {
    format!("{number:020}{}", "v".repeat(VALUE_BYTES))
}

/// Writes until `is_over`; stops at the first request that fails, since the node is dead then.
async fn write(
    address: std::net::SocketAddr,
    writer: usize,
    mut told: Told,
    is_over: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> Told {
    while !is_over.load(Ordering::Relaxed) {
        told.next += 1;
        let (number, key) = (told.next, told.next % KEYS);
        let put = Request::new(address, "PUT", record(&format!("k/{writer}/{key}"))).body(value(number));
        match put.try_send().await {
            Ok(answer) if answer.status.is_success() => {
                told.acknowledged.insert(key, number);
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            _ => break,
        }
        if number.is_multiple_of(5) {
            let session = format!("out/{writer}/{number}");
            let put = Request::new(address, "PUT", record(&session)).body("v");
            let delete = Request::new(address, "DELETE", record(&session));
            let is_written = put.try_send().await.is_ok_and(|answer| answer.code() == 201);
            if is_written && delete.try_send().await.is_ok_and(|answer| answer.code() == 204) {
                told.signed_out.push(session);
            }
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_takes_what_was_acknowledged_or_brings_back_what_was_signed_out() {
    let mut cluster = Cluster::start(1).await;
    let address = cluster[0].spec.client;
    let mut clients: Vec<Told> = (0..WRITERS).map(|_| Told::default()).collect();
    let mut all = 0;
    for kill in 0..KILLS {
        let (is_over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let spawn = |(writer, told)| {
            tokio::spawn(write(address, writer, told, is_over.clone(), acknowledged.clone()))
        };
        let tasks: Vec<_> = clients.drain(..).enumerate().map(spawn).collect();
        // Another moment each time: after 5 to 64 acknowledgements.
        let wanted = 5 + u64::try_from(kill * 37 % 60).expect("small");
        wait_until(SOON, "writes go on", async || acknowledged.load(Ordering::Relaxed) >= wanted).await;
        cluster[0].kill();
        is_over.store(true, Ordering::Relaxed);
        for task in tasks {
            clients.push(task.await.expect("a client does not panic"));
        }
        all += acknowledged.load(Ordering::Relaxed);
        cluster[0].start_ready().await;
        for (writer, told) in clients.iter().enumerate() {
            for (key, number) in &told.acknowledged {
                let read = cluster[0].read(&format!("k/{writer}/{key}")).await.expect(200).text();
                let found: u64 = read[..20].parse().expect("a number");
                assert!((*number..=told.next).contains(&found), "kill {kill}: {found} instead of {number}");
                assert!(read == value(found), "kill {kill}: the value of {found} is not whole");
            }
            for session in told.signed_out.iter().rev().take(5) {
                cluster[0].assert_read_status(session, 410).await;
            }
        }
    }
    for told in &clients {
        for session in &told.signed_out {
            cluster[0].assert_read_status(session, 410).await;
        }
    }
    let file = cluster[0].data_dir().join("mneme.db");
    let file_bytes = std::fs::metadata(file).expect("the file").len();
    println!("{KILLS} kills, {all} acknowledged writes of {VALUE_BYTES} bytes, file of {file_bytes} bytes");
    // Without compaction every write would still be in it.
    assert!(file_bytes < 150 << 20, "{file_bytes}");
    assert!(all * (VALUE_BYTES as u64) > 100 << 20, "too little was written for a compaction: {all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_volume_a_node_reads_and_follows_and_catches_up() {
    let mut cluster = Cluster::connected([NodeSpec::new("full"), NodeSpec::new("roomy")], &[]);
    let volume = Volume::mount(&cluster.directory().join("full-data"), "size=6m");
    cluster.start_all().await;
    cluster[0].put("before", "v").send().await.expect(201);
    let mut stored = 0;
    let status = loop {
        let put = cluster[0].put(&format!("fill/{stored}"), &"v".repeat(200_000));
        match put.send().await.code() {
            201 => stored += 1,
            status => break status,
        }
        assert!(stored < 200, "the volume never filled");
    };
    // The one that met the full volume may have been applied: unknown, or refused.
    assert!(matches!(status, 504 | 507 | 503), "{status}");
    wait_until(SOON, "clients are told that the volume is full", async || {
        cluster[0].put("refused", "v").send().await.code() == 507
    })
    .await;
    assert_eq!(cluster[0].status().await["node"]["state"], "readOnly");
    assert!(!cluster[0].is_ready().await, "another node can write, so this one is not ready");
    cluster[0].assert_value("before", "v").await;

    // The other goes on, and this one follows in memory.
    cluster[1].put("meanwhile", "v").send().await.expect(201);
    cluster[1].delete("before").send().await.expect(204);
    cluster[0].assert_value("meanwhile", "v").await;
    cluster[0].assert_read_status("before", 410).await;

    volume.remount("size=200m");
    wait_until(SOON, "the node takes writes again", async || {
        cluster[0].put("after", "v").send().await.status.is_success()
    })
    .await;
    cluster[0].wait_ready().await;
    // All of it is in its own file: alone after a kill it knows it.
    assert_eq!(cluster[1].terminate().await, 0);
    cluster[0].kill();
    let data = cluster[0].data_dir().display().to_string();
    let dump =
        Command::new(binary::mneme_node()).args(["dump", "--data-dir", &data]).output().expect("it runs");
    let dump = String::from_utf8(dump.stdout).expect("text");
    let has = |key: &str| dump.contains(&format!("\"key\":[\"{key}\"]"));
    assert!(has("meanwhile") && has("after") && !has("before"), "{} lines", dump.lines().count());
    assert!(dump.lines().count() >= stored, "{} of {stored} records", dump.lines().count());
    drop(cluster);
}
