//! A small web application that keeps its sign-in sessions in Mneme.
//!
//! The cookie holds the user's name and a random session id; the session is a record under `user/{name}/{id}`, so that
//! "sign out everywhere" is one delete by match. Run one copy beside each node, behind a load balancer without sticky
//! sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::{Form, State};
use axum::http::header::{COOKIE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use clap::Parser;
use mneme_api::client::{Client, ClientError, PutOptions, Read, Stored};
use mneme_api::{Key, TableName};
use serde::Deserialize;

/// A session lives this long without being used.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// A session ends after this long, used or not.
const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);
/// Bytes of a user's name, at most.
const NAME_BYTES_MAX: usize = 32;

/// Sign in, who am I, sign out, sign out everywhere.
#[derive(Debug, Parser)]
struct Flags {
    /// Where browsers, or the load balancer, connect.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The node beside this copy.
    #[arg(long, default_value = "http://127.0.0.1:7070")]
    mneme: String,
    /// Token for the node, if it wants one.
    #[arg(long, env = "MNEME_TOKEN")]
    token: Option<String>,
}

/// A read that takes longer finds another copy sooner through the load balancer. Beyond one second, which a node may
/// need to notice that the peer it wants to hear from is gone.
const READ_TIMEOUT: Duration = Duration::from_millis(1_500);
/// A write may stall for two seconds when a node dies.
const WRITE_TIMEOUT: Duration = Duration::from_secs(4);

struct App {
    reader: Client,
    writer: Client,
    table: TableName,
}

/// A session as the cookie names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    user: String,
    id: String,
}

impl Session {
    fn new(user: &str) -> Self {
        Self { user: user.to_owned(), id: format!("{:032x}", rand::random::<u128>()) }
    }

    fn from_cookie(headers: &HeaderMap) -> Option<Self> {
        let cookies = headers.get(COOKIE)?.to_str().ok()?;
        let value = cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix("session="))?;
        let (user, id) = value.split_once('.')?;
        let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_name(user) && is_id).then(|| Self { user: user.to_owned(), id: id.to_owned() })
    }

    fn key(&self) -> Option<Key> {
        Key::from_segments(["user", &self.user, &self.id]).ok()
    }
}

/// Names that need no escaping in a cookie or a pattern.
fn is_name(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(is_word)
}

/// The node did not answer as it should: another copy may do better, so the load balancer is told 503.
struct Failure(ClientError);

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", self.0)).into_response()
    }
}

fn redirect(cookie: &str) -> Response {
    let headers = [(LOCATION, "/".to_owned()), (SET_COOKIE, cookie.to_owned())];
    (StatusCode::SEE_OTHER, headers).into_response()
}

const NO_COOKIE: &str = "session=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0";

impl App {
    /// The session of a request, if it is signed in; reading it moves its deadline.
    async fn session(&self, headers: &HeaderMap) -> Result<Option<Session>, Failure> {
        let Some(session) = Session::from_cookie(headers) else { return Ok(None) };
        let Some(key) = session.key() else { return Ok(None) };
        let read = self.reader.get(&self.table, &key, Some(IDLE)).await?;
        Ok(matches!(read, Read::Found(_)).then_some(session))
    }
}

async fn page(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Failure> {
    let body = match app.session(&headers).await? {
        Some(session) => format!(
            "<p>Signed in as {}.</p><form method=post action=/sign-out><button>Sign out</button></form>\
             <form method=post action=/sign-out-everywhere><button>Sign out everywhere</button></form>",
            session.user
        ),
        None => {
            "<form method=post action=/sign-in><input name=user placeholder=name pattern='[-a-z0-9]{1,32}'>\
                 <button>Sign in</button></form>"
                .to_owned()
        }
    };
    Ok(Html(format!("<!doctype html><title>Mneme example</title>{body}")).into_response())
}

async fn who_am_i(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Failure> {
    Ok(match app.session(&headers).await? {
        Some(session) => session.user.into_response(),
        None => (StatusCode::UNAUTHORIZED, "not signed in\n").into_response(),
    })
}

#[derive(Deserialize)]
struct SignIn {
    user: String,
}

async fn sign_in(State(app): State<Arc<App>>, Form(form): Form<SignIn>) -> Result<Response, Failure> {
    if !is_name(&form.user) {
        return Ok((StatusCode::BAD_REQUEST, "a name is 1 to 32 of a-z, 0-9 and -\n").into_response());
    }
    let session = Session::new(&form.user);
    let Some(key) = session.key() else { return Ok(StatusCode::BAD_REQUEST.into_response()) };
    let options = PutOptions {
        ttl: Some(IDLE),
        max_age: Some(LONGEST),
        content_type: Some("text/plain".to_owned()),
        only_new: true,
        ..PutOptions::default()
    };
    match app.writer.put(&app.table, &key, form.user.into_bytes(), &options).await? {
        Stored::Created(_) => {
            let Session { user, id } = session;
            Ok(redirect(&format!("session={user}.{id}; Path=/; HttpOnly; SameSite=Lax")))
        }
        // Of 2^128 ids this one was taken.
        Stored::Replaced(_) | Stored::Deleted | Stored::ConditionFailed => {
            Ok(StatusCode::SERVICE_UNAVAILABLE.into_response())
        }
    }
}

async fn sign_out(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Failure> {
    if let Some(key) = Session::from_cookie(&headers).and_then(|session| session.key()) {
        app.writer.delete(&app.table, &key).await?;
    }
    Ok(redirect(NO_COOKIE))
}

async fn sign_out_everywhere(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Failure> {
    // Only who is signed in may sign out the others.
    if let Some(session) = app.session(&headers).await? {
        app.writer.delete_matching(&app.table, &format!("user/{}/**", session.user)).await?;
    }
    Ok(redirect(NO_COOKIE))
}

/// For the load balancer: whether the node beside this copy answers.
async fn health(State(app): State<Arc<App>>) -> Result<&'static str, Failure> {
    if let Ok(key) = Key::from_segments(["healthz"]) {
        app.reader.get(&app.table, &key, None).await?;
    }
    Ok("ok\n")
}

fn router(app: App) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/who-am-i", get(who_am_i))
        .route("/sign-in", post(sign_in))
        .route("/sign-out", post(sign_out))
        .route("/sign-out-everywhere", post(sign_out_everywhere))
        .route("/healthz", get(health))
        .with_state(Arc::new(app))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let client = Client::new(&flags.mneme)?;
    let client = match &flags.token {
        Some(token) => client.with_token(token)?,
        None => client,
    };
    let (reader, writer) = (client.clone().with_timeout(READ_TIMEOUT), client.with_timeout(WRITE_TIMEOUT));
    let app = App { reader, writer, table: "sessions".parse()? };
    let listener = tokio::net::TcpListener::bind(flags.listen)
        .await
        .with_context(|| format!("failed to listen on {}", flags.listen))?;
    println!("listening on http://{}", flags.listen);
    axum::serve(listener, router(app)).await.context("failed to serve")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(COOKIE, value.parse().expect("a header"))])
    }

    #[test]
    fn a_session_comes_back_from_its_cookie() {
        let session = Session::new("ada");
        let headers = cookie(&format!("theme=dark; session={}.{}", session.user, session.id));
        assert_eq!(Session::from_cookie(&headers), Some(session));
    }

    #[test]
    fn a_cookie_that_is_none_of_ours_is_nobody() {
        let id = "0".repeat(32);
        for value in
            ["session=ada", "session=ada.1", &format!("session=a/b.{id}"), &format!("session=.{id}"), "x=y"]
        {
            assert_eq!(Session::from_cookie(&cookie(value)), None, "{value}");
        }
    }
}
