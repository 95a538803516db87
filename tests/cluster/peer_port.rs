//! Strangers on the peer port, who have no secret to prove.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mneme_tests::cluster::Cluster;
use mneme_tests::node::NodeSpec;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A handshake takes no longer than 3 s; more is a finding.
const SOON: Duration = Duration::from_secs(20);
/// Connections that a peer port takes at once.
const CONNECTIONS_MAX: usize = 256;

/// Waits until the other end closes a connection on which nothing is sent.
async fn assert_closed(mut silent: TcpStream) {
    let mut bytes = [0; 1_024];
    let closed = async { while matches!(silent.read(&mut bytes).await, Ok(1..)) {} };
    tokio::time::timeout(SOON, closed).await.expect("a silent connection is closed");
}

#[tokio::test]
async fn silent_connections_do_not_lock_peers_out() {
    let mut cluster = Cluster::start(1).await;
    let peer = cluster[0].spec.peer;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(peer).await.expect("a connection"));
    }
    let late = cluster.add(NodeSpec::new("late").peers([peer]));
    cluster[late].start();
    for silent in silent {
        assert_closed(silent).await;
    }
    cluster[late].wait_ready().await;
    cluster[late].wait_live_members(1).await;
}

/// A frame of 60 MiB, counted while it is sent.
struct LargeFrame {
    is_begun: bool,
    sent: Arc<AtomicUsize>,
}

/// What the frame is said to be, and never is.
const FRAME_BYTES: u32 = 60 << 20;
/// Bytes of it sent at once.
const CHUNK_BYTES: usize = 64 << 10;
/// What a connection holds unread, 2 MiB, and room.
const SENT_BYTES_MAX: usize = 4 << 20;

impl Body for LargeFrame {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if !self.is_begun {
            self.is_begun = true;
            return Poll::Ready(Some(Ok(Frame::data(FRAME_BYTES.to_be_bytes().to_vec().into()))));
        }
        if self.sent.fetch_add(CHUNK_BYTES, Ordering::Relaxed) > SENT_BYTES_MAX {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(vec![0; CHUNK_BYTES].into()))))
    }
}

/// Sends the frame until the other end closes the connection, or has taken too much of it.
async fn send_large_frame(peer: SocketAddr, sent: Arc<AtomicUsize>) {
    let stream = TcpStream::connect(peer).await.expect("a connection");
    let handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake::<_, LargeFrame>(TokioIo::new(stream));
    let (mut requests, connection) = handshake.await.expect("HTTP/2");
    let body = LargeFrame { is_begun: false, sent };
    let request = http::Request::post(format!("http://{peer}/v1/link")).body(body).expect("a request");
    let exchange = async {
        // Refused or cut off in the middle: what the answer is does not matter.
        if let Ok(answer) = requests.send_request(request).await {
            let _ = answer.into_body().collect().await;
        }
    };
    // The connection ends when the other end closes it.
    let _ = tokio::join!(exchange, connection);
}

#[tokio::test]
async fn a_stranger_cannot_make_a_node_hold_a_large_frame() {
    let cluster = Cluster::start(1).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let sending = send_large_frame(cluster[0].spec.peer, sent.clone());
    tokio::time::timeout(SOON, sending).await.expect("the connection is closed");
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent <= SENT_BYTES_MAX, "{sent} bytes of a stranger's frame were taken");
    assert!(cluster[0].is_ready().await);
    cluster[0].put("k", "v").send().await.expect(201);
}
