//! A find → a record to fill in: match and a first scope. Owner and purpose are left out on purpose, so that
//! `agent check` refuses it until a person has answered for it. Pure.

use std::collections::BTreeSet;

use super::pack::Pack;
use super::report::{Find, ProcessRef, Product, State};
use crate::registry::{format::quote, shared::shared_kind};

/// What a person answers for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Who answers for the agent.
    pub owner: Option<String>,
    /// What it is for.
    pub purpose: Option<String>,
    /// When it ends, RFC 3339.
    pub expires: Option<String>,
}

/// Agent id for a product: its own, with a bit of the find's where several could have it.
#[must_use]
pub fn agent_id(product: &Product, find: &str) -> String {
    let variant = product.variant.as_deref().and_then(|variant| variant.rsplit('/').next());
    let base = match product.id.as_str() {
        super::correlate::HOME_MADE | super::correlate::MCP_SERVER => variant.unwrap_or(&product.id),
        id => variant.unwrap_or(id),
    };
    let base = base
        .rsplit_once('.')
        .filter(|(stem, end)| !stem.is_empty() && end.len() <= 3)
        .map_or(base, |(s, _)| s);
    let mut name: String = base
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(48)
        .collect();
    while name.contains("--") {
        name = name.replace("--", "-");
    }
    let name = name.trim_matches('-');
    let tail = find.rsplit('-').next().unwrap_or(find);
    let tail: String = tail.chars().take(6).collect();
    if name.is_empty() { format!("agent-{tail}") } else { format!("{name}-{tail}") }
}

/// The record as TOML.
#[must_use]
pub fn record(find: &Find, pack: &Pack, answer: &Answer, home: Option<&str>) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text);
        out.push('\n');
    };
    let comment = |text: &str| crate::registry::diagnostic::escape(text).replace('\n', " ");
    line(&format!(
        "# {} ({}), found by agent-monitor sweep as {}",
        comment(&find.product.name),
        find.state.as_str(),
        find.id
    ));
    for evidence in find.evidence.iter().take(3) {
        line(&format!("# {}: {}", comment(&evidence.at), comment(&evidence.what)));
    }
    line("[agent]");
    line(&format!("id = {}", quote(&agent_id(&find.product, &find.id))));
    for (key, value, what) in [
        ("owner", &answer.owner, "who answers for it, such as \"team@example.com\""),
        ("purpose", &answer.purpose, "what it is for, in a sentence"),
    ] {
        match value {
            Some(value) => line(&format!("{key} = {}", quote(value))),
            None => line(&format!("# {key} =    # {what}")),
        }
    }
    match &answer.expires {
        Some(expires) => line(&format!("expires = {expires}")),
        None => line("# expires =    # when it ends, such as 2027-06-30T00:00:00Z"),
    }
    line("mode = \"observe\"");
    let Matches { found, unknown } = matches(find);
    for text in &unknown {
        line(&format!("\n# {}", comment(text)));
    }
    if found.is_empty() && !unknown.is_empty() {
        line(
            "# Find out which program or script the agent itself is (`ps -ef --forest`, `systemctl status PID`), and name",
        );
        line("# it here; `agent-monitor agent check` refuses the record until then.");
        line("[[match]]\n# exe =       # the agent's own program, such as \"/opt/bot/bin/bot\"");
        line("# script =    # or its script, such as \"/srv/bot.py\"");
    } else if found.is_empty() {
        line("\n# Nothing of it was seen to run: name its program, or launch it with `agent-monitor exec`.");
        line("[[match]]\nlaunch = true");
    }
    found.iter().for_each(|text| line(text));
    line("\n[scope]\ndefault = \"audit\"");
    for path in writable(find, home) {
        line(&format!(
            "\n[[scope.file]]\npath = {}\naccess = [\"read\", \"write\", \"create\", \"delete\"]",
            quote(&path)
        ));
    }
    let hosts: BTreeSet<&String> = pack
        .find(&find.product.id)
        .and_then(|index| pack.product(index))
        .map(|product| product.list("hosts").iter().collect())
        .unwrap_or_default();
    for host in hosts.into_iter().filter(|host| is_plain_host(host)) {
        line(&format!("\n[[scope.net]]\nto = {}", quote(&format!("{host}:443/tcp"))));
    }
    out
}

/// Only what a rule can hold: host names without path or scheme.
fn is_plain_host(host: &str) -> bool {
    host.contains('.') && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
}

/// A path that a record can name: as the kernel gives it, without what only a hostile name holds.
fn is_plain(path: &str) -> bool {
    path.starts_with('/')
        && path.len() < 1024
        && !path.contains(|c: char| c.is_control() || matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\'))
        && path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."))
}

/// `[[match]]` tables, and what was seen that gives none.
#[derive(Default)]
struct Matches {
    found: BTreeSet<String>,
    unknown: BTreeSet<String>,
}

/// By script, by program, or by what starts it; never by what others run too.
fn matches(find: &Find) -> Matches {
    let mut out = Matches::default();
    let owner = &find.owner;
    let user = |uid: Option<u32>| match (uid.or(owner.uid), &owner.user) {
        (uid, Some(name)) if uid == owner.uid => format!("\nuser = {}", quote(name)),
        (Some(uid), _) => format!("\nuser = {uid}"),
        (None, _) => String::new(),
    };
    for process in &find.processes {
        match of_process(process) {
            Ok(Some(text)) if process.container.is_some() => out.found.insert(text),
            Ok(Some(text)) => out.found.insert(format!("{text}{}", user(process.uid))),
            Ok(None) => continue,
            Err(text) => out.unknown.insert(text),
        };
    }
    if find.processes.is_empty() && find.state >= State::Installed && find.owner.container.is_none() {
        let program =
            |path: &&String| path.contains("/bin/") && is_plain(path) && shared_kind(path).is_none();
        for path in find.paths.iter().filter(program).take(4) {
            out.found.insert(format!("\n[[match]]\nexe = {}{}", quote(path), user(None)));
        }
    }
    out.found = out.found.into_iter().take(8).collect();
    out.unknown = out.unknown.into_iter().take(8).collect();
    out
}

/// What recognises a process without its user; an error says why nothing does.
fn of_process(process: &ProcessRef) -> Result<Option<String>, String> {
    let exe = process.exe.as_deref();
    let name = exe.unwrap_or("a program that could not be seen");
    if process.marked {
        return Err(format!(
            "pid {} ({name}) was started by the agent and is not the agent; which program set its mark is not known.",
            process.pid
        ));
    }
    if let Some(container) = &process.container {
        return Ok(Some(format!("\n[[match]]\ncontainer = {}", quote(container))));
    }
    let script = process.script.as_deref();
    if let Some(script) = script.filter(|script| is_plain(script) && shared_kind(script).is_none()) {
        return Ok(Some(format!("\n[[match]]\nscript = {}", quote(script))));
    }
    if let Some(module) = script.and_then(|script| script.strip_prefix("-m "))
        && shared_kind(module.split('.').next().unwrap_or(module)).is_none()
    {
        return Ok(Some(format!("\n[[match]]\nargv = [\"python*\", \"-m\", {}]", quote(module))));
    }
    match (exe, exe.and_then(shared_kind)) {
        (Some(_), Some(kind)) => Err(format!(
            "pid {} runs {name}, {}: a match of it would take all that others run by it.",
            process.pid,
            kind.in_words()
        )),
        (Some(exe), None) if is_plain(exe) => Ok(Some(format!("\n[[match]]\nexe = {}", quote(exe)))),
        _ => Ok(None),
    }
}

/// Where it was seen to keep its state and to work.
fn writable(find: &Find, home: Option<&str>) -> Vec<String> {
    let state = find.evidence.iter().filter(|e| e.source == "state").map(|e| e.at.clone());
    let cwd = find.processes.iter().filter_map(|process| process.cwd.clone());
    let too_wide =
        |path: &String| path == "/" || Some(path.as_str()) == home || path.matches('/').count() < 2;
    let mut paths: Vec<String> = state.chain(cwd).filter(|path| is_plain(path) && !too_wide(path)).collect();
    paths.sort();
    paths.dedup();
    // What lies below another is covered by it.
    let all = paths.clone();
    let covered =
        |path: &String| all.iter().any(|other| path.strip_prefix(other).is_some_and(|r| r.starts_with('/')));
    paths.retain(|path| !covered(path));
    paths.truncate(24);
    paths.iter().map(|path| if looks_like_file(path) { path.clone() } else { format!("{path}/**") }).collect()
}

fn looks_like_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.trim_start_matches('.').contains('.')
}

#[cfg(test)]
mod shared_tests;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sweep::correlate::{HOME_MADE, find_id};
    use crate::sweep::pack::embedded;
    use crate::sweep::report::{
        Confidence, Evidence, Owner, ProcessRef, ProductKind, Registry, RegistryState, Strength,
    };

    fn find(product: &str, variant: Option<String>, exe: &str, cwd: &str, at: &str, user: &str) -> Find {
        let product = Product {
            id: product.to_owned(),
            name: at.to_owned(),
            kind: ProductKind::CliAgent,
            variant,
            version: None,
        };
        let evidence = |source: &str| Evidence {
            source: source.to_owned(),
            strength: Strength::Strong,
            what: at.to_owned(),
            at: at.to_owned(),
            when: None,
        };
        let process = ProcessRef {
            pid: 7,
            exe: Some(exe.to_owned()),
            cwd: Some(cwd.to_owned()),
            ..ProcessRef::default()
        };
        Find {
            id: find_id(&product.id, product.variant.as_deref(), Some(1000), None),
            product,
            identity: Confidence::of(90),
            presence: Confidence::of(99),
            state: State::Running,
            registry: Registry { state: RegistryState::Shadow, agent: None },
            owner: Owner { uid: Some(1000), user: Some(user.to_owned()), ..Owner::default() },
            paths: vec![exe.to_owned()],
            processes: vec![process],
            mcp_servers: Vec::new(),
            evidence: vec![evidence("process"), evidence("state")],
            risks: Vec::new(),
            fix: None,
            change: None,
            history_count: None,
        }
    }

    fn errors(text: &str) -> Vec<String> {
        let parsed = crate::registry::parse_record(text, std::path::Path::new("p.toml"));
        parsed.diagnostics.iter().filter(|d| d.is_error()).map(|d| d.render()).collect()
    }

    fn answered() -> Answer {
        let some = |text: &str| Some(text.to_owned());
        Answer { owner: some("a@example.com"), purpose: some("x"), expires: some("2027-06-30T00:00:00Z") }
    }

    #[test]
    fn only_what_a_person_must_say_is_missing() {
        let find = find("claude-code", None, "/opt/claude", "/srv/work", "/home/a/.claude", "a");
        let text = record(&find, embedded(), &Answer::default(), Some("/home/a"));
        let missing = errors(&text);
        assert_eq!(missing.len(), 3, "{missing:#?}");
        for key in ["agent.owner", "agent.purpose", "agent.expires"] {
            assert!(missing.iter().any(|error| error.contains(&format!("{key} is missing"))), "{key}");
        }
        let text = record(&find, embedded(), &answered(), Some("/home/a"));
        assert_eq!(errors(&text), Vec::<String>::new(), "{text}");
        for part in [
            "exe = \"/opt/claude\"",
            "\"/home/a/.claude/**\"",
            "\"/srv/work/**\"",
            "api.anthropic.com:443/tcp",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn ids_are_agent_ids_and_tell_finds_apart() {
        let id = |product: &str, variant: Option<&str>, find: &str| {
            let product = Product {
                id: product.to_owned(),
                name: String::new(),
                kind: ProductKind::Framework,
                variant: variant.map(str::to_owned),
                version: None,
            };
            agent_id(&product, find)
        };
        assert_eq!(id("claude-code", None, "shadow-0123456789ab"), "claude-code-012345");
        assert_eq!(id(HOME_MADE, Some("/srv/My Bot.py"), "shadow-abcdef"), "my-bot-abcdef");
        assert_eq!(id(HOME_MADE, Some("/srv/…"), "shadow-abcdef"), "agent-abcdef");
    }

    proptest! {
        #[test]
        fn whatever_things_are_called_the_record_is_one(
            variant in proptest::option::of(".{0,40}"),
            exe in "/.{1,30}",
            cwd in "/.{1,30}",
            at in ".{1,40}",
            user in "[a-z_][a-z0-9_-]{0,20}",
        ) {
            let find = find(HOME_MADE, variant, &exe, &cwd, &at, &user);
            let text = record(&find, embedded(), &answered(), Some("/home/a"));
            let unknown = shared_kind(&exe).map(|_| "[[match]] has no condition".to_owned());
            let errors = errors(&text);
            match unknown {
                None => prop_assert_eq!(errors, Vec::<String>::new(), "{}", text),
                Some(part) => prop_assert!(errors.len() == 1 && errors[0].contains(&part), "{}", text),
            }
        }
    }
}
