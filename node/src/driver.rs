//! The driver: owns the replica. Events in, effects out, in order.
//!
//! A lock and no task: whoever has an event (a request, a link, the writer, the clock) steps the replica itself, and so
//! saves two wake-ups a write. A step takes microseconds; nothing waits for I/O inside.

mod long_work;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashMap as FastMap;
use mneme_api::{TableConfig, TableName};
use mneme_replica::Replica;
use mneme_replica::effect::{Effect, Notice, Outcome};
use mneme_replica::event::{AckMode, Command, ConnectionId, Event, RequestId, ScanStart};
use mneme_replica::gate::Gate;
use mneme_replica::id::{NodeId, Origin};
use mneme_replica::message::{Hello, Lane, Message, Refusal};
use mneme_replica::status::Status;
use mneme_replica::table::Table;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::long_work::LongWork;
use crate::metrics::Metrics;
use crate::peers::lanes::Lanes;
use crate::storage::writer::{Owner, Queue, StoredSize};
use crate::telemetry::Repeats;
use crate::wall_clock;

/// Bytes of a record in the file beyond key and value, roughly.
const STORED_RECORD_BYTES: u64 = 160;
/// Bytes of a tombstone in the file, roughly.
const STORED_TOMBSTONE_BYTES: u64 = 110;
/// How often the replica is told the time.
pub const TICK: Duration = Duration::from_millis(50);

/// Ticks for which the disk may be late: the step that publishes a large delta takes a second itself and hands over much,
/// and then the writer needs a turn or two to take it.
const LATE_TICKS_MAX: u32 = 2;

/// How often it is looked whether the last link is gone.
const UNLINKED_PAUSE: Duration = Duration::from_millis(10);

/// Addresses the replica wants connections to, besides what discovery names.
pub type Dialled = Vec<(String, Option<NodeId>)>;

/// How the process has to end, as far as the replica is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It goes on.
    Running,
    /// Everything is handed over.
    Drained,
    /// Another live process has this node's id.
    Refused(Refusal),
}

/// Why a link is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The replica refuses the process.
    Refused(Refusal),
    /// Another link between the two processes is up, and stays.
    Linked,
}

/// Owns the replica; shared by everything that has events for it.
pub struct Driver {
    inner: Mutex<Inner>,
    gate: Arc<Gate>,
    /// Tables of the configuration, for readers.
    tables: BTreeMap<TableName, (Arc<Table>, TableConfig)>,
    origin: Origin,
    requests: AtomicU64,
    connections: AtomicU64,
    /// Told after every step that leaves the gate open.
    opened: Notify,
    /// Told when a step left long work.
    work_left: Notify,
    /// Whether this node said goodbye: what it holds may be out of date at once.
    is_drained: AtomicBool,
    ending: watch::Sender<Ending>,
    dialled: watch::Sender<Dialled>,
    queue: Queue,
    stored: Mutex<StoredSize>,
    refusals: Mutex<Repeats>,
    metrics: Arc<Metrics>,
}

struct Inner {
    replica: Replica,
    replies: FastMap<RequestId, oneshot::Sender<Outcome>>,
    verdicts: HashMap<ConnectionId, Result<Hello, Refusal>>,
    lanes: HashMap<NodeId, Lanes>,
    /// Empty between steps.
    effects: Vec<Effect>,
}

impl Driver {
    /// A driver for a replica that was recovered and not started.
    pub fn new(replica: Replica, configs: &[TableConfig], queue: Queue, metrics: Arc<Metrics>) -> Arc<Self> {
        let tables = configs
            .iter()
            .filter_map(|config| Some((config.name.clone(), (replica.table(&config.name)?, config.clone()))));
        Arc::new(Self {
            gate: replica.gate(),
            tables: tables.collect(),
            origin: replica.hello().origin,
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            opened: Notify::new(),
            work_left: Notify::new(),
            is_drained: AtomicBool::new(false),
            ending: watch::Sender::new(Ending::Running),
            dialled: watch::Sender::new(Vec::new()),
            queue,
            stored: Mutex::default(),
            refusals: Mutex::default(),
            metrics,
            inner: Mutex::new(Inner {
                replica,
                replies: FastMap::new(),
                verdicts: HashMap::new(),
                lanes: HashMap::new(),
                effects: Vec::new(),
            }),
        })
    }

    /// Steps the replica and does what it wants done.
    pub fn step(&self, event: Event) {
        self.step_locked(&mut self.inner.lock(), event);
    }

    /// Steps the replica with what a peer sent, in its order.
    pub fn take_messages(&self, from: Origin, messages: Vec<Message>) {
        let mut inner = self.inner.lock();
        inner.replica.warm(&messages);
        for message in messages {
            self.step_locked(&mut inner, Event::Message { from, message });
        }
    }

    fn step_locked(&self, inner: &mut Inner, event: Event) {
        let mut effects = std::mem::take(&mut inner.effects);
        // What an effect leads to at once (a lane that is gone) is an event of its own, after the others.
        let (mut next, mut events) = (Some(event), Vec::new());
        while let Some(event) = next {
            inner.replica.step_into(wall_clock::sample(), event, &mut effects);
            for effect in effects.drain(..) {
                events.extend(self.act(inner, effect));
            }
            next = events.pop();
        }
        inner.effects = effects;
        if self.gate.check(wall_clock::boot_ms()).is_some() {
            self.opened.notify_waiters();
        }
    }

    fn act(&self, inner: &mut Inner, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Reply { request, outcome } => {
                if let Some(reply) = inner.replies.remove(&request) {
                    // A client that went away does not hear it.
                    let _ = reply.send(outcome);
                }
            }
            Effect::Persist { number, item, is_awaited } => self.queue.push(number, item, is_awaited),
            Effect::PersistMeta(meta) => self.queue.put_meta(meta),
            Effect::Send { to, message } => return send(inner, to, message),
            Effect::Verdict { connection, verdict } => {
                inner.verdicts.insert(connection, verdict);
            }
            Effect::Disconnect { peer } => {
                inner.lanes.remove(&peer);
            }
            Effect::Dial { addresses } => {
                self.dialled.send_replace(addresses);
            }
            Effect::Continue => self.work_left.notify_one(),
            Effect::Notice(notice) => self.log(&notice),
            Effect::Drained => {
                // Peers were told goodbye, and acknowledge without this node from here on.
                self.is_drained.store(true, Ordering::Release);
                self.ending.send_if_modified(|ending| {
                    let is_running = *ending == Ending::Running;
                    if is_running {
                        *ending = Ending::Drained;
                    }
                    is_running
                });
            }
            Effect::Exit { refusal } => {
                self.ending.send_replace(Ending::Refused(refusal));
            }
        }
        None
    }

    /// Tells the replica the time, and to go on with long work, until `stop`.
    pub async fn run_clock(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut late_ticks = 0;
        let mut long_work = LongWork::default();
        loop {
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => Event::Tick,
                () = self.work_left.notified() => Event::Resume,
            };
            let is_tick = matches!(event, Event::Tick);
            let started = Instant::now();
            self.step(event);
            if is_tick {
                late_ticks = if self.is_disk_late() { late_ticks + 1 } else { 0 };
            }
            if late_ticks > LATE_TICKS_MAX {
                late_ticks = 0;
                self.give_up_on_disk();
            }
            // Long work goes on in slices, with everybody else in between.
            match (!is_tick).then(|| long_work.rest(started, Instant::now())).flatten() {
                Some(rest) => tokio::time::sleep(rest).await,
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// A disk that does not answer must not hold up the cluster: peers' writes would wait here, and every write of
    /// everybody with them. What waits for it is given up, as on a full volume, and memory brings the file up to date.
    fn give_up_on_disk(&self) {
        let mut inner = self.inner.lock();
        tracing::error!("the disk does not keep up: this node takes no writes of clients until it does");
        self.step_locked(&mut inner, Event::PersistFailed { through: 0 });
        self.queue.give_up(inner.replica.persist_number());
    }

    /// Whether more waits for the disk than should, and has waited for too long.
    fn is_disk_late(&self) -> bool {
        self.queue.is_overfull() && self.inner.lock().replica.is_commit_stalled()
    }

    /// Takes a write in and waits for its outcome. Dropping the future does not undo the write.
    pub async fn write(&self, command: Command, ack: AckMode, timeout: Duration) -> Outcome {
        let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let (reply, outcome) = oneshot::channel();
        {
            let mut inner = self.inner.lock();
            inner.replies.insert(request, reply);
            self.step_locked(&mut inner, Event::Client { request, command, ack, timeout_ms });
        }
        // The replica answers every request once; only the end of the process drops the sender.
        outcome.await.unwrap_or(Outcome::Rejected(mneme_replica::effect::Rejection::Draining))
    }

    /// Takes a write in and does not wait.
    pub fn write_in_background(&self, command: Command) {
        let request = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
        self.step(Event::Client { request, command, ack: AckMode::Local, timeout_ms: 5_000 });
    }

    /// Greets the process at the other end of a new link. Its lanes are in use from here on, unless it is denied.
    ///
    /// # Errors
    ///
    /// Why not, to be told to the other end.
    pub fn greet(&self, hello: Hello, dialled: Option<String>, lanes: Lanes) -> Result<Hello, Denied> {
        let connection = ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed));
        let (node, link) = (hello.origin.node, lanes.link());
        let mut inner = self.inner.lock();
        if inner.lanes.get(&node).is_some_and(|held| held.stays_beside(&lanes, self.origin.node)) {
            return Err(Denied::Linked);
        }
        // Before the greeting: its effects are already for these lanes.
        let replaced = inner.lanes.insert(node, lanes);
        self.step_locked(&mut inner, Event::Greeted { connection, hello, dialled });
        let verdict = inner.verdicts.remove(&connection).unwrap_or(Err(Refusal::Stopping));
        if verdict.is_err() {
            if inner.lanes.get(&node).is_some_and(|lanes| lanes.link() == link) {
                inner.lanes.remove(&node);
            }
            inner.lanes.extend(replaced.map(|replaced| (node, replaced)));
        } else if replaced.is_some() {
            // What was under way on the link that this one replaces may be lost.
            self.lanes_lost(&mut inner, node);
        }
        verdict.map_err(Denied::Refused)
    }

    fn lanes_lost(&self, inner: &mut Inner, peer: NodeId) {
        for lane in Lane::ALL {
            self.step_locked(inner, Event::LinkDown { peer, lane });
        }
    }

    /// A link broke; nothing happens when another has taken its place.
    pub fn link_down(&self, peer: NodeId, link: u64) {
        let mut inner = self.inner.lock();
        if inner.lanes.get(&peer).is_none_or(|lanes| lanes.link() != link) {
            return;
        }
        inner.lanes.remove(&peer);
        self.lanes_lost(&mut inner, peer);
    }

    /// Whether a link to this node is up.
    pub fn is_linked(&self, node: NodeId) -> bool {
        self.inner.lock().lanes.contains_key(&node)
    }

    /// Waits until no link is up.
    ///
    /// Cancel safety: safe.
    pub async fn wait_until_unlinked(&self) {
        while !self.inner.lock().lanes.is_empty() {
            tokio::time::sleep(UNLINKED_PAUSE).await;
        }
    }

    /// What this node says of itself.
    pub fn hello(&self) -> Hello {
        self.inner.lock().replica.hello()
    }

    /// Where a scan begins that begins now.
    pub fn scan_start(&self) -> ScanStart {
        self.inner.lock().replica.scan_start()
    }

    /// A look at the whole replica.
    pub fn status(&self) -> Status {
        self.inner.lock().replica.status()
    }

    /// Whether `/readyz` answers 200.
    pub fn is_ready(&self) -> bool {
        // A process that did not run lately is not ready, whatever it thought before.
        self.gate.check(wall_clock::boot_ms()).is_some() && self.inner.lock().replica.is_ready()
    }

    /// This process.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// A table of the configuration.
    pub fn table(&self, name: &TableName) -> Option<&(Arc<Table>, TableConfig)> {
        self.tables.get(name)
    }

    /// Node time when this node may serve now.
    pub fn serving(&self) -> Option<u64> {
        let now_ms = self.gate.check(wall_clock::boot_ms())?;
        (!self.is_drained.load(Ordering::Acquire)).then_some(now_ms)
    }

    /// Node time, served or not.
    pub fn now_ms(&self) -> u64 {
        self.gate.now_ms(wall_clock::boot_ms())
    }

    /// Waits until this node may serve, `limit` at most; node time when it may.
    ///
    /// Cancel safety: safe.
    pub async fn wait_until_serving(&self, limit: Duration) -> Option<u64> {
        let wait = async {
            loop {
                let opened = self.opened.notified();
                if let Some(now_ms) = self.serving() {
                    return now_ms;
                }
                opened.await;
            }
        };
        tokio::time::timeout(limit, wait).await.ok()
    }

    /// How the process has to end.
    pub fn ending(&self) -> watch::Receiver<Ending> {
        self.ending.subscribe()
    }

    /// Addresses to keep connections to.
    pub fn dialled(&self) -> watch::Receiver<Dialled> {
        self.dialled.subscribe()
    }

    /// The way to the file.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Size of the file.
    pub fn stored_size(&self) -> StoredSize {
        *self.stored.lock()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn log(&self, notice: &Notice) {
        match notice {
            Notice::PeerLive { peer } => tracing::info!(peer.id = %peer, "peer is live"),
            Notice::PeerSuspect { peer } => {
                tracing::warn!(peer.id = %peer, "no contact with the peer: writes no longer wait for it");
            }
            Notice::PeerRefused { address, refusal } => {
                self.metrics.link_refusals.inc();
                // It is dialled, or dials, every second.
                if self.refusals.lock().is_due(address, &refusal.to_string(), Instant::now()) {
                    tracing::warn!(peer.address = %address, reason = %refusal, "a peer was refused");
                }
            }
            Notice::PeerRetired { peer } => tracing::info!(peer.id = %peer, "member retired"),
            Notice::Ready => tracing::info!("serving"),
            Notice::Unready { reason } => tracing::info!(reason, "not serving for now"),
            Notice::Skew { peer, skew_ms } => {
                tracing::warn!(peer.id = %peer, skew_ms, "the clocks of this node and the peer differ");
            }
            Notice::ClockAhead { peer } => {
                tracing::warn!(peer.id = %peer, "refused a write: the peer's clock is ahead");
            }
            Notice::OutboxDropped { peer } => {
                tracing::warn!(peer.id = %peer, "too much waits for the peer: dropped, a delta will bring it");
            }
            Notice::DeltaApplied { peer, rows } => {
                tracing::info!(peer.id = %peer, rows, "caught up by a delta")
            }
            Notice::DivergenceRepaired { peer, rows } => {
                tracing::warn!(peer.id = %peer, rows, "rows differed at equal vectors and were joined");
            }
            Notice::WallStepped => {
                tracing::warn!("the wall clock stepped; not followed until it is confirmed")
            }
        }
    }
}

/// Hands a message to the lane. A push that finds none is lost like one on a broken link.
fn send(inner: &Inner, to: NodeId, message: Message) -> Option<Event> {
    let lane = message.lane();
    let is_push = matches!(message, Message::Push { .. });
    let is_sent = inner.lanes.get(&to).is_some_and(|lanes| lanes.send(lane, message));
    (is_push && !is_sent).then_some(Event::LinkDown { peer: to, lane })
}

impl Owner for Driver {
    fn persisted(&self, through: u64) {
        self.step(Event::Persisted { through });
    }

    fn persist_failed(&self, through: u64) -> u64 {
        tracing::error!("the volume is full: this node takes no writes until there is space");
        let mut inner = self.inner.lock();
        self.step_locked(&mut inner, Event::PersistFailed { through });
        inner.replica.persist_number()
    }

    fn tables(&self) -> HashMap<TableName, Arc<Table>> {
        let inner = self.inner.lock();
        inner.replica.tables().map(|table| (table.name().clone(), table.clone())).collect()
    }

    fn barrier(&self) {
        drop(self.inner.lock());
    }

    fn live_bytes(&self) -> u64 {
        let needed = |table: &mneme_replica::status::TableStatus| {
            // What has expired is in the file until it is dropped: it may yet be touched by a write that comes late.
            let (values, bytes) = (table.live + table.expired, table.bytes + table.expired_bytes);
            bytes + values * STORED_RECORD_BYTES + table.tombstones * STORED_TOMBSTONE_BYTES
        };
        self.status().tables.iter().map(needed).sum()
    }

    fn committed(&self, elapsed: Duration, entries: usize, size: StoredSize) {
        self.metrics.commit_seconds.observe(elapsed.as_secs_f64());
        self.metrics.commit_entries.observe(f64::from(u32::try_from(entries).unwrap_or(u32::MAX)));
        *self.stored.lock() = size;
    }
}
