//! nginx, which answers every request with one file of the bytes of a session.

use mneme_tests::binary;
use mneme_tests::ports::free_loopback;
use mneme_tests::process::Process;
use mneme_tests::wait::wait_for;

use super::{Running, STARTED_MAX, Source, System, directory, wait_listening};
use crate::sample::{ClientProcess, Watched};
use crate::workload::value;

/// Workers, one a core by `auto`.
fn configuration(address: &str, root: &str) -> String {
    // Workers that root starts would be of another user, who may not look into the directory.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "{user}
worker_processes auto;
daemon off;
pid nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    default_type application/octet-stream;
    sendfile on;
    open_file_cache max=10;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen {address};
        root {root};
        location / {{
            add_header Mneme-Ttl-Ms 1799991;
            try_files /session =404;
        }}
    }}
}}
"
    )
}

pub(super) async fn start() -> anyhow::Result<Running> {
    let (address, directory) = (free_loopback(), directory()?);
    let root = directory.path();
    std::fs::write(root.join("session"), value())?;
    let file = root.join("nginx.conf");
    std::fs::write(&file, configuration(&address.to_string(), &root.display().to_string()))?;
    let command = [
        binary::required("nginx").into_os_string(),
        "-p".into(),
        root.into(),
        "-c".into(),
        file.into(),
        "-e".into(),
        "stderr".into(),
    ];
    let process = Process::start("nginx", command, &root.join("log"));
    wait_listening(address, "nginx").await;
    let cores = std::thread::available_parallelism()?.get();
    let workers = wait_for(STARTED_MAX, "nginx has its workers", async || {
        let workers = children(process.id());
        (workers.len() == cores).then_some(workers)
    });
    let servers = workers.await.into_iter().chain([process.id()]).collect();
    Ok(Running {
        system: System::Nginx,
        nodes: 1,
        source: Source::Http(vec![address]),
        watched: Watched { servers, client: ClientProcess::This },
        cluster: None,
        _processes: vec![process],
        _directory: Some(directory),
    })
}

/// Process ids of a process' children.
fn children(parent: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    children.unwrap_or_default().split_whitespace().filter_map(|id| id.parse().ok()).collect()
}
