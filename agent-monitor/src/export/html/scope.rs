//! What an agent could have reached: the rules of its record at that time, and how often each decided.

use super::page::Page;
use super::{AgentSum, Report};
use crate::model::Time;

/// One rule in words.
struct Rule {
    name: String,
    permits: String,
    object: String,
}

pub(super) fn show(report: &Report, page: &mut Page) {
    if report.agents.is_empty() {
        page.raw("<p>No registered agent is among these records: nothing limited what they show.</p>");
    }
    for (id, sum) in &report.agents {
        page.raw("<h3>").text(id).raw("</h3>");
        let first = report.times.map(|(first, _)| first);
        let history = report.setting.policies.get(id);
        let in_force = history.and_then(|history| {
            history
                .iter()
                .rfind(|(_, time, _)| first.is_none_or(|first| *time <= first))
                .or_else(|| history.first())
        });
        if report.setting.withheld {
            page.raw("<p class=\"box gap\">Its record is left out of this export: it names users, hosts and paths.</p>");
            continue;
        }
        let Some((number, time, value)) = in_force else {
            page.raw("<p class=\"box gap\">Its record at that time is not in the log: what it could have reached is not ");
            page.raw("known here.</p>");
            continue;
        };
        of_record(page, sum, *number, *time, value);
        changes(page, history.map(Vec::as_slice).unwrap_or_default(), report.times);
    }
}

fn changes(page: &mut Page, history: &[(u64, Time, serde_json::Value)], times: Option<(Time, Time)>) {
    let Some((first, last)) = times else { return };
    let during = history.iter().filter(|(_, time, _)| *time > first && *time <= last);
    for (number, time, _) in during {
        page.raw("<p class=\"box\">The record was changed during this time, at ")
            .value(time)
            .raw(", record ");
        page.value(number).raw(".</p>");
    }
}

fn of_record(page: &mut Page, sum: &AgentSum, number: u64, time: Time, value: &serde_json::Value) {
    let text = value["record"].as_str().unwrap_or_default();
    let table: toml::Table = text.parse().unwrap_or_default();
    let word = |key: &str| {
        let value = table.get("agent").and_then(|agent| agent.get(key));
        value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    page.raw("<table><tbody>");
    for key in ["owner", "purpose", "mode", "expires", "environment", "data_boundary", "approvers"] {
        if let Some(value) = word(key) {
            page.raw("<tr><th>").text(key).raw("</th>").cell(&value).raw("</tr>");
        }
    }
    page.raw("<tr><th>record in force</th><td>of ")
        .value(time)
        .raw(" (log record ")
        .value(number)
        .raw("), SHA-256 <code>");
    page.text(value["sha256"].as_str().unwrap_or("unknown")).raw("</code></td></tr></tbody></table>");
    let Some(scope) = table.get("scope").and_then(toml::Value::as_table) else {
        page.raw("<p class=\"box bad\">It declared no scope: nothing was out of its reach but what the system itself ");
        page.raw("refuses.</p>");
        return;
    };
    let default = scope.get("default").and_then(toml::Value::as_str).unwrap_or("deny");
    page.raw("<p>What no rule names: <b>").text(default).raw("</b>. ");
    if let Some(base) = scope.get("base") {
        page.raw("Base sets: <code>").text(&base.to_string()).raw("</code>. ");
    }
    page.raw("</p><table><caption>Rules, and how often each decided in these records</caption><thead><tr>");
    page.raw("<th>Rule</th><th>Says</th><th>About</th><th class=\"num\">Decided</th></tr></thead><tbody>");
    for rule in rules(scope) {
        let count = sum.rules.get(&rule.name).copied().unwrap_or(0);
        page.raw("<tr><td><code>").text(&rule.name).raw("</code></td>").cell(&rule.permits);
        page.raw("<td><code>")
            .text(&rule.object)
            .raw("</code></td><td class=\"num\">")
            .value(count)
            .raw("</td></tr>");
    }
    page.raw("</tbody></table>");
}

fn rules(scope: &toml::Table) -> Vec<Rule> {
    let mut out = Vec::new();
    for (family, value) in scope {
        let Some(list) = value.as_array() else { continue };
        for (at, rule) in list.iter().filter_map(toml::Value::as_table).enumerate() {
            let verdict = rule.get("verdict").and_then(toml::Value::as_str).unwrap_or("allow");
            let access = rule.get("access").map_or_else(String::new, |access| format!(" {access}"));
            let rest = rule.iter().filter(|(key, _)| !matches!(key.as_str(), "verdict" | "access"));
            let rest = rest.map(|(key, value)| match value.as_str() {
                Some(text) if matches!(key.as_str(), "path" | "to") => text.to_owned(),
                _ => format!("{key} {value}"),
            });
            out.push(Rule {
                name: format!("scope.{family}[{at}]"),
                permits: format!("{verdict}{access}"),
                object: rest.collect::<Vec<_>>().join(", "),
            });
        }
    }
    out
}
