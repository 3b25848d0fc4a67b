//! Going on with the programs of an earlier daemon: made from the same object for the same kernel and settings, they are what
//! this daemon would load. Their links stay as they are, and a restart costs neither verification nor an instant with two sets.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use aya::{
    maps::{Map, MapData, RingBuf},
    programs::{
        ProgramFd, ProgramInfo,
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
};
use sha2::{Digest as _, Sha256};

use super::{KernelError, Options, attach::Cost, object::lsm_active, raw};

/// Longest name that the kernel keeps of a program (`BPF_OBJ_NAME_LEN`, include/uapi/linux/bpf.h, with its end).
const NAME: usize = 15;

/// A number for what programs are made from: never 0, and the same only where a daemon would load the same programs.
pub(super) fn build(object: &[u8], offsets: &[(&str, u32)], options: &Options) -> u32 {
    let mut hash = Sha256::new();
    hash.update(object);
    for (symbol, offset) in offsets {
        hash.update(symbol.as_bytes());
        hash.update(offset.to_le_bytes());
    }
    let Options { bpffs: _, btf: _, fresh: _, cgroup, unattributed, ring_bytes, force_partial } = options;
    hash.update(unattributed.to_le_bytes());
    hash.update(ring_bytes.to_le_bytes());
    hash.update([u8::from(*force_partial), u8::from(lsm_active())]);
    hash.update(cgroup.as_deref().map_or(&b""[..], |path| path.as_os_str().as_encoded_bytes()));
    let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
    u32::from_le_bytes([a, b, c, d]).max(1)
}

/// The pinned links of an earlier daemon, by program.
#[derive(Default)]
pub(super) struct Links {
    programs: BTreeMap<String, (ProgramFd, Option<Cost>)>,
    /// Every program that this level wants was among them, so far.
    pub(super) whole: bool,
}

impl Links {
    /// Opens what is pinned in a directory. A pin that is no link to a program of its name is not in it.
    ///
    /// # Errors
    /// When the directory or the list of programs cannot be read.
    pub(super) fn open(dir: &Path) -> Result<Self, KernelError> {
        let mut loaded: BTreeMap<u32, ProgramInfo> =
            loaded_programs().flatten().map(|info| (info.id(), info)).collect();
        let mut programs = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(|e| KernelError::io("read", dir, e))?.flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let Some(name) = file.strip_prefix("link_") else { continue };
            let link = PinnedLink::from_pin(entry.path()).map(FdLink::from);
            let Some(info) =
                link.and_then(|link| link.info()).ok().and_then(|link| loaded.remove(&link.program_id()))
            else {
                continue;
            };
            let named = name.get(..NAME).unwrap_or(name);
            if let (Some(true), Ok(fd)) = (info.name_as_str().map(|found| found == named), info.fd()) {
                programs.insert(name.to_owned(), (fd, Cost::of(&info)));
            }
        }
        Ok(Self { programs, whole: true })
    }

    /// What a program cost, if it is attached already; `None` in `Some` where the kernel does not say.
    pub(super) fn cost(&self, program: &str) -> Option<Option<Cost>> {
        self.programs.get(program).map(|(_, cost)| *cost)
    }

    /// An adopted program.
    pub(super) fn program_fd(&self, program: &str) -> Option<BorrowedFd<'_>> {
        self.programs.get(program).map(|(fd, _)| fd.as_fd())
    }
}

/// Empties the pinned maps of these names, and discards what is in rings.
///
/// # Errors
/// When one cannot be opened or emptied.
pub(super) fn clear(dir: &Path, maps: &[&str]) -> Result<(), KernelError> {
    for name in maps {
        let path = dir.join(format!("map_{name}"));
        let map = raw::get(&path).map_err(|e| KernelError::io("open the pin", &path, e))?;
        raw::clear(map.as_fd()).map_err(|e| KernelError::io("empty the map", &path, e))?;
        if matches!(*name, "EVENTS" | "PRIORITY") {
            let what = || format!("empty the ring {}", path.display());
            let data = MapData::from_pin(&path).map_err(|e| KernelError::bpf(what(), &e))?;
            let map = Map::from_map_data(data).map_err(|e| KernelError::bpf(what(), &e))?;
            let mut ring = RingBuf::try_from(map).map_err(|e| KernelError::bpf(what(), &e))?;
            while ring.next().is_some() {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_build_is_another_number() {
        let options = Options {
            bpffs: "/a".into(),
            btf: None,
            cgroup: None,
            unattributed: 1,
            ring_bytes: 4096,
            force_partial: false,
            fresh: false,
        };
        let same = build(b"object", &[("A", 1)], &options);
        let moved = Options { bpffs: "/b".into(), fresh: true, ..options.clone() };
        assert_eq!(same, build(b"object", &[("A", 1)], &moved));
        let others = [
            build(b"other", &[("A", 1)], &options),
            build(b"object", &[("A", 2)], &options),
            build(b"object", &[("B", 1)], &options),
            build(b"object", &[("A", 1)], &Options { unattributed: 2, ..options.clone() }),
            build(b"object", &[("A", 1)], &Options { ring_bytes: 8192, ..options.clone() }),
            build(b"object", &[("A", 1)], &Options { force_partial: true, ..options.clone() }),
            build(b"object", &[("A", 1)], &Options { cgroup: Some("/c".into()), ..options }),
        ];
        assert!(others.iter().all(|other| *other != same && *other != 0), "{same} in {others:?}");
    }
}
