//! What HTTP's rules on connections ask for: every request is answered, in order, whatever comes with or after it.

use std::time::Duration;

use mneme_tests::cluster::Cluster;
use mneme_tests::node::Node;
use mneme_tests::raw::{RawConnection, statuses};
use mneme_tests::records::record;

/// Far beyond an answer, short of the ten seconds after which a slow client is cut off.
const SOON: Duration = Duration::from_secs(4);

fn put(key: &str) -> String {
    format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nv", record(key))
}

fn get(key: &str) -> String {
    format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", record(key))
}

/// Checks the statuses that come back for some bytes, whether or not the connection is closed then.
async fn check(node: &Node, name: &str, bytes: String, expected: &[u16]) {
    let mut connection = RawConnection::open(node.spec.client).await;
    connection.send(&bytes).await;
    assert_eq!(connection.statuses(expected.len(), SOON).await, expected, "{name}");
}

#[tokio::test]
async fn an_answer_does_not_wait_for_what_follows_the_request() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    node.put("k", "v").send().await.expect(201);
    check(node, "the first byte of the next request", put("a") + "G", &[201]).await;
    check(node, "a stray end of line", get("k") + "\r\n", &[200]).await;
    check(node, "half of the next request", get("k") + "GET /v1/sta", &[200]).await;
    let half_body = format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nv", record("half"));
    check(node, "half of the next body", put("b") + &half_body, &[201]).await;
    check(node, "garbage", put("c") + &put("d") + &put("e") + "garbage\r\n\r\n", &[201, 201, 201, 400]).await;
    let closing = put("f").replace("host: x", "host: x\r\nconnection: close");
    check(node, "a request after the last", closing + &get("k"), &[201]).await;
    let many: String = (0..100).map(|number| put(&format!("many/{number}"))).collect();
    check(node, "a hundred at once", many, &[201; 100]).await;
    for key in ["a", "b", "c", "d", "e", "f", "many/99"] {
        node.assert_value(key, "v").await;
    }
    node.assert_read_status("half", 404).await;
}

#[tokio::test]
async fn a_client_that_sends_no_more_still_hears_the_answer() {
    let cluster = Cluster::start(1).await;
    let mut connection = RawConnection::open(cluster[0].spec.client).await;
    connection.send(put("k") + &get("k")).await;
    connection.finish().await;
    assert_eq!(statuses(&connection.to_end(SOON).await), [201, 200]);
}

#[tokio::test]
async fn a_head_has_the_headers_of_a_get_in_both_versions() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    node.put("k", "value").send().await.expect(201);
    for (key, status, length) in [("k", 200, Some("5")), ("absent", 404, None), ("a//b", 400, None)] {
        for is_http2 in [false, true] {
            let mut head = node.client("HEAD", record(key));
            if is_http2 {
                head = head.http2();
            }
            let answer = head.send().await.expect(status);
            assert!(answer.body.is_empty());
            assert!(answer.header("content-length").is_some(), "{answer:?}");
            assert!(length.is_none_or(|length| answer.header("content-length") == Some(length)));
        }
    }
    node.client("HEAD", "/nowhere").http2().send().await.expect(404);
    node.client("HEAD", "/v1/status").http2().send().await.expect(200);
}

/// Checks that bytes are answered with a problem, and the connection closed.
async fn check_refused(node: &Node, name: &str, bytes: &str, status: u16) {
    let mut connection = RawConnection::open(node.spec.client).await;
    connection.send(bytes).await;
    let text = connection.to_end(SOON).await;
    assert_eq!(statuses(&text), [status], "{name}: {text}");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{name}: {text}"));
    assert!(head.contains("application/problem+json"), "{name}: {head}");
    assert!(head.to_lowercase().contains("connection: close"), "{name}: {head}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{name}: {text}"));
    assert_eq!(problem["status"], status, "{name}");
    assert!(!text.contains("s3cret"), "{name}: {text}");
}

#[tokio::test]
async fn what_is_no_request_is_told_so() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let path = record("s3cret");
    let with = |header: &str| format!("PUT {path} HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n");
    for (name, bytes) in [
        ("a space in the target", format!("GET {path} b HTTP/1.1\r\nhost: x\r\n\r\n")),
        ("NUL in the target", format!("GET {path}\0 HTTP/1.1\r\nhost: x\r\n\r\n")),
        ("a control character in the target", format!("GET {path}\x01 HTTP/1.1\r\nhost: x\r\n\r\n")),
        ("a target that is no path", "GET ?s3cret HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
        ("a bad method", "G@T /v1/status HTTP/1.1\r\nhost: x\r\n\r\n".to_owned()),
        ("a bad version", "GET /v1/status HTTP/3.0\r\nhost: x\r\n\r\n".to_owned()),
        ("no version", "GET /v1/status\r\n\r\n".to_owned()),
        ("a header without a colon", with("s3cret")),
        ("a folded header", with("x: a\r\n s3cret")),
        ("lengths that differ", with("content-length: 1\r\ncontent-length: 2")),
        ("a negative length", with("content-length: -1")),
        ("a length that is no number", with("content-length: abc")),
        ("an unknown encoding", with("transfer-encoding: gzip")),
        ("TLS", "\x16\x03\x01\0s3cret\r\n\r\n".to_owned()),
    ] {
        check_refused(node, name, &bytes, 400).await;
    }
    let chunked = with("transfer-encoding: chunked") + "zz\r\n";
    check_refused(node, "a bad chunk", &chunked, 400).await;
    node.assert_read_status("s3cret", 404).await;
}

#[tokio::test]
async fn headers_beyond_the_bounds_are_431_however_they_come() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let many: String = (0..101).map(|number| format!("x{number}: a\r\n")).collect();
    let with = |headers: &str| format!("GET /v1/status HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n");
    check_refused(node, "many headers", &with(many.trim_end()), 431).await;
    check_refused(node, "a megabyte", &with(&format!("x: {}", "a".repeat(1 << 20))), 431).await;
    let target = "a".repeat(70_000);
    let long = format!("GET /v1/status?{target} HTTP/1.1\r\nhost: x\r\n\r\n");
    check_refused(node, "a long target", &long, 431).await;
}

#[tokio::test]
async fn requests_that_say_too_little_or_too_much_are_refused() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let with = |headers: &str| format!("GET /v1/status HTTP/1.1\r\n{headers}\r\n");
    check(node, "no host", with(""), &[400]).await;
    check(node, "two hosts", with("host: a\r\nhost: b\r\n"), &[400]).await;
    check(node, "an expectation", with("host: a\r\nexpect: foo\r\n"), &[417]).await;
    let mut old = RawConnection::open(node.spec.client).await;
    old.send("GET /v1/status HTTP/1.0\r\n\r\n").await;
    let text = old.to_end(SOON).await;
    assert!(text.starts_with("HTTP/1.0 200 "), "HTTP/1.0 has no Host: {text}");
}

#[tokio::test]
async fn a_body_that_is_not_wanted_ends_the_connection_with_a_word_about_it() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let large = "v".repeat(200_000);
    for (name, path) in [
        ("an unknown table", "/v1/tables/other/records/k".to_owned()),
        ("a bad key", record("%zz")),
        ("an unknown route", "/nowhere".to_owned()),
    ] {
        let request = |body: &str| {
            format!("PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        };
        let mut connection = RawConnection::open(node.spec.client).await;
        connection.send(request(&large) + &get("k")).await;
        let text = connection.to_end(SOON).await;
        assert_eq!(statuses(&text).len(), 1, "{name}: {text}");
        assert!(text.to_lowercase().contains("connection: close"), "{name}: {text}");
        // A small one is read, and the connection goes on.
        let mut connection = RawConnection::open(node.spec.client).await;
        connection.send(request("small") + &get("k")).await;
        assert_eq!(connection.statuses(2, SOON).await[1], 404, "{name}");
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_not_told_to_send_what_is_too_large() {
    let cluster = Cluster::start(1).await;
    let node = &cluster[0];
    let request = |key: &str, length: usize| {
        let path = record(key);
        format!("PUT {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n")
    };
    let mut connection = RawConnection::open(node.spec.client).await;
    connection.send(request("k", 10_000_000)).await;
    assert_eq!(statuses(&connection.to_end(SOON).await), [413]);
    let mut connection = RawConnection::open(node.spec.client).await;
    connection.send(request("k?ttl=0s", 1)).await;
    assert_eq!(statuses(&connection.to_end(SOON).await), [400]);
    let mut connection = RawConnection::open(node.spec.client).await;
    connection.send(request("k", 1)).await;
    assert_eq!(connection.statuses(1, SOON).await, [100]);
    connection.send("v").await;
    assert_eq!(connection.statuses(2, SOON).await, [100, 201]);
}
