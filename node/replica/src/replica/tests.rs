//! One replica, told what happens; its answers are compared.

mod client;
mod clocks;
mod deltas;
mod lies;
mod limits;
mod peers;

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
    /// By how much its wall clock is wrong.
    wall_error_ms: i64,
}

impl Bench {
    fn new(number: u64, tables: Vec<TableConfig>, is_alone: bool) -> Self {
        Self::with_clock(number, tables, is_alone, 0)
    }

    fn with_clock(number: u64, tables: Vec<TableConfig>, is_alone: bool, wall_error_ms: i64) -> Self {
        let settings = Settings {
            origin: Origin { node: NodeId::new(number), epoch: number * 10 },
            cluster: "test".to_owned(),
            name: String::new(),
            address: format!("n{number}:7071"),
            version: String::new(),
            tables,
            join_timeout_ms: 5_000,
            features: Vec::new(),
        };
        let sample = ClockSample { wall_ms: START_MS.saturating_add_signed(wall_error_ms), boot_ms: 1_000 };
        let replica = Replica::recover(settings, sample).finish(Meta::default(), VersionVector::default());
        let mut bench =
            Self { replica, ms: 0, seen: Vec::new(), replies: Vec::new(), disk_works: true, wall_error_ms };
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
        let wall_ms = (START_MS + self.ms).saturating_add_signed(self.wall_error_ms);
        let sample = ClockSample { wall_ms, boot_ms: 1_000 + self.ms };
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
        self.hear(peer, Message::Exchange { nonce: 1, vector: peer.vector(), approaches: 1 });
        let asked = self.seen.iter().rev().find_map(|effect| match effect {
            Effect::Send { message: Message::Exchange { nonce, .. }, .. } => Some(*nonce),
            _ => None,
        });
        let nonce = asked.expect("it asks back");
        let vector = peer.vector();
        self.hear(peer, Message::ExchangeReply { nonce, is_counted: true, vector, live: Vec::new() });
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

    /// One operation that waits for this node alone.
    fn one_if_local(&mut self, path: &str, action: Action) {
        let operations = vec![Operation { key: key(path), action, condition: Condition::Always }];
        self.submit(Command::Apply { table: name("t"), operations, is_batch: false }, AckMode::Local);
        self.replies.pop();
    }
}

/// Several replicas that hear each other at once.
struct Circle(Vec<Bench>);

impl Circle {
    /// Replicas with one session table, their wall clocks wrong by so much; they have not met yet.
    fn new(wall_errors_ms: &[i64]) -> Self {
        let bench = |(number, error_ms): (u64, &i64)| {
            Bench::with_clock(number, vec![TableConfig::new(name("t"))], true, *error_ms)
        };
        Self((1..).zip(wall_errors_ms).map(bench).collect())
    }

    /// Introduces each to each.
    fn meet(&mut self) {
        let hellos: Vec<Hello> = self.0.iter().map(|bench| bench.replica.hello()).collect();
        for bench in &mut self.0 {
            let own = bench.replica.settings.origin;
            for hello in hellos.iter().filter(|hello| hello.origin != own) {
                let (connection, hello) = (ConnectionId(1), hello.clone());
                bench.tell(Event::Greeted { connection, hello, dialled: None });
            }
        }
        self.carry();
    }

    /// Delivers everything that was sent, and what is sent because of it.
    fn carry(&mut self) {
        loop {
            let (mut sent, mut taken) = (Vec::new(), Vec::new());
            for bench in &mut self.0 {
                let from = bench.replica.settings.origin;
                bench.seen.retain(|effect| match effect {
                    Effect::Send { to, message } => {
                        if matches!(message, Message::Push { .. }) {
                            taken.push((from, *to));
                        }
                        sent.push((from, *to, message.clone()));
                        false
                    }
                    _ => true,
                });
            }
            if sent.is_empty() {
                return;
            }
            for (from, peer) in taken {
                let sender = self.0.iter_mut().find(|bench| bench.replica.settings.origin == from);
                sender.expect("of the circle").tell(Event::PushesTaken { peer, count: 1 });
            }
            for (from, to, message) in sent {
                if let Some(bench) = self.0.iter_mut().find(|bench| bench.replica.settings.origin.node == to)
                {
                    bench.tell(Event::Message { from, message });
                }
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(50) {
            for bench in &mut self.0 {
                bench.pass(50);
            }
            self.carry();
        }
    }

    /// One put that waits for everybody, or gives up; what was answered.
    fn put(&mut self, index: usize, path: &str) -> Outcome {
        let operations = vec![Operation { key: key(path), action: put(b"v"), condition: Condition::Always }];
        self.0[index].submit(Command::Apply { table: name("t"), operations, is_batch: false }, AckMode::All);
        self.carry();
        while self.0[index].replies.is_empty() {
            self.pass(50);
        }
        self.0[index].replies.remove(0)
    }

    fn is_serving(&self, index: usize) -> bool {
        let bench = &self.0[index];
        bench.replica.gate().check(1_000 + bench.ms).is_some()
    }
}
