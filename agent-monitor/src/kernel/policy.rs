//! Scopes in the kernel's tables: written, read back, and removed by generation.

use agent_monitor_ebpf::{
    path::{HashKey, component_hash, text_path_hash},
    policy::{
        AgentKey, AgentPolicy, NET_PREFIX, NET_RULES, NetKey, NetRule, NetSet, PathRule, PlaceKey,
        SPACE_ABSTRACT, SPACE_BELOW, SPACE_EXACT, SPACE_EXTENSION, SPACE_NAME, SPACE_SUBTREE, SPACE_VSOCK,
    },
};
use aya::maps::{
    MapData,
    lpm_trie::{Key, LpmTrie},
};

use super::{
    KernelError,
    object::Kernel,
    pod::Plain,
    tables::{ignore_absent, remove},
};
use crate::scope::image::{AgentImage, PolicyImage, Target};

type Nets<'a> = LpmTrie<&'a mut MapData, Plain<NetKey>, Plain<NetSet>>;

/// An empty place in a set.
const NO_RULE: NetRule = NetRule { low: 0, high: 0, protocol: 0, actions: 0, reserved: 0, decision: 0 };

/// The key of a target. Its inverse does not exist: names and places are hashed with secret keys.
pub(crate) fn place_key(key: HashKey, agent: u32, generation: u32, target: &Target) -> PlaceKey {
    let (hash, dev, space) = match target {
        Target::Subtree(at) => (text_path_hash(key, &at.inner), at.dev, SPACE_SUBTREE),
        Target::Exact(at) => (text_path_hash(key, &at.inner), at.dev, SPACE_EXACT),
        Target::Below(at) => (text_path_hash(key, &at.inner), at.dev, SPACE_BELOW),
        Target::Name(name) => (component_hash(key, name), 0, SPACE_NAME),
        Target::Extension(ending) => (component_hash(key, ending), 0, SPACE_EXTENSION),
        Target::Abstract(name) => (component_hash(key, name), 0, SPACE_ABSTRACT),
        Target::Vsock { cid, port } => {
            (u64::from(*cid) << 32 | u64::from(port.unwrap_or(u32::MAX)), 0, SPACE_VSOCK)
        }
    };
    PlaceKey { hash, agent, dev, generation, space }
}

fn net_set(rules: &[NetRule]) -> NetSet {
    let mut set = NetSet { rules: [NO_RULE; NET_RULES] };
    for (slot, rule) in set.rules.iter_mut().zip(rules) {
        *slot = *rule;
    }
    set
}

impl Kernel {
    /// Writes all scopes as a generation and reads them back: what the kernel holds is what was meant.
    pub(super) fn write_policy(&mut self, image: &PolicyImage, generation: u32) -> Result<(), KernelError> {
        let key = self.hash_key();
        let agents: Vec<(AgentKey, AgentPolicy)> = image
            .agents
            .iter()
            .map(|(agent, scope)| {
                let mut policy = scope.policy;
                if let Some((life, expires)) = self.lives.get(agent) {
                    (policy.life, policy.expires) = (*life, *expires);
                }
                (AgentKey { agent: *agent, generation }, policy)
            })
            .collect();
        let places: Vec<(PlaceKey, PathRule)> = image
            .agents
            .iter()
            .flat_map(|(agent, scope)| {
                scope
                    .places
                    .iter()
                    .map(move |(target, rule)| (place_key(key, *agent, generation, target), *rule))
            })
            .collect();
        self.insert("POLICIES", agents.clone())?;
        self.insert("PLACES", places.clone())?;
        self.write_nets(image, generation)?;
        self.write_grants(image, generation)?;
        self.read_back("POLICIES", &agents)?;
        self.read_back("PLACES", &places)
    }

    fn read_back<K: Copy, V: PartialEq + Copy>(
        &mut self,
        name: &'static str,
        written: &[(K, V)],
    ) -> Result<(), KernelError>
    where
        Plain<K>: aya::Pod,
        Plain<V>: aya::Pod,
    {
        let table = self.table::<K, V>(name)?;
        for (key, value) in written {
            let found = table.get(&Plain(*key), 0);
            if !found.is_ok_and(|found| found.0 == *value) {
                return Err(KernelError::Bpf {
                    what: format!("read table {name} back"),
                    cause: "it does not hold what was written; the old scopes stay in force".into(),
                });
            }
        }
        Ok(())
    }

    fn nets(&mut self) -> Result<Nets<'_>, KernelError> {
        let map = self.ebpf.map_mut("NETS").ok_or(KernelError::NoObject)?;
        LpmTrie::try_from(map).map_err(|e| KernelError::bpf("open table NETS", &e))
    }

    fn write_nets(&mut self, image: &PolicyImage, generation: u32) -> Result<(), KernelError> {
        let mut table = self.nets()?;
        for (agent, AgentImage { nets, .. }) in &image.agents {
            for (prefix, rules) in nets {
                let data = NetKey { agent: *agent, generation, addr: prefix.addr };
                let key = Key::new(NET_PREFIX + u32::from(prefix.bits), Plain(data));
                let set = net_set(rules);
                table
                    .insert(&key, Plain(set), 0)
                    .map_err(|e| KernelError::bpf("write table NETS (is it full?)", &e))?;
                let found = table.get(&key, 0);
                if !found.is_ok_and(|found| found.0 == set) {
                    return Err(KernelError::Bpf {
                        what: "read table NETS back".into(),
                        cause: "it does not hold what was written; the old scopes stay in force".into(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Removes the scopes of generations that `stale` picks.
    pub(super) fn forget_policy(&mut self, stale: impl Fn(u32) -> bool) -> Result<(), KernelError> {
        self.forget_grants(&stale)?;
        remove(&mut self.table::<AgentKey, AgentPolicy>("POLICIES")?, |k| stale(k.generation))?;
        remove(&mut self.table::<PlaceKey, PathRule>("PLACES")?, |k| stale(k.generation))?;
        let mut nets = self.nets()?;
        let old: Vec<Key<Plain<NetKey>>> =
            nets.keys().filter_map(Result::ok).filter(|k| stale({ k.data() }.0.generation)).collect();
        for key in old {
            ignore_absent(nets.remove(&key)).map_err(|e| KernelError::bpf("remove an old rule", &e))?;
        }
        Ok(())
    }
}
