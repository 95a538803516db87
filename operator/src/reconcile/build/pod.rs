//! The pod of a node: restricted, with a read-only root, told everything by its arguments.

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, ObjectFieldSelector,
    PodAffinityTerm, PodAntiAffinity, PodDNSConfig, PodDNSConfigOption, PodSecurityContext, PodSpec, Probe,
    SeccompProfile, SecretVolumeSource, SecurityContext, SleepAction, TopologySpreadConstraint, Volume,
    VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::names::{
    ADMIN_PORT, CLAIM, CLIENT_PORT, CONFIG_HASH, CONFIG_KEY, CONTAINER, PEER_PORT, PEERS_KEY, SECRET_KEY,
    TOKENS_KEY,
};
use super::{BuildError, config_map, hash, overrides, secret_names};
use crate::config::Defaults;
use crate::reconcile::validate::Valid;

/// The user of the image.
const USER: i64 = 65_532;
/// Read by the owner and the group.
const SECRET_MODE: i32 = 0o440;
/// Time between a pod's leaving its Services and the signal: the proxies of all nodes of the cluster hear of it first,
/// and no client meets a closed port.
const FAREWELL_SECS: i64 = 5;
/// Time that a node has to hand over what its peers lack.
const DRAIN_SECS: i64 = 10;
/// Both, and a margin for closing the file.
const GRACE_SECS: i64 = FAREWELL_SECS + DRAIN_SECS + 15;
/// Reading a large file takes a while: so many seconds before a start counts as failed.
const START_SECS: i32 = 600;

const CONFIG_DIR: &str = "/etc/mneme/config";
const TOKENS_DIR: &str = "/etc/mneme/tokens";
const CLUSTER_DIR: &str = "/etc/mneme/cluster";
const DATA_DIR: &str = "/var/lib/mneme";

/// Builds the template with the overrides of the resource merged over it.
///
/// # Errors
///
/// [`BuildError`] when the overrides make no pod.
pub fn template(valid: &Valid, defaults: &Defaults, image: &str) -> Result<Value, BuildError> {
    let mut labels = valid.names.labels();
    // Pods belong to the set, and the operator watches them by the same labels.
    labels.insert("app.kubernetes.io/part-of".to_owned(), "mneme".to_owned());
    let spec = serde_json::to_value(spec(valid, defaults, image)).unwrap_or_default();
    let mut template = json!({
        "metadata": {
            "labels": labels,
            "annotations": {
                CONFIG_HASH: hash(&config_map::config(&valid.tables)),
                "kubectl.kubernetes.io/default-container": CONTAINER,
            },
        },
        "spec": spec,
    });
    overrides::merge(&mut template, &valid.pod_template);
    let parsed = serde_json::from_value::<k8s_openapi::api::core::v1::PodTemplateSpec>(template.clone());
    parsed.map_err(|error| BuildError::PodTemplate(error.to_string()))?;
    Ok(template)
}

fn spec(valid: &Valid, defaults: &Defaults, image: &str) -> PodSpec {
    PodSpec {
        service_account_name: Some(valid.names.set()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            // Only when the volume is new: a walk over all files at each start takes its time.
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(seccomp()),
            ..PodSecurityContext::default()
        }),
        // Names of peers are whole; without this each is first tried under every search domain.
        dns_config: Some(PodDNSConfig {
            options: Some(vec![PodDNSConfigOption {
                name: Some("ndots".to_owned()),
                value: Some("2".to_owned()),
            }]),
            ..PodDNSConfig::default()
        }),
        affinity: Some(apart(valid)),
        topology_spread_constraints: Some(
            ["kubernetes.io/hostname", "topology.kubernetes.io/zone"].map(|key| spread(valid, key)).into(),
        ),
        containers: vec![container(valid, defaults, image)],
        volumes: Some(volumes(valid)),
        ..PodSpec::default()
    }
}

fn container(valid: &Valid, defaults: &Defaults, image: &str) -> Container {
    let port = |name: &str, number: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let sleep = LifecycleHandler {
        sleep: Some(SleepAction { seconds: FAREWELL_SECS }),
        ..LifecycleHandler::default()
    };
    Container {
        name: CONTAINER.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some(defaults.image_pull_policy.clone()),
        args: Some(arguments(valid, defaults)),
        env: Some(vec![EnvVar {
            name: "POD_NAME".to_owned(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.name".to_owned(),
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        }]),
        ports: Some(vec![port("client", CLIENT_PORT), port("peer", PEER_PORT), port("admin", ADMIN_PORT)]),
        resources: Some(valid.resources.clone()),
        // The file is being read.
        startup_probe: Some(probe("/livez", 1, 2, START_SECS)),
        // Ready is caught up with every peer that is alive.
        readiness_probe: Some(probe("/readyz", 2, 2, 2)),
        // That the process turns, and nothing about peers: a restart would not bring them back.
        liveness_probe: Some(probe("/livez", 10, 5, 6)),
        lifecycle: Some(Lifecycle { pre_stop: Some(sleep), ..Lifecycle::default() }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            seccomp_profile: Some(seccomp()),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts(valid)),
        ..Container::default()
    }
}

fn arguments(valid: &Valid, defaults: &Defaults) -> Vec<String> {
    let names = &valid.names;
    let listen = |port: i32| format!("{}:{port}", defaults.listen_ip);
    let mut arguments = vec!["run".to_owned()];
    let mut add = |flag: &str, value: String| arguments.extend([format!("--{flag}"), value]);
    add("config", format!("{CONFIG_DIR}/{CONFIG_KEY}"));
    add("data-dir", DATA_DIR.to_owned());
    add("node-name", "$(POD_NAME)".to_owned());
    add("cluster", valid.cluster.clone());
    add("client-addr", listen(CLIENT_PORT));
    add("peer-addr", listen(PEER_PORT));
    add("admin-addr", listen(ADMIN_PORT));
    add("advertise", names.address("$(POD_NAME)"));
    add("peers-dns", format!("{}:{PEER_PORT}", names.peers_host()));
    add("peers-file", format!("{CONFIG_DIR}/{PEERS_KEY}"));
    add("durability", valid.durability.to_owned());
    add("shutdown-grace", format!("{DRAIN_SECS}s"));
    add("cluster-secret-file", format!("{CLUSTER_DIR}/{SECRET_KEY}"));
    add("log-format", "json".to_owned());
    if valid.needs_tokens {
        add("auth-tokens-file", format!("{TOKENS_DIR}/{TOKENS_KEY}"));
    } else {
        arguments.push("--no-auth".to_owned());
    }
    arguments
}

fn probe(path: &str, period_secs: i32, timeout_secs: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("admin".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_secs),
        timeout_seconds: Some(timeout_secs),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn seccomp() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }
}

fn mounts(valid: &Valid) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, is_read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: is_read_only.then_some(true),
        ..VolumeMount::default()
    };
    // Whole directories: a single file that is mounted alone is never brought up to date.
    let mut mounts = vec![
        mount(CLAIM, DATA_DIR, false),
        mount("config", CONFIG_DIR, true),
        mount("cluster", CLUSTER_DIR, true),
    ];
    if valid.needs_tokens {
        mounts.push(mount("tokens", TOKENS_DIR, true));
    }
    mounts
}

fn volumes(valid: &Valid) -> Vec<Volume> {
    let (tokens, cluster) = secret_names(valid);
    let secret = |volume: &str, secret: String, key: &str| Volume {
        name: volume.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(SECRET_MODE),
            items: Some(vec![KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None }]),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    let mut volumes = vec![
        Volume {
            name: "config".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: valid.names.config(),
                default_mode: Some(0o444),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        secret("cluster", cluster, SECRET_KEY),
    ];
    volumes.extend(tokens.map(|name| secret("tokens", name, TOKENS_KEY)));
    if valid.storage.is_ephemeral {
        volumes.push(Volume {
            name: CLAIM.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity(valid.storage.size.clone())),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        });
    }
    volumes
}

fn selector(valid: &Valid) -> LabelSelector {
    LabelSelector { match_labels: Some(valid.names.selector()), ..LabelSelector::default() }
}

/// Rather on different machines; a cluster of one machine works too.
fn apart(valid: &Valid) -> Affinity {
    let term = WeightedPodAffinityTerm {
        weight: 100,
        pod_affinity_term: PodAffinityTerm {
            label_selector: Some(selector(valid)),
            topology_key: "kubernetes.io/hostname".to_owned(),
            ..PodAffinityTerm::default()
        },
    };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

fn spread(valid: &Valid, key: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selector(valid)),
        ..TopologySpreadConstraint::default()
    }
}
