//! What is written reads back; what was never written is refused, whatever it is.

use std::sync::Arc;

use mneme_api::{Key, TableKind};
use proptest::prelude::*;

use super::*;
use crate::effect::Meta;
use crate::id::KeyHash;
use crate::message::{Heartbeat, Hello, MemberInfo, Message, Refusal, TableDigest, TableInfo};
use crate::record::{Body, Record, Subject, TouchRegister, Value, ValueRegister};

fn origins() -> impl Strategy<Value = Origin> {
    (any::<u64>(), any::<u64>()).prop_map(|(node, epoch)| Origin { node: NodeId::new(node), epoch })
}

fn versions() -> impl Strategy<Value = Version> {
    (any::<u64>(), origins()).prop_map(|(bits, origin)| Version { stamp: Stamp::from_bits(bits), origin })
}

fn registers() -> impl Strategy<Value = ValueRegister> {
    let body = prop_oneof![
        Just(Body::Deleted),
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|bytes| Body::Live(Value::new("text/plain", &bytes))),
    ];
    (versions(), 1u64.., any::<u64>(), any::<u64>(), body, any::<bool>()).prop_map(
        |(version, sequence, absolute_deadline_ms, bury_until_ms, body, is_newer)| {
            // Two fields of a newer version: 7 and "x".
            let unknown = is_newer.then(|| [0, 0, 0, 0, 0, 0, 0, 2, 0x07, 0x61, b'x'].as_slice().into());
            ValueRegister { version, sequence, absolute_deadline_ms, bury_until_ms, body, unknown }
        },
    )
}

fn some_rows() -> impl Strategy<Value = Vec<Row>> {
    let touch = (versions(), 0..=u64::MAX >> 1, origins(), 1u64..).prop_map(
        |(base, idle_deadline_ms, origin, sequence)| TouchRegister {
            base,
            idle_deadline_ms,
            dot: Dot { origin, sequence },
        },
    );
    let key = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..8), 1..4)
        .prop_map(|segments| Key::from_segments(segments).expect("short"));
    let row = (key, any::<bool>(), prop::option::of(registers()), prop::option::of(touch)).prop_map(
        |(key, is_cache, value, touch)| {
            let record = Record { value, touch };
            let hash = KeyHash::of(&key);
            let subject = if record.live().is_some() { Subject::Key(key) } else { Subject::Hash(hash) };
            let kind = if is_cache { TableKind::Cache } else { TableKind::Session };
            Row { table: "t".parse().expect("a name"), kind, subject, hash, record }
        },
    );
    prop::collection::vec(row, 0..5)
}

proptest! {
    #[test]
    fn a_write_reads_back(origin in origins(), sequence in 1u64.., rows in some_rows()) {
        let write = Write::new(Dot { origin, sequence }, rows);
        let mut bytes = Vec::new();
        encode_write(&write, &mut bytes);
        let length = bytes.len();
        // What follows in the same frame is left alone.
        bytes.push(0xff);
        let (read, taken) = decode_write(&bytes).expect("it was just written");
        prop_assert_eq!(taken, length);
        prop_assert_eq!(read, write);
    }

    /// A buffer that grows is moved.
    #[test]
    fn the_room_made_for_a_write_holds_it(origin in origins(), sequence in 1u64.., rows in some_rows()) {
        let is_newer = |row: &Row| row.record.value.as_ref().is_some_and(|value| value.unknown.is_some());
        prop_assume!(!rows.iter().any(is_newer));
        let write = Write::new(Dot { origin, sequence }, rows);
        prop_assert!(write.encoded().len() <= write.encoded_bytes_max(), "{}", write.encoded().len());
    }

    #[test]
    fn a_cut_write_is_refused(origin in origins(), rows in some_rows(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        encode_write(&Write::new(Dot { origin, sequence: 1 }, rows), &mut bytes);
        prop_assert!(decode_write(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn a_vector_reads_back(entries in prop::collection::vec((origins(), 1u64.., any::<u64>()), 0..6)) {
        let mut vector = VersionVector::default();
        for (origin, contiguous, last_write_ms) in entries {
            vector.insert(origin, contiguous, last_write_ms);
        }
        let mut bytes = Vec::new();
        encode_vector(&vector, &mut bytes);
        prop_assert_eq!(decode_vector(&bytes).expect("it was just written"), (vector, bytes.len()));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (decode_write(&bytes), decode_rows(&bytes), decode_vector(&bytes));
    }

    /// Nearly right bytes go deeper than random ones.
    #[test]
    fn no_flipped_byte_makes_a_decoder_panic(
        rows in some_rows(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = Vec::new();
        encode_rows(&rows, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode_rows(&bytes);
    }
}

#[test]
fn a_claimed_length_allocates_nothing() {
    // An array of 2^60 rows, and none of them.
    let bytes = [0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0];
    assert!(decode_rows(&bytes).is_err());
}

fn vectors() -> impl Strategy<Value = VersionVector> {
    prop::collection::vec((origins(), 1u64.., any::<u64>()), 0..4).prop_map(|entries| {
        let mut vector = VersionVector::default();
        for (origin, contiguous, last_write_ms) in entries {
            vector.insert(origin, contiguous, last_write_ms);
        }
        vector
    })
}

fn member() -> MemberInfo {
    MemberInfo {
        node: NodeId::new(9),
        epoch: 8,
        name: "nine".to_owned(),
        address: "nine:7071".to_owned(),
        is_live: true,
    }
}

fn table() -> TableInfo {
    let name = "sessions".parse().expect("a name");
    TableInfo { name, kind: TableKind::Cache, max_age_ever_ms: 77 }
}

fn messages() -> impl Strategy<Value = Message> {
    let numbers = (any::<u64>(), any::<u64>(), any::<bool>());
    (origins(), vectors(), some_rows(), numbers, 0..14u8).prop_map(|(origin, vector, rows, numbers, tag)| {
        let (a, b, flag) = numbers;
        let name = || "sessions".parse().expect("a name");
        let dot = Dot { origin, sequence: a.max(1) };
        let hash = KeyHash::from_bytes([7; 16]);
        match tag {
            0 => Message::Push { writes: vec![Arc::new(Write::new(dot, rows))] },
            1 => Message::Ack { origin, applied: a, durable: b, refused_clock: flag },
            2 => Message::NeedRecords { dot },
            3 => Message::Heartbeat(Box::new(Heartbeat {
                applied: vector.clone(),
                durable: vector,
                node_time_ms: a,
                wall_time_ms: b,
                acknowledges_without_you: flag,
                despite_your_refusal: !flag,
                is_clock_confirmed: flag,
                commit_stalled: !flag,
                refuses_your_clock: flag,
                is_ready: !flag,
                members: vec![member()],
                tables: vec![table()],
            })),
            4 => Message::Exchange { nonce: a, vector, approaches: 3 },
            5 => Message::ExchangeReply { nonce: a, is_counted: flag, vector, live: vec![origin.node] },
            6 => Message::DeltaRequest { delta: a, vector },
            7 => Message::DeltaNext { delta: a, page: b },
            8 => Message::DeltaRefused { delta: a },
            9 => Message::DeltaPage { delta: a, page: b, rows, vector: flag.then_some(vector) },
            10 => Message::Bucket { step: a, table: name(), bucket: 5, vector, rows: vec![(hash, b)] },
            11 => {
                let tables = vec![TableDigest { table: name(), sums: vec![b; 1_024] }];
                Message::Digest { step: a, vector, tables }
            }
            12 => Message::Goodbye,
            _ => Message::Repair { table: name(), rows, wanted: vec![hash], is_divergence: flag },
        }
    })
}

proptest! {
    #[test]
    fn a_message_reads_back(message in messages()) {
        let mut bytes = Vec::new();
        encode_message(&message, &mut bytes);
        prop_assert_eq!(decode_message(&bytes).expect("as written"), message);
    }

    #[test]
    fn a_cut_message_is_refused(message in messages(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        encode_message(&message, &mut bytes);
        prop_assert!(decode_message(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn no_bytes_make_a_message_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (decode_message(&bytes), decode_hello(&bytes), decode_refusal(&bytes), decode_meta(&bytes));
    }
}

#[test]
fn greetings_read_back() {
    let hello = Hello {
        cluster: "mneme".to_owned(),
        origin: Origin { node: NodeId::new(3), epoch: 4 },
        protocol: (1, 1),
        name: "n".to_owned(),
        address: "n:7071".to_owned(),
        version: "0.1.0".to_owned(),
        tables: vec![table()],
        members: vec![member()],
        features: vec!["fence".to_owned()],
        uptime_ms: 5,
    };
    let mut bytes = Vec::new();
    encode_hello(&hello, &mut bytes);
    assert_eq!(decode_hello(&bytes).expect("as written"), hello);

    let meta = Meta {
        members: vec![member()],
        last_live: vec![NodeId::new(1)],
        tables: vec![table()],
        has_met_anyone: true,
    };
    let mut bytes = Vec::new();
    encode_meta(&meta, &mut bytes);
    assert_eq!(decode_meta(&bytes).expect("as written"), meta);

    let node = NodeId::new(6);
    for refusal in [
        Refusal::Myself,
        Refusal::Cluster { ours: "a".to_owned(), theirs: "b".to_owned() },
        Refusal::Protocol { ours: (1, 2), theirs: (3, 4) },
        Refusal::TableKind { table: "t".to_owned() },
        Refusal::DuplicateId { node },
        Refusal::Predecessor { node },
        Refusal::Full,
        Refusal::Stopping,
    ] {
        let mut bytes = Vec::new();
        encode_refusal(&refusal, &mut bytes);
        assert_eq!(decode_refusal(&bytes).expect("as written"), refusal);
    }
}

#[test]
fn an_idle_deadline_that_memory_has_no_place_for_is_refused() {
    let origin = Origin { node: NodeId::new(1), epoch: 2 };
    let base = Version { stamp: Stamp::at(1), origin };
    let check = |idle_deadline_ms| {
        let touch = TouchRegister { base, idle_deadline_ms, dot: Dot { origin, sequence: 1 } };
        let key = Key::from_path("a").expect("a key");
        let hash = KeyHash::of(&key);
        let record = Record { value: None, touch: Some(touch) };
        let (table, kind) = ("t".parse().expect("a name"), TableKind::Session);
        let row = Row { table, kind, subject: Subject::Hash(hash), hash, record };
        let mut bytes = Vec::new();
        encode_write(&Write::new(touch.dot, vec![row]), &mut bytes);
        decode_write(&bytes).is_ok()
    };
    assert!(check(u64::MAX >> 1));
    assert!(!check(1 << 63));
}

#[test]
fn an_origin_without_a_write_is_in_no_vector() {
    let check = |contiguous: u8| {
        let mut bytes = vec![0x81, 0x83, 0x50];
        bytes.extend_from_slice(&[7; 16]);
        bytes.extend_from_slice(&[contiguous, 5]);
        decode_vector(&bytes).is_ok()
    };
    assert!(check(1));
    assert!(!check(0));
}

#[test]
fn a_longest_life_beyond_all_is_refused() {
    let check = |max_age_ever_ms| {
        let mut bytes = Vec::new();
        let meta = Meta { tables: vec![TableInfo { max_age_ever_ms, ..table() }], ..Meta::default() };
        encode_meta(&meta, &mut bytes);
        decode_meta(&bytes).is_ok()
    };
    assert!(check(mneme_api::DURATION_MS_MAX));
    assert!(!check(mneme_api::DURATION_MS_MAX + 1));
    assert!(!check(u64::MAX));
}
