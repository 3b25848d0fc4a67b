//! Lines and closed segments, and what hostile bytes become.

use std::io::{Seek as _, Write as _};

use proptest::prelude::*;

use super::*;
use crate::log::merkle::leaf;

fn lines(count: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let frontier = Frontier::default();
    push_header(
        &mut out,
        &Header {
            version: VERSION,
            origin: "o".into(),
            first: 0,
            checkpoint: 0,
            peaks: peaks(&frontier),
            time: Time::EPOCH,
            key: "k".into(),
        },
    );
    for number in 0..count {
        let time = Time::from_unix_nanos(i128::from(number) * 1_000_000_000);
        let json =
            format!("{{\"time\":\"{time}\",\"agent\":{{\"id\":\"bot\"}},\"pad\":\"{}\"}}", "x".repeat(400));
        push_record(&mut out, number, &leaf(json.as_bytes()), json.as_bytes());
    }
    push_note(&mut out, 'C', "o\n1\nx\ncheckpoint 4\n\n— a b\n");
    out
}

fn sealed(lines: &[u8]) -> (File, sealed::Index) {
    let mut file = tempfile::tempfile().unwrap();
    let key = crate::log::note::SecretKey::new("k", &[1; 32]);
    let index = sealed::seal(0, lines, &mut file, &key, "o").unwrap();
    (file, index)
}

#[test]
fn a_closed_segment_gives_its_lines_back_by_block_and_whole() {
    let text = lines(3000);
    let (mut file, index) = sealed(&text);
    assert_eq!(sealed::index(&mut file).unwrap(), index);
    assert!(index.blocks.len() > 3, "{}", index.blocks.len());
    assert_eq!((index.end, index.checkpoint, index.agents.get("bot")), (3000, 4, Some(&3000)));
    let blocks: Vec<u8> =
        index.blocks.iter().flat_map(|block| sealed::block(&mut file, block).unwrap()).collect();
    assert!(blocks == text);
    file.rewind().unwrap();
    assert!(zstd::decode_all(file).unwrap() == text, "zstd skips the index");
}

#[test]
fn every_changed_byte_is_an_error_or_changes_the_lines() {
    let text = lines(20);
    let (mut file, index) = sealed(&text);
    let key = crate::log::note::SecretKey::new("k", &[1; 32]);
    assert_eq!(
        sealed::find(&mut file).unwrap().signed(&[key.public()]),
        Ok(Some(("o".to_owned(), &key.public())))
    );
    let length = file.seek(io::SeekFrom::End(0)).unwrap();
    for at in 0..length {
        use std::os::unix::fs::FileExt as _;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
        let read = sealed::find(&mut file).and_then(|found| {
            sealed::block(&mut file, &found.index.blocks[0])?;
            found.signed(&[key.public()]).map(|_| ()).map_err(io::Error::other)
        });
        assert!(read.is_err(), "byte {at} of {length}: {index:?}");
        file.write_all_at(&byte, at).unwrap();
    }
}

#[test]
fn links_and_pipes_are_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let (file, link) = (directory.path().join("f"), directory.path().join("l"));
    fs::write(&file, b"x").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(open(&file).is_ok() && open(&link).is_err() && open(directory.path()).is_err());
    let pipe = directory.path().join("p");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    assert!(open(&pipe).is_err());
}

#[test]
fn of_two_files_of_one_segment_the_closed_one_counts() {
    let directory = tempfile::tempdir().unwrap();
    for name in [
        "00000000000000000000.open",
        "00000000000000000000.zst",
        "00000000000000000009.open",
        "x.zst",
        "9.open",
    ] {
        fs::write(directory.path().join(name), b"").unwrap();
    }
    let found: Vec<_> = list(directory.path()).unwrap().into_iter().map(|s| (s.first, s.sealed)).collect();
    assert_eq!(found, [(0, true), (9, false)]);
}

proptest! {
    #[test]
    fn any_line_is_taken(line in proptest::collection::vec(any::<u8>(), 0..80), tag in "[HRCK] ") {
        drop(parse(&line));
        drop(parse(&[tag.as_bytes(), &line].concat()));
    }

    #[test]
    fn any_file_is_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.write_all(b"AMIX").unwrap();
        drop(sealed::index(&mut file));
    }
}
