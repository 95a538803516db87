//! The page: made from the figures of a run and nothing else.

mod ceiling;
mod group;
#[cfg(test)]
pub(crate) mod imaginary;
mod plot;
mod table;
mod target;

use std::fmt::Write as _;
use std::path::Path;

pub(crate) use self::group::Group;
use crate::figures::{CellPart, Results};
use crate::system::System;
use crate::workload::{Operation, VALUE_BYTES};

/// Writes `benchmarks.md` and its plots.
pub(crate) fn write(results: &Results, docs: &Path) -> anyhow::Result<()> {
    plot::write_all(results, &docs.join("benchmarks"))?;
    std::fs::write(docs.join("benchmarks.md"), page(results))?;
    Ok(())
}

fn page(results: &Results) -> String {
    let mut page = String::from("# Benchmarks\n\n");
    page.push_str("Written by `bench/run all` from [benchmarks/figures.json](benchmarks/figures.json); ");
    page.push_str("[bench/README.md](../bench/README.md) says how it measures.\n\n");
    if results.settings.quick {
        page.push_str("**A quick run: too short for figures that mean anything.**\n\n");
    }
    conditions(results, &mut page);
    page.push_str("\n## Targets\n\n");
    page.push_str(&target::table(results));
    let mut section = |title: &str, text: &str, plots: &[&str], body: String| {
        if body.is_empty() {
            return;
        }
        write!(page, "\n## {title}\n\n{text}\n\n{body}").expect("a string takes everything");
        for plot in plots {
            writeln!(page, "\n![{title}](benchmarks/{plot}.svg)").expect("a string takes everything");
        }
    };
    let explained = "Operations a second: the median of the rounds, in brackets the least and the most. Latency in milliseconds and \
        processor time in microseconds an operation: medians. Servers and clients share the cores.";
    for (operation, title, plots) in [
        (Operation::Write, "Acknowledged writes", &[plot::WRITES, plot::WRITES_CPU, plot::CLIENTS][..]),
        (Operation::Read, "Reads", &[plot::READS]),
        (Operation::Mix, "Nine reads for each write", &[]),
    ] {
        let note = match operation {
            Operation::Write => "",
            Operation::Read => {
                " Mnesia's clients are processes of its node: they read its memory and send nothing."
            }
            Operation::Mix => " The latency is that of the writes.",
        };
        section(title, &format!("{explained}{note}"), plots, table::matrix(results, operation));
    }
    section(
        "Latency at a fixed rate",
        "Writes in an open loop of 128 clients, timed from when each was due: first rates common to all, then four fifths of what the \
        system took from 32 clients in a closed loop. Milliseconds.",
        &[plot::LATENCY],
        table::open(results),
    );
    section(
        "Batches, pipelines, streams",
        "32 clients; an operation is a record. Batches of 32: one request of Mneme's batch interface, one transaction of etcd and Mnesia, \
        32 SET with one WAIT of Redis. \
        Pipelined: 32 requests sent together on a connection, each answered when it is done; a write of Redis is SET and WAIT.",
        &[],
        table::groups(results),
    );
    section(
        "The ceiling of HTTP",
        "Reads of one node, in turns with a bare hyper server and nginx that answer the same bytes.",
        &[plot::HTTP],
        table::beside(results, CellPart::Http, System::Hyper),
    );
    section(
        "The ceiling of the disk",
        "Frames appended to a SQLite file with a node's settings and nothing around it, one commit after the other.",
        &[],
        table::frames(results),
    );
    section(
        "The ceiling of a write",
        "Writes to three nodes, in turns with three bare replicas: hyper servers that send the bytes of each request to the others \
        over a socket, append them to a SQLite file, and answer when they are in their own and in one other. Threads, group commit and \
        settings of the file are a node's. They have no keys, versions, expiry or reads, merge nothing, check nothing, and lose track \
        when anything goes wrong: whatever is built in this way takes more.",
        &[],
        table::beside(results, CellPart::Replicas, System::BareReplicas),
    );
    section(
        "What a write is made of",
        "The processor time of a write, from the measurements in turns with bare replicas and from the ceilings of HTTP and of the \
        disk. A commit, its acknowledgements and the threads that they wake cost about the same whatever is in it; 32 clients can put \
        32 writes into one, 128 clients more, and a batch spares its records their requests too.",
        &[],
        ceiling::of_a_write(results),
    );
    section("More nodes", "32 clients; fsync.", &[plot::NODES], table::cells(results, CellPart::Nodes));
    section(
        "More records",
        "Writes of 32 clients to three nodes, in turns with three others that hold 10,000 records.",
        &[plot::GROWTH],
        table::growth(results),
    );
    section(
        "A large node",
        "One node, batches of 500 of four clients. Restarts and joins are medians of as many turns as there are rounds.",
        &[],
        table::large(results),
    );
    section(
        "Expiry",
        "Reads of other records, in an open loop, timed from when each was due.",
        &[],
        table::expiry(results),
    );
    page
}

/// Where and how it ran.
fn conditions(results: &Results, page: &mut String) {
    let (machine, settings) = (&results.machine, &results.settings);
    let mut line = |line: String| {
        page.push_str(&line);
        page.push('\n');
    };
    line(format!(
        "- Machine: {} cores ({}), {} GiB, Linux {}, temporary files on {}; all processes on it, over loopback.",
        machine.cores, machine.processor, machine.memory_gib, machine.kernel, machine.file_system
    ));
    line(format!("- Versions: {}.", machine.versions.join("; ")));
    line(format!(
        "- Values of {VALUE_BYTES} bytes, keys of 37, {} of them filled before, drawn at random; three nodes unless said otherwise.",
        table::thousands(crate::workload::KEYS)
    ));
    line(format!(
        "- {} in which each system is started fresh; a measurement takes {} s after {} s of warming up. The run took {} min.",
        if settings.rounds == 1 { "One round".to_owned() } else { format!("{} rounds", settings.rounds) },
        settings.cell_seconds,
        settings.warm_seconds,
        (settings.run_seconds / 60.0).ceil()
    ));
    let busy = results.cells.iter().map(|cell| cell.measured.other_cores);
    if let Some(median) = crate::parts::median(busy) {
        line(format!(
            "- Cores busy with anything else, the kernel's own threads included: {median:.2} in the median measurement."
        ));
    }
    let failed: u64 = results.cells.iter().map(|cell| cell.measured.failed).sum();
    line(format!("- Requests that failed, of all systems: {failed}."));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_every_section_and_every_plot_that_it_shows() {
        let (results, docs) = (imaginary::results(), tempfile::tempdir().expect("a directory"));
        std::fs::create_dir(docs.path().join("benchmarks")).expect("a directory");
        write(&results, docs.path()).expect("a page");
        let page = std::fs::read_to_string(docs.path().join("benchmarks.md")).expect("the page");
        for title in
            ["Targets", "Acknowledged writes", "Reads", "Latency at a fixed rate", "Expiry", "More records"]
        {
            assert!(page.contains(&format!("## {title}\n")), "{title} is missing in\n{page}");
        }
        let shown: Vec<&str> =
            page.split("](benchmarks/").skip(1).filter_map(|rest| rest.split(')').next()).collect();
        assert!(shown.iter().any(|file| file.ends_with(".svg")));
        for file in shown.iter().filter(|file| file.ends_with(".svg")) {
            let plot = std::fs::read_to_string(docs.path().join("benchmarks").join(file));
            assert!(plot.expect("a plot").contains("</svg>"), "{file}");
        }
        assert!(!page.contains("NaN"), "{page}");
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let page = page(&Results::default());
        assert!(!page.contains("## Expiry"), "{page}");
        assert!(page.contains("not measured"), "{page}");
    }
}
