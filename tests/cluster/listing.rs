//! Lists and delete by match.

use mneme_tests::cluster::Cluster;
use mneme_tests::http::Response;
use mneme_tests::node::Node;
use mneme_tests::records::record;
use serde_json::Value;

async fn list(node: &Node, query: &str) -> Value {
    node.get(format!("/v1/tables/sessions/records{query}")).await.expect(200).json()
}

fn keys(list: &Value) -> Vec<String> {
    let records = list["records"].as_array().expect("records");
    let key = |record: &Value| {
        let segments = record["key"].as_array().expect("segments").iter();
        segments.map(|segment| segment.as_str().unwrap_or("?")).collect::<Vec<_>>().join("/")
    };
    records.iter().map(key).collect()
}

#[tokio::test]
async fn lists_match_patterns_in_key_order() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    for key in
        ["user/42/b", "user/42/a", "user/43/a", "user/42", "user/4/a/deep", "other", "a%2Fb", "user/42/%2A"]
    {
        node.put(key, key).send().await.expect(201);
    }
    assert_eq!(keys(&list(node, "?match=user/42/**").await), ["user/42/*", "user/42/a", "user/42/b"]);
    assert_eq!(keys(&list(node, "?match=user/*/a").await), ["user/42/a", "user/43/a"]);
    assert_eq!(keys(&list(node, "?match=user/42/%2A").await), ["user/42/*"]);
    assert_eq!(keys(&list(node, "?match=*").await), ["a/b", "other"]);
    assert_eq!(keys(&list(node, "?match=user/42").await), ["user/42"]);
    assert_eq!(keys(&list(node, "").await).len(), 8);
    assert_eq!(keys(&list(node, "?match=nothing/**").await).len(), 0);
    let with_values = list(node, "?match=user/43/a&values=true").await;
    assert_eq!(with_values["records"][0]["value"], "dXNlci80My9h");
    assert_eq!(list(node, "?match=other").await["records"][0].get("value"), None);
}

#[tokio::test]
async fn pages_follow_a_cursor_and_lines_carry_it_in_a_header() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    for number in 0..25 {
        node.put(&format!("k/{number:02}"), "v").send().await.expect(201);
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = list(node, &format!("?limit=10{cursor}")).await;
        seen.extend(keys(&page));
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let expected: Vec<String> = (0..25).map(|number| format!("k/{number:02}")).collect();
    assert_eq!(seen, expected);
    let lines: Response = node
        .client("GET", "/v1/tables/sessions/records?limit=10")
        .header("accept", "application/x-ndjson")
        .send()
        .await
        .expect(200);
    assert_eq!(lines.text().lines().count(), 10);
    assert!(lines.required_header("content-type").starts_with("application/x-ndjson"));
    assert!(!lines.required_header("mneme-cursor").is_empty());
}

#[tokio::test]
async fn the_last_page_has_no_cursor_even_when_it_is_full() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    for number in 0..4 {
        node.put(&format!("k/{number}"), "v").send().await.expect(201);
    }
    let first = list(node, "?limit=2").await;
    let cursor = first["cursor"].as_str().expect("a cursor");
    let last = list(node, &format!("?limit=2&cursor={cursor}")).await;
    assert_eq!((keys(&last).len(), last["cursor"].is_null()), (2, true), "{last}");
    assert_eq!(last["records"][0]["contentType"], "application/octet-stream", "as a read has it");
}

#[tokio::test]
async fn a_segment_that_is_no_text_is_listed_as_base64() {
    let cluster = Cluster::start(1).await;
    cluster[0].put("bin/%FF%00", "v").send().await.expect(201);
    let found = list(&cluster[0], "").await;
    assert_eq!(found["records"][0]["key"][1]["base64"], "/wA=");
}

#[tokio::test]
async fn sign_out_everywhere_deletes_what_matches_on_every_node() {
    let cluster = Cluster::start(2).await;
    for number in 0..1_200 {
        let node = &cluster[number % 2];
        node.client("PUT", record(&format!("user/42/{number}")) + "?ack=local")
            .body("v")
            .send()
            .await
            .expect(201);
    }
    cluster[0].put("user/43/a", "v").send().await.expect(201);
    let deleted = cluster[1].client("DELETE", "/v1/tables/sessions/records?match=user/42/**").send().await;
    assert_eq!(deleted.expect(200).json()["deleted"], 1_200);
    for node in cluster.nodes() {
        assert_eq!(keys(&list(node, "?match=user/**").await), ["user/43/a"]);
        node.assert_read_status("user/42/7", 410).await;
    }
    let none = cluster[0].client("DELETE", "/v1/tables/sessions/records?match=user/42/**").send().await;
    assert_eq!(none.expect(200).json()["deleted"], 0);
}
