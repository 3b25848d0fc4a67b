//! What would come of an action on a host: a table over verdict, level, mode, and whether somebody may approve.
//!
//! Every text that says what *will* happen comes from here, so that it cannot differ from what the table says. Pure.
#![deny(clippy::wildcard_enum_match_arm)]

use super::Question;
use crate::health::doctor::Level;
use crate::model::Kind;
use crate::model::kinds::Wait;
use crate::scope::{FileAccess, NetAction, PrivilegeKind, Verdict};

/// What level partial can do about an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtPartial {
    /// A cgroup program refuses it (`EPERM`), and can request an approval.
    Refuses,
    /// It has happened when it is seen; a process with verdict `kill` ends before it can use what it got.
    KillsAfter,
    /// Nothing.
    Records,
}

/// What counts about an action besides the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act {
    /// What a hold does to its system call at level full.
    pub wait: Wait,
    /// What level partial can do about it.
    pub partial: AtPartial,
}

impl Act {
    /// That of a question.
    #[must_use]
    pub fn of(question: &Question) -> Self {
        let wait = |kind: Kind| kind.row().wait;
        let net = |action: &NetAction| match action {
            NetAction::Connect => Kind::NetworkConnect,
            NetAction::Bind => Kind::NetworkBind,
            NetAction::Listen => Kind::NetworkListen,
        };
        match question {
            Question::File(access, _) => {
                let (kind, partial) = match access {
                    FileAccess::Read | FileAccess::Write => (Kind::FileOpen, AtPartial::KillsAfter),
                    FileAccess::Create => (Kind::FileCreate, AtPartial::Records),
                    FileAccess::Delete => (Kind::FileDelete, AtPartial::Records),
                    FileAccess::ExecuteMap => (Kind::FileMmapExec, AtPartial::Records),
                };
                Self { wait: wait(kind), partial }
            }
            Question::Exec(_) => Self { wait: wait(Kind::ProcessExec), partial: AtPartial::KillsAfter },
            Question::Peer(action, ..) => {
                let partial = match action {
                    NetAction::Connect | NetAction::Bind => AtPartial::Refuses,
                    NetAction::Listen => AtPartial::Records,
                };
                Self { wait: wait(net(action)), partial }
            }
            Question::UnixPath(action, _) | Question::UnixAbstract(action, _) => {
                Self { wait: wait(net(action)), partial: AtPartial::Records }
            }
            Question::Capability(_) => {
                Self { wait: wait(Kind::PrivilegeCapability), partial: AtPartial::Records }
            }
            Question::Power(kind) => Self { wait: of_privilege(*kind), partial: AtPartial::Records },
        }
    }
}

fn of_privilege(kind: PrivilegeKind) -> Wait {
    let kind = match kind {
        PrivilegeKind::Bpf => Kind::PrivilegeBpf,
        PrivilegeKind::Device => Kind::FileOpen,
        PrivilegeKind::Capability => Kind::PrivilegeCapability,
        PrivilegeKind::Module => Kind::PrivilegeModule,
        PrivilegeKind::Mount => Kind::PrivilegeMount,
        PrivilegeKind::Namespace | PrivilegeKind::Userns => Kind::PrivilegeNamespace,
        PrivilegeKind::Ptrace => Kind::PrivilegePtrace,
        // `socket(2)` is not restarted.
        PrivilegeKind::RawSocket => return Wait::Refused,
        PrivilegeKind::Setuid => Kind::PrivilegeSetuid,
        PrivilegeKind::Signal => Kind::PrivilegeSignal,
        // An `ioctl`, as changes of attributes are.
        PrivilegeKind::Terminal => Kind::FileSetattr,
    };
    kind.row().wait
}

/// Whether somebody may approve what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approver {
    /// The approvers of the record, or root where it names none.
    Present,
    /// Nobody: the record names none, and the agent itself runs as root.
    Nobody,
}

/// Where the action would happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances {
    /// The level of the host; `None` where no daemon reports it.
    pub level: Option<Level>,
    /// The verdict is carried out: mode `enforce`, or the monitor's own protection.
    pub enforced: bool,
    /// Whether somebody may approve.
    pub approver: Approver,
}

/// What would come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It happens.
    Allowed,
    /// It happens and is recorded with verdict `audit`.
    Audited,
    /// It happens: the agent is only observed.
    Observed(Verdict),
    /// It is refused; `killed` ends the process too.
    Refused {
        /// What the caller gets.
        errno: &'static str,
        /// The process is killed.
        killed: bool,
    },
    /// The system call waits for a decision.
    Held,
    /// The system call waits until its time is over: nobody may decide.
    HeldInVain,
    /// It is refused, and an approval is requested for the next try.
    RefusedAndRequested(&'static str),
    /// It is refused, and nobody may approve a next try.
    RefusedInVain(&'static str),
    /// It happens, and the process is killed.
    KilledAfter,
    /// It happens: this level cannot refuse it.
    NotRefused(Verdict),
    /// No daemon reports the level.
    Unknown,
}

/// The table.
#[must_use]
pub fn outcome(verdict: Verdict, act: Act, at: Circumstances) -> Outcome {
    match verdict {
        Verdict::Allow => return Outcome::Allowed,
        Verdict::Audit => return Outcome::Audited,
        Verdict::Hold | Verdict::Deny | Verdict::Kill => {}
    }
    if !at.enforced {
        return Outcome::Observed(verdict);
    }
    let Some(level) = at.level else { return Outcome::Unknown };
    match (level, act.partial) {
        (Level::Full, AtPartial::Refuses | AtPartial::KillsAfter | AtPartial::Records) => {
            stopped(verdict, act.wait, at.approver, "EACCES")
        }
        (Level::Partial, AtPartial::Refuses) => stopped(verdict, Wait::Refused, at.approver, "EPERM"),
        (Level::Partial, AtPartial::KillsAfter) if verdict == Verdict::Kill => Outcome::KilledAfter,
        (Level::Partial, AtPartial::KillsAfter | AtPartial::Records)
        | (Level::None, AtPartial::Refuses | AtPartial::KillsAfter | AtPartial::Records) => {
            Outcome::NotRefused(verdict)
        }
    }
}

/// What a hook that can refuse does.
fn stopped(verdict: Verdict, wait: Wait, approver: Approver, errno: &'static str) -> Outcome {
    match (verdict, wait, approver) {
        (Verdict::Hold, Wait::Restarts, Approver::Present) => Outcome::Held,
        (Verdict::Hold, Wait::Restarts, Approver::Nobody) => Outcome::HeldInVain,
        (Verdict::Hold, Wait::Refused | Wait::NotJudged, Approver::Present) => {
            Outcome::RefusedAndRequested(errno)
        }
        (Verdict::Hold, Wait::Refused | Wait::NotJudged, Approver::Nobody) => Outcome::RefusedInVain(errno),
        (Verdict::Allow | Verdict::Audit | Verdict::Deny | Verdict::Kill, _, _) => {
            Outcome::Refused { errno, killed: verdict == Verdict::Kill }
        }
    }
}

impl Outcome {
    /// In words, with the level where it counts.
    #[must_use]
    pub fn text(self, level: Option<Level>) -> String {
        const NOBODY: &str =
            "nobody may approve it: the record names no approvers, and the agent runs as root";
        let at = level.map_or_else(String::new, |level| format!(" (level {})", level.as_str()));
        match self {
            Self::Allowed => "it is allowed".to_owned(),
            Self::Audited => "it is allowed, and recorded with verdict audit".to_owned(),
            Self::Observed(verdict) => format!(
                "it is allowed, and recorded with verdict {}: the agent is only observed",
                verdict.as_str()
            ),
            Self::Refused { errno, killed: false } => format!("it is refused with {errno}{at}"),
            Self::Refused { errno, killed: true } => {
                format!("it is refused with {errno}, and the process is killed{at}")
            }
            Self::Held => format!(
                "it is held inside its system call until somebody decides: approved, the same call continues; \
                 denied or not decided in time, it is refused with EACCES{at}"
            ),
            Self::HeldInVain => {
                format!("it is held inside its system call, then refused with EACCES: {NOBODY}{at}")
            }
            Self::RefusedAndRequested(errno) => format!(
                "it is refused with {errno}, and an approval is requested: once approved, the next try is \
                 allowed{at}"
            ),
            Self::RefusedInVain(errno) => format!("it is refused with {errno}: {NOBODY}{at}"),
            Self::KilledAfter => format!("it is not refused, but the process is killed{at}"),
            Self::NotRefused(verdict) => {
                let level = level.map_or("this level", Level::as_str);
                match level {
                    "none" => "it is allowed: level none cannot refuse anything".to_owned(),
                    level => format!(
                        "it is allowed, and recorded with verdict {}: level {level} cannot refuse it",
                        verdict.as_str()
                    ),
                }
            }
            Self::Unknown => "not known: no daemon reports the level of this host".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
