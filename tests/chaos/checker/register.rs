//! One key: what was written to it, and whether a read fits.

use super::Finding;
use super::excuse::{CLOCKS_DIFFER_US, Excuses};
use crate::history::{Operation, Outcome};

/// What a look at a register is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As promised.
    Right,
    /// Old, where the product promises no better.
    Excused,
    /// A promise is broken.
    Wrong(Finding),
}

/// When and where something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Write {
    node: usize,
    start_us: u64,
    /// `None`: nobody knows whether it was done, and it may still be done.
    acknowledged_us: Option<u64>,
}

impl Write {
    /// `None`: certainly not written.
    pub(super) fn of(operation: &Operation) -> Option<Self> {
        let acknowledged_us = match operation.outcome {
            Outcome::Ok | Outcome::Saw(_) => Some(operation.end_us),
            Outcome::Unknown => None,
            Outcome::Rejected { .. } => return None,
        };
        Some(Self { node: operation.node, start_us: operation.start_us, acknowledged_us })
    }

    /// The same, but nobody knows whether it was done.
    pub(super) fn perhaps(self) -> Self {
        Self { acknowledged_us: None, ..self }
    }

    /// Whether it is known to have been done.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged_us.is_some()
    }

    /// Where and when it was acknowledged, when that was before `us`.
    fn acknowledged_before(&self, us: u64) -> Option<(usize, u64)> {
        self.acknowledged_us.filter(|acknowledged_us| *acknowledged_us < us).map(|at| (self.node, at))
    }
}

/// A key.
#[derive(Clone, Debug, Default)]
pub(super) struct Register {
    /// A delete is for ever.
    pub(super) is_final: bool,
    /// It is left to expire.
    pub(super) expires: bool,
    /// In no order: few, and looked through whole. `None` is a delete.
    writes: Vec<(Option<u64>, Write)>,
    /// Until when it certainly lives, unless it is deleted, each with the acknowledgement that says so.
    lives_until_us: Vec<(Write, u64)>,
    /// When it has certainly expired; with writes of unknown end, never.
    expired_us: Vec<(u64, Option<u64>)>,
}

impl Register {
    pub(super) fn write(&mut self, value: Option<u64>, write: Write) {
        self.writes.push((value, write));
    }

    /// Something moved the deadline that far from where it was done, in time.
    pub(super) fn prolong(&mut self, ttl_ms: u64, write: Write, excuses: &Excuses<'_>) {
        let ttl_us = ttl_ms * 1_000;
        let end_us = write.acknowledged_us.unwrap_or(write.start_us);
        let is_known = !excuses.is_clock_wrong(write.node, write.start_us, end_us);
        if write.acknowledged_us.is_some() && is_known {
            self.lives_until_us.push((write, write.start_us + ttl_us));
        }
        let expired_us = write.acknowledged_us.filter(|_| is_known).map(|us| us + ttl_us);
        self.expired_us.push((write.start_us, expired_us));
    }

    /// Whether the node that was asked certainly held it, if nobody deleted it before. What has expired there it does not
    /// hold, though it may live on by a touch on the other side of a cut.
    pub(super) fn is_held(&self, by: &Operation, excuses: &Excuses<'_>) -> bool {
        let is_there = self.writes.iter().any(|(value, write)| {
            value.is_some()
                && write
                    .acknowledged_before(by.start_us)
                    .is_some_and(|written| !excuses.may_miss(written, (by.node, by.start_us)))
        });
        is_there && (!self.expires || self.lives(by, excuses))
    }

    /// Whether nothing was stored in it until then.
    pub(super) fn begins_after(&self, us: u64) -> bool {
        self.writes.iter().all(|(value, write)| value.is_none() || write.start_us > us)
    }

    /// Whether anybody had begun to delete it by then.
    pub(super) fn is_delete_begun(&self, by_us: u64) -> bool {
        self.writes.iter().any(|(value, write)| value.is_none() && write.start_us <= by_us)
    }

    /// Judges what an operation saw here.
    pub(super) fn judge(&self, seen: Option<u64>, look: &Operation, excuses: &Excuses<'_>) -> Verdict {
        match seen {
            Some(value) => self.judge_value(value, look, excuses),
            None => self.judge_nothing(look, excuses),
        }
    }

    fn judge_value(&self, value: u64, look: &Operation, excuses: &Excuses<'_>) -> Verdict {
        let of_value = |(written, write): &&(Option<u64>, Write)| {
            *written == Some(value) && write.start_us <= look.end_us
        };
        let Some((_, write)) = self.writes.iter().find(of_value) else {
            return Verdict::Wrong(Finding::FromNowhere);
        };
        let verdict = self.judge_presence(look, excuses);
        if matches!(verdict, Verdict::Wrong(_)) {
            return verdict;
        }
        match self.superseded(write, look, excuses) {
            Verdict::Right => verdict,
            other => other,
        }
    }

    /// Judges that there was something, whatever it was.
    pub(super) fn judge_presence(&self, look: &Operation, excuses: &Excuses<'_>) -> Verdict {
        if self.expires && self.has_expired(look) && !excuses.was_clock_wrong(look) {
            return Verdict::Wrong(Finding::ReadAfterExpiry);
        }
        if !self.is_final {
            return Verdict::Right;
        }
        let mut verdict = Verdict::Right;
        let deletes = self.writes.iter().filter(|(written, _)| written.is_none());
        for deleted in deletes.filter_map(|(_, delete)| delete.acknowledged_before(look.start_us)) {
            if !excuses.may_miss(deleted, (look.node, look.start_us)) {
                return Verdict::Wrong(Finding::RevivedSession);
            }
            verdict = Verdict::Excused;
        }
        verdict
    }

    fn judge_nothing(&self, look: &Operation, excuses: &Excuses<'_>) -> Verdict {
        let began_before = |write: &Write| write.start_us <= look.end_us;
        if self.is_final {
            let is_deleted = self.writes.iter().any(|(value, write)| value.is_none() && began_before(write));
            if is_deleted || (self.expires && !self.lives(look, excuses)) {
                return Verdict::Right;
            }
        }
        let initial = Write { node: look.node, start_us: 0, acknowledged_us: Some(0) };
        let deletes = self.writes.iter().filter(|(value, _)| value.is_none()).map(|(_, write)| *write);
        let verdicts = deletes
            .filter(began_before)
            .chain([initial])
            .map(|nothing| self.superseded(&nothing, look, excuses));
        let best = verdicts.min_by_key(|verdict| match verdict {
            Verdict::Right => 0,
            Verdict::Excused => 1,
            Verdict::Wrong(_) => 2,
        });
        match best.unwrap_or(Verdict::Right) {
            Verdict::Wrong(_) if self.is_final => Verdict::Wrong(Finding::FalseLogout),
            verdict => verdict,
        }
    }

    /// Whether an acknowledged write lies wholly between `write` and the look.
    fn superseded(&self, write: &Write, look: &Operation, excuses: &Excuses<'_>) -> Verdict {
        // Without an acknowledgement it may have been done at any time since.
        let Some(acknowledged_us) = write.acknowledged_us else { return Verdict::Right };
        let mut verdict = Verdict::Right;
        for (_, later) in self.writes.iter().filter(|(_, later)| later.start_us > acknowledged_us) {
            let Some(done) = later.acknowledged_before(look.start_us) else { continue };
            let may_lose = excuses.may_lose((later.node, later.start_us), (write.node, acknowledged_us));
            if !may_lose && !excuses.may_miss(done, (look.node, look.start_us)) {
                return Verdict::Wrong(Finding::StaleRead);
            }
            verdict = Verdict::Excused;
        }
        verdict
    }

    /// Whether it was certainly past its deadline before the look began.
    fn has_expired(&self, look: &Operation) -> bool {
        // Not by the look itself, if that was a touch.
        let before =
            |(start_us, _): &&(u64, Option<u64>)| *start_us <= look.end_us && *start_us != look.start_us;
        let mut prolonged = self.expired_us.iter().filter(before);
        prolonged.all(|(_, expired_us)| expired_us.is_some_and(|us| us + CLOCKS_DIFFER_US < look.start_us))
    }

    /// Whether it was certainly before its deadline until the look ended.
    fn lives(&self, look: &Operation, excuses: &Excuses<'_>) -> bool {
        if excuses.was_clock_wrong(look) {
            return false;
        }
        self.lives_until_us.iter().any(|(write, until_us)| {
            look.end_us + CLOCKS_DIFFER_US < *until_us
                && write
                    .acknowledged_before(look.start_us)
                    .is_some_and(|done| !excuses.may_miss(done, (look.node, look.start_us)))
        })
    }
}
