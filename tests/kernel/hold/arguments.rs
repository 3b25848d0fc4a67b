//! An exec is approved with its arguments, all of them: none of them changes on the way from the person's eyes to the program.

use agent_monitor_tests::harness::actor::Actor;
use agent_monitor_tests::harness::case::Verdict;
use serde_json::Value;

use super::desk::{self, Answer, Desk};

/// Numbered arguments, and bytes of the one behind them that somebody changes: many, or one that is long.
const SHAPES: &[(usize, usize)] = &[(300, 4), (0, 2000), (0, 248), (0, 496)];
/// More arguments than the kernel compares.
const TOO_MANY: usize = 9000;
/// Execs while somebody changes the arguments all the time.
const RACES: usize = 60;

fn start(desk: &Desk, act: &str) -> Actor {
    let act = desk.words(act, "args");
    let words: Vec<&str> = act.split(' ').collect();
    Actor::start(&desk.bot, &words)
}

/// The text of the last argument, in a file that the process maps.
fn text(desk: &Desk, bytes: usize, last: char) -> String {
    desk.daemon.setup.scratch.file("open/args/text", &format!("{}{last}", "x".repeat(bytes - 1)))
}

fn shown(asked: &Value) -> Vec<&str> {
    let args = asked["event"]["detail"]["args"].as_array().unwrap();
    args.iter().map(|arg| arg.as_str().unwrap()).collect()
}

/// Unchanged the program runs as it was shown. Changed while it is held, in its last byte, it is another act: it asks
/// again, and does not run by the first answer.
pub(super) fn swapped() -> Verdict {
    let desk = desk::shared();
    for (count, bytes) in SHAPES.iter().copied() {
        desk.prepare("args");
        let file = text(&desk, bytes, 'a');
        let act = format!("run-shared @S/prog {file} {count} tell-arguments");
        let run = start(&desk, &act);
        let asked = desk.wait_for_request();
        let args = shown(&asked);
        assert_eq!((args.len(), args.last().unwrap().len()), (count + 3, bytes), "{asked}");
        assert!(args.last().unwrap().ends_with('a'), "{asked}");
        desk.decide(&asked, Answer::Approve);
        let run = run.finish();
        let told = run.mark("tell-arguments");
        assert_eq!((told.number("count"), told.number("bytes")), (count as u64 + 1, bytes as u64), "{run:?}");

        let run = start(&desk, &act);
        let asked = desk.wait_for_request();
        // In place, as the process sees it: the same file is written, not another one put there.
        text(&desk, bytes, 'b');
        desk.decide(&asked, Answer::Approve);
        let again = desk.wait_for_request();
        assert_ne!(again["digest"], asked["digest"], "{count} arguments, {bytes} bytes");
        assert!(shown(&again).last().unwrap().ends_with('b'), "{again}");
        desk.decide(&again, Answer::Deny);
        let run = run.finish();
        assert!(run.marks.iter().all(|mark| mark.name != "tell-arguments"), "it ran: {run:?}");
        let execs = desk.events(&["--kind", "process.exec"]);
        let last =
            execs.iter().rfind(|event| event["file"]["path"].as_str().is_some_and(|p| p.contains("/args/")));
        assert_eq!(last.unwrap()["verdict"], "deny", "{last:?}");
    }
    Ok(())
}

/// Changed all the time, between what was approved for an hour and something else: never runs what was not approved.
pub(super) fn raced() -> Verdict {
    let desk = desk::shared();
    desk.prepare("args");
    let file = text(&desk, 600, 'a');
    let first = start(&desk, &format!("run-shared @S/prog {file} 0 tell-arguments"));
    let asked = desk.wait_for_request();
    desk.decide_for(&asked, 3600);
    first.finish().all_ok();
    let answers = desk.answering(Answer::Deny);
    let run = start(&desk, &format!("run-racing @S/prog {file} {RACES} tell-arguments")).finish();
    answers.end();
    let told: Vec<&str> =
        run.marks.iter().filter(|m| m.name == "tell-arguments").map(|m| m.facts["end"].as_str()).collect();
    let raced = run.mark("run-racing");
    println!(
        "\n{} ran, {} were killed, {} refused",
        told.len(),
        raced.facts["killed"],
        raced.facts["refused"]
    );
    assert!(told.iter().all(|end| *end == "xxxa"), "ran what nobody approved: {told:?}");
    Ok(())
}

/// What cannot be compared is not held: it is refused, nobody is asked, and the record says why. No arguments at all are
/// arguments like others.
pub(super) fn too_many() -> Verdict {
    let desk = desk::shared();
    desk.prepare("args");
    let file = text(&desk, 4, 'a');
    let run = start(&desk, &format!("run-shared @S/prog {file} {TOO_MANY} tell-arguments")).finish();
    assert_eq!(run.mark("run-shared").facts["status"], "32512", "{run:?}");
    assert_eq!(desk.pending(), Vec::<Value>::new());
    let execs = desk.events(&["--kind", "process.exec", "--verdict", "deny"]);
    let last = execs.last().unwrap();
    let detail = &last["detail"];
    assert_eq!((&detail["args_unread"], &detail["args_truncated"]), (&true.into(), &true.into()), "{last}");
    assert_eq!(detail["argc"], TOO_MANY + 3, "{last}");
    assert_eq!(last["rule"], "scope.exec[0]", "{last}");

    let bare = start(&desk, "run-bare @S/prog");
    let asked = desk.wait_for_request();
    desk.decide(&asked, Answer::Approve);
    // The actor says how it is used, and ends with 2.
    assert_eq!(bare.finish().mark("run-bare").facts["status"], "512");
    Ok(())
}
