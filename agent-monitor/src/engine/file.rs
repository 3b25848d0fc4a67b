//! File family: what was done to which file, in the words of the contract.

use agent_monitor_ebpf::event::{
    ACCESS_APPEND, ACCESS_CREATE, ACCESS_DELETE, ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, file_op,
};
use agent_monitor_ebpf::header::Kind as RawKind;

use super::{Engine, Host};
use crate::attribute::mounts::dev_text;
use crate::decode::file::Place;
use crate::decode::{FileFacts, Head};
use crate::model::{Access, File, kinds, text};

impl Engine {
    pub(super) fn file(&mut self, head: &Head, facts: &FileFacts, host: &mut dyn Host) -> File {
        let a = facts.a.as_ref().map(|place| self.host_path(place, host));
        let b = facts.b.as_ref().map(|place| self.host_path(place, host));
        File {
            access: access(head.kind, facts),
            dev: facts.a.as_ref().and_then(place_dev).map(dev_text),
            inode: (facts.ino != 0).then_some(facts.ino),
            truncated: a.iter().chain(&b).any(|path| path.truncated),
            path: a.map(|path| text::escape(&path.bytes)),
            new_path: b.map(|path| text::escape(&path.bytes)),
            change: change(head.kind, facts),
        }
    }
}

/// The device of the object. A text only has the device of the directory that it starts from.
fn place_dev(place: &Place) -> Option<u32> {
    match place {
        Place::Path(path) => Some(path.dev),
        Place::Text { .. } => None,
    }
}

fn access(kind: RawKind, facts: &FileFacts) -> Vec<Access> {
    let bits = [
        (ACCESS_READ, Access::Read),
        (ACCESS_WRITE | ACCESS_APPEND, Access::Write),
        (ACCESS_CREATE, Access::Create),
        (ACCESS_DELETE, Access::Delete),
        (ACCESS_EXECUTE, Access::Exec),
    ];
    let by_bits = bits.into_iter().filter(|(bit, _)| facts.access & bit != 0).map(|(_, access)| access);
    let by_kind = kinds::of_record(kind).event().and_then(|kind| kind.row().access);
    let own = by_kind.or(facts.created.then_some(Access::Create));
    let mut all: Vec<Access> = by_bits.chain(own).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn change(kind: RawKind, facts: &FileFacts) -> Option<String> {
    let name = || facts.text.as_ref().map(|text| text::escape(&text.bytes)).unwrap_or_default();
    match (kind, facts.op) {
        (RawKind::FileTruncate, _) => Some(format!("size={}", facts.size)),
        (RawKind::FileSetattr, file_op::MODE) => Some(format!("mode={:04o}", facts.mode & 0o7777)),
        (RawKind::FileSetattr, file_op::OWNER) => {
            let uid = facts.new_uid.map(|uid| format!("uid={uid}"));
            let gid = facts.new_gid.map(|gid| format!("gid={gid}"));
            Some(uid.into_iter().chain(gid).collect::<Vec<_>>().join(" "))
        }
        (RawKind::FileSetattr, file_op::TIMES) => Some("times".to_owned()),
        (RawKind::FileSetattr, file_op::XATTR) => Some(format!("xattr={}", name())),
        (RawKind::FileSetattr, file_op::XATTR_REMOVE) => Some(format!("xattr-={}", name())),
        (RawKind::FileCreate, file_op::DIRECTORY) => Some("type=directory".to_owned()),
        (RawKind::FileCreate, file_op::NODE) => Some("type=node".to_owned()),
        (RawKind::FileCreate, file_op::SYMLINK) => match facts.text {
            Some(_) => Some(format!("symlink={}", name())),
            None => Some("type=symlink".to_owned()),
        },
        (RawKind::FileDelete, file_op::DIRECTORY) => Some("type=directory".to_owned()),
        _ => None,
    }
}
