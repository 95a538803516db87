//! Deltas: whole batches, whatever is written or refused meanwhile; what is asked for again.

use super::*;

/// A page takes two of these.
static LARGE: [u8; 200_000] = [7; 200_000];

/// What was sent last of what `pick` takes.
fn last_sent<T>(bench: &Bench, pick: impl Fn(&Message) -> Option<T>) -> T {
    let sent = bench.seen.iter().rev().find_map(|effect| match effect {
        Effect::Send { message, .. } => pick(message),
        _ => None,
    });
    sent.expect("it was sent")
}

fn number_of_delta(bench: &Bench) -> u64 {
    last_sent(bench, |message| match message {
        Message::DeltaRequest { delta, .. } => Some(*delta),
        _ => None,
    })
}

/// The page that was given last.
fn last_page(bench: &Bench) -> Message {
    last_sent(bench, |message| matches!(message, Message::DeltaPage { .. }).then(|| message.clone()))
}

fn last_exchange(bench: &Bench) -> Message {
    last_sent(bench, |message| matches!(message, Message::Exchange { .. }).then(|| message.clone()))
}

fn batch(paths: &[&str], bytes: &[u8]) -> Vec<Operation> {
    let operation =
        |path: &&str| Operation { key: key(path), action: put(bytes), condition: Condition::Always };
    paths.iter().map(operation).collect()
}

fn local(bench: &mut Bench, operations: Vec<Operation>) {
    let is_batch = operations.len() > 1;
    bench.submit(Command::Apply { table: name("t"), operations, is_batch }, AckMode::Local);
    bench.replies.pop();
}

#[test]
fn a_batch_written_while_a_delta_is_given_arrives_whole() {
    let (mut donor, asker) = (Bench::sessions(), Bench::new(2, vec![TableConfig::new(name("t"))], true));
    let paths = ["a", "b", "c", "d", "e", "f", "g", "h"];
    paths.iter().for_each(|path| drop(donor.one(path, put(&LARGE))));
    donor.meet(&asker.replica);
    donor.hear(&asker.replica, Message::DeltaRequest { delta: 5, vector: VersionVector::default() });
    let mut rows = Vec::new();
    let mut pages = 1;
    loop {
        let Message::DeltaPage { rows: page, vector, .. } = last_page(&donor) else { panic!("no page") };
        rows.extend(page);
        if vector.is_some() {
            break;
        }
        if pages == 2 {
            // Some of these have been sent as they were, the others have not.
            local(&mut donor, batch(&paths, b"new"));
        }
        donor.hear(&asker.replica, Message::DeltaNext { delta: 5, page: pages });
        pages += 1;
    }
    assert!(pages > 2, "several pages");
    for path in paths {
        let sent = rows.iter().filter(|row| row.hash == KeyHash::of(&key(path)));
        let newest = sent.filter_map(|row| Some(row.record.live()?.1.bytes().to_vec())).next_back();
        assert_eq!(newest.as_deref(), Some(&b"new"[..]), "{path}");
    }
}

#[test]
fn of_a_write_that_is_refused_in_a_delta_nothing_is_taken() {
    let mut circle = Circle::new(&[0, 3_000]);
    // One write: an old session goes, a new one comes.
    let operations = vec![
        Operation { key: key("old"), action: Action::Delete, condition: Condition::Always },
        Operation { key: key("new"), action: put(b"v"), condition: Condition::Always },
    ];
    circle.0[0].one("old", put(b"v"));
    local(&mut circle.0[1], operations);
    circle.meet();
    circle.pass(100);
    assert!(matches!(circle.0[0].read("new"), Lookup::Absent { .. }), "ahead");
    assert!(matches!(circle.0[0].read("old"), Lookup::Found(_)), "nor is the old one gone");
}

#[test]
fn nothing_is_served_while_a_large_delta_is_staged() {
    let (mut bench, peer) = (Bench::sessions(), Bench::new(2, vec![TableConfig::new(name("t"))], true));
    bench.meet(&peer.replica);
    let gate = bench.replica.gate();
    assert!(gate.check(1_000 + bench.ms).is_some());
    let mut ahead = VersionVector::default();
    ahead.insert(peer.replica.settings.origin, 400, START_MS);
    let heartbeat = crate::message::Heartbeat {
        applied: ahead.clone(),
        node_time_ms: START_MS + bench.ms,
        wall_time_ms: START_MS + bench.ms,
        ..Default::default()
    };
    for _ in 0..12 {
        bench.hear(&peer.replica, Message::Heartbeat(Box::new(heartbeat.clone())));
        bench.pass(50);
    }
    let delta = number_of_delta(&bench);
    assert!(gate.check(1_000 + bench.ms).is_some(), "a small delta holds nobody up");
    let row = |number: u64| {
        let version = crate::version::Version {
            stamp: crate::version::Stamp::at(START_MS),
            origin: peer.replica.settings.origin,
        };
        let value = crate::record::ValueRegister {
            version,
            sequence: number,
            absolute_deadline_ms: START_MS + 60 * MINUTE_MS,
            bury_until_ms: 0,
            body: crate::record::Body::Live(Value::new("", &LARGE)),
            unknown: None,
        };
        let touch = crate::record::TouchRegister {
            base: version,
            idle_deadline_ms: START_MS + 60 * MINUTE_MS,
            dot: value.dot(),
        };
        let key = key(&number.to_string());
        let (hash, kind) = (KeyHash::of(&key), TableKind::Session);
        let record = crate::record::Record { value: Some(value), touch: Some(touch) };
        Row { table: name("t"), kind, subject: crate::record::Subject::Key(key), hash, record }
    };
    for page in 0..20 {
        let rows = (page * 20 + 1..=page * 20 + 20).map(row).collect();
        let vector = (page == 19).then(|| ahead.clone());
        bench.hear(&peer.replica, Message::DeltaPage { delta, page, rows, vector });
        let is_serving = gate.check(1_000 + bench.ms).is_some();
        // 17 pages of 4 MB are beyond 64 MiB.
        assert_eq!(is_serving, page < 16 || page == 19, "page {page}");
    }
    assert!(matches!(bench.read("400"), Lookup::Found(_)));
}

#[test]
fn an_exchange_may_take_longer_than_the_pause_after_which_it_is_repeated() {
    let (mut bench, peer) = (Bench::sessions(), Bench::new(2, Vec::new(), true));
    bench.tell(Event::Greeted { connection: ConnectionId(1), hello: peer.replica.hello(), dialled: None });
    let gate = bench.replica.gate();
    bench.pass(50);
    let nonces = |bench: &Bench| -> Vec<u64> {
        let nonce = |effect: &Effect| match effect {
            Effect::Send { message: Message::Exchange { nonce, .. }, .. } => Some(*nonce),
            _ => None,
        };
        bench.seen.iter().filter_map(nonce).collect()
    };
    let first = nonces(&bench)[0];
    bench.pass(600);
    assert!(nonces(&bench).len() > 1, "asked again");
    let vector = VersionVector::default();
    bench.hear(
        &peer.replica,
        Message::ExchangeReply { nonce: first, is_counted: true, vector, live: Vec::new() },
    );
    assert!(gate.check(1_000 + bench.ms).is_some());
}

#[test]
fn what_was_held_beyond_a_gap_when_the_volume_was_full_gets_on_disk() {
    let (mut a, mut b) = (Bench::sessions(), Bench::new(2, vec![TableConfig::new(name("t"))], true));
    a.meet(&b.replica);
    b.meet(&a.replica);
    for path in ["1", "2", "3", "4"] {
        a.one_if_local(path, put(b"v"));
    }
    let peer = b.replica.settings.origin.node;
    for _ in 0..4 {
        a.tell(Event::PushesTaken { peer, count: 1 });
    }
    let writes = a.pushed();
    let origin = a.replica.settings.origin;
    b.disk_works = false;
    // The second is late.
    b.hear(&a.replica, Message::Push { writes: vec![writes[0].clone(), writes[2].clone()] });
    b.tell(Event::PersistFailed { through: 0 });
    b.disk_works = true;
    for _ in 0..30 {
        b.pass(50);
        b.hear(&a.replica, Message::DeltaRefused { delta: 99 });
    }
    assert!(b.replica.full_volume.is_none(), "there is space again");
    b.hear(&a.replica, Message::Push { writes: writes[1..].to_vec() });
    assert_eq!(b.replica.applied.contiguous(origin), 4);
    assert_eq!(b.replica.durable.contiguous(origin), 4);
}

/// A replica with a record, and an empty one that has asked it for an exchange and is not counted on.
fn far_apart() -> (Bench, Bench) {
    let (mut full, mut empty) = (Bench::sessions(), Bench::new(2, vec![TableConfig::new(name("t"))], true));
    full.one("old", put_for(MINUTE_MS));
    let hellos = [&empty, &full].map(|bench| bench.replica.hello());
    for (bench, hello) in [&mut full, &mut empty].into_iter().zip(hellos) {
        bench.tell(Event::Greeted { connection: ConnectionId(1), hello, dialled: None });
    }
    let asked = last_exchange(&empty);
    assert!(matches!(asked, Message::Exchange { approaches: 0, .. }));
    full.hear(&empty.replica, asked);
    let Message::Exchange { nonce, .. } = last_exchange(&full) else { panic!("it asks back") };
    let vector = VersionVector::default();
    full.hear(&empty.replica, Message::ExchangeReply { nonce, is_counted: true, vector, live: Vec::new() });
    let is_reply = |message: &Message| matches!(message, Message::ExchangeReply { .. });
    let reply = last_sent(&full, |message| is_reply(message).then(|| message.clone()));
    assert!(matches!(reply, Message::ExchangeReply { is_counted: false, .. }), "{reply:?}");
    empty.hear(&full.replica, reply);
    (full, empty)
}

/// Brings the empty one everything by a delta, which its disk does not take in.
fn bring(full: &mut Bench, empty: &mut Bench) {
    let delta = number_of_delta(empty);
    full.hear(&empty.replica, Message::DeltaRequest { delta, vector: VersionVector::default() });
    empty.disk_works = false;
    for page in 1..=2 {
        empty.hear(&full.replica, last_page(full));
        full.hear(&empty.replica, Message::DeltaNext { delta, page });
    }
}

#[test]
fn writes_do_not_wait_while_an_empty_member_is_brought_what_there_is() {
    let (mut full, mut empty) = far_apart();
    full.one("new", put_for(MINUTE_MS));
    assert!(!empty.replica.is_ready());
    bring(&mut full, &mut empty);
    assert!(matches!(empty.read("new"), Lookup::Found(_)));
    // Of two nodes both disks are waited for: it asks when its own has done with what was brought.
    empty.pass(200);
    assert!(matches!(last_exchange(&empty), Message::Exchange { approaches: 0, .. }));
    let through = empty.replica.persist_number();
    empty.tell(Event::Persisted { through });
    empty.disk_works = true;
    // It may still lack a write, so it serves when it is counted on.
    assert!(!empty.replica.is_ready());
    let asked = last_exchange(&empty);
    assert!(matches!(asked, Message::Exchange { approaches: 1, .. }));
    full.one("newer", put_for(MINUTE_MS));
    // What is under way to it is not waited for by a delta; what was lost on the way is.
    let answers = |bench: &Bench| -> Vec<bool> {
        let is_counted = |effect: &Effect| match effect {
            Effect::Send { message: Message::ExchangeReply { is_counted, .. }, .. } => Some(*is_counted),
            _ => None,
        };
        bench.seen.iter().filter_map(is_counted).collect()
    };
    let peer = empty.replica.settings.origin.node;
    full.tell(Event::LinkDown { peer, lane: Lane::Push });
    full.hear(&empty.replica, asked.clone());
    assert_eq!(answers(&full), [false, false]);
    let Message::Exchange { nonce, mut vector, approaches } = asked else { unreachable!("matched above") };
    vector.insert(full.replica.settings.origin, 3, START_MS);
    full.one("under way", put_for(MINUTE_MS));
    full.hear(&empty.replica, Message::Exchange { nonce, vector, approaches });
    assert_eq!(answers(&full), [false, false, true]);
    let operations = batch(&["newest"], b"v");
    full.submit(Command::Apply { table: name("t"), operations, is_batch: false }, AckMode::All);
    assert_eq!(full.replies, [], "it is waited for now");
}

#[test]
fn records_are_not_asked_for_one_by_one_while_a_delta_brings_them() {
    let (mut full, mut empty) = far_apart();
    full.one("old", touch(30 * MINUTE_MS, true));
    let touched = full.pushed().pop().expect("a touch");
    empty.hear(&full.replica, Message::Push { writes: vec![touched.clone()] });
    let asks = |bench: &Bench| {
        let is_asked =
            |effect: &&Effect| matches!(effect, Effect::Send { message: Message::NeedRecords { .. }, .. });
        bench.seen.iter().filter(is_asked).count()
    };
    empty.pass(500);
    assert_eq!(asks(&empty), 0, "no write waits for it");
    // It did not run for a while, asks again, and hears that writes do.
    empty.ms += 1_000;
    empty.tell(Event::Tick);
    let Message::Exchange { nonce, .. } = last_exchange(&empty) else { unreachable!("it was asked") };
    let vector = full.replica.vector();
    empty.hear(&full.replica, Message::ExchangeReply { nonce, is_counted: true, vector, live: Vec::new() });
    empty.pass(100);
    assert_eq!(asks(&empty), 1);
}

#[test]
fn a_write_after_two_gaps_is_claimed_when_they_are_closed() {
    let (mut a, mut b) = (Bench::sessions(), Bench::new(2, vec![TableConfig::new(name("t"))], true));
    a.meet(&b.replica);
    b.meet(&a.replica);
    let peer = b.replica.settings.origin.node;
    for path in ["1", "2", "3", "4"] {
        a.one_if_local(path, put(b"v"));
        a.tell(Event::PushesTaken { peer, count: 1 });
    }
    let writes = a.pushed();
    let origin = a.replica.settings.origin;
    for (write, held) in [(1, 0), (3, 0), (0, 2), (2, 4)] {
        b.hear(&a.replica, Message::Push { writes: vec![writes[write].clone()] });
        assert_eq!(b.replica.applied.contiguous(origin), held);
    }
    // Nothing closes a gap: what is there is merged all the same.
    a.one_if_local("5", put(b"v"));
    for path in ["6", "7", "8"] {
        a.one_if_local(path, put(b"v"));
        a.tell(Event::PushesTaken { peer, count: 1 });
    }
    for write in [5, 7] {
        b.hear(&a.replica, Message::Push { writes: vec![a.pushed()[write].clone()] });
    }
    assert!(!matches!(b.read("8"), Lookup::Found(_)));
    b.pass(150);
    assert!(matches!(b.read("8"), Lookup::Found(_)));
    assert_eq!(b.replica.applied.contiguous(origin), 4);
}

#[test]
fn an_empty_member_is_brought_everything_by_one() {
    let mut circle = Circle::new(&[0, 0]);
    circle.meet();
    circle.pass(600);
    for path in ["a", "b", "c"] {
        circle.put(0, path);
    }
    let mut third = Bench::new(3, vec![TableConfig::new(name("t"))], false);
    third.pass(circle.0[0].ms - third.ms);
    circle.0.push(third);
    circle.meet();
    circle.pass(1_000);
    assert!(circle.is_serving(2));
    assert_eq!(circle.0[2].replica.counters.deltas_asked, 1);
}

#[test]
fn a_disk_that_takes_very_long_with_a_delta_holds_nothing_up() {
    let (mut full, mut empty) = far_apart();
    bring(&mut full, &mut empty);
    for _ in 0..5 {
        empty.pass(250);
        let heartbeat = crate::message::Heartbeat::default();
        empty.hear(&full.replica, Message::Heartbeat(Box::new(heartbeat)));
    }
    // Everybody has been told by then that it does not commit.
    assert!(empty.replica.is_commit_stalled());
    assert!(matches!(last_exchange(&empty), Message::Exchange { approaches: 1, .. }));
}
