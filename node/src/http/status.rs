//! `/v1/status`: this node, its members, tables, sources and file, as this node sees them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use mneme_api::{
    DigestName, MemberBody, MemberStateName, NodeBody, NodeStateName, SourceBody, StatusBody, StorageBody,
    TableBody, TableKind,
};
use mneme_replica::status::{DigestState, MemberState, MemberStatus, NodeState, TableStatus};
use tokio::sync::watch;

use super::Api;
use super::list::json;
use super::problem::Answer;
use crate::peers::Peers;
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
    /// Links to peers.
    pub peers: Arc<Peers>,
    /// When a commit counts as durable.
    pub durability: &'static str,
    /// Version of the SQLite library.
    pub sqlite_version: String,
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
                version: env!("CARGO_PKG_VERSION").to_owned(),
                uptime_ms: u64::try_from(context.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                state: state_name(status.state),
            },
            cluster: context.cluster.clone(),
            time: time.map(|time| format!("{time:.3}")).unwrap_or_default(),
            members: {
                let mut addresses = context.peers.addresses();
                let member = |member| body(member, addresses.remove(&member.node).unwrap_or_default());
                status.members.iter().map(member).collect()
            },
            discovery: sources(&context.discovered.borrow()),
            tables: status.tables.iter().map(table).collect(),
            storage: StorageBody {
                file_bytes: size.file.file_bytes.max(size.frame_bytes),
                live_bytes: crate::storage::writer::Owner::live_bytes(&*self.driver),
                durability: context.durability.to_owned(),
                sqlite_version: context.sqlite_version.clone(),
            },
            features: status.features,
            writes_in_flight: status.writes_in_flight,
        })
    }
}

/// The state of a node in one word.
fn state_name(state: NodeState) -> NodeStateName {
    match state {
        NodeState::Starting => NodeStateName::Starting,
        NodeState::Joining => NodeStateName::Joining,
        NodeState::Ready => NodeStateName::Ready,
        NodeState::Draining => NodeStateName::Draining,
        NodeState::ReadOnly => NodeStateName::ReadOnly,
    }
}

fn body(member: &MemberStatus, addresses: BTreeSet<String>) -> MemberBody {
    MemberBody {
        id: member.node.to_string(),
        name: member.name.clone(),
        address: member.address.clone(),
        addresses: addresses.into_iter().collect(),
        state: match member.state {
            MemberState::Myself => MemberStateName::Myself,
            MemberState::Joining => MemberStateName::Joining,
            MemberState::Live => MemberStateName::Live,
            MemberState::Suspect => MemberStateName::Suspect,
            MemberState::Down => MemberStateName::Down,
        },
        lag_writes: member.lag_writes,
        lag_ms: member.lag_ms,
        last_contact_ms: member.last_contact_ms,
        skew_ms: member.skew_ms,
        digest: match member.digest {
            DigestState::Equal => DigestName::Equal,
            DigestState::Unequal => DigestName::Unequal,
            DigestState::Unknown => DigestName::Unknown,
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
            TableKind::Session => "session".to_owned(),
            TableKind::Cache => "cache".to_owned(),
        },
        live: table.live,
        tombstones: table.tombstones,
        bytes: table.bytes,
    }
}
