//! The peers: links to them, and where they are found.
//!
//! Identity comes from the handshake, an address is only a hint. Between two processes there is one link of three
//! connections (`link`), whoever dialled.

mod accept;
mod dial;
pub mod discovery;
#[doc(hidden)]
pub mod fuzzing;
pub mod handshake;
pub mod lanes;
mod link;
mod wire;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use mneme_replica::id::NodeId;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::accept::Gathering;
use self::discovery::Discovered;
use self::discovery::dns::Dns;
use self::handshake::ClusterSecret;
use crate::driver::Driver;
use crate::telemetry::Repeats;

/// Where links are made on the peer port.
const LINK_PATH: &str = "/v1/link";
/// HTTP/2 windows: a push of the largest size is on its way without waiting for the other end.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// One stream a connection, so the connection's window is no smaller.
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;

/// Links to all peers.
pub struct Peers {
    driver: Arc<Driver>,
    secret: watch::Receiver<ClusterSecret>,
    /// Whom host names are asked of; `None`: the system.
    dns: Option<Dns>,
    gathering: Mutex<Gathering>,
    /// Who answered last at an address.
    answered: Mutex<HashMap<String, NodeId>>,
    /// What strangers were refused for: whoever may connect must not fill the log.
    warned: Mutex<Repeats>,
    tasks: TaskTracker,
}

impl Peers {
    /// Links for a driver. Host names are asked of `dns`, or else of the system.
    pub fn new(driver: Arc<Driver>, secret: watch::Receiver<ClusterSecret>, dns: Option<Dns>) -> Arc<Self> {
        Arc::new(Self {
            driver,
            secret,
            dns,
            gathering: Mutex::default(),
            answered: Mutex::default(),
            warned: Mutex::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// Whether somebody who answered at this address is linked.
    pub fn is_in_contact(&self, address: &str) -> bool {
        let answered = self.answered.lock().get(address).copied();
        answered.is_some_and(|node| self.driver.is_linked(node))
    }

    /// At which addresses who answered last, in order: a node is often dialled by another one than it advertises.
    pub fn addresses(&self) -> HashMap<NodeId, BTreeSet<String>> {
        let mut addresses: HashMap<NodeId, BTreeSet<String>> = HashMap::new();
        for (address, node) in self.answered.lock().iter() {
            addresses.entry(*node).or_default().insert(address.clone());
        }
        addresses
    }

    /// Accepts and dials, until `stop_dialling` and `stop`; then every link is closed.
    pub async fn run(
        self: Arc<Self>,
        listener: TcpListener,
        discovered: watch::Receiver<Discovered>,
        stop_dialling: CancellationToken,
        stop: CancellationToken,
    ) {
        self.tasks.spawn(self.clone().accept(listener, stop.clone()));
        self.clone().follow(discovered, &stop_dialling, &stop).await;
        stop.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Keeps one dialling task for each address that discovery or the replica names.
    async fn follow(
        self: Arc<Self>,
        mut discovered: watch::Receiver<Discovered>,
        stop_dialling: &CancellationToken,
        stop: &CancellationToken,
    ) {
        let mut dialled = self.driver.dialled();
        let mut tasks: HashMap<String, CancellationToken> = HashMap::new();
        loop {
            let wanted: BTreeSet<String> = {
                let discovered = discovered.borrow_and_update();
                let members = dialled.borrow_and_update();
                let named = members.iter().map(|(address, _)| address.clone());
                discovered.addresses().into_iter().chain(named).collect()
            };
            tasks.retain(|address, task| {
                let is_wanted = wanted.contains(address);
                if !is_wanted {
                    task.cancel();
                }
                is_wanted
            });
            for address in wanted {
                tasks.entry(address).or_insert_with_key(|address| {
                    let task = stop_dialling.child_token();
                    let dialling = self.clone().keep_dialling(address.clone(), task.clone(), stop.clone());
                    self.tasks.spawn(dialling);
                    task
                });
            }
            tokio::select! {
                () = stop_dialling.cancelled() => return,
                Ok(()) = discovered.changed() => {}
                Ok(()) = dialled.changed() => {}
                else => return,
            }
        }
    }
}
