//! A bundle as one file: `.tar.zst`, made and unpacked without trusting what is in it.
//!
//! The list and its signature come first in the archive. Before anything is unpacked, all headers are read: the list must
//! be signed (by a key that is given, or else by one of its own), and every entry must be a regular file of the list
//! with the size that the list says.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Component, Path};

use super::contents::Part;
use super::manifest::{self, Manifest};
use super::verify::chained;
use super::{BundleError, write};
use crate::log::note::PublicKey;
use crate::log::verify::{Damage, Kind};

/// Bytes that a bundle may unpack to whose list a key that was given has signed.
const TRUSTED_MAX: u64 = 64 << 30;
/// The same for all others.
const STRANGER_MAX: u64 = 4 << 30;
/// Longest of the other files that are read before the list is believed, and of those that the list does not name.
const SMALL_MAX: u64 = 16 << 20;
/// Longest name of an entry.
const NAME_MAX: u64 = 4096;
/// Bytes of headers and padding for each entry, at the most.
const OVERHEAD: u64 = 8 << 10;

/// What comes first in an archive.
const FIRST: [&str; 4] = [manifest::FILE, manifest::SIGNATURE, "keys.txt", "rotations.txt"];

/// Packs the directory `dir` into `to`, for its owner only; the paths in it begin with `root`.
///
/// # Errors
/// When reading or writing fails; what was written is then removed.
pub fn pack(dir: &Path, root: &str, to: &Path) -> Result<(), BundleError> {
    let file = write::private(to).map_err(BundleError::on("make", to))?;
    let work = || -> io::Result<()> {
        let mut encoder = zstd::Encoder::new(file, 9)?;
        encoder.include_checksum(true)?;
        let mut tar = tar::Builder::new(encoder);
        let mut files = manifest::walk(dir)?;
        files.sort_by_key(|(name, _)| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
        for (path, file) in files {
            let mut file = File::open(file)?;
            let mut header = tar::Header::new_ustar();
            header.set_size(file.metadata()?.len());
            header.set_mode(0o600);
            header.set_mtime(0);
            tar.append_data(&mut header, format!("{root}/{path}"), &mut file)?;
        }
        let mut file = tar.into_inner()?.finish()?;
        file.flush()?;
        file.sync_all()
    };
    work().map_err(BundleError::on("pack the bundle into", to)).inspect_err(|_error| {
        fs::remove_file(to).ok();
    })
}

/// Checks the packed bundle `from` with `keys`, or with its own where there are none, and unpacks it into a file without
/// a name. Returns where each file is in it.
pub(super) fn unpack(from: &Path, keys: &[PublicKey]) -> Result<(File, BTreeMap<String, Part>), BundleError> {
    let on = |error| BundleError::on("unpack the bundle", from)(error);
    let mut file = crate::log::segment::open(from)?;
    let mut scan = Scan { keys, ..Scan::default() };
    scan.all(&file).map_err(|problem| match problem {
        Problem::Io(error) => on(error),
        Problem::Bad(damage) => BundleError::Refused(damage),
    })?;
    let copy = || -> io::Result<File> {
        file.rewind()?;
        let mut spool = nameless()?;
        io::copy(&mut zstd::Decoder::new(&file)?.take(scan.end), &mut spool)?;
        Ok(spool)
    };
    let spool = { copy }().map_err(on)?;
    Ok((spool, scan.files))
}

/// A file that goes away with the last one who has it open.
fn nameless() -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let dir = std::env::temp_dir();
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(&dir, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(File::from(file)),
        // A file system without such files.
        Err(_) => {
            let path = dir.join(format!("agent-monitor-{}", uuid::Uuid::now_v7().simple()));
            let file = {
                use std::os::unix::fs::OpenOptionsExt as _;
                fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?
            };
            fs::remove_file(&path)?;
            Ok(file)
        }
    }
}

enum Problem {
    Io(io::Error),
    Bad(Box<Damage>),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn bad(kind: Kind, file: Option<&str>, message: String) -> Problem {
    Problem::Bad(Box::new(Damage {
        kind,
        record: None,
        checkpoint: None,
        file: file.map(str::to_owned),
        message,
    }))
}

/// What the headers of an archive say.
#[derive(Default)]
struct Scan<'a> {
    keys: &'a [PublicKey],
    root: Option<String>,
    files: BTreeMap<String, Part>,
    /// The files that are read before the list is believed.
    first: BTreeMap<String, Vec<u8>>,
    /// The sizes that the list says, once it is believed.
    listed: Option<BTreeMap<String, u64>>,
    /// Bytes of the archive up to the end of its last file, and of all its files.
    end: u64,
    total: u64,
    max: u64,
}

impl Scan<'_> {
    fn all(&mut self, file: &File) -> Result<(), Problem> {
        self.max = STRANGER_MAX;
        // One frame cannot ask for more than 128 MiB of window; the length of what comes out is counted here.
        let mut tar = tar::Archive::new(zstd::Decoder::new(file)?.take(TRUSTED_MAX));
        let mut long = None;
        // Raw: what an extension says is not read into memory before its size was looked at.
        for entry in tar.entries()?.raw(true) {
            let mut entry = entry?;
            if entry.header().entry_type().is_gnu_longname() {
                let mut name = Vec::new();
                entry.by_ref().take(NAME_MAX + 1).read_to_end(&mut name)?;
                if name.len() as u64 > NAME_MAX {
                    return Err(bad(Kind::Changed, None, "the name of an entry is too long".to_owned()));
                }
                long = Some(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned());
                continue;
            }
            let shown = match long.take() {
                Some(name) => name,
                None => String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
            };
            if !entry.header().entry_type().is_file() {
                return Err(bad(Kind::Changed, None, format!("{shown:?} is not a regular file")));
            }
            let name = self.name(&shown)?;
            let part = Part { at: entry.raw_file_position(), size: entry.size() };
            self.entry(&name, part)?;
            if FIRST.contains(&name.as_str()) {
                let max = if name == manifest::FILE { manifest::LENGTH_MAX } else { SMALL_MAX };
                if part.size > max {
                    return Err(bad(Kind::Changed, Some(&name), format!("{name} has {} bytes", part.size)));
                }
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                self.first.insert(name, bytes);
            }
        }
        self.believe()
    }

    /// The path of an entry inside the bundle.
    fn name(&mut self, shown: &str) -> Result<String, Problem> {
        let path = Path::new(shown);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let inside =
            shown.split_once('/').filter(|(root, rest)| plain && !root.is_empty() && !rest.is_empty());
        let Some((root, inside)) = inside else {
            return Err(bad(Kind::Changed, None, format!("{shown:?} is not a path in a bundle")));
        };
        if self.root.get_or_insert_with(|| root.to_owned()) == root {
            Ok(inside.to_owned())
        } else {
            Err(bad(Kind::Inserted, None, format!("{shown:?} is outside of the bundle's directory")))
        }
    }

    /// Takes an entry. The list is looked at when the first comes that is not among those before it.
    fn entry(&mut self, name: &str, part: Part) -> Result<(), Problem> {
        if self.files.len() >= manifest::FILES_MAX {
            return Err(bad(Kind::Inserted, None, format!("more than {} files", manifest::FILES_MAX)));
        }
        if self.files.insert(name.to_owned(), part).is_some() {
            return Err(bad(Kind::Inserted, Some(name), format!("{name} is in it twice")));
        }
        self.end = part.at.saturating_add(part.size);
        self.total = self.total.saturating_add(part.size);
        if !FIRST.contains(&name) && self.listed.is_none() && self.first.contains_key(manifest::FILE) {
            self.believe()?;
        }
        let room = self.max.saturating_add(OVERHEAD * self.files.len() as u64);
        if self.total > self.max || self.end > room {
            let message = format!("it unpacks to more than {} bytes", self.max);
            return Err(bad(Kind::Inserted, Some(name), message));
        }
        match &self.listed {
            Some(listed) => fits(listed, name, part.size),
            None => Ok(()),
        }
    }

    /// Looks at the list: who signed it, and whether what came so far is in it.
    fn believe(&mut self) -> Result<(), Problem> {
        if self.listed.is_some() {
            return Ok(());
        }
        let list = Some(manifest::FILE);
        let Some(bytes) = self.first.get(manifest::FILE) else {
            return Err(bad(Kind::Removed, list, "it has no list of its files".to_owned()));
        };
        let text = |name: &str| {
            let bytes = self.first.get(name).map(Vec::as_slice).unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        let given = !self.keys.is_empty();
        let keys = chained(self.keys, &text("keys.txt"), &text("rotations.txt"));
        match self.first.get(manifest::SIGNATURE) {
            Some(_) => {
                manifest::check(&text(manifest::SIGNATURE), bytes, &keys).map_err(|error| {
                    let other = matches!(error, crate::log::note::NoteError::OtherKey(_));
                    let kind = if other { Kind::OtherKey } else { Kind::Changed };
                    bad(kind, Some(manifest::SIGNATURE), format!("the manifest: {error}"))
                })?;
            }
            None if given => {
                let message = "the manifest is not signed".to_owned();
                return Err(bad(Kind::Removed, Some(manifest::SIGNATURE), message));
            }
            // The verification that follows names it as damage.
            None => {}
        }
        if given {
            self.max = TRUSTED_MAX;
        }
        let manifest: Manifest = serde_json::from_slice(bytes)
            .map_err(|error| bad(Kind::Changed, list, format!("manifest.json is no manifest: {error}")))?;
        let listed: BTreeMap<String, u64> =
            manifest.files.into_iter().map(|file| (file.path, file.size)).collect();
        self.files.iter().try_for_each(|(name, part)| fits(&listed, name, part.size))?;
        self.listed = Some(listed);
        Ok(())
    }
}

/// Whether a file is in the list with this size, or one of the few that never are.
fn fits(listed: &BTreeMap<String, u64>, name: &str, size: u64) -> Result<(), Problem> {
    let free = match name {
        manifest::FILE => Some(manifest::LENGTH_MAX),
        manifest::SIGNATURE | manifest::SUMS => Some(SMALL_MAX),
        manifest::CUSTODY => Some(super::custody::LOG_MAX),
        _ => None,
    };
    match (free, listed.get(name)) {
        (Some(max), _) if size <= max => Ok(()),
        (Some(max), _) => Err(bad(Kind::Changed, Some(name), format!("{name} is longer than {max} bytes"))),
        (None, Some(wanted)) if *wanted == size => Ok(()),
        (None, Some(wanted)) => {
            let message = format!("{name} has {size} bytes, and {wanted} in the list");
            Err(bad(Kind::Changed, Some(name), message))
        }
        (None, None) => Err(bad(Kind::Inserted, Some(name), format!("{name} is not listed"))),
    }
}
