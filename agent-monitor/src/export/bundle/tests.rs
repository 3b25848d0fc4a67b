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
    let keys = place.trusted();
    let key = place.keys().load().unwrap();
    let key = names.map_or_else(|| key.clone(), |names| key.renamed(&names.origin(key.public().name())));
    let asked = Asked {
        log: &place.dir(),
        selection: Selection { filter: spec.compile(Time::EPOCH).unwrap(), ..Selection::default() },
        words: BTreeMap::new(),
        collect: names.is_none().then(collect::Limits::default),
        agents: vec!["bot".to_owned()],
        keys: &keys,
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
    archive::pack(out.path(), &packed).unwrap();
    let back = tempfile::tempdir().unwrap();
    archive::unpack(&packed, back.path()).unwrap();
    fs::remove_file(&packed).unwrap();
    let report = verify::verify(back.path(), &place.trusted()).unwrap();
    assert!(report.ok, "{report:?}");
    assert_eq!(report.custody, 2);
    let path = back.path().join(manifest::CUSTODY);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("the bundle was made", "the bundle was Made", 1)).unwrap();
    assert!(
        verify::verify(back.path(), &place.trusted()).unwrap().damage[0].message.contains("custody.jsonl:2")
    );
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

#[test]
fn an_archive_that_reaches_outside_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let archive_with = |name: &str, kind: tar::EntryType| -> PathBuf {
        let path = directory.path().join("a.tar.zst");
        let mut tar = tar::Builder::new(zstd::Encoder::new(fs::File::create(&path).unwrap(), 1).unwrap());
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(0);
        header.set_entry_type(kind);
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
        tar.into_inner().unwrap().finish().unwrap();
        path
    };
    for (name, kind) in [
        ("b/../../x", tar::EntryType::Regular),
        ("/etc/x", tar::EntryType::Regular),
        ("x", tar::EntryType::Regular),
        ("b/x", tar::EntryType::Symlink),
        ("b/x", tar::EntryType::Fifo),
    ] {
        let to = tempfile::tempdir().unwrap();
        assert!(archive::unpack(&archive_with(name, kind), to.path()).is_err(), "{name} {kind:?}");
    }
    let to = tempfile::tempdir().unwrap();
    archive::unpack(&archive_with("b/x", tar::EntryType::Regular), to.path()).unwrap();
    assert!(to.path().join("x").exists());
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
