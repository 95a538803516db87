//! Configuration: flags, then the environment, then defaults; validated before anything is asked of the cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mneme_api::{TableName, parse_duration};

use crate::telemetry::LogFormat;

/// Runs replicated session caches on Kubernetes: one SessionCache, one cluster of nodes.
#[derive(Debug, Parser)]
#[command(name = "mneme-operator", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(Box<RunFlags>),
    /// Write sessions through one node and read them through every other; `helm test` runs it.
    Check(CheckFlags),
    /// Print the custom resource definition, or its documentation.
    Crd {
        /// What is printed.
        #[arg(long, value_enum, default_value_t = Format::Yaml)]
        format: Format,
    },
}

/// What `crd` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The definition, for `kubectl apply`.
    Yaml,
    /// The documentation of every field.
    Markdown,
}

/// Flags of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunFlags {
    /// Namespaces to watch, comma-separated. [default: all]
    #[arg(long, value_name = "NAMES", env = "MNEME_OPERATOR_NAMESPACES", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// Namespace of the Lease; the operator's own.
    #[arg(long, value_name = "NAMESPACE", env = "MNEME_OPERATOR_LEASE_NAMESPACE")]
    pub lease_namespace: String,
    /// Name of this process in the Lease, unlike any other's. [default: the host name]
    #[arg(long, value_name = "NAME", env = "MNEME_OPERATOR_IDENTITY")]
    pub identity: Option<String>,
    /// Image of nodes whose SessionCache names none.
    #[arg(long, value_name = "IMAGE", env = "MNEME_OPERATOR_NODE_IMAGE")]
    pub node_image: String,
    /// When that image is pulled: Always, IfNotPresent or Never.
    #[arg(
        long,
        value_name = "POLICY",
        env = "MNEME_OPERATOR_NODE_IMAGE_PULL_POLICY",
        default_value = "IfNotPresent",
        value_parser = ["Always", "IfNotPresent", "Never"]
    )]
    pub node_image_pull_policy: String,
    /// Where probes and metrics are.
    #[arg(long, value_name = "IP:PORT", env = "MNEME_OPERATOR_ADMIN_ADDR", default_value = "0.0.0.0:8080")]
    pub admin_addr: SocketAddr,
    /// Domain of the cluster's names.
    #[arg(
        long,
        value_name = "DOMAIN",
        env = "MNEME_OPERATOR_CLUSTER_DOMAIN",
        default_value = "cluster.local"
    )]
    pub cluster_domain: String,
    /// How log lines look.
    #[arg(long, env = "MNEME_OPERATOR_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", env = "MNEME_OPERATOR_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Flags of `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckFlags {
    /// Address of a node's client port, as http://HOST:PORT; repeatable, at least two.
    #[arg(long, value_name = "URL", required = true)]
    pub node: Vec<String>,
    /// File that holds the token of a client, alone.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Table of the sessions.
    #[arg(long, value_name = "NAME", default_value = "sessions")]
    pub table: TableName,
    /// How long nodes may take until the first session goes through.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// Everything the operator is told, valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespaces to watch; none: all.
    pub namespaces: Vec<String>,
    /// Namespace of the Lease.
    pub lease_namespace: String,
    /// Name of this process in the Lease.
    pub identity: String,
    /// Where probes and metrics are.
    pub admin_addr: SocketAddr,
    /// What sets are built with where their spec is silent.
    pub defaults: Defaults,
}

/// What sets are built with where their spec is silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Image of nodes.
    pub image: String,
    /// When it is pulled.
    pub image_pull_policy: String,
    /// Domain of the cluster's names.
    pub cluster_domain: String,
    /// Address on which nodes listen: any, of the family that the cluster's Services have.
    pub listen_ip: String,
}

/// What is wrong with a flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that makes no sense.
    #[error("--{flag}: {reason}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// Why not.
        reason: String,
    },
}

impl Config {
    /// Checks the flags. `service_host` is the address of the API server's Service, as every pod is told it: where it is
    /// an IPv6 address, Services are.
    ///
    /// # Errors
    ///
    /// The first [`ConfigError`].
    pub fn new(flags: RunFlags, service_host: Option<&str>) -> Result<Self, ConfigError> {
        let wrong = |flag, reason: &str| ConfigError::Value { flag, reason: reason.to_owned() };
        let is_name = |text: &str| {
            !text.is_empty()
                && text.len() <= 253
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
        };
        let namespaces: Vec<String> = flags
            .namespaces
            .iter()
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        if !namespaces.iter().all(|name| is_name(name)) {
            return Err(wrong("namespaces", "give names of namespaces, separated by commas"));
        }
        if !is_name(&flags.lease_namespace) {
            return Err(wrong("lease-namespace", "give the name of a namespace"));
        }
        if !is_name(&flags.cluster_domain) {
            return Err(wrong("cluster-domain", "give a domain, as cluster.local"));
        }
        if flags.node_image.is_empty() || flags.node_image.contains(char::is_whitespace) {
            return Err(wrong("node-image", "give an image reference"));
        }
        let identity = flags.identity.filter(|name| !name.is_empty()).unwrap_or_else(host_name);
        if identity.is_empty() || identity.len() > 253 {
            return Err(wrong("identity", "give a name of 1 to 253 characters"));
        }
        let is_ipv6 = service_host.is_some_and(|host| host.contains(':'));
        Ok(Self {
            namespaces,
            lease_namespace: flags.lease_namespace,
            identity,
            admin_addr: flags.admin_addr,
            defaults: Defaults {
                image: flags.node_image,
                image_pull_policy: flags.node_image_pull_policy,
                cluster_domain: flags.cluster_domain,
                listen_ip: if is_ipv6 { "[::]" } else { "0.0.0.0" }.to_owned(),
            },
        })
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(more: &[&str]) -> RunFlags {
        let needed = ["mneme-operator", "run", "--lease-namespace", "system", "--node-image", "mneme-node:1"];
        let cli = Cli::try_parse_from(needed.iter().chain(more)).expect("well-formed");
        let Command::Run(flags) = cli.command else { panic!("not run") };
        *flags
    }

    #[test]
    fn flags_become_a_configuration() {
        let config = Config::new(flags(&["--namespaces", "a, b", "--identity", "me"]), Some("10.96.0.1"));
        let config = config.expect("valid");
        assert_eq!(config.namespaces, ["a", "b"]);
        assert_eq!(config.identity, "me");
        assert_eq!(config.defaults.listen_ip, "0.0.0.0");
        let config = Config::new(flags(&[]), Some("fd00::1")).expect("valid");
        assert_eq!((config.defaults.listen_ip.as_str(), config.namespaces.len()), ("[::]", 0));
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for (flag, value) in [("namespaces", "a,B"), ("cluster-domain", "a b"), ("node-image", "a b")] {
            let error = Config::new(flags_over(flag, value), None).expect_err("refused");
            assert!(error.to_string().starts_with(&format!("--{flag}: ")), "{error}");
        }
    }

    fn flags_over(flag: &str, value: &str) -> RunFlags {
        let mut flags = flags(&[]);
        match flag {
            "namespaces" => flags.namespaces = value.split(',').map(str::to_owned).collect(),
            "cluster-domain" => value.clone_into(&mut flags.cluster_domain),
            _ => value.clone_into(&mut flags.node_image),
        }
        flags
    }
}
