//! Tests of the answers for host paths.

use std::path::Path;

use agent_monitor_ebpf::policy::{ask, power};

use super::*;
use crate::registry::parse::parse_record;

const MOUNTS: &[u8] = b"22 1 254:1 / / rw - ext4 /dev/vda1 rw\n30 22 254:2 / /srv rw - xfs /dev/vdb rw\n";

fn book(text: &str) -> ScopeBook {
    let agent = "\n[agent]\nid = \"a\"\nowner = \"o@example.com\"\npurpose = \"p\"\nexpires = 2099-01-01T00:00:00Z\n\
        [[match]]\nlaunch = true\n";
    let parsed = parse_record(&format!("[scope]\n{text}{agent}"), Path::new("x.toml"));
    let scope = parsed.record.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics)).scope;
    ScopeBook::new(&scope, &[], MountTable::parse(MOUNTS))
}

#[test]
fn the_most_specific_rule_decides_per_access() {
    let mut book = book(
        "[[scope.file]]\npath = \"/srv/**\"\naccess = [\"read\", \"write\"]\n\
         [[scope.file]]\npath = \"/srv/a/**\"\naccess = [\"write\"]\nverdict = \"deny\"\n\
         [[scope.file]]\npath = \"**/*.pem\"\naccess = [\"read\"]\nverdict = \"hold\"\n\
         [[scope.exec]]\npath = \"/usr/bin/git\"\n",
    );
    let mut at = |path: &str, asked| {
        let opinion = book.place(path, None, asked, false).unwrap();
        (opinion.verdict, opinion.rule)
    };
    let is = |verdict, rule: &str| (verdict, rule.to_owned());
    assert_eq!(at("/srv/a/x", ask::READ), is(Verdict::Allow, "scope.file[0]"));
    assert_eq!(at("/srv/a/x", ask::WRITE), is(Verdict::Deny, "scope.file[1]"));
    assert_eq!(at("/srv/b", ask::WRITE), is(Verdict::Allow, "scope.file[0]"));
    assert_eq!(at("/srv/a/k.pem", ask::READ), is(Verdict::Hold, "scope.file[2]"));
    assert_eq!(at("/etc/x", ask::READ), is(Verdict::Deny, "scope.default"));
    assert_eq!(at("/usr/bin/git", ask::EXEC), is(Verdict::Allow, "scope.exec[0]"));
    assert_eq!(
        at("/usr/bin/git", ask::MAP),
        is(Verdict::Allow, "scope.exec[0]"),
        "what may run may be mapped"
    );
    let moved = book.place("/srv", None, ask::WRITE, true).unwrap();
    assert_eq!(moved.rule, "scope.file[1]", "what lies below counts");
}

#[test]
fn a_place_on_another_file_system_is_not_judged() {
    let mut book = book("[[scope.file]]\npath = \"/srv/**\"\naccess = [\"read\"]\n");
    assert!(book.place("/srv/x", Some("254:2"), ask::READ, false).is_ok());
    let why = book.place("/srv/x", Some("254:1"), ask::READ, false).unwrap_err();
    assert_eq!(why, "another file system is mounted there now (254:1 then, 254:2 now)");
}

#[test]
fn peers_and_powers() {
    let mut book = book(
        "[[scope.net]]\nto = \"10.0.0.0/8:443/tcp\"\n\
         [[scope.net]]\nto = \"10.1.0.0/16\"\nverdict = \"deny\"\n\
         [[scope.net]]\nto = \"api.example.com\"\n\
         [[scope.net]]\nto = \"unix:@bus\"\n\
         [[scope.privilege]]\nkind = \"capability\"\ncapabilities = [\"CAP_CHOWN\"]\n\
         [[scope.privilege]]\nkind = \"ptrace\"\n",
    );
    let mut net =
        |addr: [u8; 4], port, protocol| book.net(addr.into(), port, protocol, NET_CONNECT).unwrap().rule;
    assert_eq!(net([10, 2, 0, 1], 443, 6), "scope.net[0]");
    assert_eq!(net([10, 2, 0, 1], 443, 17), "scope.default");
    assert_eq!(net([10, 1, 0, 1], 443, 6), "scope.net[1]");
    assert_eq!(book.left_out, ["scope.net[2]: host names are not followed"]);
    assert!(book.unix_abstract(b"bus", ask::UNIX_CONNECT).unwrap().verdict.permits());
    assert!(!book.unix_abstract(b"bus", ask::UNIX_BIND).unwrap().verdict.permits());
    assert!(book.capability(0).unwrap().verdict.permits() && !book.capability(1).unwrap().verdict.permits());
    assert!(book.power(power::PTRACE).unwrap().verdict.permits());
    assert!(!book.power(power::MOUNT).unwrap().verdict.permits());
}
