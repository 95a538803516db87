//! The accept loop of both HTTP ports: `axum::serve` has no time limit for slow headers, so it is our own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Builder;
use super::workers::Workers;

/// Connections of one port at once, where there are files enough.
const CONNECTIONS_MAX: usize = 16_384;
/// Pause after a failed accept: out of file descriptors is over in a moment or not at all.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(std::io::Result<std::net::TcpStream>, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream.into_std(), permit))
}

/// Serves connections until `stop`; then new ones are refused, requests that have begun are finished, and a connection
/// of HTTP/1 that is idle may bring one more within `last_requests`.
///
/// The connections are shared out among `workers`; there are at most `places` at once, and never more than 16384. Who
/// comes then waits in the system's queue.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    workers: Workers,
    places: usize,
    last_requests: Duration,
    stop: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (connections, permits) =
        (TaskTracker::new(), Arc::new(Semaphore::new(places.clamp(1, CONNECTIONS_MAX))));
    let builder = Arc::new(Builder::new(last_requests));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let (builder, service, stop) = (builder.clone(), service.clone(), stop.clone());
                let place = workers.place();
                let handle = place.handle.clone();
                let connection = async move {
                    // Registered anew: the thread that serves it waits for it.
                    if let Ok(stream) = stream.and_then(TcpStream::from_std) {
                        builder.serve(stream, service, &stop).await;
                    }
                    drop((permit, place));
                };
                connections.spawn_on(connection, &handle);
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Before the connections end: a client that comes now is refused, and does not wait for an answer that never comes.
    drop(listener);
    connections.close();
    connections.wait().await;
}
