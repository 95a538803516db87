//! The operator: builds the parts, spawns the tasks, stops them in order.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::client::ClientBuilder;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tower::util::MapRequestLayer;

use crate::config::Config;
use crate::controller::events::Events;
use crate::controller::{self, Scope};
use crate::health::{self, Health};
use crate::leader::{Claim, Leader, LeaderError};
use crate::metrics::Metrics;
use crate::nodes::HttpAsk;
use crate::peers::Resolver;
use crate::peers::dns::Dns;
use crate::reconcile::{Context, SecretMemory};
use crate::writer::Writer;

/// Time that passes under way have to end; a write takes seconds at most, and the Lease is kept meanwhile.
const STOP_MAX: Duration = Duration::from_secs(8);

/// Why the operator ended, if not as asked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No access to the cluster.
    #[error("failed to find the API server: run in a pod, or with a kubeconfig")]
    Configure(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A port.
    #[error("failed to listen on {address} (--admin-addr)")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// DNS.
    #[error("failed to set up DNS")]
    Dns(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The Lease.
    #[error("this operator may act no more")]
    Leader(#[from] LeaderError),
    /// A task ended that never should.
    #[error("a part of the operator ended unexpectedly")]
    Died(#[source] Option<JoinError>),
}

/// Waits for SIGTERM or SIGINT.
pub async fn asked_to_stop() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the process by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// A client of the API server whose requests are counted.
async fn client(metrics: &Arc<Metrics>) -> Result<Client, RunError> {
    // One provider of TLS in the process; a second installation says that the first is there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = kube::Config::infer().await.map_err(|error| RunError::Configure(Box::new(error)))?;
    let metrics = metrics.clone();
    let counted = MapRequestLayer::new(move |request: http::Request<_>| {
        metrics.request(request.method());
        request
    });
    let builder = ClientBuilder::try_from(config).map_err(|error| RunError::Configure(Box::new(error)))?;
    Ok(builder.with_layer(&counted).build())
}

/// Runs the operator until `shutdown` resolves.
///
/// # Errors
///
/// [`RunError`] when it ends otherwise.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::default());
    let client = client(&metrics).await?;
    let address = config.admin_addr;
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    let dns = Dns::new().map_err(|error| RunError::Dns(Box::new(error)))?;

    let leader = Leader::new(client.clone(), &config.lease_namespace, &config.identity);
    let claim = leader.claim();
    let health = Health::new(leader.progress(), metrics.clone());
    let context = Arc::new(Context {
        writer: Writer::new(client.clone(), claim.clone()),
        defaults: config.defaults.clone(),
        ask: Arc::new(HttpAsk::default()),
        resolver: Resolver::new(Box::new(dns)),
        secrets: SecretMemory::default(),
        events: Events::new(client.clone(), leader.identity(), metrics.clone()),
        metrics: metrics.clone(),
    });
    tracing::info!(admin = %address, identity = %leader.identity(), namespaces = ?config.namespaces, "started");

    // Stopped in this order: passes, while the Lease is held; then the Lease is given back, and probes end last.
    let (stop_passes, stop) = (CancellationToken::new(), CancellationToken::new());
    let mut passes: JoinSet<()> = JoinSet::new();
    let mut rest: JoinSet<Result<(), RunError>> = JoinSet::new();
    passes.spawn(lead(client, config.namespaces, context, claim, health.clone(), stop_passes.clone()));
    {
        let stop = stop.clone();
        rest.spawn(async move { leader.run(stop).await.map_err(RunError::from) });
    }
    {
        let stop = stop.clone();
        rest.spawn(async move {
            let served =
                axum::serve(listener, health.router()).with_graceful_shutdown(stop.cancelled_owned());
            served.await.map_err(|source| RunError::Listen { address, source })
        });
    }
    let ended = tokio::select! {
        () = shutdown => Ok(()),
        ended = passes.join_next() => Err(RunError::Died(ended.and_then(Result::err))),
        Some(ended) = rest.join_next() => match ended {
            Ok(Ok(())) => Err(RunError::Died(None)),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(RunError::Died(Some(error))),
        },
    };
    tracing::info!("stopping");
    stop_passes.cancel();
    if ended.is_ok() {
        let _ = tokio::time::timeout(STOP_MAX, async { while passes.join_next().await.is_some() {} }).await;
    }
    // What is still under way must not go on when another operator begins.
    passes.shutdown().await;
    stop.cancel();
    let _ = tokio::time::timeout(STOP_MAX, async { while rest.join_next().await.is_some() {} }).await;
    tracing::info!("stopped");
    ended
}

/// Waits for the Lease, then watches and reconciles until `stop`.
async fn lead(
    client: Client,
    namespaces: Vec<String>,
    context: Arc<Context>,
    mut claim: Claim,
    health: Arc<Health>,
    stop: CancellationToken,
) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = claim.wait() => {}
    }
    context.metrics.leads(true);
    let scopes: Vec<Option<String>> =
        if namespaces.is_empty() { vec![None] } else { namespaces.into_iter().map(Some).collect() };
    let mut tasks: JoinSet<()> = JoinSet::new();
    for namespace in scopes {
        let scope = Scope::new(&client, namespace.as_deref());
        let name = scope.namespace().unwrap_or("all namespaces").to_owned();
        let api = controller::api(&client, scope.namespace());
        tasks.spawn(health::follow(health.clone(), name, api, scope.store(), stop.clone()));
        tasks.spawn(scope.run(context.clone(), stop.clone()));
    }
    // The first that ends before it was asked to ends all, and with them the process.
    tasks.join_next().await;
    if stop.is_cancelled() {
        while tasks.join_next().await.is_some() {}
    }
    context.metrics.leads(false);
}
