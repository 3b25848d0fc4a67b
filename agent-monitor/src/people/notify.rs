//! Tells people: a signed webhook and a program. Both only tell; decisions come back over the control API alone.
//!
//! The webhook is `POST` of one JSON object over HTTP/1.1 with `Agent-Monitor-Signature: t=SECONDS,v1=HEX`, where HEX is
//! HMAC-SHA256 of `SECONDS.BODY` under the key in `webhook-secret`. It is tried again with growing pauses. The program
//! gets the same object on its standard input. One thread does this, from a bounded queue; what finds no room is counted.

pub mod hmac;
mod http;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use self::http::Url;
use super::Settings;

/// Notices that wait at most.
const QUEUE: usize = 256;
/// Attempts for one notice.
const ATTEMPTS: u32 = 6;
/// First pause between attempts; doubles each time.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a program may take.
const PROGRAM: Duration = Duration::from_secs(30);

/// Hands notices to the thread that sends them.
#[derive(Debug)]
pub struct Notifier {
    queue: Option<SyncSender<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Notifier {
    /// Starts the thread, where there is anybody to tell. `wait` waits, and says whether the daemon ends.
    ///
    /// # Errors
    /// When the key cannot be read or there is no thread.
    pub fn start(
        settings: &Settings,
        wait: impl Fn(Duration) -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        if settings.webhook.is_none() && settings.hook.is_empty() {
            return Ok(Self::silent());
        }
        let secret = match &settings.webhook_secret {
            Some(path) => Some(std::fs::read(path).map_err(|error| {
                std::io::Error::new(error.kind(), format!("the webhook's key {}: {error}", path.display()))
            })?),
            None => None,
        };
        let secret = secret.map(|bytes| bytes.trim_ascii().to_vec());
        let (queue, notices) = sync_channel(QUEUE);
        let url = settings.webhook.as_deref().and_then(|url| Url::parse(url).ok());
        let sender = Sender { url, secret, hook: settings.hook.clone() };
        let run = move || sender.run(&notices, &wait);
        let thread = std::thread::Builder::new().name("notify".to_owned()).spawn(run)?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// One that tells nobody.
    #[must_use]
    pub fn silent() -> Self {
        Self { queue: None, thread: None }
    }

    /// Whether anybody is told.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Takes a notice, a JSON object, without waiting.
    pub fn tell(&self, notice: String) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(notice) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::error!("a notice about an approval was dropped: {QUEUE} are waiting to be sent");
            }
            Err(TrySendError::Disconnected(_)) => tracing::error!("the notifier has ended"),
        }
    }

    /// Ends the thread after the notice it is at.
    pub fn end(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the notifier panicked");
        }
    }
}

struct Sender {
    url: Option<Url>,
    secret: Option<Vec<u8>>,
    hook: Vec<String>,
}

impl Sender {
    fn run(&self, notices: &Receiver<String>, wait: &dyn Fn(Duration) -> bool) {
        while let Ok(notice) = notices.recv() {
            if let Err(error) = self.program(&notice, wait) {
                tracing::error!(program = self.hook.first(), %error, "the approval hook failed");
            }
            if let Some(url) = &self.url {
                self.post(url, &notice, wait);
            }
        }
    }

    fn post(&self, url: &Url, body: &str, wait: &dyn Fn(Duration) -> bool) {
        let mut pause = PAUSE;
        for attempt in 1..=ATTEMPTS {
            let seconds = crate::clock::now().timestamp().as_second();
            let signature = self.secret.as_deref().map(|key| signature(key, seconds, body));
            match http::post(url, body, signature.as_deref()) {
                Ok(status) if (200..300).contains(&status) => return,
                // The other side has understood and says no: the same again changes nothing.
                Ok(status) if (400..500).contains(&status) && status != 408 && status != 429 => {
                    tracing::error!(%url, status, "the webhook was refused");
                    return;
                }
                Ok(status) => tracing::warn!(%url, status, attempt, "the webhook failed"),
                Err(error) => tracing::warn!(%url, %error, attempt, "the webhook failed"),
            }
            if attempt == ATTEMPTS || wait(pause) {
                break;
            }
            pause *= 2;
        }
        tracing::error!(%url, "a notice about an approval was not delivered");
    }

    fn program(&self, body: &str, wait: &dyn Fn(Duration) -> bool) -> std::io::Result<()> {
        let [program, arguments @ ..] = self.hook.as_slice() else { return Ok(()) };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Nothing of the daemon's environment is a program's business.
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take()
            && let Err(error) = input.write_all(body.as_bytes())
        {
            tracing::warn!(%program, %error, "the approval hook did not read its input");
        }
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                if !status.success() {
                    tracing::warn!(%program, %status, "the approval hook failed");
                }
                return Ok(());
            }
            if begun.elapsed() > PROGRAM || wait(Duration::from_millis(20)) {
                child.kill()?;
                child.wait()?;
                return Err(std::io::Error::other("it took too long and was ended"));
            }
        }
    }
}

/// The signature header of a body sent at `seconds` since 1970.
#[must_use]
pub fn signature(key: &[u8], seconds: i64, body: &str) -> String {
    let mut signed = format!("{seconds}.").into_bytes();
    signed.extend_from_slice(body.as_bytes());
    format!("t={seconds},v1={}", hmac::hex(&hmac::sha256(key, &signed)))
}

#[cfg(test)]
mod tests;
