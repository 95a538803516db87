//! Alerts, and the page that they link to: what is named in one place is there in the other.

use std::collections::BTreeSet;

use mneme_operator::reconcile::status::conditions::Reason;
use serde_json::Value;

use crate::helm::{one, render, text};

const PAGE: &str = "docs/failure-modes.md";

/// Reasons of events that are no reasons of conditions.
const EVENTS: [&str; 8] = [
    "Created",
    "Updated",
    "DriftCorrected",
    "Deleted",
    "StorageExpanded",
    "ReplacingMember",
    "MemberLeaving",
    "Undecodable",
];
const CONDITIONS: [&str; 4] = ["Ready", "Progressing", "Degraded", "PeersResolved"];
/// Results in `mneme_operator_reconciles_total`, but for those that are no failure.
const RESULTS: [&str; 5] = ["Conflict", "Throttled", "Transient", "Forbidden", "Invalid"];
/// Words of Kubernetes.
const FOREIGN: [&str; 3] = ["ContainerCreating", "Terminating", "Delete"];

fn alerts() -> Vec<Value> {
    let objects = render(&["monitoring.rules.enabled=true"]);
    let groups = one(&objects, "PrometheusRule")["spec"]["groups"].as_array().expect("groups").clone();
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

/// Sections of the page: the anchor of each, and its text.
fn sections() -> Vec<(String, String)> {
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in text(PAGE).lines() {
        if line.starts_with('#') {
            // As GitHub and its like make anchors.
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|&one| one.is_alphanumeric() || one == ' ' || one == '-');
            sections.push((kept.collect::<String>().replace(' ', "-"), String::new()));
        } else if let Some((_, text)) = sections.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    sections
}

/// Words in the page's code that look like reasons.
fn coded_words() -> BTreeSet<String> {
    let page = text(PAGE);
    let is_word = |text: &&str| {
        text.starts_with(|first: char| first.is_ascii_uppercase())
            && text.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    page.split('`').skip(1).step_by(2).filter(is_word).map(str::to_owned).collect()
}

/// Names of metrics in an expression.
fn metrics(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|one: char| !(one.is_ascii_alphanumeric() || one == '_'));
    words.filter(|word| word.starts_with("mneme_")).map(str::to_owned).collect()
}

#[test]
fn every_alert_says_what_it_means_and_links_to_a_section_that_names_it() {
    let (alerts, sections) = (alerts(), sections());
    assert!(!alerts.is_empty());
    for alert in &alerts {
        let name = alert["alert"].as_str().expect("a name");
        assert!(name.starts_with("Mneme"), "{name}");
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        assert!(["warning", "critical"].contains(&severity), "{name}: severity {severity:?}");
        for annotation in ["summary", "description"] {
            let text = alert["annotations"][annotation].as_str().unwrap_or_default();
            assert!(text.ends_with('.'), "{name}: {annotation} {text:?}");
        }
        let link = alert["annotations"]["runbook_url"].as_str().unwrap_or_default();
        let (page, anchor) = link.split_once('#').unwrap_or_default();
        assert_eq!(page, PAGE, "{name}");
        let section = sections.iter().find(|(found, _)| found == anchor);
        let (_, text) = section.unwrap_or_else(|| panic!("{name}: {PAGE} has no section {anchor}"));
        assert!(text.contains(&format!("`{name}`")), "{name} is not in the section {anchor}");
    }
    let names: BTreeSet<&str> = alerts.iter().filter_map(|alert| alert["alert"].as_str()).collect();
    assert_eq!(names.len(), alerts.len(), "two alerts of one name");
    let other =
        render(&["monitoring.rules.enabled=true", "monitoring.rules.runbookUrl=https://example.com/page"]);
    assert!(one(&other, "PrometheusRule").to_string().contains("https://example.com/page#"));
}

#[test]
fn every_metric_that_is_named_is_measured() {
    // A family without samples is not printed, so the names are looked for where they are given.
    let (operator, node) = (text("operator/src/metrics.rs"), text("node/src/metrics.rs"));
    let of_alerts = alerts()
        .iter()
        .flat_map(|alert| metrics(alert["expr"].as_str().unwrap_or_default()))
        .collect::<Vec<_>>();
    let page = text(PAGE);
    let coded = page.split('`').skip(1).step_by(2);
    let of_page = coded.filter(|text| !text.contains('…')).flat_map(metrics);
    let all: BTreeSet<String> = of_alerts.into_iter().chain(of_page).collect();
    assert!(all.len() > 10, "{all:?}");
    for metric in all {
        let family = ["_total", "_bucket"].iter().find_map(|end| metric.strip_suffix(end)).unwrap_or(&metric);
        let name = family.trim_start_matches("mneme_").trim_start_matches("operator_");
        let source = if family.starts_with("mneme_operator_") { &operator } else { &node };
        let is_there = [name, name.trim_end_matches("_seconds")]
            .iter()
            .any(|name| source.contains(&format!("\"{name}\"")));
        assert!(is_there, "nothing measures {metric}");
    }
}

#[test]
fn every_reason_is_explained_and_none_is_made_up() {
    let coded = coded_words();
    let reasons = Reason::ALL.map(Reason::as_str);
    let alerts = alerts();
    let alerts: Vec<&str> = alerts.iter().filter_map(|alert| alert["alert"].as_str()).collect();
    let known: BTreeSet<&str> =
        [&reasons[..], &EVENTS, &CONDITIONS, &RESULTS, &FOREIGN, &alerts].concat().into_iter().collect();
    let missing: Vec<&&str> = known.iter().filter(|word| !coded.contains(**word)).collect();
    assert!(missing.is_empty(), "{PAGE} says nothing of {missing:?}");
    let made_up: Vec<&String> = coded.iter().filter(|word| !known.contains(word.as_str())).collect();
    assert!(made_up.is_empty(), "{PAGE} names {made_up:?}, which nothing has");
    let source = text("operator/src/controller/events.rs");
    for event in EVENTS {
        assert!(source.contains(&format!("\"{event}\"")), "no event {event}");
    }
}

#[test]
fn every_link_within_the_page_leads_somewhere() {
    let (page, sections) = (text(PAGE), sections());
    for link in page.split("](#").skip(1) {
        let anchor = link.split(')').next().unwrap_or_default();
        assert!(sections.iter().any(|(found, _)| found == anchor), "no section {anchor}");
    }
}

#[test]
fn monitors_are_there_when_asked_for() {
    let kinds = ["PodMonitor", "PrometheusRule"];
    let objects = render(&[]);
    assert!(objects.iter().all(|object| !kinds.iter().any(|kind| object["kind"] == *kind)));
    let objects =
        render(&["monitoring.podMonitor.enabled=true", "monitoring.podMonitor.labels.release=prometheus"]);
    let (monitor, deployment) = (one(&objects, "PodMonitor"), one(&objects, "Deployment"));
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(monitor["spec"]["selector"], deployment["spec"]["selector"]);
    let port = &deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["name"];
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], *port);
}
