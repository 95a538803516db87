//! The controllers and kubelets of a cluster, as far as a StatefulSet's pods need them; and what nodes say.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use mneme_api::{DigestName, MemberBody, MemberStateName, NodeBody, NodeStateName, StatusBody, StorageBody};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::FakeApi;
use crate::nodes::{Ask, NodeAnswer};

/// An image that cannot be pulled.
pub(crate) const BAD_IMAGE: &str = "mneme-node:bad";

impl FakeApi {
    /// Lets the StatefulSet controller and the kubelets do one round: pods are made and taken away, at most one that is old
    /// and above the partition is replaced, and each pod is ready if its image is good.
    pub(crate) fn play(&self) {
        for set in self.all("statefulsets") {
            self.play_set(&set);
        }
    }

    fn play_set(&self, set: &Value) {
        let name = set["metadata"]["name"].as_str().expect("a name").to_owned();
        let namespace = set["metadata"]["namespace"].as_str().expect("a namespace").to_owned();
        let number = |value: &Value| value.as_i64().expect("a number");
        let replicas = number(&set["spec"]["replicas"]);
        let partition = number(&set["spec"]["updateStrategy"]["rollingUpdate"]["partition"]);
        let update = format!("{name}-{}", crate::reconcile::build::hash(&set["spec"]["template"]));
        let current = set["status"]["currentRevision"].as_str().unwrap_or(&update).to_owned();
        let pods: BTreeMap<i64, Value> = self
            .all("pods")
            .into_iter()
            .map(|pod| {
                let pod_name = pod["metadata"]["name"].as_str().expect("a name").to_owned();
                let ordinal = pod_name.rsplit_once('-').expect("a number").1.parse().expect("a number");
                (ordinal, pod)
            })
            .collect();
        for ordinal in pods.keys().filter(|ordinal| **ordinal >= replicas) {
            self.remove("pods", &format!("{name}-{ordinal}"));
        }
        let revision =
            |pod: &Value| pod["metadata"]["labels"]["controller-revision-hash"].as_str().map(str::to_owned);
        // From the last pod down: an old one is replaced, one that is not ready holds up the rest.
        for (ordinal, pod) in
            pods.iter().rev().filter(|(ordinal, _)| (partition..replicas).contains(*ordinal))
        {
            if revision(pod).as_ref() != Some(&update) {
                self.remove("pods", &format!("{name}-{ordinal}"));
                break;
            }
            if !is_ready(pod) {
                break;
            }
        }
        for ordinal in 0..replicas {
            let pod_name = format!("{name}-{ordinal}");
            if self.get("pods", &pod_name).is_none() {
                let revision = if ordinal < partition { &current } else { &update };
                let template = if *revision == update {
                    set["spec"]["template"].clone()
                } else {
                    self.get("controllerrevisions", revision).expect("a revision")["data"].clone()
                };
                let pod = pod(&pod_name, &namespace, ordinal, revision, &template);
                self.put(&format!("api/v1/namespaces/{namespace}/pods"), pod);
            }
            self.make_claim(set, &namespace, &pod_name);
        }
        if self.get("controllerrevisions", &update).is_none() {
            let revision = json!({"metadata": {"name": update}, "data": set["spec"]["template"]});
            self.put(&format!("apis/apps/v1/namespaces/{namespace}/controllerrevisions"), revision);
        }
        let pods = self.all("pods");
        let ready = pods.iter().filter(|pod| is_ready(pod)).count() as i64;
        let updated = pods.iter().filter(|pod| revision(pod).as_ref() == Some(&update)).count() as i64;
        let is_complete = ready == replicas && updated == replicas;
        self.edit("statefulsets", &name, |set| {
            set["status"] = json!({
                "observedGeneration": set["metadata"]["generation"],
                "replicas": pods.len(),
                "readyReplicas": ready,
                "updateRevision": update,
                "currentRevision": if is_complete { &update } else { &current },
            });
        });
    }

    fn make_claim(&self, set: &Value, namespace: &str, pod: &str) {
        let template = &set["spec"]["volumeClaimTemplates"][0];
        let name = format!("data-{pod}");
        if template.is_null() || self.get("persistentvolumeclaims", &name).is_some() {
            return;
        }
        let size = template["spec"]["resources"]["requests"]["storage"].clone();
        let claim = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": namespace, "labels": set["spec"]["selector"]["matchLabels"]},
            "spec": template["spec"],
            "status": {"phase": "Bound", "capacity": {"storage": size}},
        });
        self.put(&format!("api/v1/namespaces/{namespace}/persistentvolumeclaims"), claim);
    }
}

fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"][0]["status"] == "True"
}

fn pod(name: &str, namespace: &str, ordinal: i64, revision: &str, template: &Value) -> Value {
    let is_good = template["spec"]["containers"][0]["image"] != BAD_IMAGE;
    let mut labels = template["metadata"]["labels"].clone();
    labels["controller-revision-hash"] = json!(revision);
    let state = if is_good {
        json!({"running": {}})
    } else {
        json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
    };
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": template["spec"],
        "status": {
            "phase": if is_good { "Running" } else { "Pending" },
            "podIP": format!("10.0.0.{ordinal}"),
            "conditions": [{
                "type": "Ready",
                "status": if is_good { "True" } else { "False" },
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
            "containerStatuses": [{"name": "node", "image": "", "imageID": "", "ready": is_good, "restartCount": 0,
                                   "state": state}],
        },
    })
}

/// What nodes say, with what a test would have them say.
#[derive(Clone, Default)]
pub(crate) struct FakeNodes {
    /// Nodes that are in touch: those of the pods, `10.0.0.N`.
    pub(crate) up: Arc<Mutex<BTreeSet<i64>>>,
    /// Writes that everybody says everybody else lacks.
    pub(crate) lag_writes: Arc<Mutex<u64>>,
    /// How long they have lacked them.
    pub(crate) lag_ms: Arc<Mutex<u64>>,
}

impl FakeNodes {
    /// All nodes of a set run.
    pub(crate) fn follow(&self, api: &FakeApi) {
        let ordinal = |pod: &Value| {
            let ip = pod["status"]["podIP"].as_str()?.rsplit_once('.')?.1.parse().ok()?;
            is_ready(pod).then_some(ip)
        };
        *self.up.lock() = api.all("pods").iter().filter_map(ordinal).collect();
    }

    fn status(&self, own: i64) -> StatusBody {
        let up = self.up.lock().clone();
        let (lag_writes, lag_ms) = (*self.lag_writes.lock(), *self.lag_ms.lock());
        let member = |ordinal: i64| MemberBody {
            id: format!("id-{ordinal}"),
            name: format!("web-{ordinal}"),
            address: format!("web-{ordinal}.web-peers.shop.svc.cluster.local:7071"),
            addresses: Vec::new(),
            state: if ordinal == own { MemberStateName::Myself } else { MemberStateName::Live },
            lag_writes: if ordinal == own { 0 } else { lag_writes },
            lag_ms: Some(if ordinal == own { 0 } else { lag_ms }),
            last_contact_ms: Some(1),
            skew_ms: 0,
            digest: DigestName::Equal,
        };
        StatusBody {
            node: NodeBody {
                id: format!("id-{own}"),
                name: format!("web-{own}"),
                version: "0.1.0".to_owned(),
                uptime_ms: 1,
                state: NodeStateName::Ready,
            },
            cluster: "web".to_owned(),
            time: String::new(),
            members: up.into_iter().map(member).collect(),
            discovery: Vec::new(),
            tables: Vec::new(),
            storage: StorageBody {
                file_bytes: 0,
                live_bytes: 0,
                durability: "fsync".to_owned(),
                sqlite_version: String::new(),
            },
            features: Vec::new(),
            writes_in_flight: 0,
        }
    }
}

impl Ask for FakeNodes {
    fn ask(&self, address: IpAddr) -> Pin<Box<dyn Future<Output = NodeAnswer> + Send + '_>> {
        let IpAddr::V4(address) = address else { unreachable!("pods have IPv4 addresses here") };
        let own = i64::from(address.octets()[3]);
        let answer = if self.up.lock().contains(&own) {
            Ok(self.status(own))
        } else {
            Err("no answer in time".to_owned())
        };
        Box::pin(std::future::ready(answer))
    }
}
