use kube_cel::Validator;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::crd::v1alpha1::{SessionCacheSpec, TableSpec};

/// An object that the API server refuses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Refusal {
    name: String,
    metadata: Option<Value>,
    before: Option<Value>,
    after: Value,
    message: String,
    /// Only the real server refuses it: by the schema itself, or by a rule that compares elements of lists by name.
    #[serde(default)]
    server_only: bool,
}

fn refusals() -> Vec<Refusal> {
    serde_yaml::from_str(include_str!("refusals.yaml")).expect("well-formed")
}

fn schema() -> Value {
    let definition = serde_json::to_value(definition()).expect("JSON");
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn object(metadata: Option<&Value>, spec: &Value) -> Value {
    let metadata = metadata.cloned().unwrap_or_else(|| json!({"name": "web"}));
    json!({"apiVersion": "mneme.dev/v1alpha1", "kind": "SessionCache", "metadata": metadata, "spec": spec})
}

/// Messages with which an object is refused.
fn check(schema: &Value, before: Option<&Value>, after: &Value) -> Vec<String> {
    let default = |object: &Value| kube_cel::apply_defaults(schema, object);
    let (before, after) = (before.map(default), default(after));
    match Validator::new().validate(schema, &after, before.as_ref()) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.to_string()).collect(),
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_message() {
    let schema = schema();
    for refusal in refusals().iter().filter(|refusal| !refusal.server_only) {
        let metadata = refusal.metadata.as_ref();
        let before = refusal.before.as_ref().map(|spec| object(metadata, spec));
        let messages = check(&schema, before.as_ref(), &object(metadata, &refusal.after));
        let is_told = messages.iter().any(|message| message.contains(&refusal.message));
        assert!(is_told, "{}: {messages:#?}", refusal.name);
        assert_eq!(messages.len(), 1, "{}: {messages:#?}", refusal.name);
        if let Some(before) = before {
            assert_eq!(check(&schema, None, &before), Vec::<String>::new(), "{}", refusal.name);
        }
    }
}

#[test]
fn what_makes_sense_is_taken() {
    let schema = schema();
    let none = Vec::<String>::new();
    for spec in [
        json!({}),
        json!({"replicas": 0, "clusterName": "Shop_1.a", "image": "", "version": "1.2.3-rc.1"}),
        json!({"tables": [{"name": "a", "defaultTtl": "500ms", "maxAge": "3650d", "touchResolution": "1ms"}]}),
        json!({"peers": {"hosts": ["10.0.0.5:7071", "cache.example.com", "c:65535", "[fd00::5]:1", "fd00::5", "::1",
                                   "_mneme._tcp.example.com"]}}),
        json!({"peers": {"headlessService": {"name": "other-peers", "namespace": "shop"}}}),
        json!({"storage": {"size": "1.5Gi"}, "auth": {"tokensSecret": "my.tokens"}}),
    ] {
        assert_eq!(check(&schema, None, &object(None, &spec)), none, "{spec}");
    }
    let grown =
        (json!({"storage": {"size": "1Gi"}}), json!({"storage": {"size": "1025Mi"}, "clusterName": "web"}));
    assert_eq!(check(&schema, Some(&object(None, &grown.0)), &object(None, &grown.1)), none);
}

/// Messages of all rules at and under a place.
fn messages(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "x-kubernetes-validations" {
                    let rules = value.as_array().into_iter().flatten();
                    found.extend(rules.map(|rule| rule["message"].as_str().expect("a message").to_owned()));
                } else {
                    messages(value, found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| messages(value, found)),
        _ => {}
    }
}

#[test]
fn every_rule_has_an_object_that_it_refuses() {
    let mut found = Vec::new();
    messages(&schema(), &mut found);
    assert!(found.len() > 15, "{found:#?}");
    let refusals = refusals();
    let unrefused: Vec<&String> = found
        .iter()
        .filter(|message| !refusals.iter().any(|refusal| message.contains(&refusal.message)))
        .collect();
    assert!(unrefused.is_empty(), "{unrefused:#?}");
}

fn undescribed(path: &str, schema: &Value, found: &mut Vec<String>) {
    let properties = schema["properties"].as_object().into_iter().flatten();
    for (name, field) in properties {
        let path = format!("{path}.{name}");
        if field["description"].as_str().is_none_or(str::is_empty) {
            found.push(path.clone());
        }
        undescribed(&path, field, found);
        undescribed(&path, &field["items"], found);
    }
}

#[test]
fn every_field_is_described() {
    let mut found = Vec::new();
    for part in ["spec", "status"] {
        undescribed(part, &schema()["properties"][part], &mut found);
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn defaults_of_the_schema_are_those_of_the_types_and_of_the_nodes() {
    let defaulted = kube_cel::apply_defaults(&schema(), &object(None, &json!({})));
    let spec: SessionCacheSpec = serde_json::from_value(defaulted["spec"].clone()).expect("well-formed");
    assert_eq!(spec, serde_json::from_value(json!({})).expect("well-formed"));
    let table = serde_json::to_value(TableSpec::new("sessions")).expect("JSON");
    let table: mneme_api::TableConfig = serde_json::from_value(table).expect("a table of the nodes");
    assert_eq!(table, mneme_api::TableConfig::new("sessions".parse().expect("a name")));
}

/// Compares a generated file with the one in the repository.
#[track_caller]
fn check_file(path: &str, generated: &str, command: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "{} is stale: write it anew with `{command}`", path.display());
}

#[test]
fn the_manifest_and_the_documentation_are_not_stale() {
    let yaml = yaml().expect("YAML");
    check_file("manifests/crd.yaml", &yaml, "mneme-operator crd > manifests/crd.yaml");
    let command = "mneme-operator crd --format markdown > docs/custom-resource.md";
    check_file("docs/custom-resource.md", &reference(), command);
}

/// Texts of YAML that some readers take for something else and that the writer leaves bare.
fn is_ambiguous(text: &str) -> bool {
    matches!(text.to_lowercase().as_str(), "y" | "n" | "yes" | "no" | "on" | "off")
}

#[test]
fn no_text_of_the_manifest_is_taken_for_something_else() {
    fn texts(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => found.push(text.clone()),
            Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
            Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                found.push(name.clone());
                texts(value, found);
            }),
            _ => {}
        }
    }
    let mut found = Vec::new();
    texts(&serde_json::to_value(definition()).expect("JSON"), &mut found);
    assert!(!found.iter().any(|text| is_ambiguous(text)));
}

#[test]
fn the_scale_subresource_the_columns_and_the_names_are_as_tools_expect() {
    let definition = serde_json::to_value(definition()).expect("JSON");
    let names = &definition["spec"]["names"];
    assert_eq!(names["shortNames"], json!(["scache"]));
    assert_eq!((&names["plural"], &names["categories"]), (&json!("sessioncaches"), &json!(["all"])));
    let version = &definition["spec"]["versions"][0];
    assert_eq!(version["subresources"]["scale"]["labelSelectorPath"], ".status.selector");
    let columns: Vec<&str> = version["additionalPrinterColumns"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|column| column["name"].as_str())
        .collect();
    assert_eq!(columns, ["Ready", "Members", "Peers", "Version", "Reason", "Age", "Lag", "Storage"]);
    assert!(version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["phase"].is_null());
}
