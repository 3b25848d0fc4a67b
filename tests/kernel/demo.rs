//! The demo as a new user runs it: its agent tries to leave its scope and is stopped, and pushes a file out when a person
//! says yes on the screen of `approval watch`, and not when they say no.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::case::{Case, Verdict};
use agent_monitor_tests::harness::scratch::Scratch;
use agent_monitor_tests::harness::terminal::Terminal;
use agent_monitor_tests::harness::{client, world};
use agent_monitor_tests::sys::wait;
use serde_json::Value;

pub(crate) const CASES: &[Case] = &[Case::both("a_person_decides_on_the_screen", decided)];

/// The demo while it runs; killed when dropped.
struct Demo {
    child: Child,
    scratch: Scratch,
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Ended by itself, in a test that went well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Demo {
    fn start() -> Self {
        let scratch = Scratch::new();
        let file = |name: &str| Stdio::from(File::create(scratch.path(name)).unwrap());
        let mut command = client::command(&["run", "--demo", "-o", "jsonl"]);
        command.stdin(Stdio::null()).stdout(file("events")).stderr(file("said"));
        Self { child: command.spawn().unwrap(), scratch }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.scratch.path(name)).unwrap_or_default()
    }

    /// The socket that it tells people to go to.
    fn socket(&self) -> PathBuf {
        let mut socket = None;
        let told = wait::until(PATIENCE * 3, || {
            let said = self.read("said");
            let line = said.lines().find(|line| line.contains(" approval watch --socket "));
            socket = line.and_then(|line| line.split(' ').next_back()).map(PathBuf::from);
            socket.as_deref().is_some_and(Path::exists)
        });
        assert!(told, "it tells nobody where to decide:\n{}", self.read("said"));
        socket.unwrap()
    }

    fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

fn decided() -> Verdict {
    world::close();
    let mut demo = Demo::start();
    let socket = demo.socket();
    let mut command = client::command(&["approval", "watch", "--socket"]);
    command.arg(&socket);
    let mut screen = Terminal::start(command, 30, 100);
    let asked = screen.wait_for(PATIENCE, &["WHAT", "network.connect", "YES ", "x deny and suspend"]);
    let full = demo.read("said").contains("level full");
    let held =
        if full { "the process is stopped inside it" } else { "it was refused; the next try may pass" };
    for words in [
        "WAIT",
        "you are root",
        "approval 1 ",
        "network.connect tcp 127.0.0.1:",
        "scope.net[1]",
        "demo-agent — shows what agent-monitor sees of an agent",
        "you@example.com",
        "done.txt",
        "as nobody",
        " left, then it is denied; ",
        held,
        "may: root",
        "o once",
        "d deny",
        "x deny and suspend",
    ] {
        assert!(asked.contains(words), "no `{words}` on the screen:\n{asked}");
    }
    show("screen", &asked);
    // With its colours, for a picture.
    show("drawing", &format!("{:?}", screen.drawing()));
    answer(&screen, "o", ": approved: ");
    let second = screen.wait_for(PATIENCE, &["approval 2 ", "YES ", "x deny and suspend"]);
    show("second", &second);
    answer(&screen, "d", ": denied: ");
    // Where nothing can be held the agent tries again, and is denied again.
    let over = wait::until(PATIENCE, || {
        screen.press("d");
        wait::pause(Duration::from_millis(300));
        demo.ended()
    });
    assert!(over, "the demo does not end\n{}\n{}", screen.text(), demo.read("said"));
    screen.press("q");
    assert!(wait::until(PATIENCE, || screen.ended().is_some()), "the screen does not close");
    check(&demo, full);
    Ok(())
}

/// Presses a key until it has decided. For the first moments it does not: it was meant for what was there before.
fn answer(screen: &Terminal, key: &str, done: &str) {
    const TOO_SOON: &str = "look at it first";
    let decided = wait::until(PATIENCE, || {
        // A key without a meaning here takes the message away.
        screen.press("-");
        wait::until(PATIENCE, || !screen.text().contains(TOO_SOON));
        screen.press(key);
        wait::until(PATIENCE, || [done, TOO_SOON].iter().any(|words| screen.text().contains(words)));
        screen.text().contains(done)
    });
    assert!(decided, "`{key}` decides nothing:\n{}", screen.text());
}

/// What the record says, and what came out.
fn check(demo: &Demo, full: bool) {
    let (text, said) = (demo.read("events"), demo.read("said"));
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(said.contains("what reached the listener outside: 6 bytes\n"), "one push, and no more:\n{said}");
    let of = |kind: &str| events.iter().filter(|event| event["kind"] == kind).collect::<Vec<_>>();
    let (approved, denied) = (of("approval.approved"), of("approval.denied"));
    assert_eq!((approved.len(), approved[0]["detail"]["by"].as_str()), (1, Some("root")), "{approved:?}");
    assert!(!denied.is_empty() && denied.iter().all(|event| event["detail"]["by"] == "root"), "{denied:?}");
    let pushes: Vec<&str> = events
        .iter()
        // Judged again after a decision, it is judged by that.
        .filter(|event| event["kind"] == "network.connect" && !event["hold"].is_null())
        .filter_map(|event| event["verdict"].as_str())
        .collect();
    if full {
        assert_eq!(pushes, ["hold", "allow", "hold", "deny"], "held, let out, held, refused\n{text}");
        stopped(&events, &text);
    } else {
        assert!(pushes.contains(&"hold"), "{pushes:?}\n{text}");
    }
    transcript(&text);
}

fn stopped(events: &[Value], text: &str) {
    let refused = |kind: &str, rule: &str| {
        let found = events.iter().filter(|event| {
            event["kind"] == kind
                && event["verdict"] == "deny"
                && event["errno"] == "EACCES"
                && event["rule"] == rule
                && event["agent"]["id"] == "demo-agent"
        });
        assert!(found.count() > 0, "no refused {kind} by {rule}\n{text}");
    };
    refused("file.open", "scope.file[1]");
    refused("file.link", "scope.file[1]");
    refused("file.rename", "scope.file[1]");
    refused("process.exec", "scope.exec[0]");
    let inside = events.iter().any(|event| {
        let path = event["file"]["path"].as_str().unwrap_or_default();
        event["kind"] == "file.rename" && event["verdict"] == "allow" && path.ends_with("/work/plan.txt")
    });
    assert!(inside, "what is in scope was not done\n{text}");
}

fn show(name: &str, text: &str) {
    for line in text.lines() {
        println!("\nFIGURES {name}: {line}");
    }
}

/// Shows the lines that README quotes, as `events` renders the same record.
fn transcript(text: &str) {
    let scratch = Scratch::new();
    let file = scratch.file("demo.jsonl", text);
    let shown = client::run(&["events", "--log", &file]);
    assert!(shown.status.success(), "{}", client::describe(&shown));
    let words = [" deny ", " hold ", "plan.txt", "approval.", "network.connect"];
    let lines = String::from_utf8_lossy(&shown.stdout).into_owned();
    for line in lines.lines().filter(|line| words.iter().any(|word| line.contains(word))) {
        println!("\nFIGURES demo: {line}");
    }
}
