//! A review as Markdown: for a ticket or a mail.

use std::fmt::Write as _;

use super::{Radius, Review};
use crate::registry::diagnostic::escape;

impl Review {
    /// The review as Markdown. What came from agents is escaped.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _infallible = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let day = |time: crate::model::Time| format!("{:.0}", time.timestamp());
        writeln!(out, "# Review of {}\n", cell(&self.agent))?;
        writeln!(out, "- owner: {}\n- purpose: {}", cell(&self.owner), cell(&self.purpose))?;
        writeln!(out, "- state: {}, expires {}", self.state, day(self.expires))?;
        writeln!(out, "- last activity: {}", self.active.map_or_else(|| "not known".to_owned(), day))?;
        let by = self.reviewed_by.as_deref().map_or_else(String::new, |by| format!(" by {}", cell(by)));
        let reviewed = self.reviewed.map_or_else(|| "never".to_owned(), |at| format!("{}{by}", day(at)));
        let overdue = if self.overdue { " **overdue**" } else { "" };
        writeln!(out, "- reviewed: {reviewed}; due {}{overdue}", day(self.due))?;
        writeln!(out, "- sessions: {} ({} now)", self.sessions.0, self.sessions.1)?;
        if let Some((first, last)) = self.span {
            writeln!(out, "- rests on events from {} to {}", day(first), day(last))?;
        }
        if let Some(checked) = &self.checked {
            writeln!(out, "- the events: {}", cell(&checked.text()))?;
        }
        if !self.complete {
            writeln!(out, "- **incomplete**: {}", cell(&self.gaps.join("; ")))?;
        }
        writeln!(out, "\n## Verdicts\n")?;
        for (verdict, count) in &self.verdicts {
            writeln!(out, "- {verdict}: {count}")?;
        }
        writeln!(
            out,
            "\n## Granted and used\n\n| rule | about | verdict | used | last |\n|---|---|---|---|---|"
        )?;
        for rule in &self.rules {
            let last = rule.last.map_or_else(|| "never".to_owned(), day);
            let (name, about, verdict) = (cell(&rule.rule), cell(&rule.pattern), rule.verdict.as_str());
            writeln!(out, "| {name} | {about} | {verdict} | {} | {last} |", rule.used)?;
        }
        if !self.unused.is_empty() {
            writeln!(out, "\nNever used: {}", cell(&self.unused.join(", ")))?;
        }
        writeln!(out, "\n## Blast radius\n\n| | could | did |\n|---|---|---|")?;
        let more = |radius: &Radius| if radius.more { " or more" } else { "" };
        writeln!(out, "| files | {}{} | {} |", self.could.files, more(&self.could), self.did.files)?;
        writeln!(
            out,
            "| bytes | {}{} to read | {} sent |",
            self.could.bytes,
            more(&self.could),
            self.did.bytes
        )?;
        writeln!(out, "| peers | {} | {} |", self.could.peers.len(), self.did.peers.len())?;
        writeln!(out, "| programs | {} | {} |", self.could.programs.len(), self.did.programs.len())?;
        self.people(out)?;
        if !self.proposed.is_empty() {
            writeln!(
                out,
                "\n## Proposed scope ({} rules)\n\n```toml\n{}```",
                self.proposed_rules, self.proposed
            )?;
        }
        Ok(())
    }

    fn people(&self, out: &mut String) -> std::fmt::Result {
        if !self.decisions.is_empty() {
            writeln!(out, "\n## Decisions\n\n| by | decision | requests | asked |\n|---|---|---|---|")?;
            for one in &self.decisions {
                let by = one.by.as_deref().unwrap_or("(time)");
                writeln!(out, "| {} | {} | {} | {} |", cell(by), one.state, one.requests, one.asked)?;
            }
        }
        if !self.grants.is_empty() {
            writeln!(out, "\n## Grants\n\n| id | state | by | uses left | reason |\n|---|---|---|---|---|")?;
            for one in &self.grants {
                let uses = one.uses_left.map_or_else(|| "-".to_owned(), |left| left.to_string());
                let by = one.by.as_deref().unwrap_or("-");
                writeln!(
                    out,
                    "| {} | {} | {} | {uses} | {} |",
                    one.id,
                    one.state,
                    cell(by),
                    cell(&one.reason)
                )?;
            }
        }
        if !self.steps.is_empty() {
            writeln!(
                out,
                "\n## Off-boarding\n\n| step | what | target | result | sha256 |\n|---|---|---|---|---|"
            )?;
            for one in &self.steps {
                let hash = one.sha256.as_deref().unwrap_or("-");
                writeln!(
                    out,
                    "| {} | {} | {} | {} | {hash} |",
                    one.number,
                    one.kind,
                    cell(&one.target),
                    one.result
                )?;
            }
        }
        Ok(())
    }
}

/// Text that may stand in a table: no control characters, no marks of Markdown that would end the cell.
fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in escape(text).chars() {
        if matches!(c, '|' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
