//! Every pod that the chart makes: Pod Security `restricted`, nothing to write to, bounded, and told what its program
//! understands.

use std::collections::BTreeSet;

use clap::{CommandFactory, Parser};
use mneme_operator::config::{Cli, Command, Config};
use serde_json::Value;

use crate::helm::{name, of_kind, one, render};

/// The specs of all pods of objects, with a name for people.
fn pods(objects: &[Value]) -> Vec<(String, Value)> {
    let pods = objects.iter().filter_map(|object| {
        let spec = match object["kind"].as_str()? {
            "Pod" => &object["spec"],
            "Deployment" | "Job" | "DaemonSet" | "StatefulSet" => &object["spec"]["template"]["spec"],
            _ => return None,
        };
        Some((format!("{} {}", object["kind"], name(object)), spec.clone()))
    });
    pods.collect()
}

/// Volumes that `restricted` allows, less those that nobody needs.
const VOLUMES: [&str; 5] = ["configMap", "downwardAPI", "emptyDir", "projected", "secret"];

#[track_caller]
fn check_is_restricted(pod: &str, spec: &Value) {
    for field in ["hostNetwork", "hostPID", "hostIPC", "hostUsers", "initContainers", "ephemeralContainers"] {
        assert!(spec[field].is_null(), "{pod}: {field}");
    }
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        let sources = volume.as_object().expect("a volume").keys().filter(|key| *key != "name");
        sources.for_each(|source| assert!(VOLUMES.contains(&source.as_str()), "{pod}: volume {source}"));
    }
    let security = &spec["securityContext"];
    assert_eq!(security["runAsNonRoot"], true, "{pod}");
    assert_eq!(security["runAsUser"], 65532, "{pod}");
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{pod}");
    let containers = spec["containers"].as_array().expect("containers");
    for container in containers {
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false, "{pod}");
        assert_eq!(security["readOnlyRootFilesystem"], true, "{pod}");
        assert_eq!(security["runAsNonRoot"], true, "{pod}");
        assert_eq!(security["capabilities"], serde_json::json!({"drop": ["ALL"]}), "{pod}");
        assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{pod}");
        assert!(security["privileged"].is_null() && security["procMount"].is_null(), "{pod}");
        let ports = container["ports"].as_array().into_iter().flatten();
        ports.for_each(|port| assert!(port["hostPort"].is_null(), "{pod}"));
        assert!(container["resources"]["limits"]["memory"].is_string(), "{pod}: no limit of memory");
        assert!(container["resources"]["requests"]["cpu"].is_string(), "{pod}: no request of cpu");
    }
}

#[test]
fn every_pod_is_restricted() {
    for settings in [&[][..], &["replicas=2", "scope.namespaces={a}", "imagePullSecrets[0].name=registry"]] {
        let pods = pods(&render(settings));
        assert_eq!(pods.len(), 2, "the operator and the test");
        pods.iter().for_each(|(pod, spec)| check_is_restricted(pod, spec));
    }
}

#[test]
fn only_the_operator_has_a_token_of_the_api_server() {
    let objects = render(&[]);
    assert_eq!(one(&objects, "ServiceAccount")["automountServiceAccountToken"], false);
    assert_eq!(one(&objects, "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"], true);
    assert_eq!(one(&objects, "Pod")["spec"]["automountServiceAccountToken"], false);
}

#[test]
fn several_replicas_have_a_budget_and_keep_apart() {
    let objects = render(&["replicas=2"]);
    let budget = one(&objects, "PodDisruptionBudget");
    let deployment = one(&objects, "Deployment");
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
    assert_eq!(budget["spec"]["selector"], deployment["spec"]["selector"]);
    assert!(deployment["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"].is_object());
    for settings in [&["replicas=1"][..], &["replicas=2", "podDisruptionBudget.enabled=false"]] {
        assert!(of_kind(&render(settings), "PodDisruptionBudget").is_empty(), "{settings:?}");
    }
    let objects = render(&[]);
    assert!(one(&objects, "Deployment")["spec"]["template"]["spec"]["affinity"].is_null());
}

#[test]
fn probes_ask_what_the_operator_serves() {
    let objects = render(&[]);
    let container = &one(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(container["ports"][0]["name"], container["livenessProbe"]["httpGet"]["port"]);
}

#[test]
fn a_selector_never_selects_nodes() {
    let objects = render(&[]);
    let labels = &one(&objects, "Deployment")["spec"]["selector"]["matchLabels"];
    assert_eq!(labels["app.kubernetes.io/component"], "operator");
    assert_eq!(one(&objects, "Pod")["metadata"]["labels"]["app.kubernetes.io/component"], "test");
}

#[test]
fn the_operator_understands_its_environment() {
    let settings =
        ["scope.namespaces={shop,web}", "image.tag=v2", "nodeImage.repository=registry.example.com/node"];
    let objects = render(&settings);
    let container = &one(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "mneme-operator:v2");
    let told: Vec<(String, Option<String>)> = container["env"]
        .as_array()
        .expect("an environment")
        .iter()
        .map(|one| {
            let name = one["name"].as_str().expect("a name").to_owned();
            assert!(one["value"].is_string() != one["valueFrom"]["fieldRef"].is_object(), "{name}");
            (name, one["value"].as_str().map(str::to_owned))
        })
        .collect();

    // All that can be told is told, and nothing else.
    let command = Cli::command();
    let run = command.find_subcommand("run").expect("the command run");
    let known: BTreeSet<String> =
        run.get_arguments().filter_map(|one| Some(one.get_env()?.to_str()?.to_owned())).collect();
    assert_eq!(told.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>(), known);

    // And makes sense.
    let mut arguments = vec!["mneme-operator".to_owned()];
    arguments.extend(crate::helm::texts(&container["args"]));
    for (name, value) in &told {
        let flag = name.trim_start_matches("MNEME_OPERATOR_").to_lowercase().replace('_', "-");
        arguments.push(format!("--{flag}={}", value.as_deref().unwrap_or("from-the-pod")));
    }
    let Command::Run(flags) = Cli::try_parse_from(&arguments).expect("flags that are known").command else {
        panic!("not run: {arguments:?}")
    };
    let config = Config::new(*flags, None).expect("a configuration");
    assert_eq!(config.namespaces, ["shop", "web"]);
    assert_eq!(config.defaults.image, format!("registry.example.com/node:{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(config.admin_addr.port(), 8080);
}

#[test]
fn the_test_writes_through_one_member_and_reads_through_another() {
    for (setting, namespace) in [
        ("replicas=1", "mneme-system"),
        ("scope.namespaces={shop}", "shop"),
        ("scope.namespaces={shop,mneme-system}", "mneme-system"),
    ] {
        let objects = render(&[setting]);
        let (cache, pod) = (one(&objects, "SessionCache"), one(&objects, "Pod"));
        for object in [cache, pod] {
            assert_eq!(object["metadata"]["namespace"], namespace, "{setting}");
            assert_eq!(object["metadata"]["annotations"]["helm.sh/hook"], "test");
        }
        assert_eq!(cache["spec"]["replicas"], 2);
        assert_eq!(cache["spec"]["storage"]["ephemeral"], true);
        let container = &pod["spec"]["containers"][0];
        let arguments = crate::helm::texts(&container["args"]);
        let arguments = std::iter::once("mneme-operator".to_owned()).chain(arguments);
        let Command::Check(flags) = Cli::try_parse_from(arguments).expect("flags that are known").command
        else {
            panic!("not check")
        };
        let set = name(cache);
        for (ordinal, node) in flags.node.iter().enumerate() {
            let host = format!("http://{set}-{ordinal}.{set}-peers.{namespace}.svc.cluster.local:7070");
            assert_eq!(*node, host);
        }
        assert_eq!(flags.node.len(), 2);
        let token = flags.token_file.expect("a token");
        let mount = container["volumeMounts"][0]["mountPath"].as_str().expect("a mount");
        assert!(token.starts_with(mount), "{}", token.display());
        let secret = &pod["spec"]["volumes"][0]["secret"];
        assert_eq!(secret["secretName"], format!("{set}-tokens"));
        assert_eq!(secret["items"][0]["key"], "token");
    }
}
