//! `docs/custom-resource.md`: every field of the custom resource, from its schema.

use std::fmt::Write;

use serde_json::Value;

use super::definition;

/// What stands before the fields.
const INTRODUCTION: &str = "\
<!-- Written by `mneme-operator crd --format markdown`. Do not edit. -->
# SessionCache

`mneme.dev/v1alpha1`, plural `sessioncaches`, short name `scache`. The same text is in the cluster: `kubectl explain
scache.spec --recursive`. What a rule refuses is refused by the API server when the resource is applied; there is no webhook.
";

/// The reference as Markdown.
pub fn reference() -> String {
    let definition = serde_json::to_value(definition()).unwrap_or_default();
    let root = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut text = INTRODUCTION.to_owned();
    let rules = rules(root);
    if !rules.is_empty() {
        text.push_str("\nRules of the whole resource:\n\n");
        for rule in rules {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "- {rule}");
        }
    }
    for part in ["spec", "status"] {
        let schema = &root["properties"][part];
        let _ = write!(text, "\n## {part}\n");
        fields(&mut text, part, schema);
    }
    text
}

/// One section per object, its fields as a list; objects within follow it.
fn fields(text: &mut String, path: &str, schema: &Value) {
    let Some(properties) = schema["properties"].as_object() else { return };
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    text.push('\n');
    let mut nested = Vec::new();
    for (name, field) in properties {
        let description = field["description"].as_str().unwrap_or_default().replace('\n', " ");
        let _ = writeln!(
            text,
            "- **`{name}`** ({}). {description}",
            kind(field, required.contains(&name.as_str()))
        );
        for rule in rules(field).into_iter().chain(rules(&field["items"])) {
            let _ = writeln!(text, "  - {rule}");
        }
        let (inner, suffix) =
            if field["items"]["properties"].is_object() { (&field["items"], "[]") } else { (field, "") };
        if inner["properties"].is_object() {
            nested.push((format!("{path}.{name}{suffix}"), inner));
        }
    }
    for (path, inner) in nested {
        let _ = write!(text, "\n### {path}\n");
        fields(text, &path, inner);
    }
}

/// Type, bounds, values and whether the field must be given.
fn kind(field: &Value, is_required: bool) -> String {
    let plain = field["type"].as_str().unwrap_or(if field["x-kubernetes-int-or-string"] == true {
        "quantity"
    } else {
        "any"
    });
    let mut parts = vec![match plain {
        "array" => format!("list of {}", field["items"]["type"].as_str().unwrap_or("objects")),
        other => other.to_owned(),
    }];
    if let Some(values) = field["enum"].as_array() {
        let values: Vec<String> =
            values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`")).collect();
        parts = vec![values.join(" or ")];
    }
    for (bound, word) in [
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("maxLength", "characters at most"),
        ("maxItems", "elements at most"),
    ] {
        if let Some(value) = field[bound].as_f64() {
            parts.push(format!("{word} {value}"));
        }
    }
    if is_required {
        parts.push("required".to_owned());
    }
    parts.join(", ")
}

/// Messages of the rules at a place.
fn rules(schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array();
    rules.into_iter().flatten().filter_map(|rule| rule["message"].as_str()).map(str::to_owned).collect()
}
