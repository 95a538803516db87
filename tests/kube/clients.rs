//! Clients of a SessionCache: the load in the client pod, and single requests that go the same way.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::{Api, Kind, eventually, path};
use crate::suite::Suite;

/// Longest wait for requests to go on.
const REQUESTS_WAIT: Duration = Duration::from_secs(90);
/// Pause between two reports.
const POLL: Duration = Duration::from_millis(200);
/// Where the client pod is.
const NAMESPACE: &str = "mneme-suite";
/// Its name.
const POD: &str = "client";

/// Starts the pod that all loads run in: beside the control plane, which no scenario cuts off or drains.
pub(crate) async fn start_pod(api: &Api, image: &str) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    api.apply(&format!("/api/v1/namespaces/{NAMESPACE}"), &namespace).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": POD, "namespace": NAMESPACE},
        "spec": {
            "nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": POD, "image": image, "imagePullPolicy": "IfNotPresent",
                "readinessProbe": {"httpGet": {"path": "/livez", "port": 8080}, "periodSeconds": 1},
            }],
        },
    });
    api.apply(&path(Kind::Pod, NAMESPACE, POD), &pod).await;
    eventually(60, "the client pod is ready", async || {
        let pod = api.get(&path(Kind::Pod, NAMESPACE, POD)).await?;
        is_ready(&pod).then_some(())
    })
    .await;
}

/// Whether a pod, or anything with such conditions, is ready.
pub(crate) fn is_ready(object: &Value) -> bool {
    condition(object, "Ready")["status"] == "True"
}

/// A condition by its type; null when it is not there.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

/// A load that runs. Its end checks what clients were promised.
#[derive(Debug)]
#[must_use = "a load proves something only when it is finished"]
pub(crate) struct Load<'a> {
    suite: &'a Suite,
    name: String,
}

/// What clients saw.
#[derive(Debug, Clone)]
pub(crate) struct Report(Value);

impl<'a> Load<'a> {
    /// Lets clients loose on a Service.
    pub(crate) async fn start(suite: &'a Suite, namespace: &str, service: &str, token: &str) -> Self {
        let name = format!("{namespace}-{service}-{}", suite.number());
        let query = format!("name={name}&service={service}.{namespace}.svc:7070&token={token}");
        let load = Self { suite, name };
        load.ask(&format!("start?{query}")).await;
        load.more(20).await;
        load
    }

    /// Waits until so many more requests succeeded.
    pub(crate) async fn more(&self, requests: u64) {
        let mut report = self.report().await;
        let wanted = report.succeeded() + requests;
        let deadline = Instant::now() + REQUESTS_WAIT;
        while report.succeeded() < wanted {
            assert!(
                Instant::now() < deadline,
                "requests do not go on: {report}; {}",
                report.0["lastFailure"]
            );
            tokio::time::sleep(POLL).await;
            report = self.report().await;
        }
    }

    /// What was counted so far.
    pub(crate) async fn report(&self) -> Report {
        Report(self.ask(&format!("report?name={}", self.name)).await)
    }

    /// Ends the load, reads every session once more, and checks that nothing was lost, revived or signed out.
    pub(crate) async fn finish(self, scenario: &str) -> Report {
        let report = Report(self.ask(&format!("finish?name={}", self.name)).await);
        println!("{scenario}: clients saw {report}");
        for count in ["lostWrites", "revived", "falseLogouts", "unchecked"] {
            assert_eq!(report.0[count], 0, "{count}: {:#}", report.0["findings"]);
        }
        assert!(report.0["checked"].as_u64() > Some(0), "no session was checked at the end");
        report
    }

    async fn ask(&self, request: &str) -> Value {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{POD}:8080/proxy/{request}");
        let limit = std::time::Duration::from_secs(120);
        let answer = self.suite.api.request("GET", &path).within(limit).send().await;
        assert_eq!(answer.code(), 200, "the client pod answers to {request}: {}", answer.text());
        answer.json()
    }
}

impl Report {
    /// Requests that were answered as they should be, or with what the checks count.
    pub(crate) fn succeeded(&self) -> u64 {
        self.0["requests"].as_u64().unwrap_or(0) - self.failed()
    }

    /// Requests that got no answer, or one that says to try again.
    pub(crate) fn failed(&self) -> u64 {
        self.0["failed"].as_u64().unwrap_or(0)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let report = &self.0;
        write!(
            formatter,
            "{} requests, {} failed, longest stall {} ms; {} sessions checked at the end, {} lost writes, \
             {} revived, {} false logouts",
            report["requests"],
            report["failed"],
            report["longestStallMs"],
            report["checked"],
            report["lostWrites"],
            report["revived"],
            report["falseLogouts"]
        )?;
        match report["lastFailure"].as_str() {
            Some(last) if report["failed"] != 0 => write!(formatter, "; the last failure: {last}"),
            _ => Ok(()),
        }
    }
}
