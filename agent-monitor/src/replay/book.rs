//! A compiled scope that answers outside the kernel: the same tables, the same hashes with another key, the same
//! [`judge_place`] and [`decide_net`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use agent_monitor_ebpf::Verdict as Raw;
use agent_monitor_ebpf::decide::{Place, decide_net, judge_place};
use agent_monitor_ebpf::destination::{ALTERNATIVES, stands_for, with_alternative};
use agent_monitor_ebpf::path::HashKey;
use agent_monitor_ebpf::policy::{
    NET_RULES, NetRule, NetSet, PathRule, PlaceKey, RULE_ROUTE, RULE_SELF, RULE_UNKNOWN, SLOTS, rule_of,
    verdict_of,
};

use super::{Opinion, Rulebook};
use crate::attribute::MountTable;
use crate::attribute::mounts::dev_text;
use crate::kernel::policy::place_key;
use crate::model::text;
use crate::scope::Verdict;
use crate::scope::image::{AgentImage, NetPrefix, Target};

/// Any key will do where nobody chooses names to collide.
const KEY: HashKey = HashKey { k0: 0x9e37_79b9_7f4a_7c15, k1: 0xc2b2_ae3d_27d4_eb4f };

/// The scope of one agent on a host with these mounts.
#[derive(Debug)]
pub struct ImageBook {
    mounts: MountTable,
    image: AgentImage,
    places: BTreeMap<(u64, u32, u32), PathRule>,
}

impl ImageBook {
    /// Prepares a compiled scope for questions.
    #[must_use]
    pub fn new(image: AgentImage, mounts: MountTable) -> Self {
        let entry = |(target, rule): (&Target, &PathRule)| (short(&place_key(KEY, 0, 0, target)), *rule);
        let places = image.places.iter().map(entry).collect();
        Self { mounts, image, places }
    }

    /// What the rules say of one address, as the tables hold it.
    fn peer(&self, bits: u128, port: u16, protocol: u8, action: u8) -> u32 {
        let fits = |prefix: &NetPrefix| {
            let free = 128 - u32::from(prefix.bits.min(128));
            (bits ^ u128::from_be_bytes(prefix.addr)).checked_shr(free).unwrap_or(0) == 0
        };
        let longest =
            self.image.nets.iter().filter(|(prefix, _)| fits(prefix)).max_by_key(|(prefix, _)| prefix.bits);
        let found = longest.map_or(0, |(_, rules)| decide_net(&net_set(rules), action, protocol, port));
        if found == 0 { self.image.policy.net } else { found }
    }

    fn opinion(&self, decision: u32) -> Opinion {
        let verdict = match Raw::from_u8(verdict_of(decision)) {
            Some(Raw::Allow) => Verdict::Allow,
            Some(Raw::Audit) => Verdict::Audit,
            Some(Raw::Hold) => Verdict::Hold,
            Some(Raw::Kill) => Verdict::Kill,
            Some(Raw::Deny) | None => Verdict::Deny,
        };
        let number = rule_of(decision);
        let rule = match number {
            RULE_SELF => "self-protection".to_owned(),
            RULE_UNKNOWN => "scope.unknown".to_owned(),
            RULE_ROUTE => "scope.net.source-route".to_owned(),
            _ => {
                self.image.rules.get(usize::from(number)).cloned().unwrap_or_else(|| format!("rule {number}"))
            }
        };
        Opinion { verdict, rule }
    }
}

/// An address as the tables hold it.
fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().to_bits(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

/// The addresses that an address stands for besides itself ([`agent_monitor_ebpf::destination`]): a scope is asked about
/// them too.
#[must_use]
pub fn destinations(addr: IpAddr, action: u8) -> Vec<IpAddr> {
    let bits = bits(addr);
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
    let (hi, lo) = (half(bits >> 64), half(bits));
    let others = (1..=ALTERNATIVES).map(|n| stands_for(hi, lo, n, action)).filter(|found| *found != (0, 0));
    others.map(|(hi, lo)| Ipv6Addr::from_bits(u128::from(hi) << 64 | u128::from(lo)).to_canonical()).collect()
}

fn net_set(rules: &[NetRule]) -> NetSet {
    let none = NetRule { low: 0, high: 0, protocol: 0, actions: 0, reserved: 0, decision: 0 };
    let mut set = NetSet { rules: [none; NET_RULES] };
    for (slot, rule) in set.rules.iter_mut().zip(rules) {
        *slot = *rule;
    }
    set
}

/// What tells entries of one agent and generation apart.
fn short(key: &PlaceKey) -> (u64, u32, u32) {
    (key.hash, key.dev, key.space)
}

impl Rulebook for ImageBook {
    fn place(
        &mut self,
        path: &str,
        dev: Option<&str>,
        asked: u32,
        moved_dir: bool,
    ) -> Result<Opinion, String> {
        let location = self.mounts.locate(&text::unescape(path));
        let location = location.ok_or("the path is on no file system that is mounted now")?;
        if let Some(then) = dev.filter(|then| *then != dev_text(location.dev)) {
            let now = dev_text(location.dev);
            return Err(format!("another file system is mounted there now ({then} then, {now} now)"));
        }
        let components: Vec<&[u8]> =
            location.inner.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        let place = Place { dev: location.dev, components: &components, moved_dir };
        let find = |key: &PlaceKey| self.places.get(&short(key)).copied();
        Ok(self.opinion(judge_place(KEY, &self.image.policy, 0, 0, place, asked, find)))
    }

    fn net(&mut self, addr: IpAddr, port: u16, protocol: u8, action: u8) -> Result<Opinion, String> {
        let mut found = self.peer(bits(addr), port, protocol, action);
        for other in destinations(addr, action) {
            found = with_alternative(found, self.peer(bits(other), port, protocol, action), action);
        }
        Ok(self.opinion(found))
    }

    fn unix_abstract(&mut self, name: &[u8], asked: u32) -> Result<Opinion, String> {
        let rule = self.image.places.get(&Target::Abstract(name.to_vec())).copied().unwrap_or(PathRule::NONE);
        let slot = (0..SLOTS).find(|slot| asked >> slot & 1 != 0).ok_or("nothing was asked")?;
        let found = rule.slots.get(slot).copied().unwrap_or_default();
        Ok(self.opinion(if found == 0 { self.image.policy.net } else { found }))
    }

    fn power(&mut self, power: usize) -> Result<Opinion, String> {
        let found = self.image.policy.privilege.get(power).copied();
        found.map(|found| self.opinion(found)).ok_or_else(|| "the power is not known".to_owned())
    }

    fn capability(&mut self, number: usize) -> Result<Opinion, String> {
        let found = self.image.policy.caps.get(number).copied();
        found.map(|found| self.opinion(found)).ok_or_else(|| "the capability is not known".to_owned())
    }
}

#[cfg(test)]
pub(crate) mod tests;
