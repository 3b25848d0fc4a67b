//! The promises of SECURITY.md about this host: which hold here now, by the report of `doctor`.

use serde::Serialize;

use super::doctor::{AbilityState, FamilyReport, Level, PINS, Report};

/// What a promise rests on.
struct Row {
    /// As in SECURITY.md.
    promise: &'static str,
    /// The lowest level at which it is made.
    from: Level,
    /// Families whose hooks carry it.
    families: &'static [&'static str],
    /// It rests on what is pinned.
    pinned: bool,
}

macro_rules! promises {
    ($($promise:literal $from:ident [$($family:literal)*] $pinned:literal;)+) => {
        const ROWS: &[Row] = &[
            $(Row { promise: $promise, from: Level::$from, families: &[$($family),*], pinned: $pinned },)+
        ];
    };
}

promises! {
    "no path, link, mount, namespace, `/proc` alias or `io_uring` call leads round a file, program or socket rule in force"
        Full ["process" "file" "network"] true;
    "what no rule names is refused under default deny"
        Full ["process" "file" "network" "privilege"] true;
    "connections and own addresses of IPv4 and IPv6 are refused"
        Partial ["network"] true;
    "children inherit the binding before they run; a reused pid never inherits"
        Partial ["process"] false;
    "a change of scope is the old one or the new one, never a mixture, also under load"
        Full ["process" "file" "network"] false;
    "enforcement continues while the daemon is dead, killed or replaced"
        Full [] true;
    "it cannot signal, trace or open the monitor, its state, socket or pins, nor connect to its socket"
        Full ["file" "network" "privilege"] true;
    "it cannot use the control API, and never approves itself"
        Partial ["process"] false;
    "a held call passes only by a decision of an allowed person about exactly this act"
        Full ["process" "file" "network" "privilege"] false;
    "no sequence of requests, decisions, crashes, reboots and clock steps passes what nobody allowed decided"
        Partial [] false;
    "after `agent suspend` nothing of its tree runs, a fork storm included"
        Partial ["process"] false;
    "what has no room (rings, tables, memory) is refused as the scope says, and counted"
        Partial ["process"] false;
}

/// Whether a promise holds on this host now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// As it is written.
    Yes,
    /// But for what the reason says.
    WithGaps,
    /// Not here, or not now.
    No,
}

impl Holds {
    /// For tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::WithGaps => "with gaps",
            Self::No => "NO",
        }
    }
}

/// A promise of SECURITY.md on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Promise {
    /// The words of SECURITY.md.
    pub promise: &'static str,
    /// Whether it holds.
    pub holds: Holds,
    /// A canary was seen to reach each family of hooks that it rests on.
    pub confirmed: bool,
    /// Why not, or what the gaps are; empty where it simply holds.
    pub reason: String,
}

/// Each promise that depends on the host, by a report about it.
#[must_use]
pub fn of(report: &Report) -> Vec<Promise> {
    ROWS.iter().map(|row| row.on(report)).collect()
}

impl Row {
    fn on(&self, report: &Report) -> Promise {
        let families: Vec<&FamilyReport> =
            report.families.iter().filter(|family| self.families.contains(&family.family.as_str())).collect();
        let (holds, reason) = self.holds(report, &families);
        let confirmed = holds != Holds::No && families.iter().all(|family| family.see.confirmed);
        Promise { promise: self.promise, holds, confirmed, reason }
    }

    fn holds(&self, report: &Report, families: &[&FamilyReport]) -> (Holds, String) {
        if report.level < self.from {
            let reason = format!("level {}: it needs level {}", report.level.as_str(), self.from.as_str());
            return (Holds::No, reason);
        }
        let pins = report.checks.iter().find(|check| check.name == PINS && !check.ok);
        if let Some(check) = pins.filter(|_| self.pinned) {
            return (Holds::No, check.found.clone());
        }
        // A family that is not in the report was not looked at.
        let lacks = |wanted: &&&str| !families.iter().any(|family| family.family == **wanted);
        if let Some(family) = self.families.iter().find(lacks) {
            return (Holds::No, format!("nothing is known about the {family} hooks"));
        }
        if let Some(family) = families.iter().find(|family| family.see.state == AbilityState::No) {
            return (Holds::No, format!("{}: {}", family.family, family.see.reason));
        }
        let partly = families.iter().filter(|family| family.see.state == AbilityState::Partial);
        let gaps: Vec<String> =
            partly.map(|family| format!("{}: {}", family.family, family.see.reason)).collect();
        let holds = if gaps.is_empty() { Holds::Yes } else { Holds::WithGaps };
        (holds, gaps.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::health::doctor::{Ability, Check};

    fn ability(state: AbilityState) -> Ability {
        Ability { state, confirmed: true, reason: "because".to_owned(), fix: None }
    }

    fn report(level: Level) -> Report {
        let family = |name: &str| FamilyReport {
            family: name.to_owned(),
            see: ability(AbilityState::Yes),
            stop: ability(AbilityState::Yes),
            hold: ability(AbilityState::Yes),
            name: ability(AbilityState::Yes),
            budget: ability(AbilityState::No),
        };
        Report {
            schema_version: 1,
            level,
            kernel: "6.12".to_owned(),
            machine: "x86_64".to_owned(),
            families: ["process", "file", "network", "privilege"].map(family).into(),
            checks: Vec::new(),
            programs: Vec::new(),
        }
    }

    fn states(report: &Report) -> Vec<Holds> {
        of(report).iter().map(|promise| promise.holds).collect()
    }

    /// Every promise of SECURITY.md that names a level, and no other, with its level.
    #[test]
    fn they_are_those_of_the_page() {
        let page = include_str!("../../../SECURITY.md");
        let (_, promises) = page.split_once("## Promises").unwrap();
        let rows = promises.lines().filter_map(|line| {
            let cells: Vec<&str> = line.split(" | ").map(str::trim).collect();
            let (promise, level) = (*cells.get(1)?, *cells.get(2)?);
            matches!(level, "full" | "partial" | "both").then(|| {
                let from = if level == "full" { Level::Full } else { Level::Partial };
                (promise.to_owned(), from)
            })
        });
        let written: BTreeSet<(String, Level)> = rows.collect();
        let ours: BTreeSet<(String, Level)> =
            ROWS.iter().map(|row| (row.promise.to_owned(), row.from)).collect();
        assert_eq!(ours, written);
    }

    #[test]
    fn all_hold_where_everything_works_and_fewer_at_partial() {
        assert!(states(&report(Level::Full)).iter().all(|holds| *holds == Holds::Yes));
        let partial = states(&report(Level::Partial));
        for (row, holds) in ROWS.iter().zip(partial) {
            assert_eq!(holds == Holds::Yes, row.from == Level::Partial, "{}", row.promise);
        }
        assert!(states(&report(Level::None)).iter().all(|holds| *holds == Holds::No));
    }

    #[test]
    fn a_missing_hook_is_a_gap_and_a_family_without_hooks_the_end_of_a_promise() {
        let mut gap = report(Level::Full);
        gap.families[1].see = ability(AbilityState::Partial);
        for (row, promise) in ROWS.iter().zip(of(&gap)) {
            let wanted = if row.families.contains(&"file") { Holds::WithGaps } else { Holds::Yes };
            assert_eq!(promise.holds, wanted, "{}", row.promise);
            assert_eq!(promise.reason.contains("file: because"), wanted == Holds::WithGaps);
        }
        gap.families[1].see = ability(AbilityState::No);
        let none = |row: &Row| if row.families.contains(&"file") { Holds::No } else { Holds::Yes };
        assert_eq!(states(&gap), ROWS.iter().map(none).collect::<Vec<_>>());
        gap.families.remove(1);
        assert_eq!(states(&gap), ROWS.iter().map(none).collect::<Vec<_>>());
    }

    #[test]
    fn pins_that_are_gone_end_what_rests_on_them() {
        let mut gone = report(Level::Full);
        let found = "2 pins are gone".to_owned();
        gone.checks.push(Check { name: PINS.to_owned(), ok: false, found, fix: None });
        for (row, promise) in ROWS.iter().zip(of(&gone)) {
            assert_eq!(promise.holds == Holds::No, row.pinned, "{}", row.promise);
        }
    }

    #[test]
    fn what_no_canary_reached_is_not_confirmed() {
        let mut report = report(Level::Full);
        report.families[0].see.confirmed = false;
        for (row, promise) in ROWS.iter().zip(of(&report)) {
            assert_eq!(promise.confirmed, !row.families.contains(&"process"), "{}", row.promise);
        }
    }
}
