//! HAProxy and nginx in front of applications, with the configurations that users are given to copy.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::Process;
use crate::wait::wait_until;
use crate::{binary, ports};

/// A proxy of the two that people have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// HAProxy, `tests/cluster/haproxy.cfg`.
    HaProxy,
    /// nginx, `tests/cluster/nginx.conf`.
    Nginx,
}

impl ProxyKind {
    /// The configuration as users copy it.
    #[must_use]
    pub fn template(self) -> &'static str {
        match self {
            Self::HaProxy => include_str!("../cluster/haproxy.cfg"),
            Self::Nginx => include_str!("../cluster/nginx.conf"),
        }
    }

    /// The configuration with our addresses in the place of its examples.
    ///
    /// Both files mark what is to be changed: the line with `LISTEN` says where to listen, the lines with `SERVER` are
    /// one server each. What stands in those lines besides the address and the name stays as it is.
    ///
    /// # Panics
    ///
    /// When the file lacks one of the marks.
    #[must_use]
    pub fn configuration(self, listen: SocketAddr, servers: &[SocketAddr]) -> String {
        let mut text = String::new();
        let mut filled_servers = false;
        for line in self.template().lines() {
            if line.contains("# LISTEN") {
                line_with(&mut text, &line.replace(example_address(line), &listen.to_string()));
            } else if line.contains("# SERVER") {
                if !filled_servers {
                    for (number, server) in servers.iter().enumerate() {
                        let named = line.replace("app1", &format!("app{}", number + 1));
                        line_with(&mut text, &named.replace(example_address(line), &server.to_string()));
                    }
                }
                filled_servers = true;
            } else {
                line_with(&mut text, line);
            }
        }
        if self == Self::Nginx {
            // Only for the suite: nothing written outside its own directory, which `-p` names.
            text = text.replace("http {", concat!(
                "http {\n    access_log off;\n    client_body_temp_path body;\n    proxy_temp_path proxy;",
                "\n    fastcgi_temp_path fastcgi;\n    uwsgi_temp_path uwsgi;\n    scgi_temp_path scgi;",
            ));
        }
        assert!(filled_servers && text.contains(&listen.to_string()), "the marks of the template: {text}");
        text
    }
}

fn line_with(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}

/// The first word of a line that is an address with a port.
fn example_address(line: &str) -> &str {
    line.split([' ', ';'])
        .find(|word| word.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()))
        .unwrap_or_else(|| panic!("no address in the marked line {line:?}"))
}

/// A running proxy. Dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

impl Proxy {
    /// Starts it in front of `servers` and waits until it answers.
    ///
    /// # Panics
    ///
    /// When the program is missing or does not start.
    pub async fn start(kind: ProxyKind, servers: &[SocketAddr]) -> Self {
        let address = ports::free_loopback();
        let directory =
            tempfile::Builder::new().prefix("mneme-proxy-").tempdir().expect("a temporary directory");
        let file = directory.path().join("proxy.conf");
        std::fs::write(&file, kind.configuration(address, servers)).expect("a file in a new directory");
        let log = directory.path().join("log");
        let mut process = Process::start(&format!("{kind:?}"), command(kind, &file, &directory), &log);
        wait_until(Duration::from_secs(10), &format!("{kind:?} listens"), async || {
            assert!(process.ended().is_none(), "{kind:?} did not start");
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
        Self { address, _process: process, _directory: directory }
    }
}

/// The proxy in the foreground as one process, so that ending that process ends it.
fn command(kind: ProxyKind, file: &std::path::Path, directory: &TempDir) -> Vec<PathBuf> {
    let arguments: Vec<PathBuf> = match kind {
        ProxyKind::HaProxy => vec![binary::required("haproxy"), "-db".into(), "-f".into(), file.into()],
        ProxyKind::Nginx => vec![
            binary::required("nginx"),
            "-p".into(),
            directory.path().into(),
            "-c".into(),
            file.into(),
            "-e".into(),
            "stderr".into(),
            "-g".into(),
            "daemon off; master_process off; pid nginx.pid;".into(),
        ],
    };
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_prints_what_is_tested() {
        let readme = include_str!("../../README.md");
        for kind in [ProxyKind::HaProxy, ProxyKind::Nginx] {
            assert!(readme.contains(kind.template()), "README.md has another configuration for {kind:?}");
        }
    }

    #[test]
    fn every_server_gets_the_line_of_the_first_and_no_example_is_left() {
        let servers: Vec<SocketAddr> = ["127.0.0.1:4001", "127.0.0.1:4002", "127.0.0.1:4003"]
            .map(|text| text.parse().expect("one"))
            .into();
        for kind in [ProxyKind::HaProxy, ProxyKind::Nginx] {
            let text = kind.configuration("127.0.0.1:4000".parse().expect("an address"), &servers);
            for server in &servers {
                assert_eq!(text.matches(&server.to_string()).count(), 1, "{text}");
            }
            assert!(!text.contains("10.0.0."), "{text}");
        }
    }
}
