//! The client port and the admin port.
//!
//! [`Api::handle`] is the way of every request: token, then records and touches by hand (axum alone costs a third of
//! a read), the rest by the router in `routes`.

mod admin;
pub mod auth;
mod batch;
mod extract;
pub(crate) mod list;
mod problem;
mod records;
mod routes;
pub mod server;
mod status;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio::sync::watch;
use tower::ServiceExt;

pub use self::admin::router as admin_router;
use self::auth::AuthTokens;
use self::problem::{Answer, Problem, ProblemKind};
pub use self::status::StatusContext;
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
        Arc::new(Self { driver, context, tokens, router, openapi })
    }

    /// Whether `/readyz` answers 200.
    pub fn is_ready(&self) -> bool {
        self.driver.is_ready()
    }

    /// Answers one request of the client port.
    pub async fn handle<B>(self: Arc<Self>, request: Request<B>) -> ClientAnswer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let started = Instant::now();
        let route = route(request.method(), request.uri().path());
        let is_admitted = self.tokens.as_ref().is_none_or(|tokens| tokens.borrow().admit(request.headers()));
        let answer = if header_bytes(&request) > HEADER_BYTES_MAX {
            let detail = format!("at most {HEADER_BYTES_MAX} bytes of path and headers are taken");
            Problem::new(ProblemKind::HeadersTooLarge, detail).answer().map(Either::Left)
        } else if !is_admitted {
            Problem::unauthorized().answer().map(Either::Left)
        } else if RecordPath::of(request.uri().path()).is_some() {
            self.on_record(request).await.map(Either::Left)
        } else {
            self.clone().routed(request).await
        };
        self.driver.metrics().request(route, answer.status(), started.elapsed());
        answer
    }

    async fn routed<B>(self: Arc<Self>, request: Request<B>) -> ClientAnswer
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let router = self.router.clone().with_state::<()>(self);
        match router.oneshot(request.map(axum::body::Body::new)).await {
            Ok(answer) => answer.map(Either::Right),
            Err(never) => match never {},
        }
    }

    /// A request for one record.
    async fn on_record<B>(&self, request: Request<B>) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let (parts, body) = request.into_parts();
        let answer = match RecordPath::of(parts.uri.path()) {
            Some(RecordPath { is_touch: false, table, key }) => self.record(table, key, &parts, body).await,
            Some(RecordPath { is_touch: true, table, key }) if parts.method == Method::POST => {
                self.touch_record(table, key, &parts).await
            }
            Some(_) => Err(Problem::method_not_allowed("POST")),
            None => Err(Problem::route_unknown()),
        };
        answer.unwrap_or_else(Problem::answer)
    }
}

/// Bytes of path and headers of a request, at most (431). The connection's buffer is larger, so that the answer can be
/// given before the connection is closed.
const HEADER_BYTES_MAX: usize = 16 << 10;

fn header_bytes<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let target_bytes = uri.path().len() + uri.query().map_or(0, str::len);
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    target_bytes + headers.sum::<usize>()
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
