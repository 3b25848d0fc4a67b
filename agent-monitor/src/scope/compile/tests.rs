//! Compiled scopes: what the kernel's tables would answer, asked outside the kernel.

use std::path::Path;

use agent_monitor_ebpf::policy::{NET_CONNECT, NET_RULES, ask};

use super::*;
use crate::attribute::MountTable;
use crate::attribute::mounts::kernel_dev;
use crate::registry::parse::parse_scope;
use crate::replay::Rulebook as _;
use crate::replay::book::ImageBook;

#[path = "oracle_tests.rs"]
mod oracle;

/// `/srv` and `/srv/a/b` are file systems of their own, `/mnt/data` is `/opt/data` again, `/home` a part of a larger
/// one that is not seen otherwise.
pub(super) const MOUNTS: &[u8] = b"22 1 254:1 / / rw - ext4 /dev/vda1 rw\n\
    30 22 254:2 / /srv rw - xfs /dev/vdb rw\n\
    31 30 0:60 / /srv/a/b rw - tmpfs tmpfs rw\n\
    32 22 254:1 /opt/data /mnt/data rw - ext4 /dev/vda1 rw\n\
    33 22 0:40 /@home /home rw - btrfs /dev/vdc rw\n";

/// A host with these mounts and links.
pub(super) struct Host<'a> {
    pub(super) mounts: &'a MountTable,
    pub(super) links: &'a [(&'a str, &'a str)],
}

impl Places for Host<'_> {
    fn canonical(&mut self, path: &[u8]) -> Vec<u8> {
        for (link, target) in self.links {
            if let Some(rest) = path.strip_prefix(link.as_bytes())
                && rest.first().is_none_or(|byte| *byte == b'/')
            {
                return [target.as_bytes(), rest].concat();
            }
        }
        path.to_vec()
    }
    fn locate(&mut self, canonical: &[u8]) -> Option<Location> {
        self.mounts.locate(canonical)
    }
    fn mounts(&mut self) -> Vec<MountPlace> {
        self.mounts.places().into_iter().map(|(on, shows)| MountPlace { on, shows }).collect()
    }
}

/// Compiles one scope; the notes beside it.
fn with(text: &str, links: &[(&str, &str)], own: &Protected) -> (ImageBook, Vec<String>) {
    let parsed = parse_scope(text, Path::new("x.toml"));
    let record = parsed.record.unwrap_or_else(|| panic!("{text}\n{:?}", parsed.diagnostics));
    let mut agents = Agents::default();
    agents.register([(record.id.value.as_str(), crate::model::Mode::Enforce)]);
    let mounts = MountTable::parse(MOUNTS);
    let compiled = compile(&[record], &[], &agents, &mut Host { mounts: &mounts, links }, own);
    let image = compiled.image.agents.into_values().next().unwrap();
    (ImageBook::new(image, mounts), compiled.notes)
}

fn book(text: &str) -> ImageBook {
    with(text, &[], &Protected::default()).0
}

fn rule(book: &mut ImageBook, path: &str, asked: u32) -> String {
    book.place(path, None, asked, false).unwrap().rule
}

#[test]
fn a_rule_reaches_what_is_mounted_below_it() {
    let mut book = book(
        "[scope]\n[[scope.file]]\npath = \"/srv/**\"\naccess = \"read\"\n\
         [[scope.file]]\npath = \"/srv/a/**\"\naccess = \"read\"\nverdict = \"audit\"\n\
         [[scope.file]]\npath = \"/home/**\"\naccess = \"read\"\nverdict = \"kill\"\n",
    );
    assert_eq!(rule(&mut book, "/srv/x", ask::READ), "scope.file[0]");
    assert_eq!(rule(&mut book, "/srv/a/b/c", ask::READ), "scope.file[1]", "two mounts below");
    assert_eq!(rule(&mut book, "/home/joe", ask::READ), "scope.file[2]");
    assert_eq!(rule(&mut book, "/srvx", ask::READ), "scope.default");
}

#[test]
fn a_bind_mount_is_another_name_of_the_same_place() {
    let mut book = book(
        "[scope]\n[[scope.file]]\npath = \"/opt/data/**\"\naccess = \"read\"\n\
         [[scope.file]]\npath = \"/mnt/**\"\naccess = [\"read\", \"write\"]\n\
         [[scope.file]]\npath = \"/mnt/data/in/**\"\naccess = \"write\"\n",
    );
    assert_eq!(rule(&mut book, "/mnt/data/x", ask::READ), "scope.file[0]");
    assert_eq!(rule(&mut book, "/mnt/data/x", ask::WRITE), "scope.default", "the first name decides");
    assert_eq!(rule(&mut book, "/opt/data/in/x", ask::WRITE), "scope.file[2]", "named through the alias");
}

#[test]
fn a_mount_of_a_directory_takes_no_rules_from_around_that_directory() {
    let text = b"22 1 254:1 / / rw - ext4 /dev/vda1 rw\n33 22 0:40 /@home /home rw - btrfs /dev/vdc rw\n\
                 34 22 0:40 / /pool rw - btrfs /dev/vdc rw\n";
    let mounts = MountTable::parse(text);
    let parsed = parse_scope(
        "[scope]\ndefault = \"allow\"\n[[scope.file]]\npath = \"/pool/**\"\naccess = \"read\"\nverdict = \"deny\"\n",
        Path::new("x.toml"),
    );
    let mut agents = Agents::default();
    let record = parsed.record.unwrap();
    agents.register([(record.id.value.as_str(), crate::model::Mode::Enforce)]);
    let host = &mut Host { mounts: &mounts, links: &[] };
    let compiled = compile(&[record], &[], &agents, host, &Protected::default());
    let mut book = ImageBook::new(compiled.image.agents.into_values().next().unwrap(), mounts);
    assert_eq!(rule(&mut book, "/pool/x", ask::READ), "scope.file[0]");
    assert_eq!(rule(&mut book, "/home/joe", ask::READ), "scope.default");
}

#[test]
fn a_rule_names_a_link_and_what_it_leads_to() {
    let (mut book, notes) = with(
        "[scope]\ndefault = \"allow\"\n[[scope.file]]\npath = \"/etc/localtime\"\naccess = [\"write\", \"delete\"]\n\
         verdict = \"deny\"\n[[scope.file]]\npath = \"/var/run/**\"\naccess = \"delete\"\nverdict = \"deny\"\n",
        &[("/etc/localtime", "/usr/share/zoneinfo/UTC"), ("/var/run", "/run")],
        &Protected::default(),
    );
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(rule(&mut book, "/usr/share/zoneinfo/UTC", ask::WRITE), "scope.file[0]");
    assert_eq!(rule(&mut book, "/etc/localtime", ask::DELETE), "scope.file[0]", "the link itself");
    assert_eq!(rule(&mut book, "/run/x", ask::DELETE), "scope.file[1]");
    assert_eq!(rule(&mut book, "/var/run", ask::DELETE), "scope.file[1]");
}

#[test]
fn a_path_that_leads_to_who_looks_is_left_out() {
    let own = Protected { written: vec![b"/proc/42".to_vec()], closed: Vec::new() };
    let (mut book, notes) = with(
        "[scope]\n[[scope.file]]\npath = \"/proc/self/**\"\naccess = [\"read\", \"write\"]\n\
         [[scope.file]]\npath = \"/dev/stdin\"\naccess = \"read\"\n",
        &[("/dev/stdin", "/proc/self/fd/0")],
        &own,
    );
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes.iter().all(|note| note.contains("name /proc/**")), "{notes:?}");
    assert_eq!(rule(&mut book, "/proc/42/mem", ask::WRITE), "self-protection");
    assert_eq!(rule(&mut book, "/proc/42/mem", ask::READ), "scope.default");
}

#[test]
fn own_places_are_kept_from_every_agent() {
    let own = Protected {
        written: vec![b"/etc/am".to_vec()],
        closed: vec![b"/srv/state".to_vec(), b"/home/pins".to_vec()],
    };
    let (mut book, _) = with(
        "[scope]\ndefault = \"allow\"\n[[scope.file]]\npath = \"/etc/am/mine/**\"\naccess = \"write\"\n\
         [[scope.file]]\npath = \"/etc/**\"\naccess = [\"read\", \"write\"]\nverdict = \"audit\"\n\
         [[scope.file]]\npath = \"**/*.toml\"\naccess = [\"read\", \"write\"]\nverdict = \"audit\"\n",
        &[],
        &own,
    );
    assert_eq!(rule(&mut book, "/etc/am/x.toml", ask::WRITE), "self-protection");
    assert_eq!(rule(&mut book, "/etc/am/x.toml", ask::READ), "scope.file[2]");
    assert_eq!(rule(&mut book, "/etc/am/mine/x", ask::WRITE), "scope.file[0]", "named by a rule");
    assert_eq!(rule(&mut book, "/etc/am/mine/x", ask::DELETE), "self-protection", "and only what it names");
    assert_eq!(rule(&mut book, "/srv/state/x", ask::READ), "self-protection");
    assert_eq!(rule(&mut book, "/home/pins", ask::READ), "self-protection");
    let moved = book.place("/etc", None, ask::RENAME_OLD, true).unwrap();
    assert_eq!(moved.rule, "self-protection", "nor moved with what is around them");
    let (mut none, _) = with("", &[], &own);
    assert_eq!(rule(&mut none, "/srv/state/x", ask::READ), "self-protection", "without a scope too");
    assert_eq!(none.place("/x", None, ask::READ, false).unwrap().verdict, Verdict::Audit);
}

#[test]
fn protection_reaches_what_is_mounted_below() {
    let own = Protected { written: Vec::new(), closed: vec![b"/srv/a".to_vec()] };
    let (mut book, _) = with("[scope]\ndefault = \"allow\"\n", &[], &own);
    assert_eq!(rule(&mut book, "/srv/a/b/c", ask::WRITE), "self-protection");
}

#[test]
fn a_network_of_one_family_says_nothing_about_the_other() {
    let mut book = book(
        "[scope]\n[[scope.net]]\nto = \"[::/0]:443\"\n[[scope.net]]\nto = \"[::/8]\"\nverdict = \"audit\"\n\
         [[scope.net]]\nto = \"*:53/udp\"\n[[scope.net]]\nto = \"0.0.0.0/0:80\"\n",
    );
    let mut net = |addr: &str, port, protocol| {
        book.net(addr.parse().unwrap(), port, protocol, NET_CONNECT).unwrap().rule
    };
    assert_eq!(net("10.0.0.1", 443, 6), "scope.default");
    assert_eq!(net("2001:db8::1", 443, 6), "scope.net[0]");
    assert_eq!(net("::1", 443, 6), "scope.net[1]");
    assert_eq!(net("10.0.0.1", 53, 17), "scope.net[2]");
    assert_eq!(net("2001:db8::1", 53, 17), "scope.net[2]");
    assert_eq!(net("10.0.0.1", 80, 6), "scope.net[3]");
    assert_eq!(net("2001:db8::1", 80, 6), "scope.default");
}

#[test]
fn a_set_that_is_full_is_told() {
    let rules = (0..=NET_RULES).map(|i| format!("[[scope.net]]\nto = \"10.0.0.1:{}\"\n", i + 1));
    let (_, notes) = with(&format!("[scope]\n{}", rules.collect::<String>()), &[], &Protected::default());
    assert!(notes.iter().any(|note| note.contains("10.0.0.1/32")), "{notes:?}");
}

#[test]
fn what_cannot_be_held_yet_permits_nothing_and_is_told() {
    let (mut book, notes) = with(
        "[scope]\n[[scope.file]]\npath = \"/srv/**\"\naccess = \"read\"\nunless = \"pii\"\n\
         [[scope.exec]]\npath = \"/usr/bin/git\"\nargv = [\"git\", \"status\"]\n\
         [[scope.net]]\nto = \"*.example.com\"\n",
        &[],
        &Protected::default(),
    );
    assert_eq!(rule(&mut book, "/srv/x", ask::READ), "scope.default");
    assert_eq!(rule(&mut book, "/usr/bin/git", ask::EXEC), "scope.default");
    for rule in ["scope.file[0]", "scope.exec[0]", "scope.net[0]"] {
        assert!(notes.iter().any(|note| note.contains(rule)), "{rule}: {notes:?}");
    }
}

#[test]
fn a_record_decides_before_a_base_set() {
    let (mut book, _) = with(
        "[scope]\nbase = [\"linux-runtime\"]\n[[scope.file]]\npath = \"/proc/**\"\naccess = \"read\"\nverdict = \"audit\"\n",
        &[],
        &Protected::default(),
    );
    assert_eq!(rule(&mut book, "/proc/1/maps", ask::READ), "scope.file[0]");
    let zone = rule(&mut book, "/usr/share/zoneinfo/UTC", ask::READ);
    assert!(zone.starts_with("base.linux-runtime.file["), "{zone}");
}

#[test]
fn an_agent_without_a_record_is_free() {
    let mut agents = Agents::default();
    agents.register([("gone", crate::model::Mode::Enforce)]);
    agents.register([]);
    let mounts = MountTable::parse(MOUNTS);
    let host = &mut Host { mounts: &mounts, links: &[] };
    let image = compile(&[], &[], &agents, host, &Protected::default()).image;
    let scope = image.agents.get(&agents.index("gone").unwrap()).unwrap();
    assert_eq!(scope.policy.flags & POLICY_ENFORCE, 0);
    assert!(agent_monitor_ebpf::policy::permits(scope.policy.unknown));
}

#[test]
fn the_same_record_gives_the_same_image() {
    let mounts = MountTable::parse(MOUNTS);
    assert!(mounts.knows(kernel_dev(254, 2)));
    let record = parse_scope("[scope]\nbase = [\"shell\"]\n", Path::new("x.toml")).record.unwrap();
    let mut agents = Agents::default();
    agents.register([(record.id.value.as_str(), crate::model::Mode::Observe)]);
    let once = || {
        compile(
            std::slice::from_ref(&record),
            &[],
            &agents,
            &mut Host { mounts: &mounts, links: &[] },
            &Protected::default(),
        )
    };
    assert_eq!(once(), once());
}

/// What a program reads in any case, and what stays closed to a root agent that has nothing but the base set.
#[test]
fn linux_runtime_names_what_it_opens() {
    let mut book = book("[scope]\ndefault = \"deny\"\nbase = [\"linux-runtime\"]\n");
    let mut permits = |path, asked| book.place(path, None, asked, false).unwrap().verdict.permits();
    let open = [
        "/proc/1/maps",
        "/proc/1/cgroup",
        "/proc/meminfo",
        "/proc/sys/net/core/somaxconn",
        "/dev/urandom",
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    ];
    for path in open {
        assert!(permits(path, ask::READ), "{path} is needed");
    }
    let closed = [
        "/proc/kcore",
        "/proc/kmsg",
        "/proc/kallsyms",
        "/proc/kpageflags",
        "/proc/keys",
        "/proc/vmcore",
        "/proc/iomem",
        "/proc/config.gz",
        "/proc/bus/pci/00/00.0",
        "/proc/driver/rtc",
        "/proc/fs/ext4/vda1/options",
        "/etc/pki/tls/private/localhost.key",
        "/etc/pki/consumer/key.pem",
        "/etc/pki/ca-trust/source/anchors/ca.key",
        "/etc/pki/nssdb/key4.db",
        "/etc/ssl/private/x.key",
        "/etc/shadow",
        "/dev/console",
        "/dev/kmsg",
        "/dev/mem",
        "/dev/vda",
        "/sys/kernel/debug/x",
        "/sys/firmware/efi/efivars/x",
    ];
    for path in closed {
        assert!(!permits(path, ask::READ), "{path} is open to read");
        assert!(!permits(path, ask::WRITE), "{path} is open to write");
    }
    for path in ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/sys/fs/cgroup/cgroup.kill"] {
        assert!(!permits(path, ask::WRITE), "{path} is open to write");
    }
}

/// No default opens devices and terminals; a rule does.
#[test]
fn devices_need_a_rule_of_their_own() {
    use agent_monitor_ebpf::policy::power;
    // `learn` finds the kind of a power by its place in the list of words.
    for (at, (word, kind)) in PrivilegeKind::WORDS.iter().enumerate() {
        assert_eq!(power_of(*kind), at, "{word}");
    }
    for text in
        ["[scope]\ndefault = \"allow\"\n", "[scope]\ndefault = \"audit\"\n", "[scope]\ndefault = \"deny\"\n"]
    {
        let mut book = book(text);
        for power in [power::DEVICE, power::TERMINAL] {
            assert!(!book.power(power).unwrap().verdict.permits(), "{text}");
        }
    }
    let mut named = book(
        "[scope]\ndefault = \"allow\"\n[[scope.privilege]]\nkind = \"device\"\n\
         [[scope.privilege]]\nkind = \"terminal\"\nverdict = \"audit\"\n",
    );
    assert!(named.power(power::DEVICE).unwrap().verdict.permits());
    assert!(named.power(power::TERMINAL).unwrap().verdict.permits());
    let mut one = book("[scope]\ndefault = \"allow\"\n[[scope.privilege]]\nkind = \"device\"\n");
    assert!(one.power(power::DEVICE).unwrap().verdict.permits());
    let refused = one.power(power::TERMINAL).unwrap();
    assert!(!refused.verdict.permits());
    assert_eq!(refused.rule, "scope.devices");
}

#[path = "extra_tests.rs"]
mod extras;
