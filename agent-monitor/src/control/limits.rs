//! What one caller may take of the control socket: connections per user, and time to say what it wants. A caller that says
//! nothing must not keep the others out.

use std::collections::BTreeMap;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};

/// Connections of one user at most: a fraction of all, so that no user takes all.
pub(super) const PER_USER: usize = 64;
/// How long a caller may go without sending the next part of its request.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Longest head of a request that is waited for.
const HEAD: usize = 64 * 1024;

/// Connections by user.
#[derive(Debug, Default, Clone)]
pub(super) struct Users(Arc<Mutex<BTreeMap<u32, usize>>>);

impl Users {
    /// A place for one more connection of this user, unless it has too many.
    pub(super) fn admit(&self, uid: u32) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(uid).or_default();
        if *count >= PER_USER {
            return None;
        }
        *count += 1;
        Some(Place { users: self.clone(), uid })
    }
}

/// A user's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    users: Users,
    uid: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.users.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

/// How much of a request has come.
#[derive(Debug)]
enum Progress {
    /// The head so far.
    Head(Vec<u8>),
    /// Bytes of the body that are to come.
    Body(u64),
    /// All of it: what is read now is not waited for.
    Whole,
}

impl Progress {
    fn take(&mut self, bytes: &[u8]) {
        match self {
            Self::Whole => {}
            Self::Body(left) => {
                *left = left.saturating_sub(bytes.len() as u64);
                if *left == 0 {
                    *self = Self::Whole;
                }
            }
            Self::Head(head) => {
                head.extend_from_slice(bytes);
                if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                    let body = body_length(head.get(..end).unwrap_or_default());
                    let come = head.len().saturating_sub(end.saturating_add(4)) as u64;
                    let left = body.saturating_sub(come);
                    *self = if left == 0 { Self::Whole } else { Self::Body(left) };
                } else if head.len() > HEAD {
                    // The server refuses it by itself.
                    *self = Self::Whole;
                }
            }
        }
    }
}

/// The length of the body that the head of a request announces.
fn body_length(head: &[u8]) -> u64 {
    let head = String::from_utf8_lossy(head);
    let mut lengths = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    lengths.next().unwrap_or(0)
}

/// A connection that counts while it lives, and ends when its caller is silent before its request is whole.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    progress: Progress,
    deadline: Pin<Box<Sleep>>,
    _place: Place,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, place: Place, permit: OwnedSemaphorePermit) -> Self {
        let deadline = Box::pin(sleep(PATIENCE));
        Self { stream, progress: Progress::Head(Vec::new()), deadline, _place: place, _permit: permit }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.stream).poll_read(context, buffer) {
            this.progress.take(buffer.filled().get(before..).unwrap_or_default());
            return Poll::Ready(result);
        }
        // From the last part of a request on nothing is waited for. The head as a whole has one deadline, or a byte now and
        // then would keep the place.
        if matches!(this.progress, Progress::Whole) || this.deadline.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the caller did not send its request")))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.deadline.as_mut().reset(Instant::now() + PATIENCE);
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_with_the_end_of_its_body() {
        let mut progress = Progress::Head(Vec::new());
        progress.take(b"POST / HTTP/1.1\r\ncontent-LENGTH: 5\r\n\r");
        assert!(matches!(progress, Progress::Head(_)));
        progress.take(b"\nab");
        assert!(matches!(progress, Progress::Body(3)));
        progress.take(b"cde");
        assert!(matches!(progress, Progress::Whole));
        let mut progress = Progress::Head(Vec::new());
        progress.take(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(matches!(progress, Progress::Whole));
    }

    #[test]
    fn a_user_has_so_many_places_and_gets_them_back() {
        let users = Users::default();
        let mut places: Vec<Place> = (0..PER_USER).filter_map(|_| users.admit(1000)).collect();
        assert_eq!(places.len(), PER_USER);
        assert!(users.admit(1000).is_none() && users.admit(1001).is_some());
        places.pop();
        assert!(users.admit(1000).is_some());
        drop(places);
        assert!(users.0.lock().unwrap().is_empty());
    }
}
