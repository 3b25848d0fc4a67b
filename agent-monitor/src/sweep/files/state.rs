//! State, credentials and MCP configurations at the places that the pack names; shell histories as counts.

use std::collections::{BTreeMap, BTreeSet};

use super::{FILE_MAX, Job};
use crate::sweep::homes::Home;
use crate::sweep::identify;
use crate::sweep::mcp::{self, Configured};
use crate::sweep::observe::{About, Harvest, Observation, Place, Source};
use crate::sweep::pack::ProductIndex;
use crate::sweep::report::Risk;

/// Credentials that are in reach of whatever runs as a user, beside those of the pack.
const CREDENTIALS: &[&str] = &[
    ".aws/credentials",
    ".ssh/id_rsa",
    ".ssh/id_ed25519",
    ".ssh/id_ecdsa",
    ".netrc",
    ".git-credentials",
    ".kube/config",
    ".docker/config.json",
    ".npmrc",
    ".pypirc",
    ".config/gh/hosts.yml",
    ".config/gcloud/credentials.db",
    ".azure/msal_token_cache.json",
    ".vault-token",
    ".env",
];
/// Largest history that is counted, in bytes.
const HISTORY_MAX: u64 = 32 << 20;

/// What the pack names below a home.
pub(super) fn of_home(job: Job<'_>, home: &Home, place: &Place, names: &BTreeSet<String>, out: &mut Harvest) {
    let below = |path: &str| {
        let rest = path.strip_prefix("~/")?;
        let first = rest.split('/').next().unwrap_or(rest);
        names.contains(first).then(|| format!("{}/{rest}", home.path))
    };
    for index in 0..job.pack.products().len() {
        known_paths(job, index, place, &below, out);
    }
    for rest in CREDENTIALS {
        if let Some(path) = below(&format!("~/{rest}"))
            && job.root.meta(&path).is_ok_and(|meta| meta.is_file)
            && home.uid.is_some()
        {
            out.keys.entry(place.clone()).or_default().push(job.root.shown(&path));
        }
    }
}

/// What the pack names in the system.
pub(super) fn of_system(job: Job<'_>, place: &Place, out: &mut Harvest) {
    let absolute = |path: &str| path.starts_with('/').then(|| path.to_owned());
    for index in 0..job.pack.products().len() {
        known_paths(job, index, place, &absolute, out);
    }
}

fn known_paths(
    job: Job<'_>,
    index: ProductIndex,
    place: &Place,
    resolve: &dyn Fn(&str) -> Option<String>,
    out: &mut Harvest,
) {
    let Some(product) = job.pack.product(index) else { return };
    for (key, source, weight, ambiguous, word) in [
        ("state", Source::State, 75, false, "keeps its state here"),
        ("weak_state", Source::State, 25, true, "may keep its state here, as others do"),
        ("binaries", Source::Binary, 75, false, "has its program here"),
    ] {
        for path in product.list(key).iter().filter_map(|path| resolve(path)) {
            let Ok(meta) = job.root.meta(&path) else { continue };
            out.count += 1;
            let at = job.root.shown(&path);
            let what = format!("{} {word}", product.name);
            let seen =
                Observation::new(About::Product(index), place.clone(), source, weight, what, at.clone());
            out.seen.push(Observation { ambiguous, when: Some(meta.modified), path: Some(at), ..seen });
        }
    }
    for path in product.list("credentials").iter().filter_map(|path| resolve(path)) {
        let Ok(meta) = job.root.meta(&path) else { continue };
        let at = job.root.shown(&path);
        let what = format!("{} keeps credentials here", product.name);
        let mut seen =
            Observation::new(About::Product(index), place.clone(), Source::State, 70, what, at.clone());
        seen.when = Some(meta.modified);
        seen.risks.push(Risk { mark: "keys_in_reach".to_owned(), detail: at.clone() });
        if meta.mode & 0o004 != 0 {
            let detail = format!("{at} (mode {:04o})", meta.mode);
            seen.risks.push(Risk { mark: "credentials_world_readable".to_owned(), detail });
        }
        out.seen.push(seen);
    }
    for path in product.list("mcp_configs").iter().filter_map(|path| resolve(path)) {
        configuration(job, About::Product(index), place, &path, out);
    }
}

/// The servers of an MCP configuration: each by itself, and listed at its client.
pub(super) fn configuration(job: Job<'_>, client: About, place: &Place, path: &str, out: &mut Harvest) {
    let bytes = match job.root.read(path, FILE_MAX) {
        Ok(bytes) => bytes,
        Err(trouble) => return out.trouble(trouble, job.root.shown(path)),
    };
    let at = job.root.shown(path);
    let Some(servers) = mcp::servers(&bytes, &at, job.pack) else {
        return out.reason("in no form that is known", at);
    };
    if servers.is_empty() {
        return;
    }
    let when = job.root.meta(path).ok().map(|meta| meta.modified);
    let names: Vec<&str> = servers.iter().map(|server| server.shown.name.as_str()).collect();
    let what = format!("configures {} MCP servers: {}", names.len(), names.join(", "));
    let mut seen = Observation::new(client, place.clone(), Source::McpConfig, 40, what, at.clone());
    (seen.when, seen.servers) = (when, servers.iter().map(|server| server.shown.clone()).collect());
    for server in servers.iter().filter(|s| s.shown.writes == Some(true) && !s.shown.disabled) {
        let reach = server.shown.reach.as_deref().unwrap_or("unknown");
        seen.risks
            .push(Risk { mark: "mcp_writes".to_owned(), detail: format!("{}: {reach}", server.shown.name) });
    }
    // Servers say that there is a client, not which one, where several share a file.
    seen.ambiguous = true;
    out.seen.push(seen);
    servers.into_iter().for_each(|server| configured(job, place, server, &at, when, out));
}

fn configured(
    job: Job<'_>,
    place: &Place,
    server: Configured,
    at: &str,
    when: Option<crate::model::Time>,
    out: &mut Harvest,
) {
    let Configured { shown, args } = server;
    let told = identify::identify(job.pack, &identify::subject("", &args, "/"));
    let told = told.into_iter().find(|hit| hit.weight >= 50);
    let (about, variant) = match told {
        Some(hit) => (About::Product(hit.product), hit.variant),
        None => (About::McpServer(shown.name.clone()), None),
    };
    let what = format!("MCP server `{}` is configured: {} {}", shown.name, shown.transport, shown.command);
    let seen = Observation::new(about, place.clone(), Source::McpConfig, 85, what, at);
    let mut seen = Observation { variant, when, ..seen };
    if shown.writes == Some(true) && !shown.disabled {
        let detail = format!("{}: {}", shown.name, shown.reach.as_deref().unwrap_or("unknown"));
        seen.risks.push(Risk { mark: "mcp_writes".to_owned(), detail });
    }
    seen.servers.push(shown);
    out.seen.push(seen);
}

/// How often shell histories name a product's program. Counts only, and only where `--history` asks for it.
pub(super) fn histories(job: Job<'_>, home: &Home, place: &Place, out: &mut Harvest) {
    for name in [".bash_history", ".zsh_history", ".local/share/fish/fish_history", ".ash_history"] {
        let path = format!("{}/{name}", home.path);
        let text = match job.root.text(&path, HISTORY_MAX) {
            Ok(text) => text,
            Err(trouble) => {
                out.trouble(trouble, job.root.shown(&path));
                continue;
            }
        };
        for (product, count) in count_history(job.pack, &text) {
            let what = format!("a shell history names it {count} times");
            let at = job.root.shown(&path);
            let seen =
                Observation::new(About::Product(product), place.clone(), Source::History, 40, what, at);
            out.seen.push(Observation { count: Some(count), ..seen });
        }
    }
}

/// The pure half: products by the number of lines that start their program.
fn count_history(pack: &crate::sweep::pack::Pack, text: &str) -> BTreeMap<ProductIndex, u64> {
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        // zsh: `: 1700000000:0;command`; fish: `- cmd: command`.
        let line = line.strip_prefix("- cmd: ").unwrap_or(line);
        let line = match line.strip_prefix(": ").and_then(|rest| rest.split_once(';')) {
            Some((_, command)) => command,
            None => line,
        };
        if line.len() > 4096 || line.starts_with('#') {
            continue;
        }
        if let Some(hit) = identify::best(pack, &identify::shell_words(line)).filter(|hit| hit.weight >= 50) {
            *counts.entry(hit.product).or_insert(0) += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_are_counted_by_program() {
        let pack = crate::sweep::pack::embedded();
        let text = "claude -p x\n: 1700000000:0;claude\ngoose up\n- cmd: codex exec y\ngrep claude x\n#1700\nvim CLAUDE.md\n";
        let counts = count_history(pack, text);
        let named: Vec<(&str, u64)> =
            counts.iter().filter_map(|(at, n)| Some((pack.product(*at)?.id.as_str(), *n))).collect();
        assert_eq!(named, [("claude-code", 2), ("codex-cli", 1)]);
    }
}
