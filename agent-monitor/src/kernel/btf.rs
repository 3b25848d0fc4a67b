//! The running kernel's BTF: offsets of structure members and parameters of functions.
//!
//! Only what the programs need: structures, unions, typedefs, functions and their prototypes. Format:
//! Documentation/bpf/btf.rst (first in 4.18). Input comes from the kernel, yet nothing here indexes unchecked.

use std::{collections::BTreeMap, path::Path};

/// Where the kernel shows its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_FUNC: u32 = 12;

/// Why BTF could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file is not there or not readable.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not BTF, or cut short.
    #[error("{path} is not BTF that this program understands: {what} at byte {at}")]
    Malformed {
        /// The file.
        path: String,
        /// What was expected.
        what: &'static str,
        /// Where.
        at: usize,
    },
}

/// One type: kind, the word that is a size or a type id, and where its further words start.
#[derive(Clone, Copy)]
struct Type {
    kind: u32,
    vlen: usize,
    kind_flag: bool,
    size_or_type: u32,
    name: u32,
    rest: usize,
}

/// Parsed BTF.
pub struct Btf {
    bytes: Vec<u8>,
    types: Vec<Type>,
    strings: usize,
    structs: BTreeMap<String, u32>,
    functions: BTreeMap<String, u32>,
}

impl Btf {
    /// Reads and indexes a BTF file.
    ///
    /// # Errors
    /// When the file cannot be read or is not BTF.
    pub fn read(path: &Path) -> Result<Btf, BtfError> {
        let shown = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| BtfError::Read { path: shown.clone(), source })?;
        Btf::parse(bytes).map_err(|(what, at)| BtfError::Malformed { path: shown, what, at })
    }

    /// Indexes BTF bytes.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Btf, (&'static str, usize)> {
        if bytes.get(..2) != Some(&[0x9f, 0xeb]) {
            return Err(("magic", 0));
        }
        let word = |at: usize| word(&bytes, at).ok_or(("header", at));
        let head = word(4)? as usize;
        let (types_at, types_len) = (head + word(8)? as usize, word(12)? as usize);
        let strings = head + word(16)? as usize;
        let mut btf =
            Btf { types: vec![], strings, structs: BTreeMap::new(), functions: BTreeMap::new(), bytes };
        let end = types_at.saturating_add(types_len);
        let mut at = types_at;
        let mut id = 0u32;
        while at < end {
            let (ty, next) = btf.type_at(at).ok_or(("type", at))?;
            id += 1;
            match ty.kind {
                KIND_STRUCT | KIND_UNION => {
                    btf.structs.entry(btf.string(ty.name)).or_insert(id);
                }
                KIND_FUNC => {
                    btf.functions.entry(btf.string(ty.name)).or_insert(id);
                }
                _ => {}
            }
            btf.types.push(ty);
            at = next;
        }
        Ok(btf)
    }

    fn type_at(&self, at: usize) -> Option<(Type, usize)> {
        let name = word(&self.bytes, at)?;
        let info = word(&self.bytes, at + 4)?;
        let size_or_type = word(&self.bytes, at + 8)?;
        let (kind, vlen) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
        let rest = at + 12;
        let extra = match kind {
            1 | 14 | 17 => 4,
            3 => 12,
            KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * vlen,
            6 | 13 => 8 * vlen,
            2 | 7..=12 | 16 | 18 => 0,
            _ => return None,
        };
        Some((Type { kind, vlen, kind_flag: info >> 31 == 1, size_or_type, name, rest }, rest + extra))
    }

    fn get(&self, id: u32) -> Option<&Type> {
        self.types.get((id as usize).checked_sub(1)?)
    }

    fn string(&self, offset: u32) -> String {
        let Some(tail) = self.bytes.get(self.strings + offset as usize..) else { return String::new() };
        let len = tail.iter().position(|b| *b == 0).unwrap_or(0);
        String::from_utf8_lossy(tail.get(..len).unwrap_or_default()).into_owned()
    }

    /// Whether the name at `offset` is `wanted`; no copy is made, there are some hundred thousand names.
    fn is_named(&self, offset: u32, wanted: &str) -> bool {
        let tail = self.bytes.get(self.strings + offset as usize..).unwrap_or_default();
        tail.starts_with(wanted.as_bytes()) && tail.get(wanted.len()) == Some(&0)
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<u32> {
        for _ in 0..32 {
            match self.get(id)?.kind {
                8..=11 | 18 => id = self.get(id)?.size_or_type,
                _ => return Some(id),
            }
        }
        None
    }

    /// Byte offset of a member path such as `f_path.dentry` in a structure. Members of anonymous structures and unions
    /// are found as C finds them. Bit-fields have no byte offset.
    pub fn offset(&self, owner: &str, path: &str) -> Option<u32> {
        let mut id = *self.structs.get(owner)?;
        let mut total = 0;
        for name in path.split('.') {
            let (offset, ty) = self.member(id, name, 0)?;
            total += offset;
            id = self.resolve(ty).unwrap_or(ty);
        }
        Some(total)
    }

    fn member(&self, id: u32, wanted: &str, depth: u32) -> Option<(u32, u32)> {
        let ty = *self.get(id)?;
        if !matches!(ty.kind, KIND_STRUCT | KIND_UNION) || depth > 8 {
            return None;
        }
        for i in 0..ty.vlen {
            let at = ty.rest + i * 12;
            let (name, member, raw) =
                (word(&self.bytes, at)?, word(&self.bytes, at + 4)?, word(&self.bytes, at + 8)?);
            let bits = if ty.kind_flag { raw & 0x00ff_ffff } else { raw };
            if self.is_named(name, wanted) {
                let bitfield = ty.kind_flag && raw >> 24 != 0;
                return (!bitfield).then_some((bits / 8, member));
            }
            if self.is_named(name, "")
                && let Some((inner, ty)) = self.member(self.resolve(member)?, wanted, depth + 1)
            {
                return Some((bits / 8 + inner, ty));
            }
        }
        None
    }

    /// Size of a structure in bytes.
    #[cfg(test)]
    pub(super) fn size(&self, name: &str) -> Option<u32> {
        Some(self.get(*self.structs.get(name)?)?.size_or_type)
    }

    /// Whether the kernel has a function of this name (`bpf_lsm_file_open`, …).
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// Whether the kernel has a typedef-like tracepoint type `btf_trace_NAME`; used to know that a `tp_btf` exists.
    pub fn has_tracepoint(&self, name: &str) -> bool {
        let wanted = format!("btf_trace_{name}");
        self.types.iter().any(|t| t.kind == 8 && self.is_named(t.name, &wanted))
    }

    /// Index of the first parameter of a function that points to `struct NAME`.
    pub fn parameter_of(&self, function: &str, pointee: &str) -> Option<u32> {
        let proto = *self.get(self.get(*self.functions.get(function)?)?.size_or_type)?;
        (0..proto.vlen).find_map(|i| {
            let ty = self.get(self.resolve(word(&self.bytes, proto.rest + i * 8 + 4)?)?)?;
            let target = self.get(self.resolve(ty.size_or_type)?)?;
            (ty.kind == 2 && self.string(target.name) == pointee).then_some(i as u32)
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let raw: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_le_bytes(raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_kernel_where_it_shows_btf() {
        let Ok(btf) = Btf::read(Path::new(VMLINUX)) else { return };
        assert!(btf.offset("task_struct", "tgid").is_some());
        let path = btf.offset("file", "f_path").unwrap();
        assert!(btf.offset("file", "f_path.dentry").unwrap() >= path);
        assert_eq!(btf.offset("task_struct", "no_such_member"), None);
        assert!(btf.has_tracepoint("sched_process_exec"));
        assert_eq!(btf.parameter_of("bpf_lsm_file_open", "file"), Some(0));
    }

    #[test]
    fn rejects_what_is_not_btf() {
        assert!(Btf::parse(vec![]).is_err());
        assert!(Btf::parse(vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            if bytes.len() > 2 {
                bytes[0] = 0x9f;
                bytes[1] = 0xeb;
            }
            if let Ok(btf) = Btf::parse(bytes) {
                let _none = btf.offset("a", "b.c");
            }
        }
    }
}
