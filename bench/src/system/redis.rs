//! Redis: one primary and its replicas, append-only files, no snapshots.

use std::ffi::OsString;
use std::net::SocketAddr;

use mneme_tests::binary;
use mneme_tests::ports::free_loopback;
use mneme_tests::process::Process;
use mneme_tests::wait::wait_until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Running, STARTED_MAX, Source, System, directory, wait_listening};
use crate::sample::{ClientProcess, Watched};

pub(super) async fn start(system: System, nodes: usize, fsync: &str) -> anyhow::Result<Running> {
    let directory = directory()?;
    let addresses: Vec<SocketAddr> = (0..nodes).map(|_| free_loopback()).collect();
    let primary = addresses[0];
    let mut processes = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let data = directory.path().join(number.to_string());
        std::fs::create_dir(&data)?;
        let mut command: Vec<OsString> = vec![binary::required("redis-server").into()];
        let port = address.port().to_string();
        let flags = ["--bind", "127.0.0.1", "--port", &port, "--appendonly", "yes", "--appendfsync", fsync];
        command.extend(flags.map(OsString::from));
        command.extend(["--save", "", "--repl-diskless-sync-delay", "0", "--dir"].map(OsString::from));
        command.push(data.into());
        if number > 0 {
            let primary_port = primary.port().to_string();
            command.extend(["--replicaof", "127.0.0.1", &primary_port].map(OsString::from));
        }
        let log = directory.path().join(format!("{number}.log"));
        processes.push(Process::start("redis-server", command, &log));
        wait_listening(*address, "redis-server").await;
    }
    wait_until(STARTED_MAX, "the replicas of Redis are online", async || {
        replication(primary).await.is_ok_and(|answer| answer.matches("state=online").count() == nodes - 1)
    })
    .await;
    Ok(Running {
        system,
        nodes,
        source: Source::Resp(primary),
        watched: Watched {
            servers: processes.iter().map(Process::id).collect(),
            client: ClientProcess::This,
        },
        cluster: None,
        _processes: processes,
        _directory: Some(directory),
    })
}

/// What the primary says of its replicas.
async fn replication(primary: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(primary).await?;
    stream.write_all(b"INFO replication\r\nQUIT\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
