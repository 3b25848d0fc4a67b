//! Rule numbers → the names of rules in records, by generation: a record may come after the scope it was judged by has
//! been replaced.

use std::collections::{BTreeMap, VecDeque};

use agent_monitor_ebpf::header::{FLAG_AGAIN, FLAG_ENFORCED, FLAG_HELD, FLAG_JUDGED, FLAG_TAMPER};
use agent_monitor_ebpf::policy::{
    RULE_DECIDED, RULE_ENDED, RULE_MISSING, RULE_ROUTE, RULE_SELF, RULE_SESSION, RULE_UNKNOWN,
};

use crate::decode::{Head, RuleRef};
use crate::model::{Hold, Kind, Mode};

/// Names of an agent's rules by their number, by agent index.
pub type RuleNames = BTreeMap<u32, Vec<String>>;

/// Generations that are remembered. A record waits in a ring for seconds; changes come by hand.
const KEPT: usize = 16;

/// The names of the latest generations.
#[derive(Debug, Default)]
pub struct RuleBook {
    generations: VecDeque<(u16, RuleNames)>,
}

impl RuleBook {
    /// Learns the names of a generation, before it is put in force.
    pub fn learn(&mut self, generation: u32, names: RuleNames) {
        let generation = low(generation);
        self.generations.retain(|(known, _)| *known != generation);
        self.generations.push_front((generation, names));
        self.generations.truncate(KEPT);
    }

    /// Forgets a generation that was not put in force after all.
    pub fn forget(&mut self, generation: u32) {
        let generation = low(generation);
        self.generations.retain(|(known, _)| *known != generation);
    }

    /// The name of a rule. One that is not known any more keeps its number.
    #[must_use]
    pub fn name(&self, agent: u32, rule: RuleRef) -> String {
        match rule.number {
            RULE_UNKNOWN => return "scope.unknown".to_owned(),
            RULE_SELF => return "self-protection".to_owned(),
            RULE_MISSING => return "no scope in force".to_owned(),
            RULE_ENDED => return "agent ended".to_owned(),
            RULE_SESSION => return "session ended".to_owned(),
            RULE_ROUTE => return "scope.net.source-route".to_owned(),
            RULE_DECIDED => return "approval".to_owned(),
            _ => {}
        }
        let names = self.generations.iter().find(|(known, _)| *known == rule.generation);
        let name = names.and_then(|(_, names)| names.get(&agent)?.get(usize::from(rule.number)));
        name.cloned().unwrap_or_else(|| format!("rule {} of generation {}", rule.number, rule.generation))
    }
}

fn low(generation: u32) -> u16 {
    u16::try_from(generation & 0xffff).unwrap_or_default()
}

/// Whether the verdict of a record was carried out; `None` where nothing was judged.
pub(super) fn mode(head: &Head) -> Option<Mode> {
    if head.flags & FLAG_JUDGED == 0 {
        return None;
    }
    Some(if head.flags & FLAG_ENFORCED == 0 { Mode::Observe } else { Mode::Enforce })
}

/// How an act that people decide about waits, or that they have decided.
pub(super) fn hold(head: &Head) -> Option<Hold> {
    (head.digest != 0).then(|| Hold {
        digest: format!("{:016x}", head.digest),
        held: head.flags & FLAG_HELD != 0,
        again: head.flags & FLAG_AGAIN != 0,
    })
}

/// The kind of an act that was aimed at the monitor.
pub(super) fn tampering(head: &Head, kind: Kind) -> Kind {
    if head.flags & FLAG_TAMPER == 0 { kind } else { kind.row().tamper }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_record_keeps_the_name_of_its_own_generation() {
        let mut book = RuleBook::default();
        for generation in 1..=3u32 {
            let names = vec!["scope.default".to_owned(), format!("scope.file[{generation}]")];
            book.learn(generation, RuleNames::from([(7, names)]));
        }
        let at = |generation, number| RuleRef { generation, number };
        assert_eq!(book.name(7, at(1, 1)), "scope.file[1]");
        assert_eq!(book.name(7, at(3, 0)), "scope.default");
        assert_eq!(book.name(7, at(9, 1)), "rule 1 of generation 9");
        assert_eq!(book.name(8, at(3, 1)), "rule 1 of generation 3");
        assert_eq!(book.name(8, at(0, RULE_SELF)), "self-protection");
        book.forget(3);
        assert_eq!(book.name(7, at(3, 1)), "rule 1 of generation 3");
    }

    #[test]
    fn only_so_many_generations_are_kept() {
        let mut book = RuleBook::default();
        for generation in 0..100 {
            book.learn(generation, RuleNames::new());
        }
        assert_eq!(book.generations.len(), KEPT);
    }
}
