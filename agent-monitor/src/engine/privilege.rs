//! Privilege family: which right was used, in the words of the contract.

use agent_monitor_ebpf::event::priv_op;

use super::{Engine, Host, names};
use crate::attribute::TaskKey;
use crate::decode::PrivFacts;
use crate::decode::file::Place;
use crate::decode::piece::Name;
use crate::model::{File, Privilege, Target, text};

impl Engine {
    pub(super) fn privilege(&mut self, facts: &PrivFacts, host: &mut dyn Host) -> (Privilege, Option<File>) {
        let [first, second, third, fourth] = facts.args;
        let a = match &facts.place {
            Some(place) => Some(text::escape(&self.host_path(place, host).bytes)),
            None => facts.a.as_ref().map(|name| self.named(name, host)),
        };
        let b = facts.b.as_ref().map(|name| self.named(name, host));
        let target = facts.target.map(|key| self.target(key, facts.target_agent, host));
        let id = |value: u64| u32::try_from(value).ok();
        let operation = |name: &str| Some(name.to_owned());
        let base = Privilege { target, ..Privilege::default() };
        let privilege = match facts.op {
            priv_op::UID => {
                Privilege { old_uid: id(second), new_uid: id(fourth), operation: operation("setuid"), ..base }
            }
            priv_op::GID => {
                Privilege { old_gid: id(second), new_gid: id(fourth), operation: operation("setgid"), ..base }
            }
            priv_op::SUID_EXEC => Privilege {
                old_uid: id(first),
                new_uid: id(second),
                capabilities: names::capabilities(third),
                operation: operation("suid_exec"),
                ..base
            },
            priv_op::CAPSET => {
                let gained = (third & !first) | (fourth & !second);
                Privilege {
                    capabilities: names::capabilities(gained),
                    operation: operation("capset"),
                    ..base
                }
            }
            priv_op::PTRACE_ATTACH => Privilege { operation: Some(names::ptrace(first)), ..base },
            priv_op::PTRACE_TRACEME => Privilege { operation: operation("traceme"), ..base },
            priv_op::SIGNAL => Privilege { signal: Some(names::signal(first)), ..base },
            priv_op::MOUNT => {
                let operation = operation(names::mount_operation(first));
                Privilege { operation, mount_point: a, fs_type: b, ..base }
            }
            priv_op::KERN_MOUNT => {
                Privilege { operation: operation("create"), object: a, fs_type: b, ..base }
            }
            priv_op::MOVE_MOUNT => {
                Privilege { operation: operation("move"), mount_point: a, object: b, ..base }
            }
            priv_op::UMOUNT => Privilege { operation: operation("umount"), mount_point: a, ..base },
            priv_op::PIVOT_ROOT => Privilege { operation: operation("pivot_root"), mount_point: a, ..base },
            priv_op::CHROOT => Privilege { operation: operation("chroot"), mount_point: a, ..base },
            priv_op::UNSHARE => {
                Privilege { operation: operation("unshare"), namespaces: names::clone_flags(first), ..base }
            }
            priv_op::SETNS => {
                Privilege { operation: operation("setns"), namespaces: names::clone_flags(second), ..base }
            }
            priv_op::CLONE_NS => {
                let bits = u32::try_from(first).unwrap_or(0);
                Privilege { operation: operation("clone"), namespaces: names::namespaces(bits), ..base }
            }
            priv_op::MODULE_LOAD => Privilege { operation: operation("load"), object: a, ..base },
            priv_op::MODULE_REQUEST => Privilege { operation: operation("request"), object: a, ..base },
            priv_op::BPF => Privilege { operation: Some(names::bpf_command(first)), ..base },
            priv_op::MOUNT_CALL => Privilege { operation: Some(names::mount_call(first)), ..base },
            priv_op::PRIORITY => Privilege { operation: Some(names::priority(first)), ..base },
            priv_op::RAW_SOCKET | priv_op::UNKNOWN_SOCKET => Privilege {
                operation: operation(if facts.op == priv_op::RAW_SOCKET { "raw_socket" } else { "socket" }),
                object: Some(names::socket(first, second, third)),
                ..base
            },
            priv_op::ROUTE_OPTION => Privilege {
                operation: operation("source_route"),
                object: Some(names::route_option(first, second)),
                ..base
            },
            priv_op::PTRACE_READ => Privilege { operation: operation("read"), ..base },
            op => Privilege { operation: Some(format!("op {op}")), object: a, ..base },
        };
        (privilege, None)
    }

    fn named(&mut self, name: &Name, host: &mut dyn Host) -> String {
        match name {
            Name::Path(path) => text::escape(&self.host_path(&Place::Path(path.clone()), host).bytes),
            Name::Text(text) => text::escape(&text.bytes),
        }
    }

    /// The process acted on. Where the kernel did not say when it was made, the pid's latest is taken.
    fn target(&mut self, key: TaskKey, agent: u32, host: &mut dyn Host) -> Target {
        let known = if key.start == 0 { self.tree.latest(key.tgid) } else { self.tree.get(key) };
        let (known_key, mut exe) = known.map_or((key, None), |proc| (proc.key, proc.image.exe.clone()));
        if exe.is_none() && known_key.start != 0 {
            exe = host.process(known_key).and_then(|seed| seed.exe).map(|exe| text::escape(&exe));
        }
        Target {
            pid: key.tgid,
            start_time: (known_key.start != 0).then(|| self.clock.wall(known_key.start)),
            exe,
            agent: (agent != 0).then(|| self.agents.name(agent)),
        }
    }
}
