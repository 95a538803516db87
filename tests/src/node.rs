//! One `mneme-node run` and what can be done to it.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;

use crate::http::{Request, Response};
use crate::process::{Process, read_log};
use crate::wait::{wait_for, wait_until};
use crate::{binary, ports};

/// Longest wait for a node to be ready: the join timeout and a slow machine.
pub const READY_WAIT: Duration = Duration::from_secs(30);

/// How a node is started. The addresses, the data directory and the log are its place; the rest is what it is told.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// `--node-name`, also the name of its log.
    pub name: String,
    /// Where it listens for clients, peers and administrators.
    pub client: SocketAddr,
    /// See `client`.
    pub peer: SocketAddr,
    /// See `client`.
    pub admin: SocketAddr,
    /// One `--peer` each.
    pub peers: Vec<SocketAddr>,
    /// Further flags.
    pub flags: Vec<OsString>,
    /// What the program is started through, e.g. `ip netns exec NAME`.
    pub through: Vec<OsString>,
}

impl NodeSpec {
    /// A node of this name on free ports of 127.0.0.1 that knows no peer.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::at(name, IpAddr::from([127, 0, 0, 1]))
    }

    /// As [`NodeSpec::new`] on free ports of `address`, which need not be an address of this host.
    #[must_use]
    pub fn at(name: &str, address: IpAddr) -> Self {
        // An address of another namespace cannot be bound here; every port is free there anyway.
        let place = || SocketAddr::new(address, ports::free_port(IpAddr::from([127, 0, 0, 1])));
        Self {
            name: name.to_owned(),
            client: place(),
            peer: place(),
            admin: place(),
            peers: Vec::new(),
            flags: Vec::new(),
            through: Vec::new(),
        }
    }

    /// Adds a flag, with its value after `=`.
    #[must_use]
    pub fn flag(mut self, flag: impl Into<OsString>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// Adds peers.
    #[must_use]
    pub fn peers(mut self, peers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.peers.extend(peers);
        self
    }
}

/// A node: its place, its data and, while it runs, its process.
#[derive(Debug)]
pub struct Node {
    /// How it is started next time. Change it while the node is down to move the node.
    pub spec: NodeSpec,
    data: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Node {
    /// A node that is not running, its data directory and log under `directory`.
    #[must_use]
    pub fn new(spec: NodeSpec, directory: &Path) -> Self {
        let data = directory.join(format!("{}-data", spec.name));
        let log = directory.join(format!("{}.log", spec.name));
        Self { spec, data, log, process: None }
    }

    /// Starts the process and does not wait for it.
    ///
    /// # Panics
    ///
    /// When it runs already.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.spec.name);
        let command = self.command();
        self.process = Some(Process::start(&self.spec.name, command, &self.log));
    }

    /// The command line of this node.
    fn command(&self) -> Vec<OsString> {
        let NodeSpec { name, client, peer, admin, peers, flags, through } = &self.spec;
        let mut command = through.clone();
        command.push(binary::mneme_node().into());
        command.push("run".into());
        let mut flag = |flag: &str, value: OsString| command.extend([OsString::from(flag), value]);
        flag("--data-dir", self.data.clone().into());
        flag("--node-name", name.into());
        flag("--client-addr", client.to_string().into());
        flag("--peer-addr", peer.to_string().into());
        flag("--admin-addr", admin.to_string().into());
        for address in peers {
            flag("--peer", address.to_string().into());
        }
        command.extend(flags.iter().cloned());
        command
    }

    /// Starts it and waits until it is ready.
    pub async fn start_ready(&mut self) {
        self.start();
        self.wait_ready().await;
    }

    /// Waits until `/readyz` is 200.
    ///
    /// # Panics
    ///
    /// When the process ends, or is not ready in time.
    pub async fn wait_ready(&mut self) {
        let what = format!("{} is ready", self.spec.name);
        wait_until(READY_WAIT, &what, async || {
            let ended = self.process.as_mut().expect("a started node").ended();
            assert!(ended.is_none(), "{} ended before it was ready: {ended:?}", self.spec.name);
            self.is_ready().await
        })
        .await;
    }

    /// Whether `/readyz` is 200 now.
    pub async fn is_ready(&self) -> bool {
        let answer = self.admin("GET", "/readyz").within(Duration::from_secs(1)).try_send().await;
        answer.is_ok_and(|answer| answer.code() == 200)
    }

    /// Whether a process was started and neither killed nor waited for.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// Whether its process has ended by itself, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(Process::ended)
    }

    /// Its process.
    ///
    /// # Panics
    ///
    /// When it is not running.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process.as_ref().unwrap_or_else(|| panic!("{} is not running", self.spec.name))
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        self.process.take().unwrap_or_else(|| panic!("{} is not running", self.spec.name)).kill();
    }

    /// Stops it where it stands (SIGSTOP).
    pub fn freeze(&self) {
        self.process().freeze();
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        self.process().thaw();
    }

    /// Asks it to end (SIGTERM) and gives its exit code.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    pub async fn terminate(&mut self) -> i32 {
        self.process().ask_to_end();
        self.exit_code().await
    }

    /// Waits for its end and gives its exit code.
    ///
    /// # Panics
    ///
    /// When it does not end in time.
    pub async fn exit_code(&mut self) -> i32 {
        let process = self.process.take().unwrap_or_else(|| panic!("{} is not running", self.spec.name));
        process.exit_code(Duration::from_secs(30)).await
    }

    /// Kills it, starts it again and waits until it is ready.
    pub async fn kill_and_restart(&mut self) {
        self.kill();
        self.start_ready().await;
    }

    /// Removes its data directory: the next start is a new node's.
    ///
    /// # Panics
    ///
    /// When it runs.
    pub fn wipe(&self) {
        self.assert_down("wiped");
        std::fs::remove_dir_all(&self.data).expect("the data directory of a node that ran");
    }

    /// Gives it other ports; its data stays.
    ///
    /// # Panics
    ///
    /// When it runs.
    pub fn move_to_new_address(&mut self) {
        self.assert_down("moved");
        let NodeSpec { client, peer, admin, .. } = NodeSpec::at(&self.spec.name, self.spec.client.ip());
        self.spec = NodeSpec { client, peer, admin, ..self.spec.clone() };
    }

    /// Copies its data directory to that of another node, which must have none yet.
    ///
    /// # Panics
    ///
    /// When either runs or a file cannot be copied.
    pub fn copy_data_to(&self, other: &Self) {
        self.assert_down("copied");
        other.assert_down("overwritten");
        copy_directory(&self.data, &other.data);
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// All it printed, over all its starts.
    #[must_use]
    pub fn output(&self) -> String {
        read_log(&self.log)
    }

    /// A request to its client port.
    pub fn client(&self, method: &str, target: impl Into<String>) -> Request {
        Request::new(self.spec.client, method, target)
    }

    /// A request to its admin port.
    pub fn admin(&self, method: &str, target: impl Into<String>) -> Request {
        Request::new(self.spec.admin, method, target)
    }

    /// What `GET /v1/status` says.
    pub async fn status(&self) -> Value {
        self.client("GET", "/v1/status").send().await.expect(200).json()
    }

    /// Its node id, as its status says it.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub async fn node_id(&self) -> String {
        self.status().await["node"]["id"].as_str().expect("a node id").to_owned()
    }

    /// The members of this state, as its status says it.
    pub async fn members_in_state(&self, state: &str) -> usize {
        let status = self.status().await;
        status["members"]
            .as_array()
            .map_or(0, |all| all.iter().filter(|member| member["state"] == state).count())
    }

    /// Waits until it calls this many others live.
    pub async fn wait_live_members(&self, count: usize) {
        let what = format!("{} calls {count} others live", self.spec.name);
        wait_until(READY_WAIT, &what, async || self.members_in_state("live").await == count).await;
    }

    /// What `GET /metrics` says.
    pub async fn metrics(&self) -> String {
        self.admin("GET", "/metrics").send().await.expect(200).text()
    }

    /// Waits until its log has a line that `matches`, and gives that line.
    pub async fn wait_log_line(&self, what: &str, matches: impl Fn(&str) -> bool) -> String {
        wait_for(READY_WAIT, what, async || {
            self.output().lines().find(|line| matches(line)).map(str::to_owned)
        })
        .await
    }

    /// Sends a request that is expected to be answered, with the answer in any state of the node.
    pub async fn get(&self, target: impl Into<String>) -> Response {
        self.client("GET", target).send().await
    }

    #[track_caller]
    fn assert_down(&self, verb: &str) {
        assert!(self.process.is_none(), "{} runs and cannot be {verb}", self.spec.name);
    }
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap_or_else(|error| panic!("failed to create {}: {error}", to.display()));
    for entry in std::fs::read_dir(from).expect("the data directory of a node that ran") {
        let entry = entry.expect("an entry of a directory");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a file of the data directory");
    }
}
