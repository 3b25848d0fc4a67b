//! The tail of a record: dentry paths and texts.

use agent_monitor_ebpf::event::{
    PIECE_ANON, PIECE_DELETED, PIECE_DENTRY, PIECE_FAILED, PIECE_TRUNCATED, Piece,
};

use super::DecodeError;

/// A place in a file system: components from the superblock's root down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsPath {
    /// `s_dev` in the kernel's encoding (`major << 20 | minor`).
    pub dev: u32,
    /// Names from the root down; empty is the root itself.
    pub components: Vec<Vec<u8>>,
    /// Components nearest to the root are missing, or reading failed part-way.
    pub truncated: bool,
    /// The entry had been removed from its directory.
    pub deleted: bool,
    /// It has no place in a tree (memfd, pipe); the only component is its own name.
    pub anon: bool,
}

impl FsPath {
    /// The text of the path inside its file system, with a leading slash.
    #[must_use]
    pub fn inner(&self) -> Vec<u8> {
        if self.components.is_empty() {
            return b"/".to_vec();
        }
        let mut out = Vec::with_capacity(self.components.len().saturating_mul(12));
        for component in &self.components {
            out.push(b'/');
            out.extend_from_slice(component);
        }
        out
    }
}

/// A text that a process gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// Its bytes, without the closing NUL.
    pub bytes: Vec<u8>,
    /// It was longer, or reading failed part-way.
    pub truncated: bool,
}

/// A path as the kernel resolved it, or as a process wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// By dentry.
    Path(FsPath),
    /// By text.
    Text(Text),
}

/// The pieces of a tail, taken in the order in which the body names them.
#[derive(Debug, Clone, Copy)]
pub struct Tail<'a> {
    rest: &'a [u8],
}

impl<'a> Tail<'a> {
    /// A whole tail.
    #[must_use]
    pub fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// The bytes of the next piece.
    pub(super) fn take(&mut self, piece: Piece, name: &'static str) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) =
            self.rest.split_at_checked(usize::from(piece.len)).ok_or(DecodeError::Piece(name))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The first `len` bytes.
    pub(super) fn first(&mut self, len: u32) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Piece("chunk"))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next piece as a path; `None` when the record has none there.
    pub(super) fn path(
        &mut self,
        piece: Piece,
        dev: u32,
        name: &'static str,
    ) -> Result<Option<FsPath>, DecodeError> {
        let bytes = self.take(piece, name)?;
        if piece.flags & PIECE_DENTRY == 0 {
            return Ok(None);
        }
        path(piece, dev, bytes).map(Some).ok_or(DecodeError::Piece(name))
    }

    /// The next piece as a text; `None` when the record has none there.
    pub(super) fn text(&mut self, piece: Piece, name: &'static str) -> Result<Option<Text>, DecodeError> {
        let bytes = self.take(piece, name)?;
        Ok((!bytes.is_empty() && piece.flags & PIECE_DENTRY == 0).then(|| text(piece, bytes).0))
    }

    /// The next piece as whichever its bits say.
    pub(super) fn name(
        &mut self,
        piece: Piece,
        dev: u32,
        name: &'static str,
    ) -> Result<Option<Name>, DecodeError> {
        if piece.flags & PIECE_DENTRY != 0 {
            return Ok(self.path(piece, dev, name)?.map(Name::Path));
        }
        Ok(self.text(piece, name)?.map(Name::Text))
    }

    /// The next piece as two texts that follow each other, NUL-terminated each.
    pub(super) fn two_texts(
        &mut self,
        piece: Piece,
        name: &'static str,
    ) -> Result<(Option<Text>, Option<Text>), DecodeError> {
        let bytes = self.take(piece, name)?;
        if bytes.is_empty() {
            return Ok((None, None));
        }
        let (first, rest) = text(piece, bytes);
        let second = (!rest.is_empty()).then(|| text(piece, rest).0).filter(|text| !text.bytes.is_empty());
        Ok((Some(first), second))
    }
}

/// The text up to the first NUL, and what follows that NUL.
fn text(piece: Piece, bytes: &[u8]) -> (Text, &[u8]) {
    let failed = piece.flags & PIECE_FAILED != 0;
    match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => {
            let (text, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
            (Text { bytes: text.to_vec(), truncated: failed }, rest.get(1..).unwrap_or_default())
        }
        None => (Text { bytes: bytes.to_vec(), truncated: true }, &[]),
    }
}

fn path(piece: Piece, dev: u32, bytes: &[u8]) -> Option<FsPath> {
    let cut = piece.flags & (PIECE_TRUNCATED | PIECE_FAILED) != 0;
    let mut components = Vec::with_capacity(usize::from(piece.depth));
    let mut rest = bytes;
    for _ in 0..piece.depth {
        let Some(end) = rest.iter().position(|byte| *byte == 0) else {
            // A piece that says it is cut may end inside a component; one that says it is whole may not.
            if !cut {
                return None;
            }
            break;
        };
        components.push(rest.get(..end)?.to_vec());
        let next = end.checked_add(1)?.checked_next_multiple_of(8)?;
        rest = rest.get(next..).unwrap_or_default();
    }
    components.reverse();
    Some(FsPath {
        dev,
        components,
        truncated: cut,
        deleted: piece.flags & PIECE_DELETED != 0,
        anon: piece.flags & PIECE_ANON != 0,
    })
}
