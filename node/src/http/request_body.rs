//! The body of a request: read within bounds, and known to be over or not when the answer is given.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, EXPECT};
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;

use super::problem::{Problem, ProblemKind};

/// Time a body takes, at most: a slow client is cut off.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a body that nobody wants which are read so that the connection goes on.
const UNWANTED_BYTES_MAX: usize = 64 << 10;
/// How long they are waited for.
const UNWANTED_MAX: Duration = Duration::from_millis(100);

/// The body of a request.
pub(super) struct RequestBody<B> {
    inner: B,
    /// Bytes that the headers announce.
    announced: Option<u64>,
    /// Whether the client sends it only when it is told to go on, which reading it does.
    is_held_back: bool,
    is_over: bool,
    /// Whether nothing that follows can be made out.
    is_broken: bool,
}

impl<B> RequestBody<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    pub(super) fn new(headers: &HeaderMap, inner: B) -> Self {
        if inner.is_end_stream() {
            return Self { inner, announced: None, is_held_back: false, is_over: true, is_broken: false };
        }
        let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Self {
            inner,
            announced,
            is_held_back: headers.contains_key(EXPECT),
            is_over: false,
            is_broken: false,
        }
    }

    /// Reads it all, at most `limit_bytes`. A node that is `draining` takes nothing any more.
    pub(super) async fn read(
        &mut self,
        limit_bytes: u64,
        draining: &CancellationToken,
    ) -> Result<Bytes, Problem> {
        if self.announced.is_some_and(|announced| announced > limit_bytes) {
            return Err(Problem::too_large(limit_bytes));
        }
        if self.is_over {
            return Ok(Bytes::new());
        }
        self.is_held_back = false;
        tokio::select! {
            biased;
            collected = tokio::time::timeout(BODY_TIMEOUT, self.collect(limit_bytes)) => {
                let slow = || Problem::new(ProblemKind::SlowBody, "send the body within ten seconds");
                collected.unwrap_or_else(|_| Err(slow()))
            }
            () = draining.cancelled() => Err(Problem::draining()),
        }
    }

    async fn collect(&mut self, limit_bytes: u64) -> Result<Bytes, Problem> {
        let (mut first, mut rest) = (Bytes::new(), Vec::new());
        while let Some(data) = self.next().await {
            let data = data.ok_or_else(|| {
                Problem::bad_request("the body ended before it was whole, or is not encoded as it says")
            })?;
            if (first.len() + rest.len() + data.len()) as u64 > limit_bytes {
                return Err(Problem::too_large(limit_bytes));
            }
            // Nearly every body is one frame, and is not copied.
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                rest.extend_from_slice(&std::mem::take(&mut first));
                rest.extend_from_slice(&data);
            }
        }
        Ok(if rest.is_empty() { first } else { rest.into() })
    }

    /// The next bytes; `Some(None)` when the body is broken.
    async fn next(&mut self) -> Option<Option<Bytes>> {
        match self.inner.frame().await {
            Some(Ok(frame)) => {
                self.is_over = self.inner.is_end_stream();
                // Trailers say nothing here.
                Some(Some(frame.into_data().unwrap_or_default()))
            }
            Some(Err(_)) => {
                self.is_broken = true;
                Some(None)
            }
            None => {
                self.is_over = !self.is_broken;
                None
            }
        }
    }

    /// Reads what is left of it if that is little; says whether it is over, so that another request may follow.
    pub(super) async fn finish(&mut self) -> bool {
        let is_large = self.announced.is_some_and(|announced| announced > UNWANTED_BYTES_MAX as u64);
        if !self.is_over && !self.is_held_back && !is_large {
            let _ = tokio::time::timeout(UNWANTED_MAX, self.skip()).await;
        }
        self.is_over
    }

    async fn skip(&mut self) {
        let mut skipped = 0;
        while skipped <= UNWANTED_BYTES_MAX
            && let Some(Some(data)) = self.next().await
        {
            skipped += data.len();
        }
    }
}
