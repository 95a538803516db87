//! Members and peers, as the nodes themselves see them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use mneme_api::{DigestName, MemberBody, MemberStateName, NodeStateName, StatusBody};

use crate::crd::v1alpha1::{Member, Peer};
use crate::reconcile::fetch::Observed;
use crate::reconcile::plan;
use crate::reconcile::validate::Valid;

/// Skew below this is none.
const SKEW_MS_MIN: i64 = 250;
/// Skew is told in steps, so that a status is not written for every millisecond.
const SKEW_MS_STEP: i64 = 50;
/// Peers in the status, at most.
const PEERS_MAX: usize = 100;

/// One for each pod that is there or should be.
pub fn members(valid: &Valid, observed: &Observed) -> Vec<Member> {
    let names = &valid.names;
    let pods = observed.pods.iter().filter_map(|pod| names.ordinal(&pod.name_any()));
    let ordinals: BTreeSet<i32> = (0..valid.replicas).chain(pods).collect();
    ordinals.into_iter().map(|ordinal| member(valid, observed, &names.pod(ordinal))).collect()
}

/// Statuses of the nodes that answered.
fn answers(observed: &Observed) -> impl Iterator<Item = (&String, &StatusBody)> {
    observed.nodes.iter().filter_map(|(name, answer)| Some((name, answer.as_ref().ok()?)))
}

fn member(valid: &Valid, observed: &Observed, name: &str) -> Member {
    let pod = observed.pods.iter().find(|pod| pod.name_any() == name);
    let answer = observed.nodes.get(name);
    let status = answer.and_then(|answer| answer.as_ref().ok());
    let address = valid.names.address(name);
    let is_it = |member: &&MemberBody| match status {
        Some(status) => member.id == status.node.id,
        None => member.address == address,
    };
    // What the other nodes of the set say of it.
    let views: Vec<(&StatusBody, &MemberBody)> = answers(observed)
        .filter(|(viewer, _)| *viewer != name)
        .filter_map(|(_, viewer)| Some((viewer, viewer.members.iter().find(is_it)?)))
        .collect();
    // What is on its way under load is not behind.
    let lag = |(viewer, member): &(&StatusBody, &MemberBody)| {
        let lacks = if plan::is_level(viewer, member) { 0 } else { member.lag_writes };
        i64::try_from(lacks).unwrap_or(i64::MAX)
    };
    let skew = views.iter().map(|(_, member)| member.skew_ms).max_by_key(|skew| skew.abs());
    let error = trouble(pod, answer.and_then(|answer| answer.as_ref().err()), status, &views);
    Member {
        name: name.to_owned(),
        address,
        id: status.map(|status| status.node.id.clone()),
        ready: pod.is_some_and(plan::is_ready) && error.is_none(),
        version: status.map(|status| status.node.version.clone()),
        lag_writes: views.iter().map(lag).max(),
        digest: digest(&views, status).to_owned(),
        skew_ms: skew.filter(|skew| skew.abs() >= SKEW_MS_MIN).map(|skew| skew / SKEW_MS_STEP * SKEW_MS_STEP),
        last_error: error,
    }
}

/// The worst that anybody says. A node that is alone has nobody to differ from.
fn digest(views: &[(&StatusBody, &MemberBody)], status: Option<&StatusBody>) -> &'static str {
    let is = |digest: DigestName| views.iter().any(|(_, member)| member.digest == digest);
    match views {
        [] if status.is_some_and(|status| status.members.len() == 1) => "equal",
        [] => "unknown",
        _ if is(DigestName::Unequal) => "unequal",
        _ if is(DigestName::Unknown) => "unknown",
        _ => "equal",
    }
}

/// What is wrong with a member; `None` when it is ready and caught up.
fn trouble(
    pod: Option<&Pod>,
    unanswered: Option<&String>,
    status: Option<&StatusBody>,
    views: &[(&StatusBody, &MemberBody)],
) -> Option<String> {
    let Some(pod) = pod else { return Some("there is no pod".to_owned()) };
    if pod.metadata.deletion_timestamp.is_some() {
        return Some("the pod is being deleted".to_owned());
    }
    if let Some(why) = plan::trouble(pod) {
        return Some(why);
    }
    let state = status.map(|status| status.node.state);
    if !plan::is_ready(pod) {
        return Some(match state {
            Some(NodeStateName::Joining) => "it is catching up".to_owned(),
            Some(NodeStateName::Draining) => "it is stopping".to_owned(),
            Some(NodeStateName::ReadOnly) => "its volume is full: it takes no writes".to_owned(),
            _ => unanswered
                .map_or_else(|| "it is starting".to_owned(), |error| format!("it does not answer: {error}")),
        });
    }
    match state {
        Some(NodeStateName::Ready) => {}
        Some(NodeStateName::ReadOnly) => return Some("its volume is full: it takes no writes".to_owned()),
        Some(_) => return Some("it is not ready by its own word".to_owned()),
        None => {
            let error = unanswered.map_or("it was not asked", String::as_str);
            return Some(format!("its status is unknown, the admin port does not answer: {error}"));
        }
    }
    let apart = views.iter().find(|(viewer, member)| {
        viewer.node.state == NodeStateName::Ready
            && !matches!(member.state, MemberStateName::Live | MemberStateName::Myself)
    });
    apart.map(|(viewer, _)| format!("{} is not in contact with it", viewer.node.name))
}

/// A node outside, as those of the set know it.
#[derive(Default)]
struct Met<'a> {
    is_live: bool,
    /// What it advertises.
    address: &'a str,
    /// That, and where it was dialled.
    addresses: BTreeSet<&'a str>,
}

/// Peers outside: what the sources name, and whom nodes met without being told.
pub fn peers(valid: &Valid, observed: &Observed) -> Vec<Peer> {
    let own: BTreeSet<String> = answers(observed).map(|(_, status)| status.node.id.clone()).collect();
    let own_pods = observed.pods.iter().map(ResourceExt::name_any);
    let own_addresses: BTreeSet<String> = own_pods.map(|pod| valid.names.address(&pod)).collect();
    let mut outside: BTreeMap<&str, Met> = BTreeMap::new();
    for member in answers(observed).flat_map(|(_, status)| &status.members) {
        if own.contains(&member.id) || own_addresses.contains(&member.address) || member.address.is_empty() {
            continue;
        }
        // A pod of the set that is gone is no peer outside.
        if member.address.ends_with(&format!(".{}:7071", valid.names.peers_host())) {
            continue;
        }
        let is_live = matches!(member.state, MemberStateName::Live | MemberStateName::Joining);
        let met = outside.entry(member.id.as_str()).or_default();
        met.is_live |= is_live;
        met.address = &member.address;
        met.addresses.extend(member.addresses.iter().chain([&member.address]).map(String::as_str));
    }
    let nobody_answers = own.is_empty();
    let mut peers: BTreeMap<String, Peer> = BTreeMap::new();
    let mut matched = BTreeSet::new();
    for found in &observed.found {
        for address in &found.addresses {
            let there = outside.iter().filter(|(_, met)| met.addresses.contains(address.as_str()));
            let there: Vec<(&str, bool)> = there.map(|(id, met)| (*id, met.is_live)).collect();
            matched.extend(there.iter().map(|(id, _)| *id));
            let peer = Peer {
                address: address.clone(),
                source: found.source.clone(),
                // Who answered there once may be elsewhere now, so one that is live is enough.
                reachable: (!there.is_empty()).then(|| there.iter().any(|(_, is_live)| *is_live)),
                last_error: found.error.clone(),
            };
            peers.entry(address.clone()).or_insert(peer);
        }
    }
    let others: Vec<&Met> =
        outside.iter().filter(|(id, _)| !matched.contains(*id)).map(|(_, met)| met).collect();
    for peer in peers.values_mut().filter(|peer| peer.reachable.is_none()) {
        // Nobody is known by that address. A live peer that connected by itself may be who is there: then it is unknown.
        peer.reachable = (!nobody_answers && !others.iter().any(|met| met.is_live)).then_some(false);
        if peer.reachable == Some(false) && peer.last_error.is_none() {
            peer.last_error = Some("no node of the set has met anybody there".to_owned());
        }
    }
    for met in others {
        peers.entry(met.address.to_owned()).or_insert(Peer {
            address: met.address.to_owned(),
            source: "member".to_owned(),
            reachable: Some(met.is_live),
            last_error: None,
        });
    }
    peers.into_values().take(PEERS_MAX).collect()
}
