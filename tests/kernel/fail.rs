//! Fail direction: a table without room, a member that the kernel does not have. What the scope says of such a case happens,
//! and is counted. (Places too deep, a full ring, unknown socket families and a stopped daemon are rows of `escape`, `loss`
//! and `survive`.)

use std::os::unix::net::UnixListener;
use std::path::Path;

use agent_monitor_tests::harness::actor::{Actor, Mark};
use agent_monitor_tests::harness::case::{Case, Verdict};
use agent_monitor_tests::harness::client;
use agent_monitor_tests::harness::event::Event;
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::monitor::Setup;
use agent_monitor_tests::harness::registry::{Match, Record};
use agent_monitor_tests::harness::{PATIENCE, world};
use agent_monitor_tests::sys::bpf::PinnedMap;
use agent_monitor_tests::sys::wait;

use crate::survive::{self, Fixture, PORT, is_refused};

pub(crate) const CASES: &[Case] = &[
    Case::both("table_of_processes_is_full", table_of_processes_is_full),
    Case::both("table_of_places_is_full", table_of_places_is_full),
    Case::both("a_member_nothing_works_without", a_member_nothing_works_without),
    Case::vm("a_member_that_names_unix_sockets", a_member_that_names_unix_sockets),
];

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

fn map(fixture: &Fixture, name: &str) -> PinnedMap {
    PinnedMap::open(&fixture.daemon.setup.bpffs().join(format!("map_{name}"))).unwrap()
}

fn gap_of(reason: &str) -> impl Fn(&Event) -> bool + use<'_> {
    move |event| event.gap.as_ref().is_some_and(|gap| gap.reason == reason && gap.count > 0)
}

/// At level full task storage binds and the table does not matter; at level partial the cgroup programs know processes by the
/// table alone, so a process that finds no room ends before it does anything, new image and new process alike.
fn table_of_processes_is_full() -> Verdict {
    let fixture = survive::shared();
    fixture.holds("with room");
    let mut early = Actor::start(&fixture.bot, &["pause", "fork", "tcp-connect", PORT]);
    early.mark("PAUSED");
    let feed = fixture.daemon.feed();
    let table = map(&fixture, "PROCS");
    let junk = table.fill().unwrap();
    assert!(junk > 1000, "the table took {junk} entries only");
    if fixture.full {
        fixture.holds("without room");
    } else {
        let run = Actor::start(&fixture.bot, &fixture.acts(1)).finish();
        assert!(run.marks.is_empty(), "a program without an entry did something: {:?}", run.marks);
        fixture.stranger_passes("without room");
    }
    early.go();
    let run = early.finish();
    let tried: Vec<&Mark> = run.marks.iter().filter(|mark| mark.name == "tcp-connect").collect();
    let stopped = if fixture.full { tried.len() == 1 && is_refused(tried[0]) } else { tried.is_empty() };
    assert!(stopped, "a child without an entry: {:?}", run.marks);
    assert!(feed.wait_for(PATIENCE, gap_of("procs_full")), "the full table is not told");
    table.clear(junk).unwrap();
    fixture.holds("with room again");
    Ok(())
}

/// A scope that finds no room is not put in force, the one before stays, and the daemon says so.
fn table_of_places_is_full() -> Verdict {
    survive::close();
    let fixture = Fixture::new(Setup::new());
    fixture.holds("with room");
    let table = map(&fixture, "PLACES");
    let junk = table.fill().unwrap();
    let fewer: String =
        (0..9).map(|n| format!("[[scope.file]]\npath = \"/srv/{n}/**\"\nverdict = \"deny\"\n")).collect();
    let open = format!("[scope]\ndefault = \"allow\"\n{fewer}");
    let record = Record::new("bot").on(Match::exe(&fixture.bot)).enforce().degrade().scope(&open);
    record.write(&fixture.daemon.setup.registry());
    fixture.daemon.signal(libc::SIGHUP);
    let told = || fixture.daemon.output().contains("the old one stays");
    assert!(wait::until(PATIENCE, told), "a scope without room is not told\n{}", fixture.daemon.output());
    fixture.holds("after a scope that found no room");
    table.clear(junk).unwrap();
    fixture.daemon.signal(libc::SIGHUP);
    let passes = || {
        let run = Actor::start(&fixture.bot, &["tcp-connect", PORT]).finish();
        run.marks.iter().all(|mark| mark.facts.get("errno").is_some_and(|e| e == "ECONNREFUSED"))
    };
    assert!(wait::until(PATIENCE, passes), "the new scope is not in force\n{}", fixture.daemon.output());
    Ok(())
}

/// The kernel's types with one name made another.
fn types_without(setup: &Setup, name: &str) -> String {
    let mut types = std::fs::read(VMLINUX).unwrap();
    let wanted = [b"\0".as_slice(), name.as_bytes(), b"\0"].concat();
    let at = types.windows(wanted.len()).rposition(|window| window == wanted).unwrap();
    types[at + 1] = b'~';
    let path = setup.scratch.path("types");
    std::fs::write(&path, types).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A daemon that cannot work on this kernel does not start, says which member is missing, and leaves in force what is there.
fn a_member_nothing_works_without() -> Verdict {
    let mut fixture = survive::shared();
    fixture.holds("before");
    fixture.daemon.end_by(libc::SIGKILL);
    let types = types_without(&fixture.daemon.setup, "d_parent");
    let output = fixture.daemon.setup.command().args(["--btf", &types]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", client::describe(&output));
    let said = client::describe(&output);
    assert!(said.contains("no member d_parent in struct dentry"), "{said}");
    fixture.holds("after a daemon could not start");
    fixture.daemon.restart();
    fixture.holds("under the next daemon");
    Ok(())
}

/// Where the kernel does not show what a UNIX socket is called, the peer is what cannot be known: the scope's `unknown`.
fn a_member_that_names_unix_sockets() -> Verdict {
    world::close();
    survive::close();
    let mut setup = Setup::new();
    let types = types_without(&setup, "unix_sock");
    let place = setup.scratch.text("peer");
    let listener = UnixListener::bind(Path::new(&place)).unwrap();
    let scope = |unknown: &str| format!("[scope]\ndefault = \"allow\"\nunknown = \"{unknown}\"\n");
    let bots = ["deny", "allow"].map(|unknown| {
        let program = setup.scratch.program(&actor_program(), &format!("bot-{unknown}"));
        let name = format!("bot-{unknown}");
        Record::new(&name).on(Match::exe(&program)).enforce().scope(&scope(unknown)).write(&setup.registry());
        program
    });
    setup = setup.arg("--btf").arg(&types);
    let daemon = setup.start();
    let feed = daemon.feed();
    let run = Actor::start(&bots[0], &["unix-connect", &place]).finish();
    assert!(run.marks.len() == 1 && is_refused(&run.marks[0]), "{:?}", run.marks);
    Actor::start(&bots[1], &["unix-connect", &place]).finish().all_ok();
    drop(listener);
    assert!(feed.wait_for(PATIENCE, gap_of("read_failed")), "what cannot be known is not told");
    let doctor = daemon.cli(&["doctor"]);
    let said = client::describe(&doctor);
    assert!(said.contains("names of UNIX sockets are not told"), "{said}");
    Ok(())
}
