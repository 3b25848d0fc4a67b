//! Kinds of events and their families: the closed list of the contract.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// First half of a kind: `file` of `file.open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Life of processes.
    Process,
    /// File systems.
    File,
    /// Sockets.
    Network,
    /// Rights used or gained.
    Privilege,
    /// Attempts on the monitor.
    Tamper,
    /// Changes to registered agents, and bindings.
    Agent,
    /// Sessions.
    Session,
    /// Grants.
    Grant,
    /// Approvals.
    Approval,
    /// Something a person should look at.
    Finding,
    /// Something that could not be seen.
    Gap,
    /// What was done to the log itself.
    Log,
}

impl Family {
    /// All families, in the order of the contract.
    pub const ALL: [Self; 12] = [
        Self::Process,
        Self::File,
        Self::Network,
        Self::Privilege,
        Self::Tamper,
        Self::Agent,
        Self::Session,
        Self::Grant,
        Self::Approval,
        Self::Finding,
        Self::Gap,
        Self::Log,
    ];

    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::File => "file",
            Self::Network => "network",
            Self::Privilege => "privilege",
            Self::Tamper => "tamper",
            Self::Agent => "agent",
            Self::Session => "session",
            Self::Grant => "grant",
            Self::Approval => "approval",
            Self::Finding => "finding",
            Self::Gap => "gap",
            Self::Log => "log",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Family {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|f| f.as_str() == name).ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

/// A name that is no kind and no family.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an event kind")]
pub struct UnknownKind(pub String);

/// One row per kind: variant, family, contract name, what it means.
macro_rules! kinds {
    ($($variant:ident $family:ident $name:literal $doc:literal;)+) => {
        /// What happened. The text form (`file.open`) is the contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = $doc] $variant,)+
        }

        impl Kind {
            /// All kinds, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The contract name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The first half.
            #[must_use]
            pub fn family(self) -> Family {
                match self { $(Self::$variant => Family::$family,)+ }
            }

            /// One sentence for help texts.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Self::$variant => $doc,)+ }
            }
        }
    };
}

kinds! {
    ProcessFork Process "process.fork" "A process was made; `process` is the child.";
    ProcessExec Process "process.exec" "A program was started; `process` is the new image.";
    ProcessExit Process "process.exit" "A process ended.";
    FileOpen File "file.open" "A file was opened.";
    FileCreate File "file.create" "A file, directory, node or symlink was made.";
    FileDelete File "file.delete" "A name was removed.";
    FileRename File "file.rename" "A name was moved; `new_path` is where to.";
    FileLink File "file.link" "A hard link was made; `new_path` is the new name.";
    FileTruncate File "file.truncate" "A file was cut to a length.";
    FileSetattr File "file.setattr" "Mode, owner, times or extended attributes were changed.";
    FileMmapExec File "file.mmap_exec" "A file was mapped to be executed.";
    NetworkConnect Network "network.connect" "A connection was opened.";
    NetworkBind Network "network.bind" "A socket took a local address.";
    NetworkListen Network "network.listen" "A socket waits for connections.";
    NetworkAccept Network "network.accept" "A connection was taken in.";
    NetworkSend Network "network.send" "Data was sent on an unconnected socket.";
    NetworkDns Network "network.dns" "A name was looked up.";
    NetworkFlow Network "network.flow" "A connection was closed; byte counts.";
    PrivilegeSetuid Privilege "privilege.setuid" "User or group ids were changed.";
    PrivilegeCapability Privilege "privilege.capability" "A capability was gained.";
    PrivilegePtrace Privilege "privilege.ptrace" "Another process was traced or its memory accessed.";
    PrivilegeSignal Privilege "privilege.signal" "A signal was sent to another process.";
    PrivilegeMount Privilege "privilege.mount" "A file system was mounted, moved or unmounted.";
    PrivilegeNamespace Privilege "privilege.namespace" "A namespace was made or entered.";
    PrivilegeModule Privilege "privilege.module" "A kernel module was loaded.";
    PrivilegeBpf Privilege "privilege.bpf" "`bpf()` was called.";
    TamperSignal Tamper "tamper.signal" "A signal aimed at the monitor.";
    TamperPtrace Tamper "tamper.ptrace" "The monitor was to be traced.";
    TamperFile Tamper "tamper.file" "The monitor's files, socket or pins were touched.";
    TamperBpf Tamper "tamper.bpf" "The monitor's programs or maps were touched.";
    TamperControl Tamper "tamper.control" "An agent's process called the control API.";
    TamperDetached Tamper "tamper.detached" "Pins of the monitor's programs or maps were gone or replaced; `detail` names them and says whether they were put back.";
    AgentRegistered Agent "agent.registered" "A record was added.";
    AgentChanged Agent "agent.changed" "A record was changed.";
    AgentRemoved Agent "agent.removed" "A record is gone.";
    AgentRefused Agent "agent.refused" "A record was refused; `detail` says why.";
    AgentBound Agent "agent.bound" "A process was bound to an agent.";
    AgentSuspended Agent "agent.suspended" "An agent was suspended.";
    AgentResumed Agent "agent.resumed" "An agent goes on.";
    AgentRetired Agent "agent.retired" "An agent was retired.";
    AgentExpired Agent "agent.expired" "An agent's end date has come.";
    AgentRenewed Agent "agent.renewed" "An agent's end date was moved.";
    AgentOffboarded Agent "agent.offboarded" "A step of the off-boarding was taken; `detail` is the evidence.";
    AgentReviewed Agent "agent.reviewed" "A person reviewed what the agent has and what it uses.";
    AgentReviewDue Agent "agent.review_due" "A review of the agent is due.";
    SessionStarted Session "session.started" "A session began.";
    SessionEnded Session "session.ended" "A session ended.";
    GrantProposed Grant "grant.proposed" "A grant waits for a second person.";
    GrantAdded Grant "grant.added" "A grant was given.";
    GrantUsed Grant "grant.used" "A grant was used.";
    GrantRevoked Grant "grant.revoked" "A grant was taken back.";
    GrantExpired Grant "grant.expired" "A grant ran out of time or uses.";
    GrantRefused Grant "grant.refused" "Someone tried to give a grant and may not.";
    ApprovalRequested Approval "approval.requested" "An action waits for a person.";
    ApprovalVoted Approval "approval.voted" "A person said yes; more people are asked.";
    ApprovalApproved Approval "approval.approved" "A person said yes.";
    ApprovalDenied Approval "approval.denied" "A person said no.";
    ApprovalExpired Approval "approval.expired" "Nobody answered in time.";
    ApprovalGone Approval "approval.gone" "The process that waited has ended.";
    ApprovalRefused Approval "approval.refused" "Someone tried to decide and may not.";
    ApprovalFlood Approval "approval.flood" "Too many different requests: further ones are denied at once.";
    ApprovalFailed Approval "approval.failed" "A decision could not be carried out; what waits was refused or asked again.";
    FindingViolation Finding "finding.violation" "A scope was left.";
    FindingShadow Finding "finding.shadow_agent" "An agent without a record runs.";
    FindingTamper Finding "finding.tamper" "The monitor or its record was interfered with.";
    FindingGap Finding "finding.gap" "A gap that someone should look at.";
    GapRing Gap "gap.ring" "A ring was full; events were lost in the kernel.";
    GapCopy Gap "gap.copy" "The kernel side could not read what it was to report.";
    GapLookup Gap "gap.lookup" "A look-up that attribution needed failed.";
    GapMap Gap "gap.map" "A kernel map was full.";
    GapDecode Gap "gap.decode" "A sample from the kernel could not be read.";
    GapLate Gap "gap.late" "User space came too late to see something.";
    GapHook Gap "gap.hook" "A hook could not be attached, fell off, or was left out by the kernel.";
    GapDaemon Gap "gap.daemon" "The daemon was not running.";
    GapSubscriber Gap "gap.subscriber" "This reader was too slow and missed events.";
    GapHistory Gap "gap.history" "The query reaches back before the oldest event still held.";
    GapLog Gap "gap.log" "Events could not be written to the log.";
    LogOpened Log "log.opened" "The log was opened; `detail` says how the last writer ended and what was lost.";
    LogHost Log "log.host" "What this host is and can do, when the daemon started.";
    LogPolicy Log "log.policy" "A record as it came into force, as text.";
    LogClosed Log "log.closed" "The log was closed in good order.";
    LogRetained Log "log.retained" "Old records were removed by the retention rule; `detail` says which.";
    LogKey Log "log.key" "The signing key was changed.";
    LogClock Log "log.clock" "The wall clock was set back.";
    LogHeld Log "log.held" "Records were put under legal hold.";
    LogReleased Log "log.released" "A legal hold was lifted.";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.iter().copied().find(|k| k.as_str() == name).ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}
