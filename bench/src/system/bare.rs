//! The ceiling of HTTP: hyper alone, which answers every request with the bytes of a session.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderValue, Response};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mneme_tests::ports::free_loopback;
use mneme_tests::process::Process;
use tokio::net::{TcpListener, TcpStream};

use super::{Running, Source, System, directory, wait_listening};
use crate::sample::{ClientProcess, Watched};
use crate::workload::value;

/// An entity tag as a node sends it.
pub(super) const ENTITY_TAG: HeaderValue =
    HeaderValue::from_static("\"1a20d6f40610000-b0dd520eae4d03445365b1d1a086a9a0\"");

pub(super) async fn start() -> anyhow::Result<Running> {
    let (address, directory) = (free_loopback(), directory()?);
    let program = std::env::current_exe()?;
    let command = [program.into_os_string(), "bare".into(), address.to_string().into()];
    let process = Process::start("bare", command, &directory.path().join("log"));
    wait_listening(address, "the bare server").await;
    Ok(Running {
        system: System::Hyper,
        nodes: 1,
        source: Source::Http(vec![address]),
        watched: Watched { servers: vec![process.id()], client: ClientProcess::This },
        cluster: None,
        _processes: vec![process],
        _directory: Some(directory),
    })
}

/// Serves for ever, connections shared out among one thread a core, as a node does.
pub(crate) fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    let (mut places, builder) =
        (Vec::new(), || tokio::runtime::Builder::new_current_thread().enable_all().build());
    for _ in 1..cores {
        let runtime = builder()?;
        places.push(runtime.handle().clone());
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    }
    let here = builder()?;
    places.push(here.handle().clone());
    here.block_on(async {
        let listener = TcpListener::bind(address).await?;
        for place in places.iter().cycle() {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // Ends with the connection.
            place.spawn(answer(stream.into_std()?));
        }
        Ok(())
    })
}

async fn answer(stream: std::net::TcpStream) {
    // Registered anew: the thread that serves it waits for it.
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let value = Bytes::from(value());
    let service = service_fn(move |_request| {
        let mut response = Response::new(Full::new(value.clone()));
        let headers = response.headers_mut();
        headers.insert(ETAG, ENTITY_TAG);
        headers.insert("mneme-ttl-ms", HeaderValue::from_static("1799991"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    let _ = builder.pipeline_flush(true).serve_connection(TokioIo::new(stream), service).await;
}
