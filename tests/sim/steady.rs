//! Days of steady traffic: whatever is kept for a while has to go again.

use mneme_replica::event::{AckMode, Action};

use crate::oracle::{Violation, value};
use crate::weather::Weather;
use crate::workload::{Run, Summary, Wish};

const HOUR_MS: u64 = 3_600_000;
/// Sessions that are touched and rewritten: the last so many.
const IN_USE: u64 = 100;

/// What a node keeps.
#[derive(Clone, Copy, Debug, Default)]
struct Footprint {
    rows: u64,
    origins: u64,
    members: u64,
    file_entries: u64,
}

impl Footprint {
    fn max(self, other: Self) -> Self {
        Self {
            rows: self.rows.max(other.rows),
            origins: self.origins.max(other.origins),
            members: self.members.max(other.members),
            file_entries: self.file_entries.max(other.file_entries),
        }
    }

    /// Whether it is no more than another, but for what chance makes of it.
    fn is_within(self, first: Self) -> bool {
        let pairs = [
            (self.rows, first.rows),
            (self.origins, first.origins),
            (self.members, first.members),
            (self.file_entries, first.file_entries),
        ];
        pairs.into_iter().all(|(now, then)| now <= then + then / 4 + 2)
    }
}

/// So many hours; the last seventh of them may not need more than the first.
pub(crate) fn run(hours: u64) -> Result<Summary, Violation> {
    let mut run = Run::new(1, Weather::Steady, None);
    let (mut first, mut last) = (Footprint::default(), Footprint::default());
    let window = hours.div_ceil(7);
    for hour in 1..=hours {
        run.live_an_hour(hour);
        let footprint = run.footprint();
        run.world.trace(|| format!("hour {hour}: {footprint:?}"));
        if hour <= window {
            first = first.max(footprint);
        } else if hour > hours - window {
            last = last.max(footprint);
        }
    }
    if !last.is_within(first) {
        return Err(Violation(format!("the last hours need {last:?}, the first {first:?}")));
    }
    println!("{hours} hours; most that a node kept: at first {first:?}, at last {last:?}");
    Ok(run.summary())
}

impl Run {
    fn live_an_hour(&mut self, hour: u64) {
        // One after the other, killed and stopped in turn: each start brings a new origin.
        let index = usize::try_from(hour).unwrap_or(0) % self.world.nodes.len();
        if hour.is_multiple_of(2) {
            self.kill(index);
            self.world.start(index);
        } else {
            self.world.drain(index);
        }
        let until_ms = self.world.now_ms + HOUR_MS;
        while self.world.now_ms < until_ms {
            self.advance(1_000);
            let node = self.world.rng.index(self.world.nodes.len());
            let back = self.world.rng.between(1, IN_USE);
            let key = Self::session(self.next_session.saturating_sub(back));
            let action = match self.world.rng.between(0, 10) {
                0..3 => {
                    self.next_session += 1;
                    let put = Action::Put { value: value(0), ttl_ms: None, max_age_ms: None };
                    let key = Self::session(self.next_session);
                    self.apply(node, AckMode::All, vec![(key, put)], Wish::Touch);
                    continue;
                }
                3..5 => Action::Put { value: value(self.next_session), ttl_ms: None, max_age_ms: None },
                5..8 => Action::Touch { ttl_ms: None, exact: false },
                _ => Action::Delete,
            };
            self.apply(node, AckMode::All, vec![(key, action)], Wish::Touch);
        }
    }

    /// The most that a node keeps now.
    fn footprint(&self) -> Footprint {
        self.world.nodes.iter().fold(Footprint::default(), |most, node| {
            let Some(replica) = &node.replica else { return most };
            let status = replica.status();
            most.max(Footprint {
                rows: status.tables.iter().map(|table| table.live + table.tombstones).sum(),
                origins: replica.vector().len() as u64,
                members: status.members.len() as u64,
                file_entries: node.disk.entries(),
            })
        })
    }
}
