//! A Mneme node: the replica of `mneme-replica` with a disk, peers and clients around it.
//!
//! Modules in the order of a write: [`http`] takes it, [`driver`] steps the replica, [`peers`] push it while
//! [`storage`] commits it, and the acknowledgements come back the same way. [`node`] puts the parts together,
//! [`config`] says how.

pub mod config;
pub mod dev;
pub mod driver;
pub mod dump;
mod files;
pub mod http;
mod joining;
pub mod metrics;
pub mod node;
pub mod peers;
pub mod shutdown;
pub mod storage;
pub mod telemetry;
pub mod wall_clock;
