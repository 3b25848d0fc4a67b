//! Process family: fork, exec, exit, argument chunks, bindings.

use agent_monitor_ebpf::event::{ARGS_MAX, ArgChunkBody, BoundBody, ExecBody, ExitBody, ForkBody};

use super::{Body, DecodeError, FsPath, Tail, TaskKey, Text, fixed};

/// A program was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecFacts {
    /// The image.
    pub exe: Option<FsPath>,
    /// Inode number of the image.
    pub exe_ino: u64,
    /// `ctime` of the image: seconds and nanoseconds.
    pub exe_ctime: (i64, u32),
    /// Working directory.
    pub cwd: Option<FsPath>,
    /// What the caller asked to run.
    pub filename: Option<Text>,
    /// The script, where the hook saw one.
    pub script: Option<FsPath>,
    /// Inode number of the script, 0 when none.
    pub script_ino: u64,
    /// Argument block when it is inline, NUL-separated.
    pub args: Vec<u8>,
    /// Bytes of the whole argument block.
    pub args_total: u32,
    /// Arguments counted by the kernel.
    pub argc: u32,
    /// Parent process; `None` when the kernel did not say.
    pub parent: Option<TaskKey>,
    /// Agent before this exec, 0 for none.
    pub before: u32,
    /// euid before this exec.
    pub euid_before: u32,
}

/// Part of an argument block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgChunk {
    /// Where in the block it starts.
    pub offset: u32,
    /// Bytes of the whole block.
    pub args_total: u32,
    /// Its bytes; `None` when they could not be read.
    pub bytes: Option<Vec<u8>>,
}

pub(super) fn fork(rest: &[u8]) -> Result<Body, DecodeError> {
    let body: ForkBody = fixed(rest)?;
    Ok(Body::Fork { child: TaskKey { tgid: body.child_tgid, start: body.child_start }, new_ns: body.new_ns })
}

pub(super) fn exit(rest: &[u8]) -> Result<Body, DecodeError> {
    let body: ExitBody = fixed(rest)?;
    Ok(Body::Exit { status: body.status })
}

pub(super) fn bound(rest: &[u8]) -> Result<Body, DecodeError> {
    let body: BoundBody = fixed(rest)?;
    Ok(Body::Bound { before: body.before })
}

pub(super) fn exec(rest: &[u8], mut tail: Tail<'_>) -> Result<Body, DecodeError> {
    let body: ExecBody = fixed(rest)?;
    let exe = tail.path(body.exe, body.exe_dev, "exe")?;
    let cwd = tail.path(body.cwd, body.cwd_dev, "cwd")?;
    let filename = tail.text(body.filename, "filename")?;
    let script = tail.path(body.script, body.script_dev, "script")?;
    let args = tail.take(body.args, "args")?;
    let whole = usize::try_from(body.args_total).unwrap_or(usize::MAX);
    Ok(Body::Exec(Box::new(ExecFacts {
        exe,
        exe_ino: body.exe_ino,
        exe_ctime: (body.exe_ctime_sec, body.exe_ctime_nsec),
        cwd,
        filename,
        script,
        script_ino: body.script_ino,
        args: args.get(..whole).unwrap_or(args).to_vec(),
        args_total: body.args_total,
        argc: body.argc,
        parent: (body.parent_tgid != 0)
            .then_some(TaskKey { tgid: body.parent_tgid, start: body.parent_start }),
        before: body.before,
        euid_before: body.euid_before,
    })))
}

pub(super) fn arg_chunk(rest: &[u8], mut tail: Tail<'_>) -> Result<Body, DecodeError> {
    let body: ArgChunkBody = fixed(rest)?;
    let end = u64::from(body.offset).saturating_add(u64::from(body.len));
    if end > ARGS_MAX as u64 || end > u64::from(body.args_total) {
        return Err(DecodeError::Piece("chunk"));
    }
    let bytes = if body.failed == 0 { Some(tail.first(body.len)?.to_vec()) } else { None };
    Ok(Body::ArgChunk(ArgChunk { offset: body.offset, args_total: body.args_total, bytes }))
}
