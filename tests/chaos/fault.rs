//! What is done to the cluster.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use mneme_tests::wait::wait_for;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use crate::history::{Disturbance, Recorder};
use crate::link::Badness;
use crate::site::{SMALL_VOLUME, Site};

/// How long a fault lasts once it is done.
const HOLD_MS: std::ops::Range<u64> = 1_000..3_500;
/// How far a clock is set wrong, either way.
const CLOCK_MS: std::ops::Range<i64> = 2_000..600_000;
/// First byte of a log of SQLite after its header, whose damage is that of an empty log.
const LOG_HEADER: u64 = 32;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Fault {
    /// SIGKILL of one node, restarted later.
    KillOne,
    /// SIGKILL of two or more at once, not of all.
    KillSeveral,
    /// SIGKILL of all at once.
    KillAll,
    /// SIGSTOP of one node, SIGCONT later.
    Freeze,
    /// SIGSTOP of one and SIGKILL of another.
    FreezeAndKill,
    /// Two halves that cannot talk.
    SplitHalves,
    /// Two halves that cannot talk, and a node killed in one.
    SplitAndKill,
    /// One node that nobody can talk to.
    Isolate,
    /// Each node can talk to two others only.
    Ring,
    /// One node cannot send to another.
    OneWay,
    /// Everything that is sent to some nodes takes up to a tenth of a second.
    SlowLinks,
    /// What is sent to one node gets lost and is sent again, and connections break.
    LossyLink,
    /// A node restarts under another address.
    Move,
    /// A node restarts without its data.
    Wipe,
    /// A node restarts with an old copy of its data.
    OldCopy,
    /// A copy of a node's data is started beside it.
    Clone,
    /// A volume is full for a while.
    DiskFull,
    /// A byte of a node's file changes while it is down.
    FlipInFile,
    /// A byte of SQLite's log changes while a killed node is down.
    FlipInLog,
    /// The clock of a running node is set wrong.
    ClockMoved,
    /// A node restarts with a clock that is wrong.
    ClockWrongAtStart,
    /// One node after the other is stopped and started.
    RollingRestart,
    /// The discovery source names nobody, and a node restarts.
    DiscoveryEmptied,
    /// The discovery source names strangers and nonsense, and a node restarts.
    DiscoveryWrong,
}

impl Fault {
    /// As the report says it.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// All of them in some order.
    pub(crate) fn deck(random: &mut SmallRng) -> Vec<Self> {
        let mut deck = Self::value_variants().to_vec();
        deck.shuffle(random);
        deck
    }
}

/// Does one fault, undoes it, and waits until the cluster is whole.
pub(crate) async fn disturb(
    site: &mut Site,
    fault: Fault,
    random: &mut SmallRng,
    recorder: &Recorder,
) -> anyhow::Result<Disturbance> {
    let mut disturbance = Disturbance {
        fault: fault.name(),
        start_us: recorder.now_us(),
        undone_us: 0,
        whole_us: 0,
        cut: Vec::new(),
        wrong_clock: None,
    };
    let mut scene = Scene { site, random, disturbance: &mut disturbance };
    scene.play(fault).await.with_context(|| format!("during {}", fault.name()))?;
    disturbance.undone_us = recorder.now_us();
    site.wait_whole().await.with_context(|| format!("after {}", fault.name()))?;
    disturbance.whole_us = recorder.now_us();
    Ok(disturbance)
}

/// A fault being done.
struct Scene<'a> {
    site: &'a mut Site,
    random: &'a mut SmallRng,
    disturbance: &'a mut Disturbance,
}

impl Scene<'_> {
    async fn play(&mut self, fault: Fault) -> anyhow::Result<()> {
        let order = self.nodes();
        let (one, other) = (order[0], order[1]);
        match fault {
            Fault::KillOne => self.kill(&order[..1]).await,
            Fault::KillSeveral => {
                let count = self.random.random_range(2..order.len());
                self.kill(&order[..count]).await;
            }
            Fault::KillAll => self.kill(&order).await,
            Fault::Freeze => {
                self.site.node(one).freeze();
                self.hold().await;
                self.site.node(one).thaw();
            }
            Fault::FreezeAndKill => {
                self.site.node(one).freeze();
                self.kill(&[other]).await;
                self.site.node(one).thaw();
            }
            Fault::SplitHalves => self.split(&order, order.len() / 2).await,
            Fault::SplitAndKill => {
                self.cut_between(&order, order.len() / 2);
                self.site.node(one).kill();
                self.hold().await;
                self.site.network().heal();
                self.site.node(one).start();
            }
            Fault::Isolate => self.split(&order, 1).await,
            Fault::Ring => self.ring(&order).await,
            Fault::OneWay => {
                self.disturbance.cut.push((one, other));
                self.site.network().cut_one_way(self.site.place(one), self.site.place(other));
                self.hold().await;
                self.site.network().heal();
            }
            Fault::SlowLinks => self.slow_links(&order).await?,
            Fault::LossyLink => self.lossy_link(one, &order).await?,
            Fault::Move => {
                self.site.node(one).kill();
                self.site.move_node(one)?;
                self.hold().await;
                self.site.node(one).start();
            }
            Fault::Wipe => {
                let node = self.with_own_directory(&order);
                self.site.node(node).kill();
                self.site.node(node).wipe();
                self.site.node(node).start();
            }
            Fault::OldCopy => self.put_back_old_copy(&order).await?,
            Fault::Clone => self.start_clone(&order).await?,
            Fault::DiskFull => {
                self.site.volume().fill();
                self.hold().await;
                self.site.volume().remount("size=4g");
            }
            Fault::FlipInFile => self.flip(one, "mneme.db", 0)?,
            Fault::FlipInLog => self.flip(one, "mneme.db-wal", LOG_HEADER)?,
            Fault::ClockMoved => {
                let offset_ms = self.some_clock_offset_ms();
                self.site.set_clock(one, offset_ms)?;
                self.hold().await;
                self.site.set_clock(one, 0)?;
            }
            Fault::ClockWrongAtStart => self.start_with_wrong_clock(one, &order).await?,
            Fault::RollingRestart => self.rolling_restart().await?,
            Fault::DiscoveryEmptied => self.wrong_discovery(one, "# nobody is left\n").await?,
            Fault::DiscoveryWrong => {
                self.wrong_discovery(one, "127.0.0.1:9\nnot a host name at all\n198.18.0.1:0\n").await?;
            }
        }
        Ok(())
    }

    /// The nodes in some order.
    fn nodes(&mut self) -> Vec<usize> {
        let mut nodes: Vec<usize> = (0..self.site.len()).collect();
        nodes.shuffle(self.random);
        nodes
    }

    /// The first of them whose directory can be exchanged.
    fn with_own_directory(&self, order: &[usize]) -> usize {
        *order.iter().find(|node| **node != SMALL_VOLUME).expect("more than one node")
    }

    async fn hold(&mut self) {
        let ms = self.random.random_range(HOLD_MS);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    fn some_clock_offset_ms(&mut self) -> i64 {
        let ms = self.random.random_range(CLOCK_MS);
        if self.random.random() { ms } else { -ms }
    }

    async fn kill(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.site.node(*node).kill();
        }
        if nodes.len() < self.site.len() {
            self.hold().await;
        }
        for node in nodes {
            self.site.node(*node).start();
        }
    }

    fn cut_between(&mut self, order: &[usize], left: usize) {
        let (left, right) = order.split_at(left);
        self.disturbance.cut.extend(left.iter().flat_map(|one| right.iter().map(|other| (*one, *other))));
        let places = |nodes: &[usize]| nodes.iter().map(|node| self.site.place(*node)).collect::<Vec<_>>();
        self.site.network().split(&places(left), &places(right));
    }

    /// Nothing is promised between a node and the others while this lasts.
    fn excuse_all_of(&mut self, node: usize, order: &[usize]) {
        let others = order.iter().filter(|other| **other != node);
        self.disturbance.cut.extend(others.map(|other| (node, *other)));
    }

    async fn split(&mut self, order: &[usize], left: usize) {
        self.cut_between(order, left);
        self.hold().await;
        self.site.network().heal();
    }

    async fn ring(&mut self, order: &[usize]) {
        for (position, one) in order.iter().enumerate() {
            for (distance, other) in order.iter().enumerate().skip(position + 1) {
                let apart = distance - position;
                if apart != 1 && apart != order.len() - 1 {
                    self.disturbance.cut.push((*one, *other));
                    self.site.network().cut(self.site.place(*one), self.site.place(*other));
                }
            }
        }
        self.hold().await;
        self.site.network().heal();
    }

    async fn slow_links(&mut self, order: &[usize]) -> anyhow::Result<()> {
        let slow = &order[..self.random.random_range(1..=order.len())];
        for node in slow {
            self.site.set_link(*node, Badness { delay_ms: 20, jitter_ms: 80, ..Badness::default() })?;
        }
        self.hold().await;
        slow.iter().try_for_each(|node| self.site.set_link(*node, Badness::default()))
    }

    /// So bad that contact may be lost for a second: what is cut is not promised anything.
    async fn lossy_link(&mut self, node: usize, order: &[usize]) -> anyhow::Result<()> {
        self.excuse_all_of(node, order);
        let lossy =
            Badness { delay_ms: 5, jitter_ms: 20, lost_per_mille: 50, resend_ms: 400, broken_per_myriad: 20 };
        self.site.set_link(node, lossy)?;
        self.hold().await;
        self.site.set_link(node, Badness::default())
    }

    async fn put_back_old_copy(&mut self, order: &[usize]) -> anyhow::Result<()> {
        let node = self.with_own_directory(order);
        self.site.node(node).kill();
        let copy = self.site.copy_data(node);
        self.site.node(node).start();
        self.site.wait_whole().await?;
        self.hold().await;
        self.site.node(node).kill();
        self.site.node(node).wipe();
        copy.copy_data_to(self.site.node(node));
        copy.wipe();
        self.site.node(node).start();
        Ok(())
    }

    async fn start_clone(&mut self, order: &[usize]) -> anyhow::Result<()> {
        let node = self.with_own_directory(order);
        let code = self.site.node(node).terminate().await;
        ensure!(code == 0, "node {node} exited {code} when it was asked to stop");
        let mut clone = self.site.clone_node(node);
        self.site.node(node).start();
        self.site.wait_whole().await?;
        clone.start();
        let code = clone.exit_code().await;
        ensure!(code == 1, "a clone of a living node exited {code}, not 1");
        clone.wipe();
        Ok(())
    }

    fn flip(&mut self, node: usize, file: &str, from: u64) -> anyhow::Result<()> {
        self.site.node(node).kill();
        self.site.flip_byte(node, file, from, self.random.next_u64())?;
        self.site.node(node).start();
        Ok(())
    }

    async fn start_with_wrong_clock(&mut self, node: usize, order: &[usize]) -> anyhow::Result<()> {
        self.disturbance.wrong_clock = Some(node);
        self.excuse_all_of(node, order);
        self.site.node(node).kill();
        let offset_ms = self.some_clock_offset_ms();
        self.site.set_clock(node, offset_ms)?;
        self.site.node(node).start();
        self.hold().await;
        self.site.set_clock(node, 0)
    }

    async fn rolling_restart(&mut self) -> anyhow::Result<()> {
        for node in 0..self.site.len() {
            let code = self.site.node(node).terminate().await;
            ensure!(code == 0, "node {node} exited {code} when it was asked to stop");
            self.site.node(node).start();
            self.site.wait_whole().await?;
        }
        Ok(())
    }

    async fn wrong_discovery(&mut self, node: usize, text: &str) -> anyhow::Result<()> {
        self.site.name(text)?;
        self.hold().await;
        self.site.node(node).kill();
        self.site.node(node).start();
        // It knows from its file where the others are, and that is enough.
        wait_for(Duration::from_secs(60), "a node without a source is ready", async || {
            self.site.node(node).is_ready().await.then_some(())
        })
        .await;
        self.hold().await;
        self.site.name_peers()
    }
}
