use serde_json::json;

use super::*;

fn check(spec: Value) -> Result<Valid, Vec<String>> {
    let cache = json!({
        "apiVersion": "mneme.dev/v1alpha1", "kind": "SessionCache",
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid", "annotations": {SKIP_SCALE_DOWN_CHECK: "true"}},
        "spec": spec,
    });
    validate(&serde_json::from_value(cache).expect("well-formed"), "cluster.local")
}

#[track_caller]
fn refused(spec: Value, part: &str) {
    let errors = check(spec).err().unwrap_or_default();
    assert!(errors.len() == 1 && errors[0].contains(part), "{errors:?}");
}

#[test]
fn an_empty_spec_has_the_documented_defaults() {
    let valid = check(json!({})).expect("valid");
    assert_eq!((valid.replicas, valid.cluster.as_str(), valid.durability), (3, "web", "fsync"));
    assert_eq!(valid.tables, [TableConfig::new("sessions".parse().expect("a name"))]);
    assert_eq!((valid.image, valid.storage.size.as_str()), (ImageChoice::Default, "1Gi"));
    assert!(valid.needs_tokens && valid.network.is_some() && valid.monitoring.is_some());
    assert!(valid.skips_scale_down_check);
    assert_eq!(valid.owner.block_owner_deletion, Some(true));
}

#[test]
fn what_nodes_and_the_api_server_would_refuse_is_refused_by_name() {
    refused(
        json!({"tables": [{"name": "a", "defaultTtl": "40d"}]}),
        "spec.tables[0]: table a: defaultTtl is longer",
    );
    refused(json!({"podTemplate": {"spec": {"containers": [{"name": 7}]}}}), "spec.podTemplate: ");
    refused(
        json!({"networkPolicy": {"clients": [{"podselector": {}}]}}),
        "spec.networkPolicy.clients[0]: give",
    );
    refused(json!({"networkPolicy": {"clients": [{"podSelector": 1}]}}), "spec.networkPolicy.clients[0]: ");
}

#[test]
fn every_error_is_told() {
    let errors = check(json!({
        "tables": [{"name": "a", "maxAge": "x"}, {"name": "B"}],
        "networkPolicy": {"clients": [{}]},
    }));
    assert_eq!(errors.expect_err("refused").len(), 3);
}

#[test]
fn labels_of_the_operator_cannot_be_overridden() {
    let labels = json!({"app.kubernetes.io/instance": "other", "mine": "yes"});
    let valid = check(json!({"podTemplate": {"metadata": {"labels": labels}}})).expect("valid");
    assert_eq!(valid.pod_template["metadata"]["labels"], json!({"mine": "yes"}));
}

#[test]
fn an_image_goes_before_a_version() {
    let image = |spec| check(spec).expect("valid").image;
    assert_eq!(image(json!({"image": "a:1", "version": "2"})), ImageChoice::Image("a:1".to_owned()));
    assert_eq!(image(json!({"image": "", "version": "2"})), ImageChoice::Version("2".to_owned()));
}

#[test]
fn resources_that_are_given_replace_the_defaults_whole() {
    let resources = check(json!({"resources": {"limits": {"cpu": 1}}})).expect("valid").resources;
    assert_eq!(resources.requests, None);
    assert_eq!(resources.limits, Some([("cpu".to_owned(), Quantity("1".to_owned()))].into()));
}
