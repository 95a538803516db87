//! A node: builds the parts, spawns the tasks, stops them in order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mneme_replica::event::Event;
use mneme_replica::id::Origin;
use mneme_replica::status::Settings;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::driver::{Driver, Ending};
use crate::http::auth::{self, AuthTokens};
use crate::http::workers::Workers;
use crate::http::{Api, ClientService, StatusContext, admin_router, server};
use crate::joining::{follow_discovery, tell_waiting};
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::peers::discovery::dns::Dns;
use crate::peers::discovery::{Discovered, Discovery, Source, last_good};
use crate::peers::handshake::ClusterSecret;
use crate::storage::recovery::{self, RecoverError, Recovered};
use crate::storage::sqlite::{self, Options, SqliteStorage};
use crate::storage::writer::{Queue, Writer};
use crate::storage::{Durability, StorageError, lock};
use crate::{files, wall_clock};

/// Time that links have to end after everything is handed over, and the rest after the grace.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long a client's connection that is idle when the node stops may bring one more request: it is answered with 503
/// where a closed connection would leave the client in doubt.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// Why a node ended, if not as asked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file.
    #[error("the node cannot use its file")]
    Storage(#[from] StorageError),
    /// The configuration does not fit the file.
    #[error("the configuration does not fit the file")]
    Mismatch(#[source] RecoverError),
    /// A port.
    #[error("failed to listen on {address} (--{flag})")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Which port.
        flag: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Threads for connections.
    #[error("failed to start the threads that serve connections")]
    Threads(#[source] std::io::Error),
    /// A file of secrets.
    #[error("failed to use the file of secrets {path}: {reason}")]
    Secrets {
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        reason: String,
    },
    /// DNS.
    #[error("failed to set up DNS: {0}")]
    Dns(String),
    /// Another live process has this node's id.
    #[error("the node has to stop: {0}")]
    Refused(mneme_replica::message::Refusal),
    /// A task ended that never should.
    #[error("a part of the node ended unexpectedly")]
    Died(#[source] Option<JoinError>),
    /// The stop took too long.
    #[error(
        "the stop took longer than the grace: what peers lack of this node's last writes comes when it is back"
    )]
    Grace,
}

/// Sockets of a node, bound before anything else.
pub struct Listeners {
    client: TcpListener,
    peer: TcpListener,
    admin: TcpListener,
}

impl Listeners {
    /// Binds all three.
    ///
    /// # Errors
    ///
    /// [`RunError::Listen`], naming the flag.
    pub async fn bind(config: &Config) -> Result<Self, RunError> {
        let bind = |address: SocketAddr, flag| {
            listen(address).map_err(|source| RunError::Listen { address, flag, source })
        };
        Ok(Self {
            client: bind(config.client_addr, "client-addr")?,
            peer: bind(config.peer_addr, "peer-addr")?,
            admin: bind(config.admin_addr, "admin-addr")?,
        })
    }
}

/// Connections that the system keeps until they are accepted, as far as it is allowed to: the usual 128 are filled by
/// the clients of one proxy that starts anew, and then connections are dropped of which their clients think that they
/// are there.
const QUEUED_CONNECTIONS: u32 = 4_096;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A node that is started again finds connections of the last one that are not forgotten yet.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUED_CONNECTIONS)
}

/// Runs a node until `shutdown` resolves.
///
/// # Errors
///
/// [`RunError`] when it ends otherwise.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let started = Instant::now();
    let secrets = Secrets::read(&config)?;
    let _lock = lock::lock(&config.data_dir)?;
    let sqlite_version = sqlite::library_version().await?;
    sqlite::check_library(&sqlite_version)?;
    // Ports before the file: a node that cannot listen should not touch it.
    let listeners = Listeners::bind(&config).await?;
    let recovered = recover(&config, &listeners).await?;
    let node = Node::build(&config, recovered, secrets, started, sqlite_version)?;
    node.run(&config, listeners, shutdown).await
}

async fn recover(config: &Config, listeners: &Listeners) -> Result<Recovered<SqliteStorage>, RunError> {
    let address = advertised(config, listeners);
    let settings = |origin: Origin| Settings {
        origin,
        cluster: config.cluster.clone(),
        name: config.node_name.clone(),
        address: address.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tables: config.tables.clone(),
        join_timeout_ms: u64::try_from(config.join_timeout.as_millis()).unwrap_or(u64::MAX),
        // The first version has none.
        features: Vec::new(),
    };
    let started = Instant::now();
    let options = Options { durability: config.durability, pages_max: None };
    let recovered =
        recovery::recover(&config.data_dir, &options, wall_clock::sample(), settings, rand::random::<u64>)
            .await
            .map_err(|error| match error {
                RecoverError::Storage(error) => RunError::Storage(error),
                mismatch @ RecoverError::TableKind { .. } => RunError::Mismatch(mismatch),
            })?;
    let live: u64 = recovered.replica.status().tables.iter().map(|table| table.live).sum();
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(records = live, bytes = recovered.stored.bytes, duration_ms, "loaded the file");
    if let Some(path) = &recovered.set_aside {
        tracing::error!(
            path = %path.display(),
            "the damaged file was set aside and a new one begun; its records come back from peers"
        );
    }
    Ok(recovered)
}

/// How peers reach the peer port: as told, or the bound address; of an address that means "any", the port alone, and
/// peers complete it with what they see.
fn advertised(config: &Config, listeners: &Listeners) -> String {
    if let Some(address) = &config.advertise {
        return address.clone();
    }
    let bound = listeners.peer.local_addr().unwrap_or(config.peer_addr);
    if bound.ip().is_unspecified() { format!(":{}", bound.port()) } else { bound.to_string() }
}

/// Sources without this node's own address in the explicit list: a list that names nobody else names no peer, so there
/// is nobody to wait for.
fn without_own(sources: Vec<Source>, own: &str) -> Vec<Source> {
    let others = |source| match source {
        Source::List(addresses) => {
            let others: Vec<String> = addresses.into_iter().filter(|address| address != own).collect();
            (!others.is_empty()).then_some(Source::List(others))
        }
        source => Some(source),
    };
    sources.into_iter().filter_map(others).collect()
}

/// Files of secrets as they were at the start.
struct Secrets {
    tokens: Option<AuthTokens>,
    cluster: ClusterSecret,
}

fn parse_tokens(text: &str) -> Result<AuthTokens, String> {
    AuthTokens::from_text(text).map_err(|error| error.to_string())
}

fn parse_secret(text: &str) -> Result<ClusterSecret, String> {
    let secret = ClusterSecret::from_text(text);
    if secret.is_empty() { Err("there is no line in it".to_owned()) } else { Ok(secret) }
}

impl Secrets {
    fn read(config: &Config) -> Result<Self, RunError> {
        let tokens = config.auth_tokens_file.as_deref().map(|path| read_secrets(path, parse_tokens));
        let cluster = config.cluster_secret_file.as_deref().map(|path| read_secrets(path, parse_secret));
        Ok(Self { tokens: tokens.transpose()?, cluster: cluster.transpose()?.unwrap_or_default() })
    }
}

fn read_secrets<T>(path: &Path, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, RunError> {
    let read = auth::read_file(path).map_err(|error| error.to_string());
    read.and_then(|text| parse(&text)).map_err(|reason| RunError::Secrets { path: path.to_owned(), reason })
}

/// The parts, built and not started.
struct Node {
    driver: Arc<Driver>,
    writer: Writer<SqliteStorage>,
    discovery: Discovery,
    discovered: watch::Receiver<Discovered>,
    peers: Arc<Peers>,
    api: Arc<Api>,
    tokens: watch::Sender<AuthTokens>,
    secret: watch::Sender<ClusterSecret>,
}

impl Node {
    fn build(
        config: &Config,
        recovered: Recovered<SqliteStorage>,
        secrets: Secrets,
        started: Instant,
        sqlite_version: String,
    ) -> Result<Self, RunError> {
        let queue = Queue::default();
        let metrics = Arc::new(Metrics::default());
        let driver = Driver::new(recovered.replica, &config.tables, queue.clone(), metrics);
        let writer = Writer::new(recovered.storage, recovered.stored, queue, driver.clone());

        let has_tokens = secrets.tokens.is_some();
        let tokens = watch::Sender::new(secrets.tokens.unwrap_or_default());
        let secret = watch::Sender::new(secrets.cluster);
        let asks_dns = config.sources.iter().any(|source| matches!(source, Source::Dns(_)));
        let dns = (asks_dns || config.dns_server.is_some()).then(|| Dns::new(config.dns_server)).transpose();
        let dns = dns.map_err(|error| RunError::Dns(error.to_string()))?;
        let names = dns.clone().filter(|_| config.dns_server.is_some());
        let peers = Peers::new(driver.clone(), secret.subscribe(), names);
        let contact = {
            let peers = peers.clone();
            Arc::new(move |address: &str| peers.is_in_contact(address))
        };
        let remembered = last_good::load(&config.data_dir);
        let sources = without_own(config.sources.clone(), &driver.hello().address);
        let discovery = Discovery::new(sources, dns, &remembered, contact);
        let discovered = discovery.subscribe();
        let context = StatusContext {
            name: config.node_name.clone(),
            cluster: config.cluster.clone(),
            started,
            discovered: discovered.clone(),
            peers: peers.clone(),
            durability: Durability::as_str(config.durability),
            sqlite_version,
        };
        let api = Api::new(driver.clone(), context, has_tokens.then(|| tokens.subscribe()));
        Ok(Self { driver, writer, discovery, discovered, peers, api, tokens, secret })
    }

    async fn run(
        self,
        config: &Config,
        listeners: Listeners,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), RunError> {
        let Self { driver, writer, discovery, discovered, peers, api, tokens, secret } = self;
        let workers = Workers::start().map_err(RunError::Threads)?;
        tracing::info!(
            node.id = %driver.origin().node,
            node.name = %config.node_name,
            client = %local(&listeners.client),
            peer = %local(&listeners.peer),
            admin = %local(&listeners.admin),
            "started"
        );
        // Stopped in this order: no new peers; when everything is handed over, clients; the rest; and at last the admin
        // port, so that probes are answered for as long as there is a process.
        let [stop_discovery, stop_clients, stop, stop_admin] = [(); 4].map(|()| CancellationToken::new());
        let mut tasks: JoinSet<Result<(), StorageError>> = JoinSet::new();
        let mut spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            tasks.spawn(async move {
                task.await;
                Ok(())
            });
        };
        let ending = driver.ending();
        spawn(Box::pin(discovery.run(stop_discovery.clone())));
        spawn(Box::pin(last_good::keep(config.data_dir.clone(), discovered.clone(), stop.clone())));
        spawn(Box::pin(follow_discovery(driver.clone(), discovered.clone(), stop.clone())));
        spawn(Box::pin(tell_waiting(driver.clone(), discovered.clone(), stop.clone())));
        spawn(Box::pin(peers.run(listeners.peer, discovered, stop_discovery.clone(), stop.clone())));
        let files = files::allowed();
        let clients_left = {
            let (service, stop, left) =
                (ClientService(api.clone()), stop_clients.clone(), CancellationToken::new());
            let guard = left.clone().drop_guard();
            spawn(Box::pin(async move {
                let places = files::for_clients(files);
                server::serve(listeners.client, service, workers, places, LAST_REQUESTS, stop).await;
                drop(guard);
            }));
            left
        };
        let admin = hyper_util::service::TowerToHyperService::new(admin_router(api.clone()));
        let here = Workers::here();
        let places = files::for_admin(files);
        let serving = server::serve(listeners.admin, admin, here, places, Duration::ZERO, stop_admin.clone());
        spawn(Box::pin(serving));
        {
            let (driver, stop) = (driver.clone(), stop.clone());
            spawn(Box::pin(async move { driver.run_clock(stop).await }));
        }
        for (path, is_tokens) in [(&config.auth_tokens_file, true), (&config.cluster_secret_file, false)] {
            let Some(path) = path.clone() else { continue };
            if is_tokens {
                spawn(Box::pin(auth::follow(path, parse_tokens, tokens.clone(), stop.clone())));
            } else {
                spawn(Box::pin(auth::follow(path, parse_secret, secret.clone(), stop.clone())));
            }
        }
        tasks.spawn(writer.run());

        let ended = watch_over(&mut tasks, ending.clone(), shutdown).await;
        if let Err(error) = ended {
            // The file may be in any state: nothing is handed over that it might not hold.
            stop_discovery.cancel();
            stop_clients.cancel();
            stop.cancel();
            stop_admin.cancel();
            return Err(error);
        }
        tracing::info!("stopping");
        let deadline = tokio::time::Instant::now() + config.shutdown_grace;
        stop_discovery.cancel();
        api.drain();
        driver.step(Event::Drain);
        let drained = tokio::time::timeout_at(deadline, wait_for(ending, Ending::Drained)).await;
        stop_clients.cancel();
        // Goodbyes are on their way, and so are the last answers.
        let unlinked = tokio::time::timeout(FAREWELL, driver.wait_until_unlinked());
        let farewell = deadline.max(tokio::time::Instant::now() + FAREWELL);
        let _ = tokio::join!(unlinked, tokio::time::timeout_at(farewell, clients_left.cancelled()));
        driver.queue().close();
        stop.cancel();
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                ended.map_err(|error| RunError::Died(Some(error)))??;
                if tasks.len() <= 1 {
                    stop_admin.cancel();
                }
            }
            Ok(())
        };
        let finished = tokio::time::timeout_at(farewell + FAREWELL, all).await;
        match (drained, finished) {
            (Ok(()), Ok(done)) => {
                tracing::info!("stopped");
                done
            }
            (_, Ok(Err(error))) => Err(error),
            _ => Err(RunError::Grace),
        }
    }
}

fn local(listener: &TcpListener) -> String {
    listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
}

/// Waits for the signal; fails when a task ends before it, or the replica has to go.
async fn watch_over(
    tasks: &mut JoinSet<Result<(), StorageError>>,
    ending: watch::Receiver<Ending>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let refused = async {
        let mut ending = ending;
        loop {
            if let Ending::Refused(refusal) = &*ending.borrow_and_update() {
                return refusal.clone();
            }
            if ending.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = shutdown => Ok(()),
        refusal = refused => Err(RunError::Refused(refusal)),
        Some(ended) = tasks.join_next() => match ended {
            Ok(Err(error)) => Err(RunError::Storage(error)),
            Ok(Ok(())) => Err(RunError::Died(None)),
            Err(error) => Err(RunError::Died(Some(error))),
        },
    }
}

async fn wait_for(mut ending: watch::Receiver<Ending>, wanted: Ending) {
    // The driver outlives every receiver.
    let _ = ending.wait_for(|ending| *ending == wanted).await;
}
