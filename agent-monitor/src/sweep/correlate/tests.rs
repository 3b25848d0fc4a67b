//! Which observations are one find, how sure it is, and what the registry says of it.

use proptest::prelude::*;

use super::*;
use crate::sweep::observe::Seen;
use crate::sweep::pack::embedded;
use crate::sweep::report::{Level, McpServer, ProcessRef};

struct Names(Vec<(&'static str, &'static str, bool)>);

impl Registered for Names {
    fn of_paths(&self, paths: &[String], _: Option<u32>) -> Option<(String, bool)> {
        let found = self.0.iter().find(|(path, ..)| paths.iter().any(|p| p == path));
        found.map(|(_, agent, expired)| ((*agent).to_owned(), *expired))
    }

    fn is_retired(&self, agent: &str) -> bool {
        agent == "old-coder"
    }
}

fn about(id: &str) -> About {
    About::Product(embedded().find(id).unwrap())
}

fn of(uid: Option<u32>) -> Place {
    Place { uid, container: None }
}

fn seen(id: &str, uid: Option<u32>, source: Source, weight: u8, at: &str) -> Observation {
    let mut seen = Observation::new(about(id), of(uid), source, weight, "seen", at);
    seen.path = Some(at.to_owned());
    seen
}

fn running(id: &str, uid: u32, pid: u32, at: &str) -> Observation {
    let shown = ProcessRef { pid, ..ProcessRef::default() };
    let process = Some(Box::new(Seen { shown, ..Seen::default() }));
    Observation { process, ..seen(id, Some(uid), Source::Process, 95, at) }
}

fn finds(observations: Vec<Observation>, registered: &dyn Registered) -> Vec<Find> {
    correlate(embedded(), observations, &Users::default(), &BTreeMap::new(), registered)
}

#[test]
fn one_find_per_product_and_owner_and_installations_are_shared() {
    let found = finds(
        vec![
            seen("claude-code", None, Source::Package, 95, "/usr/lib/node_modules/@anthropic-ai/claude-code"),
            running("claude-code", 1000, 7, "/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js"),
            running("claude-code", 1000, 8, "/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js"),
            seen("claude-code", Some(1000), Source::State, 75, "/home/a/.claude"),
            seen("aider", Some(1001), Source::State, 75, "/home/b/.aider"),
        ],
        &Names(vec![]),
    );
    let [a, b] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!(
        (a.owner.uid, a.state, a.processes.len(), a.identity.level),
        (Some(1000), State::Running, 2, Level::High)
    );
    assert!(a.is_shadow());
    assert_eq!((b.owner.uid, b.state), (Some(1001), State::Traces));
    assert!(!b.is_shadow(), "what only left traces is not there");
    assert_ne!(a.id, b.id);
}

#[test]
fn shared_names_stay_low_however_many() {
    let shared =
        |source, at: &str| Observation { ambiguous: true, ..seen("goose", Some(1000), source, 30, at) };
    let found = finds(
        vec![
            shared(Source::Process, "pid 7"),
            shared(Source::Binary, "/usr/bin/goose"),
            shared(Source::State, "/home/a/.goose"),
            shared(Source::Listener, "pid 7"),
        ],
        &Names(vec![]),
    );
    assert_eq!((found.len(), found[0].identity.level, found[0].is_shadow()), (1, Level::Low, false));
}

#[test]
fn what_nobody_verified_is_never_high() {
    let sure = |id: &str| {
        let found = finds(
            vec![seen(id, Some(1), Source::Package, 95, "/x"), seen(id, Some(1), Source::State, 75, "/y")],
            &Names(vec![]),
        );
        found.first().map(|find| find.identity.level)
    };
    assert_eq!((sure("gptme"), sure("aider")), (Some(Level::Medium), Some(Level::High)));
}

#[test]
fn the_registry_decides() {
    let path = "/usr/bin/aider";
    let observed = || {
        vec![
            seen("aider", Some(1), Source::Binary, 90, path),
            seen("llm-sdk", Some(1), Source::Package, 95, "/x"),
        ]
    };
    let state = |names: Vec<_>| {
        let found = finds(observed(), &Names(names));
        let aider = found.iter().find(|find| find.product.id == "aider").unwrap();
        (aider.registry.state, aider.is_shadow(), aider.fix.is_some())
    };
    assert_eq!(state(vec![]), (RegistryState::Shadow, true, true));
    assert_eq!(state(vec![(path, "coder", false)]), (RegistryState::Registered, false, false));
    assert_eq!(state(vec![(path, "coder", true)]), (RegistryState::Expired, true, true));
    assert_eq!(state(vec![(path, "old-coder", false)]), (RegistryState::Retired, true, true));
    let sdk =
        finds(observed(), &Names(vec![])).into_iter().find(|find| find.product.id == "llm-sdk").unwrap();
    assert_eq!((sdk.registry.state, sdk.is_shadow()), (RegistryState::Component, false));
}

#[test]
fn servers_of_a_registered_client_are_its_own() {
    let server = McpServer {
        name: "fs".to_owned(),
        config: "/home/a/.claude.json".to_owned(),
        ..McpServer::default()
    };
    let client =
        Observation { servers: vec![server.clone()], ..running("claude-code", 1000, 7, "/opt/claude") };
    let own = Observation {
        servers: vec![server],
        variant: Some("@modelcontextprotocol/server-filesystem".to_owned()),
        ..seen("mcp-reference-servers", Some(1000), Source::McpConfig, 85, "/home/a/.claude.json")
    };
    let observed = vec![client, own];
    let registry = |names| {
        finds(observed.clone(), &Names(names)).into_iter().map(|f| f.registry.state).collect::<Vec<_>>()
    };
    assert_eq!(registry(vec![]), [RegistryState::Shadow; 2]);
    assert_eq!(registry(vec![("/opt/claude", "coder", false)]), [RegistryState::Registered; 2]);
}

#[test]
fn servers_of_a_group_are_told_apart_whatever_they_are_run_by() {
    let variant = |name: &str, source| Observation {
        variant: Some(name.to_owned()),
        ..seen("mcp-reference-servers", Some(1), source, 90, name)
    };
    let found = finds(
        vec![
            variant("@modelcontextprotocol/server-filesystem", Source::Package),
            variant("mcp-server-filesystem", Source::Process),
            variant("mcp-server-git", Source::Package),
            variant("mcp_server_git", Source::Process),
        ],
        &Names(vec![]),
    );
    let variants: Vec<_> = found.iter().filter_map(|find| find.product.variant.clone()).collect();
    assert_eq!(variants.len(), 2, "{variants:?}");
}

proptest! {
    #[test]
    fn more_signs_never_say_less_and_nothing_is_certain(weights in prop::collection::vec(0u8..=100, 0..12), more in 0u8..=100) {
        let before = together(weights.iter().copied());
        let after = together(weights.iter().copied().chain([more]));
        prop_assert!(after >= before && after < 100);
    }

    #[test]
    fn the_order_of_observations_means_nothing(order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle()) {
        let all = [
            running("aider", 1, 3, "/a"), seen("aider", Some(1), Source::State, 75, "/b"), running("aider", 2, 4, "/a"),
            seen("aider", None, Source::Package, 95, "/c"), seen("goose", Some(1), Source::State, 75, "/d"),
            seen("goose", Some(1), Source::Package, 95, "/e"),
        ];
        let shuffled = order.iter().map(|at| all[*at].clone()).collect();
        prop_assert_eq!(finds(shuffled, &Names(vec![])), finds(all.to_vec(), &Names(vec![])));
    }
}

mod neighbours;
