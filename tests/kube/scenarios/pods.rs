//! Pods that go without notice.

use std::time::Instant;

use crate::api::eventually;
use crate::clients::is_ready;
use crate::space::{Space, node_of, small, uid_of};
use crate::suite::Suite;

/// Each of three in turn.
pub(crate) async fn one_is_deleted(suite: &Suite) {
    let space = Space::new(suite, "delete-one").await;
    let cache = space.ready_cache("web", small(3)).await;
    let load = cache.load().await;
    for ordinal in 0..3 {
        let old = cache.pods().await;
        let started = Instant::now();
        cache.delete_pod(ordinal).await;
        cache.pods_but(3, &old[ordinal..=ordinal]).await;
        cache.ready().await;
        println!("delete one pod: {:.1} s until Ready", started.elapsed().as_secs_f32());
        load.more(50).await;
    }
    load.finish("delete one pod").await;
}

/// All addresses change at once.
pub(crate) async fn all_are_deleted_at_once(suite: &Suite) {
    let space = Space::new(suite, "delete-all").await;
    let cache = space.ready_cache("web", small(3)).await;
    let load = cache.load().await;
    load.more(100).await;
    let old = cache.pods().await;
    let started = Instant::now();
    for ordinal in 0..3 {
        cache.delete_pod(ordinal).await;
    }
    cache.pods_but(3, &old).await;
    cache.ready().await;
    println!("delete all pods: {:.1} s until Ready", started.elapsed().as_secs_f32());
    load.more(100).await;
    load.finish("delete all pods").await;
}

/// SIGKILL: the kubelet starts it again in the same pod.
pub(crate) async fn a_node_process_is_killed(suite: &Suite) {
    let space = Space::new(suite, "kill").await;
    let cache = space.ready_cache("web", small(3)).await;
    let load = cache.load().await;
    for ordinal in 0..3 {
        let pod = cache.pods().await[ordinal].clone();
        let restarts =
            |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        let before = restarts(&pod);
        suite.provider.run(&["signal", node_of(&pod), uid_of(&pod), "KILL"]);
        eventually(120, "the node is started again", async || {
            let now = cache.pods().await.get(ordinal)?.clone();
            (uid_of(&now) == uid_of(&pod) && restarts(&now) > before && is_ready(&now)).then_some(())
        })
        .await;
        cache.ready().await;
        load.more(50).await;
    }
    load.finish("SIGKILL of a node").await;
}
