//! What the operator does, in figures. Labels are words of enums, and kinds; never names of objects.

use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::time::Instant;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::crd::v1alpha1::SessionCacheStatus;
use crate::reconcile::apply::{Change, Verb};
use crate::reconcile::status::conditions::Reason;
use crate::requeue::Class;

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Done,
    /// Not.
    Failed(Class),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum ResultLabel {
    Success,
    Conflict,
    Throttled,
    Transient,
    Forbidden,
    Invalid,
    NotLeading,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: ResultLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadyLabels {
    ready: String,
}

/// All figures.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ResultLabels, Counter>,
    reconcile_seconds: Histogram,
    in_progress: Gauge,
    last_reconcile: Gauge<f64, std::sync::atomic::AtomicU64>,
    writes: Family<KindLabels, Counter>,
    drift: Family<KindLabels, Counter>,
    watch_errors: Counter,
    undecodable: Counter,
    event_errors: Counter,
    requests: Family<RequestLabels, Counter>,
    leading: Gauge<i64, AtomicI64>,
    caches: Family<ReadyLabels, Gauge>,
    resident: Gauge,
    /// Readiness of each set, from which `caches` is counted.
    readiness: Mutex<HashMap<String, String>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("mneme_operator");
        let reconciles = Family::<ResultLabels, Counter>::default();
        registry.register("reconciles", "Passes over a SessionCache, by result", reconciles.clone());
        // 1 ms to 32 s, each twice the last.
        let reconcile_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 16));
        registry.register_with_unit(
            "reconcile",
            "Time of a pass over a SessionCache",
            Unit::Seconds,
            reconcile_seconds.clone(),
        );
        let in_progress = Gauge::default();
        registry.register("reconciles_in_progress", "Passes under way", in_progress.clone());
        let last_reconcile = Gauge::default();
        registry.register_with_unit(
            "last_reconcile_timestamp",
            "When a pass last ended well, since the Unix epoch",
            Unit::Seconds,
            last_reconcile.clone(),
        );
        let writes = Family::<KindLabels, Counter>::default();
        registry.register("writes", "Objects written, by kind", writes.clone());
        let drift = Family::<KindLabels, Counter>::default();
        registry.register("drift_corrections", "Objects put back after others changed them", drift.clone());
        let watch_errors = Counter::default();
        registry.register("watch_errors", "Watches that failed and were tried again", watch_errors.clone());
        let undecodable = Counter::default();
        registry.register("undecodable", "SessionCaches that could not be read", undecodable.clone());
        let event_errors = Counter::default();
        registry.register("event_errors", "Events that could not be published", event_errors.clone());
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("api_requests", "Requests to the API server, by method", requests.clone());
        let leading = Gauge::default();
        registry.register("leading", "Whether this process holds the Lease", leading.clone());
        let caches = Family::<ReadyLabels, Gauge>::default();
        registry.register(
            "session_caches",
            "SessionCaches, by their condition Ready; Stopped are those scaled to 0",
            caches.clone(),
        );
        let resident = Gauge::default();
        registry.register_with_unit(
            "resident_memory",
            "Memory of this process that is in use",
            Unit::Bytes,
            resident.clone(),
        );
        Self {
            registry,
            reconciles,
            reconcile_seconds,
            in_progress,
            last_reconcile,
            writes,
            drift,
            watch_errors,
            undecodable,
            event_errors,
            requests,
            leading,
            caches,
            resident,
            readiness: Mutex::default(),
        }
    }
}

impl Metrics {
    /// A pass begins.
    pub fn begin(&self) -> Instant {
        self.in_progress.inc();
        Instant::now()
    }

    /// A pass ends.
    pub fn end(&self, began: Instant, outcome: Outcome) {
        self.in_progress.dec();
        self.reconcile_seconds.observe(began.elapsed().as_secs_f64());
        let result = match outcome {
            Outcome::Done => ResultLabel::Success,
            Outcome::Failed(Class::Conflict) => ResultLabel::Conflict,
            Outcome::Failed(Class::Throttled(_)) => ResultLabel::Throttled,
            Outcome::Failed(Class::Transient) => ResultLabel::Transient,
            Outcome::Failed(Class::Forbidden) => ResultLabel::Forbidden,
            Outcome::Failed(Class::Invalid) => ResultLabel::Invalid,
            Outcome::Failed(Class::NotLeading) => ResultLabel::NotLeading,
        };
        self.reconciles.get_or_create(&ResultLabels { result }).inc();
        if outcome == Outcome::Done {
            self.last_reconcile.set(jiff::Timestamp::now().as_duration().as_secs_f64());
        }
    }

    /// An object was written.
    pub fn wrote(&self, change: &Change) {
        let labels = KindLabels { kind: change.kind.clone() };
        self.writes.get_or_create(&labels).inc();
        if change.verb == Verb::Restored {
            self.drift.get_or_create(&labels).inc();
        }
    }

    /// A watch failed.
    pub fn watch_failed(&self) {
        self.watch_errors.inc();
    }

    /// A SessionCache could not be read.
    pub fn undecodable(&self) {
        self.undecodable.inc();
    }

    /// An event was not published.
    pub fn event_failed(&self) {
        self.event_errors.inc();
    }

    /// A request goes to the API server.
    pub fn request(&self, method: &http::Method) {
        self.requests.get_or_create(&RequestLabels { method: method.as_str().to_owned() }).inc();
    }

    /// Whether this process holds the Lease.
    pub fn leads(&self, is_leading: bool) {
        self.leading.set(is_leading.into());
    }

    /// A status was made.
    pub fn reported(&self, set: &str, status: &SessionCacheStatus) {
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        let ready = ready.map_or("Unknown", |condition| {
            // Not ready on purpose: nothing that an alert should tell of.
            let is_stopped = condition.reason == Reason::Stopped.as_str();
            if is_stopped { "Stopped" } else { condition.status.as_str() }
        });
        let ready = ready.to_owned();
        self.readiness.lock().insert(set.to_owned(), ready);
        self.count();
    }

    /// A set is gone.
    pub fn forget(&self, set: &str) {
        self.readiness.lock().remove(set);
        self.count();
    }

    fn count(&self) {
        let readiness = self.readiness.lock();
        for ready in ["True", "False", "Unknown", "Stopped"] {
            let count = readiness.values().filter(|value| *value == ready).count();
            let labels = ReadyLabels { ready: ready.to_owned() };
            self.caches.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Everything, as text.
    pub fn encode(&self) -> String {
        self.resident.set(resident_bytes().unwrap_or(0));
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Bytes of memory that this process occupies, as the kernel counts them.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told() {
        let text = Metrics::default().encode();
        let line = text.lines().find(|line| line.starts_with("mneme_operator_resident_memory_bytes "));
        let bytes: i64 = line
            .expect("it is there")
            .rsplit(' ')
            .next()
            .and_then(|bytes| bytes.parse().ok())
            .expect("a number");
        assert!((1 << 20..1 << 32).contains(&bytes), "{bytes}");
    }
}
