//! Greetings, heartbeats, exchanges: who is a member, who is in contact, who is counted on.

use super::Replica;
use crate::effect::{Effect, Notice};
use crate::event::ConnectionId;
use crate::id::{NodeId, Origin};
use crate::limits::{
    BURY_MARGIN_MS, DUPLICATE_PROOF_MS, DUPLICATE_SILENCE_MS, MEMBERS_MAX, SKEW_REPORTED_MS,
    SUSPECT_AFTER_MS, VERSION_AHEAD_MS_MAX,
};
use crate::membership::{Exchange, Member};
use crate::message::{Heartbeat, Hello, MemberInfo, Message, Refusal, TableInfo};
use crate::version_vector::VersionVector;

/// Answers with which a member catches up before it is counted on in any case: whose queue overflows all the time would
/// never be, and it is the waiting of the writers that ends that.
const APPROACHES_MAX: u32 = 4;

impl Replica {
    pub(super) fn greeted(&mut self, connection: ConnectionId, hello: Hello, dialled: Option<String>) {
        let verdict = self.judge(&hello);
        if let Some(address) = &dialled {
            self.join.failed.remove(address);
        }
        if let Err(refusal) = &verdict {
            if *refusal != Refusal::Myself {
                let address = dialled.unwrap_or_else(|| hello.address.clone());
                self.notice(Notice::PeerRefused { address, refusal: refusal.clone() });
            }
            self.effects.push(Effect::Verdict { connection, verdict: Err(refusal.clone()) });
            return;
        }
        self.take_member_in(&hello, dialled);
        let verdict = Ok(self.hello());
        self.effects.push(Effect::Verdict { connection, verdict });
    }

    fn judge(&mut self, hello: &Hello) -> Result<(), Refusal> {
        let mine = self.settings.origin;
        if hello.origin == mine {
            return Err(Refusal::Myself);
        }
        if hello.cluster != self.settings.cluster {
            let (ours, theirs) = (self.settings.cluster.clone(), hello.cluster.clone());
            return Err(Refusal::Cluster { ours, theirs });
        }
        if hello.protocol.0 > 1 || hello.protocol.1 < 1 {
            return Err(Refusal::Protocol { ours: (1, 1), theirs: hello.protocol });
        }
        if hello.origin.node == mine.node {
            return Err(self.meet_double(hello));
        }
        let is_other_kind = |info: &&TableInfo| {
            self.tables.get(&info.name).is_some_and(|state| state.table.kind() != info.kind)
        };
        if let Some(info) = hello.tables.iter().find(is_other_kind) {
            return Err(Refusal::TableKind { table: info.name.to_string() });
        }
        // Not before: as long as it answers reads it has to be told what it missed.
        if self.is_drained {
            return Err(Refusal::Stopping);
        }
        self.judge_successor(hello)?;
        if !self.members.contains_key(&hello.origin.node) && self.members.len() + 1 >= MEMBERS_MAX {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    /// Another live process has our id: of the two the younger goes. It must not tell the elder that it is the double, for
    /// whoever is told that ends.
    fn meet_double(&mut self, hello: &Hello) -> Refusal {
        let refusal = Refusal::DuplicateId { node: hello.origin.node };
        let uptime_ms = self.boot_ms - self.started_boot_ms;
        if (hello.uptime_ms, hello.origin.epoch) > (uptime_ms, self.settings.origin.epoch) {
            self.effects.push(Effect::Exit { refusal });
            return Refusal::Stopping;
        }
        refusal
    }

    /// A new process of a known member: a restart once its predecessor is silent, a double when the
    /// predecessor speaks after it.
    fn judge_successor(&mut self, hello: &Hello) -> Result<(), Refusal> {
        let node = hello.origin.node;
        let boot_ms = self.boot_ms;
        let Some(member) = self.members.get_mut(&node) else { return Ok(()) };
        let is_other_process = member.origin.is_some_and(|origin| origin != hello.origin);
        let is_silent = member.silence_ms(boot_ms) >= DUPLICATE_SILENCE_MS;
        if !is_other_process || !member.is_in_contact || is_silent {
            return Ok(());
        }
        if member.is_duplicated && member.successor.is_some_and(|(origin, _)| origin == hello.origin) {
            return Err(Refusal::DuplicateId { node });
        }
        if member.successor.is_none_or(|(origin, _)| origin != hello.origin) {
            member.successor = Some((hello.origin, boot_ms));
            member.is_duplicated = false;
        }
        Err(Refusal::Predecessor { node })
    }

    fn take_member_in(&mut self, hello: &Hello, dialled: Option<String>) {
        let node = hello.origin.node;
        let boot_ms = self.boot_ms;
        for info in &hello.tables {
            // Kinds were compared by `judge`.
            let _ = self.tables.know(info);
        }
        let member = self.members.entry(node).or_default();
        let was_in_contact = member.is_in_contact && member.origin == Some(hello.origin);
        member.greet(hello, boot_ms);
        if !was_in_contact {
            member.pushed_from = self.sequence;
        }
        if member.address.is_empty() {
            member.address = dialled.unwrap_or_default();
        }
        let address = member.address.clone();
        // An address that another id answers: whoever had it is retired.
        self.retire(|other, member| other != node && !address.is_empty() && member.address == address);
        self.learn(node, &hello.members);
        if !was_in_contact {
            self.notice(Notice::PeerLive { peer: node });
            if std::mem::take(&mut self.lacks_until_met) {
                self.lacks_from.insert(node);
            }
            self.spare_expired();
            self.ask_exchange(node);
            self.send_heartbeat(node);
        }
    }

    pub(super) fn retire(&mut self, mut is_retired: impl FnMut(NodeId, &Member) -> bool) {
        let retired: Vec<NodeId> = self
            .members
            .iter()
            .filter(|(node, member)| !member.is_in_contact && is_retired(**node, member))
            .map(|(node, _)| *node)
            .collect();
        for peer in retired {
            self.members.remove(&peer);
            self.notice(Notice::PeerRetired { peer });
            // It may be the wrong one of two: the last words of a dead process make it look alive for a second more.
            // A link that is still up is made anew, so that whoever lives is greeted again.
            self.effects.push(Effect::Disconnect { peer });
        }
    }

    /// Learns of members from a peer, so that the mesh becomes full, and whom it calls live now.
    fn learn(&mut self, teller: NodeId, infos: &[MemberInfo]) {
        let boot_ms = self.boot_ms;
        for member in self.members.values_mut() {
            member.called_live_by.remove(&teller);
        }
        for info in infos {
            if info.node == self.settings.origin.node {
                continue;
            }
            if !self.members.contains_key(&info.node)
                && (!info.is_live || self.members.len() + 1 >= MEMBERS_MAX)
            {
                // The dead are not learned: they would never be forgotten.
                continue;
            }
            let member = self.members.entry(info.node).or_insert_with(|| Member::known(info, boot_ms));
            if info.is_live {
                member.called_live_by.insert(teller);
            }
        }
    }

    pub(super) fn refused(&mut self, address: String, refusal: Refusal) {
        match refusal {
            Refusal::DuplicateId { node } if node == self.settings.origin.node => {
                self.effects.push(Effect::Exit { refusal });
                return;
            }
            // An answer, if a late one: not a failed trial.
            Refusal::Predecessor { .. } => return,
            Refusal::Myself
            | Refusal::Cluster { .. }
            | Refusal::Protocol { .. }
            | Refusal::TableKind { .. }
            | Refusal::DuplicateId { .. }
            | Refusal::Full
            | Refusal::Stopping => {}
        }
        self.join.failed.insert(address.clone());
        if refusal != Refusal::Myself {
            self.notice(Notice::PeerRefused { address, refusal });
        }
    }

    /// Notes that a member's process speaks; contact that was lost is found again by an exchange.
    pub(super) fn heard_from(&mut self, peer: NodeId) {
        let boot_ms = self.boot_ms;
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.is_duplicated |=
            member.successor.is_some_and(|(_, since)| boot_ms.saturating_sub(since) >= DUPLICATE_PROOF_MS);
        member.last_contact_boot_ms = Some(boot_ms);
        if !member.is_in_contact {
            member.is_in_contact = true;
            member.down_since_boot_ms = None;
            member.pushed_from = self.sequence;
            self.notice(Notice::PeerLive { peer });
            self.ask_exchange(peer);
        }
    }

    /// Begins an exchange: contact was lost, on this side or the other.
    pub(super) fn ask_exchange(&mut self, peer: NodeId) {
        if let Some(member) = self.members.get_mut(&peer) {
            member.approaches = 0;
            self.ask_exchange_again(peer);
        }
    }

    /// Goes on with an exchange; not while this disk has to take in a delta first.
    pub(super) fn ask_exchange_again(&mut self, peer: NodeId) {
        let nonce = self.next_number();
        let (boot_ms, is_storing) = (self.boot_ms, self.is_storing_delta());
        let Some(member) = self.members.get_mut(&peer) else { return };
        if is_storing {
            member.exchange = Exchange::Needed;
            return;
        }
        let mut asked = match std::mem::take(&mut member.exchange) {
            Exchange::Asked(asked) => asked,
            Exchange::Needed | Exchange::Approach(_) | Exchange::CatchUp(_) | Exchange::Done => Vec::new(),
        };
        asked.retain(|(_, since)| boot_ms.saturating_sub(*since) <= SUSPECT_AFTER_MS);
        asked.push((nonce, boot_ms));
        member.exchange = Exchange::Asked(asked);
        let (vector, approaches) = (self.applied.certain(), member.approaches);
        self.send(peer, Message::Exchange { nonce, vector, approaches });
    }

    /// Answers an exchange, and counts on who asks unless what it lacks is not under way: its writes here would wait for a
    /// delta, and every member stand still while one of them is brought a million records.
    pub(super) fn exchange(&mut self, peer: NodeId, nonce: u64, theirs: &VersionVector, approaches: u32) {
        let vector = self.applied.certain();
        let sequence = self.sequence;
        let held = theirs.contiguous(self.settings.origin);
        let Some(member) = self.members.get_mut(&peer) else { return };
        let lacks_little = approaches > 0 && held >= member.pushed_from || theirs.dominates(&vector);
        // Counted first: from here on nothing is acknowledged without it, and what was
        // acknowledged before is in the vector that it gets.
        if !member.is_counted && (lacks_little || approaches >= APPROACHES_MAX) {
            member.is_counted = true;
            member.counted_from = sequence;
        }
        let is_counted = member.is_counted;
        let mut live = self.peers_in_contact();
        live.retain(|node| *node != peer);
        self.send(peer, Message::ExchangeReply { nonce, is_counted, vector, live });
    }

    pub(super) fn exchanged(
        &mut self,
        peer: NodeId,
        nonce: u64,
        is_counted: bool,
        vector: VersionVector,
        live: &[NodeId],
    ) {
        let boot_ms = self.boot_ms;
        let Some(member) = self.members.get_mut(&peer) else { return };
        let is_timely = |(asked, since): &(u64, u64)| {
            *asked == nonce && boot_ms.saturating_sub(*since) <= SUSPECT_AFTER_MS
        };
        if !matches!(&member.exchange, Exchange::Asked(asked) if asked.iter().any(is_timely)) {
            // An answer that took a second may be of a member that has gone on without us since.
            return;
        }
        member.exchange = if is_counted {
            Exchange::CatchUp(vector)
        } else if member.approaches < APPROACHES_MAX {
            Exchange::Approach(vector)
        } else {
            // It should have counted on us: asked again with the next heartbeat.
            Exchange::Needed
        };
        for node in live {
            if let Some(other) = self.members.get_mut(node) {
                other.called_live_by.insert(peer);
            }
        }
        self.catch_up_exchanges();
    }

    /// Goes on with the exchanges whose vectors are held; asks for a delta where nothing else brings what is missing.
    pub(super) fn catch_up_exchanges(&mut self) {
        let is_open =
            |member: &Member| matches!(member.exchange, Exchange::Approach(_) | Exchange::CatchUp(_));
        if !self.members.values().any(is_open) {
            return;
        }
        let (mut near, mut far, mut held) = (Vec::new(), Vec::new(), Vec::new());
        let is_storing = self.is_storing_delta();
        for (peer, member) in &self.members {
            let is_held = |vector| !self.lacks_from.contains(peer) && self.applied.dominates(vector);
            match &member.exchange {
                // What is refused here does not come: writes wait for this node although it lacks that.
                Exchange::Approach(vector) if is_held(vector) || member.is_delta_refused => {
                    near.extend((!is_storing).then_some(*peer));
                }
                Exchange::Approach(_) => far.push(*peer),
                Exchange::CatchUp(vector) if is_held(vector) => held.push(*peer),
                Exchange::Needed | Exchange::Asked(_) | Exchange::CatchUp(_) | Exchange::Done => {}
            }
        }
        for peer in held {
            if let Some(member) = self.members.get_mut(&peer) {
                member.exchange = Exchange::Done;
                member.is_right = false;
            }
        }
        for peer in near {
            if let Some(member) = self.members.get_mut(&peer) {
                member.approaches += 1;
                self.ask_exchange_again(peer);
            }
        }
        // Most of what one brings the others would bring again.
        for peer in far {
            if !self.is_being_brought() {
                self.ask_delta(peer);
            }
        }
    }

    pub(super) fn heartbeat(&mut self, peer: NodeId, heartbeat: Heartbeat) {
        let (boot_ms, mine, offset_ms) = (self.boot_ms, self.settings.origin, self.time.offset_ms());
        for info in &heartbeat.tables {
            // Another kind was refused in the handshake; a table made since is refused at its rows.
            let _ = self.tables.know(info);
        }
        self.learn(peer, &heartbeat.members);
        let is_ahead = !self.applied.dominates(&heartbeat.applied);
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.applied = member.applied.max(heartbeat.applied.contiguous(mine));
        member.durable = member.durable.max(heartbeat.durable.contiguous(mine));
        member.is_commit_stalled = heartbeat.commit_stalled;
        member.note_refusal(heartbeat.refuses_your_clock, boot_ms);
        member.is_ready = heartbeat.is_ready;
        member.is_clock_confirmed = heartbeat.is_clock_confirmed;
        member.is_right |= heartbeat.despite_your_refusal;
        let waits_again = member.leaves_us && !heartbeat.despite_your_refusal;
        member.leaves_us = heartbeat.despite_your_refusal;
        member.ahead_since_boot_ms = is_ahead.then(|| member.ahead_since_boot_ms.unwrap_or(boot_ms));
        member.note_clocks(&heartbeat, boot_ms);
        member.vector = heartbeat.applied;
        member.held.note(&member.vector, &self.applied, boot_ms);
        self.spare_expired();
        let Some(member) = self.members.get_mut(&peer) else { return };
        let skew_ms = member.skew_ms(offset_ms).unwrap_or(0);
        self.is_clock_confirmed |= skew_ms.unsigned_abs() <= VERSION_AHEAD_MS_MAX;
        let is_without_us = heartbeat.acknowledges_without_you
            && matches!(member.exchange, Exchange::Done | Exchange::CatchUp(_));
        if is_without_us || waits_again {
            self.ask_exchange(peer);
        }
        if skew_ms.unsigned_abs() >= SKEW_REPORTED_MS && self.counters.heartbeats.is_multiple_of(64) {
            self.notice(Notice::Skew { peer, skew_ms });
        }
        self.counters.heartbeats += 1;
        self.settle();
    }

    pub(super) fn send_heartbeat(&mut self, peer: NodeId) {
        let Some(member) = self.members.get(&peer) else { return };
        // It refuses what this node writes, so nothing waits for it: as long as most of the others do not, it is told.
        // Not at once: of many who refuse, one says so first.
        let despite_your_refusal = member.has_refused_for_a_while(self.boot_ms) && !self.is_clock_wrong();
        let heartbeat = Heartbeat {
            applied: self.applied.certain(),
            durable: self.durable.certain(),
            node_time_ms: self.now_ms,
            wall_time_ms: self.wall_ms,
            acknowledges_without_you: !member.is_counted || despite_your_refusal,
            despite_your_refusal,
            commit_stalled: self.is_read_only() || self.is_commit_stalled(),
            refuses_your_clock: member.clock_refused_boot_ms.is_some() || self.is_ahead_of_us(member),
            is_ready: self.is_ready(),
            is_clock_confirmed: self.is_clock_confirmed,
            members: self.member_infos(),
            tables: self.tables.infos(),
        };
        self.send(peer, Message::Heartbeat(Box::new(heartbeat)));
    }

    pub(super) fn said_goodbye(&mut self, peer: NodeId) {
        let boot_ms = self.boot_ms;
        if let Some(member) = self.members.get_mut(&peer) {
            member.lose(boot_ms);
            // Its next process is greeted at once.
            member.origin = None;
            member.called_live_by.clear();
        }
        self.stop_asking(peer);
        for member in self.members.values_mut() {
            member.called_live_by.remove(&peer);
        }
        self.effects.push(Effect::Disconnect { peer });
        self.settle();
    }

    /// Whether everything that a member held when it was asked is held here, but for what this node refuses with good
    /// reason: a row from a clock ahead, which no majority can have taken.
    pub(super) fn has_caught_up_with(&self, member: &Member) -> bool {
        match &member.exchange {
            Exchange::Done => true,
            Exchange::CatchUp(_) => member.is_delta_refused && !member.is_right && !self.is_clock_slow(),
            Exchange::Needed | Exchange::Asked(_) | Exchange::Approach(_) => false,
        }
    }

    /// Forgets origins that are no live process's and whose last write nothing can still hold.
    pub(super) fn forget_origins(&mut self) {
        let live: Vec<Origin> = self
            .members
            .values()
            .filter_map(|member| member.origin)
            .chain(std::iter::once(self.settings.origin))
            .collect();
        // Nothing stands longer than a tombstone of that last write, and clocks differ.
        let kept_ms = self.tables.max_age_ever_ms().saturating_add(2 * BURY_MARGIN_MS);
        let oldest_ms = self.now_ms.saturating_sub(kept_ms);
        for vector in [&mut self.applied, &mut self.durable] {
            vector.forget(oldest_ms, |origin| live.contains(&origin));
        }
    }
}
