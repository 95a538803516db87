//! A cut network: both sides go on, and after it heals nothing that was signed out is back.

use std::time::Duration;

use mneme_tests::cluster::Cluster;
use mneme_tests::network::Network;
use mneme_tests::wait::wait_until;

const SOON: Duration = Duration::from_secs(30);

async fn wait_for_live(cluster: &Cluster, node: usize, count: usize) {
    let what = format!("node {node} calls {count} others live");
    wait_until(SOON, &what, async || cluster[node].members_in_state("live").await == count).await;
}

#[tokio::test]
async fn both_sides_serve_and_afterwards_agree() {
    let network = Network::new(3);
    let mut cluster = Cluster::connected((0..3).map(|node| network.node(node)), &["--no-auth"]);
    cluster.start_all().await;
    for key in ["kept", "out/left", "out/right", "both"] {
        cluster[0].put(key, "v").send().await.expect(201);
    }

    network.split(&[0], &[1, 2]);
    wait_for_live(&cluster, 0, 0).await;
    wait_for_live(&cluster, 1, 1).await;
    wait_for_live(&cluster, 2, 1).await;
    cluster[0].put("new/left", "v").send().await.expect(201);
    cluster[1].put("new/right", "v").send().await.expect(201);
    cluster[0].delete("out/left").send().await.expect(204);
    cluster[2].delete("out/right").send().await.expect(204);
    // Written here, signed out there: the sign-out wins.
    cluster[0].put("both", "written").send().await.expect(204);
    cluster[1].delete("both").send().await.expect(204);
    cluster[2].assert_value("new/right", "v").await;

    network.heal();
    wait_for_live(&cluster, 0, 2).await;
    for node in cluster.nodes_mut() {
        node.wait_ready().await;
    }
    for node in cluster.nodes() {
        for key in ["kept", "new/left", "new/right"] {
            node.assert_value(key, "v").await;
        }
        for key in ["out/left", "out/right", "both"] {
            node.assert_read_status(key, 410).await;
        }
    }
}

#[tokio::test]
async fn a_cut_in_one_direction_heals_through_the_third_node() {
    let network = Network::new(3);
    let mut cluster = Cluster::connected((0..3).map(|node| network.node(node)), &["--no-auth"]);
    cluster.start_all().await;
    network.cut_one_way(0, 1);
    wait_until(SOON, "the cut is noticed", async || cluster[1].members_in_state("live").await == 1).await;
    cluster[0].put("k", "v").send().await.expect(201);
    wait_until(SOON, "it arrives by way of the third", async || cluster[1].read_status("k").await == 200)
        .await;
    network.heal();
    wait_for_live(&cluster, 1, 2).await;
    cluster[1].delete("k").send().await.expect(204);
    for node in cluster.nodes() {
        node.assert_read_status("k", 410).await;
    }
}
