//! Two users, containers, agents and sources: which finds are one, and which are not.

use super::*;
use crate::sweep::report::Parent;

fn one(observations: Vec<Observation>) -> Find {
    let mut found = finds(observations, &Names(vec![]));
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

fn in_container(observation: Observation, id: &str) -> Observation {
    let place = Place { container: Some(id.to_owned()), ..observation.place.clone() };
    Observation { place, ..observation }
}

fn users(found: &[Find]) -> Vec<(Option<u32>, Option<&str>)> {
    let mut of: Vec<_> = found.iter().map(|find| (find.owner.uid, find.owner.container.as_deref())).collect();
    of.sort_unstable();
    of
}

#[test]
fn what_says_too_little_is_no_find() {
    assert!(finds(vec![seen("aider", Some(1), Source::State, 14, "/a")], &Names(vec![])).is_empty());
    assert_eq!(one(vec![seen("aider", Some(1), Source::State, 15, "/a")]).identity.score, 15);
}

#[test]
fn an_installation_of_the_host_is_part_of_what_its_users_run_and_of_nobody_elses() {
    let system = || seen("aider", None, Source::Package, 95, "/usr/lib/aider");
    let process = || running("aider", 1000, 7, "/usr/lib/aider/main.py");
    assert_eq!(users(&finds(vec![system(), process()], &Names(vec![]))), [(Some(1000), None)]);
    let state = seen("aider", Some(1001), Source::State, 75, "/home/b/.aider");
    let found = finds(vec![system(), process(), state], &Names(vec![]));
    assert_eq!(users(&found), [(Some(1000), None), (Some(1001), None)]);
    assert!(found.iter().all(|find| find.paths.contains(&"/usr/lib/aider".to_owned())), "both use it");
    // A user of it in a container uses another installation, another product is another one.
    let elsewhere = in_container(process(), "c1");
    let found = finds(vec![system(), elsewhere, running("gptme", 1000, 9, "/x")], &Names(vec![]));
    assert_eq!(users(&found), [(None, None), (Some(1000), None), (Some(1000), Some("c1"))]);
    // Neither is a mere name, or another sort of sign, a use.
    let shared = Observation { ambiguous: true, ..process() };
    assert_eq!(finds(vec![system(), shared], &Names(vec![])).len(), 2);
    let config = seen("aider", Some(1000), Source::Binary, 90, "/home/a/bin/aider");
    assert_eq!(finds(vec![system(), config], &Names(vec![])).len(), 2);
    // Of two containers each has its own.
    let two = vec![in_container(system(), "c1"), in_container(system(), "c2"), in_container(process(), "c1")];
    assert_eq!(users(&finds(two, &Names(vec![]))), [(None, Some("c2")), (Some(1000), Some("c1"))]);
}

fn server(config: &str) -> McpServer {
    McpServer { name: "fs".to_owned(), config: config.to_owned(), ..McpServer::default() }
}

fn configured(uid: u32, configs: &[&str]) -> Observation {
    Observation {
        servers: configs.iter().map(|config| server(config)).collect(),
        variant: Some("@modelcontextprotocol/server-filesystem".to_owned()),
        ..seen("mcp-reference-servers", Some(uid), Source::McpConfig, 85, "/elsewhere")
    }
}

fn state_of_server(observations: Vec<Observation>) -> RegistryState {
    let found = finds(observations, &Names(vec![("/opt/claude", "coder", false)]));
    found.iter().find(|find| find.product.kind == ProductKind::McpServer).unwrap().registry.state
}

#[test]
fn a_server_belongs_to_a_registered_client_only_if_no_other_reads_it() {
    let client = |uid: u32, config: &str| Observation {
        servers: vec![server(config)],
        ..running("claude-code", uid, 7, "/opt/claude")
    };
    let own = "/home/a/.claude.json";
    assert_eq!(state_of_server(vec![client(1, own), configured(1, &[own])]), RegistryState::Registered);
    // Another client's configuration names it too.
    let other = "/home/a/.cursor/mcp.json";
    assert_eq!(state_of_server(vec![client(1, own), configured(1, &[own, other])]), RegistryState::Shadow);
    assert_eq!(state_of_server(vec![client(1, other), configured(1, &[own])]), RegistryState::Shadow);
    // Another user's, another container's, and one of no configuration.
    assert_eq!(state_of_server(vec![client(2, own), configured(1, &[own])]), RegistryState::Shadow);
    let inside = in_container(configured(1, &[own]), "c1");
    assert_eq!(state_of_server(vec![client(1, own), inside]), RegistryState::Shadow);
    assert_eq!(state_of_server(vec![client(1, own), configured(1, &[])]), RegistryState::Shadow);
    // A client that is not registered has nothing of its own.
    let unknown = Observation { path: Some("/opt/other".to_owned()), ..client(1, own) };
    assert_eq!(state_of_server(vec![unknown, configured(1, &[own])]), RegistryState::Shadow);
    let found =
        finds(vec![client(1, own), configured(1, &[own])], &Names(vec![("/opt/claude", "coder", false)]));
    let of = found.iter().find(|find| find.product.kind == ProductKind::McpServer).unwrap();
    assert_eq!((of.registry.agent.as_deref(), of.fix.is_none()), (Some("coder"), true));
}

#[test]
fn keys_are_in_reach_of_what_is_installed_by_the_same_owner() {
    let keys = BTreeMap::from([
        (of(Some(1)), (0..9).map(|n| format!("/home/a/key{n}")).collect()),
        (of(Some(2)), vec!["/home/b/key".to_owned()]),
        (of(Some(3)), Vec::new()),
    ]);
    let risks = |observation: Observation| {
        let found = correlate(embedded(), vec![observation], &Users::default(), &keys, &Names(vec![]));
        found[0].risks.iter().map(|risk| (risk.mark.clone(), risk.detail.clone())).collect::<Vec<_>>()
    };
    let package = |uid| seen("aider", Some(uid), Source::Package, 95, "/x");
    let shown = risks(package(1));
    assert_eq!(
        (shown.len(), shown[0].0.as_str(), shown[0].1.matches("key").count()),
        (1, "keys_in_reach", 8)
    );
    assert!(shown[0].1.ends_with("/home/a/key7") && !shown[0].1.contains("/home/b"));
    assert_eq!((risks(package(3)), risks(package(4))), (vec![], vec![]));
    assert_eq!(
        risks(seen("aider", Some(1), Source::State, 75, "/x")),
        [],
        "what only left traces reads nothing"
    );
    assert_eq!(risks(in_container(package(1), "c1")), [], "nor does what is elsewhere");
}

#[test]
fn what_is_sure_and_what_is_shared_add_up_each_for_itself() {
    let sure = |source, weight| seen("aider", Some(1), source, weight, "/a");
    let shared = |source, weight| Observation { ambiguous: true, ..sure(source, weight) };
    let score = |list: Vec<Observation>| one(list).identity.score;
    assert_eq!(score(vec![sure(Source::State, 50)]), 50);
    assert_eq!(score(vec![sure(Source::State, 50), sure(Source::State, 40)]), 50, "one source counts once");
    assert_eq!(score(vec![sure(Source::State, 50), sure(Source::Binary, 50)]), 75);
    assert_eq!(score(vec![shared(Source::State, 40), shared(Source::Binary, 40)]), AMBIGUOUS_MAX);
    assert_eq!(score(vec![shared(Source::State, 30)]), 30);
    assert_eq!(score(vec![sure(Source::State, 50), shared(Source::State, 40)]), 60);
    assert_eq!(together([100].into_iter()), 99);
    assert_eq!(together([200, 0].into_iter()), 99);
    assert_eq!(together([0, 0].into_iter()), 0);
}

#[test]
fn how_sure_it_is_there_follows_from_its_state() {
    let presence = |list: Vec<Observation>| (one(list.clone()).state, one(list).presence.score);
    let by = |source| vec![seen("aider", Some(1), source, 90, "/a")];
    assert_eq!(presence(by(Source::Process)), (State::Running, 99));
    assert_eq!(presence(by(Source::Package)), (State::Installed, 90));
    assert_eq!(presence(by(Source::Extension)), (State::Installed, 90));
    assert_eq!(presence(by(Source::Binary)), (State::Installed, 80));
    assert_eq!(presence(by(Source::McpConfig)), (State::Configured, 60));
    assert_eq!(presence(by(Source::State)), (State::Traces, 30));
    // A shared name in a configuration does not make it one that is configured.
    let mut shared = by(Source::McpConfig);
    shared[0].ambiguous = true;
    shared.extend(by(Source::State));
    assert_eq!(presence(shared), (State::Traces, 30));
}

#[test]
fn owners_are_named_on_the_host_and_numbers_in_a_container() {
    let parent = Parent { pid: 3, exe: Some("/bin/sh".to_owned()), uid: Some(1) };
    let with = |mut observation: Observation| {
        let process = observation.process.as_mut().unwrap();
        process.login_uid = Some(77);
        process.session = Some(5);
        process.parents = vec![parent.clone()];
        process.shown.unit = Some("x.service".to_owned());
        observation
    };
    let owner = one(vec![with(running("aider", 1, 7, "/a")), running("aider", 1, 6, "/a")]).owner;
    assert_eq!((owner.uid, owner.login_user.as_deref(), owner.session), (Some(1), Some("77"), Some(5)));
    assert_eq!((owner.started_by, owner.unit.as_deref()), (vec![parent.clone()], Some("x.service")));
    let found =
        one(vec![running("aider", 1, 8, "/a"), running("aider", 1, 7, "/a"), running("aider", 1, 8, "/b")]);
    assert_eq!(found.processes.iter().map(|process| process.pid).collect::<Vec<_>>(), [7, 8]);
    assert_eq!(found.paths, ["/a", "/b"]);
}

#[test]
fn ids_are_of_product_variant_user_and_container() {
    let ids = [
        find_id("a", None, None, None),
        find_id("b", None, None, None),
        find_id("a", Some("v"), None, None),
        find_id("a", None, Some(0), None),
        find_id("a", None, Some(1), None),
        find_id("a", None, None, Some("c")),
    ];
    let different: BTreeSet<_> = ids.iter().collect();
    assert_eq!(different.len(), ids.len(), "{ids:?}");
    assert_eq!(ids[0], find_id("a", None, None, None));
    assert!(ids.iter().all(|id| id.len() == "shadow-".len() + 12));
}

#[test]
fn names_of_servers_of_a_group_and_of_none() {
    let group = embedded().find("mcp-reference-servers").unwrap();
    let of = |variant| variant_of(embedded(), group, Some(variant));
    let expect = |name: &str| Some(name.to_owned());
    assert_eq!(of("@modelcontextprotocol/server-git"), expect("mcp-server-git"));
    assert_eq!(of("mcp_server_git"), expect("mcp-server-git"));
    assert_eq!(of("@other/server-git"), expect("server-git"));
    assert_eq!(of("@acme/mcp"), expect("acme/mcp"));
    assert_eq!(variant_of(embedded(), group, None), None);
    let aider = embedded().find("aider").unwrap();
    assert_eq!(variant_of(embedded(), aider, Some("aider-chat")), None, "no server");
}

#[test]
fn advice_follows_from_the_registry_and_from_how_sure_it_is() {
    let advice = |weight, names| {
        let found = finds(vec![seen("aider", Some(1), Source::Binary, weight, "/a")], &Names(names));
        found[0].fix.as_ref().map(|fix| fix.advice.clone())
    };
    assert!(advice(49, vec![]).unwrap().contains("look whether"));
    assert!(advice(50, vec![]).unwrap().contains("adopt"));
    assert!(advice(90, vec![("/a", "coder", true)]).unwrap().contains("`coder` has expired"));
    assert!(advice(90, vec![("/a", "old-coder", false)]).unwrap().contains("`old-coder` is retired"));
    assert_eq!(advice(90, vec![("/a", "coder", false)]), None);
    assert!(advice(90, vec![("/b", "coder", false)]).unwrap().contains("adopt"));
}

#[test]
fn the_version_is_that_of_the_sure_sign() {
    let with = |version: &str, ambiguous, at: &str| Observation {
        version: Some(version.to_owned()),
        ambiguous,
        ..seen("aider", Some(1), Source::Package, 90, at)
    };
    let version = |list: Vec<Observation>| one(list).product.version;
    assert_eq!(version(vec![with("1", true, "/a"), with("2", false, "/b")]).as_deref(), Some("2"));
    let variant = Observation { variant: Some("aider_chat".to_owned()), ..with("3", false, "/c") };
    assert_eq!(version(vec![with("2", false, "/b"), variant]).as_deref(), Some("3"));
    assert_eq!(version(vec![seen("aider", Some(1), Source::Package, 90, "/a")]), None);
}
