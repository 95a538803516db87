//! Values: each is described, in two places that agree; anything else is refused.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::helm::{self, file, name, of_kind, one, refusal, render, text};

fn schema() -> Value {
    serde_json::from_str(&text("charts/mneme/values.schema.json")).expect("JSON")
}

/// Parts whose inside is as in the spec of a pod, and `global`, which is Helm's.
const FREE: [&str; 5] = [
    ".global",
    ".affinity.nodeAffinity",
    ".affinity.podAffinity",
    ".affinity.podAntiAffinity",
    "[].labelSelector",
];

fn check_described(schema: &Value, path: &str) {
    assert!(
        schema["description"].as_str().is_some_and(|text| text.ends_with('.')),
        "{path} is not described"
    );
    let allowed = &schema["additionalProperties"];
    if schema["type"] == "object" {
        // Unknown keys are refused; where keys are anybody's, what they hold is said.
        let is_typed = allowed["type"].is_string() || allowed["type"].is_array();
        let is_free = FREE.iter().any(|end| path.ends_with(end));
        assert!(*allowed == false || is_typed || is_free, "{path} takes any key");
    }
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        check_described(inner, &format!("{path}.{key}"));
    }
    if schema["items"].is_object() {
        check_described(&schema["items"], &format!("{path}[]"));
    }
}

#[test]
fn every_value_is_described_and_no_other_is_taken() {
    check_described(&schema(), "");
}

/// Paths of all keys: of a schema, and of values.
fn paths(value: &Value, of_schema: bool, path: &str, all: &mut BTreeSet<String>) {
    let inner = if of_schema { &value["properties"] } else { value };
    for (key, inner) in inner.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        paths(inner, of_schema, &path, all);
        all.insert(path);
    }
}

#[test]
fn the_schema_and_the_defaults_have_the_same_keys() {
    let values: Value = serde_yaml::from_str(&text("charts/mneme/values.yaml")).expect("YAML");
    let (mut in_schema, mut in_values) = (BTreeSet::new(), BTreeSet::new());
    paths(&schema(), true, "", &mut in_schema);
    paths(&values, false, "", &mut in_values);
    // Given by Helm, and what is empty by default.
    in_schema.retain(|path| path != ".global" && !path.starts_with(".affinity."));
    // The inside of what is a map of anything.
    in_values
        .retain(|path| !path.starts_with(".resources.requests.") && !path.starts_with(".resources.limits."));
    assert_eq!(in_values, in_schema);
}

#[test]
fn every_default_has_a_comment_above_it() {
    let text = text("charts/mneme/values.yaml");
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.windows(2) {
        let (above, line) = (pair[0].trim(), pair[1].trim());
        let is_key =
            line.split_once(':').is_some_and(|(key, _)| key.bytes().all(|byte| byte.is_ascii_alphabetic()));
        if is_key && !["cpu", "memory"].iter().any(|key| line.starts_with(key)) {
            assert!(above.starts_with('#'), "no comment above {line:?}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    for (setting, words) in [
        ("replica=2", "additional properties 'replica' not allowed"),
        ("image.name=x", "additional properties 'name' not allowed"),
        ("monitoring.rules.label=x", "additional properties 'label' not allowed"),
        ("replicas=two", "/replicas"),
        ("replicas=-1", "/replicas"),
        ("replicas=50", "/replicas"),
        ("image.repository=", "/image/repository"),
        ("image.tag=a/b", "/image/tag"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("nodeImage.pullPolicy=never", "/nodeImage/pullPolicy"),
        ("scope.namespaces=shop", "/scope/namespaces"),
        ("scope.namespaces={Shop}", "/scope/namespaces/0"),
        ("scope.namespaces={shop,shop}", "/scope/namespaces"),
        ("crds.install=maybe", "/crds/install"),
        ("logging.level=loud", "/logging/level"),
        ("logging.format=xml", "/logging/format"),
        ("clusterDomain=.local", "/clusterDomain"),
        ("listenAddress=everywhere", "/listenAddress"),
        ("resources.requests.cpu.a=b", "/resources/requests/cpu"),
        ("tolerations[0].effect=Never", "/tolerations/0/effect"),
        ("serviceAccount.name=No Name", "/serviceAccount/name"),
        ("monitoring.podMonitor.interval=often", "/monitoring/podMonitor/interval"),
        ("monitoring.rules.runbookUrl=a#b", "/monitoring/rules/runbookUrl"),
        ("fullnameOverride=My-Name", "/fullnameOverride"),
    ] {
        let said = refusal(&[setting]);
        assert!(said.contains(words), "{setting}: {said}");
    }
    // Nothing is left of a value that is taken away.
    assert!(refusal(&["image=null"]).contains("image"));
}

#[test]
fn values_reach_what_they_are_for() {
    for (setting, pointer, value) in [
        (
            "image.repository=registry.example.com/o",
            "/spec/template/spec/containers/0/image",
            "registry.example.com/o:0.1.0",
        ),
        ("image.pullPolicy=Always", "/spec/template/spec/containers/0/imagePullPolicy", "Always"),
        ("podAnnotations.a=b", "/spec/template/metadata/annotations/a", "b"),
        ("podLabels.a=b", "/spec/template/metadata/labels/a", "b"),
        ("nodeSelector.a=b", "/spec/template/spec/nodeSelector/a", "b"),
        ("tolerations[0].key=a", "/spec/template/spec/tolerations/0/key", "a"),
        ("priorityClassName=high", "/spec/template/spec/priorityClassName", "high"),
        ("imagePullSecrets[0].name=a", "/spec/template/spec/imagePullSecrets/0/name", "a"),
        ("resources.limits.memory=1Gi", "/spec/template/spec/containers/0/resources/limits/memory", "1Gi"),
        ("fullnameOverride=other", "/metadata/name", "other"),
        ("serviceAccount.name=other", "/spec/template/spec/serviceAccountName", "other"),
    ] {
        let objects = render(&[setting]);
        let deployment = one(&objects, "Deployment");
        let value = value.replace("0.1.0", env!("CARGO_PKG_VERSION"));
        assert_eq!(deployment.pointer(pointer), Some(&Value::from(value)), "{setting}");
    }
    let objects = render(&["replicas=0"]);
    assert_eq!(one(&objects, "Deployment")["spec"]["replicas"], 0);
}

#[test]
fn the_definition_is_there_and_kept_unless_told_otherwise() {
    const KIND: &str = "CustomResourceDefinition";
    let kept = |objects: &[Value]| {
        one(objects, KIND)["metadata"]["annotations"]["helm.sh/resource-policy"].as_str().map(str::to_owned)
    };
    assert_eq!(kept(&render(&[])).as_deref(), Some("keep"));
    assert_eq!(kept(&render(&["crds.keep=false"])), None);
    assert!(of_kind(&render(&["crds.install=false"]), KIND).is_empty());
    // What is installed is what the operator prints, word for word but for the metadata.
    let objects = render(&[]);
    let printed = mneme_operator::crd::yaml().expect("YAML");
    let printed: Value = serde_yaml::from_str(&printed).expect("YAML");
    assert_eq!(one(&objects, KIND)["spec"], printed["spec"]);
    assert_eq!(name(one(&objects, KIND)), name(&printed));
}

#[test]
fn names_follow_the_release() {
    let objects = render(&[]);
    assert_eq!(name(one(&objects, "Deployment")), "mneme");
    let mut command = Command::new(helm::tool("helm"));
    command.args(["template", "scoped"]).arg(file("charts/mneme")).args(["--kube-version", "1.30.0"]);
    let output = helm::run(&mut command);
    let objects = helm::documents(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(name(one(&objects, "Deployment")), "scoped-mneme");
}

#[test]
fn the_chart_has_the_version_of_the_workspace() {
    let chart: Value = serde_yaml::from_str(&text("charts/mneme/Chart.yaml")).expect("YAML");
    for field in ["version", "appVersion"] {
        assert_eq!(chart[field], env!("CARGO_PKG_VERSION"), "{field}");
    }
}

#[test]
fn helm_finds_nothing_to_complain_of() {
    for settings in
        ["crds.install=true", "monitoring.rules.enabled=true,monitoring.podMonitor.enabled=true,replicas=2"]
    {
        let mut command = Command::new(helm::tool("helm"));
        command
            .args(["lint", "--strict", "--kube-version", "1.30.0", "--set", settings])
            .arg(file("charts/mneme"));
        let output = helm::run(&mut command);
        assert!(output.status.success(), "{}", helm::printed(&output));
    }
}
