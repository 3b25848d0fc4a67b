//! Acts through io_uring: no syscall of the act's own is made, so only hooks on objects see them.

use super::socket::{family, inet, make, parse};
use super::{Act, Facts, Failure, Outcome, word};
use crate::sys::{Arg, call, call_fd, cstr, num};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const ACTS: &[Act] = &[
    Act::new("uring-open", "PATH HOW", uring_open),
    Act::new("uring-open-as", "PATH HOW", |args| uring_open_as(args, 0)),
    Act::new("uring-open-by-worker", "PATH HOW", |args| uring_open_as(args, IOSQE_ASYNC)),
    Act::new("uring-open-by-task-work", "PATH HOW", uring_open_by_task_work),
    Act::new("uring-connect", "ADDR:PORT", uring_connect),
];

const ENTRIES: usize = 4;
const IORING_OP_POLL_ADD: u8 = 6;
const IORING_OP_CONNECT: u8 = 16;
const IORING_OP_OPENAT: u8 = 18;
const IORING_ENTER_GETEVENTS: u32 = 1;
const IORING_REGISTER_PERSONALITY: u32 = 9;
const IOSQE_IO_LINK: u8 = 1 << 2;
const IOSQE_ASYNC: u8 = 1 << 4;
const OFF_SQ_RING: i64 = 0;
const OFF_CQ_RING: i64 = 0x0800_0000;
const OFF_SQES: i64 = 0x1000_0000;

/// A ring with its three mappings, which live as long as the process.
struct Ring {
    fd: OwnedFd,
    /// `struct io_uring_params` as the kernel filled it in.
    params: [u8; 120],
    sq: *mut u8,
    cq: *mut u8,
    sqes: *mut u8,
}

impl Ring {
    fn new() -> Result<Self, Failure> {
        let mut params = [0_u8; 120];
        let fd = call_fd(libc::SYS_io_uring_setup, &mut [num(ENTRIES), Arg::Out(&mut params)]);
        let fd = fd.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOSYS | libc::EPERM) => Failure::Skip(format!("io_uring_setup: {error}")),
            _ => Failure::Errno(error),
        })?;
        let map = |size: usize, offset: i64| -> io::Result<*mut u8> {
            let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
            let mut args = [Arg::Null, num(size), num(prot), num(flags), num(fd.as_raw_fd()), num(offset)];
            call(libc::SYS_mmap, &mut args).map(|address| address as *mut u8)
        };
        // Ring pages: offsets are below a page for four entries, but the kernel rounds up anyway.
        let (sq, cq, sqes) = (map(4096, OFF_SQ_RING)?, map(4096, OFF_CQ_RING)?, map(4096, OFF_SQES)?);
        Ok(Self { fd, params, sq, cq, sqes })
    }

    /// The u32 of the parameters at `at`.
    fn param(&self, at: usize) -> usize {
        let mut word = [0_u8; 4];
        word.copy_from_slice(&self.params[at..at + 4]);
        u32::from_ne_bytes(word) as usize
    }

    /// A word of a ring page.
    fn word(base: *mut u8, offset: usize) -> &'static AtomicU32 {
        // SAFETY: the page is mapped for the life of the process, `offset` came from the kernel, is aligned to
        // four and lies within the page.
        unsafe { &*base.add(offset).cast::<AtomicU32>() }
    }

    /// Submits one entry and waits for its result.
    fn run(&self, sqe: &[u8; 64]) -> Result<i32, Failure> {
        self.push(sqe);
        self.enter(1, 1)?;
        Ok(self.pop())
    }

    /// Puts an entry into the queue.
    fn push(&self, sqe: &[u8; 64]) {
        // struct io_uring_params: seven words, resv[3], then sq_off at 40 (head, tail, mask, entries, flags,
        // dropped, array) and cq_off at 80 (head, tail, mask, entries, overflow, cqes).
        let (sq_tail, sq_mask, sq_array) = (self.param(44), self.param(48), self.param(64));
        let tail = Self::word(self.sq, sq_tail);
        let at = tail.load(Ordering::Acquire);
        let index = (at & Self::word(self.sq, sq_mask).load(Ordering::Relaxed)) as usize;
        // SAFETY: `index` is below ENTRIES, so the entry lies within the mapped page of entries, and the kernel
        // does not read it before the tail moves.
        unsafe { self.sqes.add(index * 64).copy_from_nonoverlapping(sqe.as_ptr(), 64) };
        Self::word(self.sq, sq_array + index * 4).store(index as u32, Ordering::Relaxed);
        tail.store(at.wrapping_add(1), Ordering::Release);
    }

    /// Submits so many entries and waits until so many results are there.
    fn enter(&self, submit: u32, results: u32) -> io::Result<()> {
        let flags = if results == 0 { 0 } else { IORING_ENTER_GETEVENTS };
        let mut args = [num(self.fd.as_raw_fd()), num(submit), num(results), num(flags), Arg::Null, num(0)];
        call(libc::SYS_io_uring_enter, &mut args).map(drop)
    }

    /// Takes the next result.
    fn pop(&self) -> i32 {
        let (cq_head, cq_mask, cqes) = (self.param(80), self.param(88), self.param(100));
        let head = Self::word(self.cq, cq_head);
        let at = head.load(Ordering::Acquire);
        let index = (at & Self::word(self.cq, cq_mask).load(Ordering::Relaxed)) as usize;
        // struct io_uring_cqe: user_data u64, res i32, flags u32
        let result = Self::word(self.cq, cqes + index * 16 + 8).load(Ordering::Acquire) as i32;
        head.store(at.wrapping_add(1), Ordering::Release);
        result
    }

    /// Registers the credentials in use now, then takes new ones: an entry that names them runs with what is not the task's.
    fn personality(&self) -> Result<u16, Failure> {
        let mut args = [num(self.fd.as_raw_fd()), num(IORING_REGISTER_PERSONALITY), Arg::Null, num(0)];
        let id = call(libc::SYS_io_uring_register, &mut args)?;
        call(libc::SYS_prctl, &mut [num(libc::PR_SET_KEEPCAPS), num(1), num(0), num(0), num(0)])?;
        Ok(id as u16)
    }
}

/// An entry: opcode, descriptor, `off`, `addr`, `len`, flags of the operation.
fn sqe(opcode: u8, fd: i32, off: u64, addr: usize, len: u32, flags: u32) -> [u8; 64] {
    let mut entry = [0_u8; 64];
    entry[0] = opcode;
    entry[4..8].copy_from_slice(&fd.to_ne_bytes());
    entry[8..16].copy_from_slice(&off.to_ne_bytes());
    entry[16..24].copy_from_slice(&(addr as u64).to_ne_bytes());
    entry[24..28].copy_from_slice(&len.to_ne_bytes());
    entry[28..32].copy_from_slice(&flags.to_ne_bytes());
    entry
}

fn finish(result: i32) -> Outcome {
    if result < 0 { Err(io::Error::from_raw_os_error(-result).into()) } else { Ok(Facts::new()) }
}

fn uring_open(args: &[String]) -> Outcome {
    let (path, flags) = (cstr(word(args, 0)?), super::file::flags(word(args, 1)?)?);
    let entry = sqe(IORING_OP_OPENAT, libc::AT_FDCWD, 0, path.as_ptr() as usize, 0o644, flags as u32);
    finish(Ring::new()?.run(&entry)?)
}

fn uring_connect(args: &[String]) -> Outcome {
    let addr = parse(word(args, 0)?)?;
    let (socket, peer) = (make(family(addr), libc::SOCK_STREAM)?, inet(addr));
    let entry = sqe(IORING_OP_CONNECT, socket.as_raw_fd(), peer.len() as u64, peer.as_ptr() as usize, 0, 0);
    finish(Ring::new()?.run(&entry)?)
}

/// An entry that opens `path`, flagged, with registered credentials.
fn open_as(ring: &Ring, path: &CStr, how: &str, flags: u8) -> Result<[u8; 64], Failure> {
    let open = super::file::flags(how)? as u32;
    let mut entry = sqe(IORING_OP_OPENAT, libc::AT_FDCWD, 0, path.as_ptr() as usize, 0o644, open);
    entry[1] = flags;
    // struct io_uring_sqe: buf_index at 40, personality at 42
    entry[42..44].copy_from_slice(&ring.personality()?.to_ne_bytes());
    Ok(entry)
}

fn uring_open_as(args: &[String], flags: u8) -> Outcome {
    let (ring, path) = (Ring::new()?, cstr(word(args, 0)?));
    let entry = open_as(&ring, &path, word(args, 1)?, flags)?;
    finish(ring.run(&entry)?)
}

/// The open waits for a pipe; it runs as task work at the end of the write that wakes it.
fn uring_open_by_task_work(args: &[String]) -> Outcome {
    let (ring, path) = (Ring::new()?, cstr(word(args, 0)?));
    let (read, write) = crate::sys::pipe()?;
    let mut poll = sqe(IORING_OP_POLL_ADD, read.as_raw_fd(), 0, 0, 0, libc::POLLIN as u32);
    poll[1] = IOSQE_IO_LINK;
    let open = open_as(&ring, &path, word(args, 1)?, 0)?;
    ring.push(&poll);
    ring.push(&open);
    ring.enter(2, 0)?;
    crate::sys::write_all(write.as_raw_fd(), b"x")?;
    ring.enter(0, 2)?;
    let polled = ring.pop();
    if polled < 0 {
        return Err(Failure::Skip(format!("poll ended with {polled}")));
    }
    finish(ring.pop())
}
