//! Pins are taken away under a running daemon, by somebody who is no agent: what they pinned stays in force, they are put back,
//! and the record says so. Who ends enforcement by `detach --force` is obeyed.

use agent_monitor_tests::harness::PATIENCE;
use agent_monitor_tests::harness::case::{Case, Verdict};
use agent_monitor_tests::harness::monitor::Setup;
use agent_monitor_tests::sys::{Arg, call, cstr, num, wait};

use crate::survive::Fixture;

pub(crate) const CASES: &[Case] = &[Case::both("taken_away_under_the_daemon", taken_away)];

/// Removed behind the daemon's back: a link, a map and another link.
const PINS: [&str; 3] = ["link_process_exec", "map_POLICIES", "link_destination_egress"];

fn taken_away() -> Verdict {
    let fixture = Fixture::new(Setup::new());
    let daemon = &fixture.daemon;
    let pins = daemon.setup.bpffs();
    let all_there = || PINS.iter().all(|pin| pins.join(pin).exists());
    let reported = || {
        let output = daemon.cli(&["events", "--kind", "tamper.detached", "-o", "jsonl"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().filter(|line| line.contains(r#""repaired":true"#)).count()
    };
    assert!(all_there(), "the pins that the test is about are not there");
    assert_eq!(reported(), 0, "something is reported although nothing happened");
    PINS.iter().for_each(|pin| std::fs::remove_file(pins.join(pin)).unwrap());
    assert!(wait::until(PATIENCE, all_there), "removed pins are not put back\n{}", daemon.output());
    assert!(wait::until(PATIENCE, || reported() > 0), "nothing is recorded\n{}", daemon.output());
    fixture.holds("after pins were removed");

    let before = reported();
    let mount = cstr(pins.parent().unwrap().to_str().unwrap());
    call(libc::SYS_umount2, &mut [Arg::Str(&mount), num(libc::MNT_DETACH)]).unwrap();
    assert!(wait::until(PATIENCE, all_there), "no pins after the unmount\n{}", daemon.output());
    assert!(wait::until(PATIENCE, || reported() > before), "the unmount is not recorded");
    fixture.holds("after the file system of the pins was unmounted");
    let doctor = daemon.cli(&["doctor"]);
    assert!(doctor.status.success(), "doctor complains although all is put back");
    Ok(())
}
