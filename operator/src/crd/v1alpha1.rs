//! `SessionCache`, version `v1alpha1`. The documentation of a field is its documentation in the cluster.

#![expect(unreachable_pub, reason = "the derived schema repeats the types within functions")]

mod status;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::rules;

pub use self::status::{Member, Peer, SessionCacheStatus};

/// A replicated session cache: sign in on any node, be signed in on every node; sign out once, stay signed out.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "mneme.dev",
    version = "v1alpha1",
    kind = "SessionCache",
    plural = "sessioncaches",
    singular = "sessioncache",
    shortname = "scache",
    category = "all",
    namespaced,
    status = "SessionCacheStatus",
    derive = "PartialEq",
    doc = "A replicated session cache: sign in on any node, be signed in on every node; sign out once, stay signed out.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Members",
        type_ = "string",
        json_path = ".status.memberSummary",
        description = "Members that are ready and caught up, of those asked for"
    ),
    printcolumn(
        name = "Peers",
        type_ = "string",
        json_path = ".status.peerSummary",
        description = "Peers outside the set that are reached, of those found"
    ),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Lag",
        type_ = "integer",
        json_path = ".status.lagWrites",
        priority = 1,
        description = "Acknowledged writes that the member furthest behind lacks"
    ),
    printcolumn(name = "Storage", type_ = "string", json_path = ".spec.storage.size", priority = 1),
    validation = rules::name(),
    validation = rules::cluster_name_is_immutable()
)]
#[serde(rename_all = "camelCase")]
pub struct SessionCacheSpec {
    /// Number of nodes, 0 to 15. Each holds a full copy. 0 stops all nodes and keeps their data. Default 3.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 15))]
    pub replicas: i32,

    /// Image of the nodes, whole: registry, repository and tag or digest. Default: the image in the operator's
    /// configuration when the set was made; it stays until image or version is given, so that an upgrade of the
    /// operator restarts no node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = rules::image())]
    pub image: Option<String>,

    /// Version of the nodes: the tag put to the image of the operator's configuration. Not used when image is given.
    /// Changing it replaces one node after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = rules::version())]
    pub version: Option<String>,

    /// Name of the cluster; nodes refuse peers of another. Peers outside this set must be started with the same.
    /// Immutable. Default: the name of this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::cluster_name())]
    pub cluster_name: Option<String>,

    /// The tables. A client's use of any other is answered 404. A change replaces one node after the other. Default:
    /// one table, sessions.
    #[serde(default = "default_tables")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["name".to_owned()]))]
    pub tables: Vec<TableSpec>,

    /// Peers outside this set: on hosts, or in other clusters and namespaces. The set's own nodes find each other.
    #[serde(default)]
    pub peers: PeersSpec,

    /// Where a node keeps its file.
    #[serde(default)]
    pub storage: StorageSpec,

    /// When a write counts as durable: fsync, when it is on the disk; commit, when the operating system has it. Default
    /// fsync.
    #[serde(default)]
    pub durability: Durability,

    /// What nodes do that cannot reach a majority: serve goes on answering and merges later. Default serve, the only
    /// policy yet.
    #[serde(default)]
    pub partition_policy: PartitionPolicy,

    /// Processor and memory of a node. Default: requests 100m and 128Mi, and a memory limit of 512Mi; tables share 70 %
    /// of the memory limit unless they have a maxBytes. Given, it replaces the default whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,

    /// Who may use the client port and who may be a peer.
    #[serde(default)]
    pub auth: AuthSpec,

    /// Who may connect to the nodes.
    #[serde(default)]
    pub network_policy: NetworkPolicySpec,

    /// How the nodes are scraped.
    #[serde(default)]
    pub monitoring: MonitoringSpec,

    /// Merged over the pods that the operator builds, as `kubectl patch --type strategic` would: lists of things with
    /// names are merged by name, a null removes. The container of the node is named node. A change replaces one node
    /// after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplateSpec>,

    /// Stops all changes by the operator; status is still kept. Default false.
    #[serde(default)]
    pub paused: bool,
}

/// A table.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ttl_within_age(), validation = rules::touch_within_ttl())]
pub struct TableSpec {
    /// Name: 1 to 63 lowercase letters, digits and hyphens.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::table_name())]
    pub name: String,
    /// What a delete means. session: final, a deleted key cannot live again. cache: the last writer wins, a deleted key
    /// may be put again. Immutable. Default session.
    #[serde(default)]
    #[x_kube(validation = rules::table_kind_is_immutable())]
    pub kind: TableKind,
    /// Idle time to live of a put without one, at most maxAge. A duration: 500ms, 30s, 15m, 12h, 30d. Default 30m.
    #[serde(default = "default_ttl")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = rules::duration(), validation = rules::duration_in_bounds())]
    pub default_ttl: String,
    /// Longest life of a record, whatever touches it. A duration. Default 30d.
    #[serde(default = "default_max_age")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = rules::duration(), validation = rules::duration_in_bounds())]
    pub max_age: String,
    /// Bytes of a value, at most. Default 262144.
    #[serde(default = "default_max_value_bytes")]
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub max_value_bytes: i64,
    /// Bytes of live keys and values of this table on each node, at most. 0: its share of 70 % of the memory limit.
    /// Default 0.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub max_bytes: i64,
    /// What a put meets at maxBytes. reject: it is refused with status 507. evict-nearest-expiry: the records nearest to
    /// their expiry make room. Default reject.
    #[serde(default)]
    pub when_full: WhenFull,
    /// By how much a touch may store a later deadline than asked for, so that the next touches need no write. A duration,
    /// at most defaultTtl. Default: a sixteenth of the ttl, at most 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = rules::duration(), validation = rules::duration_in_bounds())]
    pub touch_resolution: Option<String>,
}

/// What a delete means in a table.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// Final: a deleted key cannot live again.
    #[default]
    Session,
    /// The last writer wins.
    Cache,
}

/// What a put meets when the table is full.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The put is refused.
    #[default]
    Reject,
    /// The records nearest to their expiry make room.
    EvictNearestExpiry,
}

/// When a write counts as durable.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// It is on the disk.
    #[default]
    Fsync,
    /// The operating system has it.
    Commit,
}

/// What nodes do that cannot reach a majority.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionPolicy {
    /// They go on answering.
    #[default]
    Serve,
}

/// Peers outside the set.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeersSpec {
    /// Hosts: a name or an IPv4 address with or without :port, an IPv6 address (with a port in brackets), or the name of
    /// an SRV record, which begins with an underscore. Without a port 7071. The operator resolves names and hands all
    /// their addresses to the nodes; an error or an empty answer removes nobody. Changing it restarts no node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 261)))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Set, validation = rules::hosts())]
    pub hosts: Vec<String>,
    /// A headless Service whose endpoints are peers: the peer Service of another SessionCache, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headless_service: Option<HeadlessServiceSpec>,
}

/// A headless Service.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeadlessServiceSpec {
    /// Name of the Service.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::service_name())]
    pub name: String,
    /// Namespace of the Service. Default: the namespace of this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::namespace_name())]
    pub namespace: Option<String>,
    /// Peer port of those nodes. Default 7071.
    #[serde(default = "default_peer_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// Where a node keeps its file.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::storage_class_is_immutable(), validation = rules::ephemeral_is_immutable())]
pub struct StorageSpec {
    /// Size of each node's volume claim. May grow, where the storage class allows it, and never shrink. Of an ephemeral
    /// volume it is the limit. Default 1Gi.
    #[serde(default = "default_size")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = rules::storage_size(), validation = rules::storage_may_not_shrink())]
    pub size: String,
    /// Storage class of the volume claims; it should offer block storage of one node, not a network file system. Immutable.
    /// Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    /// Keeps the file in an emptyDir: a node that is replaced comes back empty and catches up from the others; when all
    /// are gone the sessions are. Immutable. Default false.
    #[serde(default)]
    pub ephemeral: bool,
    /// What becomes of volume claims that are needed no more.
    #[serde(default)]
    pub retention: RetentionSpec,
}

/// What becomes of volume claims.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionSpec {
    /// When this resource is deleted. Default Retain.
    #[serde(default)]
    pub when_deleted: Retention,
    /// Of nodes taken away by a smaller number of replicas. Default Retain.
    #[serde(default)]
    pub when_scaled: Retention,
}

/// Whether a volume claim stays.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub enum Retention {
    /// It stays.
    #[default]
    Retain,
    /// It is deleted.
    Delete,
}

/// Processor and memory.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourcesSpec {
    /// What is set aside: cpu, memory, as quantities.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, IntOrString>,
    /// What may not be exceeded: cpu, memory, as quantities.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, IntOrString>,
}

/// Who may use the client port and who may be a peer.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthSpec {
    /// Whether clients need a token. Default true.
    #[serde(default = "default_true")]
    pub enabled: bool,
    /// Secret whose key tokens holds a line name:token for each client. A change is valid within seconds of reaching the
    /// nodes, without a restart. Default: the Secret NAME-tokens, which the operator makes once, with one random token,
    /// also alone under the key token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::secret_name())]
    pub tokens_secret: Option<String>,
    /// Secret whose key secret holds what peers prove to each other: every line is valid, the first is used. To rotate,
    /// add the new one as second line, then make it the first, then remove the old one. Peers outside need the same.
    /// Default: the Secret NAME-cluster, which the operator makes once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::secret_name())]
    pub cluster_secret: Option<String>,
}

/// Who may connect to the nodes.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicySpec {
    /// Whether a NetworkPolicy is made. It lets clients to port 7070, the set's own pods and the peers of spec.peers to
    /// 7071, and pods of the cluster to the admin port 7072; what nodes may reach is not limited. Default true.
    #[serde(default = "default_true")]
    pub enabled: bool,
    /// Who may reach the client port: peers as in a NetworkPolicy (podSelector, namespaceSelector, ipBlock). Default:
    /// everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub clients: Vec<AnyObject>,
}

/// How the nodes are scraped.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MonitoringSpec {
    /// Whether a PodMonitor is made, where the cluster knows that kind. Default true.
    #[serde(default = "default_true")]
    pub pod_monitor: bool,
    /// Labels put on the PodMonitor, by which a Prometheus selects it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
    /// Time between two scrapes, as Prometheus has it. Default 30s.
    #[serde(default = "default_scrape_interval")]
    #[schemars(length(max = 16))]
    pub interval: String,
}

/// Overrides of the pods.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplateSpec {
    /// Labels and annotations put on the pods.
    #[serde(default)]
    pub metadata: PodMetadataSpec,
    /// Merged over the spec of the pods: any field of a pod's spec.
    #[serde(default)]
    pub spec: AnyObject,
}

/// Labels and annotations.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodMetadataSpec {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = rules::labels())]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// An object whose fields are another schema's to say.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(transparent)]
pub struct AnyObject(pub Map<String, Value>);

impl JsonSchema for AnyObject {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AnyObject".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}

fn default_replicas() -> i32 {
    3
}

fn default_tables() -> Vec<TableSpec> {
    vec![TableSpec::new("sessions")]
}

fn default_ttl() -> String {
    "30m".to_owned()
}

fn default_max_age() -> String {
    "30d".to_owned()
}

fn default_max_value_bytes() -> i64 {
    262_144
}

fn default_peer_port() -> i32 {
    7071
}

fn default_size() -> String {
    "1Gi".to_owned()
}

fn default_scrape_interval() -> String {
    "30s".to_owned()
}

fn default_true() -> bool {
    true
}

impl TableSpec {
    /// A table with default settings.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: TableKind::default(),
            default_ttl: default_ttl(),
            max_age: default_max_age(),
            max_value_bytes: default_max_value_bytes(),
            max_bytes: 0,
            when_full: WhenFull::default(),
            touch_resolution: None,
        }
    }
}

impl Default for StorageSpec {
    fn default() -> Self {
        Self {
            size: default_size(),
            storage_class_name: None,
            ephemeral: false,
            retention: RetentionSpec::default(),
        }
    }
}

impl Default for AuthSpec {
    fn default() -> Self {
        Self { enabled: true, tokens_secret: None, cluster_secret: None }
    }
}

impl Default for NetworkPolicySpec {
    fn default() -> Self {
        Self { enabled: true, clients: Vec::new() }
    }
}

impl Default for MonitoringSpec {
    fn default() -> Self {
        Self { pod_monitor: true, labels: BTreeMap::new(), interval: default_scrape_interval() }
    }
}
