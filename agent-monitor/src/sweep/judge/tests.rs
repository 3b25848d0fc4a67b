//! Process trees with agents in them, and such without.

use super::*;
use crate::sweep::pack::embedded;

#[derive(Default)]
struct Known {
    imports: BTreeMap<String, Vec<String>>,
    agent: BTreeMap<u32, String>,
    edited: BTreeMap<u32, String>,
    /// Whose files were looked at.
    looked_at: Vec<u32>,
}

impl Ask for Known {
    fn imports(&mut self, _: &Proc, script: &str) -> Vec<String> {
        self.imports.get(script).cloned().unwrap_or_default()
    }
    fn agent(&mut self, proc: &Proc, _: Option<&str>) -> Option<(String, bool)> {
        Some((self.agent.get(&proc.pid)?.clone(), false))
    }
    fn canonical(&mut self, _: &Proc, path: &str) -> Option<String> {
        (path == "/home/a/.local/bin/qwen")
            .then(|| "/n/lib/node_modules/@qwen-code/qwen-code/cli.js".to_owned())
    }
    fn version(&mut self, _: &Proc, path: &str) -> Option<(String, String)> {
        path.contains("/node_modules/").then(|| ("1.2.3".to_owned(), path.to_owned()))
    }
    fn edited(&mut self, proc: &Proc) -> Option<String> {
        self.looked_at.push(proc.pid);
        self.edited.get(&proc.pid).cloned()
    }
    fn provider(&mut self, peer: SocketAddr) -> Option<String> {
        (peer.ip().to_string() == "203.0.113.9").then(|| "api.example".to_owned())
    }
}

fn proc(pid: u32, ppid: u32, exe: &str, line: &str) -> Proc {
    let args = line.split(' ').map(str::to_owned).collect();
    Proc {
        pid,
        ppid,
        exe: Some(exe.to_owned()),
        args,
        cwd: Some("/w".to_owned()),
        uid: 1000,
        ..Proc::default()
    }
}

fn told(procs: Vec<Proc>, ask: &mut Known) -> Vec<(String, u8, Source)> {
    let observations = judge(embedded(), &Processes::new(procs), ask);
    let name = |about: &About| match about {
        About::Product(index) => embedded().product(*index).map(|p| p.id.clone()).unwrap_or_default(),
        About::HomeMade(path) => format!("home-made {path}"),
        About::McpServer(path) => format!("mcp {path}"),
    };
    observations
        .iter()
        .filter(|o| o.weight >= 30 && !o.ambiguous)
        .map(|o| (name(&o.about), o.weight, o.source))
        .collect()
}

fn modules(script: &str, names: &[&str]) -> Known {
    let names = names.iter().map(ToString::to_string).collect();
    Known { imports: BTreeMap::from([(script.to_owned(), names)]), ..Known::default() }
}

#[test]
fn an_agent_its_flags_and_its_children() {
    let mut agent = proc(
        10,
        1,
        "/usr/bin/node",
        "node /usr/lib/node_modules/@openai/codex/bin/codex.js exec --full-auto",
    );
    agent.provider_variables = vec!["OPENAI_API_KEY".to_owned()];
    agent.uid = 0;
    let mut child = proc(11, 10, "/usr/bin/bash", "bash -c ls");
    let codex = embedded().find("codex-cli").unwrap();
    child.markers = BTreeSet::from([codex]);
    let seen = judge(embedded(), &Processes::new(vec![agent, child]), &mut Known::default());
    let [only] = seen.as_slice() else { panic!("{seen:#?}") };
    let marks: Vec<&str> = only.risks.iter().map(|risk| risk.mark.as_str()).collect();
    assert_eq!(marks, ["unsafe_flags", "runs_as_root", "keys_in_reach"]);
    assert_eq!(only.version.as_deref(), Some("1.2.3"));
    assert_eq!(only.process.as_ref().unwrap().shown.pid, 10);
}

#[test]
fn an_orphan_with_a_mark_is_a_sign_and_ends_at_the_topmost() {
    let claude = embedded().find("claude-code").unwrap();
    let mark = |mut proc: Proc| {
        proc.markers = BTreeSet::from([claude]);
        proc
    };
    let procs = vec![mark(proc(20, 1, "/bin/bash", "bash x")), mark(proc(21, 20, "/bin/sleep", "sleep 9"))];
    let found = told(procs, &mut Known::default());
    assert_eq!(found, [("claude-code".to_owned(), 60, Source::Environment)]);
}

#[test]
fn home_made_agents_are_told_by_what_they_do() {
    let bot = || proc(30, 1, "/usr/bin/python3.12", "python3 /srv/bot.py");
    let found = told(vec![bot()], &mut modules("/srv/bot.py", &["os", "crewai"]));
    assert_eq!(found, [("home-made /srv/bot.py".to_owned(), 55, Source::Imports)]);
    // A library alone is not enough; with a provider and shells it is.
    assert_eq!(told(vec![bot()], &mut modules("/srv/bot.py", &["openai"])), []);
    let mut talks = bot();
    talks.peers = vec!["203.0.113.9:443".parse().unwrap()];
    let shell = proc(31, 30, "/usr/bin/bash", "bash -c ls");
    let found = told(vec![talks.clone(), shell], &mut modules("/srv/bot.py", &["openai"]));
    assert_eq!(found, [("home-made /srv/bot.py".to_owned(), 67, Source::Imports)]);
    // So it is with files that change, and those of a process that does not speak to models are not looked at.
    let edits = |pid| BTreeMap::from([(pid, "/w/plan.md".to_owned())]);
    let mut ask = Known { edited: edits(30), ..modules("/srv/bot.py", &["openai"]) };
    let found = told(vec![bot()], &mut ask);
    assert_eq!(found, [("home-made /srv/bot.py".to_owned(), 37, Source::Imports)]);
    let found = told(vec![talks.clone()], &mut Known { edited: edits(30), ..Known::default() });
    assert_eq!(found, [("home-made /srv/bot.py".to_owned(), 50, Source::Connection)]);
    let mut silent = Known { edited: edits(30), ..modules("/srv/bot.py", &["os"]) };
    assert_eq!(told(vec![bot()], &mut silent), []);
    assert!(silent.looked_at.is_empty(), "{:?}", silent.looked_at);
    // A compiled one: connection and key.
    let mut binary = proc(32, 1, "/opt/thing", "/opt/thing --loop");
    binary.peers = talks.peers;
    binary.provider_variables = vec!["OPENAI_API_KEY".to_owned()];
    assert_eq!(told(vec![binary.clone()], &mut Known::default()).len(), 1);
    binary.exe = Some("/usr/bin/firefox".to_owned());
    assert_eq!(told(vec![binary], &mut Known::default()), [], "people use browsers");
}

#[test]
fn a_local_model_makes_a_loopback_peer_a_sign() {
    let mut server = proc(40, 1, "/usr/local/bin/ollama", "ollama serve");
    server.listens = vec!["0.0.0.0:11434".parse().unwrap()];
    let mut bot = proc(41, 1, "/usr/bin/python3", "python3 /srv/bot.py");
    bot.peers = vec!["127.0.0.1:11434".parse().unwrap()];
    let shell = proc(42, 41, "/usr/bin/sh", "sh -c ls");
    let seen = judge(embedded(), &Processes::new(vec![server, bot, shell]), &mut Known::default());
    let ollama = seen.iter().find(|o| o.source == Source::Process).unwrap();
    assert!(
        ollama
            .risks
            .iter()
            .any(|risk| risk.mark == "listens_beyond_loopback" && risk.detail == "0.0.0.0:11434")
    );
    assert!(seen.iter().any(|o| o.about == About::HomeMade("/srv/bot.py".to_owned())));
}

#[test]
fn a_piped_child_of_an_agent_that_speaks_mcp_is_a_server() {
    let agent = proc(50, 1, "/opt/claude", "claude");
    let mut server = proc(51, 50, "/usr/bin/python3", "python3 /srv/tools.py");
    server.piped = true;
    let found = told(vec![agent, server], &mut modules("/srv/tools.py", &["mcp.server"]));
    assert!(found.contains(&("mcp /srv/tools.py".to_owned(), 75, Source::Process)), "{found:?}");
}

#[test]
fn what_a_registered_agent_starts_is_its_own() {
    let mut ask = Known { agent: BTreeMap::from([(60, "ci".to_owned())]), ..Known::default() };
    let procs = vec![proc(60, 1, "/bin/bash", "bash /srv/ci.sh"), proc(61, 60, "/opt/claude", "claude -p x")];
    let seen = judge(embedded(), &Processes::new(procs), &mut ask);
    let [claude] = seen.as_slice() else { panic!("{seen:#?}") };
    assert_eq!(claude.process.as_ref().unwrap().agent, Some(("ci".to_owned(), false)));
}

#[test]
fn look_alikes_and_plain_services_are_nothing_much() {
    let mut web = proc(70, 1, "/usr/bin/python3", "python3 -m http.server 8000");
    web.listens = vec!["0.0.0.0:8000".parse().unwrap()];
    let mut node = proc(71, 1, "/usr/bin/node", "node /srv/app/server.js");
    node.listens = vec!["0.0.0.0:3000".parse().unwrap()];
    let goose = proc(72, 1, "/usr/local/bin/goose", "goose up");
    let aide = proc(73, 1, "/usr/bin/aide", "aide --check");
    let vim = proc(74, 1, "/usr/bin/vim", "vim claude.md");
    assert_eq!(told(vec![web, node, goose, aide, vim], &mut Known::default()), []);
}

#[test]
fn links_lead_to_packages_and_wrappers_are_not_counted_beside_what_they_start() {
    let wrapper = proc(80, 1, "/usr/bin/timeout", "timeout 20 /home/a/.local/bin/qwen --acp");
    let qwen = proc(81, 80, "/usr/bin/node", "node /home/a/.local/bin/qwen --acp");
    let seen = judge(embedded(), &Processes::new(vec![wrapper, qwen]), &mut Known::default());
    assert!(seen.iter().all(|o| o.at == "pid 81"), "{seen:#?}");
    let best = seen.iter().max_by_key(|o| o.weight).unwrap();
    assert_eq!((best.weight, best.version.as_deref()), (95, Some("1.2.3")));
}

mod neighbours;
