//! Changes that replace one node after the other, and those that replace none.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::api::{Kind, eventually, path};
use crate::clients::{Load, condition, is_ready};
use crate::space::{Cache, READY_WAIT, Space, small, uid_of};
use crate::suite::{OTHER_TAG, Suite, TAG};

/// Watches a rolling change: never fewer than two of three ready, until all three are new and the set is Ready.
async fn rolls_through(cache: &Cache<'_>, old: &[Value]) {
    let started = Instant::now();
    let mut fewest = old.len();
    eventually(READY_WAIT, "all nodes are replaced", async || {
        let pods = cache.pods().await;
        let ready =
            pods.iter().filter(|pod| is_ready(pod) && pod["metadata"]["deletionTimestamp"].is_null()).count();
        fewest = fewest.min(ready);
        let is_new = |pod: &Value| old.iter().all(|old| uid_of(old) != uid_of(pod));
        (ready == old.len() && pods.iter().all(is_new)).then_some(())
    })
    .await;
    cache.ready().await;
    println!("rolling change: {:.1} s, never fewer than {fewest} ready", started.elapsed().as_secs_f32());
    assert!(fewest + 1 >= old.len(), "{fewest} of {} ready in a rolling change", old.len());
}

/// Another table, another pod label.
pub(crate) async fn another_configuration_rolls_through(suite: &Suite) {
    let space = Space::new(suite, "roll-config").await;
    let cache = space.ready_cache("web", small(3)).await;
    let load = cache.load().await;
    let old = cache.pods().await;
    let tables = json!([{"name": "sessions"}, {"name": "carts", "kind": "cache", "defaultTtl": "1h"}]);
    cache.patch(json!({"tables": tables, "podTemplate": {"metadata": {"labels": {"team": "shop"}}}})).await;
    rolls_through(&cache, &old).await;
    let pods = cache.pods().await;
    assert!(pods.iter().all(|pod| pod["metadata"]["labels"]["team"] == "shop"), "a label of podTemplate");
    load.more(50).await;
    load.finish("rolling change of configuration").await;
}

/// The same node under another name of its image.
pub(crate) async fn another_image_rolls_through(suite: &Suite) {
    let space = Space::new(suite, "roll-image").await;
    let cache = space.ready_cache("web", small(3)).await;
    let load = cache.load().await;
    let old = cache.pods().await;
    cache.patch(json!({"image": format!("mneme-node:{OTHER_TAG}")})).await;
    rolls_through(&cache, &old).await;
    load.more(50).await;
    let report = load.finish("rolling change of the image").await;
    // Nodes say goodbye, and the Service sends nobody to one that is about to go.
    assert!(report.failed() * 100 <= report.succeeded(), "requests failed in a rolling change: {report}");
}

/// An image that cannot be had costs one node, says so, and is undone by naming the old one again.
pub(crate) async fn a_bad_image_stops_at_one_pod(suite: &Suite) {
    let space = Space::new(suite, "bad-image").await;
    let mut spec = small(3);
    // An image that is not here is not looked for elsewhere either.
    spec["podTemplate"] = json!({"spec": {"containers": [{"name": "node", "imagePullPolicy": "Never"}]}});
    let cache = space.ready_cache("web", spec).await;
    let load = cache.load().await;
    let old = cache.pods().await;
    cache.patch(json!({"image": "mneme-node:there-is-none"})).await;
    let words = eventually(READY_WAIT, "Progressing tells of the image", async || {
        let cache = cache.get().await?;
        let progressing = condition(&cache, "Progressing");
        let message = progressing["message"].as_str()?.to_owned();
        message.contains("Image").then(|| format!("{}: {message}", progressing["reason"]))
    })
    .await;
    println!("bad image: {words}");
    load.more(100).await;
    let pods = cache.pods().await;
    let kept = pods.iter().filter(|pod| old.iter().any(|old| uid_of(old) == uid_of(pod))).count();
    assert_eq!(kept, 2, "a bad image reaches one pod");
    assert_ne!(
        cache.condition("Ready", "False").await["reason"],
        "",
        "Ready is False while a node is missing"
    );
    cache.patch(json!({"image": format!("mneme-node:{TAG}")})).await;
    cache.ready().await;
    load.more(50).await;
    load.finish("bad image and rollback").await;
}

/// `paused` stops all changes, and goes on when it is over; status is kept meanwhile.
pub(crate) async fn a_paused_set_is_left_alone(suite: &Suite) {
    let space = Space::new(suite, "paused").await;
    let cache = space.ready_cache("web", small(1)).await;
    cache.patch(json!({"paused": true, "replicas": 2})).await;
    let generation = cache.get().await.expect("the SessionCache")["metadata"]["generation"].clone();
    eventually(60, "the status is of the paused generation", async || {
        (cache.get().await?["status"]["observedGeneration"] == generation).then_some(())
    })
    .await;
    // Deleted by hand: not put back while it is paused, which the next status shows.
    suite.api.delete(&cache.path(Kind::ConfigMap, "-config")).await;
    let old = cache.pods().await;
    cache.delete_pod(0).await; // the StatefulSet is Kubernetes' own, and cannot mount what is not there
    eventually(60, "the status follows the pod", async || {
        (cache.get().await?["status"]["readyReplicas"] == 0).then_some(())
    })
    .await;
    assert!(suite.api.get(&cache.path(Kind::ConfigMap, "-config")).await.is_none(), "changed while paused");
    let set = suite.api.get(&cache.path(Kind::StatefulSet, "")).await.expect("the StatefulSet");
    assert_eq!(set["spec"]["replicas"], 1, "scaled while paused");
    cache.patch(json!({"paused": false})).await;
    cache.pods_but(2, &old).await;
    cache.ready().await;
}

/// A second token is valid within seconds, and the first until it is taken out; no node restarts.
pub(crate) async fn tokens_are_rotated_without_a_restart(suite: &Suite) {
    let space = Space::new(suite, "tokens").await;
    let cache = space.ready_cache("web", small(2)).await;
    let load = cache.load().await;
    let old = cache.pods().await;
    let secret = cache.path(Kind::Secret, "-tokens");
    let tokens = suite.api.get(&secret).await.expect("the Secret")["data"]["tokens"].clone();
    let first = STANDARD.decode(tokens.as_str().unwrap_or_default()).expect("base64");
    let first = String::from_utf8(first).expect("text").trim().to_owned();
    let write = async |text: &str| write_secret(&cache, "-tokens", "tokens", text).await;
    write(&format!("{first}\nsecond:second-token-of-the-suite\n")).await;
    let second = eventually(150, "the second token is valid", async || {
        let second = Load::start(suite, &space.name, "web", "second-token-of-the-suite").await;
        Some(second)
    })
    .await;
    second.more(100).await;
    load.finish("first token while both are valid").await;
    write("second:second-token-of-the-suite\n").await;
    second.more(100).await;
    second.finish("second token").await;
    check_same_processes(&cache, &old).await;
}

/// Writes a file of secrets, and has the kubelets look at it.
async fn write_secret(cache: &Cache<'_>, ending: &str, file: &str, text: &str) {
    let secret = cache.path(Kind::Secret, ending);
    cache.suite.api.patch(&secret, &json!({"data": {file: STANDARD.encode(text)}})).await;
    // A kubelet looks for Secrets when it looks at a pod: within about a minute, or at once when the pod changes.
    for pod in cache.pods().await {
        let pod = path(Kind::Pod, &cache.namespace, pod["metadata"]["name"].as_str().expect("a name"));
        let note = json!({"metadata": {"annotations": {"suite/refresh": text.len().to_string()}}});
        cache.suite.api.patch(&pod, &note).await;
    }
}

async fn check_same_processes(cache: &Cache<'_>, old: &[Value]) {
    let pods = cache.pods().await;
    assert!(pods.iter().zip(old).all(|(new, old)| uid_of(new) == uid_of(old)), "a node was replaced");
    let restarts: u64 =
        pods.iter().filter_map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64()).sum();
    assert_eq!(restarts, 0, "a node was restarted");
}

/// Peers prove a new secret once all know it; nobody is restarted for it, and who comes back knows the new one alone.
pub(crate) async fn the_cluster_secret_is_rotated_without_a_restart(suite: &Suite) {
    let space = Space::new(suite, "secret").await;
    let cache = space.ready_cache("web", small(2)).await;
    let load = cache.load().await;
    let old = cache.pods().await;
    let secret = suite.api.get(&cache.path(Kind::Secret, "-cluster")).await.expect("the Secret");
    let first = STANDARD.decode(secret["data"]["secret"].as_str().unwrap_or_default()).expect("base64");
    let first = String::from_utf8(first).expect("text").trim().to_owned();
    let steps = [format!("{first}\nthe-second-secret\n"), format!("the-second-secret\n{first}\n")];
    for (readings, text) in (1..).zip(steps.iter().map(String::as_str).chain(["the-second-secret\n"])) {
        write_secret(&cache, "-cluster", "secret", text).await;
        for pod in &old {
            let name = pod["metadata"]["name"].as_str().expect("a name");
            eventually(150, &format!("{name} has read its secrets {readings} times anew"), async || {
                let log = suite.api.kubectl(&["logs", "--namespace", &space.name, name]);
                let log = String::from_utf8_lossy(&log.stdout).into_owned();
                (log.matches("read the file of secrets again").count() >= readings).then_some(())
            })
            .await;
        }
        load.more(30).await;
    }
    check_same_processes(&cache, &old).await;
    cache.delete_pod(1).await;
    cache.pods_but(2, &old[1..]).await;
    cache.ready().await;
    load.more(50).await;
    load.finish("cluster secret rotated").await;
}
