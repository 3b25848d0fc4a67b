//! Tests of decoding.

#![expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests may panic")]

use agent_monitor_ebpf::event::{
    ArgChunkBody, ExecBody, FILE_TEXT, FileBody, ForkBody, NET_ABSTRACT, NetBody, PIECE_DELETED,
    PIECE_TRUNCATED, PrivBody, priv_op,
};
use proptest::prelude::*;
use zerocopy::FromZeros;

use super::encode::{NONE, dentry, head, record, text};
use super::file::Place;
use super::network::UnixName;
use super::piece::Name;
use super::*;

fn path_of(raw: &Option<FsPath>) -> String {
    String::from_utf8(raw.as_ref().unwrap().inner()).unwrap()
}

fn exec_record(exe: &str, args: &[u8]) -> Vec<u8> {
    let (exe, exe_bytes) = dentry(exe);
    let (cwd, cwd_bytes) = dentry("/srv");
    let (filename, filename_bytes) = text(b"./cat");
    let mut args_bytes = args.to_vec();
    args_bytes.resize(args.len().next_multiple_of(8), 7);
    let body = ExecBody {
        exe_dev: 5,
        cwd_dev: 5,
        exe,
        cwd,
        filename,
        args: agent_monitor_ebpf::event::Piece { len: args_bytes.len() as u16, ..NONE },
        args_total: args.len() as u32,
        parent_tgid: 3,
        parent_start: 30,
        ..ExecBody::new_zeroed()
    };
    record(head(Kind::Exec, 9, 4, 40, 1), &body, &[exe_bytes, cwd_bytes, filename_bytes, args_bytes])
}

#[test]
fn exec_comes_back() {
    let raw = decode(&exec_record("/usr/bin/cat", b"cat\0/etc/shadow\0")).unwrap();
    assert_eq!(raw.head.key, TaskKey { tgid: 4, start: 40 });
    let Body::Exec(exec) = raw.body else { panic!("{raw:?}") };
    assert_eq!(path_of(&exec.exe), "/usr/bin/cat");
    assert_eq!(path_of(&exec.cwd), "/srv");
    assert_eq!(exec.filename.unwrap().bytes, b"./cat");
    assert_eq!(exec.script, None);
    assert_eq!(exec.args, b"cat\0/etc/shadow\0");
    assert_eq!(exec.parent, Some(TaskKey { tgid: 3, start: 30 }));
}

#[test]
fn file_texts_keep_their_directories() {
    let (a, a_bytes) = dentry("/work");
    let (b, b_bytes) = dentry("/");
    let c_bytes = b"x/y\0/tmp/z\0".to_vec();
    let c = agent_monitor_ebpf::event::Piece { len: c_bytes.len() as u16, ..NONE };
    let body =
        FileBody { a, b, c, how: FILE_TEXT, dev: 1, dev_b: 2, new_uid: u32::MAX, ..FileBody::new_zeroed() };
    let raw =
        decode(&record(head(Kind::FileRename, 9, 4, 40, 1), &body, &[a_bytes, b_bytes, c_bytes])).unwrap();
    let Body::File(file) = raw.body else { panic!() };
    let Some(Place::Text { base, text }) = file.a else { panic!() };
    assert_eq!((path_of(&base), text.bytes.as_slice()), ("/work".to_owned(), b"x/y".as_slice()));
    let Some(Place::Text { base, text }) = file.b else { panic!() };
    assert_eq!((base.unwrap().dev, text.bytes.as_slice()), (2, b"/tmp/z".as_slice()));
    assert_eq!((file.new_uid, file.new_gid), (None, Some(0)));
}

#[test]
fn flags_of_a_path_are_kept() {
    let (mut a, bytes) = dentry("/a/b");
    a.flags |= PIECE_TRUNCATED | PIECE_DELETED;
    let body = FileBody { a, ..FileBody::new_zeroed() };
    let raw = decode(&record(head(Kind::FileDelete, 9, 4, 40, 1), &body, &[bytes])).unwrap();
    let Body::File(file) = raw.body else { panic!() };
    let Some(Place::Path(path)) = file.a else { panic!() };
    assert!(path.truncated && path.deleted && !path.anon);
}

#[test]
fn addresses_and_abstract_names() {
    let mut remote = [0; 16];
    remote[..4].copy_from_slice(&[127, 0, 0, 1]);
    let body = NetBody { family: 2, remote, remote_port: 80, ..NetBody::new_zeroed() };
    let raw = decode(&record(head(Kind::NetConnect, 9, 4, 40, 1), &body, &[])).unwrap();
    let Body::Net(net) = raw.body else { panic!() };
    assert_eq!((net.remote, net.local), ("127.0.0.1:80".parse().ok(), None));

    let bytes = b"dbus\0\0\0\0".to_vec();
    let a = agent_monitor_ebpf::event::Piece { len: 8, ..NONE };
    let body = NetBody { family: 1, a, how: NET_ABSTRACT, ..NetBody::new_zeroed() };
    let raw = decode(&record(head(Kind::NetConnect, 9, 4, 40, 1), &body, &[bytes])).unwrap();
    let Body::Net(net) = raw.body else { panic!() };
    assert_eq!(net.unix, Some(UnixName::Abstract(b"dbus".to_vec())));
}

#[test]
fn mounts_carry_a_path_and_a_text() {
    let (a, a_bytes) = dentry("/mnt");
    let (b, b_bytes) = text(b"tmpfs");
    let body = PrivBody { a, b, op: priv_op::MOUNT, ..PrivBody::new_zeroed() };
    let raw = decode(&record(head(Kind::PrivMount, 9, 4, 40, 1), &body, &[a_bytes, b_bytes])).unwrap();
    let Body::Priv(privilege) = raw.body else { panic!() };
    assert!(matches!(privilege.a, Some(Name::Path(_))));
    assert!(matches!(privilege.b, Some(Name::Text(text)) if text.bytes == b"tmpfs"));
}

#[test]
fn bad_records_are_named() {
    let good = exec_record("/usr/bin/cat", b"cat\0");
    assert!(matches!(decode(&good[..40]), Err(DecodeError::Short { .. })));
    assert!(matches!(decode(&good[..good.len() - 1]), Err(DecodeError::Total { .. })));
    let mut unknown = good.clone();
    unknown[0] = 120;
    assert_eq!(decode(&unknown), Err(DecodeError::Kind(120)));
    let chunk = ArgChunkBody { offset: 0, len: 9, args_total: 9, failed: 0 };
    let short = record(head(Kind::ArgChunk, 9, 4, 40, 1), &chunk, &[vec![1; 8]]);
    assert_eq!(decode(&short), Err(DecodeError::Piece("chunk")));
    let far = ArgChunkBody { offset: u32::MAX, len: 9, args_total: 9, failed: 0 };
    assert!(decode(&record(head(Kind::ArgChunk, 9, 4, 40, 1), &far, &[vec![1; 16]])).is_err());
    let (mut a, bytes) = dentry("/a/b");
    a.depth = 9;
    let body = FileBody { a, ..FileBody::new_zeroed() };
    let deep = record(head(Kind::FileOpen, 9, 4, 40, 1), &body, &[bytes]);
    assert_eq!(decode(&deep), Err(DecodeError::Piece("a")));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        drop(decode(&bytes));
    }

    #[test]
    fn damaged_records_never_panic(
        kind in proptest::sample::select(Kind::ALL),
        noise in proptest::collection::vec(any::<u8>(), 112..400),
    ) {
        let mut head = head(kind, 1, 2, 3, 4);
        head.total = (HEADER_LEN + noise.len()) as u32;
        let mut bytes = zerocopy::IntoBytes::as_bytes(&head).to_vec();
        bytes.extend_from_slice(&noise);
        drop(decode(&bytes));
    }

    #[test]
    fn one_changed_byte_never_panics(at in 0usize..260, value in any::<u8>()) {
        let mut bytes = exec_record("/usr/bin/cat", b"cat\0/etc/shadow\0");
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        drop(decode(&bytes));
    }

    #[test]
    fn paths_round_trip(parts in proptest::collection::vec("[a-zA-Z0-9._ é-]{1,40}", 0..20)) {
        let path = format!("/{}", parts.join("/"));
        let raw = decode(&exec_record(&path, b"x\0")).unwrap();
        let Body::Exec(exec) = raw.body else { panic!() };
        prop_assert_eq!(path_of(&exec.exe), path);
    }

    #[test]
    fn forks_round_trip(tgid in 1u32.., start in any::<u64>(), new_ns in any::<u32>()) {
        let body = ForkBody { child_start: start, child_tgid: tgid, new_ns };
        let raw = decode(&record(head(Kind::Fork, 9, 4, 40, 1), &body, &[])).unwrap();
        prop_assert_eq!(raw.body, Body::Fork { child: TaskKey { tgid, start }, new_ns });
    }
}
