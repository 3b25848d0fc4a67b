//! File family.

use agent_monitor_ebpf::event::{FILE_CREATED, FILE_TEXT, FileBody, file_op};

use super::{Body, DecodeError, FsPath, Tail, Text, fixed};

/// What was done to which file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// The object.
    pub a: Option<Place>,
    /// Second path of a rename or link.
    pub b: Option<Place>,
    /// Inode number of the object, 0 when not known.
    pub ino: u64,
    /// Second inode number, 0 when none.
    pub ino_b: u64,
    /// New length for a truncation.
    pub size: u64,
    /// Open flags, or `ia_valid` of a setattr.
    pub raw_flags: u32,
    /// Mode bits.
    pub mode: u32,
    /// `ACCESS_*` bits.
    pub access: u16,
    /// A `file_op` value.
    pub op: u8,
    /// The open made the file.
    pub created: bool,
    /// New owner, `None` when not set.
    pub new_uid: Option<u32>,
    /// New group, `None` when not set.
    pub new_gid: Option<u32>,
    /// Name of an extended attribute or target of a symlink, where `c` carries one beside dentry paths.
    pub text: Option<Text>,
}

/// Where a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// As the kernel resolved it.
    Path(FsPath),
    /// As the process wrote it.
    Text {
        /// The directory it starts from: of the process' root for an absolute text.
        base: Option<FsPath>,
        /// What was written.
        text: Text,
    },
}

pub(super) fn decode(rest: &[u8], mut tail: Tail<'_>) -> Result<Body, DecodeError> {
    let body: FileBody = fixed(rest)?;
    let a = tail.path(body.a, body.dev, "a")?;
    let b = tail.path(body.b, body.dev_b, "b")?;
    let (first, second) = tail.two_texts(body.c, "c")?;
    let named = matches!(body.op, file_op::SYMLINK | file_op::XATTR | file_op::XATTR_REMOVE);
    let (a, b, text) = if body.how & FILE_TEXT != 0 && named {
        // The second text is not a path: what the link says, or the attribute's name.
        (first.map(|text| Place::Text { base: a, text }), None, second)
    } else if body.how & FILE_TEXT != 0 {
        // A single text belongs to the only path there is; two texts to the two directories in order.
        let second_place = second.map(|text| Place::Text { base: b, text });
        (first.map(|text| Place::Text { base: a, text }), second_place, None)
    } else {
        (a.map(Place::Path), b.map(Place::Path), first)
    };
    let set = |id: u32| (id != u32::MAX).then_some(id);
    Ok(Body::File(Box::new(FileFacts {
        a,
        b,
        ino: body.ino,
        ino_b: body.ino_b,
        size: body.size,
        raw_flags: body.raw_flags,
        mode: body.mode,
        access: body.access,
        op: body.op,
        created: body.how & FILE_CREATED != 0,
        new_uid: set(body.new_uid),
        new_gid: set(body.new_gid),
        text,
    })))
}
