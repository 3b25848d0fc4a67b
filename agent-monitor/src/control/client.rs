//! The other end of the control API: used by the CLI and by tests.
//!
//! One connection per call. Never retries and never waits for a daemon to appear.

use std::io;
use std::path::{Path, PathBuf};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::api::ErrorBody;

/// Bytes of an answer that is read whole, at most.
const ANSWER_LIMIT: usize = 64 << 20;
/// Bytes of one line of a stream, at most.
const LINE_LIMIT: usize = 16 << 20;

/// Calls one socket.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no daemon answers on {}: {source}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// This user may not open the socket.
    #[error("not allowed to open {}: {source}", socket.display())]
    Forbidden {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The daemon refused the call.
    #[error("{}", body.error)]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it says.
        body: ErrorBody,
    },
    /// The connection broke.
    #[error("the connection to the daemon broke: {0}")]
    Broken(#[source] hyper::Error),
    /// The answer cannot be understood.
    #[error("the daemon's answer cannot be read: {0}")]
    Answer(String),
}

impl Client {
    /// A client of the daemon at `socket`. Does not connect yet.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// `GET path`, as JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        read_json(self.call(Method::GET, path, Bytes::new()).await?).await
    }

    /// `POST path` with a JSON body, as JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| ClientError::Answer(e.to_string()))?;
        read_json(self.call(Method::POST, path, body.into()).await?).await
    }

    /// `GET path`, as text.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let body = read_whole(self.call(Method::GET, path, Bytes::new()).await?).await?;
        String::from_utf8(body.into()).map_err(|e| ClientError::Answer(e.to_string()))
    }

    /// `GET path`, line by line as they come.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lines(&self, path: &str) -> Result<Lines, ClientError> {
        let body = self.call(Method::GET, path, Bytes::new()).await?.into_body();
        Ok(Lines { body, buffer: Vec::new(), scanned: 0, ended: false })
    }

    /// Any call; answers of 400 and above are errors.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            let socket = self.socket.clone();
            match source.kind() {
                io::ErrorKind::PermissionDenied => ClientError::Forbidden { socket, source },
                _ => ClientError::Unreachable { socket, source },
            }
        })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Broken)?;
        // Its error is also that of the call.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|e| ClientError::Answer(e.to_string()))?;
        let response = sender.send_request(request).await.map_err(ClientError::Broken)?;
        let status = response.status().as_u16();
        if status < 400 {
            return Ok(response);
        }
        let text = read_whole(response).await?;
        let body = serde_json::from_slice(&text).unwrap_or_else(|_| ErrorBody {
            error: String::from_utf8_lossy(&text).into_owned(),
            hint: format!("HTTP status {status}"),
            line: None,
            column: None,
        });
        Err(ClientError::Refused { status, body })
    }
}

async fn read_whole(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
    Ok(body.map_err(|e| ClientError::Answer(e.to_string()))?.to_bytes())
}

async fn read_json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    let body = read_whole(response).await?;
    serde_json::from_slice(&body).map_err(|e| ClientError::Answer(e.to_string()))
}

/// Lines of an answer.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that hold no line end.
    scanned: usize,
    ended: bool,
}

impl Lines {
    /// The next line without its end; `None` when the answer ends.
    ///
    /// # Errors
    /// When the connection breaks, or a line is not UTF-8 or endless.
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            let unscanned = self.buffer.get(self.scanned..).unwrap_or_default();
            if let Some(at) = unscanned.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.scanned + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                self.scanned = 0;
                return String::from_utf8(line).map(Some).map_err(|e| ClientError::Answer(e.to_string()));
            }
            self.scanned = self.buffer.len();
            if self.ended {
                return Ok(None);
            }
            if self.buffer.len() > LINE_LIMIT {
                return Err(ClientError::Answer("a line is too long".to_owned()));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame.map_err(ClientError::Broken)?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None => self.ended = true,
            }
        }
    }
}
