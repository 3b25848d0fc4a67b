//! The table of programs: which hook each goes to, at which level, and what is lost without it.

use std::path::Path;

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, Iter,
        Lsm, ProgramError, RawTracePoint, TracePoint, links::FdLink,
    },
};

use super::{KernelError, btf};

/// Where a program goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// BPF LSM hook.
    Lsm(&'static str),
    /// BTF-typed tracepoint.
    TpBtf(&'static str),
    /// Raw tracepoint.
    RawTp(&'static str),
    /// `syscalls` tracepoint.
    Syscall(&'static str),
    /// cgroup socket-address hook of the root cgroup.
    SockAddr,
    /// cgroup socket hook.
    Sock,
    /// cgroup packet hook.
    Skb,
    /// Task iterator.
    TaskIter,
}

/// At which level a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Both.
    Always,
    /// Only with BPF LSM.
    Full,
    /// Only without.
    Partial,
}

/// One program of the object.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Symbol in the object.
    pub name: &'static str,
    /// Where it goes.
    pub hook: Hook,
    /// Event family it serves.
    pub family: &'static str,
    /// Level.
    pub at: At,
    /// What is lost without it; empty when the daemon cannot run without it.
    pub without: &'static str,
}

macro_rules! programs {
    ($($name:ident: $hook:expr, $family:literal, $at:ident, $without:literal;)*) => {
        /// Every program, in the order in which they are attached: bindings first, so that no record comes before.
        pub const PROGRAMS: &[Program] = &[
            $(Program { name: stringify!($name), hook: $hook, family: $family, at: At::$at, without: $without },)*
        ];
    };
}

programs! {
    seed_tasks: Hook::TaskIter, "process", Always, "";
    process_fork: Hook::TpBtf("sched_process_fork"), "process", Always, "";
    process_exit: Hook::TpBtf("sched_process_exit"), "process", Always, "";
    bprm_check: Hook::Lsm("bprm_check_security"), "process", Full, "";
    process_exec: Hook::TpBtf("sched_process_exec"), "process", Always, "";
    cgroup_mkdir: Hook::TpBtf("cgroup_mkdir"), "process", Always, "cgroups made later are recognised by the daemon's scan only";
    cgroup_rmdir: Hook::TpBtf("cgroup_rmdir"), "process", Always, "";
    cgroup_attach: Hook::TpBtf("cgroup_attach_task"), "process", Always, "processes moved into a cgroup are bound at their next exec";
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Attached.
    Attached,
    /// This kernel lacks the hook, or the host lacks what it needs.
    Absent(String),
    /// The kernel refused it.
    Refused(String),
}

/// Loads and attaches one program. The link is returned for pinning; an iterator has none.
///
/// # Errors
/// The reason in words when the kernel refuses.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    program: &Program,
    btf: &Btf,
    cgroup: Option<&Path>,
) -> Result<Option<FdLink>, KernelError> {
    let what = format!("attach {}", program.name);
    attach_inner(ebpf, program, btf, cgroup).map_err(|e| KernelError::bpf(what, &e))
}

fn attach_inner(
    ebpf: &mut Ebpf,
    program: &Program,
    btf: &Btf,
    cgroup: Option<&Path>,
) -> Result<Option<FdLink>, ProgramError> {
    let found =
        ebpf.program_mut(program.name).ok_or(ProgramError::InvalidName { name: program.name.into() })?;
    let root = || -> Result<std::fs::File, ProgramError> {
        std::fs::File::open(cgroup.unwrap_or(Path::new("/nonexistent"))).map_err(ProgramError::IOError)
    };
    let single = CgroupAttachMode::Single;
    Ok(Some(match program.hook {
        Hook::Lsm(hook) => {
            let p: &mut Lsm = found.try_into()?;
            p.load(hook, btf)?;
            let id = p.attach()?;
            p.take_link(id)?.into()
        }
        Hook::TpBtf(name) => {
            let p: &mut BtfTracePoint = found.try_into()?;
            p.load(name, btf)?;
            let id = p.attach()?;
            p.take_link(id)?.into()
        }
        Hook::RawTp(name) => {
            let p: &mut RawTracePoint = found.try_into()?;
            p.load()?;
            let id = p.attach(name)?;
            p.take_link(id)?.into()
        }
        Hook::Syscall(name) => {
            let p: &mut TracePoint = found.try_into()?;
            p.load()?;
            let id = p.attach("syscalls", name)?;
            as_fd(p.take_link(id)?.try_into())?
        }
        Hook::SockAddr => {
            let p: &mut CgroupSockAddr = found.try_into()?;
            p.load()?;
            let id = p.attach(root()?, single)?;
            as_fd(p.take_link(id)?.try_into())?
        }
        Hook::Sock => {
            let p: &mut CgroupSock = found.try_into()?;
            p.load()?;
            let id = p.attach(root()?, single)?;
            as_fd(p.take_link(id)?.try_into())?
        }
        Hook::Skb => {
            let p: &mut CgroupSkb = found.try_into()?;
            p.load()?;
            let way = if program.name.ends_with("ingress") {
                CgroupSkbAttachType::Ingress
            } else {
                CgroupSkbAttachType::Egress
            };
            let id = p.attach(root()?, way, single)?;
            as_fd(p.take_link(id)?.try_into())?
        }
        Hook::TaskIter => {
            let p: &mut Iter = found.try_into()?;
            p.load("task", btf)?;
            return Ok(None);
        }
    }))
}

/// Whether this kernel has the hook at all, by its BTF.
pub(super) fn exists(program: &Program, btf: &btf::Btf) -> bool {
    match program.hook {
        Hook::Lsm(hook) => btf.has_function(&format!("bpf_lsm_{hook}")),
        Hook::TpBtf(name) => btf.has_tracepoint(name),
        Hook::RawTp(_) | Hook::Syscall(_) | Hook::SockAddr | Hook::Sock | Hook::Skb | Hook::TaskIter => true,
    }
}

/// A link as a file descriptor. Kernels before 5.7 have none; nothing here runs on those.
fn as_fd(link: Result<FdLink, aya::programs::links::LinkError>) -> Result<FdLink, ProgramError> {
    link.map_err(|e| ProgramError::IOError(std::io::Error::other(e)))
}
