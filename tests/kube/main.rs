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

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::scenarios::Scenario;
use crate::suite::Suite;

/// Scenarios that run side by side: most of their time they wait for controllers.
const AT_ONCE: usize = 4;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let is_chosen = |scenario: &Scenario| {
        names.is_empty() || names.iter().any(|name| scenario.name.contains(name.as_str()))
    };
    let chosen: Vec<Scenario> = scenarios::all().into_iter().filter(is_chosen).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    println!("running {} tests", chosen.len());
    let started = Instant::now();
    let suite = runtime().block_on(Suite::set_up());
    let (alone, together): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|scenario| scenario.is_alone);
    let mut results = run_all(&suite, together, AT_ONCE);
    results.extend(run_all(&suite, alone, 1));
    print(&results, started)
}

/// What the future of a scenario runs on: a thread of its own, so that it may hold what cannot be sent to another.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Runs scenarios, some at once; the name of each, and whether it passed.
fn run_all(suite: &Suite, scenarios: Vec<Scenario>, at_once: usize) -> Vec<(&'static str, bool)> {
    let (waiting, results) = (Mutex::new(scenarios.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(scenario) = next else { return };
                    let result = (scenario.name, run(&scenario, suite));
                    results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one scenario; whether it passed. Why it did not stands where it panicked.
fn run(scenario: &Scenario, suite: &Suite) -> bool {
    let started = Instant::now();
    println!("test {} begins", scenario.name);
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| runtime().block_on((scenario.run)(suite))));
    let word = if outcome.is_ok() { "ok" } else { "FAILED" };
    println!("test {} ... {word} ({:.1} s)", scenario.name, started.elapsed().as_secs_f32());
    outcome.is_ok()
}

fn print(results: &[(&'static str, bool)], started: Instant) -> ExitCode {
    let failed: Vec<&str> = results.iter().filter(|(_, passed)| !passed).map(|(name, _)| *name).collect();
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s",
        if failed.is_empty() { "ok" } else { "FAILED" },
        results.len() - failed.len(),
        failed.len(),
        started.elapsed().as_secs_f32()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
