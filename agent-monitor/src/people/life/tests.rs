//! Tests of lives and off-boarding.

use std::fs;

use super::offboard::carry_out;
use super::*;
use crate::people::tests::{Bench, at, bench};
use crate::people::who::Directory as _;
use crate::people::who::fake::FakeDirectory;
use crate::registry::record::Offboarding;
use crate::registry::source::{Located, Position};

fn set(bench: &mut Bench, to: LifeState) -> Result<LifeRow, LifeError> {
    let by = FakeDirectory.person(100);
    bench.people.set_life("bot", to, Some(&by), "because", at(2), &mut bench.done)
}

#[test]
fn lives_go_forwards_only() {
    let mut bench = bench();
    assert_eq!(bench.people.life("bot").unwrap(), None);
    assert!(set(&mut bench, LifeState::Active).is_err(), "nothing to resume");
    let suspended = set(&mut bench, LifeState::Suspended).unwrap();
    assert_eq!((suspended.state, suspended.by.as_deref()), (LifeState::Suspended, Some("ann")));
    assert!(set(&mut bench, LifeState::Suspended).is_err());
    set(&mut bench, LifeState::Active).unwrap();
    set(&mut bench, LifeState::Expired).unwrap();
    assert!(set(&mut bench, LifeState::Suspended).is_err());
    set(&mut bench, LifeState::Active).unwrap();
    set(&mut bench, LifeState::Retired).unwrap();
    for to in [LifeState::Active, LifeState::Suspended, LifeState::Expired, LifeState::Retired] {
        let error = set(&mut bench, to).unwrap_err();
        assert!(error.to_string().contains("is retired"), "{error}");
    }
    assert_eq!(bench.people.retired().unwrap().into_iter().collect::<Vec<_>>(), ["bot"]);
    let kinds = bench.take().1;
    assert_eq!(
        kinds,
        [
            Kind::AgentSuspended,
            Kind::AgentResumed,
            Kind::AgentExpired,
            Kind::AgentResumed,
            Kind::AgentRetired
        ]
    );
}

#[test]
fn activity_never_goes_back() {
    let mut bench = bench();
    bench.people.set_active([("bot", at(9).wall)].into_iter(), at(9)).unwrap();
    bench.people.set_active([("bot", at(5).wall)].into_iter(), at(9)).unwrap();
    assert_eq!(bench.people.life("bot").unwrap().unwrap().active, Some(at(9).wall));
}

#[test]
fn off_boarding_leaves_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("token"), "secret").unwrap();
    fs::write(path("kept"), "not mine").unwrap();
    std::os::unix::fs::symlink(path("kept"), path("link")).unwrap();
    fs::create_dir(path("directory")).unwrap();
    let at_start = |text: String| Located::new(text, Position::FILE);
    let offboarding = Offboarding {
        remove_files: ["token", "link", "directory", "missing"].map(|name| at_start(path(name))).to_vec(),
        disable_units: Vec::new(),
        manual: vec![at_start("revoke the key at the provider".to_owned())],
    };
    let steps = carry_out(&offboarding);
    let results: Vec<_> = steps.iter().map(|step| step.result).collect();
    assert_eq!(results, ["done", "done", "failed", "absent", "open"]);
    let sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    assert_eq!(steps[0].sha256.as_deref(), Some(sha256));
    assert!(!fs::exists(path("token")).unwrap() && !fs::exists(path("link")).unwrap());
    assert_eq!(fs::read_to_string(path("kept")).unwrap(), "not mine", "what a link leads to stays");
    let mut bench = bench();
    let by = FakeDirectory.person(100);
    bench.people.keep_steps("bot", &steps, Some(&by), at(3), &mut bench.done).unwrap();
    assert_eq!(bench.take().1, [Kind::AgentOffboarded; 5]);
    let confirm = |bench: &mut Bench, number| {
        bench.people.confirm_step("bot", number, &by, Some("ticket 7"), at(4), &mut bench.done).unwrap()
    };
    assert_eq!(confirm(&mut bench, 1), None, "only a person's step is confirmed");
    assert_eq!(confirm(&mut bench, 5).unwrap().result, "done");
    assert_eq!(confirm(&mut bench, 5), None, "once");
    let kept = bench.people.steps("bot").unwrap();
    assert_eq!((kept.len(), kept[4].by.as_deref()), (5, Some("ann")));
}
