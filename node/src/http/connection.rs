//! One connection of an HTTP port: which version it speaks, when its answers are sent, how it ends.
//!
//! hyper either sends every answer alone or withholds answers while unread bytes are there, for as long as they are
//! there. So answers are gathered here, and sent as soon as the connection has nothing more to do for now: those of
//! requests that came together leave together, and none waits for anything else.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::owed::{Owed, Owing};
use super::problem::Problem;

/// Time the headers of a request take, at most.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that a connection buffers: more than headers may have, so that too many are answered and not cut off.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 256;
/// Bytes of answers that are gathered; what is larger is sent without being copied.
const GATHERED_BYTES_MAX: usize = 16 << 10;
/// How long a client may take none of what it is sent: a connection that nobody reads holds a place and its answers.
const UNREAD_MAX: Duration = Duration::from_secs(10);
/// How long a connection that has to close takes to send the answers it owes.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// Bytes that are read and thrown away after the last answer, at most.
const LINGER_BYTES_MAX: usize = 8 << 20;
/// How long they are waited for, at most.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// What an HTTP/2 connection begins with.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How connections are served.
pub(super) struct Builder {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    /// How long a connection of HTTP/1 stays open for one more request after `stop`.
    last_requests: Duration,
}

impl Builder {
    pub(super) fn new(last_requests: Duration) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(BUFFER_BYTES_MAX)
            // A client that has sent its last request still wants the answer.
            .half_close(true);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(BUFFER_BYTES_MAX).unwrap_or(u32::MAX))
            .max_concurrent_streams(STREAMS_MAX)
            .keep_alive_interval(Some(HEADER_TIMEOUT * 3));
        Self { http1, http2, last_requests }
    }

    /// Serves a connection until it ends, or is told to end by `stop`.
    ///
    /// How a client's connection ends is the client's affair: nothing to log.
    pub(super) async fn serve<S, B>(&self, mut stream: TcpStream, service: S, stop: &CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
        S::Future: Send + 'static,
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // Without it answers would wait for acknowledgements of TCP; the connection works all the same.
        let _ = stream.set_nodelay(true);
        let begun = tokio::select! {
            () = stop.cancelled() => return,
            begun = tokio::time::timeout(HEADER_TIMEOUT, first_bytes(&mut stream)) => begun,
        };
        let Ok(Ok(first)) = begun else { return };
        let is_http2 = first.starts_with(HTTP2_PREFACE);
        let wire = Wire::new(stream, first);
        let ended = if is_http2 {
            let owed = Owed::new();
            let service = Owing { service, owed: owed.clone() };
            let connection = self.http2.serve_connection(wire.clone(), service);
            let shut_down = |connection: Pin<&mut http2::Connection<_, _, _>>| connection.graceful_shutdown();
            tokio::select! {
                ended = drive(connection, &wire, stop, Duration::ZERO, shut_down) => ended,
                () = owed.overdue() => false,
            }
        } else {
            let connection = self.http1.serve_connection(wire.clone(), service);
            drive(connection, &wire, stop, self.last_requests, |connection| connection.graceful_shutdown())
                .await
        };
        if let Some(socket) = Arc::into_inner(wire.0).filter(|_| ended) {
            socket.into_inner().close().await;
        }
    }
}

/// Reads until it is clear which version of HTTP begins; nothing when the other end closed at once.
async fn first_bytes(stream: &mut TcpStream) -> io::Result<Bytes> {
    let mut first = BytesMut::with_capacity(1024);
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return Ok(first.freeze());
        }
        let compared = first.len().min(HTTP2_PREFACE.len());
        if compared == HTTP2_PREFACE.len() || first[..compared] != HTTP2_PREFACE[..compared] {
            return Ok(first.freeze());
        }
    }
}

/// Runs a connection to its end; says whether the other end may still listen.
async fn drive<C>(
    connection: C,
    wire: &Wire,
    stop: &CancellationToken,
    last_requests: Duration,
    shut_down: impl Fn(Pin<&mut C>),
) -> bool
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = sending(connection.as_mut(), wire) => Ok(ended),
        () = stop.cancelled() => {
            tokio::time::timeout(last_requests, sending(connection.as_mut(), wire)).await
        }
    };
    let ended = match ended {
        Ok(ended) => ended,
        Err(_) => {
            shut_down(connection.as_mut());
            let ended = tokio::time::timeout(CLOSE_MAX, sending(connection.as_mut(), wire)).await;
            ended.unwrap_or(Ended::Broken)
        }
    };
    match ended {
        Ended::Whole => {}
        Ended::Malformed(problem) => wire.0.lock().replace_automatic_answer(problem),
        Ended::Broken => return false,
    }
    true
}

/// How a connection ended.
enum Ended {
    /// What was gathered is still to be sent.
    Whole,
    /// With bytes that are no request: they are answered with this.
    Malformed(Problem),
    /// Nobody listens any more, or took too long.
    Broken,
}

/// A connection that sends what it gathered whenever it has nothing more to do for now.
async fn sending<C>(mut connection: Pin<&mut C>, wire: &Wire) -> Ended
where
    C: Future<Output = hyper::Result<()>>,
{
    std::future::poll_fn(|cx| {
        let ended = connection.as_mut().poll(cx);
        Poll::Ready(match ended {
            Poll::Ready(Err(error)) if error.is_parse_too_large() => {
                Ended::Malformed(Problem::headers_too_large())
            }
            Poll::Ready(Err(error)) if error.is_parse() => Ended::Malformed(Problem::malformed()),
            // The answers before what went wrong are still owed.
            Poll::Ready(Ok(()) | Err(_)) => Ended::Whole,
            Poll::Pending => match wire.0.lock().poll_send(cx) {
                Poll::Ready(Err(_)) => Ended::Broken,
                Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
            },
        })
    })
    .await
}

/// What hyper reads from and writes to. The lock is never contended: one task polls the connection.
#[derive(Clone)]
struct Wire(Arc<Mutex<Socket>>);

struct Socket {
    stream: TokioIo<TcpStream>,
    /// What was read to know the version; the first that is read.
    first: Bytes,
    /// Answers that are to be sent, behind those that are.
    gathered: Vec<u8>,
    sent_bytes: usize,
    /// Runs while the other end takes nothing.
    unread: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    fn new(stream: TcpStream, first: Bytes) -> Self {
        let stream = TokioIo::new(stream);
        let socket = Socket { stream, first, gathered: Vec::new(), sent_bytes: 0, unread: None };
        Self(Arc::new(Mutex::new(socket)))
    }
}

impl Socket {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent_bytes < self.gathered.len() {
            let unsent = &self.gathered[self.sent_bytes..];
            let sent = Pin::new(&mut self.stream).poll_write(cx, unsent);
            let sent = ready!(self.within_limit(cx, sent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent_bytes += sent;
        }
        self.gathered.clear();
        self.sent_bytes = 0;
        Poll::Ready(Ok(()))
    }

    /// Gives up on a client that has taken nothing for too long.
    fn within_limit(
        &mut self,
        cx: &mut Context<'_>,
        sent: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if sent.is_ready() {
            self.unread = None;
            return sent;
        }
        let unread = self.unread.get_or_insert_with(|| Box::pin(tokio::time::sleep(UNREAD_MAX)));
        ready!(unread.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Puts `problem` in the place of the answer without a body that hyper gives to what is no request.
    ///
    /// That answer is the last, and still here: hyper wrote it and ended in one poll. The answers of this port have
    /// bodies where their status is one of an error, so it is not taken for one of them.
    fn replace_automatic_answer(&mut self, problem: Problem) {
        const BEGIN: &[u8] = b"HTTP/1.";
        let unsent = &self.gathered[self.sent_bytes..];
        let Some(at) = unsent.windows(BEGIN.len()).rposition(|window| window == BEGIN) else { return };
        let at = self.sent_bytes + at;
        let answer = &self.gathered[at..];
        let is_error = answer.get(BEGIN.len() + 2) == Some(&b'4');
        let is_empty = answer.windows(19).any(|window| window == b"content-length: 0\r\n");
        if is_error && is_empty && answer.ends_with(b"\r\n\r\n") {
            self.gathered.truncate(at);
            self.gathered.extend_from_slice(&problem.last_answer());
        }
    }

    /// Sends what is left, says that nothing follows, and reads on for a moment: closing a connection with bytes
    /// unread would take the answer back on its way.
    async fn close(self) {
        let Self { stream, gathered, sent_bytes, first: _, unread: _ } = self;
        let mut stream = stream.into_inner();
        let sent = async {
            stream.write_all(&gathered[sent_bytes..]).await?;
            stream.shutdown().await
        };
        if !matches!(tokio::time::timeout(CLOSE_MAX, sent).await, Ok(Ok(()))) {
            return;
        }
        let discarding = async {
            let mut buffer = vec![0; 16 << 10];
            let mut discarded = 0;
            while discarded < LINGER_BYTES_MAX
                && let Ok(count @ 1..) = stream.read(&mut buffer).await
            {
                discarded += count;
            }
        };
        let _ = tokio::time::timeout(LINGER_MAX, discarding).await;
    }
}

impl Read for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut socket = self.0.lock();
        if socket.first.is_empty() {
            return Pin::new(&mut socket.stream).poll_read(cx, buffer);
        }
        let count = socket.first.len().min(buffer.remaining());
        buffer.put_slice(&socket.first.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut socket = self.0.lock();
        let count: usize = slices.iter().map(|slice| slice.len()).sum();
        if socket.gathered.len() + count <= GATHERED_BYTES_MAX {
            for slice in slices {
                socket.gathered.extend_from_slice(slice);
            }
            return Poll::Ready(Ok(count));
        }
        ready!(socket.poll_send(cx))?;
        let sent = Pin::new(&mut socket.stream).poll_write_vectored(cx, slices);
        socket.within_limit(cx, sent)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing to do: what is gathered is sent when the poll of the connection is over.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Nothing to do: [`Socket::close`] does it, with what has to come before.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
