//! A host that does not want to be swept: processes that lie, vanish and hide, a file system that never answers.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent_monitor_tests::harness::case::{Skip, Verdict};
use agent_monitor_tests::harness::client;
use agent_monitor_tests::harness::scratch::Scratch;
use agent_monitor_tests::sys::{self, Arg, cstr, num};
use serde_json::Value;

use super::{Running, find_of, finds, host, program, sweep};

pub(super) fn processes() -> Verdict {
    let scratch = Scratch::new();
    // One that calls itself an agent, with a name that would paint the terminal; one that rewrites its argv.
    let mut named = Command::new("/bin/sleep");
    named.arg0("\u{1b}[31mclaude\n\u{202e}").arg("300");
    let named = Running::start(&mut named);
    let rewritten =
        Running::start(Command::new("perl").args(["-e", "$0 = \"VLLM::EngineCore \\e]0;x\\a\"; sleep 300"]));
    let rewritten = rewritten.has_become("VLLM");
    // One whose program is gone, one with a secret in argv and environment.
    program(&scratch, "bin/claude");
    let mut hidden = Command::new(scratch.path("bin/claude"));
    let hidden = Running::start(hidden.arg("300").env("ANTHROPIC_API_KEY", "sk-hush-hush-hush"));
    let hidden = hidden.has_become("claude");
    std::fs::remove_file(scratch.path("bin/claude")).unwrap();
    // And many that end while they are looked at.
    let stop = Arc::new(AtomicBool::new(false));
    let storm = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                Command::new("/bin/true").status().ok();
            }
        })
    };
    let reports: Vec<Value> = (0..5).map(|_| sweep(&scratch, &[])).collect();
    let table = client::run(&["sweep", "--all", "--evidence", "--registry", &scratch.text("registry")]);
    stop.store(true, Ordering::Relaxed);
    storm.join().unwrap();
    for report in &reports {
        let product = |pid: u32| {
            find_of(report, pid).and_then(|find| find["product"]["id"].as_str().map(str::to_owned))
        };
        assert_eq!(product(rewritten.pid()).as_deref(), Some("vllm"), "{report:#}");
        assert_eq!(product(hidden.pid()).as_deref(), Some("claude-code"), "{report:#}");
        assert_ne!(product(named.pid()).as_deref(), Some("claude-code"), "a lie that is not even a name");
        assert!(!report.to_string().contains("hush"), "a secret is shown");
        assert!(report.to_string().contains("ANTHROPIC_API_KEY"), "its name is");
    }
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    let controls = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(table.status.success() && !text.contains(controls), "{text:?}");
    Ok(())
}

/// A FUSE mount whose server never answers: whoever looks into it waits for ever.
struct Hang {
    at: String,
    _server: File,
}

impl Hang {
    fn mount(at: &str) -> std::io::Result<Self> {
        let server = File::options().read(true).write(true).open("/dev/fuse")?;
        let options = cstr(&format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd()));
        let (source, target, kind) = (cstr("hang"), cstr(at), cstr("fuse"));
        let args = &mut [Arg::Str(&source), Arg::Str(&target), Arg::Str(&kind), num(0), Arg::Str(&options)];
        sys::call(libc::SYS_mount, args)?;
        Ok(Self { at: at.to_owned(), _server: server })
    }
}

impl Drop for Hang {
    fn drop(&mut self) {
        sys::unmount(&self.at).ok();
    }
}

pub(super) fn hanging_mount() -> Verdict {
    let scratch = Scratch::new();
    let root = host(&scratch, &["a", "b"]);
    scratch.file("host/home/b/.claude/settings.json", "{}");
    // A part of one home, and the whole of another.
    let (part, whole) = (scratch.dir("host/home/a/remote"), scratch.dir("host/home/c"));
    let hang = |at: &std::path::Path| Hang::mount(at.to_str().unwrap());
    let (_part, _whole) = match (hang(&part), hang(&whole)) {
        (Ok(part), Ok(whole)) => (part, whole),
        (Err(error), _) | (_, Err(error)) => return Skip::because(format!("no FUSE here: {error}")),
    };
    let coverage = |report: &Value| report["coverage"].to_string();
    let left_alone = sweep(&scratch, &["--root", &root]);
    assert!(coverage(&left_alone).contains("/home/a/remote"), "{:#}", left_alone["coverage"]);
    let begin = Instant::now();
    let asked = sweep(&scratch, &["--root", &root, "--remote", "--patience", "2"]);
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    let timed_out = asked["coverage"].as_array().into_iter().flatten().any(|row| {
        row["source"].as_str().is_some_and(|source| source.ends_with("/home/a"))
            && row["looked"] == "timed_out"
    });
    assert!(timed_out, "{:#}", asked["coverage"]);
    assert!(
        finds(&asked).iter().any(|find| find["owner"]["user"] == "b"),
        "the others were looked at: {asked:#}"
    );
    Ok(())
}

/// Without privilege: one's own is found, and what could not be seen is said.
pub(super) fn another_user() -> Verdict {
    let scratch = Scratch::new();
    program(&scratch, "bin/claude");
    std::fs::set_permissions(scratch.path("bin/claude"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let own = Running::start(Command::new(scratch.path("bin/claude")).arg("300").uid(64_321).gid(64_321));
    let own = own.has_become("claude");
    let output = client::run_as(64_321, &["sweep", "-o", "json", "--registry", &scratch.text("registry")]);
    assert!(output.status.success(), "{}", client::describe(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let find = find_of(&report, own.pid()).unwrap_or_default();
    assert_eq!(find["product"]["id"], "claude-code", "{report:#}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("not swept as root"), "{said}");
    assert!(
        report["coverage"].to_string().contains("other users' processes not visible"),
        "{:#}",
        report["coverage"]
    );
    // A registry that may not be read makes nothing shadow, and nothing registered.
    std::fs::set_permissions(scratch.dir("registry"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    let output = client::run_as(64_321, &["sweep", "-o", "json", "--registry", &scratch.text("registry")]);
    assert!(output.status.success(), "{}", client::describe(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(find_of(&report, own.pid()).unwrap_or_default()["registry"]["state"], "unknown", "{report:#}");
    assert!(report["coverage"].to_string().contains("not known"), "{:#}", report["coverage"]);
    Ok(())
}

/// A process with another root, as in a container: its files are looked into through that root, and stay there.
pub(super) fn another_root() -> Verdict {
    let scratch = Scratch::new();
    host(&scratch, &["inside"]);
    scratch.file(
        "host/usr/lib/node_modules/@openai/codex/package.json",
        r#"{"name":"@openai/codex","version":"0.1.2"}"#,
    );
    std::os::unix::fs::symlink("/etc/shadow", scratch.path("host/home/inside/.claude.json")).unwrap();
    // A static program, since there are no libraries inside.
    let actor = agent_monitor_tests::harness::lane::actor_program();
    let inside = scratch.dir("host/bin").join("claude");
    std::fs::copy(actor, &inside).unwrap();
    for dir in ["lib", "lib64", "usr/lib/x86_64-linux-gnu"] {
        for name in ["libc.so.6", "ld-linux-x86-64.so.2", "libgcc_s.so.1"] {
            for from in ["/lib/x86_64-linux-gnu", "/lib64"] {
                let to = scratch.dir(&format!("host/{dir}")).join(name);
                std::fs::copy(format!("{from}/{name}"), to).ok();
            }
        }
    }
    let mut command = Command::new("chroot");
    command.arg(scratch.path("host")).args(["/bin/claude", "--wait", "noop"]);
    let running = Running::start(&mut command).has_become("/bin/claude");
    let report = sweep(&scratch, &[]);
    let find = find_of(&report, running.pid()).unwrap_or_else(|| panic!("{report:#}"));
    let label = find["owner"]["container"].as_str().unwrap_or_default().to_owned();
    assert!(label.starts_with("mnt-"), "{find:#}");
    let codex = finds(&report)
        .into_iter()
        .find(|f| f["owner"]["container"] == label.as_str() && f["product"]["id"] == "codex-cli");
    assert_eq!(codex.unwrap_or_default()["product"]["version"], "0.1.2", "{report:#}");
    Ok(())
}
