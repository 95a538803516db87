//! The NetworkPolicy: clients to the client port, peers to the peer port, the cluster to the admin port. What nodes may
//! reach is left open: peers outside and the cluster's DNS are anywhere.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata;
use super::names::{ADMIN_PORT, CLIENT_PORT, PEER_PORT};
use crate::peers::Source;
use crate::reconcile::validate::Valid;

fn matching(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

/// `from` none: everybody.
fn rule(port: i32, from: Option<Vec<NetworkPolicyPeer>>) -> NetworkPolicyIngressRule {
    let port = NetworkPolicyPort {
        port: Some(IntOrString::Int(port)),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    };
    NetworkPolicyIngressRule { ports: Some(vec![port]), from }
}

fn namespace(selector: LabelSelector) -> NetworkPolicyPeer {
    NetworkPolicyPeer { namespace_selector: Some(selector), ..NetworkPolicyPeer::default() }
}

/// Builds it, where it is wanted.
pub fn build(valid: &Valid) -> Option<NetworkPolicy> {
    let clients = valid.network.as_ref()?;
    let own = NetworkPolicyPeer {
        pod_selector: Some(matching(valid.names.selector())),
        ..NetworkPolicyPeer::default()
    };
    let services = valid.sources.iter().filter_map(|source| match source {
        Source::Service { namespace, .. } => Some(namespace.clone()),
        Source::Host(_) => None,
    });
    let services =
        services.map(|name| namespace(matching([("kubernetes.io/metadata.name".to_owned(), name)].into())));
    // Hosts dial too, from addresses that nobody can tell beforehand; the cluster secret keeps strangers out.
    let has_hosts = valid.sources.iter().any(|source| matches!(source, Source::Host(_)));
    let peers = (!has_hosts).then(|| std::iter::once(own).chain(services).collect());
    let clients = (!clients.is_empty()).then(|| clients.clone());
    let everywhere_inside = vec![namespace(LabelSelector::default())];
    Some(NetworkPolicy {
        metadata: metadata(valid, valid.names.set()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(matching(valid.names.selector())),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![
                rule(CLIENT_PORT, clients),
                rule(PEER_PORT, peers),
                rule(ADMIN_PORT, Some(everywhere_inside)),
            ]),
            ..NetworkPolicySpec::default()
        }),
        ..NetworkPolicy::default()
    })
}
