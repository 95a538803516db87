//! Decides what the StatefulSet may do next: how many nodes it has, and which of them it may replace.
//!
//! The set never decides by itself. Its update strategy has a partition that is above all pods, except while one pod is
//! being replaced: a pod that comes back for any other reason comes back as it was, so a bad image reaches one pod and no
//! other. Its number of replicas goes down by one, and only when the node that leaves is needed no more.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use mneme_api::{DigestName, MemberBody, MemberStateName, NodeStateName, StatusBody};

use super::build::names::{SKIP_SCALE_DOWN_CHECK, TEMPLATE_HASH};
use super::fetch::Observed;
use super::validate::Valid;

/// A node that was not ready for so long, and has not been replaced yet, does not hold up a change: it may be the cure.
const GIVEN_UP: SignedDuration = SignedDuration::from_mins(5);
/// How far a member may be behind and count as level: what pushes under load have under way. A node that stops takes no
/// more writes and hands over what its peers lack before it ends.
const LAG_MAX: Duration = Duration::from_secs(2);
/// Data is compared every 10 s, at equal vectors only: under writes that never pause it may never be. After so long a
/// node that lacks nothing is let go without.
const DIGEST_WAIT: SignedDuration = SignedDuration::from_secs(45);

/// What the StatefulSet is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its replicas.
    pub replicas: i32,
    /// Its partition.
    pub partition: i32,
    /// How far a change of the pods is.
    pub rollout: Rollout,
    /// How far a change of their number is.
    pub scaling: Scaling,
}

/// How far a change of the pods is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollout {
    /// All pods are as they should be.
    Done,
    /// The StatefulSet has yet to see the change.
    Announced,
    /// A pod is being replaced.
    Replacing {
        /// The pod.
        pod: String,
        /// Pods that are done, of all.
        updated: i32,
    },
    /// The next pod waits.
    Waiting {
        /// The pod.
        pod: String,
        /// For what.
        why: String,
    },
    /// The pod that was replaced does not come up.
    Stalled {
        /// What is wrong with it.
        why: String,
    },
}

/// How far a change of the number of pods is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// As many as asked for.
    Done,
    /// More.
    Up,
    /// One fewer; it goes on until the number is reached.
    Down {
        /// The pod that leaves.
        pod: String,
    },
    /// The next pod may not leave yet.
    Blocked {
        /// The pod.
        pod: String,
        /// Why not.
        why: String,
    },
}

/// Decides. `template_hash` is that of the pod template as it is built now.
pub fn plan(valid: &Valid, observed: &Observed, template_hash: &str, now: Timestamp) -> Plan {
    let set = observed.stateful_set(&valid.names);
    let Some(set) = set else {
        let (replicas, scaling) =
            (valid.replicas, if valid.replicas == 0 { Scaling::Done } else { Scaling::Up });
        return Plan { replicas, partition: replicas, rollout: Rollout::Done, scaling };
    };
    let members = Members { valid, observed, now };
    let (replicas, scaling) = members.scale(set);
    let (partition, rollout) = members.roll(set, replicas, template_hash);
    Plan { replicas, partition, rollout, scaling }
}

/// Whether a pod is ready for traffic, by its kubelet.
pub fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && ready_since(pod).is_some_and(|(is_ready, _)| is_ready)
}

/// Whether a pod is ready, and since when it is or is not.
fn ready_since(pod: &Pod) -> Option<(bool, Option<Timestamp>)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some((ready.status == "True", ready.last_transition_time.as_ref().map(|time| time.0)))
}

/// Why a pod does not come up, in the words of the kubelet or the scheduler; `None` while nothing is wrong.
pub fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    for container in containers {
        let state = container.state.clone().unwrap_or_default();
        if let Some(waiting) = state.waiting {
            let reason = waiting.reason.unwrap_or_default();
            if !matches!(reason.as_str(), "" | "ContainerCreating" | "PodInitializing") {
                let message = waiting.message.unwrap_or_default();
                let last = last_end(container.last_state.as_ref());
                return Some(joined(&reason, &[&message, &last]));
            }
        }
        if let Some(ended) = state.terminated
            && ended.exit_code != 0
        {
            return Some(format!(
                "the container {} ended with exit code {}",
                container.name, ended.exit_code
            ));
        }
    }
    let conditions = status.conditions.iter().flatten();
    let unscheduled =
        conditions.filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    let words = unscheduled.map(|condition| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        joined(&text(&condition.reason), &[&text(&condition.message)])
    });
    words.into_iter().next()
}

fn last_end(state: Option<&k8s_openapi::api::core::v1::ContainerState>) -> String {
    let ended = state.and_then(|state| state.terminated.as_ref());
    ended.map(|ended| format!("it last ended with exit code {}", ended.exit_code)).unwrap_or_default()
}

fn joined(reason: &str, more: &[&str]) -> String {
    let parts: Vec<&str> = more.iter().copied().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { reason.to_owned() } else { format!("{reason}: {}", parts.join("; ")) }
}

struct Members<'a> {
    valid: &'a Valid,
    observed: &'a Observed,
    now: Timestamp,
}

impl Members<'_> {
    fn pod(&self, ordinal: i32) -> Option<&Pod> {
        let name = self.valid.names.pod(ordinal);
        self.observed.pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(&name))
    }

    fn status(&self, ordinal: i32) -> Result<&StatusBody, String> {
        match self.observed.nodes.get(&self.valid.names.pod(ordinal)) {
            Some(Ok(status)) => Ok(status),
            Some(Err(error)) => Err(error.clone()),
            None => Err("it does not run".to_owned()),
        }
    }

    /// How `viewer` sees the node of another pod: by identity, else by name for a node that does not answer.
    fn seen<'b>(&self, viewer: &'b StatusBody, ordinal: i32) -> Option<&'b MemberBody> {
        let name = self.valid.names.pod(ordinal);
        match self.status(ordinal) {
            Ok(status) => viewer.members.iter().find(|member| member.id == status.node.id),
            Err(_) => {
                let address = self.valid.names.address(&name);
                viewer.members.iter().find(|member| member.address == address)
            }
        }
    }

    fn scale(&self, set: &StatefulSet) -> (i32, Scaling) {
        let current = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let wanted = self.valid.replicas;
        if wanted > current {
            return (wanted, Scaling::Up);
        }
        let status = set.status.as_ref();
        let is_seen = status.and_then(|status| status.observed_generation) >= set.metadata.generation;
        let pods = status.map_or(0, |status| status.replicas);
        if wanted == current {
            let is_settled = is_seen && pods == current;
            let scaling = match () {
                () if is_settled => Scaling::Done,
                () if pods > current => Scaling::Down { pod: self.valid.names.pod(pods - 1) },
                () => Scaling::Up,
            };
            return (current, scaling);
        }
        let leaver = self.valid.names.pod(current - 1);
        if !is_seen || pods > current {
            // One at a time: the last one that was told to leave has not left yet.
            return (current, Scaling::Down { pod: self.valid.names.pod(pods.max(current) - 1) });
        }
        if self.valid.skips_scale_down_check {
            return (current - 1, Scaling::Down { pod: leaver });
        }
        match self.may_leave(current) {
            Ok(()) => (current - 1, Scaling::Down { pod: leaver }),
            Err(why) => {
                let why = format!(
                    "{why}. To let it go all the same, annotate the SessionCache with \
                     {SKIP_SCALE_DOWN_CHECK}=true: sessions that it alone holds are then served no more"
                );
                (current, Scaling::Blocked { pod: leaver, why })
            }
        }
    }

    /// Whether the last of `current` nodes holds nothing that the others lack.
    fn may_leave(&self, current: i32) -> Result<(), String> {
        let leaver = current - 1;
        let survivors = 0..leaver;
        if survivors.is_empty() {
            // The last one: its claim keeps what it holds, and an ephemeral set that is stopped is meant to forget.
            return Ok(());
        }
        let name = self.valid.names.pod(leaver);
        let Ok(status) = self.status(leaver) else {
            if self.never_ran(leaver) {
                return Ok(());
            }
            return Err(format!(
                "{name} does not answer, so nobody can say whether the others hold all that it holds; bring it back up \
                 first"
            ));
        };
        for ordinal in survivors {
            let other = self.valid.names.pod(ordinal);
            if !self.pod(ordinal).is_some_and(is_ready) {
                return Err(format!("{other} is not ready, and stays when {name} leaves; wait for it"));
            }
            let member = self.seen(status, ordinal).filter(|member| member.state == MemberStateName::Live);
            let Some(member) = member else {
                return Err(format!("{name} is not in contact with {other}; wait for them to meet"));
            };
            if !is_level(status, member) {
                return Err(format!(
                    "{other} lacks {} writes that {name} holds; wait for it",
                    member.lag_writes
                ));
            }
            match member.digest {
                DigestName::Equal => {}
                DigestName::Unequal => {
                    return Err(format!("the data of {other} and {name} differ; the nodes are repairing it"));
                }
                DigestName::Unknown if self.is_ready_for(leaver, DIGEST_WAIT) => {}
                DigestName::Unknown => {
                    return Err(format!("the data of {other} and {name} have yet to be compared"));
                }
            }
        }
        Ok(())
    }

    /// Whether nothing can be on the node of a pod: it never started, and nobody who did ever met it.
    fn never_ran(&self, ordinal: i32) -> bool {
        !self.has_started(ordinal)
            && (0..ordinal).all(|other| match self.status(other) {
                Ok(status) => self.seen(status, ordinal).is_none(),
                Err(_) => !self.has_started(other),
            })
    }

    fn has_started(&self, ordinal: i32) -> bool {
        let containers = self.pod(ordinal).and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref());
        containers.into_iter().flatten().any(|container| {
            let state = container.state.clone().unwrap_or_default();
            container.restart_count > 0 || state.running.is_some() || state.terminated.is_some()
        })
    }

    fn is_ready_for(&self, ordinal: i32, duration: SignedDuration) -> bool {
        let since = self.pod(ordinal).and_then(ready_since);
        since.is_some_and(|(is_ready, since)| {
            is_ready && since.is_some_and(|since| self.now.duration_since(since) >= duration)
        })
    }

    fn roll(&self, set: &StatefulSet, replicas: i32, template_hash: &str) -> (i32, Rollout) {
        let held = replicas;
        let annotations = set.metadata.annotations.as_ref();
        if annotations.and_then(|all| all.get(TEMPLATE_HASH)).map(String::as_str) != Some(template_hash) {
            return (held, Rollout::Announced);
        }
        let status = set.status.clone().unwrap_or_default();
        let Some(revision) =
            status.update_revision.filter(|_| status.observed_generation >= set.metadata.generation)
        else {
            return (self.partition(set, held), Rollout::Announced);
        };
        let is_old = |ordinal: &i32| {
            let label = |pod: &Pod| pod.labels().get("controller-revision-hash").cloned();
            self.pod(*ordinal).is_some_and(|pod| label(pod).as_ref() != Some(&revision))
        };
        let old: Vec<i32> = (0..replicas).filter(is_old).collect();
        let Some(next) = old.last().copied() else {
            // Pods that are missing are made as they were before until every pod is as it should be.
            let is_complete = status.current_revision.as_deref() == Some(&revision);
            let missing = (0..replicas).rev().find(|ordinal| self.pod(*ordinal).is_none());
            return match missing {
                Some(ordinal) if !is_complete => {
                    let (pod, updated) = (self.valid.names.pod(ordinal), replicas - 1);
                    (self.partition(set, held), Rollout::Replacing { pod, updated })
                }
                _ if !is_complete => match self.stalled(replicas) {
                    Some(why) => (self.partition(set, held), Rollout::Stalled { why }),
                    // All are new and come up; the set calls it complete when all are ready.
                    None => (self.partition(set, held), Rollout::Done),
                },
                _ => (held, Rollout::Done),
            };
        };
        let updated = replicas - i32::try_from(old.len()).unwrap_or(replicas);
        let pod = self.valid.names.pod(next);
        if let Some(why) = self.stalled_except(replicas, &old) {
            // The pod that was replaced is held at the new template, and the next is not touched.
            return (self.partition(set, held).max(next + 1), Rollout::Stalled { why });
        }
        match self.may_replace(next, replicas, &old) {
            Ok(()) => (next, Rollout::Replacing { pod, updated }),
            Err(why) => (self.partition(set, held).max(next + 1).min(held), Rollout::Waiting { pod, why }),
        }
    }

    /// The partition as it is: what is not decided stays.
    fn partition(&self, set: &StatefulSet, held: i32) -> i32 {
        let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        let partition = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.partition);
        partition.unwrap_or(held).min(held)
    }

    fn stalled(&self, replicas: i32) -> Option<String> {
        self.stalled_except(replicas, &[])
    }

    /// A pod that is as it should be and does not come up.
    fn stalled_except(&self, replicas: i32, old: &[i32]) -> Option<String> {
        (0..replicas).filter(|ordinal| !old.contains(ordinal)).find_map(|ordinal| {
            let pod = self.pod(ordinal).filter(|pod| !is_ready(pod))?;
            trouble(pod).map(|why| format!("pod {}: {why}", pod.name_any()))
        })
    }

    /// Whether a pod may be replaced: every other is ready and caught up. A pod that is not ready itself may be whatever the
    /// others are, for nothing is lost by it.
    fn may_replace(&self, next: i32, replicas: i32, old: &[i32]) -> Result<(), String> {
        let is_up = self.pod(next).is_some_and(is_ready);
        for ordinal in (0..replicas).filter(|ordinal| *ordinal != next) {
            let name = self.valid.names.pod(ordinal);
            let pod = self.pod(ordinal);
            if pod.is_some_and(is_ready) {
                if !is_up {
                    continue;
                }
                self.is_caught_up(ordinal, replicas).map_err(|why| format!("{name}: {why}"))?;
                continue;
            }
            let is_given_up = old.contains(&ordinal)
                && pod.and_then(ready_since).is_some_and(|(_, since)| {
                    since.is_some_and(|since| self.now.duration_since(since) >= GIVEN_UP)
                });
            if is_up && !is_given_up || !old.contains(&ordinal) {
                let why = pod.and_then(trouble).unwrap_or_else(|| "it is not ready yet".to_owned());
                return Err(format!("{name}: {why}"));
            }
        }
        // Somebody who holds the data goes on serving.
        let is_alone = replicas > 1
            && is_up
            && !(0..replicas).any(|ordinal| ordinal != next && self.pod(ordinal).is_some_and(is_ready));
        if is_alone { Err("it is the only one that is ready".to_owned()) } else { Ok(()) }
    }

    /// Whether a ready node has caught up, by its own word and by that of the others.
    fn is_caught_up(&self, ordinal: i32, replicas: i32) -> Result<(), String> {
        let status = self.status(ordinal).map_err(|error| format!("it does not answer: {error}"))?;
        if status.node.state != NodeStateName::Ready {
            return Err("it is not ready by its own word".to_owned());
        }
        for other in (0..replicas).filter(|other| *other != ordinal) {
            let Ok(viewer) = self.status(other) else { continue };
            let name = self.valid.names.pod(other);
            let Some(member) = self.seen(viewer, ordinal) else {
                return Err(format!("{name} does not know it yet"));
            };
            if member.state != MemberStateName::Live {
                return Err(format!("{name} is not in contact with it"));
            }
            if !is_level(viewer, member) {
                return Err(format!("it lacks {} writes that {name} holds", member.lag_writes));
            }
            if member.digest == DigestName::Unequal {
                return Err(format!("its data and that of {name} differ; the nodes are repairing it"));
            }
        }
        Ok(())
    }
}

/// Whether a member holds what `viewer` holds, but for what is on its way. Writes that no client was told of yet are.
pub(super) fn is_level(viewer: &StatusBody, member: &MemberBody) -> bool {
    let in_flight = u64::try_from(viewer.writes_in_flight).unwrap_or(u64::MAX);
    let is_recent = |lag_ms| Duration::from_millis(lag_ms) <= LAG_MAX;
    member.lag_writes <= in_flight || member.lag_ms.is_some_and(is_recent)
}

#[cfg(test)]
mod tests;
