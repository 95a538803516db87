//! The Lease: of several operators one acts.
//!
//! Clocks of other processes are not trusted. A candidate watches the record, and takes it over when it has not changed
//! for its duration by the candidate's own clock; every write carries the `resourceVersion` that was read, so of two
//! candidates one gets a conflict. The holder counts its claim from the moment before it asked for the renewal, and for
//! less than the duration, so that it stops before anybody else begins. (The crates at hand take an expired Lease over by
//! a patch without `resourceVersion`, or compare the record's time stamps with the local clock.)

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::telemetry::chain;

/// Name of the Lease.
pub const LEASE: &str = "mneme-operator";
/// Time without a change after which a record is taken over, in seconds.
const DURATION_SECS: i32 = 15;
/// Time that a renewal is good for: five seconds less than others wait, which is more than a write takes.
const CLAIM: Duration = Duration::from_secs(10);
/// Pause between two looks at the record.
const PAUSE: Duration = Duration::from_secs(2);
/// A request that takes longer is given up: the next one may do better.
const REQUEST_MAX: Duration = Duration::from_secs(3);

/// Until when this process may write.
#[derive(Clone, Debug)]
pub struct Claim {
    until: watch::Receiver<Option<Instant>>,
}

impl Claim {
    /// Whether this process may write now.
    pub fn is_held(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until this process may write.
    pub async fn wait(&mut self) {
        // The other end lives as long as the process; should it end, nobody may write any more.
        if self.until.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// A claim that holds for so long: for tests, and for nothing else.
    #[doc(hidden)]
    pub fn fixed(duration: Duration) -> Self {
        let (sender, until) = watch::channel(Some(Instant::now() + duration));
        drop(sender);
        Self { until }
    }
}

/// How the record was when it last changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its version.
    pub resource_version: String,
    /// When that version was first seen, by the own clock.
    pub since: Instant,
}

/// What to do about the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is none: make it.
    Create,
    /// It is free, or its holder is gone.
    TakeOver,
    /// It is this process's.
    Renew,
    /// It is another's.
    Wait,
}

/// Decides by the record, since when it is as it is, and the own clock.
pub fn decide(lease: Option<&Lease>, seen: Option<&Seen>, identity: &str, now: Instant) -> Decision {
    let Some(lease) = lease else { return Decision::Create };
    let spec = lease.spec.clone().unwrap_or_default();
    let holder = spec.holder_identity.unwrap_or_default();
    if holder == identity {
        return Decision::Renew;
    }
    let seconds = spec.lease_duration_seconds.unwrap_or(DURATION_SECS);
    let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let is_expired = seen.is_some_and(|seen| {
        lease.metadata.resource_version.as_deref() == Some(&seen.resource_version)
            && now.duration_since(seen.since) >= duration
    });
    if holder.is_empty() || is_expired { Decision::TakeOver } else { Decision::Wait }
}

/// Why this process may lead no more.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// Another process holds the Lease.
    #[error("another operator, {0}, holds the Lease")]
    Lost(String),
    /// The Lease could not be renewed.
    #[error("the Lease could not be renewed in time")]
    Expired,
}

/// A candidate, and the leader when it holds the Lease.
pub struct Leader {
    api: Api<Lease>,
    identity: String,
    seen: Option<Seen>,
    until: watch::Sender<Option<Instant>>,
    progress: watch::Sender<Instant>,
}

impl Leader {
    /// A candidate. A random end makes the identity unlike that of any other process, whatever it was called.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        let identity = format!("{name}_{:08x}", rand::random::<u32>());
        let (until, progress) = (watch::Sender::new(None), watch::Sender::new(Instant::now()));
        Self { api: Api::namespaced(client, namespace), identity, seen: None, until, progress }
    }

    /// Who it is in the record.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Until when this process may write.
    pub fn claim(&self) -> Claim {
        Claim { until: self.until.subscribe() }
    }

    /// When the loop last turned, successful or not: for `/livez`.
    pub fn progress(&self) -> watch::Receiver<Instant> {
        self.progress.subscribe()
    }

    /// Acquires and renews until `stop`, then gives the Lease back.
    ///
    /// # Errors
    ///
    /// [`LeaderError`] when the Lease was held and is no more: the process has to end, for what it has begun may not go on.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LeaderError> {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                ended = self.turn() => ended?,
            }
            self.progress.send_replace(Instant::now());
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        self.release().await;
        Ok(())
    }

    async fn turn(&mut self) -> Result<(), LeaderError> {
        let asked = Instant::now();
        let held = match tokio::time::timeout(REQUEST_MAX, self.step()).await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => {
                tracing::warn!(error = %chain(&error), "failed to use the Lease");
                Held::Unknown
            }
            Err(_) => {
                tracing::warn!("failed to use the Lease: no answer in time");
                Held::Unknown
            }
        };
        let until = *self.until.borrow();
        match (held, until) {
            (Held::Mine, before) => {
                if before.is_none() {
                    tracing::info!(identity = %self.identity, "leading");
                }
                self.until.send_replace(Some(asked + CLAIM));
                Ok(())
            }
            (Held::Other(holder), Some(_)) => {
                self.until.send_replace(None);
                Err(LeaderError::Lost(holder))
            }
            (Held::Unknown, Some(until)) if Instant::now() >= until => {
                self.until.send_replace(None);
                Err(LeaderError::Expired)
            }
            (Held::Other(_) | Held::Unknown, _) => Ok(()),
        }
    }

    async fn step(&mut self) -> Result<Held, kube::Error> {
        let lease = self.api.get_opt(LEASE).await?;
        let now = Instant::now();
        let version = lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if version.as_ref() != self.seen.as_ref().map(|seen| &seen.resource_version) {
            self.seen = version.map(|resource_version| Seen { resource_version, since: now });
        }
        let params = PostParams::default();
        let written = match decide(lease.as_ref(), self.seen.as_ref(), &self.identity, now) {
            Decision::Create => self.api.create(&params, &self.record(None)).await,
            Decision::TakeOver | Decision::Renew => {
                self.api.replace(LEASE, &params, &self.record(lease.as_ref())).await
            }
            Decision::Wait => {
                let holder = lease.and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity);
                return Ok(Held::Other(holder.unwrap_or_default()));
            }
        };
        match written {
            Ok(_) => Ok(Held::Mine),
            // Somebody was faster: who, the next look says.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Held::Unknown),
            Err(error) => Err(error),
        }
    }

    /// The record as this process writes it over the one it read.
    fn record(&self, read: Option<&Lease>) -> Lease {
        let now = MicroTime(jiff::Timestamp::now());
        let before = read.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let is_mine = before.holder_identity.as_deref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or_default();
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION_SECS),
            acquire_time: if is_mine { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if is_mine { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        };
        let metadata = match read {
            Some(lease) => lease.metadata.clone(),
            None => ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
        };
        Lease { metadata, spec: Some(spec) }
    }

    /// Gives the Lease back, so that the next operator need not wait. The claim ends first.
    async fn release(&mut self) {
        if self.until.send_replace(None).is_none() {
            return;
        }
        let released = tokio::time::timeout(REQUEST_MAX, async {
            let Some(mut lease) = self.api.get_opt(LEASE).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            self.api.replace(LEASE, &PostParams::default(), &lease).await.map(|_| ())
        });
        match released.await {
            Ok(Ok(())) => tracing::info!("gave the Lease back"),
            Ok(Err(error)) => {
                tracing::warn!(error = %chain(&error), "failed to give the Lease back: it runs out")
            }
            Err(_) => tracing::warn!("failed to give the Lease back in time: it runs out"),
        }
    }
}

/// Whose the Lease is.
enum Held {
    Mine,
    Other(String),
    Unknown,
}

#[cfg(test)]
mod tests;
