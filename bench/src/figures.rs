//! The figures, as they are in the JSON file.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::system::System;
use crate::workload::{Operation, Shape};

/// An hour: longer ones count as one.
const LATENCY_NANOS_MAX: u64 = 3_600_000_000_000;

/// A histogram of latencies in nanoseconds, three significant digits.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3).expect("three digits are between zero and five")
}

/// All that one run measured.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) cells: Vec<Cell>,
    pub(crate) frames: Vec<Frames>,
    pub(crate) large: Option<Large>,
    pub(crate) growth: Vec<Growth>,
    pub(crate) expiry: Option<Expiry>,
}

/// Where it ran.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) file_system: String,
    /// Programs that were compared, as they say it themselves.
    pub(crate) versions: Vec<String>,
}

/// How it ran.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Settings {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) cell_seconds: f64,
    pub(crate) warm_seconds: f64,
    /// How long the whole run took.
    pub(crate) run_seconds: f64,
}

/// A part of the run that consists of cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CellPart {
    /// Every system, operation and number of clients.
    Matrix,
    /// Open loops at fixed rates.
    Open,
    /// One node beside bare servers.
    Http,
    /// Three nodes beside bare replicas.
    Replicas,
    /// Batches, pipelines and streams.
    Groups,
    /// Clusters of several sizes.
    Nodes,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cell {
    pub(crate) part: CellPart,
    pub(crate) system: System,
    pub(crate) operation: Operation,
    pub(crate) shape: Shape,
    pub(crate) nodes: usize,
    pub(crate) clients: usize,
    /// Requests a second that an open loop asked for.
    pub(crate) rate: Option<u32>,
    pub(crate) round: usize,
    #[serde(flatten)]
    pub(crate) measured: Measured,
}

/// What came out of a measurement. An operation is a record written or read, whatever shared a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    pub(crate) operations: u64,
    /// Requests refused, or answered otherwise than they should be.
    pub(crate) failed: u64,
    /// Requests of an open loop that were due and not answered ten seconds later.
    pub(crate) unanswered: u64,
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// Latency of requests that write; of an open loop from the intended start.
    pub(crate) writes: Option<Percentiles>,
    pub(crate) reads: Option<Percentiles>,
    /// Processor time of all servers, microseconds an operation.
    pub(crate) servers_cpu_us: f64,
    pub(crate) client_cpu_us: f64,
    /// Cores that were busy with something else: the kernel's own threads, other programs.
    pub(crate) other_cores: f64,
}

impl Measured {
    /// Latency of what the operation is about: of a mix, its writes.
    pub(crate) fn latency(&self) -> Option<Percentiles> {
        self.writes.or(self.reads)
    }
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

impl Percentiles {
    /// Of nothing.
    pub(crate) const NONE: Self =
        Self { count: 0, p50_us: 0.0, p90_us: 0.0, p99_us: 0.0, p999_us: 0.0, max_us: 0.0 };

    /// Nothing of an empty histogram.
    pub(crate) fn of(latencies: &Histogram<u64>) -> Option<Self> {
        let us = |quantile| latencies.value_at_quantile(quantile) as f64 / 1_000.0;
        (!latencies.is_empty()).then(|| Self {
            count: latencies.len(),
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: us(1.0),
        })
    }
}

/// Frames appended to a SQLite file, one commit after the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Frames {
    /// Whether each commit is on the disk (`synchronous=FULL`) or with the operating system (`NORMAL`).
    pub(crate) is_synced: bool,
    pub(crate) records_per_commit: usize,
    pub(crate) records_per_second: f64,
    pub(crate) cpu_us_per_record: f64,
    pub(crate) commit: Percentiles,
}

/// Many records on one node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Large {
    pub(crate) records: u64,
    pub(crate) value_bytes: usize,
    pub(crate) key_bytes: usize,
    pub(crate) fill_seconds: f64,
    pub(crate) memory_bytes_per_record: f64,
    pub(crate) memory_bytes_per_record_beyond_key_and_value: f64,
    pub(crate) memory_bytes_per_record_after_restart: f64,
    /// From the start of the process, killed before, until it is ready: the median of as many turns as there are rounds.
    pub(crate) restart_ready_seconds: f64,
    /// From the start of an empty second node until it is ready; the median like above.
    pub(crate) empty_node_ready_seconds: f64,
    pub(crate) empty_node_records: u64,
    /// The same while clients write to the node that holds them, one turn, and how long their writes took.
    pub(crate) empty_node_ready_seconds_beside_writes: f64,
    pub(crate) writes_beside_a_join: Percentiles,
    pub(crate) tombstones: u64,
    pub(crate) memory_bytes_per_tombstone: f64,
    pub(crate) rewritten: Rewritten,
}

/// The file after records were rewritten again and again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rewritten {
    pub(crate) records: u64,
    pub(crate) writes: u64,
    /// Largest size seen while they were rewritten.
    pub(crate) file_bytes_max: u64,
    pub(crate) live_bytes: u64,
}

/// Writes to a cluster that holds many records beside one that holds few, in turns.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Growth {
    pub(crate) records: u64,
    pub(crate) servers_cpu_us: f64,
    pub(crate) per_second: f64,
    /// Median over the turns of the servers' processor time a write beside that of the small cluster.
    pub(crate) cpu_beside_small: f64,
}

/// Reads while records expire.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Expiry {
    pub(crate) records: u64,
    pub(crate) reads_per_second: u32,
    /// On a fresh node each.
    pub(crate) turns: Vec<ExpiryTurn>,
}

/// Records that expire once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExpiryTurn {
    /// Seconds before the deadline.
    pub(crate) quiet: Percentiles,
    /// From the deadline on until no expired record is counted, two seconds at least.
    pub(crate) expiring: Percentiles,
    /// The seconds in which the expired records were dropped from memory; without reads in a quick run.
    pub(crate) dropping: Percentiles,
    /// From the deadline until none was counted.
    pub(crate) gone_seconds: f64,
    /// Reads that failed or were not answered, of all seconds.
    pub(crate) failed: u64,
    /// Of the expired records, those that could be read after the deadline.
    pub(crate) read_after_deadline: u64,
}

impl ExpiryTurn {
    /// The p99 of some of its reads beside that before the deadline; `None` when there were none.
    pub(crate) fn beside_quiet(&self, reads: &Percentiles) -> Option<f64> {
        (reads.count > 0).then(|| reads.p99_us / self.quiet.p99_us)
    }
}
