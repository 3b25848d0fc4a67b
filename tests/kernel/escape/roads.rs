//! The roads, by group.

use super::Row;

/// Tables of roads: name, acts, kinds of event that may tell the refusal, what stands in the event, and for an open road why.
macro_rules! roads {
    ($($(#[$doc:meta])* $group:ident { $($name:literal $act:literal [$($kind:literal)+] $told:literal $(open $why:literal)?;)+ })+) => {
        $(
            $(#[$doc])*
            pub(crate) const $group: &[Row] = &[$(Row {
                name: $name,
                act: $act,
                kinds: &[$($kind),+],
                told: $told,
                open: roads!(@why $($why)?),
            }),+];
        )+
    };
    (@why $why:literal) => { Some($why) };
    (@why) => { None };
}

roads! {
    /// Ways to name a file.
    ALIASES {
        "absolute" "open @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "for_writing" "open @S/f write" ["file.open"] r#""file":{"path":"@S/f""#;
        "truncating" "open @S/f trunc" ["file.open"] r#""file":{"path":"@S/f""#;
        "relative_to_fd" "openat @S f read" ["file.open"] r#""path":"@S""#;
        "openat2" "openat2 @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "openat2_beneath" "openat2-beneath @S f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "relative_to_cwd" "chdir-open @S f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "symlink" "open @O/link read" ["file.open"] r#""file":{"path":"@S/f""#;
        "symlink_chain" "open @O/chain read" ["file.open"] r#""file":{"path":"@S/f""#;
        "symlinked_directory" "open @O/dirlink/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "dot_dot" "open @O/../../secret/dot_dot/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "proc_self_root" "open /proc/self/root@S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "proc_thread_self_root" "open /proc/thread-self/root@S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "proc_one_root" "open /proc/1/root@S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "doubled_slashes" "open /@S//f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "listing" "open @S read" ["file.open"] r#""file":{"path":"@S""#;
        "io_uring" "uring-open @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "io_uring_as_before" "uring-open-as @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "io_uring_by_a_worker" "uring-open-by-worker @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "io_uring_by_task_work" "uring-open-by-task-work @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "io_uring_writes_by_task_work" "uring-open-by-task-work @S/f write" ["file.open"] r#""file":{"path":"@S/f""#;
        "io_uring_truncates_by_task_work" "uring-open-by-task-work @S/f trunc" ["file.open"] r#""file":{"path":"@S/f""#;
        "io_uring_creates_by_task_work" "uring-open-by-task-work @S/new create" ["file.create"] r#""path":"@S/new""#;
        "io_uring_of_another_user" "fork setuid 65534 uring-open-by-task-work @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "in_a_thread" "thread open @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "in_a_child" "fork open @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "in_a_session_of_its_own" "fork setsid open @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "in_a_daemon" "daemonise open @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "renamed_process" "prctl-name sh open @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "after_exec_of_itself" "exec-self open @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
    }
    /// Second names and moved places.
    LINKS {
        "hard_link_out" "link @S/f @O/l" ["file.link"] r#""path":"@S/f""#;
        "hard_link_in" "link @O/f @S/l" ["file.link"] r#""new_path":"@S/l""#;
        "linkat_within" "linkat @S f l2" ["file.link"] r#""path":"@S/f""#;
        "rename_out" "rename @S/f @O/x" ["file.rename"] r#""path":"@S/f""#;
        "rename_over" "rename @O/f @S/f" ["file.rename"] r#""new_path":"@S/f""#;
        "rename_in" "rename @O/f @S/new" ["file.rename"] r#""new_path":"@S/new""#;
        "renameat2" "renameat2 @S f g" ["file.rename"] r#""path":"@S/f""#;
        "rename_directory" "rename @S @O/dir" ["file.rename"] r#""path":"@S""#;
        "rename_the_directory_above" "rename @O/above @O/moved" ["file.rename"] r#""new_path":"@O/moved""#;
        "rename_by_proc_fd" "rename-proc-fd @S f g" ["file.rename" "file.open"] r#""path":"@S""#;
        "symlink_in" "symlink /etc/hosts @S/l" ["file.create"] r#""path":"@S/l""#;
    }
    /// Changes that open nothing, or make and remove.
    CHANGES {
        "truncate" "truncate @S/f 1" ["file.truncate"] r#""file":{"path":"@S/f""#;
        "chmod" "chmod @S/f 0o777" ["file.setattr"] r#""file":{"path":"@S/f""#;
        "fchmodat" "fchmodat @S f 0o777" ["file.setattr"] r#""file":{"path":"@S/f""#;
        "chown" "chown @S/f 1 1" ["file.setattr"] r#""file":{"path":"@S/f""#;
        "fchownat" "fchownat @S f 1 1" ["file.setattr"] r#""file":{"path":"@S/f""#;
        "utimes" "utimes @S/f" ["file.setattr"] r#""file":{"path":"@S/f""#;
        "setxattr" "setxattr @S/f trusted.x" ["file.setattr"] r#""file":{"path":"@S/f""#;
        "getxattr" "getxattr @S/f user.x" ["file.open"] r#""file":{"path":"@S/f""#;
        "lgetxattr" "lgetxattr @S/f trusted.x" ["file.open"] r#""file":{"path":"@S/f""#;
        "listxattr" "listxattr @S/f" ["file.open"] r#""file":{"path":"@S/f""#;
        "getxattr_of_another_user" "fork setuid 65534 getxattr @S/f user.x" ["file.open"] r#""file":{"path":"@S/f""#;
        "core_dump" "dump-core-in @S" ["file.create"] r#""path":"@S/core"#;
        "inode_flags" "ioctl @R/f read 0x40086602" ["file.setattr"] r#""file":{"path":"@R/f""#;
        "inode_flags_by_the_32_bit_entry" "ioctl32 @R/f read 0x40046602" ["file.setattr"] r#""file":{"path":"@R/f""#;
        "inode_version_by_the_32_bit_entry" "ioctl32 @R/f read 0x40047602" ["file.setattr"] r#""file":{"path":"@R/f""#;
        "snapshot_of_a_directory" "ioctl @O read 0x50009417" ["file.setattr"] r#""file":{"path":"@O""#;
        "snapshot_by_the_32_bit_entry" "ioctl32 @O read 0x50009417" ["file.setattr"] r#""file":{"path":"@O""#;
        "freeze_the_file_system" "ioctl @O read 0xc0045877" ["file.setattr"] r#""file":{"path":"@O""#;
        "ftruncate" "ftruncate @S/f 1" ["file.open"] r#""file":{"path":"@S/f""#;
        "fchmod" "fchmod @S/f 0o777" ["file.open"] r#""file":{"path":"@S/f""#;
        "create" "creat @S/new" ["file.create"] r#""path":"@S/new""#;
        "mkdir" "mkdir @S/new" ["file.create"] r#""path":"@S/new""#;
        "mknod" "mknod @S/new" ["file.create"] r#""path":"@S/new""#;
        "unlink" "unlink @S/f" ["file.delete"] r#""file":{"path":"@S/f""#;
        "unlinkat" "unlinkat @S f" ["file.delete"] r#""file":{"path":"@S/f""#;
        "unlink_in_cwd" "chdir-unlink @S f" ["file.delete"] r#""file":{"path":"@S/f""#;
        "rmdir" "rmdir @S/empty" ["file.delete"] r#""path":"@S/empty""#;
        "unlink_by_symlinked_directory" "unlink @O/dirlink/f" ["file.delete"] r#""file":{"path":"@S/f""#;
    }
    /// Mounts and namespaces that the scope permits change no place.
    MOUNTS {
        "bind_mount" "unshare mount mount-bind @S @O/m open @O/m/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "bind_mount_of_the_file" "unshare mount mount-bind @S/f @O/f open @O/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "bind_mount_of_the_directory_above" "unshare mount mount-bind @S/.. @O/m open @O/m/bind_mount_of_the_directory_above/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "mount_namespace" "unshare mount open @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "user_namespace" "unshare user open @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "pid_namespace" "pidns open @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "network_namespace" "unshare net open @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "chroot" "fork chroot @S open /f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "delete_by_bind_mount" "unshare mount mount-bind @S @O/m unlink @O/m/f" ["file.delete"] r#""file":{"path":"@S/f""#;
        "write_by_bind_mount" "unshare mount mount-bind @S @O/m truncate @O/m/f 1" ["file.truncate"] r#""file":{"path":"@S/f""#;
    }
    /// Handles, descriptors and memory.
    HANDLES {
        "memory_map_executable" "mmap-exec @S/prog" ["file.open"] r#""path":"@S/prog""#;
        "read_whole" "read @S/f 3" ["file.open"] r#""file":{"path":"@S/f""#;
        "write_part" "write @S/f 3" ["file.open"] r#""file":{"path":"@S/f""#;
        "deep_place" "deep-open @S 60" ["file.open" "file.create"] r#"@S"#;
        "another_user" "fork setuid 65534 open @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
        "without_capabilities" "cap-drop 1 open @S/f read" ["file.open"] r#""file":{"path":"@S/f""#;
    }
    /// Ways to run a program.
    PROGRAMS {
        "run" "run @S/prog noop" ["process.exec"] r#""path":"@S/prog""#;
        "execveat" "fork execveat @S/prog noop" ["process.exec"] r#""path":"@S/prog""#;
        "vfork" "vfork-exec @S/prog noop" ["process.exec"] r#""path":"@S/prog""#;
        "posix_spawn" "spawn @S/prog noop" ["process.exec"] r#""path":"@S/prog""#;
        "exec_in_place" "exec @S/prog noop" ["process.exec"] r#""path":"@S/prog""#;
        "in_a_thread_run" "thread run @S/prog noop" ["process.exec"] r#""path":"@S/prog""#;
        "symlinked_program" "run @O/dirlink/prog noop" ["process.exec"] r#""path":"@S/prog""#;
        "as_the_interpreter_of_a_script" "run @O/script" ["process.exec"] r#""path":"@S/prog""#;
        "a_script" "run @S/script" ["process.exec"] r#""path":"@S/script""#;
        "copied_to_memory" "memfd-exec @S/prog noop" ["file.open"] r#""path":"@S/prog""#;
        "by_the_loader" "run /lib64/ld-linux-x86-64.so.2 @S/prog noop" ["file.open"] r#""path":"@S/prog""#;
        "by_a_shell" "run /bin/busybox timeout 20 @S/prog noop" ["process.exec"] r#""path":"@S/prog""#;
        "program_by_proc_root" "run /proc/self/root@S/prog noop" ["process.exec"] r#""path":"@S/prog""#;
        "after_setsid" "fork setsid run @S/prog noop" ["process.exec"] r#""path":"@S/prog""#;
    }
    /// Ways to a peer and to an address of one's own.
    SOCKETS {
        "tcp" "tcp-connect 127.0.0.1:4001" ["network.connect" "network.send"] r#"4001"#;
        "tcp6" "tcp-connect [::1]:4001" ["network.connect" "network.send"] r#"::1"#;
        "mapped" "tcp-connect [::ffff:127.0.0.1]:4001" ["network.connect" "network.send"] r#"4001"#;
        "fast_open" "tcp-fastopen 127.0.0.1:4001 4" ["network.connect" "network.send"] r#"4001"#;
        "udp_connected" "udp-connected 127.0.0.1:4001 4" ["network.connect" "network.send"] r#"4001"#;
        "sendto" "udp-sendto 127.0.0.1:4001 4" ["network.connect" "network.send"] r#"4001"#;
        "sendmsg" "udp-sendmsg 127.0.0.1:4001 4" ["network.connect" "network.send"] r#"4001"#;
        "sendmmsg" "udp-sendmmsg 127.0.0.1:4001 4" ["network.connect" "network.send"] r#"4001"#;
        "sendto6" "udp-sendto [::1]:4001 4" ["network.connect" "network.send"] r#"::1"#;
        "io_uring_connect" "uring-connect 127.0.0.1:4001" ["network.connect" "network.send"] r#"4001"#;
        "thread_connect" "thread tcp-connect 127.0.0.1:4001" ["network.connect" "network.send"] r#"4001"#;
        "child_connect" "fork tcp-connect 127.0.0.1:4001" ["network.connect" "network.send"] r#"4001"#;
        "bind" "tcp-bind 127.0.0.1:4001" ["network.bind"] r#"4001"#;
        // AF_ALG: a family that no rule is about.
        "unknown_family" "socket 38 5 0" ["privilege.capability"] r#"@PID"#;
        "bind6" "tcp-bind [::1]:4001" ["network.bind"] r#"::1"#;
    }
    /// Powers over other processes and over the host.
    PROCESSES {
        "signal" "kill @BYSTANDER 18" ["privilege.signal"] r#"@PID"#;
        "trace" "ptrace-pid @BYSTANDER" ["privilege.ptrace"] r#"@PID"#;
        "mount_tmpfs" "unshare mount mount-tmpfs @O/m noop" ["privilege.mount" "privilege.namespace"] r#"@PID"#;
        "mount_bind" "mount-bind @O @O/m umount @O/m noop" ["privilege.mount"] r#"@PID"#;
        "chroot_power" "fork chroot @O noop" ["privilege.mount"] r#""kind":"privilege.mount""#;
        "unshare_mount" "unshare mount noop" ["privilege.namespace"] r#"@PID"#;
        "unshare_net" "unshare net noop" ["privilege.namespace"] r#"@PID"#;
        "unshare_pid" "unshare pid noop" ["privilege.namespace"] r#"@PID"#;
        "unshare_uts" "unshare uts noop" ["privilege.namespace"] r#"@PID"#;
        "unshare_ipc" "unshare ipc noop" ["privilege.namespace"] r#"@PID"#;
        "unshare_user" "unshare user noop" ["privilege.namespace"] r#"@PID"#;
        "clone_pid_namespace" "pidns noop" ["privilege.namespace"] r#"@PID"#;
        "setuid" "fork setuid 65534 noop" ["privilege.setuid"] r#""setuid""#;
        "raw_socket" "socket 2 3 1" ["privilege.capability"] r#"@PID"#;
        "packet_socket" "socket 17 3 0" ["privilege.capability"] r#"@PID"#;
        "one_capability_of_two" "cap-drop 22,25 cap-raise 22,25 noop" ["privilege.capability"] r#"@PID"#;
        "unshare_by_the_32_bit_entry" "unshare32 0x04000000 noop" ["privilege.namespace"] r#"@PID"#;
        "setgid" "fork setgid 65534 noop" ["privilege.setuid"] r#""setgid""#;
        "setresuid" "fork setresuid 65534 65534 65534 noop" ["privilege.setuid"] r#""setuid""#;
    }
    /// Devices and terminals, which no default permits.
    DEVICES {
        "make_a_disk" "mknod-device @O/n b 7 0" ["file.create"] r#""path":"@O/n""#;
        "make_the_kernel_log" "mknod-device @O/n c 1 11" ["file.create"] r#""path":"@O/n""#;
        "make_memory" "mknod-device @O/n c 1 1" ["file.create"] r#""path":"@O/n""#;
        "make_a_terminal" "mknod-device @O/n c 136 0" ["file.create"] r#""path":"@O/n""#;
        "open_a_node_that_is_there" "open @O/node read" ["file.open"] r#""path":"@O/node""#;
        "open_it_for_writing" "open @O/node write" ["file.open"] r#""path":"@O/node""#;
        "open_it_by_io_uring" "uring-open-by-task-work @O/node write" ["file.open"] r#""path":"@O/node""#;
        "open_it_as_another_user" "fork setuid 65534 open @O/node write" ["file.open"] r#""path":"@O/node""#;
        "open_it_by_a_bind_mount" "unshare mount mount-bind @O @O/m open @O/m/node read" ["file.open"] r#""path":"@O/node""#;
        "read_the_kernels_memory" "open /proc/kcore read" ["file.open"] r#""path":"/proc/kcore""#;
        "read_the_kernels_log" "open /proc/kmsg read" ["file.open"] r#""path":"/proc/kmsg""#;
        "make_the_kernel_act" "open /proc/sysrq-trigger write" ["file.open"] r#""path":"/proc/sysrq-trigger""#;
        "put_input_into_a_terminal" "tiocsti" ["file.setattr"] r#"@PID"#;
        "open_a_terminal_of_another_session" "open-terminal-of-another-session" ["file.open"] r#"@PID"#;
    }
    /// Roads that stay open, with why.
    OPEN {
        "path_handle" "open @S/f path" ["file.open"] r#""# open "an O_PATH descriptor gives no contents; opening it again is judged";
        "hard_link_made_before" "open @O/prelink read" ["file.open"] r#""# open "a rule names a place, and this is another one; agents cannot make such links";
    }
}
