//! Parses the resource into what the later steps trust. What the schema lets through and nodes or the API server would
//! refuse is found here, before anything is written.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodTemplateSpec as KubePodTemplate, ResourceRequirements};
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use mneme_api::TableConfig;
use serde_json::Value;

use super::build::names::{Names, SKIP_SCALE_DOWN_CHECK};
use crate::crd::v1alpha1::{
    Durability, HeadlessServiceSpec, ResourcesSpec, Retention, SessionCache, SessionCacheSpec, TableSpec,
};
use crate::peers::Source;

/// A resource that can be built.
#[derive(Clone, Debug)]
pub struct Valid {
    /// Names of everything.
    pub names: Names,
    /// Owner of everything.
    pub owner: OwnerReference,
    /// The generation that this is.
    pub generation: i64,
    /// Nodes asked for.
    pub replicas: i32,
    /// Image, when the resource names one.
    pub image: ImageChoice,
    /// Name of the cluster.
    pub cluster: String,
    /// The tables.
    pub tables: Vec<TableConfig>,
    /// Peers outside.
    pub sources: Vec<Source>,
    /// Where files are kept.
    pub storage: Storage,
    /// `fsync` or `commit`.
    pub durability: &'static str,
    /// Processor and memory.
    pub resources: ResourceRequirements,
    /// Whether clients need a token.
    pub needs_tokens: bool,
    /// A Secret of the user's with tokens.
    pub tokens_secret: Option<String>,
    /// A Secret of the user's with the cluster secret.
    pub cluster_secret: Option<String>,
    /// Who may reach the client port, when there is a policy; none given: everybody.
    pub network: Option<Vec<NetworkPolicyPeer>>,
    /// How nodes are scraped, if at all.
    pub monitoring: Option<Monitoring>,
    /// Merged over the pod template.
    pub pod_template: Value,
    /// No changes.
    pub is_paused: bool,
    /// Scale-down goes unchecked.
    pub skips_scale_down_check: bool,
}

/// What the resource says of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageChoice {
    /// Nothing.
    Default,
    /// The tag of the operator's image.
    Version(String),
    /// The whole reference.
    Image(String),
}

/// Where files are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Size of a volume.
    pub size: String,
    /// Class of the claims.
    pub class: Option<String>,
    /// No claims.
    pub is_ephemeral: bool,
    /// `Retain` or `Delete`, when the set is deleted.
    pub when_deleted: &'static str,
    /// `Retain` or `Delete`, when it shrinks.
    pub when_scaled: &'static str,
}

/// How nodes are scraped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitoring {
    /// Labels of the PodMonitor.
    pub labels: BTreeMap<String, String>,
    /// Time between scrapes.
    pub interval: String,
}

/// Checks a resource.
///
/// # Errors
///
/// Everything that is wrong with it, for the person who wrote it.
pub fn validate(cache: &SessionCache, domain: &str) -> Result<Valid, Vec<String>> {
    let mut errors = Vec::new();
    let metadata = &cache.metadata;
    let spec = &cache.spec;
    let (Some(name), Some(namespace), Some(owner)) =
        (metadata.name.clone(), metadata.namespace.clone(), cache.controller_owner_ref(&()))
    else {
        return Err(vec![
            "the resource has no name, namespace or uid: it was not read from a cluster".to_owned(),
        ]);
    };
    // Who deletes the resource in the foreground waits for what belongs to it.
    let owner = OwnerReference { block_owner_deletion: Some(true), ..owner };
    let names = Names { name, namespace, domain: domain.to_owned() };
    let tables = tables(&spec.tables, &mut errors);
    let sources = sources(spec, &names);
    let pod_template = pod_template(spec, &mut errors);
    let network = network(spec, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let annotations = metadata.annotations.as_ref();
    let skips =
        annotations.and_then(|all| all.get(SKIP_SCALE_DOWN_CHECK)).is_some_and(|value| value == "true");
    let image = spec.image.clone().filter(|image| !image.is_empty());
    Ok(Valid {
        owner,
        generation: metadata.generation.unwrap_or_default(),
        replicas: spec.replicas,
        image: match (image, &spec.version) {
            (Some(image), _) => ImageChoice::Image(image),
            (None, Some(version)) => ImageChoice::Version(version.clone()),
            (None, None) => ImageChoice::Default,
        },
        cluster: spec.cluster_name.clone().unwrap_or_else(|| names.name.clone()),
        tables,
        sources,
        storage: Storage {
            size: spec.storage.size.clone(),
            class: spec.storage.storage_class_name.clone(),
            is_ephemeral: spec.storage.ephemeral,
            when_deleted: retention(spec.storage.retention.when_deleted),
            when_scaled: retention(spec.storage.retention.when_scaled),
        },
        durability: match spec.durability {
            Durability::Fsync => "fsync",
            Durability::Commit => "commit",
        },
        resources: resources(spec.resources.as_ref()),
        needs_tokens: spec.auth.enabled,
        tokens_secret: spec.auth.tokens_secret.clone(),
        cluster_secret: spec.auth.cluster_secret.clone(),
        network,
        monitoring: spec.monitoring.pod_monitor.then(|| Monitoring {
            labels: spec.monitoring.labels.clone(),
            interval: spec.monitoring.interval.clone(),
        }),
        pod_template,
        is_paused: spec.paused,
        skips_scale_down_check: skips,
        names,
    })
}

/// The tables as nodes have them: the same type that reads their configuration files.
fn tables(specs: &[TableSpec], errors: &mut Vec<String>) -> Vec<TableConfig> {
    let mut tables = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let parsed = serde_json::to_value(spec).and_then(serde_json::from_value::<TableConfig>);
        match parsed.map_err(|error| error.to_string()) {
            Ok(table) => match table.validate() {
                Ok(()) => tables.push(table),
                Err(error) => errors.push(format!("spec.tables[{index}]: {error}")),
            },
            Err(error) => errors.push(format!("spec.tables[{index}]: {error}")),
        }
    }
    tables
}

fn sources(spec: &SessionCacheSpec, names: &Names) -> Vec<Source> {
    let service = spec.peers.headless_service.iter().map(|HeadlessServiceSpec { name, namespace, port }| {
        let namespace = namespace.clone().unwrap_or_else(|| names.namespace.clone());
        let host = format!("{name}.{namespace}.svc.{}", names.domain);
        Source::Service { name: format!("{name}.{namespace}"), namespace, host, port: *port }
    });
    service.chain(spec.peers.hosts.iter().cloned().map(Source::Host)).collect()
}

fn pod_template(spec: &SessionCacheSpec, errors: &mut Vec<String>) -> Value {
    let Some(template) = &spec.pod_template else { return Value::Null };
    let mut value = serde_json::to_value(template).unwrap_or_default();
    if let Err(error) = serde_json::from_value::<KubePodTemplate>(value.clone()) {
        errors.push(format!("spec.podTemplate: {error}"));
    }
    // Selectors of Services, policies and of the set itself stand on the operator's labels; the schema says so too.
    if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        for key in names_of_labels() {
            labels.remove(key);
        }
    }
    value
}

fn names_of_labels() -> [&'static str; 4] {
    [
        "app.kubernetes.io/name",
        "app.kubernetes.io/instance",
        "app.kubernetes.io/component",
        "app.kubernetes.io/managed-by",
    ]
}

fn network(spec: &SessionCacheSpec, errors: &mut Vec<String>) -> Option<Vec<NetworkPolicyPeer>> {
    if !spec.network_policy.enabled {
        return None;
    }
    let mut peers = Vec::new();
    for (index, peer) in spec.network_policy.clients.iter().enumerate() {
        match serde_json::from_value::<NetworkPolicyPeer>(Value::Object(peer.0.clone())) {
            // An empty peer would be refused by the API server, one with unknown fields would be empty.
            Ok(peer) if peer == NetworkPolicyPeer::default() => errors.push(format!(
                "spec.networkPolicy.clients[{index}]: give podSelector, namespaceSelector or ipBlock"
            )),
            Ok(peer) => peers.push(peer),
            Err(error) => errors.push(format!("spec.networkPolicy.clients[{index}]: {error}")),
        }
    }
    Some(peers)
}

fn retention(retention: Retention) -> &'static str {
    match retention {
        Retention::Retain => "Retain",
        Retention::Delete => "Delete",
    }
}

fn resources(spec: Option<&ResourcesSpec>) -> ResourceRequirements {
    let map = |quantities: &BTreeMap<String, IntOrString>| {
        let quantity = |value: &IntOrString| match value {
            IntOrString::Int(number) => Quantity(number.to_string()),
            IntOrString::String(text) => Quantity(text.clone()),
        };
        let all: BTreeMap<String, Quantity> =
            quantities.iter().map(|(name, value)| (name.clone(), quantity(value))).collect();
        (!all.is_empty()).then_some(all)
    };
    let default = || {
        let text = |text: &str| IntOrString::String(text.to_owned());
        ResourcesSpec {
            requests: [("cpu".to_owned(), text("100m")), ("memory".to_owned(), text("128Mi"))].into(),
            limits: [("memory".to_owned(), text("512Mi"))].into(),
        }
    };
    let spec = spec.cloned().unwrap_or_else(default);
    ResourceRequirements {
        requests: map(&spec.requests),
        limits: map(&spec.limits),
        ..ResourceRequirements::default()
    }
}

#[cfg(test)]
mod tests;
