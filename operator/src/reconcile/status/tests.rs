use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::conditions::Reason;
use super::*;
use crate::reconcile::fetch::Children;
use crate::reconcile::plan::{Rollout, Scaling};
use crate::reconcile::validate::validate;

fn cache(replicas: i32, is_paused: bool) -> SessionCache {
    serde_json::from_value(json!({
        "apiVersion": "mneme.dev/v1alpha1", "kind": "SessionCache",
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid", "generation": 7},
        "spec": {"replicas": replicas, "paused": is_paused},
    }))
    .expect("well-formed")
}

fn pod(ordinal: i32, is_ready: bool) -> Value {
    json!({"metadata": {"name": format!("web-{ordinal}"), "creationTimestamp": "2026-01-01T00:00:00Z"},
           "status": {"conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" }}]}})
}

/// How a node answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    Silent,
    Ready,
    Joining,
    Alone,
}

fn status_of(own: i32, node: Node, count: i32) -> Result<mneme_api::StatusBody, String> {
    if node == Node::Silent {
        return Err("no answer in time".to_owned());
    }
    let member = |ordinal: i32| {
        let state = match node {
            _ if ordinal == own => "self",
            Node::Alone => "down",
            _ => "live",
        };
        json!({"id": format!("id-{ordinal}"), "name": format!("web-{ordinal}"), "address": "", "state": state,
               "lagWrites": 0, "lastContactMs": 1, "skewMs": 0, "digest": "equal"})
    };
    let state = if node == Node::Joining { "joining" } else { "ready" };
    let members: Vec<Value> = (0..count).map(member).collect();
    Ok(serde_json::from_value(json!({
        "node": {"id": format!("id-{own}"), "name": format!("web-{own}"), "version": "1", "uptimeMs": 1, "state": state},
        "cluster": "web", "time": "", "members": members, "discovery": [], "tables": [],
        "storage": {"fileBytes": 0, "liveBytes": 0, "durability": "fsync", "sqliteVersion": ""}
    }))
    .expect("well-formed"))
}

struct Case {
    replicas: i32,
    pods: Vec<(bool, Node)>,
    plan: Plan,
    is_paused: bool,
    is_template_current: bool,
    problem: Option<Problem>,
}

fn status_of_case(case: &Case) -> SessionCacheStatus {
    let cache = cache(case.replicas, case.is_paused);
    let valid = validate(&cache, "cluster.local").expect("valid");
    let count = i32::try_from(case.pods.len()).expect("few");
    let mut observed = Observed::default();
    for (ordinal, (is_ready, node)) in (0..).zip(&case.pods) {
        observed.pods.push(serde_json::from_value(pod(ordinal, *is_ready)).expect("well-formed"));
        observed.nodes.insert(format!("web-{ordinal}"), status_of(ordinal, *node, count));
    }
    let set = json!({"metadata": {"name": "web"}, "status": {"replicas": count}});
    let set = serde_json::from_value(set).expect("well-formed");
    observed.stateful_sets = Children { owned: vec![set], foreign: Vec::new() };
    status(&Picture {
        cache: &cache,
        valid: Some(&valid),
        observed: Some(&observed),
        plan: Some(&case.plan),
        is_template_current: case.is_template_current,
        problem: case.problem.as_ref(),
        claim_errors: &[],
        now: "2026-01-01T12:00:00Z".parse().expect("a time"),
    })
}

/// All plans, pods, answers and problems with one another.
fn all_cases() -> Vec<Case> {
    let rollouts = [
        Rollout::Done,
        Rollout::Announced,
        Rollout::Replacing { pod: "web-1".to_owned(), updated: 1 },
        Rollout::Waiting { pod: "web-1".to_owned(), why: "why".to_owned() },
        Rollout::Stalled { why: "why".to_owned() },
    ];
    let scalings = [
        Scaling::Done,
        Scaling::Up,
        Scaling::Down { pod: "web-1".to_owned() },
        Scaling::Blocked { pod: "web-1".to_owned(), why: "why".to_owned() },
    ];
    let problems = [
        None,
        Some(Problem::Invalid(vec!["a".to_owned()])),
        Some(Problem::Conflict(vec!["a".to_owned()])),
        Some(Problem::Failed("a".to_owned())),
    ];
    let nodes = [Node::Silent, Node::Ready, Node::Joining, Node::Alone];
    let mut cases = Vec::new();
    for rollout in &rollouts {
        for scaling in &scalings {
            for problem in &problems {
                for bits in 0..8_u32 {
                    for (first, second) in nodes.iter().flat_map(|first| nodes.map(|second| (*first, second)))
                    {
                        cases.push(Case {
                            replicas: 2,
                            pods: vec![(bits & 1 > 0, first), (bits & 2 > 0, second)],
                            plan: Plan {
                                replicas: 2,
                                partition: 2,
                                rollout: rollout.clone(),
                                scaling: scaling.clone(),
                            },
                            is_paused: bits & 4 > 0,
                            is_template_current: true,
                            problem: problem.clone(),
                        });
                    }
                }
            }
        }
    }
    cases
}

#[test]
fn ready_is_never_said_of_a_set_that_is_not() {
    let mut is_ready_somewhere = false;
    for case in all_cases() {
        let status = status_of_case(&case);
        let ready = &status.conditions[0];
        assert_eq!(ready.type_, "Ready");
        if ready.status != "True" {
            continue;
        }
        is_ready_somewhere = true;
        assert_eq!(status.ready_replicas, 2);
        assert!(case.problem.is_none());
        assert_eq!((&case.plan.rollout, &case.plan.scaling), (&Rollout::Done, &Scaling::Done));
        assert!(
            case.pods.iter().all(|(is_ready, node)| *is_ready && *node == Node::Ready),
            "{:?}",
            case.pods
        );
    }
    assert!(is_ready_somewhere);
}

#[test]
fn every_condition_has_the_generation_a_known_reason_and_a_message() {
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(reasons.len(), Reason::ALL.len());
    for case in all_cases() {
        let status = status_of_case(&case);
        assert_eq!(status.observed_generation, Some(7));
        let types: Vec<&str> = status.conditions.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(types, ["Ready", "Progressing", "Degraded", "PeersResolved"]);
        for condition in status.conditions {
            assert_eq!(condition.observed_generation, Some(7));
            assert!(
                reasons.contains(condition.reason.as_str()) && !condition.message.is_empty(),
                "{condition:?}"
            );
        }
    }
}

#[test]
fn nodes_that_are_silent_are_unknown_and_lack_what_only_they_know() {
    let case = Case {
        replicas: 2,
        pods: vec![(true, Node::Ready), (true, Node::Silent)],
        plan: Plan { replicas: 2, partition: 2, rollout: Rollout::Done, scaling: Scaling::Done },
        is_paused: false,
        is_template_current: true,
        problem: None,
    };
    let status = status_of_case(&case);
    assert_eq!(
        (status.conditions[0].status.as_str(), status.conditions[0].reason.as_str()),
        ("Unknown", "MembersUnknown")
    );
    let silent = &status.members[1];
    assert_eq!((silent.id.clone(), silent.version.clone(), silent.ready), (None, None, false));
    assert_eq!(silent.digest, "unknown");
}

#[test]
fn a_ready_of_an_earlier_generation_does_not_stand() {
    let mut case = Case {
        replicas: 1,
        pods: vec![(true, Node::Ready)],
        plan: Plan { replicas: 1, partition: 1, rollout: Rollout::Done, scaling: Scaling::Done },
        is_paused: false,
        is_template_current: false,
        problem: None,
    };
    assert_eq!(status_of_case(&case).conditions[0].reason, "ChangeInProgress");
    case.is_template_current = true;
    assert_eq!(status_of_case(&case).conditions[0].reason, "AllMembersReady");
}

#[test]
fn the_time_of_a_transition_moves_with_the_status_alone() {
    let mut cache = cache(3, false);
    let problem = Problem::Failed("the first".to_owned());
    let picture = |cache: &SessionCache, problem: &Problem, now: &str| {
        status(&Picture {
            cache,
            valid: None,
            observed: None,
            plan: None,
            is_template_current: false,
            problem: Some(problem),
            claim_errors: &[],
            now: now.parse().expect("a time"),
        })
    };
    let first = picture(&cache, &problem, "2026-01-01T00:00:00Z");
    cache.status = Some(first.clone());
    let again = picture(&cache, &Problem::Failed("the second".to_owned()), "2026-01-01T00:01:00Z");
    assert_ne!(first.conditions[0].message, again.conditions[0].message);
    assert_eq!(first.conditions[0].last_transition_time, again.conditions[0].last_transition_time);
    let other = picture(&cache, &Problem::Invalid(Vec::new()), "2026-01-01T00:01:00Z");
    assert_eq!(other.conditions[0].status, "False");
    assert_ne!(first.conditions[0].last_transition_time, other.conditions[0].last_transition_time);
}

/// What is said of peers outside, by a set of one whose node knows one more, and a list that names two addresses.
fn outside(state: &str, address: &str, addresses: &[&str]) -> Vec<(String, Option<bool>)> {
    let mut own = status_of(0, Node::Ready, 1).expect("it answers");
    own.members.push(
        serde_json::from_value(json!({
            "id": "far", "name": "far", "address": address, "addresses": addresses, "state": state,
            "lagWrites": 0, "lastContactMs": 1, "skewMs": 0, "digest": "equal"}))
        .expect("well-formed"),
    );
    let mut observed = Observed::default();
    observed.pods.push(serde_json::from_value(pod(0, true)).expect("well-formed"));
    observed.nodes.insert("web-0".to_owned(), Ok(own));
    observed.found = vec![crate::peers::Found {
        source: "hosts".to_owned(),
        addresses: BTreeSet::from(["10.0.0.5:7071".to_owned(), "far.example:7071".to_owned()]),
        error: None,
    }];
    let valid = validate(&cache(1, false), "cluster.local").expect("valid");
    let peers = members::peers(&valid, &observed);
    peers.into_iter().map(|peer| (peer.address, peer.reachable)).collect()
}

#[test]
fn a_peer_outside_is_one_by_whichever_address_it_was_met() {
    let listed =
        |first, second| vec![("10.0.0.5:7071".to_owned(), first), ("far.example:7071".to_owned(), second)];
    // It advertises a name of its own, and was dialled at an address of the list.
    let met = outside("live", "far.internal:7071", &["10.0.0.5:7071"]);
    assert_eq!(met, listed(Some(true), Some(false)));
    assert_eq!(outside("down", "far.internal:7071", &["10.0.0.5:7071"]), listed(Some(false), Some(false)));
    assert_eq!(outside("live", "far.example:7071", &[]), listed(Some(false), Some(true)));
    // It connected by itself: it may be at either address of the list.
    let mut unknown = listed(None, None);
    unknown.push(("far.internal:7071".to_owned(), Some(true)));
    assert_eq!(outside("live", "far.internal:7071", &[]), unknown);
}
