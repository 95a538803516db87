//! etcd with its default settings, on the real disk; its clients are the Go program in `bench/etcd`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use mneme_tests::binary;
use mneme_tests::ports::free_loopback;
use mneme_tests::process::Process;

use super::{Running, Source, System, directory, wait_listening};
use crate::driver::Driver;
use crate::sample::{ClientProcess, Watched};

/// Source of the load driver.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/etcd");

/// Builds the load driver next to this program; Go builds what changed since the last time.
pub(crate) fn build_driver() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("mneme-bench-etcd");
    let built = std::process::Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(SOURCE)
        .status()
        .context("failed to run go")?;
    anyhow::ensure!(built.success(), "go build failed in {SOURCE}");
    Ok(program)
}

pub(super) async fn start(nodes: usize) -> anyhow::Result<Running> {
    let (driver, directory) = (build_driver()?, directory()?);
    let members: Vec<(SocketAddr, SocketAddr)> =
        (0..nodes).map(|_| (free_loopback(), free_loopback())).collect();
    let named = members.iter().enumerate().map(|(number, (_, peer))| format!("n{number}=http://{peer}"));
    let initial = named.collect::<Vec<_>>().join(",");
    let mut processes = Vec::new();
    for (number, (client, peer)) in members.iter().enumerate() {
        let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let name = format!("n{number}");
        let mut command: Vec<OsString> = vec![binary::required("etcd").into()];
        let flags = [
            ("--name", name.as_str()),
            ("--listen-client-urls", client.as_str()),
            ("--advertise-client-urls", client.as_str()),
            ("--listen-peer-urls", peer.as_str()),
            ("--initial-advertise-peer-urls", peer.as_str()),
            ("--initial-cluster", initial.as_str()),
            ("--logger", "zap"),
            ("--log-level", "error"),
        ];
        command.extend(flags.into_iter().flat_map(|(flag, value)| [flag, value]).map(OsString::from));
        command.extend(["--data-dir".into(), directory.path().join(&name).into()]);
        processes.push(Process::start("etcd", command, &directory.path().join(format!("{name}.log"))));
    }
    for (client, _) in &members {
        wait_listening(*client, "etcd").await;
    }
    let mut command = vec![driver.into_os_string()];
    command.extend(members.iter().map(|(client, _)| OsString::from(client.to_string())));
    let driver = Driver::start(&command, &[], &directory.path().join("driver.log")).await?;
    let servers = processes.iter().map(Process::id).collect();
    Ok(Running {
        system: System::Etcd,
        nodes,
        watched: Watched { servers, client: ClientProcess::Other(driver.id()) },
        source: Source::Driver(Box::new(driver)),
        cluster: None,
        _processes: processes,
        _directory: Some(directory),
    })
}
