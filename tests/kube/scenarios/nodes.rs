//! Machines: cut off, drained, and the one that rules them frozen.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::eventually;
use crate::clients::{condition, is_ready};
use crate::provider::Fault;
use crate::space::{Space, node_of, small};
use crate::suite::Suite;

/// How long the API server is frozen.
const FREEZE: Duration = Duration::from_secs(30);

/// The spec of three nodes, no two of them on one machine.
fn apart() -> Value {
    let mut spec = small(3);
    let own =
        json!({"matchLabels": {"app.kubernetes.io/name": "mneme", "app.kubernetes.io/instance": "web"}});
    let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": own});
    let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    spec["podTemplate"] = json!({"spec": {"affinity": affinity}});
    spec
}

/// A node vanishes from the network with its pod, is given up by the control plane, and heals.
pub(crate) async fn one_is_cut_from_the_network_and_heals(suite: &Suite) {
    let space = Space::new(suite, "cut").await;
    let cache = space.ready_cache("web", apart()).await;
    let pods = cache.pods().await;
    let load = cache.load().await;
    // Not the one with the operator, which would be cut off from those that it tells of.
    let operators = suite.operator_pods().await;
    let is_apart = |pod: &&Value| operators.iter().all(|operator| node_of(operator) != node_of(pod));
    let victim = node_of(pods.iter().find(is_apart).expect("a node without the operator")).to_owned();
    let started = Instant::now();
    let cut = Fault::cut(&suite.provider, &victim);
    load.more(50).await;
    eventually(90, "the node is NotReady", async || {
        let node = suite.api.get(&format!("/api/v1/nodes/{victim}")).await?;
        (!is_ready(&node)).then_some(())
    })
    .await;
    println!("cut: NotReady after {:.1} s", started.elapsed().as_secs_f32());
    let seen = eventually(60, "the set is not Ready", async || {
        let cache = cache.get().await?;
        (!is_ready(&cache)).then(|| condition(&cache, "Ready").clone())
    })
    .await;
    println!("cut: Ready is {}, {}: {}", seen["status"], seen["reason"], seen["message"]);
    load.more(200).await;
    drop(cut);
    let healed = Instant::now();
    eventually(90, "the node is Ready", async || {
        let node = suite.api.get(&format!("/api/v1/nodes/{victim}")).await?;
        is_ready(&node).then_some(())
    })
    .await;
    cache.ready().await;
    println!("cut: Ready {:.1} s after the heal", healed.elapsed().as_secs_f32());
    load.more(100).await;
    load.finish("cut from the network and healed").await;
}

/// The disruption budget lets go one node at a time.
pub(crate) async fn one_is_drained(suite: &Suite) {
    let space = Space::new(suite, "drain").await;
    let cache = space.ready_cache("web", apart()).await;
    let load = cache.load().await;
    let pods = cache.pods().await;
    let victim = node_of(&pods[0]).to_owned();
    // Its volume is on that machine alone, so the pod waits for it to be let in again.
    let _cordoned = Cordoned { suite, node: &victim };
    let drain =
        ["drain", &victim, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s"];
    suite.api.kubectl_expect(&drain);
    load.more(100).await;
    let ready = cache.pods().await.iter().filter(|pod| is_ready(pod)).count();
    assert_eq!(ready, 2, "two nodes serve while one is drained");
    suite.api.kubectl_expect(&["uncordon", &victim]);
    cache.ready().await;
    load.more(50).await;
    load.finish("drained").await;
}

/// A machine that takes no pods until this is dropped.
struct Cordoned<'a> {
    suite: &'a Suite,
    node: &'a str,
}

impl Drop for Cordoned<'_> {
    fn drop(&mut self) {
        let _ = self.suite.api.kubectl(&["uncordon", self.node]);
    }
}

/// Nobody can change or learn anything for half a minute: clients see nothing of it, and the operator goes on after.
pub(crate) async fn the_api_server_freezes(suite: &Suite) {
    let space = Space::new(suite, "freeze").await;
    let cache = space.ready_cache("web", small(3)).await;
    let load = cache.load().await;
    load.more(50).await;
    let before = load.report().await;
    let operators = suite.operator_pods().await;
    {
        let _frozen = Fault::freeze_api(&suite.provider);
        // The one time that the suite lets time pass: it is what the scenario is about.
        tokio::time::sleep(FREEZE).await;
    }
    let after = eventually(60, "the API server answers", async || {
        suite.api.get("/version").await?;
        Some(load.report().await)
    })
    .await;
    let during = after.succeeded() - before.succeeded();
    println!("API server frozen for 30 s: {during} requests answered meanwhile, {} failed", after.failed());
    assert_eq!(after.failed(), before.failed(), "clients of the cache need no API server");
    let old = cache.pods().await;
    cache.delete_pod(0).await;
    cache.pods_but(3, &old[..1]).await;
    cache.ready().await;
    load.finish("API server frozen").await;
    let restarts = |pods: &[Value]| -> u64 {
        pods.iter().filter_map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64()).sum()
    };
    println!(
        "API server frozen: the operator restarted {} times",
        restarts(&suite.operator_pods().await) - restarts(&operators)
    );
}
