//! Large answers that clients have not taken yet: bounded, all of them together.
//!
//! Who asks and does not read is cut off, but not at once; until then each of its answers is memory. Small ones are
//! bounded by the connections and streams there are. One of many that is refused may be somebody's who reads, and can try
//! again in a moment: better than a node without memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Method, Response};
use http_body::Body as _;
use http_body_util::{BodyExt, Either, Full};

use super::ClientAnswer;
use super::problem::{Problem, ProblemKind};

/// Bytes from which an answer is large.
const LARGE_BYTES: usize = 64 << 10;
/// Bytes of large answers at once: sixteen of the largest pages.
const UNTAKEN_BYTES_MAX: usize = 128 << 20;

/// How much of large answers is not taken yet.
#[derive(Clone, Default)]
pub(super) struct Untaken(Arc<AtomicUsize>);

impl Untaken {
    /// Refuses to make another large answer when there are too many.
    pub(super) fn check(&self, bytes: usize) -> Result<(), Problem> {
        let held = self.0.load(Ordering::Relaxed);
        if bytes > LARGE_BYTES && held + bytes > UNTAKEN_BYTES_MAX {
            return Err(Problem::new(
                ProblemKind::Overloaded,
                "too many large answers have not been read; try again in a moment",
            ));
        }
        Ok(())
    }

    /// Counts an answer until its last byte is sent, if it is large. The answer to a read may be refused here; what
    /// else was done is done, and has to be told.
    pub(super) async fn count(&self, method: &Method, answer: ClientAnswer) -> ClientAnswer {
        let bytes = answer.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        let Some(bytes) = bytes.filter(|bytes| *bytes > LARGE_BYTES) else { return answer };
        if let Err(problem) = self.check(bytes)
            && method == Method::GET
        {
            return problem.answer().map(Either::Left);
        }
        let (parts, body) = answer.into_parts();
        // All of it is here: it has a known length and was made in one piece.
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        let counted = Bytes::from_owner(Counted { bytes, untaken: self.clone() });
        Response::from_parts(parts, Either::Left(Full::new(counted)))
    }
}

/// Bytes that are counted as long as somebody holds them.
struct Counted {
    bytes: Bytes,
    untaken: Untaken,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.untaken.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: usize) -> ClientAnswer {
        Response::new(Either::Left(Full::new(vec![7; bytes].into())))
    }

    #[tokio::test]
    async fn large_answers_are_counted_until_they_are_taken_and_refused_when_there_are_too_many() {
        let untaken = Untaken::default();
        let mut held = vec![untaken.count(&Method::GET, answer(LARGE_BYTES)).await];
        assert_eq!(untaken.0.load(Ordering::Relaxed), 0, "a small one");
        for _ in 0..8 {
            let large = untaken.count(&Method::GET, answer(UNTAKEN_BYTES_MAX / 8)).await;
            assert_eq!(large.status(), 200);
            held.push(large);
        }
        assert_eq!(untaken.count(&Method::GET, answer(LARGE_BYTES + 1)).await.status(), 503);
        assert!(untaken.check(LARGE_BYTES + 1).is_err() && untaken.check(LARGE_BYTES).is_ok());
        // A batch that was applied is not said to be refused.
        assert_eq!(untaken.count(&Method::POST, answer(LARGE_BYTES + 1)).await.status(), 200);
        assert_eq!(untaken.count(&Method::GET, answer(LARGE_BYTES)).await.status(), 200);
        // A part that is still being sent is held as the whole is.
        let last = held.pop().expect("eight").into_body().collect().await.expect("a body").to_bytes();
        drop(held);
        assert_eq!(untaken.0.load(Ordering::Relaxed), UNTAKEN_BYTES_MAX / 8);
        assert_eq!(last.slice(5..9).len(), 4);
        drop(last);
        assert_eq!(untaken.0.load(Ordering::Relaxed), 0);
    }
}
