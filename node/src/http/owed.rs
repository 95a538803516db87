//! Answers of an HTTP/2 connection that its client has not taken yet.
//!
//! A client gives each answer a window, and may give none: the answer then waits here, with nothing wrong on the socket.
//! So every answer is marked with the period in which it was made, up to its last byte, and a connection with one from
//! too long ago is closed.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use http::Response;
use hyper::body::{Body, Frame, SizeHint};
use hyper::service::Service;
use parking_lot::Mutex;

/// How long one period is.
const PERIOD: Duration = Duration::from_secs(10);
/// Periods that an answer may wait, the one in which it was made included.
const PERIODS_MAX: usize = 3;

/// What a connection owes.
#[derive(Clone)]
pub(super) struct Owed {
    /// The last periods, the newest last; each is held by the answers made in it.
    periods: Arc<Mutex<VecDeque<Arc<()>>>>,
}

impl Owed {
    pub(super) fn new() -> Self {
        Self { periods: Arc::new(Mutex::new(VecDeque::from([Arc::new(())]))) }
    }

    /// Waits until an answer has not been taken for too long: 20 to 30 s.
    pub(super) async fn overdue(&self) {
        let mut ends = tokio::time::interval(PERIOD);
        // The first is at once.
        ends.tick().await;
        loop {
            ends.tick().await;
            let mut periods = self.periods.lock();
            periods.push_back(Arc::new(()));
            if periods.len() > PERIODS_MAX
                && periods.pop_front().is_some_and(|oldest| Arc::strong_count(&oldest) > 1)
            {
                return;
            }
        }
    }

    fn period(&self) -> Arc<()> {
        // There is always one.
        self.periods.lock().back().cloned().unwrap_or_default()
    }
}

/// A service whose answers are owed until they are taken.
pub(super) struct Owing<S> {
    pub(super) service: S,
    pub(super) owed: Owed,
}

impl<S, Q, B> Service<Q> for Owing<S>
where
    S: Service<Q, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<Marked<B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn call(&self, request: Q) -> Self::Future {
        let (answering, owed) = (self.service.call(request), self.owed.clone());
        Box::pin(async move {
            let response = answering.await?;
            Ok(response.map(|inner| Marked { inner, period: owed.period() }))
        })
    }
}

/// Something that is owed since a period: an answer's body, or a part of it.
pub(super) struct Marked<T> {
    inner: T,
    period: Arc<()>,
}

impl<B: Body + Unpin> Body for Marked<B> {
    type Data = Marked<B::Data>;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let mark =
            |frame: Frame<B::Data>| frame.map_data(|inner| Marked { inner, period: self.period.clone() });
        polled.map(|next| next.map(|frame| frame.map(mark)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<D: Buf> Buf for Marked<D> {
    fn remaining(&self) -> usize {
        self.inner.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.inner.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        self.inner.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.inner.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> bytes::Bytes {
        self.inner.copy_to_bytes(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_overdue_and_others_are_not() {
        let owed = Owed::new();
        let minutes = |count: u64| Duration::from_secs(60 * count);
        assert!(tokio::time::timeout(minutes(5), owed.overdue()).await.is_err(), "nothing is owed");
        let watch = owed.clone();
        let watching = tokio::spawn(async move { watch.overdue().await });
        for _ in 0..100 {
            // Each is taken within two periods.
            let period = owed.period();
            tokio::time::sleep(PERIOD).await;
            drop(period);
        }
        assert!(!watching.is_finished());
        let part = Marked { inner: bytes::Bytes::from_static(b"v"), period: owed.period() };
        tokio::time::timeout(PERIOD * 4, watching).await.expect("in time").expect("it ran");
        drop(part);
    }
}
