//! Answers of DNS servers, down to the addresses they name.

use hickory_resolver::proto::op::Message;
use mneme_node::peers::discovery::dns::{addresses_in, services_in};

use crate::hosts::check_address;

/// Reads the input as a message of a DNS server.
///
/// # Panics
///
/// When something does not hold.
pub fn check(input: &[u8]) {
    let Ok(message) = Message::from_vec(input) else { return };
    let records = &message.answers;
    let (mut addresses_ttl, mut services_ttl) = (None, None);
    let addresses = addresses_in(records, 7_071, &mut addresses_ttl);
    let (services, mistakes) = services_in(records, &mut services_ttl);
    assert!(addresses.len() + services.len() + mistakes.len() <= records.len());
    assert!(mistakes.iter().all(|mistake| mistake.len() < 512));
    // No record is shorter than a name, a type, a class, a time to live and a length.
    assert!(records.len() * 11 <= input.len(), "{} records out of {} bytes", records.len(), input.len());
    addresses.iter().chain(&services).for_each(|address| check_address(address));
    assert!(addresses.iter().all(|address| address.parse::<std::net::SocketAddr>().is_ok()));
    assert_eq!(addresses.is_empty(), addresses_ttl.is_none(), "who is named has a time to live");
    let least = records.iter().map(|record| record.ttl).min();
    for ttl in [addresses_ttl, services_ttl].into_iter().flatten() {
        assert!(least.is_some_and(|least| ttl >= least));
    }
}
