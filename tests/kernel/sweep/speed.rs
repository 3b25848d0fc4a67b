//! How long a sweep takes: the promise, and figures against processes and homes for `cargo xtask bench`.

use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent_monitor_tests::harness::case::Verdict;
use agent_monitor_tests::harness::client;
use agent_monitor_tests::harness::scratch::Scratch;
use agent_monitor_tests::sys::wait;

use super::host;

/// Processes that sleep, ended together.
struct Crowd(Vec<Child>);

impl Crowd {
    fn of(count: usize) -> Self {
        let one = |_| {
            let mut command = Command::new("/bin/sleep");
            command
                .arg("600")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .env("SOME_TOKEN", "x")
                .spawn()
                .unwrap()
        };
        Self((0..count).map(one).collect())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|child| drop(child.kill()));
        self.0.iter_mut().for_each(|child| drop(child.wait()));
    }
}

/// Homes with a few agents, projects and many files each.
fn homes(scratch: &Scratch, count: usize, files: usize) -> String {
    let names: Vec<String> = (0..count).map(|n| format!("u{n}")).collect();
    let root = host(scratch, &names.iter().map(String::as_str).collect::<Vec<_>>());
    for name in &names {
        scratch.file(
            &format!("host/home/{name}/.claude.json"),
            r#"{"mcpServers":{"x":{"command":"npx","args":["x"]}}}"#,
        );
        scratch.file(
            &format!("host/home/{name}/.npm-global/lib/node_modules/@openai/codex/package.json"),
            r#"{"version":"1"}"#,
        );
        for project in 0..files.div_ceil(20) {
            let dir = scratch.dir(&format!("host/home/{name}/src/p{project}/src"));
            let first = dir.join("0");
            std::fs::write(&first, "").unwrap();
            // Links are made faster than files.
            (1..20).for_each(|n| drop(std::fs::hard_link(&first, dir.join(n.to_string()))));
            scratch.file(
                &format!("host/home/{name}/src/p{project}/package.json"),
                r#"{"dependencies":{"express":"1"}}"#,
            );
        }
    }
    root
}

/// One sweep: how long, and the most memory it was seen to have, KiB.
fn timed(scratch: &Scratch, more: &[&str]) -> (Duration, u64) {
    let registry = scratch.text("registry");
    let begin = Instant::now();
    let places = ["sweep", "-o", "jsonl", "--registry", &registry];
    let mut command = client::command(&[&places, more].concat());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let gone = wait::pidfd(child.id()).unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    // `ru_maxrss` would be that of the test, from before the exec.
    while wait::readable(&[gone.as_fd()], Duration::from_millis(2)).unwrap() == [false] {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let high = high.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = high.unwrap_or(0).max(peak);
    }
    let took = begin.elapsed();
    assert!(child.wait().unwrap().success(), "the sweep failed");
    (took, peak)
}

/// 1,000 processes on this host, and 50 homes as a mounted host: together under 5 s on two processors.
pub(super) fn within_five_seconds() -> Verdict {
    let scratch = Scratch::new();
    let root = homes(&scratch, 50, 200);
    let crowd = Crowd::of(1000);
    let (processes, memory) = timed(&scratch, &[]);
    let (files, more_memory) = timed(&scratch, &["--root", &root]);
    println!(
        "\nFIGURES sweep: {} processes in {processes:?} ({memory} KiB), 50 homes in {files:?} ({more_memory} KiB)",
        crowd.0.len()
    );
    assert!(processes + files < Duration::from_secs(5), "{processes:?} + {files:?}");
    Ok(())
}

/// Time and memory against the number of processes and the size of homes.
pub(super) fn bench() -> Verdict {
    println!("\nFIGURES bench: sweep\n{:<28}{:>12}{:>12}", "", "seconds", "peak MiB");
    let row = |what: String, (took, peak): (Duration, u64)| {
        println!("{what:<28}{:>12.3}{:>12.1}", took.as_secs_f64(), peak as f64 / 1024.0);
    };
    for count in [0, 250, 1000, 4000] {
        let (scratch, crowd) = (Scratch::new(), Crowd::of(count));
        row(format!("host + {} processes", crowd.0.len()), timed(&scratch, &[]));
    }
    for (count, files) in [(10, 200), (50, 200), (50, 2000), (200, 200)] {
        let scratch = Scratch::new();
        let root = homes(&scratch, count, files);
        row(format!("{count} homes of {files} files"), timed(&scratch, &["--root", &root]));
    }
    super::live::latency();
    Ok(())
}
