//! Family `sweep`: real agents and look-alikes on this host, processes that do not want to be read, a mount that hangs,
//! the daemon's finding at an exec, and a fleet.

mod fleet;
mod hostile;
mod live;
mod names;
mod policy;
mod real;
mod speed;

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use agent_monitor_tests::harness::case::Case;
use agent_monitor_tests::harness::client;
use agent_monitor_tests::harness::scratch::Scratch;
use agent_monitor_tests::sys::wait;
use serde_json::Value;

pub(crate) const CASES: &[Case] = &[
    Case::host("real_packages", real::packages),
    Case::host("look_alikes", real::look_alikes),
    Case::host("home_made", real::home_made),
    Case::host("hostile_processes", hostile::processes),
    Case::host("hanging_mount", hostile::hanging_mount),
    Case::host("another_user", hostile::another_user),
    Case::host("another_root", hostile::another_root),
    Case::host("within_five_seconds", speed::within_five_seconds),
    Case::host("fleet", fleet::fleet),
    Case::both("finding_at_exec", live::finding_at_exec),
    Case::host("home_made_at_exec", live::home_made_at_exec),
    Case::both("names_from_the_wire", names::from_the_wire),
    Case::both("policy_kill", policy::kill),
    Case::both("policy_deny", policy::deny),
    Case::vm("policy_hold", policy::hold),
    Case::both("adopt", live::adopt),
    Case::both("marked", live::marked),
    Case::both("retired", live::retired),
];

/// For `cargo xtask bench`.
pub(crate) const LONG: &[Case] = &[Case::host("sweep", speed::bench)];

/// A registry and signatures of nobody, so that the machine's own do not matter.
fn sweep(scratch: &Scratch, more: &[&str]) -> Value {
    let (registry, signatures) = (scratch.text("registry"), scratch.text("signatures.d"));
    let places = ["sweep", "-o", "json", "--registry", &registry, "--signatures", &signatures];
    let output = client::run(&[&places, more].concat());
    assert!(output.status.success(), "{more:?}: {}", client::describe(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn finds(report: &Value) -> Vec<Value> {
    report["finds"].as_array().cloned().unwrap_or_default()
}

/// Surer than low that it is one, and that it is there, and no record knows it: what `--exit-code` counts.
fn is_shadow(find: &Value) -> bool {
    let sure = |what: &str| find[what]["level"] != "low";
    find["registry"]["state"] == "shadow" && sure("identity") && sure("presence")
}

fn pids(find: &Value) -> Vec<u64> {
    find["processes"].as_array().into_iter().flatten().filter_map(|process| process["pid"].as_u64()).collect()
}

/// The find that a process belongs to, if any.
fn find_of(report: &Value, pid: u32) -> Option<Value> {
    finds(report).into_iter().find(|find| pids(find).contains(&u64::from(pid)))
}

/// A program that runs until it is dropped; its standard input stays open.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Lets an actor that waits go on.
    fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// Waits until its program is the one that was meant, not what starts it.
    fn has_become(self, part: &str) -> Self {
        let path = format!("/proc/{}/cmdline", self.pid());
        let is = || std::fs::read(&path).is_ok_and(|line| String::from_utf8_lossy(&line).contains(part));
        assert!(wait::until(agent_monitor_tests::harness::PATIENCE, is), "{path} never holds {part}");
        self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.stdin.take().map(|mut stdin| stdin.flush()));
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A host's root with a few users, in the test's own directory.
fn host(scratch: &Scratch, users: &[&str]) -> String {
    let mut passwd = "root:x:0:0::/root:/bin/sh\n".to_owned();
    for (at, user) in users.iter().enumerate() {
        passwd.push_str(&format!("{user}:x:{}:{}::/home/{user}:/bin/sh\n", 2000 + at, 2000 + at));
        scratch.dir(&format!("host/home/{user}"));
    }
    scratch.file("host/etc/passwd", &passwd);
    scratch.text("host")
}

/// An executable that is none of the products whose names it may bear.
fn program(scratch: &Scratch, path: &str) {
    let to = scratch.path(path);
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(Path::new("/bin/sleep"), &to).unwrap();
}
