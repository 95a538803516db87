//! The configuration file.

use mneme_node::config::{Config, ConfigError, RunFlags, check as read};

use crate::hosts::check_address;
use mneme_node::peers::discovery::Source;

/// Reads the input as a configuration file and puts it over the defaults.
///
/// # Panics
///
/// When something does not hold.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let file = match read(text) {
        Ok(file) => file,
        Err(errors) => return check_errors(&errors, text),
    };
    let config = match Config::merge(RunFlags::for_check(), file) {
        Ok(config) => config,
        Err(errors) => return check_errors(&errors, text),
    };
    assert!(!config.tables.is_empty());
    for (index, table) in config.tables.iter().enumerate() {
        assert_eq!(table.validate(), Ok(()));
        assert!(table.max_bytes > 0, "0 would be no bound at all");
        assert!(config.tables[..index].iter().all(|other| other.name != table.name), "declared twice");
    }
    for source in &config.sources {
        if let Source::List(addresses) = source {
            addresses.iter().for_each(|address| check_address(address));
        }
    }
    for name in [&config.cluster, &config.node_name] {
        assert!((1..=253).contains(&name.len()) && !name.chars().any(char::is_control));
    }
    config.advertise.iter().for_each(|address| check_address(address));
    assert!(!config.join_timeout.is_zero() && !config.shutdown_grace.is_zero());
    let ports = [config.client_addr, config.peer_addr, config.admin_addr];
    let is_twice = |index: usize| ports[..index].contains(&ports[index]) && ports[index].port() != 0;
    assert!(!(1..ports.len()).any(is_twice), "two ports on one address");
}

/// What is told of a file that is no good.
#[track_caller]
fn check_errors(errors: &[ConfigError], text: &str) {
    // As YAML has it, which is not only what we call a line.
    let lines = 1 + text.matches(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
    assert!(!errors.is_empty());
    for error in errors {
        assert!(!error.to_string().is_empty());
        if let ConfigError::Line { line, reason } = error {
            // What ends too early is missed behind the last line.
            assert!((1..=lines + 1).contains(line), "line {line} of {lines}: {reason}");
        }
    }
}
