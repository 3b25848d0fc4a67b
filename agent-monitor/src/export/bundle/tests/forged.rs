//! One forged bundle for each refusal of its receiver: whoever made it holds the log's key, so that only one check is
//! left to notice.

use super::*;
use crate::log::note::{Checkpoint, SecretKey, open};

struct Forged {
    place: Place,
    out: tempfile::TempDir,
}

impl Forged {
    fn new() -> Self {
        let place = Place::filled(300, 50, settings());
        let (out, _) = make(&place, &of_other(), true);
        Self { place, out }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.out.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    /// Writes a file and makes the list fit it.
    fn with(self, name: &str, text: &str) -> Self {
        fs::write(self.file(name), text).unwrap();
        resign(&self.place, self.out.path(), |_| {});
        self
    }

    fn lines(&self) -> Vec<String> {
        self.text("records.jsonl").split_inclusive('\n').map(str::to_owned).collect()
    }

    fn report(&self) -> verify::Report {
        verify::verify(self.out.path(), &self.place.trusted()).unwrap()
    }

    #[track_caller]
    fn refused(&self, kind: Kind, file: &str, part: &str) {
        let report = self.report();
        let [damage] = report.damage.as_slice() else { panic!("{report:?}") };
        assert!(!report.ok && report.records == 0, "{report:?}");
        assert_eq!((damage.kind, damage.file.as_deref()), (kind, Some(file)), "{damage:?}");
        assert!(damage.message.contains(part), "{damage:?}");
    }

    /// The checkpoint of the bundle, changed and sealed by `key`.
    fn sealed(&self, key: &SecretKey, change: impl Fn(&mut Checkpoint)) -> String {
        let note = self.text("checkpoint.txt");
        let mut checkpoint = Checkpoint::parse(open(&note, &self.place.trusted()).unwrap().0).unwrap();
        change(&mut checkpoint);
        key.sign(&checkpoint.to_text())
    }
}

#[test]
fn what_a_whole_bundle_reports() {
    let forged = Forged::new();
    let report = forged.report();
    let manifest: manifest::Manifest = serde_json::from_str(&forged.text(manifest::FILE)).unwrap();
    let key = forged.place.keys().load().unwrap().public().hash_hex();
    assert_eq!((report.signed_by.as_ref(), report.sealed_by.as_ref()), (Some(&key), Some(&key)));
    assert_eq!((report.files, report.custody), (manifest.files.len() as u64, 1));
    assert_eq!(
        (report.origin, report.notes.len(), report.gaps),
        (Some(manifest.log.origin), 0, manifest.gaps.len() as u64)
    );
    let own = verify::verify(forged.out.path(), &[]).unwrap();
    assert!(own.ok && own.notes.iter().any(|note| note.contains("from the bundle itself")), "{own:?}");
}

#[test]
fn records_that_were_swapped_doubled_taken_or_added() {
    let forged = Forged::new();
    let lines = forged.lines();
    let mut swapped = lines.clone();
    swapped.swap(20, 21);
    let mut doubled = lines.clone();
    doubled[21] = doubled[20].clone();
    let forged = forged.with("records.jsonl", &swapped.concat());
    forged.refused(Kind::Reordered, "records.jsonl", "stands after");
    let forged = forged.with("records.jsonl", &doubled.concat());
    forged.refused(Kind::Reordered, "records.jsonl", "stands after");
    let forged = forged.with("records.jsonl", &[&lines[..20], &lines[21..]].concat().concat());
    forged.refused(Kind::Removed, "records.jsonl", "tells of");
    let last = lines.last().unwrap().replace("{\"number\":", "{\"number\":9");
    let forged = forged.with("records.jsonl", &[lines.clone(), vec![last]].concat().concat());
    forged.refused(Kind::Inserted, "records.jsonl", "tells of");
    let forged = forged.with("records.jsonl", &format!("{}no record\n", lines.concat()));
    forged.refused(Kind::Changed, "records.jsonl", "no record");
    let forged = forged.with("records.jsonl", lines.concat().trim_end());
    forged.refused(Kind::Changed, "records.jsonl", "no record");
    // With a list that says as many, the seal is what is left.
    fs::write(forged.file("records.jsonl"), lines[1..].concat()).unwrap();
    resign(&forged.place, forged.out.path(), |all| *all.records.values_mut().next().unwrap() -= 1);
    forged.refused(Kind::Changed, "records.jsonl", "seals");
    assert!(
        forged
            .with("records.jsonl", &lines.concat())
            .report()
            .damage
            .iter()
            .all(|d| d.kind == Kind::Inserted)
    );
}

#[test]
fn a_seal_is_of_this_log_size_number_and_key() {
    let forged = Forged::new();
    let (key, whole) = (forged.place.keys().load().unwrap(), forged.text("checkpoint.txt"));
    let changes: [fn(&mut Checkpoint); 3] = [
        |checkpoint| checkpoint.origin.push('x'),
        |checkpoint| checkpoint.size += 1,
        |checkpoint| checkpoint.number += 1,
    ];
    let mut forged = forged;
    for change in changes {
        let note = forged.sealed(&key, change);
        forged = forged.with("checkpoint.txt", &note);
        forged.refused(Kind::Changed, "checkpoint.txt", "manifest names");
        forged = forged.with("checkpoint.txt", &whole);
        assert!(forged.report().ok);
    }
    let other = forged.sealed(&key, |checkpoint| checkpoint.root[0] ^= 1);
    forged = forged.with("checkpoint.txt", &other);
    forged.refused(Kind::Changed, "records.jsonl", "seals");
    forged = forged.with("checkpoint.txt", &whole);
    let stranger = SecretKey::new(key.public().name(), &[3; 32]);
    let other = forged.sealed(&stranger, |_| {});
    forged = forged.with("checkpoint.txt", &other);
    forged.refused(Kind::OtherKey, "checkpoint.txt", "not signed by");
    forged = forged.with("checkpoint.txt", &whole.replacen("\nstate ", "\nState ", 1));
    forged.refused(Kind::Changed, "checkpoint.txt", "does not fit");
    forged = forged.with("checkpoint.txt", &key.sign("other text\n"));
    forged.refused(Kind::Changed, "checkpoint.txt", "checkpoint");
}

#[test]
fn a_proof_is_whole_and_of_this_size() {
    let forged = Forged::new();
    let whole = forged.text("proof.json");
    let mut proof: proof::Proof = serde_json::from_str(&whole).unwrap();
    proof.size += 1;
    let forged = forged.with("proof.json", &serde_json::to_string(&proof).unwrap());
    forged.refused(Kind::Changed, "records.jsonl", "seals");
    proof.size -= 1;
    proof.hashes.push(proof.hashes[0].clone());
    let forged = forged.with("proof.json", &serde_json::to_string(&proof).unwrap());
    forged.refused(Kind::Changed, "records.jsonl", "seals");
    proof.hashes.pop();
    proof.hashes[0] = "AAAA".to_owned();
    let forged = forged.with("proof.json", &serde_json::to_string(&proof).unwrap());
    forged.refused(Kind::Changed, "records.jsonl", "seals");
    let forged = forged.with("proof.json", "{}x");
    forged.refused(Kind::Changed, "proof.json", "not a proof");
    assert!(forged.with("proof.json", &whole).report().ok);
}

#[test]
fn the_list_the_sums_and_the_signature_are_compared_each_by_itself() {
    let forged = Forged::new();
    let only = |report: &verify::Report| {
        let [damage] = report.damage.as_slice() else { panic!("{report:?}") };
        (damage.kind, damage.file.clone().unwrap())
    };
    let sums = forged.text(manifest::SUMS);
    fs::write(forged.file(manifest::SUMS), format!("{sums} ")).unwrap();
    assert_eq!(only(&forged.report()), (Kind::Changed, manifest::SUMS.to_owned()));
    fs::write(forged.file(manifest::SUMS), sums).unwrap();
    fs::write(forged.file("extra"), "x").unwrap();
    let report = forged.report();
    assert_eq!((only(&report), report.records > 0), ((Kind::Inserted, "extra".to_owned()), true));
    fs::remove_file(forged.file("extra")).unwrap();
    let keys = forged.text("keys.txt");
    fs::write(forged.file("keys.txt"), format!("{keys}#")).unwrap();
    let files = forged.report().files;
    assert_eq!(only(&forged.report()), (Kind::Changed, "keys.txt".to_owned()));
    fs::remove_file(forged.file("keys.txt")).unwrap();
    assert_eq!(
        (only(&forged.report()), forged.report().files),
        ((Kind::Removed, "keys.txt".to_owned()), files)
    );
    fs::write(forged.file("keys.txt"), keys).unwrap();
    assert_eq!(forged.report().files, files + 1);
    // The list signed by a stranger, and a signature over another list.
    let bytes = fs::read(forged.file(manifest::FILE)).unwrap();
    let signature = forged.text(manifest::SIGNATURE);
    let name = forged.place.trusted()[0].name().to_owned();
    fs::write(forged.file(manifest::SIGNATURE), manifest::sign(&SecretKey::new(&name, &[3; 32]), &bytes))
        .unwrap();
    assert_eq!(only(&forged.report()), (Kind::OtherKey, manifest::SIGNATURE.to_owned()));
    let key = forged.place.keys().load().unwrap();
    fs::write(forged.file(manifest::SIGNATURE), manifest::sign(&key, b"another")).unwrap();
    let report = forged.report();
    assert_eq!((only(&report), report.signed_by), ((Kind::Changed, manifest::SIGNATURE.to_owned()), None));
    fs::write(forged.file(manifest::SIGNATURE), signature).unwrap();
    assert!(forged.report().ok);
    fs::write(forged.file(manifest::FILE), "no manifest").unwrap();
    assert!(verify::verify(forged.out.path(), &[]).is_err());
}
