//! Batches: reads see the state before, writes are one atomic unit.

use bytes::Bytes;
use http::request::Parts;
use mneme_api::{BatchAnswer, BatchOperation, BatchRequest, BatchResult, BatchVerb};
use mneme_replica::effect::{OperationResult, Outcome};
use mneme_replica::event::{Action, Command, Condition, Operation};
use mneme_replica::limits::BATCH_OPERATIONS_MAX;
use mneme_replica::record::Value;
use mneme_replica::table::{Lookup, Table};
use serde_path_to_error::Segment;

use super::list::json;
use super::problem::{Answer, Problem, ProblemKind};
use super::records::{shown_content_type, with_acks};
use super::request_body::RequestBody;
use super::{Api, extract};

/// Bytes of a batch's JSON, at most.
const BATCH_BYTES_MAX: u64 = 1 << 20;
/// Bytes of the values that an answer holds, at most, as in a page of a list.
const VALUES_BYTES_MAX: usize = 8 << 20;
/// Names that an error may repeat: any other name in a body is the client's own and may hold a secret.
const FIELDS: [&str; 11] = [
    "ops",
    "op",
    "key",
    "value",
    "contentType",
    "ttlMs",
    "maxAgeMs",
    "exact",
    "ifMatch",
    "ifNoneMatch",
    "base64",
];

impl Api {
    pub(super) async fn batch<B>(
        &self,
        table: &str,
        parts: &Parts,
        body: &mut RequestBody<B>,
    ) -> Result<Answer, Problem>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let (table, _) = self.table(table)?;
        let query = extract::query(parts.uri.query(), &["ack", "timeout"])?;
        extract::no_condition(&parts.headers, "each operation has its own: ifMatch, ifNoneMatch")?;
        let bytes = body.read(BATCH_BYTES_MAX, &self.draining).await?;
        let operations = operations(&bytes)?;
        let now_ms = self.serving().await?;
        // Before anything is applied. A value that grows between this look and the batch makes the answer that much
        // larger, and no more: the writes of the batch may be applied, so it is given.
        let values_bytes = values_bytes(table, &operations, now_ms);
        self.untaken.check(values_bytes)?;
        if values_bytes > VALUES_BYTES_MAX {
            return Err(Problem::new(
                ProblemKind::AnswerTooLarge,
                format!(
                    "a batch reads at most {VALUES_BYTES_MAX} bytes of values: ask for fewer at a time; nothing was applied"
                ),
            ));
        }
        let command = Command::Apply { table: table.name().clone(), operations, is_batch: true };
        match self.driver.write(command, query.ack, query.timeout).await {
            Outcome::Done { results, acks } => {
                let answer = json(&BatchAnswer { results: results.into_iter().map(result).collect() });
                Ok(with_acks(answer, acks))
            }
            Outcome::BatchFailed { results } => {
                let detail = "an operation failed, so none was applied; see results";
                let results = results.into_iter().map(result).collect();
                Err(Problem::new(ProblemKind::ConditionFailed, detail).with_results(results))
            }
            Outcome::Rejected(rejection) => Err(Problem::rejected(&rejection)),
            Outcome::Unknown { results, .. } => {
                let results = results.into_iter().map(result).collect();
                Err(Problem::outcome_unknown(None).with_results(results))
            }
            // Only deletes by match end so.
            Outcome::Swept { .. } => Err(Problem::outcome_unknown(None)),
        }
    }
}

/// Bytes of the values that the reads among `operations` find.
fn values_bytes(table: &Table, operations: &[Operation], now_ms: u64) -> usize {
    let reads = operations.iter().filter(|operation| matches!(operation.action, Action::Get));
    reads
        .map(|operation| match table.read(&operation.key, now_ms) {
            Lookup::Found(found) => found.bytes().len(),
            Lookup::Gone { .. } | Lookup::Absent { .. } => 0,
        })
        .sum()
}

/// Where in a body something is, without names that the client made up.
fn place(path: &serde_path_to_error::Path) -> String {
    let mut place = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => place.push_str(&format!("[{index}]")),
            Segment::Map { key } if FIELDS.contains(&key.as_str()) => {
                place.push_str(if place.is_empty() { "" } else { "." });
                place.push_str(key);
            }
            Segment::Map { .. } => {
                place.push_str(if place.is_empty() { "an unknown field" } else { ", an unknown field" });
                break;
            }
            Segment::Enum { .. } | Segment::Unknown => break,
        }
    }
    if place.is_empty() { "its begin".to_owned() } else { place }
}

/// The operations of a batch's JSON.
pub(super) fn operations(bytes: &[u8]) -> Result<Vec<Operation>, Problem> {
    let operations = parse(bytes)?.ops.into_iter().enumerate();
    operations.map(|(index, operation)| read(index, operation)).collect()
}

fn parse(bytes: &[u8]) -> Result<BatchRequest, Problem> {
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let batch: BatchRequest = serde_path_to_error::deserialize(&mut input).map_err(|error| {
        // Where, and what was expected; serde would repeat the text it met, which may hold a key.
        let (line, column) = (error.inner().line(), error.inner().column());
        let kind = match error.inner().classify() {
            serde_json::error::Category::Data => "is not what a batch has",
            _ => "is not JSON",
        };
        Problem::bad_request(format!(
            "the body {kind} at {} (line {line}, column {column})",
            place(error.path())
        ))
    })?;
    input.end().map_err(|_| Problem::bad_request("the body goes on after the batch"))?;
    if batch.ops.is_empty() || batch.ops.len() > BATCH_OPERATIONS_MAX {
        return Err(Problem::bad_request(format!("a batch has 1 to {BATCH_OPERATIONS_MAX} operations")));
    }
    Ok(batch)
}

fn read(index: usize, operation: BatchOperation) -> Result<Operation, Problem> {
    let BatchOperation { op, key, value, content_type, ttl_ms, max_age_ms, exact, if_match, if_none_match } =
        operation;
    let bad = |detail: &str| Problem::bad_request(format!("ops[{index}]: {detail}"));
    let is_put = matches!(op, BatchVerb::Put | BatchVerb::Create);
    let is_misplaced = [
        (value.is_some() && !is_put, "value is for put and create"),
        (content_type.is_some() && !is_put, "contentType is for put and create"),
        (max_age_ms.is_some() && !is_put, "maxAgeMs is for put and create"),
        (ttl_ms.is_some() && !is_put && op != BatchVerb::Touch, "ttlMs is for put, create and touch"),
        (exact.is_some() && op != BatchVerb::Touch, "exact is for touch"),
        (
            if_match.is_some() && !matches!(op, BatchVerb::Put | BatchVerb::Delete),
            "ifMatch is for put and delete",
        ),
        (if_none_match.is_some() && op != BatchVerb::Put, "ifNoneMatch is for put"),
        (value.is_none() && is_put, "value is missing"),
        (ttl_ms == Some(0), "ttlMs is zero"),
        (max_age_ms == Some(0), "maxAgeMs is zero"),
    ];
    if let Some((_, detail)) = is_misplaced.iter().find(|(is_wrong, _)| *is_wrong) {
        return Err(bad(detail));
    }
    let condition = match op {
        BatchVerb::Create => Condition::Absent,
        _ => extract::conditions(if_match.as_deref(), if_none_match.as_deref(), "ifMatch", "ifNoneMatch")?,
    };
    let action = match op {
        BatchVerb::Put | BatchVerb::Create => {
            let content_type = content_type.unwrap_or_default();
            let content_type = extract::check_content_type(&content_type)?;
            let value = Value::new(content_type, &value.unwrap_or_default().0);
            Action::Put { value, ttl_ms, max_age_ms }
        }
        BatchVerb::Touch => Action::Touch { ttl_ms, exact: exact.unwrap_or(false) },
        BatchVerb::Delete => Action::Delete,
        BatchVerb::Get => Action::Get,
    };
    Ok(Operation { key, action, condition })
}

fn result(result: OperationResult) -> BatchResult {
    let with = |status, etag| BatchResult { status, etag, ..BatchResult::default() };
    match result {
        OperationResult::Created { etag } => with(201, Some(etag)),
        OperationResult::Replaced { etag }
        | OperationResult::Touched { etag }
        | OperationResult::Deleted { etag } => with(204, Some(etag)),
        OperationResult::Found { etag, value, ttl_ms } => BatchResult {
            value: Some(mneme_api::Bytes(value.bytes().to_vec())),
            content_type: Some(shown_content_type(value.content_type()).to_owned()),
            ttl_ms: Some(ttl_ms),
            ..with(200, Some(etag))
        },
        OperationResult::Missing => with(404, None),
        OperationResult::Gone { etag } => with(410, Some(etag)),
        OperationResult::ConditionFailed { current } => with(412, current),
        OperationResult::NotApplied => with(424, None),
    }
}
