//! An API server in memory, for tests: stores objects as the real one does as far as the operator can tell, plays the
//! controllers that make pods, and can die at any call.

mod cluster;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

pub(crate) use self::cluster::{BAD_IMAGE, FakeNodes};

/// Where in a call the server dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// Before anything is done.
    Before,
    /// After it is done; nobody hears of it.
    After,
}

/// Which calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// All.
    All,
    /// Those that write.
    Writes,
}

/// An object with what was applied last.
#[derive(Clone, Debug)]
struct Stored {
    object: Value,
    applied: Value,
}

#[derive(Clone, Default)]
struct State {
    /// By collection (`apis/apps/v1/namespaces/shop/statefulsets`) and name.
    objects: BTreeMap<(String, String), Stored>,
    version: u64,
    calls: Vec<String>,
    /// The call at which it dies, counted from one, whether reads count, and how many came since.
    death: Option<(usize, Death, Calls)>,
    counted: usize,
    is_dead: bool,
    /// Verb and collection whose calls are refused, with the status.
    refusals: Vec<(Method, &'static str, u16, &'static str)>,
}

/// The server.
#[derive(Clone, Default)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
}

/// What a path names.
struct Target {
    collection: String,
    name: Option<String>,
    is_status: bool,
}

fn target(path: &str) -> Target {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    // api/v1/namespaces/NS/KIND[/NAME[/SUB]], apis/GROUP/V/namespaces/NS/KIND[/NAME[/SUB]]
    let at = if parts[0] == "api" { 5 } else { 6 };
    let at = at.min(parts.len());
    Target {
        collection: parts[..at].join("/"),
        name: parts.get(at).map(|name| (*name).to_owned()),
        is_status: parts.get(at + 1) == Some(&"status"),
    }
}

/// The word for a status.
fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::UNPROCESSABLE_ENTITY => "Invalid",
        _ => "",
    }
}

type Answer = Result<(StatusCode, Value), (StatusCode, String)>;

fn refuse(status: StatusCode, message: &str) -> Answer {
    Err((status, message.to_owned()))
}

impl FakeApi {
    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.call(request).await }
        });
        Client::new(service, "default")
    }

    /// Another server with the same objects.
    pub(crate) fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.state.lock().clone())) }
    }

    /// It dies at a call, counted from now.
    pub(crate) fn die_at(&self, call: usize, death: Death, calls: Calls) {
        let mut state = self.state.lock();
        (state.death, state.counted) = (Some((call, death, calls)), 0);
    }

    /// It is back; says whether it had died.
    pub(crate) fn revive(&self) -> bool {
        let mut state = self.state.lock();
        (state.death, state.counted) = (None, 0);
        std::mem::take(&mut state.is_dead)
    }

    /// Calls of a method to a collection are refused.
    pub(crate) fn refuse(&self, method: Method, collection: &'static str, code: u16, message: &'static str) {
        self.state.lock().refusals.push((method, collection, code, message));
    }

    /// Nothing is refused any more.
    pub(crate) fn refuse_nothing(&self) {
        self.state.lock().refusals.clear();
    }

    /// Methods and paths since the last time.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().calls)
    }

    /// An object by kind (`statefulsets`) and name.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let state = self.state.lock();
        let found = state
            .objects
            .iter()
            .find(|((collection, own), _)| collection.ends_with(&format!("/{kind}")) && own == name);
        found.map(|(_, stored)| stored.object.clone())
    }

    /// All objects of a kind.
    pub(crate) fn all(&self, kind: &str) -> Vec<Value> {
        let state = self.state.lock();
        let of_kind =
            state.objects.iter().filter(|((collection, _), _)| collection.ends_with(&format!("/{kind}")));
        of_kind.map(|(_, stored)| stored.object.clone()).collect()
    }

    /// Changes an object, as somebody else would.
    pub(crate) fn edit(&self, kind: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock();
        let key = state
            .objects
            .keys()
            .find(|(collection, own)| collection.ends_with(&format!("/{kind}")) && own == name);
        let key = key.expect("the object is there").clone();
        let mut object = state.objects[&key].object.clone();
        change(&mut object);
        state.store(key, object, None);
    }

    /// Makes an object, as somebody else would.
    pub(crate) fn put(&self, collection: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        self.state.lock().store((collection.to_owned(), name), object, None);
    }

    /// Deletes an object, as somebody else would.
    pub(crate) fn remove(&self, kind: &str, name: &str) {
        let mut state = self.state.lock();
        state
            .objects
            .retain(|(collection, own), _| !(collection.ends_with(&format!("/{kind}")) && own == name));
    }

    async fn call(&self, request: Request<Body>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let dead = || std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the API server died");
        let mut state = self.state.lock();
        if state.is_dead {
            return Err(dead());
        }
        let is_counted = |calls| calls == Calls::All || parts.method != Method::GET;
        state.counted += usize::from(state.death.is_some_and(|(_, _, calls)| is_counted(calls)));
        let death = state.death.filter(|(call, _, calls)| *call == state.counted && is_counted(*calls));
        let death = death.map(|(_, death, _)| death);
        state.is_dead = death.is_some();
        if death == Some(Death::Before) {
            return Err(dead());
        }
        let path = parts.uri.path().to_owned();
        state.calls.push(format!("{} {path}", parts.method));
        let answer =
            state.answer(&parts.method, &path, parts.uri.query().unwrap_or_default(), &parts.headers, &body);
        if death == Some(Death::After) {
            return Err(dead());
        }
        let (status, body) = match answer {
            Ok((status, body)) => (status, body),
            Err((status, message)) => (
                status,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message,
                       "reason": reason(status), "code": status.as_u16()}),
            ),
        };
        let body = serde_json::to_vec(&body).expect("JSON");
        let response = Response::builder().status(status).header("content-type", "application/json");
        response.body(Full::new(Bytes::from(body))).map_err(std::io::Error::other)
    }
}

impl State {
    fn answer(
        &mut self,
        method: &Method,
        path: &str,
        query: &str,
        headers: &http::HeaderMap,
        body: &[u8],
    ) -> Answer {
        let target = target(path);
        let refusal =
            self.refusals.iter().find(|(refused, kind, ..)| refused == method && path.contains(kind));
        if let Some((_, _, code, message)) = refusal {
            let status = StatusCode::from_u16(*code).expect("a status");
            return refuse(status, message);
        }
        if target.collection.contains("monitoring.coreos.com") {
            return refuse(StatusCode::NOT_FOUND, "the server could not find the requested resource");
        }
        let parsed = || serde_json::from_slice::<Value>(body).expect("JSON");
        match (method, &target.name) {
            (&Method::GET, None) => Ok((StatusCode::OK, self.list(&target.collection, query))),
            (&Method::GET, Some(name)) => match self.objects.get(&(target.collection, name.clone())) {
                Some(stored) => Ok((StatusCode::OK, stored.object.clone())),
                None => refuse(StatusCode::NOT_FOUND, "not found"),
            },
            (&Method::POST, None) => {
                let object = parsed();
                let name = object["metadata"]["name"].as_str().unwrap_or("generated").to_owned();
                let key = (target.collection, name);
                if self.objects.contains_key(&key) {
                    return refuse(StatusCode::CONFLICT, "already exists");
                }
                Ok((StatusCode::CREATED, self.store(key, object, None)))
            }
            (&Method::PUT, Some(name)) => self.replace((target.collection, name.clone()), parsed()),
            (&Method::PATCH, Some(name)) => {
                let kind =
                    headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
                let key = (target.collection, name.clone());
                if kind.contains("apply-patch") {
                    return self.apply(key, parsed(), target.is_status);
                }
                let Some(stored) = self.objects.get(&key) else {
                    return refuse(StatusCode::NOT_FOUND, "not found");
                };
                let mut object = stored.object.clone();
                merge(&mut object, &parsed());
                Ok((StatusCode::OK, self.store(key, object, None)))
            }
            (&Method::DELETE, Some(name)) => match self.objects.remove(&(target.collection, name.clone())) {
                Some(stored) => Ok((StatusCode::OK, stored.object)),
                None => refuse(StatusCode::NOT_FOUND, "not found"),
            },
            _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "no such method"),
        }
    }

    fn list(&self, collection: &str, query: &str) -> Value {
        let selector =
            query.split('&').find_map(|pair| pair.strip_prefix("labelSelector=")).unwrap_or_default();
        let selector = selector.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
        let wanted: Vec<(&str, &str)> = selector.split(',').filter_map(|pair| pair.split_once('=')).collect();
        let is_wanted = |object: &Value| {
            wanted.iter().all(|(key, value)| object["metadata"]["labels"][*key].as_str() == Some(value))
        };
        let items =
            self.objects.iter().filter(|((own, _), stored)| own == collection && is_wanted(&stored.object));
        let items: Vec<Value> = items.map(|(_, stored)| stored.object.clone()).collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }

    fn replace(&mut self, key: (String, String), object: Value) -> Answer {
        let Some(stored) = self.objects.get(&key) else {
            return refuse(StatusCode::NOT_FOUND, "not found");
        };
        let version = &object["metadata"]["resourceVersion"];
        if !version.is_null() && *version != stored.object["metadata"]["resourceVersion"] {
            return refuse(StatusCode::CONFLICT, "the object has been modified");
        }
        Ok((StatusCode::OK, self.store(key, object, None)))
    }

    /// Server-side apply of one manager: what it applied before and does not now goes away.
    fn apply(&mut self, key: (String, String), built: Value, is_status: bool) -> Answer {
        let stored = self.objects.get(&key).cloned();
        if is_status {
            let Some(stored) = stored else { return refuse(StatusCode::NOT_FOUND, "not found") };
            let mut object = stored.object;
            object["status"] = built["status"].clone();
            return Ok((StatusCode::OK, self.store(key, object, None)));
        }
        let is_new = stored.is_none();
        let Stored { mut object, applied } =
            stored.unwrap_or(Stored { object: json!({}), applied: json!({}) });
        subtract(&mut object, &applied, &built);
        overlay(&mut object, &built);
        let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
        Ok((status, self.store(key, object, Some(built))))
    }

    /// Keeps an object; its version moves when it changed, its generation when its spec did.
    fn store(&mut self, key: (String, String), mut object: Value, applied: Option<Value>) -> Value {
        let before = self.objects.get(&key).cloned();
        let old = before.as_ref().map_or(Value::Null, |stored| stored.object.clone());
        let metadata = &mut object["metadata"];
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}-{}", key.1, self.version));
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        if metadata["generation"].is_null() {
            metadata["generation"] = json!(1);
        }
        if !old.is_null() && old["spec"] != object["spec"] {
            object["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(1) + 1);
        }
        if object != old {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        }
        let applied = applied.or_else(|| before.map(|stored| stored.applied)).unwrap_or_else(|| json!({}));
        self.objects.insert(key, Stored { object: object.clone(), applied });
        object
    }
}

/// Removes fields that were applied and are built no more.
fn subtract(object: &mut Value, applied: &Value, built: &Value) {
    let (Some(fields), Some(applied)) = (object.as_object_mut(), applied.as_object()) else { return };
    for (field, value) in applied {
        match built.get(field) {
            None => {
                fields.remove(field);
            }
            Some(built) => subtract(fields.get_mut(field).unwrap_or(&mut Value::Null), value, built),
        }
    }
}

/// Sets every field that is built; lists whole, which is less than the real server does and enough here.
fn overlay(object: &mut Value, built: &Value) {
    match (object, built) {
        (Value::Object(object), Value::Object(built)) => {
            for (field, value) in built {
                overlay(object.entry(field.clone()).or_insert(Value::Null), value);
            }
        }
        (object, built) => *object = built.clone(),
    }
}

/// A merge patch.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let fields = object.as_object_mut().expect("an object");
    for (field, value) in patch {
        if value.is_null() {
            fields.remove(field);
        } else {
            merge(fields.entry(field.clone()).or_insert(Value::Null), value);
        }
    }
}
