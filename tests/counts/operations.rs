//! The operations: two replicas that know each other, twenty thousand records, each function one kind of work.

use std::hint::black_box;

use mneme_api::{Key, Pattern, TableConfig, TableName};
use mneme_replica::Replica;
use mneme_replica::codec::{decode_message, encode_message};
use mneme_replica::effect::{Effect, Meta};
use mneme_replica::event::{AckMode, Action, Command, Condition, ConnectionId, Event, Operation, RequestId};
use mneme_replica::id::{NodeId, Origin};
use mneme_replica::message::Message;
use mneme_replica::record::Value;
use mneme_replica::status::Settings;
use mneme_replica::table::Lookup;
use mneme_replica::time::ClockSample;
use mneme_replica::version_vector::VersionVector;

/// Records before anything is counted.
const RECORDS: u64 = 20_000;
/// Times that most operations are done.
const TIMES: u64 = 1_000;
/// Writes of one push.
const PUSHED: u64 = 32;
/// Pushes.
const PUSHES: u64 = 50;
/// Records that expire at once.
const EXPIRING: u64 = 2_000;
/// Wall clock at the start, milliseconds since the Unix epoch.
const START_MS: u64 = 1_800_000_000_000;
const VALUE_BYTES: usize = 300;
const MINUTE_MS: u64 = 60_000;

/// The functions that are counted, and by what their instructions are divided.
pub(crate) const ALL: &[(&str, u64)] = &[
    ("put", TIMES),
    ("put_over", TIMES),
    ("touch", TIMES),
    ("delete", TIMES),
    ("read", TIMES),
    ("list_of_100", 100),
    ("persisted", TIMES),
    ("tick", TIMES),
    ("encode_push_of_32", PUSHES),
    ("decode_push_of_32", PUSHES),
    ("apply_push_of_32", PUSHES),
    ("expire", EXPIRING),
];

/// A replica whose disk and links are as fast as can be.
struct Node {
    replica: Replica,
    ms: u64,
    requests: u64,
    /// Messages to the other one.
    outbox: Vec<Message>,
}

fn table() -> TableName {
    "sessions".parse().expect("a table name")
}

fn key(number: u64) -> Key {
    Key::from_segments(["user".to_owned(), format!("{:05}", number / 4), format!("{number:032x}")])
        .expect("well-formed")
}

impl Node {
    fn new(number: u64) -> Self {
        let settings = Settings {
            origin: Origin { node: NodeId::new(number), epoch: number * 10 },
            cluster: "counts".to_owned(),
            name: String::new(),
            address: format!("n{number}:7071"),
            version: String::new(),
            tables: vec![TableConfig::new(table())],
            join_timeout_ms: 5_000,
            features: Vec::new(),
        };
        let sample = ClockSample { wall_ms: START_MS, boot_ms: 1_000 };
        let replica = Replica::recover(settings, sample).finish(Meta::default(), VersionVector::default());
        let mut node = Self { replica, ms: 0, requests: 0, outbox: Vec::new() };
        node.tell(Event::Discovered { addresses: Vec::new(), is_configured: false, is_complete: true });
        node.tell(Event::Tick);
        node
    }

    /// Steps the replica; says up to where it wants to be on disk.
    fn step(&mut self, event: Event) -> Option<u64> {
        let sample = ClockSample { wall_ms: START_MS + self.ms, boot_ms: 1_000 + self.ms };
        let mut through = None;
        for effect in self.replica.step(sample, event) {
            match effect {
                Effect::Persist { number, .. } => through = Some(number),
                Effect::Send { to, message } => {
                    if matches!(message, Message::Push { .. }) {
                        // Taken at once.
                        self.step(Event::PushesTaken { peer: to, count: 1 });
                    }
                    self.outbox.push(message);
                }
                Effect::Continue => {
                    self.step(Event::Resume);
                }
                _ => {}
            }
        }
        through
    }

    /// The same with a disk that has it at once.
    fn tell(&mut self, event: Event) {
        if let Some(through) = self.step(event) {
            self.step(Event::Persisted { through });
        }
    }

    fn command(&mut self, key: Key, action: Action) -> Event {
        self.requests += 1;
        let operations = vec![Operation { key, action, condition: Condition::Always }];
        Event::Client {
            request: RequestId(self.requests),
            command: Command::Apply { table: table(), operations, is_batch: false },
            ack: AckMode::Local,
            timeout_ms: 5_000,
        }
    }

    fn put(&mut self, number: u64, ttl_ms: u64) -> Event {
        let value = Value::new("text/plain", &[b'v'; VALUE_BYTES]);
        self.command(key(number), Action::Put { value, ttl_ms: Some(ttl_ms), max_age_ms: None })
    }
}

/// Lets two replicas speak until neither has anything to say.
fn exchange(one: &mut Node, two: &mut Node) {
    while !one.outbox.is_empty() || !two.outbox.is_empty() {
        let (from_one, from_two) = (std::mem::take(&mut one.outbox), std::mem::take(&mut two.outbox));
        let (first, second) = (one.replica.hello().origin, two.replica.hello().origin);
        from_one.into_iter().for_each(|message| two.tell(Event::Message { from: first, message }));
        from_two.into_iter().for_each(|message| one.tell(Event::Message { from: second, message }));
    }
}

/// Lets time go by for both.
fn pass(one: &mut Node, two: &mut Node, ms: u64) {
    let end_ms = one.ms + ms;
    while one.ms < end_ms {
        for node in [&mut *one, &mut *two] {
            node.ms += 50;
            node.tell(Event::Tick);
        }
        exchange(one, two);
    }
}

/// Two that know each other and hold the same records.
fn pair() -> (Node, Node) {
    let (mut one, mut two) = (Node::new(1), Node::new(2));
    let (first, second) = (one.replica.hello(), two.replica.hello());
    one.tell(Event::Greeted {
        connection: ConnectionId(1),
        hello: second,
        dialled: Some("n2:7071".to_owned()),
    });
    two.tell(Event::Greeted { connection: ConnectionId(1), hello: first, dialled: None });
    pass(&mut one, &mut two, 1_000);
    for number in 0..RECORDS {
        let put = one.put(number, 30 * MINUTE_MS);
        one.tell(put);
        exchange(&mut one, &mut two);
    }
    pass(&mut one, &mut two, 1_000);
    assert_eq!(two.replica.status().tables[0].live, RECORDS);
    (one, two)
}

/// Steps one replica through events that are made before; what it wants to be on disk is not, yet.
fn steps(node: &mut Node, events: Vec<Event>) {
    for event in events {
        black_box(node.step(event));
    }
}

#[inline(never)]
fn put(node: &mut Node, events: Vec<Event>) {
    steps(node, events);
}

#[inline(never)]
fn put_over(node: &mut Node, events: Vec<Event>) {
    steps(node, events);
}

#[inline(never)]
fn touch(node: &mut Node, events: Vec<Event>) {
    steps(node, events);
}

#[inline(never)]
fn delete(node: &mut Node, events: Vec<Event>) {
    steps(node, events);
}

#[inline(never)]
fn persisted(node: &mut Node, first: u64) {
    for through in first..first + TIMES {
        black_box(node.step(Event::Persisted { through }));
    }
}

#[inline(never)]
fn tick(node: &mut Node) {
    for _ in 0..TIMES {
        node.ms += 1;
        black_box(node.step(Event::Tick));
    }
}

#[inline(never)]
fn read(node: &Node, keys: &[Key]) {
    let table = node.replica.table(&table()).expect("declared");
    for key in keys {
        assert!(matches!(black_box(table.read(key, START_MS + node.ms)), Lookup::Found(_)));
    }
}

#[inline(never)]
fn list_of_100(node: &Node, after: &[Key]) {
    let (table, pattern) = (node.replica.table(&table()).expect("declared"), Pattern::from_path("user/**"));
    let pattern = pattern.expect("well-formed");
    for key in after {
        assert_eq!(black_box(table.scan(&pattern, Some(key), 100, START_MS + node.ms)).records.len(), 100);
    }
}

#[inline(never)]
fn encode_push_of_32(pushes: &[Message]) -> Vec<Vec<u8>> {
    let encode = |message: &Message| {
        let mut bytes = Vec::new();
        encode_message(message, &mut bytes);
        bytes
    };
    pushes.iter().map(encode).collect()
}

#[inline(never)]
fn decode_push_of_32(pushes: &[Vec<u8>]) -> Vec<Message> {
    pushes.iter().map(|bytes| decode_message(bytes).expect("as it was encoded")).collect()
}

#[inline(never)]
fn apply_push_of_32(node: &mut Node, from: Origin, pushes: Vec<Message>) {
    for message in pushes {
        black_box(node.step(Event::Message { from, message }));
    }
}

#[inline(never)]
fn expire(node: &mut Node) {
    black_box(node.step(Event::Tick));
}

/// Does each once, in an order in which none is in the way of the next.
pub(crate) fn run() {
    let (mut one, mut two) = pair();
    let origin = one.replica.hello().origin;

    let numbers = |first: u64| first..first + TIMES;
    // Every twentieth of those that are there.
    let held: Vec<u64> = (0..TIMES).map(|number| number * RECORDS / TIMES).collect();
    let keys: Vec<Key> = held.iter().map(|number| key(*number)).collect();
    read(&one, &keys);
    list_of_100(&one, &keys[..100]);

    let events: Vec<Event> = held.iter().map(|number| one.put(*number, 30 * MINUTE_MS)).collect();
    put_over(&mut one, events);
    let events: Vec<Event> = numbers(RECORDS).map(|number| one.put(number, 30 * MINUTE_MS)).collect();
    put(&mut one, events);
    let last = one.replica.persist_number();
    persisted(&mut one, last + 1 - TIMES);
    let touched = |number: &u64| (key(*number), Action::Touch { ttl_ms: Some(60 * MINUTE_MS), exact: false });
    let events: Vec<Event> = held.iter().map(touched).map(|(key, action)| one.command(key, action)).collect();
    touch(&mut one, events);
    let events: Vec<Event> =
        numbers(RECORDS).map(|number| one.command(key(number), Action::Delete)).collect();
    delete(&mut one, events);
    let last = one.replica.persist_number();
    one.step(Event::Persisted { through: last });
    exchange(&mut one, &mut two);

    // What is pushed while nobody takes it waits, and goes together.
    one.outbox.clear();
    let mut pushes = Vec::new();
    for push in 0..PUSHES {
        let mut writes = Vec::new();
        for number in 0..PUSHED {
            let put = one.put(push * PUSHED + number, 30 * MINUTE_MS);
            one.tell(put);
        }
        for message in std::mem::take(&mut one.outbox) {
            if let Message::Push { writes: pushed } = message {
                writes.extend(pushed);
            }
        }
        assert_eq!(writes.len() as u64, PUSHED);
        pushes.push(Message::Push { writes });
    }
    let encoded = encode_push_of_32(&pushes);
    let decoded = decode_push_of_32(&encoded);
    apply_push_of_32(&mut two, origin, decoded);
    let last = two.replica.persist_number();
    two.step(Event::Persisted { through: last });
    exchange(&mut one, &mut two);

    // Alone from here on.
    tick(&mut one);
    for number in 0..EXPIRING {
        let put = two.put(RECORDS * 2 + number, MINUTE_MS);
        two.tell(put);
    }
    two.ms += MINUTE_MS - 100;
    two.tell(Event::Tick);
    let live = two.replica.status().tables[0].live;
    two.ms += 1_200;
    expire(&mut two);
    assert_eq!(two.replica.status().tables[0].live, live - EXPIRING);
}
