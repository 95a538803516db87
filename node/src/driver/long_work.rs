//! How long work shares the thread with everybody else: a little, a rest, a little more.
//!
//! Yielding to the other tasks between two slices is not enough. A thread that never sleeps also keeps its core from the
//! threads of clients and peers for a scheduler's slice, some milliseconds, whenever one of them becomes ready.

use std::time::{Duration, Instant};

/// Time that is worked between two rests, roughly: slices are not split. While a million records expired the p99 of reads was
/// 1.3 times the quiet one with twice as much (medians of five turns), 1.6 times with four times as much, 2.7 times with
/// eight times as much, and 2.9 times without rests.
const WORKED: Duration = Duration::from_micros(75);
/// A rest; timers make up to a millisecond more of it.
const REST: Duration = Duration::from_millis(1);
/// Work that has gone on for so long is more than fits between rests, and rests no more: it must not pile up.
const RESTED_MAX: Duration = Duration::from_secs(60);
/// Time without work after which what comes is work anew.
const ANEW: Duration = Duration::from_millis(100);

/// Work that is done in slices.
#[derive(Debug, Default)]
pub(super) struct LongWork {
    /// When it began, and when its last slice ended.
    under_way: Option<(Instant, Instant)>,
    /// Time worked since the last rest.
    worked: Duration,
}

impl LongWork {
    /// A slice was worked from `started` to `ended`; says how long to rest now, if at all.
    pub(super) fn rest(&mut self, started: Instant, ended: Instant) -> Option<Duration> {
        let is_same = |(_, last): &(Instant, Instant)| started.duration_since(*last) < ANEW;
        let Some((began, _)) = self.under_way.filter(is_same) else {
            *self = Self { under_way: Some((started, ended)), worked: ended - started };
            return self.take_rest();
        };
        self.under_way = Some((began, ended));
        self.worked += ended - started;
        if ended - began < RESTED_MAX { self.take_rest() } else { None }
    }

    fn take_rest(&mut self) -> Option<Duration> {
        let is_due = self.worked >= WORKED;
        is_due.then(|| {
            self.worked = Duration::ZERO;
            REST
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A third of what is worked between two rests.
    const SLICE: Duration = Duration::from_micros(25);

    /// Works slices one after another until so much time has passed; returns the time at the end and the rests.
    fn work(long_work: &mut LongWork, mut now: Instant, limit: Duration) -> (Instant, Duration) {
        let (began, mut rested) = (now, Duration::ZERO);
        while now - began < limit {
            let rest = long_work.rest(now, now + SLICE).unwrap_or_default();
            now += SLICE + rest;
            rested += rest;
        }
        (now, rested)
    }

    #[test]
    fn a_little_is_worked_between_two_rests() {
        let (mut long_work, start) = (LongWork::default(), Instant::now());
        assert_eq!(long_work.rest(start, start + SLICE), None);
        assert_eq!(long_work.rest(start + SLICE, start + 2 * SLICE), None);
        assert_eq!(long_work.rest(start + 2 * SLICE, start + 3 * SLICE), Some(REST));
        let (_, rested) = work(&mut long_work, start, Duration::from_secs(1));
        assert!(rested > Duration::from_millis(700), "{rested:?}");
    }

    #[test]
    fn a_slice_that_is_long_itself_is_followed_by_a_rest() {
        let (mut long_work, start) = (LongWork::default(), Instant::now());
        assert_eq!(long_work.rest(start, start + 5 * WORKED), Some(REST));
    }

    #[test]
    fn what_does_not_fit_between_rests_rests_no_more_until_it_is_done() {
        let (mut long_work, start) = (LongWork::default(), Instant::now());
        let (now, _) = work(&mut long_work, start, RESTED_MAX);
        let (now, rested) = work(&mut long_work, now, RESTED_MAX);
        assert_eq!(rested, Duration::ZERO);
        let (_, rested) = work(&mut long_work, now + ANEW, Duration::from_secs(1));
        assert!(rested > Duration::from_millis(700), "{rested:?}");
    }
}
