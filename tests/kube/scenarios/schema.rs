//! What the API server refuses, in the words that a user reads.

use serde_json::{Value, json};

use crate::api::Kind;
use crate::space::{Space, small};
use crate::suite::Suite;

/// A spec that is refused when a SessionCache is made with it, and words of the answer.
fn bad_specs() -> Vec<(Value, &'static str)> {
    let table = |table: Value| json!({"tables": [table]});
    vec![
        (json!({"replicas": 16}), "replicas"),
        (json!({"replicas": -1}), "replicas"),
        (json!({"clusterName": "-web"}), "clusterName is 1 to 253 letters"),
        (json!({"image": "mneme node"}), "an image reference has no spaces"),
        (json!({"version": "a/b"}), "a version is a tag of the image"),
        (json!({"tables": []}), "tables"),
        (table(json!({"name": "Sessions"})), "a table name is 1 to 63 lowercase letters"),
        (table(json!({"name": "sessions", "kind": "queue"})), "Unsupported value"),
        (table(json!({"name": "sessions", "defaultTtl": "30"})), "a duration is a whole number and a unit"),
        (table(json!({"name": "sessions", "defaultTtl": "0s"})), "a duration is more than zero"),
        (
            table(json!({"name": "sessions", "maxAge": "3651d"})),
            "a duration is more than zero and at most 3650d",
        ),
        (
            table(json!({"name": "sessions", "defaultTtl": "2h", "maxAge": "1h"})),
            "defaultTtl is longer than maxAge",
        ),
        (
            table(json!({"name": "sessions", "defaultTtl": "30m", "touchResolution": "31m"})),
            "touchResolution is longer than defaultTtl",
        ),
        (table(json!({"name": "sessions", "maxValueBytes": 0})), "maxValueBytes"),
        (table(json!({"name": "sessions", "maxBytes": -1})), "maxBytes"),
        (table(json!({"name": "sessions", "whenFull": "drop"})), "Unsupported value"),
        (json!({"tables": [{"name": "sessions"}, {"name": "sessions"}]}), "Duplicate value"),
        (json!({"peers": {"hosts": ["http://10.0.0.5"]}}), "a host is a name or an IPv4 address"),
        (json!({"peers": {"hosts": ["cache.example.com:70000"]}}), "a host is a name or an IPv4 address"),
        (json!({"peers": {"hosts": ["a.example.com", "a.example.com"]}}), "Duplicate value"),
        (json!({"peers": {"headlessService": {"name": "Other"}}}), "the name of a Service is"),
        (
            json!({"peers": {"headlessService": {"name": "other", "namespace": "-"}}}),
            "the name of a namespace is",
        ),
        (json!({"peers": {"headlessService": {"name": "other", "port": 0}}}), "port"),
        (json!({"storage": {"size": "plenty"}}), "the size of a volume is a quantity above zero"),
        (json!({"storage": {"size": "0"}}), "the size of a volume is a quantity above zero"),
        (json!({"storage": {"retention": {"whenDeleted": "Keep"}}}), "Unsupported value"),
        (json!({"durability": "maybe"}), "Unsupported value"),
        (json!({"partitionPolicy": "guess"}), "Unsupported value"),
        (json!({"auth": {"tokensSecret": "No Name"}}), "the name of a Secret is"),
        (json!({"auth": {"clusterSecret": "No Name"}}), "the name of a Secret is"),
        (
            json!({"podTemplate": {"metadata": {"labels": {"app.kubernetes.io/name": "other"}}}}),
            "are the operator's own",
        ),
    ]
}

/// A change of an existing SessionCache that is refused, and words of the answer.
fn bad_changes() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"clusterName": "another"}), "spec.clusterName is immutable"),
        (json!({"tables": [{"name": "sessions", "kind": "cache"}]}), "the kind of a table is immutable"),
        (json!({"storage": {"size": "63Mi"}}), "storage.size may not shrink"),
        (json!({"storage": {"storageClassName": "fast"}}), "storage.storageClassName is immutable"),
        (json!({"storage": {"ephemeral": true}}), "storage.ephemeral is immutable"),
    ]
}

/// Every rule, each with an object that breaks only that one.
pub(crate) async fn bad_objects_are_refused_in_words(suite: &Suite) {
    let space = Space::new(suite, "schema").await;
    let all = space.path(Kind::SessionCache, "");
    let mut refused = 0;
    for (spec, words) in bad_specs() {
        let cache = space.cache("bad");
        let answer = suite.api.try_create(&all, &cache.object(spec.clone())).await;
        assert_eq!(answer.code(), 422, "{spec} was accepted or refused otherwise: {}", answer.text());
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains(words), "{spec} is refused with other words than {words:?}: {message}");
        refused += 1;
    }
    for name in ["1web", "web.shop", &"w".repeat(51)] {
        let cache = space.cache(name);
        let answer = suite.api.try_create(&all, &cache.object(small(1))).await;
        assert_eq!(answer.code(), 422, "the name {name} was accepted: {}", answer.text());
        assert!(answer.text().contains("the name is at most 50 lowercase letters"), "{}", answer.text());
        refused += 1;
    }
    let cache = space.cache("good");
    let mut spec = small(0);
    spec["tables"] = json!([{"name": "sessions"}]);
    cache.apply(spec).await;
    for (change, words) in bad_changes() {
        let answer =
            suite.api.try_patch(&cache.path(Kind::SessionCache, ""), &json!({"spec": change.clone()})).await;
        assert_eq!(answer.code(), 422, "{change} was accepted or refused otherwise: {}", answer.text());
        assert!(answer.text().contains(words), "{change} is refused without {words:?}: {}", answer.text());
        refused += 1;
    }
    println!("schema: {refused} bad objects refused, each in words");
}
