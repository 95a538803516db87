//! The machine's clocks: the only place that reads them for the replica.

use std::time::SystemTime;

use mneme_replica::time::ClockSample;
use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since boot, suspend included; never stepped.
pub fn boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000 + nanoseconds / 1_000_000
}

/// Both clocks.
pub fn sample() -> ClockSample {
    // By way of the C library, whose clock a suite can move for one process. A clock before 1970 is one that is not set.
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    ClockSample { wall_ms: u64::try_from(wall.as_millis()).unwrap_or(0), boot_ms: boot_ms() }
}
