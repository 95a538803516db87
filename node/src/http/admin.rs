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
async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(api): State<Arc<Api>>) -> impl IntoResponse {
    if api.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, FORMAT)], api.driver.metrics().encode(&api.driver))
}

/// The status as on the client port, for whoever watches nodes without being a client of theirs.
async fn status(State(api): State<Arc<Api>>) -> Answer {
    api.status()
}

async fn openapi(State(api): State<Arc<Api>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], api.openapi.clone())
}
