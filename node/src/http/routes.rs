//! The routes of the client port, with their description: the table of contents.
//!
//! Handlers are thin: they take the request apart and call what the hot path calls too.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use mneme_api::{BatchAnswer, BatchRequest, DeletedAnswer, ListAnswer, Problem, StatusBody};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::problem::{self, Answer};

#[derive(OpenApi)]
#[openapi(
    paths(super::admin::livez, super::admin::readyz, super::admin::metrics, super::admin::openapi),
    info(title = "Mneme", description = "A replicated session cache."),
    components(schemas(mneme_api::Problem)),
    tags((name = "records"), (name = "table"), (name = "node"),
        (name = "admin", description = "On the admin port alone, without a token"))
)]
struct Description;

/// The router, and the description of it as JSON.
pub(super) fn router() -> (Router<Arc<Api>>, String) {
    let (router, mut description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(get_record, head_record, put_record, delete_record))
        .routes(routes!(touch_record))
        .routes(routes!(list_records, delete_matching))
        .routes(routes!(batch))
        .routes(routes!(status))
        .split_for_parts();
    let router = router
        .fallback(async || problem::Problem::route_unknown().answer())
        .method_not_allowed_fallback(not_allowed);
    // What the router calls a tail, OpenAPI has no word for.
    let paths = std::mem::take(&mut description.paths.paths);
    description.paths.paths =
        paths.into_iter().map(|(path, item)| (path.replace("{*key}", "{key}"), item)).collect();
    let description = description.to_pretty_json().unwrap_or_default();
    (router, description)
}

async fn not_allowed(request: Request) -> Answer {
    let path = request.uri().path();
    problem::Problem::method_not_allowed(match path.rsplit('/').next() {
        Some("records") => "GET, HEAD, DELETE",
        Some("batch") => "POST",
        _ => "GET, HEAD",
    })
    .answer()
}

/// Reads a record.
#[utoipa::path(
    get,
    path = "/v1/tables/{table}/records/{*key}",
    tag = "records",
    params(
        ("table" = String, Path, description = "Name of a declared table"),
        ("key" = String, Path, description = "1 to 16 segments split at `/`, each percent-encoded"),
        ("touch" = Option<String>, Query, description = "Also move the idle deadline to so much from now, if that is later; not waited for"),
        ("Mneme-Min-Version" = Option<String>, Header, description = "Wait up to 50 ms for this version"),
        ("If-None-Match" = Option<String>, Header, description = "ETags that the client has, or `*`"),
        ("If-Match" = Option<String>, Header, description = "Only when this version is stored; `*`: any"),
    ),
    responses(
        (status = 304, description = "The client has this version"),
        (status = 412, description = "The condition does not hold", body = Problem, content_type = "application/problem+json"),
        (status = 200, description = "Done", content_type = "application/octet-stream", headers(("ETag" = String, description = "The version"), ("Mneme-Ttl-Ms" = u64, description = "Milliseconds until it expires"))),
        (status = 400, description = "The request is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "A valid token is needed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The table is unknown, or nothing is stored under the key", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The key was deleted, for good", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The node does not serve for now", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn get_record(State(api): State<Arc<Api>>, request: Request) -> Answer {
    api.described(request).await
}

/// Reads a record without its value.
#[utoipa::path(
    head,
    path = "/v1/tables/{table}/records/{*key}",
    tag = "records",
    params(
        ("table" = String, Path, description = "Name of a declared table"),
        ("key" = String, Path, description = "1 to 16 segments split at `/`, each percent-encoded"),
        ("touch" = Option<String>, Query, description = "As for GET"),
    ),
    responses(
        (status = 200, description = "Done"),
        (status = 400, description = "The request is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "A valid token is needed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The table is unknown, or nothing is stored under the key", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The key was deleted, for good", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The node does not serve for now", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn head_record(State(api): State<Arc<Api>>, request: Request) -> Answer {
    api.described(request).await
}

/// Stores a value.
#[utoipa::path(
    put,
    path = "/v1/tables/{table}/records/{*key}",
    tag = "records",
    params(
        ("table" = String, Path, description = "Name of a declared table"),
        ("key" = String, Path, description = "1 to 16 segments split at `/`, each percent-encoded"),
        ("ttl" = Option<String>, Query, description = "Idle time to live, such as `30m`; default the table's"),
        ("max_age" = Option<String>, Query, description = "Longest life; only a creation uses it; default the table's"),
        ("ack" = Option<String>, Query, description = "`all` (default): applied by every live member, durable on most of them; `local`: durable here"),
        ("timeout" = Option<String>, Query, description = "How long the write waits, such as `5s` (default)"),
        ("If-Match" = Option<String>, Header, description = "Only when this version is stored; `*`: any"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only when nothing is stored"),
    ),
    request_body(content = String, content_type = "application/octet-stream", description = "The value"),
    responses(
        (status = 201, description = "Created"),
        (status = 204, description = "Done"),
        (status = 400, description = "The request is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "A valid token is needed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The table is unknown, or nothing is stored under the key", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The key was deleted, for good", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The condition does not hold", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The node does not serve for now", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "The write may have been applied", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The table or the volume is full", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn put_record(State(api): State<Arc<Api>>, request: Request) -> Answer {
    api.described(request).await
}

/// Deletes a record, there or not.
#[utoipa::path(
    delete,
    path = "/v1/tables/{table}/records/{*key}",
    tag = "records",
    params(
        ("table" = String, Path, description = "Name of a declared table"),
        ("key" = String, Path, description = "1 to 16 segments split at `/`, each percent-encoded"),
        ("ack" = Option<String>, Query, description = "`all` (default): applied by every live member, durable on most of them; `local`: durable here"),
        ("timeout" = Option<String>, Query, description = "How long the write waits, such as `5s` (default)"),
        ("If-Match" = Option<String>, Header, description = "Only when this version is stored; `*`: any"),
    ),
    responses(
        (status = 204, description = "Done"),
        (status = 400, description = "The request is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "A valid token is needed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The table is unknown, or nothing is stored under the key", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The condition does not hold", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The node does not serve for now", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "The write may have been applied", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The table or the volume is full", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn delete_record(State(api): State<Arc<Api>>, request: Request) -> Answer {
    api.described(request).await
}

/// Moves a record's idle deadline.
#[utoipa::path(
    post,
    path = "/v1/tables/{table}/touch/{*key}",
    tag = "records",
    params(
        ("table" = String, Path, description = "Name of a declared table"),
        ("key" = String, Path, description = "1 to 16 segments split at `/`, each percent-encoded"),
        ("ttl" = Option<String>, Query, description = "Idle time to live from now; default the table's"),
        ("exact" = Option<String>, Query, description = "`true`: set the deadline, even earlier"),
        ("ack" = Option<String>, Query, description = "`all` (default): applied by every live member, durable on most of them; `local`: durable here"),
        ("timeout" = Option<String>, Query, description = "How long the write waits, such as `5s` (default)"),
    ),
    responses(
        (status = 204, description = "Done"),
        (status = 400, description = "The request is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "A valid token is needed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The table is unknown, or nothing is stored under the key", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The key was deleted, for good", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The node does not serve for now", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "The write may have been applied", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The table or the volume is full", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn touch_record(State(api): State<Arc<Api>>, request: Request) -> Answer {
    api.described(request).await
}

/// Lists records in key order.
#[utoipa::path(
    get,
    path = "/v1/tables/{table}/records",
    tag = "table",
    params(
        ("table" = String, Path, description = "Name of a declared table"),
        ("match" = Option<String>, Query, description = "A pattern: `*` is one segment, `**` at the end one or more; default all"),
        ("limit" = Option<String>, Query, description = "Records in the page, 1 to 1000; default 100"),
        ("cursor" = Option<String>, Query, description = "Cursor of the page before"),
        ("values" = Option<String>, Query, description = "`true`: with values"),
    ),
    responses(
        (status = 200, description = "Done", body = ListAnswer),
        (status = 400, description = "The request is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "A valid token is needed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The table is unknown, or nothing is stored under the key", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The node does not serve for now", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn list_records(State(api): State<Arc<Api>>, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    answer(api.list(table_of(parts.uri.path()), &parts).await)
}

/// Deletes what matches and is held now: sign out everywhere.
#[utoipa::path(
    delete,
    path = "/v1/tables/{table}/records",
    tag = "table",
    params(
        ("table" = String, Path, description = "Name of a declared table"),
        ("match" = Option<String>, Query, description = "A pattern; required"),
        ("ack" = Option<String>, Query, description = "`all` (default): applied by every live member, durable on most of them; `local`: durable here"),
        ("timeout" = Option<String>, Query, description = "How long the write waits, such as `5s` (default)"),
    ),
    responses(
        (status = 200, description = "Done", body = DeletedAnswer),
        (status = 400, description = "The request is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "A valid token is needed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The table is unknown, or nothing is stored under the key", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The node does not serve for now", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "The write may have been applied", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The table or the volume is full", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn delete_matching(State(api): State<Arc<Api>>, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    answer(api.delete_matching(table_of(parts.uri.path()), &parts).await)
}

/// Runs operations as one: reads see the state before, all writes are applied or none. Values that are read may have 8
/// MiB in all; beyond that the whole is 413, and nothing is applied: ask for fewer at a time.
#[utoipa::path(
    post,
    path = "/v1/tables/{table}/batch",
    tag = "table",
    params(
        ("table" = String, Path, description = "Name of a declared table"),
        ("ack" = Option<String>, Query, description = "`all` (default): applied by every live member, durable on most of them; `local`: durable here"),
        ("timeout" = Option<String>, Query, description = "How long the write waits, such as `5s` (default)"),
    ),
    request_body(content = BatchRequest),
    responses(
        (status = 200, description = "Done", body = BatchAnswer),
        (status = 400, description = "The request is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "A valid token is needed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The table is unknown, or nothing is stored under the key", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The condition does not hold", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body, or the answer, is too large", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The node does not serve for now", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "The write may have been applied", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The table or the volume is full", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn batch(State(api): State<Arc<Api>>, request: Request) -> Answer {
    api.described(request).await
}

/// This node, its members, tables, sources and file. Also on the admin port, without a token.
#[utoipa::path(
    get,
    path = "/v1/status",
    tag = "node",
    responses(
        (status = 200, description = "Done", body = StatusBody),
        (status = 400, description = "The request is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "A valid token is needed", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn status(State(api): State<Arc<Api>>, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    answer(super::extract::query(parts.uri.query(), &[]).map(|_| api.status()))
}

fn answer(answer: Result<Answer, problem::Problem>) -> Answer {
    answer.unwrap_or_else(problem::Problem::answer)
}

/// Name of the table in a path that the router has matched.
fn table_of(path: &str) -> &str {
    path.split('/').nth(3).unwrap_or_default()
}
