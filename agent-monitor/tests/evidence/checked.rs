//! Readers check what they read, and say so; nothing unchecked is signed; what does not exist is no empty answer.

use super::*;

/// The record with this text edited, its mark made to fit, as anybody can without a key; a closed segment is left open.
fn edit(place: &Place, from: &str, to: &str) {
    for found in segment::list(&place.log()).unwrap() {
        let bytes = fs::read(&found.path).unwrap();
        let bytes = if found.sealed { zstd::decode_all(bytes.as_slice()).unwrap() } else { bytes };
        let text = String::from_utf8(bytes).unwrap();
        let Some(line) = text.lines().find(|line| line.starts_with("R ") && line.contains(from)) else {
            continue;
        };
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        let json = fields[3].replace(from, to);
        let mut new = Vec::new();
        let leaf = agent_monitor::log::merkle::leaf(json.as_bytes());
        segment::push_record(&mut new, fields[1].parse().unwrap(), &leaf, json.as_bytes());
        let new = text.replacen(&format!("{line}\n"), &String::from_utf8(new).unwrap(), 1);
        fs::remove_file(&found.path).unwrap();
        fs::write(found.path.with_extension("open"), new).unwrap();
        return;
    }
    panic!("no record holds {from}");
}

#[test]
fn every_reader_says_what_it_checked() {
    let place = Place::new();
    fs::write(place.path("s.toml"), "[scope]\ndefault = \"deny\"\n").unwrap();
    let readers: [&[&str]; 10] = [
        &["events", "--log"],
        &["events", "--log", "-n", "3"],
        &["events", "--log", "--tree"],
        &["events", "--log", "--timeline", "-o", "json"],
        &["export"],
        &["export", "--format", "ocsf"],
        &["export", "--format", "timesketch"],
        &["export", "--format", "html"],
        &["replay", "state", "--scope", "s.toml", "--agent", "bot"],
        &["agent", "learn", "bot", "--from", "state"],
    ];
    for args in readers {
        let ran = place.run(args);
        assert_eq!(ran.code, 0, "{args:?} {}", ran.err);
        assert!(ran.err.contains("verified up to checkpoint"), "{args:?} {}", ran.err);
        assert!(!ran.err.contains("NOT verified"), "{args:?} {}", ran.err);
    }
    edit(&place, "/srv/399", "/srv/007");
    for args in readers {
        let ran = place.run(args);
        assert_eq!(ran.code, 5, "{args:?} {}", ran.err);
        assert!(ran.err.contains("NOT verified: changed"), "{args:?} {}", ran.err);
        assert!(!ran.out.is_empty(), "{args:?}: what can be read is shown all the same");
    }
    let html = place.run(&["export", "--format", "html"]).out;
    assert!(html.contains("NOT verified: changed"));
    let ocsf = lines(&place.run(&["export", "--format", "ocsf"]).out);
    assert!(ocsf.iter().all(|event| event["metadata"]["labels"][0].as_str().unwrap().starts_with("NOT")));
    // A window that does not hold the damage, over closed segments.
    let early =
        place.run(&["events", "--log", "--exit-code", "9", "-o", "jsonl", "--until", &at(10).to_string()]);
    assert_eq!(early.code, 5, "a closed segment without its index is read in full: {}", early.err);
}

#[test]
fn an_edited_record_gets_no_signature_under_any_name() {
    let place = Place::new();
    edit(&place, "/srv/399", "/srv/007");
    for more in [&[][..], &["--redact", "users"], &["--redact", "users,hosts,paths"], &["--agent", "other"]] {
        for out in ["b", "b.tar.zst"] {
            let ran = place.run(&[&["export", "--format", "bundle", "--out", out], more].concat());
            assert!(ran.code == 5 && ran.err.contains("nothing unchecked is signed"), "{more:?} {}", ran.err);
            assert!(!place.path(out).exists(), "{more:?}");
        }
    }
    let left: Vec<_> =
        fs::read_dir(place.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "state" || name == "c.toml"), "{left:?}");
    let ran = place.run(&["export", "--format", "bundle", "--out", "u", "--unsigned"]);
    assert!(ran.code == 5 && ran.err.contains("NOT verified"), "{} {}", ran.code, ran.err);
    let list = lines_of(&fs::read_to_string(place.path("u/manifest.json")).unwrap());
    assert_eq!(list["verification"]["verified"], false, "{list}");
}

#[test]
fn a_forged_index_hides_no_rows() {
    let place = Place::new();
    let wanted = place.run(&["events", "--log", "-o", "jsonl", "--agent", "other"]).out;
    let closed = segment::list(&place.log()).unwrap().into_iter().find(|segment| segment.sealed).unwrap();
    let whole = fs::read(&closed.path).unwrap();
    let mut file = fs::File::open(&closed.path).unwrap();
    let found = segment::sealed::find(&mut file).unwrap();
    let mut index = found.index.clone();
    assert!(index.agents.remove("other").is_some());
    let json = serde_json::to_vec(&index).unwrap();
    let frames: u64 = index.blocks.iter().map(|block| block.bytes).sum();
    let end = whole.len() - 40 - serde_json::to_vec(&found.index).unwrap().len() - 8;
    let size = u32::try_from(json.len()).unwrap();
    let hash = {
        fs::write(place.path("index"), &json).unwrap();
        let sum = Command::new("sha256sum").arg(place.path("index")).output().unwrap().stdout;
        agent_monitor::log::unhex(std::str::from_utf8(&sum[..64]).unwrap()).unwrap()
    };
    let frames = usize::try_from(frames).unwrap();
    for note in [&whole[frames..end], &[]] {
        let forged = [
            &whole[..frames],
            note,
            &0x184D_2A5Au32.to_le_bytes(),
            &(size + 40).to_le_bytes(),
            &json,
            &hash,
            &size.to_le_bytes(),
            b"AMIX",
        ]
        .concat();
        fs::write(&closed.path, forged).unwrap();
        let ran = place.run(&["events", "--log", "-o", "jsonl", "--agent", "other"]);
        assert!(ran.code == 5 && ran.err.contains("NOT verified: changed"), "{} {}", ran.code, ran.err);
        assert!(ran.err.contains("index"), "{}", ran.err);
        assert_eq!(ran.out, wanted, "the rows are there all the same");
        assert_eq!(place.run(&["verify"]).code, 1);
    }
}

#[test]
fn what_is_no_log_is_refused_with_a_reason_by_every_reader() {
    let place = Place::new();
    fs::write(place.path("text"), "hello\n").unwrap();
    fs::write(place.path("json"), "[1]\n").unwrap();
    fs::write(place.path("archive.tar.zst"), [0x28, 0xb5, 0x2f, 0xfd, 0, 1, 2]).unwrap();
    fs::create_dir(place.path("empty")).unwrap();
    fs::write(place.path("s.toml"), "[scope]\ndefault = \"deny\"\n").unwrap();
    for what in ["text", "json", "archive.tar.zst", "empty", "/dev/null", "/nonexistent", "c.toml"] {
        for args in [
            &["events", "--log", what][..],
            &["events", "--log", what, "--tree"],
            &["replay", what, "--scope", "s.toml"],
            &["agent", "learn", "bot", "--from", what],
            &["export", "--log", what],
        ] {
            let ran = place.run(args);
            let empty = what == "c.toml" && args[0] != "export";
            if empty {
                continue;
            }
            assert!(matches!(ran.code, 1 | 2), "{args:?} {} {}", ran.code, ran.err);
            assert!(ran.err.starts_with("error: "), "{args:?} {}", ran.err);
        }
    }
}

#[test]
fn names_that_do_not_exist_are_errors_with_a_proposal() {
    let place = Place::new();
    for args in [
        &["events", "--log", "--agent", "othr"][..],
        &["events", "--log", "--agent", "bot", "--agent", "othr"],
        &["events", "--log", "--tree", "--agent", "othr"],
        &["export", "--agent", "othr"],
        &["export", "--format", "bundle", "--out", "x", "--agent", "othr"],
        &["hold", "add", "--agent", "othr", "--reason", "case"],
    ] {
        let ran = place.run(args);
        assert_eq!(ran.code, 1, "{args:?} {}", ran.err);
        let named = ran.err.contains("no such agent `othr`") && ran.err.contains("did you mean `other`?");
        assert!(named, "{args:?} {}", ran.err);
    }
    assert!(!place.path("x").exists());
    let session = place.run(&["events", "--log", "--session", "01J"]);
    assert!(session.code == 1 && session.err.contains("no such session `01J`"), "{}", session.err);
    let calm = place.run(&["events", "--log", "--agent", "bot", "--since", &at(100_000).to_string()]);
    assert_eq!(calm.code, 0, "it exists and did nothing: {}", calm.err);
}

#[test]
fn a_copy_without_its_key_is_read_and_not_called_verified() {
    let place = Place::new();
    let key = place.run(&["key", "export"]).out;
    let copy = place.path("copy");
    fs::create_dir(&copy).unwrap();
    for segment in segment::list(&place.log()).unwrap() {
        fs::copy(&segment.path, copy.join(segment.path.file_name().unwrap())).unwrap();
    }
    let ran = place.run(&["events", "--log", "copy", "-o", "jsonl", "--agent", "other"]);
    assert!(ran.code == 5 && ran.err.contains("give --key"), "{} {}", ran.code, ran.err);
    assert_eq!(lines(&ran.out).len(), 200);
    let ran = place.run(&["events", "--log", "copy", "--key", key.trim(), "--agent", "other"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let made = place.run(&["export", "--log", "copy", "--format", "bundle", "--out", "b", "--unsigned"]);
    assert_eq!(made.code, 5, "{}", made.err);
}

#[test]
fn exports_are_for_their_owner_only_and_a_bundle_has_its_own_name() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    for (form, out) in
        [("jsonl", "a.jsonl"), ("html", "a.html"), ("ocsf", "a.ocsf"), ("bundle", "case.tar.zst")]
    {
        let ran = place.run(&["export", "--format", form, "--out", out]);
        assert_eq!(ran.code, 0, "{form} {}", ran.err);
        let mode = fs::metadata(place.path(out)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{form}");
    }
    assert_eq!(place.run(&["export", "--format", "bundle", "--out", "dir"]).code, 0);
    assert_eq!(fs::metadata(place.path("dir")).unwrap().permissions().mode() & 0o777, 0o700);
    let list = Command::new("tar").args(["--zstd", "-tf"]).arg(place.path("case.tar.zst")).output().unwrap();
    let names = String::from_utf8(list.stdout).unwrap();
    assert!(
        names.starts_with("case/manifest.json\n") && names.lines().all(|name| name.starts_with("case/")),
        "{names}"
    );
}
