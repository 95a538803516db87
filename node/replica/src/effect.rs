//! All that a replica can ask for.

use std::sync::Arc;

use crate::event::{ConnectionId, RequestId};
use crate::id::NodeId;
use crate::message::{Hello, MemberInfo, Message, Refusal, TableInfo};
use crate::record::{Row, Value, Write};
use crate::version_vector::VersionVector;

/// Entry of the file's bag of states.
///
/// The stored vector is what these entries claim, folded in order by [`PersistItem::claim`]. A file
/// that claimed what memory held would lose acknowledged writes: memory is ahead of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PersistItem {
    /// The states of one write; claims its dot. Never split between transactions.
    Write(Arc<Write>),
    /// States that claim nothing: a delta's rows, a write that was beyond a second gap.
    Rows(Arc<Vec<Row>>),
    /// Everything in this vector is in the rows persisted before it.
    Vector(VersionVector),
}

impl PersistItem {
    /// Adds to `vector` what this entry claims once it is in the file; `now_ms` is the node time at which its origin
    /// was heard, or 0 when it is not known any more: then the write's own versions tell. A touch has the version of
    /// what it prolongs, which lives no longer than the largest `max_age` from then on.
    pub fn claim(&self, vector: &mut VersionVector, now_ms: u64) {
        match self {
            Self::Write(write) => {
                let version_ms = write.rows.iter().map(|row| row.record.version_ms()).max();
                vector.claim(write.dot, now_ms.max(version_ms.unwrap_or(0)));
            }
            Self::Rows(_) => {}
            Self::Vector(claimed) => vector.join(claimed),
        }
    }
}

/// What the file remembers besides states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Members known, with their last addresses, this node left out.
    pub members: Vec<MemberInfo>,
    /// Who was live last, this node left out.
    pub last_live: Vec<NodeId>,
    /// Tables known: kind at first use, largest `max_age` ever.
    pub tables: Vec<TableInfo>,
    /// Whether this node ever had a peer; its members may all be retired since.
    pub has_met_anyone: bool,
}

/// How one operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationResult {
    /// Put made a record that was not there.
    Created {
        /// Its ETag.
        etag: String,
    },
    /// Put replaced a value.
    Replaced {
        /// Its ETag.
        etag: String,
    },
    /// A touch moved the deadline, or had no need to.
    Touched {
        /// ETag of the record.
        etag: String,
    },
    /// Deleted, or was not there.
    Deleted {
        /// ETag of the tombstone.
        etag: String,
    },
    /// A get in a batch.
    Found {
        /// ETag of the record.
        etag: String,
        /// The value.
        value: Value,
        /// Milliseconds until it expires.
        ttl_ms: u64,
    },
    /// Nothing there (404).
    Missing,
    /// The key was deleted in a session table (410).
    Gone {
        /// ETag of the tombstone.
        etag: String,
    },
    /// A condition failed (412).
    ConditionFailed {
        /// ETag of what is there.
        current: Option<String>,
    },
    /// Not applied because another operation of the batch failed (424).
    NotApplied,
}

/// Why a write was not accepted: certainly nothing was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The table is not declared here (404).
    UnknownTable,
    /// A value is larger than the table's `max_value_bytes` (413).
    ValueTooLarge {
        /// The limit, bytes.
        limit_bytes: u64,
    },
    /// A ttl or max age is above the table's (400).
    LifetimeTooLong {
        /// Which parameter.
        parameter: &'static str,
        /// The limit, milliseconds.
        limit_ms: u64,
    },
    /// A key occurs twice among the writes of a batch, or it is too long (400).
    BadBatch {
        /// What is wrong.
        reason: &'static str,
    },
    /// The table is at its `max_bytes` and `when_full` is `reject` (507).
    TableFull,
    /// The volume is full (507).
    ReadOnly,
    /// This node's clock is refused by a majority, or its wall clock stepped (503 `clock`).
    Clock,
    /// Starting, joining, or cut off from what others acknowledged (503).
    NotReady,
    /// Stopping (503).
    Draining,
    /// Too many writes in flight, or too many tombstones of unknown keys (503).
    Overloaded,
}

/// How many known members hold a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acks {
    /// Applied by so many, this node included.
    pub applied: usize,
    /// On the disks of so many.
    pub durable: usize,
    /// Of so many known members, never only the live ones.
    pub members: usize,
}

/// How a client's command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done (or nothing to do). One result per operation; for [`crate::event::Command::DeleteMatching`]
    /// see [`Outcome::Swept`].
    Done {
        /// One per operation, in order.
        results: Vec<OperationResult>,
        /// Who holds it.
        acks: Acks,
    },
    /// A slice of a delete by match is done.
    Swept {
        /// How many were deleted.
        deleted: usize,
        /// Where to go on; `None` at the end.
        resume_after: Option<mneme_api::Key>,
        /// Who holds it.
        acks: Acks,
    },
    /// A batch failed one of its conditions: nothing was applied (412).
    BatchFailed {
        /// One per operation, in order.
        results: Vec<OperationResult>,
    },
    /// Not accepted.
    Rejected(Rejection),
    /// May have been applied (504).
    Unknown {
        /// One per operation: what they would have answered.
        results: Vec<OperationResult>,
        /// Who holds it, as far as known.
        acks: Acks,
    },
}

/// What is worth a line in the log; the driver words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A peer is in contact.
    PeerLive {
        /// The peer.
        peer: NodeId,
    },
    /// Writes no longer wait for a peer.
    PeerSuspect {
        /// The peer.
        peer: NodeId,
    },
    /// A handshake was refused, here or there.
    PeerRefused {
        /// Where.
        address: String,
        /// Why.
        refusal: Refusal,
    },
    /// A member left the list.
    PeerRetired {
        /// The peer.
        peer: NodeId,
    },
    /// This node serves.
    Ready,
    /// This node does not serve for now.
    Unready {
        /// Why, in a word.
        reason: &'static str,
    },
    /// A peer's clock is off.
    Skew {
        /// The peer.
        peer: NodeId,
        /// Its clock less ours, milliseconds.
        skew_ms: i64,
    },
    /// A write was refused because its version is ahead of this node's clock.
    ClockAhead {
        /// Its origin.
        peer: NodeId,
    },
    /// A peer's queue overflowed and was dropped; a delta will repair it.
    OutboxDropped {
        /// The peer.
        peer: NodeId,
    },
    /// A delta was taken in.
    DeltaApplied {
        /// The donor.
        peer: NodeId,
        /// Rows it brought.
        rows: usize,
    },
    /// Equal vectors, unequal sums: rows that differed were joined.
    DivergenceRepaired {
        /// The peer.
        peer: NodeId,
        /// Rows joined.
        rows: usize,
    },
    /// The wall clock stepped and is not followed yet.
    WallStepped,
}

/// One thing to do, in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Answer a client.
    Reply {
        /// Which request.
        request: RequestId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Append to the file. Numbers count up by one from 1.
    Persist {
        /// Its number.
        number: u64,
        /// The entry.
        item: PersistItem,
        /// Whether somebody waits until it is in the file. Others may wait for company.
        is_awaited: bool,
    },
    /// Replace what the file remembers besides states.
    PersistMeta(Meta),
    /// Send a message; dropped if no link is up.
    Send {
        /// To whom.
        to: NodeId,
        /// What; [`Message::lane`] says on which connection.
        message: Message,
    },
    /// Answer a handshake: take the connection, or refuse it.
    Verdict {
        /// Which.
        connection: ConnectionId,
        /// Our own hello, or why not.
        verdict: Result<Hello, Refusal>,
    },
    /// Close all connections with a peer (a refused or replaced process).
    Disconnect {
        /// The peer.
        peer: NodeId,
    },
    /// The addresses to keep connections to, besides what discovery names: replaces the last list.
    Dial {
        /// `host:port` each, with the node expected there if known.
        addresses: Vec<(String, Option<NodeId>)>,
    },
    /// Call [`crate::Replica::step`] with [`crate::Event::Resume`] soon: long work is left.
    Continue,
    /// Something to log.
    Notice(Notice),
    /// Everything is handed over (or nobody is there to take it): stop.
    Drained,
    /// Stop the process now with exit code 1.
    Exit {
        /// Why.
        refusal: Refusal,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Dot, Origin};

    #[test]
    fn rows_claim_nothing_and_a_gap_is_not_claimed_over() {
        let origin = Origin { node: NodeId::new(1), epoch: 1 };
        let write = |sequence| PersistItem::Write(Arc::new(Write::new(Dot { origin, sequence }, Vec::new())));
        let mut stored = VersionVector::default();
        for item in [write(1), PersistItem::Rows(Arc::default()), write(3)] {
            item.claim(&mut stored, 5);
        }
        assert_eq!(stored.certain().contiguous(origin), 1);
        write(2).claim(&mut stored, 5);
        assert_eq!(stored.certain().contiguous(origin), 3);
    }
}
