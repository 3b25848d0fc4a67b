//! The parts of the page, in the order in which people ask.

use std::collections::BTreeMap;

use super::page::Page;
use super::{OBJECTS_MAX, Object, Report, Row, scope, svg};
use crate::export::Because;
use crate::export::tree::Node;
use crate::mapping;
use crate::model::Verdict;

/// Rows of a table of files or peers.
const TOP: usize = 60;
/// Processes that are shown.
const PROCESSES: usize = 1500;

impl Report {
    pub(super) fn body(&self, page: &mut Page) {
        page.raw("<a class=\"skip\" href=\"#did\">Skip to the report</a>\n<header><h1>")
            .text(&self.title())
            .raw("</h1>");
        page.raw("<p class=\"dim\">Report by agent-monitor");
        if let Some(made) = self.made {
            page.raw(", made ").value(made);
        }
        if let Some(host) = self.host("host") {
            page.raw(", host ").text(host);
        }
        page.raw("</p></header>\n<nav aria-label=\"Sections\"><a href=\"#did\">What it did</a><a href=\"#time\">Timeline</a>");
        page.raw("<a href=\"#tree\">Processes</a><a href=\"#objects\">Files and peers</a><a href=\"#who\">Who allowed it</a>");
        page.raw("<a href=\"#reach\">What it could reach</a><a href=\"#gaps\">What we do not know</a>");
        page.raw("<a href=\"#rows\">Records</a></nav>\n<main>\n");
        self.summary(page);
        self.when(page);
        self.processes(page);
        self.objects(page);
        self.who(page);
        page.raw("<h2 id=\"reach\">What could it have reached?</h2>\n");
        scope::show(self, page);
        self.unknown(page);
        self.records(page);
        page.raw("</main>\n<footer>");
        self.seal(page);
        page.raw("</footer>\n");
    }

    fn summary(&self, page: &mut Page) {
        page.raw("<h2 id=\"did\">What did it do?</h2>\n");
        let (stopped, observed) = self.refusals();
        page.raw("<p>");
        match self.times {
            Some((first, last)) => {
                page.raw("Between <b>").value(format_args!("{:.3}", first.timestamp())).raw("</b> and <b>");
                page.value(format_args!("{:.3}", last.timestamp())).raw("</b> (UTC), ");
            }
            None => drop(page.raw("No record was asked for. ")),
        }
        let agents: Vec<&str> = self.agents.keys().map(String::as_str).collect();
        match agents.as_slice() {
            [] => page.raw("processes without a registered agent"),
            [one] => page.raw("the agent <b>").text(one).raw("</b>"),
            more => page.raw("the agents <b>").text(&more.join(", ")).raw("</b>"),
        };
        page.raw(" did <b>")
            .value(self.asked)
            .raw("</b> things that were recorded, in <b>")
            .value(self.tree.len());
        // Names that found no place are not counted by name.
        let least =
            |objects: &BTreeMap<String, Object>| if objects.len() < OBJECTS_MAX { "" } else { "at least " };
        page.raw("</b> processes: ")
            .raw(least(&self.files))
            .value(self.files.len())
            .raw(" files were touched and ")
            .raw(least(&self.peers))
            .value(self.peers.len());
        page.raw(" peers or sockets used; ")
            .text(&bytes(self.sent))
            .raw(" were sent, as far as flows tell.</p>\n");
        if stopped > 0 {
            page.raw("<p class=\"box bad\"><b>")
                .value(stopped)
                .raw("</b> of them were refused, held or ended by the scope ");
            page.raw("in force.</p>\n");
        }
        if observed > 0 {
            page.raw("<p class=\"box bad\"><b>")
                .value(observed)
                .raw("</b> of them were outside the scope, but <b>only ");
            page.raw("observed</b>: nothing stopped them.</p>\n");
        }
        if stopped + observed == 0 {
            page.raw("<p class=\"box\">None of them was outside the scope that was in force.</p>\n");
        }
        if self.gaps.is_empty() {
            page.raw("<p class=\"box\">No gap is on record for this time.</p>\n");
        } else {
            page.raw("<p class=\"box gap\"><b>").value(self.gaps.len() as u64 + self.more_gaps);
            page.raw("</b> stretches could not be seen in full: see <a href=\"#gaps\">what we do not know</a>.</p>\n");
        }
        page.raw("<div class=\"figures\">");
        for (name, count) in self.kinds.iter().take(24) {
            page.raw("<div><b>").value(count).raw("</b>").text(name).raw("</div>");
        }
        page.raw("</div>\n");
        self.mappings(page);
    }

    fn mappings(&self, page: &mut Page) {
        if self.references.is_empty() {
            return;
        }
        page.raw("<h3>Techniques, risks and controls that records fit</h3><p class=\"dim\">That a record fits a technique ");
        page.raw("or a risk does not say that an attack happened.</p>");
        for framework in mapping::frameworks() {
            let of = self.references.iter().filter(|((list, _), _)| *list == framework.id);
            let found: Vec<_> = of.collect();
            if found.is_empty() {
                continue;
            }
            page.raw("<table><caption>").text(&framework.name).raw(" ").text(&framework.version);
            page.raw(" <span class=\"mono\">").text(&framework.source).raw("</span></caption><thead><tr>");
            page.raw("<th class=\"id\">Id</th><th>Title</th><th class=\"num\">Records</th><th class=\"num\">First</th></tr>");
            page.raw("</thead><tbody>");
            for ((_, id), (count, first)) in found {
                let title = framework.entries.get(*id).map_or("", String::as_str);
                page.raw("<tr>").cell(id).cell(title).raw("<td class=\"num\">").value(count);
                page.raw("</td><td class=\"num\">").record(*first).raw("</td></tr>");
            }
            page.raw("</tbody></table>\n");
        }
    }

    fn when(&self, page: &mut Page) {
        page.raw(
            "<h2 id=\"time\">When?</h2>\n<p class=\"legend\"><span><i class=\"l-process\"></i>process</span>",
        );
        page.raw("<span><i class=\"l-file\"></i>file</span><span><i class=\"l-network\"></i>network</span>");
        page.raw(
            "<span><i class=\"l-privilege\"></i>privilege</span><span><i class=\"l-other\"></i>other</span>",
        );
        page.raw("<span><i class=\"l-refused\"></i>refused or out of scope</span><span><i class=\"l-gap\"></i>gap</span></p>");
        page.raw("<div class=\"controls\"><button id=\"zoom-in\">Zoom in (+)</button><button id=\"zoom-out\">Zoom out (-)");
        page.raw("</button><button id=\"zoom-left\">Earlier (&larr;)</button><button id=\"zoom-right\">Later (&rarr;)");
        page.raw("</button><button id=\"zoom-all\">All (0)</button><span id=\"span\" class=\"dim\"></span></div>\n");
        svg::draw(self, page);
        page.raw("<p class=\"dim\">Column heights are square roots of counts; marks below: out of scope, and gaps.</p>\n");
        let moments: Vec<_> = self.timeline.moments.iter().take(300).collect();
        page.raw("<h3>Moments that matter</h3>");
        if moments.is_empty() {
            page.raw("<p>None was refused, found or missed.</p>");
            return;
        }
        page.raw("<table><thead><tr><th>Time (UTC)</th><th>Record</th><th>What</th></tr></thead><tbody>");
        for moment in &moments {
            let class = moment.kind.starts_with("gap.");
            page.raw("<tr><td class=\"t\">")
                .value(format_args!("{:.6}", moment.time.timestamp()))
                .raw("</td><td>");
            page.record(moment.record)
                .raw("</td><td")
                .raw(if class { " class=\"gap\"" } else { "" })
                .raw(">");
            page.text(&moment.text).raw("</td></tr>");
        }
        page.raw("</tbody></table>");
        let more = self.timeline.moments.len() as u64 - moments.len() as u64 + self.timeline.more;
        if more > 0 {
            page.raw("<p class=\"dim\">")
                .value(more)
                .raw(" more are in the records and in timeline.json.</p>");
        }
    }

    fn processes(&self, page: &mut Page) {
        page.raw("<h2 id=\"tree\">Which processes?</h2>\n<div class=\"controls\"><button id=\"open-all\">Open all</button>");
        page.raw("</div><ul class=\"tree\">");
        let rows = self.tree.rows();
        let mut depth = 0;
        for (at, (level, node)) in rows.iter().take(PROCESSES).enumerate() {
            if at > 0 {
                if *level > depth {
                    page.raw("<ul>");
                } else {
                    page.raw("</li>");
                    for _ in *level..depth {
                        page.raw("</ul></li>");
                    }
                }
            }
            depth = *level;
            process(page, node);
        }
        if !rows.is_empty() {
            page.raw("</li>");
            for _ in 0..depth {
                page.raw("</ul></li>");
            }
        }
        page.raw("</ul>");
        let more = rows.len().saturating_sub(PROCESSES) as u64 + self.tree.dropped;
        if more > 0 {
            page.raw("<p class=\"dim\">").value(more).raw(" more processes are in tree.json.</p>");
        }
    }

    fn objects(&self, page: &mut Page) {
        page.raw("<h2 id=\"objects\">Which files and peers?</h2>\n");
        top(page, "Files", &self.files, false);
        top(page, "Peers and sockets", &self.peers, true);
        if self.more_objects > 0 {
            page.raw("<p class=\"dim\">")
                .value(self.more_objects)
                .raw(" records of further names were not counted here.</p>");
        }
    }

    fn who(&self, page: &mut Page) {
        page.raw("<h2 id=\"who\">Who allowed it?</h2>\n");
        page.raw("<table><thead><tr><th>Agent</th><th>Owner</th><th>Recognised by</th><th>Started by</th>");
        page.raw("<th class=\"num\">Records</th><th class=\"num\">Out of scope</th></tr></thead><tbody>");
        for (id, sum) in &self.agents {
            let record = self.setting.policies.get(id).and_then(|history| history.last());
            let text = record.and_then(|(.., value)| value["record"].as_str()).unwrap_or_default();
            let table: toml::Table = text.parse().unwrap_or_default();
            let owner = table
                .get("agent")
                .and_then(|agent| agent.get("owner")?.as_str())
                .unwrap_or(if self.setting.withheld { "left out" } else { "not in the log" });
            let join =
                |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
            let by: Vec<&str> = sum.bound_by.iter().copied().collect();
            page.raw("<tr>").cell(id).cell(owner).cell(&by.join(", ")).cell(&join(&sum.delegators));
            page.raw("<td class=\"num\">")
                .value(sum.events)
                .raw("</td><td class=\"num\">")
                .value(sum.refused)
                .raw("</td></tr>");
        }
        page.raw("</tbody></table><h3>Verdicts</h3><table><tbody>");
        for ((verdict, enforced), count) in &self.verdicts {
            let carried = if *verdict < Verdict::Deny {
                ""
            } else if *enforced {
                "carried out"
            } else {
                "only observed"
            };
            page.raw("<tr><th>").text(verdict.as_str()).raw("</th>").cell(carried).raw("<td class=\"num\">");
            page.value(count).raw("</td></tr>");
        }
        page.raw("</tbody></table><h3>Approvals, grants and sessions</h3>");
        if self.decisions.is_empty() {
            page.raw("<p>No person decided anything in this time: what was allowed was allowed by the record of the agent.</p>");
            return;
        }
        page.raw("<table><tbody>");
        for (number, time, text) in &self.decisions {
            page.raw("<tr><td class=\"t\">")
                .value(time)
                .raw("</td><td>")
                .record(*number)
                .raw("</td>")
                .cell(text)
                .raw("</tr>");
        }
        page.raw("</tbody></table>");
    }

    fn unknown(&self, page: &mut Page) {
        page.raw("<h2 id=\"gaps\">What do we not know?</h2>\n");
        if self.gaps.is_empty() {
            page.raw("<p>No gap is on record. What the monitor cannot see at all on a host of this kind is below.</p>");
        } else {
            page.raw("<table><thead><tr><th>From</th><th>To</th><th>Why</th><th>Kind</th><th>Agent</th>");
            page.raw("<th class=\"num\">Missed</th><th>Record</th></tr></thead><tbody>");
            for (number, gap) in &self.gaps {
                let count = if gap.count == 0 { "uncounted".to_owned() } else { gap.count.to_string() };
                page.raw("<tr><td class=\"t\">")
                    .value(gap.first)
                    .raw("</td><td class=\"t\">")
                    .value(gap.last)
                    .raw("</td>");
                page.raw("<td class=\"gap\">")
                    .text(&gap.reason)
                    .raw("</td>")
                    .cell(gap.kind.as_deref().unwrap_or("any"));
                page.cell(gap.agent.as_deref().unwrap_or("any")).raw("<td class=\"num\">").text(&count);
                page.raw("</td><td>").record(*number).raw("</td></tr>");
            }
            page.raw("</tbody></table>");
            if self.more_gaps > 0 {
                page.raw("<p class=\"gap\">").value(self.more_gaps).raw(" more are in gaps.jsonl.</p>");
            }
        }
        let Some((_, host)) = &self.setting.host else {
            page.raw("<p class=\"box gap\">The log does not say what this host could see at that time.</p>");
            return;
        };
        let doctor = &host["doctor"];
        page.raw("<h3>What the host could see then</h3><p>Level <b>")
            .text(doctor["level"].as_str().unwrap_or("unknown"));
        page.raw("</b> on kernel ").text(doctor["kernel"].as_str().unwrap_or("unknown")).raw("; clock ");
        page.text(host["clock"].as_str().unwrap_or("unknown"))
            .raw(".</p><table><thead><tr><th>Family</th><th>See</th>");
        page.raw("<th>Stop</th><th>Hold</th><th>Name</th><th>Budget</th></tr></thead><tbody>");
        for family in doctor["families"].as_array().into_iter().flatten() {
            page.raw("<tr><th>").text(family["family"].as_str().unwrap_or_default()).raw("</th>");
            for ability in ["see", "stop", "hold", "name", "budget"] {
                let ability = &family[ability];
                let state = ability["state"].as_str().unwrap_or("unknown");
                let seen = if ability["confirmed"] == true { "" } else { " (not confirmed)" };
                page.raw("<td><b>").text(state).raw("</b>").text(seen).raw("<br><span class=\"dim\">");
                page.text(ability["reason"].as_str().unwrap_or_default()).raw("</span></td>");
            }
            page.raw("</tr>");
        }
        page.raw("</tbody></table><p>Reads and writes of files that were open are not told, only their opening. What an ");
        page.raw("agent wrote through a process outside it is told of that process. Contents are never recorded.</p>");
    }

    fn records(&self, page: &mut Page) {
        page.raw("<h2 id=\"rows\">Records</h2>\n<div class=\"controls\"><label>Find <input id=\"filter\" type=\"search\" ");
        page.raw("placeholder=\"words, all must be there ( / )\"></label><label><input id=\"refused\" type=\"checkbox\"> ");
        page.raw("out of scope only</label><span id=\"count\" class=\"dim\"></span></div>\n");
        if self.left_out > 0 {
            page.raw("<p class=\"dim\">Of ").value(self.total).raw(" records, ").value(self.left_out);
            page.raw(
                " that are within scope and fit no technique have no row here; all are in records.jsonl.</p>",
            );
        }
        page.raw("<p class=\"paper\">On paper: records out of scope, or what was looked for. All are on the screen.</p>");
        page.raw("<table id=\"records\"><thead><tr><th>Record</th><th>Time (UTC)</th><th>Kind</th><th>Verdict</th>");
        page.raw("<th>What</th></tr></thead><tbody>");
        self.rows.iter().for_each(|row| record(page, row));
        page.raw("</tbody></table>");
    }

    fn seal(&self, page: &mut Page) {
        if let Some(outcome) = &self.outcome {
            let class = if outcome.verified { "dim" } else { "bad" };
            page.raw("<p class=\"").raw(class).raw("\">The log when it was read: ").text(&outcome.text());
            page.raw(".</p>");
        }
        page.raw("<p class=\"dim\">");
        if let Some((origin, number)) = &self.seal {
            page.raw("The records are sealed by checkpoint ")
                .value(number)
                .raw(" of the log <code>")
                .text(origin);
            page.raw("</code>; <code>agent-monitor verify</code> on the bundle proves each of them. ");
        } else {
            page.raw("This page by itself proves nothing: a bundle does. ");
        }
        for (key, value) in &self.words {
            page.text(key).raw(": <code>").text(value).raw("</code>. ");
        }
        page.raw("</p>");
    }
}

fn process(page: &mut Page, node: &Node) {
    let name = node.exe.as_deref().unwrap_or("?");
    page.raw("<li><code>").text(name.rsplit('/').next().unwrap_or(name)).raw("</code> <span class=\"dim\">[");
    page.value(node.pid).raw("]</span> ");
    if node.inferred {
        page.raw("<span class=\"dim\">known as a parent only</span>");
    }
    if node.refused > 0 {
        page.raw("<span class=\"bad\">").value(node.refused).raw(" out of scope</span> ");
    }
    page.raw("<span class=\"mono\">").text(&node.command).raw("</span> ");
    if let Some(end) = &node.end {
        page.raw("<span class=\"dim\">").text(end).raw("</span> ");
    }
    if let Some(number) = node.record {
        page.record(number);
    }
    if !node.objects.is_empty() {
        let all: u64 = node.kinds.values().sum();
        page.raw("<details><summary>").value(all).raw(" records</summary>");
        for (verdict, kind, object, number) in &node.objects {
            let out = verdict.is_some_and(|verdict| verdict >= Verdict::Deny);
            page.raw("<div class=\"act").raw(if out { " bad" } else { "" }).raw("\">");
            page.text(verdict.map_or("", |verdict| verdict.as_str()))
                .raw(" ")
                .text(kind)
                .raw(" <code>")
                .text(object);
            page.raw("</code> ").record(*number).raw("</div>");
        }
        page.raw("</details>");
    }
}

fn top(page: &mut Page, title: &str, objects: &BTreeMap<String, Object>, sent: bool) {
    page.raw("<h3>").text(title).raw("</h3>");
    if objects.is_empty() {
        page.raw("<p>None.</p>");
        return;
    }
    let mut sorted: Vec<_> = objects.iter().collect();
    // What the agent changed, and what is not part of the system, is what people look for.
    let changed =
        |object: &Object| object.kinds.keys().any(|kind| !matches!(*kind, "file.open" | "file.mmap_exec"));
    let own = |name: &str| {
        !["/usr/", "/lib", "/etc/ld.so", "/dev/", "/proc/", "/sys/"].iter().any(|p| name.starts_with(p))
    };
    sorted.sort_by_key(|(name, object)| {
        let rank = (object.refused, own(name) && changed(object), own(name), object.count);
        (std::cmp::Reverse(rank), (*name).clone())
    });
    page.raw("<table><thead><tr><th>Name</th><th>How</th><th class=\"num\">Records</th><th class=\"num\">Out of scope</th>");
    page.raw(if sent { "<th class=\"num\">Sent</th>" } else { "" }).raw("<th>First</th></tr></thead><tbody>");
    for (name, object) in sorted.iter().take(TOP) {
        let how: Vec<&str> = object.kinds.keys().copied().collect();
        page.raw("<tr><td><code>")
            .text(name)
            .raw("</code></td>")
            .cell(&how.join(", "))
            .raw("<td class=\"num\">");
        page.value(object.count).raw("</td><td class=\"num").raw(if object.refused > 0 {
            " bad"
        } else {
            ""
        });
        page.raw("\">").value(object.refused).raw("</td>");
        if sent {
            page.raw("<td class=\"num\">").text(&bytes(object.sent)).raw("</td>");
        }
        page.raw("<td>").record(object.first).raw("</td></tr>");
    }
    page.raw("</tbody></table>");
    if sorted.len() > TOP {
        page.raw("<p class=\"dim\">").value(sorted.len() - TOP).raw(" more, less often used.</p>");
    }
}

fn record(page: &mut Page, row: &Row) {
    let out = row.verdict.is_some_and(|verdict| verdict >= Verdict::Deny);
    page.raw("<tr id=\"r")
        .value(row.number)
        .raw("\"")
        .raw(if out { " class=\"bad-row\"" } else { "" })
        .raw("><td class=\"num\">");
    page.value(row.number)
        .raw("</td><td class=\"t\">")
        .value(format_args!("{:.6}", row.time.timestamp()))
        .raw("</td><td class=\"t\">");
    page.text(row.kind).raw("</td><td").raw(if out { " class=\"bad\"" } else { "" }).raw(">");
    page.text(row.verdict.map_or("", |verdict| verdict.as_str())).raw("</td><td>").text(&row.text);
    for id in &row.references {
        page.raw(" <span class=\"dim\">").text(id).raw("</span>");
    }
    if row.because == Because::Context {
        page.raw(" <span class=\"dim\">(near in time)</span>");
    }
    page.raw("</td></tr>\n");
}

fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", count as f64 / 1_073_741_824.0),
    }
}
