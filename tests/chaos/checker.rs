//! Checks a history, after the run and without the cluster.
//!
//! Each session, pair and cache key is a register. A read is right when some write that gave what it saw had begun before
//! the read ended, and no acknowledged write came wholly between the two. Deletes of sessions are final. What the
//! product does not promise is in [`excuse`]; how often that was needed is counted too.

mod excuse;
mod register;

use std::collections::{BTreeMap, HashMap};

use self::excuse::Excuses;
use self::register::{Register, Verdict, Write};
use crate::history::{Action, History, Operation, Outcome, Seen, user_of};

/// Findings of one kind that are described; all are counted.
const DESCRIBED_MAX: usize = 5;

/// What is wrong with a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Finding {
    /// A session that was signed out, with an acknowledgement.
    RevivedSession,
    /// A session that is signed in and cannot be read.
    FalseLogout,
    /// At rest, an acknowledged write is not there.
    LostWrite,
    /// A value that an acknowledged write had replaced before the read began.
    StaleRead,
    /// One of two writes of a batch.
    TornBatch,
    /// A session beyond its deadline.
    ReadAfterExpiry,
    /// A value that nobody wrote, or whose write was refused.
    FromNowhere,
}

impl Finding {
    /// All of them, the worst first.
    pub(crate) const ALL: [Self; 7] = [
        Self::RevivedSession,
        Self::FalseLogout,
        Self::LostWrite,
        Self::StaleRead,
        Self::TornBatch,
        Self::ReadAfterExpiry,
        Self::FromNowhere,
    ];

    /// As the report says it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::RevivedSession => "revived sessions",
            Self::FalseLogout => "false logouts",
            Self::LostWrite => "lost writes",
            Self::StaleRead => "stale reads",
            Self::TornBatch => "torn batches",
            Self::ReadAfterExpiry => "reads after expiry",
            Self::FromNowhere => "values from nowhere",
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    counts: BTreeMap<Finding, u64>,
    described: Vec<String>,
    /// Answers that were looked at: a list counts once for every session it could have shown.
    pub(crate) looks: u64,
    /// Looks that were old, at a node that could not talk to the writer's.
    pub(crate) excused: u64,
}

impl Findings {
    /// How many there are of a kind.
    pub(crate) fn count(&self, finding: Finding) -> u64 {
        self.counts.get(&finding).copied().unwrap_or(0)
    }

    /// Whether there are none.
    pub(crate) fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// The first ones of each kind, in words.
    pub(crate) fn described(&self) -> &[String] {
        &self.described
    }

    fn add(&mut self, verdict: Verdict, operation: &Operation, what: &dyn Fn() -> String) {
        self.looks += 1;
        let finding = match verdict {
            Verdict::Right => return,
            Verdict::Excused => {
                self.excused += 1;
                return;
            }
            Verdict::Wrong(finding) => finding,
        };
        let count = self.counts.entry(finding).or_default();
        *count += 1;
        if *count <= DESCRIBED_MAX as u64 {
            self.described.push(format!("{}: {operation:?}: {}", finding.words(), what()));
        }
    }
}

/// Checks every answer of a history.
pub(crate) fn check(history: &History) -> Findings {
    let registers = Registers::of(history);
    let mut findings = Findings::default();
    for operation in &history.operations {
        registers.check(operation, &mut findings);
    }
    findings
}

/// Everything that was written.
struct Registers<'a> {
    excuses: Excuses<'a>,
    at_rest_us: u64,
    sessions: HashMap<u64, Register>,
    sessions_of: HashMap<u64, Vec<u64>>,
    pairs: HashMap<u64, Register>,
    cache: HashMap<u64, Register>,
}

impl<'a> Registers<'a> {
    fn of(history: &'a History) -> Self {
        let mut registers = Self {
            excuses: Excuses::of(&history.disturbances),
            at_rest_us: history.at_rest_us.unwrap_or(u64::MAX),
            sessions: HashMap::new(),
            sessions_of: HashMap::new(),
            pairs: HashMap::new(),
            cache: HashMap::new(),
        };
        for operation in &history.operations {
            registers.note(operation);
        }
        for operation in &history.operations {
            if let Action::SignOutEverywhere { user } = operation.action {
                registers.sign_out_everywhere(user, operation);
            }
        }
        registers
    }

    /// Notes what an operation wrote to one register.
    fn note(&mut self, operation: &Operation) {
        let Some(write) = Write::of(operation) else { return };
        match operation.action {
            Action::SignIn { session, value, ttl_ms } => {
                let register = self.sessions.entry(session).or_default();
                register.is_final = true;
                register.expires = ttl_ms.is_some();
                register.write(Some(value), write);
                if let Some(ttl_ms) = ttl_ms {
                    register.prolong(ttl_ms, write, &self.excuses);
                }
                self.sessions_of.entry(user_of(session)).or_default().push(session);
            }
            Action::Rewrite { session, value } => {
                self.sessions.entry(session).or_default().write(Some(value), write);
            }
            Action::Touch { session, ttl_ms } => {
                let register = self.sessions.entry(session).or_default();
                // An answer that says that there is nothing to touch changed nothing.
                if !matches!(operation.outcome, Outcome::Saw(Seen::Value(None))) {
                    register.prolong(ttl_ms, write, &self.excuses);
                }
            }
            Action::SignOut { session } => self.sessions.entry(session).or_default().write(None, write),
            Action::WritePair { pair, value } => {
                self.pairs.entry(pair).or_default().write(Some(value), write);
            }
            Action::CachePut { key, value } => {
                self.cache.entry(key).or_default().write(Some(value), write);
            }
            Action::CacheDelete { key } => self.cache.entry(key).or_default().write(None, write),
            Action::SignOutEverywhere { .. }
            | Action::Read { .. }
            | Action::List { .. }
            | Action::ReadPair { .. }
            | Action::CacheRead { .. } => {}
        }
    }

    /// It deletes for certain what the node held when it began, unless somebody else has begun to delete that: then there
    /// is nothing left to delete, and the other delete is the one that counts. It may delete what came later.
    fn sign_out_everywhere(&mut self, user: u64, operation: &Operation) {
        let Some(write) = Write::of(operation) else { return };
        for session in self.sessions_of.get(&user).into_iter().flatten() {
            let Some(register) = self.sessions.get_mut(session) else { continue };
            if write.is_acknowledged() && register.begins_after(operation.end_us) {
                continue;
            }
            let held =
                register.is_held(operation, &self.excuses) && !register.is_delete_begun(operation.end_us);
            register.write(None, if held { write } else { write.perhaps() });
        }
    }

    fn check(&self, operation: &Operation, findings: &mut Findings) {
        let seen = match (&operation.outcome, &operation.action) {
            (Outcome::Saw(seen), _) => seen,
            (Outcome::Rejected { found_nothing: true }, _) => &Seen::Value(None),
            // It was replaced or touched, so it was there.
            (Outcome::Ok, Action::Rewrite { session, .. } | Action::Touch { session, .. }) => {
                if let Some(register) = self.sessions.get(session) {
                    let verdict = register.judge_presence(operation, &self.excuses);
                    findings.add(verdict, operation, &|| format!("{register:?}"));
                }
                return;
            }
            _ => return,
        };
        match (&operation.action, seen) {
            (
                Action::Read { session } | Action::Rewrite { session, .. } | Action::Touch { session, .. },
                Seen::Value(value),
            ) => self.check_session(*session, *value, operation, findings),
            (Action::List { user }, Seen::List(list)) => self.check_list(*user, list, operation, findings),
            (Action::ReadPair { pair }, Seen::Pair(left, right)) => {
                self.check_pair(*pair, (*left, *right), operation, findings);
            }
            (Action::CacheRead { key }, Seen::Value(value)) => {
                self.check_register(&self.cache, *key, *value, operation, findings);
            }
            (action, seen) => panic!("{action:?} cannot see {seen:?}"),
        }
    }

    fn check_session(
        &self,
        session: u64,
        value: Option<u64>,
        operation: &Operation,
        findings: &mut Findings,
    ) {
        self.check_register(&self.sessions, session, value, operation, findings);
    }

    fn check_list(
        &self,
        user: Option<u64>,
        list: &[(u64, u64)],
        operation: &Operation,
        findings: &mut Findings,
    ) {
        let listed: HashMap<u64, u64> = list.iter().copied().collect();
        for (session, value) in &listed {
            self.check_session(*session, Some(*value), operation, findings);
        }
        let expected: Box<dyn Iterator<Item = &u64>> = match user {
            Some(user) => Box::new(self.sessions_of.get(&user).into_iter().flatten()),
            None => Box::new(self.sessions.keys()),
        };
        for session in expected.filter(|session| !listed.contains_key(session)) {
            self.check_session(*session, None, operation, findings);
        }
    }

    fn check_pair(
        &self,
        pair: u64,
        (left, right): (Option<u64>, Option<u64>),
        operation: &Operation,
        findings: &mut Findings,
    ) {
        if left == right {
            self.check_register(&self.pairs, pair, left, operation, findings);
        } else {
            findings.add(Verdict::Wrong(Finding::TornBatch), operation, &String::new);
        }
    }

    fn check_register(
        &self,
        registers: &HashMap<u64, Register>,
        key: u64,
        value: Option<u64>,
        operation: &Operation,
        findings: &mut Findings,
    ) {
        let empty = Register::default();
        let register = registers.get(&key).unwrap_or(&empty);
        let verdict = match register.judge(value, operation, &self.excuses) {
            Verdict::Wrong(Finding::StaleRead) if operation.start_us > self.at_rest_us => {
                Verdict::Wrong(Finding::LostWrite)
            }
            verdict => verdict,
        };
        findings.add(verdict, operation, &|| format!("{value:?} of {register:?}"));
    }
}

#[cfg(test)]
mod tests;
