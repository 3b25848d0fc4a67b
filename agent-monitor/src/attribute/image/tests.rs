//! Tests of compilation of records to tables.

use std::path::Path;

use super::*;
use crate::model::Mode;
use crate::registry::parse_record;

/// A host where `/usr/bin/tool` leads to `/opt/tool/cli.js`, and everything lies on one file system.
struct Host;

impl Resolve for Host {
    fn canonical(&mut self, path: &[u8]) -> Vec<u8> {
        if path == b"/usr/bin/tool" { b"/opt/tool/cli.js".to_vec() } else { path.to_vec() }
    }

    fn locate(&mut self, canonical: &[u8]) -> Option<Location> {
        (!canonical.starts_with(b"/away")).then(|| Location { dev: 5, inner: canonical.to_vec() })
    }

    fn aliases(&mut self, canonical: &[u8]) -> Vec<Vec<u8>> {
        if canonical == b"/opt/tool/cli.js" { vec![b"/usr/bin/tool".to_vec()] } else { Vec::new() }
    }

    fn verify(&mut self, _: &[u8], sha256: &Sha256) -> Option<FileId> {
        (sha256.0 == [0; 32]).then_some(FileId { ino: 4, ctime_sec: 5, ctime_nsec: 6 })
    }

    fn uid(&mut self, user: &UserRef) -> Option<u32> {
        match user {
            UserRef::Uid(uid) => Some(*uid),
            UserRef::Name(name) => (name == "bot").then_some(1001),
        }
    }

    fn containers(&mut self, _: &str) -> Vec<String> {
        vec!["0123456789abcdef".repeat(4)]
    }
}

fn compiled(matches: &[&str]) -> (Compiled, Agents) {
    let records: Vec<Record> = matches
        .iter()
        .enumerate()
        .map(|(n, found)| {
            let text = format!(
                "[agent]\nid = \"a{n}\"\nowner = \"o@example.com\"\npurpose = \"p\"\nexpires = 2099-01-01T00:00:00Z\n{found}\n"
            );
            let parsed = parse_record(&text, Path::new("a.toml"));
            parsed.record.unwrap_or_else(|| panic!("{:?}", parsed.diagnostics))
        })
        .collect();
    let mut agents = Agents::default();
    agents.register(records.iter().map(|record| (record.id.value.as_str(), Mode::Observe)));
    (compile(&records, &agents, &mut Host), agents)
}

fn at(path: &str) -> Location {
    Location { dev: 5, inner: path.as_bytes().to_vec() }
}

#[test]
fn each_kind_of_match_has_its_table() {
    let (compiled, _) = compiled(&[
        "[[match]]\nexe = \"/usr/bin/node\"",
        "[[match]]\nscript = \"/usr/bin/tool\"\nuser = \"bot\"",
        "[[match]]\nunit = \"bot.service\"",
        "[[match]]\nuser = \"bot\"",
        "[[match]]\nargv = [\"python3\", \"/srv/x.py\"]",
        "[[match]]\ncontainer = \"0123456789ab\"",
        "[[match]]\nexe = \"/usr/bin/cat\"\ncgroup = \"/a/b\"",
    ]);
    let image = &compiled.image;
    assert_eq!(compiled.notes, Vec::<String>::new());
    let exe = image.paths[&at("/usr/bin/node")][0];
    assert_eq!((exe.agent, exe.flags, exe.bound_by), (1, AS_EXE, BoundBy::Exe as u32));
    let script = image.paths[&at("/opt/tool/cli.js")][0];
    assert_eq!((script.agent, script.flags, script.uid), (2, AS_SCRIPT | NEED_USER, 1001));
    let texts: Vec<_> = image.exec_texts.keys().map(|k| String::from_utf8_lossy(k).into_owned()).collect();
    assert_eq!(texts, ["/opt/tool/cli.js", "/usr/bin/tool"]);
    assert_eq!(image.cgroups[&CgroupName::Leaf("bot.service".to_owned())].agent, 3);
    assert_eq!(image.users[&1001][0].agent, 4);
    let id = "0123456789abcdef".repeat(4);
    assert_eq!(image.cgroups[&CgroupName::Leaf(format!("docker-{id}.scope"))].agent, 6);
    let cat = image.paths[&at("/usr/bin/cat")][0];
    let group = image.cgroups[&CgroupName::Path("/a/b".to_owned())];
    assert_eq!((group.agent, group.rules[0]), (0, cat.cgroup_rule));
    assert_eq!(image.flags, RUN_PATH_RULES | RUN_ARGV_RULES | RUN_CGROUP_RULES | RUN_USER_RULES);
}

#[test]
fn closer_rules_come_first_and_what_has_no_room_is_said() {
    let (compiled, _) = compiled(&[
        "[[match]]\nexe = \"/x\"",
        "[[match]]\nexe = \"/x\"\nuser = 1",
        "[[match]]\nexe = \"/x\"\nuser = 2",
        "[[match]]\nexe = \"/x\"\nuser = 3",
        "[[match]]\nexe = \"/x\"\nuser = 4",
    ]);
    let order: Vec<_> = compiled.image.paths[&at("/x")].iter().map(|entry| entry.agent).collect();
    assert_eq!(order, [2, 3, 4, 5]);
    assert_eq!(compiled.notes.len(), 1);
    assert!(compiled.matcher.has_late(), "the fifth is compared in user space");
}

#[test]
fn what_is_not_there_is_said() {
    let zero = "0".repeat(64);
    let (compiled, _) = compiled(&[
        "[[match]]\nexe = \"/x\"\nuser = \"nobody-here\"",
        &format!("[[match]]\nexe = \"/y\"\nsha256 = \"{zero}\""),
        &format!("[[match]]\nexe = \"/z\"\nsha256 = \"1{}\"", &zero[1..]),
        "[[match]]\nexe = \"/away/x\"",
    ]);
    assert_eq!(compiled.notes.len(), 3, "{:?}", compiled.notes);
    let pinned = compiled.image.paths[&at("/y")][0];
    assert_eq!((pinned.flags & NEED_INODE, pinned.ino, pinned.ctime_nsec), (NEED_INODE, 4, 6));
    assert_eq!(compiled.image.paths.len(), 1);
}
