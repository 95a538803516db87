//! Logs: one line an event, as text for people or JSON for machines. Never a session key, a value or a token.

use std::error::Error;

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

/// Begins to log to standard error.
///
/// # Errors
///
/// When `level` is no level and no list of `target=level`.
pub fn start(format: LogFormat, level: &str) -> Result<(), String> {
    let filter = filter(level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(SystemTime)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // A second start in one process (tests) goes on with the first.
    drop(started);
    Ok(())
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

/// An error with its causes on one line. What the API server says is its message, not its whole answer.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(kube::Error::Api(status)) = error.downcast_ref::<kube::Error>() {
            let message = if status.message.is_empty() { &status.reason } else { &status.message };
            parts.push(format!("{message} (status {})", status.code));
            break;
        }
        let text = error.to_string();
        // Some libraries repeat their cause in their own words.
        if parts.last().is_none_or(|last| !last.ends_with(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}
