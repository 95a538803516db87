//! Clocks that are wrong: who is refused, who stops serving, what comes back when they are set right.

use super::*;

const HOUR_MS: i64 = 3_600_000;

#[test]
fn whoever_refuses_what_the_others_acknowledge_does_not_serve() {
    // The second is two seconds behind: what the others write is ahead of it.
    let mut circle = Circle::new(&[0, -2_000, 0]);
    circle.meet();
    circle.pass(600);
    assert!(matches!(circle.put(0, "a"), Outcome::Done { .. }), "two of three go on");
    circle.pass(300);
    assert!(matches!(circle.0[2].read("a"), Lookup::Found(_)));
    assert!(matches!(circle.0[1].read("a"), Lookup::Absent { .. }), "refused");
    assert!(!circle.is_serving(1), "it must not say that nothing is there");
    assert!(circle.is_serving(0) && circle.is_serving(2));
    // Its time comes to where the write is.
    circle.pass(4_000);
    assert!(matches!(circle.0[1].read("a"), Lookup::Found(_)));
}

#[test]
fn whoever_refuses_one_alone_does_not_serve_while_that_one_goes_on_without_it() {
    // The second is far behind the third alone, whose writes the others take.
    let mut circle = Circle::new(&[0, -450, 100, 0]);
    circle.meet();
    for number in 0..40 {
        let key = format!("key{number}");
        assert!(matches!(circle.put(2, &key), Outcome::Done { .. }), "{number}: two of three others take it");
        let is_missing = matches!(circle.0[1].read(&key), Lookup::Absent { .. });
        assert!(!(is_missing && circle.is_serving(1)), "{number}: it says that nothing is there");
        circle.pass(100);
    }
    assert!(!circle.is_serving(1) && circle.is_serving(2));
    // Its clock is set right, slowly.
    circle.0[1].wall_error_ms = 0;
    circle.pass(10_000);
    assert!(circle.is_serving(1));
    for number in 0..40 {
        assert!(matches!(circle.0[1].read(&format!("key{number}")), Lookup::Found(_)), "{number}");
    }
}

#[test]
fn rows_of_a_clock_ahead_hold_nobody_up() {
    let mut circle = Circle::new(&[0, HOUR_MS, 0]);
    circle.0[1].one("from/the/future", put(b"v"));
    circle.meet();
    circle.pass(3_000);
    assert!(circle.is_serving(0) && circle.is_serving(2));
    assert!(!circle.0[1].replica.is_ready(), "most of the others refuse its clock");
    assert!(matches!(circle.put(0, "a"), Outcome::Done { .. }));
    let refused = circle.put(1, "b");
    assert_eq!(refused, Outcome::Rejected(Rejection::Clock));
    // Nothing it could be refused for: still refused, a second later and ten.
    circle.pass(10_000);
    assert_eq!(circle.put(1, "b"), Outcome::Rejected(Rejection::Clock));
}

#[test]
fn a_step_of_all_clocks_is_followed() {
    for step_ms in [3_000, -3_000] {
        let mut circle = Circle::new(&[0, 0, 0]);
        circle.meet();
        circle.pass(1_000);
        circle.0.iter_mut().for_each(|bench| bench.wall_error_ms = step_ms);
        circle.pass(100);
        assert!(!circle.0[0].replica.is_ready(), "in doubt");
        circle.pass(4_000);
        for bench in &circle.0 {
            assert!(bench.replica.is_ready(), "{step_ms}");
            let now_ms = i64::try_from(bench.replica.now_ms).expect("milliseconds");
            let expected_ms = i64::try_from(START_MS + bench.ms).expect("milliseconds") + step_ms;
            assert!((now_ms - expected_ms).abs() < 600, "{step_ms}: {now_ms} {expected_ms}");
        }
    }
}

#[test]
fn a_step_of_one_clock_is_not_followed_while_the_others_disagree() {
    let mut circle = Circle::new(&[0, 0]);
    circle.meet();
    circle.pass(1_000);
    circle.0[0].wall_error_ms = 3_000;
    circle.pass(70_000);
    assert!(circle.0[0].replica.now_ms < START_MS + circle.0[0].ms + 500);
    assert!(!circle.0[0].replica.is_ready());
    circle.0[0].wall_error_ms = 0;
    circle.pass(200);
    assert!(circle.0[0].replica.is_ready());
}

#[test]
fn what_a_clock_ahead_took_for_expired_comes_back_when_it_is_set_right() {
    let mut circle = Circle::new(&[0, 2 * HOUR_MS]);
    circle.0[0].one("kept", put_for(30 * MINUTE_MS));
    circle.pass(200);
    circle.meet();
    circle.pass(1_000);
    assert!(matches!(circle.0[1].read("kept"), Lookup::Absent { .. }), "expired two hours from now");
    circle.0[1].wall_error_ms = 0;
    circle.pass(2_000);
    assert!(circle.is_serving(1));
    assert!(matches!(circle.0[1].read("kept"), Lookup::Found(_)));
    assert!(matches!(circle.put(1, "new"), Outcome::Done { .. }));
    assert!(matches!(circle.0[1].read("new"), Lookup::Found(_)), "stays when it is merged");
}

#[test]
fn what_a_clock_ahead_takes_for_expired_is_held_all_the_same() {
    let mut circle = Circle::new(&[0, 0, 2 * HOUR_MS]);
    circle.pass(200);
    circle.0[0].one("before", put_for(30 * MINUTE_MS));
    circle.meet();
    circle.pass(1_000);
    assert!(matches!(circle.put(0, "after"), Outcome::Done { .. }));
    let table = circle.0[2].replica.table(&name("t")).expect("declared");
    for path in ["before", "after"] {
        assert!(
            table.row(KeyHash::of(&key(path))).is_some(),
            "{path}: a compaction would take it out of the file"
        );
    }
}

#[test]
fn nobody_waits_for_ever_when_all_clocks_were_ahead() {
    let mut circle = Circle::new(&[HOUR_MS, HOUR_MS, HOUR_MS]);
    circle.meet();
    circle.pass(500);
    assert!(matches!(circle.put(0, "a"), Outcome::Done { .. }));
    circle.0.iter_mut().for_each(|bench| bench.wall_error_ms = 0);
    circle.pass(4_000);
    for index in 0..3 {
        assert!(circle.is_serving(index) && circle.0[index].replica.is_ready(), "{index}");
        assert!(matches!(circle.0[index].read("a"), Lookup::Found(_)));
    }
}

#[test]
fn a_record_from_a_clock_ahead_may_be_rewritten_by_whoever_holds_it() {
    let mut circle = Circle::new(&[0, 0]);
    // A version an hour ahead that both hold, as from a clock that was wrong on both.
    for bench in &mut circle.0 {
        bench.wall_error_ms = HOUR_MS;
    }
    circle.pass(61_000);
    circle.meet();
    circle.pass(500);
    assert!(matches!(circle.put(0, "a"), Outcome::Done { .. }));
    circle.0.iter_mut().for_each(|bench| bench.wall_error_ms = 0);
    circle.pass(4_000);
    let answer = circle.put(0, "a");
    assert!(matches!(answer, Outcome::Done { .. }), "{answer:?}");
    assert_eq!(circle.0[1].replica.counters.clock_refusals, 0);
}

/// A node that has run for more than a minute, and one that has just started, its wall clock wrong by so much.
fn elder_and_younger(error_ms: i64) -> Circle {
    aged_and_younger(70_000, error_ms)
}

/// The same, of a node that has run for so long.
fn aged_and_younger(aged_ms: u64, error_ms: i64) -> Circle {
    let mut circle = Circle::new(&[0]);
    circle.0[0].pass(aged_ms);
    let now_ms = i64::try_from(aged_ms).expect("milliseconds");
    circle.0.push(Bench::with_clock(2, vec![TableConfig::new(name("t"))], true, now_ms + error_ms));
    circle.meet();
    circle.pass(3_000);
    circle
}

#[test]
fn of_two_that_have_just_started_neither_is_believed() {
    for (aged_ms, error_ms) in [(500, -700_000), (500, 700_000), (40_000, 700_000)] {
        let mut circle = aged_and_younger(aged_ms, error_ms);
        assert!(!circle.is_serving(0) && !circle.is_serving(1), "{aged_ms} {error_ms}");
        // Somebody sets the clock right.
        circle.0[1].wall_error_ms -= error_ms;
        circle.pass(3_000);
        assert!(circle.is_serving(0) && circle.is_serving(1), "{aged_ms} {error_ms}");
        // Nobody does.
        let mut circle = aged_and_younger(aged_ms, error_ms);
        circle.pass(60_000);
        assert!(circle.is_serving(0) && !circle.is_serving(1), "{aged_ms} {error_ms}: somebody has to serve");
    }
}

#[test]
fn of_two_the_elder_is_believed() {
    for error_ms in [-300_000, 300_000] {
        let mut circle = elder_and_younger(error_ms);
        assert!(circle.is_serving(0) && circle.0[0].replica.is_ready(), "{error_ms}");
        assert!(matches!(circle.put(0, "a"), Outcome::Done { .. }), "{error_ms}");
        assert!(!circle.is_serving(1), "{error_ms}");
    }
    let circle = elder_and_younger(100);
    assert!(circle.is_serving(0) && circle.is_serving(1), "nobody is wrong");
}

#[test]
fn of_two_the_one_is_believed_whose_clock_somebody_confirmed() {
    for error_ms in [-300_000, 700_000] {
        // One that has run for the longest and met nobody, and two that meet.
        let mut wrong = Bench::with_clock(3, vec![TableConfig::new(name("t"))], true, error_ms);
        wrong.pass(10_000);
        let mut circle = Circle::new(&[10_000, 10_000]);
        circle.meet();
        circle.pass(1_000);
        // One of these is gone, for longer than what it said counts.
        circle.0.truncate(1);
        circle.pass(70_000);
        wrong.pass(71_000);
        circle.0.push(wrong);
        circle.meet();
        circle.pass(3_000);
        assert!(circle.is_serving(0) && !circle.is_serving(1), "{error_ms}");
        assert!(matches!(circle.put(0, "a"), Outcome::Done { .. }), "{error_ms}");
    }
}

#[test]
fn a_step_that_was_followed_has_to_be_confirmed_anew() {
    let mut circle = Circle::new(&[0, 0]);
    circle.meet();
    circle.pass(1_000);
    assert!(circle.0[0].replica.is_clock_confirmed);
    let mut alone = circle.0.remove(0);
    alone.wall_error_ms = 300_000;
    alone.pass(70_000);
    assert!(!alone.replica.is_clock_confirmed, "it has followed its own clock alone");
}

#[test]
fn a_start_behind_what_its_file_holds_is_in_doubt() {
    let start = |number: u64, is_deleted: bool| {
        let sample = ClockSample { wall_ms: START_MS, boot_ms: 1_000 };
        let mut recovery = Replica::recover(Bench::sessions().replica.settings, sample);
        let mut writer = Bench::with_clock(number, vec![TableConfig::new(name("t"))], true, 300_000);
        writer.one("a", put(b"v"));
        if is_deleted {
            writer.one("a", Action::Delete);
        }
        let write = writer.replica.recent.back().expect("its write");
        write.rows.iter().for_each(|row| recovery.load(row.clone()));
        recovery.finish(Meta::default(), VersionVector::default())
    };
    assert!(!start(2, true).time.is_in_doubt(), "another's tombstone is taken from any clock");
    for (writer, is_deleted) in [(1, false), (1, true), (2, false)] {
        let replica = start(writer, is_deleted);
        assert!(replica.time.is_in_doubt(), "{writer} {is_deleted}");
        assert_eq!(replica.now_ms, START_MS + 300_050, "{writer} {is_deleted}");
    }
}

#[test]
fn a_clock_that_was_doubted_is_not_right_because_nobody_is_there() {
    let mut circle = elder_and_younger(-300_000);
    // The link breaks.
    circle.0[1].pass(30_000);
    assert!(!circle.is_serving(1));
    // As long as a step that nobody confirms.
    circle.0[1].pass(40_000);
    assert!(circle.is_serving(1), "somebody has to serve");
}

#[test]
fn an_elder_that_may_be_ahead_drops_nothing() {
    for (error_ms, drops) in [(-300_000, false), (100, true)] {
        let mut circle = elder_and_younger(error_ms);
        circle.0[0].one_if_local("a", put_for(1_000));
        circle.pass(90_000);
        assert_eq!(circle.0[0].replica.counters.swept > 0, drops, "{error_ms}");
        assert!(matches!(circle.0[0].read("a"), Lookup::Absent { .. }), "expired by the time it serves by");
    }
}
