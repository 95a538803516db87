//! The parts of a run, each by itself.

mod compare;
mod expiry;
mod growth;
mod http;
mod large;
mod nodes;
mod replicas;
pub(crate) mod sqlite;

use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::figures::{Cell, CellPart, Measured, Results, Settings};
use crate::system::{Running, System};
use crate::workload::{KEYS, Operation, Shape, Spec};

/// Turns of [`Session::in_turns`] for each round of the rest.
const TURNS: usize = 2;

/// A part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Every replicated system: writes, reads and the mix at 1, 32 and 128 clients, batches, pipelines, open loops.
    Compare,
    /// One node beside bare hyper and nginx.
    Http,
    /// Frames appended to a SQLite file.
    Sqlite,
    /// Writes to three nodes beside bare replicas.
    Replicas,
    /// 2, 3, 5 and 7 nodes.
    Nodes,
    /// The cost of a write from 10,000 to 1,000,000 records.
    Growth,
    /// 1,000,000 records on a node: memory, restart, an empty node that joins, the file.
    Large,
    /// Reads while 1,000,000 records expire within one second.
    Expiry,
}

impl Part {
    /// All, in the order of a run.
    pub(crate) const ALL: [Self; 8] = [
        Self::Compare,
        Self::Http,
        Self::Sqlite,
        Self::Replicas,
        Self::Nodes,
        Self::Growth,
        Self::Large,
        Self::Expiry,
    ];

    /// Whether it needs programs other than Mneme's.
    pub(crate) fn needs_packages(self) -> bool {
        matches!(self, Self::Compare | Self::Http)
    }
}

/// A run under way.
pub(crate) struct Session {
    pub(crate) results: Results,
    began: Instant,
    is_quick: bool,
}

impl Session {
    /// `is_quick`: the same steps, too short for figures that mean anything.
    pub(crate) fn new(is_quick: bool, rounds: Option<usize>) -> Self {
        let (usual, cell_seconds, warm_seconds) = if is_quick { (1, 0.3, 0.1) } else { (3, 2.5, 0.5) };
        let rounds = rounds.unwrap_or(usual).max(1);
        let settings =
            Settings { quick: is_quick, rounds, cell_seconds, warm_seconds, ..Settings::default() };
        let results = Results { settings, ..Results::default() };
        Self { results, began: Instant::now(), is_quick }
    }

    /// Runs parts one after the other.
    pub(crate) async fn run(&mut self, parts: &[Part]) -> anyhow::Result<()> {
        for part in parts {
            match part {
                Part::Compare => compare::run(self).await?,
                Part::Http => http::run(self).await?,
                Part::Sqlite => sqlite::run(self).await?,
                Part::Replicas => replicas::run(self).await?,
                Part::Nodes => nodes::run(self).await?,
                Part::Growth => growth::run(self).await?,
                Part::Large => large::run(self).await?,
                Part::Expiry => expiry::run(self).await?,
            }
        }
        self.results.settings.run_seconds = self.began.elapsed().as_secs_f64().round();
        Ok(())
    }

    fn rounds(&self) -> usize {
        self.results.settings.rounds
    }

    /// A record count, or a hundredth of it in a quick run.
    fn scaled(&self, records: u64) -> u64 {
        if self.is_quick { records / 100 } else { records }
    }

    fn spec(&self, operation: Operation, clients: usize) -> Spec {
        let Settings { cell_seconds, warm_seconds, .. } = self.results.settings;
        Spec {
            operation,
            shape: Shape::Single,
            clients,
            rate: None,
            keys: KEYS,
            warm: Duration::from_secs_f64(warm_seconds),
            measured: Duration::from_secs_f64(cell_seconds),
        }
    }

    /// Starts a system and fills it.
    async fn start(&self, system: System, nodes: usize) -> anyhow::Result<Running> {
        self.say(&format!("{}: starting {nodes}", system.label()));
        let mut running = system.start(nodes).await?;
        running.fill(KEYS).await?;
        Ok(running)
    }

    /// Measures, keeps and prints.
    async fn cell(
        &mut self,
        part: CellPart,
        round: usize,
        running: &mut Running,
        spec: &Spec,
    ) -> anyhow::Result<Measured> {
        let measured = running.measure(spec).await?;
        let (system, nodes) = (running.system, running.nodes);
        let Spec { operation, shape, clients, rate, .. } = *spec;
        let rate_text = rate.map(|rate| format!(", {rate}/s due")).unwrap_or_default();
        let what = format!("{} {}, {clients} clients{rate_text}", shape.word(), operation.word());
        self.say(&format!("{}: {what}: {}", system.label(), brief(&measured)));
        let cell = Cell { part, system, operation, shape, nodes, clients, rate, round, measured };
        self.results.cells.push(cell.clone());
        Ok(cell.measured)
    }

    /// Measures systems in turns, the other way round every time: what is wanted is a ratio, and a machine that becomes slower or
    /// faster meanwhile favours none.
    async fn in_turns(
        &mut self,
        part: CellPart,
        systems: &mut [Running],
        specs: &[Spec],
    ) -> anyhow::Result<()> {
        for turn in 0..self.rounds() * TURNS {
            for spec in specs {
                for system in &mut *systems {
                    self.cell(part, turn, system, spec).await?;
                }
            }
            systems.reverse();
        }
        Ok(())
    }

    /// Tells who waits for the end how far it is.
    fn say(&self, what: &str) {
        eprintln!("{:5.0} s  {what}", self.began.elapsed().as_secs_f64());
    }
}

/// One line.
fn brief(measured: &Measured) -> String {
    let latency = measured.latency();
    let (p50, p99) = latency.map_or((0.0, 0.0), |latency| (latency.p50_us, latency.p99_us));
    format!(
        "{:.0}/s, p50 {p50:.0} us, p99 {p99:.0} us, servers {:.1} us, client {:.1} us, failed {}, unanswered {}",
        measured.per_second,
        measured.servers_cpu_us,
        measured.client_cpu_us,
        measured.failed,
        measured.unanswered
    )
}

/// The middle one; of an even number the mean of the two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(2.5));
    }
}
