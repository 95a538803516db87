use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use super::fake::{BAD_IMAGE, Calls, Death, FakeApi, FakeNodes};
use super::*;
use crate::leader::Claim;
use crate::peers::dns::{Answer, Question, Resolve};

const COLLECTION: &str = "apis/mneme.dev/v1alpha1/namespaces/shop/sessioncaches";

/// Knows nobody.
struct NoDns;

impl Resolve for NoDns {
    fn resolve<'a>(&'a self, _: &'a Question) -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
        let answer = Answer { error: Some("no answer in time".to_owned()), ..Answer::default() };
        Box::pin(std::future::ready(answer))
    }
}

/// A cluster, and an operator.
struct World {
    api: FakeApi,
    nodes: FakeNodes,
    context: Context,
}

impl World {
    /// A SessionCache `web` with a spec.
    fn new(spec: Value) -> Self {
        let world = Self::with_claim(Claim::fixed(Duration::from_secs(3600)));
        let cache = json!({
            "apiVersion": "mneme.dev/v1alpha1", "kind": "SessionCache",
            "metadata": {"name": "web", "namespace": "shop"}, "spec": spec,
        });
        world.api.put(COLLECTION, cache);
        world
    }

    fn with_claim(claim: Claim) -> Self {
        let api = FakeApi::default();
        let nodes = FakeNodes::default();
        let context = context(&api, &nodes, claim);
        Self { api, nodes, context }
    }

    /// The operator is started anew.
    fn restart_operator(&mut self) {
        self.context = context(&self.api, &self.nodes, Claim::fixed(Duration::from_secs(3600)));
    }

    fn cache(&self) -> SessionCache {
        let object = self.api.get("sessioncaches", "web").expect("the resource");
        serde_json::from_value(object).expect("well-formed")
    }

    /// One pass.
    async fn pass(&self) -> Result<Action, Error> {
        reconcile(&self.context, &self.cache()).await
    }

    /// Passes and the cluster's own work by turns, until nothing changes any more.
    async fn settle(&self) {
        let mut before = Value::Null;
        for _ in 0..60 {
            self.pass().await.expect("reconciled");
            self.api.play();
            self.nodes.follow(&self.api);
            let now = self.picture();
            if now == before {
                return;
            }
            before = now;
        }
        panic!("the cluster does not come to rest: {before:#}");
    }

    /// Everything that matters of everything.
    fn picture(&self) -> Value {
        let mut kinds = BTreeMap::new();
        for kind in [
            "sessioncaches",
            "serviceaccounts",
            "secrets",
            "services",
            "configmaps",
            "poddisruptionbudgets",
            "networkpolicies",
            "statefulsets",
            "pods",
            "persistentvolumeclaims",
        ] {
            kinds.insert(kind, self.api.all(kind).into_iter().map(essence).collect::<Vec<_>>());
        }
        json!(kinds)
    }

    fn change(&self, change: impl FnOnce(&mut Value)) {
        self.api.edit("sessioncaches", "web", |cache| change(&mut cache["spec"]));
    }

    fn condition(&self, type_: &str) -> Condition {
        let status = self.cache().status.expect("a status");
        status.conditions.into_iter().find(|condition| condition.type_ == type_).expect("a condition")
    }

    #[track_caller]
    fn check(&self, type_: &str, status: &str, reason: &str) {
        let condition = self.condition(type_);
        assert_eq!(
            (condition.status.as_str(), condition.reason.as_str()),
            (status, reason),
            "{}",
            condition.message
        );
        assert_eq!(condition.observed_generation, self.cache().metadata.generation);
    }

    fn revisions(&self) -> usize {
        let revision =
            |pod: &Value| pod["metadata"]["labels"]["controller-revision-hash"].clone().to_string();
        self.api.all("pods").iter().map(revision).collect::<std::collections::BTreeSet<_>>().len()
    }
}

fn context(api: &FakeApi, nodes: &FakeNodes, claim: Claim) -> Context {
    let metrics = Arc::new(Metrics::default());
    Context {
        writer: Writer::new(api.client(), claim),
        defaults: Defaults {
            image: "mneme-node:1".to_owned(),
            image_pull_policy: "IfNotPresent".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            listen_ip: "0.0.0.0".to_owned(),
        },
        ask: Arc::new(nodes.clone()),
        resolver: Resolver::new(Box::new(NoDns)),
        secrets: SecretMemory::default(),
        events: Events::new(api.client(), "test", metrics.clone()),
        metrics,
    }
}

/// An object without what differs from run to run.
fn essence(mut object: Value) -> Value {
    for field in ["uid", "resourceVersion", "generation"] {
        object["metadata"].as_object_mut().expect("metadata").remove(field);
    }
    for owner in object["metadata"]["ownerReferences"].as_array_mut().into_iter().flatten() {
        owner["uid"] = json!("uid");
    }
    for secret in ["data", "stringData"] {
        if object["kind"] == "Secret" && !object[secret].is_null() {
            object[secret] = json!("random");
        }
    }
    if object["kind"] == "SessionCache" {
        object["status"]["observedGeneration"] = json!(0);
        for condition in object["status"]["conditions"].as_array_mut().into_iter().flatten() {
            condition["lastTransitionTime"] = json!("");
            condition["observedGeneration"] = json!(0);
        }
    }
    if object["kind"] == "StatefulSet" {
        object["status"]["observedGeneration"] = json!(0);
    }
    object
}

#[tokio::test]
async fn a_resource_becomes_a_set_that_is_ready() {
    let world = World::new(json!({"replicas": 3}));
    world.pass().await.expect("reconciled");
    world.check("Ready", "False", "ChangeInProgress");
    world.check("Progressing", "True", "ScalingUp");
    world.settle().await;
    world.check("Ready", "True", "AllMembersReady");
    world.check("Progressing", "False", "Complete");
    world.check("Degraded", "False", "AsExpected");
    world.check("PeersResolved", "True", "NoPeers");
    let status = world.cache().status.expect("a status");
    assert_eq!((status.member_summary.as_deref(), status.version.as_deref()), (Some("3/3"), Some("0.1.0")));
    assert_eq!((status.replicas, status.ready_replicas), (3, 3));
}

#[tokio::test]
async fn a_set_at_rest_is_only_read() {
    let world = World::new(json!({"replicas": 3, "resources": {"limits": {"cpu": "0.5"}}}));
    world.settle().await;
    world.api.take_calls();
    world.pass().await.expect("reconciled");
    let calls = world.api.take_calls();
    assert!(calls.iter().all(|call| call.starts_with("GET ")), "{calls:#?}");
    assert!(calls.len() <= 12, "{calls:#?}");
}

#[tokio::test]
async fn no_call_reads_secrets_or_destroys_data() {
    let world = World::new(json!({"replicas": 3}));
    world.settle().await;
    world.change(|spec| {
        *spec = json!({"replicas": 1, "networkPolicy": {"enabled": false}, "storage": {"size": "2Gi"}})
    });
    world.settle().await;
    world.check("Ready", "True", "AllMembersReady");
    assert!(world.api.get("poddisruptionbudgets", "web").is_none());
    assert!(world.api.get("networkpolicies", "web").is_none());
    for call in world.api.take_calls() {
        let (method, path) = call.split_once(' ').expect("a method");
        assert!(!path.contains("/secrets") || method == "POST", "{call}");
        let is_data = ["/statefulsets", "/persistentvolumeclaims", "/pods/", "/secrets"];
        assert!(method != "DELETE" || !is_data.iter().any(|kind| path.contains(kind)), "{call}");
    }
}

/// From nothing, and from a set that is at rest to another spec: everything that a spec can move at once.
fn scenarios() -> Vec<(Option<Value>, Value)> {
    let first = json!({"replicas": 3, "peers": {"hosts": ["10.9.0.1:7071"]}});
    let other = json!({
        "replicas": 1,
        "tables": [{"name": "carts", "kind": "cache"}],
        "storage": {"size": "2Gi"},
        "networkPolicy": {"enabled": false},
        "peers": {"hosts": ["10.9.0.2:7071"]},
    });
    vec![(None, first.clone()), (Some(first), other)]
}

async fn begin(before: Option<&Value>, after: &Value) -> World {
    let world = World::new(before.unwrap_or(after).clone());
    if before.is_some() {
        world.settle().await;
        world.change(|spec| *spec = after.clone());
    }
    world
}

/// Another world that begins as one is.
fn fork(world: &World) -> World {
    let (api, nodes) = (world.api.fork(), FakeNodes::default());
    nodes.follow(&api);
    let context = context(&api, &nodes, Claim::fixed(Duration::from_secs(3600)));
    World { api, nodes, context }
}

/// Kills the API server at each call of the first `passes` passes, and looks where the next operator ends up. Returns how
/// many deaths there were.
async fn die_everywhere(passes: usize, calls: Calls) -> usize {
    let mut deaths = 0;
    for (before, after) in scenarios() {
        let start = begin(before.as_ref(), &after).await;
        let reference = fork(&start);
        reference.settle().await;
        let expected = reference.picture();
        for death in [Death::Before, Death::After] {
            for call in 1.. {
                let mut world = fork(&start);
                world.api.die_at(call, death, calls);
                for _ in 0..passes {
                    if world.pass().await.is_err() {
                        break;
                    }
                    world.api.play();
                    world.nodes.follow(&world.api);
                }
                if !world.api.revive() {
                    break;
                }
                deaths += 1;
                world.restart_operator();
                world.settle().await;
                assert_eq!(world.picture(), expected, "{death:?} at call {call}");
            }
        }
    }
    deaths
}

#[tokio::test]
async fn after_a_death_at_any_call_of_a_pass_the_next_goes_on_from_there() {
    let deaths = die_everywhere(1, Calls::All).await;
    assert!(deaths > 100, "{deaths} deaths are too few: the calls are not all there");
}

#[tokio::test]
async fn after_a_death_at_any_write_on_the_way_the_next_operator_ends_up_at_the_same() {
    let deaths = die_everywhere(30, Calls::Writes).await;
    assert!(deaths > 100, "{deaths} deaths are too few: the calls are not all there");
}

#[tokio::test]
async fn a_rolling_change_replaces_one_pod_at_a_time() {
    let world = World::new(json!({"replicas": 3}));
    world.settle().await;
    world.change(|spec| spec["version"] = json!("2"));
    let mut replaced = 0;
    for _ in 0..40 {
        world.pass().await.expect("reconciled");
        let before: Vec<String> =
            world.api.all("pods").iter().map(|pod| pod["metadata"]["uid"].to_string()).collect();
        world.api.play();
        let after: Vec<String> =
            world.api.all("pods").iter().map(|pod| pod["metadata"]["uid"].to_string()).collect();
        let gone = before.iter().filter(|uid| !after.contains(uid)).count();
        assert!(gone <= 1, "{gone} pods were replaced at once");
        replaced += gone;
        if replaced == 1 && gone == 1 {
            world.pass().await.expect("reconciled");
            world.check("Ready", "False", "ChangeInProgress");
        }
        world.nodes.follow(&world.api);
    }
    assert_eq!(replaced, 3);
    assert_eq!(world.revisions(), 1);
    world.check("Ready", "True", "AllMembersReady");
    let image = world.api.get("pods", "web-0").expect("a pod")["spec"]["containers"][0]["image"].clone();
    assert_eq!(image, "mneme-node:2");
}

#[tokio::test]
async fn a_rolling_change_waits_until_the_others_have_caught_up() {
    let world = World::new(json!({"replicas": 3}));
    world.settle().await;
    *world.nodes.lag_writes.lock() = 5_000;
    *world.nodes.lag_ms.lock() = 5_000;
    world.change(|spec| spec["durability"] = json!("commit"));
    world.settle().await;
    world.check("Progressing", "True", "RollingOut");
    assert!(world.condition("Progressing").message.contains("lacks 5000 writes"));
    assert_eq!(world.revisions(), 1);
    *world.nodes.lag_writes.lock() = 0;
    world.settle().await;
    world.check("Ready", "True", "AllMembersReady");
}

#[tokio::test]
async fn a_bad_image_stops_at_one_pod_and_can_be_taken_back() {
    let world = World::new(json!({"replicas": 3}));
    world.settle().await;
    world.change(|spec| spec["image"] = json!(BAD_IMAGE));
    world.settle().await;
    world.check("Progressing", "False", "Stalled");
    assert!(world.condition("Progressing").message.contains("pod web-2: ImagePullBackOff: no such image"));
    world.check("Ready", "False", "ChangeInProgress");
    world.check("Degraded", "True", "MembersNotReady");
    let images = |world: &World| -> Vec<String> {
        let image = |pod: Value| pod["spec"]["containers"][0]["image"].as_str().expect("an image").to_owned();
        world.api.all("pods").into_iter().map(image).collect()
    };
    assert_eq!(images(&world), ["mneme-node:1", "mneme-node:1", BAD_IMAGE]);
    // A pod that is lost meanwhile comes back as it was.
    world.api.remove("pods", "web-0");
    world.settle().await;
    assert_eq!(images(&world), ["mneme-node:1", "mneme-node:1", BAD_IMAGE]);
    world.change(|spec| spec["image"] = json!("mneme-node:1"));
    world.settle().await;
    assert_eq!(images(&world), ["mneme-node:1"; 3]);
    world.check("Ready", "True", "AllMembersReady");
}

#[tokio::test]
async fn pods_leave_one_by_one_and_only_when_they_hold_nothing_alone() {
    let world = World::new(json!({"replicas": 5}));
    world.settle().await;
    *world.nodes.lag_writes.lock() = 7;
    *world.nodes.lag_ms.lock() = 5_000;
    world.change(|spec| spec["replicas"] = json!(2));
    world.settle().await;
    world.check("Progressing", "False", "ScaleDownBlocked");
    assert!(world.condition("Progressing").message.contains("lacks 7 writes that web-4 holds"));
    assert_eq!(world.api.all("pods").len(), 5);
    // Writes go on, and each is there a moment later.
    *world.nodes.lag_ms.lock() = 300;
    for left in [4, 3, 2, 2] {
        world.pass().await.expect("reconciled");
        world.api.play();
        world.nodes.follow(&world.api);
        assert_eq!(world.api.all("pods").len(), left);
        world.pass().await.expect("reconciled");
        world.nodes.follow(&world.api);
    }
    world.settle().await;
    world.check("Ready", "True", "AllMembersReady");
    assert_eq!(world.api.all("persistentvolumeclaims").len(), 5);
}

#[tokio::test]
async fn an_annotation_lets_a_node_that_does_not_answer_leave() {
    let world = World::new(json!({"replicas": 3}));
    world.settle().await;
    world.change(|spec| spec["replicas"] = json!(2));
    world.nodes.up.lock().remove(&2);
    world.pass().await.expect("reconciled");
    world.check("Progressing", "False", "ScaleDownBlocked");
    assert!(world.condition("Progressing").message.contains("mneme.dev/skip-scale-down-check=true"));
    world.api.edit("sessioncaches", "web", |cache| {
        cache["metadata"]["annotations"] = json!({"mneme.dev/skip-scale-down-check": "true"});
    });
    world.pass().await.expect("reconciled");
    world.api.play();
    assert_eq!(world.api.all("pods").len(), 2);
}

#[tokio::test]
async fn a_set_goes_to_nothing_and_comes_back_with_its_claims() {
    let world = World::new(json!({"replicas": 3}));
    world.settle().await;
    world.change(|spec| spec["replicas"] = json!(0));
    world.settle().await;
    world.check("Ready", "False", "Stopped");
    assert_eq!((world.api.all("pods").len(), world.api.all("persistentvolumeclaims").len()), (0, 3));
    world.change(|spec| spec["replicas"] = json!(3));
    world.settle().await;
    world.check("Ready", "True", "AllMembersReady");
}

#[tokio::test]
async fn what_others_change_or_delete_is_put_back_and_what_they_add_stays() {
    let world = World::new(json!({"replicas": 3}));
    world.settle().await;
    world.api.edit("configmaps", "web-config", |map| {
        map["data"]["mneme.yaml"] = json!("tables: []");
        map["metadata"]["labels"]["theirs"] = json!("yes");
    });
    world.api.remove("services", "web-peers");
    world.settle().await;
    let map = world.api.get("configmaps", "web-config").expect("a map");
    assert!(map["data"]["mneme.yaml"].as_str().expect("a text").contains("sessions"));
    assert_eq!(map["metadata"]["labels"]["theirs"], "yes");
    assert!(world.api.get("services", "web-peers").is_some());
    let metrics = world.context.metrics.encode();
    assert!(metrics.contains("mneme_operator_drift_corrections_total{kind=\"ConfigMap\"} 1"), "{metrics}");
}

#[tokio::test]
async fn an_object_of_somebody_else_is_not_adopted() {
    let world = World::new(json!({"replicas": 3}));
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web-config", "namespace": "shop"},
                        "data": {"a": "b"}});
    world.api.put("api/v1/namespaces/shop/configmaps", theirs.clone());
    world.pass().await.expect("reconciled");
    world.check("Ready", "False", "NameConflict");
    world.check("Degraded", "True", "NameConflict");
    assert!(world.condition("Ready").message.contains("ConfigMap web-config was made by somebody else"));
    assert_eq!(world.api.get("configmaps", "web-config").expect("a map")["data"], theirs["data"]);
    assert!(world.api.all("statefulsets").is_empty());
    world.api.remove("configmaps", "web-config");
    world.settle().await;
    world.check("Ready", "True", "AllMembersReady");
}

#[tokio::test]
async fn what_an_older_version_made_is_removed_and_what_only_looks_like_it_is_not() {
    let world = World::new(json!({"replicas": 3}));
    world.settle().await;
    let mut old = world.api.get("configmaps", "web-config").expect("a map");
    old["metadata"]["name"] = json!("web-old");
    let mut theirs = old.clone();
    theirs["metadata"]["name"] = json!("web-theirs");
    theirs["metadata"]["ownerReferences"] = json!([]);
    for map in [old, theirs] {
        world.api.put("api/v1/namespaces/shop/configmaps", map);
    }
    world.settle().await;
    assert!(world.api.get("configmaps", "web-old").is_none());
    assert!(world.api.get("configmaps", "web-theirs").is_some());
}

#[tokio::test]
async fn a_pause_stops_changes_and_keeps_the_status() {
    let world = World::new(json!({"replicas": 3}));
    world.settle().await;
    world.change(|spec| *spec = json!({"replicas": 5, "paused": true}));
    world.api.take_calls();
    world.pass().await.expect("reconciled");
    world.check("Progressing", "False", "Paused");
    world.check("Ready", "False", "Paused");
    let writes: Vec<String> =
        world.api.take_calls().into_iter().filter(|call| !call.starts_with("GET ")).collect();
    assert!(writes.iter().all(|call| call.contains("/status") || call.contains("/events")), "{writes:#?}");
    // As it was made, a paused set may well be ready.
    world.change(|spec| spec["replicas"] = json!(3));
    world.settle().await;
    world.check("Ready", "True", "AllMembersReady");
}

#[tokio::test]
async fn claims_grow_and_the_template_of_the_set_stays() {
    let world = World::new(json!({"replicas": 3}));
    world.settle().await;
    world.change(|spec| spec["storage"] = json!({"size": "2Gi"}));
    world.settle().await;
    let size = |claim: &Value| claim["spec"]["resources"]["requests"]["storage"].clone();
    assert!(world.api.all("persistentvolumeclaims").iter().all(|claim| size(claim) == "2Gi"));
    let set = world.api.get("statefulsets", "web").expect("a set");
    assert_eq!(size(&set["spec"]["volumeClaimTemplates"][0]), "1Gi");
    world.check("Progressing", "True", "ExpandingStorage");
    world.check("Ready", "True", "AllMembersReady");
}

#[tokio::test]
async fn claims_that_cannot_grow_are_told_of_and_hold_up_nothing() {
    let world = World::new(json!({"replicas": 3}));
    world.settle().await;
    world.api.refuse(Method::PATCH, "persistentvolumeclaims", 403, "the storage class does not allow it");
    world.change(|spec| *spec = json!({"replicas": 4, "storage": {"size": "2Gi"}}));
    world.settle().await;
    world.check("Degraded", "True", "StorageExpansionFailed");
    assert!(world.condition("Degraded").message.contains("does not allow it"));
    world.check("Ready", "True", "AllMembersReady");
    world.api.refuse_nothing();
    world.settle().await;
    world.check("Degraded", "False", "AsExpected");
}

#[tokio::test]
async fn an_object_that_is_refused_is_told_of_and_the_others_are_written() {
    let world = World::new(json!({"replicas": 3}));
    world.api.refuse(Method::PATCH, "networkpolicies", 422, "this makes no policy");
    let error = world.pass().await.expect_err("refused");
    assert_eq!(error.class(), Class::Invalid);
    world.check("Degraded", "True", "ReconcileFailed");
    let message = world.condition("Degraded").message;
    assert!(
        message.starts_with("failed to apply NetworkPolicy web: this makes no policy (status 422)"),
        "{message}"
    );
    world.check("Ready", "Unknown", "ReconcileFailed");
    assert!(world.api.get("services", "web").is_some());
    assert!(world.api.all("statefulsets").is_empty());
    world.api.refuse_nothing();
    world.settle().await;
    world.check("Ready", "True", "AllMembersReady");
}

#[tokio::test]
async fn who_does_not_lead_writes_nothing() {
    let mut world = World::new(json!({"replicas": 3}));
    world.context = context(&world.api, &world.nodes, Claim::fixed(Duration::ZERO));
    let error = world.pass().await.expect_err("not leading");
    assert_eq!(error.class(), Class::NotLeading);
    let calls = world.api.take_calls();
    assert!(calls.iter().all(|call| call.starts_with("GET ")), "{calls:#?}");
}

#[tokio::test]
async fn nodes_that_do_not_answer_are_unknown_and_not_unready() {
    let world = World::new(json!({"replicas": 3}));
    world.settle().await;
    world.nodes.up.lock().clear();
    world.pass().await.expect("reconciled");
    world.check("Ready", "Unknown", "MembersUnknown");
    world.check("Degraded", "Unknown", "MembersUnknown");
    assert!(world.condition("Ready").message.contains("7072"));
}

#[tokio::test]
async fn names_that_do_not_resolve_are_told_of() {
    let world = World::new(json!({"replicas": 3, "peers": {"hosts": ["cache.example.com", "10.0.0.5"]}}));
    world.settle().await;
    world.check("PeersResolved", "False", "ResolutionFailed");
    world.check("Ready", "True", "AllMembersReady");
    let list = world.api.get("configmaps", "web-config").expect("a map")["data"]["peers"].to_string();
    assert!(list.contains("10.0.0.5:7071"), "{list}");
    let peers = world.cache().status.expect("a status").peers;
    assert_eq!((peers.len(), peers[0].reachable), (1, Some(false)));
}

#[tokio::test]
async fn a_new_peer_list_is_announced_to_the_pods_without_replacing_them() {
    let world = World::new(json!({"replicas": 3}));
    world.settle().await;
    let hashes = |world: &World| -> Vec<String> {
        world
            .api
            .all("pods")
            .iter()
            .map(|pod| pod["metadata"]["annotations"]["mneme.dev/peers-hash"].to_string())
            .collect()
    };
    let (before, uids) = (hashes(&world), |world: &World| -> Vec<String> {
        world.api.all("pods").iter().map(|pod| pod["metadata"]["uid"].to_string()).collect()
    });
    let uids_before = uids(&world);
    world.change(|spec| spec["peers"] = json!({"hosts": ["10.0.0.5"]}));
    world.settle().await;
    assert_ne!(hashes(&world), before);
    assert_eq!(uids(&world), uids_before);
}
