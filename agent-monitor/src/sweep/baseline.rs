//! What changed since an earlier sweep. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{Change, Find, Report};

/// Marks finds as new, seen or changed, and adds those that are gone.
pub fn compare(report: &mut Report, before: &[Find]) {
    let known: BTreeMap<&str, &Find> = before.iter().map(|find| (find.id.as_str(), find)).collect();
    for find in &mut report.finds {
        find.change = Some(match known.get(find.id.as_str()) {
            None => Change::New,
            Some(before) if same(before, find) => Change::Seen,
            Some(_) => Change::Changed,
        });
    }
    let now: BTreeSet<&str> = report.finds.iter().map(|find| find.id.as_str()).collect();
    let gone =
        before.iter().filter(|find| !now.contains(find.id.as_str()) && find.change != Some(Change::Gone));
    report.gone = gone.map(|find| Find { change: Some(Change::Gone), ..find.clone() }).collect();
}

/// Pids, times and counts differ from sweep to sweep and mean nothing.
fn same(before: &Find, now: &Find) -> bool {
    let marks = |find: &Find| find.risks.iter().map(|risk| risk.mark.clone()).collect::<BTreeSet<_>>();
    let servers = |find: &Find| {
        find.mcp_servers
            .iter()
            .map(|server| (server.name.clone(), server.command.clone()))
            .collect::<BTreeSet<_>>()
    };
    before.state == now.state
        && before.product.version == now.product.version
        && before.registry == now.registry
        && before.identity.level == now.identity.level
        && marks(before) == marks(now)
        && servers(before) == servers(now)
}
