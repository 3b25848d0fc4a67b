//! Family `load`: the daemon starts, says what it can, and leaves nothing behind.

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::case::{Case, Verdict};
use agent_monitor_tests::harness::client;
use agent_monitor_tests::harness::lane::{Lane, lane};
use agent_monitor_tests::harness::monitor::{Daemon, Setup};
use agent_monitor_tests::harness::{parked, world};
use agent_monitor_tests::sys::{bpf, wait};
use std::collections::BTreeSet;
use std::path::Path;

pub(crate) const CASES: &[Case] = &[
    Case::both("clean_detach", clean_detach),
    Case::both("clean_detach_on_interrupt", clean_detach_on_interrupt),
    Case::both("healthz_status_metrics", healthz_status_metrics),
    Case::both("pins_in_the_root_of_a_bpffs", pins_in_the_root_of_a_bpffs),
    Case::both("doctor", doctor),
    Case::both("doctor_without_daemon", doctor_without_daemon),
    Case::both("events_are_the_contract", events_are_the_contract),
    Case::both("two_daemons_side_by_side", two_daemons_side_by_side),
];

/// Programs that a process holds open, itself or through a link.
fn programs_of(pid: u32) -> BTreeSet<u32> {
    let Ok(dir) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return BTreeSet::new() };
    let infos = dir.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    let ids = infos.filter_map(|info| {
        let line = info.lines().find(|line| line.starts_with("prog_id:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    });
    ids.collect()
}

fn entries(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else if !matches!(entry.file_name().to_str(), Some("maps.debug" | "progs.debug")) {
                // The two are the kernel's own, in every bpffs.
                found.push(entry.path().display().to_string());
            }
        }
    }
    found
}

/// Starts, ends by `signal`, and compares. Other daemons may come and go on the host, so there only programs
/// that this one held are looked at; in the VM nothing at all may be left.
fn detach(signal: i32) -> Verdict {
    world::close();
    parked::own_programs(true);
    let before = bpf::ids(bpf::Kind::Program).unwrap();
    let mut daemon = Setup::new().start();
    parked::own_programs(false);
    let during = bpf::ids(bpf::Kind::Program).unwrap();
    let own = match lane() {
        Lane::Vm => &during - &before,
        Lane::Host => programs_of(daemon.pid()),
    };
    assert!(!own.is_empty(), "the daemon is ready and holds no program");
    let bpffs = daemon.setup.scratch.path("bpf");
    let status = daemon.end_by(signal);
    assert!(status.success(), "{status}\n{}", daemon.output());
    // The kernel frees programs after a grace period.
    let left = || -> Vec<(u32, Option<String>)> {
        let now = bpf::ids(bpf::Kind::Program).unwrap();
        own.intersection(&now).map(|id| (*id, bpf::program_name(*id))).collect()
    };
    assert!(wait::until(PATIENCE, || left().is_empty()), "programs left: {:?}", left());
    assert_eq!(entries(&bpffs), Vec::<String>::new(), "pins left");
    println!("\nFIGURES load: {} programs were loaded and are gone", own.len());
    Ok(())
}

fn clean_detach() -> Verdict {
    detach(libc::SIGTERM)
}

fn clean_detach_on_interrupt() -> Verdict {
    detach(libc::SIGINT)
}

fn healthz_status_metrics() -> Verdict {
    let world = world::shared();
    let daemon = &world.daemon;
    let socket = daemon.setup.socket();
    assert_eq!(client::get(&socket, "/healthz").unwrap().0, 200);
    let status = daemon.cli_json(&["status", "-o", "json"]);
    assert_eq!(status["schema_version"], 1);
    assert_eq!(status["pid"], daemon.pid());
    assert_eq!(status["level"], if world.is_full() { "full" } else { "partial" });
    assert_eq!(status["agents"], 1);
    let (code, metrics) = client::get(&socket, "/metrics").unwrap();
    assert_eq!(code, 200);
    assert!(metrics.contains("# TYPE "), "{metrics}");
    assert!(metrics.contains("agent_monitor_events"), "{metrics}");
    let readable = daemon.cli(&["status"]);
    assert!(readable.status.success(), "{}", client::describe(&readable));
    Ok(())
}

/// The directory that is named may be the mount itself: what is not ours in it stays.
fn pins_in_the_root_of_a_bpffs() -> Verdict {
    world::close();
    let mut setup = Setup::new();
    let root = setup.scratch.bpffs();
    let mut daemon = setup.arg("--bpffs").arg(root.to_str().unwrap()).start();
    let status = daemon.end_by(libc::SIGTERM);
    assert!(status.success(), "{status}\n{}", daemon.output());
    assert_eq!(entries(&root), Vec::<String>::new(), "pins left");
    Ok(())
}

fn doctor() -> Verdict {
    let world = world::shared();
    check_report(&world.daemon.cli_json(&["doctor", "-o", "json"]));
    Ok(())
}

/// Needed most when no daemon comes up.
fn doctor_without_daemon() -> Verdict {
    let output = client::run(&["doctor", "-o", "json"]);
    assert!(output.status.success(), "{}", client::describe(&output));
    check_report(&serde_json::from_slice(&output.stdout).unwrap());
    Ok(())
}

/// Every family, each ability with a reason, and "see" confirmed by a canary.
fn check_report(report: &serde_json::Value) {
    let expected = if lane() == Lane::Vm { vec!["full"] } else { vec!["full", "partial"] };
    let level = report["level"].as_str().unwrap_or_default();
    assert!(expected.contains(&level), "level {level}");
    let families = report["families"].as_array().unwrap();
    for name in ["process", "file", "network", "privilege"] {
        let family = families.iter().find(|f| f["family"] == name);
        let family = family.unwrap_or_else(|| panic!("no family {name}: {report}"));
        assert_ne!(family["see"]["state"], "no", "{name}: {family}");
        assert_eq!(family["see"]["confirmed"], true, "{name} is not confirmed by a canary: {family}");
        for ability in ["see", "stop", "hold", "name", "budget"] {
            let ability = &family[ability];
            assert!(ability["reason"].as_str().is_some_and(|r| !r.is_empty()), "{name}: {ability}");
        }
    }
    let promises = report["promises"].as_array().unwrap();
    let made = |text: &str| promises.iter().find(|p| p["promise"].as_str().is_some_and(|p| p.contains(text)));
    let holds = |text: &str| made(text).is_some_and(|promise| promise["holds"] != "no");
    assert!(holds("addresses of IPv4 and IPv6"), "{report}");
    assert_eq!(holds("no path, link, mount"), level == "full", "{report}");
    let missing: Vec<_> =
        report["checks"].as_array().into_iter().flatten().filter(|c| c["ok"] == false).collect();
    assert!(missing.iter().all(|c| c["fix"].is_string()), "a check that fails says no fix: {missing:?}");
}

/// Whatever the other tests made it say: every line is an event, sequence numbers only grow.
fn events_are_the_contract() -> Verdict {
    let world = world::shared();
    world.settle_now();
    assert_eq!(world.feed.broken_lines(), Vec::<String>::new());
    world.feed.with(|events| {
        let numbered: Vec<u64> = events.iter().map(|e| e.seq).filter(|seq| *seq > 0).collect();
        assert!(numbered.is_sorted(), "sequence numbers go back");
        assert!(events.iter().all(|e| e.schema_version == 1));
        assert!(events.iter().all(|e| e.kind.contains('.') && !e.source.is_empty() && e.time.ends_with('Z')));
    });
    Ok(())
}

fn two_daemons_side_by_side() -> Verdict {
    let (first, second) = (world::shared(), Setup::new().start());
    let level = |daemon: &Daemon| daemon.cli_json(&["status", "-o", "json"])["level"].clone();
    assert_eq!(level(&first.daemon), level(&second));
    drop(second);
    first.settle_now();
    Ok(())
}
