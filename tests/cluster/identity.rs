//! Who is who: moved volumes, clones, other clusters, secrets.

use std::time::Duration;

use mneme_tests::cluster::Cluster;
use mneme_tests::node::NodeSpec;
use mneme_tests::ports::free_loopback;
use mneme_tests::wait::wait_until;
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn an_old_volume_under_a_new_address_is_the_same_member_and_revives_nothing() {
    let mut cluster = Cluster::start(2).await;
    cluster[0].put("out", "v").send().await.expect(201);
    cluster[0].put("kept", "v").send().await.expect(201);
    let id = cluster[1].node_id().await;
    cluster[1].kill();
    cluster[0].delete("out").send().await.expect(204);
    cluster[1].move_to_new_address();
    cluster[1].start_ready().await;
    assert_eq!(cluster[1].node_id().await, id);
    for node in cluster.nodes() {
        node.assert_read_status("out", 410).await;
        node.assert_value("kept", "v").await;
    }
    cluster[0].wait_live_members(1).await;
    assert_eq!(cluster[0].status().await["members"].as_array().map(Vec::len), Some(2), "no ghost remains");
}

#[tokio::test]
async fn a_clone_of_a_live_node_exits_and_the_first_goes_on() {
    let mut cluster = Cluster::start(2).await;
    cluster[0].put("k", "v").send().await.expect(201);
    assert_eq!(cluster[1].terminate().await, 0);
    let peers = vec![cluster[0].spec.peer, cluster[1].spec.peer];
    let clone = cluster.add(NodeSpec::new("clone").peers(peers));
    cluster[1].copy_data_to(&cluster[clone]);
    cluster[1].start_ready().await;
    let id = cluster[1].node_id().await;
    cluster[clone].start();
    assert_eq!(cluster[clone].exit_code().await, 1);
    assert!(cluster[clone].output().contains(&id), "{}", cluster[clone].output());
    cluster[1].put("after", "v").send().await.expect(201);
    cluster[0].assert_value("after", "v").await;
}

#[tokio::test]
async fn of_two_processes_the_later_ends_however_long_it_took_to_answer() {
    let mut cluster = Cluster::start(1).await;
    cluster[0].put("k", "v").send().await.expect(201);
    assert_eq!(cluster[0].terminate().await, 0);
    let clone = NodeSpec::new("clone").peers([free_loopback()]).flag("--join-timeout").flag("1s");
    let clone = cluster.add(clone);
    cluster[0].copy_data_to(&cluster[clone]);
    // What the first dials takes connections, and answers once the clone has run for longer than the first had then.
    let door = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    cluster[0].spec.peers = vec![door.local_addr().expect("a bound port")];
    cluster[0].start();
    let (mut first, _) = door.accept().await.expect("it dials");
    wait_until(SOON, "one is older", async || {
        cluster[0].status().await["node"]["uptimeMs"].as_u64() > Some(400)
    })
    .await;
    cluster[clone].start_ready().await;
    let peer = cluster[clone].spec.peer;
    let forwarding = tokio::spawn(async move {
        loop {
            tokio::spawn(async move {
                let mut onward = TcpStream::connect(peer).await?;
                tokio::io::copy_bidirectional(&mut first, &mut onward).await
            });
            (first, _) = door.accept().await.expect("it dials");
        }
    });
    assert_eq!(cluster[clone].exit_code().await, 1);
    forwarding.abort();
    cluster[0].wait_ready().await;
    cluster[0].assert_value("k", "v").await;
}

#[tokio::test]
async fn another_clusters_node_is_refused_and_never_merged() {
    let mut cluster = Cluster::start(1).await;
    cluster[0].put("k", "v").send().await.expect(201);
    let peer = cluster[0].spec.peer;
    let stranger =
        NodeSpec::new("stranger").flag("--cluster").flag("other").flag("--join-timeout").flag("1s");
    let stranger = cluster.add(stranger.peers([peer]));
    cluster[stranger].start();
    let line =
        cluster[0].wait_log_line("the refusal is told", |line| line.contains("belongs to cluster")).await;
    assert!(line.contains("other") && line.contains("mneme"), "{line}");
    assert_eq!(cluster[0].status().await["members"].as_array().map(Vec::len), Some(1));
    assert_ne!(cluster[stranger].read_status("k").await, 200);
}

#[tokio::test]
async fn peers_prove_the_cluster_secret() {
    let mut cluster = Cluster::empty();
    let good = cluster.write_file("good", "one\ntwo\n");
    let rotated = cluster.write_file("rotated", "two\n");
    let bad = cluster.write_file("bad", "three\n");
    let with = |spec: NodeSpec, file: &std::path::Path| spec.flag("--cluster-secret-file").flag(file);
    let first = cluster.add(with(NodeSpec::new("first"), &good));
    let peer = cluster[first].spec.peer;
    cluster[first].start_ready().await;
    cluster[first].put("k", "v").send().await.expect(201);
    let second = cluster.add(with(NodeSpec::new("second").peers([peer]), &rotated));
    cluster[second].start();
    // The first uses "one", which the second does not know: only when the first uses "two" do they meet.
    cluster[second].wait_log_line("the difference is told", |line| line.contains("secrets differ")).await;
    cluster.write_file("good", "two\none\n");
    cluster[second].wait_ready().await;
    cluster[second].assert_value("k", "v").await;
    for (name, file) in [("third", Some(&bad)), ("fourth", None)] {
        let spec = NodeSpec::new(name).peers([peer]).flag("--join-timeout").flag("1s");
        let index = cluster.add(match file {
            Some(file) => with(spec, file),
            None => spec,
        });
        cluster[index].start();
        cluster[index].wait_log_line("the refusal is told", |line| line.contains("secrets differ")).await;
        assert_ne!(cluster[index].read_status("k").await, 200, "{name}");
    }
    assert_eq!(cluster[first].status().await["members"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_wiped_node_returns_as_a_new_member() {
    let mut cluster = Cluster::start(2).await;
    cluster[0].put("k", "v").send().await.expect(201);
    let id = cluster[1].node_id().await;
    cluster[1].kill();
    cluster[1].wipe();
    cluster[1].start_ready().await;
    cluster[1].assert_value("k", "v").await;
    assert_ne!(cluster[1].node_id().await, id);
    wait_until(SOON, "whoever had the address before is retired", async || {
        cluster[0].status().await["members"].as_array().map(Vec::len) == Some(2)
    })
    .await;
}
