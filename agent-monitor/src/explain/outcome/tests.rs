//! Every cell of the table, written down from the documentation, not from the code.

use super::*;

const VERDICTS: [Verdict; 5] = [Verdict::Allow, Verdict::Audit, Verdict::Hold, Verdict::Deny, Verdict::Kill];
const LEVELS: [Option<Level>; 4] = [None, Some(Level::None), Some(Level::Partial), Some(Level::Full)];

/// What the text of a cell must say, in words that only this outcome has.
fn expected(verdict: Verdict, act: Act, at: Circumstances) -> &'static [&'static str] {
    let nobody = at.approver == Approver::Nobody;
    match (verdict, at.enforced, at.level) {
        (Verdict::Allow, ..) => &["it is allowed"],
        (Verdict::Audit, ..) => &["it is allowed", "verdict audit"],
        (Verdict::Hold, false, _) => &["it is allowed", "verdict hold", "only observed"],
        (Verdict::Deny, false, _) => &["it is allowed", "verdict deny", "only observed"],
        (Verdict::Kill, false, _) => &["it is allowed", "verdict kill", "only observed"],
        (_, true, None) => &["not known"],
        (_, true, Some(Level::None)) => &["it is allowed", "level none"],
        (Verdict::Deny, true, Some(Level::Full)) => &["refused with EACCES", "level full"],
        (Verdict::Kill, true, Some(Level::Full)) => &["refused with EACCES", "killed", "level full"],
        (Verdict::Hold, true, Some(Level::Full)) => match (act.wait, nobody) {
            (Wait::Restarts, false) => &["held inside its system call", "approved, the same call continues"],
            (Wait::Restarts, true) => &["held inside its system call", "nobody may approve", "EACCES"],
            (_, false) => &["refused with EACCES", "approval is requested", "next try"],
            (_, true) => &["refused with EACCES", "nobody may approve"],
        },
        (_, true, Some(Level::Partial)) => match (act.partial, verdict, nobody) {
            (AtPartial::Refuses, Verdict::Hold, false) => {
                &["refused with EPERM", "approval is requested", "next try"]
            }
            (AtPartial::Refuses, Verdict::Hold, true) => &["refused with EPERM", "nobody may approve"],
            (AtPartial::Refuses, Verdict::Kill, _) => &["refused with EPERM", "killed"],
            (AtPartial::Refuses, _, _) => &["refused with EPERM", "level partial"],
            (AtPartial::KillsAfter, Verdict::Kill, _) => &["not refused", "killed"],
            _ => &["it is allowed", "level partial cannot refuse it"],
        },
    }
}

/// Words that must not be in the text of a cell: the promise of another one.
fn forbidden(verdict: Verdict, at: Circumstances) -> Vec<&'static str> {
    let mut never = vec!["nobody can approve yet"];
    if verdict != Verdict::Hold {
        never.extend(["held", "approv"]);
    }
    if at.approver == Approver::Present {
        never.push("nobody may approve");
    }
    if verdict != Verdict::Kill {
        never.push("killed");
    }
    never
}

#[test]
fn every_cell_says_what_happens_and_nothing_else() {
    let mut cells = 0;
    for verdict in VERDICTS {
        for level in LEVELS {
            for enforced in [false, true] {
                for approver in [Approver::Present, Approver::Nobody] {
                    for wait in [Wait::Restarts, Wait::Refused, Wait::NotJudged] {
                        for partial in [AtPartial::Refuses, AtPartial::KillsAfter, AtPartial::Records] {
                            let (act, at) =
                                (Act { wait, partial }, Circumstances { level, enforced, approver });
                            let text = outcome(verdict, act, at).text(level);
                            let cell = format!("{verdict:?} {act:?} {at:?}: {text}");
                            for part in expected(verdict, act, at) {
                                assert!(text.contains(part), "`{part}` is missing in {cell}");
                            }
                            for part in forbidden(verdict, at) {
                                assert!(!text.contains(part), "`{part}` is in {cell}");
                            }
                            cells += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(cells, 5 * 4 * 2 * 2 * 3 * 3);
}

#[test]
fn questions_have_the_row_of_their_kind() {
    let file = |access| Act::of(&Question::File(access, "/a".to_owned()));
    assert_eq!(file(FileAccess::Read), Act { wait: Wait::Restarts, partial: AtPartial::KillsAfter });
    assert_eq!(file(FileAccess::Delete).partial, AtPartial::Records);
    assert_eq!(file(FileAccess::ExecuteMap).wait, Wait::Refused);
    let peer = |action| {
        let addr = std::net::IpAddr::from([10, 0, 0, 1]);
        Act::of(&Question::Peer(action, addr, 443, crate::scope::Protocol::Tcp))
    };
    assert_eq!(peer(NetAction::Connect), Act { wait: Wait::Restarts, partial: AtPartial::Refuses });
    assert_eq!(peer(NetAction::Listen).partial, AtPartial::Records);
    let unix = Act::of(&Question::UnixPath(NetAction::Connect, "/run/x".to_owned()));
    assert_eq!(unix.partial, AtPartial::Records, "cgroup programs see internet sockets only");
    for (kind, wait) in [
        (PrivilegeKind::Mount, Wait::Restarts),
        (PrivilegeKind::Setuid, Wait::Restarts),
        (PrivilegeKind::Userns, Wait::Refused),
        (PrivilegeKind::Module, Wait::Refused),
        (PrivilegeKind::RawSocket, Wait::Refused),
    ] {
        assert_eq!(Act::of(&Question::Power(kind)).wait, wait, "{kind:?}");
    }
}
