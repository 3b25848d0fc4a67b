//! Bytes as a log: its lines, a closed segment, and the verifier over them. Total on any input, and never "holds" for
//! what no key sealed.
#![no_main]

use std::io::Write as _;

use agent_monitor::log::note::SecretKey;
use agent_monitor::log::segment::{parse, sealed};
use agent_monitor::log::verify::{Options, Verifier};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let options = Options { keys: vec![SecretKey::new("fuzz", &[1; 32]).public()], ..Options::default() };
    let mut verifier = Verifier::new(&options);
    verifier.file("fuzz".to_owned(), 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let _parsed = parse(line);
        if !verifier.line(line) {
            break;
        }
    }
    assert!(!verifier.finish().ok);
    let path = std::env::temp_dir().join(format!("fuzz-log-{}", std::process::id()));
    let mut file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    file.write_all(bytes).unwrap();
    if let Ok(index) = sealed::index(&mut file) {
        for block in &index.blocks {
            let _lines = sealed::block(&mut file, block);
        }
    }
});
