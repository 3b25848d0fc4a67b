//! Saying what is expected of the feed, and on failure what came closest.

use super::event::{Event, File, Network, Privilege, Process};
use super::expectation_limit;
use super::feed::Feed;
use std::fmt::Write;

/// How an actual value is compared.
#[derive(Debug, Clone)]
enum Wanted {
    Is(String),
    OneOf(Vec<String>),
    Has(String),
    Starts(String),
    /// Present, whatever it is.
    Some,
}

impl Wanted {
    fn fits(&self, actual: Option<&str>) -> bool {
        match self {
            Self::Is(wanted) => actual == Some(wanted),
            Self::OneOf(wanted) => wanted.iter().any(|w| actual == Some(w)),
            Self::Has(part) => actual.is_some_and(|a| a.contains(part)),
            Self::Starts(head) => actual.is_some_and(|a| a.starts_with(head)),
            Self::Some => actual.is_some_and(|a| !a.is_empty()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Is(wanted) => wanted.clone(),
            Self::OneOf(wanted) => wanted.join(" or "),
            Self::Has(part) => format!("…{part}…"),
            Self::Starts(head) => format!("{head}…"),
            Self::Some => "(anything)".to_owned(),
        }
    }
}

type Extract = Box<dyn Fn(&Event) -> Option<String>>;

struct Condition {
    field: &'static str,
    wanted: Wanted,
    extract: Extract,
}

/// Conditions on one event. Finish with [`exactly_once`](Self::exactly_once), [`times`](Self::times),
/// [`at_least_once`](Self::at_least_once) or [`never`](Self::never).
pub struct Expect<'feed> {
    feed: &'feed Feed,
    what: String,
    conditions: Vec<Condition>,
}

macro_rules! part {
    ($part:ident, $field:expr) => {
        |event: &Event| event.$part.as_ref().and_then($field)
    };
}

impl<'feed> Expect<'feed> {
    pub(super) fn new(feed: &'feed Feed, what: String) -> Self {
        Self { feed, what, conditions: Vec::new() }
    }

    fn add(
        mut self,
        field: &'static str,
        wanted: Wanted,
        extract: impl Fn(&Event) -> Option<String> + 'static,
    ) -> Self {
        self.conditions.push(Condition { field, wanted, extract: Box::new(extract) });
        self
    }

    /// A condition of the test's own: the value that `extract` finds is `wanted`.
    pub fn that(
        self,
        field: &'static str,
        wanted: impl ToString,
        extract: impl Fn(&Event) -> Option<String> + 'static,
    ) -> Self {
        self.add(field, Wanted::Is(wanted.to_string()), extract)
    }

    pub fn kind(self, kind: &str) -> Self {
        self.add("kind", Wanted::Is(kind.to_owned()), |e| Some(e.kind.clone()))
    }

    pub fn kind_one_of(self, kinds: &[&str]) -> Self {
        self.add("kind", one_of(kinds), |e| Some(e.kind.clone()))
    }

    pub fn family(self, family: &str) -> Self {
        self.add("kind", Wanted::Starts(format!("{family}.")), |e| Some(e.kind.clone()))
    }

    pub fn agent(self, id: &str) -> Self {
        self.add("agent.id", Wanted::Is(id.to_owned()), |e| e.agent_id().map(str::to_owned))
    }

    pub fn attributed(self) -> Self {
        self.add("agent.id", Wanted::Some, |e| e.agent_id().map(str::to_owned))
    }

    pub fn unattributed(self) -> Self {
        self.add("agent", Wanted::Is("null".to_owned()), |e| Some(e.agent_id().unwrap_or("null").to_owned()))
    }

    pub fn bound_by(self, how: &str) -> Self {
        self.add("agent.bound_by", Wanted::Is(how.to_owned()), part!(agent, |a| Some(a.bound_by.clone())))
    }

    pub fn delegator(self, id: &str) -> Self {
        self.add("agent.delegator", Wanted::Is(id.to_owned()), part!(agent, |a| a.delegator.clone()))
    }

    pub fn source(self, sources: &[&str]) -> Self {
        self.add("source", one_of(sources), |e| Some(e.source.clone()))
    }

    pub fn errno(self, name: &str) -> Self {
        self.add("errno", Wanted::Is(name.to_owned()), |e| e.errno.clone())
    }

    pub fn pid(self, pid: u32) -> Self {
        self.process("process.pid", pid, |p| Some(p.pid.to_string()))
    }

    pub fn exe(self, path: &str) -> Self {
        self.process("process.exe", path, |p| p.exe.clone())
    }

    pub fn process(
        self,
        field: &'static str,
        wanted: impl ToString,
        extract: impl Fn(&Process) -> Option<String> + 'static,
    ) -> Self {
        self.add(field, Wanted::Is(wanted.to_string()), move |e| e.process.as_ref().and_then(&extract))
    }

    pub fn path(self, path: &str) -> Self {
        self.file("file.path", path, |f| f.path.clone())
    }

    pub fn path_under(self, dir: &str) -> Self {
        self.add("file.path", Wanted::Starts(format!("{dir}/")), part!(file, |f| f.path.clone()))
    }

    pub fn new_path(self, path: &str) -> Self {
        self.file("file.new_path", path, |f| f.new_path.clone())
    }

    /// The access words, in the order of the contract.
    pub fn access(self, words: &[&str]) -> Self {
        self.file("file.access", words.join("+"), |f| Some(f.access.join("+")))
    }

    pub fn access_has(self, word: &str) -> Self {
        self.add("file.access", Wanted::Has(word.to_owned()), part!(file, |f| Some(f.access.join("+"))))
    }

    pub fn change_has(self, part: &str) -> Self {
        self.add("file.change", Wanted::Has(part.to_owned()), part!(file, |f| f.change.clone()))
    }

    pub fn file(
        self,
        field: &'static str,
        wanted: impl ToString,
        extract: impl Fn(&File) -> Option<String> + 'static,
    ) -> Self {
        self.add(field, Wanted::Is(wanted.to_string()), move |e| e.file.as_ref().and_then(&extract))
    }

    pub fn remote(self, addr: &str) -> Self {
        self.network("network.remote", addr, |n| n.remote.clone())
    }

    pub fn protocol(self, name: &str) -> Self {
        self.network("network.protocol", name, |n| n.protocol.clone())
    }

    pub fn network(
        self,
        field: &'static str,
        wanted: impl ToString,
        extract: impl Fn(&Network) -> Option<String> + 'static,
    ) -> Self {
        self.add(field, Wanted::Is(wanted.to_string()), move |e| e.network.as_ref().and_then(&extract))
    }

    pub fn privilege(
        self,
        field: &'static str,
        wanted: impl ToString,
        extract: impl Fn(&Privilege) -> Option<String> + 'static,
    ) -> Self {
        self.add(field, Wanted::Is(wanted.to_string()), move |e| e.privilege.as_ref().and_then(&extract))
    }

    pub fn target(self, pid: u32) -> Self {
        self.privilege("privilege.target.pid", pid, |p| p.target.as_ref().map(|t| t.pid.to_string()))
    }

    fn fits(&self, event: &Event) -> bool {
        self.conditions.iter().all(|c| c.wanted.fits((c.extract)(event).as_deref()))
    }

    /// All events that fit, once at least one has come.
    pub fn found(&self) -> Vec<Event> {
        self.feed.wait_for(expectation_limit(), |e| self.fits(e));
        self.feed.with(|events| events.iter().filter(|e| self.fits(e)).cloned().collect())
    }

    /// Exactly one event fits. The caller has settled the feed, so that a second one would be there.
    #[track_caller]
    pub fn exactly_once(self) -> Event {
        self.times(1).remove(0)
    }

    /// Exactly so many events fit.
    #[track_caller]
    pub fn times(self, count: usize) -> Vec<Event> {
        let found = self.found();
        if found.len() != count {
            self.fail(&format!("exactly {count}"), found.len());
        }
        found
    }

    #[track_caller]
    pub fn at_least_once(self) -> Event {
        let mut found = self.found();
        if found.is_empty() {
            self.fail("at least 1", 0);
        }
        found.remove(0)
    }

    /// No event fits. Says something only after the feed was settled.
    #[track_caller]
    pub fn never(self) {
        let found = self.feed.with(|events| events.iter().filter(|e| self.fits(e)).count());
        if found > 0 {
            self.fail("none", found);
        }
    }

    #[track_caller]
    fn fail(&self, wanted: &str, found: usize) -> ! {
        let table = self.feed.with(|events| self.nearest(events));
        panic!("{}: {found} events fit, wanted {wanted}\n{table}", self.what);
    }

    /// The events that meet most of the conditions, one column each.
    fn nearest(&self, events: &[Event]) -> String {
        const COLUMNS: usize = 4;
        let score =
            |e: &Event| self.conditions.iter().filter(|c| c.wanted.fits((c.extract)(e).as_deref())).count();
        let mut ranked: Vec<(usize, &Event)> = events.iter().map(|e| (score(e), e)).collect();
        ranked.sort_by_key(|(score, event)| (std::cmp::Reverse(*score), event.seq));
        ranked.truncate(COLUMNS);
        let mut table = format!("{} events in the feed; the nearest (✗ = does not fit):\n", events.len());
        for condition in &self.conditions {
            write!(table, "  {:<22} wanted {}", condition.field, condition.wanted.text()).unwrap();
            for (_, event) in &ranked {
                let actual = (condition.extract)(event);
                let sign = if condition.wanted.fits(actual.as_deref()) { ' ' } else { '✗' };
                write!(table, "\n      {sign} {}", actual.as_deref().unwrap_or("-")).unwrap();
            }
            table.push('\n');
        }
        for (score, event) in &ranked {
            writeln!(table, "  seq {} fits {score}/{}: {}", event.seq, self.conditions.len(), brief(event))
                .unwrap();
        }
        table
    }
}

fn one_of(words: &[&str]) -> Wanted {
    Wanted::OneOf(words.iter().map(|w| (*w).to_owned()).collect())
}

/// An event in one line, for reports.
pub fn brief(event: &Event) -> String {
    let mut line = format!("{} by {}", event.kind, event.agent_id().unwrap_or("-"));
    if let Some(process) = &event.process {
        write!(line, " pid {} {}", process.pid, process.exe.as_deref().unwrap_or("-")).unwrap();
    }
    if let Some(file) = &event.file {
        write!(line, " {:?} {:?} {:?}", file.path, file.access, file.new_path).unwrap();
    }
    if let Some(network) = &event.network {
        write!(line, " {network:?}").unwrap();
    }
    if let Some(privilege) = &event.privilege {
        write!(line, " {privilege:?}").unwrap();
    }
    if let Some(gap) = &event.gap {
        write!(line, " {gap:?}").unwrap();
    }
    write!(line, " ({})", event.source).unwrap();
    line
}
