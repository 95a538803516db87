//! Nodes, network and virtual time in one thread.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::atomic::{AtomicBool, Ordering};

use mneme_api::TableName;
use mneme_replica::effect::Outcome;
use mneme_replica::event::{ConnectionId, RequestId};
use mneme_replica::id::{NodeId, Origin};
use mneme_replica::limits::VERSION_AHEAD_MS_MAX;
use mneme_replica::message::{Hello, Lane, Message, Refusal};
use mneme_replica::status::Settings;
use mneme_replica::time::ClockSample;
use mneme_replica::{Effect, Event, Replica};

use crate::disk::Disk;
use crate::fault::Fault;
use crate::rng::Rng;
use crate::weather::Weather;

/// Wall clock at the start of every simulation.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// Node ids of one place follow each other at this distance.
const IDS_A_PLACE: u64 = 1_000;

/// How often a process ticks.
const TICK_MS: u64 = 50;
/// How long a commit for which nobody waits is put off.
const UNAWAITED_MS: u64 = 5;

/// Whether what happens is printed.
pub(crate) static TRACED: AtomicBool = AtomicBool::new(false);

/// What happens next.
#[derive(Debug)]
enum Item {
    Tick { node: usize, epoch: u64 },
    Deliver { from: Origin, to: Origin, message: Message },
    PushTaken { node: usize, epoch: u64, peer: NodeId },
    Commit { node: usize, epoch: u64 },
    Dial { node: usize, epoch: u64 },
}

/// One node: a process that may be up, down or frozen, and its disk.
pub(crate) struct Node {
    pub(crate) replica: Option<Replica>,
    pub(crate) disk: Disk,
    pub(crate) origin: Origin,
    pub(crate) frozen_until_ms: u64,
    /// Since when it runs undisturbed.
    pub(crate) undisturbed_since_ms: u64,
    clock_offset_ms: i64,
    /// Its wall clock was set wrong by so much, until this simulated time.
    pub(crate) clock_step: Option<(i64, u64)>,
    /// Until when its volume is full.
    pub(crate) full_until_ms: u64,
    /// Until when its disk takes seconds for a commit.
    pub(crate) slow_until_ms: u64,
    /// Somebody has changed its configuration: sessions live half as long from its next start on.
    pub(crate) is_configured_anew: bool,
    is_committing: bool,
    backlog: Vec<Item>,
    pub(crate) exited: Option<Refusal>,
    /// When its disk was last exchanged for an empty or an old one.
    pub(crate) replaced_ms: Option<u64>,
    /// Its process has met another since it started.
    has_met: bool,
}

/// The whole simulated cluster.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now_ms: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) weather: Weather,
    pub(crate) fault: Option<Fault>,
    /// Who serves a delta to whom, for the fault that looks at it.
    served_deltas: BTreeSet<(Origin, NodeId)>,
    /// Directed pairs that lose everything.
    cuts: BTreeSet<(usize, usize)>,
    /// When a pair was last cut.
    last_cut_ms: BTreeMap<(usize, usize), u64>,
    pub(crate) loss_percent: u64,
    links: BTreeSet<(Origin, Origin)>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    items: BTreeMap<u64, Item>,
    next_item: u64,
    next_epoch: u64,
    pub(crate) replies: Vec<(RequestId, Outcome)>,
    verdicts: Vec<Result<Hello, Refusal>>,
    pub(crate) trace: u64,
    /// When every clock will have reached all that was stamped.
    pub(crate) stamped_until_ms: u64,
    /// Events that a replica took.
    pub(crate) states: u64,
    /// By how much the wall clocks of all were set forward.
    site_step_ms: u64,
    /// Disks as they once were, to be put back.
    pub(crate) old_disks: BTreeMap<usize, Disk>,
    /// Nodes that have stopped as they were asked to.
    pub(crate) drained: Vec<usize>,
    /// A disk that was copied, until the cluster has noticed.
    pub(crate) doubled: Option<Doubled>,
}

/// Two places with one identity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doubled {
    pub(crate) original: usize,
    pub(crate) copy: usize,
    /// Who was at home where the copy is now.
    replaced: NodeId,
}

impl World {
    pub(crate) fn new(seed: u64, weather: Weather, fault: Option<Fault>) -> Self {
        let mut rng = Rng::new(seed);
        let count = weather.nodes_min() + rng.index(weather.nodes_spread());
        let loss_percent = if rng.percent(50) || weather == Weather::Steady { 0 } else { rng.between(0, 6) };
        let mut world = Self {
            rng,
            now_ms: 0,
            nodes: Vec::new(),
            weather,
            fault,
            served_deltas: BTreeSet::new(),
            cuts: BTreeSet::new(),
            last_cut_ms: BTreeMap::new(),
            loss_percent,
            links: BTreeSet::new(),
            queue: BinaryHeap::new(),
            items: BTreeMap::new(),
            next_item: 0,
            next_epoch: 1,
            replies: Vec::new(),
            verdicts: Vec::new(),
            trace: 0,
            stamped_until_ms: 0,
            states: 0,
            site_step_ms: 0,
            old_disks: BTreeMap::new(),
            drained: Vec::new(),
            doubled: None,
        };
        for index in 0..count {
            let clock_offset_ms = i64::try_from(world.rng.between(0, 200)).unwrap_or(0) - 100;
            let node = NodeId::new(index as u64 + 1);
            world.nodes.push(Node {
                replica: None,
                disk: Disk::default(),
                origin: Origin { node, epoch: 0 },
                frozen_until_ms: 0,
                undisturbed_since_ms: 0,
                clock_offset_ms,
                clock_step: None,
                full_until_ms: 0,
                slow_until_ms: 0,
                is_configured_anew: false,
                is_committing: false,
                backlog: Vec::new(),
                exited: None,
                replaced_ms: None,
                has_met: false,
            });
        }
        // A place that is still empty: somebody comes later, and is new to all.
        let late = usize::from(weather == Weather::Stormy && world.rng.percent(30));
        for index in 0..count - late {
            world.start(index);
        }
        world
    }

    fn sample(&self, node: usize) -> ClockSample {
        let node = &self.nodes[node];
        let step_ms =
            node.clock_step.filter(|(_, until_ms)| self.now_ms < *until_ms).map_or(0, |(by_ms, _)| by_ms);
        let wall_ms = (EPOCH_MS + self.site_step_ms + self.now_ms)
            .saturating_add_signed(node.clock_offset_ms + step_ms);
        ClockSample { wall_ms, boot_ms: self.now_ms + 10_000 }
    }

    /// Prints what happens, if that was asked for.
    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if TRACED.load(Ordering::Relaxed) {
            println!("{:>9} {} ({})", self.now_ms, what(), self.describe_clocks());
        }
    }

    /// By how much the node times are wrong, in words.
    pub(crate) fn describe_clocks(&self) -> String {
        let clocks = (0..self.nodes.len()).map(|node| match self.clock_error_ms(node) {
            Some(error_ms) => format!("{error_ms} ms"),
            None => "down".to_owned(),
        });
        format!("clocks wrong by {}", clocks.collect::<Vec<_>>().join(", "))
    }

    /// By how much a node's time is ahead of the right one; `None` when it is down.
    fn clock_error_ms(&self, node: usize) -> Option<i64> {
        let now_ms = self.nodes[node].replica.as_ref()?.gate().now_ms(self.boot_ms());
        Some(now_ms.cast_signed() - (EPOCH_MS + self.site_step_ms + self.now_ms).cast_signed())
    }

    /// By how much a node's time is ahead; 0 when it is not.
    pub(crate) fn clock_ahead_ms(&self, node: usize) -> u64 {
        self.clock_error_ms(node).map_or(0, |error_ms| error_ms.max(0).unsigned_abs())
    }

    /// Whether a node that has met nobody since it started goes by a clock that is behind: it cannot know.
    pub(crate) fn is_behind_and_alone(&self, node: usize) -> bool {
        let behind_ms = self.clock_error_ms(node).map_or(0, |error_ms| error_ms.min(0).unsigned_abs());
        !self.nodes[node].has_met && behind_ms > VERSION_AHEAD_MS_MAX
    }

    /// A node is about to stamp something by its clock.
    pub(crate) fn note_stamp(&mut self, node: usize) {
        let ahead_ms = self.clock_ahead_ms(node);
        if ahead_ms > VERSION_AHEAD_MS_MAX {
            self.stamped_until_ms = self.stamped_until_ms.max(self.now_ms + ahead_ms);
        }
    }

    /// Whether a node goes by a clock that the site has left, because nobody has confirmed the step to it yet.
    pub(crate) fn is_clock_in_doubt(&self, node: usize) -> bool {
        self.clock_error_ms(node).is_some_and(|error_ms| error_ms.unsigned_abs() > 600)
    }

    pub(crate) fn boot_ms(&self) -> u64 {
        self.now_ms + 10_000
    }

    pub(crate) fn sessions() -> TableName {
        "sessions".parse().expect("a table name")
    }

    pub(crate) fn cache() -> TableName {
        "cache".parse().expect("a table name")
    }

    /// Starts a process on the node's disk, on a machine that sets its clock right when it boots.
    pub(crate) fn start(&mut self, index: usize) {
        self.nodes[index].clock_step = None;
        self.start_by_its_clock(index);
    }

    /// Starts a process on the node's disk, under a new epoch, with the clock as it is.
    pub(crate) fn start_by_its_clock(&mut self, index: usize) {
        self.trace(|| format!("node {index} starts"));
        let epoch = if self.fault == Some(Fault::EpochReused) { 1 } else { self.next_epoch };
        self.next_epoch += 1;
        let sample = self.sample(index);
        let node = &mut self.nodes[index];
        node.origin.epoch = epoch;
        node.is_committing = false;
        node.backlog.clear();
        node.frozen_until_ms = 0;
        node.undisturbed_since_ms = self.now_ms;
        node.has_met = false;
        let tables = self.weather.tables(node.is_configured_anew);
        let settings = Settings {
            origin: node.origin,
            cluster: "sim".to_owned(),
            name: format!("n{index}"),
            address: format!("n{index}:7071"),
            version: "sim".to_owned(),
            tables,
            join_timeout_ms: 5_000,
            features: Vec::new(),
        };
        let mut recovery = Replica::recover(settings, sample);
        let (meta, vector) = node.disk.load(&mut recovery, self.fault);
        node.replica = Some(recovery.finish(meta, vector));
        let addresses = (0..self.nodes.len()).map(|other| format!("n{other}:7071")).collect();
        self.step(index, Event::Discovered { addresses, is_configured: true, is_complete: true });
        self.schedule(0, Item::Tick { node: index, epoch });
        self.schedule(1, Item::Dial { node: index, epoch });
    }

    /// SIGKILL: memory is gone, so is what the disk had not committed.
    pub(crate) fn crash(&mut self, index: usize) {
        let Some(replica) = self.nodes[index].replica.take() else { return };
        let fault = self.fault;
        self.nodes[index].disk.crash(Some(replica.vector()), fault);
        let gone = self.nodes[index].origin;
        let broken: Vec<(Origin, Origin)> =
            self.links.iter().copied().filter(|(a, b)| *a == gone || *b == gone).collect();
        for (a, b) in broken {
            self.links.remove(&(a, b));
            let other = if a == gone { b } else { a };
            if let Some(index) = self.running(other) {
                for lane in Lane::ALL {
                    self.step(index, Event::LinkDown { peer: gone.node, lane });
                }
            }
        }
    }

    /// SIGSTOP for a while.
    pub(crate) fn freeze(&mut self, index: usize, for_ms: u64) {
        self.nodes[index].frozen_until_ms = self.now_ms + for_ms;
    }

    /// The volume takes nothing for a while.
    pub(crate) fn fill_volume(&mut self, index: usize, for_ms: u64) {
        self.nodes[index].full_until_ms = self.now_ms + for_ms;
    }

    /// Somebody sets the wall clock wrong, and right again.
    pub(crate) fn step_clock(&mut self, index: usize, by_ms: u64, is_back: bool, for_ms: u64) {
        let by_ms = i64::try_from(by_ms).unwrap_or(0);
        if self.nodes.iter().any(|node| node.clock_step.is_some_and(|(_, until_ms)| self.now_ms < until_ms)) {
            // Two that are wrong by the same at one time would rightly be believed.
            return;
        }
        let until_ms = self.now_ms + for_ms;
        self.nodes[index].clock_step = Some((if is_back { -by_ms } else { by_ms }, until_ms));
    }

    /// All machines of the site are told another time, for good.
    pub(crate) fn step_all_clocks(&mut self, by_ms: u64) {
        self.site_step_ms += by_ms;
    }

    /// What waits for a peer is lost, as when its queue overflows.
    pub(crate) fn drop_queue(&mut self, index: usize, peer: usize) {
        let peer = self.nodes[peer].origin.node;
        self.step(index, Event::LinkDown { peer, lane: Lane::Push });
    }

    pub(crate) fn cut(&mut self, a: usize, b: usize, is_one_way: bool) {
        self.cuts.insert((a, b));
        if !is_one_way {
            self.cuts.insert((b, a));
        }
    }

    pub(crate) fn heal(&mut self) {
        for (a, b) in std::mem::take(&mut self.cuts) {
            self.last_cut_ms.insert((a, b), self.now_ms);
        }
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cuts.contains(&(a, b))
    }

    /// Whether two nodes could talk, both running, for the last `for_ms`.
    pub(crate) fn could_talk(&self, a: usize, b: usize, for_ms: u64) -> bool {
        let since = self.now_ms.saturating_sub(for_ms);
        let is_undisturbed = |index: usize| {
            let node = &self.nodes[index];
            node.replica.is_some()
                && node.undisturbed_since_ms <= since
                && !self.is_frozen(index)
                && !self.is_doubled(index)
        };
        let is_whole = |pair: (usize, usize)| {
            !self.cuts.contains(&pair) && self.last_cut_ms.get(&pair).is_none_or(|cut| *cut <= since)
        };
        is_undisturbed(a) && is_undisturbed(b) && is_whole((a, b)) && is_whole((b, a))
    }

    /// Asks a node to stop.
    pub(crate) fn drain(&mut self, index: usize) {
        self.step(index, Event::Drain);
    }

    /// Whether there is anybody with whom a node could talk for so long.
    pub(crate) fn could_talk_with_any(&self, node: usize, for_ms: u64) -> bool {
        (0..self.nodes.len()).any(|other| other != node && self.could_talk(node, other, for_ms))
    }

    pub(crate) fn is_frozen(&self, index: usize) -> bool {
        self.nodes[index].frozen_until_ms > self.now_ms
    }

    fn running(&self, origin: Origin) -> Option<usize> {
        self.nodes.iter().position(|node| node.replica.is_some() && node.origin == origin)
    }

    fn index_of(peer: NodeId) -> usize {
        usize::try_from((peer.number() - 1) % IDS_A_PLACE).unwrap_or(0)
    }

    /// An empty file has no identity: whoever starts on it is a new node at an old address.
    pub(crate) fn renew(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.disk = Disk::default();
        node.origin.node = NodeId::new(node.origin.node.number() + IDS_A_PLACE);
    }

    /// The disk of one place is copied to another, whose process is down.
    pub(crate) fn double(&mut self, original: usize, copy: usize) {
        let replaced = self.nodes[copy].origin.node;
        self.nodes[copy].disk = self.nodes[original].disk.clone();
        self.nodes[copy].disk.forget_queue();
        self.nodes[copy].origin.node = self.nodes[original].origin.node;
        self.doubled = Some(Doubled { original, copy, replaced });
    }

    /// The copy is thrown away: its place gets an empty disk, hence a new identity.
    pub(crate) fn undouble(&mut self) -> Option<Doubled> {
        let doubled = self.doubled.take()?;
        self.nodes[doubled.copy].origin.node = doubled.replaced;
        self.renew(doubled.copy);
        self.nodes[doubled.original].undisturbed_since_ms = self.now_ms;
        Some(doubled)
    }

    /// Whether this place shares its identity with another.
    pub(crate) fn is_doubled(&self, index: usize) -> bool {
        self.doubled.is_some_and(|doubled| index == doubled.original || index == doubled.copy)
    }

    fn schedule(&mut self, after_ms: u64, item: Item) {
        self.next_item += 1;
        self.queue.push(Reverse((self.now_ms + after_ms, self.next_item)));
        self.items.insert(self.next_item, item);
    }

    /// Runs everything up to `until_ms`.
    pub(crate) fn run_until(&mut self, until_ms: u64) {
        while let Some(Reverse((at_ms, number))) =
            self.queue.peek().copied().filter(|next| next.0.0 <= until_ms)
        {
            self.queue.pop();
            self.now_ms = at_ms;
            self.trace = self.trace.rotate_left(5) ^ at_ms.wrapping_mul(0x9e37_79b9) ^ number;
            if let Some(item) = self.items.remove(&number) {
                self.run(item);
            }
        }
        self.now_ms = until_ms;
        self.thaw();
    }

    /// What waited in the socket buffers of a frozen process arrives at once.
    fn thaw(&mut self) {
        for index in 0..self.nodes.len() {
            if !self.nodes[index].backlog.is_empty() && !self.is_frozen(index) {
                self.nodes[index].undisturbed_since_ms = self.now_ms;
                for item in std::mem::take(&mut self.nodes[index].backlog) {
                    self.run(item);
                }
            }
        }
    }

    fn run(&mut self, item: Item) {
        let target = match &item {
            Item::Tick { node, epoch }
            | Item::Dial { node, epoch }
            | Item::Commit { node, epoch }
            | Item::PushTaken { node, epoch, .. } => {
                (self.nodes[*node].origin.epoch == *epoch).then_some(*node)
            }
            Item::Deliver { to, .. } => self.running(*to),
        };
        let Some(node) = target.filter(|node| self.nodes[*node].replica.is_some()) else { return };
        if self.is_frozen(node) {
            self.nodes[node].backlog.push(item);
            return;
        }
        match item {
            Item::Tick { epoch, .. } => {
                self.step(node, Event::Tick);
                self.schedule(TICK_MS, Item::Tick { node, epoch });
            }
            Item::Deliver { from, message, .. } => self.step(node, Event::Message { from, message }),
            Item::PushTaken { peer, .. } => self.step(node, Event::PushesTaken { peer, count: 1 }),
            Item::Commit { .. } => self.commit(node),
            Item::Dial { epoch, .. } => {
                self.dial(node);
                self.schedule(200, Item::Dial { node, epoch });
            }
        }
    }

    fn commit(&mut self, node: usize) {
        self.nodes[node].is_committing = false;
        if self.nodes[node].full_until_ms > self.now_ms {
            self.fail_commit(node);
            return;
        }
        if let Some(through) = self.nodes[node].disk.commit() {
            self.step(node, Event::Persisted { through });
        }
        self.start_commit(node);
    }

    /// The volume is full: what waits is dropped, and the replica told.
    fn fail_commit(&mut self, node: usize) {
        let through = self.nodes[node].disk.drop_queue();
        let event = match self.fault {
            Some(Fault::FullVolumeUntold) => Event::Persisted { through: u64::MAX },
            _ => Event::PersistFailed { through },
        };
        self.step(node, event);
    }

    /// Now and then the file is compacted, with everything queued in it first.
    fn compact(&mut self, node: usize) {
        // Planted, it is done more often, so that fewer seeds show it.
        let percent = if self.fault == Some(Fault::CompactionByMemory) { 30 } else { 3 };
        if !self.rng.percent(percent) {
            return;
        }
        let Node { replica: Some(replica), disk, .. } = &mut self.nodes[node] else { return };
        if self.fault != Some(Fault::CompactionByMemory) && !disk.is_idle() {
            return;
        }
        disk.compact(|row| replica.table(&row.table).and_then(|table| table.current(row)));
    }

    fn start_commit(&mut self, node: usize) {
        self.compact(node);
        if self.nodes[node].is_committing || self.nodes[node].disk.is_idle() {
            return;
        }
        self.nodes[node].is_committing = true;
        let slow = self.rng.percent(2);
        let after_ms = if self.nodes[node].slow_until_ms > self.now_ms {
            self.rng.between(800, 3_000)
        } else if slow {
            self.rng.between(50, 800)
        } else {
            self.rng.between(1, 8)
        };
        // A commit for which nobody waits waits for company.
        let after_ms = if self.nodes[node].disk.is_awaited() { after_ms } else { after_ms + UNAWAITED_MS };
        let epoch = self.nodes[node].origin.epoch;
        self.schedule(after_ms, Item::Commit { node, epoch });
    }

    /// Tries every other node that is not linked yet.
    fn dial(&mut self, node: usize) {
        for other in 0..self.nodes.len() {
            let (mine, theirs) = (self.nodes[node].origin, self.nodes[other].origin);
            if other == node || self.links.contains(&(mine, theirs)) {
                continue;
            }
            let is_reachable = self.nodes[other].replica.is_some()
                && !self.is_frozen(other)
                && !self.is_cut(node, other)
                && !self.is_cut(other, node);
            let address = format!("n{other}:7071");
            if !is_reachable {
                self.step(node, Event::DialFailed { address });
                continue;
            }
            match self.greet(other, node, None) {
                Ok(_) => {
                    if self.greet(node, other, Some(address)).is_ok() {
                        self.links.insert((mine, theirs));
                        self.links.insert((theirs, mine));
                    }
                }
                Err(refusal) => self.step(node, Event::Refused { address, refusal }),
            }
        }
    }

    fn greet(&mut self, at: usize, from: usize, dialled: Option<String>) -> Result<Hello, Refusal> {
        let Some(hello) = self.nodes[from].replica.as_ref().map(Replica::hello) else {
            return Err(Refusal::Stopping);
        };
        self.verdicts.clear();
        self.step(at, Event::Greeted { connection: ConnectionId(0), hello, dialled });
        let verdict = self.verdicts.pop().unwrap_or(Err(Refusal::Stopping));
        self.nodes[at].has_met |= verdict.is_ok();
        verdict
    }

    /// One step of a node's replica, and its effects.
    pub(crate) fn step(&mut self, node: usize, event: Event) {
        let sample = self.sample(node);
        let Some(replica) = self.nodes[node].replica.as_mut() else { return };
        self.states += 1;
        let effects = replica.step(sample, event);
        for effect in effects {
            self.carry_out(node, effect);
        }
        self.start_commit(node);
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Reply { request, outcome } => self.replies.push((request, outcome)),
            Effect::Persist { number, item, is_awaited } => {
                self.nodes[node].disk.queue(number, item, is_awaited);
                if self.fault == Some(Fault::DurableBeforeCommit) {
                    self.step(node, Event::Persisted { through: number });
                }
            }
            Effect::PersistMeta(meta) => self.nodes[node].disk.queue_meta(meta),
            Effect::Send { to, message } => self.transmit(node, to, message),
            Effect::Verdict { verdict, .. } => self.verdicts.push(verdict),
            Effect::Continue => self.step(node, Event::Resume),
            Effect::Exit { refusal } => self.nodes[node].exited = Some(refusal),
            Effect::Disconnect { peer } => {
                let mine = self.nodes[node].origin;
                self.links
                    .retain(|(a, b)| !((*a == mine && b.node == peer) || (*b == mine && a.node == peer)));
            }
            Effect::Drained => self.drained.push(node),
            Effect::Notice(notice) => self.trace(|| format!("node {node}: {notice:?}")),
            Effect::Dial { .. } => {}
        }
    }

    fn transmit(&mut self, node: usize, to: NodeId, message: Message) {
        let from = self.nodes[node].origin;
        let Some((_, peer)) = self.links.iter().copied().find(|(a, b)| *a == from && b.node == to) else {
            return;
        };
        if matches!(message, Message::Push { .. }) {
            self.schedule(1, Item::PushTaken { node, epoch: from.epoch, peer: to });
        }
        let place = self.running(peer).unwrap_or_else(|| Self::index_of(to));
        if self.is_cut(node, place) || self.rng.percent(self.loss_percent) {
            return;
        }
        if self.fault == Some(Fault::AckBeforeApply)
            && let Message::Push { writes } = &message
            && let Some(last) = writes.last()
        {
            let (applied, durable) = (last.dot.sequence, last.dot.sequence);
            let ack = Message::Ack { origin: from, applied, durable, refused_clock: false };
            self.schedule(2, Item::Deliver { from: peer, to: from, message: ack });
            self.schedule(300, Item::Deliver { from, to: peer, message });
            return;
        }
        if self.fault == Some(Fault::DeltaVectorAtEnd) {
            let served = (from, to);
            match &message {
                Message::DeltaPage { vector: None, .. } => {
                    // Slow pages: much is written meanwhile.
                    self.served_deltas.insert(served);
                    self.schedule(300, Item::Deliver { from, to: peer, message });
                    return;
                }
                Message::DeltaPage { .. } => _ = self.served_deltas.remove(&served),
                Message::Push { .. } if self.served_deltas.contains(&served) => return,
                _ => {}
            }
        }
        let message = match (self.fault, message) {
            (Some(Fault::DeltaVectorAtEnd), Message::DeltaPage { delta, page, rows, vector: Some(_) }) => {
                let vector = self.nodes[node].replica.as_ref().map(|replica| replica.vector());
                Message::DeltaPage { delta, page, rows, vector }
            }
            (Some(fault), message) => fault.bend(message),
            (None, message) => message,
        };
        if self.rng.percent(1) {
            let after_ms = self.rng.between(1, 300);
            self.schedule(after_ms, Item::Deliver { from, to: peer, message: message.clone() });
        }
        let after_ms = if self.rng.percent(5) { self.rng.between(10, 200) } else { self.rng.between(1, 4) };
        self.schedule(after_ms, Item::Deliver { from, to: peer, message });
    }
}
