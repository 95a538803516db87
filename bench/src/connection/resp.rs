//! RESP, the protocol of Redis: as much of it as SET, WAIT and GET need.

use bytes::{Buf, BytesMut};

use super::Protocol;
use crate::workload::{Kind, Request, VALUE_BYTES, value, write_key};

/// Replicas that must have a write.
const REPLICAS: usize = 2;

/// Writes are SET with EX, all of a request and one WAIT for both replicas in one go; reads are GET.
pub(crate) struct Resp {
    key: String,
    value: String,
}

impl Resp {
    pub(crate) fn new() -> Self {
        Self { key: String::new(), value: value() }
    }
}

fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// The first line at `from`, without its end, and where the next begins.
fn line(input: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let length = input.get(from..)?.windows(2).position(|two| two == b"\r\n")?;
    Some((&input[from..from + length], from + length + 2))
}

impl Protocol for Resp {
    fn encode(&mut self, request: Request, out: &mut Vec<u8>) {
        for number in request.numbers() {
            self.key.clear();
            write_key(number, &mut self.key);
            match request.kind {
                Kind::Write => {
                    command(&[b"SET", self.key.as_bytes(), self.value.as_bytes(), b"EX", b"1800"], out);
                }
                Kind::Read => command(&[b"GET", self.key.as_bytes()], out),
            }
        }
        if request.kind == Kind::Write {
            command(&[b"WAIT", REPLICAS.to_string().as_bytes(), b"1000"], out);
        }
    }

    fn decode(&mut self, request: Request, input: &mut BytesMut) -> anyhow::Result<Option<bool>> {
        let (mut is_done, mut at) = (true, 0);
        for _ in 0..request.records {
            let Some((first, next)) = line(input, at) else { return Ok(None) };
            at = next;
            match (request.kind, first) {
                (Kind::Write, b"+OK") => {}
                (Kind::Read, [b'$', digits @ ..]) if digits.first() != Some(&b'-') => {
                    let length: usize = std::str::from_utf8(digits)?.parse()?;
                    at += length + 2;
                    is_done &= length == VALUE_BYTES;
                }
                _ => is_done = false,
            }
        }
        if request.kind == Kind::Write {
            let Some((acknowledged, next)) = line(input, at) else { return Ok(None) };
            is_done &= acknowledged == format!(":{REPLICAS}").as_bytes();
            at = next;
        }
        if input.len() < at {
            return Ok(None);
        }
        input.advance(at);
        Ok(Some(is_done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: Kind, records: u64) -> Request {
        Request { kind, first: 0, records, keys: 100 }
    }

    #[track_caller]
    fn check(request: Request, answer: &str, expected: Option<bool>) {
        let mut input = BytesMut::from(answer);
        let found = Resp::new().decode(request, &mut input).expect("an answer of Redis");
        assert_eq!(found, expected, "{answer}");
        assert_eq!(input.is_empty(), expected.is_some(), "what is left of {answer}");
        if expected.is_some() {
            for length in 0..answer.len() {
                let mut part = BytesMut::from(&answer[..length]);
                assert_eq!(Resp::new().decode(request, &mut part).expect("a part"), None, "{length}");
            }
        }
    }

    #[test]
    fn answers_are_taken_once_they_are_whole() {
        check(request(Kind::Write, 1), "+OK\r\n:2\r\n", Some(true));
        check(request(Kind::Write, 2), "+OK\r\n+OK\r\n:2\r\n", Some(true));
        check(request(Kind::Write, 1), "+OK\r\n:1\r\n", Some(false));
        check(request(Kind::Write, 1), "-OOM\r\n:2\r\n", Some(false));
        check(request(Kind::Read, 1), &format!("$300\r\n{}\r\n", value()), Some(true));
        check(request(Kind::Read, 1), "$3\r\nabc\r\n", Some(false));
        check(request(Kind::Read, 1), "$-1\r\n", Some(false));
    }
}
