//! Every kind of event against the schemas of both versions, and mutants that must be refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonschema::Validator;

use super::*;
use crate::export::Because;
use crate::model::{
    Access, AddressFamily, Agent, Ancestor, BoundBy, Errno, File, Gap, Kind, Network, Privilege, Process,
    Source, Target, Time,
};

fn validators(version: Version) -> BTreeMap<u64, Validator> {
    let path = format!("{}/tests/data/ocsf/{}.json", env!("CARGO_MANIFEST_DIR"), version.as_str());
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let classes = all["classes"].as_object().unwrap().iter();
    let validator = |(uid, class): (&String, &Value)| {
        let mut schema = class.clone();
        schema["$defs"] = all["$defs"].clone();
        (uid.parse().unwrap(), jsonschema::validator_for(&schema).unwrap())
    };
    classes.map(validator).collect()
}

fn shared(version: Version) -> Shared {
    Shared {
        version,
        host: "h".into(),
        machine_id: "0123".into(),
        os: "Debian".into(),
        kernel: "6.12".into(),
        origin: "agent-monitor/h/1".into(),
        key: "abcd0123".into(),
        renamed: false,
        outcome: Some(Outcome::unproven("for a test")),
    }
}

/// An event with everything that its kind can have.
pub(crate) fn full(kind: Kind) -> Event {
    let time = Time::from_unix_nanos(1_700_000_000_123_456_789);
    let mut event = Event::new(time, kind, Source::Lsm);
    event.verdict = Some(Verdict::Deny);
    event.mode = Some(Mode::Enforce);
    event.errno = Errno::from_return(-13);
    event.rule = Some("scope.file[2]".into());
    event.labels = vec!["pii".into()];
    event.technique = vec!["T1003.008".into(), "AML.T0090".into(), "T1685".into()];
    event.agent = Some(Arc::new(Agent {
        id: "bot".into(),
        session: Some("s1".into()),
        bound_by: BoundBy::Exe,
        delegator: Some("planner".into()),
        bound_delay_ms: Some(3),
    }));
    let ancestor = |pid| Ancestor { pid, exe: Some("/usr/bin/node".into()), start_time: Some(time) };
    event.process = Some(Arc::new(Process {
        pid: 7,
        tid: Some(8),
        start_time: Some(time),
        ppid: Some(6),
        exe: Some("/bin/cat".into()),
        args: vec!["cat".into(), "<script>alert(1)</script>\n".into()],
        cwd: Some("/srv".into()),
        uid: Some(1000),
        user: Some("bot".into()),
        container: Some("abc".into()),
        ancestry: vec![ancestor(6), ancestor(1)],
        exit_code: (kind == Kind::ProcessExit).then_some(3),
        ..Process::default()
    }));
    add_object(kind, time, &mut event);
    event
}

/// What the event is about, by its family.
fn add_object(kind: Kind, time: Time, event: &mut Event) {
    let target = Target { pid: 9, start_time: Some(time), exe: Some("/sbin/init".into()), agent: None };
    let mut detail = Map::new();
    match kind.family() {
        crate::model::Family::File => {
            event.file = Some(File {
                path: Some("/etc/shadow".into()),
                access: vec![Access::Read],
                dev: Some("254:0".into()),
                inode: Some(3),
                new_path: Some("/tmp/x".into()),
                change: Some("mode=0644".into()),
                ..File::default()
            });
        }
        crate::model::Family::Network => {
            event.network = Some(Network {
                family: AddressFamily::Ipv4,
                protocol: Some("tcp".into()),
                local: "10.0.0.5:40000".parse().ok(),
                remote: "192.0.2.1:443".parse().ok(),
                port: Some(443),
                name: Some("example.com".into()),
                bytes_sent: Some(10),
                bytes_received: Some(20),
                duration_ms: Some(5),
                query: Some("example.com".into()),
                answers: vec!["192.0.2.1".parse().unwrap()],
                ..Network::default()
            });
        }
        crate::model::Family::Privilege | crate::model::Family::Tamper => {
            event.privilege = Some(Privilege {
                target: Some(target),
                signal: Some("SIGKILL".into()),
                object: Some("/dev/sda1".into()),
                mount_point: Some("/mnt".into()),
                new_uid: Some(0),
                ..Privilege::default()
            });
        }
        crate::model::Family::Gap => {
            event.gap = Some(Gap {
                reason: "ring_full".into(),
                kind: None,
                agent: None,
                count: 3,
                first: time,
                last: time,
            });
        }
        crate::model::Family::Process
        | crate::model::Family::Agent
        | crate::model::Family::Session
        | crate::model::Family::Grant
        | crate::model::Family::Approval
        | crate::model::Family::Finding
        | crate::model::Family::Log => drop(detail.insert("id".into(), "f-1".into())),
    }
    event.detail = (!detail.is_empty()).then_some(detail);
}

fn bare(kind: Kind) -> Event {
    Event::new(Time::EPOCH, kind, Source::Daemon)
}

pub(crate) fn object_of(event: &Event, version: Version) -> Value {
    let json = event.to_line().unwrap();
    let record = Selected { number: 42, json: json.as_bytes(), event, because: Because::Asked };
    map(&record, &shared(version))
}

#[test]
fn every_kind_holds_before_the_schema_of_both_versions() {
    for version in [Version::V1_8, Version::V1_9] {
        let validators = validators(version);
        for kind in Kind::ALL {
            for event in [full(*kind), bare(*kind)] {
                let object = object_of(&event, version);
                let validator = &validators[&object["class_uid"].as_u64().unwrap()];
                let errors: Vec<String> =
                    validator.iter_errors(&object).map(|e| format!("{}: {e}", e.instance_path())).collect();
                assert!(errors.is_empty(), "{kind} {version:?}: {errors:#?}\n{object:#}");
            }
        }
    }
}

#[test]
fn the_agent_and_the_seal_have_their_places() {
    let new = object_of(&full(Kind::FileOpen), Version::V1_9);
    assert_eq!(new["ai_agent"]["instance_uid"], "s1");
    assert_eq!(new["attestation_list"][0]["uid"], "agent-monitor/h/1#42");
    assert_eq!(
        (&new["action_id"], &new["disposition_id"], &new["status_code"]),
        (&2.into(), &2.into(), &"EACCES".into())
    );
    assert_eq!(new["attacks"][0]["sub_technique"]["uid"], "T1003.008");
    assert_eq!(new["attacks"][0]["version"], "19");
    let old = object_of(&full(Kind::FileOpen), Version::V1_8);
    assert!(old.get("ai_agent").is_none() && old["unmapped"]["ai_agent"]["uid"] == "bot");
    assert!(old["unmapped"]["attestation_list"][0]["fingerprint"]["value"].as_str().unwrap().len() == 64);
}

#[test]
fn who_delegated_and_what_it_fits_is_kept() {
    let mut event = full(Kind::FileOpen);
    event.references = vec!["ASI03".into(), "NHI2".into()];
    for version in [Version::V1_8, Version::V1_9] {
        let object = object_of(&event, version);
        assert_eq!(object["unmapped"]["delegation"], json!({"uid": "s1", "issuer_uid": "planner"}));
        let lists = object["unmapped"]["references"].as_array().unwrap();
        assert_eq!(lists.iter().map(|entry| &entry["id"]).collect::<Vec<_>>(), ["ASI03", "NHI2"]);
        assert!(lists.iter().all(|entry| entry["framework"].as_str().unwrap().starts_with("OWASP")));
    }
    let finding =
        object_of(&Event { references: vec!["ASI10".into()], ..full(Kind::FindingShadow) }, Version::V1_9);
    assert!(finding["finding_info"]["types"].as_array().unwrap().contains(&"ASI10".into()), "{finding:#}");
}

/// Every way to spoil one field of an object: what the class requires is missing, a known field has a value of no type, a
/// number is in no list, a name is unknown, and the same one level down.
fn mutants(object: &Value, class: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    let with = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut mutant = object.clone();
        change(mutant.as_object_mut().unwrap());
        mutant
    };
    for key in class["required"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()) {
        all.push(with(&|fields| drop(fields.remove(key))));
    }
    for (key, value) in object.as_object().unwrap() {
        // The free form of what has no place is free.
        if key != "unmapped" {
            all.push(with(&|fields| drop(fields.insert(key.clone(), json!([{"no": "type"}])))));
            all.push(with(&|fields| drop(fields.insert(format!("{key}x"), value.clone()))));
        }
        if value.is_object() && key != "unmapped" {
            all.push(with(&|fields| fields[key]["unknown"] = json!(1)));
        }
    }
    for key in ["severity_id", "activity_id", "action_id", "disposition_id", "status_id"] {
        all.push(with(&|fields| drop(fields.insert(key.to_owned(), json!(7777)))));
    }
    all.push(with(&|fields| fields["metadata"]["product"] = json!({})));
    all.push(with(&|fields| fields["metadata"]["version"] = json!(19)));
    all.push(with(&|fields| drop(fields.insert("time".to_owned(), json!("now")))));
    all
}

#[test]
fn mutants_are_refused() {
    let mut refused = 0;
    for version in [Version::V1_8, Version::V1_9] {
        let path = format!("{}/tests/data/ocsf/{}.json", env!("CARGO_MANIFEST_DIR"), version.as_str());
        let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let validators = validators(version);
        for kind in Kind::ALL {
            let object = object_of(&full(*kind), version);
            let uid = object["class_uid"].as_u64().unwrap();
            for mutant in mutants(&object, &all["classes"][uid.to_string()]) {
                assert!(!validators[&uid].is_valid(&mutant), "{kind} {version:?}: {mutant:#}");
                refused += 1;
            }
        }
    }
    assert!(refused > 5000, "{refused}");
}

/// The activity of each kind is its own, in both directions: no kind is what another one is for lack of a row.
#[test]
fn only_what_was_opened_is_an_open() {
    let activity = |kind: Kind| {
        let object = object_of(&bare(kind), Version::V1_9);
        (object["class_uid"].as_u64().unwrap(), object["activity_name"].as_str().unwrap().to_owned())
    };
    for kind in Kind::ALL {
        let (class, name) = activity(*kind);
        assert_eq!((class, name.as_str()) == (1001, "Open"), *kind == Kind::FileOpen, "{kind}: {name}");
        assert_eq!(
            (class, name.as_str()) == (1003, "Invoke"),
            kind.row().sentence == "{note}" && matches!(kind, Kind::PrivilegeBpf | Kind::PrivilegeNamespace),
            "{kind}: {name}"
        );
        assert!(!["Other", ""].contains(&name.as_str()), "{kind}: {name}");
    }
    for (kind, expected) in [
        (Kind::FileCreate, "Create"),
        (Kind::FileLink, "Create"),
        (Kind::FileDelete, "Delete"),
        (Kind::FileRename, "Rename"),
        (Kind::FileTruncate, "Update"),
        (Kind::FileSetattr, "Set Attributes"),
        (Kind::NetworkBind, "Bind"),
        (Kind::NetworkFlow, "Close"),
        (Kind::PrivilegeMount, "Mount"),
        (Kind::AgentRenewed, "Renew"),
        (Kind::GrantProposed, "Propose"),
    ] {
        assert_eq!(activity(kind).1, expected, "{kind}");
    }
    let mut umount = full(Kind::PrivilegeMount);
    if let Some(privilege) = &mut umount.privilege {
        privilege.operation = Some("umount".into());
    }
    assert_eq!(object_of(&umount, Version::V1_9)["activity_name"], "Unmount");
}
