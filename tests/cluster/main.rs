//! Real processes, real proxies, real networks.
//!
//! Every test starts its own nodes on ports of its own and leaves nothing behind. What needs root (network namespaces)
//! fails with the reason when it has not got it; nothing is left out silently.

mod balanced;
mod batch;
mod check;
mod drain;
mod floods;
mod http_api;
mod http_connections;
mod http_limits;
mod identity;
mod liars;
mod lifecycle;
mod listing;
mod peer_port;
mod replication;
mod split;
mod storage;
