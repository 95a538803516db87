//! How bad a run is.

use std::time::Duration;

use mneme_api::{TableConfig, TableKind, WhenFull};

use crate::fault::Fault;
use crate::world::World;

/// Longest life of a session in a storm, in milliseconds: short, so that whoever is away comes back after everything
/// it knew has ended, and after the tombstones that would tell it.
const STORM_MAX_AGE_MS: u64 = 600_000;

/// How bad a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Weather {
    /// Two to four nodes; everything that happens to machines and networks in a bad week.
    Rough,
    /// Three to seven nodes; besides, what people do to them: copied disks, clocks set wrong by minutes, other tables
    /// at a restart, members away for longer than anything lives; disks that take seconds; evictions.
    Stormy,
    /// Three nodes and nothing but traffic and restarts, for days: see `--days`.
    #[value(skip)]
    Steady,
}

impl Weather {
    /// The weather in which a planted fault shows.
    pub(crate) fn of(fault: Option<Fault>) -> Self {
        if fault == Some(Fault::TouchCreates) { Self::Stormy } else { Self::Rough }
    }

    pub(crate) fn nodes_min(self) -> usize {
        match self {
            Self::Rough => 2,
            Self::Stormy | Self::Steady => 3,
        }
    }

    pub(crate) fn nodes_spread(self) -> usize {
        match self {
            Self::Rough => 3,
            Self::Stormy => 5,
            Self::Steady => 1,
        }
    }

    /// The tables of a node.
    pub(crate) fn tables(self, is_configured_anew: bool) -> Vec<TableConfig> {
        let (mut sessions, mut cache) =
            (TableConfig::new(World::sessions()), TableConfig::new(World::cache()));
        cache.kind = TableKind::Cache;
        if self == Self::Steady {
            // An origin is remembered for as long as anything that it wrote in any table may live.
            cache.max_age = Duration::from_millis(STORM_MAX_AGE_MS);
            sessions.max_age = Duration::from_millis(STORM_MAX_AGE_MS);
            sessions.default_ttl = Duration::from_millis(STORM_MAX_AGE_MS / 2);
        }
        if self == Self::Stormy {
            let max_age_ms = if is_configured_anew { STORM_MAX_AGE_MS / 2 } else { STORM_MAX_AGE_MS };
            sessions.max_age = Duration::from_millis(max_age_ms);
            sessions.default_ttl = Duration::from_millis(max_age_ms / 2);
            cache.max_bytes = if is_configured_anew { 300 } else { 600 };
            cache.when_full = WhenFull::EvictNearestExpiry;
        }
        vec![sessions, cache]
    }
}
