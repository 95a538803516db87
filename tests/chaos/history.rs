//! What happened: one line of JSON for each request and each disturbance, in the order in which they ended.
//!
//! All times are microseconds since the start of the run, by one monotonic clock: all clients are tasks of one process.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Users, who own sessions: a session's number modulo this is its user's.
pub(crate) const USERS: u64 = 500;

/// A line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Line {
    /// A client sent a request, and this came of it.
    Op(Operation),
    /// Something was done to the cluster.
    Fault(Disturbance),
    /// The clients have ended, all faults are undone: what is read from here on is what remains.
    AtRest(u64),
}

/// One request: never a retry, which is a request of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Operation {
    /// Who asked: one request after another.
    pub(crate) client: usize,
    /// The node that was asked.
    pub(crate) node: usize,
    /// Before the first byte was sent.
    pub(crate) start_us: u64,
    /// When the answer was read, or given up.
    pub(crate) end_us: u64,
    /// What was asked.
    pub(crate) action: Action,
    /// What came of it.
    pub(crate) outcome: Outcome,
}

/// What a client asks. Values are numbers that are used once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Action {
    /// Creates a session. One with an idle time of its own is left to expire, and never rewritten.
    SignIn {
        session: u64,
        value: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
    },
    /// Stores another value in a session; sees nothing if it had to create it.
    Rewrite { session: u64, value: u64 },
    /// Moves the deadline of a session that is left to expire.
    Touch { session: u64, ttl_ms: u64 },
    /// Reads a session, and moves the deadline of one that is not left to expire.
    Read { session: u64 },
    /// Deletes a session.
    SignOut { session: u64 },
    /// Deletes all sessions of a user.
    SignOutEverywhere { user: u64 },
    /// Lists the sessions of a user, or of all.
    List {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<u64>,
    },
    /// Stores one value under both keys of a pair, in one batch.
    WritePair { pair: u64, value: u64 },
    /// Reads both keys of a pair in one batch.
    ReadPair { pair: u64 },
    /// Stores a value in the cache table, where a deleted key may live again.
    CachePut { key: u64, value: u64 },
    /// Deletes from the cache table.
    CacheDelete { key: u64 },
    /// Reads from the cache table.
    CacheRead { key: u64 },
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    /// It was done.
    Ok,
    /// It was done, and this was seen.
    Saw(Seen),
    /// It was certainly not done: nobody took it, or it was answered so. For a write of a session, what was found in its
    /// place may have been nothing.
    Rejected {
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        found_nothing: bool,
    },
    /// It may have been done, or may be still.
    Unknown,
}

impl Outcome {
    /// Whether it worked, or was told that there is nothing to work on.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::Ok | Self::Saw(_) | Self::Rejected { found_nothing: true })
    }
}

/// What a read saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Seen {
    /// A value, or that there is none.
    Value(Option<u64>),
    /// Both values of a pair.
    Pair(Option<u64>, Option<u64>),
    /// Sessions with their values.
    List(Vec<(u64, u64)>),
}

/// Something that was done to the cluster, from its begin until all nodes are ready and call each other live again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Disturbance {
    /// Its name.
    pub(crate) fault: String,
    /// Before anything was done.
    pub(crate) start_us: u64,
    /// When everything had been undone.
    pub(crate) undone_us: u64,
    /// When the cluster was whole again.
    pub(crate) whole_us: u64,
    /// Nodes that could not talk with each other, or not within a second.
    #[serde(default)]
    pub(crate) cut: Vec<(usize, usize)>,
    /// A node whose clock was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wrong_clock: Option<usize>,
}

/// Where lines are written as they happen.
#[derive(Debug)]
pub(crate) struct Recorder {
    started: Instant,
    file: Mutex<BufWriter<File>>,
}

impl Recorder {
    /// A new history in this file.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
        Ok(Self { started: Instant::now(), file: Mutex::new(BufWriter::with_capacity(1 << 20, file)) })
    }

    /// The time of the run.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).expect("a run of less than half a million years")
    }

    /// Writes a line.
    ///
    /// # Panics
    ///
    /// When it cannot be written: a history with holes proves nothing.
    pub(crate) fn write(&self, line: &Line) {
        let mut bytes = serde_json::to_vec(line).expect("a line is JSON");
        bytes.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&bytes).expect("the history can be written");
    }

    /// Hands over what is buffered.
    pub(crate) fn flush(&self) -> anyhow::Result<()> {
        self.file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .flush()
            .context("failed to write the history")
    }
}

/// A whole history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) operations: Vec<Operation>,
    pub(crate) disturbances: Vec<Disturbance>,
    /// From when on nothing was done but reading.
    pub(crate) at_rest_us: Option<u64>,
}

impl History {
    /// Reads what a [`Recorder`] wrote.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a line is none of a history.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
        let mut history = Self::default();
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let line = line.with_context(|| format!("failed to read {}", path.display()))?;
            match serde_json::from_str(&line)
                .with_context(|| format!("{}:{}: no line of a history", path.display(), number + 1))?
            {
                Line::Op(operation) => history.operations.push(operation),
                Line::Fault(disturbance) => history.disturbances.push(disturbance),
                Line::AtRest(at_us) => history.at_rest_us = Some(at_us),
            }
        }
        Ok(history)
    }
}

/// The user whose session this is.
pub(crate) fn user_of(session: u64) -> u64 {
    session % USERS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_read_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history");
        let recorder = Recorder::create(&path).expect("a history");
        let operation =
            |action, outcome| Operation { client: 4, node: 1, start_us: 2, end_us: 3, action, outcome };
        let history = History {
            operations: vec![
                operation(Action::SignIn { session: 7, value: 8, ttl_ms: None }, Outcome::Ok),
                operation(Action::Read { session: 7 }, Outcome::Saw(Seen::Value(None))),
                operation(Action::List { user: None }, Outcome::Saw(Seen::List(vec![(7, 8)]))),
                operation(
                    Action::Rewrite { session: 7, value: 9 },
                    Outcome::Rejected { found_nothing: true },
                ),
                operation(Action::SignOutEverywhere { user: 7 }, Outcome::Unknown),
            ],
            disturbances: vec![Disturbance {
                fault: "split".to_owned(),
                start_us: 1,
                undone_us: 2,
                whole_us: 3,
                cut: vec![(0, 1)],
                wrong_clock: None,
            }],
            at_rest_us: Some(9),
        };
        for operation in &history.operations {
            recorder.write(&Line::Op(operation.clone()));
        }
        recorder.write(&Line::Fault(history.disturbances[0].clone()));
        recorder.write(&Line::AtRest(9));
        recorder.flush().expect("written");
        assert_eq!(History::read(&path).expect("a history"), history);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history");
        std::fs::write(&path, "{\"op\":1}\n").expect("written");
        let error = format!("{:#}", History::read(&path).expect_err("no history"));
        assert!(error.contains("history:1: no line"), "{error}");
    }
}
