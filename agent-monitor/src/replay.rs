//! What another scope would have done to recorded activity.
//!
//! Pure: events and a [`Rulebook`] in, a [`Report`] out. What cannot be judged is counted by why and never taken as
//! allowed. Each asked bit is judged alone, so that every rule that would have been needed counts as used; the strictest
//! answer is that of the act, as in the kernel.

pub mod book;
pub mod log;
pub mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use agent_monitor_ebpf::policy::{SLOTS, ask};

pub use self::report::Report;
use self::report::{Change, Group, What};
use crate::action::{self, Action, Perhaps};
use crate::model::{self, Event, Family};
use crate::scope::Verdict;

/// What a scope says about one act, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opinion {
    /// The verdict.
    pub verdict: Verdict,
    /// The rule's name.
    pub rule: String,
}

/// A scope that can be asked. `Err` says why it cannot tell.
pub trait Rulebook {
    /// About one place, by host path and `major:minor` where known. `asked` has one bit of [`ask`].
    ///
    /// # Errors
    /// Why it cannot be judged.
    fn place(
        &mut self,
        path: &str,
        dev: Option<&str>,
        asked: u32,
        moved_dir: bool,
    ) -> Result<Opinion, String>;

    /// About an internet peer or own address.
    ///
    /// # Errors
    /// Why it cannot be judged.
    fn net(&mut self, addr: IpAddr, port: u16, protocol: u8, action: u8) -> Result<Opinion, String>;

    /// About a UNIX socket's abstract name. `asked` has one bit of [`ask`].
    ///
    /// # Errors
    /// Why it cannot be judged.
    fn unix_abstract(&mut self, name: &[u8], asked: u32) -> Result<Opinion, String>;

    /// About a power.
    ///
    /// # Errors
    /// Why it cannot be judged.
    fn power(&mut self, power: usize) -> Result<Opinion, String>;

    /// About gaining a capability.
    ///
    /// # Errors
    /// Why it cannot be judged.
    fn capability(&mut self, number: usize) -> Result<Opinion, String>;
}

/// Goes through a record.
#[derive(Debug)]
pub struct Replay {
    agent: String,
    used: BTreeSet<String>,
    groups: BTreeMap<What, Group>,
    report: Report,
}

impl Replay {
    /// For the acts of one agent.
    #[must_use]
    pub fn new(agent: &str) -> Self {
        let (used, groups, report) = (BTreeSet::new(), BTreeMap::new(), Report::new(agent));
        Self { agent: agent.to_owned(), used, groups, report }
    }

    /// Judges one event again. Events of other agents and without an agent are passed over.
    pub fn take(&mut self, event: &Event, book: &mut dyn Rulebook) {
        if event.kind.family() == Family::Gap {
            let own =
                event.gap.as_ref().is_some_and(|gap| gap.agent.as_ref().is_none_or(|id| *id == self.agent));
            self.report.gaps += u64::from(own);
            return;
        }
        if event.agent.as_ref().is_none_or(|agent| agent.id != self.agent) {
            return;
        }
        let Some(was) = event.verdict else { return };
        self.report.events += 1;
        let actions = action::of(event);
        if actions.is_empty() {
            self.report.free += 1;
            return;
        }
        match self.judge(actions, book) {
            Ok(now) => self.count(event, was, now),
            Err(why) => *self.report.not_judged.entry(why).or_default() += 1,
        }
    }

    /// The strictest answer to all questions of an event. A refusal stands whatever else is unclear.
    fn judge(
        &mut self,
        actions: Vec<Result<Action, action::Unclear>>,
        book: &mut dyn Rulebook,
    ) -> Result<Opinion, String> {
        let mut strictest: Option<Opinion> = None;
        let mut unclear = None;
        for action in actions {
            let answer = match action {
                Ok(action) => self.ask(&action, book),
                Err(why) => Err(why.to_string()),
            };
            match answer {
                Ok(opinion) => strictest = Some(stricter(strictest, opinion)),
                Err(why) => unclear = Some(why),
            }
        }
        match (strictest, unclear) {
            (Some(opinion), None) => Ok(opinion),
            (Some(opinion), Some(_)) if !opinion.verdict.permits() => Ok(opinion),
            (_, Some(why)) => Err(why),
            (None, None) => Err("nothing was asked".to_owned()),
        }
    }

    fn ask(&mut self, action: &Action, book: &mut dyn Rulebook) -> Result<Opinion, String> {
        match action {
            Action::Place { path, dev, asked, perhaps } => {
                self.place(path, dev.as_deref(), *asked, *perhaps, book)
            }
            Action::Net { addr, port, protocol, action } => {
                let answer = book.net(*addr, *port, *protocol, *action);
                self.note(answer)
            }
            Action::Abstract { name, asked } => {
                let name = model::text::unescape(name);
                self.each(*asked, &mut |bit| book.unix_abstract(&name, bit))
            }
            Action::Power(power) => {
                let answer = book.power(*power);
                self.note(answer)
            }
            Action::Capability(number) => {
                let answer = book.capability(*number);
                self.note(answer)
            }
        }
    }

    fn place(
        &mut self,
        path: &str,
        dev: Option<&str>,
        asked: u32,
        perhaps: Perhaps,
        book: &mut dyn Rulebook,
    ) -> Result<Opinion, String> {
        let sure = self.each(asked, &mut |bit| book.place(path, dev, bit, false))?;
        if !sure.verdict.permits() {
            return Ok(sure);
        }
        let (perhaps, why) = match perhaps {
            Perhaps::No => return Ok(sure),
            Perhaps::MovedDirectory => {
                let moved = strictest_of(asked, &mut |bit| book.place(path, dev, bit, true))?;
                (moved, "a rule below it would refuse if it was a directory, which the event does not say")
            }
            Perhaps::Replaced => {
                let over =
                    strictest_of(asked | ask::RENAME_OVER, &mut |bit| book.place(path, dev, bit, false))?;
                (over, "it would be refused if something was replaced, which the event does not say")
            }
        };
        if perhaps.verdict.permits() { Ok(sure) } else { Err(why.to_owned()) }
    }

    /// Asks bit by bit and notes the rules that answered.
    fn each(
        &mut self,
        asked: u32,
        judge: &mut dyn FnMut(u32) -> Result<Opinion, String>,
    ) -> Result<Opinion, String> {
        let used = &mut self.used;
        strictest_of(asked, &mut |bit| {
            let opinion = judge(bit)?;
            used.insert(opinion.rule.clone());
            Ok(opinion)
        })
    }

    fn note(&mut self, answer: Result<Opinion, String>) -> Result<Opinion, String> {
        if let Ok(opinion) = &answer {
            self.used.insert(opinion.rule.clone());
        }
        answer
    }

    fn count(&mut self, event: &Event, was: model::Verdict, now: Opinion) {
        let let_through = matches!(was, model::Verdict::Allow | model::Verdict::Audit);
        let change = match (let_through, now.verdict.permits()) {
            (true, false) => Change::Denied,
            (false, true) => Change::Allowed,
            _ => {
                self.report.unchanged += 1;
                return;
            }
        };
        let what = What {
            change,
            rule: now.rule,
            verdict: now.verdict.as_str(),
            was: was.as_str(),
            was_rule: event.rule.clone(),
            kind: event.kind,
            object: report::object(event),
        };
        let fresh = Group { count: 0, first: event.time, last: event.time };
        let group = self.groups.entry(what).or_insert(fresh);
        group.count += 1;
        group.first = group.first.min(event.time);
        group.last = group.last.max(event.time);
    }

    /// The report. `rules` are all rules of the scope, by name, with where they stand in its file.
    #[must_use]
    pub fn finish(self, rules: &[(String, u32)]) -> Report {
        let Self { used, groups, mut report, .. } = self;
        report.unused = rules.iter().filter(|(name, _)| !used.contains(name)).cloned().collect();
        report.changes = groups.into_iter().collect();
        // What is hit most comes first.
        report
            .changes
            .sort_by(|(a, x), (b, y)| a.change.cmp(&b.change).then(y.count.cmp(&x.count)).then(a.cmp(b)));
        report
    }
}

fn stricter(a: Option<Opinion>, b: Opinion) -> Opinion {
    match a {
        Some(a) if a.verdict >= b.verdict => a,
        _ => b,
    }
}

fn strictest_of(
    asked: u32,
    judge: &mut dyn FnMut(u32) -> Result<Opinion, String>,
) -> Result<Opinion, String> {
    let mut strictest = None;
    for bit in (0..SLOTS).map(|slot| 1_u32 << slot).filter(|bit| asked & bit != 0) {
        strictest = Some(stricter(strictest, judge(bit)?));
    }
    strictest.ok_or_else(|| "nothing was asked".to_owned())
}

#[cfg(test)]
mod tests;
