//! Node time: the wall clock at start, carried on by the boot clock and slewed to the wall clock.

use crate::limits::{SLEW_MS_PER_SECOND, WALL_STEP_ALONE_MS, WALL_STEP_MS};

/// One look at both clocks of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockSample {
    /// CLOCK_REALTIME, milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// CLOCK_BOOTTIME in milliseconds: never stepped, goes on in suspend.
    pub boot_ms: u64,
}

/// What the peers' clocks say of a wall clock that stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerClocks {
    /// No live peer to ask.
    Alone,
    /// A live peer's node time is near the wall clock.
    AgreeWithWall,
    /// Live peers are nearer to the node time than to the wall clock.
    Disagree,
}

/// The clock by which this node stamps and expires.
#[derive(Clone, Debug)]
pub struct NodeTime {
    /// Node time less boot time; `i128` would never overflow, `i64` milliseconds do not either.
    offset_ms: i64,
    last_boot_ms: u64,
    /// Slew owed in thousandths of a millisecond, so that a fast tick does not round it away.
    slew_budget_us: u64,
    stepped_since_boot_ms: Option<u64>,
}

/// Milliseconds as a difference can use them.
pub(crate) fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

impl NodeTime {
    /// Starts at the wall clock.
    pub fn start(sample: ClockSample) -> Self {
        Self {
            offset_ms: signed(sample.wall_ms) - signed(sample.boot_ms),
            last_boot_ms: sample.boot_ms,
            slew_budget_us: 0,
            stepped_since_boot_ms: None,
        }
    }

    /// Starts at the wall clock, or at what it showed before when that is later: then the clock of the machine is behind, as
    /// after a boot without a battery, and counts as one that stepped.
    pub(crate) fn start_after(sample: ClockSample, written_ms: u64) -> Self {
        let mut time = Self::start(sample);
        let behind_ms = signed(written_ms) - signed(sample.wall_ms);
        if behind_ms > signed(2 * WALL_STEP_MS) {
            time.offset_ms += behind_ms;
            time.stepped_since_boot_ms = Some(sample.boot_ms);
        }
        time
    }

    /// Node time at this boot time, in milliseconds since the Unix epoch.
    pub fn at(&self, boot_ms: u64) -> u64 {
        u64::try_from(signed(boot_ms).saturating_add(self.offset_ms)).unwrap_or(0)
    }

    /// Node time less boot time, for readers that look at the boot clock themselves.
    pub fn offset_ms(&self) -> i64 {
        self.offset_ms
    }

    /// Whether the wall clock stepped and nobody confirmed it yet.
    pub fn is_in_doubt(&self) -> bool {
        self.stepped_since_boot_ms.is_some()
    }

    /// Follows the wall clock: slowly when it is near, and after a step only once `peers` say so. Says whether it followed a
    /// step.
    pub fn observe(&mut self, sample: ClockSample, peers: PeerClocks) -> bool {
        let elapsed_ms = sample.boot_ms.saturating_sub(self.last_boot_ms);
        self.last_boot_ms = self.last_boot_ms.max(sample.boot_ms);
        let error_ms = signed(sample.wall_ms) - signed(self.at(sample.boot_ms));
        if error_ms.unsigned_abs() <= WALL_STEP_MS {
            self.stepped_since_boot_ms = None;
            self.slew(error_ms, elapsed_ms);
            return false;
        }
        let since_ms = *self.stepped_since_boot_ms.get_or_insert(sample.boot_ms);
        let follow = match peers {
            PeerClocks::AgreeWithWall => true,
            PeerClocks::Disagree => false,
            PeerClocks::Alone => sample.boot_ms.saturating_sub(since_ms) >= WALL_STEP_ALONE_MS,
        };
        if follow {
            self.offset_ms += error_ms;
            self.stepped_since_boot_ms = None;
        }
        follow
    }

    fn slew(&mut self, error_ms: i64, elapsed_ms: u64) {
        let earned_us = elapsed_ms.saturating_mul(SLEW_MS_PER_SECOND);
        self.slew_budget_us = self.slew_budget_us.saturating_add(earned_us).min(WALL_STEP_MS * 1_000);
        let step_ms = signed(self.slew_budget_us / 1_000);
        let step_ms = error_ms.clamp(-step_ms, step_ms);
        self.slew_budget_us -= step_ms.unsigned_abs() * 1_000;
        self.offset_ms += step_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(wall_ms: u64, boot_ms: u64) -> ClockSample {
        ClockSample { wall_ms, boot_ms }
    }

    #[test]
    fn a_near_wall_clock_is_followed_slowly() {
        let mut time = NodeTime::start(sample(10_000, 0));
        time.observe(sample(11_300, 1_000), PeerClocks::Alone);
        assert_eq!(time.at(1_000), 11_050);
        assert!(!time.is_in_doubt());
    }

    #[test]
    fn a_clock_that_is_behind_what_it_showed_before_has_stepped() {
        let time = NodeTime::start_after(sample(10_000, 0), 90_000);
        assert_eq!((time.at(0), time.is_in_doubt()), (90_000, true));
        let time = NodeTime::start_after(sample(90_000, 0), 90_500);
        assert_eq!((time.at(0), time.is_in_doubt()), (90_000, false));
    }

    #[test]
    fn a_step_waits_for_a_peer() {
        let mut time = NodeTime::start(sample(10_000, 0));
        time.observe(sample(91_000, 1_000), PeerClocks::Disagree);
        assert_eq!(time.at(1_000), 11_000);
        assert!(time.is_in_doubt());
        time.observe(sample(91_100, 1_100), PeerClocks::AgreeWithWall);
        assert_eq!(time.at(1_100), 91_100);
        assert!(!time.is_in_doubt());
    }

    #[test]
    fn a_step_is_believed_alone_after_a_minute() {
        let mut time = NodeTime::start(sample(100_000, 0));
        time.observe(sample(20_000, 1_000), PeerClocks::Alone);
        time.observe(sample(79_999, 60_999), PeerClocks::Alone);
        assert!(time.is_in_doubt());
        time.observe(sample(80_000, 61_000), PeerClocks::Alone);
        assert_eq!(time.at(61_000), 80_000);
    }
}
