//! The contract's layout is a golden file: a change to it is a decision (and a new `ABI_VERSION`), not an accident.
//!
//! To accept a change: `BLESS=1 cargo test -p agent-monitor-ebpf --test layout`.

use std::{fs, path::Path};

use agent_monitor_ebpf::{
    ABI_VERSION, Header, Kind,
    bind::{CgroupEntry, MatchEntry, MatchSet, NumKey, PathKey},
    config::Runtime,
    decide::Evidence,
    event::{
        ArgChunkBody, BoundBody, ExecBody, ExitBody, FileBody, ForkBody, Layout, NetBody, Piece, PrivBody,
    },
    loss::{LossKey, LossReason, LossValue},
    people::{GrantEntry, GrantLife, GrantList, SessionEntry, Ticket, TicketKey, UseKey},
    policy::{AgentKey, AgentPolicy, NetKey, NetRule, NetSet, PathRule, PlaceKey},
    task::{BackfillEntry, ProcEntry, TaskLine, TaskTag},
};

const TYPES: &[Layout] = &[
    Header::LAYOUT,
    Piece::LAYOUT,
    ForkBody::LAYOUT,
    ExecBody::LAYOUT,
    ArgChunkBody::LAYOUT,
    ExitBody::LAYOUT,
    BoundBody::LAYOUT,
    FileBody::LAYOUT,
    NetBody::LAYOUT,
    PrivBody::LAYOUT,
    TaskTag::LAYOUT,
    ProcEntry::LAYOUT,
    BackfillEntry::LAYOUT,
    TaskLine::LAYOUT,
    PathKey::LAYOUT,
    NumKey::LAYOUT,
    MatchEntry::LAYOUT,
    MatchSet::LAYOUT,
    CgroupEntry::LAYOUT,
    Runtime::LAYOUT,
    LossKey::LAYOUT,
    LossValue::LAYOUT,
    PlaceKey::LAYOUT,
    PathRule::LAYOUT,
    AgentKey::LAYOUT,
    AgentPolicy::LAYOUT,
    NetKey::LAYOUT,
    NetRule::LAYOUT,
    NetSet::LAYOUT,
    Evidence::LAYOUT,
    TicketKey::LAYOUT,
    Ticket::LAYOUT,
    SessionEntry::LAYOUT,
    GrantEntry::LAYOUT,
    GrantList::LAYOUT,
    GrantLife::LAYOUT,
    UseKey::LAYOUT,
];

fn layout() -> String {
    let mut text = format!("abi {ABI_VERSION}\n");
    for ty in TYPES {
        text += &format!("\n{} {}\n", ty.name, ty.size);
        for (name, offset, size) in ty.fields {
            text += &format!("  {offset:>3} {size:>3} {name}\n");
        }
    }
    text.push_str("\nkinds\n");
    for kind in Kind::ALL {
        text += &format!("  {:>3} {kind:?}\n", *kind as u16);
    }
    text.push_str("\nloss reasons\n");
    for reason in LossReason::ALL {
        text += &format!("  {:>3} {}\n", *reason as u16, reason.as_str());
    }
    text
}

#[test]
fn layout_is_the_golden_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/layout.txt");
    let now = layout();
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &now).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, now, "the contract changed; if that is meant, raise ABI_VERSION and bless");
}

#[test]
fn every_kind_and_reason_has_its_number_back() {
    for kind in Kind::ALL {
        assert_eq!(Kind::from_u16(*kind as u16), Some(*kind));
    }
    for reason in LossReason::ALL {
        assert_eq!(LossReason::from_u16(*reason as u16), Some(*reason));
    }
    assert_eq!(Kind::from_u16(9999), None);
}
