//! A new user's first minutes.

use std::time::Instant;

use serde_json::{Value, json};

use crate::api::{Kind, eventually};
use crate::clients::condition;
use crate::space::{Space, is_ready_now, small};
use crate::suite::Suite;

/// From one `apply` to a session that is written and read through the Service.
pub(crate) async fn a_session_is_served_after_one_apply(suite: &Suite) {
    let space = Space::new(suite, "first").await;
    let started = Instant::now();
    let cache = space.cache("web");
    cache.apply(json!({"replicas": 3, "storage": {"size": "64Mi"}})).await;
    let status = cache.ready().await["status"].take();
    println!("first: {:.1} s from apply to Ready", started.elapsed().as_secs_f32());
    assert_eq!(status["readyReplicas"], 3, "{status:#}");
    assert_eq!(status["memberSummary"], "3/3", "{status:#}");
    let members = status["members"].as_array().expect("members");
    let mut ids: Vec<&Value> = members.iter().map(|member| &member["id"]).collect();
    ids.dedup();
    assert_eq!(ids.len(), 3, "three nodes with three identities: {members:#?}");
    assert!(members.iter().all(|member| member["ready"] == true), "{members:#?}");
    let load = cache.load().await;
    println!("first: {:.1} s from apply to the first session", started.elapsed().as_secs_f32());
    load.more(200).await;
    let report = load.finish("first").await;
    assert_eq!(report.failed(), 0, "nothing was done to it, and requests failed: {report}");
    let printed = suite.api.kubectl_expect(&["get", "scache", "web", "--namespace", &space.name]);
    assert!(printed.contains("3/3") && printed.contains("True"), "{printed}");
    let explained = suite.api.kubectl_expect(&["explain", "scache.spec", "--recursive"]);
    assert!(explained.contains("replicas"), "{explained}");
}

/// A Ready of an older generation never stands for a new one: whoever waits right after an apply waits for that apply.
pub(crate) async fn waiting_right_after_an_apply_is_safe(suite: &Suite) {
    let space = Space::new(suite, "wait").await;
    let cache = space.ready_cache("web", small(1)).await;
    for replicas in [2, 1, 2] {
        let applied = cache.apply(small(replicas)).await;
        // As `kubectl wait --for=condition=Ready` looks: the status True, and an observedGeneration that is not old.
        let seen = eventually(120, "what kubectl waits for", async || {
            let seen = cache.get().await?;
            let ready = condition(&seen, "Ready");
            let observed = ready["observedGeneration"].as_i64()?;
            (ready["status"] == "True" && observed >= applied["metadata"]["generation"].as_i64()?)
                .then_some(seen)
        })
        .await;
        assert!(is_ready_now(&seen), "{:#}", seen["status"]);
        assert_eq!(seen["status"]["readyReplicas"], replicas, "{:#}", seen["status"]);
        let wait =
            ["wait", "--for=condition=Ready", "scache/web", "--timeout=60s", "--namespace", &space.name];
        suite.api.kubectl_expect(&wait);
    }
}

/// Every example of the repository, as it is but for the namespace.
pub(crate) async fn every_example_works(suite: &Suite) {
    let directory = suite.file("manifests/examples");
    let mut examples: Vec<_> = std::fs::read_dir(&directory)
        .expect("the examples")
        .map(|entry| entry.expect("an entry of a directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    examples.sort();
    assert!(!examples.is_empty(), "no example in {}", directory.display());
    for example in examples {
        let name = example.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        let space = Space::new(suite, &format!("example-{name}")).await;
        let file = example.to_str().expect("a path in UTF-8");
        suite.api.kubectl_expect(&["apply", "--namespace", &space.name, "--filename", file]);
        let list = suite.api.list(&space.path(Kind::SessionCache, "")).await;
        assert!(!list.is_empty(), "{file} has no SessionCache");
        for object in list {
            let cache = space.cache(object["metadata"]["name"].as_str().expect("a name"));
            cache.ready().await;
            println!("first: the example {name} is ready");
        }
    }
}
