//! Batches: reads see the state before, writes are one atomic unit.

use bytes::Bytes;
use http::request::Parts;
use mneme_api::{BatchAnswer, BatchOperation, BatchRequest, BatchResult, BatchVerb};
use mneme_replica::effect::{OperationResult, Outcome};
use mneme_replica::event::{Action, Command, Condition, Operation};
use mneme_replica::limits::BATCH_OPERATIONS_MAX;
use mneme_replica::record::Value;

use super::list::json;
use super::problem::{Answer, Problem, ProblemKind};
use super::records::with_acks;
use super::request_body::RequestBody;
use super::{Api, extract};

/// Bytes of a batch's JSON, at most.
const BATCH_BYTES_MAX: u64 = 1 << 20;

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
        let bytes = body.read(BATCH_BYTES_MAX, &self.draining).await?;
        let batch = parse(&bytes)?;
        let operations = batch.ops.into_iter().enumerate();
        let operations: Vec<Operation> =
            operations.map(|(index, operation)| read(index, operation)).collect::<Result<_, _>>()?;
        self.serving().await?;
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

fn parse(bytes: &[u8]) -> Result<BatchRequest, Problem> {
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let batch: BatchRequest = serde_path_to_error::deserialize(&mut input).map_err(|error| {
        // Where, and what was expected; serde would repeat the text it met, which may hold a key.
        let (line, column) = (error.inner().line(), error.inner().column());
        let kind = match error.inner().classify() {
            serde_json::error::Category::Data => "is not what a batch has",
            _ => "is not JSON",
        };
        Problem::bad_request(format!("the body {kind} at {} (line {line}, column {column})", error.path()))
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
            content_type: Some(value.content_type().to_owned())
                .filter(|content_type| !content_type.is_empty()),
            ttl_ms: Some(ttl_ms),
            ..with(200, Some(etag))
        },
        OperationResult::Missing => with(404, None),
        OperationResult::Gone { etag } => with(410, Some(etag)),
        OperationResult::ConditionFailed { current } => with(412, current),
        OperationResult::NotApplied => with(424, None),
    }
}
