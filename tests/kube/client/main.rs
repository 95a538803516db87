//! The clients of the suite on Kubernetes, in a pod: what applications do through the Service, and a check of every
//! answer.
//!
//! It runs inside the cluster, since a Service is reachable only there. The suite talks to it through the API server,
//! whose proxy passes on GET alone, so everything is asked for with GET:
//!
//! - `/start?name=N&service=HOST:PORT[&token=T]` begins a load;
//! - `/report?name=N` answers what it counted so far, as JSON;
//! - `/finish?name=N` ends it, reads every session once more, and answers what it counted.

mod history;
mod load;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;

use crate::load::{Load, Target};

/// Where the suite asks: any address, since the API server comes from outside the pod.
const LISTEN: ([u8; 4], u16) = ([0, 0, 0, 0], 8080);

/// The loads that run, by name.
type Loads = Arc<Mutex<HashMap<String, Arc<Load>>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(LISTEN)).await?;
    let loads = Loads::default();
    // A program that is PID 1 gets only the signals that it asks for.
    let mut ends = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        let stream = tokio::select! {
            _ = ends.recv() => return Ok(()),
            accepted = listener.accept() => accepted?.0,
        };
        let loads = loads.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(loads.clone(), request));
            // Whoever asked and went away has no use for an error.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    loads: Loads,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let parameters = parameters(request.uri().query().unwrap_or_default());
    let parameter = |name: &str| parameters.get(name).cloned().unwrap_or_default();
    let name = parameter("name");
    let of_name = || loads.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
    let (status, text) = match (request.uri().path(), of_name()) {
        ("/livez", _) => (StatusCode::OK, "{}".to_owned()),
        ("/start", None) => {
            let load = Load::start(Target { service: parameter("service"), token: parameter("token") });
            loads.lock().unwrap_or_else(PoisonError::into_inner).insert(name, load);
            (StatusCode::OK, "{}".to_owned())
        }
        ("/report", Some(load)) => (StatusCode::OK, load.report().to_string()),
        ("/finish", Some(load)) => {
            load.finish().await;
            loads.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            (StatusCode::OK, load.report().to_string())
        }
        (path, _) => (StatusCode::NOT_FOUND, format!("no {path} for the load {name:?}")),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    Ok(response)
}

/// The parameters of a query. Not all that asks encodes the same: the API server's proxy does it anew.
fn parameters(query: &str) -> HashMap<String, String> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_however_they_are_encoded() {
        let read = parameters("name=x&service=web.svc%3A7070&token=");
        assert_eq!(read["service"], "web.svc:7070");
        assert_eq!((read["name"].as_str(), read["token"].as_str()), ("x", ""));
    }
}
