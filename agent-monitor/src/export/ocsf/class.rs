//! Which class an event is of, and what is particular to that class.

use serde_json::{Value, json};

use super::Object;
use super::objects::{actor, connection, endpoints, file, file_at, object, process};
use crate::mapping;
use crate::model::{Event, Family, Kind, Network};

/// Detection Finding.
pub(super) const FINDING: u64 = 2004;
const FILE: u64 = 1001;
const EXTENSION: u64 = 1002;
const KERNEL: u64 = 1003;
const MODULE: u64 = 1005;
const PROCESS: u64 = 1007;
const ENTITY: u64 = 3004;
const NETWORK: u64 = 4001;
const DNS: u64 = 4003;
const LIFECYCLE: u64 = 6002;

/// What was done, in the class's numbering.
pub(super) struct Activity {
    pub(super) id: u64,
    pub(super) name: &'static str,
}

/// An event's class and its own fields.
pub(super) struct Class {
    pub(super) uid: u64,
    pub(super) category: u64,
    pub(super) name: &'static str,
    pub(super) activity: Activity,
    pub(super) fields: Object,
    pub(super) unmapped: Object,
}

pub(super) fn name_of(uid: u64) -> &'static str {
    match uid {
        FILE => "File System Activity",
        EXTENSION => "Kernel Extension Activity",
        KERNEL => "Kernel Activity",
        MODULE => "Module Activity",
        PROCESS => "Process Activity",
        FINDING => "Detection Finding",
        ENTITY => "Entity Management",
        NETWORK => "Network Activity",
        DNS => "DNS Activity",
        _ => "Application Lifecycle",
    }
}

pub(super) fn category_name(uid: u64) -> &'static str {
    match uid / 1000 {
        1 => "System Activity",
        2 => "Findings",
        3 => "Identity & Access Management",
        4 => "Network Activity",
        _ => "Application Activity",
    }
}

fn fields<const N: usize>(fields: [(&str, Value); N]) -> Object {
    object(fields).as_object().cloned().unwrap_or_default()
}

fn class(uid: u64, id: u64, name: &'static str, fields: Object) -> Class {
    let activity = Activity { id, name };
    Class { uid, category: uid / 1000, name: name_of(uid), activity, fields, unmapped: Object::new() }
}

/// The class of `event`.
pub(super) fn of(event: &Event) -> Class {
    match event.kind.family() {
        Family::Process => of_process(event),
        Family::File => of_file(event),
        Family::Network => of_network(event),
        Family::Privilege => of_privilege(event),
        Family::Tamper | Family::Finding => of_finding(event),
        Family::Agent | Family::Grant | Family::Approval => of_entity(event),
        Family::Session | Family::Gap | Family::Log => of_lifecycle(event),
    }
}

/// The acting process as the object of the activity, or the monitor's own where none is known.
fn subject(event: &Event) -> Value {
    event.process.as_ref().map_or_else(|| json!({"uid": "unknown"}), |known| process(known))
}

fn of_process(event: &Event) -> Class {
    let code = event.process.as_ref().and_then(|process| process.exit_code);
    let signal = event.process.as_ref().and_then(|process| process.exit_signal.clone());
    let common = [("actor", actor(event)), ("process", subject(event))];
    match event.kind {
        Kind::ProcessExit => {
            let [actor, process] = common;
            let mut class =
                class(PROCESS, 2, "Terminate", fields([actor, process, ("exit_code", code.into())]));
            class.unmapped.extend(signal.map(|signal| ("exit_signal".to_owned(), signal.into())));
            class
        }
        kind => {
            let [actor, process] = common;
            let launch = if kind == Kind::ProcessFork { (2, "Fork") } else { (3, "Exec") };
            let launched =
                [actor, process, ("launch_type_id", launch.0.into()), ("launch_type", launch.1.into())];
            class(PROCESS, 1, "Launch", fields(launched))
        }
    }
}

fn of_file(event: &Event) -> Class {
    let object = event.file.as_ref().map_or_else(|| file_at(""), file);
    let to = event.file.as_ref().and_then(|file| file.new_path.as_deref());
    let access: Vec<&str> =
        event.file.iter().flat_map(|file| &file.access).map(|access| access.as_str()).collect();
    let change = event.file.as_ref().and_then(|file| file.change.clone());
    if event.kind == Kind::FileMmapExec {
        let module = json!({"file": object, "load_type_id": 1, "load_type": "Standard"});
        return class(MODULE, 1, "Load", fields([("actor", actor(event)), ("module", module)]));
    }
    let (id, name) = match event.kind {
        Kind::FileCreate | Kind::FileLink => (1, "Create"),
        Kind::FileDelete => (4, "Delete"),
        Kind::FileRename => (5, "Rename"),
        Kind::FileTruncate => (3, "Update"),
        Kind::FileSetattr => (6, "Set Attributes"),
        _ => (14, "Open"),
    };
    let result = to.map_or(Value::Null, file_at);
    let common = [("actor", actor(event)), ("file", object), ("file_result", result)];
    let mut class = class(FILE, id, name, fields(common));
    class.unmapped.insert("access".to_owned(), access.into());
    class.unmapped.extend(change.map(|change| ("change".to_owned(), change.into())));
    class
}

fn of_network(event: &Event) -> Class {
    let network = event.network.clone().unwrap_or_default();
    if event.kind == Kind::NetworkDns {
        return of_dns(event, &network);
    }
    let (peer, own) = endpoints(&network);
    let inbound = matches!(event.kind, Kind::NetworkAccept | Kind::NetworkListen | Kind::NetworkBind);
    let (id, name) = match event.kind {
        Kind::NetworkConnect | Kind::NetworkAccept => (1, "Open"),
        Kind::NetworkListen => (7, "Listen"),
        Kind::NetworkSend => (6, "Traffic"),
        Kind::NetworkFlow => (2, "Close"),
        _ => (99, "Bind"),
    };
    let (source, destination) = if inbound { (peer, own) } else { (own, peer) };
    // One end at least must be there; a UNIX socket that was given an address has only that.
    let (source, destination) = match (source, destination) {
        (Value::Null, Value::Null) => (Value::Null, json!({"name": network.family.as_str()})),
        ends => ends,
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
    let direction = if inbound { 1 } else { 2 };
    let common = [
        ("actor", actor(event)),
        ("src_endpoint", source),
        ("dst_endpoint", destination),
        ("connection_info", connection(&network, direction)),
        ("traffic", traffic),
        ("duration", network.duration_ms.into()),
    ];
    class(NETWORK, id, name, fields(common))
}

fn of_dns(event: &Event, network: &Network) -> Class {
    let query = network.query.clone().or_else(|| network.name.clone()).unwrap_or_default();
    let answers: Vec<Value> =
        network.answers.iter().map(|answer| json!({"rdata": answer.to_string()})).collect();
    let (id, name) = if answers.is_empty() { (1, "Query") } else { (2, "Response") };
    let (peer, own) = endpoints(network);
    let peer = if peer.is_null() { json!({"name": "resolver"}) } else { peer };
    let common = [
        ("actor", actor(event)),
        ("query", json!({"hostname": query})),
        ("answers", if answers.is_empty() { Value::Null } else { answers.into() }),
        ("dst_endpoint", peer),
        ("src_endpoint", own),
    ];
    class(DNS, id, name, fields(common))
}

fn of_privilege(event: &Event) -> Class {
    let privilege = event.privilege.clone().unwrap_or_default();
    let target = privilege.target.as_ref().map(|target| {
        object([
            ("pid", target.pid.into()),
            ("created_time", target.start_time.map(super::objects::millis).into()),
            ("file", target.exe.as_deref().map_or(Value::Null, file_at)),
        ])
    });
    let rest = serde_json::to_value(&privilege)
        .ok()
        .and_then(|value| value.as_object().cloned())
        .unwrap_or_default();
    let on_process = |id, name| {
        let process = target.clone().unwrap_or_else(|| subject(event));
        class(PROCESS, id, name, fields([("actor", actor(event)), ("process", process)]))
    };
    let on_kernel = |name: &str| {
        let kernel = json!({"name": name, "type_id": 2, "type": "System Call"});
        class(KERNEL, 4, "Invoke", fields([("actor", actor(event)), ("kernel", kernel)]))
    };
    let path = |first: &Option<String>, second: &Option<String>| {
        file_at(first.as_deref().or(second.as_deref()).unwrap_or_default())
    };
    let mut class = match event.kind {
        Kind::PrivilegeSetuid => on_process(5, "Set User ID"),
        Kind::PrivilegePtrace => on_process(3, "Open"),
        Kind::PrivilegeCapability => on_process(99, "Capability Gained"),
        Kind::PrivilegeSignal => on_process(99, "Signal"),
        Kind::PrivilegeMount => {
            let away = privilege.operation.as_deref() == Some("umount");
            let (id, name) = if away { (13, "Unmount") } else { (12, "Mount") };
            let at = path(&privilege.mount_point, &privilege.object);
            class(FILE, id, name, fields([("actor", actor(event)), ("file", at)]))
        }
        Kind::PrivilegeModule => {
            let driver = json!({"file": path(&privilege.object, &None)});
            class(EXTENSION, 1, "Load", fields([("actor", actor(event)), ("driver", driver)]))
        }
        Kind::PrivilegeNamespace => on_kernel("namespace"),
        _ => on_kernel("bpf"),
    };
    class.unmapped.insert("privilege".to_owned(), rest.into());
    class
}

fn of_finding(event: &Event) -> Class {
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
    let mut class = class(FINDING, 1, "Create", fields([("finding_info", info), ("evidences", evidences)]));
    if let Some(privilege) =
        event.privilege.as_ref().and_then(|privilege| serde_json::to_value(privilege).ok())
    {
        class.unmapped.insert("privilege".to_owned(), privilege);
    }
    class
}

fn of_entity(event: &Event) -> Class {
    let word =
        |key: &str| event.detail.as_ref().and_then(|detail| detail.get(key)?.as_str().map(str::to_owned));
    let agent = event.agent.as_ref().map(|agent| agent.id.clone()).or_else(|| word("agent"));
    let (kind, name) = match event.kind.family() {
        Family::Agent => ("AI Agent", agent.clone()),
        Family::Grant => ("Grant", word("id").or_else(|| agent.clone())),
        _ => ("Approval", word("id").or_else(|| agent.clone())),
    };
    let name = name.or_else(|| word("file")).unwrap_or_else(|| "unknown".to_owned());
    let entity = json!({"name": name, "uid": name, "type": kind, "type_id": 99});
    let (id, activity) = match event.kind {
        Kind::AgentRegistered | Kind::GrantAdded | Kind::ApprovalRequested => (1, "Create"),
        Kind::GrantUsed => (2, "Read"),
        Kind::AgentChanged => (3, "Update"),
        Kind::AgentRemoved | Kind::GrantRevoked => (4, "Delete"),
        Kind::AgentExpired | Kind::GrantExpired | Kind::ApprovalExpired => (9, "Disable"),
        Kind::ApprovalApproved => (10, "Activate"),
        Kind::AgentRetired | Kind::ApprovalDenied => (11, "Deactivate"),
        Kind::AgentSuspended => (12, "Suspend"),
        Kind::AgentResumed => (13, "Resume"),
        Kind::AgentBound => (99, "Bind"),
        Kind::AgentRefused => (99, "Refuse"),
        _ => (99, "Other"),
    };
    class(ENTITY, id, activity, fields([("actor", actor(event)), ("entity", entity)]))
}

fn of_lifecycle(event: &Event) -> Class {
    let session = event.kind.family() == Family::Session;
    let agent = event.agent.as_ref().map(|agent| agent.id.clone());
    let app = if session { agent.unwrap_or_else(|| "agent".to_owned()) } else { "agent-monitor".to_owned() };
    let (id, name) = match event.kind {
        Kind::SessionStarted | Kind::LogOpened => (3, "Start"),
        Kind::SessionEnded | Kind::LogClosed => (4, "Stop"),
        Kind::LogKey | Kind::LogPolicy => (8, "Update"),
        kind if kind.family() == Family::Gap => (99, "Gap"),
        _ => (99, "Log"),
    };
    class(LIFECYCLE, id, name, fields([("actor", actor(event)), ("app", json!({"name": app}))]))
}
