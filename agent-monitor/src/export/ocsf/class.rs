//! Which class an event is of, and what is particular to that class. Class and activity of each kind are a column of
//! [`crate::model::kinds`]; here is how the fields of a class are filled in.
#![deny(clippy::wildcard_enum_match_arm)]

use serde_json::{Value, json};

use super::Object;
use super::objects::{actor, connection, endpoints, file, file_at, object, process};
use crate::mapping;
use crate::model::kinds::{Direction, Shape};
use crate::model::{Event, Family, Network};

/// Uid, name and category of the class of a shape.
const fn class_of(shape: Shape) -> (u64, &'static str, &'static str) {
    const SYSTEM: &str = "System Activity";
    match shape {
        Shape::File | Shape::Mount => (1001, "File System Activity", SYSTEM),
        Shape::Extension => (1002, "Kernel Extension Activity", SYSTEM),
        Shape::SystemCall(_) => (1003, "Kernel Activity", SYSTEM),
        Shape::Module => (1005, "Module Activity", SYSTEM),
        Shape::Launch(..) | Shape::Terminate | Shape::OnProcess => (1007, "Process Activity", SYSTEM),
        Shape::Finding => (2004, "Detection Finding", "Findings"),
        Shape::Entity => (3004, "Entity Management", "Identity & Access Management"),
        Shape::Connection(_) => (4001, "Network Activity", "Network Activity"),
        Shape::Dns => (4003, "DNS Activity", "Network Activity"),
        Shape::Lifecycle => (6002, "Application Lifecycle", "Application Activity"),
    }
}

/// What was done, in the class's numbering.
pub(super) struct Activity {
    pub(super) id: u64,
    pub(super) name: &'static str,
}

/// An event's class and its own fields.
pub(super) struct Class {
    pub(super) uid: u64,
    pub(super) name: &'static str,
    pub(super) category: u64,
    pub(super) category_name: &'static str,
    /// It is a Detection Finding, which has no place for an AI agent.
    pub(super) finding: bool,
    pub(super) activity: Activity,
    pub(super) fields: Object,
    pub(super) unmapped: Object,
}

fn fields<const N: usize>(fields: [(&str, Value); N]) -> Object {
    object(fields).as_object().cloned().unwrap_or_default()
}

/// What a shape fills in.
#[derive(Default)]
struct Filled {
    fields: Object,
    unmapped: Object,
    /// An activity that only the event says, in place of the row's.
    activity: Option<(u64, &'static str)>,
}

impl Filled {
    fn new<const N: usize>(fields: [(&str, Value); N]) -> Self {
        Self { fields: self::fields(fields), ..Self::default() }
    }
}

/// The class of `event`.
pub(super) fn of(event: &Event) -> Class {
    let ocsf = event.kind.row().ocsf;
    let (uid, name, category_name) = class_of(ocsf.shape);
    let filled = match ocsf.shape {
        Shape::Launch(id, launch) => of_launch(event, id, launch),
        Shape::Terminate => of_exit(event),
        Shape::OnProcess => of_target(event),
        Shape::File => of_file(event),
        Shape::Mount => of_mount(event),
        Shape::Module => of_module(event),
        Shape::Extension => of_extension(event),
        Shape::SystemCall(call) => of_call(event, call),
        Shape::Connection(direction) => of_connection(event, direction),
        Shape::Dns => of_dns(event, &event.network.clone().unwrap_or_default()),
        Shape::Finding => of_finding(event),
        Shape::Entity => of_entity(event),
        Shape::Lifecycle => of_lifecycle(event),
    };
    let Filled { fields, mut unmapped, activity } = filled;
    let (id, activity) = activity.unwrap_or((ocsf.activity, ocsf.name));
    if let Some(privilege) = &event.privilege
        && let Ok(privilege) = serde_json::to_value(privilege)
    {
        unmapped.insert("privilege".to_owned(), privilege);
    }
    let activity = Activity { id, name: activity };
    let finding = ocsf.shape == Shape::Finding;
    Class { uid, name, category: uid / 1000, category_name, finding, activity, fields, unmapped }
}

/// The acting process as the object of the activity, or the monitor's own where none is known.
fn subject(event: &Event) -> Value {
    event.process.as_ref().map_or_else(|| json!({"uid": "unknown"}), |known| process(known))
}

fn of_launch(event: &Event, id: u64, launch: &str) -> Filled {
    Filled::new([
        ("actor", actor(event)),
        ("process", subject(event)),
        ("launch_type_id", id.into()),
        ("launch_type", launch.into()),
    ])
}

fn of_exit(event: &Event) -> Filled {
    let code = event.process.as_ref().and_then(|process| process.exit_code);
    let signal = event.process.as_ref().and_then(|process| process.exit_signal.clone());
    let mut filled =
        Filled::new([("actor", actor(event)), ("process", subject(event)), ("exit_code", code.into())]);
    filled.unmapped.extend(signal.map(|signal| ("exit_signal".to_owned(), signal.into())));
    filled
}

fn of_module(event: &Event) -> Filled {
    let object = event.file.as_ref().map_or_else(|| file_at(""), file);
    let module = json!({"file": object, "load_type_id": 1, "load_type": "Standard"});
    Filled::new([("actor", actor(event)), ("module", module)])
}

fn of_file(event: &Event) -> Filled {
    let object = event.file.as_ref().map_or_else(|| file_at(""), file);
    let to = event.file.as_ref().and_then(|file| file.new_path.as_deref());
    let access: Vec<&str> =
        event.file.iter().flat_map(|file| &file.access).map(|access| access.as_str()).collect();
    let change = event.file.as_ref().and_then(|file| file.change.clone());
    let result = to.map_or(Value::Null, file_at);
    let mut filled = Filled::new([("actor", actor(event)), ("file", object), ("file_result", result)]);
    filled.unmapped.insert("access".to_owned(), access.into());
    filled.unmapped.extend(change.map(|change| ("change".to_owned(), change.into())));
    filled
}

fn of_connection(event: &Event, direction: Direction) -> Filled {
    let network = event.network.clone().unwrap_or_default();
    let (peer, own) = endpoints(&network);
    let (source, destination, direction) = match direction {
        Direction::Inbound => (peer, own, 1),
        Direction::Outbound => (own, peer, 2),
    };
    // One end at least must be there; a UNIX socket that was given an address has only that.
    let (source, destination) = if source.is_null() && destination.is_null() {
        (Value::Null, json!({"name": network.family.as_str()}))
    } else {
        (source, destination)
    };
    let total =
        network.bytes_sent.zip(network.bytes_received).map(|(sent, received)| sent.saturating_add(received));
    let traffic = object([
        ("bytes_out", network.bytes_sent.into()),
        ("bytes_in", network.bytes_received.into()),
        ("bytes", total.into()),
    ]);
    let traffic =
        if traffic.as_object().is_some_and(serde_json::Map::is_empty) { Value::Null } else { traffic };
    Filled::new([
        ("actor", actor(event)),
        ("src_endpoint", source),
        ("dst_endpoint", destination),
        ("connection_info", connection(&network, direction)),
        ("traffic", traffic),
        ("duration", network.duration_ms.into()),
    ])
}

fn of_dns(event: &Event, network: &Network) -> Filled {
    let query = network.query.clone().or_else(|| network.name.clone()).unwrap_or_default();
    let answers: Vec<Value> =
        network.answers.iter().map(|answer| json!({"rdata": answer.to_string()})).collect();
    let response = (!answers.is_empty()).then_some((2, "Response"));
    let (peer, own) = endpoints(network);
    let peer = if peer.is_null() { json!({"name": "resolver"}) } else { peer };
    let filled = Filled::new([
        ("actor", actor(event)),
        ("query", json!({"hostname": query})),
        ("answers", if answers.is_empty() { Value::Null } else { answers.into() }),
        ("dst_endpoint", peer),
        ("src_endpoint", own),
    ]);
    Filled { activity: response, ..filled }
}

/// A process activity on the process that was acted on, or on the acting one where none is known.
fn of_target(event: &Event) -> Filled {
    let target = event.privilege.as_ref().and_then(|privilege| privilege.target.as_ref());
    let target = target.map(|target| {
        object([
            ("pid", target.pid.into()),
            ("created_time", target.start_time.map(super::objects::millis).into()),
            ("file", target.exe.as_deref().map_or(Value::Null, file_at)),
        ])
    });
    Filled::new([("actor", actor(event)), ("process", target.unwrap_or_else(|| subject(event)))])
}

fn of_call(event: &Event, call: &str) -> Filled {
    let kernel = json!({"name": call, "type_id": 2, "type": "System Call"});
    Filled::new([("actor", actor(event)), ("kernel", kernel)])
}

fn of_mount(event: &Event) -> Filled {
    let privilege = event.privilege.clone().unwrap_or_default();
    let unmounted = privilege.operation.as_deref() == Some("umount");
    let at = privilege.mount_point.or(privilege.object).unwrap_or_default();
    let filled = Filled::new([("actor", actor(event)), ("file", file_at(&at))]);
    Filled { activity: unmounted.then_some((13, "Unmount")), ..filled }
}

fn of_extension(event: &Event) -> Filled {
    let object = event.privilege.as_ref().and_then(|privilege| privilege.object.as_deref());
    let driver = json!({"file": file_at(object.unwrap_or_default())});
    Filled::new([("actor", actor(event)), ("driver", driver)])
}

fn of_finding(event: &Event) -> Filled {
    let acting = event.process.as_ref().map(|known| process(known));
    let evidence = object([
        ("process", acting.into()),
        ("file", event.file.as_ref().map_or(Value::Null, file)),
        ("data", event.detail.clone().map_or(Value::Null, Value::Object)),
    ]);
    let evidences = if evidence.as_object().is_some_and(serde_json::Map::is_empty) {
        Value::Null
    } else {
        json!([evidence])
    };
    let uid = event.detail.as_ref().and_then(|detail| detail.get("id")?.as_str().map(str::to_owned));
    let uid = uid.unwrap_or_else(|| format!("{}-{}", event.kind, event.time.unix_nanos()));
    let types: Vec<&str> = mapping::of(event).iter().map(|entry| entry.id).collect();
    let analytic = json!({
        "name": event.rule.as_deref().unwrap_or(event.kind.as_str()), "type_id": 1, "type": "Rule"
    });
    let info = object([
        ("uid", uid.into()),
        ("title", event.kind.about().into()),
        ("created_time", super::objects::millis(event.time).into()),
        ("analytic", analytic),
        ("types", if types.is_empty() { Value::Null } else { types.into() }),
    ]);
    Filled::new([("finding_info", info), ("evidences", evidences)])
}

fn of_entity(event: &Event) -> Filled {
    let word =
        |key: &str| event.detail.as_ref().and_then(|detail| detail.get(key)?.as_str().map(str::to_owned));
    let agent = event.agent.as_ref().map(|agent| agent.id.clone()).or_else(|| word("agent"));
    let (kind, name) = match event.kind.family() {
        Family::Agent => ("AI Agent", agent.clone()),
        Family::Grant => ("Grant", word("id").or_else(|| agent.clone())),
        Family::Approval => ("Approval", word("id").or_else(|| agent.clone())),
        // No kind of these families is an entity; were one to be, its own name is what is known.
        family @ (Family::Process
        | Family::File
        | Family::Network
        | Family::Privilege
        | Family::Tamper
        | Family::Session
        | Family::Finding
        | Family::Gap
        | Family::Log) => (family.as_str(), word("id").or_else(|| agent.clone())),
    };
    let name = name.or_else(|| word("file")).unwrap_or_else(|| "unknown".to_owned());
    let entity = json!({"name": name, "uid": name, "type": kind, "type_id": 99});
    Filled::new([("actor", actor(event)), ("entity", entity)])
}

fn of_lifecycle(event: &Event) -> Filled {
    let session = event.kind.family() == Family::Session;
    let agent = event.agent.as_ref().map(|agent| agent.id.clone());
    let app = if session { agent.unwrap_or_else(|| "agent".to_owned()) } else { "agent-monitor".to_owned() };
    Filled::new([("actor", actor(event)), ("app", json!({"name": app}))])
}
