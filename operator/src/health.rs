//! Probes. Alive is who makes progress: the loop of the Lease turns, and the watches see what the API server has. A
//! process whose watches died without a word would else stay green for ever.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use kube::api::{ListParams, PartialObjectMeta};
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::controller::Guarded;
use crate::crd::v1alpha1::SessionCache;
use crate::metrics::Metrics;
use crate::telemetry::chain;

/// The loop of the Lease turns every two seconds, five when the API server does not answer.
const LEASE_MAX: Duration = Duration::from_secs(60);
/// Pause between two comparisons of a watch with the API server.
const PROBE_PAUSE: Duration = Duration::from_secs(30);
/// Comparisons in a row that a watch may be behind: two minutes.
const BEHIND_MAX: u32 = 4;

/// What probes look at.
pub struct Health {
    lease: watch::Receiver<Instant>,
    started: Instant,
    /// By namespace: comparisons in a row in which the watch was behind.
    behind: Mutex<HashMap<String, u32>>,
    metrics: Arc<Metrics>,
}

impl Health {
    /// Of a process whose loop of the Lease reports here.
    pub fn new(lease: watch::Receiver<Instant>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { lease, started: Instant::now(), behind: Mutex::default(), metrics })
    }

    /// What is wrong; `None` when progress is made.
    fn trouble(&self) -> Option<String> {
        let turned = *self.lease.borrow();
        if turned.elapsed() > LEASE_MAX {
            return Some(format!(
                "the loop of the Lease has not turned for {} s",
                turned.elapsed().as_secs()
            ));
        }
        let behind = self.behind.lock();
        let stuck = behind.iter().find(|(_, count)| **count >= BEHIND_MAX);
        stuck.map(|(scope, _)| format!("the watch of {scope} does not see what the API server has"))
    }

    /// Whether the API server answered at least once.
    fn is_ready(&self) -> bool {
        *self.lease.borrow() > self.started && self.trouble().is_none()
    }

    fn note(&self, scope: &str, is_behind: bool) {
        let mut behind = self.behind.lock();
        let count = behind.entry(scope.to_owned()).or_default();
        *count = if is_behind { count.saturating_add(1) } else { 0 };
    }

    /// `/livez`, `/readyz`, `/metrics`.
    pub fn router(self: Arc<Self>) -> Router {
        let (live, ready, metrics) = (self.clone(), self.clone(), self);
        Router::new()
            .route(
                "/livez",
                get(move || async move {
                    match live.trouble() {
                        None => (StatusCode::OK, "ok\n".to_owned()),
                        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")),
                    }
                }),
            )
            .route(
                "/readyz",
                get(move || async move {
                    if ready.is_ready() {
                        (StatusCode::OK, "ok\n")
                    } else {
                        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
                    }
                }),
            )
            .route(
                "/metrics",
                get(move || async move {
                    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                    ([("content-type", kind)], metrics.metrics.encode())
                }),
            )
    }
}

/// Versions of objects by namespace and name.
type Versions = HashMap<String, String>;

/// Whether a watch is behind: an object has been as it is for the whole time between two looks, and the watch has it
/// otherwise.
fn is_behind(before: &Versions, now: &Versions, seen: &Versions) -> bool {
    let is_old = |(name, version): &(&String, &String)| before.get(*name) == Some(*version);
    let is_missed = now.iter().filter(is_old).any(|(name, version)| seen.get(name) != Some(version));
    let is_gone = |name: &String| !before.contains_key(name) && !now.contains_key(name);
    is_missed || seen.keys().any(is_gone)
}

/// Compares the watch of a scope with the API server until `stop`.
pub async fn follow(
    health: Arc<Health>,
    scope: String,
    api: Api<PartialObjectMeta<SessionCache>>,
    store: Store<Guarded>,
    stop: CancellationToken,
) {
    let mut before = Versions::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PROBE_PAUSE) => {}
        }
        // First what the watch has: what comes meanwhile must not count against it.
        let seen = store.state().iter().filter_map(|object| version(&**object)).collect();
        match api.list(&ListParams::default()).await {
            Ok(list) => {
                let now: Versions = list.items.iter().filter_map(version).collect();
                health.note(&scope, is_behind(&before, &now, &seen));
                before = now;
            }
            // Nobody can be compared with a server that does not answer; a restart would not help it either.
            Err(error) => {
                tracing::debug!(error = %chain(&error), "failed to compare the watch with the API server")
            }
        }
    }
}

fn version<K: ResourceExt>(object: &K) -> Option<(String, String)> {
    Some((crate::reconcile::key(object), object.resource_version()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(pairs: &[(&str, &str)]) -> Versions {
        pairs.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
    }

    #[test]
    fn a_watch_is_behind_when_it_lacks_what_is_old() {
        let old = versions(&[("a/x", "1")]);
        assert!(!is_behind(&old, &old, &old));
        assert!(is_behind(&old, &old, &versions(&[])));
        assert!(is_behind(&old, &old, &versions(&[("a/x", "0")])));
        // What just changed may be on its way.
        assert!(!is_behind(&old, &versions(&[("a/x", "2")]), &old));
        assert!(!is_behind(&versions(&[]), &old, &versions(&[])));
        // What is gone for long and still there.
        assert!(is_behind(&versions(&[]), &versions(&[]), &old));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_loop_that_stands_still_is_noticed() {
        let (turned, lease) = watch::channel(Instant::now());
        let health = Health::new(lease, Arc::default());
        assert_eq!(health.trouble(), None);
        assert!(!health.is_ready());
        tokio::time::advance(Duration::from_secs(1)).await;
        turned.send_replace(Instant::now());
        assert!(health.is_ready());
        tokio::time::advance(LEASE_MAX + Duration::from_secs(1)).await;
        assert!(health.trouble().is_some());
        turned.send_replace(Instant::now());
        (0..BEHIND_MAX).for_each(|_| health.note("all", true));
        assert!(health.trouble().is_some());
        health.note("all", false);
        assert_eq!(health.trouble(), None);
    }
}
