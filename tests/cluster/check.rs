//! `mneme-operator check`, which `helm test` runs: against nodes that replicate, and against nodes that do not.

use std::time::Duration;

use mneme_operator::check::{CheckError, check};
use mneme_operator::config::CheckFlags;
use mneme_tests::cluster::Cluster;
use mneme_tests::node::NodeSpec;

fn flags(cluster: &Cluster, timeout: Duration) -> CheckFlags {
    CheckFlags {
        node: cluster.nodes().iter().map(|node| format!("http://{}", node.spec.client)).collect(),
        token_file: None,
        table: "sessions".parse().expect("a table name"),
        timeout,
    }
}

#[tokio::test]
async fn nodes_that_replicate_pass_with_their_token() {
    let tokens = ["--auth-tokens-file", "tokens"];
    let mut cluster = Cluster::empty();
    let (tokens_file, token_file) = (
        cluster.write_file(tokens[1], "default:for-the-check\n"),
        cluster.write_file("token", "for-the-check\n"),
    );
    let specs = ["one", "two", "three"].map(|name| NodeSpec::new(name).flag(tokens[0]).flag(&tokens_file));
    let peers: Vec<_> = specs.iter().map(|spec| spec.peer).collect();
    for spec in specs {
        let node = cluster.add(spec.peers(peers.clone()));
        cluster[node].start();
    }
    // At once: until the nodes have met, its first session is tried again.
    let mut flags = flags(&cluster, Duration::from_secs(30));
    let refused = check(&CheckFlags { timeout: Duration::from_secs(2), ..flags.clone() }).await;
    assert!(matches!(refused, Err(CheckError::Late { .. })), "without a token: {refused:?}");
    flags.token_file = Some(token_file);
    check(&flags).await.expect("nodes that replicate");
}

#[tokio::test]
async fn nodes_that_never_met_fail() {
    let mut cluster = Cluster::empty();
    for name in ["one", "two"] {
        let node = cluster.add(NodeSpec::new(name));
        cluster[node].start_ready().await;
    }
    let failed = check(&flags(&cluster, Duration::from_secs(3))).await;
    let Err(CheckError::Late { last: Some(last), .. }) = failed else { panic!("{failed:?}") };
    assert!(matches!(*last, CheckError::Answer { .. }), "{last:?}");
}
