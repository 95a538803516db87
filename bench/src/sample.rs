//! Processor time at the ends of a measured time.

use std::time::Instant;

use mneme_tests::process::cpu_nanos;
use rustix::time::{ClockId, clock_gettime};

use crate::figures::{Measured, Percentiles};
use crate::load::Tally;

/// `/proc/stat` counts in hundredths of a second.
const TICK_NANOS: u64 = 10_000_000;

/// Who is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    /// Process ids of the servers.
    pub(crate) servers: Vec<u32>,
    pub(crate) client: ClientProcess,
}

/// Where the clients run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClientProcess {
    This,
    Other(u32),
    /// In a server: there is nothing to measure apart.
    Server,
}

/// Processor time used so far, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    at: Instant,
    servers: u64,
    client: u64,
    /// Of the whole machine.
    busy: u64,
}

impl Sample {
    pub(crate) fn take(watched: &Watched) -> Self {
        let client = match watched.client {
            ClientProcess::This => own_cpu_nanos(),
            ClientProcess::Other(id) => cpu_nanos(id).unwrap_or(0),
            ClientProcess::Server => 0,
        };
        let servers = watched.servers.iter().filter_map(|id| cpu_nanos(*id)).sum();
        Self { at: Instant::now(), servers, client, busy: busy_nanos() }
    }
}

/// Processor time of this process.
pub(crate) fn own_cpu_nanos() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or(0)
}

/// Processor time of the machine, without what it waited for.
fn busy_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let all = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = all.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, (idle, iowait), irq, softirq
    [0, 1, 2, 5, 6].iter().filter_map(|place| ticks.get(*place)).sum::<u64>() * TICK_NANOS
}

/// What was measured between two samples.
pub(crate) fn measured(before: Sample, after: Sample, tally: &Tally) -> Measured {
    let seconds = (after.at - before.at).as_secs_f64();
    let (servers, client) = (after.servers - before.servers, after.client - before.client);
    let other = (after.busy - before.busy).saturating_sub(servers + client);
    let us_per_operation = |nanos: u64| nanos as f64 / 1_000.0 / tally.operations.max(1) as f64;
    Measured {
        operations: tally.operations,
        failed: tally.failed,
        unanswered: tally.unanswered,
        seconds,
        per_second: tally.operations as f64 / seconds,
        writes: Percentiles::of(&tally.writes),
        reads: Percentiles::of(&tally.reads),
        servers_cpu_us: us_per_operation(servers),
        client_cpu_us: us_per_operation(client),
        other_cores: other as f64 / 1e9 / seconds,
    }
}
