//! Configuration: flags, then the environment, then the YAML file, then defaults; validated before a port opens.

mod file;
mod flags;
mod reason;
mod reference;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mneme_api::{TableConfig, TableName};

pub use self::file::{ConfigError, FileConfig, check, read};
pub use self::flags::{Cli, Command, RunFlags};
pub use self::reference::reference;
use crate::peers::discovery::dns::Question;
use crate::peers::discovery::{Source, parse_address};
use crate::storage::Durability;
use crate::telemetry::LogFormat;

/// Everything a node is told, valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// Holds `mneme.db`.
    pub data_dir: PathBuf,
    /// Label for people.
    pub node_name: String,
    /// Where clients connect.
    pub client_addr: SocketAddr,
    /// Where peers connect.
    pub peer_addr: SocketAddr,
    /// Where probes and metrics are.
    pub admin_addr: SocketAddr,
    /// How peers reach the peer port; `None`: the peer address, or what they see.
    pub advertise: Option<String>,
    /// Name of the cluster.
    pub cluster: String,
    /// Where peers are found.
    pub sources: Vec<Source>,
    /// Whom to ask for names; `None`: whom the system asks.
    pub dns_server: Option<SocketAddr>,
    /// When a commit counts as durable.
    pub durability: Durability,
    /// How long a joining node tries its known addresses.
    pub join_timeout: Duration,
    /// How long a stop may take.
    pub shutdown_grace: Duration,
    /// Tokens for the client port.
    pub auth_tokens_file: Option<PathBuf>,
    /// The cluster secret.
    pub cluster_secret_file: Option<PathBuf>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_level: String,
    /// Declared tables, `max_bytes` 0 already replaced by the share of memory.
    pub tables: Vec<TableConfig>,
}

/// A cluster name is at most this long.
const NAME_BYTES_MAX: usize = 253;

/// A port beyond loopback needs a secret, unless somebody says that it does not.
fn is_exposed(address: SocketAddr) -> bool {
    // An IPv4 address may come dressed as one of IPv6.
    !address.ip().to_canonical().is_loopback()
}

/// Checks a name of a cluster or a node.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!("give 1 to {NAME_BYTES_MAX} printable characters"));
    }
    Ok(())
}

/// Reads an address at which peers reach this node: its port is no other node's to guess.
fn advertised_address(text: &str) -> Result<String, String> {
    let address = parse_address(text)?;
    if address == text { Ok(address) } else { Err("give host:port, an IPv6 address in brackets".to_owned()) }
}

/// Two ports cannot be one.
fn check_addresses(addresses: [(&'static str, SocketAddr); 3], errors: &mut Vec<ConfigError>) {
    for (index, (flag, address)) in addresses.iter().enumerate() {
        let twin = addresses[..index].iter().find(|(_, other)| other == address && address.port() != 0);
        if let Some((other, _)) = twin {
            errors.push(ConfigError::SameAddress { flag, other, address: *address });
        }
    }
}

impl Config {
    /// Puts flags (with the environment) over the file over the defaults.
    ///
    /// # Errors
    ///
    /// Every [`ConfigError`] there is.
    pub fn merge(flags: RunFlags, file: FileConfig) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let is_open = flags.no_auth || file.no_auth.unwrap_or(false);
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let client_addr = flags.client_addr.or(file.client_addr).unwrap_or(loopback(7070));
        let peer_addr = flags.peer_addr.or(file.peer_addr).unwrap_or(loopback(7071));
        let auth_tokens_file = flags.auth_tokens_file.or(file.auth_tokens_file);
        let cluster_secret_file = flags.cluster_secret_file.or(file.cluster_secret_file);
        if is_exposed(client_addr) && auth_tokens_file.is_none() && !is_open {
            errors.push(ConfigError::Exposed { flag: "--client-addr", needs: "--auth-tokens-file" });
        }
        if is_exposed(peer_addr) && cluster_secret_file.is_none() && !is_open {
            errors.push(ConfigError::Exposed { flag: "--peer-addr", needs: "--cluster-secret-file" });
        }
        let cluster = flags.cluster.or(file.cluster).unwrap_or_else(|| "mneme".to_owned());
        let node_name = flags.node_name.or(file.node_name).unwrap_or_else(host_name);
        for (name, value) in [("cluster", &cluster), ("nodeName", &node_name)] {
            if let Err(reason) = check_name(value) {
                errors.push(ConfigError::Value { name, reason });
            }
        }
        let advertise = flags.advertise.or(file.advertise).map(|text| advertised_address(&text));
        let advertise = advertise.transpose().unwrap_or_else(|reason| {
            errors.push(ConfigError::Value { name: "advertise", reason });
            None
        });
        let log_level = flags.log_level.or(file.log_level).unwrap_or_else(|| "info".to_owned());
        if let Err(reason) = crate::telemetry::filter(&log_level) {
            errors.push(ConfigError::Value { name: "logLevel", reason });
        }
        let sources = sources(
            or_file(flags.peer, file.peer),
            flags.peers_file.or(file.peers_file),
            or_file(flags.peers_dns, file.peers_dns),
            or_file(flags.peers_srv, file.peers_srv),
            &mut errors,
        );
        let tables = tables(file.tables, &mut errors);
        let admin_addr = flags.admin_addr.or(file.admin_addr).unwrap_or(loopback(7072));
        let addresses =
            [("--client-addr", client_addr), ("--peer-addr", peer_addr), ("--admin-addr", admin_addr)];
        check_addresses(addresses, &mut errors);
        let config = Self {
            data_dir: flags.data_dir.or(file.data_dir).unwrap_or_else(|| "mneme-data".into()),
            node_name,
            client_addr,
            peer_addr,
            admin_addr,
            advertise,
            cluster,
            sources,
            dns_server: flags.dns_server.or(file.dns_server),
            durability: flags.durability.or(file.durability).unwrap_or_default(),
            join_timeout: flags.join_timeout.or(file.join_timeout.map(|text| text.0)).unwrap_or(JOIN_TIMEOUT),
            shutdown_grace: flags
                .shutdown_grace
                .or(file.shutdown_grace.map(|text| text.0))
                .unwrap_or(SHUTDOWN_GRACE),
            auth_tokens_file,
            cluster_secret_file,
            log_format: flags.log_format.or(file.log_format).unwrap_or_default(),
            log_level,
            tables,
        };
        if errors.is_empty() { Ok(config) } else { Err(errors) }
    }
}

/// How long a joining node tries its known addresses by default.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stop may take by default.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

fn or_file<T>(flags: Vec<T>, file: Option<Vec<T>>) -> Vec<T> {
    if flags.is_empty() { file.unwrap_or_default() } else { flags }
}

fn sources(
    peers: Vec<String>,
    file: Option<PathBuf>,
    dns: Vec<String>,
    srv: Vec<String>,
    errors: &mut Vec<ConfigError>,
) -> Vec<Source> {
    let mut take = |name, parsed: Result<Source, String>| match parsed {
        Ok(source) => Some(source),
        Err(reason) => {
            errors.push(ConfigError::Value { name, reason });
            None
        }
    };
    let mut sources = Vec::new();
    if !peers.is_empty() {
        let addresses: Result<Vec<String>, String> = peers.iter().map(|peer| parse_address(peer)).collect();
        sources.extend(take("peer", addresses.map(Source::List)));
    }
    sources.extend(file.map(Source::File));
    for name in dns {
        sources.extend(take("peersDns", Question::addresses(&name).map(Source::Dns)));
    }
    for name in srv {
        sources.extend(take("peersSrv", Question::services(&name).map(Source::Dns)));
    }
    sources.sort();
    sources.dedup();
    sources
}

fn tables(declared: Option<Vec<TableConfig>>, errors: &mut Vec<ConfigError>) -> Vec<TableConfig> {
    let default = || "sessions".parse::<TableName>().map(TableConfig::new).into_iter().collect();
    let mut tables: Vec<TableConfig> = declared.unwrap_or_else(default);
    if tables.is_empty() {
        errors.push(ConfigError::Value { name: "tables", reason: "declare at least one table".to_owned() });
    }
    for (index, table) in tables.iter().enumerate() {
        if let Err(error) = table.validate() {
            errors.push(ConfigError::Table(error));
        }
        if tables[..index].iter().any(|other| other.name == table.name) {
            errors.push(ConfigError::Twice { table: table.name.clone() });
        }
    }
    share_memory(&mut tables, memory_limit_bytes());
    tables
}

/// Gives the tables without a bound of their own equal shares of 70 % of the memory limit.
fn share_memory(tables: &mut [TableConfig], limit_bytes: u64) {
    let bounded = tables.iter().fold(0, |sum: u64, table| sum.saturating_add(table.max_bytes));
    let shares = tables.iter().filter(|table| table.max_bytes == 0).count() as u64;
    let left = (limit_bytes / 10 * 7).saturating_sub(bounded);
    for table in tables.iter_mut().filter(|table| table.max_bytes == 0) {
        // 0 would be no bound at all.
        table.max_bytes = (left / shares.max(1)).max(1);
    }
}

/// Bytes of memory this process may use: its control group's limit, or what the machine has.
fn memory_limit_bytes() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let group = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse().ok());
    let machine = || {
        let text = read("/proc/meminfo")?;
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kibibytes << 10)
    };
    // Unknown: a gibibyte, which every machine has.
    group.or_else(machine).unwrap_or(1 << 30)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn flags(arguments: &[&str]) -> RunFlags {
        let cli = Cli::try_parse_from(["mneme-node", "run"].iter().chain(arguments)).expect("known flags");
        match cli.command {
            Command::Run(flags) => *flags,
            _ => unreachable!("run was asked for"),
        }
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let config = Config::merge(flags(&[]), FileConfig::default()).expect("valid");
        assert_eq!(config.client_addr.to_string(), "127.0.0.1:7070");
        assert_eq!(config.peer_addr.to_string(), "127.0.0.1:7071");
        assert_eq!(config.admin_addr.to_string(), "127.0.0.1:7072");
        assert_eq!((config.cluster.as_str(), config.data_dir.to_str()), ("mneme", Some("mneme-data")));
        assert_eq!(config.tables.len(), 1);
        assert_eq!(config.tables[0].name.as_str(), "sessions");
        assert!(config.tables[0].max_bytes > 1 << 20);
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = FileConfig {
            cluster: Some("file".to_owned()),
            node_name: Some("named".to_owned()),
            peer: Some(vec!["a".to_owned()]),
            ..FileConfig::default()
        };
        let config = Config::merge(flags(&["--cluster", "flag", "--peer", "b:1", "--peer", "c"]), file);
        let config = config.expect("valid");
        assert_eq!((config.cluster.as_str(), config.node_name.as_str()), ("flag", "named"));
        assert_eq!(config.sources, [Source::List(vec!["b:1".to_owned(), "c:7071".to_owned()])]);
    }

    #[test]
    fn a_port_beyond_loopback_needs_a_secret_or_a_word() {
        let exposed = ["--client-addr", "0.0.0.0:7070", "--peer-addr", "[::]:7071"];
        let errors = Config::merge(flags(&exposed), FileConfig::default()).expect_err("both are exposed");
        assert_eq!(errors.len(), 2);
        let mut allowed = exposed.to_vec();
        allowed.push("--no-auth");
        assert!(Config::merge(flags(&allowed), FileConfig::default()).is_ok());
    }

    #[test]
    fn every_error_is_told() {
        let text = |text: &str| Some(text.to_owned());
        let file = FileConfig {
            tables: Some(Vec::new()),
            peer: Some(vec!["a b".to_owned()]),
            peers_srv: Some(vec!["x:1".to_owned()]),
            cluster: text(""),
            log_level: text("loud"),
            advertise: text("x"),
            ..FileConfig::default()
        };
        let same = ["--client-addr", "127.0.0.1:7071"];
        let errors = Config::merge(flags(&same), file).expect_err("seven are wrong");
        assert_eq!(errors.len(), 7, "{errors:?}");
    }

    #[test]
    fn a_bad_value_of_a_flag_names_the_flag() {
        for (flag, value) in [
            ("--cluster", ""),
            ("--cluster", "a\nb"),
            ("--node-name", ""),
            ("--advertise", "x"),
            ("--peer", ""),
            ("--peer", "a:b"),
            ("--peer", "a:0"),
            ("--peer", "http://a:1"),
            ("--peers-dns", "a b"),
            ("--peers-srv", ""),
            ("--peers-srv", "x:1"),
            ("--log-level", "loud"),
            ("--log-level", "a=b=c"),
        ] {
            let error = Cli::try_parse_from(["mneme-node", "run", flag, value]).expect_err(flag);
            assert!(error.use_stderr() && error.to_string().contains(flag), "{flag} {value:?}: {error}");
        }
        for level in ["warn", "info,mneme_node=debug", "off"] {
            assert_eq!(flags(&["--log-level", level]).log_level.as_deref(), Some(level));
        }
    }

    #[test]
    fn loopback_is_loopback_in_either_dress() {
        let mapped = "[::ffff:127.0.0.1]:7070".parse().expect("an address");
        assert!(!is_exposed(mapped) && is_exposed("[::ffff:10.0.0.1]:7070".parse().expect("an address")));
    }

    #[test]
    fn tables_without_a_bound_share_what_is_left() {
        let table = |name: &str, max_bytes| TableConfig {
            max_bytes,
            ..TableConfig::new(name.parse().expect("a name"))
        };
        let mut tables = [table("a", 0), table("b", 300), table("c", 0)];
        share_memory(&mut tables, 1_000);
        assert_eq!(tables.map(|table| table.max_bytes), [200, 300, 200]);
        // What is asked for may be more than there are numbers for.
        let mut tables = [table("a", u64::MAX), table("b", u64::MAX), table("c", 0)];
        share_memory(&mut tables, 1_000);
        assert_eq!(tables[2].max_bytes, 1);
    }
}
