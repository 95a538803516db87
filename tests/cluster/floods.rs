//! Floods: whatever comes, other clients are served and memory stays within bounds.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mneme_tests::cluster::Cluster;
use mneme_tests::node::{Node, NodeSpec};
use mneme_tests::raw::RawConnection;
use mneme_tests::raw_http2::{self as http2, Ended, flood, frame, header_block, preface};
use mneme_tests::records::record;
use mneme_tests::wait::wait_until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Far beyond the ten seconds after which a slow client is cut off.
const LIMIT: Duration = Duration::from_secs(40);
/// What a flood may add to a node's memory unless its test says otherwise.
const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// Lets `flood` run while a client stores and reads, each time over a new connection; all of it must succeed.
///
/// Prints and checks the most memory that the node held.
async fn beside_a_client<T>(
    node: &Node,
    name: &str,
    memory_bytes_max: u64,
    flood: impl Future<Output = T>,
) -> T {
    let process = node.process();
    process.forget_peak_memory();
    let (before, _) = process.memory_bytes();
    let (is_over, key) = (Cell::new(false), format!("client/{}", name.replace(' ', "-")));
    let client = async {
        let mut served = 0;
        while !is_over.get() || served == 0 {
            node.put(&key, "v").send().await.expect(if served == 0 { 201 } else { 204 });
            node.assert_value(&key, "v").await;
            served += 2;
        }
        served
    };
    let flooding = async {
        let ended = flood.await;
        is_over.set(true);
        ended
    };
    let (ended, served) = tokio::join!(flooding, client);
    let (after, most) = process.memory_bytes();
    let mebibytes = |bytes: u64| bytes >> 20;
    println!(
        "flood of {name}: {served} requests of another client, all served; memory {} MiB before, {} at most, {} after",
        mebibytes(before),
        mebibytes(most),
        mebibytes(after)
    );
    let added = most.saturating_sub(before);
    assert!(added <= memory_bytes_max, "{name}: {} MiB more memory", mebibytes(added));
    ended
}

/// Sends the pieces of a request, a byte at a time, until the server closes the connection.
async fn trickle(address: SocketAddr, first: String) {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let (mut reader, mut writer) = stream.into_split();
    writer.write_all(first.as_bytes()).await.expect("an open connection");
    let mut pace = tokio::time::interval(Duration::from_millis(200));
    let sending = async {
        loop {
            pace.tick().await;
            if writer.write_all(b"a").await.is_err() {
                return;
            }
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        _ = reader.read_to_end(&mut answer) => {}
        () = sending => {}
    }
}

#[tokio::test]
async fn slow_headers_and_bodies_are_cut_off_by_the_hundred() {
    let cluster = Cluster::start(1).await;
    let address = cluster[0].spec.client;
    let slow = async {
        let mut clients = JoinSet::new();
        for number in 0..300 {
            let first = match number % 3 {
                0 => "GET /v1/status HTTP/1.1\r\nhost: x\r\nx: ".to_owned(),
                1 => format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\n", record("slow")),
                // Not even the version is clear.
                _ => "PRI * HTTP/2.0\r\n\r\nSM".to_owned(),
            };
            clients.spawn(trickle(address, first));
        }
        while let Some(client) = clients.join_next().await {
            client.expect("a slow client");
        }
    };
    let slow = tokio::time::timeout(LIMIT, slow);
    let ended = beside_a_client(&cluster[0], "slow headers and bodies", MEMORY_BYTES_MAX, slow).await;
    ended.expect("every slow client is cut off");
    cluster[0].assert_read_status("slow", 404).await;
}

#[tokio::test]
async fn floods_of_http2_frames_cost_neither_memory_nor_other_clients() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let address = node.spec.client;
    let get = header_block("GET", &record("absent"));
    let put = header_block("PUT", &record("flood"));
    let begin = || std::iter::once(preface(&[]));
    let streams = |count: u32| (0..count).map(|number| 2 * number + 1);
    let request = |stream| frame(http2::HEADERS, http2::END_HEADERS | http2::END_STREAM, stream, &get);
    let opened = |stream| frame(http2::HEADERS, http2::END_HEADERS, stream, &put);
    let cancelled = |stream| frame(http2::RST_STREAM, 0, stream, &8u32.to_be_bytes());
    let run = async |name: &str, pieces: Box<dyn Iterator<Item = Vec<u8>> + '_>, expected: &[Ended]| {
        let flooding = flood(address, begin().chain(pieces), LIMIT);
        let ended = beside_a_client(node, name, MEMORY_BYTES_MAX, flooding).await;
        println!("flood of {name}: {ended:?}");
        assert!(expected.contains(&ended), "{name}: {ended:?}");
    };
    let resets = streams(50_000).map(|stream| [request(stream), cancelled(stream)].concat());
    run("rapid resets", Box::new(resets), &[Ended::Closed]).await;
    let resets = streams(50_000).map(|stream| [opened(stream), cancelled(stream)].concat());
    run("rapid resets of bodies", Box::new(resets), &[Ended::Closed]).await;
    // Beyond the streams that a connection may have, each is refused by itself.
    run("streams", Box::new(streams(20_000).map(opened)), &[Ended::Taken, Ended::Closed]).await;
    let settings = (0..200_000u32).map(|number| {
        let window = [&4u16.to_be_bytes()[..], &(65_535 + number % 7).to_be_bytes()].concat();
        frame(http2::SETTINGS, 0, 0, &window)
    });
    run("settings", Box::new(settings), &[Ended::Taken, Ended::Closed]).await;
    let pings = (0..200_000u64).map(|number| frame(http2::PING, 0, 0, &number.to_be_bytes()));
    run("pings", Box::new(pings), &[Ended::Taken, Ended::Closed]).await;
    let windows = (0..200_000).map(|_| frame(http2::WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()));
    run("window updates", Box::new(windows), &[Ended::Taken, Ended::Closed]).await;
    let empty = std::iter::once(opened(1)).chain((0..200_000).map(|_| frame(http2::DATA, 0, 1, &[])));
    run("empty data", Box::new(empty), &[Ended::Taken, Ended::Closed]).await;
    let first = frame(http2::HEADERS, http2::END_STREAM, 1, &get);
    let mut more = Vec::new();
    (0..200).for_each(|number| http2::put_header(&mut more, &format!("x-{number}"), &"v".repeat(70)));
    let more = (0..4_000).map(|_| frame(http2::CONTINUATION, 0, 1, &more));
    run("continuations", Box::new(std::iter::once(first).chain(more)), &[Ended::Closed]).await;
    let empty = (0..200_000).map(|_| frame(http2::CONTINUATION, 0, 1, &[]));
    let first = std::iter::once(frame(http2::HEADERS, http2::END_STREAM, 1, &get));
    run("empty continuations", Box::new(first.chain(empty)), &[Ended::Closed]).await;
    let large = streams(2_000).map(|stream| {
        let mut block = get.clone();
        http2::put_header(&mut block, "x", &"v".repeat(16_000));
        frame(http2::HEADERS, http2::END_HEADERS | http2::END_STREAM, stream, &block)
    });
    run("large headers", Box::new(large), &[Ended::Taken, Ended::Closed]).await;
    node.assert_read_status("flood", 404).await;
    assert!(node.is_ready().await);
}

/// Value of the largest size that a table takes by default.
const VALUE_BYTES: usize = 256 << 10;
/// Clients that read nothing; each sixth speaks HTTP/2.
const UNREADING: usize = 96;

#[tokio::test]
async fn clients_that_read_no_answers_are_cut_off_and_hold_little() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    node.put("large", &"v".repeat(VALUE_BYTES)).send().await.expect(201);
    let get = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", record("large"));
    let pipeline = get.repeat(1_000).into_bytes();
    // No window: not one byte of an answer may be sent.
    let mut streams = preface(&[(4, 0)]);
    let block = header_block("GET", &record("large"));
    for number in 0..200 {
        let stream = 2 * number + 1;
        streams.extend(frame(http2::HEADERS, http2::END_HEADERS | http2::END_STREAM, stream, &block));
    }
    let open_before = node.process().open_files();
    let flood = async {
        let mut clients = JoinSet::new();
        for number in 0..UNREADING {
            let bytes = if number % 6 == 0 { streams.clone() } else { pipeline.clone() };
            let mut stream = TcpStream::connect(node.spec.client).await.expect("a connection");
            clients.spawn(async move {
                // As much as the server takes: it reads on only when somebody reads what it sends.
                let _ = stream.write_all(&bytes).await;
                std::future::pending::<()>().await;
            });
        }
        // Closed with answers unread, a connection says nothing to who does not read: the node is asked.
        wait_until(LIMIT, "all were taken in", async || {
            node.process().open_files() >= open_before + UNREADING
        })
        .await;
        wait_until(LIMIT, "all are cut off", async || {
            node.process().open_files() < open_before + UNREADING / 4
        })
        .await;
    };
    beside_a_client(node, "clients that do not read", MEMORY_BYTES_MAX + (128 << 20), flood).await;
}

#[tokio::test]
async fn more_connections_than_files_leave_room_for_peers_and_for_who_is_connected() {
    let mut cluster = Cluster::empty();
    let mut spec = NodeSpec::new("few-files");
    spec.through = ["prlimit", "--nofile=512:512", "--"].map(Into::into).to_vec();
    let peer = spec.peer;
    let index = cluster.add(spec);
    cluster[index].start_ready().await;
    let address = cluster[index].spec.client;
    let get = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", record("k"));
    let mut kept = RawConnection::open(address).await;
    kept.send(&get).await;
    assert_eq!(kept.statuses(1, LIMIT).await, [404]);
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    // One request after the other, each within the time for headers.
    let kept = tokio::spawn(async move {
        let (mut served, mut pace) = (1, tokio::time::interval(Duration::from_millis(100)));
        while !over.load(Ordering::Relaxed) {
            pace.tick().await;
            kept.send(&get).await;
            served += 1;
            assert_eq!(kept.statuses(served, LIMIT).await, vec![404; served]);
        }
        served
    });
    let mut silent = Vec::new();
    for _ in 0..700 {
        silent.push(TcpStream::connect(address).await.expect("a connection, or a place in the queue"));
    }
    let late = cluster.add(NodeSpec::new("late").peers([peer]));
    cluster[late].start_ready().await;
    cluster[late].wait_live_members(1).await;
    assert!(cluster[index].is_ready().await, "probes are answered");
    is_over.store(true, Ordering::Relaxed);
    let served = kept.await.expect("who was connected before is served");
    println!("flood of connections: {served} requests over a connection from before, all served");
    // New clients get their turn when the silent ones are cut off.
    let silent = async {
        for mut stream in silent {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    };
    let node = &cluster[index];
    let silent = tokio::time::timeout(LIMIT, silent);
    let ended = beside_a_client(node, "connections", MEMORY_BYTES_MAX, silent).await;
    ended.expect("every silent connection is closed");
    assert!(!node.output().contains("failed to accept"), "{}", node.output());
}

#[tokio::test]
async fn half_open_peers_do_not_disturb_a_link() {
    let cluster = Cluster::start(2).await;
    let peer = cluster[0].spec.peer;
    let node = &cluster[0];
    let half_open = async {
        let mut strangers = JoinSet::new();
        for number in 0..600u64 {
            let bytes = match number % 4 {
                // Not nothing at all: of a connection that the system drops from its queue such a client never hears.
                0 => b"P".to_vec(),
                1 => preface(&[]),
                _ => {
                    let block = header_block("POST", "/v1/link");
                    let request = frame(http2::HEADERS, http2::END_HEADERS, 1, &block);
                    let mut said = b"\0\0\0\x30mneme-1".to_vec();
                    said.extend_from_slice(&number.to_be_bytes());
                    said.push(u8::try_from(number % 3).expect("a lane"));
                    said.extend_from_slice(&[7; 32]);
                    if number % 4 == 3 {
                        // The proof: without a secret none is asked for.
                        said.extend_from_slice(&[0, 0, 0, 1, 0]);
                    }
                    [preface(&[]), request, frame(http2::DATA, 0, 1, &said)].concat()
                }
            };
            strangers.spawn(async move {
                let mut stream = TcpStream::connect(peer).await.expect("a connection");
                let _ = stream.write_all(&bytes).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
        while let Some(stranger) = strangers.join_next().await {
            stranger.expect("a stranger");
        }
    };
    let half_open = tokio::time::timeout(LIMIT, half_open);
    let ended = beside_a_client(node, "half-open peers", MEMORY_BYTES_MAX, half_open).await;
    ended.expect("every half-open connection is closed");
    assert_eq!(node.members_in_state("live").await, 1, "the link is up");
    let answer = node.put("after", "v").send().await.expect(201);
    assert_eq!(answer.required_header("mneme-acks"), "applied=2/2 durable=2/2");
}
