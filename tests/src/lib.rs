//! The harness of the suites: real `mneme-node` processes, the faults done to them, and the clients that watch.
//!
//! Reading order: [`process`] (one child and its signals), [`node`] (a `mneme-node run`), [`cluster`] (several of
//! them), [`network`] (each in a network namespace of its own), [`volume`] (that can be filled), [`proxy`] (HAProxy and
//! nginx in front), [`http`], [`connection`], [`records`], [`raw`] and [`raw_http2`] (requests), [`liar`] (a peer that
//! says anything), [`wait`] (for a condition, never for time).
//!
//! A step of the harness that cannot be done panics and says what it tried: a test has nothing better to do with such
//! an error than to fail. Whatever a value of the harness started or made, its drop ends and removes.

pub mod binary;
pub mod cluster;
pub mod connection;
pub mod http;
pub mod liar;
pub mod network;
pub mod node;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod raw_http2;
pub mod records;
pub mod volume;
pub mod wait;
