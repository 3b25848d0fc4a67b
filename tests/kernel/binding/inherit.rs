//! Inheritance: whatever a descendant does to itself, it stays the agent's.

use super::world;
use agent_monitor_tests::harness::actor::Mark;
use agent_monitor_tests::harness::case::Verdict;
use agent_monitor_tests::harness::world::AGENT;

/// Performs acts that end with an open of `F`, perhaps by the unregistered program `OTHER`; the open is the
/// agent's.
pub(super) fn kept(words: &str) -> Verdict {
    let world = world();
    let file = world.fence_file();
    let words: Vec<String> = words
        .split(' ')
        .map(|word| match word {
            "F" => file.clone(),
            "OTHER" => world.stranger.clone(),
            word => word.to_owned(),
        })
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let run = world.act(&words);
    run.all_ok();
    // A daemonised descendant may have been the last to act.
    world.settle_now();
    // The other `open` is the fence of the actor itself.
    let opens = run.marks.iter().filter(|mark| mark.name == "open").map(Mark::pid);
    let opener = opens.into_iter().find(|pid| *pid != run.pid).unwrap_or(run.pid);
    let event = world.feed.expect(words.join(" ")).kind("file.open").path(&file).agent(AGENT).exactly_once();
    assert_eq!(event.pid(), Some(opener), "the pid of the opener");
    world.feed.expect("no event of its own is unattributed").pid(opener).unattributed().never();
    Ok(())
}
