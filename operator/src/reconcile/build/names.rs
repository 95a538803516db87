//! Names, labels and addresses: what tools, other sets and people rely on.

use std::collections::BTreeMap;

/// Value of `app.kubernetes.io/managed-by`, by which the operator's objects are watched.
pub const MANAGED_BY: &str = "mneme-operator";
/// Client port.
pub const CLIENT_PORT: i32 = 7070;
/// Peer port.
pub const PEER_PORT: i32 = 7071;
/// Admin port.
pub const ADMIN_PORT: i32 = 7072;
/// Key of the tables in the ConfigMap.
pub const CONFIG_KEY: &str = "mneme.yaml";
/// Key of the peer list in the ConfigMap.
pub const PEERS_KEY: &str = "peers";
/// Key of the clients' tokens in a Secret.
pub const TOKENS_KEY: &str = "tokens";
/// Key of the first token alone in a Secret that the operator made.
pub const TOKEN_KEY: &str = "token";
/// Key of the cluster secret in a Secret.
pub const SECRET_KEY: &str = "secret";
/// Name of the node's container.
pub const CONTAINER: &str = "node";
/// Name of the volume claim template.
pub const CLAIM: &str = "data";
/// Annotation of pods: hash of the peer list, so that a kubelet brings a new list at once.
pub const PEERS_HASH: &str = "mneme.dev/peers-hash";
/// Annotation of the pod template: hash of the tables, so that a change replaces nodes.
pub const CONFIG_HASH: &str = "mneme.dev/config-hash";
/// Annotation of the StatefulSet: hash of the pod template as built.
pub const TEMPLATE_HASH: &str = "mneme.dev/template-hash";
/// Annotation of every object: hash of what was applied last.
pub const APPLIED_HASH: &str = "mneme.dev/applied-hash";
/// Annotation of the StatefulSet: where the image came from.
pub const IMAGE_SOURCE: &str = "mneme.dev/image-source";
/// Annotation of a SessionCache that lets it shrink unchecked.
pub const SKIP_SCALE_DOWN_CHECK: &str = "mneme.dev/skip-scale-down-check";

/// The names of one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Name of the SessionCache.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Domain of the cluster's names.
    pub domain: String,
}

impl Names {
    /// StatefulSet, client Service, ServiceAccount, PodDisruptionBudget, NetworkPolicy, PodMonitor.
    pub fn set(&self) -> String {
        self.name.clone()
    }

    /// Headless Service.
    pub fn peers(&self) -> String {
        format!("{}-peers", self.name)
    }

    /// ConfigMap.
    pub fn config(&self) -> String {
        format!("{}-config", self.name)
    }

    /// Secret of the clients' tokens, when the operator makes it.
    pub fn tokens(&self) -> String {
        format!("{}-tokens", self.name)
    }

    /// Secret of the cluster, when the operator makes it.
    pub fn cluster(&self) -> String {
        format!("{}-cluster", self.name)
    }

    /// A pod.
    pub fn pod(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.name)
    }

    /// Number of a pod; `None` when it is no pod of this set.
    pub fn ordinal(&self, pod: &str) -> Option<i32> {
        let number = pod.strip_prefix(&self.name)?.strip_prefix('-')?;
        number.parse().ok().filter(|ordinal| *ordinal >= 0 && self.pod(*ordinal) == pod)
    }

    /// Name of the headless Service in DNS.
    pub fn peers_host(&self) -> String {
        format!("{}.{}.svc.{}", self.peers(), self.namespace, self.domain)
    }

    /// How peers reach a node.
    pub fn address(&self, pod: &str) -> String {
        format!("{pod}.{}:{PEER_PORT}", self.peers_host())
    }

    /// Where clients connect.
    pub fn endpoint(&self) -> String {
        format!("http://{}.{}.svc.{}:{CLIENT_PORT}", self.set(), self.namespace, self.domain)
    }

    /// Labels that select the pods; immutable.
    pub fn selector(&self) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/component", "node"),
            ("app.kubernetes.io/instance", &self.name),
            ("app.kubernetes.io/name", "mneme"),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }

    /// Labels of every object.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector();
        labels.insert("app.kubernetes.io/managed-by".to_owned(), MANAGED_BY.to_owned());
        labels
    }

    /// The labels that select the pods, as text.
    pub fn selector_text(&self) -> String {
        let pairs: Vec<String> =
            self.selector().iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(",")
    }

    /// Selects the operator's objects of this set.
    pub fn owned_text(&self) -> String {
        format!("app.kubernetes.io/managed-by={MANAGED_BY},app.kubernetes.io/instance={}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_have_numbers() {
        let names = Names { name: "web".into(), namespace: "shop".into(), domain: "cluster.local".into() };
        assert_eq!(names.ordinal("web-12"), Some(12));
        for other in ["web", "web-", "web-01", "web--1", "web-a", "webs-1", "other-1"] {
            assert_eq!(names.ordinal(other), None, "{other}");
        }
        assert_eq!(names.address("web-0"), "web-0.web-peers.shop.svc.cluster.local:7071");
    }
}
