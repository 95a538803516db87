//! What a replica is told at start, and what it tells of itself.

use mneme_api::{TableConfig, TableName};

use crate::id::{NodeId, Origin};

/// What a replica is told at start; validated by the caller.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Node id from the file and the boot epoch drawn for this process.
    pub origin: Origin,
    /// Name of the cluster.
    pub cluster: String,
    /// Label for people.
    pub name: String,
    /// How peers reach the peer port, `host:port`; empty when unknown.
    pub address: String,
    /// Version of the software.
    pub version: String,
    /// Declared tables; `max_bytes` 0 already replaced by the share of memory (0: no bound).
    pub tables: Vec<TableConfig>,
    /// How long a joining node tries its known addresses, in milliseconds.
    pub join_timeout_ms: u64,
    /// What this version can do that an older one of the same protocol cannot; announced in the handshake, used when all
    /// members announce it: [`Status::features`].
    pub features: Vec<String>,
}

/// State of this node as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// Waiting for the first answers of discovery or peers.
    Starting,
    /// Catching up with the others.
    Joining,
    /// Serving.
    Ready,
    /// Stopping.
    Draining,
    /// The volume is full: serving reads, applying pushes, refusing writes.
    ReadOnly,
}

/// State of a member as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// This node.
    Myself,
    /// In contact, not ready yet.
    Joining,
    /// In contact.
    Live,
    /// Lost contact a moment ago: writes no longer wait for it.
    Suspect,
    /// Without contact for longer, or it said goodbye.
    Down,
}

/// Whether a member's data agreed with ours when last compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DigestState {
    /// Equal at equal vectors.
    Equal,
    /// Unequal at equal vectors; under repair.
    Unequal,
    /// Not compared yet.
    #[default]
    Unknown,
}

/// One member in the status.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// Its id.
    pub node: NodeId,
    /// Label for people.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// Its state.
    pub state: MemberState,
    /// Writes we know of that it lacks.
    pub lag_writes: u64,
    /// How long ago it held everything that we held then, in milliseconds: under writes that never pause it always lacks
    /// some. `None` when that was not found out since contact began.
    pub lag_ms: Option<u64>,
    /// Milliseconds since we heard from it; `None` when never.
    pub last_contact_ms: Option<u64>,
    /// Its node time less ours, milliseconds.
    pub skew_ms: i64,
    /// Last comparison.
    pub digest: DigestState,
    /// Bytes of writes waiting to be pushed to it.
    pub outbox_bytes: usize,
}

/// One table in the status.
#[derive(Clone, Debug)]
pub struct TableStatus {
    /// Its name.
    pub name: TableName,
    /// Its kind.
    pub kind: mneme_api::TableKind,
    /// Live records.
    pub live: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Bytes of live keys and values.
    pub bytes: u64,
    /// Values whose deadline has passed and that are not dropped yet.
    pub expired: u64,
    /// Bytes of their keys and values, as they lie in memory.
    pub expired_bytes: u64,
}

/// Counters since start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Writes taken from clients.
    pub writes_taken: u64,
    /// Writes merged from peers' pushes.
    pub writes_pushed_here: u64,
    /// Rows merged from deltas.
    pub delta_rows: u64,
    /// Deltas asked for.
    pub deltas_asked: u64,
    /// Rows joined because digests differed at equal vectors.
    pub divergence_repaired: u64,
    /// Digest comparisons that found a difference at equal vectors.
    pub digest_mismatches: u64,
    /// Rows refused because their version was ahead.
    pub clock_refusals: u64,
    /// Peer queues dropped.
    pub outboxes_dropped: u64,
    /// Rows dropped by the sweep.
    pub swept: u64,
    /// Records evicted.
    pub evicted: u64,
    /// Heartbeats taken in.
    pub heartbeats: u64,
    /// Pushed touches that met no value.
    pub records_needed: u64,
    /// Pushed writes that were held already.
    pub writes_repeated: u64,
    /// Messages of peers, or writes in them, that cannot be true.
    pub messages_refused: u64,
}

/// A look at the whole replica, for the status page and metrics.
#[derive(Clone, Debug)]
pub struct Status {
    /// Node id and boot epoch.
    pub origin: Origin,
    /// State of this node.
    pub state: NodeState,
    /// Whether it is ready for traffic (`/readyz`).
    pub is_ready: bool,
    /// Node time, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Members, this node first.
    pub members: Vec<MemberStatus>,
    /// Tables.
    pub tables: Vec<TableStatus>,
    /// Features that this node and all members announce, and so may be used. A member that was not greeted by this
    /// process counts as announcing none.
    pub features: Vec<String>,
    /// Client writes waiting for acknowledgement.
    pub writes_in_flight: usize,
    /// Counters since start.
    pub counters: Counters,
}
