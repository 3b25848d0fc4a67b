//! Which process set the mark that its children carry: the agent itself, or nobody that is known.

use super::{Judge, Proc, container_label, identify::Subject};
use crate::registry::shared::{SharedKind, shared_kind};

impl Judge<'_> {
    /// The nearest ancestor of a marked process that is a program of its own: no shell, interpreter without a script,
    /// launcher, package runner or other shared program, nothing by which the caller works, of the same user and
    /// container. Beyond a process that keeps sessions nothing is looked for: what it starts is not its doing.
    pub(super) fn agent_above(&self, marked: &Proc, caller: Option<u32>) -> Option<&Proc> {
        for parent in self.procs.ancestors(marked.pid) {
            let exe = parent.exe.as_deref()?;
            if parent.pid <= 1
                || parent.uid != marked.uid
                || container_label(parent) != container_label(marked)
            {
                return None;
            }
            // Another product's process sets another mark.
            if self.told.contains_key(&parent.pid) {
                return None;
            }
            match shared_kind(exe) {
                Some(SharedKind::Session) => return None,
                Some(SharedKind::Interpreter) if self.runs_own_script(parent) => {}
                Some(_) => continue,
                None => {}
            }
            return (!self.is_callers(parent, caller)).then_some(parent);
        }
        None
    }

    /// The script of an interpreter, unless that is itself a launcher or package runner (`npx-cli.js`).
    fn runs_own_script(&self, proc: &Proc) -> bool {
        let script = script(self.subjects.get(&proc.pid), proc);
        script.is_some_and(|script| script.starts_with('/') && shared_kind(script).is_none())
    }

    /// Whether a match of its program or script would take what the caller is, or was started by.
    fn is_callers(&self, proc: &Proc, caller: Option<u32>) -> bool {
        let Some(caller) = caller else { return false };
        let own = self.procs.all.get(&caller).into_iter().chain(self.procs.ancestors(caller));
        let what =
            |proc: &Proc| (proc.exe.clone(), script(self.subjects.get(&proc.pid), proc).map(str::to_owned));
        let wanted = what(proc);
        own.into_iter().any(|own| own.pid == proc.pid || what(own) == wanted)
    }
}

fn script<'a>(subject: Option<&'a Subject>, proc: &Proc) -> Option<&'a str> {
    subject?.main_path().filter(|path| Some(*path) != proc.exe.as_deref())
}
