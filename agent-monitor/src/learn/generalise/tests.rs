//! Tests.

use super::*;
use crate::model::Time;

fn seen() -> Seen {
    Seen::once(Time::from_unix_nanos(0))
}

fn files(all: &[(&str, &[FileAccess])]) -> BTreeMap<String, Accesses> {
    let of = |access: &[FileAccess]| access.iter().map(|access| (*access, seen())).collect();
    all.iter().map(|(path, access)| ((*path).to_owned(), of(access))).collect()
}

fn rules(all: &[(&str, &[FileAccess])], created: &[&str]) -> Vec<(String, Vec<FileAccess>)> {
    let created = created.iter().map(|path| (*path).to_owned()).collect();
    let proposed = generalise(files(all), &created, SIBLINGS);
    proposed.into_iter().map(|rule| (rule.path.to_string(), rule.access.into_keys().collect())).collect()
}

use FileAccess::{Create, Delete, Read, Write};

#[test]
fn entries_used_alike_become_their_directory() {
    let reads: Vec<String> = (0..4).map(|n| format!("/srv/app/{n}")).collect();
    let mut all: Vec<(&str, &[FileAccess])> = reads.iter().map(|path| (path.as_str(), &[Read][..])).collect();
    all.push(("/srv/app/log", &[Read, Write]));
    all.push(("/srv/app", &[Read]));
    all.push(("/srv/apple/x", &[Read]));
    let expected = [("/srv/app/**", vec![Read]), ("/srv/app/log", vec![Write]), ("/srv/apple/x", vec![Read])];
    assert_eq!(rules(&all, &[]), expected.map(|(path, access)| (path.to_owned(), access)));
    assert_eq!(rules(&all[..3], &[]).len(), 3, "too few");
}

#[test]
fn a_directory_of_directories_needs_twice_as_many() {
    let paths = |n: usize| (0..n).map(|n| format!("/srv/repo/.git/objects/{n:02x}/f")).collect::<Vec<_>>();
    let run = |paths: &[String]| {
        let all: Vec<(&str, &[FileAccess])> =
            paths.iter().map(|path| (path.as_str(), &[Create][..])).collect();
        rules(&all, &[])
    };
    assert_eq!(run(&paths(8)), [("/srv/repo/.git/objects/**".to_owned(), vec![Create])]);
    assert_eq!(run(&paths(7)).len(), 7);
}

#[test]
fn places_of_many_purposes_are_never_opened_whole() {
    for directory in [
        "",
        "/etc",
        "/etc/ssl",
        "/home",
        "/home/x",
        "/home/x/.ssh",
        "/home/x/.config/gh",
        "/home/x/work/.aws",
        "/root",
        "/root/.cache",
        "/usr",
        "/usr/bin",
        "/usr/lib",
        "/usr/local/bin",
        "/usr/lib/x86_64-linux-gnu",
        "/var/lib",
        "/var/log",
        "/proc/1",
        "/sys/class",
        "/dev/shm",
        "/tmp",
        "/var/tmp",
        "/srv",
        "/opt",
        "/run/app",
        "/home/x/.local/share",
    ] {
        assert!(!may(directory), "{directory}");
    }
    for directory in [
        "/srv/app",
        "/home/x/work",
        "/root/work",
        "/var/lib/app",
        "/opt/tool",
        "/usr/share/git-core",
        "/home/x/.cache/pip",
    ] {
        assert!(may(directory), "{directory}");
    }
}

#[test]
fn temporary_files_of_its_own_make_one_rule() {
    let all: [(&str, &[FileAccess]); 4] = [
        ("/tmp/a1", &[Create, Write, Delete]),
        ("/tmp/b2", &[Create]),
        ("/tmp/b2/inner", &[Create, Read]),
        ("/tmp/of-others", &[Read]),
    ];
    let made = rules(&all, &["/tmp/a1", "/tmp/b2", "/tmp/b2/inner"]);
    let expected = [("/tmp/**".to_owned(), vec![Create, Delete, Read, Write])];
    assert_eq!(made, expected, "what the rule opens besides needs no rule of its own");
    let kept: [(&str, &[FileAccess]); 1] = [("/tmp/lock", &[Create, Write])];
    assert_eq!(
        rules(&kept, &["/tmp/lock"]),
        [("/tmp/lock".to_owned(), vec![Create, Write])],
        "one that stays"
    );
}
