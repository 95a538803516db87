//! Several nodes that know each other.

use std::ffi::OsString;
use std::ops::{Index, IndexMut};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::node::{Node, NodeSpec};

/// Nodes with a directory for their data and logs, which goes with them.
#[derive(Debug)]
pub struct Cluster {
    // Before the directory: the processes end first.
    nodes: Vec<Node>,
    directory: TempDir,
}

impl Default for Cluster {
    fn default() -> Self {
        Self::empty()
    }
}

impl Cluster {
    /// No node yet.
    ///
    /// # Panics
    ///
    /// When there is no place for temporary files.
    #[must_use]
    pub fn empty() -> Self {
        let directory =
            tempfile::Builder::new().prefix("mneme-cluster-").tempdir().expect("a temporary directory");
        Self { nodes: Vec::new(), directory }
    }

    /// That many nodes, ready, each told of all.
    pub async fn start(count: usize) -> Self {
        Self::start_with(count, &[]).await
    }

    /// As [`Cluster::start`], each node with these further flags.
    pub async fn start_with(count: usize, flags: &[&str]) -> Self {
        let names = (0..count).map(|number| NodeSpec::new(&format!("node-{number}")));
        let mut cluster = Self::connected(names, flags);
        cluster.start_all().await;
        cluster
    }

    /// Nodes that are each told of all (itself too, as one list for every machine is how people write it), not
    /// started.
    pub fn connected(specs: impl IntoIterator<Item = NodeSpec>, flags: &[&str]) -> Self {
        let mut cluster = Self::empty();
        let specs: Vec<NodeSpec> = specs.into_iter().collect();
        let peers: Vec<_> = specs.iter().map(|spec| spec.peer).collect();
        for mut spec in specs {
            spec.flags.extend(flags.iter().map(OsString::from));
            cluster.add(spec.peers(peers.iter().copied()));
        }
        cluster
    }

    /// Starts every node that does not run, all at once, and waits until all are ready and call all others live.
    pub async fn start_all(&mut self) {
        for node in &mut self.nodes {
            if !node.is_started() {
                node.start();
            }
        }
        self.wait_whole().await;
    }

    /// Waits until all are ready and each calls all others live.
    pub async fn wait_whole(&mut self) {
        let others = self.nodes.len() - 1;
        for node in &mut self.nodes {
            node.wait_ready().await;
        }
        for node in &self.nodes {
            node.wait_live_members(others).await;
        }
    }

    /// Adds a node that is not started; gives its index.
    pub fn add(&mut self, spec: NodeSpec) -> usize {
        assert!(self.nodes.iter().all(|node| node.spec.name != spec.name), "two nodes called {}", spec.name);
        self.nodes.push(Node::new(spec, self.directory.path()));
        self.nodes.len() - 1
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All nodes, to be changed.
    pub fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// The directory of this cluster's files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file into the directory of this cluster and gives its path.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn write_file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content)
            .unwrap_or_else(|error| panic!("failed to write {}: {error}", path.display()));
        path
    }
}

impl Index<usize> for Cluster {
    type Output = Node;

    fn index(&self, index: usize) -> &Node {
        &self.nodes[index]
    }
}

impl IndexMut<usize> for Cluster {
    fn index_mut(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }
}
