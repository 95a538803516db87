//! `/v1/status`: this node, its members, tables, sources and file, as this node sees them.

use std::time::Instant;

use mneme_api::TableKind;
use mneme_replica::status::{DigestState, MemberState, MemberStatus, NodeState, TableStatus};
use serde::Serialize;
use tokio::sync::watch;

use super::Api;
use super::list::json;
use super::problem::Answer;
use crate::peers::discovery::Discovered;
use crate::wall_clock;

/// What the status says besides the replica.
pub struct StatusContext {
    /// Label for people.
    pub name: String,
    /// Name of the cluster.
    pub cluster: String,
    /// When the process started.
    pub started: Instant,
    /// What discovery knows.
    pub discovered: watch::Receiver<Discovered>,
    /// When a commit counts as durable.
    pub durability: &'static str,
    /// Version of the SQLite library.
    pub sqlite_version: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusBody {
    node: NodeBody,
    cluster: String,
    /// Node time, RFC 3339.
    time: String,
    members: Vec<MemberBody>,
    discovery: Vec<SourceBody>,
    tables: Vec<TableBody>,
    storage: StorageBody,
    /// Client writes that wait for acknowledgement.
    writes_in_flight: usize,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct NodeBody {
    id: String,
    name: String,
    version: &'static str,
    uptime_ms: u64,
    /// `starting`, `joining`, `ready`, `draining` or `readOnly`.
    state: &'static str,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct MemberBody {
    id: String,
    name: String,
    address: String,
    /// `self`, `joining`, `live`, `suspect` or `down`.
    state: &'static str,
    /// Writes we know of that it lacks.
    lag_writes: u64,
    /// `null` when it was never heard of.
    last_contact_ms: Option<u64>,
    /// Its node time less ours.
    skew_ms: i64,
    /// `equal`, `unequal` or `unknown`.
    digest: &'static str,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct SourceBody {
    source: String,
    addresses: Vec<String>,
    last_error: Option<String>,
    /// Milliseconds since it last named anybody; `null` when it has not since the start.
    age_ms: Option<u64>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct TableBody {
    name: String,
    /// `session` or `cache`.
    kind: &'static str,
    live: u64,
    tombstones: u64,
    bytes: u64,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct StorageBody {
    file_bytes: u64,
    live_bytes: u64,
    durability: &'static str,
    sqlite_version: String,
}

impl Api {
    pub(super) fn status(&self) -> Answer {
        let status = self.driver.status();
        let context = &self.context;
        let size = self.driver.stored_size();
        let time =
            i64::try_from(status.now_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        json(&StatusBody {
            node: NodeBody {
                id: status.origin.node.to_string(),
                name: context.name.clone(),
                version: env!("CARGO_PKG_VERSION"),
                uptime_ms: u64::try_from(context.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                state: state_name(status.state),
            },
            cluster: context.cluster.clone(),
            time: time.map(|time| format!("{time:.3}")).unwrap_or_default(),
            members: status.members.iter().map(member).collect(),
            discovery: sources(&context.discovered.borrow()),
            tables: status.tables.iter().map(table).collect(),
            storage: StorageBody {
                file_bytes: size.file.file_bytes.max(size.frame_bytes),
                live_bytes: crate::storage::writer::Owner::live_bytes(&*self.driver),
                durability: context.durability,
                sqlite_version: context.sqlite_version.clone(),
            },
            writes_in_flight: status.writes_in_flight,
        })
    }
}

/// The state of a node in one word.
fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Starting => "starting",
        NodeState::Joining => "joining",
        NodeState::Ready => "ready",
        NodeState::Draining => "draining",
        NodeState::ReadOnly => "readOnly",
    }
}

fn member(member: &MemberStatus) -> MemberBody {
    MemberBody {
        id: member.node.to_string(),
        name: member.name.clone(),
        address: member.address.clone(),
        state: match member.state {
            MemberState::Myself => "self",
            MemberState::Joining => "joining",
            MemberState::Live => "live",
            MemberState::Suspect => "suspect",
            MemberState::Down => "down",
        },
        lag_writes: member.lag_writes,
        last_contact_ms: member.last_contact_ms,
        skew_ms: member.skew_ms,
        digest: match member.digest {
            DigestState::Equal => "equal",
            DigestState::Unequal => "unequal",
            DigestState::Unknown => "unknown",
        },
    }
}

fn sources(discovered: &Discovered) -> Vec<SourceBody> {
    let now_ms = wall_clock::boot_ms();
    let source = |source: &crate::peers::discovery::SourceState| SourceBody {
        source: source.source.clone(),
        addresses: source.addresses().cloned().collect(),
        last_error: source.last_error.clone(),
        age_ms: source.answered_boot_ms.map(|answered| now_ms.saturating_sub(answered)),
    };
    discovered.sources.iter().map(source).collect()
}

fn table(table: &TableStatus) -> TableBody {
    TableBody {
        name: table.name.to_string(),
        kind: match table.kind {
            TableKind::Session => "session",
            TableKind::Cache => "cache",
        },
        live: table.live,
        tombstones: table.tombstones,
        bytes: table.bytes,
    }
}
