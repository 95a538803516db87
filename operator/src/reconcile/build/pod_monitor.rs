//! The PodMonitor, where the cluster knows that kind.

use kube::api::DynamicObject;
use serde_json::json;

use super::metadata;
use crate::reconcile::fetch::pod_monitor_kind;
use crate::reconcile::validate::Valid;

/// Builds it, where it is wanted.
pub fn build(valid: &Valid) -> Option<DynamicObject> {
    let monitoring = valid.monitoring.as_ref()?;
    let mut object = DynamicObject::new(&valid.names.set(), &pod_monitor_kind());
    object.metadata = metadata(valid, valid.names.set());
    let labels = object.metadata.labels.get_or_insert_default();
    for (key, value) in &monitoring.labels {
        // The operator finds its objects by its own labels.
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    object.data = json!({
        "spec": {
            "selector": { "matchLabels": valid.names.selector() },
            "podMetricsEndpoints": [{ "port": "admin", "path": "/metrics", "interval": monitoring.interval }],
        }
    });
    Some(object)
}
