//! Faults planted around the core, to show that the invariants can fail.

use std::sync::Arc;

use mneme_replica::event::{Action, Command};
use mneme_replica::message::Message;
use mneme_replica::record::{Body, ValueRegister, Write};
use mneme_replica::version_vector::VersionVector;

use crate::oracle::value;

/// A mistake that an implementation could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// A pushed tombstone is left out while its write is claimed.
    TombstoneDropped,
    /// A delta's tombstones are left out while its vector is taken.
    TombstoneDroppedFromDelta,
    /// A peer acknowledges writes when they arrive, and applies them later.
    AckBeforeApply,
    /// The stored vector is what memory held at the crash.
    StoredVectorFromMemory,
    /// Entries count as on disk when they are queued.
    DurableBeforeCommit,
    /// A batch travels as separate rows of which one is lost.
    BatchSplit,
    /// A returning or woken member serves at once.
    ReturningServesAtOnce,
    /// The boot epoch is the same at every start: sequences are given out twice.
    EpochReused,
    /// Expiry is not looked at when a record is read.
    ExpiryIgnored,
    /// A delta's vector is taken although its rows got lost.
    DeltaRowsLost,
    /// An acknowledged write is answered although nobody else has it.
    AckAlone,
    /// A tombstone is buried for no time at all.
    TombstoneBuriedShort,
    /// A member is counted on again without being told what it missed.
    ExchangeTellsNothing,
    /// Compaction drops what memory supersedes while what supersedes it is only queued.
    CompactionByMemory,
    /// A full volume drops entries, and they count as written.
    FullVolumeUntold,
    /// A touch of nothing stores an empty value.
    TouchCreates,
    /// A pushed value is left out while its write is claimed.
    ValueDropped,
    /// A pushed value is not the one that was written.
    ValueReplaced,
    /// A pushed touch ends the session at once.
    TouchShortened,
    /// A delta's touch registers are left out while its vector is taken.
    TouchDroppedFromDelta,
    /// A pushed value may be kept alive a day beyond its absolute deadline.
    AbsoluteDeadlineExtended,
    /// A heartbeat claims writes that are not there yet.
    HeartbeatClaimsMore,
    /// A delta's vector is taken when its last page is sent, and what was written meanwhile is thought to be in it.
    DeltaVectorAtEnd,
    /// Sign out everywhere passes over what was written last.
    SweepLeavesSome,
    /// Tombstones are not loaded at a start.
    TombstonesNotLoaded,
}

impl Fault {
    /// What this fault makes of a client's command.
    pub(crate) fn bend_command(self, mut command: Command) -> Command {
        if let (Self::SweepLeavesSome, Command::DeleteMatching { start, .. }) = (self, &mut command) {
            start.held = Arc::default();
            start.now_ms = start.now_ms.saturating_sub(60_000);
        }
        if let (Self::TouchCreates, Command::Apply { operations, .. }) = (self, &mut command) {
            for operation in operations {
                if let Action::Touch { ttl_ms, .. } = operation.action {
                    operation.action = Action::Put { value: value(0), ttl_ms, max_age_ms: None };
                }
            }
        }
        command
    }

    /// What this fault makes of a message on its way.
    pub(crate) fn bend(self, message: Message) -> Message {
        match (self, message) {
            (Self::TombstoneDropped, Message::Push { writes }) => {
                bend_writes(writes, |write| write.rows.retain(|row| !row.record.is_deleted()))
            }
            (Self::BatchSplit, Message::Push { writes }) => bend_writes(writes, |write| {
                if write.rows.len() == 2 {
                    write.rows.truncate(1);
                }
            }),
            (Self::TombstoneDroppedFromDelta, Message::DeltaPage { delta, page, mut rows, vector }) => {
                rows.retain(|row| !row.record.is_deleted());
                Message::DeltaPage { delta, page, rows, vector }
            }
            (Self::TombstoneBuriedShort, Message::Push { writes }) => bend_writes(writes, |write| {
                for row in &mut write.rows {
                    if let Some(value) = row.record.value.as_mut().filter(|value| value.is_deleted()) {
                        value.bury_until_ms = 0;
                    }
                }
            }),
            (Self::ValueDropped, Message::Push { writes }) => {
                bend_writes(writes, |write| write.rows.retain(|row| row.record.is_deleted()))
            }
            (Self::ValueReplaced, Message::Push { writes }) => bend_values(writes, |register| {
                if let Body::Live(live) = &mut register.body {
                    *live = value(0);
                }
            }),
            (Self::AbsoluteDeadlineExtended, Message::Push { writes }) => {
                bend_values(writes, |register| register.absolute_deadline_ms += 86_400_000)
            }
            (Self::TouchShortened, Message::Push { writes }) => bend_writes(writes, |write| {
                for touch in write.rows.iter_mut().filter_map(|row| row.record.touch.as_mut()) {
                    touch.idle_deadline_ms = touch.idle_deadline_ms.saturating_sub(2_000_000);
                }
            }),
            (Self::TouchDroppedFromDelta, Message::DeltaPage { delta, page, mut rows, vector }) => {
                rows.iter_mut().for_each(|row| row.record.touch = None);
                Message::DeltaPage { delta, page, rows, vector }
            }
            (Self::HeartbeatClaimsMore, Message::Heartbeat(mut heartbeat)) => {
                for vector in [&mut heartbeat.applied, &mut heartbeat.durable] {
                    let claimed: Vec<_> =
                        vector.iter().map(|(origin, entry)| (origin, entry.contiguous + 100)).collect();
                    for (origin, contiguous) in claimed {
                        vector.insert(origin, contiguous, 0);
                    }
                }
                Message::Heartbeat(heartbeat)
            }
            (Self::ExchangeTellsNothing, Message::ExchangeReply { nonce, is_counted, live, .. }) => {
                Message::ExchangeReply { nonce, is_counted, vector: VersionVector::default(), live }
            }
            (Self::DeltaRowsLost, Message::DeltaPage { delta, page, vector, .. }) => {
                Message::DeltaPage { delta, page, rows: Vec::new(), vector }
            }
            (_, message) => message,
        }
    }
}

fn bend_values(writes: Vec<Arc<Write>>, bend: impl Fn(&mut ValueRegister)) -> Message {
    bend_writes(writes, |write| {
        let values = write.rows.iter_mut().filter_map(|row| row.record.value.as_mut());
        values.filter(|value| !value.is_deleted()).for_each(&bend);
    })
}

fn bend_writes(writes: Vec<Arc<Write>>, bend: impl Fn(&mut Write)) -> Message {
    let bent = writes.into_iter().map(|write| {
        let mut write = Write::clone(&write);
        bend(&mut write);
        Arc::new(write)
    });
    Message::Push { writes: bent.collect() }
}
