//! What the engine saw that people must know: handed over without waiting, for the reader of the rings must not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::attribute::TaskKey;
use crate::engine::Engine;
use crate::model::{Event, Kind, Source, Time, Verdict};
use crate::people::approvals::Request;

/// Requests that wait to be taken at most.
const ROOM: usize = 16_384;

/// A queue with a bell.
#[derive(Debug, Default)]
pub(in crate::run) struct Inbox {
    heard: Mutex<Heard>,
    /// Processes that were held since they began or last became another program. None is lost by what has ended: it is
    /// taken out then.
    waited: Mutex<BTreeMap<TaskKey, Time>>,
    /// When agents last did anything.
    active: Mutex<BTreeMap<Arc<str>, Time>>,
    bell: Condvar,
}

/// What came in.
#[derive(Debug, Default)]
pub(in crate::run) struct Heard {
    /// Actions that wait, and what became of who waited, in order.
    pub(in crate::run) words: VecDeque<Word>,
    /// Processes with which a run began.
    pub(in crate::run) roots: Vec<Root>,
    /// Something did not find room or could not be told: stopped processes must be looked for.
    pub(in crate::run) missed: bool,
}

/// What people must know of at once.
#[derive(Debug)]
pub(in crate::run) enum Word {
    /// An action waits.
    Asks(Box<Request>),
    /// A process with an action that waits has become another program: the thread that waited is gone.
    Replaced(TaskKey),
}

/// A process that was recognised as an agent by a rule: a run begins.
#[derive(Debug, Clone)]
pub(in crate::run) struct Root {
    /// The agent's id.
    pub(in crate::run) id: String,
    /// Its number.
    pub(in crate::run) agent: u32,
    /// The process.
    pub(in crate::run) key: TaskKey,
    /// How it was bound.
    pub(in crate::run) by: &'static str,
}

impl Inbox {
    /// Takes in an event, if it is about an action that waits or a run that begins. `engine` knows the process.
    pub(in crate::run) fn hear(&self, engine: &Engine, event: &Event) {
        if let Some(agent) = event.agent.as_ref().filter(|_| event.source != Source::Backfill) {
            let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
            match active.get_mut(agent.id.as_str()) {
                Some(last) => *last = (*last).max(event.time),
                None => drop(active.insert(agent.id.as_str().into(), event.time)),
            }
        }
        if event.kind == Kind::AgentBound
            && let Some(root) = root(engine, event)
        {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            // Runs that find no room have no session, and so no grants of their own: nothing is wider.
            if heard.roots.len() < ROOM {
                heard.roots.push(root);
            }
            drop(heard);
            self.bell.notify_all();
            return;
        }
        if matches!(event.kind, Kind::ProcessExec | Kind::ProcessExit) && event.source != Source::Lsm {
            self.over(engine, event);
        }
        if event.hold.is_none() || event.verdict != Some(Verdict::Hold) || event.kind == Kind::ProcessFork {
            return;
        }
        let request = request(engine, event);
        if let Some(request) = request.as_ref().filter(|request| request.held) {
            self.waited.lock().unwrap_or_else(PoisonError::into_inner).insert(request.key, event.time);
        }
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match request {
            Some(request) if heard.words.len() < ROOM => heard.words.push_back(Word::Asks(Box::new(request))),
            _ => {
                tracing::error!(seq = event.seq, "an action waits and cannot be told to people");
                heard.missed = true;
            }
        }
        drop(heard);
        self.bell.notify_all();
    }

    /// A process has become another program or ended: its threads that waited are gone.
    fn over(&self, engine: &Engine, event: &Event) {
        let mut waited = self.waited.lock().unwrap_or_else(PoisonError::into_inner);
        if waited.is_empty() {
            return;
        }
        let Some(pid) = event.process.as_ref().map(|process| process.pid) else { return };
        // Records of two processors are told in turns: an exec that is older than the act that waits is the one before it.
        let before = |at: Time| event.time > at;
        let found = waited.iter().rev().find(|(key, at)| key.tgid == pid && before(**at));
        let Some(key) = found.map(|(key, _)| *key) else { return };
        waited.retain(|one, at| one.tgid != pid || !before(*at));
        drop(waited);
        // An exec of a later process of this number is not this one's.
        let same = engine.tree().latest(pid).is_some_and(|proc| proc.key == key);
        if event.kind == Kind::ProcessExec && same {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            // Without room the request waits for its time to be over.
            if heard.words.len() < ROOM {
                heard.words.push_back(Word::Replaced(key));
            }
            drop(heard);
            self.bell.notify_all();
        }
    }

    /// When agents last did anything, since this was last asked.
    pub(in crate::run) fn activity(&self) -> BTreeMap<Arc<str>, Time> {
        std::mem::take(&mut *self.active.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes what is there.
    pub(in crate::run) fn take(&self) -> Heard {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until something comes in, at most so long.
    pub(in crate::run) fn wait(&self, time: Duration) {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = |heard: &mut Heard| heard.words.is_empty() && heard.roots.is_empty() && !heard.missed;
        drop(self.bell.wait_timeout_while(heard, time, nothing));
    }
}

fn root(engine: &Engine, event: &Event) -> Option<Root> {
    let proc = engine.tree().latest(event.process.as_ref()?.pid)?;
    let binding = proc.binding.filter(|binding| binding.session == 0)?;
    let agent = event.agent.as_ref()?;
    Some(Root { id: agent.id.clone(), agent: binding.agent, key: proc.key, by: agent.bound_by.as_str() })
}

fn request(engine: &Engine, event: &Event) -> Option<Request> {
    let hold = event.hold.as_ref()?;
    let proc = engine.tree().latest(event.process.as_ref()?.pid)?;
    let binding = proc.binding?;
    let id = event.agent.as_ref()?.id.clone();
    Some(Request {
        agent: binding.agent,
        key: proc.key,
        session: binding.session,
        digest: hold.number()?,
        held: hold.held,
        event: event.clone(),
        id,
        timeout: None,
    })
}
