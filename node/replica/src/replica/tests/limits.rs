//! Bounds of a table: what is counted, evicted, dropped.

use super::*;

#[test]
fn what_expires_is_counted_no_more_and_counts_again_when_it_is_made_anew() {
    let mut bench = Bench::sessions();
    bench.one("short", put_for(2_000));
    bench.one("long", put_for(MINUTE_MS));
    assert_eq!(bench.replica.status().tables[0].live, 2);
    bench.pass(3_100);
    let table = bench.replica.status().tables[0].clone();
    assert_eq!((table.live, table.bytes > 0), (1, true));
    assert_eq!((table.expired, table.expired_bytes > 0), (1, true), "the file needs it until it is dropped");
    bench.one("short", put_for(2_000));
    assert_eq!(bench.replica.status().tables[0].live, 2);
    bench.one("long", touch(1, true));
    bench.pass(1_100);
    assert_eq!(bench.replica.status().tables[0].live, 1);
    bench.pass(200_000);
    let table = bench.replica.status().tables[0].clone();
    assert_eq!((table.live, table.bytes), (0, 0));
    assert_eq!((table.expired, table.expired_bytes), (0, 0));
}

#[test]
fn what_has_expired_takes_no_room_before_the_sweep_is_there() {
    for when_full in [WhenFull::Reject, WhenFull::EvictNearestExpiry] {
        let config = TableConfig { max_bytes: 20_000, when_full, ..TableConfig::new(name("t")) };
        let mut bench = Bench::new(1, vec![config], true);
        bench.one("stays", put_for(MINUTE_MS));
        for number in 0..100 {
            let value = Value::new("", &[0; 100]);
            let put = Action::Put { value, ttl_ms: Some(2_000), max_age_ms: None };
            bench.one(&format!("{number}"), put);
        }
        // No tick in between: the sweep of many takes a while.
        bench.ms += 3_000;
        bench.one("large", put(&[0; 15_000]));
        assert!(matches!(bench.read("large"), Lookup::Found(_)));
        assert!(matches!(bench.read("stays"), Lookup::Found(_)), "not evicted");
    }
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
    bench.one("new", put(&[0; 90]));
    assert!(matches!(bench.read("soon"), Lookup::Absent { .. }), "evicted");
    assert!(matches!(bench.read("new"), Lookup::Found(_)));
}

#[test]
fn a_delete_by_match_takes_what_is_held_and_leaves_what_came_later() {
    let mut bench = Bench::sessions();
    for path in ["user/1/a", "user/1/b", "user/2/a"] {
        bench.one(path, put(b"v"));
    }
    let start = bench.replica.scan_start();
    bench.pass(1_000);
    bench.one("user/1/late", put(b"v"));
    let pattern = Pattern::from_path("user/1/**").expect("a pattern");
    let command = Command::DeleteMatching { table: name("t"), pattern, after: None, start };
    bench.submit(command, AckMode::All);
    let swept = bench.replies.pop();
    assert!(matches!(swept, Some(Outcome::Swept { deleted: 2, resume_after: None, .. })), "{swept:?}");
    assert!(matches!(bench.read("user/1/a"), Lookup::Gone { .. }));
    assert!(matches!(bench.read("user/1/late"), Lookup::Found(_)));
    assert!(matches!(bench.read("user/2/a"), Lookup::Found(_)));
}

#[test]
fn a_delete_by_match_takes_what_was_there_also_when_it_was_rewritten_since() {
    let mut bench = Bench::sessions();
    bench.one("user/1/a", put(b"v"));
    let start = bench.replica.scan_start();
    bench.pass(2_000);
    bench.one("user/1/a", put(b"rewritten"));
    let pattern = Pattern::from_path("user/1/**").expect("a pattern");
    bench.submit(Command::DeleteMatching { table: name("t"), pattern, after: None, start }, AckMode::All);
    assert!(matches!(bench.read("user/1/a"), Lookup::Gone { .. }));
}

#[test]
fn a_delete_repeated_buries_no_longer_than_one() {
    let mut bench = Bench::sessions();
    bench.one("a", put(b"v"));
    let bury_until_ms = |bench: &Bench| {
        let row = bench.replica.table(&name("t")).expect("declared").row(KeyHash::of(&key("a")));
        row.and_then(|row| row.record.value).expect("a tombstone").bury_until_ms
    };
    bench.one("a", Action::Delete);
    let first_ms = bury_until_ms(&bench);
    for _ in 0..5 {
        bench.pass(1_000);
        bench.one("a", Action::Delete);
    }
    assert_eq!(bury_until_ms(&bench), first_ms + 5_000);
}

#[test]
fn a_cache_value_put_after_a_delete_is_given_up_when_it_expires_and_what_is_older_stays_dead() {
    let mut bench = Bench::cache();
    bench.one("a", put(b"first"));
    let first = bench.replica.table(&name("t")).expect("declared").row(KeyHash::of(&key("a"))).expect("held");
    bench.one("a", Action::Delete);
    bench.one("a", put_for(MINUTE_MS));
    bench.pass(3 * MINUTE_MS);
    let held =
        bench.replica.table(&name("t")).expect("declared").row(KeyHash::of(&key("a"))).expect("a mark");
    assert!(held.record.live().is_none(), "the value is given up");
    let status = bench.replica.status();
    assert_eq!((status.tables[0].live, status.tables[0].tombstones, status.tables[0].bytes), (0, 1, 0));
    // An old disk comes back with what was deleted.
    bench.replica.tables.merge(&[first]);
    assert!(matches!(bench.read("a"), Lookup::Absent { .. }));
    bench.one("a", put(b"again"));
    assert!(matches!(bench.read("a"), Lookup::Found(_)));
}

#[test]
fn tombstones_that_others_or_the_file_bring_are_not_counted_as_of_unknown_keys() {
    let mut circle = Circle::new(&[0, 0]);
    circle.0[0].one("never/there", Action::Delete);
    circle.meet();
    circle.pass(600);
    let unknown = |bench: &Bench| bench.replica.tables.get(&name("t")).expect("declared").unknown_tombstones;
    assert!(matches!(circle.0[1].read("never/there"), Lookup::Gone { .. }));
    assert_eq!((unknown(&circle.0[0]), unknown(&circle.0[1])), (1, 0));
}

#[test]
fn small_records_make_room_for_a_large_one_or_it_is_refused() {
    let config = TableConfig {
        max_bytes: 10_000,
        when_full: WhenFull::EvictNearestExpiry,
        ..TableConfig::new(name("t"))
    };
    let mut bench = Bench::new(1, vec![config], true);
    for number in 0..200 {
        bench.one(&format!("{number:03}"), put(&[0; 40]));
    }
    bench.one("large", put(&[0; 9_000]));
    assert!(bench.replica.status().tables[0].bytes <= 10_000);
    let operation = Operation { key: key("huge"), action: put(&[0; 10_001]), condition: Condition::Always };
    assert_eq!(bench.apply(vec![operation]), Outcome::Rejected(Rejection::TableFull));
    assert!(matches!(bench.read("large"), Lookup::Found(_)), "and nothing was evicted for it");
}
