//! Against a real DNS server, whose answers the test decides.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use hickory_resolver::proto::op::{Metadata, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::peers::discovery::{Discovery, Source};

/// What the server says to one question.
#[derive(Clone)]
enum Said {
    Records(Vec<Record>),
    Code(ResponseCode),
    Nothing,
}

type Zone = Arc<Mutex<HashMap<(String, RecordType), Said>>>;

struct Handler(Zone);

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let info = request.request_info().expect("one question");
        let key = (info.query.name().to_string(), info.query.query_type());
        let said = self.0.lock().get(&key).cloned().unwrap_or(Said::Code(ResponseCode::NXDomain));
        let mut metadata = Metadata::response_from_request(info.metadata);
        let builder = MessageResponseBuilder::from_message_request(request);
        let (code, records) = match said {
            Said::Nothing => std::future::pending().await,
            Said::Code(code) => (code, Vec::new()),
            Said::Records(records) => (ResponseCode::NoError, records),
        };
        metadata.response_code = code;
        metadata.authoritative = true;
        let message = builder.build(metadata, &records, [], [], []);
        response.send_response(message).await.expect("the asker is there")
    }
}

struct Bench {
    zone: Zone,
    dns: Dns,
    _server: Server<Handler>,
}

const NAME: &str = "peers.test.";

impl Bench {
    async fn start() -> Self {
        let zone = Zone::default();
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("bound");
        let mut server = Server::new(Handler(zone.clone()));
        server.register_socket(socket);
        let dns = Dns::new(Some(address)).expect("a server of our own");
        Self { zone, dns, _server: server }
    }

    fn say(&self, name: &str, kind: RecordType, said: Said) {
        self.zone.lock().insert((name.to_owned(), kind), said);
    }

    fn addresses(&self, v4: &[[u8; 4]], v6: &[Ipv6Addr]) {
        let v4 = v4.iter().map(|ip| record(NAME, RData::A(A::from(std::net::Ipv4Addr::from(*ip)))));
        let v6 = v6.iter().map(|ip| record(NAME, RData::AAAA(AAAA(*ip))));
        self.say(NAME, RecordType::A, Said::Records(v4.collect()));
        self.say(NAME, RecordType::AAAA, Said::Records(v6.collect()));
    }

    async fn ask(&self) -> (Answer, Option<Duration>) {
        self.dns.ask(&Question::addresses("peers.test.:81").expect("a name")).await
    }
}

fn record(name: &str, data: RData) -> Record {
    Record::from_rdata(Name::from_ascii(name).expect("a name"), 7, data)
}

#[track_caller]
fn check(answer: &Answer, addresses: &[&str], is_whole: bool) {
    assert_eq!(answer.addresses.iter().collect::<Vec<_>>(), addresses);
    assert_eq!(answer.is_whole, is_whole, "{answer:?}");
}

#[tokio::test]
async fn both_families_are_whole_and_keep_their_time_to_live() {
    let bench = Bench::start().await;
    bench.addresses(&[[10, 0, 0, 1], [10, 0, 0, 2]], &[Ipv6Addr::LOCALHOST]);
    let (answer, ttl) = bench.ask().await;
    check(&answer, &["10.0.0.1:81", "10.0.0.2:81", "[::1]:81"], true);
    assert_eq!(ttl, Some(Duration::from_secs(7)));
    bench.addresses(&[[10, 0, 0, 1]], &[]);
    check(&bench.ask().await.0, &["10.0.0.1:81"], true);
}

#[tokio::test]
async fn an_alias_is_followed() {
    let bench = Bench::start().await;
    let target = Name::from_ascii("real.test.").expect("a name");
    let alias = record(NAME, RData::CNAME(CNAME(target)));
    let real = record("real.test.", RData::A(A::from(std::net::Ipv4Addr::new(10, 0, 0, 9))));
    bench.say(NAME, RecordType::A, Said::Records(vec![alias.clone(), real]));
    bench.say(NAME, RecordType::AAAA, Said::Records(vec![alias]));
    bench.say("real.test.", RecordType::AAAA, Said::Records(Vec::new()));
    check(&bench.ask().await.0, &["10.0.0.9:81"], true);
}

#[tokio::test]
async fn services_bring_their_ports() {
    let bench = Bench::start().await;
    let name = "_peer._tcp.test.";
    let service = |port, host: &str| {
        let target = Name::from_ascii(host).expect("a name");
        record(name, RData::SRV(SRV::new(0, 0, port, target)))
    };
    bench.say(name, RecordType::SRV, Said::Records(vec![service(7071, "a.test."), service(7081, "b.test.")]));
    let question = Question::services(name).expect("a name");
    check(&bench.dns.ask(&question).await.0, &["a.test:7071", "b.test:7081"], true);
}

#[tokio::test]
async fn a_service_at_no_address_is_told_and_the_rest_is_used() {
    let bench = Bench::start().await;
    let name = "_peer._tcp.test.";
    let service = |port, labels: &[&str]| {
        let target = Name::from_labels(labels.iter().map(|label| label.as_bytes())).expect("a name");
        record(name, RData::SRV(SRV::new(0, 0, port, target)))
    };
    let services =
        vec![service(7071, &["a", "test"]), service(7071, &["a b", "test"]), service(0, &["c", "test"])];
    bench.say(name, RecordType::SRV, Said::Records(services));
    let answer = bench.dns.ask(&Question::services(name).expect("a name")).await.0;
    check(&answer, &["a.test:7071"], false);
    let error = answer.error.expect("two are no good");
    assert!(error.contains("host name") && error.contains("not a port"), "{error}");
}

#[tokio::test]
async fn a_host_that_is_dialled_is_asked_for_unless_it_is_numbers() {
    let bench = Bench::start().await;
    bench.addresses(&[[10, 0, 0, 1]], &[Ipv6Addr::LOCALHOST]);
    let found = bench.dns.resolve("peers.test.:81").await.expect("both families");
    assert_eq!(found, ["10.0.0.1:81", "[::1]:81"].map(|address| address.parse().expect("an address")));
    let numbers = bench.dns.resolve("[::2]:81").await.expect("nothing to ask");
    assert_eq!(numbers, ["[::2]:81".parse().expect("an address")]);
    let error = bench.dns.resolve("other.test.:81").await.expect_err("no such name");
    assert!(error.contains("other.test"), "{error}");
}

#[tokio::test]
async fn no_such_name_and_no_records_name_nobody() {
    let bench = Bench::start().await;
    let (answer, ttl) = bench.ask().await;
    assert!(answer.addresses.is_empty() && answer.error.is_some() && ttl.is_none(), "{answer:?}");
    bench.addresses(&[], &[]);
    let (answer, ttl) = bench.ask().await;
    assert!(answer.addresses.is_empty() && answer.error.is_some() && ttl.is_none(), "{answer:?}");
}

#[tokio::test]
async fn an_answer_of_one_family_beside_a_failure_of_the_other_is_partial() {
    let bench = Bench::start().await;
    bench.addresses(&[[10, 0, 0, 1]], &[]);
    bench.say(NAME, RecordType::AAAA, Said::Code(ResponseCode::ServFail));
    let (answer, _) = bench.ask().await;
    check(&answer, &["10.0.0.1:81"], false);
    assert!(answer.error.is_some_and(|error| error.contains("AAAA")));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let bench = Bench::start().await;
    bench.say(NAME, RecordType::A, Said::Nothing);
    bench.say(NAME, RecordType::AAAA, Said::Nothing);
    let (answer, ttl) = bench.ask().await;
    assert!(!answer.is_whole && answer.addresses.is_empty() && ttl.is_none(), "{answer:?}");
}

#[tokio::test]
async fn discovery_follows_an_answer_that_changes_and_survives_one_that_fails() {
    let bench = Bench::start().await;
    bench.addresses(&[[10, 0, 0, 1], [10, 0, 0, 2]], &[]);
    let source = Source::Dns(Question::addresses("peers.test.:81").expect("a name"));
    let nobody = Arc::new(|_: &str| false);
    let discovery = Discovery::new(vec![source], Some(bench.dns.clone()), &Default::default(), nobody);
    let mut discovered = discovery.subscribe();
    let stop = CancellationToken::new();
    let running = tokio::spawn(discovery.run(stop.clone()));
    let mut wait_for = async |expected: &[&str]| {
        let is_there = |discovered: &crate::peers::discovery::Discovered| {
            discovered.addresses().iter().eq(expected.iter())
        };
        let found = tokio::time::timeout(Duration::from_secs(60), discovered.wait_for(is_there)).await;
        assert!(found.is_ok_and(|found| found.is_ok()), "waited in vain for {expected:?}");
    };
    // Time to live 1: the server is asked again every second.
    let lively = |zone: &Zone| {
        for said in zone.lock().values_mut() {
            if let Said::Records(records) = said {
                records.iter_mut().for_each(|record| record.ttl = 1);
            }
        }
    };
    lively(&bench.zone);
    wait_for(&["10.0.0.1:81", "10.0.0.2:81"]).await;
    // Whoever is new is added while the rest fails; nobody leaves.
    bench.addresses(&[[10, 0, 0, 3]], &[]);
    bench.say(NAME, RecordType::AAAA, Said::Code(ResponseCode::ServFail));
    lively(&bench.zone);
    wait_for(&["10.0.0.1:81", "10.0.0.2:81", "10.0.0.3:81"]).await;
    // Absent from whole answers in a row, with nobody in contact: gone.
    bench.addresses(&[[10, 0, 0, 3]], &[]);
    lively(&bench.zone);
    wait_for(&["10.0.0.3:81"]).await;
    stop.cancel();
    running.await.expect("discovery stops");
}
