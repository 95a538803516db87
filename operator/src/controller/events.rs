//! Events: one recorder for the process, so that what repeats is counted and not repeated. A failed event is logged, and
//! fails nothing.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::core::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::crd::v1alpha1::{SessionCache, SessionCacheStatus};
use crate::metrics::Metrics;
use crate::reconcile::apply::{Change, Verb};
use crate::telemetry::chain;
use crate::writer::FIELD_MANAGER;

/// An event that takes longer is given up.
const PUBLISH_MAX: Duration = Duration::from_secs(3);
/// Bytes of a note, at most: the API server takes 1024.
const NOTE_BYTES_MAX: usize = 1_000;

/// What can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// An object was written.
    Wrote(Change),
    /// A pod is replaced by a change of the spec.
    Replacing {
        /// The pod.
        pod: String,
    },
    /// A pod leaves.
    Leaving {
        /// The pod.
        pod: String,
    },
    /// A condition changed its reason.
    Condition {
        /// Whether it is bad news.
        is_warning: bool,
        /// The reason.
        reason: String,
        /// The message.
        message: String,
    },
    /// The resource cannot be read.
    Undecodable {
        /// Why not.
        error: String,
    },
}

impl Happening {
    /// What two statuses tell.
    pub fn of_conditions(before: Option<&SessionCacheStatus>, after: &SessionCacheStatus) -> Vec<Self> {
        let reason_before = |type_: &str| {
            let conditions = before.map_or(&[][..], |status| &status.conditions[..]);
            conditions
                .iter()
                .find(|condition| condition.type_ == type_)
                .map(|condition| condition.reason.clone())
        };
        let mut told = Vec::new();
        for condition in &after.conditions {
            if reason_before(&condition.type_).as_ref() == Some(&condition.reason) {
                continue;
            }
            let is_warning = match (condition.type_.as_str(), condition.status.as_str()) {
                ("Degraded", "True") => true,
                ("Progressing", "False") => {
                    condition.reason == "Stalled" || condition.reason == "ScaleDownBlocked"
                }
                ("PeersResolved", "False") => true,
                ("Ready", "True") => false,
                _ => continue,
            };
            told.push(Self::Condition {
                is_warning,
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            });
        }
        // Degraded and Progressing may have one reason: once is enough.
        told.dedup();
        told
    }

    fn event(&self) -> Event {
        let normal =
            |reason: &str, action: String, note: String| event(EventType::Normal, reason, action, note);
        match self {
            Self::Wrote(Change { verb, kind, name }) => {
                let (reason, words) = match verb {
                    Verb::Created => ("Created", "made"),
                    Verb::Updated => ("Updated", "changed, as the spec has"),
                    Verb::Restored => ("DriftCorrected", "put back, somebody else had changed it"),
                    Verb::Deleted => ("Deleted", "deleted, nothing needs it any more"),
                    Verb::Expanded => ("StorageExpanded", "asked to grow"),
                };
                normal(reason, format!("Write{kind}"), format!("{kind} {name} was {words}"))
            }
            Self::Replacing { pod } => normal(
                "ReplacingMember",
                "Replace".to_owned(),
                format!("pod {pod} is replaced; the others are ready and caught up"),
            ),
            Self::Leaving { pod } => {
                normal("MemberLeaving", "ScaleDown".to_owned(), format!("pod {pod} leaves"))
            }
            Self::Condition { is_warning, reason, message } => {
                let type_ = if *is_warning { EventType::Warning } else { EventType::Normal };
                event(type_, reason, "Observe".to_owned(), message.clone())
            }
            Self::Undecodable { error } => {
                event(EventType::Warning, "Undecodable", "Read".to_owned(), error.clone())
            }
        }
    }
}

fn event(type_: EventType, reason: &str, action: String, mut note: String) -> Event {
    let mut end = note.len().min(NOTE_BYTES_MAX);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note.truncate(end);
    Event { type_, reason: reason.to_owned(), note: Some(note), action, secondary: None }
}

/// Tells.
pub struct Events {
    recorder: Recorder,
    metrics: std::sync::Arc<Metrics>,
}

impl Events {
    /// The recorder of the process.
    pub fn new(client: Client, identity: &str, metrics: std::sync::Arc<Metrics>) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(identity.to_owned()) };
        Self { recorder: Recorder::new(client, reporter), metrics }
    }

    /// Tells of a SessionCache.
    pub async fn publish(&self, cache: &SessionCache, happening: &Happening) {
        self.publish_for(&cache.object_ref(&()), happening).await;
    }

    /// Tells of an object.
    pub async fn publish_for(&self, reference: &ObjectReference, happening: &Happening) {
        let event = happening.event();
        match tokio::time::timeout(PUBLISH_MAX, self.recorder.publish(&event, reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.metrics.event_failed();
                tracing::debug!(reason = %event.reason, error = %chain(&error), "failed to publish an event");
            }
            Err(_) => self.metrics.event_failed(),
        }
    }
}

/// A reference to an object that may not be readable otherwise.
pub fn reference<K>(object: &K) -> ObjectReference
where
    K: Resource,
    K::DynamicType: Default,
{
    object.object_ref(&K::DynamicType::default())
}
