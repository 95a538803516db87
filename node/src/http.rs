//! The client port and the admin port.
//!
//! [`Api::handle`] is the way of every request: what all have to meet (`door`), then records, touches and batches by
//! hand (axum alone costs a third of a read), the rest by the router in `routes`.

mod admin;
pub mod auth;
mod batch;
mod connection;
mod door;
mod extract;
#[doc(hidden)]
pub mod fuzzing;
pub(crate) mod list;
mod owed;
mod problem;
pub(crate) mod records;
mod request_body;
mod routes;
pub mod server;
mod status;
mod untaken;
pub mod workers;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub use self::admin::router as admin_router;
use self::auth::AuthTokens;
use self::problem::{Answer, Problem};
use self::request_body::RequestBody;
pub use self::status::StatusContext;
use self::untaken::Untaken;
use crate::driver::Driver;
use crate::metrics::Route;

/// An answer of the client port.
pub type ClientAnswer = Response<Either<Full<Bytes>, axum::body::Body>>;

/// Everything the handlers need.
pub struct Api {
    driver: Arc<Driver>,
    context: StatusContext,
    /// `None`: everybody is admitted.
    tokens: Option<watch::Receiver<AuthTokens>>,
    router: Router<Arc<Self>>,
    openapi: String,
    /// Cancelled when the node begins to stop.
    draining: CancellationToken,
    untaken: Untaken,
}

/// What a path under a table names besides the table: `records/{key}` or `touch/{key}`.
struct RecordPath<'a> {
    is_touch: bool,
    table: &'a str,
    key: &'a str,
}

impl<'a> RecordPath<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let (table, rest) = path.strip_prefix("/v1/tables/")?.split_once('/')?;
        let (section, key) = rest.split_once('/')?;
        match section {
            "records" => Some(Self { is_touch: false, table, key }),
            "touch" => Some(Self { is_touch: true, table, key }),
            _ => None,
        }
    }
}

impl Api {
    /// The ports of a node.
    pub fn new(
        driver: Arc<Driver>,
        context: StatusContext,
        tokens: Option<watch::Receiver<AuthTokens>>,
    ) -> Arc<Self> {
        let (router, openapi) = routes::router();
        let draining = CancellationToken::new();
        let untaken = Untaken::default();
        Arc::new(Self { driver, context, tokens, router, openapi, draining, untaken })
    }

    /// Whether `/readyz` answers 200.
    pub fn is_ready(&self) -> bool {
        self.driver.is_ready()
    }

    /// Tells every answer from now on that the node is stopping.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Answers one request of the client port.
    pub async fn handle<B>(self: Arc<Self>, request: Request<B>) -> ClientAnswer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
    {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let route = route(&parts.method, parts.uri.path());
        let mut body = RequestBody::new(&parts.headers, body);
        let answer = self.clone().answer(&parts, &mut body).await;
        let answer = self.untaken.count(&parts.method, answer).await;
        let is_last = !body.finish().await || self.draining.is_cancelled();
        self.driver.metrics().request(route, answer.status(), started.elapsed());
        completed(answer, &parts, is_last)
    }

    async fn answer<B>(self: Arc<Self>, parts: &Parts, body: &mut RequestBody<B>) -> ClientAnswer
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let admitted = match &self.tokens {
            None => door::check(parts, None),
            Some(tokens) => door::check(parts, Some(&tokens.borrow())),
        };
        let by_hand = match admitted {
            Err(problem) => Some(Err(problem)),
            Ok(()) => self.by_hand(parts, body).await,
        };
        match by_hand {
            Some(answer) => answer.unwrap_or_else(Problem::answer).map(Either::Left),
            None => self.routed(parts.clone()).await,
        }
    }

    /// Requests whose body is read, and reads of records: without the router.
    async fn by_hand<B>(&self, parts: &Parts, body: &mut RequestBody<B>) -> Option<Result<Answer, Problem>>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let path = parts.uri.path();
        if let Some(table) = batch_path(path).filter(|_| parts.method == Method::POST) {
            return Some(self.batch(table, parts, body).await);
        }
        Some(match RecordPath::of(path)? {
            RecordPath { is_touch: false, table, key } => self.record(table, key, parts, body).await,
            RecordPath { is_touch: true, table, key } if parts.method == Method::POST => {
                self.touch_record(table, key, parts).await
            }
            _ => Err(Problem::method_not_allowed("POST")),
        })
    }

    async fn routed(self: Arc<Self>, parts: Parts) -> ClientAnswer {
        let router = self.router.clone().with_state::<()>(self);
        match router.oneshot(Request::from_parts(parts, axum::body::Body::empty())).await {
            Ok(answer) => answer.map(Either::Right),
            Err(never) => match never {},
        }
    }

    /// The same for the routes that are described and dispatched by hand.
    async fn described(&self, request: Request<axum::body::Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let mut body = RequestBody::new(&parts.headers, body);
        let answer = self.by_hand(&parts, &mut body).await.unwrap_or_else(|| Err(Problem::route_unknown()));
        answer.unwrap_or_else(Problem::answer)
    }
}

/// An answer as it leaves: to HEAD without its body, and on a connection that ends with it with a word about that.
fn completed(answer: ClientAnswer, parts: &Parts, is_last: bool) -> ClientAnswer {
    let mut answer = answer;
    if parts.method == Method::HEAD {
        // HTTP/1 would leave the body out by itself; in HTTP/2 a body would be an error of the protocol.
        let bytes = http_body::Body::size_hint(answer.body()).exact();
        *answer.body_mut() = Either::Left(Full::default());
        if let Some(bytes) = bytes.filter(|_| !answer.headers().contains_key(CONTENT_LENGTH)) {
            answer.headers_mut().insert(CONTENT_LENGTH, bytes.into());
        }
    }
    if is_last && parts.version <= Version::HTTP_11 {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// The table in the path of a batch.
fn batch_path(path: &str) -> Option<&str> {
    let table = path.strip_prefix("/v1/tables/")?.strip_suffix("/batch")?;
    (!table.contains('/')).then_some(table)
}

/// The route of a request, for the metrics.
fn route(method: &Method, path: &str) -> Route {
    match RecordPath::of(path) {
        Some(RecordPath { is_touch: true, .. }) => Route::Touch,
        Some(_) => match *method {
            Method::PUT => Route::Put,
            Method::DELETE => Route::Delete,
            _ => Route::Get,
        },
        None if path == "/v1/status" => Route::Status,
        None if path.ends_with("/batch") => Route::Batch,
        None if path.ends_with("/records") && *method == Method::DELETE => Route::DeleteMatching,
        None if path.ends_with("/records") => Route::List,
        None => Route::Other,
    }
}

/// The client port as a service of hyper.
#[derive(Clone)]
pub struct ClientService(pub Arc<Api>);

impl hyper::service::Service<Request<Incoming>> for ClientService {
    type Response = ClientAnswer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<ClientAnswer, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let api = self.0.clone();
        Box::pin(async move { Ok(api.handle(request).await) })
    }
}
