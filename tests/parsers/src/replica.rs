//! A replica whose peer knows the secret and sends whatever it likes.

use mneme_api::{Key, TableConfig, TableKind, TableName};
use mneme_replica::codec::decode_message;
use mneme_replica::effect::{Effect, Meta, Outcome};
use mneme_replica::event::{AckMode, Action, Command, Condition, ConnectionId, Event, Operation, RequestId};
use mneme_replica::id::{NodeId, Origin};
use mneme_replica::limits::MEMBERS_MAX;
use mneme_replica::message::{Hello, Lane};
use mneme_replica::record::Value;
use mneme_replica::replica::Replica;
use mneme_replica::status::Settings;
use mneme_replica::table::Lookup;
use mneme_replica::time::ClockSample;
use mneme_replica::version_vector::VersionVector;

/// Wall clock at the start, milliseconds.
const START_MS: u64 = 1_800_000_000_000;
/// The replica under test.
const HERE: Origin = Origin { node: NodeId::new(1), epoch: 10 };
/// Who sends the input.
const THERE: Origin = Origin { node: NodeId::new(2), epoch: 20 };
/// Time that one input may let pass: two digests and an expiry.
const PASSED_MS_MAX: u64 = 90_000;

/// Reads the input as steps and takes them: a byte says which, a message has a length of two bytes.
///
/// # Panics
///
/// When something does not hold.
pub fn check(input: &[u8]) {
    let mut bench = Bench::new();
    let mut rest = input;
    while let Some((step, tail)) = rest.split_first() {
        rest = bench.take(*step, tail);
    }
    bench.check();
}

struct Bench {
    replica: Replica,
    ms: u64,
    requests: u64,
    replies: Vec<Outcome>,
    own_writes: u64,
}

impl Bench {
    fn new() -> Self {
        let table = |name, kind| TableConfig { kind, ..TableConfig::new(named(name)) };
        let settings = Settings {
            origin: HERE,
            cluster: "test".to_owned(),
            name: "here".to_owned(),
            address: "here:7071".to_owned(),
            version: "1".to_owned(),
            tables: vec![table("sessions", TableKind::Session), table("carts", TableKind::Cache)],
            join_timeout_ms: 5_000,
            features: Vec::new(),
        };
        let sample = ClockSample { wall_ms: START_MS, boot_ms: 1_000 };
        let replica = Replica::recover(settings, sample).finish(Meta::default(), VersionVector::default());
        let mut bench = Self { replica, ms: 0, requests: 0, replies: Vec::new(), own_writes: 0 };
        let nobody = Event::Discovered { addresses: Vec::new(), is_configured: false, is_complete: true };
        bench.tell(nobody);
        bench.pass(50);
        let hello = Hello {
            cluster: "test".to_owned(),
            origin: THERE,
            protocol: (1, 1),
            name: "there".to_owned(),
            address: "there:7071".to_owned(),
            version: "1".to_owned(),
            tables: Vec::new(),
            members: Vec::new(),
            features: Vec::new(),
            uptime_ms: 5,
        };
        bench.tell(Event::Greeted { connection: ConnectionId(1), hello, dialled: None });
        bench
    }

    fn tell(&mut self, event: Event) {
        let sample = ClockSample { wall_ms: START_MS + self.ms, boot_ms: 1_000 + self.ms };
        let mut through = None;
        for effect in self.replica.step(sample, event) {
            match effect {
                Effect::Persist { number, .. } => through = Some(number),
                Effect::Reply { outcome, .. } => self.replies.push(outcome),
                Effect::Continue => self.tell(Event::Resume),
                Effect::Exit { .. } => panic!("a message ends the process"),
                _ => {}
            }
        }
        if let Some(through) = through {
            self.tell(Event::Persisted { through });
        }
    }

    fn pass(&mut self, ms: u64) {
        let end_ms = (self.ms + ms).min(PASSED_MS_MAX);
        while self.ms < end_ms {
            self.ms += 50;
            self.tell(Event::Tick);
        }
    }

    /// Takes one step; gives what follows it.
    fn take<'a>(&mut self, step: u8, rest: &'a [u8]) -> &'a [u8] {
        match step {
            0xf0 => self.tell(Event::LinkDown { peer: THERE.node, lane: Lane::Push }),
            0xf1 => self.tell(Event::LinkDown { peer: THERE.node, lane: Lane::Bulk }),
            0xf2 => self.tell(Event::PushesTaken { peer: THERE.node, count: 1 }),
            0xf3 => self.pass(50),
            0xf4 => self.pass(1_000),
            0xf5 => self.pass(10_000),
            0xe0..=0xef => self.write(step & 0xf),
            _ => {
                let Some((length, tail)) = rest.split_first_chunk::<2>() else { return &[] };
                let length = usize::from(u16::from_be_bytes(*length)).min(tail.len());
                let (bytes, tail) = tail.split_at(length);
                if let Ok(message) = decode_message(bytes) {
                    self.tell(Event::Message { from: THERE, message });
                }
                return tail;
            }
        }
        rest
    }

    /// A client of this node writes: one of two keys of one of two tables.
    fn write(&mut self, number: u8) {
        let table = if number & 1 == 0 { "sessions" } else { "carts" };
        let action = match number >> 2 {
            0 | 1 => Action::Put { value: Value::new("", b"v"), ttl_ms: Some(60_000), max_age_ms: None },
            2 => Action::Touch { ttl_ms: Some(60_000), exact: number & 1 == 1 },
            _ => Action::Delete,
        };
        self.apply(table, if number & 2 == 0 { "a" } else { "b" }, action, AckMode::All);
    }

    fn apply(&mut self, table: &str, key: &str, action: Action, ack: AckMode) {
        self.requests += 1;
        let operation = Operation { key: path(key), action, condition: Condition::Always };
        let command = Command::Apply { table: named(table), operations: vec![operation], is_batch: false };
        let request = RequestId(self.requests);
        self.tell(Event::Client { request, command, ack, timeout_ms: 5_000 });
        self.own_writes += 1;
    }

    /// What holds whatever the peer said.
    fn check(&mut self) {
        let status = self.replica.status();
        assert!(status.members.len() <= MEMBERS_MAX, "{} members", status.members.len());
        let claimed = self.replica.vector().contiguous(HERE);
        assert!(claimed <= self.own_writes, "{claimed} own writes are claimed, {} made", self.own_writes);
        // The peer falls silent. What waits for it is answered, and the node works alone.
        self.ms = self.ms.min(PASSED_MS_MAX - 20_000);
        self.tell(Event::LinkDown { peer: THERE.node, lane: Lane::Push });
        self.ms = PASSED_MS_MAX;
        for _ in 0..60 {
            self.ms += 50;
            self.tell(Event::Tick);
        }
        let before = self.replies.len();
        let fresh = format!("fresh/{}", self.requests);
        let value = Action::Put { value: Value::new("", b"v"), ttl_ms: None, max_age_ms: None };
        self.apply("sessions", &fresh, value, AckMode::Local);
        for _ in 0..120 {
            self.ms += 50;
            self.tell(Event::Tick);
        }
        assert_eq!(self.replies.len() as u64, self.requests, "every client is answered");
        let outcome = &self.replies[before..];
        let is_done = outcome.iter().any(|outcome| matches!(outcome, Outcome::Done { .. }));
        if is_done {
            let table = self.replica.table(&named("sessions")).expect("declared");
            let now_ms = self.replica.gate().now_ms(1_000 + self.ms);
            assert!(matches!(table.read(&path(&fresh), now_ms), Lookup::Found(_)), "what is stored is read");
        }
    }
}

fn named(name: &str) -> TableName {
    name.parse().expect("a table name")
}

fn path(path: &str) -> Key {
    Key::from_path(path).expect("a key")
}
