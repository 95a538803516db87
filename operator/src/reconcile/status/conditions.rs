//! The four conditions, each with a reason from one list and a message that says what to do.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

use super::{Picture, Problem, requested};
use crate::crd::v1alpha1::{Member, Peer};
use crate::reconcile::plan::{self, Rollout, Scaling};
use crate::reconcile::quantity::billionths;

/// Skew from which a node is about to be refused by the others.
const SKEW_MS_MAX: i64 = 500;
/// Characters of a message, at most.
const MESSAGE_CHARS_MAX: usize = 2_000;

/// A pod that is no older than this is starting; one that is older and not ready needs a look.
const STARTING: SignedDuration = SignedDuration::from_secs(60);

/// Every reason that a condition can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Ready: all members are ready and caught up.
    AllMembersReady,
    /// Ready, Degraded: some are not.
    MembersNotReady,
    /// Ready, Degraded: nodes do not answer, so nobody can say.
    MembersUnknown,
    /// Ready: a change is under way.
    ChangeInProgress,
    /// Ready: scaled to nothing.
    Stopped,
    /// Ready, Progressing: paused, and not as the resource says.
    Paused,
    /// All: the resource makes no sense.
    SpecInvalid,
    /// All: an object of somebody else is in the way.
    NameConflict,
    /// All: the cluster could not be read or written.
    ReconcileFailed,
    /// Progressing: everything is as the resource says.
    Complete,
    /// Progressing: pods are being made.
    ScalingUp,
    /// Progressing: new pods start.
    MembersStarting,
    /// Progressing: a pod leaves.
    ScalingDown,
    /// Progressing: a pod may not leave yet.
    ScaleDownBlocked,
    /// Progressing: pods are replaced one by one.
    RollingOut,
    /// Progressing: a pod does not come up, and nothing goes on.
    Stalled,
    /// Progressing: claims grow.
    ExpandingStorage,
    /// Degraded: nothing is wrong.
    AsExpected,
    /// Degraded: a volume is full.
    VolumeFull,
    /// Degraded: claims cannot grow.
    StorageExpansionFailed,
    /// Degraded: data differs.
    DataDiverged,
    /// Degraded: clocks differ.
    ClockSkew,
    /// Degraded: peers outside are not reached.
    PeersUnreachable,
    /// PeersResolved: nobody is named.
    NoPeers,
    /// PeersResolved: all names were resolved.
    Resolved,
    /// PeersResolved: some were not.
    ResolutionFailed,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 26] = [
        Self::AllMembersReady,
        Self::MembersNotReady,
        Self::MembersUnknown,
        Self::ChangeInProgress,
        Self::Stopped,
        Self::Paused,
        Self::SpecInvalid,
        Self::NameConflict,
        Self::ReconcileFailed,
        Self::Complete,
        Self::ScalingUp,
        Self::MembersStarting,
        Self::ScalingDown,
        Self::ScaleDownBlocked,
        Self::RollingOut,
        Self::Stalled,
        Self::ExpandingStorage,
        Self::AsExpected,
        Self::VolumeFull,
        Self::StorageExpansionFailed,
        Self::DataDiverged,
        Self::ClockSkew,
        Self::PeersUnreachable,
        Self::NoPeers,
        Self::Resolved,
        Self::ResolutionFailed,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllMembersReady => "AllMembersReady",
            Self::MembersNotReady => "MembersNotReady",
            Self::MembersUnknown => "MembersUnknown",
            Self::ChangeInProgress => "ChangeInProgress",
            Self::Stopped => "Stopped",
            Self::Paused => "Paused",
            Self::SpecInvalid => "SpecInvalid",
            Self::NameConflict => "NameConflict",
            Self::ReconcileFailed => "ReconcileFailed",
            Self::Complete => "Complete",
            Self::ScalingUp => "ScalingUp",
            Self::MembersStarting => "MembersStarting",
            Self::ScalingDown => "ScalingDown",
            Self::ScaleDownBlocked => "ScaleDownBlocked",
            Self::RollingOut => "RollingOut",
            Self::Stalled => "Stalled",
            Self::ExpandingStorage => "ExpandingStorage",
            Self::AsExpected => "AsExpected",
            Self::VolumeFull => "VolumeFull",
            Self::StorageExpansionFailed => "StorageExpansionFailed",
            Self::DataDiverged => "DataDiverged",
            Self::ClockSkew => "ClockSkew",
            Self::PeersUnreachable => "PeersUnreachable",
            Self::NoPeers => "NoPeers",
            Self::Resolved => "Resolved",
            Self::ResolutionFailed => "ResolutionFailed",
        }
    }
}

/// Status, reason and message of a condition.
type Verdict = (&'static str, Reason, String);

const TRUE: &str = "True";
const FALSE: &str = "False";
const UNKNOWN: &str = "Unknown";

/// Judges one picture.
pub struct Judge<'a> {
    picture: &'a Picture<'a>,
    members: &'a [Member],
    peers: &'a [Peer],
}

impl<'a> Judge<'a> {
    /// A judge.
    pub fn new(picture: &'a Picture<'a>, members: &'a [Member], peers: &'a [Peer]) -> Self {
        Self { picture, members, peers }
    }

    /// The conditions; the time of a transition moves with the status alone.
    pub fn conditions(&self, before: &[Condition]) -> Vec<Condition> {
        let verdicts = [
            ("Ready", self.ready(before)),
            ("Progressing", self.progressing()),
            ("Degraded", self.degraded()),
            ("PeersResolved", self.peers_resolved()),
        ];
        let condition = |(type_, (status, reason, message)): (&str, Verdict)| {
            let same = before.iter().find(|old| old.type_ == type_ && old.status == status);
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: reason.as_str().to_owned(),
                message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
                observed_generation: self.picture.cache.metadata.generation,
                last_transition_time: same
                    .map_or_else(|| Time(self.picture.now), |old| old.last_transition_time.clone()),
            }
        };
        verdicts.into_iter().map(condition).collect()
    }

    fn problem(&self) -> Option<(Reason, String)> {
        Some(match self.picture.problem? {
            Problem::Invalid(errors) => {
                (Reason::SpecInvalid, format!("correct the spec: {}", errors.join("; ")))
            }
            Problem::Conflict(objects) => (
                Reason::NameConflict,
                format!(
                    "{}; nothing is changed until it is deleted or this resource has another name",
                    objects.join("; ")
                ),
            ),
            Problem::Failed(error) => {
                (Reason::ReconcileFailed, format!("{error}; it is tried again and again"))
            }
        })
    }

    /// Names of members with what is wrong with them.
    fn troubles(&self) -> String {
        let wanted = self.picture.valid.map_or(0, |valid| valid.replicas);
        let is_wanted = |member: &&Member| {
            let ordinal = self.picture.valid.and_then(|valid| valid.names.ordinal(&member.name));
            !member.ready && ordinal.is_some_and(|ordinal| ordinal < wanted)
        };
        let trouble = |member: &Member| {
            format!("{}: {}", member.name, member.last_error.as_deref().unwrap_or("it is not ready"))
        };
        let troubles: Vec<String> = self.members.iter().filter(is_wanted).map(trouble).collect();
        troubles.join("; ")
    }

    /// Pods that are ready for their kubelet, and whose nodes do not tell the operator how they are.
    fn unknown(&self) -> Vec<String> {
        let Some(observed) = self.picture.observed else { return Vec::new() };
        let is_unknown = |name: &String| !matches!(observed.nodes.get(name), Some(Ok(_)));
        let ready = observed.pods.iter().filter(|pod| plan::is_ready(pod)).map(ResourceExt::name_any);
        ready.filter(is_unknown).collect()
    }

    fn unknown_message(&self, names: &[String]) -> String {
        let nodes = self.picture.observed.map(|observed| &observed.nodes);
        let answers = names.iter().filter_map(|name| nodes?.get(name)?.as_ref().err());
        format!(
            "{} do not tell the operator how they are, so nobody can say whether they are caught up ({}); check network \
             policies between the operator and port 7072",
            names.join(", "),
            answers.map(String::as_str).next().unwrap_or("they were not asked")
        )
    }

    fn ready(&self, before: &[Condition]) -> Verdict {
        if let Some((reason, message)) = self.problem() {
            if reason != Reason::ReconcileFailed {
                return (FALSE, reason, message);
            }
            // A failure to write says nothing about the members. What was found of this very generation stands, unless
            // they have been read since and are worse.
            let generation = self.picture.cache.metadata.generation;
            let was = before.iter().find(|old| old.type_ == "Ready" && old.observed_generation == generation);
            if !was.is_some_and(|old| old.status == TRUE) || self.picture.observed.is_none() {
                return (UNKNOWN, reason, message);
            }
        }
        let (Some(valid), Some(observed), Some(plan)) =
            (self.picture.valid, self.picture.observed, self.picture.plan)
        else {
            return (UNKNOWN, Reason::ReconcileFailed, "the cluster has yet to be read".to_owned());
        };
        let set = observed.stateful_set(&valid.names);
        let pods = observed.pods.len();
        let is_scaled = plan.scaling == Scaling::Done;
        let is_rolled = plan.rollout == Rollout::Done && self.picture.is_template_current;
        if valid.replicas == 0 && pods == 0 && is_scaled {
            let text = "scaled to 0: no node runs, volume claims keep their data; raise spec.replicas to serve again";
            return (FALSE, Reason::Stopped, text.to_owned());
        }
        if valid.is_paused && !(is_scaled && is_rolled && set.is_some()) {
            let text = "paused while the set differs from the spec; set spec.paused to false to go on";
            return (FALSE, Reason::Paused, text.to_owned());
        }
        if !(is_scaled && is_rolled) {
            return (FALSE, Reason::ChangeInProgress, self.progress(plan).2);
        }
        let ready = self.members.iter().filter(|member| member.ready).count();
        let wanted = usize::try_from(valid.replicas).unwrap_or_default();
        if ready == wanted && self.members.len() == wanted {
            return (
                TRUE,
                Reason::AllMembersReady,
                format!("{ready} of {wanted} members are ready and caught up"),
            );
        }
        let unknown = self.unknown();
        if ready + unknown.len() == wanted {
            return (UNKNOWN, Reason::MembersUnknown, self.unknown_message(&unknown));
        }
        let summary = format!("{ready} of {wanted} members are ready and caught up; {}", self.troubles());
        (FALSE, Reason::MembersNotReady, summary)
    }

    fn progressing(&self) -> Verdict {
        if let Some((reason, message)) = self.problem() {
            return (FALSE, reason, message);
        }
        let (Some(valid), Some(plan)) = (self.picture.valid, self.picture.plan) else {
            return (UNKNOWN, Reason::ReconcileFailed, "the cluster has yet to be read".to_owned());
        };
        if valid.is_paused {
            let text = "spec.paused is true: nothing is changed, status is still kept";
            return (FALSE, Reason::Paused, text.to_owned());
        }
        self.progress(plan)
    }

    /// What is under way, or holds it up.
    fn progress(&self, plan: &plan::Plan) -> Verdict {
        match &plan.rollout {
            Rollout::Stalled { why } => {
                let text = format!(
                    "{why}. No other pod is touched; correct the spec (image, version, tables, podTemplate) or what \
                     the message names"
                );
                return (FALSE, Reason::Stalled, text);
            }
            Rollout::Announced => {
                return (TRUE, Reason::RollingOut, "pods are about to be replaced".to_owned());
            }
            Rollout::Replacing { pod, updated } => {
                let text = format!("pod {pod} is being replaced, {updated} of {} are done", plan.replicas);
                return (TRUE, Reason::RollingOut, text);
            }
            Rollout::Waiting { pod, why } => {
                return (
                    TRUE,
                    Reason::RollingOut,
                    format!("pod {pod} is replaced when the others are ready: {why}"),
                );
            }
            Rollout::Done => {}
        }
        match &plan.scaling {
            Scaling::Blocked { pod, why } => {
                return (FALSE, Reason::ScaleDownBlocked, format!("pod {pod} may not leave yet: {why}"));
            }
            Scaling::Down { pod } => {
                return (TRUE, Reason::ScalingDown, format!("pod {pod} leaves; pods leave one by one"));
            }
            Scaling::Up | Scaling::Done => {}
        }
        if let Some(trouble) = self.first_trouble() {
            return (FALSE, Reason::Stalled, trouble);
        }
        if plan.scaling == Scaling::Up {
            return (TRUE, Reason::ScalingUp, format!("pods are being made, {} in all", plan.replicas));
        }
        let starting = self.starting();
        if !starting.is_empty() {
            return (TRUE, Reason::MembersStarting, format!("{} start", starting.join(", ")));
        }
        let growing = self.growing();
        if !growing.is_empty() {
            let text = format!("volumes grow: {}; they do so while their nodes run", growing.join("; "));
            return (TRUE, Reason::ExpandingStorage, text);
        }
        (FALSE, Reason::Complete, "everything is as the spec says".to_owned())
    }

    /// A pod that does not come up, with the words of the kubelet or the scheduler.
    fn first_trouble(&self) -> Option<String> {
        let pods = self.picture.observed?.pods.iter();
        let mut unready = pods.filter(|pod| !plan::is_ready(pod));
        unready.find_map(|pod| Some(format!("pod {}: {}", pod.name_any(), plan::trouble(pod)?)))
    }

    fn is_young(&self, pod: &Pod) -> bool {
        let made = pod.metadata.creation_timestamp.as_ref();
        made.is_some_and(|made| self.picture.now.duration_since(made.0) < STARTING)
    }

    fn has_young_pod(&self) -> bool {
        self.picture.observed.is_some_and(|observed| observed.pods.iter().any(|pod| self.is_young(pod)))
    }

    /// Pods that are young and not ready yet.
    fn starting(&self) -> Vec<String> {
        let Some(observed) = self.picture.observed else { return Vec::new() };
        let starting = observed.pods.iter().filter(|pod| !plan::is_ready(pod) && self.is_young(pod));
        starting.map(ResourceExt::name_any).collect()
    }

    /// Claims whose volumes are smaller than they were asked to be.
    fn growing(&self) -> Vec<String> {
        let Some(observed) = self.picture.observed else { return Vec::new() };
        let claim = |claim: &PersistentVolumeClaim| {
            let status = claim.status.as_ref()?;
            let capacity = status.capacity.as_ref()?.get("storage")?.0.clone();
            let wanted = requested(claim);
            let is_growing = billionths(&capacity)? < billionths(&wanted)?;
            is_growing.then(|| format!("{} from {capacity} to {wanted}", claim.name_any()))
        };
        observed.claims.iter().filter_map(claim).collect()
    }

    fn degraded(&self) -> Verdict {
        let mut found: Vec<(Reason, String)> = self.problem().into_iter().collect();
        if let Some(observed) = self.picture.observed {
            let full: Vec<&String> = observed
                .nodes
                .iter()
                .filter(|(_, answer)| {
                    answer
                        .as_ref()
                        .is_ok_and(|status| status.node.state == mneme_api::NodeStateName::ReadOnly)
                })
                .map(|(name, _)| name)
                .collect();
            if !full.is_empty() {
                let text = format!("the volume of {} is full: raise spec.storage.size", list(&full));
                found.push((Reason::VolumeFull, text));
            }
        }
        if !self.picture.claim_errors.is_empty() {
            let text = format!(
                "volumes cannot grow: {}; use a storage class with allowVolumeExpansion, in a new SessionCache that \
                 is given these nodes as peers",
                self.picture.claim_errors.join("; ")
            );
            found.push((Reason::StorageExpansionFailed, text));
        }
        if let Some(Scaling::Blocked { pod, why }) = self.picture.plan.map(|plan| &plan.scaling)
            && why.contains("does not answer")
        {
            found.push((Reason::ScaleDownBlocked, format!("pod {pod} may not leave yet: {why}")));
        }
        let is_changing = self.picture.plan.is_some_and(|plan| {
            matches!(plan.rollout, Rollout::Announced | Rollout::Replacing { .. } | Rollout::Waiting { .. })
                || plan.scaling == Scaling::Up
        });
        let troubles = self.troubles();
        let unknown = self.unknown();
        let stuck = self.first_trouble();
        let is_known_bad = self.members.iter().any(|member| !member.ready && !unknown.contains(&member.name));
        // While a pod starts, others may not be in contact with it yet: that is Progressing.
        let is_settled = !is_changing && !self.has_young_pod();
        if !troubles.is_empty() && is_known_bad && (is_settled || stuck.is_some()) {
            found.push((Reason::MembersNotReady, troubles));
        }
        let differing: Vec<&String> = self
            .members
            .iter()
            .filter(|member| member.digest == "unequal")
            .map(|member| &member.name)
            .collect();
        if !differing.is_empty() {
            let text = format!(
                "the data of {} differs from the others'; nodes repair it within seconds, look at their logs if it lasts",
                list(&differing)
            );
            found.push((Reason::DataDiverged, text));
        }
        let skewed =
            self.members.iter().filter(|member| member.skew_ms.is_some_and(|ms| ms.abs() >= SKEW_MS_MAX));
        let skewed: Vec<&String> = skewed.map(|member| &member.name).collect();
        if !skewed.is_empty() {
            let text = format!(
                "the clock of {} is off by half a second or more: set its machine's clock",
                list(&skewed)
            );
            found.push((Reason::ClockSkew, text));
        }
        let lost: Vec<&String> = self
            .peers
            .iter()
            .filter(|peer| peer.reachable == Some(false))
            .map(|peer| &peer.address)
            .collect();
        if !lost.is_empty() {
            let text = format!(
                "peers outside the set are not reached: {}; see status.peers, their cluster name and secret, and the \
                 network between",
                list(&lost)
            );
            found.push((Reason::PeersUnreachable, text));
        }
        match found.first() {
            Some((reason, _)) => {
                let reason = *reason;
                let texts: Vec<String> = found.into_iter().map(|(_, text)| text).collect();
                (TRUE, reason, texts.join(". "))
            }
            None if !unknown.is_empty() => (UNKNOWN, Reason::MembersUnknown, self.unknown_message(&unknown)),
            None => (FALSE, Reason::AsExpected, "nothing is wrong".to_owned()),
        }
    }

    fn peers_resolved(&self) -> Verdict {
        let (Some(valid), Some(observed)) = (self.picture.valid, self.picture.observed) else {
            let (reason, message) = self
                .problem()
                .unwrap_or((Reason::ReconcileFailed, "the cluster has yet to be read".to_owned()));
            return (UNKNOWN, reason, message);
        };
        if valid.sources.is_empty() {
            return (TRUE, Reason::NoPeers, "spec.peers names nobody outside the set".to_owned());
        }
        let failed: Vec<String> = observed
            .found
            .iter()
            .filter_map(|found| {
                let error = found.error.as_ref()?;
                let kept = match found.addresses.len() {
                    0 => "none is known from before".to_owned(),
                    count => format!("{count} known from before are kept"),
                };
                Some(format!("{}: {error}; {kept}", found.source))
            })
            .collect();
        if failed.is_empty() {
            let count: usize = observed.found.iter().map(|found| found.addresses.len()).sum();
            return (TRUE, Reason::Resolved, format!("{count} addresses outside the set"));
        }
        let text = format!("{}; check spec.peers and the cluster's DNS", failed.join(". "));
        (FALSE, Reason::ResolutionFailed, text)
    }
}

fn list(names: &[&String]) -> String {
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    names.join(", ")
}
