//! What is measured: each system started fresh in a directory of its own, on ports of 127.0.0.1.

mod bare;
mod bare_replicas;
mod etcd;
mod mnesia;
mod nginx;
mod redis;

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use clap::ValueEnum;
use mneme_tests::cluster::Cluster;
use mneme_tests::process::Process;
use mneme_tests::wait::wait_until;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::net::TcpStream;

pub(crate) use self::bare::serve as serve_bare;
pub(crate) use self::bare_replicas::serve as serve_bare_replica;
use crate::connection::{Connection, Http, Http2, Resp};
use crate::driver::Driver;
use crate::figures::Measured;
use crate::load::{self, Client, Tally, Timer};
use crate::sample::{ClientProcess, Sample, Watched, measured};
use crate::workload::{GROUP, Shape, Spec};

/// Longest wait for a server to listen.
const STARTED_MAX: Duration = Duration::from_secs(30);
/// Connections that fill, and records of one of their requests.
const FILL: (usize, u64) = (8, 100);

/// A system with the settings that matter. What a write waits for is in the label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// Applied by every node, on the disk of a majority.
    MnemeFsync,
    /// Applied by every node, with the operating system of a majority.
    MnemeCommit,
    /// Redis, append-only file, fsync every second; `WAIT 2`.
    RedisEverysec,
    /// Redis, append-only file, fsync before an answer; `WAIT 2`.
    RedisAlways,
    /// On the disk of a majority.
    Etcd,
    /// `disc_copies` and `transaction`: on no disk yet.
    MnesiaTransaction,
    /// `disc_copies` and `sync_transaction`: on no disk yet.
    MnesiaSync,
    /// Bare hyper servers that send writes to each other and append them to SQLite files: on the disk of a majority.
    BareReplicas,
    /// A bare hyper server that answers the bytes of a session.
    Hyper,
    /// nginx with a file of the same bytes.
    Nginx,
}

impl System {
    /// Those that keep sessions on several nodes.
    pub(crate) const REPLICATED: [Self; 7] = [
        Self::MnemeFsync,
        Self::MnesiaTransaction,
        Self::RedisAlways,
        Self::MnemeCommit,
        Self::MnesiaSync,
        Self::RedisEverysec,
        Self::Etcd,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::MnemeFsync => "Mneme, fsync",
            Self::MnemeCommit => "Mneme, commit",
            Self::RedisEverysec => "Redis, everysec, WAIT 2",
            Self::RedisAlways => "Redis, always, WAIT 2",
            Self::Etcd => "etcd",
            Self::MnesiaTransaction => "Mnesia, transaction",
            Self::MnesiaSync => "Mnesia, sync_transaction",
            Self::BareReplicas => "bare replicas",
            Self::Hyper => "bare hyper",
            Self::Nginx => "nginx, a file",
        }
    }

    /// Where a write is when it is acknowledged.
    pub(crate) fn acknowledged(self) -> &'static str {
        match self {
            Self::MnemeFsync => "memory of all, disk of a majority",
            Self::MnemeCommit => "memory of all, page cache of a majority",
            Self::RedisEverysec => "memory and page cache of all",
            Self::RedisAlways => "disk of all",
            Self::Etcd | Self::BareReplicas => "disk of a majority",
            Self::MnesiaTransaction => "memory of one, under way to the others",
            Self::MnesiaSync => "memory of all",
            Self::Hyper | Self::Nginx => "",
        }
    }

    /// Starts `nodes` of it, empty.
    pub(crate) async fn start(self, nodes: usize) -> anyhow::Result<Running> {
        match self {
            Self::MnemeFsync => Ok(mneme(self, nodes, "fsync").await),
            Self::MnemeCommit => Ok(mneme(self, nodes, "commit").await),
            Self::RedisEverysec => redis::start(self, nodes, "everysec").await,
            Self::RedisAlways => redis::start(self, nodes, "always").await,
            Self::Etcd => etcd::start(nodes).await,
            Self::MnesiaTransaction => mnesia::start(self, nodes, "transaction").await,
            Self::MnesiaSync => mnesia::start(self, nodes, "sync_transaction").await,
            Self::BareReplicas => bare_replicas::start(nodes).await,
            Self::Hyper => bare::start().await,
            Self::Nginx => nginx::start().await,
        }
    }
}

async fn mneme(system: System, nodes: usize, durability: &str) -> Running {
    let cluster = Cluster::start_with(nodes, &["--durability", durability]).await;
    Running::of_cluster(system, cluster)
}

/// Where the load comes from.
enum Source {
    /// Clients here, shared out among these addresses.
    Http(Vec<SocketAddr>),
    Resp(SocketAddr),
    /// Clients elsewhere.
    Driver(Box<Driver>),
}

/// A system that runs; dropped, its processes are killed and its files removed.
pub(crate) struct Running {
    pub(crate) system: System,
    pub(crate) nodes: usize,
    source: Source,
    watched: Watched,
    // The processes before the directories they write to.
    cluster: Option<Cluster>,
    _processes: Vec<Process>,
    _directory: Option<TempDir>,
}

impl Running {
    /// Nodes of Mneme that run.
    pub(crate) fn of_cluster(system: System, cluster: Cluster) -> Self {
        let running = || cluster.nodes().iter().filter(|node| node.is_started());
        let addresses: Vec<SocketAddr> = running().map(|node| node.spec.client).collect();
        let servers = running().map(|node| node.process().id()).collect();
        Self {
            system,
            nodes: addresses.len(),
            source: Source::Http(addresses),
            watched: Watched { servers, client: ClientProcess::This },
            cluster: Some(cluster),
            _processes: Vec::new(),
            _directory: None,
        }
    }

    /// Its nodes, of Mneme.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Where its first node takes clients, when they come from here.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match &self.source {
            Source::Http(addresses) => addresses.first().copied(),
            Source::Resp(address) => Some(*address),
            Source::Driver(_) => None,
        }
    }

    /// Writes every key once, where there is something to write to.
    pub(crate) async fn fill(&mut self, keys: u64) -> anyhow::Result<()> {
        if matches!(self.system, System::Hyper | System::Nginx | System::BareReplicas) {
            return Ok(());
        }
        let (connections, records) = FILL;
        match &mut self.source {
            Source::Http(addresses) => {
                load::fill(http(addresses, connections).await?, 0..keys, records).await
            }
            Source::Resp(address) => load::fill(resp(*address, connections).await?, 0..keys, records).await,
            Source::Driver(driver) => driver.fill(keys).await,
        }
    }

    /// Writes these keys once, `records` a request; of Mneme.
    pub(crate) async fn fill_range(&mut self, keys: Range<u64>, records: u64) -> anyhow::Result<()> {
        let Source::Http(addresses) = &self.source else { anyhow::bail!("only nodes of Mneme grow") };
        load::fill(http(addresses, FILL.0).await?, keys, records).await
    }

    /// Measures.
    pub(crate) async fn measure(&mut self, spec: &Spec) -> anyhow::Result<Measured> {
        let (before, after, tally) = self.run(spec).await?;
        Ok(measured(before, after, &tally))
    }

    /// Runs the load and gives all that clients saw.
    pub(crate) async fn run(&mut self, spec: &Spec) -> anyhow::Result<(Sample, Sample, Tally)> {
        let watched = self.watched.clone();
        let sample = || Sample::take(&watched);
        match &mut self.source {
            Source::Driver(driver) => driver.measure(spec, sample).await,
            Source::Resp(address) => looped(resp(*address, spec.clients).await?, spec, sample).await,
            Source::Http(addresses) if spec.shape == Shape::Streams => {
                looped(http2(addresses, spec.clients).await?, spec, sample).await
            }
            Source::Http(addresses) => looped(http(addresses, spec.clients).await?, spec, sample).await,
        }
    }
}

async fn looped<C: Client + 'static>(
    clients: Vec<C>,
    spec: &Spec,
    sample: impl FnMut() -> Sample,
) -> anyhow::Result<(Sample, Sample, Tally)> {
    match spec.rate {
        Some(rate) => load::open(clients, spec, rate, Timer::start()?, sample).await,
        None => load::closed(clients, spec, sample).await,
    }
}

async fn http(addresses: &[SocketAddr], count: usize) -> anyhow::Result<Vec<Connection<Http>>> {
    let mut clients = Vec::with_capacity(count);
    for address in addresses.iter().cycle().take(count) {
        clients.push(Connection::open(*address, Http::new(*address)).await?);
    }
    Ok(clients)
}

/// Clients that share connections, [`GROUP`] each.
async fn http2(addresses: &[SocketAddr], count: usize) -> anyhow::Result<Vec<Http2>> {
    let mut clients = Vec::with_capacity(count);
    for address in addresses.iter().cycle().take(count.div_ceil(GROUP)) {
        let client = Http2::open(*address).await?;
        clients.extend(std::iter::repeat_n(client, GROUP.min(count - clients.len())));
    }
    Ok(clients)
}

async fn resp(address: SocketAddr, count: usize) -> anyhow::Result<Vec<Connection<Resp>>> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(Connection::open(address, Resp::new()).await?);
    }
    Ok(clients)
}

/// A directory for the files of one system.
fn directory() -> anyhow::Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("mneme-bench-").tempdir()?)
}

async fn wait_listening(address: SocketAddr, what: &str) {
    let what = format!("{what} listens at {address}");
    wait_until(STARTED_MAX, &what, async || TcpStream::connect(address).await.is_ok()).await;
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;
    use crate::workload::Operation;

    const KEYS: u64 = 100;

    /// Every way in which nodes are asked: what a node answers otherwise than expected would be a figure of nothing.
    #[tokio::test]
    async fn nodes_of_mneme_do_what_is_asked_in_every_shape() {
        LocalSet::new()
            .run_until(async {
                let mut running = System::MnemeCommit.start(2).await.expect("two nodes");
                running.fill(KEYS).await.expect("records");
                let (warm, measured) = (Duration::from_millis(5), Duration::from_millis(100));
                for (operation, shape, rate) in [
                    (Operation::Mix, Shape::Single, None),
                    (Operation::Write, Shape::Single, Some(200)),
                    (Operation::Write, Shape::Batch, None),
                    (Operation::Read, Shape::Pipeline, None),
                    (Operation::Write, Shape::Streams, None),
                ] {
                    let spec = Spec { operation, shape, clients: 2, rate, keys: KEYS, warm, measured };
                    let measured = running.measure(&spec).await.expect("figures");
                    assert!(measured.operations > 0, "{spec:?}");
                    assert_eq!((measured.failed, measured.unanswered), (0, 0), "{spec:?}");
                    assert!(measured.servers_cpu_us > 0.0 && measured.client_cpu_us > 0.0, "{spec:?}");
                }
            })
            .await;
    }
}
