//! A model endpoint that follows a script, so that a real agent CLI really runs its tools without a model.
//!
//! It listens on loopback only and speaks the three dialects that agent CLIs use: OpenAI chat completions,
//! OpenAI responses and Anthropic messages. The next step is chosen by the number of tool results that the
//! request already carries, so the server keeps no conversation state and side requests (titles, summaries,
//! token counts) cannot move the script on.

mod chat;
mod http;
mod messages;
mod responses;

use serde_json::{Value, json};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What the model says at one turn.
#[derive(Debug, Clone)]
pub enum Step {
    /// Call a function tool with JSON arguments.
    Tool { name: String, arguments: Value },
    /// Call a free-form tool (the responses dialect has these) with text.
    Freeform { name: String, input: String },
    /// Say something and end the turn.
    Say(String),
}

impl Step {
    pub fn tool(name: &str, arguments: Value) -> Self {
        Self::Tool { name: name.to_owned(), arguments }
    }

    fn tool_name(&self) -> Option<&str> {
        match self {
            Self::Tool { name, .. } | Self::Freeform { name, .. } => Some(name),
            Self::Say(_) => None,
        }
    }
}

/// One request as the endpoint saw it and the step it was answered with.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub method: String,
    pub path: String,
    pub body: Value,
    /// Index of the scripted step that answered; `None` for a side request.
    pub step: Option<usize>,
}

/// A running endpoint; dropping it stops the listener.
#[derive(Debug)]
pub struct Endpoint {
    addr: SocketAddr,
    log: Arc<Mutex<Vec<Exchange>>>,
    /// Connections taken so far.
    accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Listens on a free loopback port and answers by `script`.
    pub fn start(script: Vec<Step>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicUsize::new(0));
        let script = Arc::new(script);
        let (thread_log, thread_stop) = (Arc::clone(&log), Arc::clone(&stop));
        let counter = Arc::clone(&accepted);
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming() {
                if thread_stop.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                counter.fetch_add(1, Ordering::AcqRel);
                let (script, log) = (Arc::clone(&script), Arc::clone(&thread_log));
                thread::spawn(move || serve(stream, &script, &log));
            }
        });
        Ok(Self { addr, log, accepted, stop, acceptor: Some(acceptor) })
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// `http://127.0.0.1:PORT`, without a path.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Connections taken so far: what the other side must have connected.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }

    /// What was asked so far, in order.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.log.lock().unwrap().clone()
    }

    /// The scripted steps that were asked for, each once.
    pub fn steps_served(&self) -> usize {
        let mut steps: Vec<usize> = self.exchanges().iter().filter_map(|e| e.step).collect();
        steps.sort_unstable();
        steps.dedup();
        steps.len()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the acceptor; it sees the flag and ends.
        if TcpStream::connect_timeout(&self.addr, Duration::from_secs(1)).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            acceptor.join().unwrap();
        }
    }
}

/// Which API a request path belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Chat,
    Responses,
    Messages,
}

fn dialect(path: &str) -> Option<Dialect> {
    let path = path.split('?').next().unwrap_or(path);
    if path.ends_with("/chat/completions") {
        Some(Dialect::Chat)
    } else if path.ends_with("/responses") {
        Some(Dialect::Responses)
    } else if path.ends_with("/messages") {
        Some(Dialect::Messages)
    } else {
        None
    }
}

fn serve(mut stream: TcpStream, script: &[Step], log: &Mutex<Vec<Exchange>>) {
    // A broken connection is the client's business: agents abort side requests freely.
    while let Ok(Some(request)) = http::read_request(&mut stream) {
        let reply = answer(&request, script, log);
        if reply.write_to(&mut stream).is_err() {
            return;
        }
    }
}

fn answer(request: &http::Request, script: &[Step], log: &Mutex<Vec<Exchange>>) -> http::Reply {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
    let dialect = dialect(&request.path).filter(|_| request.method == "POST");
    let chosen = dialect.and_then(|d| choose(d, &body, script));
    log.lock().unwrap().push(Exchange {
        method: request.method.clone(),
        path: request.path.clone(),
        body: body.clone(),
        step: chosen,
    });
    let aside = Step::Say("ok".to_owned());
    let turn = chosen.unwrap_or_default();
    let step = chosen.and_then(|i| script.get(i)).unwrap_or(&aside);
    let stream = body["stream"].as_bool().unwrap_or(false);
    match dialect {
        Some(Dialect::Chat) => chat::reply(step, turn, stream),
        Some(Dialect::Responses) => responses::reply(step, turn, stream),
        Some(Dialect::Messages) => messages::reply(step, turn, stream),
        None => other(&request.path),
    }
}

/// The step for this request: as many steps on as there are tool results in it, if the tool is on offer.
fn choose(dialect: Dialect, body: &Value, script: &[Step]) -> Option<usize> {
    let turn = match dialect {
        Dialect::Chat => chat::tool_results(body),
        Dialect::Responses => responses::tool_results(body),
        Dialect::Messages => messages::tool_results(body),
    };
    let tools = body["tools"].as_array()?;
    let step = script.get(turn)?;
    let offered = |name: &str| tools.iter().any(|t| t["name"] == name || t["function"]["name"] == name);
    match step.tool_name() {
        Some(name) => offered(name).then_some(turn),
        None => (!tools.is_empty()).then_some(turn),
    }
}

fn other(path: &str) -> http::Reply {
    if path.contains("count_tokens") {
        return http::Reply::json(&json!({"input_tokens": 100}));
    }
    if path.contains("/models") {
        return http::Reply::json(
            &json!({"object": "list", "data": [{"id": "scripted", "object": "model", "created": 1, "owned_by": "tests"}]}),
        );
    }
    http::Reply::not_found()
}
