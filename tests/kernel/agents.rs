//! Family `agents`: real agent CLIs, driven by a scripted model on loopback, and all they do is theirs.
//!
//! What must be attributed is known from outside the monitor: the files that were written, the programs that the
//! script names, and the connections that the model endpoint took.

use agent_monitor_tests::agent::{
    Agent, CLAUDE_CODE, CODEX, MINI_SWE_AGENT, Place, QWEN_CODE, RecognisedBy, install,
};
use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::case::{Case, Skip, Verdict};
use agent_monitor_tests::harness::event::Event;
use agent_monitor_tests::harness::expect::brief;
use agent_monitor_tests::harness::monitor::Setup;
use agent_monitor_tests::harness::registry::{Match, Record};
use agent_monitor_tests::harness::world::{self, World};
use agent_monitor_tests::model::Endpoint;
use agent_monitor_tests::sys::wait;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const CASES: &[Case] = &[
    Case::host("codex", || attributed(&CODEX)),
    Case::host("qwen_code", || attributed(&QWEN_CODE)),
    Case::host("claude_code", || attributed(&CLAUDE_CODE)),
    Case::host("mini_swe_agent", || attributed(&MINI_SWE_AGENT)),
];

/// How long an agent may take for its three turns.
const AGENT_LIMIT: Duration = Duration::from_secs(180);

struct Session {
    pid: u32,
    elapsed: Duration,
}

fn attributed(agent: &Agent) -> Verdict {
    let installed = match install(&agent.source) {
        Ok(installed) => installed,
        Err(reason) => return Skip::because(reason),
    };
    world::close();
    let setup = Setup::new();
    let (home, work) = (setup.scratch.dir("agent/home"), setup.scratch.dir("agent/work"));
    let entry = agent.entry_path(&installed);
    let rule = match agent.by {
        RecognisedBy::Script => Match::script(&entry),
        RecognisedBy::Exe => Match::exe(&entry),
        RecognisedBy::Argv => Match::argv(&["python3", &entry]),
    };
    let world = World::start(setup.record(&Record::new(agent.id).on(rule)));
    let mut place = Place { home, work, url: String::new() };
    let endpoint = Endpoint::start((agent.script)(&place)).unwrap();
    place.url = endpoint.base_url();
    let session = run(agent.command(&installed, &place), &world);
    agent
        .check_effects(&place)
        .unwrap_or_else(|wrong| panic!("the agent did not do its work: {wrong}\n{}", said(&world)));
    assert_eq!(endpoint.steps_served(), (agent.script)(&place).len(), "steps that the model was asked for");
    world.settle_now();
    check_effects(agent, &world, &place);
    check_connections(agent, &world, &endpoint);
    check_tree(agent, &world, &session);
    figures(agent, &world, &session);
    Ok(())
}

/// Runs the agent to its end; what it says goes to files.
fn run(mut command: Command, world: &World) -> Session {
    let scratch = &world.daemon.setup.scratch;
    let file = |name: &str| std::fs::File::create(scratch.path(name)).unwrap();
    command.stdin(Stdio::null()).stdout(file("agent/out")).stderr(file("agent/err"));
    let start = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let gone = wait::pidfd(child.id()).unwrap();
    let ended = wait::readable(&[gone.as_fd()], AGENT_LIMIT).unwrap() == [true];
    if !ended {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    assert!(ended && status.success(), "the agent: {status}, ended by itself: {ended}\n{}", said(world));
    Session { pid: child.id(), elapsed: start.elapsed() }
}

fn said(world: &World) -> String {
    let read =
        |name: &str| std::fs::read_to_string(world.daemon.setup.scratch.path(name)).unwrap_or_default();
    let (out, err) = (read("agent/out"), read("agent/err"));
    let tail = |text: &str| {
        text.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    };
    format!("--- agent's stdout\n{}\n--- agent's stderr\n{}", tail(&out), tail(&err))
}

/// The shell command and both files.
fn check_effects(agent: &Agent, world: &World, place: &Place) {
    let echo = Path::new("/bin/echo").canonicalize().unwrap();
    let exec = world.feed.expect("the scripted command").kind("process.exec").exe(echo.to_str().unwrap());
    let exec = exec.agent(agent.id).exactly_once();
    assert_eq!(exec.process.unwrap().args, ["/bin/echo", "from-shell"]);
    for path in [place.shell_file(), place.edited_file()] {
        let path = path.to_str().unwrap().to_owned();
        // Some write in place, some write beside it and rename.
        let writes = move |e: &Event| {
            let file = e.file.as_ref()?;
            let opened = file.path.as_ref() == Some(&path)
                && file.access.iter().any(|a| a == "write" || a == "create");
            let moved = e.kind == "file.rename" && file.new_path.as_ref() == Some(&path);
            (opened || moved).then(|| "yes".to_owned())
        };
        let written = world.feed.expect("the file that was written").family("file").agent(agent.id);
        written.that("writes it", "yes", writes).at_least_once();
    }
}

fn inet_remotes(events: &[Event], id: &str) -> Vec<SocketAddr> {
    let connects = events.iter().filter(|e| e.kind == "network.connect" && e.agent_id() == Some(id));
    let remotes = connects.filter_map(|e| e.network.as_ref()?.remote.as_ref()?.parse::<SocketAddr>().ok());
    // Port 0 is how libraries ask the kernel for a route; nothing is sent.
    remotes.filter(|addr| addr.port() != 0).collect()
}

/// As many connections as the endpoint took are the agent's, and none goes anywhere else than loopback.
fn check_connections(agent: &Agent, world: &World, endpoint: &Endpoint) {
    let remotes = world.feed.with(|events| inet_remotes(events, agent.id));
    let to_model = remotes.iter().filter(|addr| addr.port() == endpoint.port()).count();
    assert_eq!(to_model, endpoint.accepted(), "connects to the model that are the agent's, of those it took");
    let abroad: Vec<_> = remotes.iter().filter(|addr| !addr.ip().is_loopback()).collect();
    assert!(abroad.is_empty(), "the agent connected to {abroad:?}");
}

/// Nothing of the tree is anybody else's or nobody's. Execs are reported for unattributed processes too, with
/// their ancestry, so one that slipped through would show.
fn check_tree(agent: &Agent, world: &World, session: &Session) {
    let root = session.pid;
    let late = agent.by == RecognisedBy::Argv;
    let first = |e: &Event| e.pid() == Some(root) && e.agent_id() == Some(agent.id);
    assert!(world.feed.wait_for(PATIENCE, first), "nothing of the agent's own process {root} is attributed");
    world.feed.with(|events| {
        let of_tree = |e: &&Event| {
            let process = e.process.as_ref();
            let below = process.is_some_and(|p| p.ancestry.iter().any(|a| a.pid == root));
            below || (e.pid() == Some(root) && !late)
        };
        let strays: Vec<String> =
            events.iter().filter(of_tree).filter(|e| e.agent_id() != Some(agent.id)).map(brief).collect();
        assert!(strays.is_empty(), "events of the tree that are not the agent's: {strays:#?}");
        let exits = events.iter().filter(|e| e.kind == "process.exit" && e.pid() == Some(root)).count();
        assert_eq!(exits, 1, "exit of the agent's own process");
    });
}

fn figures(agent: &Agent, world: &World, session: &Session) {
    let (kinds, pids) = world.feed.with(|events| {
        let (mut kinds, mut pids) = (BTreeMap::<String, u64>::new(), BTreeSet::new());
        for event in events.iter().filter(|e| e.agent_id() == Some(agent.id)) {
            *kinds.entry(event.kind.clone()).or_default() += 1;
            pids.extend(event.pid());
        }
        (kinds, pids)
    });
    let all: u64 = kinds.values().sum();
    let by_kind: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    println!(
        "\nFIGURES agents::{}: {} {} in {:.1} s, {all} events of {} processes attributed: {}",
        agent.id,
        agent.source.package(),
        agent.source.version(),
        session.elapsed.as_secs_f64(),
        pids.len(),
        by_kind.join(", ")
    );
}
