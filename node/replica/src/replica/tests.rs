//! One replica, told what happens; its answers are compared.

use mneme_api::{Key, Pattern, TableConfig, TableKind, TableName, WhenFull};

use super::*;
use crate::effect::{OperationResult, Outcome, Rejection};
use crate::event::{AckMode, Action, Command, Condition, ConnectionId, Operation, RequestId};
use crate::message::Refusal;
use crate::record::Value;
use crate::table::Lookup;

const START_MS: u64 = 1_800_000_000_000;
const MINUTE_MS: u64 = 60_000;

fn name(text: &str) -> TableName {
    text.parse().expect("a table name")
}

fn key(path: &str) -> Key {
    Key::from_path(path).expect("a key")
}

fn put(bytes: &[u8]) -> Action {
    Action::Put { value: Value::new("", bytes), ttl_ms: None, max_age_ms: None }
}

fn put_for(ttl_ms: u64) -> Action {
    Action::Put { value: Value::new("", b"v"), ttl_ms: Some(ttl_ms), max_age_ms: None }
}

fn touch(ttl_ms: u64, exact: bool) -> Action {
    Action::Touch { ttl_ms: Some(ttl_ms), exact }
}

/// A replica whose disk and clock the test holds.
struct Bench {
    replica: Replica,
    ms: u64,
    /// Everything that was neither a reply nor a persist.
    seen: Vec<Effect>,
    replies: Vec<Outcome>,
    disk_works: bool,
}

impl Bench {
    fn new(number: u64, tables: Vec<TableConfig>, is_alone: bool) -> Self {
        let settings = Settings {
            origin: Origin { node: NodeId::new(number), epoch: number * 10 },
            cluster: "test".to_owned(),
            name: String::new(),
            address: format!("n{number}:7071"),
            version: String::new(),
            tables,
            join_timeout_ms: 5_000,
        };
        let sample = ClockSample { wall_ms: START_MS, boot_ms: 1_000 };
        let replica = Replica::recover(settings, sample).finish(Meta::default(), VersionVector::default());
        let mut bench = Self { replica, ms: 0, seen: Vec::new(), replies: Vec::new(), disk_works: true };
        let discovered =
            Event::Discovered { addresses: Vec::new(), is_configured: !is_alone, is_complete: true };
        bench.tell(discovered);
        bench.pass(50);
        bench
    }

    fn sessions() -> Self {
        Self::new(1, vec![TableConfig::new(name("t"))], true)
    }

    fn cache() -> Self {
        let config = TableConfig { kind: TableKind::Cache, ..TableConfig::new(name("t")) };
        Self::new(1, vec![config], true)
    }

    fn tell(&mut self, event: Event) {
        let sample = ClockSample { wall_ms: START_MS + self.ms, boot_ms: 1_000 + self.ms };
        let mut through = None;
        for effect in self.replica.step(sample, event) {
            match effect {
                Effect::Persist { number, .. } => through = Some(number),
                Effect::Reply { outcome, .. } => self.replies.push(outcome),
                Effect::Continue => self.tell(Event::Resume),
                effect => self.seen.push(effect),
            }
        }
        if let Some(through) = through.filter(|_| self.disk_works) {
            self.tell(Event::Persisted { through });
        }
    }

    /// Lets time go by, ticking as the driver does.
    fn pass(&mut self, ms: u64) {
        let end_ms = self.ms + ms;
        while self.ms < end_ms {
            self.ms = (self.ms + 50).min(end_ms);
            self.tell(Event::Tick);
        }
    }

    fn submit(&mut self, command: Command, ack: AckMode) {
        let request = RequestId(self.ms);
        self.tell(Event::Client { request, command, ack, timeout_ms: 5_000 });
    }

    fn apply(&mut self, operations: Vec<Operation>) -> Outcome {
        let is_batch = operations.len() > 1;
        self.submit(Command::Apply { table: name("t"), operations, is_batch }, AckMode::All);
        self.replies.pop().expect("an answer")
    }

    fn one(&mut self, path: &str, action: Action) -> OperationResult {
        self.one_if(path, action, Condition::Always)
    }

    fn one_if(&mut self, path: &str, action: Action, condition: Condition) -> OperationResult {
        match self.apply(vec![Operation { key: key(path), action, condition }]) {
            Outcome::Done { mut results, .. } => results.remove(0),
            outcome => panic!("not done: {outcome:?}"),
        }
    }

    fn read(&self, path: &str) -> Lookup {
        let table = self.replica.table(&name("t")).expect("declared");
        table.read(&key(path), self.replica.gate().now_ms(1_000 + self.ms))
    }

    fn deadline_ms(&self, path: &str) -> u64 {
        match self.read(path) {
            Lookup::Found(found) => found.deadline_ms - START_MS,
            lookup => panic!("not found: {lookup:?}"),
        }
    }

    /// Introduces a peer as a handshake does, and answers its exchange.
    fn meet(&mut self, peer: &Replica) {
        self.tell(Event::Greeted { connection: ConnectionId(1), hello: peer.hello(), dialled: None });
        self.hear(peer, Message::Exchange { nonce: 1 });
        let asked = self.seen.iter().rev().find_map(|effect| match effect {
            Effect::Send { message: Message::Exchange { nonce }, .. } => Some(*nonce),
            _ => None,
        });
        let nonce = asked.expect("it asks back");
        let vector = peer.vector();
        self.hear(peer, Message::ExchangeReply { nonce, vector, live: Vec::new() });
    }

    fn hear(&mut self, peer: &Replica, message: Message) {
        self.tell(Event::Message { from: peer.settings.origin, message });
    }

    fn pushed(&self) -> Vec<Arc<Write>> {
        let pushes = self.seen.iter().filter_map(|effect| match effect {
            Effect::Send { message: Message::Push { writes }, .. } => Some(writes.clone()),
            _ => None,
        });
        pushes.flatten().collect()
    }
}

#[test]
fn a_put_creates_then_replaces_and_never_moves_the_absolute_deadline() {
    let mut bench = Bench::sessions();
    let short = Action::Put { value: Value::new("", b"a"), ttl_ms: None, max_age_ms: Some(20 * MINUTE_MS) };
    assert!(matches!(bench.one("a", short), OperationResult::Created { .. }));
    let absolute_ms = bench.ms + 20 * MINUTE_MS;
    bench.pass(MINUTE_MS);
    let later = Action::Put { value: Value::new("", b"b"), ttl_ms: None, max_age_ms: Some(90 * MINUTE_MS) };
    assert!(matches!(bench.one("a", later), OperationResult::Replaced { .. }));
    assert_eq!(bench.deadline_ms("a"), absolute_ms);
}

#[test]
fn an_expired_key_is_created_anew() {
    let mut bench = Bench::sessions();
    bench.one("a", put_for(1_000));
    bench.pass(1_000);
    assert!(matches!(bench.read("a"), Lookup::Absent { .. }));
    assert!(matches!(bench.one("a", touch(1_000, false)), OperationResult::Missing));
    assert!(matches!(bench.one("a", put_for(1_000)), OperationResult::Created { .. }));
    assert!(matches!(bench.read("a"), Lookup::Found(_)));
}

#[test]
fn a_deleted_session_stays_deleted_and_a_deleted_cache_key_may_be_put_again() {
    let mut bench = Bench::sessions();
    bench.one("a", put(b"v"));
    assert!(matches!(bench.one("a", Action::Delete), OperationResult::Deleted { .. }));
    assert!(matches!(bench.one("a", put(b"v")), OperationResult::Gone { .. }));
    assert!(matches!(bench.one("a", touch(1_000, false)), OperationResult::Gone { .. }));
    assert!(matches!(bench.read("a"), Lookup::Gone { .. }));
    let mut bench = Bench::cache();
    bench.one("a", put(b"v"));
    bench.one("a", Action::Delete);
    assert!(matches!(bench.read("a"), Lookup::Absent { tombstone: Some(_) }));
    assert!(matches!(bench.one("a", put(b"v")), OperationResult::Created { .. }));
}

#[test]
fn a_key_deleted_before_it_was_ever_put_is_gone() {
    let mut bench = Bench::sessions();
    assert!(matches!(bench.one("a", Action::Delete), OperationResult::Deleted { .. }));
    assert!(matches!(bench.one("a", put(b"v")), OperationResult::Gone { .. }));
}

#[test]
fn touches_coalesce_and_are_never_early() {
    let mut bench = Bench::sessions();
    bench.one("a", put_for(16 * MINUTE_MS));
    let created_ms = bench.ms;
    bench.pass(1_000);
    bench.one("a", touch(16 * MINUTE_MS, false));
    // Asked for, and a sixteenth of the ttl more.
    assert_eq!(bench.deadline_ms("a"), created_ms + 1_000 + 17 * MINUTE_MS);
    let sequence = bench.replica.sequence;
    bench.pass(30_000);
    bench.one("a", touch(16 * MINUTE_MS, false));
    assert_eq!(bench.replica.sequence, sequence, "a touch within the resolution writes nothing");
    bench.one("a", touch(MINUTE_MS, false));
    assert_eq!(bench.replica.sequence, sequence, "a plain touch never shortens");
}

#[test]
fn an_exact_touch_shortens_and_wins_over_touches_on_the_old_base() {
    let mut bench = Bench::sessions();
    bench.one("a", put_for(10 * MINUTE_MS));
    let hash = crate::id::KeyHash::of(&key("a"));
    let table = bench.replica.table(&name("t")).expect("declared");
    let before = table.row(hash).expect("held").record;
    bench.one("a", touch(5_000, true));
    let after = table.row(hash).expect("held").record;
    assert_eq!(bench.deadline_ms("a"), bench.ms + 5_000);
    let mut joined = after.clone();
    assert!(!joined.merge(TableKind::Session, &before), "the old deadline does not come back");
}

#[test]
fn conditions_hold_or_the_current_etag_is_told() {
    let mut bench = Bench::sessions();
    let OperationResult::Created { etag } = bench.one_if("a", put(b"1"), Condition::Absent) else {
        panic!("not created")
    };
    let failed = OperationResult::ConditionFailed { current: Some(etag.clone()) };
    assert_eq!(bench.one_if("a", put(b"2"), Condition::Absent), failed);
    let foreign = Condition::Matches(vec!["\"0-0\"".to_owned()]);
    assert_eq!(bench.one_if("a", Action::Delete, foreign), failed);
    let matching = Condition::Matches(vec![etag]);
    assert!(matches!(bench.one_if("a", put(b"2"), matching), OperationResult::Replaced { .. }));
    let absent = OperationResult::ConditionFailed { current: None };
    assert_eq!(bench.one_if("b", put(b"2"), Condition::Present), absent);
}

#[test]
fn a_batch_with_one_failed_condition_changes_nothing() {
    let mut bench = Bench::sessions();
    bench.one("dead", put(b"v"));
    bench.one("dead", Action::Delete);
    let operation = |path, action, condition| Operation { key: key(path), action, condition };
    let operations = vec![
        operation("new", put(b"v"), Condition::Always),
        operation("dead", put(b"v"), Condition::Always),
        operation("other", put(b"v"), Condition::Present),
        operation("nothing", touch(1_000, false), Condition::Always),
    ];
    let Outcome::BatchFailed { results } = bench.apply(operations) else { panic!("applied") };
    assert_eq!(results[0], OperationResult::NotApplied);
    assert!(matches!(results[1], OperationResult::Gone { .. }));
    assert_eq!(results[2], OperationResult::ConditionFailed { current: None });
    assert_eq!(results[3], OperationResult::NotApplied);
    assert!(matches!(bench.read("new"), Lookup::Absent { .. }));
}

#[test]
fn reads_of_a_batch_see_the_state_before_it_and_touches_of_nothing_stop_nothing() {
    let mut bench = Bench::sessions();
    bench.one("a", put(b"old"));
    let operation = |path, action| Operation { key: key(path), action, condition: Condition::Always };
    let operations =
        vec![operation("a", put(b"new")), operation("a", Action::Get), operation("b", touch(1_000, false))];
    let Outcome::Done { results, .. } = bench.apply(operations) else { panic!("not done") };
    let OperationResult::Found { value, .. } = &results[1] else { panic!("not found") };
    assert_eq!(value.bytes(), b"old");
    assert_eq!(results[2], OperationResult::Missing);
}

#[test]
fn what_is_wrong_with_a_command_is_said_and_nothing_changes() {
    let mut bench = Bench::sessions();
    let operation = |path: &str, action| Operation { key: key(path), action, condition: Condition::Always };
    let large = Action::Put { value: Value::new("", &[0; 262_145]), ttl_ms: None, max_age_ms: None };
    let cases = [
        (vec![operation("a", put(b"v")), operation("b", large)], "ValueTooLarge"),
        (vec![operation("a", put_for(31 * 24 * 60 * MINUTE_MS))], "LifetimeTooLong"),
        (vec![operation("a", put(b"v")), operation("a", Action::Delete)], "BadBatch"),
        (Vec::new(), "BadBatch"),
    ];
    for (operations, expected) in cases {
        let outcome = bench.apply(operations);
        assert!(format!("{outcome:?}").starts_with(&format!("Rejected({expected}")), "{outcome:?}");
    }
    assert!(matches!(bench.read("a"), Lookup::Absent { .. }));
    let command =
        Command::Apply { table: name("other"), operations: vec![operation("a", put(b"v"))], is_batch: false };
    bench.submit(command, AckMode::All);
    assert_eq!(bench.replies.pop(), Some(Outcome::Rejected(Rejection::UnknownTable)));
}

#[test]
fn what_expires_is_counted_no_more_and_counts_again_when_it_is_made_anew() {
    let mut bench = Bench::sessions();
    bench.one("short", put_for(2_000));
    bench.one("long", put_for(MINUTE_MS));
    assert_eq!(bench.replica.status().tables[0].live, 2);
    bench.pass(3_100);
    let table = bench.replica.status().tables[0].clone();
    assert_eq!((table.live, table.bytes > 0), (1, true));
    bench.one("short", put_for(2_000));
    assert_eq!(bench.replica.status().tables[0].live, 2);
    bench.one("long", touch(1, true));
    bench.pass(1_100);
    assert_eq!(bench.replica.status().tables[0].live, 1);
    bench.pass(200_000);
    let table = bench.replica.status().tables[0].clone();
    assert_eq!((table.live, table.bytes), (0, 0));
}

#[test]
fn each_put_at_the_limit_evicts_no_more_than_it_needs() {
    let config = TableConfig {
        max_bytes: 10 * 105,
        when_full: WhenFull::EvictNearestExpiry,
        ..TableConfig::new(name("t"))
    };
    let mut bench = Bench::new(1, vec![config], true);
    for number in 0..30u8 {
        let value = Value::new("", &[number; 100]);
        let ttl_ms = Some(MINUTE_MS + u64::from(number) * 1_000);
        bench.one(&format!("{number:02}"), Action::Put { value, ttl_ms, max_age_ms: None });
        let status = bench.replica.status();
        assert!(status.tables[0].bytes <= 1_050, "{number}: {} bytes", status.tables[0].bytes);
        let expected = u64::from(number + 1).min(status.tables[0].bytes / 100);
        assert_eq!(status.tables[0].live, expected, "{number}");
        // Nothing but the oldest makes room, one for one.
        assert!(
            status.counters.evicted <= u64::from(number),
            "{number}: {} evicted",
            status.counters.evicted
        );
        let kept =
            (0..=number).filter(|other| matches!(bench.read(&format!("{other:02}")), Lookup::Found(_)));
        assert!(kept.count() >= usize::from(number + 1).min(9), "{number}");
    }
}

#[test]
fn a_full_table_rejects_or_evicts_what_stands_nearest_to_its_expiry() {
    let full = |when_full| TableConfig { max_bytes: 100, when_full, ..TableConfig::new(name("t")) };
    let mut bench = Bench::new(1, vec![full(WhenFull::Reject)], true);
    bench.one("a", put(&[0; 60]));
    let operation = Operation { key: key("b"), action: put(&[0; 60]), condition: Condition::Always };
    assert_eq!(bench.apply(vec![operation]), Outcome::Rejected(Rejection::TableFull));
    let mut bench = Bench::new(1, vec![full(WhenFull::EvictNearestExpiry)], true);
    bench.one("late", put_for(20 * MINUTE_MS));
    bench.one("soon", put_for(10 * MINUTE_MS));
    bench.one("new", put(&[0; 80]));
    assert!(matches!(bench.read("soon"), Lookup::Absent { .. }), "evicted");
    assert!(matches!(bench.read("new"), Lookup::Found(_)));
}

#[test]
fn a_delete_by_match_takes_what_is_held_and_leaves_what_came_later() {
    let mut bench = Bench::sessions();
    for path in ["user/1/a", "user/1/b", "user/2/a"] {
        bench.one(path, put(b"v"));
    }
    let before_ms = START_MS + bench.ms;
    bench.pass(1_000);
    bench.one("user/1/late", put(b"v"));
    let pattern = Pattern::from_path("user/1/**").expect("a pattern");
    let command = Command::DeleteMatching { table: name("t"), pattern, after: None, before_ms };
    bench.submit(command, AckMode::All);
    let swept = bench.replies.pop();
    assert!(matches!(swept, Some(Outcome::Swept { deleted: 2, resume_after: None, .. })), "{swept:?}");
    assert!(matches!(bench.read("user/1/a"), Lookup::Gone { .. }));
    assert!(matches!(bench.read("user/1/late"), Lookup::Found(_)));
    assert!(matches!(bench.read("user/2/a"), Lookup::Found(_)));
}

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
fn the_younger_of_two_processes_with_one_id_goes() {
    let mut bench = Bench::sessions();
    let peer = Bench::new(2, Vec::new(), true);
    let origin = Origin { epoch: 77, ..bench.replica.settings.origin };
    let hello = Hello { origin, uptime_ms: 1_000_000, ..peer.replica.hello() };
    bench.tell(Event::Greeted { connection: ConnectionId(1), hello, dialled: None });
    assert!(bench.seen.iter().any(|effect| matches!(effect, Effect::Exit { .. })));
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

impl Bench {
    /// One operation that waits for this node alone.
    fn one_if_local(&mut self, path: &str, action: Action) {
        let operations = vec![Operation { key: key(path), action, condition: Condition::Always }];
        self.submit(Command::Apply { table: name("t"), operations, is_batch: false }, AckMode::Local);
        self.replies.pop();
    }
}
