//! Files that are made from the chart, and the examples.

use std::path::PathBuf;
use std::process::Command;

use mneme_operator::crd::v1alpha1::SessionCache;
use mneme_operator::reconcile::validate::validate;

use crate::helm::{self, documents, file, text};

/// The examples.
pub(crate) fn examples() -> Vec<PathBuf> {
    let directory = std::fs::read_dir(file("manifests/examples")).expect("the examples");
    let mut examples: Vec<PathBuf> = directory.map(|entry| entry.expect("an entry").path()).collect();
    examples.sort();
    let names: Vec<&str> = examples.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(names, ["ephemeral.yaml", "external-hosts.yaml", "minimal.yaml", "production.yaml"]);
    examples
}

#[test]
fn the_manifest_is_the_chart_as_it_is_now() {
    let mut command = Command::new(file("manifests/render"));
    command.arg("print").env("PATH", search_path());
    let output = helm::run(&mut command);
    assert!(output.status.success(), "{}", helm::printed(&output));
    let rendered = String::from_utf8(output.stdout).expect("YAML in UTF-8");
    assert_eq!(text("manifests/operator.yaml"), rendered, "stale: run manifests/render");
}

/// With the directory of the helm under test, wherever that is.
fn search_path() -> std::ffi::OsString {
    let directory = helm::tool("helm").parent().expect("the directory of a program").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(directory).chain(std::env::split_paths(&path)))
        .expect("a search path")
}

#[test]
fn the_chart_has_the_definition_that_the_operator_prints() {
    let printed = mneme_operator::crd::yaml().expect("YAML");
    assert_eq!(text("manifests/crd.yaml"), printed, "stale: mneme-operator crd >manifests/crd.yaml");
    assert_eq!(text("charts/mneme/files/crd.yaml"), printed, "stale: run manifests/render");
}

#[test]
fn the_manifest_stands_alone() {
    let objects = documents(&text("manifests/operator.yaml"));
    // Its namespace comes first, and holds pods to what they promise.
    assert_eq!(objects[0]["kind"], "Namespace");
    assert_eq!(objects[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    assert!(objects.iter().any(|object| object["kind"] == "CustomResourceDefinition"));
    assert!(objects.iter().all(|object| object["metadata"]["annotations"]["helm.sh/hook"].is_null()));
}

#[test]
fn every_example_makes_sense_to_the_operator() {
    for example in examples() {
        let name = example.display();
        let text = std::fs::read_to_string(&example).expect("an example");
        assert!(text.starts_with('#'), "{name} does not say what it is for");
        let objects = documents(&text);
        assert!(!objects.is_empty(), "{name} is empty");
        for mut object in objects {
            assert!(object["metadata"]["namespace"].is_null(), "{name} names a namespace");
            object["metadata"]["namespace"] = "shop".into();
            object["metadata"]["uid"] = "1".into();
            let cache: SessionCache = serde_json::from_value(object).expect("a SessionCache");
            if let Err(errors) = validate(&cache, "cluster.local") {
                panic!("{name}: {errors:?}");
            }
        }
    }
}
