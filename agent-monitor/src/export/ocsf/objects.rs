//! OCSF objects from parts of an event.

use serde_json::{Value, json};

use super::{Object, Shared};
use crate::export::Selected;
use crate::log::hex;
use crate::log::merkle::leaf;
use crate::mapping;
use crate::model::{Agent, Ancestor, Event, File, Network, Process, Time};

/// Milliseconds since 1970.
pub(super) fn millis(time: Time) -> i64 {
    i64::try_from(time.unix_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX)
}

/// Leaves out what is not known.
pub(super) fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let known = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(known.map(|(key, value)| (key.to_owned(), value)).collect::<Object>())
}

pub(super) fn ai_agent(agent: &Agent) -> Value {
    object([
        ("uid", agent.id.clone().into()),
        ("name", agent.id.clone().into()),
        ("instance_uid", agent.session.clone().into()),
        ("type_id", 99.into()),
        ("type", "Registered".into()),
    ])
}

/// In whose name the agent acts: under the names of OCSF's `delegation` object, which the compiled schema does not have
/// yet, and so among what is unmapped. A session is what was delegated; the agent that started this one delegated it.
pub(super) fn delegation(agent: &Agent) -> Value {
    if agent.session.is_none() && agent.delegator.is_none() {
        return Value::Null;
    }
    object([
        ("uid", agent.session.clone().unwrap_or_else(|| agent.id.clone()).into()),
        ("issuer_uid", agent.delegator.clone().into()),
    ])
}

pub(super) fn device(shared: &Shared) -> Value {
    let known = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    let os = json!({"name": if shared.os.is_empty() { "Linux" } else { &shared.os }, "type": "Linux", "type_id": 200});
    let mut os = os;
    if let (Some(os), false) = (os.as_object_mut(), shared.kernel.is_empty()) {
        os.insert("kernel_release".to_owned(), shared.kernel.clone().into());
    }
    object([
        ("type_id", 1.into()),
        ("type", "Server".into()),
        ("hostname", if shared.host.is_empty() { "unknown".into() } else { shared.host.clone().into() }),
        ("uid", known(&shared.machine_id)),
        ("os", os),
    ])
}

/// The file at a path, which may be empty.
pub(super) fn file_at(path: &str) -> Value {
    let name = path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path);
    let parent = path.rsplit_once('/').map(|(parent, _)| if parent.is_empty() { "/" } else { parent });
    object([
        ("name", if name.is_empty() { "unknown".into() } else { name.into() }),
        ("path", if path.is_empty() { Value::Null } else { path.into() }),
        ("parent_folder", parent.into()),
        ("type_id", 0.into()),
    ])
}

pub(super) fn file(file: &File) -> Value {
    let mut value = file_at(file.path.as_deref().unwrap_or_default());
    if let (Some(object), Some(inode)) = (value.as_object_mut(), file.inode) {
        object.insert("uid".to_owned(), format!("{}:{inode}", file.dev.as_deref().unwrap_or("?")).into());
    }
    value
}

pub(super) fn user(process: &Process) -> Value {
    match (process.uid, &process.user) {
        (None, None) => Value::Null,
        (uid, name) => {
            object([("uid", uid.map(|uid| uid.to_string()).into()), ("name", name.clone().into())])
        }
    }
}

fn parent(ancestors: &[Ancestor]) -> Value {
    let Some((nearest, above)) = ancestors.split_first() else { return Value::Null };
    object([
        ("pid", nearest.pid.into()),
        ("created_time", nearest.start_time.map(millis).into()),
        ("name", nearest.exe.as_deref().and_then(|exe| exe.rsplit('/').next()).into()),
        ("file", nearest.exe.as_deref().map_or(Value::Null, file_at)),
        ("parent_process", parent(above)),
    ])
}

pub(super) fn process(process: &Process) -> Value {
    let started = process.start_time.map_or_else(|| "?".to_owned(), |time| time.unix_nanos().to_string());
    let args = if process.args.is_empty() { Value::Null } else { process.args.join(" ").into() };
    let container = process.container.as_ref().map_or(Value::Null, |id| json!({"uid": id}));
    object([
        ("pid", process.pid.into()),
        ("uid", format!("{}-{started}", process.pid).into()),
        ("tid", process.tid.into()),
        ("name", process.exe.as_deref().and_then(|exe| exe.rsplit('/').next()).into()),
        ("file", process.exe.as_deref().map_or(Value::Null, file_at)),
        ("cmd_line", args),
        ("working_directory", process.cwd.clone().into()),
        ("created_time", process.start_time.map(millis).into()),
        ("user", user(process)),
        ("container", container),
        ("parent_process", parent(&process.ancestry)),
    ])
}

/// Who acted; the monitor itself where no process did.
pub(super) fn actor(event: &Event) -> Value {
    match &event.process {
        Some(acting) => object([("process", process(acting)), ("user", user(acting))]),
        None => json!({"app_name": "agent-monitor"}),
    }
}

fn endpoint(address: std::net::SocketAddr) -> Value {
    json!({"ip": address.ip().to_canonical().to_string(), "port": address.port()})
}

/// Peer and own end of a socket.
pub(super) fn endpoints(network: &Network) -> (Value, Value) {
    let mut peer = network.remote.map_or(Value::Null, endpoint);
    let name = network.name.as_ref().or(network.path.as_ref()).cloned();
    let name = name.or_else(|| network.abstract_name.as_ref().map(|name| format!("@{name}")));
    let named = network.name.is_some();
    match (&mut peer, name) {
        (Value::Object(peer), Some(name)) => {
            drop(peer.insert(if named { "hostname" } else { "name" }.to_owned(), name.into()))
        }
        (peer, Some(name)) => *peer = json!({if named { "hostname" } else { "name" }: name}),
        _ => {}
    }
    (peer, network.local.map_or(Value::Null, endpoint))
}

/// What kind of connection. `direction`: 1 inbound, 2 outbound, 0 unknown.
pub(super) fn connection(network: &Network, direction: u64) -> Value {
    let version = match network.remote.or(network.local) {
        Some(address) if address.ip().to_canonical().is_ipv4() => json!(4),
        Some(_) => json!(6),
        None => Value::Null,
    };
    object([
        ("direction_id", direction.into()),
        (
            "protocol_name",
            network.protocol.clone().unwrap_or_else(|| network.family.as_str().to_owned()).into(),
        ),
        ("protocol_ver_id", version),
    ])
}

/// The techniques of an event, each with the list and its version.
pub(super) fn attacks(event: &Event) -> Vec<Value> {
    let technique = |id: &String| {
        let entry = mapping::entry(id);
        let version = entry.map_or("", |entry| entry.framework.version.as_str());
        let title = entry.map_or(id.as_str(), |entry| entry.title);
        let mut attack = object([("version", if version.is_empty() { Value::Null } else { version.into() })]);
        let key = if id.starts_with('T') && id.contains('.') { "sub_technique" } else { "technique" };
        if let Some(attack) = attack.as_object_mut() {
            attack.insert(key.to_owned(), json!({"uid": id, "name": title}));
        }
        attack
    };
    event.technique.iter().map(technique).collect()
}

/// The record's place in the log, in OCSF's own words for it.
pub(super) fn attestation(record: &Selected<'_>, shared: &Shared) -> Value {
    json!({
        "uid": format!("{}#{}", shared.origin, record.number),
        "chain_uid": shared.origin,
        "authority_uid": shared.key,
        "fingerprint": {
            "algorithm": "SHA-256", "algorithm_id": 3, "value": hex(&leaf(record.json)),
            "serialization": "RFC 6962 leaf over the record's bytes", "serialization_id": 99
        }
    })
}
