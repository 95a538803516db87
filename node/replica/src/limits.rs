//! Every bound of the core: unit in the name, reason in the text.

/// A version further ahead of the receiver's node time than this is refused, never stored.
///
/// Ten times what NTP keeps on a bad day, and little enough that a wrong clock cannot win writes
/// for long.
pub const VERSION_AHEAD_MS_MAX: u64 = 500;

/// A wall clock that moves further than this at once has stepped: it is not followed until a live
/// peer, or `WALL_STEP_ALONE_MS` alone, agrees.
pub const WALL_STEP_MS: u64 = 500;

/// How long a node without live peers waits before it believes a wall clock that stepped.
pub const WALL_STEP_ALONE_MS: u64 = 60_000;

/// Node time follows the wall clock by at most this many milliseconds per second.
pub const SLEW_MS_PER_SECOND: u64 = 50;

/// A peer unheard for this long is suspect: writes no longer wait for it.
pub const SUSPECT_AFTER_MS: u64 = 1_000;

/// A tick older than this means that this process did not run: it must hear from its peers before
/// it serves again. Below `SUSPECT_AFTER_MS`, so it knows before the others have gone on without it.
pub const TICK_STALE_MS: u64 = 750;

/// How often a node speaks to each peer when there is nothing to say.
pub const HEARTBEAT_MS: u64 = 250;

/// A peer that is ahead for this long is asked for a delta: pushes in flight get their chance first.
pub const DELTA_AFTER_MS: u64 = 500;

/// Pause after a delta whose vector could not be taken because a row was refused.
pub const DELTA_RETRY_MS: u64 = 10_000;

/// A delta that makes no progress for this long is given up and asked again.
pub const DELTA_STALL_MS: u64 = 5_000;

/// A delta of which not even the first, empty page came for this long was not heard: it is asked again.
pub const DELTA_UNHEARD_MS: u64 = 1_000;

/// A delta that takes longer than this may come over a slow line: the next member is asked as well.
pub const DELTA_ALONE_MS: u64 = 10_000;

/// Deltas a node gives at once; each holds a list of key hashes.
pub const DELTA_DONATIONS_MAX: usize = 16;

/// Bytes of rows in a delta page: small enough that a page never delays a tick.
pub const DELTA_PAGE_BYTES: usize = 256 * 1024;

/// Bytes of the last page, which holds all that was written together since the page before it: far beyond what a batch
/// can write and evict, short of the largest message.
pub const DELTA_LAST_PAGE_BYTES: usize = 24 * 1024 * 1024;

/// Keys written together while a delta is given; beyond it the delta is refused and asked again.
pub const DELTA_WRITTEN_MAX: usize = 65_536;

/// Bytes of a staged delta beyond which this node does not serve until it is published: that takes long, and what it
/// holds is far behind.
pub const DELTA_SERVED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Rows that the sweep looks at in one slice, between which everybody else has a turn: a small part of a millisecond.
pub const SWEPT_ROWS: usize = 32;

/// Rows that are looked at in one slice while what a peer lacks is listed: about a millisecond.
pub const LISTED_ROWS: usize = 2_048;

/// Bytes of writes that wait for one peer; an overflowing queue is dropped and repaired by a delta.
pub const OUTBOX_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of own writes that are kept at hand for a peer that needs their records; older ones come by delta.
pub const RECENT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Bytes of pushed writes that wait for the rest of their records; what more come are left to a delta.
pub const DEFERRED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of writes in one push message.
pub const PUSH_BYTES_MAX: usize = 512 * 1024;

/// Push messages on the way to one peer at a time: the next batch gathers while one travels.
pub const PUSHES_IN_FLIGHT_MAX: usize = 2;

/// Client writes that wait for acknowledgement at once; more are told to come back (503).
pub const WRITES_IN_FLIGHT_MAX: usize = 65_536;

/// Operations in a batch.
pub const BATCH_OPERATIONS_MAX: usize = 1_000;

/// Members of a cluster, this node included; a full mesh stops paying beyond it.
pub const MEMBERS_MAX: usize = 16;

/// Tombstones of keys that this node never held: beyond it such a delete is refused (503), because
/// a 204 would lie.
pub const UNKNOWN_TOMBSTONES_MAX: usize = 1_000_000;

/// What is added to the largest `max_age` when a tombstone's `bury_until` is set: clock skew of
/// writer, reader and sweeper, with room.
pub const BURY_MARGIN_MS: u64 = 60_000;

/// Expired rows stay in memory and file this long, unreadable, so that a touch on its way still
/// meets its value.
pub const EXPIRED_KEPT_MS: u64 = 60_000;

/// Buckets of a table's digest.
pub const DIGEST_BUCKETS: usize = 1_024;

/// How often digests are compared; also the step to which deadlines are rounded for it.
pub const DIGEST_STEP_MS: u64 = 10_000;

/// Unequal digest buckets repaired in one round.
pub const DIGEST_REPAIRS_MAX: usize = 16;

/// Skew from which it is reported.
pub const SKEW_REPORTED_MS: u64 = 250;

/// A member that could not commit for this long leaves the durable count until it can.
pub const COMMIT_STALLED_MS: u64 = 1_000;

/// A commit that takes this long is not waited for with the news of what is in memory: the file of a node that was just
/// brought a million records has seconds of work.
pub const COMMIT_SLOW_MS: u64 = 20;

/// Pause before a full volume is tried again.
pub const FULL_VOLUME_RETRY_MS: u64 = 1_000;

/// A member down for this long, or whose address another id answers, is retired.
pub const RETIRE_AFTER_MS: u64 = 24 * 60 * 60 * 1_000;

/// A joining node without rows of its own waits at least this long for a peer to answer.
pub const EMPTY_JOIN_MS: u64 = 30_000;

/// A new process of a known node id is taken for a restart once its predecessor is silent this long.
pub const DUPLICATE_SILENCE_MS: u64 = 1_000;

/// A process that still speaks this long after a younger one of its id greeted us is a second live
/// node, not the last words of a dead one that were late on their way.
pub const DUPLICATE_PROOF_MS: u64 = 2_000;
