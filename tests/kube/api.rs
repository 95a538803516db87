//! The API server, through one `kubectl proxy`: requests that cost a millisecond, and errors with their status.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use mneme_tests::http::{Request, RequestError, Response};
use mneme_tests::process::{Process, read_log};
use mneme_tests::wait::wait_for;
use serde_json::Value;

/// Pause between two looks at the cluster: nothing there changes faster than its controllers look.
const POLL: Duration = Duration::from_millis(200);
/// Who this suite is to the API server when it applies.
const FIELD_MANAGER: &str = "mneme-suite";

/// One cluster.
#[derive(Debug)]
pub(crate) struct Api {
    address: SocketAddr,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    _proxy: Process,
}

impl Api {
    /// Connects to the cluster of a kubeconfig.
    pub(crate) async fn connect(kubectl: PathBuf, kubeconfig: PathBuf, log: &Path) -> Self {
        let command: [&std::ffi::OsStr; 5] = [
            kubectl.as_os_str(),
            "--kubeconfig".as_ref(),
            kubeconfig.as_os_str(),
            "proxy".as_ref(),
            "--port=0".as_ref(),
        ];
        let proxy = Process::start("kubectl proxy", command, log);
        let address = wait_for(Duration::from_secs(30), "kubectl proxy listens", async || {
            let output = read_log(log);
            output.split("Starting to serve on ").nth(1)?.lines().next()?.parse().ok()
        })
        .await;
        let api = Self { address, kubectl, kubeconfig, _proxy: proxy };
        let version = api.request("GET", "/version").send().await;
        assert_eq!(version.code(), 200, "no API server answers behind {}", api.kubeconfig.display());
        println!("Kubernetes {}", version.json()["gitVersion"].as_str().unwrap_or("of an unknown version"));
        api
    }

    /// A request to a path of the API server.
    pub(crate) fn request(&self, method: &str, path: &str) -> Request {
        Request::new(self.address, method, path)
    }

    /// An object or a list; `None` when it is not there, or when nobody answers just now.
    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        match self.request("GET", path).try_send().await {
            Ok(answer) if answer.code() == 200 => Some(answer.json()),
            Ok(_) | Err(RequestError::TimedOut | RequestError::Failed(_)) => None,
        }
    }

    /// The items of a list.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let list = self.get(path).await.unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Applies an object server-side, taking over fields of others, and gives the answer whatever it is.
    pub(crate) async fn try_apply(&self, path: &str, object: &Value) -> Response {
        self.request("PATCH", &format!("{path}?fieldManager={FIELD_MANAGER}&force=true"))
            .header("content-type", "application/apply-patch+yaml")
            .body(object.to_string())
            .send()
            .await
    }

    /// Applies an object server-side.
    pub(crate) async fn apply(&self, path: &str, object: &Value) -> Value {
        let answer = self.try_apply(path, object).await;
        assert!(answer.status.is_success(), "failed to apply {path}: {}", answer.text());
        answer.json()
    }

    /// Makes an object, given the path of all of its kind, and gives the answer whatever it is.
    pub(crate) async fn try_create(&self, path: &str, object: &Value) -> Response {
        self.request("POST", path).json(object).send().await
    }

    /// Merges a patch into an object, and gives the answer whatever it is.
    pub(crate) async fn try_patch(&self, path: &str, patch: &Value) -> Response {
        self.request("PATCH", path)
            .header("content-type", "application/merge-patch+json")
            .body(patch.to_string())
            .send()
            .await
    }

    /// Merges a patch into an object.
    pub(crate) async fn patch(&self, path: &str, patch: &Value) -> Value {
        let answer = self.try_patch(path, patch).await;
        assert!(answer.status.is_success(), "failed to patch {path}: {}", answer.text());
        answer.json()
    }

    /// Deletes an object, if it is there, without waiting.
    pub(crate) async fn delete(&self, path: &str) {
        let answer = self.request("DELETE", path).send().await;
        assert!(
            answer.status.is_success() || answer.code() == 404,
            "failed to delete {path}: {}",
            answer.text()
        );
    }

    /// Runs kubectl.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Output {
        self.run(&self.kubectl, arguments)
    }

    /// Runs kubectl, which must succeed, and gives what it printed.
    pub(crate) fn kubectl_expect(&self, arguments: &[&str]) -> String {
        expect(&format!("kubectl {}", arguments.join(" ")), &self.kubectl(arguments))
    }

    /// Runs a program that finds the cluster by KUBECONFIG.
    pub(crate) fn run(&self, program: &Path, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .output()
            .unwrap_or_else(|error| panic!("failed to run {}: {error}", program.display()))
    }
}

/// What a program printed, when it succeeded.
pub(crate) fn expect(name: &str, output: &Output) -> String {
    assert!(
        output.status.success(),
        "`{name}` failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until `look` finds something in the cluster, and gives that back.
pub(crate) async fn eventually<T>(seconds: u64, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited {seconds} s in vain: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// The path of a namespaced object, or of all of its kind when `name` is empty.
pub(crate) fn path(kind: Kind, namespace: &str, name: &str) -> String {
    let (group, plural) = kind.resource();
    let object = if name.is_empty() { String::new() } else { format!("/{name}") };
    format!("{group}/namespaces/{namespace}/{plural}{object}")
}

/// Kinds of namespaced objects that the suite looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    SessionCache,
    StatefulSet,
    Deployment,
    Pod,
    Service,
    ConfigMap,
    Secret,
    Claim,
    DisruptionBudget,
    NetworkPolicy,
    ServiceAccount,
    Lease,
}

impl Kind {
    fn resource(self) -> (&'static str, &'static str) {
        match self {
            Self::SessionCache => ("/apis/mneme.dev/v1alpha1", "sessioncaches"),
            Self::StatefulSet => ("/apis/apps/v1", "statefulsets"),
            Self::Deployment => ("/apis/apps/v1", "deployments"),
            Self::Pod => ("/api/v1", "pods"),
            Self::Service => ("/api/v1", "services"),
            Self::ConfigMap => ("/api/v1", "configmaps"),
            Self::Secret => ("/api/v1", "secrets"),
            Self::Claim => ("/api/v1", "persistentvolumeclaims"),
            Self::DisruptionBudget => ("/apis/policy/v1", "poddisruptionbudgets"),
            Self::NetworkPolicy => ("/apis/networking.k8s.io/v1", "networkpolicies"),
            Self::ServiceAccount => ("/api/v1", "serviceaccounts"),
            Self::Lease => ("/apis/coordination.k8s.io/v1", "leases"),
        }
    }
}
