//! The main job: browsers stay signed in, and signed out, behind a load balancer while nodes are killed, frozen,
//! restarted and wiped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mneme_tests::cluster::Cluster;
use mneme_tests::http::{Request, Response};
use mneme_tests::process::Process;
use mneme_tests::proxy::{Proxy, ProxyKind};
use mneme_tests::wait::{wait_for, wait_until};
use mneme_tests::{binary, ports};

/// Requests that have to be answered while a fault lasts before the test goes on.
const REQUESTS_A_FAULT: usize = 40;
/// How long a node is frozen.
const FREEZE: Duration = Duration::from_secs(10);
/// Longest wait for the requests of a fault.
const PATIENCE: Duration = Duration::from_secs(60);

/// Copies of the example application, each beside its own node, behind a proxy.
struct Site {
    cluster: Cluster,
    _copies: Vec<Process>,
    proxy: Proxy,
}

impl Site {
    async fn start(kind: ProxyKind, copies: usize) -> Self {
        let cluster = Cluster::start(copies).await;
        let mut addresses = Vec::new();
        let mut processes = Vec::new();
        for node in cluster.nodes() {
            let address = ports::free_loopback();
            let command = [
                binary::mneme_login().into_os_string(),
                "--listen".into(),
                address.to_string().into(),
                "--mneme".into(),
                format!("http://{}", node.spec.client).into(),
            ];
            let log = cluster.directory().join(format!("login-{}.log", node.spec.name));
            processes.push(Process::start("login", command, &log));
            addresses.push(address);
        }
        for address in &addresses {
            wait_until(PATIENCE, "a copy of the application answers", async || {
                let answer = Request::new(*address, "GET", "/healthz").try_send().await;
                answer.is_ok_and(|answer| answer.code() == 200)
            })
            .await;
        }
        let proxy = Proxy::start(kind, &addresses).await;
        Self { cluster, _copies: processes, proxy }
    }
}

/// A browser: one cookie.
#[derive(Clone)]
struct Browser {
    site: SocketAddr,
    cookie: String,
}

impl Browser {
    async fn sign_in(site: SocketAddr, user: &str) -> Self {
        let answer = wait_for(PATIENCE, "a sign-in is answered", async || {
            let request = Request::new(site, "POST", "/sign-in")
                .header("content-type", "application/x-www-form-urlencoded")
                .body(format!("user={user}"));
            request.try_send().await.ok().filter(|answer| answer.code() == 303)
        })
        .await;
        let cookie = answer.required_header("set-cookie");
        let cookie = cookie.split(';').next().expect("a cookie begins with its value").to_owned();
        Self { site, cookie }
    }

    async fn request(&self, method: &str, path: &str) -> Option<Response> {
        Request::new(self.site, method, path).header("cookie", self.cookie.clone()).try_send().await.ok()
    }

    async fn sign_out(&self, path: &str) {
        wait_until(PATIENCE, "a sign-out is answered", async || {
            self.request("POST", path).await.is_some_and(|answer| answer.code() == 303)
        })
        .await;
    }
}

/// What is counted.
#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    failed: AtomicUsize,
    false_logouts: AtomicUsize,
    revived: AtomicUsize,
    longest_stall_ms: AtomicUsize,
    is_over: AtomicBool,
}

impl Counts {
    fn count(counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn get(counter: &AtomicUsize) -> usize {
        counter.load(Ordering::Relaxed)
    }

    async fn look(&self, browser: &Browser, is_signed_in: bool) {
        let started = Instant::now();
        let answer = browser.request("GET", "/who-am-i").await;
        let stall_ms = usize::try_from(started.elapsed().as_millis()).unwrap_or(usize::MAX);
        self.longest_stall_ms.fetch_max(stall_ms, Ordering::Relaxed);
        Self::count(&self.requests);
        match (answer.as_ref().map(Response::code), is_signed_in) {
            (Some(200), true) | (Some(401), false) => {}
            (Some(401), true) => Self::count(&self.false_logouts),
            (Some(200), false) => Self::count(&self.revived),
            _ => Self::count(&self.failed),
        }
    }

    /// Waits until so many more requests were answered.
    async fn more(&self, requests: usize) {
        let wanted = Self::get(&self.requests) + requests;
        wait_until(PATIENCE, "requests go on", async || Self::get(&self.requests) >= wanted).await;
    }
}

/// Looks again and again, whoever is killed.
fn browse(counts: &Arc<Counts>, browser: Browser, is_signed_in: bool) -> tokio::task::JoinHandle<()> {
    let counts = counts.clone();
    tokio::spawn(async move {
        while !counts.is_over.load(Ordering::Relaxed) {
            counts.look(&browser, is_signed_in).await;
        }
    })
}

async fn live_through_faults(kind: ProxyKind, copies: usize) {
    let mut site = Site::start(kind, copies).await;
    let address = site.proxy.address;
    let counts = Arc::new(Counts::default());
    let signed_in = Browser::sign_in(address, "ada").await;
    let signed_out = Browser::sign_in(address, "bob").await;
    signed_out.sign_out("/sign-out").await;
    let everywhere = [Browser::sign_in(address, "eve").await, Browser::sign_in(address, "eve").await];
    everywhere[0].sign_out("/sign-out-everywhere").await;
    let mut browsing = vec![browse(&counts, signed_in, true), browse(&counts, signed_out, false)];
    browsing.extend(everywhere.map(|browser| browse(&counts, browser, false)));

    for victim in 0..copies {
        counts.more(REQUESTS_A_FAULT).await;
        site.cluster[victim].kill();
        counts.more(REQUESTS_A_FAULT).await;
        // Signed in and out while a node is down: it must know both before it answers.
        let late = Browser::sign_in(address, "late").await;
        late.sign_out("/sign-out").await;
        site.cluster[victim].start_ready().await;
        browsing.push(browse(&counts, late, false));
        counts.more(REQUESTS_A_FAULT).await;

        site.cluster[victim].freeze();
        let frozen = Instant::now();
        let late = Browser::sign_in(address, "frozen").await;
        late.sign_out("/sign-out").await;
        wait_until(PATIENCE, "the freeze is over", async || frozen.elapsed() >= FREEZE).await;
        site.cluster[victim].thaw();
        browsing.push(browse(&counts, late, false));
        counts.more(REQUESTS_A_FAULT).await;

        site.cluster[victim].kill();
        site.cluster[victim].wipe();
        site.cluster[victim].start_ready().await;
        counts.more(REQUESTS_A_FAULT).await;
    }
    // All at once: nobody can answer meanwhile, so nothing is asked.
    counts.is_over.store(true, Ordering::Relaxed);
    for task in browsing.drain(..) {
        task.await.expect("a browser does not panic");
    }
    let failed_with_one_down = Counts::get(&counts.failed);
    let last = Browser::sign_in(address, "last").await;
    let gone = Browser::sign_in(address, "gone").await;
    gone.sign_out("/sign-out").await;
    site.cluster.nodes_mut().iter_mut().for_each(mneme_tests::node::Node::kill);
    for node in site.cluster.nodes_mut().iter_mut().rev() {
        node.start();
    }
    site.cluster.wait_whole().await;
    wait_until(PATIENCE, "the site answers again", async || {
        last.request("GET", "/who-am-i").await.is_some_and(|answer| answer.code() == 200)
    })
    .await;
    for _ in 0..REQUESTS_A_FAULT {
        counts.look(&last, true).await;
        counts.look(&gone, false).await;
    }
    println!(
        "{kind:?}, {copies} copies: {} requests, {failed_with_one_down} failed after the proxy's retry, \
         {} false logouts, {} revived sessions, longest stall {} ms",
        Counts::get(&counts.requests),
        Counts::get(&counts.false_logouts),
        Counts::get(&counts.revived),
        Counts::get(&counts.longest_stall_ms),
    );
    assert_eq!(Counts::get(&counts.false_logouts), 0, "false logouts");
    assert_eq!(Counts::get(&counts.revived), 0, "revived sessions");
    // A request may meet a node in the moment of its death more often than the proxy retries; hardly ever.
    assert!(
        failed_with_one_down * 100 <= Counts::get(&counts.requests),
        "{failed_with_one_down} requests failed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_copies_behind_haproxy() {
    live_through_faults(ProxyKind::HaProxy, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_copies_behind_haproxy() {
    live_through_faults(ProxyKind::HaProxy, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_copies_behind_nginx() {
    live_through_faults(ProxyKind::Nginx, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_copies_behind_nginx() {
    live_through_faults(ProxyKind::Nginx, 3).await;
}
