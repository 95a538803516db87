//! The PodDisruptionBudget: one node at a time may be drained.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata;
use crate::reconcile::validate::Valid;

/// Builds it for a set that has so many nodes, or gets them; none for a single node, which no budget can keep up and which
/// would hold up every drain for ever.
pub fn build(valid: &Valid, replicas: i32) -> Option<PodDisruptionBudget> {
    if replicas <= 1 {
        return None;
    }
    let selector = LabelSelector { match_labels: Some(valid.names.selector()), ..LabelSelector::default() };
    Some(PodDisruptionBudget {
        metadata: metadata(valid, valid.names.set()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector),
            // A pod that is not ready anyhow may always be moved, to where it can be.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    })
}
