//! Whether an object still says everything that was applied to it: then nothing need be written.

use serde_json::Value;

use crate::reconcile::quantity::billionths;

/// Whether `live` has every field of `built`, with the same value. What others added is not looked at; the API server's
/// defaults are such additions, also within elements of lists, whose order does not matter.
pub fn covers(live: &Value, built: &Value) -> bool {
    match (live, built) {
        (Value::Object(live), Value::Object(built)) => built.iter().all(|(field, value)| {
            // Nothing and a missing field are one; the kind of an object that was listed may be left out.
            let is_nothing = value.is_null() || matches!(field.as_str(), "apiVersion" | "kind");
            is_nothing || live.get(field).is_some_and(|live| covers(live, value))
        }),
        (Value::Array(live), Value::Array(built)) => {
            let texts = |values: &[Value]| values.iter().all(Value::is_string);
            if texts(built) && texts(live) {
                // Arguments: order and number matter.
                return live == built;
            }
            built.iter().all(|value| live.iter().any(|live| covers(live, value)))
        }
        (Value::String(live), Value::String(built)) => {
            let means_same = || billionths(live).is_some_and(|live| Some(live) == billionths(built));
            live == built || means_same()
        }
        (live, built) => live == built,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn additions_of_others_do_not_matter() {
        let live =
            json!({"a": 1, "b": {"c": "x", "d": 2}, "list": [{"name": "y", "more": 1}, {"name": "x"}]});
        assert!(covers(&live, &json!({"a": 1, "b": {"c": "x"}, "list": [{"name": "x"}, {"name": "y"}]})));
    }

    #[test]
    fn changes_do() {
        let live = json!({"a": 1, "args": ["run", "--a"], "list": [{"name": "x", "image": "bad"}]});
        for built in [
            json!({"a": 2}),
            json!({"b": 1}),
            json!({"args": ["run"]}),
            json!({"args": ["--a", "run"]}),
            json!({"list": [{"name": "x", "image": "good"}]}),
        ] {
            assert!(!covers(&live, &built), "{built}");
        }
    }

    #[test]
    fn quantities_mean_the_same_however_they_are_written() {
        assert!(covers(&json!({"cpu": "500m"}), &json!({"cpu": "0.5"})));
        assert!(!covers(&json!({"cpu": "500m"}), &json!({"cpu": "0.6"})));
    }
}
