//! What a run gave, for people.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter, Write as _};
use std::time::Duration;

use crate::checker::{Finding, Findings};
use crate::history::{Action, Disturbance, History, Operation, Outcome};

/// Figures of one run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) findings: Findings,
    /// From the last request of the clients until nobody lacked anything and all digests were equal.
    pub(crate) equal_after: Option<Duration>,
    seconds: u64,
    acknowledged: u64,
    acknowledged_writes: u64,
    rejected: u64,
    unknown: u64,
    faults: BTreeMap<String, Kind>,
    /// The longest time that a client waited for something to work, outside all faults.
    undisturbed_stall_us: u64,
}

/// All faults of a kind.
#[derive(Debug, Default)]
struct Kind {
    count: u64,
    longest_stall_us: u64,
    longest_to_whole_us: u64,
}

impl Report {
    pub(crate) fn of(history: &History, findings: Findings) -> Self {
        let mut report = Self {
            findings,
            equal_after: None,
            seconds: history.operations.iter().map(|operation| operation.end_us).max().unwrap_or(0)
                / 1_000_000,
            acknowledged: 0,
            acknowledged_writes: 0,
            rejected: 0,
            unknown: 0,
            faults: BTreeMap::new(),
            undisturbed_stall_us: 0,
        };
        for operation in &history.operations {
            report.count(operation);
        }
        for disturbance in &history.disturbances {
            let kind = report.faults.entry(disturbance.fault.clone()).or_default();
            kind.count += 1;
            let to_whole_us = disturbance.whole_us.saturating_sub(disturbance.undone_us);
            kind.longest_to_whole_us = kind.longest_to_whole_us.max(to_whole_us);
        }
        for (from_us, to_us) in stalls(history) {
            report.note_stall(&history.disturbances, from_us, to_us);
        }
        report
    }

    fn count(&mut self, operation: &Operation) {
        match operation.outcome {
            _ if operation.outcome.is_answer() => {
                self.acknowledged += 1;
                self.acknowledged_writes += u64::from(is_write(&operation.action));
            }
            Outcome::Unknown => self.unknown += 1,
            _ => self.rejected += 1,
        }
    }

    fn note_stall(&mut self, disturbances: &[Disturbance], from_us: u64, to_us: u64) {
        let mut is_disturbed = false;
        // In order of time, and few.
        for disturbance in disturbances {
            if disturbance.start_us < to_us && from_us < disturbance.whole_us {
                is_disturbed = true;
                let kind = self.faults.entry(disturbance.fault.clone()).or_default();
                kind.longest_stall_us = kind.longest_stall_us.max(to_us - from_us);
            }
        }
        if !is_disturbed {
            self.undisturbed_stall_us = self.undisturbed_stall_us.max(to_us - from_us);
        }
    }

    /// The report as a document.
    pub(crate) fn document(&self, command: &str) -> String {
        let mut text = String::new();
        let _ = write!(
            text,
            "{INTRODUCTION}\n## The run\n\n```sh\ncargo build --release --workspace\n{command} --report docs/chaos.md\n```\n\n{self}"
        );
        let _ = write!(
            text,
            "\n## Faults\n\n| Fault | Times | Longest stall, ms | Longest time to whole, ms |\n|---|--:|--:|--:|\n"
        );
        for (name, kind) in &self.faults {
            let (stall, whole) = (kind.longest_stall_us / 1_000, kind.longest_to_whole_us / 1_000);
            let _ = writeln!(text, "| {name} | {} | {stall} | {whole} |", kind.count);
        }
        text
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let faults: u64 = self.faults.values().map(|kind| kind.count).sum();
        let longest = self.faults.iter().max_by_key(|(_, kind)| kind.longest_stall_us);
        writeln!(out, "| Figure | |\n|---|--:|")?;
        writeln!(out, "| acknowledged operations | {} |", self.acknowledged)?;
        writeln!(out, "| of these writes | {} |", self.acknowledged_writes)?;
        writeln!(out, "| rejected, certainly not done | {} |", self.rejected)?;
        writeln!(out, "| unknown | {} |", self.unknown)?;
        writeln!(out, "| seconds | {} |", self.seconds)?;
        writeln!(out, "| faults | {faults} of {} kinds |", self.faults.len())?;
        for finding in Finding::ALL {
            writeln!(out, "| **{}** | **{}** |", finding.words(), self.findings.count(finding))?;
        }
        writeln!(out, "| answers checked | {} |", self.findings.looks)?;
        writeln!(out, "| old answers across a cut | {} |", self.findings.excused)?;
        if let Some((name, kind)) = longest {
            writeln!(out, "| longest stall of a client, ms | {} ({name}) |", kind.longest_stall_us / 1_000)?;
        }
        writeln!(out, "| longest stall without a fault, ms | {} |", self.undisturbed_stall_us / 1_000)?;
        if let Some(equal_after) = self.equal_after {
            writeln!(out, "| time to equal digests once clients ended, ms | {} |", equal_after.as_millis())?;
        }
        Ok(())
    }
}

/// For each client the times between two things that worked.
fn stalls(history: &History) -> Vec<(u64, u64)> {
    let mut last_us: BTreeMap<usize, u64> = BTreeMap::new();
    let mut stalls = Vec::new();
    let at_rest_us = history.at_rest_us.unwrap_or(u64::MAX);
    for operation in history.operations.iter().filter(|operation| operation.start_us < at_rest_us) {
        if operation.outcome.is_answer()
            && let Some(last_us) = last_us.insert(operation.client, operation.end_us)
        {
            stalls.push((last_us, operation.end_us));
        }
    }
    stalls
}

fn is_write(action: &Action) -> bool {
    match action {
        Action::SignIn { .. }
        | Action::Rewrite { .. }
        | Action::Touch { .. }
        | Action::SignOut { .. }
        | Action::SignOutEverywhere { .. }
        | Action::WritePair { .. }
        | Action::CachePut { .. }
        | Action::CacheDelete { .. } => true,
        Action::Read { .. } | Action::List { .. } | Action::ReadPair { .. } | Action::CacheRead { .. } => {
            false
        }
    }
}

const INTRODUCTION: &str = "\
# Chaos

Written by the command below. Real nodes, each in a network namespace, with clients that go to any node and try elsewhere what fails.
They sign in, read with touch, rewrite, write pairs of keys in batches, list, sign out and sign out everywhere; some sessions are
left to expire; a cache table is written, deleted and written again. Every request and what came of it (done, certainly not done,
unknown) is recorded, and the record is checked afterwards: each key is a register, a delete of a session is final, a pair is
written whole, nothing is read after its deadline nor missing before it. At the end, with all nodes equal, everything is read
once more from each: an old value there is a lost write.

Not counted, because not promised: what a node does not show of a write that was acknowledged on the other side of a cut, until
the cut is healed and the nodes call each other live again. The table says how often that was seen.

A stall is the time between two things that worked for one client, retries and all. With all nodes killed at once it is the time
of a restart.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Seen;

    #[test]
    fn a_stall_counts_for_the_fault_it_falls_into() {
        let read = |client, start_us, end_us, outcome| Operation {
            client,
            node: 0,
            start_us,
            end_us,
            action: Action::Read { session: 1 },
            outcome,
        };
        let saw = || Outcome::Saw(Seen::Value(None));
        let disturbance = Disturbance {
            fault: "kill-one".to_owned(),
            start_us: 100_000,
            undone_us: 200_000,
            whole_us: 260_000,
            cut: vec![],
            wrong_clock: None,
        };
        let history = History {
            operations: vec![
                read(0, 0, 10_000, saw()),
                read(1, 0, 5_000, saw()),
                read(0, 20_000, 50_000, saw()),
                read(0, 110_000, 120_000, Outcome::Unknown),
                read(0, 120_000, 150_000, saw()),
            ],
            disturbances: vec![disturbance],
            at_rest_us: None,
        };
        let report = Report::of(&history, Findings::default());
        assert_eq!((report.acknowledged, report.unknown), (4, 1));
        assert_eq!(report.undisturbed_stall_us, 40_000);
        let kind = &report.faults["kill-one"];
        assert_eq!((kind.count, kind.longest_stall_us, kind.longest_to_whole_us), (1, 100_000, 60_000));
        let document = report.document("chaos run");
        assert!(document.contains("| kill-one | 1 | 100 | 60 |"), "{document}");
    }
}
