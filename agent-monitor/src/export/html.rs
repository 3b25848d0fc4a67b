//! The report for people: one page that needs nothing else, for an incident meeting and for paper.
//!
//! It answers, in this order: what did the agent do, who allowed it, what could it have reached, what do we not know.
//! Everything that came from a process is text (`page`); the policy of the page forbids all requests and every script
//! and style but the ones in it, by their hashes. Its size is bounded: with many events it shows sums and what matters.

mod page;
mod scope;
mod sections;
mod svg;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use sha2::{Digest as _, Sha256};

use super::timeline::{self, Timeline};
use super::tree::Tree;
use super::{Because, Setting, sentence};
use crate::log::verify::Outcome;
use crate::mapping;
use crate::model::{Event, Family, Gap, Kind, Time, Verdict};
use page::Page;

const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/script.js");

/// Records that have a row of their own; then only those that matter have.
const ROWS_MAX: usize = 2_000;
/// Rows when those that fit a technique are left out too, so that what was refused finds a place.
const FITTING_MAX: usize = 3_000;
/// Rows at the very most.
const NOTABLE_MAX: usize = 6_000;
/// Files and peers that are counted by name.
const OBJECTS_MAX: usize = 20_000;
/// And more of them that were refused.
const REFUSED_MAX: usize = 5_000;
/// Gaps that are shown one by one.
const GAPS_MAX: usize = 200;

/// A record with a row.
#[derive(Debug)]
struct Row {
    number: u64,
    time: Time,
    kind: &'static str,
    verdict: Option<Verdict>,
    text: String,
    references: Vec<String>,
    because: Because,
}

/// Something that was acted on.
#[derive(Debug, Default)]
struct Object {
    count: u64,
    refused: u64,
    kinds: BTreeMap<&'static str, u64>,
    sent: u64,
    first: u64,
}

/// What is known of an agent.
#[derive(Debug, Default)]
struct AgentSum {
    events: u64,
    refused: u64,
    sessions: std::collections::BTreeSet<String>,
    delegators: std::collections::BTreeSet<String>,
    bound_by: std::collections::BTreeSet<&'static str>,
    rules: BTreeMap<String, u64>,
}

/// A report under construction; takes events one by one.
#[derive(Debug, Default)]
pub struct Report {
    /// Who started whom.
    pub tree: Tree,
    /// When.
    pub timeline: Timeline,
    total: u64,
    asked: u64,
    times: Option<(Time, Time)>,
    kinds: BTreeMap<&'static str, u64>,
    verdicts: BTreeMap<(Verdict, bool), u64>,
    agents: BTreeMap<String, AgentSum>,
    files: BTreeMap<String, Object>,
    peers: BTreeMap<String, Object>,
    /// Files and peers that found no place.
    more_objects: u64,
    sent: u64,
    /// List and id → records, and the first of them.
    references: BTreeMap<(&'static str, &'static str), (u64, u64)>,
    gaps: Vec<(u64, Gap)>,
    more_gaps: u64,
    decisions: Vec<(u64, Time, String)>,
    rows: Vec<Row>,
    left_out: u64,
    setting: Setting,
    words: BTreeMap<String, String>,
    made: Option<Time>,
    seal: Option<(String, u64)>,
    outcome: Option<Outcome>,
}

impl Report {
    /// Takes an event.
    pub fn take(&mut self, number: u64, event: &Event, because: Because) {
        self.total += 1;
        self.row(number, event, because);
        self.timeline.take(number, event);
        if let Some(gap) = &event.gap {
            if self.gaps.len() < GAPS_MAX {
                self.gaps.push((number, gap.clone()));
            } else {
                self.more_gaps += 1;
            }
        }
        // What is near in time or frames the rest is shown, not counted as the agent's.
        if because != Because::Asked {
            return;
        }
        self.asked += 1;
        let (first, last) = self.times.unwrap_or((event.time, event.time));
        self.times = Some((first.min(event.time), last.max(event.time)));
        self.tree.take(number, event);
        *self.kinds.entry(event.kind.as_str()).or_default() += 1;
        if let Some(verdict) = event.verdict {
            let enforced = event.mode == Some(crate::model::Mode::Enforce);
            *self.verdicts.entry((verdict, enforced)).or_default() += 1;
        }
        for entry in mapping::of(event) {
            self.references.entry((entry.framework.id.as_str(), entry.id)).or_insert((0, number)).0 += 1;
        }
        self.of_agent(event);
        self.object(number, event);
        if matches!(event.kind.family(), Family::Approval | Family::Grant | Family::Session)
            && self.decisions.len() < 500
        {
            self.decisions.push((number, event.time, sentence::of(event)));
        }
    }

    fn of_agent(&mut self, event: &Event) {
        let Some(agent) = &event.agent else { return };
        let sum = self.agents.entry(agent.id.clone()).or_default();
        sum.events += 1;
        sum.refused += u64::from(refused(event));
        sum.bound_by.insert(agent.bound_by.as_str());
        if sum.sessions.len() < 200 {
            sum.sessions.extend(agent.session.clone());
        }
        sum.delegators.extend(agent.delegator.clone());
        if let Some(rule) = &event.rule
            && (sum.rules.len() < 2000 || sum.rules.contains_key(rule))
        {
            *sum.rules.entry(rule.clone()).or_default() += 1;
        }
    }

    fn object(&mut self, number: u64, event: &Event) {
        let sent = event.network.as_ref().and_then(|network| network.bytes_sent).unwrap_or(0);
        let (objects, name) = match event.kind.family() {
            Family::File => (&mut self.files, event.file.as_ref().and_then(|file| file.path.clone())),
            Family::Network => (&mut self.peers, event.network.as_ref().map(sentence::peer)),
            Family::Process
            | Family::Privilege
            | Family::Tamper
            | Family::Agent
            | Family::Session
            | Family::Grant
            | Family::Approval
            | Family::Finding
            | Family::Gap
            | Family::Log => return,
        };
        let Some(name) = name else { return };
        self.sent = self.sent.saturating_add(sent);
        // What was refused finds a place also when the rest does not any more.
        let most = if refused(event) { OBJECTS_MAX + REFUSED_MAX } else { OBJECTS_MAX };
        if objects.len() >= most && !objects.contains_key(&name) {
            self.more_objects += 1;
            return;
        }
        let object = objects.entry(name).or_insert_with(|| Object { first: number, ..Object::default() });
        object.count += 1;
        object.refused += u64::from(refused(event));
        object.sent = object.sent.saturating_add(sent);
        *object.kinds.entry(event.kind.as_str()).or_default() += 1;
    }

    fn row(&mut self, number: u64, event: &Event, because: Because) {
        let most = match (timeline::is_notable(event), event.technique.is_empty()) {
            (true, _) => NOTABLE_MAX,
            (false, false) => FITTING_MAX,
            (false, true) => ROWS_MAX,
        };
        let room = self.rows.len() < most;
        // Text of records is shown where it belongs.
        if !room || event.kind == Kind::LogPolicy {
            self.left_out += 1;
            return;
        }
        self.rows.push(Row {
            number,
            time: event.time,
            kind: event.kind.as_str(),
            verdict: event.verdict,
            text: sentence::of(event),
            references: event.technique.iter().chain(&event.references).cloned().collect(),
            because,
        });
    }

    /// Adds what is not in the events: the host and the rules of that time, what was asked for, what seals it, and what
    /// checking the log showed.
    pub fn frame(
        &mut self,
        setting: &Setting,
        words: BTreeMap<String, String>,
        made: Time,
        seal: Option<(&str, u64)>,
        outcome: &Outcome,
    ) {
        self.outcome = Some(outcome.clone());
        self.setting = setting.clone();
        self.words = words;
        self.made = Some(made);
        self.seal = seal.map(|(origin, number)| (origin.to_owned(), number));
    }

    fn host(&self, key: &str) -> Option<&str> {
        self.setting.host.as_ref()?.1[key].as_str().filter(|text| !text.is_empty())
    }

    /// Events with a verdict of deny, hold or kill: carried out, and only observed.
    fn refusals(&self) -> (u64, u64) {
        let count = |wanted: bool| {
            let of = self
                .verdicts
                .iter()
                .filter(|((verdict, enforced), _)| *verdict >= Verdict::Deny && *enforced == wanted);
            of.map(|(_, count)| count).sum()
        };
        (count(true), count(false))
    }

    /// The page.
    #[must_use]
    pub fn render(&self) -> String {
        let mut page = Page::default();
        let hash = |text: &str| BASE64.encode(Sha256::digest(text));
        page.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
        page.raw(
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'sha256-",
        );
        page.text(&hash(SCRIPT)).raw("'; style-src 'sha256-").text(&hash(STYLE));
        page.raw("'; base-uri 'none'; form-action 'none'\">\n");
        page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        page.raw("<meta name=\"referrer\" content=\"no-referrer\">\n<title>")
            .text(&self.title())
            .raw("</title>\n<style>");
        page.raw(STYLE).raw("</style></head>\n<body>\n");
        self.body(&mut page);
        page.raw("<script>").raw(SCRIPT).raw("</script>\n</body></html>\n");
        page.finish()
    }

    fn title(&self) -> String {
        let agents: Vec<&str> = self.agents.keys().map(String::as_str).take(3).collect();
        let who = if agents.is_empty() { "Recorded activity".to_owned() } else { agents.join(", ") };
        let more = self.agents.len().saturating_sub(3);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        match self.times {
            Some((first, _)) => format!("{who}{more}: {:.0}", first.timestamp()),
            None => format!("{who}{more}"),
        }
    }
}

fn refused(event: &Event) -> bool {
    event.verdict.is_some_and(|verdict| verdict >= Verdict::Deny)
}

#[cfg(test)]
mod tests;
