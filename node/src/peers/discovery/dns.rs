//! DNS: the addresses of a headless service, or its services with stable names and ports.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, Record, RecordType};

use super::Answer;

/// Shortest pause between questions, whatever the time to live says.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause between questions: a new peer is found by then.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A server that does not answer by then is asked again later.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// A and AAAA of a name; the port is ours to know.
    Addresses {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
    /// SRV of a name: hosts with their ports.
    Services {
        /// The name.
        name: String,
    },
}

impl Question {
    /// `NAME[:port]`.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, for people.
    pub fn addresses(text: &str) -> Result<Self, String> {
        let address = super::parse_address(text)?;
        let (name, port) = address.rsplit_once(':').ok_or("a name is missing")?;
        let port = port.parse().map_err(|_| "a port is missing")?;
        Ok(Self::Addresses { name: name.to_owned(), port })
    }

    /// `NAME`.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, for people.
    pub fn services(text: &str) -> Result<Self, String> {
        if text.contains(':') {
            return Err("SRV records name the ports: give the name alone".to_owned());
        }
        super::parse_address(text).map(|_| Self::Services { name: text.to_owned() })
    }
}

/// Asks DNS.
#[derive(Clone)]
pub struct Dns {
    resolver: TokioResolver,
}

/// What one query gave.
struct Part {
    records: Vec<Record>,
    error: Option<String>,
}

impl Dns {
    /// Asks `server`, or whom the system asks.
    ///
    /// # Errors
    ///
    /// When the system's configuration cannot be read.
    pub fn new(server: Option<SocketAddr>) -> Result<Self, NetError> {
        let mut builder = match server {
            Some(server) => {
                let connection = |protocol| {
                    let mut connection = ConnectionConfig::new(protocol);
                    connection.port = server.port();
                    connection
                };
                let connections = vec![connection(ProtocolConfig::Udp), connection(ProtocolConfig::Tcp)];
                let server = NameServerConfig::new(server.ip(), true, connections);
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
            None => TokioResolver::builder_tokio()?,
        };
        let options = builder.options_mut();
        // The pause between questions is ours: a cache would answer for a peer that has moved.
        options.cache_size = 0;
        options.timeout = TIMEOUT;
        options.attempts = 1;
        Ok(Self { resolver: builder.build()? })
    }

    /// Asks once; the answer with its time to live, `None` when there was no answer to speak of.
    pub async fn ask(&self, question: &Question) -> (Answer, Option<Duration>) {
        let mut ttl = None;
        let answer = match question {
            Question::Addresses { name, port } => self.addresses(name, *port, &mut ttl).await,
            Question::Services { name } => self.services(name, &mut ttl).await,
        };
        let ttl = ttl.filter(|_| !answer.addresses.is_empty());
        (answer, ttl.map(|seconds| Duration::from_secs(u64::from(seconds))))
    }

    /// Where `address`, `host:port`, is reached; an address of numbers is not asked for.
    ///
    /// # Errors
    ///
    /// What went wrong, for people; also when the host has no address.
    pub async fn resolve(&self, address: &str) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = address.parse() {
            return Ok(vec![address]);
        }
        let (host, port) = address.rsplit_once(':').ok_or("a port is missing")?;
        let port = port.parse().map_err(|_| "a port is missing")?;
        let answer = self.addresses(host, port, &mut None).await;
        match answer.error {
            Some(error) if answer.addresses.is_empty() => Err(error),
            _ => Ok(answer.addresses.iter().filter_map(|address| address.parse().ok()).collect()),
        }
    }

    async fn addresses(&self, name: &str, port: u16, ttl: &mut Option<u32>) -> Answer {
        let (v4, v6) = tokio::join!(self.query(name, RecordType::A), self.query(name, RecordType::AAAA));
        let errors: Vec<String> = [&v4, &v6].iter().filter_map(|part| part.error.clone()).collect();
        let addresses = addresses_in(v4.records.iter().chain(&v6.records), port, ttl);
        finish(name, addresses, &errors)
    }

    async fn services(&self, name: &str, ttl: &mut Option<u32>) -> Answer {
        let part = self.query(name, RecordType::SRV).await;
        let (addresses, mut errors) = services_in(&part.records, ttl);
        errors.extend(part.error);
        finish(name, addresses, &errors)
    }

    async fn query(&self, name: &str, kind: RecordType) -> Part {
        let queried = tokio::time::timeout(TIMEOUT * 2, self.resolver.lookup(name, kind)).await;
        match queried {
            Ok(Ok(lookup)) => Part { records: lookup.answers().to_vec(), error: None },
            // The name has no such records: of one family that is usual, and whole.
            Ok(Err(error)) if error.is_no_records_found() => Part { records: Vec::new(), error: None },
            Ok(Err(error)) => Part { records: Vec::new(), error: Some(format!("{kind}: {error}")) },
            Err(_) => Part { records: Vec::new(), error: Some(format!("{kind}: no answer in time")) },
        }
    }
}

/// The addresses in an answer, each with `port`; `ttl` becomes the least time to live of them.
pub fn addresses_in<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    port: u16,
    ttl: &mut Option<u32>,
) -> BTreeSet<String> {
    let mut addresses = BTreeSet::new();
    for record in records {
        let ip = match record.data {
            RData::A(ip) => std::net::IpAddr::V4(ip.0),
            RData::AAAA(ip) => std::net::IpAddr::V6(ip.0),
            _ => continue,
        };
        lower(ttl, record.ttl);
        addresses.insert(SocketAddr::new(ip, port).to_string());
    }
    addresses
}

/// The services in an answer, `host:port` each, and what is wrong with others: a name in DNS may hold anything. `ttl`
/// becomes the least time to live of them.
pub fn services_in<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    ttl: &mut Option<u32>,
) -> (BTreeSet<String>, Vec<String>) {
    let (mut addresses, mut mistakes) = (BTreeSet::new(), Vec::new());
    for record in records {
        let RData::SRV(service) = &record.data else { continue };
        lower(ttl, record.ttl);
        let host = service.target.to_ascii();
        // "." says that there is no such service.
        let host = host.trim_end_matches('.');
        if host.is_empty() {
            continue;
        }
        match super::parse_address(&format!("{host}:{}", service.port)) {
            Ok(address) => {
                addresses.insert(address);
            }
            Err(mistake) => mistakes.push(format!("SRV: {mistake}")),
        }
    }
    (addresses, mistakes)
}

fn lower(ttl: &mut Option<u32>, other: u32) {
    *ttl = Some(ttl.map_or(other, |ttl| ttl.min(other)));
}

fn finish(name: &str, addresses: BTreeSet<String>, errors: &[String]) -> Answer {
    if errors.is_empty() && addresses.is_empty() {
        let error = Some(format!("{name} has no addresses"));
        return Answer { addresses, is_whole: true, error };
    }
    Answer::with_mistakes(addresses, errors)
}

/// Pause before the next question: the time to live within bounds, or longer and longer after failures; a tenth more
/// or less, so that nodes do not ask in step.
pub(super) fn pause(ttl: Option<Duration>, failures: u32) -> Duration {
    let pause = ttl.unwrap_or_else(|| PAUSE_MIN * 2u32.saturating_pow(failures.min(4).saturating_sub(1)));
    pause.clamp(PAUSE_MIN, PAUSE_MAX).mul_f64(rand::random_range(0.9..1.1))
}

#[cfg(test)]
mod tests;
