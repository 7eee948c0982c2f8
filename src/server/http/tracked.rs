//! A response body that knows when its last byte was taken, or that it never was.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};

use crate::pure::event::boot::{Sent, Transport};

/// How far a body came.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// The bytes that were taken.
    pub(super) bytes: u64,
    /// The bytes that there were.
    pub(super) of: u64,
    /// Since the request.
    pub(super) took: Duration,
    /// When it was taken.
    ended: Instant,
    /// What went wrong on our side, if something did.
    pub(super) failed: Option<String>,
}

impl Progress {
    /// Whether all of it was taken.
    pub(super) fn is_whole(&self) -> bool {
        self.bytes >= self.of
    }

    /// The same, where so much of it has not come to the client by now.
    pub(super) fn but(self, missing: u64) -> Self {
        let bytes = self.bytes.saturating_sub(missing);
        Self { bytes, took: self.took + self.ended.elapsed(), ..self }
    }

    /// What an event tells of it.
    pub(super) fn sent(&self) -> Sent {
        Sent { bytes: self.bytes, took: self.took, over: Transport::Http }
    }
}

/// Wraps `body`; `ended` is called once, when it is complete or when its connection is gone.
pub(super) fn tracked(body: Body, of: u64, ended: impl FnOnce(Progress) + Send + 'static) -> Body {
    Body::new(Tracked {
        body,
        bytes: 0,
        of,
        started: Instant::now(),
        failed: None,
        ended: Some(Box::new(ended)),
    })
}

struct Tracked {
    body: Body,
    bytes: u64,
    of: u64,
    started: Instant,
    failed: Option<String>,
    ended: Option<Box<dyn FnOnce(Progress) + Send>>,
}

impl Tracked {
    fn end(&mut self) {
        if let Some(ended) = self.ended.take() {
            let Self { bytes, of, started, .. } = *self;
            let now = Instant::now();
            let (took, failed) = (now - started, self.failed.take());
            ended(Progress { bytes, of, took, ended: now, failed });
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.end();
    }
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(Some(Err(error))) => {
                self.failed = Some(format!("the file cannot be read to its end: {error}"));
            }
            Poll::Ready(None) if self.bytes < self.of => {
                self.failed = Some("the file has become shorter".to_owned());
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        // With a known length nobody polls for the end.
        if matches!(polled, Poll::Ready(None)) || self.bytes >= self.of {
            self.end();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
