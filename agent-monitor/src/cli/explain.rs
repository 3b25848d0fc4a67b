//! `explain`: would this be allowed, by which rule, and what would this host really do.

use std::path::Path;
use std::process::ExitCode;

use agent_monitor::attribute::{Agents, MountTable};
use agent_monitor::control::api::Status;
use agent_monitor::decode::FsPath;
use agent_monitor::explain::outcome::{Act, Approver, Circumstances, outcome};
use agent_monitor::explain::{Fitting, Question, fitting};
use agent_monitor::health::doctor::Level;
use agent_monitor::model::privilege::CAPABILITIES;
use agent_monitor::model::{Mode, SCHEMA_VERSION};
use agent_monitor::registry::record::UserRef;
use agent_monitor::registry::{AgentId, Record};
use agent_monitor::replay::book::ImageBook;
use agent_monitor::replay::{Opinion, Rulebook as _};
use agent_monitor::run::host::{Hashes, LiveResolve, mountinfo};
use agent_monitor::scope::compile::{Protected, compile, power_of, slot_of};
use agent_monitor::scope::{FileAccess, Host, NetAction, NetPattern, PathPattern, PrivilegeKind, Protocol};
use agent_monitor_ebpf::policy::{NET_BIND, NET_CONNECT, NET_LISTEN, slot};
use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::exit::{FAILURE, Failure, note};
use super::output::{Format, Out};
use super::{Shared, agent, block_on};

/// Judges one action by the registry on disk and the mounts of this host; nothing is done.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The agent
    #[arg(long, value_name = "ID")]
    agent: String,
    #[command(subcommand)]
    what: What,
    /// Form of the output
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT", global = true)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum What {
    /// An access to a file: create, delete, execute-map, read, write
    File {
        /// The access
        access: String,
        /// An absolute path; it need not exist
        path: String,
    },
    /// Running a program
    Exec {
        /// An absolute path
        path: String,
    },
    /// A peer, or an own address: 10.0.0.1:443/tcp, [2001:db8::1]:53/udp, unix:/run/x.sock, unix:@name
    Net {
        /// connect, bind or listen
        action: String,
        /// The address
        peer: String,
    },
    /// A privilege (mount, ptrace …) or a capability (CAP_NET_ADMIN …)
    Privilege {
        /// Its name
        kind: String,
    },
}

pub(crate) fn run(args: &ExplainArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let id: AgentId = args.agent.parse().map_err(|error| {
        Failure::usage(format!("--agent `{}`: {error}", args.agent), "agent-monitor agent list")
    })?;
    let question = question(&args.what)?;
    let found = agent::record_of(&id, shared)?;
    let Some(record) = &found else {
        let hint = "`agent-monitor agent list` shows the agents, `agent-monitor agent check` refused records";
        let message = format!("no agent `{id}` is registered");
        return Err(Failure { code: FAILURE, message, hint: Some(hint.to_owned()) }.into());
    };
    let level = level(shared)?;
    let text = mountinfo().context("cannot read the mounts of this host from /proc/self/mountinfo")?;
    let mounts = MountTable::parse(&text);
    let mut hashes = Hashes::new();
    let mut host = LiveResolve::new(&mounts, &mut hashes);
    let mut agents = Agents::default();
    agents.register([(id.as_str(), Mode::Enforce)]);
    let own = own_places(shared)?;
    let mut compiled = compile(std::slice::from_ref(record), &[], &agents, &mut host, &own);
    let index = agents.index(id.as_str()).context("the agent has no number")?;
    let image = compiled.image.agents.remove(&index).context("the scope was not compiled")?;
    let mut names = |path: &str| {
        let canonical = agent_monitor::run::host::follow(Path::new(path));
        let at = mounts.locate(canonical.as_os_str().as_encoded_bytes())?;
        let components = at.inner.split(|b| *b == b'/').filter(|c| !c.is_empty()).map(<[u8]>::to_vec);
        let named =
            mounts.host_path(&FsPath { dev: at.dev, components: components.collect(), ..FsPath::default() });
        String::from_utf8(named.bytes).ok()
    };
    let question = resolve(question, &mut names)?;
    let opinion = ask(&mut ImageBook::new(image, mounts.clone()), &question)
        .map_err(|why| Failure::new(FAILURE, format!("cannot judge {}: {why}", words(&question))))?;
    let rules = fitting(record, &question, &opinion.rule, &mut names);
    let answer = Answer { record, question: &question, opinion: &opinion, rules: &rules, level };
    answer.write(args.format)?;
    Ok(ExitCode::SUCCESS)
}

/// What no agent may change, as far as it is known without the daemon: not the entry of its process in `/proc`.
fn own_places(shared: &Shared) -> anyhow::Result<Protected> {
    let settings = shared.settings()?;
    let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
    let mut written = vec![bytes(&shared.registry()?)];
    written.extend(settings.socket.parent().map(bytes));
    written.extend(std::env::current_exe().ok().as_deref().map(bytes));
    Ok(Protected { written, closed: vec![bytes(&shared.state_dir()?), bytes(&settings.bpffs)] })
}

/// The level that the daemon runs at, or why it is not known.
fn level(shared: &Shared) -> anyhow::Result<Result<Level, String>> {
    let answer: Result<Status, _> = block_on(shared.client()?.get("/v1/status"))?;
    Ok(answer.map(|status| status.daemon.level).map_err(|error| error.to_string()))
}

fn word<T: Copy>(words: &[(&str, T)], text: &str, what: &str) -> anyhow::Result<T> {
    let found = words.iter().find(|(known, _)| *known == text).map(|(_, value)| *value);
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let failure =
        || Failure::usage(format!("unknown {what} `{text}`"), format!("one of: {}", known.join(", ")));
    Ok(found.ok_or_else(failure)?)
}

fn absolute(path: &str) -> anyhow::Result<String> {
    let parsed = PathPattern::parse(path);
    match parsed {
        Ok(PathPattern::Exact(path)) => Ok(path),
        Ok(_) if path != "/" => {
            Err(Failure::usage(format!("`{path}` is a pattern"), "name one object by its absolute path")
                .into())
        }
        _ if path == "/" => Ok("/".to_owned()),
        Err(error) => Err(Failure::usage(error.problem, error.hint).into()),
        Ok(_) => Ok(path.to_owned()),
    }
}

fn question(what: &What) -> anyhow::Result<Question> {
    Ok(match what {
        What::File { access, path } => {
            Question::File(word(&FileAccess::WORDS, access, "access")?, absolute(path)?)
        }
        What::Exec { path } => Question::Exec(absolute(path)?),
        What::Net { action, peer } => peer_question(word(&NetAction::WORDS, action, "action")?, peer)?,
        What::Privilege { kind } if CAPABILITIES.contains(&kind.as_str()) => {
            Question::Capability(kind.clone())
        }
        What::Privilege { kind } => Question::Power(word(&PrivilegeKind::WORDS, kind, "privilege")?),
    })
}

fn peer_question(action: NetAction, text: &str) -> anyhow::Result<Question> {
    let refuse = |message: String, hint: &str| Err(Failure::usage(message, hint).into());
    match NetPattern::parse(text) {
        Err(error) => refuse(format!("`{text}`: {}", error.problem), &error.hint),
        Ok(NetPattern::Ip { host: Host::Net(net), ports, protocol })
            if net.prefix_len() == net.max_prefix_len()
                && ports.is_none_or(|ports| ports.low == ports.high) =>
        {
            let port = ports.map_or(0, |ports| ports.low);
            let assumed = if port == 0 { None } else { Some(Protocol::Tcp) };
            match protocol.or(assumed) {
                Some(protocol) => Ok(Question::Peer(action, net.addr(), port, protocol)),
                None => refuse(format!("`{text}` has no port"), "write 10.0.0.1:443/tcp, or 10.0.0.1/icmp"),
            }
        }
        Ok(NetPattern::Ip { host: Host::Name(_) | Host::Suffix(_), .. }) => {
            refuse(format!("`{text}` is a name"), "rules by name are not in force yet; give an address")
        }
        Ok(NetPattern::UnixPath(PathPattern::Exact(path))) => Ok(Question::UnixPath(action, path)),
        Ok(NetPattern::UnixAbstract(name)) => Ok(Question::UnixAbstract(action, name)),
        Ok(_) => refuse(
            format!("`{text}` is no single internet or UNIX peer"),
            "write 10.0.0.1:443/tcp or unix:/run/x.sock",
        ),
    }
}

/// Puts the first name of the place for the path. What is made or removed is the last part itself, also where that is a
/// symbolic link.
fn resolve(question: Question, names: &mut dyn FnMut(&str) -> Option<String>) -> anyhow::Result<Question> {
    let mut first = |path: String, link: bool| -> anyhow::Result<String> {
        let found = match path.rsplit_once('/').filter(|(_, name)| link && !name.is_empty()) {
            Some((directory, name)) => {
                let directory = if directory.is_empty() { "/" } else { directory };
                names(directory).map(|at| format!("{}/{name}", at.trim_end_matches('/')))
            }
            None => names(&path),
        };
        Ok(found.ok_or_else(|| {
            Failure::new(FAILURE, format!("{path} is on no file system that is mounted here"))
        })?)
    };
    Ok(match question {
        Question::File(access, path) => {
            let link = matches!(access, FileAccess::Create | FileAccess::Delete);
            Question::File(access, first(path, link)?)
        }
        Question::Exec(path) => Question::Exec(first(path, false)?),
        Question::UnixPath(action, path) => {
            let link = action == NetAction::Bind;
            Question::UnixPath(action, first(path, link)?)
        }
        other => other,
    })
}

fn ask(book: &mut ImageBook, question: &Question) -> Result<Opinion, String> {
    let unix = |action: &NetAction| match action {
        NetAction::Bind => 1 << slot::UNIX_BIND,
        NetAction::Connect => 1 << slot::UNIX_CONNECT,
        NetAction::Listen => 1 << slot::UNIX_LISTEN,
    };
    match question {
        Question::File(access, path) => book.place(path, None, 1 << slot_of(*access), false),
        Question::Exec(path) => book.place(path, None, 1 << slot::EXEC, false),
        Question::Peer(action, addr, port, protocol) => {
            let action = match action {
                NetAction::Bind => NET_BIND,
                NetAction::Connect => NET_CONNECT,
                NetAction::Listen => NET_LISTEN,
            };
            book.net(*addr, *port, protocol.number(), action)
        }
        Question::UnixPath(action, path) => book.place(path, None, unix(action), false),
        Question::UnixAbstract(action, name) => book.unix_abstract(name.as_bytes(), unix(action)),
        Question::Power(kind) => book.power(power_of(*kind)),
        Question::Capability(name) => {
            let number = CAPABILITIES.iter().position(|known| known == name);
            book.capability(number.ok_or("the capability is not known")?)
        }
    }
}

fn words(question: &Question) -> String {
    match question {
        Question::File(access, path) => format!("{} {path}", access.as_str()),
        Question::Exec(path) => format!("exec {path}"),
        Question::Peer(action, addr, port, protocol) => {
            let at = if *port == 0 {
                addr.to_string()
            } else {
                std::net::SocketAddr::new(*addr, *port).to_string()
            };
            format!("{} {at}/{}", action.as_str(), protocol.as_str())
        }
        Question::UnixPath(action, path) => format!("{} unix:{path}", action.as_str()),
        Question::UnixAbstract(action, name) => format!("{} unix:@{name}", action.as_str()),
        Question::Power(kind) => kind.as_str().to_owned(),
        Question::Capability(name) => name.clone(),
    }
}

/// Whether somebody may decide about what is held: an agent never approves itself, and without approvers only root may.
fn approver(record: &Record) -> Approver {
    let as_root = |user: &UserRef| match user {
        UserRef::Uid(id) => *id == 0,
        UserRef::Name(name) => name == "root",
    };
    let runs_as_root =
        record.matches.iter().any(|found| found.value.user.as_ref().is_some_and(|user| as_root(&user.value)));
    if record.approvers.is_empty() && runs_as_root { Approver::Nobody } else { Approver::Present }
}

struct Answer<'a> {
    record: &'a Record,
    question: &'a Question,
    opinion: &'a Opinion,
    rules: &'a [Fitting],
    level: Result<Level, String>,
}

impl Answer<'_> {
    fn enforces(&self) -> bool {
        self.record.mode.value == agent_monitor::registry::Mode::Enforce && self.record.scope.declared
    }

    /// What would come of it here.
    fn really(&self) -> String {
        let own = self.opinion.rule == "self-protection";
        let level = self.level.as_ref().ok().copied();
        let at = Circumstances { level, enforced: self.enforces() || own, approver: approver(self.record) };
        outcome(self.opinion.verdict, Act::of(self.question), at).text(level)
    }

    fn write(&self, format: Format) -> anyhow::Result<()> {
        if let Err(why) = &self.level {
            note(&format!("note: the level of this host is not known: {why}"));
        }
        let mode = self.record.mode.value;
        let deciding = self.rules.iter().find(|rule| rule.lost.is_none());
        let mut out = Out::new();
        if format != Format::Table {
            let level = self.level.as_ref().ok().map(|level| level.as_str());
            let answer = serde_json::json!({
                "schema_version": SCHEMA_VERSION, "agent": self.record.id.value, "asked": words(self.question),
                "verdict": self.opinion.verdict, "rule": self.opinion.rule, "decides": deciding,
                "lost": self.rules.iter().filter(|rule| rule.lost.is_some()).collect::<Vec<_>>(),
                "mode": mode, "level": level, "really": self.really(),
            });
            out.json(&answer, format)?;
            return Ok(out.flush()?);
        }
        let place = |rule: &Fitting| format!("{}:{}", rule.file, rule.at);
        let rule = match deciding {
            Some(rule) => format!("{} {} ({})", rule.rule, rule.pattern, place(rule)),
            None => match self.opinion.rule.as_str() {
                "self-protection" => "none: the monitor's own places are kept from every agent".to_owned(),
                other => format!("{other}: no rule names it"),
            },
        };
        let mode = if mode == agent_monitor::registry::Mode::Enforce { "enforce" } else { "observe" };
        out.pairs([
            ("asked", format!("{}: {}", self.record.id.value, words(self.question))),
            ("verdict", self.opinion.verdict.as_str().to_owned()),
            ("rule", rule),
            ("mode", mode.to_owned()),
            ("really", self.really()),
        ])?;
        let rows: Vec<Vec<String>> = self
            .rules
            .iter()
            .filter_map(|rule| {
                let why = rule.lost.clone()?;
                Some(vec![
                    rule.rule.clone(),
                    rule.verdict.as_str().to_owned(),
                    rule.pattern.clone(),
                    place(rule),
                    why,
                ])
            })
            .collect();
        if !rows.is_empty() {
            out.line("")?;
            out.table(&["LOST", "VERDICT", "ABOUT", "WHERE", "WHY"], rows)?;
        }
        Ok(out.flush()?)
    }
}
