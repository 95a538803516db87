//! Real processes, real proxies, real networks.
//!
//! Every test starts its own nodes on ports of its own and leaves nothing behind. What needs root (network namespaces)
//! fails with the reason when it has not got it; nothing is left out silently.

mod balanced;
mod batch;
mod check;
mod http_api;
mod http_limits;
mod identity;
mod lifecycle;
mod listing;
mod replication;
mod split;
mod storage;
