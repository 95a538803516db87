//! Peers: who is waited for, who is refused, when this replica serves.

use super::*;

#[test]
fn a_write_waits_for_every_live_member_and_lets_go_of_a_silent_one() {
    let (mut bench, peer) = (Bench::sessions(), Bench::new(2, Vec::new(), true));
    bench.meet(&peer.replica);
    let operations = vec![Operation { key: key("a"), action: put(b"v"), condition: Condition::Always }];
    let command = Command::Apply { table: name("t"), operations, is_batch: false };
    bench.submit(command.clone(), AckMode::All);
    assert_eq!(bench.replies, [], "nobody else has it");
    let origin = bench.replica.settings.origin;
    bench.hear(&peer.replica, Message::Ack { origin, applied: 1, durable: 0, refused_clock: false });
    assert_eq!(bench.replies, [], "one disk of two is no majority");
    bench.hear(&peer.replica, Message::Ack { origin, applied: 1, durable: 1, refused_clock: false });
    let Some(Outcome::Done { acks, .. }) = bench.replies.pop() else { panic!("not acknowledged") };
    assert_eq!((acks.applied, acks.durable, acks.members), (2, 2, 2));
    bench.submit(command, AckMode::All);
    bench.pass(900);
    assert_eq!(bench.replies, [], "not yet suspect");
    bench.pass(300);
    let Some(Outcome::Done { acks, .. }) = bench.replies.pop() else { panic!("still waiting") };
    assert_eq!((acks.applied, acks.members), (1, 2), "of the known members, not only the live ones");
}

#[test]
fn a_write_waits_for_the_disks_of_its_writer_and_of_those_that_follow_it() {
    let mut circle = Circle::new(&[0, 0, 0]);
    circle.meet();
    circle.pass(600);
    let begun_ms = circle.0[0].ms;
    for (writer, spared) in [(0, 2), (1, 0), (2, 1)] {
        circle.0[spared].disk_works = false;
        let Outcome::Done { acks, .. } = circle.put(writer, "a") else { panic!("not acknowledged") };
        assert_eq!((acks.applied, acks.durable), (3, 2), "{writer}");
        assert_eq!(circle.0[0].ms, begun_ms, "{writer}: it did not wait for a tick");
        circle.0[spared].disk_works = true;
        let through = circle.0[spared].replica.persist_number();
        circle.0[spared].tell(Event::Persisted { through });
        circle.carry();
    }
    let awaited = |circle: &Circle, index: usize| {
        let replica = &circle.0[index].replica;
        [1, 2, 3].map(|writer| replica.is_awaited_here(NodeId::new(writer)))
    };
    assert_eq!(awaited(&circle, 2), [false, true, true]);
    // Of two both count.
    circle.0.remove(1);
    circle.pass(2_000);
    assert_eq!(awaited(&circle, 1), [true, true, true]);
    // A disk that is at work takes whatever comes.
    let mut circle = Circle::new(&[0, 0, 0]);
    circle.meet();
    circle.pass(600);
    circle.0[2].disk_works = false;
    circle.put(1, "b");
    assert_eq!(awaited(&circle, 2), [true, true, true]);
}

#[test]
fn of_five_disks_two_follow_the_writer() {
    let mut circle = Circle::new(&[0; 5]);
    circle.meet();
    circle.pass(600);
    let awaited = |index: usize| circle.0[index].replica.is_awaited_here(NodeId::new(4));
    assert_eq!([0, 1, 2, 4].map(awaited), [true, false, false, true]);
}

#[test]
fn those_whose_disks_are_waited_for_are_told_first() {
    let mut circle = Circle::new(&[0, 0, 0]);
    circle.meet();
    circle.pass(600);
    for (writer, order) in [(0, [2, 3]), (1, [3, 1]), (2, [1, 2])] {
        let operations = vec![Operation { key: key("a"), action: put(b"v"), condition: Condition::Always }];
        let command = Command::Apply { table: name("t"), operations, is_batch: false };
        circle.0[writer].submit(command, AckMode::All);
        let pushed = circle.0[writer].seen.iter().filter_map(|effect| match effect {
            Effect::Send { to, message: Message::Push { .. } } => Some(to.number()),
            _ => None,
        });
        assert_eq!(pushed.collect::<Vec<_>>(), order, "{writer}");
        circle.carry();
    }
}

#[test]
fn a_write_that_is_not_acknowledged_in_time_is_unknown() {
    let (mut bench, peer) = (Bench::sessions(), Bench::new(2, Vec::new(), true));
    bench.meet(&peer.replica);
    let operations = vec![Operation { key: key("a"), action: put(b"v"), condition: Condition::Always }];
    bench.submit(Command::Apply { table: name("t"), operations, is_batch: false }, AckMode::All);
    for _ in 0..60 {
        bench.pass(100);
        bench.hear(&peer.replica, Message::DeltaRefused { delta: 99 });
    }
    assert!(matches!(bench.replies.pop(), Some(Outcome::Unknown { .. })));
}

#[test]
fn a_process_that_was_frozen_serves_nothing_before_it_heard_from_its_peers() {
    let (mut bench, peer) = (Bench::sessions(), Bench::new(2, Vec::new(), true));
    bench.meet(&peer.replica);
    let gate = bench.replica.gate();
    assert!(gate.check(1_000 + bench.ms).is_some());
    bench.ms += 3_000;
    assert!(gate.check(1_000 + bench.ms).is_none(), "readers see that it did not tick");
    let operations = vec![Operation { key: key("a"), action: put(b"v"), condition: Condition::Always }];
    let outcome = bench.apply(operations);
    assert_eq!(outcome, Outcome::Rejected(Rejection::NotReady), "a write that comes before the first tick");
    bench.tell(Event::Tick);
    assert!(gate.check(1_000 + bench.ms).is_none());
}

#[test]
fn a_touch_that_overtook_its_put_is_claimed_only_with_the_record() {
    let (mut a, mut b) = (Bench::sessions(), Bench::new(2, vec![TableConfig::new(name("t"))], true));
    a.meet(&b.replica);
    b.meet(&a.replica);
    a.submit(
        Command::Apply {
            table: name("t"),
            operations: vec![Operation {
                key: key("a"),
                action: put_for(MINUTE_MS),
                condition: Condition::Always,
            }],
            is_batch: false,
        },
        AckMode::Local,
    );
    a.pass(100);
    a.one_if_local("a", touch(10 * MINUTE_MS, false));
    let writes = a.pushed();
    assert_eq!(writes.len(), 2);
    let origin = a.replica.settings.origin;
    let late = writes[1].clone();
    b.ms = a.ms;
    b.hear(&a.replica, Message::Push { writes: vec![late.clone()] });
    assert!(!b.replica.applied.covers(late.dot), "nothing is held of it");
    b.hear(&a.replica, Message::Push { writes: vec![writes[0].clone()] });
    assert_eq!(b.replica.applied.contiguous(origin), 2, "put and touch are both held now");
    assert_eq!(b.deadline_ms("a"), a.deadline_ms("a"));
}

#[test]
fn a_rewrite_that_left_the_deadline_alone_is_claimed_only_with_the_record() {
    let (mut a, mut b) = (Bench::sessions(), Bench::new(2, vec![TableConfig::new(name("t"))], true));
    for bench in [&mut a, &mut b] {
        // What the sweep has passed is not kept.
        bench.pass(30_000);
    }
    a.meet(&b.replica);
    b.meet(&a.replica);
    a.one_if_local("a", put_for(MINUTE_MS));
    a.one_if_local("a", touch(MINUTE_MS, false));
    let rewrite = Action::Put { value: Value::new("", b"new"), ttl_ms: Some(MINUTE_MS), max_age_ms: None };
    a.one_if_local("a", rewrite);
    a.pass(50);
    let writes = a.pushed();
    let late = writes.last().expect("three writes").clone();
    assert!(late.rows[0].record.touch.is_none(), "the deadline stays as it is");
    b.ms = a.ms;
    b.hear(&a.replica, Message::Push { writes: vec![late.clone()] });
    assert!(!b.replica.applied.covers(late.dot), "how long it lives is not known");
    b.pass(150);
    let asked = |effect: &Effect| matches!(effect, Effect::Send { message: Message::NeedRecords { .. }, .. });
    assert!(b.seen.iter().any(asked));
    a.hear(&b.replica, Message::NeedRecords { dot: late.dot });
    let whole = a.pushed().last().expect("an answer").clone();
    b.hear(&a.replica, Message::Push { writes: vec![whole] });
    assert!(b.replica.applied.covers(late.dot));
    let Lookup::Found(found) = b.read("a") else { panic!("lost") };
    assert_eq!((found.bytes(), b.deadline_ms("a")), (&b"new"[..], a.deadline_ms("a")));
    // Older ones change nothing.
    b.hear(&a.replica, Message::Push { writes: writes[..2].to_vec() });
    let Lookup::Found(found) = b.read("a") else { panic!("lost") };
    assert_eq!(found.bytes(), b"new");
}

#[test]
fn a_version_ahead_of_the_clock_is_refused_but_a_session_tombstone_is_not() {
    let (mut a, mut b) = (Bench::sessions(), Bench::new(2, vec![TableConfig::new(name("t"))], true));
    b.meet(&a.replica);
    a.one("ahead", Action::Delete);
    a.meet(&b.replica);
    a.ms += 700;
    a.one_if_local("ahead", Action::Delete);
    a.one_if_local("late", put(b"v"));
    let writes = a.pushed();
    b.hear(&a.replica, Message::Push { writes });
    assert!(matches!(b.read("ahead"), Lookup::Gone { .. }));
    assert!(matches!(b.read("late"), Lookup::Absent { .. }));
    assert_eq!(b.replica.counters.clock_refusals, 1);
}

#[test]
fn another_cluster_another_kind_and_oneself_are_refused_by_name() {
    let mut bench = Bench::sessions();
    let peer =
        Bench::new(2, vec![TableConfig { kind: TableKind::Cache, ..TableConfig::new(name("t")) }], true);
    let mut verdict = |hello: Hello| {
        bench.tell(Event::Greeted { connection: ConnectionId(7), hello, dialled: None });
        match bench.seen.pop() {
            Some(Effect::Verdict { verdict, .. }) => verdict.map(|_| ()),
            effect => panic!("no verdict: {effect:?}"),
        }
    };
    assert_eq!(verdict(peer.replica.hello()), Err(Refusal::TableKind { table: "t".to_owned() }));
    let other = Hello { cluster: "other".to_owned(), ..peer.replica.hello() };
    assert!(matches!(verdict(other), Err(Refusal::Cluster { .. })));
    let mine = Hello { origin: Bench::sessions().replica.settings.origin, ..peer.replica.hello() };
    assert_eq!(verdict(mine.clone()), Err(Refusal::Myself));
    let double = Hello { origin: Origin { epoch: 77, ..mine.origin }, uptime_ms: 0, ..mine };
    assert!(matches!(verdict(double), Err(Refusal::DuplicateId { .. })));
}

#[test]
fn the_younger_of_two_processes_with_one_id_goes_and_the_elder_is_not_told_to() {
    let (mut elder, mut younger) = (Bench::sessions(), Bench::sessions());
    elder.pass(500);
    younger.replica.settings.origin.epoch += 1;
    let exits = |bench: &Bench| bench.seen.iter().any(|effect| matches!(effect, Effect::Exit { .. }));
    let node = elder.replica.settings.origin.node;
    // Whoever of them dials, the other may be the one who notices.
    assert_eq!(younger.greet(elder.replica.hello()), Some(Err(Refusal::Stopping)));
    assert!(exits(&younger));
    assert_eq!(elder.greet(younger.replica.hello()), Some(Err(Refusal::DuplicateId { node })));
    elder.tell(Event::Refused { address: "n9:7071".to_owned(), refusal: Refusal::Stopping });
    assert!(!exits(&elder));
}

#[test]
fn a_node_that_names_peers_waits_for_them_before_it_serves() {
    let mut bench = Bench::new(1, vec![TableConfig::new(name("t"))], false);
    bench.pass(10_000);
    assert!(!bench.replica.is_ready(), "an empty node waits half a minute for somebody");
    bench.pass(25_000);
    assert!(bench.replica.is_ready(), "every known address was tried");
}

#[test]
fn a_joining_node_that_is_killed_does_not_take_itself_for_one_that_was_alone() {
    let (mut bench, peer) = (Bench::new(1, Vec::new(), false), Bench::new(2, Vec::new(), true));
    bench.tell(Event::Greeted { connection: ConnectionId(1), hello: peer.replica.hello(), dialled: None });
    bench.pass(100);
    let mut metas = bench.seen.iter().filter_map(|effect| match effect {
        Effect::PersistMeta(meta) => Some(meta.last_live.clone()),
        _ => None,
    });
    assert_eq!(metas.next_back(), Some(vec![peer.replica.settings.origin.node]));
}

#[test]
fn expired_rows_and_old_tombstones_are_dropped_from_memory() {
    let mut config = TableConfig::new(name("t"));
    config.default_ttl = std::time::Duration::from_secs(5);
    config.max_age = std::time::Duration::from_secs(60);
    let mut bench = Bench::new(1, vec![config], true);
    bench.one("a", put(b"v"));
    bench.one("b", put(b"v"));
    bench.one("b", Action::Delete);
    let count = |bench: &Bench| {
        let table = bench.replica.status().tables.remove(0);
        (table.live, table.tombstones, table.bytes > 0)
    };
    assert_eq!(count(&bench), (1, 1, true));
    bench.pass(90_000);
    assert_eq!(count(&bench), (0, 1, false), "the tombstone outlives any copy of its record");
    bench.pass(120_000);
    assert_eq!(count(&bench), (0, 0, false));
    let table = bench.replica.tables.get(&name("t")).expect("declared");
    assert!(table.digest.sums().iter().all(|sum| *sum == 0), "nothing held, nothing summed");
}

#[test]
fn whoever_was_alone_last_starts_at_once_also_when_everybody_it_knew_is_retired() {
    let settings = |bench: &Bench| bench.replica.settings.clone();
    let bench = Bench::sessions();
    let meta = Meta { has_met_anyone: true, ..Meta::default() };
    let sample = ClockSample { wall_ms: START_MS, boot_ms: 1_000 };
    let mut replica = Replica::recover(settings(&bench), sample).finish(meta, VersionVector::default());
    // DNS does not answer.
    replica
        .step(sample, Event::Discovered { addresses: Vec::new(), is_configured: true, is_complete: false });
    replica.step(sample, Event::Tick);
    assert!(replica.is_ready());
}

#[test]
fn a_source_that_never_answers_holds_a_node_up_for_half_a_minute() {
    let mut bench = Bench::new(1, vec![TableConfig::new(name("t"))], false);
    bench.tell(Event::Discovered { addresses: Vec::new(), is_configured: true, is_complete: false });
    bench.pass(29_000);
    assert!(!bench.replica.is_ready());
    bench.pass(2_000);
    assert!(bench.replica.is_ready());
}

#[test]
fn a_retired_member_has_its_link_closed() {
    let (mut bench, old) = (Bench::sessions(), Bench::new(2, Vec::new(), true));
    bench.meet(&old.replica);
    bench.pass(1_500);
    let mut hello = Bench::new(3, Vec::new(), true).replica.hello();
    hello.address.clone_from(&old.replica.settings.address);
    bench.tell(Event::Greeted { connection: ConnectionId(2), hello, dialled: None });
    let peer = old.replica.settings.origin.node;
    assert!(
        bench.seen.iter().any(|effect| matches!(effect, Effect::Disconnect { peer: gone } if *gone == peer))
    );
}

/// A hello of some process, as a handshake brings it.
fn hello_of(number: u64, features: &[&str]) -> Hello {
    let mut hello = Bench::new(number, Vec::new(), true).replica.hello();
    hello.features = features.iter().map(|feature| (*feature).to_owned()).collect();
    hello
}

impl Bench {
    fn greet(&mut self, hello: Hello) -> Option<Result<(), Refusal>> {
        self.tell(Event::Greeted { connection: ConnectionId(7), hello, dialled: None });
        self.seen.iter().rev().find_map(|effect| match effect {
            Effect::Verdict { verdict, .. } => Some(verdict.clone().map(|_| ())),
            _ => None,
        })
    }
}

#[test]
fn a_feature_is_used_when_all_members_announce_it() {
    let mut bench = Bench::sessions();
    bench.replica.settings.features = vec!["one".to_owned(), "two".to_owned()];
    assert_eq!(bench.replica.hello().features, ["one", "two"]);
    assert_eq!(bench.replica.status().features, ["one", "two"], "alone");
    bench.greet(hello_of(2, &["two", "three"]));
    assert_eq!(bench.replica.status().features, ["two"]);
    bench.greet(hello_of(3, &[]));
    assert!(bench.replica.status().features.is_empty(), "a member of an older version");
    // The same node, upgraded.
    let mut upgraded = hello_of(3, &["one", "two"]);
    upgraded.origin.epoch += 1;
    bench.pass(5_000);
    bench.greet(upgraded);
    assert_eq!(bench.replica.status().features, ["two"]);
}

#[test]
fn a_member_known_by_hearsay_alone_announces_nothing() {
    let mut bench = Bench::sessions();
    bench.replica.settings.features = vec!["one".to_owned()];
    let mut hello = hello_of(2, &["one"]);
    let member = crate::membership::Member::default();
    hello.members = vec![crate::message::MemberInfo { is_live: true, ..member.info(NodeId::new(3)) }];
    bench.greet(hello);
    assert!(bench.replica.status().features.is_empty());
}

#[test]
fn a_member_is_retired_after_a_day_without_contact() {
    let (mut bench, peer) = (Bench::sessions(), Bench::new(2, Vec::new(), true));
    bench.meet(&peer.replica);
    let day_ms = crate::limits::RETIRE_AFTER_MS;
    // In large steps, as a clock that ticks rarely: each is within what is taken for one tick of a slow process.
    let pass = |bench: &mut Bench, ms: u64| {
        let end_ms = bench.ms + ms;
        while bench.ms < end_ms {
            bench.ms = (bench.ms + 500).min(end_ms);
            bench.tell(Event::Tick);
        }
    };
    pass(&mut bench, day_ms - 2_000);
    assert_eq!(bench.replica.status().members.len(), 2, "down, and known");
    pass(&mut bench, 4_000);
    assert_eq!(bench.replica.status().members.len(), 1);
    let is_told = |effect: &Effect| matches!(effect, Effect::Notice(Notice::PeerRetired { .. }));
    assert!(bench.seen.iter().any(is_told));
    assert_eq!(bench.greet(peer.replica.hello()), Some(Ok(())), "no safety hangs on it: it may come back");
}

#[test]
fn a_full_cluster_refuses_one_more_and_takes_a_known_one() {
    let mut bench = Bench::sessions();
    let others = u64::try_from(crate::limits::MEMBERS_MAX).expect("few") - 1;
    for number in 2..2 + others {
        assert_eq!(bench.greet(hello_of(number, &[])), Some(Ok(())), "member {number}");
    }
    assert_eq!(bench.greet(hello_of(99, &[])), Some(Err(Refusal::Full)));
    assert_eq!(bench.greet(hello_of(2, &[])), Some(Ok(())));
    assert_eq!(bench.replica.status().members.len(), crate::limits::MEMBERS_MAX);
}

#[test]
fn a_member_that_lacks_the_last_writes_alone_is_not_far_behind() {
    let mut circle = Circle::new(&[0, 0]);
    circle.meet();
    circle.pass(1_000);
    let lag = |circle: &Circle| {
        let status = circle.0[0].replica.status();
        (status.members[1].lag_writes, status.members[1].lag_ms.expect("found out"))
    };
    assert_eq!(lag(&circle), (0, 0));
    // Writes that never pause: what a heartbeat says is old when it comes.
    for number in 0..40 {
        circle.0[0].one_if_local(&format!("k/{number}"), put(b"v"));
        let (lag_writes, lag_ms) = lag(&circle);
        assert!(lag_writes > 0 && lag_ms <= 600, "{lag_writes} writes, {lag_ms} ms");
        circle.pass(50);
    }
    // Nothing comes through any more.
    circle.0[0].pass(900);
    let (lag_writes, lag_ms) = lag(&circle);
    assert!(lag_writes > 0 && lag_ms >= 900, "{lag_writes} writes, {lag_ms} ms");
}

#[test]
fn a_stop_that_takes_long_is_not_remembered_as_having_been_alone() {
    let (mut bench, peer) = (Bench::sessions(), Bench::new(2, Vec::new(), true));
    bench.meet(&peer.replica);
    bench.pass(100);
    let lived = bench.replica.meta.last_live.clone();
    assert_eq!(lived, [NodeId::new(2)]);
    bench.tell(Event::Drain);
    bench.pass(100);
    assert!(bench.seen.iter().any(|effect| matches!(effect, Effect::Drained)));
    let reason = bench.seen.iter().rev().find_map(|effect| match effect {
        Effect::Notice(Notice::Unready { reason }) => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, Some("stopping"));
    bench.pass(2_000);
    assert_eq!(bench.replica.meta.last_live, lived);
}

#[test]
fn what_is_in_memory_is_told_at_once_while_the_disk_takes_long() {
    let mut circle = Circle::new(&[0, 0, 0]);
    circle.meet();
    circle.pass(600);
    // The third follows the second, so its disk is waited for.
    circle.0[2].disk_works = false;
    circle.put(1, "a");
    circle.pass(50);
    let begun_ms = circle.0[1].ms;
    let Outcome::Done { acks, .. } = circle.put(1, "b") else { panic!("not acknowledged") };
    assert_eq!((acks.applied, acks.durable), (3, 2));
    assert_eq!(circle.0[1].ms, begun_ms, "it did not wait for a tick");
}
