//! kubeconform: every object has the fields that Kubernetes knows, and no other.
//!
//! Its schemas are made here, from the API types that the operator is built with and from the definition: they are at hand
//! wherever the suite is built, and where kubeconform would fetch its own there may be no network. Made strict: a field
//! that a schema does not name is an error.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use k8s_openapi::api::{apps, core, policy, rbac};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helm::{self, file, rendered, text};

/// Kinds that the cluster may not know, whose types nobody brings: `alerts` and `values` look at them.
const SKIPPED: &str = "PodMonitor,PrometheusRule";

/// Refuses fields that are not named.
fn make_strict(schema: &mut Value) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(make_strict),
        Value::Object(map) => {
            let is_open = map.contains_key("additionalProperties")
                || map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            if map.get("properties").is_some_and(Value::is_object) && !is_open {
                map.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            map.values_mut().for_each(make_strict);
        }
        _ => {}
    }
}

/// The schema of a SessionCache, from the definition.
fn session_cache() -> Value {
    let definition: Value = serde_yaml::from_str(&text("manifests/crd.yaml")).expect("YAML");
    let mut schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    let metadata =
        schemars::schema_for!(k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta).to_value();
    schema["$defs"] = metadata["$defs"].clone();
    let mut metadata = metadata;
    metadata.as_object_mut().expect("an object").retain(|key, _| key != "$defs" && key != "$schema");
    schema["properties"]["metadata"] = metadata;
    for key in ["apiVersion", "kind"] {
        schema["properties"][key] = json!({"type": "string"});
    }
    // Rules are for an API server.
    schema.as_object_mut().expect("an object").remove("x-kubernetes-validations");
    schema
}

/// Writes the schemas of all kinds that are used.
fn schemas() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, mut schema: Value| {
        make_strict(&mut schema);
        fs::write(directory.path().join(format!("{name}.json")), schema.to_string())
            .expect("a schema is written");
    };
    macro_rules! write {
        ($($name:literal: $type:ty),* $(,)?) => {
            $(write($name, schemars::schema_for!($type).to_value());)*
        };
    }
    write! {
        "namespace-v1": core::v1::Namespace,
        "pod-v1": core::v1::Pod,
        "serviceaccount-v1": core::v1::ServiceAccount,
        "deployment-apps-v1": apps::v1::Deployment,
        "poddisruptionbudget-policy-v1": policy::v1::PodDisruptionBudget,
        "role-rbac-v1": rbac::v1::Role,
        "rolebinding-rbac-v1": rbac::v1::RoleBinding,
        "clusterrole-rbac-v1": rbac::v1::ClusterRole,
        "clusterrolebinding-rbac-v1": rbac::v1::ClusterRoleBinding,
    }
    let mut definition = schemars::schema_for!(apiextensions::v1::CustomResourceDefinition).to_value();
    // Defaults and the like are any JSON; the API type calls that an object.
    for (name, schema) in definition["$defs"].as_object_mut().expect("definitions") {
        if name.ends_with(".JSON") {
            *schema = json!({});
        }
    }
    write("customresourcedefinition-apiextensions-v1", definition);
    write("sessioncache-mneme-v1alpha1", session_cache());
    directory
}

fn kubeconform(schemas: &TempDir, file: &Path) -> Output {
    let location = schemas.path().join("{{.ResourceKind}}{{.KindSuffix}}.json");
    let mut command = Command::new(helm::tool("kubeconform"));
    command
        .args(["-strict", "-summary", "-verbose", "-skip", SKIPPED, "-schema-location"])
        .arg(location)
        .arg(file);
    helm::run(&mut command)
}

#[track_caller]
fn check(schemas: &TempDir, file: &Path) {
    let output = kubeconform(schemas, file);
    assert!(output.status.success(), "{}: {}", file.display(), helm::printed(&output));
}

#[test]
fn everything_that_is_rendered_conforms() {
    let (schemas, directory) = (schemas(), tempfile::tempdir().expect("a directory"));
    for settings in [
        &[][..],
        &["scope.namespaces={a,b}", "replicas=2", "crds.install=false", "imagePullSecrets[0].name=registry"],
        &[
            "monitoring.rules.enabled=true",
            "monitoring.podMonitor.enabled=true",
            "podLabels.a=b",
            "nodeSelector.a=b",
        ],
        &[
            "topologySpreadConstraints[0].maxSkew=1",
            "topologySpreadConstraints[0].topologyKey=zone",
            "topologySpreadConstraints[0].whenUnsatisfiable=ScheduleAnyway",
            "tolerations[0].operator=Exists",
            "priorityClassName=high",
            "serviceAccount.annotations.a=b",
        ],
    ] {
        let path = directory.path().join("rendered.yaml");
        // As it is, since a parser may hide that a key is there twice.
        fs::write(&path, rendered(settings)).expect("a file is written");
        check(&schemas, &path);
    }
    check(&schemas, &file("manifests/operator.yaml"));
    check(&schemas, &file("manifests/crd.yaml"));
}

#[test]
fn every_example_conforms() {
    let schemas = schemas();
    for example in crate::manifests::examples() {
        check(&schemas, &example);
    }
}

/// The check itself can fail.
#[test]
fn a_field_that_nobody_knows_is_found() {
    let (schemas, directory) = (schemas(), tempfile::tempdir().expect("a directory"));
    let path = directory.path().join("planted.yaml");
    for (planted, words) in [
        (
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"replica": 1}}),
            "replica",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "label": {}}, "spec": {"containers": []}}),
            "label",
        ),
        (
            json!({"apiVersion": "mneme.dev/v1alpha1", "kind": "SessionCache", "metadata": {"name": "a"}, "spec": {"storage": {"sise": "1Gi"}}}),
            "sise",
        ),
        (
            json!({"apiVersion": "mneme.dev/v1alpha1", "kind": "SessionCache", "metadata": {"name": "a"}, "spec": {"replicas": 16}}),
            "replicas",
        ),
        (json!({"apiVersion": "v1", "kind": "Gadget", "metadata": {"name": "a"}}), "could not find schema"),
    ] {
        fs::write(&path, planted.to_string()).expect("a file is written");
        let output = kubeconform(&schemas, &path);
        let said = helm::printed(&output);
        assert!(!output.status.success() && said.contains(words), "{planted}: {said}");
    }
}
