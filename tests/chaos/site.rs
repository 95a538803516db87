//! The cluster under test: nodes in network namespaces, with bad links, clocks and a volume that can be changed.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use mneme_api::{DigestName, MemberStateName, NodeStateName, StatusBody};
use mneme_tests::binary;
use mneme_tests::network::Network;
use mneme_tests::node::{Node, NodeSpec};
use mneme_tests::process::Process;
use mneme_tests::volume::Volume;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::clients::Shared;
use crate::link::Badness;

/// Longest wait until the cluster is whole again. Past it the run has failed.
const WHOLE_WAIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// Ports in a namespace, where nobody else is.
const CLIENT_PORT: u16 = 7070;
const PEER_PORT: u16 = 7071;
const ADMIN_PORT: u16 = 7072;
/// Where the relay listens, under which peers know a node.
const LINK_PORT: u16 = 7171;

const TABLES: &str = "\
tables:
  - name: sessions
    kind: session
  - name: pairs
    kind: session
  - name: pages
    kind: cache
";

/// The node whose data is on a volume that can be filled. Its directory is not exchanged.
pub(crate) const SMALL_VOLUME: usize = 0;

/// Nodes, and everything around them. There is one place more than nodes, for one that moves or is cloned.
#[derive(Debug)]
pub(crate) struct Site {
    // In the order in which things must go: processes, mounts, network, files.
    nodes: Vec<Node>,
    links: Vec<Process>,
    volume: Volume,
    network: Network,
    /// In which place a node is.
    places: Vec<usize>,
    shared: Option<Arc<Shared>>,
    directory: TempDir,
}

impl Site {
    /// Everything but the processes of the nodes.
    pub(crate) fn new(nodes: usize) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("mneme-chaos-").tempdir()?;
        let shim = directory.path().join("clock.so");
        build_clock(&shim)?;
        let network = Network::new(nodes + 1);
        let mut site = Self {
            nodes: Vec::new(),
            links: Vec::new(),
            volume: Volume::mount(&directory.path().join(format!("node-{SMALL_VOLUME}-data")), "size=4g"),
            network,
            places: (0..nodes).collect(),
            shared: None,
            directory,
        };
        std::fs::write(site.file("tables.yaml"), TABLES)?;
        for place in 0..=nodes {
            Badness::default().write(&site.file(&format!("link-{place}")))?;
            let link = site.start_link(place)?;
            site.links.push(link);
        }
        for node in 0..=nodes {
            // The last is the clock of a clone.
            std::fs::write(site.clock_file(node), 0i64.to_ne_bytes())?;
        }
        for node in 0..nodes {
            let node = Node::new(site.spec(node, node), site.directory.path());
            site.nodes.push(node);
        }
        site.name_peers()?;
        Ok(site)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn clock_file(&self, node: usize) -> PathBuf {
        self.file(&format!("clock-{node}"))
    }

    /// Where logs and data are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Leaves logs and data where they are.
    pub(crate) fn keep_files(&mut self) {
        self.directory.disable_cleanup(true);
    }

    fn start_link(&self, place: usize) -> anyhow::Result<Process> {
        let address = self.network.address(place);
        let mut command = self.network.node(place).through;
        let program = std::env::current_exe().context("the path of this program")?;
        command.extend([program.into(), "link".into()]);
        for (flag, value) in [
            ("--listen", SocketAddr::from((address, LINK_PORT)).to_string()),
            ("--to", SocketAddr::from((address, PEER_PORT)).to_string()),
            ("--badness", self.file(&format!("link-{place}")).display().to_string()),
        ] {
            command.extend([flag.into(), value.into()]);
        }
        Ok(Process::start(&format!("link-{place}"), command, &self.file(&format!("link-{place}.log"))))
    }

    /// How a node is started in a place.
    fn spec(&self, node: usize, place: usize) -> NodeSpec {
        let address = self.network.address(place);
        let at = |port| SocketAddr::from((address, port));
        let mut spec = self.network.node(place);
        spec.name = format!("node-{node}");
        (spec.client, spec.peer, spec.admin) = (at(CLIENT_PORT), at(PEER_PORT), at(ADMIN_PORT));
        let variable = |name: &str, path: PathBuf| {
            let mut text = std::ffi::OsString::from(name);
            text.push("=");
            text.push(path);
            text
        };
        spec.through.extend([
            binary::required("env").into(),
            variable("LD_PRELOAD", self.file("clock.so")),
            variable("CHAOS_CLOCK", self.clock_file(node)),
        ]);
        spec.flag("--no-auth")
            .flag("--advertise")
            .flag(at(LINK_PORT).to_string())
            .flag("--peers-file")
            .flag(self.file("peers"))
            .flag("--config")
            .flag(self.file("tables.yaml"))
    }

    /// Tells the clients whenever a node moves.
    pub(crate) fn tell(&mut self, shared: Arc<Shared>) {
        self.shared = Some(shared);
    }

    /// Where clients reach the nodes.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.spec.client).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    pub(crate) fn volume(&self) -> &Volume {
        &self.volume
    }

    pub(crate) fn node(&mut self, node: usize) -> &mut Node {
        &mut self.nodes[node]
    }

    /// The place of a node, as the network counts them.
    pub(crate) fn place(&self, node: usize) -> usize {
        self.places[node]
    }

    /// The place where nobody is.
    pub(crate) fn free_place(&self) -> usize {
        (0..=self.nodes.len()).find(|place| !self.places.contains(place)).expect("one place more than nodes")
    }

    /// Puts a node that is down into the free place, and tells everybody.
    pub(crate) fn move_node(&mut self, node: usize) -> anyhow::Result<()> {
        let place = self.free_place();
        self.places[node] = place;
        let spec = self.spec(node, place);
        self.nodes[node].spec = spec;
        if let Some(shared) = &self.shared {
            shared.move_node(node, self.nodes[node].spec.client);
        }
        self.name_peers()
    }

    /// A node with the data of one that is down, in the free place.
    pub(crate) fn clone_node(&self, node: usize) -> Node {
        self.copied(node, "clone", self.spec(self.nodes.len(), self.free_place()))
    }

    /// Copies the data of a node that is down to another directory.
    pub(crate) fn copy_data(&self, node: usize) -> Node {
        self.copied(node, "copy", self.nodes[node].spec.clone())
    }

    fn copied(&self, node: usize, name: &str, spec: NodeSpec) -> Node {
        let copy = Node::new(NodeSpec { name: name.to_owned(), ..spec }, self.directory.path());
        self.nodes[node].copy_data_to(&copy);
        copy
    }

    /// The discovery source says where every node is.
    pub(crate) fn name_peers(&self) -> anyhow::Result<()> {
        let lines = self.places.iter().map(|place| format!("{}:{LINK_PORT}\n", self.network.address(*place)));
        self.name(&lines.collect::<String>())
    }

    /// The discovery source says this.
    pub(crate) fn name(&self, text: &str) -> anyhow::Result<()> {
        std::fs::write(self.file("peers"), text).context("failed to write the discovery source")
    }

    /// Somebody sets the clock of a node wrong by so much; 0 is right.
    pub(crate) fn set_clock(&self, node: usize, offset_ms: i64) -> anyhow::Result<()> {
        let file = OpenOptions::new().write(true).open(self.clock_file(node))?;
        file.write_all_at(&(offset_ms * 1_000_000).to_ne_bytes(), 0).context("failed to move a clock")
    }

    /// Makes the link of a node bad, or good again.
    pub(crate) fn set_link(&self, node: usize, badness: Badness) -> anyhow::Result<()> {
        badness.write(&self.file(&format!("link-{}", self.places[node])))
    }

    /// Changes one byte of a file of a node that is down, somewhere beyond `from`. Whether there was one to change.
    pub(crate) fn flip_byte(&self, node: usize, name: &str, from: u64, random: u64) -> anyhow::Result<bool> {
        let path = self.nodes[node].data_dir().join(name);
        let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else { return Ok(false) };
        let length = file.metadata()?.len();
        if length <= from {
            return Ok(false);
        }
        let position = from + random % (length - from);
        let mut byte = [0];
        file.read_exact_at(&mut byte, position)?;
        file.write_all_at(&[byte[0] ^ 0x20], position)?;
        Ok(true)
    }

    /// What a node says of itself, if it answers.
    async fn status(&self, node: usize) -> Option<StatusBody> {
        let request = self.nodes[node].client("GET", "/v1/status").within(Duration::from_secs(2));
        serde_json::from_slice(&request.try_send().await.ok()?.body).ok()
    }

    /// Why the cluster is not whole; `None`: every node is ready and calls all others live.
    async fn missing(&mut self) -> anyhow::Result<Option<String>> {
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            if let Some(ended) = node.ended() {
                bail!("node {index} ended by itself: {ended}");
            }
            if !node.is_ready().await {
                return Ok(Some(format!("node {index} is not ready")));
            }
            let Some(status) = self.status(index).await else {
                return Ok(Some(format!("node {index} tells nothing")));
            };
            let live = status.members.iter().filter(|member| member.state == MemberStateName::Live).count();
            if status.node.state != NodeStateName::Ready || live != self.nodes.len() - 1 {
                return Ok(Some(format!(
                    "node {index} is {:?} and calls {live} others live",
                    status.node.state
                )));
            }
        }
        Ok(None)
    }

    /// Waits until every node is ready and calls all others live.
    pub(crate) async fn wait_whole(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + WHOLE_WAIT;
        while let Some(missing) = self.missing().await? {
            ensure!(Instant::now() < deadline, "not whole after {WHOLE_WAIT:?}: {missing}");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Who lacks something as others see it, or has other data.
    async fn unequal(&self) -> Option<String> {
        let mut unequal = Vec::new();
        for node in 0..self.nodes.len() {
            let Some(status) = self.status(node).await else {
                return Some(format!("node {node} tells nothing"));
            };
            for member in status.members.iter().filter(|member| member.state == MemberStateName::Live) {
                if member.lag_writes > 0 || member.digest != DigestName::Equal {
                    let (name, lag, digest) = (&member.name, member.lag_writes, member.digest);
                    unequal
                        .push(format!("node {node} says that {name} lacks {lag} writes and is {digest:?}"));
                }
            }
        }
        (!unequal.is_empty()).then(|| unequal.join("; "))
    }

    /// Waits until nobody lacks anything and all digests are equal.
    pub(crate) async fn wait_equal(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + WHOLE_WAIT;
        while let Some(unequal) = self.unequal().await {
            ensure!(Instant::now() < deadline, "not equal after {WHOLE_WAIT:?}: {unequal}");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// Builds what moves the clock of a process.
fn build_clock(to: &Path) -> anyhow::Result<()> {
    let source = to.with_extension("c");
    std::fs::write(&source, include_str!("clock.c"))?;
    let status = Command::new(binary::required("cc"))
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"])
        .args([to, &source])
        .status()?;
    ensure!(status.success(), "the C compiler refused the clock");
    Ok(())
}
