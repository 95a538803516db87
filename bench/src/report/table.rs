//! Tables in Markdown. A table without rows is no text at all.

use super::Group;
use crate::figures::{CellPart, ExpiryTurn, Percentiles, Results};
use crate::parts::median;
use crate::system::System;
use crate::workload::Operation;

/// Rows under a head; nothing when there is none.
pub(super) fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text
}

/// A whole number with commas.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Operations a second.
fn rate(per_second: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is positive and below 2^64"
    )]
    thousands(per_second.round() as u64)
}

/// Microseconds as milliseconds, three digits that matter.
fn ms(us: f64) -> String {
    significant(us / 1_000.0)
}

/// Three digits that matter.
pub(super) fn significant(number: f64) -> String {
    match number {
        100.0.. => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        0.1.. => format!("{number:.2}"),
        _ => format!("{number:.4}"),
    }
}

/// A record of a group: rate with its range, latencies, processor times, what failed.
fn measured(group: &Group<'_>) -> Vec<String> {
    let (least, most) = group.range();
    let median = rate(group.median(|measured| measured.per_second));
    let client = group.median(|measured| measured.client_cpu_us);
    vec![
        if least < most { format!("{median} ({} to {})", rate(least), rate(most)) } else { median },
        ms(group.latency(|latency| latency.p50_us)),
        ms(group.latency(|latency| latency.p99_us)),
        ms(group.latency(|latency| latency.p999_us)),
        significant(group.median(|measured| measured.servers_cpu_us)),
        if client > 0.0 { significant(client) } else { "in the server".to_owned() },
    ]
}

const MEASURED: [&str; 6] = ["a second", "p50", "p99", "p99.9", "CPU of servers", "of clients"];

fn head(first: &[&'static str]) -> Vec<&'static str> {
    first.iter().copied().chain(MEASURED).collect()
}

pub(super) fn matrix(results: &Results, operation: Operation) -> String {
    let mut groups = Group::all(results, CellPart::Matrix);
    groups.retain(|group| group.cell().operation == operation);
    groups.sort_by_key(|group| (group.cell().clients, place(group.cell().system)));
    let is_write = operation == Operation::Write;
    let rows = groups.iter().map(|group| {
        let cell = group.cell();
        let mut row = vec![cell.clients.to_string(), cell.system.label().to_owned()];
        row.extend(is_write.then(|| cell.system.acknowledged().to_owned()));
        row.extend(measured(group));
        row
    });
    let first: &[&str] =
        if is_write { &["clients", "system", "acknowledged when in"] } else { &["clients", "system"] };
    table(&head(first), rows.collect())
}

/// Place of a system in tables: its place in the list of values.
fn place(system: System) -> Option<usize> {
    use clap::ValueEnum;
    System::value_variants().iter().position(|other| *other == system)
}

pub(super) fn open(results: &Results) -> String {
    let mut groups = Group::all(results, CellPart::Open);
    // The rate that is a share of the system's own is the last of its three.
    let common = |rate: Option<u32>| groups.iter().filter(|group| group.cell().rate == rate).count() > 1;
    let order: Vec<(bool, Option<u32>)> =
        groups.iter().map(|group| (!common(group.cell().rate), group.cell().rate)).collect();
    let mut ordered: Vec<_> = order.into_iter().zip(groups.drain(..)).collect();
    ordered.sort_by_key(|((is_own, rate), group)| {
        (*is_own, if *is_own { None } else { *rate }, place(group.cell().system))
    });
    let rows = ordered.iter().map(|(_, group)| {
        let cell = group.cell();
        vec![
            thousands(cell.rate.unwrap_or(0).into()),
            cell.system.label().to_owned(),
            ms(group.latency(|latency| latency.p50_us)),
            ms(group.latency(|latency| latency.p90_us)),
            ms(group.latency(|latency| latency.p99_us)),
            ms(group.latency(|latency| latency.p999_us)),
            ms(group.latency(|latency| latency.max_us)),
            thousands(cell.measured.unanswered),
        ]
    });
    table(
        &["writes due a second", "system", "p50", "p90", "p99", "p99.9", "longest", "unanswered"],
        rows.collect(),
    )
}

pub(super) fn groups(results: &Results) -> String {
    let mut groups = Group::all(results, CellPart::Groups);
    groups.sort_by_key(|group| (group.cell().shape.word(), place(group.cell().system)));
    let rows = groups.iter().map(|group| {
        let cell = group.cell();
        let what = format!("{}, {}", cell.operation.word(), cell.shape.word());
        [vec![what, cell.system.label().to_owned()], measured(group)].concat()
    });
    table(&head(&["operation", "system"]), rows.collect())
}

/// A part in which Mneme is measured in turns with something bare.
pub(super) fn beside(results: &Results, part: CellPart, bare: System) -> String {
    let groups = Group::all(results, part);
    let rows = groups.iter().map(|group| {
        let cell = group.cell();
        let bare = Group::find(results, part, (bare, cell.operation, cell.shape, cell.clients));
        let beside = bare
            .and_then(|bare| group.rate_beside(&bare))
            .map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let system = match (cell.system, cell.nodes) {
            (System::MnemeFsync, 1) => "Mneme, one node",
            (system, _) => system.label(),
        };
        let first = vec![cell.clients.to_string(), cell.shape.word().to_owned(), system.to_owned(), beside];
        [first, measured(group)].concat()
    });
    let beside = match bare {
        System::BareReplicas => "rate beside bare replicas",
        _ => "rate beside bare hyper",
    };
    table(&head(&["clients", "requests", "server", beside]), rows.collect())
}

/// A part in which only Mneme is measured.
pub(super) fn cells(results: &Results, part: CellPart) -> String {
    let groups = Group::all(results, part);
    let rows = groups.iter().map(|group| {
        let cell = group.cell();
        [vec![cell.nodes.to_string(), cell.operation.word().to_owned()], measured(group)].concat()
    });
    table(&head(&["nodes", "operation"]), rows.collect())
}

pub(super) fn frames(results: &Results) -> String {
    let mut kinds: Vec<(bool, usize)> = Vec::new();
    for frames in &results.frames {
        let kind = (frames.is_synced, frames.records_per_commit);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let rows = kinds.iter().map(|kind| {
        let same =
            || results.frames.iter().filter(|frames| (frames.is_synced, frames.records_per_commit) == *kind);
        let median = |values: Vec<f64>| crate::parts::median(values).unwrap_or(0.0);
        vec![
            if kind.0 { "fsync" } else { "commit" }.to_owned(),
            kind.1.to_string(),
            rate(median(same().map(|frames| frames.records_per_second).collect())),
            significant(median(same().map(|frames| frames.cpu_us_per_record).collect())),
            ms(median(same().map(|frames| frames.commit.p50_us).collect())),
            ms(median(same().map(|frames| frames.commit.p99_us).collect())),
        ]
    });
    let head =
        ["durability", "records a commit", "records a second", "CPU a record", "commit p50", "commit p99"];
    table(&head, rows.collect())
}

pub(super) fn growth(results: &Results) -> String {
    let rows = results.growth.iter().map(|growth| {
        vec![
            thousands(growth.records),
            rate(growth.per_second),
            significant(growth.servers_cpu_us),
            format!("{:.2}", growth.cpu_beside_small),
        ]
    });
    table(
        &["records", "writes a second", "CPU of servers a write", "beside the small cluster"],
        rows.collect(),
    )
}

pub(super) fn large(results: &Results) -> String {
    let Some(large) = &results.large else { return String::new() };
    let rewritten = &large.rewritten;
    let mib = |bytes: u64| format!("{} MiB", significant(bytes as f64 / f64::from(1 << 20)));
    let rows = [
        ("records", thousands(large.records)),
        ("written in", format!("{} s", significant(large.fill_seconds))),
        ("memory a record", format!("{:.0} B", large.memory_bytes_per_record)),
        (
            "of it beyond key and value",
            format!("{:.0} B", large.memory_bytes_per_record_beyond_key_and_value),
        ),
        ("memory a record after a restart", format!("{:.0} B", large.memory_bytes_per_record_after_restart)),
        ("ready after a kill", format!("{} s", significant(large.restart_ready_seconds))),
        (
            "an empty second node ready",
            format!(
                "{} s, with {}",
                significant(large.empty_node_ready_seconds),
                thousands(large.empty_node_records)
            ),
        ),
        (
            "the same beside 1,000 writes a second",
            format!("{} s", significant(large.empty_node_ready_seconds_beside_writes)),
        ),
        (
            "those writes: p50, p99, longest",
            format!(
                "{} ms, {} ms, {} ms",
                ms(large.writes_beside_a_join.p50_us),
                ms(large.writes_beside_a_join.p99_us),
                ms(large.writes_beside_a_join.max_us)
            ),
        ),
        ("tombstones of another node", thousands(large.tombstones)),
        ("memory a tombstone", format!("{:.0} B", large.memory_bytes_per_tombstone)),
        (
            "file while records were rewritten, at most",
            format!(
                "{}, {} live, {} writes to {} records",
                mib(rewritten.file_bytes_max),
                mib(rewritten.live_bytes),
                thousands(rewritten.writes),
                thousands(rewritten.records)
            ),
        ),
    ];
    table(&["figure", "measured"], rows.map(|(figure, value)| vec![figure.to_owned(), value]).into())
}

pub(super) fn expiry(results: &Results) -> String {
    let Some(expiry) = &results.expiry else { return String::new() };
    let rows = |(number, turn): (usize, &ExpiryTurn)| {
        let row = |when: &str, reads: &Percentiles| {
            let figures = [reads.p50_us, reads.p99_us, reads.p999_us, reads.max_us].map(ms);
            let beside = turn.beside_quiet(reads).map(|ratio| format!("{ratio:.2}"));
            let beside = beside.unwrap_or_default();
            [vec![(number + 1).to_string(), when.to_owned()], figures.to_vec(), vec![beside]].concat()
        };
        [
            row("before", &turn.quiet),
            row("from the deadline on, until none of them is counted", &turn.expiring),
            row("a minute later, while they are dropped", &turn.dropping),
        ]
    };
    let rows = expiry.turns.iter().enumerate().flat_map(rows).collect();
    let latencies = table(&["turn", "reads", "p50", "p99", "p99.9", "longest", "p99 beside before"], rows);
    let gone_seconds = median(expiry.turns.iter().map(|turn| turn.gone_seconds)).unwrap_or(0.0);
    format!(
        "{latencies}\n{} records, {} reads a second. {gone_seconds:.1} s after the deadline (the median) the node counted none of \
         them any more; of 1,000 that were read after it {} were found. Of the reads above {} failed.\n",
        thousands(expiry.records),
        thousands(expiry.reads_per_second.into()),
        expiry.turns.iter().map(|turn| turn.read_after_deadline).sum::<u64>(),
        expiry.turns.iter().map(|turn| turn.failed).sum::<u64>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(123_456), "123,456");
        assert_eq!([123.4, 12.34, 1.234, 0.01].map(significant), ["123", "12.3", "1.23", "0.0100"]);
    }

    #[test]
    fn a_table_without_rows_is_nothing() {
        assert_eq!(table(&["a"], Vec::new()), "");
        assert_eq!(
            table(&["a", "b"], vec![vec!["1".to_owned(), "2".to_owned()]]),
            "| a | b |\n|---|---|\n| 1 | 2 |\n"
        );
    }
}
