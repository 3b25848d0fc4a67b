//! `GET /v1/events`: the query string, and the body that streams JSONL at the reader's own pace.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::Frame;

use super::ApiError;
use crate::model::{Event, Time};
use crate::record::{Filter, FilterSpec, Page, Store, Subscription};

/// Lines are gathered into frames of about this many bytes.
const FRAME: usize = 32 * 1024;

/// What a caller asked for.
#[derive(Debug)]
pub(super) struct EventsQuery {
    filter: Filter,
    history: bool,
    follow: bool,
    limit: Option<usize>,
}

impl EventsQuery {
    /// Reads the query string. Following begins now unless `since` is given.
    pub(super) fn parse(query: &str, now: Time) -> Result<Self, ApiError> {
        let mut spec = FilterSpec::default();
        let (mut follow, mut limit) = (false, None);
        for (field, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*field {
                "follow" => follow = flag(&value)?,
                "limit" => limit = Some(number(&value)?),
                field => spec.set(field, &value).map_err(|e| bad_filter(&e))?,
            }
        }
        let history = !follow || spec.since.is_some();
        let filter = spec.compile(now).map_err(|e| bad_filter(&e))?;
        Ok(Self { filter, history, follow, limit })
    }

    /// The lines, and what was held then.
    pub(super) fn answer(self, store: &Store) -> Result<(Body, crate::record::Extent), ApiError> {
        let (page, live) = if self.follow {
            let (page, live) = store.subscribe(self.filter, self.history).map_err(|e| {
                ApiError::new(503, e.to_string(), "end one of the others, or ask without follow")
            })?;
            (page, Some(live))
        } else {
            (store.query(&self.filter, self.limit), None)
        };
        let Page { gap, events, extent } = page;
        let held = gap.map(Arc::new).into_iter().chain(events).collect::<Vec<_>>().into_iter();
        let left = if self.follow { self.limit } else { None };
        Ok((Body::new(Lines { held, live, left }), extent))
    }
}

fn flag(value: &str) -> Result<bool, ApiError> {
    match value {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(ApiError::new(400, format!("follow: `{value}` is neither true nor false"), "follow=true")),
    }
}

fn number(value: &str) -> Result<usize, ApiError> {
    let error = |e| ApiError::new(400, format!("limit: `{value}`: {e}"), "limit=100");
    value.parse().map_err(|e: std::num::ParseIntError| error(e.to_string()))
}

fn bad_filter(error: &crate::record::FilterError) -> ApiError {
    ApiError::new(400, error.to_string(), error.hint)
}

/// A body of JSON lines: first what was held, then what comes.
struct Lines {
    held: std::vec::IntoIter<Arc<Event>>,
    live: Option<Subscription>,
    /// Events still to be given, where bounded. Gap records about this reader do not count.
    left: Option<usize>,
}

impl Lines {
    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<Arc<Event>>> {
        if self.left == Some(0) {
            return Poll::Ready(None);
        }
        let next = match (self.held.next(), &mut self.live) {
            (Some(event), _) => Poll::Ready(Some(event)),
            (None, Some(live)) => live.poll_next(context),
            (None, None) => Poll::Ready(None),
        };
        if let (Poll::Ready(Some(event)), Some(left)) = (&next, &mut self.left)
            && event.seq != 0
        {
            *left -= 1;
        }
        next
    }
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let lines = self.get_mut();
        let mut frame = String::new();
        while frame.len() < FRAME {
            match lines.next(context) {
                Poll::Ready(Some(event)) => match event.to_line() {
                    Ok(line) => {
                        frame.push_str(&line);
                        frame.push('\n');
                    }
                    Err(error) => {
                        tracing::error!(seq = event.seq, %error, "an event cannot be written as JSON")
                    }
                },
                Poll::Pending if frame.is_empty() => return Poll::Pending,
                Poll::Ready(None) if frame.is_empty() => return Poll::Ready(None),
                Poll::Pending | Poll::Ready(None) => break,
            }
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(frame)))))
    }
}
