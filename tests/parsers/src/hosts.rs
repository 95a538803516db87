//! The hosts file, and the address that stands in a line of it.

use mneme_node::peers::discovery::{hosts_file, parse_address};

/// What a file with mistakes is told with, at most: it stands in the log and in the status.
const ERROR_BYTES_MAX: usize = 4_096;

/// Reads the input as a hosts file.
///
/// # Panics
///
/// When something does not hold.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let answer = hosts_file::parse(text);
    assert!(answer.addresses.len() <= text.lines().count());
    answer.addresses.iter().for_each(|address| check_address(address));
    assert_eq!(answer.is_whole, answer.error.is_none(), "a bad line may have meant anybody");
    if let Some(error) = &answer.error {
        assert!(error.starts_with("line ") && error.len() <= ERROR_BYTES_MAX, "{} bytes", error.len());
    }
    // The good lines are used whatever stands beside them.
    let beside = hosts_file::parse(&format!("{text}\n'unfinished\ngood.example.com\n"));
    assert!(beside.addresses.contains("good.example.com:7071") && !beside.is_whole);
    assert!(beside.addresses.is_superset(&answer.addresses));
}

/// What holds for every address of a peer.
#[track_caller]
pub(crate) fn check_address(address: &str) {
    assert_eq!(parse_address(address).as_deref(), Ok(address), "an address has one form");
    let (host, port) = address.rsplit_once(':').expect("a port");
    assert!(port.parse::<u16>().is_ok_and(|port| port != 0) && !host.is_empty());
    assert!(host.len() <= 253 && host.is_ascii() && !host.contains([' ', '/', '@', '"']));
}
