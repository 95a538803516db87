//! The client interface on one node: what each request means, in both versions of HTTP.

use mneme_tests::cluster::Cluster;
use mneme_tests::node::Node;
use mneme_tests::records::record;
use serde_json::json;

#[tokio::test]
async fn a_record_is_stored_read_replaced_and_deleted() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let created = node.put("user/42/a", "one").header("content-type", "text/x").send().await.expect(201);
    assert_eq!(created.required_header("mneme-acks"), "applied=1/1 durable=1/1");
    let etag = created.required_header("etag").to_owned();
    let read = node.read("user/42/a").await.expect(200);
    assert_eq!((read.text().as_str(), read.required_header("content-type")), ("one", "text/x"));
    assert_eq!(read.required_header("etag"), etag);
    let ttl_ms: u64 = read.required_header("mneme-ttl-ms").parse().expect("a number");
    assert!((1_700_000..=1_800_000).contains(&ttl_ms), "{ttl_ms}");

    let replaced = node.put("user/42/a", "two").send().await.expect(204);
    assert_ne!(replaced.required_header("etag"), etag);
    node.assert_value("user/42/a", "two").await;
    let head = node.client("HEAD", record("user/42/a")).send().await.expect(200);
    assert_eq!((head.required_header("content-length"), head.body.len()), ("3", 0));

    let deleted = node.delete("user/42/a").send().await.expect(204);
    let gone = node.read("user/42/a").await.expect_problem(410);
    assert_eq!(gone.required_header("etag"), deleted.required_header("etag"));
    node.put("user/42/a", "three").send().await.expect_problem(410);
    node.delete("user/42/a").send().await.expect(204);
    node.delete("never/there").send().await.expect(204);
    node.read("never/stored").await.expect_problem(404);
}

#[tokio::test]
async fn conditions_decide_whether_a_write_happens() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let first = node.put("k", "one").header("if-none-match", "*").send().await.expect(201);
    let etag = first.required_header("etag").to_owned();
    let refused = node.put("k", "two").header("if-none-match", "*").send().await.expect_problem(412);
    assert_eq!(refused.required_header("etag"), etag);
    node.put("k", "two").header("if-match", "\"0-00\"").send().await.expect_problem(412);
    node.put("absent", "two").header("if-match", "*").send().await.expect_problem(412);
    let second = node.put("k", "two").header("if-match", etag.clone()).send().await.expect(204);
    node.delete("k").header("if-match", etag).send().await.expect_problem(412);
    node.assert_value("k", "two").await;
    node.delete("k").header("if-match", second.required_header("etag")).send().await.expect(204);
    node.put("k", "two").header("if-match", "no quotes").send().await.expect_problem(400);
    node.put("k", "two")
        .header("if-match", "*")
        .header("if-none-match", "*")
        .send()
        .await
        .expect_problem(400);
}

async fn ttl_ms(node: &Node, key: &str) -> u64 {
    node.read(key).await.expect(200).required_header("mneme-ttl-ms").parse().expect("a number")
}

#[tokio::test]
async fn touches_move_the_deadline_and_create_nothing() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let touch =
        |key: &str, query: &str| node.client("POST", format!("/v1/tables/sessions/touch/{key}{query}"));
    node.client("PUT", record("k") + "?ttl=1m&max_age=1h").body("v").send().await.expect(201);
    touch("k", "?ttl=10m").send().await.expect(204);
    // A touch stores up to a sixteenth of the ttl more, so that the next ones need no write.
    let ttl = ttl_ms(node, "k").await;
    assert!((590_000..=640_000).contains(&ttl), "{ttl}");
    touch("k", "?ttl=1m&exact=true").send().await.expect(204);
    assert!(ttl_ms(node, "k").await <= 60_000);
    touch("k", "?ttl=2h").send().await.expect(204);
    assert!(ttl_ms(node, "k").await <= 3_600_000, "never beyond the absolute deadline");
    touch("absent", "?ttl=1m").send().await.expect_problem(404);
    node.read("absent").await.expect_problem(404);
    touch("k", "?ttl=40d").send().await.expect_problem(400);
    node.delete("k").send().await.expect(204);
    touch("k", "").send().await.expect_problem(410);

    node.client("PUT", record("r") + "?ttl=1m").body("v").send().await.expect(201);
    node.client("GET", record("r") + "?touch=20m").send().await.expect(200);
    mneme_tests::wait::wait_until(std::time::Duration::from_secs(5), "the touch of a read", async || {
        ttl_ms(node, "r").await > 1_000_000
    })
    .await;
}

#[tokio::test]
async fn a_read_with_a_touch_answers_the_time_to_live_after_it() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    node.client("PUT", record("k") + "?ttl=10s").body("v").send().await.expect(201);
    let read = node.client("GET", record("k") + "?touch=30m").send().await.expect(200);
    let told: u64 = read.required_header("mneme-ttl-ms").parse().expect("a number");
    assert!((1_799_000..=1_860_000).contains(&told), "{told}");
    assert!(ttl_ms(node, "k").await.abs_diff(told) < 5_000);
}

#[tokio::test]
async fn conditions_of_a_read_are_kept_and_those_of_others_refused() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let etag = node.put("k", "v").send().await.expect(201).required_header("etag").to_owned();
    let read = |name: &str, value: &str| node.client("GET", record("k")).header(name, value);
    for known in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
        let answer = read("if-none-match", &known).send().await.expect(304);
        assert_eq!((answer.required_header("etag"), answer.body.len()), (etag.as_str(), 0));
    }
    read("if-none-match", "\"x\"").send().await.expect(200);
    read("if-match", &etag).send().await.expect(200);
    read("if-match", "\"x\"").send().await.expect_problem(412);
    let touch = node.client("POST", "/v1/tables/sessions/touch/k?ttl=1m").header("if-match", etag.clone());
    touch.send().await.expect_problem(400);
    let delete = node.client("DELETE", "/v1/tables/sessions/records?match=**").header("if-match", "*");
    delete.send().await.expect_problem(400);
    let batch = node.client("POST", "/v1/tables/sessions/batch").header("if-none-match", "*");
    batch.json(&json!({"ops": [{"op": "delete", "key": ["k"]}]})).send().await.expect_problem(400);
    node.delete("k").header("if-none-match", "*").send().await.expect_problem(400);
    node.assert_value("k", "v").await;
}

#[tokio::test]
async fn an_expired_record_is_absent_and_may_be_created_again() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    node.client("PUT", record("k") + "?ttl=200ms").body("v").send().await.expect(201);
    mneme_tests::wait::wait_until(std::time::Duration::from_secs(5), "the record expires", async || {
        node.read_status("k").await == 404
    })
    .await;
    node.put("k", "again").send().await.expect(201);
}

#[tokio::test]
async fn both_versions_of_http_are_served_on_one_port() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    node.put("k", "v").http2().send().await.expect(201);
    node.assert_value("k", "v").await;
    let read = node.client("GET", record("k")).http2().send().await.expect(200);
    assert_eq!(read.text(), "v");
    node.client("GET", "/nowhere").http2().send().await.expect_problem(404);
}

#[tokio::test]
async fn a_read_waits_for_the_version_it_asks_for() {
    let cluster = Cluster::start(2).await;
    let written = cluster[0].put("k", "v").send().await.expect(201);
    let etag = written.required_header("etag").to_owned();
    let read = cluster[1].client("GET", record("k")).header("mneme-min-version", etag.clone());
    assert_eq!(read.send().await.expect(200).text(), "v");
    // A version far in the future never arrives.
    let (stamp, origin) = etag.trim_matches('"').split_once('-').expect("a version");
    let future = format!("\"f{stamp}-{origin}\"");
    let read = cluster[1].client("GET", record("k")).header("mneme-min-version", future).send().await;
    let problem = read.expect_problem(503);
    assert_eq!(problem.required_header("retry-after"), "1");
    let read = cluster[1].client("GET", record("k")).header("mneme-min-version", "nonsense").send().await;
    read.expect_problem(400);
}

#[tokio::test]
async fn cache_tables_take_deleted_keys_again() {
    let mut cluster = Cluster::empty();
    let config = "tables:\n- {name: sessions}\n- {name: carts, kind: cache, maxValueBytes: 8}\n";
    let config = cluster.write_file("config.yaml", config);
    let spec = mneme_tests::node::NodeSpec::new("node").flag("--config").flag(config);
    let index = cluster.add(spec);
    cluster[index].start_ready().await;
    let node = &cluster[index];
    let path = "/v1/tables/carts/records/k";
    node.client("PUT", path).body("v").send().await.expect(201);
    node.client("DELETE", path).send().await.expect(204);
    node.client("GET", path).send().await.expect_problem(404);
    node.client("PUT", path).body("again").send().await.expect(201);
    node.client("PUT", path).body("too large a value").send().await.expect_problem(413);
    node.client("GET", "/v1/tables/other/records/k").send().await.expect_problem(404);
    let status = node.status().await;
    assert_eq!(status["tables"].as_array().map(Vec::len), Some(2));
    assert_eq!(status["tables"][0]["kind"], "cache");
}

#[tokio::test]
async fn the_status_says_what_there_is() {
    let cluster = Cluster::start(2).await;
    cluster[0].put("k", "value").send().await.expect(201);
    cluster[0].delete("gone").send().await.expect(204);
    let status = cluster[0].status().await;
    assert_eq!(status["node"]["name"], "node-0");
    assert_eq!(status["node"]["state"], "ready");
    assert_eq!(status["cluster"], "mneme");
    assert_eq!(status["members"].as_array().map(Vec::len), Some(2));
    assert_eq!(status["members"][0]["state"], "self");
    assert_eq!(status["members"][1]["state"], "live");
    assert_eq!(status["tables"][0]["live"], 1);
    assert_eq!(status["tables"][0]["tombstones"], 1);
    assert_eq!(status["storage"]["durability"], "fsync");
    assert_eq!(status["discovery"][0]["source"], "peer");
    for pointer in ["/node/uptimeMs", "/members/1/lagWrites", "/members/1/lastContactMs", "/members/1/skewMs"]
    {
        assert!(status.pointer(pointer).is_some_and(|value| value.is_i64()), "{pointer}: {status}");
    }
    for pointer in ["/storage/fileBytes", "/storage/liveBytes", "/tables/0/bytes"] {
        assert!(status.pointer(pointer).is_some_and(serde_json::Value::is_u64), "{pointer}: {status}");
    }
    assert!(status["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{status}");
}

#[tokio::test]
async fn the_admin_port_shows_probes_metrics_and_the_description() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    node.put("secret-key", "secret-value").send().await.expect(201);
    node.admin("GET", "/livez").send().await.expect(200);
    node.admin("GET", "/readyz").send().await.expect(200);
    let metrics = node.metrics().await;
    for line in [
        "mneme_ready 1",
        "mneme_records{table=\"sessions\"} 1",
        "mneme_requests_total{route=\"Put\",status=\"201\"} 1",
        "mneme_commit_seconds_count ",
        "mneme_writes_taken_total 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(metrics.ends_with("# EOF\n") && !metrics.contains("secret"));
    let description = node.admin("GET", "/openapi.json").send().await.expect(200).json();
    assert_eq!(description["paths"]["/v1/status"]["get"]["responses"]["200"]["description"], "Done");
    node.admin("POST", "/livez").send().await.expect_problem(405);
}

#[tokio::test]
async fn a_described_route_is_there_and_an_undescribed_one_is_not() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let description = node.admin("GET", "/openapi.json").send().await.expect(200).json();
    let paths = description["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), 9, "{:?}", paths.keys());
    let methods = ["get", "put", "post", "delete", "head", "patch", "options"];
    for (path, item) in paths {
        if item["get"]["tags"][0] == "admin" {
            node.admin("GET", path.as_str()).send().await.expect(200);
            node.client("GET", path.as_str()).send().await.expect_problem(404);
            continue;
        }
        let target = path.replace("{table}", "sessions").replace("{key}", "k");
        for method in methods {
            let request = node.client(&method.to_uppercase(), &*target);
            let code = request.json(&json!({"ops": []})).send().await.code();
            // HEAD is answered wherever GET is.
            let is_described =
                item.get(method).or_else(|| item.get("get").filter(|_| method == "head")).is_some();
            assert_eq!(is_described, code != 405, "{method} {path}: {code}");
        }
    }
}
