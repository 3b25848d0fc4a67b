//! The commands of `bpf(2)` that the library has no safe call for.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Commands, include/uapi/linux/bpf.h `enum bpf_cmd`.
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// Types of maps, include/uapi/linux/bpf.h `enum bpf_map_type`.
const MAP_HASH: u32 = 1;
const MAP_ARRAY: u32 = 2;
const MAP_LRU_HASH: u32 = 9;
const MAP_LPM_TRIE: u32 = 11;

/// Calls `bpf(2)` with a value of `union bpf_attr` that begins as `attr`.
fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads `size` bytes of `attr`, which is plain old data; pointers in it outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[repr(C)]
struct PathAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn number(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
}

/// A descriptor of what is pinned at a path.
pub(super) fn get(path: &Path) -> io::Result<OwnedFd> {
    let text = text(path)?;
    let fd = bpf(BPF_OBJ_GET, &PathAttr { path: text.as_ptr() as u64, fd: 0, flags: 0 })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor, which is close-on-exec, and nobody else holds it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins what a descriptor stands for.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let text = text(path)?;
    bpf(BPF_OBJ_PIN, &PathAttr { path: text.as_ptr() as u64, fd: number(fd)?, flags: 0 }).map(drop)
}

/// The number of a map, program or link: the second word of each `struct bpf_*_info`.
pub(super) fn id(fd: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(info(fd)?[1])
}

/// The first words of a `struct bpf_*_info`.
fn info(fd: BorrowedFd<'_>) -> io::Result<[u32; 64]> {
    let mut info = [0u32; 64];
    let length = u32::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    let at = info.as_mut_ptr() as u64;
    bpf(BPF_OBJ_GET_INFO_BY_FD, &InfoAttr { fd: number(fd)?, length, info: at })?;
    Ok(info)
}

#[repr(C)]
struct ElementAttr {
    map: u32,
    reserved: u32,
    key: u64,
    /// Or the next key.
    value: u64,
    flags: u64,
}

/// Makes a map as it was when it was made: entries removed, elements of arrays zero. What hangs on tasks and sockets ends with
/// them, and what is in a ring stays: neither can be removed by key.
pub(super) fn clear(map: BorrowedFd<'_>) -> io::Result<()> {
    let [kind, _, key_size, value_size, entries, ..] = info(map)?;
    let (mut key, mut value) = (vec![0u8; key_size as usize], vec![0u8; value_size as usize]);
    let at = |key: &[u8], value: u64| -> io::Result<ElementAttr> {
        Ok(ElementAttr { map: number(map)?, reserved: 0, key: key.as_ptr() as u64, value, flags: 0 })
    };
    match kind {
        MAP_ARRAY => {
            for index in 0..entries {
                key.copy_from_slice(&index.to_ne_bytes());
                bpf(BPF_MAP_UPDATE_ELEM, &at(&key, value.as_mut_ptr() as u64)?)?;
            }
        }
        MAP_HASH | MAP_LRU_HASH | MAP_LPM_TRIE => loop {
            // Without a key, the first one.
            let first = ElementAttr {
                map: number(map)?,
                reserved: 0,
                key: 0,
                value: key.as_mut_ptr() as u64,
                flags: 0,
            };
            match bpf(BPF_MAP_GET_NEXT_KEY, &first) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                Err(error) => return Err(error),
            }
            match bpf(BPF_MAP_DELETE_ELEM, &at(&key, 0)?) {
                // A program was faster.
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
                _ => {}
            }
        },
        _ => {}
    }
    Ok(())
}
