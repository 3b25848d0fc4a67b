//! Bundles made from a log, and every way to change one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::export::Selection;
use crate::export::pseudonym::{Pseudonyms, What};
use crate::log::fake::{Place, settings};
use crate::log::verify::Kind;
use crate::model::Time;
use crate::record::FilterSpec;
use crate::redact::Redactor;

fn make(place: &Place, spec: &FilterSpec, sign: bool) -> (tempfile::TempDir, Made) {
    make_as(place, spec, sign, None)
}

fn make_as(
    place: &Place,
    spec: &FilterSpec,
    sign: bool,
    names: Option<&Pseudonyms>,
) -> (tempfile::TempDir, Made) {
    let out = tempfile::tempdir().unwrap();
    let options = place.options();
    let key = place.keys().load().unwrap();
    let key = names.map_or_else(|| key.clone(), |names| key.renamed(&names.origin(key.public().name())));
    let asked = Asked {
        log: &place.dir(),
        selection: Selection { filter: spec.compile(Time::EPOCH).unwrap(), ..Selection::default() },
        words: BTreeMap::new(),
        collect: names.is_none().then(collect::Limits::default),
        agents: vec!["bot".to_owned()],
        options: &options,
        trusted: true,
        rotations: &place.keys().rotations().unwrap(),
        sign: sign.then_some(&key),
        names,
        by: "me".to_owned(),
        command: vec!["agent-monitor".to_owned()],
        tool: BTreeMap::new(),
        now: Time::EPOCH,
        clock: "unknown".to_owned(),
    };
    let made = write(&asked, out.path()).unwrap();
    (out, made)
}

fn of_other() -> FilterSpec {
    FilterSpec { agent: vec!["other".to_owned()], ..FilterSpec::default() }
}

#[test]
fn a_bundle_over_closed_and_open_segments_is_proven() {
    let place = Place::filled(5000, 400, settings());
    let (out, made) = make(&place, &of_other(), true);
    assert_eq!(made.asked, 4999 / 3);
    assert!(made.records > made.asked, "the log's own records frame it");
    for keys in [place.trusted(), Vec::new()] {
        let report = verify::verify(out.path(), &keys).unwrap();
        assert!(report.ok, "{report:?}");
        assert_eq!(report.records, made.records);
    }
    let mut sums = std::process::Command::new("sha256sum");
    sums.args(["-c", "--quiet", "SHA256SUMS"]).current_dir(out.path());
    assert!(sums.status().unwrap().success());
}

#[test]
fn a_bundle_for_outsiders_is_signed_proves_nothing_and_names_nobody() {
    let place = Place::filled(300, 50, settings());
    let what = What { users: true, hosts: true, paths: true };
    let names = Pseudonyms::new(what, Redactor::new([7; 32], &[]).unwrap());
    let (out, made) = make_as(&place, &of_other(), true, Some(&names));
    assert!(made.missing.iter().any(|missing| missing.contains("left out")), "{made:?}");
    for (name, path) in manifest::walk(out.path()).unwrap() {
        let text = fs::read_to_string(path).unwrap();
        // The number of a record is in its path here.
        for bad in
            ["/srv/30\"", "cat /srv/30", "agent-monitor/host+", "agent-monitor/host/", "agent-monitor/host "]
        {
            assert!(!text.contains(bad), "{name}: {bad}");
        }
    }
    assert!(!out.path().join("proof.json").exists() && !out.path().join("rotations.txt").exists());
    let key = place.keys().load().unwrap().renamed(&names.origin("agent-monitor/host")).public();
    for keys in [vec![key.clone()], Vec::new()] {
        let report = verify::verify(out.path(), &keys).unwrap();
        assert!(report.ok && report.renamed == ["users", "hosts", "paths"], "{report:?}");
        assert_eq!((report.records, report.sealed_by.as_ref()), (made.records, None));
        assert!(report.notes.iter().any(|note| note.contains("does not")), "{report:?}");
    }
    let records = out.path().join("records.jsonl");
    let text = fs::read_to_string(&records).unwrap();
    fs::write(&records, text.replacen("/srv/p-", "/srv/q-", 1)).unwrap();
    assert!(!verify::verify(out.path(), &[key]).unwrap().ok);
    // Without a name that was changed, a bundle without proof is none.
    let (out, _) = make(&place, &of_other(), true);
    fs::remove_file(out.path().join("proof.json")).unwrap();
    assert!(!verify::verify(out.path(), &place.trusted()).unwrap().ok);
}

#[test]
fn a_bundle_survives_packing_and_custody_goes_on() {
    let place = Place::filled(300, 50, settings());
    let (out, _) = make(&place, &of_other(), true);
    custody::add(out.path(), Time::EPOCH, "you", "received", "on a stick").unwrap();
    let packed = out.path().with_extension("tar.zst");
    archive::pack(out.path(), "case-7", &packed).unwrap();
    let mut tar = tar::Archive::new(zstd::Decoder::new(fs::File::open(&packed).unwrap()).unwrap());
    let names: Vec<PathBuf> =
        tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    assert_eq!(names[0], Path::new("case-7/manifest.json"));
    assert!(names.iter().all(|name| name.starts_with("case-7")), "{names:?}");
    let report = verify::verify(&packed, &place.trusted()).unwrap();
    assert!(report.ok, "{report:?}");
    assert_eq!(report.custody, 2);
    let path = out.path().join(manifest::CUSTODY);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("the bundle was made", "the bundle was Made", 1)).unwrap();
    fs::remove_file(&packed).unwrap();
    archive::pack(out.path(), "case-7", &packed).unwrap();
    let report = verify::verify(&packed, &place.trusted()).unwrap();
    assert!(report.damage[0].message.contains("custody.jsonl:2"), "{report:?}");
    fs::remove_file(&packed).unwrap();
}

#[test]
fn every_file_that_is_changed_removed_or_added_is_named() {
    let place = Place::filled(300, 50, settings());
    let (out, _) = make(&place, &of_other(), true);
    let files = manifest::walk(out.path()).unwrap();
    assert!(files.len() >= 14, "{files:?}");
    let verify = || verify::verify(out.path(), &place.trusted());
    for (name, path) in &files {
        let whole = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        assert!(verify().map_or(true, |report| !report.ok), "{name} removed");
        // Its last line is followed by none that would show a change.
        if name == manifest::CUSTODY {
            fs::write(path, &whole).unwrap();
            continue;
        }
        for at in [0, whole.len() / 2, whole.len().saturating_sub(2)] {
            let mut changed = whole.clone();
            if let Some(byte) = changed.get_mut(at) {
                *byte ^= 1;
            } else {
                changed.push(b'x');
            }
            fs::write(path, &changed).unwrap();
            assert!(verify().map_or(true, |report| !report.ok), "{name} byte {at}");
        }
        fs::write(path, &whole).unwrap();
    }
    assert!(verify().unwrap().ok);
    fs::write(out.path().join("extra"), b"x").unwrap();
    assert_eq!(verify().unwrap().damage[0].kind, Kind::Inserted);
}

/// Signs the list anew, as the holder of the log's key could; the records are still sealed by the log.
fn resign(place: &Place, dir: &Path, change: impl Fn(&mut manifest::Manifest)) {
    let path = dir.join(manifest::FILE);
    let mut all: manifest::Manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    all.files = manifest::entries(dir).unwrap();
    change(&mut all);
    let bytes = serde_json::to_vec_pretty(&all).unwrap();
    fs::write(&path, &bytes).unwrap();
    fs::write(dir.join(manifest::SIGNATURE), manifest::sign(&place.keys().load().unwrap(), &bytes)).unwrap();
    let sums: String = all.files.iter().map(|file| format!("{}  {}\n", file.sha256, file.path)).collect();
    fs::write(dir.join(manifest::SUMS), sums).unwrap();
    fs::remove_file(dir.join(manifest::CUSTODY)).unwrap();
    custody::add(dir, Time::EPOCH, "me", "made", "").unwrap();
}

#[test]
fn a_forged_list_does_not_help_against_the_seal_of_the_records() {
    let place = Place::filled(300, 50, settings());
    let (out, _) = make(&place, &of_other(), true);
    let path = out.path().join("records.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("/srv/30\"", "/srv/31\"", 1)).unwrap();
    resign(&place, out.path(), |_| {});
    let report = verify::verify(out.path(), &place.trusted()).unwrap();
    assert_eq!((report.damage.len(), report.damage[0].kind), (1, Kind::Changed), "{report:?}");
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    fs::write(&path, [&lines[..50], &lines[51..]].concat().concat()).unwrap();
    resign(&place, out.path(), |all| *all.records.get_mut("asked").unwrap() -= 1);
    assert!(!verify::verify(out.path(), &place.trusted()).unwrap().ok);
}

#[test]
fn other_keys_and_missing_signatures_fail() {
    let place = Place::filled(300, 50, settings());
    let (out, _) = make(&place, &of_other(), false);
    let report = verify::verify(out.path(), &place.trusted()).unwrap();
    assert!(!report.ok && report.damage[0].message.contains("not signed"));
    let (out, _) = make(&place, &of_other(), true);
    let other = crate::log::note::SecretKey::new("agent-monitor/host", &[3; 32]).public();
    assert!(verify::verify(out.path(), &[other]).unwrap().damage.iter().all(|d| d.kind == Kind::OtherKey));
}

/// Packs entries as they are named, whatever they are.
fn archive_of(at: &Path, entries: &[(String, tar::EntryType, Vec<u8>)]) -> PathBuf {
    let path = at.join("a.tar.zst");
    let mut tar = tar::Builder::new(zstd::Encoder::new(fs::File::create(&path).unwrap(), 1).unwrap());
    for (name, kind, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_entry_type(*kind);
        header.set_cksum();
        tar.append(&header, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    path
}

/// The files of a bundle as entries of an archive, the list first.
fn entries_of(dir: &Path) -> Vec<(String, tar::EntryType, Vec<u8>)> {
    let mut files = manifest::walk(dir).unwrap();
    files.sort_by_key(|(name, _)| !name.starts_with("manifest"));
    let entry = |(name, path): (String, PathBuf)| {
        (format!("b/{name}"), tar::EntryType::Regular, fs::read(path).unwrap())
    };
    files.into_iter().map(entry).collect()
}

#[test]
fn a_hostile_archive_is_refused_before_anything_is_unpacked() {
    let place = Place::filled(300, 50, settings());
    let (out, _) = make(&place, &of_other(), true);
    let whole = entries_of(out.path());
    let at = tempfile::tempdir().unwrap();
    let keys = place.trusted();
    let report_of = |entries: &[(String, tar::EntryType, Vec<u8>)], keys: &[_]| {
        verify::verify(&archive_of(at.path(), entries), keys)
    };
    assert!(report_of(&whole, &keys).unwrap().ok);
    let regular = tar::EntryType::Regular;
    for (name, kind) in [
        ("b/../../x", regular),
        ("/etc/x", regular),
        ("x", regular),
        ("c/x", regular),
        ("b/x", regular),
        ("b/records.jsonl", regular),
        ("b/x", tar::EntryType::Symlink),
        ("b/x", tar::EntryType::Link),
        ("b/x", tar::EntryType::Fifo),
        ("b/x", tar::EntryType::XHeader),
        ("b/x", tar::EntryType::GNUSparse),
    ] {
        for place in [0, 2, whole.len()] {
            let mut entries = whole.clone();
            entries.insert(place, (name.to_owned(), kind, Vec::new()));
            let report = report_of(&entries, &keys);
            let refused = report.as_ref().map_or(true, |report| {
                !report.ok && report.notes.contains(&"nothing of it was unpacked".to_owned())
            });
            assert!(refused, "{name} {kind:?} at {place}: {report:?}");
        }
    }
    // Of another size than the list says, with another list, by another key, without a signature where a key is given.
    let refused = |change: &dyn Fn(&mut Entries), keys: &[_]| {
        let mut entries = whole.clone();
        change(&mut entries);
        let report = report_of(&entries, keys).unwrap();
        !report.ok && report.records == 0 && report.notes.iter().any(|note| note.contains("unpacked"))
    };
    assert!(refused(&|entries| entries.last_mut().unwrap().2.push(b'x'), &keys));
    let other = crate::log::note::SecretKey::new("agent-monitor/host", &[3; 32]).public();
    assert!(refused(&|_| {}, &[other]));
    assert!(refused(&|entries| entries[0].2[40] ^= 1, &keys));
    assert!(refused(&|entries| drop(entries.remove(1)), &keys));
    assert!(refused(&|entries| drop(entries.remove(0)), &keys));
    let many = |entries: &mut Entries| {
        entries.extend((0..30_000).map(|n| (format!("b/{n}"), regular, Vec::new())));
    };
    assert!(refused(&many, &[]));
}

/// Name, kind and content of the entries of an archive.
type Entries = Vec<(String, tar::EntryType, Vec<u8>)>;

#[test]
fn damages_are_listed_up_to_a_limit() {
    let place = Place::filled(300, 50, settings());
    let (out, _) = make(&place, &of_other(), true);
    (0..500).for_each(|n| fs::write(out.path().join(format!("extra-{n}")), b"x").unwrap());
    let report = verify::verify(out.path(), &place.trusted()).unwrap();
    assert_eq!(report.damage.len(), 100);
    assert!(report.notes.iter().any(|note| note == "400 more damages are not listed"), "{report:?}");
}

/// The record `number` in the open segment with other text, its number and its mark made to fit.
fn edit(place: &Place, number: u64) {
    let path = crate::log::segment::list(&place.dir()).unwrap().pop().unwrap().path;
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("R {number} "))).unwrap();
    let json = line.splitn(4, ' ').nth(3).unwrap().replace("/bin/cat", "/bin/dog");
    let mut new = Vec::new();
    let leaf = crate::log::merkle::leaf(json.as_bytes());
    crate::log::segment::push_record(&mut new, number, &leaf, json.as_bytes());
    let new = String::from_utf8(new).unwrap();
    fs::write(&path, text.replacen(&format!("{line}\n"), &new, 1)).unwrap();
}

#[test]
fn a_record_that_was_edited_without_any_key_is_not_signed_under_any_name() {
    let what = What { users: true, hosts: true, paths: true };
    let names = Pseudonyms::new(what, Redactor::new([7; 32], &[]).unwrap());
    for (names, number) in [(None, 31), (Some(&names), 31), (Some(&names), 32)] {
        let place = Place::filled(300, 50, settings());
        edit(&place, number);
        let (options, key) = (place.options(), place.keys().load().unwrap());
        let out = tempfile::tempdir().unwrap();
        let mut asked = Asked {
            log: &place.dir(),
            selection: Selection { filter: of_other().compile(Time::EPOCH).unwrap(), ..Selection::default() },
            words: BTreeMap::new(),
            collect: None,
            agents: Vec::new(),
            options: &options,
            trusted: true,
            rotations: &[],
            sign: Some(&key),
            names,
            by: "me".to_owned(),
            command: Vec::new(),
            tool: BTreeMap::new(),
            now: Time::EPOCH,
            clock: "unknown".to_owned(),
        };
        let refused = write(&asked, out.path());
        assert!(matches!(refused, Err(BundleError::NotVerified(_))), "{refused:?}");
        assert!(!out.path().join(manifest::SIGNATURE).exists());
        // Without a signature it may be made, and says what it is.
        let out = tempfile::tempdir().unwrap();
        asked.sign = None;
        let made = write(&asked, out.path()).unwrap();
        assert!(!made.outcome.verified && made.missing[0].starts_with("NOT verified"), "{made:?}");
        let list: manifest::Manifest =
            serde_json::from_slice(&fs::read(out.path().join(manifest::FILE)).unwrap()).unwrap();
        assert_eq!(list.verification, Some(made.outcome));
        assert!(!verify::verify(out.path(), &place.trusted()).unwrap().ok);
    }
}

#[test]
fn what_is_sealed_is_signed_also_when_the_writer_was_killed() {
    let place = Place::filled(300, 50, settings());
    let path = crate::log::segment::list(&place.dir()).unwrap().pop().unwrap().path;
    let text = fs::read_to_string(&path).unwrap();
    let cut = text.rfind("\nC ").unwrap();
    fs::write(&path, &text[..=cut]).unwrap();
    let (out, made) = make(&place, &of_other(), true);
    assert!(made.outcome.verified && made.outcome.text().contains("not sealed"), "{made:?}");
    assert!(verify::verify(out.path(), &place.trusted()).unwrap().ok);
}

#[test]
fn nobody_else_can_read_a_bundle() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::filled(300, 50, settings());
    let (out, _) = make(&place, &of_other(), true);
    for (name, path) in manifest::walk(out.path()).unwrap() {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    let packed = out.path().with_extension("tar.zst");
    archive::pack(out.path(), "b", &packed).unwrap();
    assert_eq!(fs::metadata(&packed).unwrap().permissions().mode() & 0o777, 0o600);
    fs::remove_file(&packed).unwrap();
}

#[test]
fn records_of_a_bundle_are_read_back_byte_by_byte() {
    let line = br#"{"number":7,"because":"asked","record":{"a":"},\"record\":"}}"#;
    assert_eq!(verify::record(line), Some((7, br#"{"a":"},\"record\":"}"#.as_slice())));
    for bad in [
        b"".as_slice(),
        b"{}",
        br#"{"number":x,"because":"asked","record":{}}"#,
        br#"{"number":1,"because":"no","record":{}}"#,
    ] {
        assert_eq!(verify::record(bad), None);
    }
}

mod forged;
