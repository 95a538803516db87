//! nginx, which answers every request with one file of the bytes of a session.

use mneme_tests::binary;
use mneme_tests::ports::free_loopback;
use mneme_tests::process::Process;
use mneme_tests::wait::wait_until;

use super::{Running, STARTED_MAX, Source, System, directory};
use crate::sample::{ClientProcess, Watched};
use crate::workload::value;

/// What all processes share. Each listens by itself and the system shares connections out among them.
fn configuration(address: &str, root: &str) -> String {
    format!(
        "daemon off;
master_process off;
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
        listen {address} reuseport;
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

/// A process a core, none with a master: the workers of a master that is killed would go on without it.
pub(super) async fn start() -> anyhow::Result<Running> {
    let (address, directory) = (free_loopback(), directory()?);
    let root = directory.path();
    std::fs::write(root.join("session"), value())?;
    let file = root.join("nginx.conf");
    std::fs::write(&file, configuration(&address.to_string(), &root.display().to_string()))?;
    let mut processes = Vec::new();
    for number in 0..std::thread::available_parallelism()?.get() {
        let id_file = format!("{number}.pid");
        let command = [
            binary::required("nginx").into_os_string(),
            "-p".into(),
            root.into(),
            "-c".into(),
            file.clone().into(),
            "-e".into(),
            "stderr".into(),
            "-g".into(),
            format!("pid {id_file};").into(),
        ];
        processes.push(Process::start("nginx", command, &root.join(format!("{number}.log"))));
        // Written once it listens.
        wait_until(STARTED_MAX, "nginx listens", async || root.join(&id_file).exists()).await;
    }
    Ok(Running {
        system: System::Nginx,
        nodes: 1,
        source: Source::Http(vec![address]),
        watched: Watched {
            servers: processes.iter().map(Process::id).collect(),
            client: ClientProcess::This,
        },
        cluster: None,
        _processes: processes,
        _directory: Some(directory),
    })
}
