//! What a peer says that cannot be true.

use super::*;
use crate::message::{Heartbeat, TableInfo};

/// A replica with one write, its peer, and what a vector says that claims too much of it.
fn bench() -> (Bench, Bench, VersionVector) {
    let (mut bench, peer) = (Bench::sessions(), Bench::new(2, Vec::new(), true));
    bench.meet(&peer.replica);
    bench.one_if_local("a", put(b"v"));
    let mut vector = VersionVector::default();
    vector.insert(bench.replica.settings.origin, 2, START_MS);
    (bench, peer, vector)
}

#[test]
fn nobody_holds_more_of_this_node_than_it_wrote() {
    let (mut bench, peer, vector) = bench();
    let origin = bench.replica.settings.origin;
    let heartbeat = Heartbeat { applied: vector.clone(), ..Heartbeat::default() };
    let table = name("t");
    let lies = [
        Message::Ack { origin, applied: 2, durable: 0, refused_clock: false },
        Message::Ack { origin, applied: 0, durable: u64::MAX, refused_clock: false },
        Message::Heartbeat(Box::new(Heartbeat { durable: vector.clone(), ..Heartbeat::default() })),
        Message::Heartbeat(Box::new(heartbeat)),
        Message::Exchange { nonce: 1, vector: vector.clone(), approaches: 0 },
        Message::ExchangeReply { nonce: 1, is_counted: true, vector: vector.clone(), live: Vec::new() },
        Message::DeltaRequest { delta: 1, vector: vector.clone() },
        Message::DeltaPage { delta: 1, page: 0, rows: Vec::new(), vector: Some(vector.clone()) },
        Message::Digest { step: 1, vector: vector.clone(), tables: Vec::new() },
        Message::Bucket { step: 1, table, bucket: 0, vector, rows: Vec::new() },
    ];
    let count = lies.len() as u64;
    for lie in lies {
        bench.hear(&peer.replica, lie);
    }
    assert_eq!(bench.replica.counters.messages_refused, count);
    assert_eq!(bench.replica.vector().contiguous(origin), 1);
    // The next write waits for the peer all the same.
    let operations = vec![Operation { key: key("b"), action: put(b"v"), condition: Condition::Always }];
    bench.submit(Command::Apply { table: name("t"), operations, is_batch: false }, AckMode::All);
    assert_eq!(bench.replies, [], "nobody has said that it holds this one");
    let truth = Message::Ack { origin, applied: 2, durable: 2, refused_clock: false };
    bench.hear(&peer.replica, truth);
    assert!(matches!(bench.replies.pop(), Some(Outcome::Done { .. })));
    assert_eq!(bench.replica.counters.messages_refused, count);
}

#[test]
fn a_peer_pushes_its_own_writes_and_each_counts_once() {
    let (mut bench, mut peer, _) = bench();
    let third = Bench::new(3, vec![TableConfig::new(name("t"))], true);
    let mut there = Bench::new(2, vec![TableConfig::new(name("t"))], true);
    there.meet(&third.replica);
    there.one_if_local("theirs", put(b"v"));
    let writes = there.pushed();
    std::mem::swap(&mut peer.replica, &mut there.replica);
    let push = |writes: &[Arc<Write>]| Message::Push { writes: writes.to_vec() };
    bench.hear(&peer.replica, push(&writes));
    bench.hear(&peer.replica, push(&writes));
    let counters = bench.replica.counters;
    assert_eq!((counters.writes_pushed_here, counters.writes_repeated), (1, 1));
    // The same write under a stranger's name, and under this node's own.
    for origin in [third.replica.settings.origin, bench.replica.settings.origin] {
        let write = Write::new(crate::id::Dot { origin, sequence: 9 }, writes[0].rows.clone());
        bench.hear(&peer.replica, push(&[Arc::new(write)]));
        assert!(!bench.replica.vector().covers(crate::id::Dot { origin, sequence: 9 }));
    }
    let counters = bench.replica.counters;
    assert_eq!((counters.writes_pushed_here, counters.messages_refused), (1, 2));
}

#[test]
fn a_longest_life_beyond_all_stops_no_write() {
    // The codec takes none: this is what would become of one.
    let (mut bench, peer, _) = bench();
    let table = TableInfo { name: name("t"), kind: TableKind::Session, max_age_ever_ms: u64::MAX };
    let now_ms = START_MS + bench.ms;
    let clocks = Heartbeat { node_time_ms: now_ms, wall_time_ms: now_ms, ..Heartbeat::default() };
    let heartbeat = Heartbeat { tables: vec![table], ..clocks };
    bench.hear(&peer.replica, Message::Heartbeat(Box::new(heartbeat)));
    bench.one_if_local("a", Action::Delete);
    bench.pass(11_000);
    assert!(matches!(bench.read("a"), Lookup::Gone { .. }), "its tombstone stands");
}

#[test]
fn whoever_never_counts_on_this_node_is_asked_no_more_often_than_it_is_told_of_it() {
    let (mut bench, peer, _) = bench();
    bench.ms += 1_000;
    bench.tell(Event::Tick);
    let asked = |bench: &Bench| -> Vec<u64> {
        let nonce = |effect: &Effect| match effect {
            Effect::Send { message: Message::Exchange { nonce, .. }, .. } => Some(*nonce),
            _ => None,
        };
        bench.seen.iter().filter_map(nonce).collect()
    };
    let before = asked(&bench).len();
    for _ in 0..100 {
        let nonce = *asked(&bench).last().expect("it was frozen and asks");
        let vector = VersionVector::default();
        bench.hear(
            &peer.replica,
            Message::ExchangeReply { nonce, is_counted: false, vector, live: Vec::new() },
        );
    }
    let often = asked(&bench).len() - before;
    assert!((1..10).contains(&often), "{often}");
}
