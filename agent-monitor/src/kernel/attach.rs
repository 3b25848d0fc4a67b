//! The table of programs: which hook each goes to, at which level, and what is lost without it.

use std::path::Path;

use aya::{
    Btf, Ebpf,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, FExit,
        Iter, Lsm, ProgramError, ProgramInfo, RawTracePoint, links::FdLink,
    },
};

use super::{KernelError, btf};

/// Where a program goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// BPF LSM hook.
    Lsm(&'static str),
    /// BPF LSM hook of which the object has one program per place that the dentry argument has had.
    LsmDentry(&'static str, u32),
    /// BTF-typed tracepoint.
    TpBtf(&'static str),
    /// Raw tracepoint.
    RawTp(&'static str),
    /// At the return of a system call.
    Syscall(&'static str),
    /// The same for its 32-bit entry.
    Syscall32(&'static str),
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
    task_alloc: Hook::Lsm("task_alloc"), "process", Full, "";
    process_fork: Hook::TpBtf("sched_process_fork"), "process", Always, "";
    process_exit: Hook::TpBtf("sched_process_exit"), "process", Always, "";
    bprm_check: Hook::Lsm("bprm_check_security"), "process", Full, "";
    partial_exec: Hook::TpBtf("sched_process_exec"), "process", Partial, "programs are not judged";
    exec_words: Hook::TpBtf("sched_process_exec"), "process", Full, "an approved program may get other arguments than were shown";
    exec_words_again: Hook::TpBtf("sched_process_exec"), "process", Full, "an approved program may get other arguments than were shown";
    process_exec: Hook::TpBtf("sched_process_exec"), "process", Always, "";
    process_exec_again: Hook::TpBtf("sched_process_exec"), "process", Always, "";
    cgroup_mkdir: Hook::TpBtf("cgroup_mkdir"), "process", Always, "cgroups made later are recognised by the daemon's scan only";
    cgroup_rmdir: Hook::TpBtf("cgroup_rmdir"), "process", Always, "";
    cgroup_attach: Hook::TpBtf("cgroup_attach_task"), "process", Always, "processes moved into a cgroup are bound at their next exec";
    file_open: Hook::Lsm("file_open"), "file", Full, "opens are not seen";
    inode_create: Hook::Lsm("inode_create"), "file", Full, "new files are not seen";
    inode_mkdir: Hook::Lsm("inode_mkdir"), "file", Full, "new directories are not seen";
    inode_mknod: Hook::Lsm("inode_mknod"), "file", Full, "new nodes are not seen";
    inode_symlink: Hook::Lsm("inode_symlink"), "file", Full, "new symbolic links are not seen";
    inode_unlink: Hook::Lsm("inode_unlink"), "file", Full, "deletions are not seen";
    inode_rmdir: Hook::Lsm("inode_rmdir"), "file", Full, "deletions of directories are not seen";
    inode_rename: Hook::Lsm("inode_rename"), "file", Full, "renames are not seen";
    inode_link: Hook::Lsm("inode_link"), "file", Full, "hard links are not seen";
    inode_setattr: Hook::LsmDentry("inode_setattr", 0), "file", Full, "truncation, chmod, chown and utimes are not seen";
    inode_setattr_idmap: Hook::LsmDentry("inode_setattr", 1), "file", Full, "truncation, chmod, chown and utimes are not seen";
    inode_setxattr: Hook::Lsm("inode_setxattr"), "file", Full, "extended attributes are not seen";
    inode_getxattr: Hook::Lsm("inode_getxattr"), "file", Full, "values of extended attributes are readable in closed files";
    inode_listxattr: Hook::Lsm("inode_listxattr"), "file", Full, "names of extended attributes are readable in closed files";
    inode_file_setattr: Hook::Lsm("inode_file_setattr"), "file", Full, "inode flags are seen at ioctl only";
    inode_removexattr: Hook::Lsm("inode_removexattr"), "file", Full, "removed extended attributes are not seen";
    inode_set_acl: Hook::Lsm("inode_set_acl"), "file", Full, "changes of ACLs are seen as attributes only";
    inode_remove_acl: Hook::Lsm("inode_remove_acl"), "file", Full, "changes of ACLs are seen as attributes only";
    file_receive: Hook::Lsm("file_receive"), "file", Full, "descriptors from other processes are not judged";
    file_ioctl: Hook::Lsm("file_ioctl"), "file", Full, "inode flags set by ioctl are not seen";
    file_ioctl_compat: Hook::Lsm("file_ioctl_compat"), "file", Full, "inode flags set by 32-bit ioctl are seen by the other hook";
    file_mprotect: Hook::Lsm("file_mprotect"), "file", Full, "mappings made executable later are not seen";
    mmap_file: Hook::Lsm("mmap_file"), "file", Full, "executable mappings are not seen";
    socket_connect: Hook::Lsm("socket_connect"), "network", Full, "connections are not seen";
    socket_sendmsg: Hook::Lsm("socket_sendmsg"), "network", Full, "messages to unconnected peers are not seen";
    socket_bind: Hook::Lsm("socket_bind"), "network", Full, "bound addresses are not seen";
    socket_listen: Hook::Lsm("socket_listen"), "network", Full, "listeners are not seen";
    sock_graft: Hook::Lsm("sock_graft"), "network", Full, "accepted connections are not seen";
    unix_stream_connect: Hook::Lsm("unix_stream_connect"), "network", Full, "UNIX connections are not seen";
    unix_may_send: Hook::Lsm("unix_may_send"), "network", Full, "UNIX datagrams are not seen";
    socket_create: Hook::Lsm("socket_create"), "network", Full, "raw sockets and unknown families are not judged";
    flow_tcp: Hook::TpBtf("inet_sock_set_state"), "network", Always, "the end of TCP flows is not seen";
    flow_release: Hook::Sock, "network", Always, "the end of other flows is not seen";
    bytes_ingress: Hook::Skb, "network", Always, "bytes received outside TCP are not counted";
    bytes_egress: Hook::Skb, "network", Always, "bytes sent outside TCP are not counted";
    name_connect4: Hook::SockAddr, "network", Always, "model providers are not told by the names of IPv4 peers";
    name_connect6: Hook::SockAddr, "network", Always, "model providers are not told by the names of IPv6 peers";
    name_ingress: Hook::Skb, "network", Always, "names of peers are not learnt from DNS answers";
    name_egress: Hook::Skb, "network", Always, "names of peers are not learnt from TLS";
    partial_connect4: Hook::SockAddr, "network", Partial, "IPv4 connections are not seen";
    partial_connect6: Hook::SockAddr, "network", Partial, "IPv6 connections are not seen";
    partial_sendmsg4: Hook::SockAddr, "network", Partial, "IPv4 messages without connect are not seen";
    partial_sendmsg6: Hook::SockAddr, "network", Partial, "IPv6 messages without connect are not seen";
    partial_bind4: Hook::SockAddr, "network", Partial, "bound IPv4 addresses are not seen";
    partial_bind6: Hook::SockAddr, "network", Partial, "bound IPv6 addresses are not seen";
    task_fix_setuid: Hook::Lsm("task_fix_setuid"), "privilege", Full, "changes of user are not seen";
    task_fix_setgid: Hook::Lsm("task_fix_setgid"), "privilege", Full, "changes of group are not seen";
    capset: Hook::Lsm("capset"), "privilege", Full, "capset is not seen";
    ptrace_access_check: Hook::Lsm("ptrace_access_check"), "privilege", Full, "tracing is not seen";
    ptrace_traceme: Hook::Lsm("ptrace_traceme"), "privilege", Full, "PTRACE_TRACEME is not seen";
    task_kill: Hook::Lsm("task_kill"), "privilege", Full, "signals are not seen";
    sb_mount: Hook::Lsm("sb_mount"), "privilege", Full, "mounts are not seen";
    move_mount: Hook::Lsm("move_mount"), "privilege", Full, "moved mounts are not seen";
    sb_umount: Hook::Lsm("sb_umount"), "privilege", Full, "unmounts are not seen";
    sb_pivotroot: Hook::Lsm("sb_pivotroot"), "privilege", Full, "pivot_root is not seen";
    path_chroot: Hook::Lsm("path_chroot"), "privilege", Full, "chroot is not seen";
    kernel_load_data: Hook::Lsm("kernel_load_data"), "privilege", Full, "init_module is not seen";
    kernel_read_file: Hook::Lsm("kernel_read_file"), "privilege", Full, "finit_module is not seen";
    kernel_module_request: Hook::Lsm("kernel_module_request"), "privilege", Full, "module requests are not seen";
    bpf_syscall: Hook::Lsm("bpf"), "privilege", Full, "the bpf system call is not seen";
    bprm_creds: Hook::Lsm("bprm_creds_from_file"), "privilege", Full, "what set-user-ID images give is not judged";
    userns_create: Hook::Lsm("userns_create"), "privilege", Full, "new user namespaces are not judged";
    capable: Hook::Lsm("capable"), "privilege", Full, "unshare, setns and the new mount API are not judged";
    task_setnice: Hook::Lsm("task_setnice"), "privilege", Full, "the daemon's priority is not protected";
    task_setioprio: Hook::Lsm("task_setioprio"), "privilege", Full, "the daemon's I/O priority is not protected";
    task_setscheduler: Hook::Lsm("task_setscheduler"), "privilege", Full, "the daemon's scheduling is not protected";
    task_setrlimit: Hook::Lsm("task_setrlimit"), "privilege", Full, "the daemon's limits are not protected";
    task_movememory: Hook::Lsm("task_movememory"), "privilege", Full, "the daemon's memory can be moved";
    sigio: Hook::Lsm("file_send_sigiotask"), "privilege", Full, "the daemon is not protected from signals by descriptors";
    exit_unshare: Hook::Syscall("unshare"), "privilege", Full, "unshare is not seen";
    exit_setns: Hook::Syscall("setns"), "privilege", Full, "setns is not seen";
    exit_unshare32: Hook::Syscall32("unshare"), "privilege", Full, "unshare by 32-bit programs is not seen";
    exit_setns32: Hook::Syscall32("setns"), "privilege", Full, "setns by 32-bit programs is not seen";
    partial_exit: Hook::TpBtf("sys_exit"), "file", Partial, "";
    socket_setsockopt: Hook::Lsm("socket_setsockopt"), "network", Full, "routes of the sender's choice are refused when the packet leaves only";
    destination_egress: Hook::Skb, "network", Always, "packets that leave for another address than the one judged are not seen";
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

/// What a program cost the kernel's verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Instructions the verifier walked through; a million are too many (kernel/bpf/verifier.c `complexity limit`).
    pub verified: u32,
    /// Bytes of the program after the kernel's rewriting.
    pub translated: u32,
}

impl Cost {
    /// What a loaded program cost, where the kernel says (since 5.16).
    pub(super) fn of(info: &ProgramInfo) -> Option<Self> {
        Some(Self { verified: info.verified_instruction_count()?, translated: info.size_translated()? })
    }
}

/// What a program of the object cost.
pub(super) fn cost(ebpf: &mut Ebpf, program: &Program) -> Option<Cost> {
    Cost::of(&ebpf.program(program.name)?.info().ok()?)
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
        Hook::Lsm(hook) | Hook::LsmDentry(hook, _) => {
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
        Hook::Syscall(name) | Hook::Syscall32(name) => {
            let entry = if let Hook::Syscall(_) = program.hook { entry_of(name) } else { entry32_of(name) };
            let p: &mut FExit = found.try_into()?;
            p.load(&entry, btf)?;
            let id = p.attach()?;
            p.take_link(id)?.into()
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
        Hook::Lsm(hook) | Hook::LsmDentry(hook, _) => btf.has_function(&format!("bpf_lsm_{hook}")),
        Hook::TpBtf(name) => btf.has_tracepoint(name),
        Hook::Syscall(name) => btf.has_function(&entry_of(name)),
        Hook::Syscall32(name) => btf.has_function(&entry32_of(name)),
        Hook::RawTp(_) | Hook::SockAddr | Hook::Sock | Hook::Skb | Hook::TaskIter => true,
    }
}

/// The kernel's function for a system call (include/linux/syscalls.h `__SYSCALL_DEFINEx`, arch/*/include/asm/syscall_wrapper.h).
fn entry_of(call: &str) -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("__{arch}_sys_{call}")
}

/// The kernel's function for the 32-bit entry of a system call; only kernels that run 32-bit programs have it.
fn entry32_of(call: &str) -> String {
    format!("__ia32_sys_{call}")
}

/// A link as a file descriptor. Kernels before 5.7 have none; nothing here runs on those.
fn as_fd(link: Result<FdLink, aya::programs::links::LinkError>) -> Result<FdLink, ProgramError> {
    link.map_err(|e| ProgramError::IOError(std::io::Error::other(e)))
}

/// Whether the program is the one written for this kernel's arguments of its hook.
pub(super) fn fits(program: &Program, btf: &btf::Btf) -> bool {
    match program.hook {
        Hook::LsmDentry(hook, place) => {
            btf.parameter_of(&format!("bpf_lsm_{hook}"), "dentry").unwrap_or(0) == place
        }
        _ => true,
    }
}
