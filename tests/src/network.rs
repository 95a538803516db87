//! A network of its own for every node, so that it can be cut.
//!
//! Each node gets a network namespace with one cable (a veth pair) to a bridge, on which this host has an address too:
//! clients of the suites always reach every node. A cut is made at the sender: its table of neighbours gets an entry
//! that cannot be learned over, which leads to nobody. So packets vanish without an error, as they do when a switch
//! dies, each direction by itself, and neither a packet filter nor a second network is needed.
//!
//! Only root can do this, with `ip` of iproute2. Names carry the process id, and what a killed run left behind is
//! removed by the next one.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::binary;
use crate::node::NodeSpec;

/// Start of the names of namespaces. With a process id and two numbers it stays within the 15 bytes of a device name.
const PREFIX: &str = "mnm";

/// An address of the network card of nobody.
const NOBODY: &str = "02:00:00:00:00:00";

/// Namespaces on one bridge. Dropping it removes all of them.
#[derive(Debug)]
pub struct Network {
    tag: String,
    nodes: usize,
    subnet: u8,
}

impl Network {
    /// A network of that many nodes, all connected.
    ///
    /// # Panics
    ///
    /// When this is not root, or `ip` is missing or refuses.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        assert!(rustix::process::geteuid().is_root(), "network namespaces need root: run this suite as root");
        remove_left_behind();
        static NETWORKS: AtomicU32 = AtomicU32::new(0);
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let subnet = u8::try_from((process + number) % 250).expect("less than 250");
        let network = Self { tag: format!("{PREFIX}{process}x{number}"), nodes, subnet };
        ip(&["link", "add", &network.tag, "type", "bridge", "forward_delay", "0"]);
        ip(&["address", "add", &format!("198.18.{subnet}.254/24"), "dev", &network.tag]);
        ip(&["link", "set", &network.tag, "up"]);
        for node in 0..nodes {
            network.add_node(node);
        }
        network
    }

    fn add_node(&self, node: usize) {
        let (space, cable) = (self.space(node), self.cable(node));
        ip(&["netns", "add", &space]);
        ip(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &space]);
        ip(&["link", "set", &cable, "master", &self.tag, "up"]);
        ip(&["-n", &space, "address", "add", &format!("{}/24", self.address(node)), "dev", "eth0"]);
        ip(&["-n", &space, "link", "set", "lo", "up"]);
        ip(&["-n", &space, "link", "set", "eth0", "up"]);
    }

    /// A node of this network.
    #[must_use]
    pub fn node(&self, node: usize) -> NodeSpec {
        let mut spec = NodeSpec::at(&format!("node-{node}"), self.address(node).into());
        let ip = binary::required("ip");
        spec.through = vec![ip.into(), "netns".into(), "exec".into(), self.space(node).into()];
        spec
    }

    /// The address of a node.
    ///
    /// # Panics
    ///
    /// When there are over 250 nodes.
    #[must_use]
    pub fn address(&self, node: usize) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.subnet, u8::try_from(node + 1).expect("a small network"))
    }

    /// Drops every packet from one node to another; the other direction stays.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        let address = self.address(to).to_string();
        let space = self.space(from);
        ip(&[
            "-n",
            &space,
            "neigh",
            "replace",
            &address,
            "lladdr",
            NOBODY,
            "dev",
            "eth0",
            "nud",
            "permanent",
        ]);
    }

    /// Drops every packet between two nodes.
    pub fn cut(&self, one: usize, other: usize) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Cuts each node of `left` from each of `right`.
    pub fn split(&self, left: &[usize], right: &[usize]) {
        for one in left {
            for other in right {
                self.cut(*one, *other);
            }
        }
    }

    /// Mends every cut.
    pub fn heal(&self) {
        for node in 0..self.nodes {
            ip(&["-n", &self.space(node), "neigh", "flush", "dev", "eth0", "nud", "permanent"]);
        }
    }

    fn space(&self, node: usize) -> String {
        format!("{}-{node}", self.tag)
    }

    fn cable(&self, node: usize) -> String {
        format!("{}v{node}", self.tag)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // A cable goes with its namespace. Nothing here may panic: this also runs while a test fails.
        for node in 0..self.nodes {
            let _ = try_ip(&["link", "delete", &self.cable(node)]);
            let _ = try_ip(&["netns", "delete", &self.space(node)]);
        }
        let _ = try_ip(&["link", "delete", &self.tag]);
    }
}

/// Removes the networks of runs that were killed before they could.
fn remove_left_behind() {
    let owner = |name: &str| -> Option<u32> { name.strip_prefix(PREFIX)?.split('x').next()?.parse().ok() };
    let dead =
        |name: &str| owner(name).is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists());
    for (directory, command) in [("/run/netns", "netns"), ("/sys/class/net", "link")] {
        let names = std::fs::read_dir(directory).into_iter().flatten().flatten();
        for name in names.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| dead(name)) {
            let _ = try_ip(&[command, "delete", &name]);
        }
    }
}

fn ip(arguments: &[&str]) {
    if let Err(reason) = try_ip(arguments) {
        panic!("`ip {}` failed: {reason}", arguments.join(" "));
    }
}

fn try_ip(arguments: &[&str]) -> Result<(), String> {
    let output =
        Command::new(binary::required("ip")).args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
