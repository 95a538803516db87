//! The command line. Every flag is also `MNEME_<FLAG>` in the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mneme_api::parse_duration;

use crate::storage::Durability;
use crate::telemetry::LogFormat;

/// A replicated session cache: sign in on any node, be signed in on every node; sign out once, stay signed out.
#[derive(Debug, Parser)]
#[command(name = "mneme-node", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node.
    Run(Box<RunFlags>),
    /// Run a cluster on this machine, to try things out: node i has client port 7070+10i.
    Dev {
        /// Number of nodes, 1 to 9.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
        nodes: u16,
        /// Directory of the nodes' data.
        #[arg(long, value_name = "DIR", default_value = "mneme-dev")]
        dir: PathBuf,
    },
    /// Check a configuration file: every error with its line.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// Print the current records of a stopped node, one JSON object a line.
    Dump {
        /// Data directory of the node.
        #[arg(long, value_name = "DIR", env = "MNEME_DATA_DIR", default_value = "mneme-data")]
        data_dir: PathBuf,
        /// Write them as a table of a new SQLite file instead.
        #[arg(long, value_name = "FILE")]
        sqlite: Option<PathBuf>,
        /// Leave out a table; repeatable.
        #[arg(long, value_name = "TABLE")]
        drop_table: Vec<String>,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// Flags of `run`. What is not given comes from the configuration file, else is the default.
#[derive(Args, Clone, Debug, Default)]
pub struct RunFlags {
    /// Directory that holds mneme.db; created if missing. [default: ./mneme-data]
    #[arg(long, value_name = "DIR", env = "MNEME_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Label for people; identity is in the file. [default: the host name]
    #[arg(long, value_name = "NAME", env = "MNEME_NODE_NAME")]
    pub node_name: Option<String>,
    /// Where clients connect. [default: 127.0.0.1:7070]
    #[arg(long, value_name = "IP:PORT", env = "MNEME_CLIENT_ADDR")]
    pub client_addr: Option<SocketAddr>,
    /// Where peers connect. [default: 127.0.0.1:7071]
    #[arg(long, value_name = "IP:PORT", env = "MNEME_PEER_ADDR")]
    pub peer_addr: Option<SocketAddr>,
    /// Where probes and metrics are. [default: 127.0.0.1:7072]
    #[arg(long, value_name = "IP:PORT", env = "MNEME_ADMIN_ADDR")]
    pub admin_addr: Option<SocketAddr>,
    /// How peers reach the peer port. [default: the peer address, or what peers see]
    #[arg(long, value_name = "HOST:PORT", env = "MNEME_ADVERTISE")]
    pub advertise: Option<String>,
    /// Name of the cluster; nodes of another are never merged. [default: mneme]
    #[arg(long, value_name = "NAME", env = "MNEME_CLUSTER")]
    pub cluster: Option<String>,
    /// Configuration file: tables and any flag, YAML, in camelCase.
    #[arg(long, value_name = "FILE", env = "MNEME_CONFIG")]
    pub config: Option<PathBuf>,
    /// Address of a peer; repeatable, a host without a port means port 7071.
    #[arg(long, value_name = "HOST[:PORT]", env = "MNEME_PEER", value_delimiter = ',')]
    pub peer: Vec<String>,
    /// File with one peer a line, or in the format of .hosts.erlang; watched.
    #[arg(long, value_name = "FILE", env = "MNEME_PEERS_FILE")]
    pub peers_file: Option<PathBuf>,
    /// Name whose A and AAAA records are peers: a headless service; repeatable.
    #[arg(long, value_name = "NAME[:PORT]", env = "MNEME_PEERS_DNS", value_delimiter = ',')]
    pub peers_dns: Vec<String>,
    /// Name whose SRV records are peers; repeatable.
    #[arg(long, value_name = "NAME", env = "MNEME_PEERS_SRV", value_delimiter = ',')]
    pub peers_srv: Vec<String>,
    /// DNS server to ask for every name of a peer. [default: the system's]
    #[arg(long, value_name = "IP:PORT", env = "MNEME_DNS_SERVER")]
    pub dns_server: Option<SocketAddr>,
    /// When a write counts as durable: on the disk, or with the operating system. [default: fsync]
    #[arg(long, env = "MNEME_DURABILITY")]
    pub durability: Option<Durability>,
    /// How long a joining node tries its known addresses before it serves without them. [default: 5s]
    #[arg(long, value_name = "DURATION", env = "MNEME_JOIN_TIMEOUT", value_parser = duration)]
    pub join_timeout: Option<Duration>,
    /// How long a stop may take. [default: 10s]
    #[arg(long, value_name = "DURATION", env = "MNEME_SHUTDOWN_GRACE", value_parser = duration)]
    pub shutdown_grace: Option<Duration>,
    /// File with lines `name:token`; then every request of a client needs one. Reread when it changes.
    #[arg(long, value_name = "FILE", env = "MNEME_AUTH_TOKENS_FILE")]
    pub auth_tokens_file: Option<PathBuf>,
    /// File whose lines are the cluster's secret: each is valid, the first is used. Reread when it changes.
    #[arg(long, value_name = "FILE", env = "MNEME_CLUSTER_SECRET_FILE")]
    pub cluster_secret_file: Option<PathBuf>,
    /// Listen beyond loopback without tokens or secret.
    #[arg(long, env = "MNEME_NO_AUTH")]
    pub no_auth: bool,
    /// How log lines look. [default: text]
    #[arg(long, env = "MNEME_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug or trace. [default: info]
    #[arg(long, value_name = "LEVEL", env = "MNEME_LOG_LEVEL")]
    pub log_level: Option<String>,
    /// Stop when standard input ends: how `dev` takes its nodes with it.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

impl RunFlags {
    /// Flags under which a file is checked: whether its ports need secrets depends on where it is used.
    pub fn for_check() -> Self {
        Self { no_auth: true, ..Self::default() }
    }
}
