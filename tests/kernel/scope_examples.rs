//! Family `scope_examples`: a Python, a Node, a shell and a compiled program do their work under `default = "deny"` with
//! base sets and the few rules of `agent-monitor/examples/scopes`, and what lies outside is stopped or told.
//!
//! At level full the scopes are enforced. At level partial they are observed: every recorded act must be one that the
//! scope permits, by `replay`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::case::{Case, Skip, Verdict};
use agent_monitor_tests::harness::client;
use agent_monitor_tests::harness::feed::Feed;
use agent_monitor_tests::harness::lane::actor_program;
use agent_monitor_tests::harness::monitor::{Daemon, Setup};
use agent_monitor_tests::harness::world::{self, World};

pub(crate) const CASES: &[Case] = &[
    Case::with("python", PYTHON.program, || runs(&PYTHON)),
    Case::with("node", NODE.program, || runs(&NODE)),
    Case::both("shell", || runs(&SHELL)),
    Case::both("compiled", || runs(&COMPILED)),
    Case::both("learn_proposes_what_replay_permits", learned),
];

/// An example and a program for it. `{}` is the example's directory.
struct Example {
    id: &'static str,
    record: &'static str,
    /// What is run; must be there.
    program: &'static str,
    /// A file beside it, and its name.
    script: Option<(&'static str, &'static str)>,
    /// Words that do the work.
    work: &'static [&'static str],
    /// Words that read `{}/../outside`.
    leave: &'static [&'static str],
}

const PYTHON: Example = Example {
    id: "python-example",
    record: include_str!("../../agent-monitor/examples/scopes/python.toml"),
    program: "/usr/bin/python3",
    script: Some((
        "job.py",
        "import json, os, pathlib, socket, sys, tempfile\n\
         here = pathlib.Path(sys.argv[1])\n\
         rows = json.loads((here / 'data.json').read_text())\n\
         new = here / 'out/report.new'\n\
         new.write_text(str(sum(rows)))\n\
         new.rename(here / 'out/report')\n\
         (here / 'out/old').write_text('x')\n\
         (here / 'out/old').unlink()\n\
         print(sorted(os.listdir(here / 'out')), socket.gethostname() != '')\n",
    )),
    work: &["{}/job.py", "{}"],
    leave: &["-c", "open('{}/../outside').read()"],
};

const NODE: Example = Example {
    id: "node-example",
    record: include_str!("../../agent-monitor/examples/scopes/node.toml"),
    program: "/usr/bin/node",
    script: Some((
        "job.js",
        "const fs = require('fs'), path = require('path'), here = process.argv[2];\n\
         const rows = JSON.parse(fs.readFileSync(path.join(here, 'data.json')));\n\
         fs.writeFileSync(path.join(here, 'out/report.new'), String(rows.length));\n\
         fs.renameSync(path.join(here, 'out/report.new'), path.join(here, 'out/report'));\n\
         fs.writeFileSync(path.join(here, 'out/old'), 'x');\n\
         fs.unlinkSync(path.join(here, 'out/old'));\n\
         console.log(fs.readdirSync(path.join(here, 'out')), require('os').cpus().length > 0);\n",
    )),
    work: &["{}/job.js", "{}"],
    leave: &["-e", "require('fs').readFileSync('{}/../outside')"],
};

const SHELL: Example = Example {
    id: "shell-example",
    record: include_str!("../../agent-monitor/examples/scopes/shell.toml"),
    program: "/bin/sh",
    script: Some((
        "job.sh",
        "set -e\ncd \"$1\"\ncat data.json > out/report.new\nmv out/report.new out/report\n: > out/old\nrm out/old\n",
    )),
    work: &["{}/job.sh", "{}"],
    leave: &["-c", "cat {}/../outside"],
};

const COMPILED: Example = Example {
    id: "compiled-example",
    record: include_str!("../../agent-monitor/examples/scopes/compiled.toml"),
    program: "{}/worker",
    script: None,
    work: &[
        "open",
        "{}/data.json",
        "read",
        "+",
        "open",
        "{}/out/new",
        "create",
        "+",
        "rename",
        "{}/out/new",
        "{}/out/report",
        "+",
        "open",
        "{}/out/report",
        "rdwr",
        "+",
        "creat",
        "{}/out/old",
        "+",
        "unlink",
        "{}/out/old",
    ],
    leave: &["open", "{}/../outside", "read"],
};

/// A daemon with one example in force, and its directory.
struct Set {
    daemon: Daemon,
    feed: Feed,
    here: String,
    full: bool,
}

/// Starts with the example's record, moved to a directory of the test.
fn start(example: &Example) -> Result<Set, Skip> {
    if example.program.starts_with('/') && !Path::new(example.program).exists() {
        return Skip::because(format!("{} is not here", example.program));
    }
    world::close();
    let setup = Setup::new();
    let here = setup.scratch.text("example");
    setup.scratch.dir("example/out");
    setup.scratch.file("example/data.json", "[1, 2, 3]");
    setup.scratch.file("outside", "not for the example");
    fs::copy(actor_program(), setup.scratch.path("example/worker")).unwrap();
    if let Some((name, text)) = example.script {
        setup.scratch.file(&format!("example/{name}"), text);
    }
    let record = example.record.replace("/srv/example", &here);
    let path = setup.registry().join(format!("{}.toml", example.id));
    fs::write(&path, &record).unwrap();
    let World { daemon, feed, source, .. } = World::start(setup);
    let full = source == "lsm";
    if !full {
        // Nothing may be stopped there: what is shown is what the scope says of real acts.
        let observed = record.replace("\"enforce\"", "\"observe\"");
        let path = daemon.setup.scratch.file(&format!("{}.toml", example.id), &observed);
        let output = daemon.cli(&["agent", "register", &path, "--replace"]);
        assert!(output.status.success(), "{}", client::describe(&output));
    }
    Ok(Set { daemon, feed, here, full })
}

impl Set {
    /// Runs the example's program with these words to its end, and until its end is in the feed; whether it succeeded.
    fn run(&self, example: &Example, words: &[&str]) -> (bool, String) {
        let fill = |word: &str| word.replace("{}", &self.here);
        let socket = self.daemon.socket();
        let program = fill(example.program);
        let mut command: Command =
            client::command(&["exec", "--socket", &socket, "--agent", example.id, "--", &program]);
        command.args(words.iter().map(|word| fill(word))).current_dir(&self.here).env("HOME", &self.here);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        let ended = self.feed.wait_for(PATIENCE, |e| e.kind == "process.exit" && e.pid() == Some(pid));
        assert!(ended, "the end of {program} is not in the feed");
        // The actor says how each act went, and ends well all the same.
        let acted = !String::from_utf8_lossy(&output.stdout).contains("errno=");
        (output.status.success() && acted, client::describe(&output))
    }

    /// What was recorded, as a file, and what `replay` makes of it under a scope.
    fn replay(&self, example: &Example, scope: &Path) -> serde_json::Value {
        let log = self.daemon.setup.scratch.path("log.jsonl");
        let events = self.daemon.cli(&["events", "-o", "jsonl"]);
        fs::write(&log, &events.stdout).unwrap();
        let (log, scope) = (log.to_str().unwrap(), scope.to_str().unwrap());
        self.daemon.cli_json(&["replay", log, "--scope", scope, "--agent", example.id, "-o", "json"])
    }
}

fn runs(example: &Example) -> Verdict {
    let set = start(example)?;
    let (worked, said) = set.run(example, example.work);
    assert!(worked, "{} cannot work under its scope: {said}", example.id);
    assert!(Path::new(&set.here).join("out/report").exists(), "{said}");
    let record = set.daemon.setup.registry().join(format!("{}.toml", example.id));
    let judged = set.replay(example, &record);
    assert_eq!(judged["newly_denied"], serde_json::json!([]), "{judged:#}");
    assert_eq!(judged["not_judged"], serde_json::json!({}), "{judged:#}");
    assert!(judged["unchanged"].as_u64().unwrap() > 5, "{judged:#}");
    let (left, said) = set.run(example, example.leave);
    assert_eq!(left, !set.full, "outside its scope: {said}");
    let outside = set.daemon.setup.scratch.text("outside");
    let open = set.feed.expect("what is outside").kind("file.open").path(&outside).agent(example.id);
    let verdict = open.at_least_once().verdict;
    assert_eq!(verdict.as_deref(), Some("deny"), "outside its scope");
    Ok(())
}

/// What was seen of the compiled example is proposed, reads as a record's scope, and permits all that was seen.
fn learned() -> Verdict {
    let set = start(&COMPILED)?;
    let (worked, said) = set.run(&COMPILED, COMPILED.work);
    assert!(worked, "{said}");
    let id = COMPILED.id;
    let proposed = set.daemon.cli(&["agent", "learn", id]);
    let text = String::from_utf8(proposed.stdout.clone()).unwrap();
    assert!(proposed.status.success(), "{}", client::describe(&proposed));
    assert!(text.contains("# complete: "), "{text}");
    assert!(text.contains("base = [\"linux-runtime\"]"), "{text}");
    assert!(text.contains(&format!("path = \"{}/data.json\"", set.here)), "{text}");
    let complete = text.contains("# complete: yes");
    let strict = set.daemon.cli(&["agent", "learn", id, "--require-complete"]);
    assert_eq!(strict.status.success(), complete, "{}", client::describe(&strict));
    let scope = set.daemon.setup.scratch.path("proposed.toml");
    fs::write(&scope, &text).unwrap();
    let judged = set.replay(&COMPILED, &scope);
    assert_eq!(judged["newly_denied"], serde_json::json!([]), "{judged:#}\n{text}");
    assert_eq!(judged["not_judged"], serde_json::json!({}), "{judged:#}\n{text}");
    assert_eq!(judged["unused_rules"], serde_json::json!([]), "{judged:#}\n{text}");
    Ok(())
}
