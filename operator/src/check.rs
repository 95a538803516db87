//! `mneme-operator check`: sessions are written through one node and read through every other.
//!
//! For `helm test`, and for anybody who wants to know whether nodes replicate to each other. It talks to nodes alone, never to the
//! API server. A first session is tried until it passes, since nodes that were just made have yet to meet; from then on
//! every one must.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mneme_api::client::{Client, ClientError, PutOptions, Read, Stored};
use mneme_api::{Key, TableName};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::CheckFlags;
use crate::telemetry::chain;

/// Sessions after the first.
const SESSIONS: u32 = 100;
/// Pause between two tries of the first.
const PAUSE: Duration = Duration::from_secs(1);
/// A session that nobody deletes is gone after this.
const TTL: Duration = Duration::from_secs(60);
/// Nobody else's keys begin so.
const PREFIX: &str = "mneme-operator-check";

/// What was not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// One node shows nothing.
    #[error("give two nodes or more, each with --node")]
    Alone,
    /// The token.
    #[error("failed to read the token in {path}")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// An address, or a request.
    #[error("failed to {what} through {node}")]
    Request {
        /// What was tried.
        what: &'static str,
        /// Where.
        node: String,
        /// Why not.
        #[source]
        source: Box<ClientError>,
    },
    /// An answer that no node may give.
    #[error("{node} answered {answer} for a session that {other} had just {what}")]
    Answer {
        /// Who answered.
        node: String,
        /// What.
        answer: &'static str,
        /// Whoever took the write.
        other: String,
        /// What was done to the session.
        what: &'static str,
    },
    /// Time is up.
    #[error("no session went through within {within:?}")]
    Late {
        /// The time given.
        within: Duration,
        /// What was wrong last, if a try came to its end.
        #[source]
        last: Option<Box<CheckError>>,
    },
}

/// Checks; prints what it found.
///
/// # Errors
///
/// The first [`CheckError`] after a session went through, or [`CheckError::Late`] when none did.
pub async fn check(flags: &CheckFlags) -> Result<(), CheckError> {
    if flags.node.len() < 2 {
        return Err(CheckError::Alone);
    }
    let deadline = Instant::now() + flags.timeout;
    let mut last = None;
    let late = |last| CheckError::Late { within: flags.timeout, last };
    loop {
        match timeout_at(deadline, session(flags, 0)).await {
            Ok(Ok(())) => break,
            Ok(Err(error)) => {
                println!("not yet: {}", chain(&error));
                last = Some(Box::new(error));
            }
            Err(_) => return Err(late(last)),
        }
        if Instant::now() + PAUSE >= deadline {
            return Err(late(last));
        }
        sleep(PAUSE).await;
    }
    for number in 1..=SESSIONS {
        session(flags, number).await?;
    }
    println!(
        "{SESSIONS} sessions: each written through one node, read through all, deleted, and gone from all"
    );
    Ok(())
}

/// One session: written through a node, read through all, deleted through another, gone from all.
async fn session(flags: &CheckFlags, number: u32) -> Result<(), CheckError> {
    // Read anew each time: a Secret that was just made again reaches a pod later.
    let nodes = nodes(flags)?;
    let at = |offset: u32| {
        let index = usize::try_from(number + offset).unwrap_or_default() % nodes.len();
        &nodes[index]
    };
    let (writer, deleter) = (at(0), at(1));
    let id = format!("{:016x}", rand::random::<u64>());
    let key = Key::from_segments([PREFIX, id.as_str()]).expect("two short segments make a key");
    let table = &flags.table;

    let options = PutOptions { ttl: Some(TTL), ..PutOptions::default() };
    let stored = writer.client.put(table, &key, id.clone(), &options).await;
    match stored.map_err(|source| writer.failed("write", source))? {
        Stored::Created(_) => {}
        _ => return Err(writer.answered("that it knows it", writer, "made up")),
    }
    for node in &nodes {
        match node.read(table, &key).await? {
            Read::Found(record) if record.value == id.as_bytes() => {}
            Read::Found(_) => return Err(node.answered("another value", writer, "written")),
            Read::Absent => return Err(node.answered("that there is none", writer, "written")),
            Read::Deleted => return Err(node.answered("that it was deleted", writer, "written")),
        }
    }
    let deleted = deleter.client.delete(table, &key).await;
    deleted.map_err(|source| deleter.failed("delete", source))?;
    for node in &nodes {
        match node.read(table, &key).await? {
            Read::Absent | Read::Deleted => {}
            Read::Found(_) => return Err(node.answered("with its value", deleter, "deleted")),
        }
    }
    Ok(())
}

struct Node {
    name: String,
    client: Client,
}

impl Node {
    async fn read(&self, table: &TableName, key: &Key) -> Result<Read, CheckError> {
        self.client.get(table, key, None).await.map_err(|source| self.failed("read", source))
    }

    fn failed(&self, what: &'static str, source: ClientError) -> CheckError {
        CheckError::Request { what, node: self.name.clone(), source: Box::new(source) }
    }

    fn answered(&self, answer: &'static str, other: &Self, what: &'static str) -> CheckError {
        CheckError::Answer { node: self.name.clone(), answer, other: other.name.clone(), what }
    }
}

fn nodes(flags: &CheckFlags) -> Result<Vec<Node>, CheckError> {
    let token = flags.token_file.as_deref().map(token).transpose()?;
    let node = |name: &String| {
        let client = Client::new(name).and_then(|client| match &token {
            Some(token) => client.with_token(token),
            None => Ok(client),
        });
        let failed =
            |source| CheckError::Request { what: "connect", node: name.clone(), source: Box::new(source) };
        Ok(Node { name: name.clone(), client: client.map_err(failed)? })
    };
    flags.node.iter().map(node).collect()
}

fn token(path: &Path) -> Result<String, CheckError> {
    let read = std::fs::read_to_string(path);
    let text = read.map_err(|source| CheckError::Token { path: path.to_owned(), source })?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(nodes: &[&str], timeout: Duration) -> CheckFlags {
        CheckFlags {
            node: nodes.iter().map(|&node| node.to_owned()).collect(),
            token_file: None,
            table: "sessions".parse().expect("a table name"),
            timeout,
        }
    }

    #[tokio::test]
    async fn nodes_that_do_not_answer_are_named_when_time_is_up() {
        // Port 0 is nobody's.
        let flags = flags(&["http://127.0.0.1:0", "http://127.0.0.1:0"], Duration::from_millis(1_500));
        let error = check(&flags).await.expect_err("nobody is there");
        assert!(matches!(error, CheckError::Late { last: Some(_), .. }), "{error:?}");
        assert!(chain(&error).contains("http://127.0.0.1:0"), "{}", chain(&error));
    }

    #[tokio::test]
    async fn a_missing_token_is_named() {
        let mut flags = flags(&["http://127.0.0.1:0"], Duration::ZERO);
        flags.token_file = Some("/nowhere/token".into());
        let error = session(&flags, 0).await.expect_err("no such file");
        assert!(error.to_string().contains("/nowhere/token"), "{error}");
    }
}
