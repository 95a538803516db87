//! Starts, stops, exit codes, the file.

use std::process::{Command, Output};
use std::time::Duration;

use mneme_tests::binary;
use mneme_tests::cluster::Cluster;
use mneme_tests::node::{Node, NodeSpec};
use mneme_tests::wait::wait_until;

fn mneme_node(arguments: &[&str]) -> Output {
    Command::new(binary::mneme_node()).args(arguments).output().expect("the program runs")
}

#[track_caller]
fn assert_exit(output: &Output, code: i32, part: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(part), "{part:?} in {text}");
}

#[test]
fn wrong_flags_and_files_have_their_exit_codes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    assert_exit(&mneme_node(&["run", "--prot", "1"]), 64, "--prot");
    assert_exit(&mneme_node(&["run", "--client-addr", "here"]), 64, "client-addr");
    assert_exit(&mneme_node(&["run", "--join-timeout", "0s"]), 64, "zero");
    assert_exit(&mneme_node(&[]), 64, "Usage");
    assert_exit(&mneme_node(&["run", "--config", &path("missing")]), 78, "missing");
    assert_exit(&mneme_node(&["run", "--client-addr", "0.0.0.0:0"]), 78, "--auth-tokens-file");
    assert_exit(&mneme_node(&["run", "--peer-addr", "0.0.0.0:0"]), 78, "--cluster-secret-file");
    std::fs::write(path("bad.yaml"), "cluster: shop\nprot: 1\ntables:\n- name: UP\n").expect("writable");
    assert_exit(&mneme_node(&["check-config", &path("bad.yaml")]), 78, "line 2: prot");
    assert_exit(&mneme_node(&["check-config", &path("bad.yaml")]), 78, "line 4: ");
    assert_exit(&mneme_node(&["run", "--config", &path("bad.yaml")]), 78, "line 2: prot");
    std::fs::write(path("good.yaml"), "cluster: shop\n").expect("writable");
    assert!(mneme_node(&["check-config", &path("good.yaml")]).status.success());
    std::fs::write(path("tokens"), "\n").expect("writable");
    let data = path("data");
    let run = mneme_node(&["run", "--data-dir", &data, "--auth-tokens-file", &path("tokens")]);
    assert_exit(&run, 78, "no token");
    assert_exit(&mneme_node(&["dump", "--data-dir", &path("nothing")]), 74, "no database");
    std::fs::write(path("file"), "").expect("writable");
    assert_exit(&mneme_node(&["run", "--data-dir", &path("file")]), 74, "file");
}

#[tokio::test]
async fn a_second_process_on_one_directory_is_refused_by_name() {
    let cluster = Cluster::start(1).await;
    let data = cluster[0].data_dir().display().to_string();
    let second = mneme_node(&[
        "run",
        "--data-dir",
        &data,
        "--client-addr",
        "127.0.0.1:0",
        "--peer-addr",
        "127.0.0.1:0",
        "--admin-addr",
        "127.0.0.1:0",
    ]);
    assert_exit(&second, 74, &data);
    assert_exit(&mneme_node(&["dump", "--data-dir", &data]), 74, &data);
    cluster[0].put("k", "v").send().await.expect(201);
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nothing_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut spec = NodeSpec::new("unread").flag("--log-level=trace");
    // A pipe holds 64 KiB: it is full before the node begins.
    let script = "mkfifo \"$0\"; exec 3<>\"$0\"; head -c 65536 /dev/zero >&3; exec \"$@\" 2>&3";
    let pipe = directory.path().join("pipe");
    spec.through = vec!["sh".into(), "-c".into(), script.into(), pipe.into()];
    let mut node = Node::new(spec, directory.path());
    node.start_ready().await;
    node.put("k", "v").send().await.expect(201);
    node.assert_value("k", "v").await;
    assert_eq!(node.terminate().await, 0);
}

#[tokio::test]
async fn what_was_acknowledged_survives_any_end() {
    let mut cluster = Cluster::start(1).await;
    cluster[0].put("kept", "v").send().await.expect(201);
    cluster[0].put("out", "v").send().await.expect(201);
    cluster[0].delete("out").send().await.expect(204);
    for _ in 0..3 {
        cluster[0].kill_and_restart().await;
        cluster[0].assert_value("kept", "v").await;
        cluster[0].assert_read_status("out", 410).await;
    }
    let id = cluster[0].node_id().await;
    assert_eq!(cluster[0].terminate().await, 0);
    cluster[0].start_ready().await;
    assert_eq!(cluster[0].node_id().await, id);
    cluster[0].assert_value("kept", "v").await;
}

#[tokio::test]
async fn a_stopping_node_hands_over_and_exits_0() {
    let mut cluster = Cluster::start(2).await;
    for number in 0..50 {
        let put = cluster[0].client("PUT", format!("/v1/tables/sessions/records/k/{number}?ack=local"));
        put.body("v").send().await.expect(201);
    }
    assert_eq!(cluster[0].terminate().await, 0);
    for number in 0..50 {
        cluster[1].assert_value(&format!("k/{number}"), "v").await;
    }
    // It said goodbye: nobody waits for it.
    let started = std::time::Instant::now();
    cluster[1].put("after", "v").send().await.expect(201);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_node_that_was_alone_starts_alone() {
    let mut cluster = Cluster::start(2).await;
    cluster[0].put("k", "v").send().await.expect(201);
    cluster[1].kill();
    let others = "the survivor stops waiting";
    wait_until(Duration::from_secs(10), others, async || cluster[0].members_in_state("live").await == 0)
        .await;
    cluster[0].put("alone", "v").send().await.expect(201);
    cluster[0].kill();
    cluster[0].start_ready().await;
    cluster[0].assert_value("alone", "v").await;
    cluster[1].start_ready().await;
    cluster[1].assert_value("alone", "v").await;
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_comes_back_from_peers() {
    let mut cluster = Cluster::start(2).await;
    for number in 0..20 {
        cluster[0].put(&format!("k/{number}"), &"v".repeat(1_000)).send().await.expect(201);
    }
    let id = cluster[1].node_id().await;
    assert_eq!(cluster[1].terminate().await, 0);
    let file = cluster[1].data_dir().join("mneme.db");
    let mut bytes = std::fs::read(&file).expect("the file of a stopped node");
    let at = bytes.windows(100).rposition(|window| window.iter().all(|byte| *byte == b'v')).expect("a value");
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).expect("writable");
    cluster[1].start_ready().await;
    cluster[1].assert_value("k/7", &"v".repeat(1_000)).await;
    assert_ne!(cluster[1].node_id().await, id);
    let names: Vec<String> = std::fs::read_dir(cluster[1].data_dir())
        .expect("a directory")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("mneme.db.damaged-")), "{names:?}");
}

#[tokio::test]
async fn a_dump_holds_the_records_of_a_stopped_node() {
    let mut cluster = Cluster::start(1).await;
    cluster[0].put("user/a", "one").header("content-type", "text/x").send().await.expect(201);
    cluster[0].put("user/b", "two").send().await.expect(201);
    cluster[0].delete("user/b").send().await.expect(204);
    assert_eq!(cluster[0].terminate().await, 0);
    let data = cluster[0].data_dir().display().to_string();
    let dumped = mneme_node(&["dump", "--data-dir", &data]);
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    let lines = String::from_utf8(dumped.stdout).expect("text");
    assert_eq!(lines.lines().count(), 1, "{lines}");
    let record: serde_json::Value = serde_json::from_str(&lines).expect("JSON");
    assert_eq!((&record["table"], &record["value"]), (&"sessions".into(), &"b25l".into()));
    assert_eq!(record["contentType"], "text/x");
    let sqlite = cluster.directory().join("dump.sqlite").display().to_string();
    assert!(mneme_node(&["dump", "--data-dir", &data, "--sqlite", &sqlite]).status.success());
    assert!(std::fs::read(&sqlite).expect("a file").starts_with(b"SQLite format 3"));
    assert_exit(&mneme_node(&["dump", "--data-dir", &data, "--sqlite", &sqlite]), 74, "exists");
    let left_out = mneme_node(&["dump", "--data-dir", &data, "--drop-table", "sessions"]);
    assert!(left_out.status.success() && left_out.stdout.is_empty());
}

#[tokio::test]
async fn another_kind_for_a_stored_table_is_refused_by_name() {
    let mut cluster = Cluster::empty();
    let config = cluster.write_file("config.yaml", "tables: [{name: carts, kind: session}]\n");
    let index = cluster.add(NodeSpec::new("node").flag("--config").flag(&config));
    cluster[index].start_ready().await;
    let put = cluster[index].client("PUT", "/v1/tables/carts/records/k").body("v");
    put.send().await.expect(201);
    assert_eq!(cluster[index].terminate().await, 0);
    cluster.write_file("config.yaml", "tables: [{name: carts, kind: cache}]\n");
    cluster[index].start();
    assert_eq!(cluster[index].exit_code().await, 78);
    assert!(cluster[index].output().contains("table carts"));
}

#[tokio::test]
async fn dev_runs_three_nodes_and_keeps_their_data() {
    use mneme_tests::http::Request;
    use mneme_tests::process::Process;

    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    let command = || {
        let program = binary::mneme_node().into_os_string();
        [program, "dev".into(), "--dir".into(), directory.path().join("dev").into_os_string()]
    };
    let path = "/v1/tables/sessions/records/dev/k";
    let at = |number: u16| std::net::SocketAddr::from(([127, 0, 0, 1], 7070 + 10 * number));
    for run in 0..2 {
        let process = Process::start("dev", command(), &log);
        wait_until(Duration::from_secs(30), "dev says that the nodes are ready", async || {
            process.output().matches("3 nodes are ready").count() == run + 1
        })
        .await;
        if run == 0 {
            Request::new(at(0), "PUT", path).body("v").send().await.expect(201);
        }
        assert_eq!(Request::new(at(2), "GET", path).send().await.expect(200).text(), "v");
        assert!(process.output().contains("curl -i -X PUT"));
        process.interrupt();
        assert_eq!(process.exit_code(Duration::from_secs(30)).await, 0);
        assert!(Request::new(at(1), "GET", path).try_send().await.is_err(), "every node is stopped");
    }
}

#[tokio::test]
async fn logs_are_lines_of_json_where_asked_and_hold_no_secret() {
    let mut cluster = Cluster::empty();
    let spec = NodeSpec::new("node").flag("--log-format").flag("json").flag("--log-level").flag("debug");
    let index = cluster.add(spec);
    cluster[index].start_ready().await;
    cluster[index].put("s3cret-key", "s3cret-value").send().await.expect(201);
    cluster[index].client("GET", "/v1/tables/sessions/records/s3cret%").send().await.expect(400);
    assert_eq!(cluster[index].terminate().await, 0);
    let output = cluster[index].output();
    assert!(!output.contains("s3cret"), "{output}");
    for line in output.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(event["level"].is_string() && event["timestamp"].is_string(), "{event}");
    }
}
