//! Every kernel structure field that the programs read, in one table.
//!
//! rustc emits no CO-RE relocations. The daemon looks each field up in the running kernel's BTF and patches the offset
//! into the program's constant of the same name before loading. A field that this kernel does not have gets
//! [`ABSENT`]; the table says what is lost then.

/// Offset of a field that the running kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name of the constant in the eBPF object.
    pub symbol: &'static str,
    /// Structure.
    pub owner: &'static str,
    /// Member paths to try in order; kernels rename.
    pub paths: &'static [&'static str],
    /// What is lost without it; empty when the programs cannot do without.
    pub without: &'static str,
}

/// Calls `$cb!` with the whole table: `SYMBOL: "struct" ["path", …] "what is lost";`.
#[macro_export]
macro_rules! for_each_field {
    ($cb:ident) => {
        $cb! {
            O_TASK_TGID: "task_struct" ["tgid"] "";
            O_TASK_PID: "task_struct" ["pid"] "";
            O_TASK_LEADER: "task_struct" ["group_leader"] "";
            O_TASK_PARENT: "task_struct" ["real_parent"] "";
            O_TASK_START: "task_struct" ["start_boottime", "real_start_time"] "";
            O_TASK_CRED: "task_struct" ["cred"] "";
            O_TASK_MM: "task_struct" ["mm"] "";
            O_TASK_STORAGE: "task_struct" ["bpf_storage"] "acts of processes without an agent take longer";
            O_TASK_FS: "task_struct" ["fs"] "";
            O_TASK_FILES: "task_struct" ["files"] "";
            O_TASK_FLAGS: "task_struct" ["flags"] "";
            O_TASK_EXIT_CODE: "task_struct" ["exit_code"] "";
            O_TASK_SIGNAL: "task_struct" ["signal"] "";
            O_TASK_NSPROXY: "task_struct" ["nsproxy"] "new namespaces at fork are not told";
            O_TASK_REAL_CRED: "task_struct" ["real_cred"] "";
            O_TASK_STATUS: "task_struct" ["thread_info.status"] "32-bit system calls are not told apart";
            O_SIGNAL_LIVE: "signal_struct" ["live.counter"] "";
            O_CRED_UID: "cred" ["uid.val"] "";
            O_CRED_GID: "cred" ["gid.val"] "";
            O_CRED_EUID: "cred" ["euid.val"] "";
            O_CRED_EGID: "cred" ["egid.val"] "";
            O_CRED_PERMITTED: "cred" ["cap_permitted"] "";
            O_CRED_EFFECTIVE: "cred" ["cap_effective"] "";
            O_CRED_USERNS: "cred" ["user_ns"] "new user namespaces at fork are not told";
            O_MM_ARG_START: "mm_struct" ["arg_start"] "command lines are not told";
            O_MM_ARG_END: "mm_struct" ["arg_end"] "command lines are not told";
            O_FS_ROOT: "fs_struct" ["root.dentry"] "";
            O_FS_PWD: "fs_struct" ["pwd.dentry"] "";
            O_FILES_FDT: "files_struct" ["fdt"] "";
            O_FDT_FD: "fdtable" ["fd"] "";
            O_FDT_MAX: "fdtable" ["max_fds"] "";
            O_FILE_DENTRY: "file" ["f_path.dentry"] "";
            O_FILE_INODE: "file" ["f_inode"] "";
            O_FILE_FLAGS: "file" ["f_flags"] "";
            O_FILE_MODE: "file" ["f_mode"] "";
            O_FILE_PRIVATE: "file" ["private_data"] "";
            O_PATH_DENTRY: "path" ["dentry"] "";
            O_DENTRY_PARENT: "dentry" ["d_parent"] "";
            O_DENTRY_NAME: "dentry" ["d_name.name", "__d_name.name"] "";
            O_DENTRY_LEN: "dentry" ["d_name.len", "__d_name.len"] "";
            O_DENTRY_INODE: "dentry" ["d_inode"] "";
            O_DENTRY_SB: "dentry" ["d_sb"] "";
            O_DENTRY_PPREV: "dentry" ["d_hash.pprev"] "deleted files are not marked";
            O_SB_DEV: "super_block" ["s_dev"] "";
            O_SB_MAGIC: "super_block" ["s_magic"] "";
            O_SB_ROOT: "super_block" ["s_root"] "";
            O_SB_FLAGS: "super_block" ["s_flags"] "";
            O_VMA_FILE: "vm_area_struct" ["vm_file"] "";
            O_VMA_FLAGS: "vm_area_struct" ["vm_flags"] "";
            O_BPRM_CRED: "linux_binprm" ["cred"] "";
            O_INODE_INO: "inode" ["i_ino"] "";
            O_INODE_MODE: "inode" ["i_mode"] "";
            O_INODE_NLINK: "inode" ["i_nlink"] "";
            O_INODE_CTIME_SEC: "inode" ["i_ctime_sec", "__i_ctime.tv_sec", "i_ctime.tv_sec"] "sha256 conditions never hold";
            O_INODE_CTIME_NSEC: "inode" ["i_ctime_nsec", "__i_ctime.tv_nsec", "i_ctime.tv_nsec"] "sha256 conditions never hold";
            O_BPRM_FILE: "linux_binprm" ["file"] "";
            O_BPRM_FILENAME: "linux_binprm" ["filename"] "";
            O_BPRM_INTERP: "linux_binprm" ["interp"] "";
            O_BPRM_ARGC: "linux_binprm" ["argc"] "";
            O_BPRM_BUF: "linux_binprm" ["buf"] "";
            O_IATTR_VALID: "iattr" ["ia_valid"] "";
            O_IATTR_MODE: "iattr" ["ia_mode"] "";
            O_IATTR_UID: "iattr" ["ia_uid.val"] "";
            O_IATTR_GID: "iattr" ["ia_gid.val"] "";
            O_IATTR_SIZE: "iattr" ["ia_size"] "";
            O_SOCKET_SK: "socket" ["sk"] "";
            O_SOCKET_TYPE: "socket" ["type"] "";
            O_SK_FAMILY: "sock_common" ["skc_family"] "";
            O_SK_RPORT: "sock_common" ["skc_dport"] "";
            O_SK_LPORT: "sock_common" ["skc_num"] "";
            O_SK_RADDR4: "sock_common" ["skc_daddr"] "";
            O_SK_LADDR4: "sock_common" ["skc_rcv_saddr"] "";
            O_SK_RADDR6: "sock_common" ["skc_v6_daddr"] "IPv6 addresses of accepted connections are not told";
            O_SK_LADDR6: "sock_common" ["skc_v6_rcv_saddr"] "IPv6 addresses of accepted connections are not told";
            O_SK_PROTOCOL: "sock" ["sk_protocol"] "";
            O_SK_TYPE: "sock" ["sk_type"] "";
            O_SK_FLAGS: "sock_common" ["skc_flags"] "";
            O_TCP_SENT: "tcp_sock" ["bytes_sent"] "TCP byte counts are not told";
            O_TCP_AGAIN: "tcp_sock" ["bytes_retrans"] "TCP byte counts include what was sent again";
            O_TCP_RECEIVED: "tcp_sock" ["bytes_received"] "TCP byte counts are not told";
            O_UNIX_ADDR: "unix_sock" ["addr"] "names of UNIX sockets are not told";
            O_UNIX_DENTRY: "unix_sock" ["path.dentry"] "paths of UNIX sockets are not told";
            O_UNIX_ADDR_LEN: "unix_address" ["len"] "names of UNIX sockets are not told";
            O_UNIX_ADDR_NAME: "unix_address" ["name"] "names of UNIX sockets are not told";
            O_MSG_NAME: "msghdr" ["msg_name"] "";
            O_MSG_NAMELEN: "msghdr" ["msg_namelen"] "";
            O_MSG_FLAGS: "msghdr" ["msg_flags"] "";
            O_MSG_CONTROL: "msghdr" ["msg_control"] "";
            O_MSG_CONTROLLEN: "msghdr" ["msg_controllen"] "";
            O_NS_UTS: "nsproxy" ["uts_ns"] "new namespaces at fork are not told";
            O_NS_IPC: "nsproxy" ["ipc_ns"] "new namespaces at fork are not told";
            O_NS_MNT: "nsproxy" ["mnt_ns"] "new namespaces at fork are not told";
            O_NS_PID: "nsproxy" ["pid_ns_for_children"] "new namespaces at fork are not told";
            O_NS_NET: "nsproxy" ["net_ns"] "new namespaces at fork are not told";
            O_NS_TIME: "nsproxy" ["time_ns_for_children"] "new time namespaces at fork are not told";
            O_NS_CGROUP: "nsproxy" ["cgroup_ns"] "new cgroup namespaces at fork are not told";
            O_CGROUP_ID: "cgroup" ["kn"] "cgroup rules do not apply to cgroups made later";
            O_KN_ID: "kernfs_node" ["id"] "cgroup rules do not apply to cgroups made later";
            O_KN_NAME: "kernfs_node" ["name"] "unit and container rules do not apply to cgroups made later";
            O_CGROUP_PARENT: "cgroup" ["self.parent"] "cgroup rules do not apply to nested cgroups made later";
            O_CGROUP_ROOT: "cgroup" ["root"] "cgroup rules do not apply to cgroups made later";
            O_CGROOT_HID: "cgroup_root" ["hierarchy_id"] "cgroup rules do not apply to cgroups made later";
            O_REGS_ORIG_AX: "pt_regs" ["orig_ax"] "";
            O_REGS_DI: "pt_regs" ["di"] "";
            O_REGS_SI: "pt_regs" ["si"] "";
            O_REGS_DX: "pt_regs" ["dx"] "";
            O_REGS_R10: "pt_regs" ["r10"] "";
            O_REGS_R8: "pt_regs" ["r8"] "";
            O_REGS_R9: "pt_regs" ["r9"] "";
            O_REGS_BX: "pt_regs" ["bx"] "";
            O_REGS_CX: "pt_regs" ["cx"] "";
            O_TASK_NAMEIDATA: "task_struct" ["nameidata"] "acts in overlay mounts are judged in their layers too";
            O_ND_DENTRY: "nameidata" ["path.dentry"] "acts in overlay mounts are judged in their layers too";
            O_SB_INFO: "super_block" ["s_fs_info"] "acts in overlay mounts are judged in their layers too";
            O_INODE_OWNER: "inode" ["i_rwsem.owner.counter"] "what is made in overlay mounts is judged in their layers too";
            O_INODE_SB: "inode" ["i_sb"] "";
            O_INODE_RDEV: "inode" ["i_rdev"] "";
            O_DENTRY_FSDATA: "dentry" ["d_fsdata"] "terminals of other sessions are not distinguished";
            O_SIGNAL_PIDS: "signal_struct" ["pids"] "terminals of other sessions are not distinguished";
            O_TTY_SESSION: "tty_struct" ["ctrl.session", "session"] "terminals of other sessions are not distinguished";
        }
    };
}

macro_rules! table {
    ($($symbol:ident: $owner:literal [$($path:literal),+] $without:literal;)*) => {
        /// The table.
        pub const FIELDS: &[Field] = &[
            $(Field { symbol: stringify!($symbol), owner: $owner, paths: &[$($path),+], without: $without },)*
        ];
    };
}
for_each_field!(table);
