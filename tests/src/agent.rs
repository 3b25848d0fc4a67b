//! Real agent CLIs: where they come from, how they are pointed at the scripted model, what they are told to do.
//!
//! Every one of them runs a shell command and edits a file by its own tools. Versions are pinned; everything is
//! installed outside the work tree, once per machine. They get a clean environment and a home of their own, so
//! that nobody's keys or settings are used, and what would call home is switched off.

pub mod host;
mod install;

use crate::model::Step;
pub use install::{Installed, Source, install};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where one run takes place.
#[derive(Debug)]
pub struct Place {
    /// `HOME` of the agent.
    pub home: PathBuf,
    /// Its working directory; the scripted acts happen in it.
    pub work: PathBuf,
    /// Base URL of the scripted model.
    pub url: String,
}

impl Place {
    /// What the scripted shell command leaves behind.
    pub fn shell_file(&self) -> PathBuf {
        self.work.join("shell.txt")
    }

    /// What the scripted edit leaves behind.
    pub fn edited_file(&self) -> PathBuf {
        self.work.join("edited.txt")
    }
}

/// By what its processes are recognised; the record is made from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecognisedBy {
    /// An interpreter's script, started by its `#!` line.
    Script,
    /// A program of its own.
    Exe,
    /// A script that is an argument of an interpreter.
    Argv,
}

/// An agent CLI.
#[derive(Debug)]
pub struct Agent {
    pub id: &'static str,
    pub source: Source,
    /// Its entry point, relative to where it is installed.
    pub entry: &'static str,
    pub by: RecognisedBy,
    /// Files that are to lie in its home, and their contents.
    home: &'static [(&'static str, &'static str)],
    /// Arguments of the entry point, and environment.
    arguments: fn(&Place) -> Vec<String>,
    environment: fn(&Place) -> Vec<(&'static str, String)>,
    /// What the model makes it do: a shell command, a file edit, an end.
    pub script: fn(&Place) -> Vec<Step>,
}

/// The shell command of every script. `/bin/echo` is named by path so that no shell does it by itself.
pub const SHELL_COMMAND: &str = "/bin/echo from-shell > shell.txt; cat shell.txt";
const EDIT: &str = "edited by the agent\n";
const TASK: &str = "Run the command and write the file.";

/// `codex`: a Node script that starts a native program.
pub const CODEX: Agent = Agent {
    id: "codex",
    source: Source::Npm { package: "@openai/codex", version: "0.169.0", scripts: false },
    entry: "node_modules/@openai/codex/bin/codex.js",
    by: RecognisedBy::Script,
    home: &[],
    arguments: |place| {
        let provider = format!(
            "model_providers.scripted={{name=\"scripted\",base_url=\"{}/v1\",wire_api=\"responses\",\
             env_key=\"OPENAI_API_KEY\"}}",
            place.url
        );
        let words = [
            "exec",
            "--skip-git-repo-check",
            "--dangerously-bypass-approvals-and-sandbox",
            "--disable",
            "plugins",
            "--disable",
            "apps",
            "-c",
            "check_for_update_on_startup=false",
            "-c",
            "analytics.enabled=false",
            "-c",
            "feedback.enabled=false",
            "-c",
            "model_provider=scripted",
            "-c",
            &provider,
            "-m",
            "gpt-5.5",
            TASK,
        ];
        words.map(str::to_owned).to_vec()
    },
    environment: |_| vec![("OPENAI_API_KEY", "none".to_owned())],
    script: |_| {
        let patch = format!("*** Begin Patch\n*** Add File: edited.txt\n+{EDIT}*** End Patch\n");
        vec![
            Step::tool("exec_command", json!({ "cmd": SHELL_COMMAND })),
            Step::Freeform { name: "apply_patch".to_owned(), input: patch },
            Step::Say("Done.".to_owned()),
        ]
    },
};

/// `qwen`: a Node script that does everything itself.
pub const QWEN_CODE: Agent = Agent {
    id: "qwen-code",
    source: Source::Npm { package: "@qwen-code/qwen-code", version: "0.15.10", scripts: false },
    entry: "node_modules/@qwen-code/qwen-code/cli.js",
    by: RecognisedBy::Script,
    home: &[(
        ".qwen/settings.json",
        r#"{"privacy":{"usageStatisticsEnabled":false},"telemetry":{"enabled":false},"general":{"enableAutoUpdate":false}}"#,
    )],
    arguments: |_| ["--auth-type", "openai", "--yolo", "-p", TASK].map(str::to_owned).to_vec(),
    environment: |place| {
        vec![
            ("OPENAI_API_KEY", "none".to_owned()),
            ("OPENAI_BASE_URL", format!("{}/v1", place.url)),
            ("OPENAI_MODEL", "scripted".to_owned()),
        ]
    },
    script: |place| {
        let shell = json!({"command": SHELL_COMMAND, "is_background": false, "description": "a command"});
        vec![
            Step::tool("run_shell_command", shell),
            Step::tool("write_file", json!({"file_path": place.edited_file(), "content": EDIT})),
            Step::Say("Done.".to_owned()),
        ]
    },
};

/// `claude`: one native program.
pub const CLAUDE_CODE: Agent = Agent {
    id: "claude-code",
    // Its install script puts the native program in place.
    source: Source::Npm { package: "@anthropic-ai/claude-code", version: "2.1.330", scripts: true },
    entry: "node_modules/@anthropic-ai/claude-code/bin/claude.exe",
    by: RecognisedBy::Exe,
    home: &[],
    arguments: |_| ["-p", "--dangerously-skip-permissions", TASK].map(str::to_owned).to_vec(),
    environment: |place| {
        vec![
            ("ANTHROPIC_API_KEY", "none".to_owned()),
            ("ANTHROPIC_BASE_URL", place.url.clone()),
            // It refuses to skip permissions as root anywhere else; the script is ours, and harmless.
            ("IS_SANDBOX", "1".to_owned()),
            ("DISABLE_AUTOUPDATER", "1".to_owned()),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
        ]
    },
    script: |place| {
        vec![
            Step::tool("Bash", json!({"command": SHELL_COMMAND, "description": "a command"})),
            Step::tool("Write", json!({"file_path": place.edited_file(), "content": EDIT})),
            Step::Say("Done.".to_owned()),
        ]
    },
};

/// `mini`: a Python script that is started as an argument of the interpreter. It edits files by shell.
pub const MINI_SWE_AGENT: Agent = Agent {
    id: "mini-swe-agent",
    source: Source::Pypi {
        package: "mini-swe-agent",
        version: "2.4.6",
        requirements: include_str!("agent/mini-swe-agent.requirements"),
    },
    entry: "venv/bin/mini",
    by: RecognisedBy::Argv,
    home: &[],
    arguments: |_| {
        ["-m", "openai/scripted", "-y", "--exit-immediately", "-t", TASK].map(str::to_owned).to_vec()
    },
    environment: |place| {
        vec![
            ("OPENAI_API_KEY", "none".to_owned()),
            ("OPENAI_API_BASE", format!("{}/v1", place.url)),
            ("MSWEA_CONFIGURED", "true".to_owned()),
            ("MSWEA_COST_TRACKING", "ignore_errors".to_owned()),
            ("LITELLM_LOCAL_MODEL_COST_MAP", "True".to_owned()),
        ]
    },
    script: |_| {
        let edit =
            "printf 'first\\nsecond\\n' > edited.txt; sed -i '1d; s/second/edited by the agent/' edited.txt";
        vec![
            Step::tool("bash", json!({ "command": SHELL_COMMAND })),
            Step::tool("bash", json!({ "command": edit })),
            Step::tool("bash", json!({"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"})),
        ]
    },
};

/// All of them.
pub const AGENTS: &[&Agent] = &[&CODEX, &QWEN_CODE, &CLAUDE_CODE, &MINI_SWE_AGENT];

impl Agent {
    /// The command that runs it in `place`, in a clean environment.
    pub fn command(&self, installed: &Installed, place: &Place) -> Command {
        for (name, content) in self.home {
            let path = place.home.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let entry = installed.root.join(self.entry);
        let mut command = match self.by {
            RecognisedBy::Script | RecognisedBy::Exe => Command::new(&entry),
            RecognisedBy::Argv => {
                let mut command = Command::new(installed.root.join("venv/bin/python3"));
                command.arg(&entry);
                command
            }
        };
        command
            .args((self.arguments)(place))
            .current_dir(&place.work)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &place.home)
            .env("LANG", "C.UTF-8")
            .env("TERM", "dumb")
            .env("NO_PROXY", "127.0.0.1,localhost")
            .envs((self.environment)(place));
        command
    }

    /// What the agent has to leave behind, or what is wrong.
    pub fn check_effects(&self, place: &Place) -> Result<(), String> {
        for (path, wanted) in [(place.shell_file(), "from-shell\n"), (place.edited_file(), EDIT)] {
            let found =
                std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            if found != wanted {
                return Err(format!("{}: {found:?}, not {wanted:?}", path.display()));
            }
        }
        Ok(())
    }

    /// The entry point as the kernel names it: symbolic links resolved.
    pub fn entry_path(&self, installed: &Installed) -> String {
        let path = installed.root.join(self.entry);
        let path = path.canonicalize().unwrap_or_else(|_| Path::new(self.entry).to_path_buf());
        path.to_str().unwrap().to_owned()
    }
}
