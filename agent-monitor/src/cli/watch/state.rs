//! What is on the screen, and what keys mean. Reads no clock and calls nobody.

use std::time::Duration;

use agent_monitor::model::Time;
use agent_monitor::people::api::{ApprovalDetail, ApprovalList, ApprovalView, DecisionReply, FloodView};

/// Minutes that `m` offers first.
const MINUTES: u32 = 10;
/// Most minutes: a day.
const MINUTES_MAX: u32 = 1440;

/// Nanoseconds that a request must have been on the screen before it is answered.
const LOOK: i128 = 800_000_000;

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Letter(char),
    Up,
    Down,
    Escape,
}

/// What a person says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    Once,
    For(u32),
    Session,
    Deny,
    DenyAndSuspend,
}

/// An answer to the request that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) id: i64,
    pub(super) digest: String,
    pub(super) says: Says,
}

/// What to do after a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Do {
    Nothing,
    Leave,
    Answer(Answer),
}

/// The screen.
#[derive(Debug)]
pub(super) struct App {
    /// Who looks at it.
    pub(super) user: String,
    pub(super) now: Time,
    /// How old the list is.
    pub(super) age: Duration,
    pub(super) waiting: Vec<ApprovalView>,
    pub(super) floods: Vec<FloodView>,
    pub(super) detail: Option<ApprovalDetail>,
    /// By number, so that what comes and goes does not move it.
    chosen: Option<i64>,
    /// Since when the detail of the one that is looked at is on the screen.
    shown: Time,
    /// What is asked back, before it is said.
    pub(super) confirm: Option<Answer>,
    /// What came of the last answer; bad news are red.
    pub(super) message: Option<(bool, String)>,
    /// Why the daemon does not answer.
    pub(super) lost: Option<String>,
    known: Vec<i64>,
    bell: bool,
}

impl App {
    pub(super) fn new(user: String) -> Self {
        Self {
            user,
            now: Time::EPOCH,
            age: Duration::ZERO,
            waiting: Vec::new(),
            floods: Vec::new(),
            detail: None,
            chosen: None,
            shown: Time::EPOCH,
            confirm: None,
            message: None,
            lost: None,
            known: Vec::new(),
            bell: false,
        }
    }

    pub(super) fn clock(&mut self, now: Time, age: Duration) {
        (self.now, self.age) = (now, age);
    }

    /// Takes what waits now.
    pub(super) fn list(&mut self, list: ApprovalList) {
        self.waiting = list.approvals.into_iter().filter(|one| one.state == "pending").collect();
        self.floods = list.floods;
        self.bell |= self.waiting.iter().any(|one| !self.known.contains(&one.id));
        self.known = self.waiting.iter().map(|one| one.id).collect();
        let there = |id: &i64| self.known.contains(id);
        if !self.chosen.as_ref().is_some_and(there) {
            // What was looked at is gone; an answer that was being asked back is void.
            if let Some(answer) = self.confirm.take() {
                self.message = Some((true, format!("approval {} was decided meanwhile", answer.id)));
            }
            self.choose(self.known.first().copied());
        }
    }

    fn choose(&mut self, id: Option<i64>) {
        if self.chosen != id {
            self.detail = None;
        }
        self.chosen = id;
    }

    /// Takes everything about one request, if it is the one that is looked at.
    pub(super) fn detail(&mut self, detail: ApprovalDetail) {
        if Some(detail.approval.id) != self.chosen {
            return;
        }
        if self.detail.is_none() {
            self.shown = self.now;
        }
        self.detail = Some(detail);
    }

    /// The daemon answers, or why not.
    pub(super) fn link(&mut self, lost: Option<String>) {
        if lost.is_some() {
            self.confirm = None;
        }
        self.lost = lost;
    }

    pub(super) fn chosen(&self) -> Option<i64> {
        self.chosen
    }

    /// Something new waits, since this was last asked.
    pub(super) fn take_bell(&mut self) -> bool {
        std::mem::take(&mut self.bell)
    }

    /// Where the request that is looked at is in the list.
    pub(super) fn position(&self) -> usize {
        self.known.iter().position(|id| Some(*id) == self.chosen).unwrap_or(0)
    }

    pub(super) fn key(&mut self, key: Key) -> Do {
        if let Some(answer) = self.confirm.take() {
            return self.confirmed(answer, key);
        }
        self.message = None;
        let step = |by: usize| {
            let count = self.known.len().max(1);
            self.known.get((self.position() + by) % count).copied()
        };
        match key {
            Key::Up | Key::Letter('k') => self.choose(step(self.known.len().saturating_sub(1))),
            Key::Down | Key::Letter('j') => self.choose(step(1)),
            Key::Letter('q') => return Do::Leave,
            Key::Letter('o') => return self.says(Says::Once, false),
            Key::Letter('d') => return self.says(Says::Deny, false),
            Key::Letter('m') => return self.says(Says::For(MINUTES), true),
            Key::Letter('s') => return self.says(Says::Session, true),
            Key::Letter('x') => return self.says(Says::DenyAndSuspend, true),
            Key::Letter(_) | Key::Escape => {}
        }
        Do::Nothing
    }

    /// Only about what is on the screen: without the detail nothing is decided.
    fn says(&mut self, says: Says, ask: bool) -> Do {
        let Some(detail) = &self.detail else { return Do::Nothing };
        if self.lost.is_some() {
            return Do::Nothing;
        }
        // A key that was meant for the one before must not decide the one that has just come up.
        if self.now.unix_nanos() - self.shown.unix_nanos() < LOOK {
            self.message = Some((true, "look at it first".to_owned()));
            return Do::Nothing;
        }
        if says == Says::Session && detail.session.is_none() {
            self.message = Some((true, "this process belongs to no session".to_owned()));
            return Do::Nothing;
        }
        let one = &detail.approval;
        let answer = Answer { id: one.id, digest: one.digest.clone(), says };
        if !ask {
            return Do::Answer(answer);
        }
        self.confirm = Some(answer);
        Do::Nothing
    }

    fn confirmed(&mut self, mut answer: Answer, key: Key) -> Do {
        match (key, &mut answer.says) {
            (Key::Letter('y'), _) => return Do::Answer(answer),
            (Key::Letter('+') | Key::Up, Says::For(minutes)) => {
                *minutes = (*minutes + 5).min(MINUTES_MAX);
                self.confirm = Some(answer);
            }
            (Key::Letter('-') | Key::Down, Says::For(minutes)) => {
                *minutes = minutes.saturating_sub(5).max(1);
                self.confirm = Some(answer);
            }
            _ => self.message = Some((false, "nothing was decided".to_owned())),
        }
        Do::Nothing
    }

    /// What came of an answer.
    pub(super) fn answered(&mut self, answer: &Answer, result: Result<DecisionReply, String>) {
        self.message = Some(match result {
            Ok(reply) if reply.state == "pending" => (
                false,
                format!(
                    "{}: {} of {} have said yes; it waits for the others",
                    reply.id, reply.votes, reply.need
                ),
            ),
            Ok(reply) => (false, format!("{}: {}: {}", reply.id, reply.state, reply.means)),
            Err(error) => (true, format!("{}: {error}", answer.id)),
        });
    }
}

#[cfg(test)]
pub(super) mod tests;
