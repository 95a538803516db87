//! The admin port: probes, metrics, the status, the description of the client port. No tokens, and no key or value is
//! shown.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use super::Api;
use super::problem::{Answer, Problem};

/// The routes of the admin port.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/openapi.json", get(openapi))
        .fallback(async || Problem::route_unknown().answer())
        .method_not_allowed_fallback(async || Problem::method_not_allowed("GET, HEAD").answer())
        .with_state(api)
}

/// Alive as long as it answers: never depends on peers.
#[utoipa::path(get, path = "/livez", tag = "admin", responses((status = 200, description = "The process runs", content_type = "text/plain")))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Whether every write that live peers acknowledged is in, and the node is not stopping.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "admin",
    responses(
        (status = 200, description = "Ready for traffic", content_type = "text/plain"),
        (status = 503, description = "Not ready, or stopping", content_type = "text/plain"),
    )
)]
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> impl IntoResponse {
    if api.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

/// Metrics as OpenMetrics text.
#[utoipa::path(get, path = "/metrics", tag = "admin", responses((status = 200, description = "OpenMetrics text", content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, FORMAT)], api.driver.metrics().encode(&api.driver))
}

/// The status as on the client port, for whoever watches nodes without being a client of theirs.
async fn status(State(api): State<Arc<Api>>) -> Answer {
    api.status()
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "admin", responses((status = 200, description = "OpenAPI", content_type = "application/json")))]
pub(super) async fn openapi(State(api): State<Arc<Api>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], api.openapi.clone())
}
