//! Python and Node for the machines: the interpreters of this host with what the tests import, on one kernel only, for
//! Node alone is larger than everything else in a machine.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use sha2::{Digest as _, Sha256};

use super::initramfs::{libraries, pack, take_along};
use super::kernel::Kernel;
use crate::{shell, workspace};

/// The series whose machine has them.
const SERIES: &str = "6.12";

const NODE: &str = "/usr/bin/node";
const PYTHON: &str = "/usr/bin/python3";

/// Prints the files of all modules that the tests' programs import, and of the encodings that a start may ask for.
const IMPORTED: &str = "\
import encodings.ascii, encodings.idna, encodings.latin_1, errno, json, os, pathlib, socket, sys, tempfile, threading
for module in list(sys.modules.values()):
    for name in ('__file__', '__cached__'):
        path = getattr(module, name, None)
        if path and os.path.isfile(path):
            print(path)
";

/// The archive for this kernel; `None` where it has none. An interpreter that this host lacks is left out, with
/// the tests that need it, and that is said.
pub(super) fn archive(kernel: &Kernel) -> Result<Option<PathBuf>> {
    if kernel.series != SERIES {
        return Ok(None);
    }
    let mut files = BTreeSet::new();
    if Path::new(PYTHON).is_file() {
        files.insert(PathBuf::from(PYTHON));
        // Without the user's own packages.
        let listed = shell::output(Command::new(PYTHON).args(["-I", "-c", IMPORTED]))?;
        files.extend(listed.lines().map(PathBuf::from));
    }
    if Path::new(NODE).is_file() {
        files.insert(PathBuf::from(NODE));
    }
    for missing in [PYTHON, NODE].iter().filter(|path| !Path::new(path).is_file()) {
        println!("vm {SERIES}: there is no {missing} here: tests that need it are left out");
    }
    // Kept while none of them has changed.
    let mut digest = Sha256::new();
    for file in &files {
        let meta = fs::metadata(file)?;
        digest.update(format!("{} {} {}\n", file.display(), meta.size(), meta.mtime()));
    }
    let key: String = digest.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let archive = workspace::target()?.join(format!("vm/interpreters-{key}.cpio.gz"));
    if !archive.is_file() {
        let stage = tempfile::tempdir()?;
        let mut linked = Vec::new();
        for file in &files {
            linked.extend(take_along(file, stage.path())?);
        }
        libraries(&linked, stage.path())?;
        pack(stage.path(), &archive)?;
    }
    Ok(Some(archive))
}
