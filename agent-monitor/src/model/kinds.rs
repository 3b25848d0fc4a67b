//! One row per event kind: everything that the rest of the program must know of a kind.
//!
//! From a row derive the contract name and family, the kernel record that it comes from, what it asks of a scope, its
//! class and activity in OCSF, its sentence, whether a hold can restart it, and which escape rows prove its judging.
//! Techniques refer to kinds by their contract name (`mapping/rules.toml`, checked when it is read). A new kind is a
//! new row: the compiler asks for each column, and no consumer has an arm for "any other kind".
#![deny(clippy::wildcard_enum_match_arm)]

use agent_monitor_ebpf::header::Kind as RawKind;
use agent_monitor_ebpf::policy::{NET_BIND, NET_CONNECT, NET_LISTEN, ask, power};

use super::file::Access;
use super::kind::Family;

/// What is known of a kind.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The kind.
    pub kind: Kind,
    /// Its family: the first half of the name.
    pub family: Family,
    /// The contract name.
    pub name: &'static str,
    /// One sentence for help texts.
    pub about: &'static str,
    /// The record of the kernel half that it comes from; `None` for what the daemon itself reports.
    pub raw: Option<RawKind>,
    /// What it asks of a scope.
    pub asks: Asks,
    /// What a `hold` verdict does to the system call.
    pub wait: Wait,
    /// Where it is proved that no path leads round its judging.
    pub escape: Escape,
    /// The kind that it is when it is aimed at the monitor itself.
    pub tamper: Kind,
    /// The access that the act is by itself, whatever the record says was asked for.
    pub access: Option<Access>,
    /// The class in OCSF.
    pub ocsf: Ocsf,
    /// The sentence after the subject. Placeholders: see [`PLACEHOLDERS`].
    pub sentence: &'static str,
}

/// The placeholders of [`Row::sentence`].
pub const PLACEHOLDERS: [&str; 8] =
    ["{object}", "{new}", "{access}", "{ended}", "{traffic}", "{opened}", "{gap}", "{note}"];

/// What an act asks of a scope: the question that the hooks put for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// Scopes do not decide about it; why.
    Nothing(&'static str),
    /// The image and, where there is one, the script.
    Exec,
    /// The accesses that a file is opened for.
    Open,
    /// These bits of [`ask`] about one place.
    Place(u32),
    /// The place that is emptied and the place that is filled.
    Rename,
    /// The file that gets a second name and the place of that name.
    Link,
    /// A peer or own address.
    Net {
        /// A `NET_*` bit, for internet sockets.
        inet: u8,
        /// Bits of [`ask`], for UNIX sockets.
        unix: u32,
    },
    /// One of [`power`].
    Power(usize),
    /// Each capability that is gained.
    Capabilities,
    /// Signals to processes outside the agent.
    Signal,
    /// User namespaces and others.
    Namespaces,
}

/// What a `hold` verdict does at level full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The thread stops inside the system call, which is restarted after the decision. Single calls of the kind that
    /// cannot be restarted (`agent_monitor_ebpf::people::restartable`) are refused, and an approval is requested.
    Restarts,
    /// No system call of the kind can be restarted: it is refused, an approval is requested, a later try passes.
    Refused,
    /// The kind is never judged.
    NotJudged,
}

/// Where it is proved that no path leads round the judging of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// At least one row of `tests/kernel/escape`.
    Rows,
    /// There is none, and why.
    None(&'static str),
}

/// Class and activity of the Open Cybersecurity Schema Framework.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ocsf {
    /// The class, and what of it is filled in.
    pub shape: Shape,
    /// `activity_id` of the class; 99 is "other".
    pub activity: u64,
    /// `activity_name`.
    pub name: &'static str,
}

/// A class of OCSF with what the kind fills in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Process Activity: a launch, with `launch_type_id` and `launch_type`.
    Launch(u64, &'static str),
    /// Process Activity: an exit.
    Terminate,
    /// Process Activity on the target of the act.
    OnProcess,
    /// File System Activity.
    File,
    /// File System Activity on a mount point.
    Mount,
    /// Module Activity.
    Module,
    /// Kernel Extension Activity.
    Extension,
    /// Kernel Activity: a system call by name.
    SystemCall(&'static str),
    /// Network Activity.
    Connection(Direction),
    /// DNS Activity.
    Dns,
    /// Detection Finding.
    Finding,
    /// Entity Management.
    Entity,
    /// Application Lifecycle.
    Lifecycle,
}

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The peer.
    Inbound,
    /// The process of the event.
    Outbound,
}

/// What a record of the kernel half is to the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// An event of this kind.
    Event(Kind),
    /// No event: material for events, or proof that a hook runs. The name is for counting losses of it; it is no kind.
    Material(&'static str),
}

impl Record {
    /// The kind of event, where it is one.
    #[must_use]
    pub fn event(self) -> Option<Kind> {
        match self {
            Self::Event(kind) => Some(kind),
            Self::Material(_) => None,
        }
    }

    /// The name under which losses of such records are reported.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Event(kind) => kind.as_str(),
            Self::Material(name) => name,
        }
    }
}

/// Columns that a row may leave out.
macro_rules! column {
    (asks) => {
        Asks::Nothing("reported by the daemon; not an act that scopes decide about")
    };
    (asks $asks:expr) => {
        $asks
    };
    (wait) => {
        Wait::NotJudged
    };
    (wait $wait:expr) => {
        $wait
    };
    (escape) => {
        Escape::None("not judged: reported by the daemon")
    };
    (escape $escape:expr) => {
        $escape
    };
    (tamper $own:ident) => {
        Kind::$own
    };
    (tamper $own:ident $tamper:ident) => {
        Kind::$tamper
    };
    (raw) => {
        None
    };
    (raw $raw:ident) => {
        Some(RawKind::$raw)
    };
    (access) => {
        None
    };
    (access $access:ident) => {
        Some(Access::$access)
    };
}

macro_rules! kinds {
    (
        material { $($material:ident $lost:literal)+ }
        $($variant:ident $family:ident $name:literal $doc:literal
            [$shape:expr, $activity:literal, $act:literal] $sentence:literal
            $(judged($asks:expr, $wait:expr, $escape:expr, $tamper:ident))? $(access($access:ident))? $(raw($raw:ident))?;)+
    ) => {
        /// What happened. The text form (`file.open`) is the contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = $doc] $variant,)+
        }

        impl Kind {
            /// All kinds, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Everything that is known of it.
            #[must_use]
            pub const fn row(self) -> &'static Row {
                match self {
                    $(Self::$variant => &Row {
                        kind: Self::$variant,
                        family: Family::$family,
                        name: $name,
                        about: $doc,
                        raw: column!(raw $($raw)?),
                        asks: column!(asks $($asks)?),
                        wait: column!(wait $($wait)?),
                        escape: column!(escape $($escape)?),
                        tamper: column!(tamper $variant $($tamper)?),
                        access: column!(access $($access)?),
                        ocsf: Ocsf { shape: $shape, activity: $activity, name: $act },
                        sentence: $sentence,
                    },)+
                }
            }
        }

        /// What a record of the kernel half is. Total over the records of the contract: a new one does not compile
        /// until it has a row here.
        #[must_use]
        pub const fn of_record(raw: RawKind) -> Record {
            match raw {
                $($(RawKind::$raw => Record::Event(Kind::$variant),)?)+
                $(RawKind::$material => Record::Material($lost),)+
            }
        }
    };
}

kinds! {
    // Records that are no event. Losses of them are reported under these names.
    material {
        ArgChunk "record.arguments"
        NetPeer "record.peer"
        NetAnswer "record.dns_answer"
        NetHello "record.tls_client_hello"
        Canary "record.canary"
    }

    // Variant, family, contract name, what it means
    //     [class of OCSF, activity id, activity name] sentence after the subject
    //     judged(what it asks of a scope, what a hold does, escape rows, kind when aimed at the monitor) access(its own) raw(record of the kernel half)
    ProcessFork Process "process.fork" "A process was made; `process` is the child."
        [Shape::Launch(2, "Fork"), 1, "Launch"] "was made as a new process"
        judged(Asks::Nothing("a child inherits identity and scope; making one is not judged"), Wait::NotJudged, Escape::None("not judged: `tests/kernel/binding.rs` holds that identity is inherited"), TamperFile) raw(Fork);
    ProcessExec Process "process.exec" "A program was started; `process` is the new image."
        [Shape::Launch(3, "Exec"), 1, "Launch"] "ran {object}"
        judged(Asks::Exec, Wait::Restarts, Escape::Rows, TamperFile) raw(Exec);
    ProcessExit Process "process.exit" "A process ended."
        [Shape::Terminate, 2, "Terminate"] "{ended}"
        judged(Asks::Nothing("an exit cannot be refused"), Wait::NotJudged, Escape::None("not judged"), TamperFile) raw(Exit);
    FileOpen File "file.open" "A file was opened."
        [Shape::File, 14, "Open"] "opened {object} to {access}"
        judged(Asks::Open, Wait::Restarts, Escape::Rows, TamperFile) raw(FileOpen);
    FileCreate File "file.create" "A file, directory, node or symlink was made."
        [Shape::File, 1, "Create"] "made {object}"
        judged(Asks::Place(ask::CREATE), Wait::Restarts, Escape::Rows, TamperFile) access(Create) raw(FileCreate);
    FileDelete File "file.delete" "A name was removed."
        [Shape::File, 4, "Delete"] "deleted {object}"
        judged(Asks::Place(ask::DELETE), Wait::Restarts, Escape::Rows, TamperFile) access(Delete) raw(FileDelete);
    FileRename File "file.rename" "A name was moved; `new_path` is where to."
        [Shape::File, 5, "Rename"] "renamed {object} to {new}"
        judged(Asks::Rename, Wait::Restarts, Escape::Rows, TamperFile) access(Rename) raw(FileRename);
    FileLink File "file.link" "A hard link was made; `new_path` is the new name."
        [Shape::File, 1, "Create"] "linked {object} as {new}"
        judged(Asks::Link, Wait::Restarts, Escape::Rows, TamperFile) access(Link) raw(FileLink);
    FileTruncate File "file.truncate" "A file was truncated or extended to a length."
        [Shape::File, 3, "Update"] "truncated {object}"
        judged(Asks::Place(ask::WRITE), Wait::Restarts, Escape::Rows, TamperFile) access(Truncate) raw(FileTruncate);
    FileSetattr File "file.setattr" "Mode, owner, times or extended attributes were changed."
        [Shape::File, 6, "Set Attributes"] "changed attributes of {object}"
        judged(Asks::Place(ask::WRITE), Wait::Restarts, Escape::Rows, TamperFile) access(Setattr) raw(FileSetattr);
    FileMmapExec File "file.mmap_exec" "A file was mapped to be executed."
        [Shape::Module, 1, "Load"] "mapped {object} to run it"
        judged(Asks::Place(ask::MAP), Wait::Refused, Escape::None("no row of its own: a mapping needs a descriptor, whose open is refused first (`memory_map_executable`)"), TamperFile) access(Exec) raw(FileMmapExec);
    NetworkConnect Network "network.connect" "A connection was opened."
        [Shape::Connection(Direction::Outbound), 1, "Open"] "connected to {object}"
        judged(Asks::Net { inet: NET_CONNECT, unix: ask::UNIX_CONNECT }, Wait::Restarts, Escape::Rows, TamperControl) raw(NetConnect);
    NetworkBind Network "network.bind" "A socket was bound to a local address."
        [Shape::Connection(Direction::Inbound), 99, "Bind"] "was bound to {object}"
        judged(Asks::Net { inet: NET_BIND, unix: ask::UNIX_BIND }, Wait::Restarts, Escape::Rows, TamperFile) raw(NetBind);
    NetworkListen Network "network.listen" "A socket waits for connections."
        [Shape::Connection(Direction::Inbound), 7, "Listen"] "listened on {object}"
        judged(Asks::Net { inet: NET_LISTEN, unix: ask::UNIX_LISTEN }, Wait::Restarts, Escape::None("no row of its own: the rows of `network.bind` refuse the address first"), TamperFile) raw(NetListen);
    NetworkAccept Network "network.accept" "A connection was accepted."
        [Shape::Connection(Direction::Inbound), 1, "Open"] "accepted a connection from {object}"
        judged(Asks::Nothing("the socket was judged when it began to listen"), Wait::NotJudged, Escape::None("not judged: listening was"), TamperFile) raw(NetAccept);
    NetworkSend Network "network.send" "Data was sent on an unconnected socket."
        [Shape::Connection(Direction::Outbound), 6, "Traffic"] "sent to {object}"
        judged(Asks::Net { inet: NET_CONNECT, unix: ask::UNIX_CONNECT }, Wait::Restarts, Escape::Rows, TamperControl) raw(NetSend);
    NetworkDns Network "network.dns" "A name was looked up."
        [Shape::Dns, 1, "Query"] "looked up {object}"
        judged(Asks::Nothing("names are read from answers, which nobody is refused"), Wait::NotJudged, Escape::None("not judged"), TamperFile);
    NetworkFlow Network "network.flow" "A connection was closed; byte counts."
        [Shape::Connection(Direction::Outbound), 2, "Close"] "closed the connection to {object}: {traffic}"
        judged(Asks::Nothing("the connection was judged when it was opened"), Wait::NotJudged, Escape::None("not judged: the connection was"), TamperFile) raw(NetFlow);
    PrivilegeSetuid Privilege "privilege.setuid" "User or group ids were changed."
        [Shape::OnProcess, 5, "Set User ID"] "{note}"
        judged(Asks::Power(power::SETUID), Wait::Restarts, Escape::Rows, TamperFile) raw(PrivSetuid);
    PrivilegeCapability Privilege "privilege.capability" "A capability was gained."
        [Shape::OnProcess, 99, "Capability Gained"] "{note}"
        judged(Asks::Capabilities, Wait::Restarts, Escape::Rows, TamperFile) raw(PrivCapability);
    PrivilegePtrace Privilege "privilege.ptrace" "Another process was traced or its memory accessed."
        [Shape::OnProcess, 3, "Open"] "{note}"
        judged(Asks::Power(power::PTRACE), Wait::Restarts, Escape::Rows, TamperPtrace) raw(PrivPtrace);
    PrivilegeSignal Privilege "privilege.signal" "A signal was sent to another process."
        [Shape::OnProcess, 99, "Signal"] "{note}"
        judged(Asks::Signal, Wait::Restarts, Escape::Rows, TamperSignal) raw(PrivSignal);
    PrivilegeMount Privilege "privilege.mount" "A file system was mounted, moved or unmounted."
        [Shape::Mount, 12, "Mount"] "{note}"
        judged(Asks::Power(power::MOUNT), Wait::Restarts, Escape::Rows, TamperFile) raw(PrivMount);
    PrivilegeNamespace Privilege "privilege.namespace" "A namespace was made or entered."
        [Shape::SystemCall("namespace"), 4, "Invoke"] "{note}"
        judged(Asks::Namespaces, Wait::Refused, Escape::Rows, TamperFile) raw(PrivNamespace);
    PrivilegeModule Privilege "privilege.module" "A kernel module was loaded."
        [Shape::Extension, 1, "Load"] "{note}"
        judged(Asks::Power(power::MODULE), Wait::Refused, Escape::None("no row of its own: `init_module` and `finit_module` are the only calls, `tests/kernel/privilege.rs` makes both"), TamperFile) raw(PrivModule);
    PrivilegeBpf Privilege "privilege.bpf" "`bpf()` was called."
        [Shape::SystemCall("bpf"), 4, "Invoke"] "{note}"
        judged(Asks::Power(power::BPF), Wait::Refused, Escape::None("no row of its own: `bpf` is the only call, `tests/kernel/privilege.rs` makes it"), TamperBpf) raw(PrivBpf);
    TamperSignal Tamper "tamper.signal" "A signal aimed at the monitor."
        [Shape::Finding, 1, "Create"] "{note}";
    TamperPtrace Tamper "tamper.ptrace" "The monitor was to be traced."
        [Shape::Finding, 1, "Create"] "{note}";
    TamperFile Tamper "tamper.file" "The monitor's files, socket or pins were touched."
        [Shape::Finding, 1, "Create"] "{note}";
    TamperBpf Tamper "tamper.bpf" "The monitor's programs or maps were touched."
        [Shape::Finding, 1, "Create"] "{note}";
    TamperControl Tamper "tamper.control" "An agent's process called the control API, or connected to its socket."
        [Shape::Finding, 1, "Create"] "{note}";
    TamperDetached Tamper "tamper.detached" "Pins of the monitor's programs or maps were gone or replaced; `detail` names them and says whether they were put back."
        [Shape::Finding, 1, "Create"] "{note}";
    AgentRegistered Agent "agent.registered" "A record was added."
        [Shape::Entity, 1, "Create"] "{note}";
    AgentChanged Agent "agent.changed" "A record was changed."
        [Shape::Entity, 3, "Update"] "{note}";
    AgentRemoved Agent "agent.removed" "A record is gone."
        [Shape::Entity, 4, "Delete"] "{note}";
    AgentRefused Agent "agent.refused" "A record was refused; `detail` says why."
        [Shape::Entity, 99, "Refuse"] "{note}";
    AgentBound Agent "agent.bound" "A process was bound to an agent."
        [Shape::Entity, 99, "Bind"] "{note}" raw(Bound);
    AgentSuspended Agent "agent.suspended" "An agent was suspended."
        [Shape::Entity, 12, "Suspend"] "{note}";
    AgentResumed Agent "agent.resumed" "A suspended agent was resumed."
        [Shape::Entity, 13, "Resume"] "{note}";
    AgentRetired Agent "agent.retired" "An agent was retired."
        [Shape::Entity, 11, "Deactivate"] "{note}";
    AgentExpired Agent "agent.expired" "An agent's end date has come."
        [Shape::Entity, 9, "Disable"] "{note}";
    AgentRenewed Agent "agent.renewed" "An agent's end date was moved."
        [Shape::Entity, 99, "Renew"] "{note}";
    AgentOffboarded Agent "agent.offboarded" "A step of the off-boarding was taken; `detail` is the evidence."
        [Shape::Entity, 99, "Off-board"] "{note}";
    AgentReviewed Agent "agent.reviewed" "A person reviewed what the agent has and what it uses."
        [Shape::Entity, 99, "Review"] "{note}";
    AgentReviewDue Agent "agent.review_due" "A review of the agent is due."
        [Shape::Entity, 99, "Review Due"] "{note}";
    SessionStarted Session "session.started" "A session began."
        [Shape::Lifecycle, 3, "Start"] "{note}";
    SessionEnded Session "session.ended" "A session ended."
        [Shape::Lifecycle, 4, "Stop"] "{note}";
    GrantProposed Grant "grant.proposed" "A grant waits for a second person."
        [Shape::Entity, 99, "Propose"] "{note}";
    GrantAdded Grant "grant.added" "A grant was given."
        [Shape::Entity, 1, "Create"] "{note}";
    GrantUsed Grant "grant.used" "A grant was used."
        [Shape::Entity, 2, "Read"] "{note}";
    GrantRevoked Grant "grant.revoked" "A grant was taken back."
        [Shape::Entity, 4, "Delete"] "{note}";
    GrantExpired Grant "grant.expired" "A grant ran out of time or uses."
        [Shape::Entity, 9, "Disable"] "{note}";
    GrantRefused Grant "grant.refused" "Someone tried to give a grant and may not."
        [Shape::Entity, 99, "Refuse"] "{note}";
    ApprovalRequested Approval "approval.requested" "An action waits for a person."
        [Shape::Entity, 1, "Create"] "{note}";
    ApprovalVoted Approval "approval.voted" "A person said yes; more people are asked."
        [Shape::Entity, 99, "Vote"] "{note}";
    ApprovalApproved Approval "approval.approved" "A person said yes."
        [Shape::Entity, 10, "Activate"] "{note}";
    ApprovalDenied Approval "approval.denied" "A person said no."
        [Shape::Entity, 11, "Deactivate"] "{note}";
    ApprovalExpired Approval "approval.expired" "Nobody answered in time."
        [Shape::Entity, 9, "Disable"] "{note}";
    ApprovalGone Approval "approval.gone" "The process that waited has ended."
        [Shape::Entity, 99, "Withdraw"] "{note}";
    ApprovalRefused Approval "approval.refused" "Someone tried to decide and may not."
        [Shape::Entity, 99, "Refuse"] "{note}";
    ApprovalFlood Approval "approval.flood" "Too many different requests: further ones are denied at once."
        [Shape::Entity, 99, "Flood"] "{note}";
    ApprovalFailed Approval "approval.failed" "A decision could not be carried out; what waits was refused or asked again."
        [Shape::Entity, 99, "Fail"] "{note}";
    FindingViolation Finding "finding.violation" "A scope was left."
        [Shape::Finding, 1, "Create"] "{note}";
    FindingShadow Finding "finding.shadow_agent" "An agent without a record runs."
        [Shape::Finding, 1, "Create"] "{note}";
    FindingTamper Finding "finding.tamper" "The monitor or its record was interfered with."
        [Shape::Finding, 1, "Create"] "{note}";
    FindingGap Finding "finding.gap" "A gap that someone should look at."
        [Shape::Finding, 1, "Create"] "{note}";
    GapRing Gap "gap.ring" "A ring was full; events were lost in the kernel."
        [Shape::Lifecycle, 99, "Gap"] "{gap}";
    GapCopy Gap "gap.copy" "The kernel side could not read what it was to report."
        [Shape::Lifecycle, 99, "Gap"] "{gap}";
    GapLookup Gap "gap.lookup" "A look-up that attribution needed failed."
        [Shape::Lifecycle, 99, "Gap"] "{gap}";
    GapMap Gap "gap.map" "A kernel map was full."
        [Shape::Lifecycle, 99, "Gap"] "{gap}";
    GapDecode Gap "gap.decode" "A sample from the kernel could not be read."
        [Shape::Lifecycle, 99, "Gap"] "{gap}";
    GapLate Gap "gap.late" "User space came too late to see something."
        [Shape::Lifecycle, 99, "Gap"] "{gap}";
    GapHook Gap "gap.hook" "A hook could not be attached, fell off, or was left out by the kernel."
        [Shape::Lifecycle, 99, "Gap"] "{gap}";
    GapDaemon Gap "gap.daemon" "The daemon was not running."
        [Shape::Lifecycle, 99, "Gap"] "{gap}";
    GapSubscriber Gap "gap.subscriber" "This reader was too slow and missed events."
        [Shape::Lifecycle, 99, "Gap"] "{gap}";
    GapHistory Gap "gap.history" "The query reaches back before the oldest event still held."
        [Shape::Lifecycle, 99, "Gap"] "{gap}";
    GapLog Gap "gap.log" "Events could not be written to the log."
        [Shape::Lifecycle, 99, "Gap"] "{gap}";
    LogOpened Log "log.opened" "The log was opened; `detail` says how the last writer ended and what was lost."
        [Shape::Lifecycle, 3, "Start"] "opened the log; the writer before: {opened}";
    LogSetAside Log "log.set_aside" "A log that does not hold was set aside, and this one was begun; `detail` says where it is, why, and which of its checkpoints was the last to be verified."
        [Shape::Finding, 1, "Create"] "{note}";
    LogHost Log "log.host" "What this host is and can do, when the daemon started."
        [Shape::Lifecycle, 99, "Log"] "{note}";
    LogPolicy Log "log.policy" "A record as it came into force, as text."
        [Shape::Lifecycle, 8, "Update"] "{note}";
    LogClosed Log "log.closed" "The log was closed in good order."
        [Shape::Lifecycle, 4, "Stop"] "closed the log in good order";
    LogRetained Log "log.retained" "Old records were removed by the retention rule; `detail` says which."
        [Shape::Lifecycle, 99, "Log"] "{note}";
    LogKey Log "log.key" "The signing key was changed."
        [Shape::Lifecycle, 8, "Update"] "{note}";
    LogClock Log "log.clock" "The wall clock was set back."
        [Shape::Lifecycle, 99, "Log"] "{note}";
    LogHeld Log "log.held" "Records were put under legal hold."
        [Shape::Lifecycle, 99, "Log"] "{note}";
    LogReleased Log "log.released" "A legal hold was lifted."
        [Shape::Lifecycle, 99, "Log"] "{note}";
}

impl Kind {
    /// The contract name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().name
    }

    /// The first half of the name.
    #[must_use]
    pub const fn family(self) -> Family {
        self.row().family
    }

    /// One sentence for help texts.
    #[must_use]
    pub const fn about(self) -> &'static str {
        self.row().about
    }
}

#[cfg(test)]
mod tests;
