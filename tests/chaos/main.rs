//! Chaos: real nodes, every fault that can be done to them, clients that record what they saw, and a check of the record.
//!
//! ```text
//! cargo build --release --workspace
//! target/release/chaos run --seconds 600 --report docs/chaos.md
//! target/release/chaos check HISTORY
//! ```
//!
//! Needs root (network namespaces, a small volume) and a C compiler (a clock that can be moved). The seed gives the order of
//! faults and what clients do; when what happens is the machine's.

mod checker;
mod clients;
mod fault;
mod history;
mod link;
mod report;
mod site;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Parser, Subcommand};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::checker::Findings;
use self::clients::{Client, Shared};
use self::fault::Fault;
use self::history::{History, Line, Recorder};
use self::link::Link;
use self::report::Report;
use self::site::Site;

/// Time between two faults in which nothing is wrong: what clients see then is no fault's doing.
const SETTLE: Duration = Duration::from_millis(700);

/// Breaks a cluster in every way and checks what its clients saw.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts nodes and clients, disturbs them, and checks the history.
    Run(Run),
    /// Checks a history that a run left.
    Check {
        /// The file.
        history: PathBuf,
    },
    /// Relays the connections of peers to one node; `run` starts these.
    #[command(hide = true)]
    Link(Link),
}

#[derive(Debug, Args)]
struct Run {
    /// How long, at least: until then, and until every fault was done once.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Nodes, three or more.
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    /// Clients, each with one request at a time.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Pause of a client between two things it does, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// What the order of faults and the requests are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these faults.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Where the history is left; else it goes when nothing was found.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Where a report is written, as Markdown.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Clients ask for acknowledgement by one node alone and are promised nothing: to see that this is found.
    #[arg(long)]
    plant_local_acks: bool,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Run(run) => run.go().await,
        Command::Check { history } => {
            let history = History::read(&history)?;
            let report = Report::of(&history, checker::check(&history));
            println!("{report}");
            Ok(exit_code(&report.findings))
        }
        Command::Link(link) => link.run().await.map(|()| ExitCode::SUCCESS),
    }
}

fn exit_code(findings: &Findings) -> ExitCode {
    for finding in findings.described() {
        println!("{finding}");
    }
    if findings.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Run {
    async fn go(self) -> anyhow::Result<ExitCode> {
        ensure!(self.nodes >= 3, "chaos needs three nodes or more: halves, majorities");
        let mut site = Site::new(self.nodes)?;
        let path = match &self.history {
            Some(path) => path.clone(),
            None => site.directory().join("history"),
        };
        let ended = self.disturb(&mut site, &path).await;
        let equal_after = match ended {
            Ok(equal_after) => equal_after,
            Err(error) => {
                site.keep_files();
                println!("{error:#}");
                println!("logs, data and history are in {}", site.directory().display());
                return Ok(ExitCode::FAILURE);
            }
        };
        let history = History::read(&path)?;
        let mut report = Report::of(&history, checker::check(&history));
        report.equal_after = Some(equal_after);
        println!("{report}");
        if !report.findings.is_clean() {
            site.keep_files();
            println!("logs, data and history are in {}", site.directory().display());
        }
        if let Some(file) = &self.report {
            std::fs::write(file, report.document(&self.command()))
                .with_context(|| format!("failed to write {}", file.display()))?;
        }
        Ok(exit_code(&report.findings))
    }

    /// The command that gives such a run.
    fn command(&self) -> String {
        format!(
            "target/release/chaos run --seconds {} --nodes {} --clients {} --pause-ms {} --seed {}",
            self.seconds, self.nodes, self.clients, self.pause_ms, self.seed
        )
    }

    /// The faults of this run in some order.
    fn deck(&self, random: &mut SmallRng) -> Vec<Fault> {
        let mut deck = Fault::deck(random);
        deck.retain(|fault| self.faults.is_empty() || self.faults.contains(fault));
        deck
    }

    /// Everything up to the last read. Gives how long the nodes took to be equal once all was quiet.
    async fn disturb(&self, site: &mut Site, history: &Path) -> anyhow::Result<Duration> {
        let mut random = SmallRng::seed_from_u64(self.seed);
        for node in 0..site.len() {
            site.node(node).start();
        }
        site.wait_whole().await.context("at the start")?;

        let recorder = Recorder::create(history)?;
        let pause = Duration::from_millis(self.pause_ms);
        let shared = Shared::new(recorder, site.addresses(), pause, self.plant_local_acks);
        site.tell(shared.clone());
        let mut clients = JoinSet::new();
        for number in 0..self.clients {
            let client = Client::new(number, shared.clone(), SmallRng::from_rng(&mut random));
            clients.spawn(client.run());
        }

        // The first deck is played whole, of later ones what there is time for.
        let until = Instant::now() + Duration::from_secs(self.seconds);
        let mut deck = self.deck(&mut random);
        let mut left = deck.len();
        while left > 0 || Instant::now() < until {
            if deck.is_empty() {
                deck = self.deck(&mut random);
            }
            let fault = deck.pop().context("no fault to do")?;
            left = left.saturating_sub(1);
            let disturbance = fault::disturb(site, fault, &mut random, &shared.recorder).await?;
            let ms = |from_us: u64, to_us: u64| to_us.saturating_sub(from_us) / 1_000;
            println!(
                "{:>7.1} s  {:<20} {:>5} ms, whole {:>5} ms later",
                disturbance.start_us as f64 / 1e6,
                disturbance.fault,
                ms(disturbance.start_us, disturbance.undone_us),
                ms(disturbance.undone_us, disturbance.whole_us),
            );
            shared.recorder.write(&Line::Fault(disturbance));
            tokio::time::sleep(SETTLE).await;
        }

        shared.end();
        while let Some(ended) = clients.join_next().await {
            ended.context("a client ended")?;
        }
        let quiet = Instant::now();
        site.wait_equal().await?;
        let equal_after = quiet.elapsed();
        shared.recorder.write(&Line::AtRest(shared.recorder.now_us()));
        Client::new(self.clients, shared.clone(), random).audit().await;
        shared.recorder.flush()?;
        let unexpected = shared.unexpected();
        ensure!(unexpected.is_empty(), "answers that nobody should get:\n{}", unexpected.join("\n"));
        Ok(equal_after)
    }
}
