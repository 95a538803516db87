//! Which client writes wait for whom, and when to let go.

use std::collections::{BTreeMap, BTreeSet};

use crate::effect::{Acks, OperationResult, Outcome};
use crate::event::{AckMode, RequestId};

/// A write whose client waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) request: RequestId,
    pub(crate) answer: Answer,
    deadline_boot_ms: u64,
}

/// What the client is told once the write is held widely enough.
#[derive(Debug)]
pub(crate) enum Answer {
    /// One result per operation.
    Results(Vec<OperationResult>),
    /// A slice of a delete by match.
    Swept { deleted: usize, resume_after: Option<mneme_api::Key> },
}

impl Answer {
    /// The outcome of a write that is held as it was asked for.
    pub(crate) fn done(self, acks: Acks) -> Outcome {
        match self {
            Self::Results(results) => Outcome::Done { results, acks },
            Self::Swept { deleted, resume_after } => Outcome::Swept { deleted, resume_after, acks },
        }
    }

    fn unknown(self, acks: Acks) -> Outcome {
        match self {
            Self::Results(results) => Outcome::Unknown { results, acks },
            Self::Swept { .. } => Outcome::Unknown { results: Vec::new(), acks },
        }
    }
}

/// All writes that wait, by sequence: both conditions are monotone in it.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    all: BTreeMap<u64, Waiting>,
    local: BTreeMap<u64, Waiting>,
    deadlines: BTreeSet<(u64, u64)>,
}

impl Pending {
    /// Lets a client wait for the write with this sequence.
    pub(crate) fn wait(
        &mut self,
        sequence: u64,
        mode: AckMode,
        request: RequestId,
        answer: Answer,
        deadline_boot_ms: u64,
    ) {
        self.deadlines.insert((deadline_boot_ms, sequence));
        let waiting = Waiting { request, answer, deadline_boot_ms };
        match mode {
            AckMode::All => self.all.insert(sequence, waiting),
            AckMode::Local => self.local.insert(sequence, waiting),
        };
    }

    /// Takes the oldest write for which its mode's condition holds.
    pub(crate) fn settled(
        &mut self,
        is_held_by_all: impl FnOnce(u64) -> bool,
        is_held_here: impl FnOnce(u64) -> bool,
    ) -> Option<(u64, Waiting)> {
        let first = |waiting: &BTreeMap<u64, Waiting>| waiting.keys().next().copied();
        let settled = if first(&self.all).is_some_and(is_held_by_all) {
            self.all.pop_first()
        } else if first(&self.local).is_some_and(is_held_here) {
            self.local.pop_first()
        } else {
            None
        };
        if let Some((sequence, waiting)) = &settled {
            self.deadlines.remove(&(waiting.deadline_boot_ms, *sequence));
        }
        settled
    }

    /// Takes a write whose time is over: its outcome is unknown.
    pub(crate) fn expired(&mut self, boot_ms: u64) -> Option<(u64, Waiting)> {
        let (deadline, sequence) = *self.deadlines.first()?;
        if deadline > boot_ms {
            return None;
        }
        self.deadlines.pop_first();
        let waiting = self.all.remove(&sequence).or_else(|| self.local.remove(&sequence))?;
        Some((sequence, waiting))
    }

    /// Writes that wait.
    pub(crate) fn len(&self) -> usize {
        self.deadlines.len()
    }
}

impl Waiting {
    /// The outcome when the time is over.
    pub(crate) fn into_unknown(self, acks: Acks) -> (RequestId, Outcome) {
        (self.request, self.answer.unknown(acks))
    }
}
