//! `events --log`: events from a log, a bundle or a file, as rows, as a process tree, or over time.

use std::ops::ControlFlow;

use agent_monitor::export::timeline::Timeline;
use agent_monitor::export::tree::{Node, Tree};
use agent_monitor::log::reader::Window;
use agent_monitor::log::verify::Outcome;
use agent_monitor::model::{Event, Verdict};
use agent_monitor::record::Filter;
use agent_monitor::registry::diagnostic::escape;
use serde::Serialize;

use super::exit::note;
use super::output::{Format, Out};
use super::source::Source;

/// What to make of the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// Each as a row.
    Rows,
    /// By process.
    Tree,
    /// Over time.
    Timeline,
}

/// Gives the matching lines of `source` to `row`; with `limit`, the newest so many. Returns what checking them showed.
pub(crate) fn rows(
    source: &Source,
    filter: &Filter,
    limit: Option<u32>,
    mut row: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    if let Some(limit) = limit {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut asked = Asked { filter, strange: 0 };
        let (newest, outcome) = source.newest(&window(filter), limit, |json| asked.event(json).is_some())?;
        asked.report();
        newest.iter().try_for_each(|json| row(&String::from_utf8_lossy(json)))?;
        return Ok(outcome);
    }
    let mut result = Ok(());
    let outcome = each(source, filter, |_, json, _| {
        result = row(&String::from_utf8_lossy(json));
        if result.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    result?;
    Ok(outcome)
}

fn window(filter: &Filter) -> Window {
    let agents = filter.only_agents().to_vec();
    Window { since: filter.since(), until: filter.until(), agents, ..Window::default() }
}

/// Reads lines as the events that are asked for, and counts those that are none.
struct Asked<'a> {
    filter: &'a Filter,
    strange: u64,
}

impl Asked<'_> {
    fn event(&mut self, json: &[u8]) -> Option<Event> {
        // Before the line is read as an event: most lines of a search do not hold the word.
        if !self.filter.may_match(json) {
            return None;
        }
        match serde_json::from_slice::<Event>(json) {
            Ok(event) => self.filter.matches(&event).then_some(event),
            Err(_) => {
                self.strange += 1;
                None
            }
        }
    }

    fn report(&self) {
        if self.strange > 0 {
            note(&format!("note: {} records are of another version and were left out", self.strange));
        }
    }
}

/// Calls `take` for each event that matches.
fn each(
    source: &Source,
    filter: &Filter,
    mut take: impl FnMut(u64, &[u8], &Event) -> ControlFlow<()>,
) -> anyhow::Result<Outcome> {
    let mut asked = Asked { filter, strange: 0 };
    let outcome = source.each(&window(filter), |number, json| match asked.event(json) {
        Some(event) => take(number, json, &event),
        None => ControlFlow::Continue(()),
    })?;
    asked.report();
    Ok(outcome)
}

/// Shows the tree or the timeline; returns how many events matched, and what checking them showed.
pub(crate) fn view(
    source: &Source,
    filter: &Filter,
    view: View,
    format: Format,
) -> anyhow::Result<(u64, Outcome)> {
    let (mut tree, mut timeline, mut matched) = (Tree::default(), Timeline::default(), 0);
    let outcome = each(source, filter, |number, _, event| {
        matched += 1;
        match view {
            View::Tree => tree.take(number, event),
            View::Timeline | View::Rows => timeline.take(number, event),
        }
        ControlFlow::Continue(())
    })?;
    let mut out = Out::new();
    match (view, format) {
        (View::Tree, Format::Table) => show_tree(&mut out, &tree)?,
        (View::Tree, _) => {
            out.list(tree.rows().into_iter().map(|(depth, process)| TreeRow { depth, process }), format)?;
        }
        (_, Format::Table) => show_timeline(&mut out, &timeline)?,
        _ => {
            let steps = timeline.steps().map(|(time, step)| serde_json::json!({"time": time, "step": step}));
            let steps: Vec<_> = steps.collect();
            out.json(
                &serde_json::json!({"steps": steps, "moments": timeline.moments, "more": timeline.more}),
                format,
            )?;
        }
    }
    out.flush()?;
    Ok((matched, outcome))
}

#[derive(Serialize)]
struct TreeRow<'a> {
    depth: usize,
    process: &'a Node,
}

fn show_tree(out: &mut Out, tree: &Tree) -> anyhow::Result<()> {
    for (depth, node) in tree.rows() {
        out.line(&process(depth, node))?;
        for (verdict, kind, object, number) in &node.objects {
            let verdict = verdict.map_or("note", |verdict: Verdict| verdict.as_str());
            out.line(&format!(
                "{:indent$}{verdict} {kind} {} (#{number})",
                "",
                escape(object),
                indent = depth * 2 + 4
            ))?;
        }
    }
    if tree.dropped > 0 {
        out.line(&format!("and events of more processes than are kept: {}", tree.dropped))?;
    }
    Ok(())
}

fn process(depth: usize, node: &Node) -> String {
    let exe = node.exe.as_deref().unwrap_or("?");
    let name = exe.rsplit('/').next().unwrap_or(exe);
    let agent = node.agent.as_deref().unwrap_or("-");
    let records: u64 = node.kinds.values().sum();
    let refused = if node.refused > 0 { format!(", {} OUT OF SCOPE", node.refused) } else { String::new() };
    let end = node.end.as_ref().map_or_else(String::new, |end| format!(", {end}"));
    let told = if node.inferred {
        "parent only".to_owned()
    } else {
        format!("{agent}, {records} records{refused}{end}")
    };
    let (name, command, told) = (escape(name), escape(&node.command), escape(&told));
    format!("{:indent$}{name}[{}] {command} ({told})", "", node.pid, indent = depth * 2)
}

fn show_timeline(out: &mut Out, timeline: &Timeline) -> anyhow::Result<()> {
    let most =
        timeline.steps().map(|(_, step)| step.families.values().sum::<u64>()).max().unwrap_or(1).max(1);
    for (time, step) in timeline.steps() {
        let count: u64 = step.families.values().sum();
        let width = usize::try_from(count.saturating_mul(50).div_ceil(most)).unwrap_or(50);
        let refused =
            if step.refused > 0 { format!(" {} out of scope", step.refused) } else { String::new() };
        let gaps = if step.gaps > 0 { format!(" {} GAPS", step.gaps) } else { String::new() };
        out.line(&format!("{:.3} {count:>8} {:<50}{refused}{gaps}", time.timestamp(), "#".repeat(width)))?;
    }
    if !timeline.moments.is_empty() {
        out.line("")?;
    }
    for moment in &timeline.moments {
        out.line(&format!("{:.6} #{} {}", moment.time.timestamp(), moment.record, escape(&moment.text)))?;
    }
    if timeline.more > 0 {
        out.line(&format!("and {} more", timeline.more))?;
    }
    Ok(())
}
