//! Browsers that sign in, look, change their session and sign out, each request over a connection of its own, so that
//! the Service sends it to any node.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use mneme_tests::http::{Request, RequestError, Response};
use mneme_tests::records::record;
use rand::RngExt;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::history::{Finding, Seen, Session};

/// Browsers of one load: enough that several requests are on their way when a pod dies, few enough to leave the
/// processors to the cluster.
const BROWSERS: usize = 4;
/// Pause of a browser between two requests.
const PAUSE: Duration = Duration::from_millis(40);
/// Longest wait for an answer: twice what a node takes to say that it does not know.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Sessions that a browser keeps signed in, at most.
const SIGNED_IN_MAX: usize = 200;
/// Longest wait for the first answer of the final check; then it fails.
const FINAL_WAIT: Duration = Duration::from_secs(60);
/// Findings that are described; all are counted.
const DESCRIBED_MAX: usize = 10;

/// What is asked.
#[derive(Debug)]
pub(crate) struct Target {
    /// Host and port of the client Service.
    pub(crate) service: String,
    /// Bearer token; empty for none.
    pub(crate) token: String,
}

/// Some browsers, and what they saw.
#[derive(Debug)]
pub(crate) struct Load {
    target: Target,
    requests: AtomicU64,
    failed: AtomicU64,
    lost_writes: AtomicU64,
    revived: AtomicU64,
    false_logouts: AtomicU64,
    longest_stall_ms: AtomicU64,
    checked: AtomicU64,
    unchecked: AtomicU64,
    described: Mutex<Vec<String>>,
    last_failure: Mutex<String>,
    is_over: AtomicBool,
    browsers: Mutex<Vec<JoinHandle<Browser>>>,
}

/// One browser's sessions.
#[derive(Debug, Default)]
struct Browser {
    signed_in: Vec<Session>,
    signed_out: Vec<Session>,
    address: Option<SocketAddr>,
    last_success: Option<Instant>,
}

impl Load {
    /// Lets the browsers go.
    pub(crate) fn start(target: Target) -> Arc<Self> {
        let load = Arc::new(Self {
            target,
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            lost_writes: AtomicU64::new(0),
            revived: AtomicU64::new(0),
            false_logouts: AtomicU64::new(0),
            longest_stall_ms: AtomicU64::new(0),
            checked: AtomicU64::new(0),
            unchecked: AtomicU64::new(0),
            described: Mutex::default(),
            last_failure: Mutex::default(),
            is_over: AtomicBool::new(false),
            browsers: Mutex::default(),
        });
        let browsers = (0..BROWSERS).map(|_| tokio::spawn(browse(load.clone()))).collect();
        *load.browsers.lock().unwrap_or_else(PoisonError::into_inner) = browsers;
        load
    }

    /// Stops the browsers and reads every session once more.
    pub(crate) async fn finish(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        let browsers = std::mem::take(&mut *self.browsers.lock().unwrap_or_else(PoisonError::into_inner));
        let deadline = Instant::now() + FINAL_WAIT;
        for browser in browsers {
            let mut browser = browser.await.expect("a browser does not panic");
            let sessions = browser.signed_in.split_off(0).into_iter().chain(browser.signed_out.split_off(0));
            for session in sessions {
                loop {
                    if let Some(seen) = browser.read(self, &session.key, "").await {
                        self.check(&session, &seen, "at the end");
                        self.checked.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    if Instant::now() > deadline {
                        self.unchecked.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// What was counted.
    pub(crate) fn report(&self) -> Value {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "requests": get(&self.requests),
            "failed": get(&self.failed),
            "lostWrites": get(&self.lost_writes),
            "revived": get(&self.revived),
            "falseLogouts": get(&self.false_logouts),
            "longestStallMs": get(&self.longest_stall_ms),
            "checked": get(&self.checked),
            "unchecked": get(&self.unchecked),
            "lastFailure": *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner),
            "findings": *self.described.lock().unwrap_or_else(PoisonError::into_inner),
        })
    }

    fn check(&self, session: &Session, seen: &Seen, when: &str) {
        let Some(finding) = session.check(seen) else { return };
        let counter = match finding {
            Finding::LostWrite => &self.lost_writes,
            Finding::Revived => &self.revived,
            Finding::FalseLogout => &self.false_logouts,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut described = self.described.lock().unwrap_or_else(PoisonError::into_inner);
        if described.len() < DESCRIBED_MAX {
            described.push(format!("{finding:?} {when}: saw {seen:?} of {session:?}"));
        }
    }
}

async fn browse(load: Arc<Load>) -> Browser {
    let mut browser = Browser { last_success: Some(Instant::now()), ..Browser::default() };
    while !load.is_over.load(Ordering::Relaxed) {
        browser.step(&load).await;
        tokio::time::sleep(PAUSE).await;
    }
    browser
}

impl Browser {
    async fn step(&mut self, load: &Load) {
        let choice = rand::rng().random_range(0..100);
        if self.signed_in.is_empty() || (choice < 15 && self.signed_in.len() < SIGNED_IN_MAX) {
            self.sign_in(load).await;
        } else if choice < 60 {
            let index = rand::rng().random_range(0..self.signed_in.len());
            let key = self.signed_in[index].key.clone();
            if let Some(seen) = self.read(load, &key, "?touch=30m").await {
                load.check(&self.signed_in[index], &seen, "on a look");
            }
        } else if choice < 80 {
            self.rewrite(load).await;
        } else if choice < 88 {
            self.sign_out(load).await;
        } else if !self.signed_out.is_empty() {
            let index = rand::rng().random_range(0..self.signed_out.len());
            let key = self.signed_out[index].key.clone();
            if let Some(seen) = self.read(load, &key, "").await {
                load.check(&self.signed_out[index], &seen, "after the sign-out");
            }
        }
    }

    async fn sign_in(&mut self, load: &Load) {
        let (key, value) = (format!("user/{:x}/session/{:x}", word() % 50, word()), format!("{:x}", word()));
        let answer = self.send(load, "PUT", &format!("{}?ttl=30m", record(&key)), &value).await;
        // Whether it failed or nobody knows: a browser without a cookie has no session.
        if answer.is_some_and(|answer| answer.code() == 201) {
            self.signed_in.push(Session::signed_in(key, value));
        }
    }

    async fn rewrite(&mut self, load: &Load) {
        let index = rand::rng().random_range(0..self.signed_in.len());
        let (key, value) = (self.signed_in[index].key.clone(), format!("{:x}", word()));
        let answer = self.send(load, "PUT", &format!("{}?ttl=30m", record(&key)), &value).await;
        let session = &mut self.signed_in[index];
        match answer.map(|answer| answer.code()) {
            Some(204) => session.written(value),
            // Created anew or deleted: then it was not there.
            Some(201 | 410) => load.check(session, &Seen::Nothing, "on a rewrite"),
            // Not accepted: certainly not applied.
            Some(503 | 507) => {}
            Some(_) | None => session.maybe_written(value),
        }
    }

    async fn sign_out(&mut self, load: &Load) {
        let index = rand::rng().random_range(0..self.signed_in.len());
        let mut session = self.signed_in.swap_remove(index);
        // Repeated until it is known: a browser whose sign-out failed is told, and tries again.
        while !load.is_over.load(Ordering::Relaxed) {
            let answer = self.send(load, "DELETE", &record(&session.key), "").await;
            if answer.is_some_and(|answer| answer.code() == 204) {
                session.signed_out();
                self.signed_out.push(session);
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn read(&mut self, load: &Load, key: &str, query: &str) -> Option<Seen> {
        let answer = self.send(load, "GET", &format!("{}{query}", record(key)), "").await?;
        match answer.code() {
            200 => Some(Seen::Value(answer.text())),
            404 | 410 => Some(Seen::Nothing),
            _ => None,
        }
    }

    async fn send(&mut self, load: &Load, method: &str, target: &str, body: &str) -> Option<Response> {
        load.requests.fetch_add(1, Ordering::Relaxed);
        let failure = match self.exchange(load, method, target, body).await {
            Ok(answer) if !answer.status.is_server_error() && answer.code() != 401 => {
                let stall =
                    self.last_success.replace(Instant::now()).map_or(0, |last| last.elapsed().as_millis());
                load.longest_stall_ms.fetch_max(u64::try_from(stall).unwrap_or(u64::MAX), Ordering::Relaxed);
                return Some(answer);
            }
            Ok(answer) => {
                (format!("{method} was answered {} {}", answer.status, answer.text()), Some(answer))
            }
            Err(error) => (format!("{method} failed: {error:#}"), None),
        };
        load.failed.fetch_add(1, Ordering::Relaxed);
        *load.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = failure.0;
        // A Service that was made anew has another address.
        self.address = None;
        failure.1
    }

    async fn exchange(
        &mut self,
        load: &Load,
        method: &str,
        target: &str,
        body: &str,
    ) -> anyhow::Result<Response> {
        let address = match self.address {
            Some(address) => address,
            None => tokio::net::lookup_host(&load.target.service).await?.next().context("no address")?,
        };
        self.address = Some(address);
        let mut request = Request::new(address, method, target).body(body.to_owned()).within(ANSWER_WAIT);
        if !load.target.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", load.target.token));
        }
        request.try_send().await.map_err(|error| match error {
            RequestError::TimedOut => anyhow::anyhow!("no answer within {ANSWER_WAIT:?}"),
            RequestError::Failed(error) => error,
        })
    }
}

/// A number that nobody else has.
fn word() -> u64 {
    rand::rng().random()
}
