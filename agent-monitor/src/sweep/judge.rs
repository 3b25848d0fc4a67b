//! From processes to observations: which are products, which belong to one, which only behave like an agent. Pure over
//! what was read; scripts and records are asked through [`Ask`].

mod above;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::edits::{self, EDITS};
use super::identify::{self, Hit, Subject};
use super::observe::{About, Observation, Place, Seen, Source};
use super::pack::{Pack, ProductIndex};
use super::proc::{Proc, Processes};
use super::redact;
use super::report::{Parent, ProcessRef, ProductKind, Risk};
use crate::attribute::container;

/// What must be asked elsewhere.
pub trait Ask {
    /// Modules that a script imports, as the process' own root has it.
    fn imports(&mut self, proc: &Proc, script: &str) -> Vec<String>;
    /// The agent that a record makes of the process, and whether that record has expired.
    fn agent(&mut self, proc: &Proc, script: Option<&str>) -> Option<(String, bool)>;
    /// Where a path really lies, as the process' own root has it.
    fn canonical(&mut self, proc: &Proc, path: &str) -> Option<String>;
    /// The version of the package in whose directory a file lies, and that directory.
    fn version(&mut self, proc: &Proc, path: &str) -> Option<(String, String)>;
    /// The provider of a peer's address, where it is known.
    fn provider(&mut self, peer: SocketAddr) -> Option<String>;
    /// A file in its working directory that changed after it started.
    fn edited(&mut self, proc: &Proc) -> Option<String>;
    /// The process that asks for all this.
    fn caller(&self) -> Option<u32> {
        None
    }
}

/// Weights of signs of behaviour, 0 to 100.
pub(super) const FRAMEWORK_IMPORT: u8 = 55;
const FRAMEWORK_LOADED: u8 = 40;
pub(super) const SDK_IMPORT: u8 = 30;
pub(super) const PROVIDER: u8 = 45;
const LOCAL_MODEL: u8 = 35;
const KEY: u8 = 15;
pub(super) const TOOLS: u8 = 15;
/// Behaviour never says more than this.
const BEHAVIOUR_MAX: u8 = 70;
/// From here on a process is told as a product.
const WEIGHT_TOLD: u8 = 50;

/// Programs that talk to providers for a person, not by themselves.
pub(super) const NOT_AGENTS: &[&str] = &[
    "chrome",
    "chromium",
    "firefox",
    "firefox-esr",
    "brave",
    "msedge",
    "curl",
    "wget",
    "sshd",
    "ssh",
    "systemd-resolved",
    "dnsmasq",
    "haproxy",
    "nginx",
    "envoy",
    "squid",
    "agent-monitor",
];
/// Weight of the mark that an agent sets for its children.
pub(super) const MARK: u8 = 60;
/// Programs by which an agent acts.
pub(super) const SHELLS: &[&str] = &["sh", "bash", "dash", "zsh", "fish", "git", "rg", "sed", "patch"];

struct Judge<'a> {
    pack: &'a Pack,
    procs: &'a Processes,
    subjects: BTreeMap<u32, Subject>,
    /// Products of processes that are told, with the best hit.
    told: BTreeMap<u32, Hit>,
    /// Ports of model servers and gateways on this host.
    local_models: BTreeMap<u16, String>,
    out: Vec<Observation>,
}

/// All observations of the processes.
#[must_use]
pub fn judge(pack: &Pack, procs: &Processes, ask: &mut dyn Ask) -> Vec<Observation> {
    let mut judge = Judge {
        pack,
        procs,
        subjects: BTreeMap::new(),
        told: BTreeMap::new(),
        local_models: BTreeMap::new(),
        out: Vec::new(),
    };
    judge.identify(ask);
    judge.listeners();
    for proc in procs.all.values() {
        judge.marked(proc, ask);
        judge.connections(proc, ask);
        judge.behaviour(proc, ask);
    }
    judge.out
}

impl Judge<'_> {
    fn identify(&mut self, ask: &mut dyn Ask) {
        let mut all = BTreeMap::new();
        for proc in self.procs.all.values() {
            let exe = proc.exe.as_deref().unwrap_or_default();
            let mut subject = identify::subject(exe, &proc.args, proc.cwd.as_deref().unwrap_or_default());
            // A console command is a link into its package.
            let script = subject.main_path().filter(|path| Some(*path) != proc.exe.as_deref());
            let script = script
                .and_then(|script| ask.canonical(proc, script))
                .filter(|real| !subject.paths.contains(real));
            subject.paths.extend(script);
            let hits = identify::identify(self.pack, &subject);
            if let Some(hit) = hits.first().filter(|hit| hit.weight >= WEIGHT_TOLD) {
                self.told.insert(proc.pid, hit.clone());
            }
            self.subjects.insert(proc.pid, subject);
            all.insert(proc.pid, hits);
        }
        for proc in self.procs.all.values() {
            let (Some(hits), Some(subject)) = (all.get(&proc.pid), self.subjects.get(&proc.pid)) else {
                continue;
            };
            if subject.wrapped && self.child_is_it(proc.pid, hits) {
                self.told.remove(&proc.pid);
                continue;
            }
            // Other products that share a name say nothing beside one that is sure.
            let sure = hits.first().filter(|hit| !hit.ambiguous).map(|hit| hit.product);
            let mut seen = BTreeSet::new();
            let wanted = |hit: &&Hit| sure.is_none_or(|sure| hit.product == sure && !hit.ambiguous);
            for hit in hits.iter().filter(wanted) {
                if seen.insert((hit.product, hit.what.clone())) {
                    let observation = self.of_process(proc, subject, hit, ask);
                    self.out.push(observation);
                }
            }
        }
    }

    /// What a wrapper started is the product itself.
    fn child_is_it(&self, pid: u32, hits: &[Hit]) -> bool {
        let same = |child: &Proc| {
            self.told.get(&child.pid).is_some_and(|told| hits.iter().any(|hit| hit.product == told.product))
        };
        self.procs.children(pid).any(same)
    }

    fn of_process(&self, proc: &Proc, subject: &Subject, hit: &Hit, ask: &mut dyn Ask) -> Observation {
        let mut observation =
            self.base(About::Product(hit.product), proc, Source::Process, hit.weight, &hit.what);
        observation.ambiguous = hit.ambiguous;
        observation.variant = hit.variant.clone();
        observation.path = subject.main_path().map(str::to_owned);
        observation.process = Some(Box::new(self.seen(proc, Some(subject), ask)));
        let packaged = subject.paths.iter().rev().find_map(|path| ask.version(proc, path));
        let by_path = || subject.paths.iter().find_map(|path| identify::version_in(path));
        observation.version = packaged.map(|(version, _)| version).or_else(by_path);
        let product = self.pack.product(hit.product);
        let line = proc.args.join(" ");
        let flags = product.map_or(&[][..], |product| product.list("unsafe_flags"));
        let used: Vec<&str> =
            flags.iter().filter(|flag| has_flag(&proc.args, &line, flag)).map(String::as_str).collect();
        if !used.is_empty() && !hit.ambiguous {
            observation.risks.push(Risk { mark: "unsafe_flags".to_owned(), detail: used.join(" ") });
        }
        if !hit.ambiguous {
            risks(proc, &mut observation.risks);
        }
        observation
    }

    fn base(&self, about: About, proc: &Proc, source: Source, weight: u8, what: &str) -> Observation {
        let place = Place { uid: Some(proc.uid), container: container_label(proc) };
        let mut observation =
            Observation::new(about, place, source, weight, what, format!("pid {}", proc.pid));
        observation.when = proc.start;
        observation
    }

    fn seen(&self, proc: &Proc, subject: Option<&Subject>, ask: &mut dyn Ask) -> Seen {
        let script =
            subject.and_then(|subject| subject.main_path()).filter(|path| Some(*path) != proc.exe.as_deref());
        let own = ask.agent(proc, script);
        // What an agent starts is the agent's.
        let agent = own.or_else(|| {
            self.procs.ancestors(proc.pid).find_map(|parent| {
                let subject = self.subjects.get(&parent.pid);
                let script = subject.and_then(|subject| subject.main_path());
                ask.agent(parent, script.filter(|path| Some(*path) != parent.exe.as_deref()))
            })
        });
        let names = proc.cgroup.as_deref().map(container::names).unwrap_or_default();
        let parents = self.procs.ancestors(proc.pid).map(|parent| Parent {
            pid: parent.pid,
            exe: parent.exe.clone().or_else(|| Some(parent.comm.clone())),
            uid: Some(parent.uid),
        });
        Seen {
            shown: ProcessRef {
                pid: proc.pid,
                start_time: proc.start,
                exe: proc.exe.clone(),
                script: script
                    .map(str::to_owned)
                    .or_else(|| subject?.module.as_ref().map(|m| format!("-m {m}"))),
                args: redact::args(&proc.args),
                cwd: proc.cwd.clone(),
                uid: Some(proc.uid),
                unit: names.unit,
                container: names.container,
                listens: proc.listens.iter().map(ToString::to_string).collect(),
                marked: false,
            },
            agent,
            login_uid: proc.login_uid,
            session: proc.session,
            parents: parents.collect(),
        }
    }

    /// Listeners of what is told, and of what only sits on a port that nobody else uses.
    fn listeners(&mut self) {
        for proc in self.procs.all.values().filter(|proc| !proc.listens.is_empty()) {
            if let Some(hit) = self.told.get(&proc.pid) {
                let Some(product) = self.pack.product(hit.product) else { continue };
                if matches!(product.kind(), ProductKind::ModelServer | ProductKind::Gateway) {
                    let ports = proc.listens.iter().map(|addr| (addr.port(), product.name.clone()));
                    self.local_models.extend(ports);
                }
                let what = format!("listens on {}", addresses(&proc.listens));
                let usual = proc.listens.iter().any(|addr| product.ports.contains(&addr.port()));
                let weight = if usual { 40 } else { 5 };
                let observation =
                    self.base(About::Product(hit.product), proc, Source::Listener, weight, &what);
                self.out.push(observation);
                continue;
            }
            for addr in &proc.listens {
                let Some(index) = only_product_on(self.pack, addr.port()) else { continue };
                let what = format!("listens on {addr}, the usual port of it");
                let mut observation = self.base(About::Product(index), proc, Source::Listener, 25, &what);
                observation.ambiguous = true;
                self.out.push(observation);
            }
        }
    }

    /// Children of an agent whose own process is not told: they carry its marker.
    fn marked(&mut self, proc: &Proc, ask: &mut dyn Ask) {
        for product in &proc.markers {
            let is = |pid: u32| self.told.get(&pid).is_some_and(|hit| hit.product == *product);
            if is(proc.pid) || self.procs.ancestors(proc.pid).any(|parent| is(parent.pid)) {
                continue;
            }
            // One line per tree: the topmost process that has it.
            if self.procs.all.get(&proc.ppid).is_some_and(|parent| parent.markers.contains(product)) {
                continue;
            }
            let what = format!("`{}` carries the mark that it sets for its children", name_of(proc));
            let mut observation = self.base(About::Product(*product), proc, Source::Environment, MARK, &what);
            let mut child = self.seen(proc, self.subjects.get(&proc.pid), ask);
            child.shown.marked = true;
            let seen = match self.agent_above(proc, ask.caller()) {
                Some(agent) => {
                    observation.at = format!("pid {}, started by pid {}", proc.pid, agent.pid);
                    let seen = self.seen(agent, self.subjects.get(&agent.pid), ask);
                    Seen { agent: child.agent.or(seen.agent), ..seen }
                }
                None => child,
            };
            observation.process = Some(Box::new(seen));
            self.out.push(observation);
        }
    }

    /// Connections of what is told.
    fn connections(&mut self, proc: &Proc, ask: &mut dyn Ask) {
        let Some(hit) = self.told.get(&proc.pid) else { return };
        if let Some((peer, who)) = proc.peers.iter().find_map(|peer| Some((peer, ask.provider(*peer)?))) {
            let what = format!("is connected to {who} ({peer})");
            let observation = self.base(About::Product(hit.product), proc, Source::Connection, 30, &what);
            self.out.push(observation);
        }
    }

    /// Programs that nobody packaged: what they import, whom they talk to, what they start.
    fn behaviour(&mut self, proc: &Proc, ask: &mut dyn Ask) {
        if self.told.contains_key(&proc.pid) || NOT_AGENTS.contains(&name_of(proc)) {
            return;
        }
        let Some(subject) = self.subjects.get(&proc.pid) else { return };
        let script = subject.main_path().filter(|path| super::is_script_path(path, proc.exe.as_deref()));
        let script = script.map(str::to_owned);
        let script = script.as_deref();
        let mut signs: Vec<(Source, u8, String)> = Vec::new();
        let mut framework = false;
        let mut server = false;
        if let Some(script) = script {
            for index in self.imported(proc, script, ask) {
                let Some(product) = self.pack.product(index) else { continue };
                server |= product.id == "mcp-sdk";
                let is_framework = product.kind().is_agent();
                framework |= is_framework;
                let weight = if is_framework { FRAMEWORK_IMPORT } else { SDK_IMPORT };
                signs.push((Source::Imports, weight, format!("{script} imports {}", product.name)));
            }
        }
        for (index, path) in &proc.libraries {
            let Some(product) = self.pack.product(*index).filter(|product| product.kind().is_agent()) else {
                continue;
            };
            framework = true;
            signs.push((Source::Library, FRAMEWORK_LOADED, format!("has loaded {} ({path})", product.name)));
        }
        if let Some((peer, who)) = proc.peers.iter().find_map(|peer| Some((peer, ask.provider(*peer)?))) {
            signs.push((Source::Connection, PROVIDER, format!("is connected to {who} ({peer})")));
        }
        let local = |peer: &SocketAddr| {
            peer.ip().is_loopback().then(|| self.local_models.get(&peer.port())).flatten()
        };
        if let Some((peer, who)) = proc.peers.iter().find_map(|peer| Some((peer, local(peer)?))) {
            signs.push((Source::Connection, LOCAL_MODEL, format!("is connected to {who} on {peer}")));
        }
        if let Some(name) = proc.provider_variables.first() {
            signs.push((Source::Environment, KEY, format!("has {name} in its environment")));
        }
        if let Some(child) = self.procs.children(proc.pid).find(|child| SHELLS.contains(&name_of(child))) {
            signs.push((
                Source::Behaviour,
                TOOLS,
                format!("has started `{}` (pid {})", name_of(child), child.pid),
            ));
        }
        let by_agent =
            self.procs.all.get(&proc.ppid).is_some_and(|parent| self.told.contains_key(&parent.pid));
        if server && proc.piped && by_agent {
            self.stdio_server(proc, script.unwrap_or_default().to_owned(), ask);
            return;
        }
        let server_of = |child: &Proc| {
            let product = self.pack.product(self.told.get(&child.pid)?.product)?;
            (product.kind() == ProductKind::McpServer).then(|| product.name.clone())
        };
        if let Some((child, name)) =
            self.procs.children(proc.pid).find_map(|child| Some((child, server_of(child)?)))
        {
            signs.push((
                Source::Behaviour,
                TOOLS,
                format!("has started the MCP server {name} (pid {})", child.pid),
            ));
        }
        let talks =
            |(source, ..): &(Source, u8, String)| matches!(source, Source::Connection | Source::Imports);
        let talks = signs.iter().any(talks);
        if let Some(path) = talks.then(|| ask.edited(proc)).flatten() {
            signs.push((Source::Behaviour, EDITS, edits::evidence(&path)));
        }
        let kinds: BTreeSet<Source> = signs.iter().map(|(source, ..)| *source).collect();
        if framework || talks && kinds.len() >= 2 {
            self.home_made(proc, script, signs, ask);
        }
    }

    fn imported(&self, proc: &Proc, script: &str, ask: &mut dyn Ask) -> BTreeSet<ProductIndex> {
        let modules = ask.imports(proc, script);
        let npm = |name: &str| self.pack.package(super::pack::Ecosystem::Npm, name);
        modules.iter().filter_map(|name| self.pack.import(name).or_else(|| npm(name))).collect()
    }

    fn home_made(
        &mut self,
        proc: &Proc,
        script: Option<&str>,
        signs: Vec<(Source, u8, String)>,
        ask: &mut dyn Ask,
    ) {
        let path = script.or(proc.exe.as_deref()).unwrap_or(&proc.comm).to_owned();
        let together =
            super::correlate::together(signs.iter().map(|(_, weight, _)| *weight)).min(BEHAVIOUR_MAX);
        let whole: u32 = signs.iter().map(|(_, weight, _)| u32::from(*weight)).sum();
        for (at, (source, weight, what)) in signs.into_iter().enumerate() {
            // Shares of what all together say.
            let share = u32::from(together) * u32::from(weight) / whole.max(1);
            let mut observation = self.base(
                About::HomeMade(path.clone()),
                proc,
                source,
                u8::try_from(share).unwrap_or(0).max(1),
                &what,
            );
            if at == 0 {
                observation.weight = together;
                observation.path = Some(path.clone());
                observation.process = Some(Box::new(self.seen(proc, self.subjects.get(&proc.pid), ask)));
                risks(proc, &mut observation.risks);
            } else {
                observation.weight = 0;
            }
            self.out.push(observation);
        }
    }

    fn stdio_server(&mut self, proc: &Proc, script: String, ask: &mut dyn Ask) {
        let what = format!("{script} speaks MCP over pipes to an agent");
        let mut observation = self.base(About::McpServer(script.clone()), proc, Source::Process, 75, &what);
        observation.path = Some(script);
        observation.process = Some(Box::new(self.seen(proc, self.subjects.get(&proc.pid), ask)));
        self.out.push(observation);
    }
}

/// Marks that any process of a find may have.
fn risks(proc: &Proc, risks: &mut Vec<Risk>) {
    let mut add = |mark: &str, detail: String| risks.push(Risk { mark: mark.to_owned(), detail });
    if proc.uid == 0 {
        add("runs_as_root", format!("pid {}", proc.pid));
    }
    let open: Vec<SocketAddr> =
        proc.listens.iter().filter(|addr| !addr.ip().is_loopback()).copied().collect();
    if !open.is_empty() {
        add("listens_beyond_loopback", addresses(&open));
    }
    let names: Vec<&str> =
        proc.provider_variables.iter().chain(&proc.secret_variables).take(20).map(String::as_str).collect();
    if !names.is_empty() {
        add("keys_in_reach", format!("environment: {}", names.join(", ")));
    }
}

fn has_flag(args: &[String], line: &str, flag: &str) -> bool {
    if flag.contains(' ') { line.contains(flag) } else { args.iter().any(|arg| arg == flag) }
}

fn addresses(list: &[SocketAddr]) -> String {
    list.iter().take(8).map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What the container of a process is called: its id, or its mount namespace where it has another root and no id.
#[must_use]
pub fn container_label(proc: &Proc) -> Option<String> {
    let id = proc.cgroup.as_deref().and_then(|cgroup| container::names(cgroup).container);
    id.or_else(|| proc.mount_ns.filter(|_| proc.elsewhere).map(|ns| format!("mnt-{ns}")))
}

fn name_of(proc: &Proc) -> &str {
    let exe = proc.exe.as_deref().unwrap_or(&proc.comm);
    exe.rsplit('/').next().unwrap_or(exe)
}

/// The one product whose default port this is, unless half the world uses it too.
pub(super) fn only_product_on(pack: &Pack, port: u16) -> Option<ProductIndex> {
    if port < 1024
        || matches!(port, 3000..=3003 | 5000..=5003 | 7860 | 7777 | 8000..=8100 | 8787 | 9222 | 9997)
    {
        return None;
    }
    let mut on = pack.products().iter().enumerate().filter(|(_, product)| product.ports.contains(&port));
    let (index, _) = on.next()?;
    on.next().is_none().then_some(index)
}

#[cfg(test)]
mod tests;
