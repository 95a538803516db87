//! What all scenarios share: the cluster, its provider, the images, the operator.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use mneme_tests::binary;

use crate::api::{Api, Kind, eventually, expect, path};
use crate::clients;
use crate::provider::Provider;

/// Where the operator is.
pub(crate) const OPERATOR_NAMESPACE: &str = "mneme-system";
/// Tag of the images under test.
pub(crate) const TAG: &str = "suite";
/// Tag of the same node image under another name, for a rolling change.
pub(crate) const OTHER_TAG: &str = "suite-other";

/// The cluster and what is in it.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) api: Api,
    pub(crate) provider: Provider,
    tools: PathBuf,
    next: AtomicU64,
    _logs: tempfile::TempDir,
}

impl Suite {
    /// Loads the images and installs the operator.
    ///
    /// From the environment: `KUBECONFIG`; `MNEME_KUBE_PROVIDER`, a program (`kind/cluster`); `MNEME_KUBE_TOOLS`, the
    /// directory of helm and kubeconform; `MNEME_KUBE_IMAGES`, the directory of the archives that `images/build` wrote.
    pub(crate) async fn set_up() -> Self {
        let variable = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .unwrap_or_else(|| panic!("{name} is not set: run `tests/run kube`"))
        };
        let started = Instant::now();
        let logs = tempfile::tempdir().expect("a directory for logs");
        let kubectl =
            std::env::var_os("MNEME_KUBECTL").map_or_else(|| binary::required("kubectl"), PathBuf::from);
        let api = Api::connect(kubectl, variable("KUBECONFIG"), &logs.path().join("proxy.log")).await;
        let provider = Provider(variable("MNEME_KUBE_PROVIDER"));
        assert!(provider.is_there(), "no provider at {}", provider.0.display());
        let images = variable("MNEME_KUBE_IMAGES");
        let archives = ["mneme-node", "mneme-operator", "kube-client", "other/mneme-node"];
        provider.load(&archives.map(|name| images.join(format!("{name}.tar"))));
        println!("images loaded after {:.1} s", started.elapsed().as_secs_f32());
        let suite =
            Self { api, provider, tools: variable("MNEME_KUBE_TOOLS"), next: AtomicU64::new(0), _logs: logs };
        clients::start_pod(&suite.api, &format!("kube-client:{TAG}")).await;
        suite.install_operator();
        println!("operator and clients ready after {:.1} s", started.elapsed().as_secs_f32());
        suite
    }

    /// A number that no other call gives.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A file of the repository.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
    }

    /// Runs helm, which must succeed.
    pub(crate) fn helm(&self, arguments: &[&str]) -> String {
        let output = self.api.run(&self.tools.join("helm"), arguments);
        expect(&format!("helm {}", arguments.join(" ")), &output)
    }

    /// Installs or upgrades a release of the chart with the images under test.
    pub(crate) fn install(&self, release: &str, namespace: &str, settings: &[&str]) -> String {
        let chart = self.file("charts/mneme");
        let tags = [format!("image.tag={TAG}"), format!("nodeImage.tag={TAG}")];
        let mut arguments = vec!["upgrade", "--install", release, chart.to_str().expect("a path in UTF-8")];
        arguments.extend(["--namespace", namespace, "--create-namespace", "--wait", "--timeout", "90s"]);
        let fixed = [
            "image.repository=mneme-operator",
            "nodeImage.repository=mneme-node",
            "image.pullPolicy=IfNotPresent",
            "logging.format=text",
            "nodeImage.pullPolicy=IfNotPresent",
        ];
        for setting in
            fixed.into_iter().chain(tags.iter().map(String::as_str)).chain(settings.iter().copied())
        {
            arguments.extend(["--set", setting]);
        }
        self.helm(&arguments)
    }

    /// Installs the operator for the whole cluster.
    pub(crate) fn install_operator(&self) {
        self.install("mneme", OPERATOR_NAMESPACE, &[]);
    }

    /// The pods of the operator.
    pub(crate) async fn operator_pods(&self) -> Vec<serde_json::Value> {
        let list = path(Kind::Pod, OPERATOR_NAMESPACE, "");
        self.api.list(&format!("{list}?labelSelector=app.kubernetes.io%2Fcomponent%3Doperator")).await
    }

    /// Sets how many pods the operator has, and waits until it has them.
    pub(crate) async fn scale_operator(&self, replicas: u64) {
        let deployment = path(Kind::Deployment, OPERATOR_NAMESPACE, "mneme");
        self.api.patch(&deployment, &serde_json::json!({"spec": {"replicas": replicas}})).await;
        eventually(60, "the operator has its pods", async || {
            let status = self.api.get(&deployment).await?["status"].take();
            let pods = self.operator_pods().await.len() as u64;
            (status["readyReplicas"].as_u64().unwrap_or(0) == replicas && pods == replicas).then_some(())
        })
        .await;
    }
}
