//! Builds every object of a set from what was validated and planned. Pure: the same input gives the same bytes, so that
//! an upgrade of the operator replaces no pod.

pub mod config_map;
pub mod disruption_budget;
pub mod names;
pub mod network_policy;
pub mod overrides;
pub mod pod;
pub mod pod_monitor;
pub mod secret;
pub mod service;
pub mod service_account;
pub mod stateful_set;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde::Serialize;
use serde_json::Value;

use self::names::IMAGE_SOURCE;
use super::fetch::Observed;
use super::plan::Plan;
use super::validate::{ImageChoice, Valid};
use crate::config::Defaults;

/// Every object of a set, in the order in which they are applied: what a pod needs comes before the StatefulSet.
#[derive(Clone, Debug)]
pub struct Resources {
    /// The account of the pods.
    pub service_account: ServiceAccount,
    /// Secrets, made once and never read.
    pub secrets: Vec<Secret>,
    /// Service that names the pods.
    pub peer_service: Service,
    /// Service for clients.
    pub client_service: Service,
    /// Tables and peers.
    pub config_map: ConfigMap,
    /// Lets one node at a time be drained.
    pub disruption_budget: Option<PodDisruptionBudget>,
    /// Who may connect.
    pub network_policy: Option<NetworkPolicy>,
    /// How nodes are scraped.
    pub pod_monitor: Option<DynamicObject>,
    /// The pods. Of no compiled-in kind: an override may name a field that is newer than this operator.
    pub stateful_set: DynamicObject,
}

/// Why a set cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The overrides.
    #[error("spec.podTemplate: {0}")]
    PodTemplate(String),
}

/// The pod template, with the image it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// As the API server gets it.
    pub body: Value,
    /// Hash of it.
    pub hash: String,
    /// Where the image came from.
    pub image_source: &'static str,
}

/// Builds the pod template.
///
/// # Errors
///
/// [`BuildError`] when the overrides make no pod.
pub fn template(valid: &Valid, observed: &Observed, defaults: &Defaults) -> Result<Template, BuildError> {
    let (image, image_source) = image(valid, observed.stateful_set(&valid.names), defaults);
    let body = pod::template(valid, defaults, &image)?;
    let hash = hash(&body);
    Ok(Template { body, hash, image_source })
}

/// Builds everything.
pub fn build(valid: &Valid, observed: &Observed, template: &Template, plan: &Plan) -> Resources {
    let set = observed.stateful_set(&valid.names);
    let has_pod_monitor = observed.pod_monitors.is_some();
    Resources {
        service_account: service_account::build(valid),
        secrets: secret::build(valid),
        peer_service: service::peers(valid),
        client_service: service::clients(valid),
        config_map: config_map::build(valid, &observed.found, plan.replicas),
        disruption_budget: disruption_budget::build(valid, plan.replicas),
        network_policy: network_policy::build(valid),
        pod_monitor: has_pod_monitor.then(|| pod_monitor::build(valid)).flatten(),
        stateful_set: stateful_set::build(valid, set, template, plan),
    }
}

/// The image of the nodes. Where the resource names none, the one that the set was made with stays: a new operator, with
/// a new image in its configuration, restarts no node.
fn image(valid: &Valid, set: Option<&StatefulSet>, defaults: &Defaults) -> (String, &'static str) {
    match &valid.image {
        ImageChoice::Image(image) => (image.clone(), "spec"),
        ImageChoice::Version(version) => (with_tag(&defaults.image, version), "spec"),
        ImageChoice::Default => {
            let kept = set.and_then(|set| {
                let source = set.metadata.annotations.as_ref()?.get(IMAGE_SOURCE)?;
                let containers = &set.spec.as_ref()?.template.spec.as_ref()?.containers;
                let node = containers.iter().find(|container| container.name == names::CONTAINER)?;
                node.image.clone().filter(|_| source == "default")
            });
            (kept.unwrap_or_else(|| defaults.image.clone()), "default")
        }
    }
}

/// An image reference with another tag; a digest goes with the old one.
fn with_tag(image: &str, tag: &str) -> String {
    let image = image.split('@').next().unwrap_or(image);
    let name_from = image.rfind('/').map_or(0, |slash| slash + 1);
    let repository = image[name_from..].find(':').map_or(image, |colon| &image[..name_from + colon]);
    format!("{repository}:{tag}")
}

/// Metadata of an object of the set.
fn metadata(valid: &Valid, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(valid.names.namespace.clone()),
        labels: Some(valid.names.labels()),
        owner_references: Some(vec![valid.owner.clone()]),
        ..ObjectMeta::default()
    }
}

/// Sixteen hexadecimal digits of the hash of something as JSON, whose maps are sorted.
pub fn hash(value: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(&serde_json::to_value(value).unwrap_or_default()).unwrap_or_default();
    blake3::hash(&bytes).to_hex()[..16].to_owned()
}

/// Names of the Secrets that the nodes use.
pub fn secret_names(valid: &Valid) -> (Option<String>, String) {
    let tokens = valid.tokens_secret.clone().unwrap_or_else(|| valid.names.tokens());
    let cluster = valid.cluster_secret.clone().unwrap_or_else(|| valid.names.cluster());
    (valid.needs_tokens.then_some(tokens), cluster)
}

#[cfg(test)]
mod tests;
