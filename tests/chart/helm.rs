//! Runs helm, and reads what it renders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mneme_tests::binary;
use serde::Deserialize;
use serde_json::Value;

/// The oldest Kubernetes there is support for.
const KUBERNETES: &str = "1.30.0";
/// Where the chart is installed.
pub(crate) const NAMESPACE: &str = "mneme-system";

/// A file of the repository.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Text of a file of the repository.
pub(crate) fn text(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("failed to read {name}: {error}"))
}

/// A program of the suite.
pub(crate) fn tool(name: &str) -> PathBuf {
    std::env::var_os("MNEME_KUBE_TOOLS")
        .map_or_else(|| binary::required(name), |directory| PathBuf::from(directory).join(name))
}

/// Runs a command; its output, whatever it is.
pub(crate) fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("failed to run {command:?}: {error}"))
}

/// Everything that a command printed.
pub(crate) fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The command `helm template` of a release `mneme` with some values.
fn template(settings: &[&str]) -> Command {
    let mut command = Command::new(tool("helm"));
    command.args(["template", "mneme"]).arg(file("charts/mneme"));
    command.args(["--namespace", NAMESPACE, "--kube-version", KUBERNETES]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command
}

/// Text of what is rendered with some values, tests included.
#[track_caller]
pub(crate) fn rendered(settings: &[&str]) -> String {
    let output = run(&mut template(settings));
    assert!(output.status.success(), "{settings:?}: {}", printed(&output));
    String::from_utf8(output.stdout).expect("YAML in UTF-8")
}

/// What is rendered with some values, tests included.
#[track_caller]
pub(crate) fn render(settings: &[&str]) -> Vec<Value> {
    documents(&rendered(settings))
}

/// What helm says of values that it refuses.
#[track_caller]
pub(crate) fn refusal(settings: &[&str]) -> String {
    let output = run(&mut template(settings));
    assert!(!output.status.success(), "{settings:?} are taken");
    printed(&output)
}

/// The documents of a file.
#[track_caller]
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(text);
    let documents = documents.map(|document| Value::deserialize(document).expect("YAML"));
    documents.filter(|document| !document.is_null()).collect()
}

/// Objects of a kind.
pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// The one object of a kind.
#[track_caller]
pub(crate) fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "objects of kind {kind}");
    found[0]
}

/// Name of an object.
pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Namespace of an object; empty when it has none.
pub(crate) fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

/// Texts of a list.
pub(crate) fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap_or_default().to_owned()).collect()
}
