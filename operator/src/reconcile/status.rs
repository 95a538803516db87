//! What is reported, from one picture of the set. Pure: the same picture gives the same status, so that writing it does
//! not bring about the next.

pub mod conditions;
pub mod members;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use self::conditions::Judge;
use super::fetch::Observed;
use super::plan::Plan;
use super::validate::Valid;
use crate::crd::v1alpha1::{SessionCache, SessionCacheStatus};

/// What went wrong in this pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The resource makes no sense.
    Invalid(Vec<String>),
    /// Objects of others are in the way.
    Conflict(Vec<String>),
    /// Something could not be read or written.
    Failed(String),
}

/// Everything that a status is made from.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// The resource, with the status before.
    pub cache: &'a SessionCache,
    /// The resource, parsed.
    pub valid: Option<&'a Valid>,
    /// What was read, before anything was written.
    pub observed: Option<&'a Observed>,
    /// What was decided.
    pub plan: Option<&'a Plan>,
    /// Whether the pod template of the set is the one that the resource asks for.
    pub is_template_current: bool,
    /// What went wrong.
    pub problem: Option<&'a Problem>,
    /// Claims that could not grow.
    pub claim_errors: &'a [String],
    /// Now.
    pub now: Timestamp,
}

/// Makes the status.
pub fn status(picture: &Picture<'_>) -> SessionCacheStatus {
    let before = picture.cache.status.clone().unwrap_or_default();
    let generation = picture.cache.metadata.generation;
    let (Some(valid), Some(observed)) = (picture.valid, picture.observed) else {
        // Nothing was read: what was known of members stays, and the conditions say that it may be old.
        let conditions = Judge::new(picture, &[], &[]).conditions(&before.conditions);
        return SessionCacheStatus { observed_generation: generation, conditions, ..before };
    };
    let members = members::members(valid, observed);
    let peers = members::peers(valid, observed);
    let conditions = Judge::new(picture, &members, &peers).conditions(&before.conditions);
    let names = &valid.names;
    let ready = members.iter().filter(|member| member.ready).count();
    let reached = peers.iter().filter(|peer| peer.reachable == Some(true)).count();
    let pods =
        observed.stateful_set(names).and_then(|set| set.status.as_ref()).map_or(0, |status| status.replicas);
    let mut versions: Vec<String> = members.iter().filter_map(|member| member.version.clone()).collect();
    versions.sort();
    versions.dedup();
    SessionCacheStatus {
        observed_generation: generation,
        conditions,
        replicas: pods,
        ready_replicas: i32::try_from(ready).unwrap_or(i32::MAX),
        selector: Some(names.selector_text()),
        endpoint: Some(names.endpoint()),
        version: (!versions.is_empty()).then(|| versions.join(", ")),
        lag_writes: members.iter().filter_map(|member| member.lag_writes).max(),
        member_summary: Some(format!("{ready}/{}", valid.replicas)),
        peer_summary: (!peers.is_empty()).then(|| format!("{reached}/{}", peers.len())),
        members,
        peers,
    }
}

/// What a claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> String {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let storage = resources.and_then(|resources| resources.requests.as_ref()?.get("storage"));
    storage.map(|storage| storage.0.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
