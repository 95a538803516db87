//! Asks DNS: A and AAAA of a name, or SRV records.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{RData, Record, RecordType};

/// A server that does not answer by then is asked again later.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Answers of DNS that are remembered, for their time to live: several sets may name one host.
const CACHE_ANSWERS: u64 = 256;
/// Longest time that an answer is remembered, whatever its time to live.
const TTL_MAX: Duration = Duration::from_secs(30);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Nothing: it is an address.
    Nothing {
        /// The address with its port.
        address: String,
    },
    /// A and AAAA of a name.
    Addresses {
        /// The name.
        name: String,
        /// The port, which is ours to know.
        port: u16,
    },
    /// SRV of a name: hosts with their ports.
    Services {
        /// The name.
        name: String,
    },
}

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// `host:port` each.
    pub addresses: BTreeSet<String>,
    /// Whether these are all: a partial answer adds and never removes.
    pub is_whole: bool,
    /// What was wrong, for people.
    pub error: Option<String>,
}

/// How names are resolved.
pub trait Resolve: Send + Sync {
    /// Asks once.
    fn resolve<'a>(&'a self, question: &'a Question) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;
}

/// Asks whom the system asks.
pub struct Dns {
    resolver: TokioResolver,
}

/// What one query gave.
struct Part {
    records: Vec<Record>,
    error: Option<String>,
}

impl Dns {
    /// Reads the system's configuration.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn new() -> Result<Self, NetError> {
        let mut builder = TokioResolver::builder_tokio()?;
        let options = builder.options_mut();
        options.cache_size = CACHE_ANSWERS;
        options.positive_max_ttl = Some(TTL_MAX);
        options.negative_max_ttl = Some(Duration::ZERO);
        options.timeout = TIMEOUT;
        options.attempts = 1;
        Ok(Self { resolver: builder.build()? })
    }

    async fn addresses(&self, name: &str, port: u16) -> Answer {
        let (v4, v6) = tokio::join!(self.query(name, RecordType::A), self.query(name, RecordType::AAAA));
        let errors: Vec<String> = [&v4, &v6].iter().filter_map(|part| part.error.clone()).collect();
        let ip = |record: &Record| match record.data {
            RData::A(ip) => Some(IpAddr::V4(ip.0)),
            RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
            _ => None,
        };
        let ips = v4.records.iter().chain(&v6.records).filter_map(ip);
        finish(name, ips.map(|ip| SocketAddr::new(ip, port).to_string()).collect(), &errors)
    }

    async fn services(&self, name: &str) -> Answer {
        let part = self.query(name, RecordType::SRV).await;
        let service = |record: &Record| {
            let RData::SRV(service) = &record.data else { return None };
            let host = service.target.to_utf8();
            // "." says that there is no such service.
            let host = host.trim_end_matches('.');
            (!host.is_empty()).then(|| format!("{host}:{}", service.port))
        };
        finish(name, part.records.iter().filter_map(service).collect(), part.error.as_slice())
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

impl Resolve for Dns {
    fn resolve<'a>(&'a self, question: &'a Question) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
        Box::pin(async move {
            match question {
                Question::Nothing { address } => {
                    Answer { addresses: [address.clone()].into(), is_whole: true, error: None }
                }
                Question::Addresses { name, port } => self.addresses(name, *port).await,
                Question::Services { name } => self.services(name).await,
            }
        })
    }
}

fn finish(name: &str, addresses: BTreeSet<String>, errors: &[String]) -> Answer {
    let error = match (errors, addresses.is_empty()) {
        ([], false) => None,
        ([], true) => Some(format!("{name} has no addresses")),
        (errors, _) => Some(format!("{name}: {}", errors.join("; "))),
    };
    Answer { addresses, is_whole: errors.is_empty(), error }
}
