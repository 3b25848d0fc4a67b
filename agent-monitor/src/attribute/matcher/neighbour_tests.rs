//! Each condition by itself: what fits, and its neighbour that does not.

use super::*;

const ID: FileId = FileId { ino: 4, ctime_sec: 5, ctime_nsec: 6 };

fn rule() -> Rule {
    Rule {
        agent: 1,
        rank: MatchRank { conditions: 1, strongest: 1 },
        exe: None,
        script: None,
        argv: None,
        uid: None,
        cgroup: None,
        unit: None,
        container: None,
        file: None,
        late: false,
    }
}

fn paths(path: &str) -> Option<BTreeSet<Vec<u8>>> {
    Some([path.as_bytes().to_vec()].into())
}

fn argv(patterns: &[&str]) -> Option<ArgvPattern> {
    Some(ArgvPattern::new(patterns.iter().map(ToString::to_string).collect()).unwrap())
}

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn fits(rule: Rule, facts: Facts<'_>) -> bool {
    Matcher::new(vec![rule]).find(&facts).is_some()
}

#[test]
fn the_strongest_condition_names_a_rule() {
    let rows = [
        (Rule { script: paths("/s"), exe: paths("/e"), argv: argv(&["a"]), ..rule() }, BoundBy::Script, true),
        (Rule { exe: paths("/e"), unit: text("u.service"), ..rule() }, BoundBy::Exe, true),
        (Rule { exe: paths("/e"), argv: argv(&["a"]), ..rule() }, BoundBy::Argv, true),
        (Rule { argv: argv(&["a"]), container: text("c"), ..rule() }, BoundBy::Argv, true),
        (Rule { container: text("c"), unit: text("u.service"), ..rule() }, BoundBy::Container, false),
        (Rule { unit: text("u.service"), cgroup: text("/c"), ..rule() }, BoundBy::Unit, false),
        (Rule { cgroup: text("/c"), uid: Some(1), ..rule() }, BoundBy::Cgroup, false),
        (Rule { uid: Some(1), ..rule() }, BoundBy::User, false),
    ];
    for (rule, by, program) in rows {
        assert_eq!((rule.by(), rule.names_program()), (by, program), "{rule:?}");
    }
}

#[test]
fn each_condition_must_hold_by_itself() {
    let args = [b"node".to_vec(), b"x".to_vec()];
    let facts = Facts {
        exe: Some(b"/e"),
        script: Some(b"/s"),
        args: &args,
        uid: 5,
        cgroup: Some("/a/b"),
        exe_id: Some(ID),
        script_id: Some(FileId { ino: 9, ..ID }),
    };
    for (good, bad) in [
        (Rule { exe: paths("/e"), ..rule() }, Rule { exe: paths("/s"), ..rule() }),
        (Rule { script: paths("/s"), ..rule() }, Rule { script: paths("/e"), ..rule() }),
        (Rule { argv: argv(&["node", "x"]), ..rule() }, Rule { argv: argv(&["node", "y"]), ..rule() }),
        (Rule { uid: Some(5), ..rule() }, Rule { uid: Some(6), ..rule() }),
        (Rule { cgroup: text("/a"), ..rule() }, Rule { cgroup: text("/b"), ..rule() }),
        (
            Rule { exe: paths("/e"), file: Some(ID), ..rule() },
            Rule { exe: paths("/e"), file: facts.script_id, ..rule() },
        ),
        // A verified script is the script, not the interpreter that runs it.
        (
            Rule { script: paths("/s"), file: facts.script_id, ..rule() },
            Rule { script: paths("/s"), file: Some(ID), ..rule() },
        ),
    ] {
        assert!(fits(good.clone(), facts) && !fits(bad.clone(), facts), "{good:?} {bad:?}");
    }
    let nothing = Facts { exe: None, script: None, cgroup: None, ..facts };
    assert!(!fits(Rule { exe: paths("/e"), ..rule() }, nothing));
    assert!(!fits(Rule { cgroup: text("/a"), ..rule() }, nothing));
    assert!(fits(rule(), nothing), "a rule without a place asks for none");
}

#[test]
fn places_in_the_hierarchy() {
    let at =
        |rule: &Rule, cgroup: &str| fits(rule.clone(), Facts { cgroup: Some(cgroup), ..Facts::default() });
    let group = Rule { cgroup: text("/a/b/"), ..rule() };
    assert!(at(&group, "/a/b") && at(&group, "/a/b/c") && !at(&group, "/a/bc") && !at(&group, "/a"));
    let unit = Rule { unit: text("bot.service"), ..rule() };
    assert!(at(&unit, "/system.slice/bot.service") && at(&unit, "/system.slice/bot.service/x.scope"));
    assert!(!at(&unit, "/system.slice/other.service") && !at(&unit, "/bot.service.d"));
    assert!(!at(&unit, "/user.slice/user-1.slice/user@1.service/app.slice/bot.service"));
    let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let container = Rule { container: text("0123456789ab"), ..rule() };
    assert!(at(&container, &format!("/docker/{id}")) && !at(&container, &format!("/docker/f{}", &id[1..])));
    assert!(!at(&container, "/docker"));
    // Two places at once: both.
    let both = Rule { cgroup: text("/system.slice"), ..unit };
    assert!(at(&both, "/system.slice/bot.service") && !at(&both, "/x.slice/bot.service"));
}

#[test]
fn the_closest_rule_of_a_program_is_found_before_one_of_a_place() {
    let place = Rule {
        agent: 1,
        uid: Some(5),
        cgroup: text("/a"),
        rank: MatchRank { conditions: 2, strongest: 1 },
        ..rule()
    };
    let exe = Rule { agent: 2, exe: paths("/e"), ..rule() };
    let other = Rule { agent: 3, exe: paths("/other"), ..rule() };
    let matcher = Matcher::new(vec![other, exe.clone(), place.clone()]);
    let facts = Facts { exe: Some(b"/e"), uid: 5, cgroup: Some("/a"), ..Facts::default() };
    assert_eq!(matcher.find(&facts).map(|rule| rule.agent), Some(1));
    assert_eq!(matcher.find_program(&facts).map(|rule| rule.agent), Some(2));
    assert_eq!(matcher.find_program(&Facts { exe: None, ..facts }), None);
    assert!(!matcher.has_late() && !matcher.needs_files());
    assert!(Matcher::new(vec![place.clone(), Rule { late: true, ..exe.clone() }]).has_late());
    assert!(Matcher::new(vec![place, Rule { file: Some(ID), ..exe }]).needs_files());
}

#[test]
fn what_only_user_space_compares_may_claim_its_own_programs() {
    let names = [b"/opt/tool/tool.js".to_vec(), b"/usr/bin/tool".to_vec()];
    let claims = |rule: Rule| Matcher::new(vec![Rule { late: true, ..rule }]).may_claim(&names);
    assert!(claims(Rule { exe: paths("/usr/bin/tool"), ..rule() }));
    assert!(!claims(Rule { exe: paths("/usr/bin/other"), ..rule() }));
    assert!(claims(Rule { script: paths("/opt/tool/tool.js"), argv: argv(&["x"]), ..rule() }));
    assert!(claims(Rule { script: paths("/opt/tool/tool.js"), exe: paths("/usr/bin/node"), ..rule() }));
    assert!(!claims(Rule { script: paths("/srv/other.js"), exe: paths("/usr/bin/node"), ..rule() }));
    for (patterns, may) in [
        (&["/usr/bin/tool"][..], true),
        (&["/usr/bin/other"], false),
        (&["node", "/opt/tool/*.js", "run"], true),
        (&["node", "/opt/other/*.js", "run"], false),
        (&["node", "/opt/tool/*.js", "/srv/x.json"], false),
        (&["perl", "/opt/tool/*.js"], false),
        (&["env", "other.js"], false),
    ] {
        assert_eq!(claims(Rule { argv: argv(patterns), ..rule() }), may, "{patterns:?}");
    }
}
