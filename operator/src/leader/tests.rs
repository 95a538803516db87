use super::*;

fn lease(holder: &str, version: &str) -> Lease {
    Lease {
        metadata: ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(DURATION_SECS),
            ..LeaseSpec::default()
        }),
    }
}

#[track_caller]
fn check(lease: Option<&Lease>, seen_secs_ago: Option<u64>, expected: &Decision) {
    let now = Instant::now() + Duration::from_secs(1_000);
    let seen = seen_secs_ago
        .map(|seconds| Seen { resource_version: "1".to_owned(), since: now - Duration::from_secs(seconds) });
    assert_eq!(&decide(lease, seen.as_ref(), "me", now), expected);
}

#[test]
fn a_record_is_taken_when_it_is_free_or_stands_still() {
    check(None, None, &Decision::Create);
    check(Some(&lease("me", "1")), Some(100), &Decision::Renew);
    check(Some(&lease("", "1")), Some(0), &Decision::TakeOver);
    check(Some(&lease("other", "1")), None, &Decision::Wait);
    check(Some(&lease("other", "1")), Some(14), &Decision::Wait);
    check(Some(&lease("other", "1")), Some(15), &Decision::TakeOver);
    // It was renewed since.
    check(Some(&lease("other", "2")), Some(15), &Decision::Wait);
}

#[test]
fn the_time_stamps_of_others_do_not_matter() {
    let mut old = lease("other", "1");
    if let Some(spec) = &mut old.spec {
        spec.renew_time = Some(MicroTime("2000-01-01T00:00:00Z".parse().expect("a time")));
    }
    check(Some(&old), Some(1), &Decision::Wait);
}

#[test]
fn a_claim_ends_before_others_may_take_over() {
    let others = Duration::from_secs(u64::from(DURATION_SECS.unsigned_abs()));
    assert!(CLAIM + REQUEST_MAX < others);
    assert!(PAUSE + REQUEST_MAX < CLAIM);
}

#[tokio::test(start_paused = true)]
async fn a_claim_runs_out_by_itself() {
    let claim = Claim::fixed(Duration::from_secs(10));
    assert!(claim.is_held());
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(!claim.is_held());
}

mod races {
    use super::*;
    use crate::reconcile::fake::FakeApi;

    fn start(
        api: &FakeApi,
        name: &str,
    ) -> (Claim, CancellationToken, tokio::task::JoinHandle<Result<(), LeaderError>>) {
        let leader = Leader::new(api.client(), "system", name);
        let (claim, stop) = (leader.claim(), CancellationToken::new());
        let task = tokio::spawn(leader.run(stop.clone()));
        (claim, stop, task)
    }

    /// Lets so much time pass, in steps, and looks at each that not both hold the Lease.
    async fn pass(seconds: u64, claims: &[&Claim]) {
        for _ in 0..seconds * 10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(claims.iter().filter(|claim| claim.is_held()).count() <= 1, "two lead");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_two_leads_and_the_other_follows_when_it_stops() {
        let api = FakeApi::default();
        let (first, stop, task) = start(&api, "a");
        pass(1, &[&first]).await;
        let (second, ..) = start(&api, "b");
        pass(60, &[&first, &second]).await;
        assert!(first.is_held() && !second.is_held());
        stop.cancel();
        assert!(matches!(task.await, Ok(Ok(()))));
        assert!(!first.is_held());
        pass(3, &[&first, &second]).await;
        assert!(second.is_held(), "the Lease was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_dies_is_followed_after_the_time_of_the_lease() {
        let api = FakeApi::default();
        let (first, _, task) = start(&api, "a");
        pass(1, &[&first]).await;
        let (second, ..) = start(&api, "b");
        pass(1, &[&first, &second]).await;
        task.abort();
        pass(12, &[&first, &second]).await;
        assert!(!first.is_held() && !second.is_held());
        pass(6, &[&first, &second]).await;
        assert!(second.is_held());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_cut_from_the_api_server_stops_before_another_begins() {
        let api = FakeApi::default();
        let (first, _, task) = start(&api, "a");
        pass(1, &[&first]).await;
        api.refuse(http::Method::PUT, "leases", 500, "no");
        pass(11, &[&first]).await;
        assert!(!first.is_held());
        assert!(matches!(task.await, Ok(Err(LeaderError::Expired))));
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_find_a_lease_run_out_one_gets_it() {
        let api = FakeApi::default();
        let (dead, _, task) = start(&api, "dead");
        pass(1, &[&dead]).await;
        task.abort();
        let (first, ..) = start(&api, "a");
        let (second, ..) = start(&api, "b");
        pass(40, &[&dead, &first, &second]).await;
        assert!(first.is_held() ^ second.is_held());
    }
}
