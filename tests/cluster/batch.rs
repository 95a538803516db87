//! Batches: all writes or none, reads of the state before.

use mneme_tests::cluster::Cluster;
use mneme_tests::http::Response;
use mneme_tests::node::Node;
use serde_json::{Value, json};

async fn batch(node: &Node, ops: Value) -> Response {
    node.client("POST", "/v1/tables/sessions/batch").json(&json!({ "ops": ops })).send().await
}

fn statuses(answer: &Value) -> Vec<u64> {
    answer["results"]
        .as_array()
        .expect("results")
        .iter()
        .filter_map(|result| result["status"].as_u64())
        .collect()
}

#[tokio::test]
async fn operations_see_the_state_before_and_are_applied_as_one() {
    let cluster = Cluster::start(2).await;
    let node = &cluster[0];
    node.put("old", "v").send().await.expect(201);
    let answer = batch(
        node,
        json!([
            {"op": "get", "key": ["new"]},
            {"op": "put", "key": ["new"], "value": "AQ==", "contentType": "x/y", "ttlMs": 60000},
            {"op": "create", "key": ["made"], "value": ""},
            {"op": "get", "key": ["old"]},
            {"op": "delete", "key": ["old"]},
            {"op": "touch", "key": ["nothing"]},
        ]),
    )
    .await
    .expect(200);
    assert!(answer.header("mneme-acks").is_some());
    let answer = answer.json();
    assert_eq!(statuses(&answer), [404, 201, 201, 200, 204, 404]);
    assert_eq!(answer["results"][3]["value"], "dg==");
    assert!(answer["results"][1]["etag"].as_str().is_some_and(|etag| etag.starts_with('"')));
    for node in cluster.nodes() {
        assert_eq!(node.read("new").await.expect(200).body.as_ref(), [1]);
        assert_eq!(node.read("new").await.required_header("content-type"), "x/y");
        node.assert_read_status("old", 410).await;
    }
}

#[tokio::test]
async fn one_failed_condition_stops_all() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    node.put("there", "v").send().await.expect(201);
    node.delete("gone").send().await.expect(204);
    let failed = batch(
        node,
        json!([
            {"op": "put", "key": ["a"], "value": ""},
            {"op": "create", "key": ["there"], "value": ""},
            {"op": "put", "key": ["gone"], "value": ""},
        ]),
    )
    .await
    .expect_problem(412)
    .json();
    assert_eq!(statuses(&failed), [424, 412, 410]);
    node.assert_read_status("a", 404).await;
    let touched =
        batch(node, json!([{"op": "touch", "key": ["gone"]}, {"op": "put", "key": ["a"], "value": ""}]));
    assert_eq!(statuses(&touched.await.expect(200).json()), [410, 201]);
}

#[tokio::test]
async fn a_bad_batch_changes_nothing() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let good = json!({"op": "put", "key": ["a"], "value": "AQ=="});
    for bad in [
        json!({"op": "put", "key": ["a"], "value": "AQ=="}),
        json!({"op": "put", "key": ["b"], "value": "%%%"}),
        json!({"op": "put", "key": [], "value": ""}),
        json!({"op": "put", "key": ["s3cret", ""], "value": ""}),
        json!({"op": "put", "key": "s3cret", "value": ""}),
        json!({"op": "put", "key": ["b"]}),
        json!({"op": "put", "key": ["b"], "value": "", "ttl": "1m"}),
        json!({"op": "put", "key": ["b"], "value": "", "ttlMs": 0}),
        json!({"op": "put", "key": ["b"], "value": "", "ttlMs": 99_999_999_999_u64}),
        json!({"op": "put", "key": ["b"], "value": "", "ifMatch": "x"}),
        json!({"op": "get", "key": ["b"], "value": ""}),
        json!({"op": "swap", "key": ["b"]}),
        json!({"op": "get", "key": ["b"], "s3cret": 1}),
        json!({"op": "get", "key": [{"base64": "YQ==", "s3cret": 1}]}),
        json!(7),
    ] {
        let answer = batch(node, json!([good, bad])).await;
        assert_eq!(answer.code(), 400, "{bad}: {}", answer.text());
        let answer = answer.expect_problem(400);
        assert!(!answer.text().contains("s3cret"), "{}", answer.text());
    }
    batch(node, json!([])).await.expect_problem(400);
    let many: Vec<Value> = (0..1_001).map(|n| json!({"op": "get", "key": [n.to_string()]})).collect();
    batch(node, json!(many)).await.expect_problem(400);
    let large = json!({"op": "put", "key": ["b"], "value": "A".repeat(400_000)});
    batch(node, json!([good, large])).await.expect_problem(413);
    let larger = json!({"op": "put", "key": ["b"], "value": "A".repeat(1_100_000)});
    batch(node, json!([larger])).await.expect_problem(413);
    let unknown =
        node.client("POST", "/v1/tables/sessions/batch").body("{\"ops\":[],\"s3cret\":1}").send().await;
    assert!(!unknown.expect_problem(400).text().contains("s3cret"));
    for body in ["", "{", "[]", "{\"ops\":1}", "{\"ops\":[]} x"] {
        node.client("POST", "/v1/tables/sessions/batch").body(body).send().await.expect_problem(400);
    }
    node.assert_read_status("a", 404).await;
}

#[tokio::test]
async fn an_answer_beyond_the_bound_is_refused_before_anything_is_applied() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    node.put("large", &"v".repeat(256 << 10)).send().await.expect(201);
    let gets = |count: usize| vec![json!({"op": "get", "key": ["large"]}); count];
    let mut ops = gets(33);
    ops.push(json!({"op": "put", "key": ["a"], "value": ""}));
    let refused = batch(node, json!(ops)).await.expect_problem(413);
    assert_eq!(refused.json()["type"], "/problems/answer-too-large");
    node.assert_read_status("a", 404).await;
    let answer = batch(node, json!(gets(32))).await.expect(200).json();
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(32));
    assert_eq!(answer["results"][31]["contentType"], "application/octet-stream");
}
