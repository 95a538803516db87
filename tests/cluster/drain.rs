//! A node that stops: what it tells those who still talk to it.

use std::time::Duration;

use mneme_tests::cluster::Cluster;
use mneme_tests::raw::RawConnection;
use mneme_tests::records::record;
use mneme_tests::wait::wait_until;

const SOON: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_stopping_node_refuses_in_so_many_words() {
    let mut cluster = Cluster::start(1).await;
    let address = cluster[0].spec.client;
    let put = |key: &str| format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n", record(key));
    // One that is idle, one whose body is on its way, one whose headers are.
    let mut idle = RawConnection::open(address).await;
    idle.send(put("idle") + "one").await;
    assert_eq!(idle.statuses(1, SOON).await, [201]);
    let mut sending = RawConnection::open(address).await;
    sending.send(put("slow") + "o").await;
    let mut beginning = RawConnection::open(address).await;
    beginning.send("PUT /v1").await;
    // Whatever the connections brought is in the node when a later request is answered.
    cluster[0].assert_read_status("slow", 404).await;

    cluster[0].process().ask_to_end();
    let text = sending.to_end(SOON).await;
    assert!(
        text.contains("503") && text.contains("retry-after") && text.contains("/problems/draining"),
        "{text}"
    );
    idle.send(put("idle") + "two").await;
    let text = idle.to_end(SOON).await;
    assert!(text.contains("503") && text.contains("/problems/draining"), "{text}");
    assert!(text.contains("connection: close"), "{text}");
    assert_eq!(cluster[0].exit_code().await, 0);
    cluster[0].start_ready().await;
    cluster[0].assert_value("idle", "one").await;
    cluster[0].assert_read_status("slow", 404).await;
}

#[tokio::test]
async fn probes_are_answered_for_as_long_as_the_node_stops() {
    let mut cluster = Cluster::start(1).await;
    let mut idle = RawConnection::open(cluster[0].spec.client).await;
    idle.send(format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", record("k"))).await;
    assert_eq!(idle.statuses(1, SOON).await, [404]);
    cluster[0].process().ask_to_end();
    // New clients are refused while the connection that is left may bring a last request, which takes a second.
    wait_until(SOON, "new connections are refused", async || {
        tokio::net::TcpStream::connect(cluster[0].spec.client).await.is_err()
    })
    .await;
    let ready = cluster[0].admin("GET", "/readyz").send().await;
    assert_eq!((ready.code(), ready.text().as_str()), (503, "not ready\n"));
    assert_eq!(cluster[0].exit_code().await, 0);
}
