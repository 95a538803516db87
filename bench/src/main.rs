//! Benchmarks of Mneme, side by side with what else keeps sessions on several nodes.
//!
//! ```text
//! bench/run all                                            everything; writes docs/benchmarks.md and docs/benchmarks/
//! bench/run part http large                                some parts; prints their figures as JSON
//! bench/run cell --system mneme-fsync --operation write    one measurement
//! ```
//!
//! Reading order: [`workload`] (what is asked), [`system`] (who is asked), [`connection`] and [`driver`] (how),
//! [`load`] (closed and open loops), [`sample`] (processor time), [`parts`] (what is measured in which order),
//! [`report`] (the page made from the [`figures`]).

mod connection;
mod driver;
mod figures;
mod load;
mod machine;
mod packages;
mod parts;
mod report;
mod sample;
mod system;
mod workload;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tokio::task::LocalSet;

use self::parts::{Part, Session};
use self::system::System;
use self::workload::{KEYS, Operation, Shape, Spec};

// As in a node: the bare server is to differ from it in nothing but what it does.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// `EX_UNAVAILABLE`: something that a run needs is not installed.
const EXIT_UNAVAILABLE: u8 = 69;
/// The figures of a run, in the directory of the page.
const FIGURES: &str = "benchmarks/figures.json";

/// Measures Mneme and others on this machine.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every part and writes the page, its plots and the figures.
    All {
        /// The same steps, too short for figures that mean anything; a check that all of it works.
        #[arg(long)]
        quick: bool,
        /// Rounds in which systems are compared. [default: 3; with --quick 1]
        #[arg(long)]
        rounds: Option<usize>,
        /// Where benchmarks.md goes. [default: docs; with --quick target/bench]
        #[arg(long)]
        docs: Option<PathBuf>,
    },
    /// Runs some parts and prints their figures as JSON.
    Part {
        /// Which, in this order.
        #[arg(required = true)]
        parts: Vec<Part>,
        /// As of `all`.
        #[arg(long)]
        quick: bool,
        /// As of `all`.
        #[arg(long)]
        rounds: Option<usize>,
    },
    /// Makes one measurement and prints it as JSON.
    Cell(CellArguments),
    /// Writes the page and its plots anew from the figures of the last run.
    Report {
        /// Where benchmarks.md is.
        #[arg(long, default_value = "docs")]
        docs: PathBuf,
    },
    /// The bare server of the part `http`.
    #[command(hide = true)]
    Bare { address: SocketAddr },
    /// A server of the part `replicas`: its place among the addresses of all, where it takes clients, its directory.
    #[command(hide = true)]
    BareReplica {
        place: usize,
        client: SocketAddr,
        data: PathBuf,
        #[arg(required = true)]
        links: Vec<SocketAddr>,
    },
}

#[derive(Args)]
struct CellArguments {
    /// What is measured.
    #[arg(long)]
    system: System,
    /// What clients do.
    #[arg(long)]
    operation: Operation,
    /// How records share requests, and requests connections.
    #[arg(long, default_value = "single")]
    shape: Shape,
    /// Nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Clients, each with one request at a time; those of Mneme are spread over the nodes.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Requests a second of an open loop. [default: a closed loop]
    #[arg(long)]
    rate: Option<u32>,
    /// How long, in seconds, after one more to warm up.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Keys, filled before.
    #[arg(long, default_value_t = KEYS)]
    keys: u64,
}

fn main() -> anyhow::Result<ExitCode> {
    let command = Cli::parse().command;
    match command {
        Command::Bare { address } => {
            system::serve_bare(address)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::BareReplica { place, client, data, links } => {
            system::serve_bare_replica(place, client, &data, &links)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    // One thread for all clients: what they cost is theirs, and they take no more than one core.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(command))
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::All { quick, rounds, docs } => {
            let docs = docs.unwrap_or_else(|| if quick { "target/bench".into() } else { "docs".into() });
            all(quick, rounds, &docs).await
        }
        Command::Part { parts, quick, rounds } => {
            if parts.iter().any(|part| part.needs_packages()) && lacks_packages() {
                return Ok(ExitCode::from(EXIT_UNAVAILABLE));
            }
            machine::refuse_memory()?;
            let mut session = Session::new(quick, rounds);
            session.results.machine = machine::machine().await?;
            session.run(&parts).await?;
            print(&session.results)
        }
        Command::Cell(arguments) => {
            machine::refuse_memory()?;
            cell(&arguments).await
        }
        Command::Report { docs } => {
            let figures =
                std::fs::read_to_string(docs.join(FIGURES)).context("no run wrote its figures here")?;
            report::write(&serde_json::from_str(&figures)?, &docs)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Bare { .. } | Command::BareReplica { .. } => {
            unreachable!("served without a runtime of its own")
        }
    }
}

/// Whether something is missing; says what then.
fn lacks_packages() -> bool {
    let missing = packages::missing();
    if let Some(ways) = &missing {
        eprintln!("not everything to compare with is installed: {ways}");
    }
    missing.is_some()
}

async fn all(is_quick: bool, rounds: Option<usize>, docs: &Path) -> anyhow::Result<ExitCode> {
    if lacks_packages() {
        return Ok(ExitCode::from(EXIT_UNAVAILABLE));
    }
    machine::refuse_memory()?;
    std::fs::create_dir_all(docs.join("benchmarks"))?;
    let mut session = Session::new(is_quick, rounds);
    session.results.machine = machine::machine().await?;
    for part in Part::ALL {
        let outcome = session.run(&[part]).await;
        // After each, also one that failed: what was measured is kept.
        let figures = serde_json::to_string_pretty(&session.results)? + "\n";
        std::fs::write(docs.join(FIGURES), figures)?;
        outcome?;
    }
    report::write(&session.results, docs)?;
    eprintln!("wrote {}", docs.join("benchmarks.md").display());
    Ok(ExitCode::SUCCESS)
}

async fn cell(arguments: &CellArguments) -> anyhow::Result<ExitCode> {
    let CellArguments { system, operation, shape, nodes, clients, rate, seconds, keys } = *arguments;
    let (warm, measured) = (Duration::from_secs(1), Duration::from_secs_f64(seconds));
    let mut running = system.start(nodes).await?;
    running.fill(keys).await?;
    let spec = Spec { operation, shape, clients, rate, keys, warm, measured };
    print(&running.measure(&spec).await?)
}

fn print(figures: &impl serde::Serialize) -> anyhow::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(figures)?);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::figures::Results;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn figures_are_read_as_they_were_written() {
        let text = serde_json::to_string(&report::imaginary::results()).expect("figures as JSON");
        let read: Results = serde_json::from_str(&text).expect("figures from JSON");
        assert_eq!(serde_json::to_string(&read).expect("figures as JSON"), text);
    }
}
