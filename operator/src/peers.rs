//! Peers outside a set: names are resolved, and what is known is never forgotten on an error or an empty answer.
//!
//! The last good answer is kept in the ConfigMap that nodes read, so that it outlives the operator.

pub mod dns;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use parking_lot::Mutex;

use self::dns::{Answer, Question, Resolve};

/// Port of a host that is named without one.
pub const DEFAULT_PORT: u16 = 7071;
/// Whole answers in a row that must lack an address before it leaves.
const ABSENCES: u32 = 3;
/// Addresses that one source may name.
const ADDRESSES_MAX: usize = 64;

/// A place that names peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A host, as the resource has it.
    Host(String),
    /// A headless Service.
    Service {
        /// Name and namespace, with a dot between.
        name: String,
        /// Its namespace.
        namespace: String,
        /// Its name in DNS.
        host: String,
        /// Peer port of its pods.
        port: i32,
    },
}

impl Source {
    /// Its name in the ConfigMap and the status.
    pub fn label(&self) -> String {
        match self {
            Self::Host(host) => format!("host {host}"),
            Self::Service { name, port, .. } if *port == i32::from(DEFAULT_PORT) => format!("service {name}"),
            Self::Service { name, port, .. } => format!("service {name}:{port}"),
        }
    }

    /// What there is to ask: an address is its own answer.
    fn question(&self) -> Result<Question, String> {
        let host = match self {
            Self::Service { host, port, .. } => {
                let port = u16::try_from(*port).map_err(|_| format!("{port} is not a port"))?;
                // Whole already: no search list is to be tried.
                return Ok(Question::Addresses { name: format!("{host}."), port });
            }
            Self::Host(host) => host.trim(),
        };
        if host.starts_with('_') {
            return Ok(Question::Services { name: host.to_owned() });
        }
        if let Ok(ip) = host.parse::<Ipv6Addr>() {
            return Ok(Question::Nothing { address: format!("[{ip}]:{DEFAULT_PORT}") });
        }
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !host.ends_with(']') => {
                let number = port.parse::<u16>().ok().filter(|port| *port != 0);
                (name, number.ok_or_else(|| format!("{port:?} is not a port"))?)
            }
            _ => (host, DEFAULT_PORT),
        };
        if let Some(ip) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let ip = ip.parse::<Ipv6Addr>().map_err(|_| format!("{ip:?} is not an IPv6 address"))?;
            return Ok(Question::Nothing { address: format!("[{ip}]:{port}") });
        }
        if name.parse::<IpAddr>().is_ok() {
            return Ok(Question::Nothing { address: format!("{name}:{port}") });
        }
        Ok(Question::Addresses { name: name.to_owned(), port })
    }
}

/// What is known of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Name of the source.
    pub source: String,
    /// `host:port` each, from this answer and earlier ones.
    pub addresses: BTreeSet<String>,
    /// What was wrong with the last answer.
    pub error: Option<String>,
}

/// Whole answers in a row that lacked an address, by source and address.
type Absences = BTreeMap<(String, String), u32>;

/// Takes an answer into what was known.
fn take(found: &mut Found, answer: Answer, absences: &mut Absences, is_in_contact: &dyn Fn(&str) -> bool) {
    found.error = answer.error;
    if answer.addresses.is_empty() {
        return;
    }
    let key = |address: &String| (found.source.clone(), address.clone());
    for address in &answer.addresses {
        absences.remove(&key(address));
    }
    if answer.is_whole {
        let absent: Vec<String> = found.addresses.difference(&answer.addresses).cloned().collect();
        for address in absent {
            let count = absences.entry(key(&address)).or_default();
            *count += 1;
            if *count >= ABSENCES && !is_in_contact(&address) {
                absences.remove(&key(&address));
                found.addresses.remove(&address);
            }
        }
    }
    for address in answer.addresses {
        if found.addresses.len() < ADDRESSES_MAX {
            found.addresses.insert(address);
        }
    }
}

/// Resolves the sources of all sets.
pub struct Resolver {
    resolve: Box<dyn Resolve>,
    /// By set.
    absences: Mutex<BTreeMap<String, Absences>>,
}

impl Resolver {
    /// A resolver.
    pub fn new(resolve: Box<dyn Resolve>) -> Self {
        Self { resolve, absences: Mutex::default() }
    }

    /// Resolves the sources of a set, all at once, over what was known of them.
    pub async fn find(
        &self,
        set: &str,
        sources: &[Source],
        known: &[Found],
        is_in_contact: &(dyn Fn(&str) -> bool + Send + Sync),
    ) -> Vec<Found> {
        let answers = sources.iter().map(|source| async {
            match source.question() {
                Ok(Question::Nothing { address }) => {
                    Answer { addresses: [address].into(), is_whole: true, error: None }
                }
                Ok(question) => self.resolve.resolve(&question).await,
                Err(error) => Answer { addresses: BTreeSet::new(), is_whole: false, error: Some(error) },
            }
        });
        let answers = futures_util::future::join_all(answers).await;
        let mut all = self.absences.lock();
        let absences = all.entry(set.to_owned()).or_default();
        let labels: Vec<String> = sources.iter().map(Source::label).collect();
        absences.retain(|(source, _), _| labels.contains(source));
        let mut found = Vec::new();
        for (source, answer) in labels.into_iter().zip(answers) {
            let known = known.iter().find(|known| known.source == source);
            let mut one = known.cloned().unwrap_or_else(|| Found { source, ..Found::default() });
            take(&mut one, answer, absences, is_in_contact);
            found.push(one);
        }
        found
    }

    /// A set is gone.
    pub fn forget(&self, set: &str) {
        self.absences.lock().remove(set);
    }
}

/// First line of the peer list.
const HEADING: &str = "# Written by mneme-operator; changes here are put back. One peer a line.";
/// Section of the set's own nodes.
const OWN: &str = "own";

/// The file of peers: the set's own nodes by name, then each source with its addresses.
///
/// Own nodes stand by the names they advertise: a name never goes stale, and a file that names somebody lets a node that
/// starts while the operator is away finish its join.
pub fn write_list(own: &[String], found: &[Found]) -> String {
    let mut text = format!("{HEADING}\n# {OWN}\n");
    for address in own {
        text.push_str(&format!("{address}\n"));
    }
    for one in found {
        text.push_str(&format!("# {}\n", one.source));
        for address in &one.addresses {
            text.push_str(&format!("{address}\n"));
        }
    }
    text
}

/// What an earlier list says of sources outside.
pub fn read_list(text: &str) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let mut is_own = true;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(source) = line.strip_prefix("# ") {
            is_own = source == OWN || format!("# {source}") == HEADING;
            if !is_own {
                found.push(Found { source: source.to_owned(), ..Found::default() });
            }
        } else if let (false, Some(last)) = (is_own, found.last_mut()) {
            last.addresses.insert(line.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests;
