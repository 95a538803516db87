//! Peers that lie: refused, counted, nothing changed, and the node goes on with its honest peer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mneme_api::{Key, TableKind};
use mneme_replica::id::{Dot, KeyHash, NodeId, Origin};
use mneme_replica::message::{Heartbeat, Lane, Message, Refusal, TableInfo};
use mneme_replica::record::{Body, Record, Row, Subject, TouchRegister, Value, ValueRegister, Write};
use mneme_replica::version::{Stamp, Version};
use mneme_replica::version_vector::VersionVector;
use mneme_tests::cluster::Cluster;
use mneme_tests::liar::{Liar, Link, Taken};
use mneme_tests::node::Node;
use mneme_tests::wait::{wait_for, wait_until};

/// The line of the cluster's secret.
const SECRET: &str = "the secret of these tests";
/// Longer than any promise of the product.
const SOON: Duration = Duration::from_secs(20);
/// The refused, from handshakes on.
const REFUSALS: &str = "mneme_link_refusals_total";
/// Messages that cannot be read, and those that cannot be true.
const UNREADABLE: &str = "mneme_messages_unreadable_total";
const REFUSED: &str = "mneme_messages_refused_total";

/// Two honest nodes with some records. The first is lied to.
async fn honest() -> Cluster {
    let directory = Cluster::empty();
    let secret = directory.write_file("secret", SECRET);
    let flag = format!("--cluster-secret-file={}", secret.display());
    let cluster = Cluster::start_with(2, &[&flag]).await;
    for number in 0..20 {
        cluster[0].put(&format!("user/{number}/session"), "v").send().await.expect(201);
    }
    cluster[0].delete("user/0/session").send().await.expect(204);
    cluster
}

async fn counter(node: &Node, name: &str) -> u64 {
    let metrics = node.metrics().await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no counter {name} in {metrics}"))
}

/// Everything that is readable, and what is known to be deleted, once the node serves.
async fn held(node: &Node) -> String {
    let listed = wait_for(SOON, "the node serves", async || {
        let answer = node.get("/v1/tables/sessions/records?limit=1000&values=true").await;
        (answer.code() == 200).then(|| answer.json())
    })
    .await;
    let records = listed["records"].as_array().expect("a list").iter();
    let records: Vec<String> =
        records.map(|record| format!("{} {} {}", record["key"], record["etag"], record["value"])).collect();
    let status = node.status().await;
    let table = &status["tables"][0];
    format!("{} live, {} tombstones: {records:?}", table["live"], table["tombstones"])
}

/// Checks that both nodes hold the same as before, and still work with each other.
async fn assert_unchanged(cluster: &Cluster, what: &str, before: &str, writes: &mut u32) {
    for node in cluster.nodes() {
        assert_eq!(held(node).await, before, "{what}: {}", node.spec.name);
    }
    *writes += 1;
    let key = format!("after/{writes}");
    let (one, other) = (&cluster[0], &cluster[1]);
    wait_until(SOON, &format!("{what}: writes are held by both"), async || {
        let answer = one.put(&key, "v").send().await;
        matches!(answer.code(), 201 | 204)
            && answer.header("mneme-acks").is_some_and(|acks| acks.starts_with("applied=2/"))
    })
    .await;
    wait_until(SOON, &format!("{what}: the other serves"), async || other.read_status(&key).await == 200)
        .await;
    // As it was, but for the grave.
    one.client("POST", format!("/v1/tables/sessions/touch/{key}?ttl=1ms&exact=true"))
        .send()
        .await
        .expect(204);
    for node in cluster.nodes() {
        wait_until(SOON, "the record has expired", async || held(node).await == before).await;
    }
}

/// What is wrong, who says it, and whether a refusal names it.
type Case = (&'static str, Liar, fn(&Refusal) -> bool);

#[tokio::test]
async fn who_cannot_be_a_member_is_refused_and_counted() {
    let cluster = honest().await;
    let (node, peer) = (&cluster[0], cluster[0].spec.peer);
    let before = held(node).await;
    let mut refusals = counter(node, REFUSALS).await;
    let member = || Liar::new(77, SECRET);
    let with = |change: fn(&mut Liar)| {
        let mut liar = member();
        change(&mut liar);
        liar
    };
    let taken_for =
        |node: &str| Origin { node: NodeId::new(u64::from_str_radix(node, 16).expect("an id")), epoch: 1 };
    let double = {
        let mut liar = member();
        liar.hello.origin = taken_for(&cluster[1].node_id().await);
        liar
    };
    let cases: [Case; 5] = [
        ("a protocol of the future", with(|liar| liar.hello.protocol = (2, 9)), |refusal| {
            matches!(refusal, Refusal::Protocol { .. })
        }),
        ("a protocol of the past", with(|liar| liar.hello.protocol = (0, 0)), |refusal| {
            matches!(refusal, Refusal::Protocol { .. })
        }),
        ("another cluster", with(|liar| liar.hello.cluster = "other".to_owned()), |refusal| {
            matches!(refusal, Refusal::Cluster { .. })
        }),
        (
            "another kind of a table",
            with(|liar| {
                let name = "sessions".parse().expect("a name");
                liar.hello.tables = vec![TableInfo { name, kind: TableKind::Cache, max_age_ever_ms: 1 }];
            }),
            |refusal| matches!(refusal, Refusal::TableKind { .. }),
        ),
        ("the id of a live node", double, |refusal| matches!(refusal, Refusal::Predecessor { .. })),
    ];
    for (what, liar, is_it) in cases {
        match liar.greet(peer).await {
            Taken::Refused(refusal) => assert!(is_it(&refusal), "{what}: {refusal}"),
            taken => panic!("{what}: {taken:?}"),
        }
        refusals += 1;
        assert_eq!(counter(node, REFUSALS).await, refusals, "{what}");
    }
    for (what, liar) in [
        ("another secret", with(|liar| liar.secret = Some("another".to_owned()))),
        ("no secret", with(|liar| liar.secret = None)),
    ] {
        assert!(matches!(liar.greet(peer).await, Taken::Secret | Taken::Closed), "{what}");
        // Each of its connections by itself, those that it gave up after the first word perhaps not.
        wait_until(SOON, what, async || counter(node, REFUSALS).await > refusals).await;
        refusals = counter(node, REFUSALS).await;
    }
    let members = node.status().await["members"].as_array().map(Vec::len);
    assert_eq!(members, Some(2), "nobody became a member");
    let mut writes = 0;
    assert_unchanged(&cluster, "refused handshakes", &before, &mut writes).await;
}

#[tokio::test]
async fn a_proof_that_was_heard_is_good_for_nothing() {
    let cluster = honest().await;
    let (node, peer) = (&cluster[0], cluster[0].spec.peer);
    let liar = Liar::new(78, SECRET);
    let Taken::Linked(link) = liar.greet(peer).await else { panic!("a member is taken") };
    let replayed = Some(link.spoken.clone());
    drop(link);
    let before = counter(node, REFUSALS).await;
    let again = Liar { replayed, ..liar };
    assert!(matches!(again.greet(peer).await, Taken::Secret | Taken::Closed));
    wait_until(SOON, "it is counted", async || counter(node, REFUSALS).await > before).await;
}

#[tokio::test]
async fn a_handshake_that_is_none_is_refused_and_counted() {
    let cluster = honest().await;
    let (node, peer) = (&cluster[0], cluster[0].spec.peer);
    let preface = |magic: &[u8], lane: u8| [magic, &[0; 8], &[lane], &[7; 32]].concat();
    let framed = |bytes: &[u8]| [&u32::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat();
    let good = framed(&preface(b"mneme-1", 1));
    for (what, bytes) in [
        ("another protocol", framed(&preface(b"mneme-9", 1))),
        ("a lane that there is not", framed(&preface(b"mneme-1", 3))),
        ("an empty frame", framed(&[])),
        ("a short preface", framed(b"mneme-1")),
        ("a frame too long for a stranger", (65_537u32).to_be_bytes().to_vec()),
        ("an empty proof", [&good[..], &framed(&[])].concat()),
        ("half a proof", [&good[..], &framed(&[1, 2, 3])].concat()),
    ] {
        let before = counter(node, REFUSALS).await;
        mneme_tests::liar::say(peer, bytes.into()).await;
        wait_until(SOON, what, async || counter(node, REFUSALS).await == before + 1).await;
    }
    assert_eq!(node.members_in_state("live").await, 1);
}

/// The liar and what it makes.
struct Forger {
    origin: Origin,
    now_ms: u64,
}

impl Forger {
    fn dot(&self, sequence: u64) -> Dot {
        Dot { origin: self.origin, sequence }
    }

    /// A row of the table `carts`, which nobody declared: what it says is seen nowhere else.
    fn row(&self, key: &str, value: &str, sequence: u64, at_ms: u64) -> Row {
        let key = Key::from_path(key).expect("a key");
        let version = Version { stamp: Stamp::at(at_ms), origin: self.origin };
        let value = ValueRegister {
            version,
            sequence,
            absolute_deadline_ms: at_ms + 3_600_000,
            bury_until_ms: 0,
            body: Body::Live(Value::new("text/plain", value.as_bytes())),
            unknown: None,
        };
        let touch =
            TouchRegister { base: version, idle_deadline_ms: at_ms + 3_600_000, dot: self.dot(sequence) };
        let hash = KeyHash::of(&key);
        let record = Record { value: Some(value), touch: Some(touch) };
        let table = "sessions".parse().expect("a name");
        Row { table, kind: TableKind::Session, subject: Subject::Key(key), hash, record }
    }

    fn push(&self, origin: Origin, sequence: u64, row: Row) -> Message {
        let write = Write::new(Dot { origin, sequence }, vec![row]);
        Message::Push { writes: vec![Arc::new(write)] }
    }

    fn heartbeat(&self, applied: VersionVector, time_ms: u64) -> Message {
        Message::Heartbeat(Box::new(Heartbeat {
            durable: applied.clone(),
            applied,
            node_time_ms: time_ms,
            wall_time_ms: time_ms,
            is_ready: true,
            ..Heartbeat::default()
        }))
    }
}

fn vector(entries: &[(Origin, u64)], now_ms: u64) -> VersionVector {
    let mut vector = VersionVector::default();
    entries.iter().for_each(|(origin, sequence)| vector.insert(*origin, *sequence, now_ms));
    vector
}

/// Links a liar; the process is the same each time, so that nobody takes it for a successor.
async fn link(node: &Node) -> Link {
    match Liar::new(79, SECRET).greet(node.spec.peer).await {
        Taken::Linked(link) => *link,
        taken => panic!("a member is taken: {taken:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_read_ends_the_link_and_is_counted() {
    let cluster = honest().await;
    let node = &cluster[0];
    let before = held(node).await;
    let forger = Forger { origin: Origin { node: NodeId::new(79), epoch: 79 }, now_ms: now_ms() };
    let encoded = |message: &Message| {
        let mut bytes = Vec::new();
        mneme_replica::codec::encode_message(message, &mut bytes);
        bytes
    };
    let push = encoded(&forger.push(forger.origin, 1, forger.row("lie", "v", 1, forger.now_ms)));
    let framed = |bytes: &[u8]| [&u32::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat();
    let no_deadline = {
        let mut row = forger.row("lie", "v", 1, forger.now_ms);
        row.record.touch.iter_mut().for_each(|touch| touch.idle_deadline_ms = u64::MAX);
        encoded(&forger.push(forger.origin, 1, row))
    };
    let cases: [(&str, Vec<u8>); 8] = [
        ("a message that there is not", framed(&[0x82, 0x18, 99, 0])),
        ("a message cut short", framed(&push[..push.len() - 3])),
        ("bytes behind a message", framed(&[&push[..], &[0]].concat())),
        ("an empty frame", framed(&[])),
        ("what is no CBOR", framed(b"GET / HTTP/1.1")),
        ("more rows than there are bytes", framed(&[0x82, 0, 0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0])),
        ("a frame longer than any", ((64u32 << 20) + 1).to_be_bytes().to_vec()),
        ("a deadline beyond all", framed(&no_deadline)),
    ];
    for (what, bytes) in cases {
        let counted = counter(node, UNREADABLE).await;
        let link = link(node).await;
        link.send_bytes(Lane::Push, Bytes::from(bytes));
        link.wait_closed().await;
        wait_until(SOON, what, async || counter(node, UNREADABLE).await == counted + 1).await;
    }
    let mut writes = 0;
    assert_unchanged(&cluster, "unreadable messages", &before, &mut writes).await;
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("a while yet")
}

#[tokio::test]
async fn what_cannot_be_true_is_refused_counted_and_changes_nothing() {
    let cluster = honest().await;
    let node = &cluster[0];
    let before = held(node).await;
    let mut writes = 0;
    let forger = Forger { origin: Origin { node: NodeId::new(79), epoch: 79 }, now_ms: now_ms() };
    let (mine, day_ms) = (forger.origin, 24 * 3_600_000);
    let first = link(node).await;
    let (theirs, now_ms) = (first.hello.origin, forger.now_ms);
    drop(first);
    let other = Origin { node: NodeId::new(1), epoch: 1 };
    let lie = |at_ms| forger.row("lie", "v", 1, at_ms);
    // Each with the counter that counts it.
    let cases: Vec<(&str, Vec<Message>, &str)> = vec![
        (
            "a version of tomorrow",
            vec![forger.push(mine, 1, lie(now_ms + day_ms))],
            "mneme_clock_refusals_total",
        ),
        ("a write of another node", vec![forger.push(other, 1, lie(now_ms))], REFUSED),
        ("a write of the node itself", vec![forger.push(theirs, 900, lie(now_ms))], REFUSED),
        (
            "more acknowledged than was written",
            vec![Message::Ack { origin: theirs, applied: 1 << 40, durable: 1 << 40, refused_clock: false }],
            REFUSED,
        ),
        (
            "a heartbeat that holds more than was written",
            vec![forger.heartbeat(vector(&[(theirs, 1 << 40)], now_ms), now_ms)],
            REFUSED,
        ),
        (
            "a delta that claims what was never written",
            vec![Message::DeltaPage {
                delta: 1,
                page: 0,
                rows: Vec::new(),
                vector: Some(vector(&[(theirs, u64::MAX)], now_ms)),
            }],
            REFUSED,
        ),
        (
            "an answer nobody asked for",
            vec![Message::ExchangeReply {
                is_counted: true,
                nonce: 1,
                vector: vector(&[(theirs, u64::MAX)], now_ms),
                live: Vec::new(),
            }],
            REFUSED,
        ),
    ];
    for (what, messages, name) in cases {
        let counted = counter(node, name).await;
        let link = link(node).await;
        messages.iter().for_each(|message| link.send(message));
        wait_until(SOON, what, async || counter(node, name).await > counted).await;
        drop(link);
    }
    assert_unchanged(&cluster, "what cannot be true", &before, &mut writes).await;

    // Claims of its own that it never makes good: asked for, and not believed.
    let asked = counter(node, "mneme_deltas_asked_total").await;
    let mut liar = link(node).await;
    liar.send(&forger.heartbeat(vector(&[(mine, 500)], now_ms), now_ms));
    let delta = async {
        // Ahead for half a second: a liar has to repeat itself.
        loop {
            liar.send(&forger.heartbeat(vector(&[(mine, 500)], now_ms), now_ms));
            let waiting = liar.wait_for(Lane::Bulk, |message| match message {
                Message::DeltaRequest { delta, .. } => Some(*delta),
                _ => None,
            });
            if let Ok(delta) = tokio::time::timeout(Duration::from_millis(200), waiting).await {
                return delta;
            }
        }
    };
    let delta = tokio::time::timeout(SOON, delta).await.expect("the node asks for what it lacks");
    assert!(counter(node, "mneme_deltas_asked_total").await > asked);
    liar.send(&Message::DeltaRefused { delta });
    drop(liar);
    assert_unchanged(&cluster, "claims that are not made good", &before, &mut writes).await;

    // A clock of tomorrow is said to be so, and followed by nobody.
    let liar = link(node).await;
    liar.send(&forger.heartbeat(VersionVector::default(), now_ms + day_ms));
    let skew = wait_for(SOON, "the skew is seen", async || {
        let status = node.status().await;
        let members = status["members"].as_array().expect("members").clone();
        members.iter().filter_map(|member| member["skewMs"].as_i64()).find(|skew| *skew > 1_000_000)
    })
    .await;
    assert!(skew > 80_000_000, "{skew}");
    drop(liar);
    let time_ms = node.status().await["time"].to_string();
    println!("the node's time after a clock of tomorrow: {time_ms}");
    assert_unchanged(&cluster, "a clock of tomorrow", &before, &mut writes).await;
}

#[tokio::test]
async fn writes_out_of_order_and_repeated_count_once() {
    let cluster = honest().await;
    let node = &cluster[0];
    let forger = Forger { origin: Origin { node: NodeId::new(79), epoch: 79 }, now_ms: now_ms() };
    let mut liar = link(node).await;
    let push = |sequence: u64, value: &str| {
        let row = forger.row(&format!("of/{sequence}"), value, sequence, forger.now_ms);
        forger.push(forger.origin, sequence, row)
    };
    let merged = counter(node, "mneme_writes_merged_total").await;
    // Backwards, and each twice, the second time with another value.
    for sequence in [3, 2, 1] {
        liar.send(&push(sequence, "first"));
        liar.send(&push(sequence, "second"));
    }
    let applied = liar
        .wait_for(Lane::Push, |message| match message {
            Message::Ack { applied, .. } if *applied > 0 => Some(*applied),
            _ => None,
        })
        .await;
    assert_eq!(applied, 3, "nothing is claimed over a gap: the first claim is of all three");
    // Whatever was said for the second time was not heard.
    wait_until(SOON, "all is in", async || counter(node, "mneme_writes_merged_total").await == merged + 3)
        .await;
    assert_eq!(counter(node, "mneme_writes_repeated_total").await, 3);
    drop(liar);
    for sequence in [1, 2, 3] {
        let key = format!("of/{sequence}");
        for node in cluster.nodes() {
            wait_until(SOON, "the node serves", async || node.read_status(&key).await == 200).await;
            node.assert_value(&key, "first").await;
        }
    }
}
