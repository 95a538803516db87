//! A namespace of one scenario, and a SessionCache in it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::api::{Kind, eventually, path};
use crate::clients::{Load, condition, is_ready};
use crate::suite::{OPERATOR_NAMESPACE, Suite};

/// Longest time from a change to Ready that is no finding, in seconds: a few pods one after the other, on a host that
/// runs other scenarios too.
pub(crate) const READY_WAIT: u64 = 180;

/// A namespace under Pod Security `restricted`. Dropping it deletes it; a scenario that fails first shows what is in it.
#[derive(Debug)]
pub(crate) struct Space<'a> {
    pub(crate) suite: &'a Suite,
    pub(crate) name: String,
}

impl<'a> Space<'a> {
    /// Makes the namespace.
    pub(crate) async fn new(suite: &'a Suite, scenario: &str) -> Self {
        let space = Self { suite, name: format!("suite-{}", scenario.replace('_', "-")) };
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": space.name,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        });
        suite.api.apply(&format!("/api/v1/namespaces/{}", space.name), &namespace).await;
        space
    }

    /// A SessionCache of this namespace that need not exist yet.
    pub(crate) fn cache(&self, name: &str) -> Cache<'_> {
        Cache { suite: self.suite, namespace: self.name.clone(), name: name.to_owned() }
    }

    /// Makes a SessionCache and waits until it is ready.
    pub(crate) async fn ready_cache(&self, name: &str, spec: Value) -> Cache<'_> {
        let cache = self.cache(name);
        cache.apply(spec).await;
        cache.ready().await;
        cache
    }

    /// The path of an object in this namespace.
    pub(crate) fn path(&self, kind: Kind, name: &str) -> String {
        path(kind, &self.name, name)
    }
}

impl Drop for Space<'_> {
    fn drop(&mut self) {
        let namespace = ["--namespace", &self.name];
        if std::thread::panicking() {
            let show = |arguments: &[&str], lines: usize| {
                let output = self.suite.api.kubectl(arguments);
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let from = text.lines().count().saturating_sub(lines);
                let end: Vec<&str> = text.lines().skip(from).collect();
                eprintln!("--- kubectl {}\n{}", arguments.join(" "), end.join("\n"));
            };
            show(&["get", "scache,statefulset,pod,pvc,event", namespace[0], namespace[1], "-o", "wide"], 60);
            show(&["get", "scache", namespace[0], namespace[1], "-o", "jsonpath={.items[*].status}"], 10);
            show(
                &["logs", namespace[0], namespace[1], "-l", "app.kubernetes.io/component=node", "--tail=15"],
                80,
            );
            let operator =
                ["logs", "--namespace", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/component=operator"];
            show(&[&operator[..], &["--tail=30"]].concat(), 60);
        }
        let _ = self.suite.api.kubectl(&[
            "delete",
            "namespace",
            &self.name,
            "--wait=false",
            "--ignore-not-found",
        ]);
    }
}

/// A SessionCache.
#[derive(Debug, Clone)]
pub(crate) struct Cache<'a> {
    pub(crate) suite: &'a Suite,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// The spec of a small set.
pub(crate) fn small(replicas: u64) -> Value {
    json!({
        "replicas": replicas,
        "storage": {"size": "64Mi"},
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
    })
}

impl<'a> Cache<'a> {
    /// The object as it would be applied.
    pub(crate) fn object(&self, spec: Value) -> Value {
        json!({
            "apiVersion": "mneme.dev/v1alpha1", "kind": "SessionCache",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": spec,
        })
    }

    /// The path of an object named after the set, with an ending.
    pub(crate) fn path(&self, kind: Kind, ending: &str) -> String {
        path(kind, &self.namespace, &format!("{}{ending}", self.name))
    }

    /// Applies a spec.
    pub(crate) async fn apply(&self, spec: Value) -> Value {
        self.suite.api.apply(&self.path(Kind::SessionCache, ""), &self.object(spec)).await
    }

    /// Merges a patch into the spec.
    pub(crate) async fn patch(&self, spec: Value) {
        self.suite.api.patch(&self.path(Kind::SessionCache, ""), &json!({"spec": spec})).await;
    }

    /// The object as it is.
    pub(crate) async fn get(&self) -> Option<Value> {
        self.suite.api.get(&self.path(Kind::SessionCache, "")).await
    }

    /// Waits until it is Ready in its current generation.
    pub(crate) async fn ready(&self) -> Value {
        eventually(READY_WAIT, &format!("{} is ready", self.name), async || {
            let cache = self.get().await?;
            is_ready_now(&cache).then_some(cache)
        })
        .await
    }

    /// Waits until a condition of the current generation has this status, and gives the condition.
    pub(crate) async fn condition(&self, kind: &str, status: &str) -> Value {
        eventually(READY_WAIT, &format!("{} is {kind}={status}", self.name), async || {
            let cache = self.get().await?;
            let condition = condition(&cache, kind);
            let is_current = condition["observedGeneration"] == cache["metadata"]["generation"];
            (is_current && condition["status"] == status).then(|| condition.clone())
        })
        .await
    }

    /// Its pods, in order.
    pub(crate) async fn pods(&self) -> Vec<Value> {
        let selector =
            format!("app.kubernetes.io%2Finstance%3D{},app.kubernetes.io%2Fcomponent%3Dnode", self.name);
        let list = path(Kind::Pod, &self.namespace, "");
        let mut pods = self.suite.api.list(&format!("{list}?labelSelector={selector}")).await;
        pods.sort_by_key(|pod| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        pods
    }

    /// Waits until it has this many pods, all ready, none of them one of `old`.
    pub(crate) async fn pods_but(&self, count: usize, old: &[Value]) -> Vec<Value> {
        eventually(READY_WAIT, &format!("{} has {count} ready pods", self.name), async || {
            let pods = self.pods().await;
            let is_new = |pod: &Value| old.iter().all(|old| old["metadata"]["uid"] != pod["metadata"]["uid"]);
            (pods.len() == count && pods.iter().all(|pod| is_ready(pod) && is_new(pod))).then_some(pods)
        })
        .await
    }

    /// Deletes a pod, without waiting.
    pub(crate) async fn delete_pod(&self, ordinal: usize) {
        self.suite.api.delete(&self.path(Kind::Pod, &format!("-{ordinal}"))).await;
    }

    /// A token that clients may use: the first of the Secret that the operator made.
    pub(crate) async fn token(&self) -> String {
        let secret =
            self.suite.api.get(&self.path(Kind::Secret, "-tokens")).await.expect("the Secret of tokens");
        let tokens = STANDARD.decode(secret["data"]["tokens"].as_str().unwrap_or_default());
        let tokens = String::from_utf8(tokens.expect("base64")).expect("text");
        let line = tokens.lines().find(|line| !line.is_empty() && !line.starts_with('#')).expect("a token");
        line.split_once(':').map_or(line, |(_, token)| token).to_owned()
    }

    /// Lets clients loose on it.
    pub(crate) async fn load(&self) -> Load<'a> {
        Load::start(self.suite, &self.namespace, &self.name, &self.token().await).await
    }
}

/// Whether a SessionCache is Ready in its current generation.
pub(crate) fn is_ready_now(cache: &Value) -> bool {
    let ready = condition(cache, "Ready");
    ready["status"] == "True" && ready["observedGeneration"] == cache["metadata"]["generation"]
}

/// The name of the Kubernetes node that a pod is on.
pub(crate) fn node_of(pod: &Value) -> &str {
    pod["spec"]["nodeName"].as_str().expect("a pod that runs is on a node")
}

/// The uid of an object.
pub(crate) fn uid_of(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().expect("an object has a uid")
}
