//! Logs: one line an event, as text for people or JSON for machines. Never a session key, a value or a token.
//!
//! Lines are written by a thread of their own: the replica logs under its lock, and whoever reads standard error may
//! stop reading.

use std::error::Error;

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
    EnvFilter::try_new(level)
        .map_err(|_| format!("{level:?} is no log level: give error, warn, info, debug or trace"))
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
