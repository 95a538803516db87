//! Peers outside the set.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::api::{Kind, eventually};
use crate::clients::Load;
use crate::provider::Provider;
use crate::space::{Cache, READY_WAIT, Space, small};
use crate::suite::{Suite, TAG};

/// What both sides of a set with peers outside must know of each other.
const CLUSTER_SECRET: &str = "the-cluster-secret-of-the-suite";

/// What clients of both show.
const TOKEN: &str = "the-token-of-the-suite";

/// A node beside the cluster, in a network namespace of its own. Dropping it removes it.
struct Outside<'a> {
    provider: &'a Provider,
    name: String,
    address: String,
}

impl<'a> Outside<'a> {
    fn start(provider: &'a Provider, name: &str, secret: &Path) -> Self {
        // It begins alone: who its peers are it learns from those that connect to it.
        let script = [
            "outside-run",
            name,
            secret.to_str().expect("a path in UTF-8"),
            &format!("mneme-node:{TAG}"),
            "run",
            "--data-dir=/data",
            "--cluster=web",
            "--cluster-secret-file=/secret",
            "--no-auth",
            "--client-addr=0.0.0.0:7070",
            "--peer-addr=0.0.0.0:7071",
            "--admin-addr=0.0.0.0:7072",
        ];
        let address = provider.run(&script);
        Self { provider, name: name.to_owned(), address }
    }
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.name, self.provider.run(&["outside-logs", &self.name]));
        }
        self.provider.run(&["outside-remove", &self.name]);
    }
}

/// Whether the SessionCache says that a peer at this address is reached.
fn is_reached(cache: &Value, address: &str) -> Option<bool> {
    let peers = cache["status"]["peers"].as_array()?;
    let peer =
        peers.iter().find(|peer| peer["address"].as_str().is_some_and(|found| found.starts_with(address)))?;
    peer["reachable"].as_bool()
}

/// It is a peer like any other, both ways; when it is away the set goes on, and when it returns it catches up.
pub(crate) async fn a_host_outside_the_cluster_goes_and_returns(suite: &Suite) {
    let space = Space::new(suite, "outside").await;
    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(secret.path(), CLUSTER_SECRET).expect("a file that can be written");
    // The node outside is no root either.
    std::fs::set_permissions(secret.path(), Permissions::from_mode(0o644)).expect("an own file");
    let outside = Outside::start(&suite.provider, "outside", secret.path());
    share_secret(&space).await;
    let mut spec = small(2);
    spec["auth"] = json!({"clusterSecret": "shared"});
    spec["peers"] = json!({"hosts": [format!("{}:7071", outside.address)]});
    let cache = space.ready_cache("web", spec).await;
    let reached = async |wanted: bool| {
        eventually(READY_WAIT, &format!("the host outside is reached: {wanted}"), async || {
            (is_reached(&cache.get().await?, &outside.address)? == wanted).then_some(())
        })
        .await;
    };
    reached(true).await;
    assert_eq!(cache.condition("PeersResolved", "True").await["status"], "True");
    let old = cache.pods().await;
    let load = cache.load().await;
    load.more(50).await;
    suite.provider.run(&["outside-freeze", &outside.name]);
    reached(false).await;
    load.more(100).await;
    suite.provider.run(&["outside-thaw", &outside.name]);
    reached(true).await;
    load.more(50).await;
    load.finish("a host outside goes and returns").await;
    let restarted = cache
        .pods()
        .await
        .iter()
        .zip(&old)
        .any(|(new, old)| new["metadata"]["uid"] != old["metadata"]["uid"]);
    assert!(!restarted, "the nodes are the same");
}

/// Two sets in two namespaces are one cluster: what is written at one is read at the other.
pub(crate) async fn another_set_is_a_peer_by_its_headless_service(suite: &Suite) {
    let (left, right) = (Space::new(suite, "left").await, Space::new(suite, "right").await);
    share_secret(&left).await;
    share_secret(&right).await;
    let spec = |other: &str, namespace: &str| {
        let mut spec = small(1);
        spec["clusterName"] = json!("both");
        spec["auth"] = json!({"tokensSecret": "shared", "clusterSecret": "shared"});
        spec["peers"] =
            json!({"headlessService": {"name": format!("{other}-peers"), "namespace": namespace}});
        spec
    };
    let (one, other) = (left.cache("one"), right.cache("other"));
    one.apply(spec("other", &right.name)).await;
    other.apply(spec("one", &left.name)).await;
    for cache in [&one, &other] {
        cache.ready().await;
        // Once, though the Service gives another address than its pod advertises.
        eventually(READY_WAIT, "the other set is reached, and nobody else", async || {
            let peers = cache.get().await?["status"]["peers"].take();
            let [peer] = &peers.as_array()?[..] else { return None };
            (peer["reachable"] == true).then_some(())
        })
        .await;
    }
    let at = async |cache: &Cache<'_>| Load::start(suite, &cache.namespace, &cache.name, TOKEN).await;
    let (at_one, at_other) = (at(&one).await, at(&other).await);
    // The pod of one set goes: its sessions are also with the other, and back when it is.
    one.delete_pod(0).await;
    one.ready().await;
    at_one.more(50).await;
    at_other.more(50).await;
    at_one.finish("one of two sets, its node deleted").await;
    at_other.finish("the other of two sets").await;
}

/// A headless Service that names nobody for a while is no information: peers stay peers, also for a pod that starts
/// meanwhile.
pub(crate) async fn a_headless_service_that_names_nobody_removes_no_peer(suite: &Suite) {
    let space = Space::new(suite, "silent").await;
    share_secret(&space).await;
    // A Service of the test's own, because the operator would mend one of its own.
    let service = |instance: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "found", "namespace": space.name},
            "spec": {"clusterIP": "None", "publishNotReadyAddresses": true, "ports": [{"name": "peer", "port": 7071}],
                     "selector": {"app.kubernetes.io/instance": instance}},
        })
    };
    let path = space.path(Kind::Service, "found");
    suite.api.apply(&path, &service("other")).await;
    let mut spec = small(1);
    spec["clusterName"] = json!("both");
    spec["auth"] = json!({"tokensSecret": "shared", "clusterSecret": "shared"});
    let other = space.cache("other");
    other.apply(spec.clone()).await;
    spec["peers"] = json!({"headlessService": {"name": "found", "namespace": space.name}});
    let one = space.ready_cache("one", spec).await;
    other.ready().await;
    let reached = async || {
        eventually(READY_WAIT, "the other set is reached", async || {
            let peers = one.get().await?["status"]["peers"].take();
            peers.as_array()?.iter().any(|peer| peer["reachable"] == true).then_some(())
        })
        .await;
    };
    reached().await;
    let at = async |cache: &Cache<'_>| Load::start(suite, &cache.namespace, &cache.name, TOKEN).await;
    let (at_one, at_other) = (at(&one).await, at(&other).await);
    suite.api.apply(&path, &service("nobody")).await;
    one.condition("PeersResolved", "False").await;
    at_one.more(50).await;
    let old = one.pods().await;
    one.delete_pod(0).await;
    one.pods_but(1, &old).await;
    reached().await;
    at_one.more(50).await;
    at_other.more(50).await;
    suite.api.apply(&path, &service("other")).await;
    one.condition("PeersResolved", "True").await;
    at_one.finish("a headless Service that names nobody").await;
    at_other.finish("the set that it named").await;
}

/// Makes the Secret `shared`: what peers prove to each other, and a token.
async fn share_secret(space: &Space<'_>) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shared", "namespace": space.name},
        "stringData": {"secret": CLUSTER_SECRET, "tokens": format!("suite:{TOKEN}\n")},
    });
    space.suite.api.apply(&space.path(Kind::Secret, "shared"), &secret).await;
}
