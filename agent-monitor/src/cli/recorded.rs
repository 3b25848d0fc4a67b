//! `events --log`: events from a log, a bundle or a file, as rows, as a process tree, or over time.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;

use agent_monitor::export::timeline::Timeline;
use agent_monitor::export::tree::{Node, Tree};
use agent_monitor::log::reader::Window;
use agent_monitor::model::{Event, Verdict};
use agent_monitor::record::Filter;
use agent_monitor::registry::diagnostic::escape;

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

/// Gives the matching lines of `from` to `row`; with `limit`, the newest so many.
pub(crate) fn rows(
    from: &Path,
    filter: &Filter,
    limit: Option<u32>,
    mut row: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut newest: VecDeque<String> = VecDeque::new();
    let mut result = Ok(());
    each(from, filter, |_, json, _| {
        let line = String::from_utf8_lossy(json);
        match limit {
            Some(0) => return ControlFlow::Break(()),
            Some(limit) => {
                if newest.len() == limit {
                    newest.pop_front();
                }
                newest.push_back(line.into_owned());
            }
            None => result = row(&line),
        }
        if result.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    result?;
    newest.iter().try_for_each(|line| row(line))
}

/// Calls `take` for each event that matches.
fn each(
    from: &Path,
    filter: &Filter,
    mut take: impl FnMut(u64, &[u8], &Event) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let source = Source::open(from)?;
    let agents = filter.only_agents().to_vec();
    let window = Window { since: filter.since(), until: filter.until(), agents, ..Window::default() };
    let mut strange = 0u64;
    let damaged = source.each(&window, |number, json| {
        // Before the line is read as an event: most lines of a search do not hold the word.
        if !filter.may_match(json) {
            return ControlFlow::Continue(());
        }
        match serde_json::from_slice::<Event>(json) {
            Ok(event) if filter.matches(&event) => take(number, json, &event),
            Ok(_) => ControlFlow::Continue(()),
            Err(_) => {
                strange += 1;
                ControlFlow::Continue(())
            }
        }
    })?;
    damaged.iter().for_each(|problem| note(&format!("note: not read to the end: {}", escape(problem))));
    if strange > 0 {
        note(&format!("note: {strange} records are of another version and were left out"));
    }
    Ok(())
}

/// Shows the tree or the timeline; returns how many events matched.
pub(crate) fn view(from: &Path, filter: &Filter, view: View, format: Format) -> anyhow::Result<u64> {
    let (mut tree, mut timeline, mut matched) = (Tree::default(), Timeline::default(), 0);
    each(from, filter, |number, _, event| {
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
            let rows = tree
                .rows()
                .into_iter()
                .map(|(depth, node)| serde_json::json!({"depth": depth, "process": node}));
            out.json(&rows.collect::<Vec<_>>(), format)?;
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
    Ok(matched)
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
