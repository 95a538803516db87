use super::*;

fn answer(addresses: &[&str]) -> Answer {
    Answer {
        addresses: addresses.iter().map(|text| (*text).to_owned()).collect(),
        is_whole: true,
        error: None,
    }
}

fn failed() -> Answer {
    Answer { error: Some("no answer".to_owned()), ..Answer::default() }
}

#[track_caller]
fn check(found: &Found, addresses: &[&str]) {
    assert_eq!(found.addresses, answer(addresses).addresses);
}

#[test]
fn errors_and_empty_answers_remove_nobody() {
    let (mut found, mut absences) =
        (Found { source: "host a".to_owned(), ..Found::default() }, Absences::new());
    take(&mut found, answer(&["1:1", "2:2"]), &mut absences, &|_| false);
    for _ in 0..10 {
        take(&mut found, failed(), &mut absences, &|_| false);
        take(&mut found, answer(&[]), &mut absences, &|_| false);
    }
    check(&found, &["1:1", "2:2"]);
}

#[test]
fn a_partial_answer_adds_and_does_not_remove() {
    let (mut found, mut absences) = (Found::default(), Absences::new());
    take(&mut found, answer(&["1:1"]), &mut absences, &|_| false);
    for _ in 0..10 {
        let partial = Answer { is_whole: false, ..answer(&["2:2"]) };
        take(&mut found, partial, &mut absences, &|_| false);
    }
    check(&found, &["1:1", "2:2"]);
}

#[test]
fn an_address_leaves_after_it_was_absent_repeatedly_and_nobody_is_in_contact() {
    let (mut found, mut absences) = (Found::default(), Absences::new());
    let mut told = |addresses: &[&str], is_in_contact: bool| {
        take(&mut found, answer(addresses), &mut absences, &|_| is_in_contact);
        found.addresses.len()
    };
    assert_eq!(told(&["1:1", "2:2"], false), 2);
    assert_eq!(told(&["1:1"], false), 2);
    assert_eq!(told(&["1:1"], false), 2);
    // Back again: counted anew.
    assert_eq!(told(&["1:1", "2:2"], false), 2);
    for _ in 0..5 {
        assert_eq!(told(&["1:1"], true), 2);
    }
    assert_eq!(told(&["1:1"], false), 1);
}

#[test]
fn the_list_outlives_the_operator() {
    let own = ["web-0.web-peers.shop.svc.cluster.local:7071".to_owned()];
    let found = [
        Found {
            source: "service other-peers.shop".to_owned(),
            addresses: answer(&["1.2.3.4:7071"]).addresses,
            error: None,
        },
        Found {
            source: "host a".to_owned(),
            addresses: answer(&["[fd00::5]:7071", "5.6.7.8:1"]).addresses,
            error: None,
        },
        Found { source: "host b".to_owned(), ..Found::default() },
    ];
    let text = write_list(&own, &found);
    assert_eq!(read_list(&text), found);
    assert!(text.lines().filter(|line| !line.starts_with('#')).count() == 4, "{text}");
    assert_eq!(read_list(""), []);
    assert_eq!(read_list("stray:1\n# host a\n1:1\n").len(), 1);
}

#[test]
fn hosts_are_questions_or_their_own_answers() {
    let question = |host: &str| Source::Host(host.to_owned()).question();
    let nothing = |address: &str| Ok(Question::Nothing { address: address.to_owned() });
    let addresses = |name: &str, port| Ok(Question::Addresses { name: name.to_owned(), port });
    assert_eq!(question("10.0.0.5"), nothing("10.0.0.5:7071"));
    assert_eq!(question("10.0.0.5:1"), nothing("10.0.0.5:1"));
    assert_eq!(question("fd00::5"), nothing("[fd00::5]:7071"));
    assert_eq!(question("[fd00::5]:1"), nothing("[fd00::5]:1"));
    assert_eq!(question("[fd00::5]"), nothing("[fd00::5]:7071"));
    assert_eq!(question("cache.example.com"), addresses("cache.example.com", 7071));
    assert_eq!(question("cache.example.com:80"), addresses("cache.example.com", 80));
    assert_eq!(question("_a._tcp.b"), Ok(Question::Services { name: "_a._tcp.b".to_owned() }));
    assert!(question("a:0").is_err() && question("a:70000").is_err() && question("[x]:1").is_err());
}

#[test]
fn a_service_is_asked_for_by_its_whole_name() {
    let source = Source::Service {
        name: "other-peers.shop".to_owned(),
        namespace: "shop".to_owned(),
        host: "other-peers.shop.svc.cluster.local".to_owned(),
        port: 7072,
    };
    let question = source.question().expect("a question");
    assert_eq!(
        question,
        Question::Addresses { name: "other-peers.shop.svc.cluster.local.".to_owned(), port: 7072 }
    );
    assert_eq!(source.label(), "service other-peers.shop:7072");
}

struct Fixed(Answer);

impl Resolve for Fixed {
    fn resolve<'a>(&'a self, _: &'a Question) -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
        Box::pin(std::future::ready(self.0.clone()))
    }
}

#[tokio::test]
async fn what_was_known_stays_while_dns_is_away_and_what_is_asked_for_no_more_goes() {
    let resolver = Resolver::new(Box::new(Fixed(failed())));
    let known = [
        Found { source: "host a".to_owned(), addresses: answer(&["1:1"]).addresses, error: None },
        Found { source: "host gone".to_owned(), addresses: answer(&["2:2"]).addresses, error: None },
    ];
    let sources = [Source::Host("a".to_owned()), Source::Host("10.0.0.5".to_owned())];
    let found = resolver.find("shop/web", &sources, &known, &|_| false).await;
    check(&found[0], &["1:1"]);
    check(&found[1], &["10.0.0.5:7071"]);
    assert_eq!((found.len(), found[0].error.as_deref()), (2, Some("no answer")));
}
