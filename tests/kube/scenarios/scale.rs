//! The number of nodes, and what becomes of their data.

use serde_json::{Value, json};

use crate::api::{Kind, eventually};
use crate::space::{Cache, Space, small, uid_of};
use crate::suite::Suite;

/// 1 → 3 → 5 → 3 → 0 → 3 under load: sessions are there throughout, and after nobody was.
pub(crate) async fn up_and_down_and_to_nothing_and_back(suite: &Suite) {
    let space = Space::new(suite, "scale").await;
    let cache = space.ready_cache("web", small(1)).await;
    assert!(suite.api.get(&cache.path(Kind::DisruptionBudget, "")).await.is_none(), "a budget for one node");
    let load = cache.load().await;
    for replicas in [3, 5, 3] {
        cache.patch(json!({"replicas": replicas})).await;
        let seen = cache.ready().await;
        assert_eq!(seen["status"]["readyReplicas"], replicas, "{:#}", seen["status"]);
        load.more(50).await;
    }
    assert!(
        suite.api.get(&cache.path(Kind::DisruptionBudget, "")).await.is_some(),
        "no budget for three nodes"
    );
    let failed_running = load.report().await.failed();
    cache.patch(json!({"replicas": 0})).await;
    eventually(120, "all nodes are gone", async || cache.pods().await.is_empty().then_some(())).await;
    assert_eq!(claims(&cache).await.len(), 5, "claims stay");
    cache.patch(json!({"replicas": 3})).await;
    cache.ready().await;
    load.more(50).await;
    load.finish("scale 1-3-5-3-0-3").await;
    println!("scale 1-3-5-3: {failed_running} requests failed before it was scaled to 0");
}

/// A claim that is gone costs nothing: the node comes back as a new one and catches up.
pub(crate) async fn a_deleted_claim_is_made_anew(suite: &Suite) {
    let space = Space::new(suite, "claim").await;
    let cache = space.ready_cache("web", small(3)).await;
    let load = cache.load().await;
    let old = cache.pods().await;
    let claim = space.path(Kind::Claim, "data-web-1");
    let old_claim = suite.api.get(&claim).await.expect("a claim");
    suite.api.delete(&claim).await; // waits for its pod
    cache.delete_pod(1).await;
    eventually(120, "the claim is made anew", async || {
        let claim = suite.api.get(&claim).await?;
        (claim["metadata"]["uid"] != old_claim["metadata"]["uid"] && claim["status"]["phase"] == "Bound")
            .then_some(())
    })
    .await;
    cache.pods_but(3, &old[1..2]).await;
    cache.ready().await;
    load.more(50).await;
    load.finish("claim deleted").await;
}

/// Claims stay when a set shrinks or goes, unless the spec says otherwise.
pub(crate) async fn claims_go_only_when_told_to(suite: &Suite) {
    let space = Space::new(suite, "retention").await;
    let retained = space.cache("retained");
    let deleted = space.cache("deleted");
    retained.apply(small(2)).await;
    let mut spec = small(2);
    spec["storage"]["retention"] = json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    deleted.apply(spec).await;
    for cache in [&retained, &deleted] {
        cache.ready().await;
        assert_eq!(claims(cache).await.len(), 2);
        cache.patch(json!({"replicas": 1})).await;
        cache.ready().await;
    }
    eventually(60, "the claim of the node that left is deleted", async || {
        (claims(&deleted).await.len() == 1).then_some(())
    })
    .await;
    assert_eq!(claims(&retained).await.len(), 2, "a claim that is retained");
    for cache in [&retained, &deleted] {
        suite.api.delete(&cache.path(Kind::SessionCache, "")).await;
    }
    eventually(90, "the claims are deleted with the set", async || {
        claims(&deleted).await.is_empty().then_some(())
    })
    .await;
    eventually(90, "the pods of the other are gone", async || retained.pods().await.is_empty().then_some(()))
        .await;
    assert_eq!(claims(&retained).await.len(), 2, "claims that are retained");
    // The same name again: what was kept is served.
    retained.apply(small(1)).await;
    retained.ready().await;
}

/// Nodes without a volume come back empty and catch up from the others.
pub(crate) async fn ephemeral_nodes_come_back_from_the_others(suite: &Suite) {
    let space = Space::new(suite, "ephemeral").await;
    let mut spec = small(3);
    spec["storage"] = json!({"ephemeral": true, "size": "64Mi"});
    let cache = space.ready_cache("web", spec).await;
    assert!(claims(&cache).await.is_empty(), "claims of an ephemeral set");
    let load = cache.load().await;
    for ordinal in 0..3 {
        let old = cache.pods().await;
        cache.delete_pod(ordinal).await;
        cache.pods_but(3, &old[ordinal..=ordinal]).await;
        cache.ready().await;
        load.more(30).await;
    }
    load.finish("ephemeral").await;
}

async fn claims(cache: &Cache<'_>) -> Vec<Value> {
    let all = cache.suite.api.list(&crate::api::path(Kind::Claim, &cache.namespace, "")).await;
    let prefix = format!("data-{}-", cache.name);
    let is_own = |claim: &Value| {
        claim["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(&prefix))
            && claim["metadata"]["deletionTimestamp"].is_null()
    };
    all.into_iter().filter(is_own).collect()
}

/// More storage is asked of the claims that are there; less is refused by the API server, see `schema`.
pub(crate) async fn a_larger_volume_is_asked_of_the_claims(suite: &Suite) {
    let space = Space::new(suite, "larger").await;
    let classes = suite.api.list("/apis/storage.k8s.io/v1/storageclasses").await;
    let is_default = |class: &Value| {
        class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
    };
    let class = classes.into_iter().find(is_default).expect("a default StorageClass");
    // The same volumes; whether they really grow is the driver's affair, and this one has none that could.
    let larger = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "suite-larger"},
        "provisioner": class["provisioner"], "volumeBindingMode": class["volumeBindingMode"],
        "reclaimPolicy": "Delete", "allowVolumeExpansion": true,
    });
    suite.api.apply("/apis/storage.k8s.io/v1/storageclasses/suite-larger", &larger).await;
    let mut spec = small(2);
    spec["storage"]["storageClassName"] = json!("suite-larger");
    let cache = space.ready_cache("web", spec.clone()).await;
    let old = cache.pods().await;
    let load = cache.load().await;
    cache.patch(json!({"storage": {"size": "96Mi"}})).await;
    eventually(60, "both claims ask for more", async || {
        let claims = claims(&cache).await;
        let is_larger = |claim: &Value| claim["spec"]["resources"]["requests"]["storage"] == "96Mi";
        (claims.len() == 2 && claims.iter().all(is_larger)).then_some(())
    })
    .await;
    cache.ready().await;
    load.more(30).await;
    load.finish("storage expanded").await;
    let pods = cache.pods().await;
    assert!(pods.iter().zip(&old).all(|(new, old)| uid_of(new) == uid_of(old)), "a node was replaced");
}
