use jiff::ToSpan;
use serde_json::{Value, json};

use super::*;
use crate::crd::v1alpha1::SessionCache;
use crate::nodes::NodeAnswer;
use crate::reconcile::fetch::Children;
use crate::reconcile::validate::validate;

const NOW: &str = "2026-01-01T12:00:00Z";

/// A set of pods, as a test has them: `n` new and ready, `o` old and ready, `N` and `O` the same and not ready, `B` new with
/// a bad image, `-` missing.
struct Scene {
    pods: &'static str,
    replicas: i32,
    wanted: i32,
    partition: i32,
    nodes: Vec<(usize, NodeAnswer)>,
    unready_minutes: i64,
}

impl Scene {
    fn new(pods: &'static str) -> Self {
        let replicas = i32::try_from(pods.len()).expect("few");
        Self { pods, replicas, wanted: replicas, partition: replicas, nodes: Vec::new(), unready_minutes: 1 }
    }

    fn pod(&self, ordinal: usize, kind: char) -> Option<Value> {
        let is_ready = matches!(kind, 'n' | 'o');
        let revision = if matches!(kind, 'o' | 'O') { "web-old" } else { "web-new" };
        let now: Timestamp = NOW.parse().expect("a time");
        let since = now - if is_ready { 60.minutes() } else { self.unready_minutes.minutes() };
        let state =
            if kind == 'B' { json!({"waiting": {"reason": "ErrImagePull"}}) } else { json!({"running": {}}) };
        (kind != '-').then(|| {
            json!({
                "metadata": {"name": format!("web-{ordinal}"), "labels": {"controller-revision-hash": revision}},
                "status": {
                    "conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" },
                                    "lastTransitionTime": since.to_string()}],
                    "containerStatuses": [{"name": "node", "image": "", "imageID": "", "ready": is_ready,
                                           "restartCount": 0, "state": state}],
                },
            })
        })
    }

    fn status(&self, own: usize) -> Value {
        let member = |(ordinal, kind): (usize, char)| {
            let state = if ordinal == own { "self" } else { "live" };
            matches!(kind, 'n' | 'o').then(|| {
                json!({"id": format!("id-{ordinal}"), "name": format!("web-{ordinal}"),
                       "address": format!("web-{ordinal}.web-peers.shop.svc.cluster.local:7071"), "state": state,
                       "lagWrites": 0, "lastContactMs": 1, "skewMs": 0, "digest": "equal"})
            })
        };
        let members: Vec<Value> = self.pods.chars().enumerate().filter_map(member).collect();
        json!({"node": {"id": format!("id-{own}"), "name": "", "version": "1", "uptimeMs": 1, "state": "ready"},
               "cluster": "web", "time": "", "members": members, "discovery": [], "tables": [],
               "storage": {"fileBytes": 0, "liveBytes": 0, "durability": "fsync", "sqliteVersion": ""},
               "writesInFlight": 3})
    }

    fn answer(&self, own: usize, change: impl FnOnce(&mut Value)) -> (usize, NodeAnswer) {
        let mut status = self.status(own);
        change(&mut status);
        (own, Ok(serde_json::from_value(status).expect("well-formed")))
    }

    fn plan(&self) -> Plan {
        let cache = json!({
            "apiVersion": "mneme.dev/v1alpha1", "kind": "SessionCache",
            "metadata": {"name": "web", "namespace": "shop", "uid": "uid"}, "spec": {"replicas": self.wanted},
        });
        let cache: SessionCache = serde_json::from_value(cache).expect("well-formed");
        let valid = validate(&cache, "cluster.local").expect("valid");
        let is_complete = self.pods.chars().all(|kind| kind == 'n');
        let set = json!({
            "metadata": {"name": "web", "generation": 1, "annotations": {TEMPLATE_HASH: "hash"}},
            "spec": {"replicas": self.replicas, "selector": {}, "serviceName": "", "template": {},
                     "updateStrategy": {"rollingUpdate": {"partition": self.partition}}},
            "status": {"observedGeneration": 1, "replicas": self.pods.chars().filter(|kind| *kind != '-').count(),
                       "updateRevision": "web-new", "currentRevision": if is_complete { "web-new" } else { "web-old" }},
        });
        let mut observed = Observed {
            stateful_sets: Children {
                owned: vec![serde_json::from_value(set).expect("well-formed")],
                foreign: Vec::new(),
            },
            ..Observed::default()
        };
        for (ordinal, kind) in self.pods.chars().enumerate() {
            if let Some(pod) = self.pod(ordinal, kind) {
                observed.pods.push(serde_json::from_value(pod).expect("well-formed"));
            }
            let answer = if matches!(kind, 'n' | 'o') {
                Ok(serde_json::from_value(self.status(ordinal)).expect("well-formed"))
            } else {
                Err("no answer".to_owned())
            };
            observed.nodes.insert(format!("web-{ordinal}"), answer);
        }
        for (ordinal, answer) in &self.nodes {
            observed.nodes.insert(format!("web-{ordinal}"), answer.clone());
        }
        plan(&valid, &observed, "hash", NOW.parse().expect("a time"))
    }

    #[track_caller]
    fn rolls(&self, partition: i32) {
        let plan = self.plan();
        assert_eq!(plan.partition, partition, "{plan:?}");
        assert!(matches!(plan.rollout, Rollout::Replacing { .. }), "{plan:?}");
    }

    #[track_caller]
    fn waits(&self, part: &str) {
        let plan = self.plan();
        let Rollout::Waiting { why, .. } = &plan.rollout else { panic!("{plan:?}") };
        assert!(why.contains(part), "{why}");
        // The next old pod is below the partition.
        let next = self.pods.chars().take(usize::try_from(self.replicas).expect("few")).collect::<Vec<_>>();
        let next = next.iter().rposition(|kind| matches!(kind, 'o' | 'O')).expect("an old pod");
        assert!(plan.partition > i32::try_from(next).expect("few"), "{plan:?}");
    }
}

#[test]
fn nothing_is_replaced_when_all_is_as_it_should_be() {
    let plan = Scene::new("nnn").plan();
    assert_eq!((plan.partition, plan.rollout, plan.scaling), (3, Rollout::Done, Scaling::Done));
}

#[test]
fn the_last_old_pod_goes_first_and_the_others_one_by_one() {
    Scene::new("ooo").rolls(2);
    Scene { partition: 2, ..Scene::new("oon") }.rolls(1);
    Scene { partition: 1, ..Scene::new("onn") }.rolls(0);
    Scene { partition: 2, ..Scene::new("ooN") }.waits("web-2: it is not ready yet");
    Scene::new("oOo").waits("web-1: it is not ready yet");
    Scene::new("o").rolls(0);
}

#[test]
fn a_bad_image_stops_at_one_pod() {
    let plan = Scene { partition: 2, ..Scene::new("ooB") }.plan();
    assert_eq!(plan.partition, 2);
    assert_eq!(plan.rollout, Rollout::Stalled { why: "pod web-2: ErrImagePull".to_owned() });
}

#[test]
fn pods_that_are_not_ready_anyhow_are_replaced_at_once() {
    Scene::new("OOO").rolls(2);
    Scene::new("ooO").rolls(2);
    // The first of them is given its time.
    Scene { partition: 2, ..Scene::new("OON") }.waits("web-2");
}

#[test]
fn an_old_pod_that_was_never_well_does_not_hold_up_its_cure() {
    Scene { unready_minutes: 4, ..Scene::new("Ooo") }.waits("web-0");
    Scene { unready_minutes: 6, ..Scene::new("Ooo") }.rolls(2);
    // But the last one that serves goes on serving.
    Scene { unready_minutes: 6, ..Scene::new("Oo") }.waits("it is the only one that is ready");
}

#[test]
fn who_is_behind_or_out_of_touch_holds_up_the_roll() {
    let scene = Scene::new("ooo");
    let behind = |change: fn(&mut Value)| Scene { nodes: vec![scene.answer(2, change)], ..Scene::new("ooo") };
    // A node of a version that does not say for how long it has been so.
    behind(|status| status["members"][0]["lagWrites"] = json!(1_001)).waits("web-0: it lacks 1001 writes");
    let lag = |ms: u64| {
        let answer = scene.answer(2, |status| {
            status["members"][0]["lagWrites"] = json!(1_001);
            status["members"][0]["lagMs"] = json!(ms);
        });
        Scene { nodes: vec![answer], ..Scene::new("ooo") }
    };
    lag(2_001).waits("web-0: it lacks 1001 writes");
    lag(2_000).rolls(2);
    behind(|status| status["members"][1]["state"] = json!("suspect")).waits("web-1: web-2 is not in contact");
    behind(|status| status["members"][1]["digest"] = json!("unequal")).waits("differ");
    let joining = scene.answer(0, |status| status["node"]["state"] = json!("joining"));
    Scene { nodes: vec![joining], ..Scene::new("ooo") }.waits("web-0: it is not ready by its own word");
    Scene { nodes: vec![(0, Err("no answer".to_owned()))], ..Scene::new("ooo") }
        .waits("web-0: it does not answer");
}

#[track_caller]
fn leaves(scene: &Scene) {
    let plan = scene.plan();
    assert_eq!(
        (plan.replicas, &plan.scaling),
        (scene.replicas - 1, &Scaling::Down { pod: format!("web-{}", scene.replicas - 1) })
    );
}

#[track_caller]
fn stays(scene: &Scene, part: &str) {
    let plan = scene.plan();
    assert_eq!(plan.replicas, scene.replicas);
    let Scaling::Blocked { why, .. } = &plan.scaling else { panic!("{plan:?}") };
    assert!(why.contains(part) && why.contains(SKIP_SCALE_DOWN_CHECK), "{why}");
}

#[test]
fn a_node_leaves_when_the_others_hold_what_it_holds() {
    let smaller = || Scene { wanted: 1, ..Scene::new("nnn") };
    leaves(&smaller());
    let said = |change: fn(&mut Value)| {
        let nodes = vec![smaller().answer(2, change)];
        Scene { nodes, ..smaller() }
    };
    // Three writes are in flight, and no client has been told of them.
    leaves(&said(|status| status["members"][0]["lagWrites"] = json!(3)));
    stays(
        &said(|status| status["members"][0]["lagWrites"] = json!(4)),
        "web-0 lacks 4 writes that web-2 holds",
    );
    stays(&said(|status| status["members"][1]["state"] = json!("down")), "not in contact with web-1");
    stays(&said(|status| status["members"][1]["digest"] = json!("unequal")), "differ");
    // Ready for an hour: vectors are never equal while writes do not pause.
    leaves(&said(|status| status["members"][1]["digest"] = json!("unknown")));
    stays(&Scene { wanted: 1, ..Scene::new("nNn") }, "web-1 is not ready");
    stays(&Scene { wanted: 1, ..Scene::new("nnN") }, "web-2 does not answer");
}

#[test]
fn who_never_ran_and_was_never_met_may_leave() {
    leaves(&Scene { wanted: 2, ..Scene::new("nnB") });
    let met = Scene::new("nnn").answer(0, |_| {});
    stays(&Scene { wanted: 2, nodes: vec![met], ..Scene::new("nnB") }, "web-2 does not answer");
}

#[test]
fn the_next_leaves_when_the_last_has_left() {
    let leaving = Scene { replicas: 2, wanted: 1, ..Scene::new("nnn") };
    let plan = leaving.plan();
    assert_eq!((plan.replicas, plan.scaling), (2, Scaling::Down { pod: "web-2".to_owned() }));
}

#[test]
fn the_last_node_may_always_stop_and_more_may_always_come() {
    leaves(&Scene { wanted: 0, ..Scene::new("n") });
    let plan = Scene { wanted: 5, ..Scene::new("nNB") }.plan();
    assert_eq!((plan.replicas, plan.scaling), (5, Scaling::Up));
}
