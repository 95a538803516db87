//! Three nodes: what one acknowledges every other answers, whoever dies.

use std::time::{Duration, Instant};

use mneme_tests::cluster::Cluster;
use mneme_tests::records::record;
use mneme_tests::wait::wait_until;

#[tokio::test]
async fn an_acknowledged_write_is_read_on_every_node_at_once() {
    let cluster = Cluster::start(3).await;
    for number in 0..60 {
        let key = format!("k/{number}");
        let written = cluster[number % 3].put(&key, "v").send().await.expect(201);
        assert!(written.required_header("mneme-acks").starts_with("applied=3/3"));
        cluster[(number + 1) % 3].assert_value(&key, "v").await;
        cluster[(number + 2) % 3].delete(&key).send().await.expect(204);
        cluster[number % 3].assert_read_status(&key, 410).await;
    }
}

#[tokio::test]
async fn a_dead_or_frozen_member_holds_writes_up_once() {
    let mut cluster = Cluster::start(3).await;
    cluster[2].kill();
    let started = Instant::now();
    let written = cluster[0].put("k", "v").send().await.expect(201);
    assert_eq!(written.required_header("mneme-acks"), "applied=2/3 durable=2/3");
    println!("after a kill the first write took {:?}", started.elapsed());
    cluster[1].assert_value("k", "v").await;
    cluster[2].start_ready().await;
    cluster[2].assert_value("k", "v").await;
    wait_until(Duration::from_secs(10), "all are live", async || {
        cluster[0].members_in_state("live").await == 2
    })
    .await;

    cluster[2].freeze();
    let started = Instant::now();
    cluster[0].put("frozen", "v").send().await.expect(201);
    println!("after a freeze the first write took {:?}", started.elapsed());
    cluster[0].delete("k").send().await.expect(204);
    let started = Instant::now();
    cluster[1].put("more", "v").send().await.expect(201);
    println!("the next took {:?}", started.elapsed());
    cluster[2].thaw();
    // Whatever it answers now, it is not what it knew before.
    cluster[2].assert_read_status("k", 410).await;
    cluster[2].assert_value("frozen", "v").await;
}

#[tokio::test]
async fn a_member_that_missed_much_catches_up_before_it_answers() {
    let mut cluster = Cluster::start(3).await;
    for number in 0..200 {
        cluster[0]
            .client("PUT", record(&format!("old/{number}")) + "?ack=local")
            .body("v")
            .send()
            .await
            .expect(201);
    }
    cluster[1].put("last", "v").send().await.expect(201);
    cluster[2].kill();
    cluster[0].put("warm", "v").send().await.expect(201);
    for number in 0..300 {
        let put = cluster[number % 2].client("PUT", record(&format!("new/{number}")) + "?ack=local");
        put.body("v".repeat(500)).send().await.expect(201);
    }
    for number in 0..200 {
        let delete = cluster[0].client("DELETE", record(&format!("old/{number}")) + "?ack=local");
        delete.send().await.expect(204);
    }
    cluster[2].start_ready().await;
    for number in 0..200 {
        cluster[2].assert_read_status(&format!("old/{number}"), 410).await;
    }
    for number in 0..300 {
        cluster[2].assert_read_status(&format!("new/{number}"), 200).await;
    }
}

#[tokio::test]
async fn nodes_that_meet_late_merge() {
    let mut cluster = Cluster::empty();
    for name in ["one", "two"] {
        let index = cluster.add(mneme_tests::node::NodeSpec::new(name));
        cluster[index].start_ready().await;
        cluster[index].put(&format!("{name}/kept"), "v").send().await.expect(201);
        cluster[index].put("both/out", "v").send().await.expect(201);
    }
    cluster[0].delete("both/out").send().await.expect(204);
    assert_eq!(cluster[1].terminate().await, 0);
    let peer = cluster[0].spec.peer;
    cluster[1].spec.peers = vec![peer];
    cluster[1].start_ready().await;
    for node in cluster.nodes() {
        node.assert_value("one/kept", "v").await;
        node.assert_value("two/kept", "v").await;
        node.assert_read_status("both/out", 410).await;
    }
}

#[tokio::test]
async fn peers_of_a_file_come_and_go_without_a_restart() {
    let mut cluster = Cluster::empty();
    let file = cluster.write_file("peers", "# nobody yet\n");
    for name in ["one", "two"] {
        cluster.add(mneme_tests::node::NodeSpec::new(name));
    }
    cluster[0].spec.flags.extend(["--peers-file".into(), file.clone().into_os_string()]);
    cluster[0].spec.flags.extend(["--join-timeout".into(), "1s".into()]);
    cluster[1].start_ready().await;
    cluster[1].put("k", "v").send().await.expect(201);
    let second = cluster[1].spec.peer;
    cluster[0].start();
    let log = "a bad line is told and the good one is used";
    cluster.write_file("peers", &format!("{second}\nno host here\n"));
    cluster[0].wait_log_line(log, |line| line.contains("line 2")).await;
    cluster[0].wait_ready().await;
    cluster[0].assert_value("k", "v").await;
    let status = cluster[0].status().await;
    assert!(
        status["discovery"][0]["lastError"].as_str().is_some_and(|error| error.contains("line 2")),
        "{status}"
    );
    assert_eq!(status["discovery"][0]["addresses"][0], second.to_string());
    // An emptied file removes nobody.
    cluster.write_file("peers", "");
    cluster[0].wait_log_line("the empty file is read", |line| line.contains("discovery works again")).await;
    assert_eq!(cluster[0].members_in_state("live").await, 1);
}
