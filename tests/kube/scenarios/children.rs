//! The objects that the operator makes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::{Kind, eventually};
use crate::clients::condition;
use crate::space::{Cache, READY_WAIT, Space, small, uid_of};
use crate::suite::Suite;

/// What is made for a set of two, by kind and by what follows its name.
const CHILDREN: [(Kind, &str); 9] = [
    (Kind::Service, ""),
    (Kind::Service, "-peers"),
    (Kind::ConfigMap, "-config"),
    (Kind::Secret, "-tokens"),
    (Kind::Secret, "-cluster"),
    (Kind::ServiceAccount, ""),
    (Kind::DisruptionBudget, ""),
    (Kind::NetworkPolicy, ""),
    (Kind::StatefulSet, ""),
];

/// Whoever edits or deletes an object finds it as it was; what others added stays.
pub(crate) async fn those_that_are_edited_or_deleted_come_back(suite: &Suite) {
    let space = Space::new(suite, "children").await;
    let cache = space.ready_cache("web", small(2)).await;
    let load = cache.load().await;

    let service = cache.path(Kind::Service, "");
    suite.api.patch(&service, &json!({"metadata": {"annotations": {"other/note": "stays"}}})).await;
    suite.api.patch(&service, &json!({"spec": {"selector": {"app.kubernetes.io/instance": "nobody"}}})).await;
    let mended = eventually(60, "the edited Service is mended", async || {
        let service = suite.api.get(&service).await?;
        (service["spec"]["selector"]["app.kubernetes.io/instance"] == "web").then_some(service)
    })
    .await;
    assert_eq!(mended["metadata"]["annotations"]["other/note"], "stays", "a field of another manager");
    let set = cache.path(Kind::StatefulSet, "");
    suite.api.patch(&set, &json!({"spec": {"replicas": 1}})).await;
    eventually(60, "the edited StatefulSet is mended", async || {
        (suite.api.get(&set).await?["spec"]["replicas"] == 2).then_some(())
    })
    .await;
    cache.ready().await;
    load.more(50).await;

    for (kind, ending) in CHILDREN {
        // A secret that is gone is gone: a new one cannot be the old one, so these two are not taken away under load.
        if kind == Kind::Secret {
            continue;
        }
        let path = cache.path(kind, ending);
        let old = existing(&cache, kind, ending).await;
        suite.api.delete(&path).await;
        eventually(READY_WAIT, &format!("the deleted {kind:?} web{ending} is back"), async || {
            let new = suite.api.get(&path).await?;
            (uid_of(&new) != uid_of(&old)).then_some(())
        })
        .await;
    }
    cache.ready().await;
    load.more(50).await;
    load.finish("children edited and deleted").await;

    let kinds: BTreeSet<String> = CHILDREN.iter().map(|(kind, _)| format!("{kind:?}")).collect();
    for (kind, ending) in CHILDREN {
        let child = existing(&cache, kind, ending).await;
        assert_eq!(child["metadata"]["ownerReferences"][0]["name"], "web", "owner of {kind:?} web{ending}");
        assert_eq!(child["metadata"]["labels"]["app.kubernetes.io/managed-by"], "mneme-operator", "{kind:?}");
    }
    println!("children: {} kinds are owned, labelled and come back", kinds.len());
}

async fn existing(cache: &Cache<'_>, kind: Kind, ending: &str) -> Value {
    let child = cache.suite.api.get(&cache.path(kind, ending)).await;
    child.unwrap_or_else(|| panic!("no {kind:?} {}{ending}", cache.name))
}

/// An object of somebody else under a name that is needed: it is not touched, and the status says so.
pub(crate) async fn a_foreign_object_in_the_way_is_left_alone(suite: &Suite) {
    let space = Space::new(suite, "foreign").await;
    let cache = space.cache("web");
    let foreign = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "web-config", "namespace": space.name},
        "data": {"whose": "somebody else's"},
    });
    let path = cache.path(Kind::ConfigMap, "-config");
    suite.api.apply(&path, &foreign).await;
    cache.apply(small(1)).await;
    let degraded = cache.condition("Degraded", "True").await;
    assert_eq!(degraded["reason"], "NameConflict", "{degraded:#}");
    let message = degraded["message"].as_str().unwrap_or_default();
    assert!(message.contains("web-config"), "the message names the object: {message}");
    let found = suite.api.get(&path).await.expect("the foreign ConfigMap");
    assert_eq!(found["data"], foreign["data"], "it was changed");
    assert!(found["metadata"]["ownerReferences"].is_null(), "it was adopted");
    suite.api.delete(&path).await;
    let seen = cache.ready().await;
    assert_eq!(condition(&seen, "Degraded")["status"], "False", "{:#}", seen["status"]);
}

/// A PodMonitor is made once the cluster knows that kind, and nobody minds before.
pub(crate) async fn a_pod_monitor_is_made_where_its_kind_is_known(suite: &Suite) {
    let space = Space::new(suite, "monitor").await;
    let cache = space.ready_cache("web", small(1)).await;
    let definition =
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/podmonitors.monitoring.coreos.com";
    let kind = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "podmonitors.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"kind": "PodMonitor", "listKind": "PodMonitorList", "plural": "podmonitors", "singular": "podmonitor"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    });
    suite.api.apply(definition, &kind).await;
    let monitors = format!("/apis/monitoring.coreos.com/v1/namespaces/{}/podmonitors", space.name);
    eventually(60, "the kind is served", async || suite.api.get(&monitors).await.map(|_| ())).await;
    // A change of anything is a reason to look.
    cache.patch(json!({"monitoring": {"labels": {"release": "prometheus"}}})).await;
    let monitor = eventually(READY_WAIT, "the PodMonitor is made, with the label", async || {
        let monitor = suite.api.get(&format!("{monitors}/web")).await?;
        (monitor["metadata"]["labels"]["release"] == "prometheus").then_some(monitor)
    })
    .await;
    assert_eq!(monitor["metadata"]["ownerReferences"][0]["kind"], "SessionCache", "{monitor:#}");
    cache.patch(json!({"monitoring": {"podMonitor": false}})).await;
    eventually(READY_WAIT, "the PodMonitor is taken away", async || {
        suite.api.get(&format!("{monitors}/web")).await.is_none().then_some(())
    })
    .await;
    cache.ready().await;
    suite.api.delete(definition).await;
}
