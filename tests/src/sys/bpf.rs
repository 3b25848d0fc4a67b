//! `bpf(2)` as far as the tests need it: what is loaded, and whether we may ask.

use super::{Arg, call, num};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_MAP_CREATE: u32 = 0;
const BPF_MAP_UPDATE_ELEM: u32 = 2;
const BPF_MAP_DELETE_ELEM: u32 = 3;
const BPF_OBJ_GET: u32 = 7;
const BPF_PROG_GET_NEXT_ID: u32 = 11;
const BPF_MAP_GET_NEXT_ID: u32 = 12;
const BPF_PROG_GET_FD_BY_ID: u32 = 13;
const BPF_OBJ_GET_INFO_BY_FD: u32 = 15;
const BPF_LINK_GET_NEXT_ID: u32 = 31;

/// A thing the kernel numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Program,
    Map,
    Link,
}

fn command(command: u32, attr: &mut [u8]) -> io::Result<usize> {
    let length = attr.len();
    call(libc::SYS_bpf, &mut [num(command), Arg::Out(attr), num(length)])
}

/// Ids of everything of this kind that is loaded now.
pub fn ids(kind: Kind) -> io::Result<BTreeSet<u32>> {
    let number = match kind {
        Kind::Program => BPF_PROG_GET_NEXT_ID,
        Kind::Map => BPF_MAP_GET_NEXT_ID,
        Kind::Link => BPF_LINK_GET_NEXT_ID,
    };
    let mut found = BTreeSet::new();
    let mut start = 0_u32;
    loop {
        // struct { u32 start_id; u32 next_id; u32 open_flags; }
        let mut attr = [0_u8; 12];
        attr[..4].copy_from_slice(&start.to_ne_bytes());
        match command(number, &mut attr) {
            Ok(_) => {
                start = u32::from_ne_bytes([attr[4], attr[5], attr[6], attr[7]]);
                found.insert(start);
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(found),
            Err(error) => return Err(error),
        }
    }
}

/// What the kernel says of an object.
fn info<const N: usize>(fd: &OwnedFd) -> io::Result<[u8; N]> {
    let mut info = [0_u8; N];
    // struct { u32 bpf_fd; u32 info_len; u64 info; }
    let mut attr = [0_u8; 16];
    attr[..4].copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
    attr[4..8].copy_from_slice(&(N as u32).to_ne_bytes());
    attr[8..].copy_from_slice(&(info.as_mut_ptr() as u64).to_ne_bytes());
    command(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// Name of a loaded program (15 bytes at most); `None` once it is gone.
pub fn program_name(id: u32) -> Option<String> {
    let mut attr = [0_u8; 12];
    attr[..4].copy_from_slice(&id.to_ne_bytes());
    let fd = command(BPF_PROG_GET_FD_BY_ID, &mut attr).ok()?;
    // SAFETY: the kernel just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let info = info::<232>(&fd).ok()?;
    // struct bpf_prog_info: type, id, tag[8], 2 lengths, 2 pointers, load_time, created_by_uid, nr_map_ids,
    // map_ids, name[16] at 64.
    let name = &info[64..80];
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    Some(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// Makes a one-entry array map: the smallest act that needs the right to call `bpf()`.
pub fn create_map() -> io::Result<OwnedFd> {
    let mut attr = [0_u8; 72];
    // map_type = ARRAY, key_size, value_size, max_entries
    for (slot, value) in attr.chunks_exact_mut(4).zip([2_u32, 4, 8, 1]) {
        slot.copy_from_slice(&value.to_ne_bytes());
    }
    let fd = command(BPF_MAP_CREATE, &mut attr)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A pinned map, for filling it up.
#[derive(Debug)]
pub struct PinnedMap {
    fd: OwnedFd,
    key: usize,
    value: usize,
}

impl PinnedMap {
    /// Opens the pin.
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
        // struct { u64 pathname; u32 bpf_fd; u32 file_flags; }
        let mut attr = [0_u8; 16];
        attr[..8].copy_from_slice(&(name.as_ptr() as u64).to_ne_bytes());
        let fd = command(BPF_OBJ_GET, &mut attr)?;
        // SAFETY: the kernel just made this descriptor for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let info = info::<64>(&fd)?;
        // struct bpf_map_info: type, id, key_size, value_size.
        let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        Ok(Self { fd, key: word(8) as usize, value: word(12) as usize })
    }

    fn element(&self, number: u32, what: u32) -> io::Result<()> {
        let mut key = vec![0xee_u8; self.key];
        let end = self.key.min(4);
        key[..end].copy_from_slice(&number.to_ne_bytes()[..end]);
        let value = vec![0_u8; self.value];
        // struct { u32 map_fd; u64 key; u64 value; u64 flags; }
        let mut attr = [0_u8; 32];
        attr[..4].copy_from_slice(&self.fd.as_raw_fd().to_ne_bytes());
        attr[8..16].copy_from_slice(&(key.as_ptr() as u64).to_ne_bytes());
        if what == BPF_MAP_UPDATE_ELEM {
            attr[16..24].copy_from_slice(&(value.as_ptr() as u64).to_ne_bytes());
        }
        command(what, &mut attr).map(drop)
    }

    /// Enters elements that mean nothing until there is room for no more; their number.
    pub fn fill(&self) -> io::Result<u32> {
        for number in 0..u32::MAX >> 1 {
            match self.element(JUNK + number, BPF_MAP_UPDATE_ELEM) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::E2BIG) => return Ok(number),
                Err(error) => return Err(error),
            }
        }
        Ok(u32::MAX)
    }

    /// Takes so many of them out again.
    pub fn clear(&self, count: u32) -> io::Result<()> {
        (0..count).try_for_each(|number| self.element(JUNK + number, BPF_MAP_DELETE_ELEM))
    }
}

/// No pid, agent or device has so large a number.
const JUNK: u32 = 0x7000_0000;
