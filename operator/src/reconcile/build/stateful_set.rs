//! The StatefulSet: pods start at once and together, keep their claims, and are replaced when the plan says so.

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{ApiResource, DynamicObject};
use serde_json::{Value, json};

use super::names::{CLAIM, IMAGE_SOURCE, TEMPLATE_HASH};
use super::{Template, metadata};
use crate::reconcile::plan::Plan;
use crate::reconcile::validate::Valid;

/// Builds it.
///
/// Claim templates are immutable. The size in one that exists stays as it is, and claims are grown one by one instead
/// (those of pods to come too, once they are bound). The other way, to delete the set with its pods orphaned and make it
/// anew, leaves a time in which nobody restarts a pod, and needs the right to delete StatefulSets, which with the
/// retention Delete is the right to delete data.
pub fn build(valid: &Valid, live: Option<&StatefulSet>, template: &Template, plan: &Plan) -> DynamicObject {
    let names = &valid.names;
    let mut object = DynamicObject::new(&names.set(), &ApiResource::erase::<StatefulSet>(&()));
    object.metadata = metadata(valid, names.set());
    object.metadata.annotations = Some(
        [
            (TEMPLATE_HASH.to_owned(), template.hash.clone()),
            (IMAGE_SOURCE.to_owned(), template.image_source.to_owned()),
        ]
        .into(),
    );
    let mut spec = json!({
        "serviceName": names.peers(),
        "replicas": plan.replicas,
        "podManagementPolicy": "Parallel",
        "revisionHistoryLimit": 5,
        "selector": { "matchLabels": names.selector() },
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": plan.partition } },
        "template": template.body,
    });
    if !valid.storage.is_ephemeral {
        spec["persistentVolumeClaimRetentionPolicy"] =
            json!({ "whenDeleted": valid.storage.when_deleted, "whenScaled": valid.storage.when_scaled });
        spec["volumeClaimTemplates"] = json!([claim(valid, live)]);
    }
    object.data = json!({ "spec": spec });
    object
}

fn claim(valid: &Valid, live: Option<&StatefulSet>) -> Value {
    let size = live.and_then(claimed_size).unwrap_or_else(|| valid.storage.size.clone());
    let mut claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": { "name": CLAIM },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": "Filesystem",
            "resources": { "requests": { "storage": size } },
        }
    });
    if let Some(class) = &valid.storage.class {
        claim["spec"]["storageClassName"] = json!(class);
    }
    claim
}

/// Size in the claim template of a set that exists.
fn claimed_size(set: &StatefulSet) -> Option<String> {
    let claims = set.spec.as_ref()?.volume_claim_templates.as_ref()?;
    let claim = claims.iter().find(|claim| claim.metadata.name.as_deref() == Some(CLAIM))?;
    Some(claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.clone())
}
