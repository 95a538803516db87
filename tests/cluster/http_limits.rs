//! Bad input of every kind: a clear answer, and nothing changed.

use std::time::Duration;

use mneme_tests::cluster::Cluster;
use mneme_tests::http::{raw_status, send_raw};
use mneme_tests::node::{Node, NodeSpec};
use mneme_tests::records::record;

async fn refused(node: &Node, method: &str, target: &str, status: u16) {
    let answer = node.client(method, target).body("v").send().await;
    assert_eq!(answer.code(), status, "{method} {target}: {}", answer.text());
    let answer = answer.expect_problem(status);
    assert!(!answer.text().contains("s3cret"), "{}", answer.text());
}

#[tokio::test]
async fn bad_paths_keys_and_parameters_are_refused_and_change_nothing() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let long_segment = "a".repeat(256);
    let long_key = format!("{0}/{0}/{0}", "a".repeat(200));
    let many = ["s3cret"; 17].join("/");
    for key in ["", "a//b", "a/", "/a", "%zz", "a%4", "s3cret%", &long_segment, &long_key, &many] {
        for method in ["GET", "PUT", "DELETE"] {
            refused(node, method, &record(key), 400).await;
        }
    }
    for query in [
        "ttl=0s",
        "ttl=5",
        "ttl=1y",
        "ttl=99999999999999999999d",
        "ttl=31d",
        "max_age=31d",
        "max_age=0ms",
        "nope=1",
        "ack=maybe",
        "timeout=soon",
        "ttl=1m&ttl=2m",
        "touch=1m",
        "=",
        "ttl",
    ] {
        refused(node, "PUT", &format!("{}?{query}", record("k")), 400).await;
    }
    for query in ["touch=0s", "touch=31d", "ttl=1m", "x"] {
        refused(node, "GET", &format!("{}?{query}", record("k")), 400).await;
    }
    for query in [
        "match=",
        "match=a*",
        "match=**/a",
        "match=a//b",
        "match=%zz",
        "limit=0",
        "limit=x",
        "cursor=?",
        "values=yes",
        "unknown=1",
    ] {
        refused(node, "GET", &format!("/v1/tables/sessions/records?{query}"), 400).await;
    }
    refused(node, "DELETE", "/v1/tables/sessions/records", 400).await;
    for target in
        ["/", "/v1", "/v1/tables", "/v1/tables/sessions", "/v1/tables/sessions/other/k", "/v2/status"]
    {
        refused(node, "GET", target, 404).await;
    }
    for table in ["other", "Sessions", "%73essions", "-", "a..b"] {
        refused(node, "GET", &format!("/v1/tables/{table}/records/k"), 404).await;
        refused(node, "PUT", &format!("/v1/tables/{table}/records/k"), 404).await;
        refused(node, "GET", &format!("/v1/tables/{table}/records"), 404).await;
    }
    refused(node, "POST", &record("k"), 405).await;
    refused(node, "GET", "/v1/tables/sessions/touch/k", 405).await;
    refused(node, "PUT", "/v1/tables/sessions/records", 405).await;
    refused(node, "GET", "/v1/tables/sessions/batch", 405).await;
    refused(node, "DELETE", "/v1/status", 405).await;
    refused(node, "GET", "/v1/status?x=1", 400).await;

    let status = node.status().await;
    assert_eq!((&status["tables"][0]["live"], &status["tables"][0]["tombstones"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn bodies_and_headers_are_bounded() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let limit = 256 * 1024;
    node.put("k", &"v".repeat(limit)).send().await.expect(201);
    node.put("k", &"v".repeat(limit + 1)).send().await.expect_problem(413);
    assert_eq!(node.read("k").await.expect(200).body.len(), limit);
    node.put("k", "v").header("content-type", "x".repeat(256)).send().await.expect_problem(400);
    // Announced without being sent, and sent without being announced.
    let address = node.spec.client;
    let announced = format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n", record("k"));
    assert_eq!(raw_status(&send_raw(address, announced.as_bytes(), Duration::from_secs(2)).await), 413);
    let mut chunked =
        format!("PUT {} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", record("k"));
    for _ in 0..40 {
        chunked.push_str(&format!("2000\r\n{}\r\n", "v".repeat(0x2000)));
    }
    assert_eq!(raw_status(&send_raw(address, chunked.as_bytes(), Duration::from_secs(2)).await), 413);
    let large = format!("GET {} HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", record("k"), "h".repeat(20_000));
    assert_eq!(raw_status(&send_raw(address, large.as_bytes(), Duration::from_secs(2)).await), 431);
    assert_eq!(node.read("k").await.expect(200).body.len(), limit);
}

#[tokio::test]
async fn a_full_table_refuses_or_makes_room() {
    let mut cluster = Cluster::empty();
    let config = "tables:\n- {name: full, maxBytes: 1000}\n- {name: rolling, maxBytes: 1000, whenFull: evict-nearest-expiry}\n";
    let config = cluster.write_file("config.yaml", config);
    let index = cluster.add(NodeSpec::new("node").flag("--config").flag(config));
    cluster[index].start_ready().await;
    let node = &cluster[index];
    let put = |table: &str, key: &str, ttl: &str| {
        node.client("PUT", format!("/v1/tables/{table}/records/{key}?ttl={ttl}")).body("v".repeat(300))
    };
    for key in ["a", "b", "c"] {
        put("full", key, "10m").send().await.expect(201);
        put("rolling", key, "10m").send().await.expect(201);
    }
    put("full", "d", "10m").send().await.expect_problem(507);
    put("full", "a", "10m").send().await.expect(204);
    put("rolling", "d", "20m").send().await.expect(201);
    let list = node.get("/v1/tables/rolling/records").await.expect(200).json();
    assert_eq!(list["records"].as_array().map(Vec::len), Some(3), "one made room: {list}");
}

#[tokio::test]
async fn tokens_guard_the_client_port_and_are_read_again() {
    let mut cluster = Cluster::empty();
    let tokens = cluster.write_file("tokens", "shop:first\n");
    let spec = NodeSpec::new("node").flag("--auth-tokens-file").flag(&tokens);
    let index = cluster.add(spec);
    cluster[index].start_ready().await;
    let node = &cluster[index];
    let read =
        |token: &str| node.client("GET", record("k")).header("authorization", format!("Bearer {token}"));
    node.read("k").await.expect_problem(401);
    node.get("/v1/status").await.expect_problem(401);
    let watched = node.admin("GET", "/v1/status").send().await.expect(200).json();
    assert_eq!(watched["node"]["state"], "ready", "the admin port needs no token");
    read("shop:first").send().await.expect_problem(401);
    read("second").send().await.expect_problem(401);
    read("first").send().await.expect_problem(404);
    cluster.write_file("tokens", "shop:second\n");
    mneme_tests::wait::wait_until(Duration::from_secs(10), "the new token is known", async || {
        read("second").send().await.code() == 404
    })
    .await;
    read("first").send().await.expect_problem(401);
    // A file that is emptied or bad keeps the last good set.
    cluster.write_file("tokens", "no colon\n");
    node.wait_log_line("the bad file is told", |line| line.contains("the last good content stays")).await;
    read("second").send().await.expect_problem(404);
    assert!(!node.output().contains("first") && !node.output().contains("second"));
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let address = node.spec.client;
    let limit = Duration::from_secs(30);
    let started = std::time::Instant::now();
    // Headers that never end, and a body that never comes.
    let body = format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab", record("k"));
    let (headers, body) = tokio::join!(
        send_raw(address, b"GET /v1/status HTTP/1.1\r\nhost: x\r\n", limit),
        send_raw(address, body.as_bytes(), limit)
    );
    assert!(started.elapsed() < limit, "the connections were kept for {:?}", started.elapsed());
    assert!(headers.is_empty() || raw_status(&headers) == 408, "{headers}");
    assert_eq!(raw_status(&body), 408);
    node.assert_read_status("k", 404).await;
}
