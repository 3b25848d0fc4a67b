//! The timeline as a drawing: one column per step, families stacked, refusals and gaps marked below and above.

use super::Report;
use super::page::Page;

/// Width and height of the drawing's own units.
const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 170.0;
/// Room for columns.
const COLUMNS: f64 = 130.0;

pub(super) fn draw(report: &Report, page: &mut Page) {
    let steps: Vec<_> = report.timeline.steps().collect();
    let (Some((first, _)), Some((last, _))) = (steps.first(), steps.last()) else {
        page.raw("<p>There is nothing to draw.</p>");
        return;
    };
    let (start, width) = (first.unix_nanos(), report.timeline.width());
    let end = last.unix_nanos().saturating_add(width);
    let highest = steps.iter().map(|(_, step)| step.families.values().sum::<u64>()).max().unwrap_or(1).max(1);
    let span = (end - start).max(1) as f64;
    let column = (width as f64 / span * WIDTH).max(0.8);
    page.raw("<svg id=\"timeline\" tabindex=\"0\" role=\"img\" preserveAspectRatio=\"none\" viewBox=\"0 0 1200 170\" ");
    page.raw(
        "aria-label=\"Events over time. Plus and minus zoom, arrows move, zero shows all.\" data-start=\"",
    );
    page.value(start / 1_000_000).raw("\" data-end=\"").value(end / 1_000_000).raw("\">");
    for (time, step) in &steps {
        let x = (time.unix_nanos() - start) as f64 / span * WIDTH;
        let mut base = HEIGHT - 20.0;
        for (family, count) in &step.families {
            // The square root keeps a quiet minute visible beside a storm.
            let share = *count as f64 / step.families.values().sum::<u64>().max(1) as f64;
            let total = step.families.values().sum::<u64>() as f64;
            let height = (total / highest as f64).sqrt() * COLUMNS * share;
            base -= height;
            rect(page, class(family), x, base, column, height);
        }
        if step.refused > 0 {
            rect(page, "b-refused", x, HEIGHT - 18.0, column.max(2.0), 8.0);
        }
        if step.gaps > 0 {
            rect(page, "b-gap", x, HEIGHT - 8.0, column.max(2.0), 8.0);
        }
    }
    page.raw("</svg>");
}

fn class(family: &str) -> &'static str {
    match family {
        "process" => "b-process",
        "file" => "b-file",
        "network" => "b-network",
        "privilege" => "b-privilege",
        _ => "b-other",
    }
}

fn rect(page: &mut Page, class: &'static str, x: f64, y: f64, width: f64, height: f64) {
    page.raw("<rect class=\"").raw(class).raw("\" x=\"").value(format!("{x:.2}")).raw("\" y=\"");
    page.value(format!("{y:.2}")).raw("\" width=\"").value(format!("{width:.2}")).raw("\" height=\"");
    page.value(format!("{height:.2}")).raw("\"/>");
}
