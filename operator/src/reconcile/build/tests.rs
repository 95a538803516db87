use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::crd::v1alpha1::SessionCache;
use crate::peers::Found;
use crate::reconcile::fetch::Children;
use crate::reconcile::plan::{Rollout, Scaling};
use crate::reconcile::validate::validate;

fn defaults() -> Defaults {
    Defaults {
        image: "registry.example.com/mneme-node:1.0.0".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        listen_ip: "0.0.0.0".to_owned(),
    }
}

fn valid(spec: Value) -> Valid {
    let cache = json!({
        "apiVersion": "mneme.dev/v1alpha1", "kind": "SessionCache",
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid-of-web", "generation": 1}, "spec": spec,
    });
    let cache: SessionCache = serde_json::from_value(cache).expect("well-formed");
    validate(&cache, "cluster.local").expect("valid")
}

/// A spec in which everything is said.
fn everything() -> Value {
    json!({
        "replicas": 5,
        "image": "registry.example.com/other:2",
        "clusterName": "shop",
        "tables": [
            {"name": "sessions", "defaultTtl": "20m", "maxAge": "12h", "touchResolution": "30s"},
            {"name": "no", "kind": "cache", "maxBytes": 1_048_576, "whenFull": "evict-nearest-expiry"},
        ],
        "peers": {
            "hosts": ["10.0.0.5:7071", "cache.example.com"],
            "headlessService": {"name": "other-peers", "namespace": "market"},
        },
        "storage": {"size": "20Gi", "storageClassName": "fast", "retention": {"whenDeleted": "Delete"}},
        "durability": "commit",
        "resources": {"requests": {"cpu": 2, "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
        "auth": {"tokensSecret": "my-tokens", "clusterSecret": "my-secret"},
        "networkPolicy": {"clients": [{"podSelector": {"matchLabels": {"app": "shop"}}}]},
        "monitoring": {"labels": {"release": "prometheus"}, "interval": "15s"},
        "podTemplate": {
            "metadata": {"labels": {"team": "web"}, "annotations": {"example.com/a": "b"}},
            "spec": {
                "priorityClassName": "high",
                "tolerations": [{"key": "dedicated", "operator": "Exists"}],
                "affinity": null,
                "containers": [
                    {"name": "node", "env": [{"name": "MNEME_LOG_LEVEL", "value": "debug"}]},
                    {"name": "side", "image": "side:1", "fieldOfTheFuture": {"a": 1}},
                ],
            },
        },
    })
}

fn observed(valid: &Valid) -> Observed {
    let found = valid.sources.iter().zip([["192.0.2.7:7071"], ["10.0.0.5:7071"], ["192.0.2.9:7071"]]);
    let found = found.map(|(source, addresses)| Found {
        source: source.label(),
        addresses: addresses.map(str::to_owned).into(),
        error: None,
    });
    Observed { found: found.collect(), pod_monitors: Some(Children::default()), ..Observed::default() }
}

fn resources(spec: Value) -> Resources {
    let valid = valid(spec);
    let observed = observed(&valid);
    let template = template(&valid, &observed, &defaults()).expect("a pod");
    let plan = Plan {
        replicas: valid.replicas,
        partition: valid.replicas,
        rollout: Rollout::Done,
        scaling: Scaling::Up,
    };
    build(&valid, &observed, &template, &plan)
}

/// Compares an object with the one in the repository, or writes it when `MNEME_WRITE_GOLDEN` is set.
#[track_caller]
fn check(fixture: &str, name: &str, object: &impl Serialize) {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/reconcile/build/golden");
    let path = directory.join(format!("{fixture}-{name}.yaml"));
    let mut value = serde_json::to_value(object).expect("JSON");
    if let Some(texts) = value.get_mut("stringData").and_then(Value::as_object_mut) {
        texts.values_mut().for_each(|text| *text = json!("random"));
    }
    let text = serde_yaml::to_string(&value).expect("YAML");
    if std::env::var_os("MNEME_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("the directory is there");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text,
        committed,
        "{} is stale: look at the difference, then set MNEME_WRITE_GOLDEN=1",
        path.display()
    );
}

fn check_all(fixture: &str, spec: Value) {
    // No `..`: an object that is added must be compared here.
    let Resources {
        service_account,
        secrets,
        peer_service,
        client_service,
        config_map,
        disruption_budget,
        network_policy,
        pod_monitor,
        stateful_set,
    } = resources(spec);
    check(fixture, "service-account", &service_account);
    for secret in &secrets {
        check(fixture, &format!("secret-{}", secret.metadata.name.as_deref().expect("a name")), secret);
    }
    check(fixture, "peer-service", &peer_service);
    check(fixture, "client-service", &client_service);
    check(fixture, "config-map", &config_map);
    check(fixture, "disruption-budget", &disruption_budget);
    check(fixture, "network-policy", &network_policy);
    check(fixture, "pod-monitor", &pod_monitor);
    check(fixture, "stateful-set", &stateful_set);
}

#[test]
fn objects_of_an_empty_spec_are_as_committed() {
    check_all("minimal", json!({}));
}

#[test]
fn objects_of_a_spec_that_says_everything_are_as_committed() {
    check_all("everything", everything());
}

#[test]
fn objects_of_a_single_ephemeral_open_node_are_as_committed() {
    let spec = json!({
        "replicas": 1, "storage": {"ephemeral": true}, "auth": {"enabled": false}, "networkPolicy": {"enabled": false},
        "monitoring": {"podMonitor": false},
    });
    check_all("single", spec);
}

/// An upgrade of the operator must replace no pod. Whoever has to change these lines changes every user's pods with the
/// next release, and says so in its notes.
#[test]
fn the_pod_template_is_that_of_the_last_release() {
    let template = |spec: Value| {
        let valid = valid(spec);
        template(&valid, &observed(&valid), &defaults()).expect("a pod").hash
    };
    assert_eq!(template(json!({})), "be6af90a905ff064");
    assert_eq!(template(everything()), "013c7fae088640bf");
}

#[test]
fn a_new_default_image_leaves_a_set_as_it_was_made() {
    let valid = valid(json!({}));
    let set = |source: &str| {
        let mut set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "web", "annotations": {IMAGE_SOURCE: source}},
            "spec": {"selector": {}, "serviceName": "web-peers",
                     "template": {"spec": {"containers": [{"name": "node", "image": "mneme-node:old"}]}}},
        }))
        .expect("well-formed");
        set.metadata.namespace = Some("shop".to_owned());
        set
    };
    assert_eq!(image(&valid, Some(&set("default")), &defaults()).0, "mneme-node:old");
    // Who took an image out of the spec wants the operator's.
    assert_eq!(image(&valid, Some(&set("spec")), &defaults()).0, defaults().image);
    assert_eq!(image(&valid, None, &defaults()).0, defaults().image);
}

#[test]
fn a_version_is_the_tag_of_the_default_image() {
    for (image, expected) in [
        ("mneme-node", "mneme-node:2"),
        ("mneme-node:1", "mneme-node:2"),
        ("localhost:5000/mneme-node", "localhost:5000/mneme-node:2"),
        ("localhost:5000/a/mneme-node:1@sha256:00", "localhost:5000/a/mneme-node:2"),
    ] {
        assert_eq!(with_tag(image, "2"), expected);
    }
}

#[test]
fn two_builds_are_one_but_for_the_secrets() {
    let built = |spec: Value| serde_json::to_value(resources(spec).stateful_set).expect("JSON");
    assert_eq!(built(everything()), built(everything()));
    let secrets = |spec: Value| resources(spec).secrets[0].string_data.clone().expect("data");
    assert_ne!(secrets(json!({})), secrets(json!({})));
    let data = secrets(json!({}));
    assert_eq!(data["tokens"], format!("default:{}\n", data["token"]));
    assert_eq!(data["token"].len(), 43);
}

#[test]
fn a_host_of_the_peers_opens_the_peer_port_and_a_service_its_namespace() {
    let peers = |spec: Value| {
        let policy = resources(spec).network_policy.expect("a policy");
        serde_json::to_value(&policy.spec.expect("a spec").ingress.expect("rules")[1]).expect("JSON")
    };
    assert!(peers(json!({"peers": {"hosts": ["a"]}}))["from"].is_null());
    let service =
        peers(json!({"peers": {"headlessService": {"name": "other-peers", "namespace": "market"}}}));
    assert_eq!(
        service["from"][1]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
        "market"
    );
}

#[test]
fn the_configuration_of_the_nodes_is_read_by_the_nodes() {
    let text = config_map::config(&valid(everything()).tables);
    #[derive(serde::Deserialize)]
    struct File {
        tables: Vec<mneme_api::TableConfig>,
    }
    let file: File = serde_yaml::from_str(&text).expect("YAML");
    assert_eq!(file.tables, valid(everything()).tables);
    assert_eq!(file.tables[1].name.as_str(), "no");
}
