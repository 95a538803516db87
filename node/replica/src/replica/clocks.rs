//! What others say of this node's clock: whether to go by it, and whom to believe.

use super::Replica;
use crate::limits::{VERSION_AHEAD_MS_MAX, WALL_STEP_ALONE_MS};
use crate::membership::Member;
use crate::time::signed;

/// Processes whose starts are no further apart are of one age: how long a greeting takes is in it.
const SAME_AGE_MS: i64 = 250;

/// What others say of this node's clock.
#[derive(Clone, Copy, Default)]
struct ClockVotes {
    all: usize,
    /// Whose clocks are so far ahead that what they stamp is refused here.
    ahead: usize,
    /// Whose clocks are so far behind that they refuse what is stamped here.
    behind: usize,
    /// Whose clock somebody confirmed when nobody did this one, or who else has run for longer.
    elders: usize,
    /// Whose clock nobody confirmed when somebody did this one, or who else has not run for as long.
    youngers: usize,
    /// Of whose clock and this one's nothing says yet which is right.
    undecided: usize,
    /// Who is there and has not told its time yet.
    untold: usize,
}

impl ClockVotes {
    /// Whether this node is to take its clock for one that is ahead.
    ///
    /// Of two nodes nobody can say. A clock that nobody ever confirmed, or that of a machine that has just booted, is the
    /// likelier to be wrong, and sessions live by the other; of two of one age the one that is refused counts as wrong. Of two
    /// that nobody confirmed and that have not run for a minute neither is believed: machines that boot are told the time
    /// by then, or a third comes.
    fn is_fast(self) -> bool {
        self.may_be_fast() && (self.all > 1 || self.youngers == 0 || self.untold > 0)
    }

    /// Whether it may be: whoever goes on by it must not destroy anything.
    fn may_be_fast(self) -> bool {
        self.behind * 2 > self.all
    }

    fn is_slow(self) -> bool {
        self.ahead * 2 > self.all && (self.all > 1 || self.elders + self.undecided > 0)
    }
}

impl Replica {
    /// Whether a majority of the others refuses what this node stamps, or will once it has heard of its clock.
    pub(super) fn is_clock_wrong(&self) -> bool {
        self.is_any_clock_apart()
            && self.clock_votes(|member| member.is_in_contact && member.refuses_clock()).is_fast()
    }

    /// Whether this node goes by a clock that most of the others contradict, by which it cannot tell what has expired, or
    /// refuses by it what they take.
    pub(super) fn is_clock_contradicted(&self) -> bool {
        if !self.is_any_clock_apart() {
            return false;
        }
        let votes = self.clock_votes(|_| false);
        votes.is_fast() || votes.is_slow() || self.is_left_for_its_refusal()
    }

    /// Whether what has expired by this node's clock may have expired by nobody else's.
    pub(super) fn is_clock_disputed(&self) -> bool {
        let votes = self.clock_votes(|_| false);
        votes.may_be_fast() || votes.is_slow()
    }

    /// Whether most of the others are ahead of this node: then its own clock is behind, and what it refuses is right.
    pub(super) fn is_clock_slow(&self) -> bool {
        self.clock_votes(|_| false).is_slow()
    }

    /// Those whose word on clocks counts: in contact, or a moment ago. A clock that was doubted is not right because nobody
    /// is there to doubt it.
    fn heard_of_late(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.silence_ms(self.boot_ms) <= WALL_STEP_ALONE_MS)
    }

    /// Whether there is anything to count votes on: it is asked for at every step, and nearly always no clock is far from
    /// this one and nobody refuses what another takes.
    fn is_any_clock_apart(&self) -> bool {
        let offset_ms = self.time.offset_ms();
        self.members.values().any(|member| {
            let is_apart = |skew_ms: i64| skew_ms.unsigned_abs() > VERSION_AHEAD_MS_MAX;
            member.refuses_clock() || member.leaves_us || member.skew_ms(offset_ms).is_some_and(is_apart)
        })
    }

    /// What others say of this node's clock, in one look.
    ///
    /// Of some it is known that they are behind, whatever they told of their time.
    fn clock_votes(&self, is_behind: impl Fn(&Member) -> bool) -> ClockVotes {
        let (offset_ms, started_boot_ms) = (self.time.offset_ms(), signed(self.started_boot_ms));
        let mut votes = ClockVotes::default();
        for member in self.heard_of_late() {
            let (skew_ms, is_behind) = (member.skew_ms(offset_ms), is_behind(member));
            if skew_ms.is_none() && !is_behind {
                votes.untold += usize::from(member.is_in_contact);
                continue;
            }
            let skew_ms = skew_ms.unwrap_or(0);
            votes.all += 1;
            votes.ahead += usize::from(skew_ms > signed(VERSION_AHEAD_MS_MAX));
            votes.behind += usize::from(is_behind || -skew_ms > signed(VERSION_AHEAD_MS_MAX));
            let younger_ms = started_boot_ms - member.started_boot_ms;
            let elder_runs_ms = signed(self.boot_ms) - started_boot_ms.min(member.started_boot_ms);
            if !member.is_clock_confirmed
                && !self.is_clock_confirmed
                && elder_runs_ms < signed(WALL_STEP_ALONE_MS)
            {
                votes.undecided += 1;
                continue;
            }
            let (is_elder, is_younger) = if member.is_clock_confirmed == self.is_clock_confirmed {
                (younger_ms > SAME_AGE_MS, -younger_ms > SAME_AGE_MS)
            } else {
                (member.is_clock_confirmed, self.is_clock_confirmed)
            };
            votes.elders += usize::from(is_elder);
            votes.youngers += usize::from(is_younger);
        }
        votes
    }

    /// Whether a member acknowledges without this node because it refuses what that writes, though most of the others take
    /// it: then sessions are missing here, whatever the last exchange brought.
    fn is_left_for_its_refusal(&self) -> bool {
        self.heard_of_late().any(|member| member.leaves_us)
    }

    /// Whether a member's clock is so far ahead that what it stamps now is refused here.
    pub(super) fn is_ahead_of_us(&self, member: &Member) -> bool {
        member.skew_ms(self.time.offset_ms()).is_some_and(|skew_ms| skew_ms > signed(VERSION_AHEAD_MS_MAX))
    }
}
