//! The ceiling of a write: nodes that take bytes over HTTP, send them to each other and append them to SQLite files.
//!
//! No keys, no versions, no merging, no reads, no protocol between nodes but length and bytes, nothing that goes wrong: what a
//! replicated write costs above this is what Mneme does for it. Threads, group commit, the file (but for
//! checkpoints, which are a part of commits here) and what a write waits for (its own disk and those of a majority) are a
//! node's.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::ETAG;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mneme_tests::ports::free_loopback;
use mneme_tests::process::Process;
use sqlx::sqlite::SqliteConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::{Instant, sleep, timeout_at};

use super::bare::ENTITY_TAG;
use super::{Running, STARTED_MAX, Source, System, directory, wait_listening};
use crate::parts::sqlite;
use crate::sample::{ClientProcess, Watched};

/// Bytes that a write has in a file beyond its own.
const EXTRA_BYTES: usize = sqlite::RECORD_EXTRA_BYTES;
/// Pause between attempts to reach a node that has not started yet.
const DIAL_PAUSE: Duration = Duration::from_millis(10);
/// Longest wait of a commit for company, as a node's.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// The same of one for which nobody waits.
const UNAWAITED_MAX: Duration = Duration::from_millis(5);
/// Turns that others have before a socket is written to, unless a frame went alone the last time; as a node's.
const TURNS: usize = 2;

/// A frame is a kind, the number of a write, a length, and as many bytes.
const HEAD_BYTES: usize = 13;
const PUSH: u8 = 0;
const ACK: u8 = 1;

pub(super) async fn start(nodes: usize) -> anyhow::Result<Running> {
    let directory = directory()?;
    let clients: Vec<SocketAddr> = (0..nodes).map(|_| free_loopback()).collect();
    let links: Vec<String> = (0..nodes).map(|_| free_loopback().to_string()).collect();
    let program = std::env::current_exe()?;
    let mut processes = Vec::new();
    for (place, client) in clients.iter().enumerate() {
        let data = directory.path().join(place.to_string());
        std::fs::create_dir(&data)?;
        let mut command = vec![program.clone().into_os_string(), "bare-replica".into()];
        command.extend([place.to_string().into(), client.to_string().into(), data.into()]);
        command.extend(links.iter().map(Into::into));
        let log = directory.path().join(format!("{place}.log"));
        processes.push(Process::start("bare replica", command, &log));
    }
    for client in &clients {
        wait_listening(*client, "a bare replica").await;
    }
    let servers = processes.iter().map(Process::id).collect();
    Ok(Running {
        system: System::BareReplicas,
        nodes,
        source: Source::Http(clients),
        watched: Watched { servers, client: ClientProcess::This },
        cluster: None,
        _processes: processes,
        _directory: Some(directory),
    })
}

/// Serves for ever as the node at this place among `links`.
pub(crate) fn serve(
    place: usize,
    client: SocketAddr,
    data: &Path,
    links: &[SocketAddr],
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let file = sqlite::open(data, true).await?;
        let node = Rc::new(Node::new(place, links.len()));
        // Clients are let in once all nodes are linked.
        for (other, stream) in link_up(place, links).await? {
            stream.set_nodelay(true)?;
            let (read, write) = stream.into_split();
            spawn_local(ending(node.clone().receive(other, read)));
            spawn_local(ending(node.clone().send(other, write)));
        }
        spawn_local(ending(node.clone().append(file)));
        let listener = TcpListener::bind(client).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            spawn_local(node.clone().answer(stream));
        }
    })
}

/// A connection to every other node: to those after this one dialled, from those before it accepted.
async fn link_up(place: usize, links: &[SocketAddr]) -> anyhow::Result<Vec<(usize, TcpStream)>> {
    let listener = TcpListener::bind(links[place]).await?;
    let (mut linked, until) = (Vec::new(), Instant::now() + STARTED_MAX);
    for (other, address) in links.iter().enumerate().skip(place + 1) {
        let mut stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > until => return Err(error).context("a node does not start"),
                Err(_) => sleep(DIAL_PAUSE).await,
            }
        };
        stream.write_u64(place as u64).await?;
        linked.push((other, stream));
    }
    for _ in 0..place {
        let (mut stream, _) = listener.accept().await?;
        let other = usize::try_from(stream.read_u64().await?)?;
        linked.push((other, stream));
    }
    Ok(linked)
}

/// Nothing is expected to end: what does ends the process, and the measurement with it.
async fn ending(task: impl Future<Output = anyhow::Result<()>>) {
    if let Err(error) = task.await {
        eprintln!("a bare replica ends: {error:#}");
        std::process::exit(1);
    }
}

/// A write on its way to the file.
struct Entry {
    origin: usize,
    number: u64,
    body: Bytes,
}

/// The way to another node.
#[derive(Default)]
struct Link {
    outgoing: RefCell<BytesMut>,
    /// Frames in it.
    frames: Cell<usize>,
    has_outgoing: Notify,
}

impl Link {
    fn put(&self, kind: u8, number: u64, body: &[u8]) {
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.put_u8(kind);
        outgoing.put_u64(number);
        outgoing.put_u32(u32::try_from(body.len()).expect("a request of a benchmark is small"));
        outgoing.put_slice(body);
        self.frames.update(|frames| frames + 1);
        self.has_outgoing.notify_one();
    }
}

struct Node {
    place: usize,
    links: Vec<Link>,
    waiting: RefCell<Vec<Entry>>,
    has_work: Notify,
    /// Own writes taken in.
    written: Cell<u64>,
    /// Own writes on the disk of each node.
    durable: RefCell<Vec<u64>>,
    replies: RefCell<VecDeque<(u64, oneshot::Sender<()>)>>,
}

impl Node {
    fn new(place: usize, nodes: usize) -> Self {
        Self {
            place,
            links: std::iter::repeat_with(Link::default).take(nodes).collect(),
            waiting: RefCell::default(),
            has_work: Notify::new(),
            written: Cell::new(0),
            durable: RefCell::new(vec![0; nodes]),
            replies: RefCell::default(),
        }
    }

    async fn answer(self: Rc<Self>, stream: TcpStream) {
        let service = service_fn(move |request| self.clone().put(request));
        let mut builder = hyper::server::conn::http1::Builder::new();
        // A client that goes away is no fault.
        let _ = builder.pipeline_flush(true).serve_connection(TokioIo::new(stream), service).await;
    }

    async fn put(self: Rc<Self>, request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
        let mut response = Response::new(Empty::new());
        let is_write = matches!(*request.method(), Method::PUT | Method::POST);
        let body = request.into_body().collect().await;
        let Some(body) = body.ok().filter(|_| is_write) else {
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return Ok(response);
        };
        let (reply, done) = oneshot::channel();
        self.take_in(body.to_bytes(), reply);
        // Only the end of the process drops the sender.
        let _ = done.await;
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ETAG, ENTITY_TAG);
        headers.insert("mneme-acks", HeaderValue::from_static("applied=3/3 durable=2/3"));
        Ok(response)
    }

    fn take_in(&self, body: Bytes, reply: oneshot::Sender<()>) {
        let number = self.written.get() + 1;
        self.written.set(number);
        self.replies.borrow_mut().push_back((number, reply));
        for (_, link) in self.links.iter().enumerate().filter(|(other, _)| *other != self.place) {
            link.put(PUSH, number, &body);
        }
        self.enqueue(Entry { origin: self.place, number, body });
    }

    fn enqueue(&self, entry: Entry) {
        self.waiting.borrow_mut().push(entry);
        self.has_work.notify_one();
    }

    async fn send(self: Rc<Self>, other: usize, mut socket: OwnedWriteHalf) -> anyhow::Result<()> {
        let link = &self.links[other];
        let mut has_company = false;
        loop {
            link.has_outgoing.notified().await;
            for _ in 0..if has_company { TURNS } else { 0 } {
                yield_now().await;
            }
            has_company = link.frames.take() > 1;
            let bytes = link.outgoing.borrow_mut().split();
            socket.write_all(&bytes).await?;
        }
    }

    async fn receive(self: Rc<Self>, other: usize, mut socket: OwnedReadHalf) -> anyhow::Result<()> {
        let mut input = BytesMut::new();
        loop {
            anyhow::ensure!(socket.read_buf(&mut input).await? > 0, "node {other} is gone");
            while let Some((kind, number, body)) = frame(&mut input) {
                if kind == PUSH {
                    self.enqueue(Entry { origin: other, number, body });
                } else {
                    self.held(other, number);
                }
            }
        }
    }

    /// Own writes up to this number are on the disk of `node`: answers those that are on enough.
    fn held(&self, node: usize, number: u64) {
        let mut durable = self.durable.borrow_mut();
        durable[node] = number;
        let mut sorted = durable.clone();
        sorted.sort_unstable_by(|one, other| other.cmp(one));
        let through = sorted[durable.len() / 2].min(durable[self.place]);
        let mut replies = self.replies.borrow_mut();
        while let Some((_, reply)) = replies.pop_front_if(|(number, _)| *number <= through) {
            // A client that went away does not hear it.
            let _ = reply.send(());
        }
    }

    /// Whether a write of the node at `origin` is waited for until it is on this disk: as many as a majority takes follow it.
    fn is_awaited_here(&self, origin: usize) -> bool {
        let nodes = self.links.len();
        (self.place + nodes - origin) % nodes <= nodes / 2
    }

    /// Group commit, as a node's: five eighths of the writes that were under way are waited for, and what nobody waits for
    /// waits for company.
    async fn append(self: Rc<Self>, mut file: SqliteConnection) -> anyhow::Result<()> {
        let (mut under_way, mut committed) = (0, Instant::now());
        loop {
            self.waits(|entries| !entries.is_empty()).await;
            yield_now().await;
            let is_awaited =
                |entries: &[Entry]| entries.iter().any(|entry| self.is_awaited_here(entry.origin));
            // What has come by then goes.
            let _ = timeout_at(Instant::now() + UNAWAITED_MAX, self.waits(is_awaited)).await;
            let is_whole = |entries: &[Entry]| entries.len() >= under_way * 5 / 8;
            let _ = timeout_at(committed + GATHER_MAX, self.waits(is_whole)).await;
            let entries = self.waiting.take();
            let mut frame = Vec::new();
            for entry in &entries {
                frame.extend_from_slice(&[b'h'; EXTRA_BYTES]);
                frame.extend_from_slice(&entry.body);
            }
            sqlx::query("INSERT INTO frames (body) VALUES (?)").bind(frame).execute(&mut file).await?;
            (under_way, committed) = (entries.len() + self.waiting.borrow().len(), Instant::now());
            let mut through = vec![None; self.links.len()];
            for entry in entries {
                through[entry.origin] = Some(entry.number);
            }
            for (origin, number) in through.into_iter().enumerate() {
                match number {
                    Some(number) if origin == self.place => self.held(origin, number),
                    Some(number) => self.links[origin].put(ACK, number, &[]),
                    None => {}
                }
            }
        }
    }

    /// Returns once what is wanted waits for the file.
    async fn waits(&self, is_wanted: impl Fn(&[Entry]) -> bool) {
        while !is_wanted(&self.waiting.borrow()) {
            self.has_work.notified().await;
        }
    }
}

/// Takes a whole frame off the input.
fn frame(input: &mut BytesMut) -> Option<(u8, u64, Bytes)> {
    let mut head = input.get(..HEAD_BYTES)?;
    let (kind, number, length) = (head.get_u8(), head.get_u64(), head.get_u32() as usize);
    if input.len() < HEAD_BYTES + length {
        return None;
    }
    input.advance(HEAD_BYTES);
    Some((kind, number, input.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_answered_when_it_is_on_its_own_disk_and_on_those_of_a_majority() {
        let node = Node::new(1, 3);
        let (reply, mut done) = oneshot::channel();
        node.take_in(Bytes::from_static(b"value"), reply);
        node.held(0, 1);
        node.held(2, 1);
        assert!(done.try_recv().is_err(), "it is not on the disk of the node that answers");
        node.held(1, 1);
        assert!(done.try_recv().is_ok());
        let (reply, mut done) = oneshot::channel();
        node.take_in(Bytes::from_static(b"value"), reply);
        node.held(1, 2);
        assert!(done.try_recv().is_err(), "one disk of three");
        node.held(2, 2);
        assert!(done.try_recv().is_ok());
    }

    #[test]
    fn a_majority_is_waited_for() {
        for (nodes, disks) in [(2, 2), (3, 2), (4, 3), (5, 3)] {
            let awaited = (0..nodes).filter(|place| Node::new(*place, nodes).is_awaited_here(1)).count();
            assert_eq!(awaited, disks, "of {nodes}");
        }
    }

    #[test]
    fn frames_are_taken_once_they_are_whole() {
        let link = Link::default();
        link.put(PUSH, 7, b"value");
        link.put(ACK, 8, &[]);
        let sent = link.outgoing.take();
        let mut input = BytesMut::from(&sent[..HEAD_BYTES + 4]);
        assert_eq!(frame(&mut input), None);
        input.extend_from_slice(&sent[HEAD_BYTES + 4..]);
        assert_eq!(frame(&mut input), Some((PUSH, 7, Bytes::from_static(b"value"))));
        assert_eq!(frame(&mut input), Some((ACK, 8, Bytes::new())));
        assert_eq!(frame(&mut input), None);
    }
}
