//! What all systems are asked: the same keys, the same value, the same mix.

use std::fmt::Write as _;
use std::time::Duration;

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 300;
/// Keys that are filled before anything is measured, unless a part says otherwise.
pub(crate) const KEYS: u64 = 20_000;
/// One of so many requests of a mix is a write.
const MIX_WRITE_EVERY: u32 = 10;

/// The value of every record.
pub(crate) fn value() -> String {
    "v".repeat(VALUE_BYTES)
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    /// Replaces a record; counted when it is acknowledged as the system's name says.
    Write,
    /// Reads a record.
    Read,
    /// Nine reads for each write.
    Mix,
}

impl Operation {
    pub(crate) const ALL: [Self; 3] = [Self::Write, Self::Read, Self::Mix];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Mix => "mix",
        }
    }
}

/// How records share requests and requests share connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Shape {
    /// One record a request, one request at a time on a connection.
    Single,
    /// [`GROUP`] records a request.
    Batch,
    /// [`GROUP`] requests at a time on a connection, sent together.
    Pipeline,
    /// [`GROUP`] clients share a connection of HTTP/2, one request at a time each.
    Streams,
}

/// Records of a batch, requests of a pipeline, streams of a connection.
pub(crate) const GROUP: usize = 32;

impl Shape {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Batch => "batches of 32",
            Self::Pipeline => "32 pipelined",
            Self::Streams => "32 streams of HTTP/2",
        }
    }

    /// Records in one request.
    pub(crate) fn records(self) -> u64 {
        if self == Self::Batch { GROUP as u64 } else { 1 }
    }

    /// Requests sent together.
    pub(crate) fn depth(self) -> usize {
        if self == Self::Pipeline { GROUP } else { 1 }
    }
}

/// One measurement, before it is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) operation: Operation,
    pub(crate) shape: Shape,
    /// Connections, each with one request (or pipeline) at a time.
    pub(crate) clients: usize,
    /// Requests a second of an open loop; `None` is a closed loop.
    pub(crate) rate: Option<u32>,
    /// Keys to draw from.
    pub(crate) keys: u64,
    /// Time before the measured time.
    pub(crate) warm: Duration,
    pub(crate) measured: Duration,
}

/// Which half of a mix a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Write,
    Read,
}

/// One request: records `first` and following, of `keys` in a circle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    pub(crate) first: u64,
    pub(crate) records: u64,
    pub(crate) keys: u64,
}

impl Request {
    /// Numbers of its records.
    pub(crate) fn numbers(self) -> impl Iterator<Item = u64> {
        (0..self.records).map(move |step| (self.first + step) % self.keys)
    }
}

/// The requests of one client, the same in every run.
#[derive(Debug)]
pub(crate) struct Requests {
    spec: Spec,
    random: SmallRng,
}

impl Requests {
    pub(crate) fn new(spec: Spec, client: usize) -> Self {
        Self { spec, random: SmallRng::seed_from_u64(client as u64) }
    }

    pub(crate) fn draw(&mut self) -> Request {
        let kind = match self.spec.operation {
            Operation::Write => Kind::Write,
            Operation::Read => Kind::Read,
            Operation::Mix if self.random.random_range(0..MIX_WRITE_EVERY) == 0 => Kind::Write,
            Operation::Mix => Kind::Read,
        };
        let records = if kind == Kind::Write { self.spec.shape.records() } else { 1 };
        Request { kind, first: self.random.random_range(0..self.spec.keys), records, keys: self.spec.keys }
    }
}

/// Appends the key of a record: 37 bytes, in no order.
pub(crate) fn write_key(number: u64, out: &mut String) {
    let halves = (scramble(2 * number), scramble(2 * number + 1));
    write!(out, "sess:{:016x}{:016x}", halves.0, halves.1).expect("a string takes everything");
}

/// SplitMix64.
fn scramble(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(operation: Operation, shape: Shape) -> Spec {
        let (warm, measured) = (Duration::ZERO, Duration::ZERO);
        Spec { operation, shape, clients: 1, rate: None, keys: 100, warm, measured }
    }

    #[test]
    fn a_tenth_of_a_mix_are_writes() {
        let mut requests = Requests::new(spec(Operation::Mix, Shape::Single), 7);
        let writes = (0..10_000).filter(|_| requests.draw().kind == Kind::Write).count();
        assert!((900..1_100).contains(&writes), "{writes}");
    }

    #[test]
    fn no_key_is_twice_in_a_batch() {
        let mut requests = Requests::new(spec(Operation::Write, Shape::Batch), 7);
        for _ in 0..100 {
            let mut numbers: Vec<u64> = requests.draw().numbers().collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), GROUP);
            assert!(numbers.iter().all(|number| *number < 100));
        }
    }

    #[test]
    fn keys_have_one_length() {
        let mut key = String::new();
        write_key(u64::MAX / 2, &mut key);
        assert_eq!(key.len(), 37);
    }
}
