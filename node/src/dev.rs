//! `mneme-node dev`: a cluster on this machine, to try things out and break them.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::process::{Child, Command};

/// How often the line of the state is written anew.
const STATUS_PAUSE: Duration = Duration::from_secs(1);
/// Time the nodes have to stop.
const STOP_MAX: Duration = Duration::from_secs(15);

/// Why no cluster runs.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// This program was not found, or a node did not start.
    #[error("failed to start node {number}")]
    Start {
        /// Which.
        number: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else has a port.
    #[error("port {port} of node {number} is in use: is another `dev` running?")]
    Port {
        /// Whose.
        number: u16,
        /// Which.
        port: u16,
        /// Why it cannot be had.
        #[source]
        source: std::io::Error,
    },
    /// A node ended before it was ready.
    #[error("node {number} ended at once; its log is {log}")]
    Ended {
        /// Which.
        number: u16,
        /// Its log.
        log: PathBuf,
    },
    /// The directory.
    #[error("failed to write to {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// One node of the cluster.
struct DevNode {
    number: u16,
    child: Child,
    log: PathBuf,
}

fn port(number: u16, base: u16) -> u16 {
    base + 10 * number
}

/// Runs `nodes` nodes with their data under `directory` until `shutdown`.
///
/// # Errors
///
/// [`DevError`]; nodes that were started are stopped.
pub async fn dev(nodes: u16, directory: &Path, shutdown: impl Future<Output = ()>) -> Result<(), DevError> {
    let mut started = Vec::new();
    for number in 0..nodes {
        check_ports(number)?;
    }
    for number in 0..nodes {
        started.push(start(number, nodes, directory)?);
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut shutdown = std::pin::pin!(shutdown);
    let outcome = tokio::select! {
        outcome = wait_until_ready(&client, &mut started) => outcome,
        () = &mut shutdown => return stop(started).await,
    };
    if let Err(error) = outcome {
        stop(started).await?;
        return Err(error);
    }
    introduce(nodes, &started);
    let mut ticks = tokio::time::interval(STATUS_PAUSE);
    let mut last_line = String::new();
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            _ = ticks.tick() => {
                // One that was killed is waited for, so that nothing of it is left.
                for node in &mut started {
                    let _ = node.child.try_wait();
                }
                show_state(&client, nodes, &mut last_line).await;
            }
        }
    }
    println!();
    stop(started).await
}

/// A port that somebody else has would answer as if the node were there.
fn check_ports(number: u16) -> Result<(), DevError> {
    for base in [7070, 7071, 7072] {
        let port = port(number, base);
        // Given back at once: the node takes it in a moment.
        let taken = std::net::TcpListener::bind(("127.0.0.1", port));
        taken.map_err(|source| DevError::Port { number, port, source })?;
    }
    Ok(())
}

fn start(number: u16, nodes: u16, directory: &Path) -> Result<DevNode, DevError> {
    let failed = |source| DevError::Start { number, source };
    let data_dir = directory.join(format!("node-{number}"));
    let directory_failed = |source| DevError::Directory { path: data_dir.clone(), source };
    std::fs::create_dir_all(&data_dir).map_err(directory_failed)?;
    let log = data_dir.join("log.txt");
    let output = std::fs::File::options().create(true).append(true).open(&log).map_err(directory_failed)?;
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.arg("run").arg("--data-dir").arg(&data_dir).arg("--stop-with-stdin");
    command.args(["--node-name", &format!("node-{number}"), "--cluster", "mneme-dev"]);
    for (flag, base) in [("--client-addr", 7070), ("--peer-addr", 7071), ("--admin-addr", 7072)] {
        command.args([flag, &format!("127.0.0.1:{}", port(number, base))]);
    }
    for other in (0..nodes).filter(|other| *other != number) {
        command.args(["--peer", &format!("127.0.0.1:{}", port(other, 7071))]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(output);
    // Not in this terminal's group: Ctrl-C reaches this process, and it stops the nodes.
    let child = command.process_group(0).kill_on_drop(true).spawn().map_err(failed)?;
    Ok(DevNode { number, child, log })
}

type HttpClient = Client<HttpConnector, Empty<Bytes>>;

async fn is_ready(client: &HttpClient, number: u16) -> bool {
    let uri = format!("http://127.0.0.1:{}/readyz", port(number, 7072));
    let Ok(uri) = uri.parse() else { return false };
    client.get(uri).await.is_ok_and(|response| response.status().is_success())
}

async fn wait_until_ready(client: &HttpClient, nodes: &mut [DevNode]) -> Result<(), DevError> {
    for node in nodes {
        loop {
            let is_ready = is_ready(client, node.number).await;
            let ended = node.child.try_wait().ok().flatten();
            if ended.is_some() {
                return Err(DevError::Ended { number: node.number, log: node.log.clone() });
            }
            if is_ready {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

fn introduce(nodes: u16, started: &[DevNode]) {
    println!("{nodes} nodes are ready. Whatever you write to one you read from every other.\n");
    for node in started {
        let number = node.number;
        let (client, admin) = (port(number, 7070), port(number, 7072));
        println!(
            "node {number}   clients 127.0.0.1:{client}   peers 127.0.0.1:{}   admin 127.0.0.1:{admin}   process {}",
            port(number, 7071),
            node.child.id().unwrap_or_default()
        );
        println!("         log {}", node.log.display());
        let path = "v1/tables/sessions/records/user/42/abc";
        if number == 0 {
            println!("         curl -i -X PUT --data hello http://127.0.0.1:{client}/{path}");
        } else {
            println!("         curl -i http://127.0.0.1:{client}/{path}");
        }
    }
    println!("\nKill one with `kill -9 <process>` and go on with the others. Ctrl-C stops all.\n");
}

async fn show_state(client: &HttpClient, nodes: u16, last_line: &mut String) {
    let mut states = Vec::new();
    for number in 0..nodes {
        states.push(format!("node {number}: {}", state(client, number).await));
    }
    let line = states.join("   ");
    let mut output = std::io::stdout().lock();
    // Output that nobody reads is no reason to stop the cluster.
    let _ = if output.is_terminal() {
        write!(output, "\r\x1b[2K{line}")
    } else if line != *last_line {
        writeln!(output, "{line}")
    } else {
        Ok(())
    };
    let _ = output.flush();
    *last_line = line;
}

async fn state(client: &HttpClient, number: u16) -> String {
    let read = async {
        let uri = format!("http://127.0.0.1:{}/v1/status", port(number, 7070)).parse().ok()?;
        let body = client.get(uri).await.ok()?.into_body().collect().await.ok()?.to_bytes();
        let status: serde_json::Value = serde_json::from_slice(&body).ok()?;
        let state = status["node"]["state"].as_str()?.to_owned();
        let live: u64 = status["tables"].as_array()?.iter().filter_map(|table| table["live"].as_u64()).sum();
        Some(format!("{state}, {live} records"))
    };
    let read = tokio::time::timeout(Duration::from_millis(500), read).await;
    read.ok().flatten().unwrap_or_else(|| "down".to_owned())
}

/// Ends every node's standard input, which stops it, and waits.
async fn stop(started: Vec<DevNode>) -> Result<(), DevError> {
    let mut nodes = started;
    for node in &mut nodes {
        drop(node.child.stdin.take());
    }
    for node in &mut nodes {
        // Dropping what is left kills it.
        let _ = tokio::time::timeout(STOP_MAX, node.child.wait()).await;
    }
    Ok(())
}
