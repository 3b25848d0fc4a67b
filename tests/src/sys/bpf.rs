//! `bpf(2)` as far as the tests need it: what is loaded, and whether we may ask.

use super::{Arg, call, num};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

const BPF_MAP_CREATE: u32 = 0;
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

/// Name of a loaded program (15 bytes at most); `None` once it is gone.
pub fn program_name(id: u32) -> Option<String> {
    let mut attr = [0_u8; 12];
    attr[..4].copy_from_slice(&id.to_ne_bytes());
    let fd = command(BPF_PROG_GET_FD_BY_ID, &mut attr).ok()?;
    // SAFETY: the kernel just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let mut info = [0_u8; 232];
    let mut attr = [0_u8; 16];
    attr[..4].copy_from_slice(&std::os::fd::AsRawFd::as_raw_fd(&fd).to_ne_bytes());
    attr[4..8].copy_from_slice(&(info.len() as u32).to_ne_bytes());
    attr[8..].copy_from_slice(&(info.as_mut_ptr() as u64).to_ne_bytes());
    command(BPF_OBJ_GET_INFO_BY_FD, &mut attr).ok()?;
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
