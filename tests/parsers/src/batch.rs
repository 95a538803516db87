//! JSON of batches.

use std::collections::BTreeMap;

use mneme_api::{BatchRequest, BatchVerb};
use mneme_node::http::fuzzing;
use mneme_replica::event::{Action, Condition, Operation};
use mneme_replica::limits::BATCH_OPERATIONS_MAX;

use crate::assert_tells_nothing;

/// Reads the input as a batch.
///
/// # Panics
///
/// When something does not hold.
pub fn check(input: &[u8]) {
    let operations = match fuzzing::operations(input) {
        Ok(operations) => operations,
        Err(told) => return assert_tells_nothing(&told),
    };
    assert!((1..=BATCH_OPERATIONS_MAX).contains(&operations.len()));
    let values: usize = operations.iter().map(value_bytes).sum();
    assert!(values <= input.len(), "values of {values} bytes out of {} bytes", input.len());
    let request: BatchRequest = serde_json::from_slice(input).expect("what was taken is a batch");
    for (operation, said) in operations.iter().zip(&request.ops) {
        check_operation(operation, said.op);
        assert_eq!(operation.key, said.key);
    }
    let json = serde_json::to_vec(&request).expect("a batch is JSON");
    assert_eq!(fuzzing::operations(&json).as_ref(), Ok(&operations), "a batch reads back");
    // An unknown field is refused wherever it stands.
    let mut value: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&json).expect("an object");
    value.insert("unknown".to_owned(), true.into());
    assert!(fuzzing::operations(&serde_json::to_vec(&value).expect("JSON")).is_err());
}

fn value_bytes(operation: &Operation) -> usize {
    match &operation.action {
        Action::Put { value, .. } => value.bytes().len(),
        Action::Touch { .. } | Action::Delete | Action::Get => 0,
    }
}

fn check_operation(operation: &Operation, verb: BatchVerb) {
    crate::key::check_key(&operation.key);
    match &operation.action {
        Action::Put { value, ttl_ms, max_age_ms } => {
            assert!(matches!(verb, BatchVerb::Put | BatchVerb::Create));
            assert!(*ttl_ms != Some(0) && *max_age_ms != Some(0));
            let content_type = value.content_type();
            assert!(
                content_type.len() <= 255 && content_type.bytes().all(|byte| matches!(byte, b' '..=b'~'))
            );
            assert!(verb != BatchVerb::Create || operation.condition == Condition::Absent);
        }
        Action::Touch { ttl_ms, .. } => {
            assert!(verb == BatchVerb::Touch && *ttl_ms != Some(0));
            assert_eq!(operation.condition, Condition::Always);
        }
        Action::Delete => {
            assert_eq!(verb, BatchVerb::Delete);
            assert_ne!(operation.condition, Condition::Absent);
        }
        Action::Get => assert_eq!((verb, &operation.condition), (BatchVerb::Get, &Condition::Always)),
    }
}
