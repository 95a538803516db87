//! Clients as in life, and the faults around them: one seed, one run.

use std::collections::BTreeMap;

use mneme_api::{Key, Pattern, TableName};
use mneme_replica::Event;
use mneme_replica::effect::{OperationResult, Outcome};
use mneme_replica::event::{AckMode, Action, Command, Condition, Operation, RequestId};
use mneme_replica::limits::VERSION_AHEAD_MS_MAX;

use crate::fault::Fault;
use crate::invariants;
use crate::oracle::{Oracle, Session, TALKED_MS, Violation, value};
use crate::storm::AWAY_MS;
use crate::weather::Weather;
use crate::world::World;

/// Virtual time with faults, then without.
const ROUGH_MS: u64 = 40_000;
pub(crate) const QUIET_MS: u64 = 45_000;

/// Idle time of the sessions that are left to expire.
const SHORT_TTL_MS: u64 = 3_000;

/// What a request wants, to be noted when it is answered.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    SignIn { key: Key, expires: bool },
    Rewrite { key: Key, number: u64 },
    SignOut { keys: Vec<Key> },
    Pair,
    Touch,
    Cache,
}

/// One simulated run.
pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) oracle: Oracle,
    /// When the faults end.
    pub(crate) rough_until_ms: u64,
    wishes: BTreeMap<RequestId, (usize, Wish)>,
    next_request: u64,
    pub(crate) next_session: u64,
    pair_number: u64,
}

/// What a run that broke no promise did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) sessions: usize,
    pub(crate) requests: u64,
    /// Virtual time that passed.
    pub(crate) simulated_ms: u64,
    /// Events that a replica took, each of which leaves it in another state.
    pub(crate) states: u64,
    pub(crate) trace: u64,
}

/// Runs one seed, with a planted fault or without.
pub(crate) fn run(seed: u64, weather: Weather, fault: Option<Fault>) -> Result<Summary, Violation> {
    Run::new(seed, weather, fault).go()
}

impl Run {
    pub(crate) fn new(seed: u64, weather: Weather, fault: Option<Fault>) -> Self {
        Self {
            world: World::new(seed, weather, fault),
            oracle: Oracle::default(),
            rough_until_ms: ROUGH_MS,
            wishes: BTreeMap::new(),
            next_request: 0,
            next_session: 0,
            pair_number: 0,
        }
    }

    fn go(&mut self) -> Result<Summary, Violation> {
        while self.world.now_ms < self.rough_until_ms {
            let pause_ms = self.world.rng.between(1, 40);
            self.advance(pause_ms);
            self.act()?;
            self.act_in_a_storm()?;
            if self.world.rng.percent(4) {
                self.disturb();
                invariants::check_bounds(&self.world)?;
            }
        }
        self.calm();
        if self.world.now_ms < self.world.stamped_until_ms {
            self.outlive(self.world.stamped_until_ms.max(self.world.now_ms + AWAY_MS));
        }
        let end_ms = self.world.now_ms + QUIET_MS;
        while self.world.now_ms < end_ms {
            self.advance(500);
        }
        invariants::check_end(&self.oracle, &self.world)?;
        invariants::check_answered(self.wishes.values().next())?;
        Ok(self.summary())
    }

    /// What was done so far.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
            sessions: self.oracle.sessions.len(),
            requests: self.next_request,
            simulated_ms: self.world.now_ms,
            states: self.world.states,
            trace: self.world.trace,
        }
    }

    pub(crate) fn advance(&mut self, pause_ms: u64) {
        let until_ms = self.world.now_ms + pause_ms;
        self.world.run_until(until_ms);
        for index in std::mem::take(&mut self.world.drained) {
            // Stopped as asked: everything is handed over, the file is closed.
            self.world.nodes[index].disk.commit();
            self.kill(index);
            self.world.start(index);
        }
        self.part_doubles();
        for (request, outcome) in std::mem::take(&mut self.world.replies) {
            if let Some((node, wish)) = self.wishes.remove(&request) {
                self.note(node, wish, &outcome);
            }
        }
    }

    pub(crate) fn session(number: u64) -> Key {
        let user = (number % 5).to_string();
        Key::from_segments(["user", &user, "session", &number.to_string()]).expect("a key")
    }

    fn pair() -> [Key; 2] {
        ["a", "b"].map(|name| Key::from_segments(["pair", name]).expect("a key"))
    }

    /// One client does one thing at one node.
    fn act(&mut self) -> Result<(), Violation> {
        let node = self.world.rng.index(self.world.nodes.len());
        let some = if self.next_session == 0 { 0 } else { self.world.rng.between(0, self.next_session) };
        let key = Self::session(some);
        match self.world.rng.between(0, 100) {
            0..15 => self.sign_in(node),
            15..60 => {
                for other in 0..self.world.nodes.len() {
                    invariants::check_read(&self.oracle, &self.world, other, &key)?;
                }
                let touch = Action::Touch { ttl_ms: None, exact: false };
                if self.is_kept(&key) {
                    self.apply(node, AckMode::Local, vec![(key, touch)], Wish::Touch);
                }
            }
            60..75 => {
                if let Some(session) = self.oracle.sessions.get(&key).filter(|_| self.is_kept(&key)) {
                    // One writer a session: it waits for its answer before it writes again.
                    let is_busy = self
                        .wishes
                        .values()
                        .any(|(_, wish)| matches!(wish, Wish::Rewrite { key: busy, .. } if *busy == key));
                    // Of writes on two sides of a cut the higher clock wins: only what was written
                    // with the earlier writes in sight is promised.
                    let in_sight = [session.signed_in, Some(session.value_node)]
                        .into_iter()
                        .flatten()
                        .all(|other| self.world.could_talk(node, other, TALKED_MS));
                    if session.signed_in.is_some() && in_sight && !is_busy {
                        let number = self.next_request + 1;
                        let put = Action::Put { value: value(number), ttl_ms: None, max_age_ms: None };
                        let wish = Wish::Rewrite { key: key.clone(), number };
                        self.world.trace(|| format!("node {node} is to rewrite {key:?} with {number}"));
                        self.apply(node, AckMode::All, vec![(key, put)], wish);
                    }
                }
            }
            75..85 => self.sign_out(node, &key),
            85..88 => self.sign_out_everywhere(node, some % 5),
            _ => self.write_pair(node)?,
        }
        Ok(())
    }

    pub(crate) fn is_kept(&self, key: &Key) -> bool {
        self.oracle
            .sessions
            .get(key)
            .is_some_and(|session| !session.is_delete_tried && session.expired_ms.is_none())
    }

    fn sign_in(&mut self, node: usize) {
        let key = Self::session(self.next_session);
        self.next_session += 1;
        let expires = self.world.rng.percent(15);
        let expired_ms = expires.then_some(u64::MAX);
        self.oracle.sessions.insert(key.clone(), Session { expired_ms, ..Session::default() });
        let ttl_ms = expires.then_some(SHORT_TTL_MS);
        let put = Action::Put { value: value(0), ttl_ms, max_age_ms: None };
        let wish = Wish::SignIn { key: key.clone(), expires };
        self.apply(node, AckMode::All, vec![(key, put)], wish);
    }

    fn sign_out(&mut self, node: usize, key: &Key) {
        if let Some(session) = self.oracle.sessions.get_mut(key) {
            session.is_delete_tried = true;
            let wish = Wish::SignOut { keys: vec![key.clone()] };
            self.apply(node, AckMode::All, vec![(key.clone(), Action::Delete)], wish);
        }
    }

    fn sign_out_everywhere(&mut self, node: usize, user: u64) {
        let pattern = Pattern::from_path(&format!("user/{user}/**")).expect("a pattern");
        let Some(replica) = self.world.nodes[node].replica.as_ref() else { return };
        let Some(now_ms) = replica.gate().check(self.world.boot_ms()) else { return };
        let start = replica.scan_start();
        let Some(table) = replica.table(&World::sessions()) else { return };
        let keys: Vec<Key> =
            table.scan(&pattern, None, 1_000, now_ms).records.into_iter().map(|(key, _)| key).collect();
        for key in &keys {
            if let Some(session) = self.oracle.sessions.get_mut(key) {
                session.is_delete_tried = true;
            }
        }
        let table = World::sessions();
        let command = Command::DeleteMatching { table, pattern, after: None, start };
        self.submit(node, AckMode::All, command, Wish::SignOut { keys });
    }

    /// Two keys that are only ever written together, by one client.
    fn write_pair(&mut self, node: usize) -> Result<(), Violation> {
        let [a, b] = Self::pair();
        for other in 0..self.world.nodes.len() {
            invariants::check_pair(&self.world, other, &a, &b)?;
        }
        if self.wishes.values().any(|(_, wish)| matches!(wish, Wish::Pair)) {
            return Ok(());
        }
        self.pair_number += 1;
        let put = Action::Put { value: value(self.pair_number), ttl_ms: None, max_age_ms: None };
        self.apply(node, AckMode::All, vec![(a, put.clone()), (b, put)], Wish::Pair);
        Ok(())
    }

    pub(crate) fn apply(&mut self, node: usize, ack: AckMode, actions: Vec<(Key, Action)>, wish: Wish) {
        self.apply_to(World::sessions(), node, ack, actions, wish);
    }

    pub(crate) fn apply_to(
        &mut self,
        table: TableName,
        node: usize,
        ack: AckMode,
        actions: Vec<(Key, Action)>,
        wish: Wish,
    ) {
        let is_batch = actions.len() > 1;
        let operation = |(key, action)| Operation { key, action, condition: Condition::Always };
        let operations = actions.into_iter().map(operation).collect();
        let command = Command::Apply { table, operations, is_batch };
        self.submit(node, ack, command, wish);
    }

    fn submit(&mut self, node: usize, ack: AckMode, command: Command, wish: Wish) {
        if self.world.nodes[node].replica.is_none() || self.world.is_frozen(node) {
            return;
        }
        self.world.note_stamp(node);
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.wishes.insert(request, (node, wish));
        let command = match self.world.fault {
            Some(fault) => fault.bend_command(command),
            None => command,
        };
        self.world.step(node, Event::Client { request, command, ack, timeout_ms: 5_000 });
        if self.world.fault == Some(Fault::AckAlone) {
            let (results, acks) = (Vec::new(), mneme_replica::effect::Acks::default());
            self.world.replies.push((request, Outcome::Done { results, acks }));
        }
    }

    /// Notes what an answer promises.
    fn note(&mut self, node: usize, wish: Wish, outcome: &Outcome) {
        let is_done = matches!(outcome, Outcome::Done { .. } | Outcome::Swept { .. });
        if let (Outcome::Done { results, .. }, Wish::SignIn { .. } | Wish::Rewrite { .. }) = (outcome, &wish)
            && matches!(
                results.first(),
                Some(OperationResult::Gone { .. } | OperationResult::ConditionFailed { .. })
            )
        {
            return;
        }
        if let (Outcome::Unknown { .. }, Wish::Rewrite { key, number }) = (outcome, &wish) {
            self.oracle.note_unknown(key, *number);
        }
        // What a copy of a node takes goes with it when it is thrown away.
        if !is_done || self.world.is_doubled(node) {
            return;
        }
        // Alone, since the others would refuse it: they take it when their clocks have come so far. By a clock that is
        // behind, of a node that nobody could tell: it ends as much earlier.
        let is_by_wrong_clock =
            self.world.clock_ahead_ms(node) > VERSION_AHEAD_MS_MAX || self.world.is_behind_and_alone(node);
        if is_by_wrong_clock && !matches!(wish, Wish::SignOut { .. }) {
            return;
        }
        match wish {
            Wish::SignIn { key, expires } => {
                let now_ms = self.world.now_ms;
                if let Some(session) = self.oracle.sessions.get_mut(&key) {
                    session.signed_in = Some(node);
                    self.world.trace(|| format!("node {node} acknowledges a sign-in"));
                    if expires {
                        // Stamped no later than it was answered; clocks are within 100 ms, and one that was set
                        // wrong is believed while it is within 500 ms of a peer's.
                        session.expired_ms = Some(now_ms + SHORT_TTL_MS + 750);
                    }
                }
            }
            Wish::Rewrite { key, number } => {
                if let Some(session) = self.oracle.sessions.get_mut(&key)
                    && number > session.value
                {
                    session.value = number;
                    session.value_node = node;
                    self.world.trace(|| format!("node {node} acknowledges {number}"));
                }
            }
            Wish::SignOut { keys } => {
                for key in keys {
                    if let Some(session) = self.oracle.sessions.get_mut(&key) {
                        session.signed_out = Some(node);
                    }
                }
            }
            Wish::Pair | Wish::Touch | Wish::Cache => {}
        }
    }

    /// One fault, or the end of one.
    fn disturb(&mut self) {
        let count = self.world.nodes.len();
        let (a, b) = (self.world.rng.index(count), self.world.rng.index(count));
        if self.storm(a, b) {
            return;
        }
        match self.world.rng.between(0, 100) {
            0..25 => self.crash_or_start(a),
            25..45 => {
                let for_ms = self.world.rng.between(100, 4_000);
                self.world.freeze(a, for_ms);
            }
            45..60 if a != b => {
                let is_one_way = self.world.rng.percent(30);
                self.world.cut(a, b, is_one_way);
            }
            60..66 => {
                for other in (0..count).filter(|other| *other != a) {
                    self.world.cut(a, other, false);
                }
            }
            66..72 => self.world.step(a, Event::Drain),
            72..84 => self.world.heal(),
            84..86 => {
                let for_ms = self.world.rng.between(200, 6_000);
                self.world.fill_volume(a, for_ms);
            }
            86..88 => {
                let for_ms = self.world.rng.between(200, 6_000);
                let by_ms = self.world.rng.between(600, 10_000);
                let is_back = self.world.rng.percent(50);
                self.world.step_clock(a, by_ms, is_back, for_ms);
            }
            88..90 if a != b => self.world.drop_queue(a, b),
            90..93 => {
                for index in 0..count {
                    self.kill(index);
                }
                for index in (0..count).rev() {
                    self.world.start(index);
                }
            }
            _ => self.replace_disk(a),
        }
    }

    pub(crate) fn kill(&mut self, index: usize) {
        self.world.crash(index);
        self.world.trace(|| format!("node {index} is killed"));
        // Whoever waited for this process never hears from it.
        for (_, (_, wish)) in self.wishes.extract_if(.., |_, (node, _)| *node == index) {
            if let Wish::Rewrite { key, number } = wish {
                self.oracle.note_unknown(&key, number);
            }
        }
    }

    fn crash_or_start(&mut self, index: usize) {
        if self.world.nodes[index].replica.is_some() {
            self.kill(index);
            if self.world.rng.percent(60) {
                self.world.start(index);
            }
        } else {
            self.world.start(index);
        }
    }

    pub(crate) fn is_everybody_well(&self) -> bool {
        let all_ready = self.world.nodes.iter().all(|node| {
            node.replica
                .as_ref()
                .is_some_and(|replica| replica.is_ready() && replica.status().members.len() > 1)
        });
        let count = self.world.nodes.len();
        all_ready && (0..count).all(|a| (0..count).all(|b| a == b || self.world.could_talk(a, b, 3_000)))
    }

    /// A disk is lost, or an old one is put back, while everybody else is well: the others hold
    /// whatever it held.
    fn replace_disk(&mut self, index: usize) {
        if !self.is_everybody_well() {
            return;
        }
        let old = self.world.nodes[index].disk.clone();
        self.kill(index);
        if self.world.rng.percent(30) {
            self.world.renew(index);
        } else if let Some(kept) = self.world.old_disks.remove(&index) {
            self.world.nodes[index].disk = kept;
        } else {
            self.world.old_disks.insert(index, old);
        }
        self.world.nodes[index].disk.forget_queue();
        self.world.nodes[index].replaced_ms = Some(self.world.now_ms);
        self.world.start(index);
    }

    /// Everything works again.
    fn calm(&mut self) {
        self.world.heal();
        self.world.loss_percent = 0;
        for index in 0..self.world.nodes.len() {
            self.world.nodes[index].frozen_until_ms = self.world.now_ms;
            self.world.nodes[index].full_until_ms = self.world.now_ms;
            self.world.nodes[index].slow_until_ms = self.world.now_ms;
            self.world.nodes[index].clock_step = None;
            if self.world.nodes[index].replica.is_none() {
                self.world.start(index);
            }
        }
    }
}
