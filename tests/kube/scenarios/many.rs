//! Many SessionCaches at once.

use std::time::Instant;

use serde_json::{Value, json};

use crate::api::eventually;
use crate::clients::condition;
use crate::space::{Space, small};
use crate::suite::{OPERATOR_NAMESPACE, Suite};

/// How many.
const COUNT: usize = 50;

/// Fifty sets, one of them with a node: all are reconciled, and what that costs is printed.
pub(crate) async fn fifty_at_once(suite: &Suite) {
    let space = Space::new(suite, "many").await;
    let started = Instant::now();
    for number in 0..COUNT {
        // Without nodes: fifty sets of nodes would measure the machine, not the operator.
        space.cache(&format!("web-{number}")).apply(small(u64::from(number == 0))).await;
    }
    let list = space.path(crate::api::Kind::SessionCache, "");
    eventually(180, "all are settled", async || {
        let caches = suite.api.list(&list).await;
        (caches.len() == COUNT && caches.iter().all(is_settled)).then_some(())
    })
    .await;
    println!("many: {COUNT} SessionCaches are settled after {:.1} s", started.elapsed().as_secs_f32());
    let started = Instant::now();
    for number in 0..COUNT {
        space.cache(&format!("web-{number}")).patch(json!({"durability": "commit"})).await;
    }
    eventually(180, "all are settled again", async || {
        let caches = suite.api.list(&list).await;
        caches.iter().all(is_settled).then_some(())
    })
    .await;
    println!("many: all changed and settled again after {:.1} s", started.elapsed().as_secs_f32());
    for pod in suite.operator_pods().await {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let metrics = format!("/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{name}:8080/proxy/metrics");
        let text = suite.api.request("GET", &metrics).send().await.text();
        let shown = |line: &&str| {
            let line = line.to_ascii_lowercase();
            ["resident_memory", "reconciliations_total", "reconciles_total", "requests_total", "errors_total"]
                .iter()
                .any(|part| line.contains(part) && !line.starts_with('#'))
        };
        println!("many: {name}:\n{}", text.lines().filter(shown).collect::<Vec<_>>().join("\n"));
    }
}

/// Whether the operator has nothing left to do for the current generation. Without nodes it is never Ready.
fn is_settled(cache: &Value) -> bool {
    let progressing = condition(cache, "Progressing");
    progressing["status"] == "False" && progressing["observedGeneration"] == cache["metadata"]["generation"]
}
