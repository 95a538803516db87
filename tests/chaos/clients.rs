//! Clients as in life, behind a load balancer that knows nothing: each request goes to any node, and what fails there is
//! tried again at another.

mod request;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mneme_tests::connection::Connection;
use rand::RngExt;
use rand::rngs::SmallRng;

use crate::history::{Action, Line, Operation, Outcome, Recorder, Seen, USERS};

/// Sessions that are signed in at one time, at most.
const SIGNED_IN_MAX: usize = 4_000;
/// Ended sessions that are still looked at.
const ENDED_MAX: usize = 2_000;
/// Sessions that are left to expire and still looked at.
const BRIEF_MAX: usize = 200;
/// Pairs of keys that are written in batches.
const PAIRS: u64 = 50;
/// Keys of the cache table.
const CACHE_KEYS: u64 = 50;
/// Idle times of sessions that are left to expire.
const BRIEF_TTL_MS: std::ops::Range<u64> = 2_000..8_000;
/// Pause before a request is tried at another node.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// What clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) recorder: Recorder,
    /// Where the nodes are.
    addresses: Mutex<Vec<SocketAddr>>,
    known: Mutex<Known>,
    next_number: AtomicU64,
    /// Clients stop after the request they are at.
    is_over: AtomicBool,
    /// Answers that no client should ever get.
    unexpected: Mutex<Vec<String>>,
    /// Pause of a client between two things it does.
    pause: Duration,
    /// Sabotage, to see that it is found: writes are acknowledged by one node alone.
    is_local: bool,
}

/// Sessions that were signed in, and what became of them as far as the clients know.
#[derive(Debug, Default)]
struct Known {
    signed_in: Vec<u64>,
    brief: VecDeque<u64>,
    ended: VecDeque<u64>,
}

impl Shared {
    pub(crate) fn new(
        recorder: Recorder,
        addresses: Vec<SocketAddr>,
        pause: Duration,
        is_local: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            recorder,
            addresses: Mutex::new(addresses),
            known: Mutex::default(),
            next_number: AtomicU64::new(1),
            is_over: AtomicBool::new(false),
            unexpected: Mutex::default(),
            pause,
            is_local,
        })
    }

    /// A node is somewhere else.
    pub(crate) fn move_node(&self, node: usize, address: SocketAddr) {
        lock(&self.addresses)[node] = address;
    }

    /// Lets the clients end.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Answers that no client should ever get.
    pub(crate) fn unexpected(&self) -> Vec<String> {
        lock(&self.unexpected).clone()
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    fn signed_in(&mut self, session: u64) {
        self.signed_in.push(session);
    }

    fn brief(&mut self, session: u64) {
        self.brief.push_back(session);
        if self.brief.len() > BRIEF_MAX {
            self.brief.pop_front();
        }
    }

    /// It is signed out, or about to be: nobody relies on it any more, and somebody looks whether it is gone.
    fn ended(&mut self, session: u64) {
        self.signed_in.retain(|other| *other != session);
        self.ended.push_back(session);
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
        }
    }

    fn any_signed_in(&self, random: &mut SmallRng) -> Option<u64> {
        pick(self.signed_in.len(), random).map(|index| self.signed_in[index])
    }

    fn any_brief(&self, random: &mut SmallRng) -> Option<u64> {
        pick(self.brief.len(), random).map(|index| self.brief[index])
    }

    fn any_ended(&self, random: &mut SmallRng) -> Option<u64> {
        pick(self.ended.len(), random).map(|index| self.ended[index])
    }
}

fn pick(count: usize, random: &mut SmallRng) -> Option<usize> {
    (count > 0).then(|| random.random_range(0..count))
}

/// One client: one request after another.
#[derive(Debug)]
pub(crate) struct Client {
    number: usize,
    shared: Arc<Shared>,
    random: SmallRng,
    connections: HashMap<usize, Connection>,
}

impl Client {
    pub(crate) fn new(number: usize, shared: Arc<Shared>, random: SmallRng) -> Self {
        Self { number, shared, random, connections: HashMap::new() }
    }

    /// Does what people do until it is told to end.
    pub(crate) async fn run(mut self) {
        while !self.shared.is_over() {
            self.live().await;
            if !self.shared.pause.is_zero() {
                tokio::time::sleep(self.shared.pause).await;
            }
        }
    }

    /// One thing that people do.
    async fn live(&mut self) {
        let known = |client: &mut Self, any: fn(&Known, &mut SmallRng) -> Option<u64>| {
            any(&client.shared.known(), &mut client.random)
        };
        match self.random.random_range(0..1_000) {
            0..100 => self.sign_in().await,
            100..115 => self.sign_in_briefly().await,
            115..550 => {
                if let Some(session) = known(self, Known::any_signed_in) {
                    self.insist(|_| Action::Read { session }).await;
                }
            }
            550..600 => {
                if let Some(session) = known(self, Known::any_ended) {
                    self.insist(|_| Action::Read { session }).await;
                }
            }
            600..630 => {
                if let Some(session) = known(self, Known::any_brief) {
                    self.insist(|_| Action::Read { session }).await;
                }
            }
            630..640 => {
                if let Some(session) = known(self, Known::any_brief) {
                    let ttl_ms = self.random.random_range(BRIEF_TTL_MS);
                    self.insist(|_| Action::Touch { session, ttl_ms }).await;
                }
            }
            640..790 => {
                if let Some(session) = known(self, Known::any_signed_in) {
                    self.insist(|value| Action::Rewrite { session, value }).await;
                    self.insist(|_| Action::Read { session }).await;
                }
            }
            790..850 => {
                if let Some(session) = known(self, Known::any_signed_in) {
                    self.shared.known().ended(session);
                    self.insist(|_| Action::SignOut { session }).await;
                    self.insist(|_| Action::Read { session }).await;
                }
            }
            850..853 => self.sign_out_everywhere().await,
            853..880 => {
                let user = Some(self.random.random_range(0..USERS));
                self.insist(|_| Action::List { user }).await;
            }
            880..920 => {
                let pair = self.random.random_range(0..PAIRS);
                self.insist(|value| Action::WritePair { pair, value }).await;
            }
            920..960 => {
                let pair = self.random.random_range(0..PAIRS);
                self.insist(|_| Action::ReadPair { pair }).await;
            }
            _ => self.use_the_cache().await,
        }
    }

    async fn sign_in(&mut self) {
        if self.shared.known().signed_in.len() >= SIGNED_IN_MAX {
            return;
        }
        let (session, value) = (self.shared.number(), self.shared.number());
        // Not tried again: a browser whose sign-in failed has no session, and begins another.
        let outcome = self.attempt(Action::SignIn { session, value, ttl_ms: None }).await;
        if outcome == Outcome::Ok {
            self.shared.known().signed_in(session);
            self.insist(|_| Action::Read { session }).await;
        }
    }

    async fn sign_in_briefly(&mut self) {
        let (session, value) = (self.shared.number(), self.shared.number());
        let ttl_ms = Some(self.random.random_range(BRIEF_TTL_MS));
        if self.attempt(Action::SignIn { session, value, ttl_ms }).await == Outcome::Ok {
            self.shared.known().brief(session);
        }
    }

    async fn sign_out_everywhere(&mut self) {
        let Some(session) = self.shared.known().any_signed_in(&mut self.random) else { return };
        let user = crate::history::user_of(session);
        let theirs = |session: &u64| crate::history::user_of(*session) == user;
        let sessions: Vec<u64> = self.shared.known().signed_in.iter().copied().filter(theirs).collect();
        for session in &sessions {
            self.shared.known().ended(*session);
        }
        self.insist(|_| Action::SignOutEverywhere { user }).await;
        self.insist(|_| Action::List { user: Some(user) }).await;
    }

    async fn use_the_cache(&mut self) {
        let key = self.random.random_range(0..CACHE_KEYS);
        match self.random.random_range(0..4) {
            0 => self.insist(|value| Action::CachePut { key, value }).await,
            1 => self.insist(|_| Action::CacheDelete { key }).await,
            _ => self.insist(|_| Action::CacheRead { key }).await,
        };
    }

    /// Tries until something answers, at any node each time. What is written has another value each time, so that it
    /// is known which attempt a later read saw.
    async fn insist(&mut self, action: impl Fn(u64) -> Action) -> Option<Outcome> {
        while !self.shared.is_over() {
            let outcome = self.attempt(action(self.shared.number())).await;
            if outcome.is_answer() {
                return Some(outcome);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        None
    }

    /// One request to any node.
    async fn attempt(&mut self, action: Action) -> Outcome {
        let node = self.random.random_range(0..lock(&self.shared.addresses).len());
        self.ask(node, action).await
    }

    /// One request to this node, recorded.
    async fn ask(&mut self, node: usize, action: Action) -> Outcome {
        let address = lock(&self.shared.addresses)[node];
        let mut connection = match self.connections.remove(&node) {
            Some(connection) if connection.address() == address => connection,
            _ => Connection::to(address),
        };
        let start_us = self.shared.recorder.now_us();
        let answer = request::send(&mut connection, &action, self.shared.is_local).await;
        let end_us = self.shared.recorder.now_us();
        self.connections.insert(node, connection);
        let outcome = answer.unwrap_or_else(|what| {
            let mut unexpected = lock(&self.shared.unexpected);
            if unexpected.len() < 20 {
                unexpected.push(format!("{action:?} at node {node}: {what}"));
            }
            Outcome::Unknown
        });
        let operation =
            Operation { client: self.number, node, start_us, end_us, action, outcome: outcome.clone() };
        self.shared.recorder.write(&Line::Op(operation));
        outcome
    }

    /// Reads all there is, from every node.
    ///
    /// # Panics
    ///
    /// When a node does not answer.
    pub(crate) async fn audit(&mut self) {
        let nodes = lock(&self.shared.addresses).len();
        for node in 0..nodes {
            let all = [Action::List { user: None }]
                .into_iter()
                .chain((0..PAIRS).map(|pair| Action::ReadPair { pair }))
                .chain((0..CACHE_KEYS).map(|key| Action::CacheRead { key }));
            for action in all {
                let outcome = self.ask(node, action.clone()).await;
                let has_seen =
                    matches!(outcome, Outcome::Saw(Seen::Value(_) | Seen::Pair(..) | Seen::List(_)));
                assert!(has_seen, "{action:?} at node {node} at rest: {outcome:?}");
            }
        }
    }
}
