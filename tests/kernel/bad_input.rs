//! Family `bad_input`: what cannot work is said clearly, with the exit code of its class.
//!
//! 1 failure, 2 usage, 3 daemon not reachable, 4 not enough privilege. Never a panic, never a hang.

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::case::{Case, Skip, Verdict};
use agent_monitor_tests::harness::client;
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::monitor::Setup;
use agent_monitor_tests::harness::scratch::Scratch;
use agent_monitor_tests::harness::world;
use agent_monitor_tests::sys::wait;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

pub(crate) const CASES: &[Case] = &[
    Case::both("run_without_root", run_without_root),
    Case::host("run_without_capability", run_without_capability),
    Case::both("bpffs_not_mounted", bpffs_not_mounted),
    Case::both("state_dir_not_writable", state_dir_not_writable),
    Case::both("socket_dir_not_writable", socket_dir_not_writable),
    Case::both("registry_missing", registry_missing),
    Case::both("second_daemon", second_daemon),
    Case::both("stale_socket_is_taken_over", stale_socket_is_taken_over),
    Case::both("no_btf", no_btf),
    Case::both("no_tracefs", no_tracefs),
    Case::both("client_without_daemon", client_without_daemon),
    Case::both("client_usage", client_usage),
    Case::both("check_names_the_place", check_names_the_place),
    Case::both("register_refuses", register_refuses),
    Case::both("exec_of_unknown_agent", exec_of_unknown_agent),
];

/// Runs a command that is expected to give up by itself; one that goes on is killed and the test fails.
#[track_caller]
fn gives_up(mut command: Command) -> Output {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let gone = wait::pidfd(child.id()).unwrap();
    let ended = wait::readable(&[gone.as_fd()], PATIENCE).unwrap() == [true];
    if !ended {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(ended, "it goes on instead of giving up: {command:?}\n{}", client::describe(&output));
    output
}

/// Gives up with this exit code and a message that has one of these words; no panic, no backtrace.
#[track_caller]
fn refuses(command: Command, code: i32, words: &[&str]) -> String {
    let output = gives_up(command);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{}", client::describe(&output));
    assert!(!stderr.contains("panicked"), "{stderr}");
    let lower = stderr.to_lowercase();
    assert!(words.iter().any(|word| lower.contains(word)), "none of {words:?} in: {stderr}");
    assert!(
        output.stdout.is_empty() || code == 1,
        "messages belong on stderr: {}",
        client::describe(&output)
    );
    stderr
}

const NOBODY: u32 = 65_534;

fn run_without_root() -> Verdict {
    let setup = Setup::new();
    let mut command = setup.command();
    command.uid(NOBODY).gid(NOBODY);
    refuses(command, 4, &["root", "privilege", "capabilit"]);
    Ok(())
}

/// Root by number only.
fn run_without_capability() -> Verdict {
    let setup = Setup::new();
    let setpriv = Command::new("setpriv").arg("--version").output();
    if !setpriv.is_ok_and(|o| o.status.success()) {
        // busybox in the VM has its own setpriv, with the same options but without this one.
        if Command::new("setpriv").args(["--bounding-set", "-all", "true"]).status().is_err() {
            return Skip::because("no setpriv");
        }
    }
    let inner = setup.command();
    let mut command = Command::new("setpriv");
    command
        .args(["--inh-caps", "-all", "--bounding-set", "-all"])
        .arg(inner.get_program())
        .args(inner.get_args());
    refuses(command, 4, &["cap_", "privilege", "capabilit"]);
    Ok(())
}

/// A command line of the daemon with one option replaced.
fn with_option(setup: &Setup, option: &str, value: &Path) -> Command {
    let from = setup.command();
    let mut command = Command::new(from.get_program());
    let mut replace = false;
    for arg in from.get_args() {
        command.arg(if replace { value.as_os_str() } else { arg });
        replace = arg == option;
    }
    command
}

fn bpffs_not_mounted() -> Verdict {
    let setup = Setup::new();
    let plain = setup.scratch.dir("plain");
    let stderr = refuses(with_option(&setup, "--bpffs", &plain), 1, &["bpf"]);
    assert!(stderr.contains("mount"), "the message says nothing about mounting: {stderr}");
    assert!(stderr.contains(plain.to_str().unwrap()), "the message does not name the directory: {stderr}");
    Ok(())
}

/// A place below a file: nobody can write there, not even root.
fn below_a_file(setup: &Setup) -> std::path::PathBuf {
    Path::new(&setup.scratch.file("a-file", "")).join("below")
}

fn state_dir_not_writable() -> Verdict {
    let setup = Setup::new();
    let place = below_a_file(&setup);
    let stderr = refuses(with_option(&setup, "--state-dir", &place), 1, &["state"]);
    assert!(stderr.contains(place.to_str().unwrap()), "the message does not name the directory: {stderr}");
    Ok(())
}

fn socket_dir_not_writable() -> Verdict {
    let setup = Setup::new();
    let place = below_a_file(&setup).join("control.sock");
    let stderr = refuses(with_option(&setup, "--socket", &place), 1, &["socket", "directory"]);
    assert!(stderr.contains("a-file"), "the message does not name the place: {stderr}");
    Ok(())
}

fn registry_missing() -> Verdict {
    let setup = Setup::new();
    let place = setup.scratch.path("no-such-registry");
    let stderr = refuses(with_option(&setup, "--registry", &place), 1, &["registry", "directory", "record"]);
    assert!(stderr.contains("no-such-registry"), "the message does not name the directory: {stderr}");
    Ok(())
}

/// The first goes on undisturbed.
fn second_daemon() -> Verdict {
    let world = world::shared();
    refuses(world.daemon.setup.command(), 1, &["running", "another", "in use"]);
    world.settle_now();
    Ok(())
}

/// A socket that a killed daemon left is no daemon.
fn stale_socket_is_taken_over() -> Verdict {
    let mut daemon = Setup::new().start();
    daemon.end_by(libc::SIGKILL);
    assert!(daemon.setup.socket().exists());
    daemon.restart();
    Ok(())
}

/// The daemon under a mount that hides something of the kernel's.
fn hiding(setup: &Setup, dir: &str) -> Command {
    let inner = setup.command();
    let mut command = Command::new(actor_program());
    command
        .args(["unshare", "mount", "mount-tmpfs", dir, "exec"])
        .arg(inner.get_program())
        .args(inner.get_args());
    command
}

fn no_btf() -> Verdict {
    let setup = Setup::new();
    let output = gives_up(hiding(&setup, "/sys/kernel/btf"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{}", client::describe(&output));
    assert!(stderr.contains("BTF") || stderr.contains("btf"), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    Ok(())
}

/// Nothing that is needed comes from tracefs: either it works without, or it says what is missing.
fn no_tracefs() -> Verdict {
    if !Path::new("/sys/kernel/tracing").is_dir() {
        return Skip::because("no /sys/kernel/tracing to hide");
    }
    let setup = Setup::new();
    let mut child = hiding(&setup, "/sys/kernel/tracing")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let gone = wait::pidfd(child.id()).unwrap();
    let answers = || matches!(client::get(&setup.socket(), "/healthz"), Ok((200, _)));
    let ended = || wait::readable(&[gone.as_fd()], std::time::Duration::ZERO).unwrap() == [true];
    assert!(wait::until(PATIENCE, || ended() || answers()), "neither ready nor ended");
    if answers() {
        agent_monitor_tests::sys::kill(child.id() as i32, libc::SIGTERM).unwrap();
        assert!(child.wait().unwrap().success());
    } else {
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("tracefs") || stderr.contains("/sys/kernel/tracing"), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    Ok(())
}

fn client_without_daemon() -> Verdict {
    let scratch = Scratch::new();
    let socket = scratch.text("nobody.sock");
    for words in [&["status"][..], &["events"], &["exec", "--agent", "x", "--", "true"]] {
        let mut args = vec![words[0]];
        // Options come before a `--`.
        args.extend(words.get(1..).unwrap_or_default().iter().take_while(|w| **w != "--"));
        args.extend(["--socket", &socket]);
        args.extend(words.iter().skip_while(|w| **w != "--"));
        let stderr = refuses(client::command(&args), 3, &["daemon", "reach", "running", "connect"]);
        assert!(stderr.contains(&socket), "the message does not name the socket: {stderr}");
    }
    Ok(())
}

fn client_usage() -> Verdict {
    let world = world::shared();
    let socket = world.daemon.socket();
    for words in [
        &["no-such-command"][..],
        &["events", "--no-such-option"],
        &["events", "--socket", &socket, "--kind", "no.such.kind"],
        &["events", "--socket", &socket, "--since", "yesterday-ish"],
        &["run", "--unattributed", "some"],
    ] {
        let output = gives_up(client::command(words));
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", client::describe(&output));
    }
    Ok(())
}

fn check_names_the_place() -> Verdict {
    let scratch = Scratch::new();
    let head = "[agent]\nid = \"x\"\nowner = \"o@example.com\"\npurpose = \"p\"\n";
    // Where busybox is every program, /bin/true leads to a shell.
    let exe = actor_program();
    let exe = exe.display();
    let good = format!("{head}expires = 2099-01-01T00:00:00Z\n\n[[match]]\nexe = \"{exe}\"\n");
    let rows = [
        ("syntax", "[agent\n".to_owned(), ":1:"),
        ("unknown_key", format!("{head}expires = 2099-01-01T00:00:00Z\nowners = \"y\"\n"), ":6:"),
        ("no_expires", head.to_owned(), "expires"),
        (
            "no_owner",
            "[agent]\nid = \"x\"\npurpose = \"p\"\nexpires = 2099-01-01T00:00:00Z\n".to_owned(),
            "owner",
        ),
        ("past", format!("{head}expires = 2001-01-01T00:00:00Z\n"), ":5:"),
        ("relative", format!("{good}exe = \"bin/x\"\n"), ":9:"),
    ];
    for (name, text, place) in rows {
        let file = scratch.file(&format!("{name}.toml"), &text);
        let output = gives_up(client::command(&["agent", "check", &file]));
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(
            said.contains(&format!("{name}.toml")) && said.contains(place),
            "{name}: no {place} in: {said}"
        );
    }
    let file = scratch.file("good.toml", &good);
    let output = gives_up(client::command(&["agent", "check", &file]));
    assert!(output.status.success(), "{}", client::describe(&output));
    Ok(())
}

fn register_refuses() -> Verdict {
    let world = world::shared();
    let file = world.daemon.setup.scratch.file("new/bad.toml", "[agent]\nid = \"bad\"\n");
    let output = world.daemon.cli(&["agent", "register", &file]);
    assert_eq!(output.status.code(), Some(1), "{}", client::describe(&output));
    assert!(!world.daemon.setup.registry().join("bad.toml").exists(), "a refused record was installed");
    Ok(())
}

fn exec_of_unknown_agent() -> Verdict {
    let world = world::shared();
    let socket = world.daemon.socket();
    let args = ["exec", "--socket", &socket, "--agent", "no-such-agent", "--", "/bin/true"];
    let output = gives_up(client::command(&args));
    assert_eq!(output.status.code(), Some(1), "{}", client::describe(&output));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no-such-agent"),
        "{}",
        client::describe(&output)
    );
    Ok(())
}
