//! A table against the plain model: a map of joined records.

use std::collections::BTreeMap;

use mneme_api::Pattern;
use proptest::prelude::*;

use super::*;
use crate::id::{Dot, NodeId};
use crate::record::{Body, TouchRegister, Value, ValueRegister};
use crate::version::Stamp;

fn origin(node: u64) -> Origin {
    Origin { node: NodeId::new(node), epoch: 5 }
}

fn key(number: u8) -> Key {
    Key::from_segments(["user".to_owned(), format!("{}", number % 3), format!("s{number}")])
        .expect("well-formed")
}

fn row(kind: TableKind, number: u8, stamp: u64, is_deleted: bool, deadline_ms: u64) -> Row {
    let version = Version { stamp: Stamp::at(stamp), origin: origin(1) };
    let body =
        if is_deleted { Body::Deleted } else { Body::Live(Value::new("text/plain", &stamp.to_le_bytes())) };
    let absolute_deadline_ms = if is_deleted { 0 } else { 1_000_000 };
    let bury_until_ms = if is_deleted { 2_000_000 } else { 0 };
    let value =
        ValueRegister { version, sequence: stamp, absolute_deadline_ms, bury_until_ms, body, unknown: None };
    let touch = (!is_deleted).then_some(TouchRegister {
        base: version,
        idle_deadline_ms: deadline_ms,
        dot: Dot { origin: origin(1), sequence: stamp },
    });
    let key = key(number);
    let hash = KeyHash::of(&key);
    let subject = if is_deleted { Subject::Hash(hash) } else { Subject::Key(key) };
    Row {
        table: "t".parse().expect("well-formed"),
        kind,
        subject,
        hash,
        record: Record { value: Some(value), touch },
    }
}

fn merge(table: &Table, row: &Row) -> Merged {
    table.lock(std::iter::once(row.hash)).merge(&row.subject, row.hash, &row.record, 0)
}

fn table(kind: TableKind) -> Table {
    Table::new("t".parse().expect("well-formed"), kind, Arc::default())
}

proptest! {
    #[test]
    fn a_table_holds_what_joining_holds(
        is_cache in any::<bool>(),
        writes in prop::collection::vec((0u8..12, 1u64..30, prop::bool::weighted(0.2), 1u64..100), 0..60),
        now_ms in 0u64..100,
    ) {
        let kind = if is_cache { TableKind::Cache } else { TableKind::Session };
        let (table, mut model) = (table(kind), BTreeMap::<Key, Record>::new());
        for (number, stamp, is_deleted, deadline_ms) in writes {
            let row = row(kind, number, stamp, is_deleted, deadline_ms);
            merge(&table, &row);
            model.entry(key(number)).or_default().merge(kind, &row.record);
        }
        for (key, record) in &model {
            let held = table.row(KeyHash::of(key)).map(|row| row.record);
            prop_assert_eq!(held.as_ref(), Some(record));
            let is_readable = matches!(table.read(key, now_ms), Lookup::Found(_));
            prop_assert_eq!(is_readable, record.deadline_ms() > now_ms);
            let is_gone = matches!(table.read(key, now_ms), Lookup::Gone { .. });
            prop_assert_eq!(is_gone, kind == TableKind::Session && record.is_deleted());
        }
        // Pages of three give every readable match once, in key order.
        let pattern = Pattern::from_path("user/1/**").expect("well-formed");
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = table.scan(&pattern, after.as_ref(), 3, now_ms);
            listed.extend(page.records.into_iter().map(|(key, _)| key));
            after = page.resume_after;
            if after.is_none() {
                break;
            }
        }
        let readable = model.iter().filter(|(key, record)| pattern.matches(key) && record.deadline_ms() > now_ms);
        prop_assert_eq!(listed, readable.map(|(key, _)| key.clone()).collect::<Vec<_>>());
    }
}

#[test]
fn an_expired_record_is_absent_at_once() {
    let table = table(TableKind::Session);
    merge(&table, &row(TableKind::Session, 1, 7, false, 50));
    assert!(matches!(table.read(&key(1), 49), Lookup::Found(_)));
    assert!(matches!(table.read(&key(1), 50), Lookup::Absent { tombstone: None }));
    assert!(table.scan(&Pattern::any(), None, 10, 50).records.is_empty());
}

#[test]
fn a_found_record_gives_back_what_was_put() {
    let table = table(TableKind::Session);
    merge(&table, &row(TableKind::Session, 1, 7, false, 50));
    let Lookup::Found(found) = table.read(&key(1), 0) else { panic!("it was put") };
    assert_eq!((found.content_type(), found.bytes()), ("text/plain", &7u64.to_le_bytes()[..]));
    assert_eq!(found.ttl_ms(20), 30);
}
