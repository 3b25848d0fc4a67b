//! One forged input for each refusal of notes, keys, checkpoints and rotations.

use super::*;

fn key(name: &str, seed: u8) -> SecretKey {
    SecretKey::new(name, &[seed; 32])
}

/// A signature line of `key` over `text`, under any name.
fn line(key: &SecretKey, name: &str, text: &str) -> String {
    let note = key.sign(text);
    let value = note.trim_end().rsplit(' ').next().unwrap();
    format!("\u{2014} {name} {value}\n")
}

#[test]
fn the_text_ends_at_the_last_empty_line() {
    let (a, text) = (key("a", 1), "first\n\nsecond\n");
    let note = a.sign(text);
    let keys = [a.public()];
    assert_eq!(open(&note, &keys).map(|(text, _)| text), Ok(text));
    // Text put before an empty line that was signed is not the signed text.
    assert_eq!(open(&format!("more\n\n{note}"), &keys), Err(NoteError::BadSignature));
    for broken in [
        "",
        "text\n",
        "text\n\n",
        "text\n\nno signature\n",
        "text\n\n\u{2014} a\n",
        "text\n\n\u{2014} a *\n",
        "text\n\n\u{2014} a AAA=\n",
    ] {
        assert_eq!(open(broken, &keys), Err(NoteError::Form("signed note")), "{broken:?}");
    }
}

#[test]
fn a_signature_is_of_the_key_that_it_names() {
    let (a, b, text) = (key("a", 1), key("b", 2), "text\n");
    let keys = [a.public(), b.public()];
    let by = |lines: &[String]| format!("{text}\n{}", lines.concat());
    assert_eq!(open(&b.sign(text), &keys).unwrap().1.name(), "b");
    // The right hash under another's name, and another's hash under the right name.
    assert!(matches!(open(&by(&[line(&a, "b", text)]), &keys), Err(NoteError::OtherKey(_))));
    assert!(matches!(open(&by(&[line(&key("c", 3), "a", text)]), &keys), Err(NoteError::OtherKey(_))));
    // Lines of unknown keys before a known one are passed over, whatever they sign.
    let stranger = line(&key("c", 3), "c", "other\n");
    assert_eq!(open(&by(&[stranger.clone(), line(&b, "b", text)]), &keys).unwrap().1.name(), "b");
    assert!(matches!(open(&by(&[stranger]), &keys), Err(NoteError::OtherKey(who)) if who.contains("by c")));
    assert!(matches!(open(&by(&[line(&b, "b", text)]), &[]), Err(NoteError::OtherKey(_))));
    // A signature of a known key over another text, and one that is cut.
    assert_eq!(open(&by(&[line(&a, "a", "other\n")]), &keys), Err(NoteError::BadSignature));
    let cut = BASE64.encode([a.public().hash().as_slice(), &[0; 63]].concat());
    assert_eq!(open(&by(&[format!("\u{2014} a {cut}\n")]), &keys), Err(NoteError::BadSignature));
}

#[test]
fn a_note_is_at_most_so_long() {
    let a = key("a", 1);
    let frame = a.sign("\n").len() - 1;
    let note = |length: usize| a.sign(&format!("{}\n", "x".repeat(length - frame - 1)));
    assert_eq!(note(NOTE_MAX).len(), NOTE_MAX);
    assert!(open(&note(NOTE_MAX), &[a.public()]).is_ok());
    assert_eq!(open(&note(NOTE_MAX + 1), &[a.public()]), Err(NoteError::Form("signed note")));
}

#[test]
fn a_key_is_taken_with_its_own_hash_only() {
    let (a, b) = (key("a", 1), key("a", 2));
    let text = a.public().to_string();
    assert_eq!(PublicKey::parse(&format!(" {text}\n")), Ok(a.public()));
    let of = |name: &str, hash: &str, bytes: &[u8]| format!("{name}+{hash}+{}", BASE64.encode(bytes));
    let bytes = [&[ED25519], a.public().key.as_bytes().as_slice()].concat();
    let hash = a.public().hash_hex();
    assert_eq!(PublicKey::parse(&of("a", &hash, &bytes)), Ok(a.public()));
    let other = [&[2], &bytes[1..]].concat();
    for forged in [
        of("a", &b.public().hash_hex(), &bytes),
        of("b", &hash, &bytes),
        of("a", "", &bytes),
        of("a", &hash, &bytes[..32]),
        of("a", &hash, &other),
        of("a", &hash, &[]),
        format!("a+{hash}+***"),
        format!("a+{hash}"),
        "a".to_owned(),
    ] {
        assert!(PublicKey::parse(&forged).is_err(), "{forged}");
    }
    // Names that no note could carry, each with the hash that would fit it.
    for name in ["", "a b", "a\u{7f}"] {
        let forged = PublicKey { name: name.to_owned(), key: a.public().key };
        assert!(PublicKey::parse(&forged.to_string()).is_err(), "{name:?}");
    }
    assert_eq!(PublicKey::new("my log+x\ty", a.public().key).name(), "my-log-x-y");
}

#[test]
fn a_secret_key_is_taken_with_its_own_hash_only() {
    let (a, b) = (key("a", 1), key("a", 2));
    let text = a.to_text();
    assert_eq!(SecretKey::parse(&format!("{text}\n")).unwrap().to_text(), text);
    let hash = a.public().hash_hex();
    for forged in [
        text.replace(&hash, &b.public().hash_hex()),
        text.replace("PRIVATE+KEY+", ""),
        text.replace("+a+", "+b+"),
        format!("PRIVATE+KEY+a+{hash}+{}", BASE64.encode([2; 33])),
        format!("PRIVATE+KEY+a+{hash}+{}", BASE64.encode([ED25519; 32])),
        format!("PRIVATE+KEY+a+{hash}"),
    ] {
        assert!(SecretKey::parse(&forged).is_err(), "{forged}");
    }
    let renamed = a.renamed("other name");
    assert_eq!((renamed.public().name(), renamed.public().key), ("other-name", a.public().key));
    assert_ne!(renamed.public().hash(), a.public().hash());
}

#[test]
fn each_line_of_a_checkpoint_is_needed_and_is_what_it_says() {
    let good = Checkpoint {
        origin: "o".to_owned(),
        size: 5,
        root: [3; 32],
        number: 9,
        time: Time::EPOCH,
        boot: ("b".to_owned(), 7),
        interval: 10,
        closed: false,
    };
    let text = good.to_text();
    assert_eq!(Checkpoint::parse(&text), Ok(good.clone()));
    let closed = Checkpoint { closed: true, ..good };
    assert_eq!(Checkpoint::parse(&closed.to_text()), Ok(closed));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 8);
    for at in 0..lines.len() {
        let without: String = lines
            .iter()
            .enumerate()
            .filter(|(line, _)| *line != at)
            .map(|(_, line)| format!("{line}\n"))
            .collect();
        assert!(Checkpoint::parse(&without).is_err(), "without {}", lines[at]);
    }
    for (old, new) in [
        ("o\n5", "\n5"),
        ("\n5\n", "\n-5\n"),
        ("AwMD", "AwM"),
        ("checkpoint 9", "checkpoint x"),
        ("checkpoint 9", "checkpoints 9"),
        ("time ", "time x"),
        ("boot b 7", "boot b7"),
        ("boot b 7", "boot b x"),
        ("interval 10", "interval"),
        ("state open", "state opened"),
    ] {
        let forged = text.replacen(old, new, 1);
        assert!(forged != text && Checkpoint::parse(&forged).is_err(), "{new}");
    }
}

#[test]
fn only_a_rotation_note_of_the_old_key_names_a_new_one() {
    let (old, new, third) = (key("k", 1), key("k", 2), key("k", 3));
    let keys = [third.public(), old.public()];
    let note = rotation(&old, &new.public(), Time::EPOCH);
    let (next, by) = open_rotation(&note, &keys).unwrap();
    assert_eq!((next, by), (new.public(), &old.public()));
    let text = open(&note, &keys).unwrap().0.to_owned();
    // Signed by a key that is trusted, but does not speak of itself.
    assert_eq!(open_rotation(&third.sign(&text), &keys), Err(NoteError::Form("key rotation")));
    for (from, to) in [(ROTATION, "agent-monitor checkpoint"), ("\nold ", "\nolder "), ("\nnew ", "\nnewer ")]
    {
        let forged = old.sign(&text.replace(from, to));
        assert_eq!(open_rotation(&forged, &keys), Err(NoteError::Form("key rotation")), "{to}");
    }
    // A text of other content with two such lines somewhere below.
    assert!(open_rotation(&old.sign(&format!("x\n{text}")), &keys).is_err());
    let bad = old.sign(&text.replace(&new.public().hash_hex(), "00000000"));
    assert!(open_rotation(&bad, &keys).is_err());
}
