//! Totals as text: the end of `run`, and part of `status`.

use std::collections::BTreeMap;

use agent_monitor::health::{OTHER, Summary, UNATTRIBUTED};
use agent_monitor::registry::diagnostic::escape;

/// Rows of one block that are shown; the others are added up.
const ROWS: usize = 20;

/// Lines: events by kind, by agent, by verdict, then losses and gaps. Says so when there were none.
pub(crate) fn render(summary: &Summary) -> String {
    let Summary { events, by_kind, by_verdict, by_agent, lost, gaps, subscriber_missed, .. } = summary;
    let mut text = format!("{events} events recorded\n");
    block(&mut text, "by kind", by_kind);
    block(&mut text, "by agent", by_agent);
    block(&mut text, "by verdict", by_verdict);
    let missed: u64 = lost.values().sum();
    if lost.is_empty() && *gaps == 0 {
        text.push_str("nothing was lost; no gaps\n");
    } else {
        text.push_str(&format!("{missed} events lost, {gaps} gap records\n"));
        block(&mut text, "lost by reason", lost);
    }
    if *subscriber_missed > 0 {
        text.push_str(&format!("{subscriber_missed} events not shown to slow readers (they are recorded)\n"));
    }
    text
}

fn block(text: &mut String, title: &str, counts: &BTreeMap<String, u64>) {
    if counts.is_empty() {
        return;
    }
    let mut rows: Vec<_> = counts.iter().collect();
    rows.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    text.push_str(&format!("  {title}\n"));
    for (name, count) in rows.iter().take(ROWS) {
        let name = match name.as_str() {
            UNATTRIBUTED => "(unattributed)".to_owned(),
            OTHER => "(others)".to_owned(),
            name => escape(name),
        };
        text.push_str(&format!("    {count:>10}  {name}\n"));
    }
    let rest = rows.get(ROWS..).unwrap_or_default();
    if !rest.is_empty() {
        let sum: u64 = rest.iter().map(|(_, count)| **count).sum();
        text.push_str(&format!("    {sum:>10}  ({} more)\n", rest.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_sorted_clipped_and_honest() {
        let by_kind = (0..22).map(|n| (format!("file.k{n:02}"), n)).collect();
        let by_agent = [(UNATTRIBUTED.to_owned(), 3), ("bot\u{1b}".to_owned(), 9)].into_iter().collect();
        let summary = Summary { events: 12, by_kind, by_agent, ..Summary::default() };
        insta::assert_snapshot!(render(&summary), @r"
        12 events recorded
          by kind
                    21  file.k21
                    20  file.k20
                    19  file.k19
                    18  file.k18
                    17  file.k17
                    16  file.k16
                    15  file.k15
                    14  file.k14
                    13  file.k13
                    12  file.k12
                    11  file.k11
                    10  file.k10
                     9  file.k09
                     8  file.k08
                     7  file.k07
                     6  file.k06
                     5  file.k05
                     4  file.k04
                     3  file.k03
                     2  file.k02
                     1  (2 more)
          by agent
                     9  bot\u{1b}
                     3  (unattributed)
        nothing was lost; no gaps
        ");
        let lost = [("ring_full".to_owned(), 41)].into_iter().collect();
        let text = render(&Summary { lost, gaps: 2, subscriber_missed: 5, ..Summary::default() });
        assert!(
            text.contains("41 events lost, 2 gap records\n") && text.contains("41  ring_full\n"),
            "{text}"
        );
        assert!(text.ends_with("5 events not shown to slow readers (they are recorded)\n"), "{text}");
    }
}
