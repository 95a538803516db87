//! A member as seen from here: contact, acknowledgements, what waits for it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::id::{NodeId, Origin};
use crate::limits::{OUTBOX_BYTES_MAX, PUSH_BYTES_MAX, SUSPECT_AFTER_MS};
use crate::message::{Heartbeat, Hello, MemberInfo, TableDigest};
use crate::record::Write;
use crate::status::DigestState;
use crate::time::signed;
use crate::version_vector::{Entry, VersionVector};

/// Samples of a peer's clock that are kept: a late message makes a sample too small, never too large.
const CLOCK_SAMPLES: usize = 4;

/// What has to happen before this node may serve while it is in contact with a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// Contact was lost, or never was: to be asked when it returns.
    #[default]
    Needed,
    /// Asked, once or more often, with these numbers at these times. Whichever it answers within the time that makes a
    /// suspect will do: its answers may take longer than the pause after which it is asked again.
    Asked(Vec<(u64, u64)>),
    /// Answered, and not counted on yet, because too much was missing for writes to wait: when everything in this vector
    /// is held it is asked again.
    Approach(VersionVector),
    /// Answered, and counted on: everything in this vector must be held first.
    CatchUp(VersionVector),
    /// Held.
    Done,
}

impl Exchange {
    /// Whether the member's writes wait for us, as far as it has said.
    pub(crate) fn is_counted(&self) -> bool {
        matches!(self, Self::CatchUp(_) | Self::Done)
    }
}

/// Up to when a member holds everything: under writes that never pause it always lacks the last few, and the number of
/// those says nothing of how far it is behind.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// What this node held at a time, to be found again in what the member says.
    mark: Option<(u64, VersionVector)>,
    /// The member holds everything that this node held then.
    until_boot_ms: Option<u64>,
}

impl Held {
    /// Compares what the member holds with the mark, and sets the next one when it is reached.
    pub(crate) fn note(&mut self, theirs: &VersionVector, ours: &VersionVector, boot_ms: u64) {
        if let Some((marked_boot_ms, marked)) = &self.mark {
            // What was forgotten here since is not looked for.
            let is_held = |(origin, entry): (Origin, &Entry)| {
                ours.contiguous(origin) == 0 || theirs.contiguous(origin) >= entry.contiguous
            };
            if !marked.iter().all(is_held) {
                return;
            }
            self.until_boot_ms = Some(*marked_boot_ms);
        }
        self.mark = Some((boot_ms, ours.certain()));
    }

    /// How far it is behind, in milliseconds; `None` before the first mark is reached.
    pub(crate) fn lag_ms(&self, boot_ms: u64) -> Option<u64> {
        self.until_boot_ms.map(|until| boot_ms.saturating_sub(until))
    }
}

/// What a member holds in brief, at one step of digests.
#[derive(Debug)]
pub(crate) struct PeerDigest {
    pub(crate) step: u64,
    pub(crate) vector: VersionVector,
    pub(crate) tables: Vec<TableDigest>,
}

/// Another member of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) address: String,
    /// What the process that was greeted announces.
    pub(crate) features: Vec<String>,
    /// The process that was greeted; `None` before.
    pub(crate) origin: Option<Origin>,
    pub(crate) last_epoch: u64,
    /// When it started, by this node's boot time: later than it was, by as long as the greeting took.
    pub(crate) started_boot_ms: i64,
    pub(crate) last_contact_boot_ms: Option<u64>,
    /// Heard from within the time that makes a suspect, as of the last tick or message.
    pub(crate) is_in_contact: bool,
    /// Writes wait for it.
    pub(crate) is_counted: bool,
    /// Sequence of this origin when it was counted in: earlier writes do not wait for it.
    pub(crate) counted_from: u64,
    pub(crate) applied: u64,
    pub(crate) durable: u64,
    pub(crate) vector: VersionVector,
    pub(crate) held: Held,
    pub(crate) ahead_since_boot_ms: Option<u64>,
    pub(crate) retry_delta_boot_ms: u64,
    /// It acknowledges although this node refuses its writes, and most of the others take them: what it holds is needed.
    pub(crate) is_right: bool,
    /// It said so with its last heartbeat: what it acknowledges now need not be held here.
    pub(crate) leaves_us: bool,
    /// Its last delta had rows that were refused.
    pub(crate) is_delta_refused: bool,
    pub(crate) exchange: Exchange,
    /// How many of its answers were caught up with since contact returned, without being counted on.
    pub(crate) approaches: u32,
    /// Sequence of this origin after which every write was pushed to it and none was lost here.
    pub(crate) pushed_from: u64,
    pub(crate) is_commit_stalled: bool,
    /// It refuses our writes: our clock is ahead of its. Since when.
    pub(crate) refuses_clock_boot_ms: Option<u64>,
    /// Until when we tell it that we refuse its writes.
    pub(crate) clock_refused_boot_ms: Option<u64>,
    pub(crate) is_ready: bool,
    /// Somebody's clock agreed with that of its process.
    pub(crate) is_clock_confirmed: bool,
    /// Who says that it is live, as each said last: all members that a peer in contact calls live must be caught up with.
    pub(crate) called_live_by: BTreeSet<NodeId>,
    pub(crate) acked: (u64, u64),
    /// Its node time less our boot time, of the last heartbeats: a step of our own does not age them.
    clock_samples: VecDeque<i64>,
    /// The largest of them, since delay only makes them smaller.
    clock_offset_ms: Option<i64>,
    /// Its wall clock less our boot time, likewise.
    wall_samples: VecDeque<i64>,
    pub(crate) digest: DigestState,
    /// What it said at a step that this node has not reached.
    pub(crate) early_digest: Option<PeerDigest>,
    outbox: VecDeque<Arc<Write>>,
    pub(crate) outbox_bytes: usize,
    pub(crate) pushes_in_flight: usize,
    pub(crate) down_since_boot_ms: Option<u64>,
    /// A younger process with this id greeted us, and when.
    pub(crate) successor: Option<(Origin, u64)>,
    /// The old process spoke after its would-be successor did: two live nodes with one id.
    pub(crate) is_duplicated: bool,
}

impl Member {
    /// A member that the file or a peer knows of, and that was not heard yet at `boot_ms`.
    pub(crate) fn known(info: &MemberInfo, boot_ms: u64) -> Self {
        Self {
            down_since_boot_ms: Some(boot_ms),
            name: info.name.clone(),
            address: info.address.clone(),
            last_epoch: info.epoch,
            ..Self::default()
        }
    }

    /// Takes a new process of this member in.
    pub(crate) fn greet(&mut self, hello: &Hello, boot_ms: u64) {
        if self.origin != Some(hello.origin) {
            *self = Self {
                called_live_by: std::mem::take(&mut self.called_live_by),
                origin: Some(hello.origin),
                last_epoch: hello.origin.epoch,
                started_boot_ms: signed(boot_ms) - signed(hello.uptime_ms),
                ..Self::default()
            };
        }
        self.name.clone_from(&hello.name);
        self.address.clone_from(&hello.address);
        self.features.clone_from(&hello.features);
        self.last_contact_boot_ms = Some(boot_ms);
        self.is_in_contact = true;
        self.down_since_boot_ms = None;
    }

    /// How long it was not heard; for ever, if it never was.
    pub(crate) fn silence_ms(&self, boot_ms: u64) -> u64 {
        self.last_contact_boot_ms.map_or(u64::MAX, |heard| boot_ms.saturating_sub(heard))
    }

    /// What others are told of it.
    pub(crate) fn info(&self, node: NodeId) -> MemberInfo {
        MemberInfo {
            node,
            epoch: self.last_epoch,
            name: self.name.clone(),
            address: self.address.clone(),
            is_live: self.is_in_contact,
        }
    }

    /// Lets a write wait to be pushed; an overflowing queue is dropped. Says whether it was.
    pub(crate) fn enqueue(&mut self, write: &Arc<Write>, bytes: usize) -> bool {
        if self.outbox_bytes + bytes > OUTBOX_BYTES_MAX {
            self.outbox.clear();
            self.outbox_bytes = 0;
            return true;
        }
        self.outbox_bytes += bytes;
        self.outbox.push_back(write.clone());
        false
    }

    /// Takes what goes into the next push.
    pub(crate) fn take_push(&mut self) -> Vec<Arc<Write>> {
        let (mut writes, mut taken) = (Vec::new(), 0);
        while let Some(write) = self.outbox.front() {
            let bytes = write.bytes();
            if !writes.is_empty() && taken + bytes > PUSH_BYTES_MAX {
                break;
            }
            taken += bytes;
            self.outbox_bytes -= bytes;
            writes.extend(self.outbox.pop_front());
        }
        writes
    }

    /// Forgets what waits and what was under way.
    pub(crate) fn drop_outbox(&mut self) {
        self.outbox.clear();
        self.outbox_bytes = 0;
        self.pushes_in_flight = 0;
    }

    /// Stops counting on it: contact must be found again by an exchange.
    pub(crate) fn lose(&mut self, boot_ms: u64) {
        self.is_in_contact = false;
        self.is_counted = false;
        self.is_ready = false;
        self.exchange = Exchange::Needed;
        self.approaches = 0;
        self.held = Held::default();
        self.down_since_boot_ms.get_or_insert(boot_ms);
        self.drop_outbox();
    }

    /// Whether it refuses our writes.
    pub(crate) fn refuses_clock(&self) -> bool {
        self.refuses_clock_boot_ms.is_some()
    }

    /// Whether writes wait for it no longer, because it refuses them: not before it had time to hear that, else it would
    /// answer for a moment that it does not know what others were told is stored.
    pub(crate) fn left_for_its_clock(&self, boot_ms: u64) -> bool {
        self.refuses_clock_boot_ms.is_some_and(|since| boot_ms.saturating_sub(since) >= SUSPECT_AFTER_MS)
    }

    /// Whether it has refused our writes for so long that all others who do have said so too, and is still waited for.
    pub(crate) fn has_refused_for_a_while(&self, boot_ms: u64) -> bool {
        self.refuses_clock_boot_ms.is_some_and(|since| boot_ms.saturating_sub(since) >= SUSPECT_AFTER_MS / 2)
    }

    /// Whether it is known what time it goes by.
    pub(crate) fn is_clock_known(&self) -> bool {
        !self.clock_samples.is_empty()
    }

    /// Notes whether it refuses our writes.
    pub(crate) fn note_refusal(&mut self, refuses: bool, boot_ms: u64) {
        self.refuses_clock_boot_ms = refuses.then(|| self.refuses_clock_boot_ms.unwrap_or(boot_ms));
    }

    /// Notes its clocks, as a heartbeat brought them.
    pub(crate) fn note_clocks(&mut self, heartbeat: &Heartbeat, boot_ms: u64) {
        let clocks = [
            (&mut self.clock_samples, heartbeat.node_time_ms),
            (&mut self.wall_samples, heartbeat.wall_time_ms),
        ];
        for (samples, time_ms) in clocks {
            if samples.len() == CLOCK_SAMPLES {
                samples.pop_front();
            }
            samples.push_back(signed(time_ms) - signed(boot_ms));
        }
        self.clock_offset_ms = self.clock_samples.iter().max().copied();
    }

    /// Its wall clock less our boot time; `None` before its first heartbeat.
    pub(crate) fn wall_offset_ms(&self) -> Option<i64> {
        self.wall_samples.iter().max().copied()
    }

    /// Its node time less ours, which is `offset_ms` ahead of our boot time; `None` before its first heartbeat.
    pub(crate) fn skew_ms(&self, offset_ms: i64) -> Option<i64> {
        self.clock_offset_ms.map(|clock_offset_ms| clock_offset_ms - offset_ms)
    }
}
