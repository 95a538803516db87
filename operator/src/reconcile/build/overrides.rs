//! Merges overrides over a pod template, as a strategic merge patch: objects by field, lists of things with names by name,
//! other lists whole; a null removes.

use serde_json::{Map, Value};

/// Lists whose elements are merged, each with the field that names an element.
const MERGE_KEYS: [(&str, &str); 9] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("imagePullSecrets", "name"),
    ("volumeMounts", "mountPath"),
    ("ports", "containerPort"),
    ("topologySpreadConstraints", "topologyKey"),
];
/// A directive of strategic merge patches: `delete` removes an element, `replace` takes an object whole.
const DIRECTIVE: &str = "$patch";

/// Merges `over` into `base`.
pub fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => merge_objects(base, over),
        (_, Value::Null) => {}
        (base, over) => *base = over.clone(),
    }
}

fn merge_objects(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    if over.get(DIRECTIVE).and_then(Value::as_str) == Some("replace") {
        base.clear();
    }
    for (field, value) in over {
        if field == DIRECTIVE {
            continue;
        }
        if value.is_null() {
            base.remove(field);
            continue;
        }
        let key = MERGE_KEYS.iter().find(|(list, _)| list == field).map(|(_, key)| *key);
        match (base.get_mut(field), value, key) {
            (Some(Value::Array(base)), Value::Array(over), Some(key)) => merge_lists(base, over, key),
            (Some(base), value, _) => merge(base, value),
            (None, value, _) => {
                base.insert(field.clone(), without_nulls(value));
            }
        }
    }
}

fn merge_lists(base: &mut Vec<Value>, over: &[Value], key: &str) {
    for element in over {
        let at = base.iter().position(|other| !element[key].is_null() && other[key] == element[key]);
        let is_delete = element[DIRECTIVE] == "delete";
        match at {
            Some(at) if is_delete => {
                base.remove(at);
            }
            Some(at) => merge(&mut base[at], element),
            None if is_delete => {}
            None => base.push(without_nulls(element)),
        }
    }
}

/// A null that has nothing to remove.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(field, value)| !value.is_null() && *field != DIRECTIVE);
            Value::Object(kept.map(|(field, value)| (field.clone(), without_nulls(value))).collect())
        }
        Value::Array(elements) => Value::Array(elements.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(base: Value, over: Value, expected: Value) {
        let mut merged = base;
        merge(&mut merged, &over);
        assert_eq!(merged, expected);
    }

    #[test]
    fn lists_of_things_with_names_are_merged_by_name() {
        check(
            json!({"containers": [{"name": "node", "image": "a", "env": [{"name": "A", "value": "1"}]}]}),
            json!({"containers": [{"name": "side", "image": "b"}, {"name": "node", "env": [{"name": "B", "value": "2"}]}]}),
            json!({"containers": [
                {"name": "node", "image": "a", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                {"name": "side", "image": "b"},
            ]}),
        );
    }

    #[test]
    fn other_lists_and_plain_values_are_replaced() {
        check(
            json!({"tolerations": [{"key": "a"}], "priority": 1}),
            json!({"tolerations": [{"key": "b"}], "priority": 2}),
            json!({"tolerations": [{"key": "b"}], "priority": 2}),
        );
    }

    #[test]
    fn nulls_and_directives_remove() {
        check(
            json!({"affinity": {"a": 1}, "volumes": [{"name": "x"}, {"name": "y"}]}),
            json!({"affinity": null, "nothing": null, "volumes": [{"name": "x", "$patch": "delete"}]}),
            json!({"volumes": [{"name": "y"}]}),
        );
        check(
            json!({"dnsConfig": {"options": [1], "searches": []}}),
            json!({"dnsConfig": {"$patch": "replace", "nameservers": ["1.1.1.1"]}}),
            json!({"dnsConfig": {"nameservers": ["1.1.1.1"]}}),
        );
    }
}
