//! The operator: away, killed, in pairs, with few rights, upgraded, uninstalled.

use serde_json::{Value, json};

use crate::api::{Kind, eventually, path};
use crate::clients::{Load, is_ready};
use crate::space::{Space, node_of, small, uid_of};
use crate::suite::{OPERATOR_NAMESPACE, OTHER_TAG, Suite};

/// Its absence changes nothing for clients: pods die and come back, at other addresses, and find each other.
pub(crate) async fn pods_die_while_it_is_down(suite: &Suite) {
    let space = Space::new(suite, "down").await;
    let cache = space.ready_cache("web", small(3)).await;
    let load = cache.load().await;
    suite.scale_operator(0).await;
    let old = cache.pods().await;
    for ordinal in 0..3 {
        cache.delete_pod(ordinal).await;
    }
    cache.pods_but(3, &old).await;
    load.more(100).await;
    suite.scale_operator(1).await;
    cache.ready().await;
    load.more(50).await;
    load.finish("pods die while the operator is down").await;
}

/// SIGKILL of the operator while it replaces nodes: its successor goes on where it was.
pub(crate) async fn it_is_killed_in_a_rolling_change(suite: &Suite) {
    let space = Space::new(suite, "killed").await;
    let cache = space.ready_cache("web", small(3)).await;
    let load = cache.load().await;
    let old = cache.pods().await;
    cache.patch(json!({"image": format!("mneme-node:{OTHER_TAG}")})).await;
    for replaced in 1..3 {
        eventually(180, "a node is replaced", async || {
            let pods = cache.pods().await;
            let new = pods.iter().filter(|pod| old.iter().all(|old| uid_of(old) != uid_of(pod))).count();
            (new >= replaced).then_some(())
        })
        .await;
        for pod in suite.operator_pods().await {
            suite.provider.run(&["signal", node_of(&pod), uid_of(&pod), "KILL"]);
        }
    }
    cache.pods_but(3, &old).await;
    cache.ready().await;
    load.more(50).await;
    load.finish("operator killed in a rolling change").await;
}

/// Two pods, one lease: the other takes over when the holder goes, and only one acts at a time.
pub(crate) async fn two_of_them_act_as_one(suite: &Suite) {
    let space = Space::new(suite, "two").await;
    suite.scale_operator(2).await;
    let lease = path(Kind::Lease, OPERATOR_NAMESPACE, "mneme-operator");
    let holder = async || {
        let lease = suite.api.get(&lease).await?;
        lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
    };
    let cache = space.ready_cache("web", small(2)).await;
    let load = cache.load().await;
    for _ in 0..2 {
        let first = eventually(60, "somebody holds the lease", holder).await;
        let pods = suite.operator_pods().await;
        let is_holder = |pod: &&Value| first.contains(pod["metadata"]["name"].as_str().unwrap_or("?"));
        let pod =
            pods.iter().find(is_holder).expect("the holder of the lease is a pod of the operator").clone();
        suite
            .api
            .delete(&path(
                Kind::Pod,
                OPERATOR_NAMESPACE,
                pod["metadata"]["name"].as_str().unwrap_or_default(),
            ))
            .await;
        let second = eventually(60, "another holds the lease", async || {
            holder().await.filter(|second| *second != first)
        })
        .await;
        println!("two operators: {second} follows {first}");
        let set = cache.path(Kind::StatefulSet, "");
        suite.api.patch(&set, &json!({"spec": {"replicas": 1}})).await;
        eventually(60, "the other one mends what was edited", async || {
            (suite.api.get(&set).await?["spec"]["replicas"] == 2).then_some(())
        })
        .await;
        cache.ready().await;
    }
    load.more(50).await;
    load.finish("two operators").await;
    suite.scale_operator(1).await;
}

/// A second installation that may see one namespace only, with a Role and nothing for the whole cluster.
pub(crate) async fn it_serves_one_namespace_with_the_rights_of_its_role(suite: &Suite) {
    suite.scale_operator(0).await;
    let space = Space::new(suite, "scoped").await;
    let other = Space::new(suite, "not-scoped").await;
    let namespaces = format!("scope.namespaces={{{}}}", space.name);
    suite.install("scoped", &space.name, &[&namespaces, "crds.install=false", "rbac.aggregateRoles=false"]);
    let selector = "app.kubernetes.io/instance=scoped";
    let rights = ["get", "clusterrole,clusterrolebinding", "--output=name", "--selector", selector];
    let rights = suite.api.kubectl_expect(&rights);
    assert_eq!(rights, "", "rights for the whole cluster");
    let cache = space.ready_cache("web", small(1)).await;
    let unseen = other.cache("web");
    unseen.apply(small(1)).await;
    let load = cache.load().await;
    cache.patch(json!({"replicas": 2})).await;
    cache.ready().await;
    load.more(50).await;
    load.finish("an operator of one namespace").await;
    let status = unseen.get().await.expect("the SessionCache elsewhere")["status"].take();
    assert!(status["conditions"].is_null(), "a SessionCache of another namespace was served: {status:#}");
    suite.helm(&["uninstall", "scoped", "--namespace", &space.name, "--wait"]);
    suite.scale_operator(1).await;
    unseen.ready().await;
}

/// No finalizer holds up a namespace that goes while the operator is away.
pub(crate) async fn a_namespace_is_deleted_without_it(suite: &Suite) {
    let space = Space::new(suite, "gone").await;
    space.ready_cache("web", small(1)).await;
    suite.scale_operator(0).await;
    suite.api.kubectl_expect(&["delete", "namespace", &space.name, "--timeout=120s"]);
    suite.scale_operator(1).await;
}

/// The chart again, with other settings of the operator: its pods are new and the nodes are not.
pub(crate) async fn an_upgrade_of_the_chart_restarts_no_node(suite: &Suite) {
    let space = Space::new(suite, "upgrade").await;
    let cache = space.ready_cache("web", small(2)).await;
    let load = cache.load().await;
    let (old, operators) = (cache.pods().await, suite.operator_pods().await);
    let tag = format!("nodeImage.tag={OTHER_TAG}");
    suite.install("mneme", OPERATOR_NAMESPACE, &["podAnnotations.upgraded=yes", &tag]);
    eventually(90, "the pods of the operator are new", async || {
        let pods = suite.operator_pods().await;
        let is_new = |pod: &Value| operators.iter().all(|old| uid_of(old) != uid_of(pod)) && is_ready(pod);
        (!pods.is_empty() && pods.iter().all(is_new)).then_some(())
    })
    .await;
    // The new operator has looked at it when it has put back what is edited now.
    let set = cache.path(Kind::StatefulSet, "");
    suite.api.patch(&set, &json!({"spec": {"replicas": 3}})).await;
    eventually(60, "the new operator mends what was edited", async || {
        (suite.api.get(&set).await?["spec"]["replicas"] == 2).then_some(())
    })
    .await;
    cache.ready().await;
    let new = cache.pods().await;
    assert!(new.iter().zip(&old).all(|(new, old)| uid_of(new) == uid_of(old)), "a node was replaced");
    load.finish("chart upgraded").await;
    suite.install("mneme", OPERATOR_NAMESPACE, &[]);
}

/// Without the operator everything runs on; installed again, it takes up what is there.
pub(crate) async fn uninstalling_keeps_the_resource_and_its_data(suite: &Suite) {
    let space = Space::new(suite, "uninstall").await;
    let cache = space.ready_cache("web", small(2)).await;
    let load = Load::start(suite, &space.name, "web", &cache.token().await).await;
    let old = cache.pods().await;
    suite.helm(&["uninstall", "mneme", "--namespace", OPERATOR_NAMESPACE, "--wait"]);
    load.more(100).await;
    assert!(cache.get().await.is_some(), "the SessionCache is gone, or its definition");
    suite.install_operator();
    cache.ready().await;
    let new = cache.pods().await;
    assert!(new.iter().zip(&old).all(|(new, old)| uid_of(new) == uid_of(old)), "a node was replaced");
    load.more(50).await;
    load.finish("uninstalled and installed again").await;
}

/// A SessionCache that cannot be read, as an older schema or a hand at the store may leave one: it is told of, and the
/// others are served as if it were not there.
pub(crate) async fn one_that_cannot_be_read_stops_no_other(suite: &Suite) {
    let space = Space::new(suite, "unreadable").await;
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/sessioncaches.mneme.dev";
    let versions = suite.api.get(definition).await.expect("the definition")["spec"]["versions"].clone();
    let mut loose = versions.clone();
    loose[0]["schema"]["openAPIV3Schema"] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    suite.api.patch(definition, &json!({"spec": {"versions": loose}})).await;
    let bad = space.cache("bad").object(json!({"replicas": 1, "tables": "three"}));
    let made = async || {
        let answer = suite.api.try_create(&space.path(Kind::SessionCache, ""), &bad).await;
        answer.status.is_success().then_some(())
    };
    eventually(60, "the API server takes what the schema forbids", made).await;
    suite.api.patch(definition, &json!({"spec": {"versions": versions}})).await;
    // Whoever starts now reads it with all the others.
    suite.scale_operator(0).await;
    suite.scale_operator(1).await;
    let good = space.ready_cache("good", small(1)).await;
    let load = good.load().await;
    eventually(60, "it is told of", async || {
        let events = suite.api.list(&format!("/api/v1/namespaces/{}/events", space.name)).await;
        let is_it =
            |event: &Value| event["reason"] == "Undecodable" && event["involvedObject"]["name"] == "bad";
        events.iter().any(is_it).then_some(())
    })
    .await;
    good.patch(json!({"replicas": 2})).await;
    good.ready().await;
    load.more(30).await;
    load.finish("beside one that cannot be read").await;
}
