//! Services: one that names the pods for their peers, and one for clients.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata;
use super::names::{CLIENT_PORT, PEER_PORT};
use crate::reconcile::validate::Valid;

fn port(name: &str, number: i32, protocol: Option<&str>) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: protocol.map(str::to_owned),
        ..ServicePort::default()
    }
}

fn service(valid: &Valid, name: String, port: ServicePort, selector: BTreeMap<String, String>) -> Service {
    Service {
        metadata: metadata(valid, name),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(selector),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The headless Service. Pods that are not ready are in it: a node becomes ready by meeting its peers.
pub fn peers(valid: &Valid) -> Service {
    let names = &valid.names;
    let mut service = service(valid, names.peers(), port("peer", PEER_PORT, None), names.selector());
    if let Some(spec) = &mut service.spec {
        spec.cluster_ip = Some("None".to_owned());
        spec.publish_not_ready_addresses = Some(true);
    }
    service
}

/// The Service for clients: ready pods only.
pub fn clients(valid: &Valid) -> Service {
    let names = &valid.names;
    service(valid, names.set(), port("client", CLIENT_PORT, Some("http")), names.selector())
}
