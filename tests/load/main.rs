//! The load driver: closed loop, figures as JSON.
//!
//! ```text
//! cargo build --release --workspace
//! target/release/load writes --nodes 3 --clients 32 --durability fsync
//! target/release/load reads --clients 32
//! target/release/load large --records 1000000
//! ```
//!
//! It starts its own nodes on loopback, in a directory that goes with it. Clients share the cores with the servers, so
//! the servers' processor time is what to compare; rates are for comparing within one run.

mod client;
mod large;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use hdrhistogram::Histogram;
use mneme_tests::cluster::Cluster;
use mneme_tests::ports;
use mneme_tests::process::Process;
use serde_json::{Value, json};

use self::client::{Connection, Operation};

/// Measures nodes on this machine.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Acknowledged writes: rate, latency, servers' processor time.
    Writes {
        #[command(flatten)]
        load: Load,
        /// Reads among the writes, percent.
        #[arg(long, default_value_t = 0)]
        reads: u32,
        /// When a write counts as durable.
        #[arg(long, default_value = "fsync")]
        durability: String,
        /// For whom a write waits.
        #[arg(long, default_value = "all")]
        ack: String,
    },
    /// Reads of one node beside a bare hyper server that answers the same bytes, interleaved.
    Reads {
        #[command(flatten)]
        load: Load,
        /// Turns.
        #[arg(long, default_value_t = 5)]
        turns: usize,
    },
    /// Many records: memory, restart, catching up of an empty node.
    Large {
        /// Records.
        #[arg(long, default_value_t = 1_000_000)]
        records: u64,
        /// Bytes of a value.
        #[arg(long, default_value_t = 300)]
        value_bytes: usize,
    },
    /// The bare server of `reads`.
    #[command(hide = true)]
    Bare { address: SocketAddr, value_bytes: usize },
}

#[derive(Args, Clone)]
struct Load {
    /// Nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Clients, each with one connection and one request at a time, spread over the nodes.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// How long, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 300)]
    value_bytes: usize,
    /// Keys of each client.
    #[arg(long, default_value_t = 1_000)]
    keys: u64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let figures = match Cli::parse().command {
        Command::Writes { load, reads, durability, ack } => writes(&load, reads, &durability, &ack).await?,
        Command::Reads { load, turns } => reads(&load, turns).await?,
        Command::Large { records, value_bytes } => large::run(records, value_bytes).await?,
        Command::Bare { address, value_bytes } => return client::serve_bare(address, value_bytes).await,
    };
    println!("{}", serde_json::to_string_pretty(&figures)?);
    Ok(())
}

/// What a closed loop gave.
struct Figures {
    latency: Histogram<u64>,
    operations: u64,
    failed: u64,
    elapsed: Duration,
}

impl Figures {
    fn json(&self) -> Value {
        let us = |quantile: f64| self.latency.value_at_quantile(quantile) as f64 / 1_000.0;
        json!({
            "operations": self.operations,
            "failed": self.failed,
            "perSecond": (self.operations as f64 / self.elapsed.as_secs_f64()).round(),
            "latencyUs": {"p50": us(0.5), "p90": us(0.9), "p99": us(0.99), "p999": us(0.999), "max": us(1.0)},
        })
    }
}

/// Runs `clients` closed loops for a while, each with its own sequence of operations.
async fn run(
    addresses: &[SocketAddr],
    load: &Load,
    duration: Duration,
    operation: impl Fn(usize, u64) -> Operation + Clone + Send + 'static,
) -> anyhow::Result<Figures> {
    let mut tasks = tokio::task::JoinSet::new();
    let started = Instant::now();
    for number in 0..load.clients {
        let mut connection = Connection::open(addresses[number % addresses.len()]).await?;
        let operation = operation.clone();
        tasks.spawn(async move {
            let mut latency = Histogram::<u64>::new(3).context("a histogram")?;
            let (mut operations, mut failed) = (0u64, 0u64);
            while started.elapsed() < duration {
                let operation = operation(number, operations + failed);
                let sent = Instant::now();
                if connection.send(&operation).await? {
                    operations += 1;
                    latency.record(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX))?;
                } else {
                    failed += 1;
                }
            }
            anyhow::Ok((latency, operations, failed))
        });
    }
    let latency = Histogram::<u64>::new(3).context("a histogram")?;
    let mut all = Figures { latency, operations: 0, failed: 0, elapsed: Duration::ZERO };
    while let Some(done) = tasks.join_next().await {
        let (latency, operations, failed) = done??;
        all.latency.add(latency).context("histograms of one kind")?;
        all.operations += operations;
        all.failed += failed;
    }
    all.elapsed = started.elapsed();
    Ok(all)
}

fn cpu_nanos(cluster: &Cluster) -> u64 {
    cluster.nodes().iter().map(|node| node.process().cpu_nanos()).sum()
}

async fn writes(load: &Load, reads: u32, durability: &str, ack: &str) -> anyhow::Result<Value> {
    let cluster = Cluster::start_with(load.nodes, &["--durability", durability]).await;
    let addresses: Vec<SocketAddr> = cluster.nodes().iter().map(|node| node.spec.client).collect();
    let (keys, value, ack) = (load.keys, "v".repeat(load.value_bytes), ack.to_owned());
    let operation = move |client: usize, number: u64| {
        let path = format!("/v1/tables/sessions/records/c/{client}/{}", number % keys);
        let is_read = number >= keys && number % 100 < u64::from(reads);
        if is_read {
            Operation { method: "GET", path, body: String::new() }
        } else {
            Operation { method: "PUT", path: format!("{path}?ack={ack}"), body: value.clone() }
        }
    };
    // The first second warms up and creates.
    run(&addresses, load, Duration::from_secs(1), operation.clone()).await?;
    let before = cpu_nanos(&cluster);
    let figures = run(&addresses, load, Duration::from_secs(load.seconds), operation).await?;
    let cpu = cpu_nanos(&cluster) - before;
    let mut json = figures.json();
    json["serversCpuUsPerOperation"] =
        json!((cpu as f64 / 1_000.0 / figures.operations as f64 * 10.0).round() / 10.0);
    json["nodes"] = json!(load.nodes);
    json["clients"] = json!(load.clients);
    json["durability"] = json!(durability);
    Ok(json)
}

async fn reads(load: &Load, turns: usize) -> anyhow::Result<Value> {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let path = "/v1/tables/sessions/records/user/42/abc";
    let value = "v".repeat(load.value_bytes);
    node.client("PUT", path)
        .header("content-type", "application/octet-stream")
        .body(value)
        .send()
        .await
        .expect(201);
    let bare_address = ports::free_loopback();
    let program = std::env::current_exe()?;
    let command = [
        program.into_os_string(),
        "bare".into(),
        bare_address.to_string().into(),
        load.value_bytes.to_string().into(),
    ];
    let bare = Process::start("bare", command, &cluster.directory().join("bare.log"));
    mneme_tests::wait::wait_until(Duration::from_secs(10), "the bare server listens", async || {
        tokio::net::TcpStream::connect(bare_address).await.is_ok()
    })
    .await;
    let operation = move |_, _| Operation { method: "GET", path: path.to_owned(), body: String::new() };
    let mut ratios = Vec::new();
    let (mut node_turns, mut bare_turns) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        let turn = Duration::from_secs(load.seconds);
        let mut rates = Vec::new();
        for (address, process, results) in
            [(bare_address, &bare, &mut bare_turns), (node.spec.client, node.process(), &mut node_turns)]
        {
            let before = process.cpu_nanos();
            let figures = run(&[address], load, turn, operation).await?;
            let cpu = process.cpu_nanos() - before;
            let mut json = figures.json();
            json["serverCpuUsPerOperation"] = json!(cpu as f64 / 1_000.0 / figures.operations as f64);
            rates.push((figures.operations as f64, cpu as f64 / figures.operations as f64));
            results.push(json);
        }
        ratios.push(json!({"rate": rates[1].0 / rates[0].0, "cpu": rates[1].1 / rates[0].1}));
    }
    Ok(json!({"nodeBesideBare": ratios, "bare": bare_turns, "node": node_turns}))
}
