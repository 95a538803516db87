//! The machine's clocks: the only place that reads them for the replica.

use mneme_replica::time::ClockSample;
use rustix::time::{ClockId, Timespec, clock_gettime};

fn ms(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000 + nanoseconds / 1_000_000
}

/// Milliseconds since boot, suspend included; never stepped.
pub fn boot_ms() -> u64 {
    ms(clock_gettime(ClockId::Boottime))
}

/// Both clocks.
pub fn sample() -> ClockSample {
    ClockSample { wall_ms: ms(clock_gettime(ClockId::Realtime)), boot_ms: boot_ms() }
}
