//! Records → the scopes as the kernel holds them ([`PolicyImage`]).
//!
//! Pure: what must be looked up on the host is asked of [`Places`]. As much as can be is resolved here, so that the hook
//! needs one look-up per level whatever the number of rules: a subtree's entry holds what all wider rules say where it
//! is silent, a network's set holds the rules of all networks around it.

mod net;
mod place;
mod shadow;

use std::collections::BTreeMap;

use agent_monitor_ebpf::people::{GRANTS, GrantEntry, LIFE_ACTIVE};
use agent_monitor_ebpf::policy::{
    AgentPolicy, CAPS, EXTENSIONS, POLICY_ABSTRACT, POLICY_ENFORCE, POLICY_EXACT, POLICY_HOLD_WAITS,
    POLICY_MAY_BPF, POLICY_NAME, POLICY_NET, POLICY_NET_LIMITED, POLICY_VSOCK, POWERS, PathRule,
    RULE_DEFAULT, RULE_UNKNOWN, SLOTS, decision, power, slot, stricter,
};

use self::net::Nets;
use self::place::Tree;
use super::image::{AgentImage, PolicyImage, Target};
use super::{
    Effect, FileAccess, NetAction, NetPattern, PathPattern, PrivilegeKind, Scope, Verdict, base, parse,
};
use crate::attribute::Agents;
use crate::attribute::mounts::Location;
use crate::registry::record::OnDaemonLoss;
use crate::registry::{Mode, Record};

/// What the compilation asks the host.
pub trait Places {
    /// The path that a path leads to: symbolic links followed as far as it exists, the rest kept.
    fn canonical(&mut self, path: &[u8]) -> Vec<u8>;
    /// Where a canonical path lies.
    fn locate(&mut self, canonical: &[u8]) -> Option<Location>;
    /// The mounts of the host, the oldest first.
    fn mounts(&mut self) -> Vec<MountPlace>;
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPlace {
    /// Where the mount is seen from: the place of its mount point in the file system around it, `None` for the root.
    pub on: Option<Location>,
    /// What it shows.
    pub shows: Location,
}

/// The monitor's own places, kept from every agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protected {
    /// May be read, not changed: registry, sockets, program.
    pub written: Vec<Vec<u8>>,
    /// Neither: state, pins.
    pub closed: Vec<Vec<u8>>,
}

/// What compiling gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compiled {
    /// For the kernel.
    pub image: PolicyImage,
    /// Sentences for the log and the status: what is not in force as written.
    pub notes: Vec<String>,
}

/// Compiles the scopes of all records. Agents must have been registered in `agents`; those without a record get an entry
/// that permits everything, for processes that are still to be freed.
#[must_use]
pub fn compile(
    records: &[Record],
    extras: &[Extra],
    agents: &Agents,
    host: &mut dyn Places,
    protected: &Protected,
) -> Compiled {
    let mut compiled = Compiled::default();
    let mounts = host.mounts();
    let own = place::locate_protected(protected, host);
    for agent in agents.indices() {
        compiled.image.agents.insert(agent, nobody());
    }
    for record in records {
        let id = record.id.value.as_str();
        let Some(agent) = agents.index(id) else { continue };
        let mut compiler =
            Compiler::new(id, &mut *host, &mut compiled.notes, Tree::new(&mounts, &own), Vec::new());
        compiler.scope(&record.scope);
        let mut image = compiler.finish(&record.scope, record.mode.value == Mode::Enforce);
        if record.on_daemon_loss == OnDaemonLoss::Wait {
            image.policy.flags |= POLICY_HOLD_WAITS;
        }
        compiled.image.agents.insert(agent, image);
    }
    for extra in extras {
        let Some(agent) = agents.index(&extra.agent) else { continue };
        // Rules of sessions and grants are numbered after the agent's own: an event names them by the agent.
        let names = compiled.image.agents.get(&agent).map(|image| image.rules.clone()).unwrap_or_default();
        let tree = Tree::new(&mounts, &own);
        let mut compiler = Compiler::new(&extra.agent, &mut *host, &mut compiled.notes, tree, names);
        compiler.prefix.clone_from(&extra.label);
        compiler.scope(&extra.scope);
        let mut image = compiler.finish(&extra.scope, true);
        if let Some(own) = compiled.image.agents.get_mut(&agent) {
            own.rules = std::mem::take(&mut image.rules);
        }
        compiled.image.agents.insert(extra.index, image);
        if let Some(grant) = &extra.grant {
            let list = compiled.image.grants.entry(agent).or_default();
            if list.len() < GRANTS {
                let (id, session) = (grant.id, grant.session);
                list.push(GrantEntry { id, session, policy: extra.index, reserved: 0 });
            } else {
                compiled.notes.push(format!(
                    "{}: more than {GRANTS} grants at a time; {} is not in force",
                    extra.agent, extra.label
                ));
            }
        }
    }
    compiled
}

/// A scope beside those of the records: a session's own, which narrows the agent's, or what a grant permits, which
/// widens it.
#[derive(Debug, Clone, PartialEq)]
pub struct Extra {
    /// The agent.
    pub agent: String,
    /// Index in the policy tables, from [`super::image::SESSION_INDEX`] or [`super::image::GRANT_INDEX`] on.
    pub index: u32,
    /// How its rules are named in events: `session`, `grant 7`.
    pub label: String,
    /// What it says.
    pub scope: Scope,
    /// Set for a grant.
    pub grant: Option<GrantOf>,
}

/// Which grant a scope belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantOf {
    /// Its number, from 1.
    pub id: u64,
    /// The one session that it is for, 0 for all.
    pub session: u64,
}

/// The scope of an agent that has no record any more.
fn nobody() -> AgentImage {
    let allow = decision(agent_monitor_ebpf::Verdict::Allow, RULE_DEFAULT);
    AgentImage {
        policy: AgentPolicy {
            depths: 0,
            root: [allow; SLOTS],
            unknown: allow,
            net: allow,
            privilege: [allow; POWERS],
            caps: [allow; CAPS],
            extensions: [0; EXTENSIONS],
            flags: 0,
            life: LIFE_ACTIVE,
            expires: u64::MAX,
        },
        places: BTreeMap::new(),
        nets: BTreeMap::new(),
        rules: vec!["scope.default".to_owned()],
    }
}

/// The verdict in the contract's numbers.
#[must_use]
pub const fn raw(verdict: Verdict) -> agent_monitor_ebpf::Verdict {
    match verdict {
        Verdict::Allow => agent_monitor_ebpf::Verdict::Allow,
        Verdict::Audit => agent_monitor_ebpf::Verdict::Audit,
        Verdict::Hold => agent_monitor_ebpf::Verdict::Hold,
        Verdict::Deny => agent_monitor_ebpf::Verdict::Deny,
        Verdict::Kill => agent_monitor_ebpf::Verdict::Kill,
    }
}

/// Decisions per slot, 0 where there is none.
pub(super) type Slots = [u32; SLOTS];

/// Adds a decision to the slots of a mask. Between rules of one pattern the stricter decides; a rule of a base set yields
/// to what is there.
fn merge(slots: &mut Slots, mask: u32, found: u32, yields: bool) {
    for (index, slot) in slots.iter_mut().enumerate() {
        if mask >> index & 1 != 0 && (*slot == 0 || !yields) {
            *slot = if *slot == 0 { found } else { stricter(*slot, found) };
        }
    }
}

/// Fills what is empty.
fn fill(slots: &mut Slots, from: &Slots) {
    for (slot, found) in slots.iter_mut().zip(from) {
        if *slot == 0 {
            *slot = *found;
        }
    }
}

/// The slot of an access.
#[must_use]
pub const fn slot_of(access: FileAccess) -> usize {
    match access {
        FileAccess::Read => slot::READ,
        FileAccess::Write => slot::WRITE,
        FileAccess::Create => slot::CREATE,
        FileAccess::Delete => slot::DELETE,
        FileAccess::ExecuteMap => slot::MAP,
    }
}

/// The number of a power.
#[must_use]
pub const fn power_of(kind: PrivilegeKind) -> usize {
    match kind {
        PrivilegeKind::Bpf => power::BPF,
        PrivilegeKind::Capability => power::CAPABILITY,
        PrivilegeKind::Device => power::DEVICE,
        PrivilegeKind::Module => power::MODULE,
        PrivilegeKind::Mount => power::MOUNT,
        PrivilegeKind::Namespace => power::NAMESPACE,
        PrivilegeKind::Ptrace => power::PTRACE,
        PrivilegeKind::RawSocket => power::RAW_SOCKET,
        PrivilegeKind::Setuid => power::SETUID,
        PrivilegeKind::Signal => power::SIGNAL,
        PrivilegeKind::Terminal => power::TERMINAL,
        PrivilegeKind::Userns => power::USERNS,
    }
}

/// Whether a path leads through an entry of `/proc` that is another one for everybody who looks.
fn depends_on_who_looks(canonical: &[u8]) -> bool {
    [&b"/proc/self"[..], b"/proc/thread-self"].iter().any(|own| {
        canonical.strip_prefix(*own).is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
    })
}

/// The places that a path names: what it leads to and, where its last part is a symbolic link, the link too, for that
/// is what is removed or replaced under this name.
fn named(host: &mut dyn Places, path: &[u8]) -> Vec<Vec<u8>> {
    let target = host.canonical(path);
    let cut = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let (directory, name) = path.split_at_checked(cut).unwrap_or_default();
    let mut link = if directory.is_empty() { Vec::new() } else { host.canonical(directory) };
    if link == b"/" {
        link.clear();
    }
    link.extend_from_slice(name);
    if link == target { vec![target] } else { vec![target, link] }
}

struct Compiler<'a> {
    id: &'a str,
    host: &'a mut dyn Places,
    notes: &'a mut Vec<String>,
    tree: Tree<'a>,
    nets: Nets,
    /// A rule refuses some internet peer.
    net_limited: bool,
    /// Names, endings, abstract and vsock sockets.
    names: BTreeMap<Target, Slots>,
    rules: Vec<String>,
    privilege: [u32; POWERS],
    caps: [u32; CAPS],
    /// What stands before the names of the rules; empty for the agent's own.
    prefix: String,
    /// Number of the default.
    default_rule: u16,
}

impl<'a> Compiler<'a> {
    fn new(
        id: &'a str,
        host: &'a mut dyn Places,
        notes: &'a mut Vec<String>,
        tree: Tree<'a>,
        rules: Vec<String>,
    ) -> Self {
        Self {
            id,
            host,
            notes,
            tree,
            nets: Nets::default(),
            net_limited: false,
            names: BTreeMap::new(),
            rules,
            privilege: [0; POWERS],
            caps: [0; CAPS],
            prefix: String::new(),
            default_rule: RULE_DEFAULT,
        }
    }

    fn scope(&mut self, scope: &Scope) {
        self.default_rule = self.number("scope.default", "");
        self.add(scope, "", false);
        for name in &scope.base {
            if let Some(set) = base::set(&name.value) {
                self.add(set, &name.value, true);
            }
        }
    }

    fn note(&mut self, rule: &str, why: &str) {
        self.notes.push(format!("{} {rule}: {why}", self.id));
    }

    /// Whether a rule counts while no process carries labels yet: one with `unless` permits nothing that it could not
    /// take back, and forbids as it says.
    fn counts(&mut self, rule: &str, effect: &Effect) -> bool {
        if effect.unless.is_empty() {
            return true;
        }
        let permits = effect.verdict.permits();
        self.note(
            rule,
            if permits {
                "labels are not known to the kernel yet, the rule permits nothing"
            } else {
                "labels are not known to the kernel yet, the rule holds whatever labels the process carries"
            },
        );
        !permits
    }

    /// Gives a rule its number.
    fn number(&mut self, name: &str, set: &str) -> u16 {
        let number = u16::try_from(self.rules.len()).unwrap_or(u16::MAX);
        let rest = name.strip_prefix("scope.").unwrap_or(name);
        let name = if set.is_empty() { name.to_owned() } else { format!("base.{set}.{rest}") };
        self.rules.push(if self.prefix.is_empty() { name } else { format!("{} {name}", self.prefix) });
        number
    }

    fn add(&mut self, scope: &Scope, set: &str, yields: bool) {
        for rule in scope.file.iter().map(|rule| &rule.value) {
            let number = self.number(&rule.name, set);
            if self.counts(&rule.name, &rule.effect) {
                let mask = rule.access.iter().fold(0, |mask, access| mask | 1 << slot_of(*access));
                let found = decision(raw(rule.effect.verdict), number);
                self.path(&rule.name, &rule.path.value, mask, found, yields);
            }
        }
        for rule in scope.exec.iter().map(|rule| &rule.value) {
            let number = self.number(&rule.name, set);
            if rule.argv.is_some() {
                self.note(
                    &rule.name,
                    "the kernel does not tell programs apart by arguments, the rule is not in force",
                );
            } else if self.counts(&rule.name, &rule.effect) {
                let found = decision(raw(rule.effect.verdict), number);
                self.path(&rule.name, &rule.path.value, 1 << slot::EXEC, found, yields);
            }
        }
        for rule in scope.net.iter().map(|rule| &rule.value) {
            let number = self.number(&rule.name, set);
            if self.counts(&rule.name, &rule.effect) {
                let found = decision(raw(rule.effect.verdict), number);
                self.net(&rule.name, &rule.to.value, &rule.action, found, yields);
            }
        }
        for rule in scope.privilege.iter().map(|rule| &rule.value) {
            let number = self.number(&rule.name, set);
            if self.counts(&rule.name, &rule.effect) {
                let found = decision(raw(rule.effect.verdict), number);
                self.privilege(rule.kind.value, &rule.capabilities, found);
            }
        }
    }

    fn path(&mut self, rule: &str, pattern: &PathPattern, mask: u32, found: u32, yields: bool) {
        match pattern {
            PathPattern::Name(name) => {
                self.name(Target::Name(name.clone().into_bytes()), mask, found, yields)
            }
            PathPattern::Extension(ending) => {
                self.name(Target::Extension(ending.clone().into_bytes()), mask, found, yields);
            }
            PathPattern::Subtree(directory) if directory.is_empty() => {
                merge(self.tree.root(), mask, found, yields);
            }
            PathPattern::Subtree(path) | PathPattern::Exact(path) => {
                let subtree = matches!(pattern, PathPattern::Subtree(_));
                for place in named(self.host, path.as_bytes()) {
                    self.place(rule, &place, subtree, (mask, found, yields));
                }
            }
        }
    }

    fn place(
        &mut self,
        rule: &str,
        canonical: &[u8],
        subtree: bool,
        (mask, found, yields): (u32, u32, bool),
    ) {
        // Followed by the daemon, it would lead to the daemon.
        if depends_on_who_looks(canonical) {
            self.note(
                rule,
                "the path leads to another place for every process, which is left out; name /proc/**",
            );
            return;
        }
        match self.host.locate(canonical) {
            Some(at) => self.tree.add(at, subtree, mask, found, yields),
            None => self.note(rule, "its file system is not mounted here, the rule is not in force"),
        }
    }

    fn name(&mut self, target: Target, mask: u32, found: u32, yields: bool) {
        merge(self.names.entry(target).or_default(), mask, found, yields);
    }

    fn net(
        &mut self,
        rule: &str,
        pattern: &NetPattern,
        actions: &std::collections::BTreeSet<NetAction>,
        found: u32,
        yields: bool,
    ) {
        let unix = actions.iter().fold(0, |mask, action| {
            mask | 1
                << match action {
                    NetAction::Connect => slot::UNIX_CONNECT,
                    NetAction::Bind => slot::UNIX_BIND,
                    NetAction::Listen => slot::UNIX_LISTEN,
                }
        });
        match pattern {
            NetPattern::Ip { host, ports, protocol } => {
                self.net_limited |= !agent_monitor_ebpf::policy::permits(found);
                if !self.nets.add(host, *ports, *protocol, actions, found) {
                    self.note(rule, "host names are not known to the kernel yet, the rule is not in force");
                }
            }
            NetPattern::UnixPath(path) => self.path(rule, path, unix, found, yields),
            NetPattern::UnixAbstract(name) => {
                self.name(Target::Abstract(name.clone().into_bytes()), unix, found, yields);
            }
            NetPattern::Vsock { cid, port } => {
                self.name(Target::Vsock { cid: *cid, port: *port }, unix, found, yields);
            }
        }
    }

    fn privilege(
        &mut self,
        kind: PrivilegeKind,
        capabilities: &std::collections::BTreeSet<String>,
        found: u32,
    ) {
        let add = |slot: &mut u32| *slot = if *slot == 0 { found } else { stricter(*slot, found) };
        if kind != PrivilegeKind::Capability {
            self.privilege.get_mut(power_of(kind)).map(add);
            return;
        }
        for (name, slot) in parse::CAPABILITIES.iter().zip(&mut self.caps) {
            if capabilities.contains(*name) {
                add(slot);
            }
        }
        if capabilities.is_empty() {
            self.privilege.get_mut(power::CAPABILITY).map(add);
        }
    }

    /// Devices and terminals of other people are refused unless a rule names them, whatever the default: a permitted place
    /// would otherwise be the whole disk.
    fn refuse_unless_named(&mut self, scope: &Scope) {
        let mut rule = 0;
        for power in [power::DEVICE, power::TERMINAL] {
            if self.privilege.get(power) != Some(&0) || !scope.default.permits() {
                continue;
            }
            if rule == 0 {
                rule = self.number("scope.devices", "");
            }
            if let Some(slot) = self.privilege.get_mut(power) {
                *slot = decision(agent_monitor_ebpf::Verdict::Deny, rule);
            }
        }
    }

    fn finish(mut self, scope: &Scope, enforce: bool) -> AgentImage {
        let default = decision(raw(scope.default), self.default_rule);
        let or = |value: u32, other: u32| if value == 0 { other } else { value };
        if scope.declared {
            self.refuse_unless_named(scope);
        }
        let privilege = self.privilege.map(|found| or(found, default));
        let any_capability = privilege.get(power::CAPABILITY).copied().unwrap_or(default);
        let mut policy = AgentPolicy {
            depths: 0,
            root: [default; SLOTS],
            // Without a declared scope everything is audited, also what cannot be judged.
            unknown: decision(raw(if scope.declared { scope.unknown } else { scope.default }), RULE_UNKNOWN),
            net: default,
            privilege,
            caps: self.caps.map(|found| or(found, any_capability)),
            extensions: self.extensions(),
            flags: if enforce && scope.declared { POLICY_ENFORCE } else { 0 },
            life: LIFE_ACTIVE,
            expires: u64::MAX,
        };
        if self
            .privilege
            .get(power::BPF)
            .is_some_and(|found| *found != 0 && agent_monitor_ebpf::policy::permits(*found))
        {
            policy.flags |= POLICY_MAY_BPF;
        }
        fill(self.tree.root(), &[default; SLOTS]);
        policy.root = *self.tree.root();
        let mut places = self.tree.finish();
        for (target, slots) in self.names {
            places.insert(target, PathRule { slots, forced: 0 });
        }
        for target in places.keys() {
            match target {
                Target::Subtree(at) => policy.depths |= 1 << (place::depth(&at.inner) & 63),
                Target::Exact(_) => policy.flags |= POLICY_EXACT,
                Target::Name(_) => policy.flags |= POLICY_NAME,
                Target::Abstract(_) => policy.flags |= POLICY_ABSTRACT,
                Target::Vsock { .. } => policy.flags |= POLICY_VSOCK,
                Target::Below(_) | Target::Extension(_) => {}
            }
        }
        let (nets, full) = self.nets.finish();
        if !nets.is_empty() {
            policy.flags |= POLICY_NET;
        }
        if self.net_limited || !agent_monitor_ebpf::policy::permits(default) {
            policy.flags |= POLICY_NET_LIMITED;
        }
        for prefix in full {
            self.notes.push(format!(
                "{}: more than {} rules fit the network {prefix}; the least specific are not in force",
                self.id,
                agent_monitor_ebpf::policy::NET_RULES
            ));
        }
        AgentImage { policy, places, nets, rules: self.rules }
    }

    /// Lengths of endings, the longest first.
    fn extensions(&mut self) -> [u8; EXTENSIONS] {
        let mut lengths: Vec<u8> = self
            .names
            .keys()
            .filter_map(|target| match target {
                Target::Extension(ending) => u8::try_from(ending.len()).ok(),
                _ => None,
            })
            .collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        if lengths.len() > EXTENSIONS {
            self.note(
                "scope.file",
                "endings of more than 8 different lengths; the shortest are not in force",
            );
        }
        let mut out = [0; EXTENSIONS];
        for (slot, length) in out.iter_mut().zip(lengths) {
            *slot = length;
        }
        out
    }
}

#[cfg(test)]
#[path = "compile/tests.rs"]
mod tests;
