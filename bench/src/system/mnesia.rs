//! Mnesia: nodes of Erlang with one table of `disc_copies` on all; the clients are processes of the first node.
//!
//! Without busy waiting of schedulers: on cores that servers and clients share it would only show as processor time.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use mneme_tests::binary;
use mneme_tests::ports::free_port;
use mneme_tests::process::Process;

use super::{Running, Source, System, directory, wait_listening};
use crate::driver::Driver;
use crate::sample::{ClientProcess, Watched};

/// Source of the clients.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/mnesia/mneme_bench.erl");
const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn node(name: &str, code: &Path) -> Vec<OsString> {
    let mut command: Vec<OsString> = vec![binary::required("erl").into()];
    let quiet = ["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"];
    let named = ["-name", name, "-setcookie", "mneme-bench", "-start_epmd", "false", "-noshell"];
    let local = ["-kernel", "inet_dist_use_interface", "{127,0,0,1}"];
    command.extend(quiet.into_iter().chain(named).chain(local).map(OsString::from));
    command.extend(["-pa".into(), code.into()]);
    command
}

pub(super) async fn start(system: System, nodes: usize, transaction: &str) -> anyhow::Result<Running> {
    let directory = directory()?;
    let root = directory.path();
    let compiled = Command::new(binary::required("erlc")).arg("-o").arg(root).arg(SOURCE).status();
    anyhow::ensure!(compiled.context("failed to run erlc")?.success(), "erlc failed for {SOURCE}");
    let port = free_port(LOOPBACK);
    // HOME: where Erlang keeps a cookie that is not ours.
    let variables = [
        ("ERL_EPMD_PORT", port.to_string()),
        ("ERL_EPMD_ADDRESS", LOOPBACK.to_string()),
        ("HOME", root.display().to_string()),
    ];
    let mut processes = Vec::new();
    let mut start = |name: &str, command: Vec<OsString>| {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        processes.push(Process::start_with(name, command, variables, &root.join(format!("{name}.log"))));
    };
    let port_text = port.to_string();
    let mapper = [binary::required("epmd").into_os_string(), "-port".into(), port_text.into()];
    start("epmd", mapper.to_vec());
    wait_listening(SocketAddr::new(LOOPBACK, port), "epmd").await;
    let names: Vec<String> = (1..=nodes).map(|number| format!("m{number}@127.0.0.1")).collect();
    for name in &names[1..] {
        let mut command = node(name, root);
        command.push("-noinput".into());
        start(name, command);
    }
    let mut command = node(&names[0], root);
    let arguments =
        ["-run", "mneme_bench", "main", &root.display().to_string(), transaction].map(OsString::from);
    command.extend(arguments.into_iter().chain(names[1..].iter().map(OsString::from)));
    let driver = Driver::start(&command, &variables, &root.join("m1.log")).await?;
    // Without the port mapper, which idles.
    let servers = processes[1..].iter().map(Process::id).chain([driver.id()]).collect();
    Ok(Running {
        system,
        nodes,
        source: Source::Driver(Box::new(driver)),
        watched: Watched { servers, client: ClientProcess::Server },
        cluster: None,
        _processes: processes,
        _directory: Some(directory),
    })
}
