//! The operator of Mneme: a [`SessionCache`](crd::v1alpha1::SessionCache) becomes a cluster of nodes and is kept right.
//!
//! ```text
//! controller ── which object ──> reconcile: fetch ─> validate ─> plan ─> build ─> apply ─> status
//!     ^                                     │                                       │
//!     └───────────── requeue <──────────────┴── nodes (their own /v1/status) ───────┘ only while leader
//! ```
//!
//! Reading order: [`crd`], [`reconcile`] and its steps, [`controller`], [`leader`]. `validate`, `plan`, `build` and
//! `status` are pure and hold most of the tests.

pub mod check;
pub mod config;
pub mod controller;
pub mod crd;
pub mod health;
pub mod leader;
pub mod metrics;
pub mod nodes;
pub mod peers;
pub mod reconcile;
pub mod requeue;
pub mod run;
pub mod telemetry;
pub mod writer;
