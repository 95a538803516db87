//! Free ports for the processes under test.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Mutex;

/// Ports handed out by this process, so that two nodes that are not yet started do not get the same one.
static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// Below the range from which Linux takes the local ports of outgoing connections (32768 and up). A port asked for by
/// binding to 0 comes from that range, and while its node is down any connection of any program may get it: the node
/// could not be restarted under its address.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A port on which `address` can be listened at and that nobody else got from here.
///
/// # Panics
///
/// When there is none.
pub fn free_port(address: IpAddr) -> u16 {
    let mut guard = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let taken = guard.get_or_insert_default();
    // Two suites running at once start at different places.
    let start = std::process::id().wrapping_mul(61) % u32::from(COUNT);
    (0..u32::from(COUNT))
        .map(|step| FIRST + u16::try_from((start + step) % u32::from(COUNT)).expect("less than COUNT, a u16"))
        .find(|port| !taken.contains(port) && TcpListener::bind(SocketAddr::new(address, *port)).is_ok())
        .inspect(|port| {
            taken.insert(*port);
        })
        .expect("a free port")
}

/// A free port of 127.0.0.1 as an address.
#[must_use]
pub fn free_loopback() -> SocketAddr {
    let address = IpAddr::from([127, 0, 0, 1]);
    SocketAddr::new(address, free_port(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_and_each_can_be_listened_at() {
        let mut seen = HashSet::new();
        for _ in 0..50 {
            let address = free_loopback();
            assert!(seen.insert(address.port()), "{address} was given twice");
            assert!(address.port() < 32_768);
            TcpListener::bind(address).expect("a free port");
        }
    }
}
