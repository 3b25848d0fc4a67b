//! Shadow agents at their exec: the signatures that the daemon goes by, and what its policy does.

mod known;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use agent_monitor_ebpf::task::{BoundBy, SHADOW};

use super::core::{Core, Live, lock};
use crate::attribute::tree;
use crate::attribute::tree::Binding;
use crate::attribute::{TaskKey, boot};
use crate::config::{Config, ShadowAct};
use crate::decode::{Head, Heard};
use crate::engine::Output;
use crate::model::{Event, Kind, Process, Source, Verdict, text};
use crate::sweep::pack::DIRECTORY;
use crate::sweep::pack::ProductIndex;
use crate::sweep::proc::{Proc, environment};
use crate::sweep::root::Root;
use crate::sweep::signatures;
use crate::sweep::watch::{Finding, Watch};
use crate::sweep::{edits, manifest};

pub(super) use known::{Known, look_for_programs};

/// Execs that wait at the most.
const QUEUE: usize = 256;
/// Time between two looks for speakers that are due.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes of an environment that are looked at.
const ENVIRONMENT_MAX: u64 = 128 << 10;
/// Bytes of a script that are looked at.
const SCRIPT_HEAD: u64 = 256 << 10;

/// The watch by the settings; what is wrong with a file of signatures goes to the log.
pub(super) fn watch(config: &Config) -> Watch {
    let (pack, problems) = signatures::load(Path::new(DIRECTORY));
    for problem in &problems {
        tracing::warn!(file = %problem.file.display(), line = problem.at.line, "signatures left out: {}", problem.message);
    }
    Watch::new(pack, config.shadow.clone())
}

/// Execs that wait for their scripts to be looked into.
#[derive(Debug)]
pub(super) struct Scripts {
    tell: SyncSender<Event>,
    told: Mutex<Option<Receiver<Event>>>,
}

impl Default for Scripts {
    fn default() -> Self {
        let (tell, told) = sync_channel(QUEUE);
        Self { tell, told: Mutex::new(Some(told)) }
    }
}

/// Looks into scripts beside the reader of the rings, which must not wait for a file. Nobody waits for this thread
/// either: a file may take for ever.
pub(super) fn scripts(core: Arc<Core>) -> std::io::Result<()> {
    let Some(told) = core.scripts.told.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return Ok(());
    };
    let work = move || {
        let mut looked = Instant::now();
        while !core.wait(Duration::ZERO) {
            match told.recv_timeout(PAUSE) {
                Ok(event) => core.look_into(&event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Also where programs are started all the time.
            if looked.elapsed() >= PAUSE {
                core.look_at_speakers();
                looked = Instant::now();
            }
        }
    };
    Builder::new().name("scripts".to_owned()).spawn(work).map(drop)
}

impl Core {
    /// What an event says of agents without a record, at once; a script is looked into later.
    pub(super) fn shadow(&self, event: &Event) -> Option<Finding> {
        let mut watch = lock(&self.shadows);
        if let Some(finding) = watch.observe(event) {
            if finding.late.is_some() {
                self.learn_programs(&watch, event);
            }
            return Some(finding);
        }
        let wanted = watch.script_of(event).is_some() || watch.wants_marks(event);
        if wanted && self.scripts.tell.try_send(event.clone()).is_err() {
            tracing::debug!("more programs are started than can be looked into");
        }
        None
    }

    /// Takes what names peers. A process that reaches for a model provider, and acts, is told.
    pub(super) fn hear(&self, live: &mut Live, heard: Vec<(Head, Heard)>) {
        for (head, heard) in heard {
            let contacts = lock(&self.shadows).hear(head.key, &heard);
            for contact in contacts {
                let free = |proc: &tree::Proc| proc.binding.is_none();
                let Live { engine, host } = &mut *live;
                let process = engine.show(contact.key, host);
                if !engine.tree().get(contact.key).is_some_and(free) {
                    continue;
                }
                let time = self.clock.wall(head.ktime);
                let found = lock(&self.shadows).contact(time, &process, &contact);
                found.into_iter().for_each(|finding| drop(self.store.append(finding.event)));
            }
        }
    }

    /// Does what the policy asks where the kernel has not met the process at its exec, and tells the finding with what came
    /// of that.
    pub(super) fn act_on(&self, live: &mut Live, finding: Finding) {
        let Finding { mut event, late } = finding;
        let done = match (late, event.process.as_deref()) {
            (Some(ShadowAct::Kill), Some(process)) => end(process),
            (Some(ShadowAct::Hold | ShadowAct::Deny), Some(process)) => self.bind_late(live, process.pid),
            _ => {
                self.store.append(event);
                return;
            }
        };
        let late = (self.clock.now().unix_nanos() - event.time.unix_nanos()) / 1_000_000;
        let detail = event.detail.get_or_insert_default();
        detail.insert("carried_out".to_owned(), done.is_ok().into());
        detail.insert("late_ms".to_owned(), u64::try_from(late).unwrap_or_default().into());
        if let Err(why) = done {
            tracing::warn!(
                pid = event.process.as_ref().map(|process| process.pid),
                why,
                "a shadow agent was not stopped"
            );
            detail.insert("why".to_owned(), why.into());
        }
        self.store.append(event);
    }

    /// Gives a process and all that it has started the identity that the kernel gives to known programs.
    fn bind_late(&self, live: &mut Live, pid: u32) -> Result<(), String> {
        let known = live.engine.tree().latest(pid).map(|proc| (proc.key, proc.binding.is_some()));
        let Some((key, bound)) = known else { return Err("it is not known any more".to_owned()) };
        if bound {
            return Err("it belongs to an agent by now".to_owned());
        }
        let outcome = self.bind_tree(key, SHADOW, 0, BoundBy::Exe).map_err(|error| error.to_string())?;
        if !outcome.bound.iter().any(|(found, _)| *found == key) {
            return Err("it had ended".to_owned());
        }
        let binding = |by| Binding {
            agent: SHADOW,
            delegator: 0,
            by,
            session: 0,
            delay_ms: None,
            known_from: outcome.at,
        };
        let bound: Vec<(TaskKey, Binding)> =
            outcome.bound.iter().map(|(key, by)| (*key, binding(*by))).collect();
        let mut out = Output::default();
        let Live { engine, host } = live;
        engine.backfilled(&bound, Source::Daemon, outcome.at, host, &mut out);
        self.append(&mut out);
        Ok(())
    }

    fn look_into(&self, event: &Event) {
        if lock(&self.shadows).wants_marks(event) {
            let marks = self.marks(event);
            let found = if marks.is_empty() { None } else { lock(&self.shadows).marked(event, &marks) };
            found.into_iter().for_each(|finding| drop(self.store.append(finding.event)));
        }
        let Some(script) = lock(&self.shadows).script_of(event) else { return };
        let text =
            Root::open(Path::new("/"), "", false).ok().and_then(|root| root.head(&script, SCRIPT_HEAD).ok());
        let Some(text) = text.filter(|text| !text.contains(&0)) else { return };
        let modules = manifest::imports(&String::from_utf8_lossy(&text));
        let found = lock(&self.shadows).script(event, &script, &modules);
        found.into_iter().for_each(|finding| drop(self.store.append(finding.event)));
    }

    /// Whether those who speak to models edit files.
    fn look_at_speakers(&self) {
        let time = self.clock.now();
        let speakers = lock(&self.shadows).to_be_looked_at(time);
        for process in speakers {
            let Some(path) = edited(&process) else { continue };
            let found = lock(&self.shadows).edited(time, &process, &path);
            found.into_iter().for_each(|finding| drop(self.store.append(finding.event)));
        }
    }

    /// Products whose marks a process carries in its environment; empty where it is another one by now. Values are compared
    /// where they stand and kept nowhere.
    fn marks(&self, event: &Event) -> BTreeSet<ProductIndex> {
        let Some(process) = event.process.as_deref() else { return BTreeSet::new() };
        let file = std::fs::File::open(format!("/proc/{}/environ", process.pid)).ok();
        let Some(file) = file.filter(|_| runs_still(process)) else { return BTreeSet::new() };
        let mut block = Vec::new();
        if file.take(ENVIRONMENT_MAX).read_to_end(&mut block).is_err() {
            return BTreeSet::new();
        }
        let pack = lock(&self.shadows).pack();
        let mut read = Proc::default();
        environment(&pack, &block, &mut read);
        read.markers
    }

    /// Tells the shadow agents that run already when the daemon starts. Whatever the policy, they are only told: what
    /// stops them is their next exec, or a person.
    pub(super) fn shadows_that_run(&self) {
        let mut live = lock(&self.live);
        let Live { engine, host } = &mut *live;
        let free = engine.tree().living().filter(|proc| proc.binding.is_none());
        let mut keys: Vec<TaskKey> = free.map(|proc| proc.key).collect();
        // Parents first: a tree is told by its root.
        keys.sort_by_key(|key| (key.start, key.tgid));
        for key in keys {
            let process = engine.show(key, host);
            let exec = Event::new(self.clock.now(), Kind::ProcessExec, Source::Backfill);
            let found = lock(&self.shadows).observe(&Event { process: Some(process), ..exec });
            let Some(Finding { mut event, .. }) = found else { continue };
            let detail = event.detail.get_or_insert_default();
            detail.insert("action".to_owned(), "audit".into());
            detail.insert("running_before".to_owned(), true.into());
            detail.remove("before_first_instruction");
            event.verdict = Some(Verdict::Audit);
            drop(self.store.append(event));
        }
    }
}

/// A file that a process may have edited, as it sees it; `None` where it is another one by now.
fn edited(process: &Process) -> Option<String> {
    let root = Root::of_process(process.pid, "", false).ok()?;
    let cwd = link(process, "cwd")?;
    let uid = process.uid.filter(|_| runs_still(process))?;
    edits::edited(&root, &cwd, uid, process.start_time?)
}

/// Whether the program that was told still runs under its pid.
fn runs_still(process: &Process) -> bool {
    process.exe.is_some() && link(process, "exe") == process.exe
}

/// Where a link of a process in `/proc` leads to.
fn link(process: &Process, name: &str) -> Option<String> {
    let target = std::fs::read_link(format!("/proc/{}/{name}", process.pid)).ok()?;
    Some(text::escape(target.as_os_str().as_encoded_bytes()))
}

/// Ends the very process, not one that got its pid.
fn end(process: &Process) -> Result<(), String> {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw).ok_or("no such pid")?;
    let fd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| error.to_string())?;
    // The descriptor holds whoever has the pid now; program and user must be those that were told.
    let same = process.exe.is_some()
        && boot::read(process.pid).is_some_and(|seed| {
            seed.exe.as_deref().map(text::escape) == process.exe && Some(seed.uid) == process.uid
        });
    if !same {
        return Err("it is another process by now".to_owned());
    }
    pidfd_send_signal(fd, Signal::KILL).map_err(|error| error.to_string())
}
