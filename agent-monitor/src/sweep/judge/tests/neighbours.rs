//! Each sign by itself, with the neighbour that is none.

use super::*;

fn all(procs: Vec<Proc>, ask: &mut Known) -> Vec<Observation> {
    judge(embedded(), &Processes::new(procs), ask)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn bot(pid: u32) -> Proc {
    proc(pid, 1, "/usr/bin/python3.12", "python3 /srv/bot.py")
}

fn codex(pid: u32, flags: &str) -> Proc {
    proc(pid, 1, "/usr/bin/node", &format!("node /usr/lib/node_modules/@openai/codex/bin/codex.js{flags}"))
}

fn marks(observation: &Observation) -> Vec<&str> {
    observation.risks.iter().map(|risk| risk.mark.as_str()).collect()
}

#[test]
fn behaviour_is_never_sure() {
    let mut busy = bot(30);
    busy.peers = vec![addr("203.0.113.9:443")];
    busy.provider_variables = vec!["OPENAI_API_KEY".to_owned()];
    let shell = proc(31, 30, "/usr/bin/bash", "bash -c ls");
    let mut ask = modules("/srv/bot.py", &["crewai", "openai"]);
    let found = told(vec![busy, shell], &mut ask);
    assert_eq!(found, [("home-made /srv/bot.py".to_owned(), BEHAVIOUR_MAX, Source::Imports)]);
}

#[test]
fn listeners_are_a_risk_only_where_others_reach_them() {
    let with = |listens: &[&str]| {
        let mut agent = codex(10, "");
        agent.listens = listens.iter().map(|text| addr(text)).collect();
        let seen = all(vec![agent], &mut Known::default());
        let first = seen.iter().find(|o| o.source == Source::Process).unwrap().clone();
        first.risks
    };
    assert_eq!(with(&["127.0.0.1:80", "[::1]:81"]), []);
    let open = with(&["127.0.0.1:80", "0.0.0.0:82", "10.0.0.1:83"]);
    assert_eq!((open.len(), open[0].detail.as_str()), (1, "0.0.0.0:82, 10.0.0.1:83"));
}

#[test]
fn a_flag_is_a_whole_argument() {
    let used = |flags: &str| all(vec![codex(10, flags)], &mut Known::default())[0].risks.len();
    assert_eq!(
        (used(" exec --full-auto"), used(" exec --full-automatic"), used(" exec x--full-auto")),
        (1, 0, 0)
    );
    assert!(has_flag(&["a".to_owned()], "a --mode x b", "--mode x"));
    assert!(!has_flag(&["a --mode y".to_owned()], "a --mode y", "--mode x"));
}

#[test]
fn what_is_not_roots_and_has_no_keys_is_no_risk() {
    let mut agent = codex(10, "");
    assert!(all(vec![agent.clone()], &mut Known::default())[0].risks.is_empty());
    agent.secret_variables = vec!["DB_PASSWORD".to_owned()];
    let seen = all(vec![agent.clone()], &mut Known::default());
    assert_eq!(marks(&seen[0]), ["keys_in_reach"]);
    agent.secret_variables.clear();
    agent.uid = 0;
    assert_eq!(marks(&all(vec![agent], &mut Known::default())[0]), ["runs_as_root"]);
}

#[test]
fn only_a_piped_child_of_an_agent_is_its_server() {
    let agent = || proc(50, 1, "/opt/claude", "claude");
    let server =
        |ppid: u32, piped| Proc { piped, ..proc(51, ppid, "/usr/bin/python3", "python3 /srv/tools.py") };
    let is_server = |procs, names: &[&str]| {
        all(procs, &mut modules("/srv/tools.py", names))
            .iter()
            .any(|o| matches!(o.about, About::McpServer(_)))
    };
    assert!(is_server(vec![agent(), server(50, true)], &["mcp.server"]));
    assert!(!is_server(vec![agent(), server(50, false)], &["mcp.server"]), "not over pipes");
    assert!(!is_server(vec![agent(), server(1, true)], &["mcp.server"]), "not of an agent");
    assert!(!is_server(vec![agent(), server(50, true)], &["os"]), "does not speak it");
}

#[test]
fn model_ports_are_those_of_this_host() {
    let mut server = proc(40, 1, "/usr/local/bin/ollama", "ollama serve");
    server.listens = vec![addr("127.0.0.1:11434")];
    let talks_to = |peer: &str| {
        let mut bot = bot(41);
        bot.peers = vec![addr(peer)];
        bot.provider_variables = vec!["OPENAI_API_KEY".to_owned()];
        let seen = all(vec![server.clone(), bot], &mut Known::default());
        seen.iter().any(|o| matches!(o.about, About::HomeMade(_)))
    };
    assert!(talks_to("127.0.0.1:11434"));
    assert!(!talks_to("10.0.0.9:11434"), "the same port elsewhere");
    assert!(!talks_to("127.0.0.1:11435"), "another port");
}

#[test]
fn a_mark_is_no_sign_below_its_own_agent() {
    let claude = embedded().find("claude-code").unwrap();
    let codex_index = embedded().find("codex-cli").unwrap();
    let marked = |pid: u32, ppid: u32, product| Proc {
        markers: BTreeSet::from([product]),
        ..proc(pid, ppid, "/bin/bash", "bash x")
    };
    let environment = |procs| {
        let seen = all(procs, &mut Known::default());
        seen.iter().filter(|o| o.source == Source::Environment).map(|o| o.at.clone()).collect::<Vec<_>>()
    };
    let agent = || proc(50, 1, "/opt/claude", "claude");
    assert!(environment(vec![agent(), marked(51, 50, claude), marked(52, 51, claude)]).is_empty());
    assert_eq!(environment(vec![agent(), marked(51, 50, codex_index)]), ["pid 51"], "another's mark");
    assert_eq!(environment(vec![marked(20, 1, claude), marked(21, 1, claude)]), ["pid 20", "pid 21"]);
    assert_eq!(environment(vec![marked(20, 1, claude), marked(21, 20, codex_index)]), ["pid 20", "pid 21"]);
}

#[test]
fn ports_that_everybody_uses_say_nothing() {
    let product = only_product_on(embedded(), 11434).unwrap();
    assert_eq!(embedded().product(product).unwrap().id, "ollama");
    for port in
        [0, 80, 443, 1023, 3000, 3003, 5000, 5003, 7860, 7777, 8000, 8080, 8100, 8787, 9222, 9997, 64999]
    {
        assert_eq!(only_product_on(embedded(), port), None, "{port}");
    }
    let mut quiet = proc(40, 1, "/opt/thing", "/opt/thing");
    quiet.listens = vec![addr("127.0.0.1:11434")];
    let seen = all(vec![quiet], &mut Known::default());
    assert_eq!(
        seen.iter().map(|o| (o.source, o.weight, o.ambiguous)).collect::<Vec<_>>(),
        [(Source::Listener, 25, true)]
    );
}

#[test]
fn what_is_shown_of_a_process_is_its_own() {
    let mut ask = Known { agent: BTreeMap::from([(70, "ci".to_owned())]), ..Known::default() };
    let other = codex(80, "");
    let mine = Proc { ppid: 70, ..codex(81, "") };
    let seen = all(vec![proc(70, 1, "/bin/bash", "bash /srv/ci.sh"), other, mine], &mut ask);
    let of = |pid: &str| seen.iter().find(|o| o.at == pid).unwrap().process.as_ref().unwrap();
    assert_eq!(of("pid 81").agent, Some(("ci".to_owned(), false)));
    assert_eq!(of("pid 80").agent, None, "an agent beside it is not its parent");
    assert_eq!(of("pid 81").parents.iter().map(|parent| parent.pid).collect::<Vec<_>>(), [70]);
    assert_eq!(
        of("pid 81").shown.script.as_deref(),
        Some("/usr/lib/node_modules/@openai/codex/bin/codex.js")
    );
}

#[test]
fn connections_of_a_product_are_shown_with_their_provider() {
    let mut agent = codex(10, "");
    agent.peers = vec![addr("198.51.100.1:443"), addr("203.0.113.9:443")];
    let seen = all(vec![agent.clone()], &mut Known::default());
    let connection: Vec<_> = seen.iter().filter(|o| o.source == Source::Connection).collect();
    assert_eq!((connection.len(), connection[0].weight), (1, 30));
    assert!(connection[0].what.contains("api.example (203.0.113.9:443)"), "{}", connection[0].what);
    agent.peers.pop();
    assert!(all(vec![agent], &mut Known::default()).iter().all(|o| o.source != Source::Connection));
}

#[test]
fn a_process_of_another_mount_namespace_is_elsewhere() {
    let plain = Proc { mount_ns: Some(5), ..bot(1) };
    assert_eq!(container_label(&plain), None);
    assert_eq!(container_label(&Proc { elsewhere: true, ..plain.clone() }).as_deref(), Some("mnt-5"));
    let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let docker = Proc { cgroup: Some(format!("/docker/{id}")), elsewhere: true, ..plain };
    assert_eq!(container_label(&docker).as_deref(), Some(id));
}
