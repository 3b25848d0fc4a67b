//! Process family: fork, exec, exit, and what is read of processes that ran before.

use std::sync::Arc;

use agent_monitor_ebpf::header::{FLAG_ARGS_FAILED, FLAG_ARGS_TRUNCATED, FLAG_ARGS_UNREAD};

use super::args;
use super::{Engine, Host, Output, names};
use crate::attribute::argv::{self, Program};
use crate::attribute::boot::Seed;
use crate::attribute::matcher::{Facts, FileId};
use crate::attribute::mounts::dev_text;
use crate::attribute::tree::{Binding, Image, Proc};
use crate::attribute::{TaskKey, identity};
use crate::decode::file::Place;
use crate::decode::{ExecFacts, FsPath, Head};
use crate::model::{Access, Detail, Event, File, Kind, text};

/// What an exec record says, in host paths.
struct Started {
    exe: Option<Vec<u8>>,
    cwd: Option<Vec<u8>>,
    script: Option<Vec<u8>>,
    args: Vec<Vec<u8>>,
    image: Image,
}

impl Engine {
    pub(super) fn fork(
        &mut self,
        head: &Head,
        child: TaskKey,
        new_ns: u32,
        host: &mut dyn Host,
        out: &mut Output,
    ) {
        self.settle(head, host);
        // A binding of its own that was told before the fork was.
        let own = self.tree.get(child).and_then(|proc| Some((proc.binding?, proc.announced)));
        self.tree.fork(head.key, child);
        if let Some((binding, announced)) = own.filter(|(binding, _)| binding.agent != head.agent) {
            self.tree.bind(child, Some(binding));
            self.tree.touch(child).into_iter().for_each(|proc| proc.announced = announced);
        }
        let mut event = self.event_of(head, Kind::ProcessFork, child, host);
        if new_ns != 0 {
            let names: Vec<_> = names::namespaces(new_ns).into_iter().map(serde_json::Value::from).collect();
            event.detail = Some([("new_namespaces".to_owned(), names.into())].into_iter().collect());
        }
        self.tell(event, out);
    }

    pub(super) fn exit(&mut self, head: &Head, status: u32, host: &mut dyn Host, out: &mut Output) {
        let mut event = self.action(head, Kind::ProcessExit, host);
        if let Some(process) = &mut event.process {
            let process = Arc::make_mut(process);
            process.tid = None;
            match status & 0x7f {
                0 => process.exit_code = i32::try_from(status >> 8 & 0xff).ok(),
                signal => process.exit_signal = Some(names::signal(u64::from(signal))),
            }
        }
        self.tell(event, out);
        self.tree.end(head.key, head.ktime);
        self.args.drop_of(head.key);
    }

    pub(super) fn bound(&mut self, head: &Head, before: u32, host: &mut dyn Host, out: &mut Output) {
        self.settle(head, host);
        let announced = self.tree.touch(head.key).is_some_and(|proc| proc.announced == head.agent);
        if announced || head.agent == 0 {
            return;
        }
        if let Some(proc) = self.tree.touch(head.key) {
            proc.announced = head.agent;
        }
        let event = self.event_of(head, Kind::AgentBound, head.key, host);
        out.events.push(Event { verdict: None, detail: self.before(before, head.delegator), ..event });
    }

    /// The agent before, where it is not the delegator, which the event names anyway.
    pub(super) fn before(&self, before: u32, delegator: u32) -> Option<Detail> {
        let name = (before != 0 && before != delegator).then(|| self.agents.name(before))?;
        Some([("before".to_owned(), name.into())].into_iter().collect())
    }

    pub(super) fn exec(&mut self, head: &Head, exec: ExecFacts, host: &mut dyn Host, out: &mut Output) {
        self.settle_exec(head, &exec, host);
        let exe_id = FileId { ino: exec.exe_ino, ctime_sec: exec.exe_ctime.0, ctime_nsec: exec.exe_ctime.1 };
        let before = exec.before;
        let started = self.started(head, exec, host);
        if let Some(proc) = self.tree.touch(head.key) {
            proc.image = Arc::new(started.image.clone());
            proc.inferred = false;
            proc.view = None;
            if started.cwd.is_some() {
                proc.cwd = started.cwd.as_deref().map(text::escape);
            }
        }
        let found = self.recognise(head, &started, exe_id, host);
        let event = self.event_of(head, Kind::ProcessExec, head.key, host);
        match found {
            Some(request) => self.request(request, event, out),
            None => {
                self.tell(event, out);
                self.bound_by_exec(head, before, host, out);
            }
        }
    }

    /// A program that the scope does not let run: the process stays what it was, the program is the object.
    pub(super) fn refused_exec(
        &mut self,
        head: &Head,
        exec: ExecFacts,
        host: &mut dyn Host,
        out: &mut Output,
    ) {
        let file = exec.exe.map(|path| {
            let (dev, truncated) = (path.dev, path.truncated);
            let found = self.host_path(&Place::Path(path), host);
            File {
                path: Some(text::escape(&found.bytes)),
                access: vec![Access::Exec],
                dev: Some(dev_text(dev)),
                inode: (exec.exe_ino != 0).then_some(exec.exe_ino),
                truncated,
                new_path: None,
                change: None,
            }
        });
        let args = args::attempted(&exec.args);
        let event = self.action(head, Kind::ProcessExec, host);
        let mut detail = Detail::new();
        if !args.is_empty() {
            detail.insert("args".to_owned(), args.into());
        }
        if head.flags & (FLAG_ARGS_TRUNCATED | FLAG_ARGS_FAILED) != 0 {
            detail.insert("args_truncated".to_owned(), true.into());
            detail.insert("argc".to_owned(), exec.argc.into());
        }
        if head.flags & FLAG_ARGS_UNREAD != 0 {
            detail.insert("args_unread".to_owned(), true.into());
        }
        self.tell(Event { file, detail: (!detail.is_empty()).then_some(detail), ..event }, out);
    }

    /// Tells that the kernel bound the process at this very exec.
    fn bound_by_exec(&mut self, head: &Head, before: u32, host: &mut dyn Host, out: &mut Output) {
        use agent_monitor_ebpf::task::BoundBy;
        let inherited = matches!(head.bound_by, None | Some(BoundBy::Inherited | BoundBy::Backfill));
        if head.agent != 0 && head.agent != before && !inherited {
            self.announce(head.key, before, head.ktime, super::view::source(head.source), host, out);
        }
    }

    /// Puts the process of an exec into the table, below its parent.
    fn settle_exec(&mut self, head: &Head, exec: &ExecFacts, host: &mut dyn Host) {
        if self.tree.get(head.key).is_none() {
            let mut proc = Proc::new(head.key);
            if let Some(parent) = exec.parent {
                if self.tree.get(parent).is_none() {
                    let known = self.look_up(parent, host);
                    self.tree.insert(known);
                }
                proc.parent = Some(parent);
                proc.ppid = Some(parent.tgid);
                proc.ancestry = self.tree.ancestry_below(parent);
                proc.binding = self.late_inheritance(parent, head.ktime);
            }
            self.tree.insert(proc);
        }
        self.settle(head, host);
    }

    /// The binding of a parent that was made while its child was already on its way.
    fn late_inheritance(&self, parent: TaskKey, ktime: u64) -> Option<Binding> {
        let binding = self.tree.get(parent)?.binding.filter(|binding| ktime < binding.known_from)?;
        let by = agent_monitor_ebpf::task::BoundBy::Inherited;
        Some(Binding { by, delay_ms: None, ..binding })
    }

    fn started(&mut self, head: &Head, exec: ExecFacts, host: &mut dyn Host) -> Started {
        let (mut block, mut whole) = self.args.take(head.key, head.flags, exec.args, exec.args_total);
        if !whole && let Some(read) = host.args(head.key) {
            // Read later than the exec: only what has the length that the kernel saw counts as the same.
            whole = u32::try_from(read.len()) == Ok(exec.args_total);
            block = if whole || read.len() > block.len() { read } else { block };
        }
        let mut path = |path: Option<FsPath>| {
            path.map(|path| self.host_path(&Place::Path(path), host)).map(|path| path.bytes)
        };
        let (exe, cwd, script) = (path(exec.exe), path(exec.cwd), path(exec.script));
        let args = args::split(&block);
        let by_kernel = script.is_some();
        let script = script.or_else(|| self.interpreted(exe.as_deref(), &args, cwd.as_deref(), host));
        let shown = args::show(&block, whole);
        let image = Image {
            exe: exe.as_deref().map(text::escape),
            script: script.as_deref().map(text::escape),
            script_argument: script.is_some() && !by_kernel,
            args: shown.args,
            args_truncated: shown.truncated,
            args_sha256: shown.sha256,
        };
        Started { exe, cwd, script, args, image }
    }

    /// The script that an interpreter was given as an argument.
    fn interpreted(
        &self,
        exe: Option<&[u8]>,
        args: &[Vec<u8>],
        cwd: Option<&[u8]>,
        host: &mut dyn Host,
    ) -> Option<Vec<u8>> {
        match argv::program(exe.unwrap_or_default(), args, cwd.unwrap_or_default())? {
            Program::Script(script) if self.matcher.has_late() => {
                Some(host.canonical(&script).unwrap_or(script))
            }
            Program::Script(script) => Some(script),
            Program::Module(_) => None,
        }
    }

    /// The agent that the kernel could not recognise.
    fn recognise(
        &self,
        head: &Head,
        started: &Started,
        exe_id: FileId,
        host: &mut dyn Host,
    ) -> Option<super::bind::Found> {
        use agent_monitor_ebpf::task::BoundBy;
        if !self.matcher.has_late() || head.bound_by == Some(BoundBy::Launch) && head.agent != 0 {
            return None;
        }
        let cgroup = if head.cgroup == 0 { None } else { host.cgroup(head.cgroup, head.key.tgid) };
        let script_id = match &started.script {
            Some(script) if self.matcher.needs_files() => host.file(script),
            _ => None,
        };
        let facts = Facts {
            exe: started.exe.as_deref(),
            script: started.script.as_deref(),
            args: &started.args,
            uid: head.uid,
            cgroup: cgroup.as_deref(),
            exe_id: Some(exe_id),
            script_id,
        };
        let bound = self.tree.get(head.key).and_then(|proc| proc.binding);
        let rule =
            if bound.is_some() { self.matcher.find_program(&facts) } else { self.matcher.find(&facts) }?;
        let before = bound.map_or(0, |binding| binding.agent);
        // What the kernel decides by itself it has decided.
        if !rule.late || rule.agent == before {
            return None;
        }
        // A script that was given as an argument was recognised by the arguments.
        let by = match rule.by() {
            BoundBy::Script => BoundBy::Argv,
            by => by,
        };
        Some(super::bind::Found { key: head.key, ktime: head.ktime, agent: rule.agent, before, by })
    }

    /// Puts processes that ran before into the table, parents before children. `tasks` are the kernel's keys.
    pub fn seed(&mut self, seeds: &[Seed], tasks: &[crate::attribute::backfill::TaskInfo]) {
        let mut keys: std::collections::BTreeMap<u32, TaskKey> =
            tasks.iter().map(|task| (task.tgid, task.key())).collect();
        for seed in seeds {
            // Without the kernel's own start time the tick is the best there is.
            keys.entry(seed.tgid)
                .or_insert(TaskKey { tgid: seed.tgid, start: seed.start_ticks.saturating_mul(10_000_000) });
        }
        let mut order: Vec<&Seed> = seeds.iter().collect();
        order.sort_by_key(|seed| (seed.start_ticks, seed.tgid));
        for seed in order {
            let Some(key) = keys.get(&seed.tgid).copied().filter(|key| seed.is(*key)) else { continue };
            if self.tree.get(key).is_some() {
                continue;
            }
            let mut proc = Proc { inferred: true, ..Proc::new(key) };
            plant(&mut proc, seed);
            if let Some(parent) = keys.get(&seed.ppid).copied().filter(|parent| parent.start <= key.start) {
                proc.parent = Some(parent);
                proc.ancestry = self.tree.ancestry_below(parent);
            }
            self.tree.insert(proc);
        }
        for task in tasks.iter().filter(|task| task.tag.agent != 0) {
            let by = agent_monitor_ebpf::task::BoundBy::from_u8(task.tag.bound_by);
            let binding = Binding {
                agent: task.tag.agent,
                delegator: task.tag.delegator,
                by: by.unwrap_or(agent_monitor_ebpf::task::BoundBy::Backfill),
                session: task.tag.session,
                delay_ms: None,
                known_from: 0,
            };
            let known = self.tree.get(task.key()).map(|proc| proc.binding.map(|b| (b.agent, b.delegator)));
            if known.is_none() {
                self.tree.insert(Proc::new(task.key()));
            }
            if known != Some(Some((binding.agent, binding.delegator))) {
                self.tree.bind(task.key(), Some(binding));
            }
        }
    }

    /// How a kernel binding is called, for callers that show bindings without an event.
    #[must_use]
    pub fn bound_by(tag: u8) -> Option<crate::model::BoundBy> {
        agent_monitor_ebpf::task::BoundBy::from_u8(tag).map(identity::bound_by)
    }

    /// An event about an agent, of the daemon itself.
    #[must_use]
    pub fn agent_event(&self, kind: Kind, id: &str, boot_nanos: u64) -> Event {
        let detail = [("agent".to_owned(), id.into())].into_iter().collect();
        Event {
            detail: Some(detail),
            ..Event::new(self.clock.wall(boot_nanos), kind, crate::model::Source::Daemon)
        }
    }
}

/// Fills a process with what `/proc` says.
pub(super) fn plant(proc: &mut Proc, seed: &Seed) {
    let shown = args::show(&seed.args, true);
    let block = args::split(&seed.args);
    let exe = seed.exe.as_deref();
    let script = match argv::program(exe.unwrap_or_default(), &block, seed.cwd.as_deref().unwrap_or_default())
    {
        Some(Program::Script(script)) => Some(text::escape(&script)),
        _ => None,
    };
    proc.image = Arc::new(Image {
        exe: exe.map(text::escape),
        script_argument: script.is_some(),
        script,
        args: shown.args,
        args_truncated: shown.truncated,
        args_sha256: shown.sha256,
    });
    proc.cwd = seed.cwd.as_deref().map(text::escape);
    proc.ppid = Some(seed.ppid);
    (proc.uid, proc.gid) = (Some(seed.uid), Some(seed.gid));
    proc.inferred = true;
}
