//! What comes in on the peer port: frames, handshakes, messages.

use std::sync::Arc;

use mneme_node::peers::fuzzing;
use mneme_replica::codec::{
    decode_hello, decode_message, decode_refusal, encode_hello, encode_message, encode_refusal,
};
use mneme_replica::message::Message;
use mneme_replica::record::Write;

/// Reads the input, but for the first byte, as what that byte says.
///
/// # Panics
///
/// When something does not hold.
pub fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % 8 {
        0 => check_message(rest),
        1 => check_hello(rest),
        2 => check_refusal(rest),
        3 => check_frames(rest, true),
        4 => check_frames(rest, false),
        5 => {
            if let Some(encoded) = fuzzing::preface(rest) {
                // What follows is a newer peer's.
                assert_eq!(encoded[4..], rest[..encoded.len() - 4], "a preface has one form");
            }
        }
        6 => {
            if let Some(encoded) = fuzzing::verdict(rest) {
                assert_eq!(fuzzing::verdict(&encoded[4..]).as_ref(), Some(&encoded), "a verdict reads back");
            }
        }
        _ => {
            let (preface, proof) = rest.split_at(rest.len().min(48));
            assert!(!fuzzing::is_proved("the cluster's secret", preface, proof), "nobody guesses a proof");
        }
    }
}

fn check_message(bytes: &[u8]) {
    let Ok(message) = decode_message(bytes) else { return };
    let items = items(&message);
    assert!(items <= bytes.len(), "{items} items out of {} bytes", bytes.len());
    let mut encoded = Vec::new();
    encode_message(&message, &mut encoded);
    assert_eq!(decode_message(&encoded).ok().as_ref(), Some(&message), "a message reads back");
    // A write keeps the bytes it came in; made anew they say the same.
    if let Message::Push { writes } = &message {
        let anew = |write: &Arc<Write>| Arc::new(Write::new(write.dot, write.rows.clone()));
        let writes = Message::Push { writes: writes.iter().map(anew).collect() };
        let mut encoded = Vec::new();
        encode_message(&writes, &mut encoded);
        assert_eq!(decode_message(&encoded).ok().as_ref(), Some(&message));
    }
    // No message is another one with bytes behind it, or without its last.
    encoded.push(0);
    assert!(decode_message(&encoded).is_err());
    encoded.truncate(encoded.len() - 2);
    assert!(decode_message(&encoded).is_err());
}

/// How many things a message holds: each takes a byte at least.
fn items(message: &Message) -> usize {
    match message {
        Message::Push { writes } => writes.iter().map(|write| 1 + write.rows.len()).sum(),
        Message::Heartbeat(heartbeat) => {
            let vectors = heartbeat.applied.len() + heartbeat.durable.len();
            vectors + heartbeat.members.len() + heartbeat.tables.len()
        }
        Message::Exchange { vector, .. } => vector.len(),
        Message::ExchangeReply { vector, live, .. } => vector.len() + live.len(),
        Message::DeltaRequest { vector, .. } => vector.len(),
        Message::DeltaPage { rows, vector, .. } => {
            rows.len() + vector.as_ref().map_or(0, |vector| vector.len())
        }
        Message::Digest { vector, tables, .. } => {
            vector.len() + tables.iter().map(|table| table.sums.len()).sum::<usize>()
        }
        Message::Bucket { vector, rows, .. } => vector.len() + rows.len(),
        Message::Repair { rows, wanted, .. } => rows.len() + wanted.len(),
        Message::Ack { .. }
        | Message::NeedRecords { .. }
        | Message::DeltaNext { .. }
        | Message::DeltaRefused { .. }
        | Message::Goodbye => 0,
    }
}

fn check_hello(bytes: &[u8]) {
    let Ok(hello) = decode_hello(bytes) else { return };
    assert!(hello.tables.len() + hello.members.len() + hello.features.len() <= bytes.len());
    let mut encoded = Vec::new();
    encode_hello(&hello, &mut encoded);
    assert_eq!(decode_hello(&encoded).ok().as_ref(), Some(&hello), "a hello reads back");
}

fn check_refusal(bytes: &[u8]) {
    let Ok(refusal) = decode_refusal(bytes) else { return };
    let mut encoded = Vec::new();
    encode_refusal(&refusal, &mut encoded);
    assert_eq!(decode_refusal(&encoded).ok().as_ref(), Some(&refusal), "a refusal reads back");
}

/// However it is cut into pieces, what arrives is the same frames.
fn check_frames(bytes: &[u8], is_trusted: bool) {
    let (whole, bytes_max) = fuzzing::frames(&[bytes], is_trusted);
    assert!(whole.iter().all(|frame| frame.len() <= bytes_max));
    let length: usize = whole.iter().map(|frame| 4 + frame.len()).sum();
    assert!(length <= bytes.len());
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(fuzzing::frames(&single, is_trusted).0, whole);
    let odd: Vec<&[u8]> = bytes.chunks(7).collect();
    assert_eq!(fuzzing::frames(&odd, is_trusted).0, whole);
}
