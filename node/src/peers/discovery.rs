//! Where peers are found: an explicit list, a hosts file, DNS addresses, DNS services.
//!
//! One rule: an error, an empty or a partial answer is no information. An address leaves only after it was absent from
//! several whole answers in a row while nobody was in contact there.

pub mod dns;
pub mod hosts_file;
pub mod last_good;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::dns::{Dns, Question};

/// Port of a host that is named without one.
pub const DEFAULT_PORT: u16 = 7071;
/// Whole answers in a row that must lack an address before it leaves.
const ABSENCES: u32 = 3;
/// Addresses one source may name: far beyond a cluster's members, short of harm.
const ADDRESSES_MAX: usize = 256;
/// Mistakes of one source that are told; of more only how many.
const MISTAKES_TOLD_MAX: usize = 8;
/// Characters of a text that are repeated when it is no address.
const SHOWN_CHARS_MAX: usize = 64;
/// How often a hosts file is looked at.
const FILE_PAUSE: Duration = Duration::from_secs(1);

/// A place where addresses of peers are named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `--peer`: the explicit list.
    List(Vec<String>),
    /// `--peers-file`.
    File(std::path::PathBuf),
    /// `--peers-dns`, `--peers-srv`.
    Dns(Question),
}

impl Source {
    /// Its name in the status.
    pub fn name(&self) -> String {
        match self {
            Self::List(_) => "peer".to_owned(),
            Self::File(path) => format!("peers-file:{}", path.display()),
            Self::Dns(Question::Addresses { name, port }) => format!("peers-dns:{name}:{port}"),
            Self::Dns(Question::Services { name }) => format!("peers-srv:{name}"),
        }
    }
}

/// What a source said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `host:port` each.
    pub addresses: BTreeSet<String>,
    /// Whether these are all: a partial answer adds and never removes.
    pub is_whole: bool,
    /// What was wrong, for people.
    pub error: Option<String>,
}

impl Answer {
    /// What a source names beside what is wrong with it: then it may have meant anybody.
    fn with_mistakes(addresses: BTreeSet<String>, mistakes: &[String]) -> Self {
        let mut told = mistakes.iter().take(MISTAKES_TOLD_MAX).cloned().collect::<Vec<_>>().join("; ");
        if let Some(untold) = mistakes.len().checked_sub(MISTAKES_TOLD_MAX + 1) {
            told.push_str(&format!("; and {} more", untold + 1));
        }
        Self { addresses, is_whole: mistakes.is_empty(), error: (!mistakes.is_empty()).then_some(told) }
    }

    /// No information.
    pub fn failed(error: String) -> Self {
        Self { addresses: BTreeSet::new(), is_whole: false, error: Some(error) }
    }
}

/// What is known from one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceState {
    /// Its name.
    pub source: String,
    /// Addresses with the whole answers in a row that lacked them.
    addresses: BTreeMap<String, u32>,
    /// Whether it named anybody since the start, or said that it names nobody.
    pub has_answered: bool,
    /// What was wrong with the last answer.
    pub last_error: Option<String>,
    /// Boot time of the last answer that named anybody; `None` before.
    pub answered_boot_ms: Option<u64>,
}

impl SourceState {
    /// A source of which only the addresses of an earlier run are known.
    pub fn remembered(source: String, addresses: impl IntoIterator<Item = String>) -> Self {
        let addresses = addresses.into_iter().map(|address| (address, 0)).collect();
        Self { source, addresses, ..Self::default() }
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &String> {
        self.addresses.keys()
    }

    /// Takes an answer in; says whether the addresses changed.
    ///
    /// `is_in_contact` says whether somebody answers at an address.
    pub fn take(&mut self, answer: Answer, boot_ms: u64, is_in_contact: impl Fn(&str) -> bool) -> bool {
        if answer.addresses.is_empty() {
            // Nobody at all removes nobody: it is the answer of a service that is just being set up, or torn down. A
            // file that names nobody, and has nothing wrong in it, has said all it will.
            self.has_answered |= answer.is_whole && answer.error.is_none();
            self.last_error = answer.error;
            return false;
        }
        self.last_error = answer.error;
        self.has_answered = true;
        self.answered_boot_ms = Some(boot_ms);
        let before: BTreeSet<String> = self.addresses.keys().cloned().collect();
        if answer.is_whole {
            for (address, absences) in &mut self.addresses {
                *absences = if answer.addresses.contains(address) { 0 } else { absences.saturating_add(1) };
            }
            self.addresses.retain(|address, absences| *absences < ABSENCES || is_in_contact(address));
        }
        for address in answer.addresses {
            if self.addresses.len() < ADDRESSES_MAX {
                self.addresses.insert(address, 0);
            }
        }
        !before.iter().eq(self.addresses.keys())
    }
}

/// What all sources say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// One a source.
    pub sources: Vec<SourceState>,
}

impl Discovered {
    /// Every address that some source names.
    pub fn addresses(&self) -> BTreeSet<String> {
        self.sources.iter().flat_map(SourceState::addresses).cloned().collect()
    }

    /// Whether some source is configured that names somebody, or may yet.
    pub fn is_configured(&self) -> bool {
        self.sources.iter().any(|source| !source.has_answered || source.addresses().next().is_some())
    }

    /// Whether every source has named somebody since the start, or has said that it names nobody.
    pub fn is_complete(&self) -> bool {
        self.sources.iter().all(|source| source.has_answered)
    }
}

/// Adds the default port where none is given. IPv6 addresses stand in brackets, or alone.
///
/// # Errors
///
/// What is wrong with the text, for people.
pub fn parse_address(text: &str) -> Result<String, String> {
    parse_address_with(text, DEFAULT_PORT)
}

fn parse_address_with(text: &str, default_port: u16) -> Result<String, String> {
    if let Ok(address) = text.parse::<std::net::Ipv6Addr>() {
        return Ok(format!("[{address}]:{default_port}"));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => {
            let number = port.parse::<u16>().ok().filter(|port| *port != 0);
            (host, number.ok_or_else(|| format!("{} is not a port", shown(port)))?)
        }
        _ => (text, default_port),
    };
    let is_ip = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
        None => false,
    };
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if !is_ip && (host.is_empty() || host.len() > 253 || !host.bytes().all(is_word)) {
        return Err(format!("{} is not a host name or address", shown(host)));
    }
    Ok(format!("{host}:{port}"))
}

/// The begin of a text that may be long and of any characters.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Who answers where: decides whether an absent address may leave.
pub type Contact = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Asks the sources until `stop`.
pub struct Discovery {
    sources: Vec<Source>,
    dns: Option<Dns>,
    contact: Contact,
    discovered: watch::Sender<Discovered>,
}

impl Discovery {
    /// Sources, with what an earlier run knew of them.
    pub fn new(
        sources: Vec<Source>,
        dns: Option<Dns>,
        remembered: &BTreeMap<String, Vec<String>>,
        contact: Contact,
    ) -> Self {
        let state = |source: &Source| {
            let name = source.name();
            let addresses = remembered.get(&name).cloned().unwrap_or_default();
            SourceState::remembered(name, addresses)
        };
        let discovered = Discovered { sources: sources.iter().map(state).collect() };
        Self { sources, dns, contact, discovered: watch::Sender::new(discovered) }
    }

    /// What is known, as it changes.
    pub fn subscribe(&self) -> watch::Receiver<Discovered> {
        self.discovered.subscribe()
    }

    /// Asks every source, again and again, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let this = Arc::new(self);
        let mut tasks = tokio::task::JoinSet::new();
        for index in 0..this.sources.len() {
            tasks.spawn(this.clone().ask(index));
        }
        stop.cancelled().await;
        tasks.shutdown().await;
    }

    async fn ask(self: Arc<Self>, index: usize) {
        let mut last_file = None;
        let mut failures = 0;
        loop {
            let (answer, pause) = match &self.sources[index] {
                Source::List(addresses) => {
                    let addresses = addresses.iter().cloned().collect();
                    (Some(Answer { addresses, is_whole: true, error: None }), None)
                }
                Source::File(path) => {
                    (hosts_file::read_changed(path, &mut last_file).await, Some(FILE_PAUSE))
                }
                Source::Dns(question) => {
                    let (answer, ttl) = match &self.dns {
                        Some(dns) => dns.ask(question).await,
                        None => (Answer::failed("no DNS server is configured".to_owned()), None),
                    };
                    failures = if ttl.is_some() { 0 } else { failures + 1 };
                    (Some(answer), Some(dns::pause(ttl, failures)))
                }
            };
            if let Some(answer) = answer {
                self.take(index, answer);
            }
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                // A list never changes.
                None => return,
            }
        }
    }

    fn take(&self, index: usize, answer: Answer) {
        let boot_ms = crate::wall_clock::boot_ms();
        self.discovered.send_if_modified(|discovered| {
            let state = &mut discovered.sources[index];
            let before = (state.has_answered, state.last_error.clone());
            let is_used = !answer.addresses.is_empty();
            let is_changed = state.take(answer, boot_ms, |address| (self.contact)(address));
            if state.last_error != before.1 {
                match &state.last_error {
                    Some(error) if is_used => {
                        tracing::warn!(source = %state.source, error, "a part of what discovery found cannot be used");
                    }
                    Some(error) => tracing::warn!(source = %state.source, error, "discovery failed"),
                    None => tracing::info!(source = %state.source, "discovery works again"),
                }
            }
            if is_changed {
                let addresses = state.addresses().count();
                tracing::info!(source = %state.source, addresses, "discovery found other addresses");
            }
            is_changed || before != (state.has_answered, state.last_error.clone())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(addresses: &[&str]) -> Answer {
        Answer { addresses: addresses.iter().map(ToString::to_string).collect(), is_whole: true, error: None }
    }

    #[track_caller]
    fn check(state: &SourceState, expected: &[&str]) {
        assert_eq!(state.addresses().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_address_leaves_after_repeated_absence_without_contact() {
        let mut state = SourceState::default();
        assert!(state.take(whole(&["a:1", "b:1"]), 1, |_| false));
        assert!(!state.take(whole(&["a:1"]), 2, |_| false));
        assert!(!state.take(whole(&["a:1"]), 3, |_| false));
        check(&state, &["a:1", "b:1"]);
        assert!(!state.take(whole(&["a:1"]), 4, |address| address == "b:1"));
        check(&state, &["a:1", "b:1"]);
        assert!(state.take(whole(&["a:1"]), 5, |_| false));
        check(&state, &["a:1"]);
    }

    #[test]
    fn errors_empty_and_partial_answers_remove_nobody() {
        let mut state = SourceState::default();
        state.take(whole(&["a:1", "b:1"]), 1, |_| false);
        for _ in 0..10 {
            state.take(Answer::failed("SERVFAIL".to_owned()), 2, |_| false);
            state.take(whole(&[]), 2, |_| false);
            state.take(Answer { is_whole: false, ..whole(&["c:1"]) }, 2, |_| false);
        }
        check(&state, &["a:1", "b:1", "c:1"]);
    }

    #[test]
    fn a_file_that_names_nobody_has_answered_and_dns_that_names_nobody_has_not() {
        let (mut file, mut dns) = (SourceState::default(), SourceState::default());
        file.take(whole(&[]), 1, |_| false);
        dns.take(Answer { error: Some("x has no addresses".to_owned()), ..whole(&[]) }, 1, |_| false);
        let of =
            |sources: &[&SourceState]| Discovered { sources: sources.iter().copied().cloned().collect() };
        assert!(of(&[&file]).is_complete() && !of(&[&file]).is_configured(), "nobody to wait for");
        assert!(!of(&[&dns]).is_complete() && of(&[&dns]).is_configured());
        assert!(!of(&[&file, &dns]).is_complete() && of(&[&file, &dns]).is_configured());
    }

    #[test]
    fn absence_is_counted_in_a_row() {
        let mut state = SourceState::default();
        state.take(whole(&["a:1", "b:1"]), 1, |_| false);
        for _ in 0..5 {
            state.take(whole(&["a:1"]), 2, |_| false);
            state.take(whole(&["a:1"]), 2, |_| false);
            state.take(whole(&["a:1", "b:1"]), 2, |_| false);
        }
        check(&state, &["a:1", "b:1"]);
    }

    #[test]
    fn what_an_earlier_run_knew_is_no_answer() {
        let state = SourceState::remembered("peers-dns:x:7071".to_owned(), ["a:1".to_owned()]);
        let discovered = Discovered { sources: vec![state] };
        assert!(discovered.is_configured() && !discovered.is_complete());
        assert_eq!(discovered.addresses().len(), 1);
    }

    #[test]
    fn a_host_without_a_port_means_7071() {
        for (text, expected) in [
            ("cache.example.com", "cache.example.com:7071"),
            ("10.0.0.5:9", "10.0.0.5:9"),
            ("::1", "[::1]:7071"),
            ("[::1]", "[::1]:7071"),
            ("[fe80::2]:81", "[fe80::2]:81"),
        ] {
            assert_eq!(parse_address(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", ":7071", "a b", "a:0", "a:x", "a:99999", "[::1", "[a]:1", "http://a:1"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }
}
