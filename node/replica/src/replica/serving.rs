//! The tick, and when this node may serve.
//!
//! One rule: whoever does not hold up acknowledgements does not serve while it can be told.

use std::collections::BTreeSet;

use super::Replica;
use crate::effect::{Effect, Meta, Notice};
use crate::id::NodeId;
use crate::limits::{
    DELTA_AFTER_MS, DIGEST_STEP_MS, EMPTY_JOIN_MS, EXPIRED_KEPT_MS, HEARTBEAT_MS, RETIRE_AFTER_MS,
    SUSPECT_AFTER_MS, TICK_STALE_MS, WALL_STEP_MS,
};
use crate::membership::{Exchange, Member};
use crate::message::Message;
use crate::status::{MemberState, MemberStatus, NodeState, Status, TableStatus};
use crate::time::{ClockSample, PeerClocks, signed};

impl Replica {
    /// A process that did not run must hear from every member in reach before it serves, and
    /// suspects nobody for the time in which it could not listen.
    pub(super) fn notice_stall(&mut self) {
        if self.boot_ms.saturating_sub(self.last_tick_boot_ms) <= TICK_STALE_MS {
            return;
        }
        self.last_tick_boot_ms = self.boot_ms;
        let peers = self.peers_in_contact();
        for peer in peers {
            if let Some(member) = self.members.get_mut(&peer) {
                member.last_contact_boot_ms = Some(self.boot_ms);
                // What waited in our sockets proves nothing about who is alive now.
                member.successor = None;
                member.is_duplicated = false;
            }
            self.ask_exchange(peer);
        }
        self.update_gate();
    }

    pub(super) fn tick(&mut self, now: ClockSample) {
        let (was_in_doubt, before_ms) = (self.time.is_in_doubt(), self.now_ms);
        // A step that was followed is another clock; whoever agreed with it says so again with the next heartbeat.
        self.is_clock_confirmed &= !self.time.observe(now, self.peer_clocks(now));
        self.now_ms = self.time.at(self.boot_ms);
        self.notice_step_back(before_ms);
        if self.time.is_in_doubt() && !was_in_doubt {
            self.notice(Notice::WallStepped);
        }
        self.suspect();
        self.expire_pending();
        self.retry_deferred(true);
        self.drop_stalled_deltas();
        self.ask_late_deltas();
        self.retry_full_volume();
        self.send_acks();
        if self.boot_ms.saturating_sub(self.last_heartbeat_boot_ms) >= HEARTBEAT_MS {
            self.last_heartbeat_boot_ms = self.boot_ms;
            self.beat();
        }
        self.finish_join();
        self.sweep();
        self.remember_members();
        self.finish_drain();
        self.update_gate();
        self.last_tick_boot_ms = self.boot_ms;
        self.gate.tick(self.boot_ms, self.time.offset_ms());
    }

    /// Node time went back from `before_ms`: what was swept and refused as expired meanwhile may not have been.
    fn notice_step_back(&mut self, before_ms: u64) {
        let back_ms = before_ms.saturating_sub(self.now_ms);
        if back_ms <= WALL_STEP_MS {
            return;
        }
        self.swept_step = self.swept_step.min(self.now_ms / DIGEST_STEP_MS);
        self.digest_sent_step = self.digest_sent_step.min(self.swept_step);
        self.tables.unsweep(self.now_ms);
        // Rows stay for a while after they expire: only a longer step can have cost any.
        if back_ms + DIGEST_STEP_MS > EXPIRED_KEPT_MS {
            let peers = self.peers_in_contact();
            self.lacks_from.extend(&peers);
            self.lacks_until_met = peers.is_empty();
            for peer in peers {
                self.ask_exchange(peer);
            }
        }
    }

    /// A peer that was to be asked for everything is gone. What it would have brought comes from whoever comes next.
    pub(super) fn stop_asking(&mut self, peer: NodeId) {
        if self.lacks_from.remove(&peer) && self.lacks_from.is_empty() {
            self.lacks_until_met = true;
        }
    }

    /// What the others' clocks say of a wall clock that stepped: it is right when it is near a peer's node time, or
    /// near a peer's wall clock, for what all machines of a site are told at once moves all their wall clocks.
    fn peer_clocks(&self, now: ClockSample) -> PeerClocks {
        let wall_offset_ms = signed(now.wall_ms) - signed(now.boot_ms);
        let is_near = |offset_ms: i64| wall_offset_ms.abs_diff(offset_ms) <= WALL_STEP_MS;
        let mut clocks = PeerClocks::Alone;
        for member in self.members.values().filter(|member| member.is_in_contact) {
            // Against a boot time of zero the skew is the member's node time less our boot time.
            let Some(node_offset_ms) = member.skew_ms(0) else { continue };
            if is_near(node_offset_ms) || member.wall_offset_ms().is_some_and(is_near) {
                return PeerClocks::AgreeWithWall;
            }
            clocks = PeerClocks::Disagree;
        }
        clocks
    }

    /// Lets go of members that were not heard for a second: writes no longer wait for them.
    fn suspect(&mut self) {
        let boot_ms = self.boot_ms;
        let mut lost = Vec::new();
        for (peer, member) in &mut self.members {
            if member.silence_ms(boot_ms) > SUSPECT_AFTER_MS && (member.is_in_contact || member.is_counted) {
                member.lose(boot_ms);
                lost.push(*peer);
            }
        }
        for peer in &lost {
            self.stop_asking(*peer);
            for member in self.members.values_mut() {
                member.called_live_by.remove(peer);
            }
            self.notice(Notice::PeerSuspect { peer: *peer });
        }
        let in_contact = self.members.values().filter(|member| member.is_in_contact);
        let taken: BTreeSet<String> = in_contact.map(|member| member.address.clone()).collect();
        self.retire(|_, member| {
            let is_long_gone = |since| boot_ms.saturating_sub(since) >= RETIRE_AFTER_MS;
            // Another id may have answered at its address while it still counted as live.
            member.down_since_boot_ms.is_some_and(is_long_gone)
                || !member.address.is_empty() && taken.contains(&member.address)
        });
        if !lost.is_empty() {
            self.settle();
        }
    }

    fn beat(&mut self) {
        let boot_ms = self.boot_ms;
        let peers: Vec<NodeId> = self
            .members
            .iter()
            .filter(|(_, member)| member.origin.is_some())
            .map(|(peer, _)| *peer)
            .collect();
        for peer in peers {
            self.send_heartbeat(peer);
            let Some(member) = self.members.get_mut(&peer) else { continue };
            // A refusal stands while rows are refused; a clock that was set right is taken again.
            let refused_ms = member.clock_refused_boot_ms.map(|since| boot_ms.saturating_sub(since));
            let is_old = refused_ms.is_some_and(|refused_ms| refused_ms > SUSPECT_AFTER_MS);
            if is_old && !member.is_delta_refused {
                member.clock_refused_boot_ms = None;
            }
            let is_overdue = match member.exchange {
                Exchange::Needed => member.is_in_contact,
                Exchange::Asked(ref asked) => {
                    let is_recent = |(_, since): &(u64, u64)| boot_ms.saturating_sub(*since) < HEARTBEAT_MS;
                    member.is_in_contact && !asked.iter().any(is_recent)
                }
                Exchange::Approach(_) | Exchange::CatchUp(_) | Exchange::Done => false,
            };
            if is_overdue {
                self.ask_exchange_again(peer);
            } else if matches!(member.exchange, Exchange::CatchUp(_)) {
                // Not at once: most of what it lacks is under way.
                self.ask_delta(peer);
            }
        }
    }

    fn ask_late_deltas(&mut self) {
        let due = self.boot_ms.saturating_sub(DELTA_AFTER_MS);
        let mut peers = Vec::new();
        for (peer, member) in &mut self.members {
            if self.applied.dominates(&member.vector) {
                // The pushes came after the heartbeat that spoke of them; what was refused came another way, or is gone.
                member.ahead_since_boot_ms = None;
                member.is_delta_refused = false;
            }
            // Whoever is approached is asked in turn.
            let is_approached = matches!(member.exchange, Exchange::Approach(_));
            let is_due = member.ahead_since_boot_ms.is_some_and(|since| since <= due);
            if member.is_in_contact && is_due && !is_approached {
                peers.push(*peer);
            }
        }
        for peer in peers {
            self.ask_delta(peer);
        }
    }

    /// Whether reads and writes may be answered now.
    fn may_serve(&self) -> bool {
        let is_caught_up = |member: &Member| {
            !member.is_in_contact || self.lacks_from.is_empty() && self.has_caught_up_with(member)
        };
        let is_far_behind = self.deltas.values().any(super::delta::Delta::is_large);
        self.join.is_done
            && !self.is_drained
            && !is_far_behind
            && !self.is_clock_contradicted()
            && self.members.values().all(is_caught_up)
    }

    pub(super) fn update_gate(&mut self) {
        self.catch_up_exchanges();
        let may_serve = self.may_serve();
        if may_serve != self.gate.is_open() {
            self.gate.set_open(may_serve);
            let reason = if self.is_drained {
                "stopping"
            } else if self.is_clock_contradicted() {
                "its clock is not the others'"
            } else {
                "catching up"
            };
            self.notice(if may_serve { Notice::Ready } else { Notice::Unready { reason } });
        }
    }

    /// Whether `/readyz` answers 200.
    pub fn is_ready(&self) -> bool {
        // A full volume is no reason to be unready while nobody else can write either.
        let others = || self.members.values().any(|member| member.is_in_contact && member.is_ready);
        let is_out_of_space = self.is_read_only() && others();
        let is_clock_in_order = !self.is_clock_wrong() && !self.time.is_in_doubt();
        self.may_serve() && is_clock_in_order && !self.is_draining && !is_out_of_space
    }

    fn finish_join(&mut self) {
        if !self.join.is_done && self.may_finish_join() {
            self.join.is_done = true;
        }
    }

    /// DESIGN.md, "Start and join".
    fn may_finish_join(&self) -> bool {
        let join = &self.join;
        let was_alone = join.has_met_anyone && join.last_live.is_empty();
        let is_source_named = join.discovered.as_ref().map(|(_, is_configured, _)| *is_configured);
        let nobody_named = !join.has_met_anyone && is_source_named == Some(false);
        if was_alone || nobody_named {
            return self.members.values().all(|member| !member.is_in_contact || self.has_merged_with(member));
        }
        let is_pending = |member: &Member| {
            !self.has_caught_up_with(member) && (member.is_in_contact || !member.called_live_by.is_empty())
        };
        if self.members.values().any(is_pending) && !self.is_join_time_over() {
            return false;
        }
        let merged: BTreeSet<NodeId> = self
            .members
            .iter()
            .filter(|(_, member)| self.has_merged_with(member))
            .map(|(node, _)| *node)
            .collect();
        let voters = join.last_live.len() + 1;
        let votes = join.last_live.intersection(&merged).count() + 1;
        let is_majority = votes * 2 > voters && !merged.is_empty();
        is_majority || (merged.is_empty() || !join.last_live.is_empty()) && self.is_join_time_over()
    }

    /// Whether a new process holds what a member held, and knows what time that goes by: else it might serve by a clock
    /// that it was started with and that nobody shares.
    fn has_merged_with(&self, member: &Member) -> bool {
        self.has_caught_up_with(member) && member.is_clock_known()
    }

    /// Whether every known address was tried in vain for as long as was asked.
    fn is_join_time_over(&self) -> bool {
        let Some((_, is_configured, is_complete)) = &self.join.discovered else { return false };
        let waited_ms = self.boot_ms - self.started_boot_ms;
        let asked_ms = self.settings.join_timeout_ms;
        // An answer of DNS that has not come is no trial; a source that never answers must not hold a node up for ever.
        let may_learn_more = *is_configured && !*is_complete;
        let least_ms =
            if self.join.is_empty || may_learn_more { asked_ms.max(EMPTY_JOIN_MS) } else { asked_ms };
        let is_unanswered = |address: &String| {
            let is_answered = self.members.values().any(|member| {
                member.is_in_contact && member.address == *address && self.has_caught_up_with(member)
            });
            is_answered || self.join.failed.contains(address)
        };
        waited_ms >= least_ms && self.known_addresses().iter().all(is_unanswered)
    }

    fn known_addresses(&self) -> BTreeSet<String> {
        let mut addresses: BTreeSet<String> = self
            .members
            .values()
            .map(|member| member.address.clone())
            .filter(|address| !address.is_empty())
            .collect();
        if let Some((discovered, _, _)) = &self.join.discovered {
            addresses.extend(discovered.iter().cloned());
        }
        addresses.remove(&self.settings.address);
        addresses
    }

    /// Keeps the transport and the file informed of who the members are.
    fn remember_members(&mut self) {
        if self.is_drained {
            // It has said goodbye and hears nobody: that must not look at the next start as if it had been alone.
            return;
        }
        let address = |(node, member): (&NodeId, &crate::membership::Member)| {
            (!member.address.is_empty()).then(|| (member.address.clone(), Some(*node)))
        };
        let dialled: Vec<(String, Option<NodeId>)> = self.members.iter().filter_map(address).collect();
        if dialled != self.join.dialled {
            self.join.dialled.clone_from(&dialled);
            self.effects.push(Effect::Dial { addresses: dialled });
        }
        let mut members = self.member_infos();
        for member in &mut members {
            // Liveness is in `last_live`; here it would only make the file change with every blink.
            member.is_live = false;
        }
        let last_live = if self.join.is_done && !self.is_read_only() {
            self.members.iter().filter(|(_, member)| member.is_counted).map(|(node, _)| *node).collect()
        } else {
            // Whoever was met counts as live until we have merged: a joining node that is killed
            // must not take itself for one that was alone, and serve its empty file. The same while
            // the volume is full: others hold what the file lacks.
            self.join
                .last_live
                .iter()
                .chain(&self.meta.last_live)
                .chain(self.members.keys())
                .copied()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect()
        };
        let has_met_anyone = self.meta.has_met_anyone || !members.is_empty();
        let meta = Meta { members, last_live, tables: self.tables.infos(), has_met_anyone };
        if meta != self.meta {
            self.meta = meta.clone();
            self.effects.push(Effect::PersistMeta(meta));
        }
    }

    fn finish_drain(&mut self) {
        if !self.is_draining || self.is_drained {
            return;
        }
        let is_handed_over = |member: &Member| {
            !member.is_in_contact || member.refuses_clock() || member.applied >= self.sequence
        };
        if self.pending.len() > 0
            || !self.unpersisted.is_empty()
            || !self.members.values().all(is_handed_over)
        {
            return;
        }
        self.is_drained = true;
        let peers: Vec<NodeId> = self.members.keys().copied().collect();
        for peer in peers {
            self.send(peer, Message::Goodbye);
        }
        self.effects.push(Effect::Drained);
    }

    /// A look at the whole replica, for the status page and metrics.
    pub fn status(&self) -> Status {
        let state = if self.is_draining {
            NodeState::Draining
        } else if self.is_read_only() {
            NodeState::ReadOnly
        } else if self.is_ready() {
            NodeState::Ready
        } else if self.members.values().any(|member| member.is_in_contact) {
            NodeState::Joining
        } else {
            NodeState::Starting
        };
        let tables = self.tables.iter().map(|(name, state)| TableStatus {
            name: name.clone(),
            kind: state.table.kind(),
            live: state.counted.live,
            tombstones: state.tombstones,
            bytes: state.counted.live_bytes,
            expired: state.counted.expired,
            expired_bytes: state.counted.expired_bytes,
        });
        Status {
            origin: self.settings.origin,
            state,
            is_ready: self.is_ready(),
            now_ms: self.now_ms,
            members: self.member_statuses(),
            tables: tables.collect(),
            features: self.settings.features.iter().filter(|name| self.is_agreed(name)).cloned().collect(),
            writes_in_flight: self.pending.len(),
            counters: self.counters,
        }
    }

    fn member_statuses(&self) -> Vec<MemberStatus> {
        let myself = MemberStatus {
            node: self.settings.origin.node,
            name: self.settings.name.clone(),
            address: self.settings.address.clone(),
            state: MemberState::Myself,
            lag_writes: 0,
            lag_ms: Some(0),
            last_contact_ms: Some(0),
            skew_ms: 0,
            digest: crate::status::DigestState::Equal,
            outbox_bytes: 0,
        };
        let others =
            self.members.iter().map(|(node, member)| (node, member, member.vector.lag_behind(&self.applied)));
        let others = others.map(|(node, member, lag_writes)| MemberStatus {
            node: *node,
            name: member.name.clone(),
            address: member.address.clone(),
            state: match (member.is_in_contact, member.is_ready) {
                (true, true) => MemberState::Live,
                (true, false) => MemberState::Joining,
                (false, _) if member.origin.is_some() => MemberState::Suspect,
                (false, _) => MemberState::Down,
            },
            lag_writes,
            lag_ms: if lag_writes == 0 { Some(0) } else { member.held.lag_ms(self.boot_ms) },
            last_contact_ms: member.last_contact_boot_ms.map(|heard| self.boot_ms.saturating_sub(heard)),
            skew_ms: member.skew_ms(self.time.offset_ms()).unwrap_or(0),
            digest: member.digest,
            outbox_bytes: member.outbox_bytes,
        });
        std::iter::once(myself).chain(others).collect()
    }
}
