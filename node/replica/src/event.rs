//! All that can happen to a replica.

use std::sync::Arc;

use mneme_api::{Key, Pattern, TableName};

use crate::id::{NodeId, Origin};
use crate::message::{Hello, Lane, Message};
use crate::record::Value;
use crate::version_vector::VersionVector;

/// Names a client's write until its reply; given by the driver, never reused while in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names a handshake until its verdict; given by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// For whom a write waits before it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckMode {
    /// Applied here and on this node's disk.
    Local,
    /// Applied by every live member, on the disk of a majority of them.
    #[default]
    All,
}

/// `If-Match` and `If-None-Match`, as one choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// None given.
    #[default]
    Always,
    /// `If-None-Match: *`: only when no live record is there.
    Absent,
    /// `If-Match: *`: only when a live record is there.
    Present,
    /// `If-Match: "<etag>"[, …]`: only when the live record has one of these ETags (as sent).
    Matches(Vec<String>),
}

/// One operation of a client on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Store a value. `ttl_ms`, `max_age_ms`: `None` is the table's.
    Put {
        /// The value.
        value: Value,
        /// Idle time to live in milliseconds.
        ttl_ms: Option<u64>,
        /// Absolute lifetime in milliseconds; only a creation uses it.
        max_age_ms: Option<u64>,
    },
    /// Move the idle deadline: later, or with `exact` to just now + ttl.
    Touch {
        /// Idle time to live in milliseconds; `None` is the table's.
        ttl_ms: Option<u64>,
        /// Whether an earlier deadline is meant too.
        exact: bool,
    },
    /// Delete.
    Delete,
    /// Read, in a batch: sees the state before the batch.
    Get,
}

/// One operation of a batch, or a single one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The key.
    pub key: Key,
    /// What to do.
    pub action: Action,
    /// On which condition; ignored by touch and get.
    pub condition: Condition,
}

/// What a client wants written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// One or more operations, applied as one write.
    Apply {
        /// The table.
        table: TableName,
        /// 1 to `BATCH_OPERATIONS_MAX`; a key at most once among those that write.
        operations: Vec<Operation>,
        /// Whether this came as a batch: then one failed condition fails all.
        is_batch: bool,
    },
    /// Delete what matches and was held when the scan began, up to `BATCH_OPERATIONS_MAX` keys after
    /// `after`, as one write. Sessions created since are left alone.
    DeleteMatching {
        /// The table.
        table: TableName,
        /// Which keys.
        pattern: Pattern,
        /// Resume after this key.
        after: Option<Key>,
        /// Where the scan began.
        start: ScanStart,
    },
}

/// Where a scan of several pages began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanStart {
    /// Node time, milliseconds.
    pub now_ms: u64,
    /// What was held: judged by this and not by a clock, nothing that was there is missed.
    pub held: Arc<VersionVector>,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client wants something written. Answered by exactly one [`crate::Effect::Reply`].
    Client {
        /// Echoed in the reply.
        request: RequestId,
        /// What.
        command: Command,
        /// For whom it waits.
        ack: AckMode,
        /// How long it waits, in milliseconds, before the reply is "unknown".
        timeout_ms: u64,
    },
    /// All that was to be persisted up to this number, in order, is on disk.
    Persisted {
        /// Number of the last [`crate::Effect::Persist`] in the file.
        through: u64,
    },
    /// The volume is full; nothing after `through` is on disk and the storage dropped its queue.
    PersistFailed {
        /// Number of the last persist that is in the file.
        through: u64,
    },
    /// A handshake arrived, or the answer to ours.
    Greeted {
        /// Echoed in the verdict.
        connection: ConnectionId,
        /// What the other end says of itself.
        hello: Hello,
        /// The address we dialled; `None` when the other end called us.
        dialled: Option<String>,
    },
    /// We dialled and the other end refused us.
    Refused {
        /// The address we dialled.
        address: String,
        /// Its reason.
        refusal: crate::message::Refusal,
    },
    /// An address could not be reached.
    DialFailed {
        /// The address we dialled.
        address: String,
    },
    /// A lane to a peer broke: what was under way on it is lost.
    LinkDown {
        /// The peer.
        peer: NodeId,
        /// Which of its connections.
        lane: Lane,
    },
    /// The push lane took so many batches: others may follow.
    PushesTaken {
        /// The peer.
        peer: NodeId,
        /// How many.
        count: usize,
    },
    /// A message from a peer that was greeted.
    Message {
        /// Who.
        from: Origin,
        /// What.
        message: Message,
    },
    /// The discovery sources' current answer.
    Discovered {
        /// Every address they name, `host:port`.
        addresses: Vec<String>,
        /// Whether some source was configured at all.
        is_configured: bool,
        /// Whether every configured source has given at least one positive answer.
        is_complete: bool,
    },
    /// Time went on. Every 50 ms.
    Tick,
    /// Long work goes on: the answer to [`crate::Effect::Continue`].
    Resume,
    /// Stop: take no more writes, bring what peers lack, then say goodbye.
    Drain,
}
