//! What happens in a storm only: more clients, and what people do to machines.

use mneme_api::Key;
use mneme_replica::event::{AckMode, Action};

use crate::invariants;
use crate::oracle::{Session, Violation, value};
use crate::weather::Weather;
use crate::workload::{Run, Wish};
use crate::world::World;

/// Numbers of sessions that nobody ever signs in begin here.
const GHOSTS: u64 = 1_000_000;

/// Keys of the cache table that are written over and over.
const CACHE_KEYS: u64 = 20;

/// How long somebody is away: longer than any session lives and any tombstone stands.
pub(crate) const AWAY_MS: u64 = 750_000;

impl Run {
    /// One more client does one thing, now and then.
    pub(crate) fn act_in_a_storm(&mut self) -> Result<(), Violation> {
        if self.world.weather != Weather::Stormy || !self.world.rng.percent(30) {
            return Ok(());
        }
        let node = self.world.rng.index(self.world.nodes.len());
        match self.world.rng.between(0, 100) {
            0..25 => self.touch_a_ghost(node),
            25..40 => {
                self.touch_the_ended(node);
                Ok(())
            }
            _ => {
                self.use_the_cache(node);
                Ok(())
            }
        }
    }

    fn touch_a_ghost(&mut self, node: usize) -> Result<(), Violation> {
        let ghost = Self::session(GHOSTS + self.world.rng.between(0, 5));
        for other in 0..self.world.nodes.len() {
            invariants::check_ghost(&self.world, other, &ghost)?;
        }
        let touch = Action::Touch { ttl_ms: None, exact: false };
        self.apply(node, AckMode::All, vec![(ghost, touch)], Wish::Touch);
        Ok(())
    }

    /// A touch of a session that was signed out, or is about to be.
    fn touch_the_ended(&mut self, node: usize) {
        let key = Self::session(self.world.rng.between(0, self.next_session.max(1)));
        if self.oracle.sessions.get(&key).is_some_and(Session::is_signed_out_for_good) {
            let touch = Action::Touch { ttl_ms: None, exact: false };
            self.apply(node, AckMode::All, vec![(key, touch)], Wish::Touch);
        }
    }

    /// Puts, deletes and puts again, any key at any node, in a table that evicts.
    fn use_the_cache(&mut self, node: usize) {
        let number = self.world.rng.between(0, CACHE_KEYS).to_string();
        let key = Key::from_segments(["cache", &number]).expect("a key");
        let action = match self.world.rng.between(0, 10) {
            0..6 => Action::Put { value: value(self.next_session), ttl_ms: None, max_age_ms: None },
            6..8 => Action::Touch { ttl_ms: Some(60_000), exact: true },
            _ => Action::Delete,
        };
        self.apply_to(World::cache(), node, AckMode::All, vec![(key, action)], Wish::Cache);
    }

    /// One fault of those that only storms have; says whether there was one.
    pub(crate) fn storm(&mut self, a: usize, b: usize) -> bool {
        if self.world.weather != Weather::Stormy || !self.world.rng.percent(25) {
            return false;
        }
        let for_ms = self.world.rng.between(500, 8_000);
        match self.world.rng.between(0, 100) {
            0..30 => self.world.nodes[a].slow_until_ms = self.world.now_ms + for_ms,
            30..35 => {
                let by_ms = self.world.rng.between(600, 5_000);
                self.world.step_all_clocks(by_ms);
            }
            35..55 => {
                let by_ms = self.world.rng.between(60_000, 900_000);
                let is_back = self.world.rng.percent(50);
                self.world.step_clock(a, by_ms, is_back, for_ms);
                // Some machines boot with a clock that is wrong, and set it right when somebody tells them the time.
                if by_ms.is_multiple_of(3) && self.world.nodes[a].clock_step.is_some() {
                    self.kill(a);
                    self.world.start_by_its_clock(a);
                }
            }
            55..75 => {
                self.kill(a);
                self.world.nodes[a].is_configured_anew ^= true;
                self.world.start(a);
            }
            75..95 if a != b => self.copy_disk(a, b),
            _ => self.stay_away(a),
        }
        true
    }

    /// Somebody starts a node on a copy of another's disk, while everybody is well.
    fn copy_disk(&mut self, original: usize, copy: usize) {
        if self.world.doubled.is_some() || !self.is_everybody_well() {
            return;
        }
        self.kill(copy);
        self.world.double(original, copy);
        self.world.old_disks.remove(&copy);
        self.world.nodes[copy].replaced_ms = Some(self.world.now_ms);
        self.world.start(copy);
    }

    /// Of two live nodes with one identity one ends; then the copy is thrown away.
    pub(crate) fn part_doubles(&mut self) {
        let Some(doubled) = self.world.doubled else { return };
        let ended =
            [doubled.original, doubled.copy].map(|index| self.world.nodes[index].exited.take().is_some());
        if ended == [false, false] {
            return;
        }
        self.kill(doubled.copy);
        self.world.undouble();
        self.world.nodes[doubled.copy].replaced_ms = Some(self.world.now_ms);
        self.world.start(doubled.copy);
        if ended[0] {
            self.kill(doubled.original);
            self.world.start(doubled.original);
        }
    }

    /// A node is away until everything it knew has ended; then it comes back with its old disk.
    fn stay_away(&mut self, index: usize) {
        self.kill(index);
        self.rough_until_ms += AWAY_MS;
        self.outlive(self.world.now_ms + AWAY_MS);
        self.world.start(index);
    }

    /// Nobody does anything for so long that no session can be relied on any more.
    pub(crate) fn outlive(&mut self, until_ms: u64) {
        while self.world.now_ms < until_ms {
            self.advance(1_000);
        }
        let now_ms = self.world.now_ms;
        for session in self.oracle.sessions.values_mut() {
            session.expired_ms = Some(session.expired_ms.map_or(now_ms, |expired_ms| expired_ms.min(now_ms)));
        }
    }
}
