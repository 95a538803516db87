//! Logs: one line an event, as text for people or JSON for machines. Never a session key, a value or a token.
//!
//! Lines are written by a thread of their own: the replica logs under its lock, and whoever reads standard error may
//! stop reading.

use std::collections::HashMap;
use std::error::Error;
use std::time::{Duration, Instant};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Lines that wait to be written, at most; what comes beyond is dropped, because a node must not wait for its log.
const LINES_WAITING_MAX: usize = 4_096;

/// Levels by their names.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Begins to log to standard error. What waits is written when the guard is dropped, unless that takes a second.
///
/// # Errors
///
/// When `level` is no level and no list of `target=level`.
pub fn start(format: LogFormat, level: &str) -> Result<WorkerGuard, String> {
    let filter = filter(level)?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_WAITING_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(SystemTime)
        .with_writer(writer)
        .with_ansi(false);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // A second start in one process (tests) goes on with the first.
    drop(started);
    Ok(guard)
}

/// Checks a level.
///
/// # Errors
///
/// What is wrong with it, for people.
pub fn filter(level: &str) -> Result<EnvFilter, String> {
    // A word that is no level would be taken for the name of a part of the program, and nothing else be logged.
    let is_known = |part: &str| {
        let level = part.split_once('=').map_or(part, |(_, level)| level);
        LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known))
    };
    let filter = Some(level).filter(|level| level.split(',').all(|part| is_known(part.trim())));
    filter
        .and_then(|level| EnvFilter::try_new(level).ok())
        .ok_or_else(|| format!("{level:?} is no log level: give error, warn, info, debug or trace"))
}

/// What was said of whom, so that the same is not said again and again: once a change, then once a minute.
#[derive(Debug, Default)]
pub struct Repeats(HashMap<String, (String, Instant)>);

/// How often the same is said again.
const REPEAT_PAUSE: Duration = Duration::from_secs(60);
/// Of how many it is known what was said; beyond that it is forgotten.
const SUBJECTS_MAX: usize = 256;

impl Repeats {
    /// Whether `text` about `subject` is due at `now`; it counts as said then.
    pub fn is_due(&mut self, subject: &str, text: &str, now: Instant) -> bool {
        let is_said = |(said, at): &(String, Instant)| said == text && now.duration_since(*at) < REPEAT_PAUSE;
        if self.0.get(subject).is_some_and(is_said) {
            return false;
        }
        if self.0.len() >= SUBJECTS_MAX {
            self.0.clear();
        }
        self.0.insert(subject.to_owned(), (text.to_owned(), now));
        true
    }
}

/// An error with its causes on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_change_and_then_once_a_minute() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let after = |secs| start + Duration::from_secs(secs);
        assert!(repeats.is_due("a:1", "another cluster", start));
        assert!(!repeats.is_due("a:1", "another cluster", after(59)));
        assert!(repeats.is_due("b:1", "another cluster", after(59)));
        assert!(repeats.is_due("a:1", "another kind", after(59)));
        assert!(repeats.is_due("a:1", "another kind", after(119)));
    }
}
