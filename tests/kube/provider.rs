//! What can be done to the machines of a cluster: a program with a few commands, as `kind/cluster` has them.
//!
//! Another cluster takes part with another such program, named by `MNEME_KUBE_PROVIDER`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::api::expect;

/// The program.
#[derive(Debug)]
pub(crate) struct Provider(pub(crate) PathBuf);

impl Provider {
    /// Runs one command of it, which must succeed, and gives what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new(&self.0)
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("failed to run the provider {}: {error}", self.0.display()));
        expect(&format!("provider {}", arguments.join(" ")), &output).trim().to_owned()
    }

    /// Loads images into every node.
    pub(crate) fn load(&self, archives: &[PathBuf]) {
        let archives = archives.iter().map(|archive| archive.to_str().expect("a path in UTF-8"));
        self.run(&std::iter::once("load").chain(archives).collect::<Vec<_>>());
    }

    /// Whether the program is there.
    pub(crate) fn is_there(&self) -> bool {
        Path::new(&self.0).is_file()
    }
}

/// A fault that ends when this is dropped, so that a scenario that fails leaves no node behind that is cut or frozen.
#[derive(Debug)]
pub(crate) struct Fault<'a> {
    provider: &'a Provider,
    end: Vec<String>,
}

impl<'a> Fault<'a> {
    /// Begins a fault by one command and ends it by another.
    pub(crate) fn begin(provider: &'a Provider, begin: &[&str], end: &[&str]) -> Self {
        provider.run(begin);
        Self { provider, end: end.iter().map(|argument| (*argument).to_owned()).collect() }
    }

    /// Cuts a Kubernetes node from the network.
    pub(crate) fn cut(provider: &'a Provider, node: &str) -> Self {
        Self::begin(provider, &["cut", node], &["heal", node])
    }

    /// Freezes the API server.
    pub(crate) fn freeze_api(provider: &'a Provider) -> Self {
        Self::begin(provider, &["freeze-api"], &["thaw-api"])
    }
}

impl Drop for Fault<'_> {
    fn drop(&mut self) {
        // Nothing here may panic: this also runs while a scenario fails.
        if let Err(error) = Command::new(&self.provider.0).args(&self.end).output() {
            eprintln!("failed to end a fault by {:?}: {error}", self.end);
        }
    }
}
