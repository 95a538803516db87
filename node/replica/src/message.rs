//! What replicas say to each other.
//!
//! Every message is safe to lose, to repeat and to reorder: what matters is repeated by heartbeats
//! or asked for again by deltas.

use std::sync::Arc;

use mneme_api::{TableKind, TableName};

use crate::id::{Dot, KeyHash, NodeId, Origin};
use crate::record::{Row, Write};
use crate::version_vector::VersionVector;

/// Which of a peer's connections a message takes: heartbeats and bulk never wait behind pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Writes and their acknowledgements.
    Push,
    /// Heartbeats and vector exchanges.
    Heartbeat,
    /// Deltas and digests.
    Bulk,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Self; 3] = [Self::Push, Self::Heartbeat, Self::Bulk];
}

/// What a node says of itself when a connection opens, both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Name of the cluster; another cluster's node is refused.
    pub cluster: String,
    /// Node id and boot epoch.
    pub origin: Origin,
    /// Lowest and highest protocol version spoken.
    pub protocol: (u32, u32),
    /// Label for people.
    pub name: String,
    /// How peers reach the peer port, `host:port`; empty when unknown.
    pub address: String,
    /// Version of the software.
    pub version: String,
    /// Tables known: kinds must agree, the largest `max_age` ever used is shared.
    pub tables: Vec<TableInfo>,
    /// Other members known, so that the mesh becomes full.
    pub members: Vec<MemberInfo>,
    /// Feature names announced; a feature is used when all members announce it.
    pub features: Vec<String>,
    /// Milliseconds since this process started: of two live nodes with one id the younger goes.
    pub uptime_ms: u64,
}

/// A table as peers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// Its name.
    pub name: TableName,
    /// Its kind.
    pub kind: TableKind,
    /// The largest `max_age` it ever had on any member, in milliseconds.
    pub max_age_ever_ms: u64,
}

/// A member as one node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its identity.
    pub node: NodeId,
    /// Its last known boot epoch.
    pub epoch: u64,
    /// Label for people.
    pub name: String,
    /// Where it is reached, `host:port`.
    pub address: String,
    /// Whether the teller is in contact with it.
    pub is_live: bool,
}

/// Why a connection is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Both ends are the same process.
    #[error("this is the node itself")]
    Myself,
    /// Another cluster.
    #[error("this node belongs to cluster {ours:?}, the other to {theirs:?}")]
    Cluster {
        /// Name here.
        ours: String,
        /// Name there.
        theirs: String,
    },
    /// No protocol version in common.
    #[error("no common protocol version: {ours:?} here, {theirs:?} there")]
    Protocol {
        /// Range here.
        ours: (u32, u32),
        /// Range there.
        theirs: (u32, u32),
    },
    /// Another kind for a table that both have.
    #[error("table {table} has another kind here")]
    TableKind {
        /// Name of the table.
        table: String,
    },
    /// A live node already has this id.
    #[error("node id {node} is already in use by a live node")]
    DuplicateId {
        /// The id.
        node: NodeId,
    },
    /// A process of this id was alive a moment ago: try again.
    #[error("an earlier process of node {node} was alive a moment ago; try again")]
    Predecessor {
        /// The id.
        node: NodeId,
    },
    /// More members than a full mesh bears.
    #[error("the cluster is full")]
    Full,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// Regular sign of life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Everything applied in memory.
    pub applied: VersionVector,
    /// Everything applied and on disk.
    pub durable: VersionVector,
    /// Node time of the sender when it was sent, in milliseconds since the Unix epoch.
    pub node_time_ms: u64,
    /// Its wall clock at that moment: a step that all machines of a site make is seen by all.
    pub wall_time_ms: u64,
    /// "I acknowledge without you": the told node serves no read until it has this node's vector.
    pub acknowledges_without_you: bool,
    /// It does so because the receiver refuses its writes, while most of the others take them.
    pub despite_your_refusal: bool,
    /// The sender could not commit for a while: it leaves the durable count.
    pub commit_stalled: bool,
    /// The sender refuses the receiver's writes: its clock is ahead.
    pub refuses_your_clock: bool,
    /// The sender is ready.
    pub is_ready: bool,
    /// Somebody's clock agreed with the sender's since its process started.
    pub is_clock_confirmed: bool,
    /// Members known.
    pub members: Vec<MemberInfo>,
    /// Tables known.
    pub tables: Vec<TableInfo>,
}

/// A sum per digest bucket of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDigest {
    /// The table.
    pub table: TableName,
    /// `DIGEST_BUCKETS` sums.
    pub sums: Vec<u64>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Writes of the sender, oldest first.
    Push {
        /// The writes, each applied as one unit.
        writes: Vec<Arc<Write>>,
    },
    /// How far the sender holds the receiver's writes.
    Ack {
        /// The receiver's origin, so that a restarted process ignores what was meant for its predecessor.
        origin: Origin,
        /// Applied up to this sequence.
        applied: u64,
        /// On disk up to this sequence.
        durable: u64,
        /// A write was refused because its version is ahead of the sender's clock.
        refused_clock: bool,
    },
    /// Touches of this write met no value: send the records whole.
    NeedRecords {
        /// The write.
        dot: Dot,
    },
    /// Regular sign of life.
    Heartbeat(Box<Heartbeat>),
    /// "Count on me again if what I lack is under way, and tell me what you hold."
    Exchange {
        /// Number of the exchange, echoed.
        nonce: u64,
        /// What the sender holds.
        vector: VersionVector,
        /// How many answers it has caught up with since contact returned, without being counted on.
        approaches: u32,
    },
    /// What the sender held when it was asked.
    ExchangeReply {
        /// Number of the exchange.
        nonce: u64,
        /// The sender's writes wait for the receiver from that moment on.
        is_counted: bool,
        /// What the sender held.
        vector: VersionVector,
        /// Members that the sender calls live: the asker has to catch up with them too.
        live: Vec<NodeId>,
    },
    /// "Send me what I lack."
    DeltaRequest {
        /// Number of the delta, echoed in its pages.
        delta: u64,
        /// What the asker holds.
        vector: VersionVector,
    },
    /// Rows of a delta, whole, in their current state.
    DeltaPage {
        /// Number of the delta.
        delta: u64,
        /// 0-based number of this page.
        page: u64,
        /// The rows.
        rows: Vec<Row>,
        /// On the last page: the donor's vector from before the first page.
        vector: Option<VersionVector>,
    },
    /// The page is staged: send the next one.
    DeltaNext {
        /// Number of the delta.
        delta: u64,
        /// Number of the page wanted.
        page: u64,
    },
    /// The donor cannot give this delta now.
    DeltaRefused {
        /// Number of the delta.
        delta: u64,
    },
    /// Sums of what the sender holds, for comparison.
    Digest {
        /// Deadlines up to `step * DIGEST_STEP_MS` have left the sums.
        step: u64,
        /// What the sender holds.
        vector: VersionVector,
        /// One digest a table.
        tables: Vec<TableDigest>,
    },
    /// Rows of one bucket in brief.
    Bucket {
        /// Step of the digest that led here.
        step: u64,
        /// The table.
        table: TableName,
        /// Number of the bucket.
        bucket: u32,
        /// What the sender held when it listed.
        vector: VersionVector,
        /// Key hash and sum of each row.
        rows: Vec<(KeyHash, u64)>,
    },
    /// Rows to join because digests differed, and what the sender wants in return.
    Repair {
        /// The table.
        table: TableName,
        /// Rows of the sender, whole.
        rows: Vec<Row>,
        /// Rows the sender wants.
        wanted: Vec<KeyHash>,
        /// Whether the vectors were equal, so that this counts as a repaired divergence.
        is_divergence: bool,
    },
    /// The sender is stopping as asked: nobody needs to wait for it.
    Goodbye,
}

impl Message {
    /// The lane a message takes.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Push { .. } | Self::Ack { .. } | Self::NeedRecords { .. } => Lane::Push,
            Self::Heartbeat(_) | Self::Exchange { .. } | Self::ExchangeReply { .. } | Self::Goodbye => {
                Lane::Heartbeat
            }
            Self::DeltaRequest { .. }
            | Self::DeltaPage { .. }
            | Self::DeltaNext { .. }
            | Self::DeltaRefused { .. }
            | Self::Digest { .. }
            | Self::Bucket { .. }
            | Self::Repair { .. } => Lane::Bulk,
        }
    }
}
