//! Asks the nodes how they are: `GET /v1/status` on the admin port, which needs no token and shows no key.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mneme_api::StatusBody;
use tokio::task::JoinSet;

use crate::telemetry::chain;

/// Port of probes, metrics and status.
pub const ADMIN_PORT: u16 = 7072;
/// A node that does not answer by then is unknown.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Bytes of an answer, at most: hundreds of members and tables.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What a node says, or why it does not.
pub type NodeAnswer = Result<StatusBody, String>;

/// How nodes are asked.
pub trait Ask: Send + Sync {
    /// Asks one node.
    fn ask(&self, address: IpAddr) -> Pin<Box<dyn Future<Output = NodeAnswer> + Send + '_>>;
}

/// Asks over HTTP.
pub struct HttpAsk {
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Default for HttpAsk {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(ANSWER_MAX));
        // Addresses of pods are used again by others: no connection outlives a question by much.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { client }
    }
}

impl HttpAsk {
    async fn get(&self, address: IpAddr) -> NodeAnswer {
        let uri = format!("http://{}/v1/status", SocketAddr::new(address, ADMIN_PORT));
        let uri = uri.parse().map_err(|_| format!("{address} makes no address"))?;
        let response = self.client.get(uri).await.map_err(|error| chain(&error))?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("the admin port answered with status {}", response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("failed to read the answer: {error}"))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| format!("failed to understand the answer: {error}"))
    }
}

impl Ask for HttpAsk {
    fn ask(&self, address: IpAddr) -> Pin<Box<dyn Future<Output = NodeAnswer> + Send + '_>> {
        Box::pin(async move {
            match tokio::time::timeout(ANSWER_MAX, self.get(address)).await {
                Ok(answer) => answer,
                Err(_) => Err("no answer in time".to_owned()),
            }
        })
    }
}

/// Asks all at once; a pod has a name and an address.
pub async fn ask_all(ask: &Arc<dyn Ask>, pods: Vec<(String, IpAddr)>) -> BTreeMap<String, NodeAnswer> {
    let mut tasks = JoinSet::new();
    for (name, address) in pods {
        let ask = ask.clone();
        tasks.spawn(async move { (name, ask.ask(address).await) });
    }
    tasks.join_all().await.into_iter().collect()
}
