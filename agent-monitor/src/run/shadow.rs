//! Shadow agents at their exec: the signatures that the daemon goes by, and what its policy does.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::Builder;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::core::{Core, Live, lock};
use crate::attribute::{TaskKey, boot};
use crate::config::Config;
use crate::model::{Event, Kind, Process, Source, Verdict};
use crate::sweep::manifest;
use crate::sweep::pack::DIRECTORY;
use crate::sweep::root::Root;
use crate::sweep::signatures;
use crate::sweep::watch::{Finding, Watch};

/// Execs that wait at the most.
const QUEUE: usize = 256;
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
    let Some(told) = lock(&core.scripts.told).take() else { return Ok(()) };
    let work = move || {
        while !core.wait(Duration::ZERO) {
            match told.recv_timeout(Duration::from_millis(500)) {
                Ok(event) => core.look_into(&event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    };
    Builder::new().name("scripts".to_owned()).spawn(work).map(drop)
}

impl Core {
    /// What an event says of agents without a record, at once; a script is looked into later.
    pub(super) fn shadow(&self, event: &Event) -> Option<Event> {
        let mut watch = lock(&self.shadows);
        if let Some(finding) = watch.observe(event) {
            drop(watch);
            return Some(carry_out(finding));
        }
        if watch.script_of(event).is_some() && self.scripts.tell.try_send(event.clone()).is_err() {
            tracing::debug!("more scripts are started than can be looked into");
        }
        None
    }

    fn look_into(&self, event: &Event) {
        let Some(script) = lock(&self.shadows).script_of(event) else { return };
        let text =
            Root::open(Path::new("/"), "", false).ok().and_then(|root| root.head(&script, SCRIPT_HEAD).ok());
        let Some(text) = text.filter(|text| !text.contains(&0)) else { return };
        let modules = manifest::imports(&String::from_utf8_lossy(&text));
        let found = lock(&self.shadows).script(event, &script, &modules);
        found.into_iter().for_each(|finding| drop(self.store.append(finding.event)));
    }

    /// Tells the shadow agents that run already when the daemon starts. Whatever the policy, they are only told: what
    /// ends them is their next exec, or a person.
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
            event.verdict = Some(Verdict::Audit);
            drop(self.store.append(event));
        }
    }
}

/// Ends the process where the policy says so; the event says whether that was done.
pub(super) fn carry_out(finding: Finding) -> Event {
    let Finding { mut event, kill } = finding;
    if kill && let Some(process) = event.process.as_deref() {
        let done = end(process);
        if let Err(why) = &done {
            tracing::warn!(pid = process.pid, why, "a shadow agent was not ended");
        }
        let detail = event.detail.get_or_insert_default();
        detail.insert("carried_out".to_owned(), done.is_ok().into());
        if let Err(why) = done {
            detail.insert("why".to_owned(), why.into());
        }
    }
    event
}

/// Ends the very process, not one that got its pid.
fn end(process: &Process) -> Result<(), String> {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw).ok_or("no such pid")?;
    let fd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| error.to_string())?;
    // The descriptor holds whoever has the pid now; program and user must be those that were told.
    let same = process.exe.is_some()
        && boot::read(process.pid).is_some_and(|seed| {
            seed.exe.as_deref().map(crate::model::text::escape) == process.exe
                && Some(seed.uid) == process.uid
        });
    if !same {
        return Err("it is another process by now".to_owned());
    }
    pidfd_send_signal(fd, Signal::KILL).map_err(|error| error.to_string())
}
