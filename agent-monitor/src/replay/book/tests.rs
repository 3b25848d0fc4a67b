//! Tests of the answers outside the kernel.

use std::path::Path;

use agent_monitor_ebpf::policy::{NET_CONNECT, ask, power};

use super::*;
use crate::attribute::Agents;
use crate::attribute::mounts::Location;
use crate::model::Mode;
use crate::registry::parse::parse_scope;
use crate::scope::compile::{MountPlace, Places, Protected, compile};

const MOUNTS: &[u8] = b"22 1 254:1 / / rw - ext4 /dev/vda1 rw\n30 22 254:2 / /srv rw - xfs /dev/vdb rw\n";

/// A host without symbolic links.
struct Plain<'a>(&'a MountTable);

impl Places for Plain<'_> {
    fn canonical(&mut self, path: &[u8]) -> Vec<u8> {
        path.to_vec()
    }
    fn locate(&mut self, canonical: &[u8]) -> Option<Location> {
        self.0.locate(canonical)
    }
    fn mounts(&mut self) -> Vec<MountPlace> {
        self.0.places().into_iter().map(|(on, shows)| MountPlace { on, shows }).collect()
    }
}

/// A `[scope]` as it would stand in the kernel.
pub(crate) fn book(text: &str) -> ImageBook {
    let parsed = parse_scope(text, Path::new("x.toml"));
    let record = parsed.record.unwrap_or_else(|| panic!("{text}\n{:?}", parsed.diagnostics));
    let mut agents = Agents::default();
    agents.register([(record.id.value.as_str(), Mode::Enforce)]);
    let mounts = MountTable::parse(MOUNTS);
    let compiled = compile(&[record], &[], &agents, &mut Plain(&mounts), &Protected::default());
    let image = compiled.image.agents.into_values().next().unwrap();
    ImageBook::new(image, mounts)
}

#[test]
fn the_most_specific_rule_decides_per_access() {
    let mut book = book(
        "[scope]\n[[scope.file]]\npath = \"/srv/**\"\naccess = [\"read\", \"write\"]\n\
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
    let mut book = book("[scope]\n[[scope.file]]\npath = \"/srv/**\"\naccess = [\"read\"]\n");
    assert!(book.place("/srv/x", Some("254:2"), ask::READ, false).is_ok());
    let why = book.place("/srv/x", Some("254:1"), ask::READ, false).unwrap_err();
    assert_eq!(why, "another file system is mounted there now (254:1 then, 254:2 now)");
}

#[test]
fn peers_and_powers() {
    let mut book = book(
        "[scope]\n[[scope.net]]\nto = \"10.0.0.0/8:443/tcp\"\n\
         [[scope.net]]\nto = \"10.1.0.0/16\"\nverdict = \"deny\"\n\
         [[scope.net]]\nto = \"[2001:db8::/32]:443\"\n\
         [[scope.net]]\nto = \"unix:@bus\"\n\
         [[scope.privilege]]\nkind = \"capability\"\ncapabilities = [\"CAP_CHOWN\"]\n\
         [[scope.privilege]]\nkind = \"ptrace\"\n",
    );
    let mut net = |addr: &str, port, protocol| {
        book.net(addr.parse().unwrap(), port, protocol, NET_CONNECT).unwrap().rule
    };
    assert_eq!(net("10.2.0.1", 443, 6), "scope.net[0]");
    assert_eq!(net("10.2.0.1", 443, 17), "scope.default");
    assert_eq!(net("10.1.0.1", 443, 6), "scope.net[1]");
    assert_eq!(net("2001:db8::7", 443, 6), "scope.net[2]");
    assert_eq!(net("2001:db9::7", 443, 6), "scope.default");
    assert!(book.unix_abstract(b"bus", ask::UNIX_CONNECT).unwrap().verdict.permits());
    assert!(!book.unix_abstract(b"bus", ask::UNIX_BIND).unwrap().verdict.permits());
    assert!(book.capability(0).unwrap().verdict.permits() && !book.capability(1).unwrap().verdict.permits());
    assert!(book.power(power::PTRACE).unwrap().verdict.permits());
    assert!(!book.power(power::MOUNT).unwrap().verdict.permits());
}
