//! Last known good: cases, and a random life of a registry against a naive reading of the rules.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::registry::fake::{FakeHost, now, record_text};
use crate::registry::parse::parse_record;

/// `level` says how much a record permits; an odd one asks for what this host cannot enforce.
fn text(id: &str, user: u32, level: u32) -> String {
    record_text(
        id,
        "",
        &format!(
            "[[match]]\nuser = {user}\n\n[scope]\nbase = []\n[[scope.file]]\npath = \"/srv/{level}\"\naccess = [\"read\"]"
        ),
    )
}

fn candidate(path: &str, text: &str) -> Candidate {
    let parsed = parse_record(text, Path::new(path));
    Candidate { path: PathBuf::from(path), record: parsed.record, diagnostics: parsed.diagnostics }
}

fn level_of(record: &Record) -> u32 {
    let rule = &record.scope.file[0];
    rule.path
        .as_exact()
        .and_then(|path| path.strip_prefix("/srv/"))
        .and_then(|level| level.parse().ok())
        .unwrap()
}

fn unenforceable(record: &Record) -> Vec<Diagnostic> {
    let at = record.id.at;
    let problem = Diagnostic::new(&record.source, Severity::Error, Code::NotHeld, at, "not here");
    if level_of(record) % 2 == 1 { vec![problem] } else { Vec::new() }
}

fn decided(disk: &Disk, before: &Set, retired: &dyn Fn(&AgentId) -> bool) -> Decision {
    let facts = FakeHost::new();
    decide(disk, before, &Rules { facts: &facts, judge: &unenforceable, retired, now: now() })
}

fn never(_: &AgentId) -> bool {
    false
}

fn files(list: &[(&str, String)]) -> Disk {
    Disk::Files(list.iter().map(|(path, text)| candidate(path, text)).collect())
}

fn levels(set: &Set) -> Vec<(&str, u32, bool)> {
    set.iter().map(|(id, kept)| (id.as_str(), level_of(&kept.record), kept.stale.is_some())).collect()
}

#[test]
fn records_that_swap_their_matches_change_together() {
    let before = decided(&files(&[("a", text("a", 1, 2)), ("b", text("b", 2, 2))]), &Set::new(), &never).set;
    let after = decided(&files(&[("a", text("a", 2, 4)), ("b", text("b", 1, 4))]), &before, &never);
    assert_eq!(levels(&after.set), [("a", 4, false), ("b", 4, false)]);
    // One of them cannot be: then neither moves, for each would take the other's processes.
    let half = decided(&files(&[("a", text("a", 2, 4)), ("b", text("b", 1, 5))]), &before, &never);
    assert_eq!(levels(&half.set), [("a", 2, true), ("b", 2, true)]);
    assert_eq!(half.refused.len(), 2);
}

#[test]
fn what_is_in_force_goes_before_what_is_new() {
    let before = decided(&files(&[("m", text("m", 1, 2))]), &Set::new(), &never).set;
    let both = files(&[("a", text("a", 1, 2)), ("m", text("m", 1, 2))]);
    let after = decided(&both, &before, &never);
    assert_eq!(levels(&after.set), [("m", 2, false)], "an earlier name takes nobody's processes");
    let copy = files(&[("a", text("m", 9, 8)), ("m", "typo".to_owned())]);
    let after = decided(&copy, &before, &never);
    assert_eq!(levels(&after.set), [("m", 2, true)], "a broken file still speaks for its agent");
    let moved = files(&[("z", text("m", 1, 4))]);
    assert_eq!(levels(&decided(&moved, &before, &never).set), [("m", 4, false)], "a file may be renamed");
}

#[test]
fn a_retired_agent_leaves_with_its_file_and_others_do_not() {
    let before = decided(&files(&[("a", text("a", 1, 2)), ("b", text("b", 2, 2))]), &Set::new(), &never).set;
    let after = decided(&files(&[]), &before, &|id| id.as_str() == "a");
    assert_eq!(levels(&after.set), [("b", 2, true)]);
    let unreadable = decided(&Disk::Unreadable("EIO".to_owned()), &before, &|id| id.as_str() == "a");
    assert_eq!(unreadable.set.len(), 2, "a registry that cannot be read says nothing of its files");
    assert!(
        unreadable.set.values().all(|kept| kept.stale.as_ref().is_some_and(|s| s.cause == Cause::Registry))
    );
}

#[test]
fn an_expired_record_is_no_bad_record() {
    let text = text("a", 1, 2).replace("2030-01-01", "2020-01-01");
    let record = parse_record(&text, Path::new("a")).record.unwrap();
    assert_eq!(judge(&record, &FakeHost::new(), now(), None), []);
}

/// What happens to the registry, on a file of three, for an agent of three.
#[derive(Debug, Clone)]
enum Act {
    Write { file: usize, id: usize, user: u32, level: u32 },
    Typo(usize),
    Remove(usize),
    Rename(usize, usize),
    Unregister(usize),
    Restart,
    Vanish(bool),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0usize..3, 0usize..3, 0u32..3, 0u32..8)
            .prop_map(|(file, id, user, level)| Act::Write { file, id, user, level }),
        2 => (0usize..3).prop_map(Act::Typo),
        2 => (0usize..3).prop_map(Act::Remove),
        1 => (0usize..3, 0usize..3).prop_map(|(from, to)| Act::Rename(from, to)),
        1 => (0usize..3).prop_map(Act::Unregister),
        1 => Just(Act::Restart),
        1 => any::<bool>().prop_map(Act::Vanish),
    ]
}

const IDS: [&str; 3] = ["a", "b", "c"];
const PATHS: [&str; 3] = ["/r/1.toml", "/r/2.toml", "/r/3.toml"];

/// The registry as a person sees it.
#[derive(Debug, Default)]
struct World {
    files: BTreeMap<usize, String>,
    vanished: bool,
}

impl World {
    fn disk(&self) -> Disk {
        match self.vanished {
            true => Disk::Unreadable("gone".to_owned()),
            false => Disk::Files(self.files.iter().map(|(at, text)| candidate(PATHS[*at], text)).collect()),
        }
    }

    /// The good records that somebody wrote for an agent.
    fn good(&self, id: &str) -> Vec<Record> {
        let Disk::Files(files) = self.disk() else { return Vec::new() };
        let records = files.into_iter().filter_map(|file| file.record);
        records.filter(|record| record.id.as_str() == id && level_of(record).is_multiple_of(2)).collect()
    }
}

/// The rules as the documentation has them, of one step.
fn holds(world: &World, before: &Set, after: &Decision) -> Result<(), TestCaseError> {
    for (id, kept) in before {
        let now = after.set.get(id);
        prop_assert!(now.is_some(), "{} was unbound by no explicit act", id);
        let now = now.unwrap();
        let good = world.good(id.as_str());
        let changed = now.record != kept.record;
        prop_assert!(!changed || good.contains(&now.record), "{} has what no good record says", id);
        if good.is_empty() {
            prop_assert!(!changed && now.stale.is_some(), "{} is stale where no good record is there", id);
        }
    }
    for (id, kept) in &after.set {
        let is_new = !before.contains_key(id);
        prop_assert!(!is_new || kept.stale.is_none() && world.good(id.as_str()).contains(&kept.record));
        // What is stale is named, and what is not is what is on disk.
        prop_assert!(kept.stale.is_some() || world.good(id.as_str()).contains(&kept.record));
    }
    // No two agents of the set are the same processes.
    let users: BTreeMap<String, &AgentId> =
        after.set.iter().map(|(id, kept)| (format!("{:?}", kept.record.matches[0].user), id)).collect();
    prop_assert_eq!(users.len(), after.set.len());
    // What is alone in every respect is in force.
    for (at, text) in world.files.iter().filter(|_| !world.vanished) {
        let Some(record) = candidate(PATHS[*at], text).record else { continue };
        let others: Vec<Record> = world
            .files
            .iter()
            .filter(|(other, _)| *other != at)
            .filter_map(|(other, text)| candidate(PATHS[*other], text).record)
            .collect();
        let user = |record: &Record| format!("{:?}", record.matches[0].user);
        let alone = others.iter().all(|other| other.id != record.id && user(other) != user(&record));
        let free = before.iter().all(|(id, kept)| {
            *id == record.id.value
                || user(&kept.record) != user(&record) && kept.record.file() != Path::new(PATHS[*at])
        });
        let own = before.get(&record.id.value);
        let claimed = own.is_some_and(|kept| {
            let old = kept.record.file();
            old != Path::new(PATHS[*at])
                && world.files.iter().any(|(at, text)| {
                    Path::new(PATHS[*at]) == old && candidate(PATHS[*at], text).record.is_none()
                })
        });
        if alone && free && !claimed && level_of(&record).is_multiple_of(2) {
            let kept = after.set.get(&record.id.value);
            prop_assert!(
                kept.is_some_and(|kept| kept.stale.is_none() && kept.record == record),
                "a good record is kept out"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_ordinary_operation_widens_a_bound_agent(acts in prop::collection::vec(act(), 1..25)) {
        let dir = tempfile::tempdir().unwrap();
        let (mut world, mut set) = (World::default(), Set::new());
        for act in acts {
            match act {
                Act::Write { file, id, user, level } => {
                    world.files.insert(file, text(IDS[id], user, level));
                }
                Act::Typo(file) => {
                    world.files.insert(file, "[agent".to_owned());
                }
                Act::Remove(file) => {
                    world.files.remove(&file);
                }
                Act::Rename(from, to) => {
                    let moved = world.files.remove(&from);
                    world.files.extend(moved.map(|text| (to, text)));
                }
                Act::Unregister(id) => {
                    let id: AgentId = IDS[id].parse().unwrap();
                    let own = set.remove(&id).map(|kept| kept.record.file().to_path_buf());
                    world.files.retain(|at, text| {
                        let record = candidate(PATHS[*at], text).record;
                        match record {
                            Some(record) => record.id.value != id,
                            None => own.as_deref() != Some(Path::new(PATHS[*at])),
                        }
                    });
                }
                Act::Restart => {
                    crate::registry::kept::write(dir.path(), &set).unwrap();
                    let back = crate::registry::kept::read(dir.path());
                    prop_assert!(back.damaged.is_empty(), "{:?}", back.damaged);
                    prop_assert_eq!(&back.set, &set);
                    set = back.set;
                }
                Act::Vanish(vanished) => world.vanished = vanished,
            }
            let disk = world.disk();
            let decision = decided(&disk, &set, &never);
            holds(&world, &set, &decision)?;
            let again = decided(&disk, &decision.set, &never);
            prop_assert_eq!(&again.set, &decision.set, "a second reload changes nothing");
            set = decision.set;
        }
    }
}
