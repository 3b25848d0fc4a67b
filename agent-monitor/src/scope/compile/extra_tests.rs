//! Sessions, grants, shadow agents and flags of a policy: two agents in each.

use std::collections::BTreeSet;

use agent_monitor_ebpf::people::LIFE_RETIRED;
use agent_monitor_ebpf::policy::{holds, permits, verdict_of};
use agent_monitor_ebpf::task::SHADOW;

use super::*;
use crate::attribute::identity::{ALLOWED, REFUSED};
use crate::config::ShadowAct;
use crate::scope::image::{GRANT_INDEX, SESSION_INDEX};

fn record(id: &str, head: &str, scope: &str) -> Record {
    let parsed = parse_scope(scope, Path::new("x.toml"));
    let mut record = parsed.record.unwrap_or_else(|| panic!("{scope}\n{:?}", parsed.diagnostics));
    record.id.value = id.parse().unwrap();
    record.mode.value = if head.contains("observe") { Mode::Observe } else { Mode::Enforce };
    record.on_daemon_loss = if head.contains("wait") { OnDaemonLoss::Wait } else { OnDaemonLoss::Deny };
    record
}

fn scope(text: &str) -> Scope {
    parse_scope(text, Path::new("x.toml")).record.unwrap().scope
}

fn compiled(records: &[Record], extras: &[Extra]) -> (Compiled, u32, u32) {
    let mut agents = Agents::default();
    agents.register([("bot", crate::model::Mode::Enforce), ("cat", crate::model::Mode::Enforce)]);
    let mounts = MountTable::parse(MOUNTS);
    let host = &mut Host { mounts: &mounts, links: &[] };
    let compiled = compile(records, extras, &agents, host, &Protected::default());
    (compiled, agents.index("bot").unwrap(), agents.index("cat").unwrap())
}

fn grant(agent: &str, id: u32, session: u64) -> Extra {
    Extra {
        agent: agent.to_owned(),
        index: GRANT_INDEX + id,
        label: format!("grant {id}"),
        scope: scope("[scope]\n[[scope.file]]\npath = \"/srv/x\"\naccess = \"write\"\n"),
        grant: Some(GrantOf { id: u64::from(id), session }),
    }
}

#[test]
fn a_grant_is_of_its_agent_and_of_its_session() {
    let records = [record("bot", "", "[scope]\n"), record("cat", "", "[scope]\n")];
    let extras = [grant("bot", 1, 0), grant("cat", 2, 0), grant("bot", 3, 5), grant("nobody", 4, 0)];
    let (compiled, bot, cat) = compiled(&records, &extras);
    let entry =
        |id: u32, session| GrantEntry { id: u64::from(id), session, policy: GRANT_INDEX + id, reserved: 0 };
    assert_eq!(compiled.image.grants[&bot], [entry(1, 0), entry(3, 5)]);
    assert_eq!(compiled.image.grants[&cat], [entry(2, 0)]);
    assert!(!compiled.image.agents.contains_key(&(GRANT_INDEX + 4)), "of an agent that is not");
    assert!(compiled.image.agents.contains_key(&(GRANT_INDEX + 3)));
    // Rules are numbered on behind those of the agent, and named by what they belong to.
    let names = &compiled.image.agents[&bot].rules;
    assert_eq!(
        names,
        &[
            "scope.default",
            "grant 1 scope.default",
            "grant 1 scope.file[0]",
            "grant 3 scope.default",
            "grant 3 scope.file[0]"
        ]
    );
    assert_eq!(compiled.image.agents[&cat].rules.len(), 3);
    let third = &compiled.image.agents[&(GRANT_INDEX + 3)];
    assert_eq!(usize::from(agent_monitor_ebpf::policy::rule_of(third.policy.net)), 3);
}

#[test]
fn a_session_with_its_own_scope_is_no_grant() {
    let session =
        Extra { index: SESSION_INDEX + 1, label: "session".to_owned(), grant: None, ..grant("bot", 1, 0) };
    let (compiled, bot, _) = compiled(&[record("bot", "observe", "[scope]\n")], &[session]);
    assert!(compiled.image.grants.is_empty());
    let flags = |index| compiled.image.agents[&index].policy.flags & POLICY_ENFORCE;
    assert_eq!((flags(SESSION_INDEX + 1), flags(bot)), (POLICY_ENFORCE, 0));
}

#[test]
fn so_many_grants_and_no_more() {
    let records = [record("bot", "", "[scope]\n"), record("cat", "", "[scope]\n")];
    let count = u32::try_from(GRANTS).unwrap();
    let mut extras: Vec<Extra> = (1..=count).map(|id| grant("bot", id, 0)).collect();
    let (full, bot, _) = compiled(&records, &extras);
    assert_eq!((full.image.grants[&bot].len(), full.notes.len()), (GRANTS, 0));
    extras.push(grant("bot", count + 1, 0));
    extras.push(grant("cat", count + 2, 0));
    let (over, bot, cat) = compiled(&records, &extras);
    assert_eq!((over.image.grants[&bot].len(), over.image.grants[&cat].len()), (GRANTS, 1));
    assert!(over.notes.len() == 1 && over.notes[0].contains("grant 17"), "{:?}", over.notes);
}

#[test]
fn flags_say_what_the_record_says() {
    let flags = |head: &str, text: &str| {
        let (compiled, bot, _) = compiled(&[record("bot", head, text)], &[]);
        // Whether the scope limits the network is a question of its own.
        compiled.image.agents[&bot].policy.flags & !POLICY_NET_LIMITED
    };
    let plain = "[scope]\n";
    assert_eq!(flags("", plain), POLICY_ENFORCE);
    assert_eq!(flags("observe", plain), 0, "what is only observed is not enforced");
    assert_eq!(flags("wait", plain), POLICY_ENFORCE | POLICY_HOLD_WAITS);
    assert_eq!(flags("", ""), 0, "nor is a scope that is not declared");
    let bpf =
        |verdict: &str| format!("[scope]\n[[scope.privilege]]\nkind = \"bpf\"\nverdict = \"{verdict}\"\n");
    assert_eq!(flags("", &bpf("allow")), POLICY_ENFORCE | POLICY_MAY_BPF);
    assert_eq!(flags("", &bpf("deny")), POLICY_ENFORCE, "a rule that refuses gives no right");
    let rule = |path: &str| format!("[scope]\n[[scope.file]]\npath = \"{path}\"\naccess = \"read\"\n");
    for (path, flag) in [("/srv/x", POLICY_EXACT), ("**/x", POLICY_NAME), ("**/*.x", 0), ("/srv/**", 0)] {
        assert_eq!(flags("", &rule(path)) & (POLICY_EXACT | POLICY_NAME), flag, "{path}");
    }
    let net = |to: &str| format!("[scope]\n[[scope.net]]\nto = \"{to}\"\n");
    for (to, flag) in
        [("unix:@x", POLICY_ABSTRACT), ("vsock:3:5", POLICY_VSOCK), ("10.0.0.0/8:443/tcp", POLICY_NET)]
    {
        assert_eq!(flags("", &net(to)), POLICY_ENFORCE | flag, "{to}");
    }
}

#[test]
fn what_cannot_be_judged_is_decided_as_the_record_says() {
    let unknown = |text: &str| {
        let (compiled, bot, _) = compiled(&[record("bot", "", text)], &[]);
        compiled.image.agents[&bot].policy.unknown
    };
    let is = |found: u32, verdict: agent_monitor_ebpf::Verdict| verdict_of(found) == verdict as u8;
    assert!(is(unknown("[scope]\nunknown = \"allow\"\n"), agent_monitor_ebpf::Verdict::Allow));
    assert!(is(
        unknown("[scope]\nunknown = \"deny\"\ndefault = \"allow\"\n"),
        agent_monitor_ebpf::Verdict::Deny
    ));
    assert!(permits(unknown("")), "without a declared scope it is only recorded");
}

#[test]
fn of_several_rules_about_a_privilege_the_strictest_decides_whatever_their_order() {
    let of = |verdicts: [&str; 2]| {
        let rule =
            |verdict: &str| format!("[[scope.privilege]]\nkind = \"mount\"\nverdict = \"{verdict}\"\n");
        let text = |verdict: &str| format!("[scope]\ndefault = \"audit\"\n{}", rule(verdict));
        let mut both = record("bot", "", &text(verdicts[0]));
        both.scope.privilege.extend(scope(&text(verdicts[1])).privilege);
        let (compiled, bot, _) = compiled(&[both], &[]);
        compiled.image.agents[&bot].policy.privilege
    };
    for (verdicts, rule) in [(["deny", "allow"], 1), (["allow", "deny"], 2)] {
        let privilege = of(verdicts);
        let found = privilege[power::MOUNT];
        assert_eq!((permits(found), agent_monitor_ebpf::policy::rule_of(found)), (false, rule));
        assert!(permits(privilege[power::SETUID]), "another one keeps the default");
    }
}

#[test]
fn known_programs_are_held_denied_or_ended_as_the_policy_asks() {
    let mounts = MountTable::parse(MOUNTS);
    let of = |act| {
        let mut compiled = Compiled::default();
        compiled.add_shadows(act, &mut Host { mounts: &mounts, links: &[] }, &Protected::default());
        compiled.image.agents
    };
    assert!(of(ShadowAct::Off).is_empty() && of(ShadowAct::Audit).is_empty());
    for act in [ShadowAct::Hold, ShadowAct::Deny, ShadowAct::Kill] {
        let agents = of(act);
        assert_eq!(
            agents.keys().copied().collect::<BTreeSet<_>>(),
            BTreeSet::from([SHADOW, ALLOWED, REFUSED])
        );
        let root = |index: u32| agents[&index].policy.root[slot::WRITE];
        assert_eq!((holds(root(SHADOW)), permits(root(SHADOW))), (act == ShadowAct::Hold, false));
        assert!(permits(root(ALLOWED)) && !permits(root(REFUSED)) && !holds(root(REFUSED)));
        let flags = |index: u32| agents[&index].policy.flags & POLICY_ENFORCE != 0;
        assert!(flags(SHADOW) && flags(REFUSED) && !flags(ALLOWED));
        let retired = |index: u32| agents[&index].policy.life == LIFE_RETIRED;
        assert_eq!((retired(SHADOW), retired(REFUSED)), (act == ShadowAct::Kill, false));
        let more = agents[&SHADOW].places.len() > agents[&REFUSED].places.len();
        assert_eq!(more, act == ShadowAct::Hold, "what it needs to start");
    }
}
