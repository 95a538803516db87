//! What a command of a client does, on one replica.

use super::*;

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
