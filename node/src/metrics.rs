//! What is counted, in the text format of OpenMetrics. Units are in the names.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::StatusCode;
use mneme_replica::status::{DigestState, MemberState};
use prometheus_client::encoding::text::{encode, encode_registry};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::driver::Driver;

/// A route of the client port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Route {
    /// GET and HEAD of a record.
    Get,
    /// PUT of a record.
    Put,
    /// DELETE of a record.
    Delete,
    /// Touch.
    Touch,
    /// List.
    List,
    /// Delete by match.
    DeleteMatching,
    /// Batch.
    Batch,
    /// Status.
    Status,
    /// Anything else.
    Other,
}

impl Route {
    /// All of them, in the order of their numbers.
    const ALL: [Self; 9] = [
        Self::Get,
        Self::Put,
        Self::Delete,
        Self::Touch,
        Self::List,
        Self::DeleteMatching,
        Self::Batch,
        Self::Status,
        Self::Other,
    ];
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: Route,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: Route,
}

type Histograms = Family<RouteLabels, Histogram, fn() -> Histogram>;

/// Counters and histograms that are kept as things happen; the rest is read when it is asked for.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    /// By the number of the route.
    routes: [RouteSeries; Route::ALL.len()],
    /// How long commits take, fsync included.
    pub commit_seconds: Histogram,
    /// How many entries go into a commit.
    pub commit_entries: Histogram,
    /// Handshakes that were refused.
    pub link_refusals: Counter<u64, AtomicU64>,
    /// Messages that could not be read; each ended its link.
    pub messages_unreadable: Counter<u64, AtomicU64>,
}

fn latency() -> Histogram {
    // 50 µs to 6.5 s, each twice the last.
    Histogram::new(exponential_buckets(0.000_05, 2.0, 18))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("mneme");
        let requests = Family::default();
        let request_seconds = Histograms::new_with_constructor(latency);
        let (commit_seconds, link_refusals) = (latency(), Counter::default());
        let messages_unreadable = Counter::default();
        let commit_entries = Histogram::new(exponential_buckets(1.0, 2.0, 14));
        registry.register("requests", "Requests of the client port", requests.clone());
        registry.register_with_unit(
            "request",
            "Time from a request's headers to its answer",
            Unit::Seconds,
            request_seconds.clone(),
        );
        registry.register_with_unit(
            "commit",
            "Time of a commit, fsync included",
            Unit::Seconds,
            commit_seconds.clone(),
        );
        registry.register("commit_entries", "Entries that go into one commit", commit_entries.clone());
        registry.register("link_refusals", "Handshakes with peers that were refused", link_refusals.clone());
        registry.register(
            "messages_unreadable",
            "Messages of peers that could not be read",
            messages_unreadable.clone(),
        );
        let routes = Route::ALL.map(|route| RouteSeries {
            seconds: request_seconds.get_or_create_owned(&RouteLabels { route }),
            requests: Default::default(),
        });
        Self {
            registry,
            requests,
            routes,
            commit_seconds,
            commit_entries,
            link_refusals,
            messages_unreadable,
        }
    }
}

/// The series of one route: looked up once, because a family's look-up costs more than what it counts.
struct RouteSeries {
    seconds: Histogram,
    /// By the place of the status in `STATUSES`.
    requests: [OnceLock<Counter>; STATUSES.len()],
}

/// What a request of any route is answered with as a rule.
const STATUSES: [u16; 12] = [200, 201, 204, 304, 400, 401, 404, 410, 412, 503, 504, 507];

impl Metrics {
    /// A request was answered.
    pub fn request(&self, route: Route, status: StatusCode, elapsed: Duration) {
        let series = &self.routes[route as usize];
        let labels = RequestLabels { route, status: status.as_u16() };
        match STATUSES.iter().position(|common| *common == labels.status) {
            Some(place) => {
                series.requests[place].get_or_init(|| self.requests.get_or_create_owned(&labels)).inc()
            }
            None => self.requests.get_or_create(&labels).inc(),
        };
        series.seconds.observe(elapsed.as_secs_f64());
    }

    /// Everything, as text.
    pub fn encode(&self, driver: &Driver) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode_registry(&mut text, &self.registry);
        let (registry, unused) = replica(driver);
        text.push_str(&unused);
        let _ = encode(&mut text, &registry);
        text
    }
}

/// Labels given as pairs.
type Labels = Vec<(&'static str, String)>;

/// What the replica says of itself now, and the lines that describe metrics without any value: the registry leaves
/// these out, and who looks for a metric of peers before there are any should find it.
fn replica(driver: &Driver) -> (Registry, String) {
    let (mut registry, mut unused) = (Registry::with_prefix("mneme"), String::new());
    let (status, size) = (driver.status(), driver.stored_size());
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let mut gauge = |name: &str, help: &str, values: Vec<(Labels, i64)>| {
        if let [(labels, value)] = &values[..]
            && labels.is_empty()
        {
            registry.register(name, help, ConstGauge::new(*value));
            return;
        }
        if values.is_empty() {
            unused.push_str(&format!("# HELP mneme_{name} {help}.\n# TYPE mneme_{name} gauge\n"));
            return;
        }
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        registry.register(name, help, family);
    };
    let alone = |value: i64| vec![(Vec::new(), value)];
    gauge("ready", "Whether the node is ready for traffic", alone(status.is_ready.into()));
    let tables = |value: fn(&mneme_replica::status::TableStatus) -> u64| {
        let table = |table: &mneme_replica::status::TableStatus| {
            (vec![("table", table.name.to_string())], number(value(table)))
        };
        status.tables.iter().map(table).collect::<Vec<_>>()
    };
    gauge("records", "Live records", tables(|table| table.live));
    gauge("tombstones", "Tombstones", tables(|table| table.tombstones));
    gauge("table_bytes", "Bytes of live keys and values", tables(|table| table.bytes));
    let members = |value: fn(&mneme_replica::status::MemberStatus) -> i64| {
        let others = status.members.iter().filter(|member| member.state != MemberState::Myself);
        others.map(|member| (vec![("member", member.node.to_string())], value(member))).collect::<Vec<_>>()
    };
    gauge(
        "member_live",
        "Whether the member is in contact",
        members(|member| i64::from(matches!(member.state, MemberState::Live | MemberState::Joining))),
    );
    gauge(
        "member_lag_writes",
        "Writes that the member lacks",
        members(|member| i64::try_from(member.lag_writes).unwrap_or(i64::MAX)),
    );
    gauge(
        "member_lag_milliseconds",
        "How long ago the member held everything that this node held then",
        status
            .members
            .iter()
            .filter(|member| member.state != MemberState::Myself)
            .filter_map(|member| Some((vec![("member", member.node.to_string())], number(member.lag_ms?))))
            .collect(),
    );
    gauge(
        "member_queue_bytes",
        "Bytes of writes that wait to be pushed to the member",
        members(|member| i64::try_from(member.outbox_bytes).unwrap_or(i64::MAX)),
    );
    gauge("member_skew_milliseconds", "Clock of the member less ours", members(|member| member.skew_ms));
    gauge(
        "member_digest_unequal",
        "Whether the member's data differed when last compared",
        members(|member| i64::from(member.digest == DigestState::Unequal)),
    );
    gauge(
        "acknowledgement_waits",
        "Client writes that wait for acknowledgement",
        alone(count(status.writes_in_flight)),
    );
    gauge("storage_queue_bytes", "Bytes that wait for the disk", alone(count(driver.queue().bytes())));
    gauge(
        "storage_file_bytes",
        "Size of the file",
        alone(number(size.file.file_bytes.max(size.frame_bytes))),
    );
    gauge("storage_frame_bytes", "Bytes of the frames in the file", alone(number(size.frame_bytes)));
    let counters = status.counters;
    for (name, help, value) in [
        ("writes_taken", "Writes taken from clients", counters.writes_taken),
        ("writes_merged", "Writes merged from peers' pushes", counters.writes_pushed_here),
        ("delta_rows", "Rows merged from deltas", counters.delta_rows),
        ("deltas_asked", "Deltas asked for", counters.deltas_asked),
        ("divergence_repaired", "Rows joined because digests differed", counters.divergence_repaired),
        (
            "digest_mismatches",
            "Comparisons that found a difference at equal vectors",
            counters.digest_mismatches,
        ),
        ("clock_refusals", "Rows refused because their version was ahead", counters.clock_refusals),
        ("queues_dropped", "Queues to peers that overflowed", counters.outboxes_dropped),
        ("rows_swept", "Rows dropped by the sweep", counters.swept),
        ("records_evicted", "Records evicted", counters.evicted),
        ("heartbeats", "Heartbeats taken in", counters.heartbeats),
        ("records_needed", "Touches that met no value", counters.records_needed),
        ("writes_repeated", "Pushed writes that were held already", counters.writes_repeated),
        ("messages_refused", "Messages of peers that cannot be true", counters.messages_refused),
    ] {
        registry.register(name, help, ConstCounter::new(value));
    }
    (registry, unused)
}
