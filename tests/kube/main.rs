//! The suite on a real Kubernetes: install, scale, roll, lose a pod, cut a node.
//!
//! One suite for any cluster: it takes a kubeconfig and a provider, a program that can do things to the machines of the
//! cluster (`provider`). `tests/run kube` makes a cluster with kind and runs it there.
//!
//! Scenarios that keep to a namespace run side by side; those that touch what all share (a node, the operator, the API
//! server) run alone afterwards. It has a runner of its own for that, which prints what libtest prints:
//!
//! ```text
//! cargo test -p mneme-tests --test kube [-- [--list] [PART OF A NAME]...]
//! ```

mod api;
mod clients;
mod provider;
mod scenarios;
mod space;
mod suite;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use crate::scenarios::Scenario;
use crate::suite::Suite;

/// Scenarios that run side by side: most of their time they wait for controllers.
const AT_ONCE: usize = 4;

#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let is_chosen =
        |scenario: &Scenario| names.is_empty() || names.iter().any(|name| scenario.name.contains(name.as_str()));
    let chosen: Vec<Scenario> = scenarios::all().into_iter().filter(is_chosen).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    println!("running {} tests", chosen.len());
    let started = Instant::now();
    let suite = Arc::new(Suite::set_up().await);
    let (alone, together): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|scenario| scenario.is_alone);
    let mut results = Results::default();
    let mut running = JoinSet::new();
    for scenario in together {
        if running.len() >= AT_ONCE {
            results.take(running.join_next().await);
        }
        running.spawn(run(scenario, suite.clone()));
    }
    while let Some(result) = running.join_next().await {
        results.take(Some(result));
    }
    for scenario in alone {
        let result = tokio::spawn(run(scenario, suite.clone())).await;
        results.take(Some(result));
    }
    results.print(started)
}

/// Runs one scenario; whether it passed.
async fn run(scenario: Scenario, suite: Arc<Suite>) -> (&'static str, bool) {
    let started = Instant::now();
    println!("test {} begins", scenario.name);
    let has_passed = tokio::spawn((scenario.run)(suite)).await.is_ok();
    let word = if has_passed { "ok" } else { "FAILED" };
    println!("test {} ... {word} ({:.1} s)", scenario.name, started.elapsed().as_secs_f32());
    (scenario.name, has_passed)
}

#[derive(Default)]
struct Results {
    passed: usize,
    failed: Vec<&'static str>,
}

impl Results {
    fn take(&mut self, result: Option<Result<(&'static str, bool), tokio::task::JoinError>>) {
        match result {
            Some(Ok((_, true))) => self.passed += 1,
            Some(Ok((name, false))) => self.failed.push(name),
            Some(Err(error)) => panic!("the runner itself failed: {error}"),
            None => {}
        }
    }

    fn print(&self, started: Instant) -> ExitCode {
        if !self.failed.is_empty() {
            println!("\nfailures:\n    {}", self.failed.join("\n    "));
        }
        println!(
            "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s",
            if self.failed.is_empty() { "ok" } else { "FAILED" },
            self.passed,
            self.failed.len(),
            started.elapsed().as_secs_f32()
        );
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
