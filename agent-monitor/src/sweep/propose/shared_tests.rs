//! Proposals for whole process trees: never a program that others run too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::registry::parse_record;
use crate::registry::shared::all_names;
use crate::sweep::correlate::{Registered, correlate};
use crate::sweep::homes::Users;
use crate::sweep::judge::{Ask, judge};
use crate::sweep::pack::embedded;
use crate::sweep::proc::{Proc, Processes};

/// Knows nothing but who asks.
struct Nobody(Option<u32>);

impl Ask for Nobody {
    fn imports(&mut self, _: &Proc, _: &str) -> Vec<String> {
        Vec::new()
    }
    fn agent(&mut self, _: &Proc, _: Option<&str>) -> Option<(String, bool)> {
        None
    }
    fn canonical(&mut self, _: &Proc, _: &str) -> Option<String> {
        None
    }
    fn version(&mut self, _: &Proc, _: &str) -> Option<(String, String)> {
        None
    }
    fn provider(&mut self, _: SocketAddr) -> Option<String> {
        None
    }
    fn edited(&mut self, _: &Proc) -> Option<String> {
        None
    }
    fn caller(&self) -> Option<u32> {
        self.0
    }
}

struct Nothing;

impl Registered for Nothing {
    fn of_paths(&self, _: &[String], _: Option<u32>) -> Option<(String, bool)> {
        None
    }
    fn is_retired(&self, _: &str) -> bool {
        false
    }
}

/// A chain of processes, the first of it started by pid 1; the last carries the mark.
fn chain(lines: &[&str]) -> Vec<Proc> {
    let claude = embedded().find("claude-code").unwrap();
    let one = |(at, line): (usize, &&str)| {
        let at = u32::try_from(at).unwrap();
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let exe = args.first().cloned();
        Proc { pid: 10 + at, ppid: if at == 0 { 1 } else { 9 + at }, exe, args, ..Proc::default() }
    };
    let mut procs: Vec<Proc> = lines.iter().enumerate().map(one).collect();
    procs.last_mut().unwrap().markers = BTreeSet::from([claude]);
    let init = "/usr/lib/systemd/systemd".to_owned();
    procs.push(Proc { pid: 1, exe: Some(init.clone()), args: vec![init], ..Proc::default() });
    procs
}

fn proposals(procs: Vec<Proc>, caller: Option<u32>) -> Vec<String> {
    let seen = judge(embedded(), &Processes::new(procs), &mut Nobody(caller));
    let finds = correlate(embedded(), seen, &Users::default(), &BTreeMap::new(), &Nothing);
    let some = |text: &str| Some(text.to_owned());
    let answer =
        Answer { owner: some("a@example.com"), purpose: some("x"), expires: some("2027-06-30T00:00:00Z") };
    finds.iter().map(|find| record(find, embedded(), &answer, None)).collect()
}

/// The condition lines of a proposal, comments left out.
fn conditions(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| ["exe =", "script =", "argv ="].iter().any(|key| line.starts_with(key)))
        .collect()
}

fn of(lines: &[&str]) -> String {
    let texts = proposals(chain(lines), None);
    assert_eq!(texts.len(), 1, "{lines:?}: {texts:#?}");
    texts.into_iter().next().unwrap()
}

#[test]
fn the_agent_is_the_nearest_ancestor_of_its_own() {
    let rows: [(&[&str], &str); 6] = [
        (&["/opt/renamed", "/usr/bin/bash -c ls"], "exe = \"/opt/renamed\""),
        (
            &["/opt/renamed", "/usr/bin/timeout 9 sh", "/bin/sh -c x", "/usr/bin/git status"],
            "exe = \"/opt/renamed\"",
        ),
        (&["/usr/bin/bash", "/opt/renamed", "/usr/bin/dash -c ls"], "exe = \"/opt/renamed\""),
        (&["/usr/sbin/sshd", "/bin/bash", "/opt/renamed", "/usr/bin/sudo ls"], "exe = \"/opt/renamed\""),
        (&["/usr/bin/node /srv/own/main.js", "/usr/bin/bash -c ls"], "script = \"/srv/own/main.js\""),
        (&["/usr/bin/python3.11 /srv/own.py", "/usr/bin/busybox sh"], "script = \"/srv/own.py\""),
    ];
    for (lines, wanted) in rows {
        assert_eq!(conditions(&of(lines)), [wanted], "{lines:?}");
    }
}

#[test]
fn where_it_is_unknown_there_is_no_match_and_the_check_refuses_it() {
    let rows: [&[&str]; 14] = [
        &["/usr/bin/bash"],
        &["/usr/bin/dash -c x"],
        &["/usr/bin/busybox sh"],
        &["/usr/bin/python3.11 -c x"],
        &["/usr/bin/node -e x", "/usr/bin/bash -c ls"],
        &["/usr/bin/perl -e x"],
        &["/usr/bin/node /usr/lib/node_modules/npm/bin/npx-cli.js -y x", "/usr/bin/bash"],
        &["/root/.local/bin/uvx x", "/bin/sh -c x"],
        &["/usr/bin/sudo -i", "/bin/bash"],
        &["/usr/bin/tmux", "/bin/zsh"],
        &["/opt/other", "/usr/bin/tmux", "/bin/zsh"],
        &["/usr/lib/systemd/systemd --user", "/bin/bash"],
        &["/usr/sbin/sshd", "/bin/bash", "/opt/orphan-tool"],
        &["/usr/bin/containerd-shim-runc-v2", "/bin/sh"],
    ];
    for lines in rows {
        let text = of(lines);
        assert_eq!(conditions(&text), Vec::<&str>::new(), "{lines:?}");
        assert!(text.contains("Find out which program"), "{text}");
        let parsed = parse_record(&text, Path::new("p.toml"));
        let errors: Vec<_> = parsed.diagnostics.iter().filter(|d| d.is_error()).collect();
        assert_eq!(errors.len(), 1, "{text}");
        assert!(
            errors[0].render().contains("name the agent's own program or script"),
            "{}",
            errors[0].render()
        );
    }
}

#[test]
fn what_the_caller_works_by_is_not_the_agent() {
    let lines = ["/opt/corp-terminal", "/bin/bash"];
    assert_eq!(conditions(&of(&lines)), ["exe = \"/opt/corp-terminal\""]);
    let mut procs = chain(&lines);
    procs.push(Proc { pid: 40, ppid: 1, exe: Some("/opt/corp-terminal".to_owned()), ..Proc::default() });
    procs.push(Proc { pid: 41, ppid: 40, exe: Some("/usr/bin/agent-monitor".to_owned()), ..Proc::default() });
    let text = proposals(procs, Some(41)).remove(0);
    assert_eq!(
        conditions(&text),
        Vec::<&str>::new(),
        "another process of the same program started the caller"
    );
}

#[test]
fn a_report_of_an_earlier_version_proposes_no_shell() {
    let process = ProcessRef { pid: 7, exe: Some("/usr/bin/bash".to_owned()), ..ProcessRef::default() };
    assert!(of_process(&process).is_err());
    let npx = ProcessRef {
        exe: Some("/usr/bin/node".to_owned()),
        script: Some("/usr/lib/node_modules/npm/bin/npx-cli.js".to_owned()),
        ..process.clone()
    };
    assert!(of_process(&npx).is_err());
    let own = ProcessRef { exe: Some("/opt/own".to_owned()), ..process };
    assert_eq!(of_process(&own), Ok(Some("\n[[match]]\nexe = \"/opt/own\"".to_owned())));
}

fn program() -> impl Strategy<Value = String> {
    let names: Vec<&'static str> = all_names().filter(|name| !name.starts_with('(')).collect();
    let shared = (prop::sample::select(vec!["/usr/bin", "/bin", "/opt/x/bin"]), prop::sample::select(names))
        .prop_map(|(dir, name)| format!("{dir}/{name}"));
    let odd = prop::sample::select(vec![
        "/usr/bin/python3.13",
        "/usr/bin/perl5.36.0",
        "/bin/busybox.static",
        "/opt/renamed",
        "/srv/tool",
    ]);
    let tail = prop::sample::select(vec![
        "",
        " -c ls",
        " /srv/own.py",
        " -m pip",
        " -m own",
        " /usr/bin/npx",
        " sh",
    ]);
    (prop_oneof![4 => shared, 2 => odd.prop_map(str::to_owned)], tail).prop_map(|(exe, tail)| exe + tail)
}

proptest! {
    #[test]
    fn no_tree_gives_a_shared_program_alone(
        lines in prop::collection::vec(program(), 1..7),
        marks in prop::collection::vec(any::<bool>(), 7),
        caller in prop::option::of(10u32..17),
    ) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut procs = chain(&lines);
        let mark = procs.iter().flat_map(|proc| proc.markers.clone()).collect::<BTreeSet<_>>();
        for (proc, marked) in procs.iter_mut().zip(&marks).filter(|(proc, _)| proc.pid != 1) {
            if *marked {
                proc.markers.clone_from(&mark);
            }
        }
        for text in proposals(procs, caller) {
            for line in conditions(&text) {
                let Some(path) = line.strip_prefix("exe = \"").or_else(|| line.strip_prefix("script = \"")) else {
                    continue;
                };
                prop_assert_eq!(shared_kind(path.trim_end_matches('"')), None, "{}", text);
            }
        }
    }
}
