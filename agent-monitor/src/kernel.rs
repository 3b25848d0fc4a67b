//! The only place that talks to the kernel's BPF: loads the programs, keeps maps and links pinned, writes recognition
//! tables, reads rings and losses.
//!
//! Must not: know records, events or output formats. What goes in is plain numbers and paths already translated to
//! `(device, path inside the file system)`.

pub(crate) mod adopt;
pub mod attach;
pub mod bpffs;
pub mod btf;
pub mod canary;
pub mod handles;
pub mod not_run;
pub mod object;
pub mod people;
pub mod pins;
pub mod pod;
pub(crate) mod policy;
pub(crate) mod raw;
pub mod rings;
pub mod seed;
pub mod tables;

use std::path::PathBuf;

/// Why the kernel side could not be set up or used. Each says what was tried, on what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Not root.
    #[error("loading eBPF programs needs root (CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN); run as root")]
    Privilege,
    /// The daemon was built without programs.
    #[error("this binary was built without eBPF programs; build it with `cargo xtask build`")]
    NoObject,
    /// BTF missing or odd.
    #[error("{0}; the kernel must be built with CONFIG_DEBUG_INFO_BTF=y")]
    Btf(#[from] btf::BtfError),
    /// A structure field that the programs cannot do without.
    #[error("this kernel has no member {path} in struct {owner}; the programs cannot run on it")]
    MissingField {
        /// Structure.
        owner: &'static str,
        /// Member.
        path: &'static str,
    },
    /// A directory that should be on bpffs is not.
    #[error("{path} is not on a BPF file system; mount one: mount -t bpf bpf {mount}")]
    NotBpffs {
        /// Directory asked for.
        path: String,
        /// Where to mount.
        mount: String,
    },
    /// A file operation.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something aya reports, with what was tried.
    #[error("cannot {what}: {cause}")]
    Bpf {
        /// What was tried.
        what: String,
        /// The chain of causes in words.
        cause: String,
    },
    /// Another daemon holds these pins.
    #[error(
        "the programs under {path} belong to a running daemon (pid {pid}); stop it or use another --bpffs"
    )]
    Busy {
        /// Pin directory.
        path: String,
        /// The daemon.
        pid: u32,
    },
    /// Pins of another contract version.
    #[error(
        "the pins under {path} were made by another version of agent-monitor ({found}); remove them with `agent-monitor detach`"
    )]
    Version {
        /// Pin directory.
        path: String,
        /// What the version file says.
        found: String,
    },
}

impl KernelError {
    /// Wraps an aya error with what was tried; the verifier's log is cut to its last lines.
    pub fn bpf(what: impl Into<String>, error: &dyn std::error::Error) -> KernelError {
        let mut cause = error.to_string();
        let mut source = error.source();
        while let Some(e) = source {
            let text = e.to_string();
            if !cause.contains(&text) {
                cause = format!("{cause}: {text}");
            }
            source = e.source();
        }
        if cause.len() > 4000 {
            let cut = cause.char_indices().map(|(i, _)| i).find(|i| *i + 3000 >= cause.len()).unwrap_or(0);
            cause = format!("{} … {}", cause.get(..600).unwrap_or(""), cause.get(cut..).unwrap_or(""));
        }
        KernelError::Bpf { what: what.into(), cause }
    }

    /// Wraps an I/O error.
    pub fn io(what: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> KernelError {
        KernelError::Io { what, path: path.into().display().to_string(), source }
    }
}

/// What the daemon asks of the kernel side.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory on bpffs that holds the pins.
    pub bpffs: PathBuf,
    /// The kernel's types, where another file than the kernel's own is to be read.
    pub btf: Option<PathBuf>,
    /// cgroup v2 mount, where there is one.
    pub cgroup: Option<PathBuf>,
    /// `UNATTRIBUTED_*` of the contract.
    pub unattributed: u32,
    /// Bytes of the event ring (a power of two, at least one page).
    pub ring_bytes: u32,
    /// Load as if BPF LSM were missing.
    pub force_partial: bool,
    /// Forget what an earlier daemon left in force, and start with none of it.
    pub fresh: bool,
}
