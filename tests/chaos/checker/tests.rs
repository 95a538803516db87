use super::*;
use crate::history::Disturbance;

const SECOND: u64 = 1_000_000;

/// An operation from `start` to a tenth of a second later, in seconds.
fn op(node: usize, start: u64, action: Action, outcome: Outcome) -> Operation {
    let start_us = start * SECOND;
    Operation { client: 0, node, start_us, end_us: start_us + SECOND / 10, action, outcome }
}

fn sign_in(node: usize, start: u64) -> Operation {
    op(node, start, Action::SignIn { session: 1, value: 10, ttl_ms: None }, Outcome::Ok)
}

fn rewrite(node: usize, start: u64, value: u64, outcome: Outcome) -> Operation {
    op(node, start, Action::Rewrite { session: 1, value }, outcome)
}

fn sign_out(node: usize, start: u64, outcome: Outcome) -> Operation {
    op(node, start, Action::SignOut { session: 1 }, outcome)
}

fn read(node: usize, start: u64, value: Option<u64>) -> Operation {
    op(node, start, Action::Read { session: 1 }, Outcome::Saw(Seen::Value(value)))
}

fn list(node: usize, start: u64, list: &[(u64, u64)]) -> Operation {
    op(node, start, Action::List { user: Some(1) }, Outcome::Saw(Seen::List(list.to_vec())))
}

fn pair(node: usize, start: u64, left: Option<u64>, right: Option<u64>) -> Operation {
    op(node, start, Action::ReadPair { pair: 1 }, Outcome::Saw(Seen::Pair(left, right)))
}

fn cut(one: usize, other: usize, start: u64, whole: u64) -> Disturbance {
    Disturbance {
        fault: "split".to_owned(),
        start_us: start * SECOND,
        undone_us: whole * SECOND,
        whole_us: whole * SECOND,
        cut: vec![(one, other)],
        wrong_clock: None,
    }
}

fn history(operations: &[Operation], disturbances: &[Disturbance]) -> History {
    History { operations: operations.to_vec(), disturbances: disturbances.to_vec(), at_rest_us: None }
}

#[track_caller]
fn assert_finds(history: &History, expected: &[Finding]) {
    let findings = check(history);
    let found: Vec<Finding> = findings.counts.keys().copied().collect();
    assert_eq!(found, expected, "{:?}", findings.described());
}

#[track_caller]
fn assert_clean(operations: &[Operation]) {
    assert_finds(&history(operations, &[]), &[]);
}

#[track_caller]
fn assert_found(operations: &[Operation], finding: Finding) {
    assert_finds(&history(operations, &[]), &[finding]);
}

#[test]
fn a_life_as_promised_is_clean() {
    assert_clean(&[
        read(1, 0, None),
        sign_in(0, 1),
        read(1, 2, Some(10)),
        rewrite(2, 3, 20, Outcome::Ok),
        read(0, 4, Some(20)),
        list(1, 5, &[(1, 20)]),
        sign_out(1, 6, Outcome::Ok),
        read(2, 7, None),
        list(0, 7, &[]),
        rewrite(0, 8, 30, Outcome::Rejected { found_nothing: true }),
    ]);
}

#[test]
fn a_session_that_is_not_there_is_a_false_logout_however_it_shows() {
    for look in [
        read(1, 2, None),
        list(1, 2, &[]),
        rewrite(1, 2, 20, Outcome::Rejected { found_nothing: true }),
        rewrite(1, 2, 20, Outcome::Saw(Seen::Value(None))),
    ] {
        assert_found(&[sign_in(0, 1), look], Finding::FalseLogout);
    }
}

#[test]
fn a_session_that_is_back_is_revived_however_it_shows() {
    for look in [read(1, 3, Some(10)), list(1, 3, &[(1, 10)]), rewrite(1, 3, 20, Outcome::Ok)] {
        assert_found(&[sign_in(0, 1), sign_out(0, 2, Outcome::Ok), look], Finding::RevivedSession);
    }
    let everywhere = op(2, 2, Action::SignOutEverywhere { user: 1 }, Outcome::Ok);
    assert_found(&[sign_in(0, 1), everywhere.clone(), read(1, 3, Some(10))], Finding::RevivedSession);
    // One that was over before the session began changes nothing of the next.
    let earlier = op(2, 0, Action::SignOutEverywhere { user: 1 }, Outcome::Ok);
    let operations = [earlier, sign_in(0, 1), everywhere.clone(), read(1, 3, Some(10))];
    assert_found(&operations, Finding::RevivedSession);
    // What somebody had signed out before it counts by that alone, here across a cut.
    let operations = [sign_in(0, 0), sign_out(0, 1, Outcome::Ok), everywhere, read(1, 3, Some(10))];
    let findings = check(&history(&operations, &[cut(0, 1, 1, 4)]));
    assert_eq!((findings.excused, findings.is_clean()), (1, true), "{:?}", findings.described());
}

#[test]
fn a_sign_out_without_an_answer_excuses_both() {
    let operations = [sign_in(0, 1), sign_out(0, 2, Outcome::Unknown)];
    for look in [read(1, 3, Some(10)), read(1, 3, None)] {
        assert_clean(&[operations.as_slice(), &[look]].concat());
    }
    // One that was certainly not done excuses nothing.
    let rejected = sign_out(0, 2, Outcome::Rejected { found_nothing: false });
    assert_found(&[sign_in(0, 1), rejected, read(1, 3, None)], Finding::FalseLogout);
}

#[test]
fn an_old_value_is_a_stale_read_and_at_rest_a_lost_write() {
    let operations = [sign_in(0, 1), rewrite(0, 2, 20, Outcome::Ok), read(1, 3, Some(10))];
    assert_found(&operations, Finding::StaleRead);
    let mut at_rest = history(&operations, &[]);
    at_rest.at_rest_us = Some(2 * SECOND + SECOND / 2);
    assert_finds(&at_rest, &[Finding::LostWrite]);
    // Nobody knows whether this one was done; and it may have been done later than the other.
    assert_clean(&[sign_in(0, 1), rewrite(0, 2, 20, Outcome::Unknown), read(1, 3, Some(10))]);
    assert_clean(&[
        sign_in(0, 1),
        rewrite(0, 2, 20, Outcome::Unknown),
        rewrite(0, 3, 30, Outcome::Ok),
        read(1, 4, Some(20)),
    ]);
}

#[test]
fn what_overlaps_may_be_seen_in_either_order() {
    for value in [10, 20] {
        let mut look = read(1, 2, Some(value));
        look.start_us = 2 * SECOND - 1;
        assert_clean(&[sign_in(0, 1), rewrite(0, 2, 20, Outcome::Ok), look]);
    }
}

#[test]
fn a_value_that_was_refused_or_never_written_comes_from_nowhere() {
    assert_found(&[sign_in(0, 1), read(1, 2, Some(11))], Finding::FromNowhere);
    let refused = rewrite(0, 2, 20, Outcome::Rejected { found_nothing: false });
    assert_found(&[sign_in(0, 1), refused, read(1, 3, Some(20))], Finding::FromNowhere);
    assert_found(
        &[sign_in(0, 1), read(1, 2, Some(20)), rewrite(0, 3, 20, Outcome::Ok)],
        Finding::FromNowhere,
    );
}

#[test]
fn only_a_cut_between_the_two_nodes_at_that_time_excuses() {
    let operations = [sign_in(0, 2), read(1, 3, None)];
    assert_finds(&history(&operations, &[cut(0, 1, 1, 4)]), &[]);
    assert_eq!(check(&history(&operations, &[cut(1, 0, 1, 4)])).excused, 1);
    for other in [cut(0, 2, 1, 4), cut(0, 1, 4, 5), cut(0, 1, 0, 1)] {
        assert_finds(&history(&operations, &[other]), &[Finding::FalseLogout]);
    }
    // Acknowledged before the cut, so it was there already.
    let mut late = cut(0, 1, 2, 4);
    late.start_us += SECOND / 5;
    assert_finds(&history(&operations, &[late]), &[Finding::FalseLogout]);
    // Signed out on one side: gone once they can talk.
    let operations = [sign_in(0, 0), sign_out(0, 2, Outcome::Ok), read(1, 3, Some(10)), read(1, 5, Some(10))];
    let ended = history(&operations, &[cut(0, 1, 1, 4), cut(0, 1, 5, 9)]);
    let findings = check(&ended);
    assert_eq!((findings.excused, findings.count(Finding::RevivedSession)), (1, 1));
}

#[test]
fn of_two_writes_at_once_on_two_sides_either_may_win() {
    let mut second = rewrite(1, 2, 30, Outcome::Ok);
    second.start_us += SECOND / 5;
    second.end_us += SECOND / 5;
    let operations = [sign_in(0, 0), rewrite(0, 2, 20, Outcome::Ok), second, read(2, 8, Some(20))];
    assert_finds(&history(&operations, &[cut(0, 1, 1, 4)]), &[]);
    assert_finds(&history(&operations, &[]), &[Finding::StaleRead]);
    // Not when it came much later.
    let operations =
        [sign_in(0, 0), rewrite(0, 2, 20, Outcome::Ok), rewrite(1, 3, 30, Outcome::Ok), read(2, 8, Some(20))];
    assert_finds(&history(&operations, &[cut(0, 1, 1, 4)]), &[Finding::StaleRead]);
}

#[test]
fn a_pair_is_written_whole() {
    let write = |start, value| op(0, start, Action::WritePair { pair: 1, value }, Outcome::Ok);
    assert_clean(&[pair(1, 0, None, None), write(1, 10), pair(1, 2, Some(10), Some(10))]);
    assert_found(&[write(1, 10), pair(1, 2, Some(10), None)], Finding::TornBatch);
    assert_found(&[write(1, 10), write(2, 20), pair(1, 3, Some(10), Some(10))], Finding::StaleRead);
}

#[test]
fn a_key_of_the_cache_may_live_again() {
    let cache = |start, action, outcome| op(0, start, action, outcome);
    let (put, delete) = (|value| Action::CachePut { key: 1, value }, Action::CacheDelete { key: 1 });
    let look = |start, value| cache(start, Action::CacheRead { key: 1 }, Outcome::Saw(Seen::Value(value)));
    let lived = [
        cache(1, put(10), Outcome::Ok),
        cache(2, delete, Outcome::Ok),
        look(3, None),
        cache(4, put(20), Outcome::Ok),
        look(5, Some(20)),
    ];
    assert_clean(&lived);
    for stale in [look(3, Some(10)), look(5, None), look(5, Some(10))] {
        assert_found(&[lived.as_slice(), &[stale]].concat(), Finding::StaleRead);
    }
}

#[test]
fn deadlines_are_kept_by_either_side() {
    let brief = op(0, 1, Action::SignIn { session: 1, value: 10, ttl_ms: Some(4_000) }, Outcome::Ok);
    let touch = |start, outcome| op(0, start, Action::Touch { session: 1, ttl_ms: 4_000 }, outcome);
    assert_clean(&[brief.clone(), read(1, 3, Some(10)), read(1, 7, None)]);
    assert_found(&[brief.clone(), read(1, 3, None)], Finding::FalseLogout);
    assert_found(&[brief.clone(), read(1, 7, Some(10))], Finding::ReadAfterExpiry);
    assert_clean(&[brief.clone(), touch(4, Outcome::Ok), read(1, 7, Some(10)), read(1, 10, None)]);
    assert_found(&[brief.clone(), touch(4, Outcome::Ok), read(1, 7, None)], Finding::FalseLogout);
    assert_found(&[brief.clone(), touch(7, Outcome::Ok)], Finding::ReadAfterExpiry);
    for value in [None, Some(10)] {
        assert_clean(&[brief.clone(), touch(4, Outcome::Unknown), read(1, 7, value)]);
    }
    // Signed out everywhere after it had expired there, and prolonged on the other side of a cut.
    let far = op(2, 4, Action::Touch { session: 1, ttl_ms: 9_000 }, Outcome::Ok);
    let everywhere = op(0, 6, Action::SignOutEverywhere { user: 1 }, Outcome::Ok);
    let lived_on = [brief.clone(), far, everywhere, read(0, 9, Some(10))];
    assert_finds(&history(&lived_on, &[cut(0, 2, 3, 8)]), &[]);
    assert_finds(&history(&lived_on, &[]), &[Finding::RevivedSession]);
    // By the clock of the node that was asked.
    let wrong = Disturbance { wrong_clock: Some(1), cut: vec![], ..cut(0, 0, 2, 9) };
    for look in [read(1, 3, None), read(1, 7, Some(10))] {
        assert_finds(&history(&[brief.clone(), look], std::slice::from_ref(&wrong)), &[]);
    }
    assert_finds(&history(&[brief, read(2, 3, None)], &[wrong]), &[Finding::FalseLogout]);
}
