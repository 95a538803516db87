//! How many files this process may have open. Each connection is one, and strangers open connections: what they may take
//! must leave enough for peers, probes and the file.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to what the process may have, and gives it.
///
/// The usual limit of 1024 is for programs that ask `select` about their files; this is none.
pub(crate) fn allowed() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let allowed = if raised.is_ok() { maximum } else { current };
    allowed.map_or(usize::MAX, |allowed| usize::try_from(allowed).unwrap_or(usize::MAX))
}

/// Connections that clients may have at once: half of all files.
pub(crate) fn for_clients(allowed: usize) -> usize {
    allowed / 2
}

/// Connections that the admin port may have at once: an eighth of all files.
pub(crate) fn for_admin(allowed: usize) -> usize {
    allowed / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_leave_room_for_peers() {
        // What systems have at least; the peer port takes 256 connections, and as many files are enough for the rest.
        let allowed = 1_024;
        assert!(for_clients(allowed) + for_admin(allowed) + 256 < allowed - 64);
        assert!(super::allowed() > 0);
    }
}
