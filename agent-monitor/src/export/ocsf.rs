//! OCSF: every event as one object of a class of the Open Cybersecurity Schema Framework, 1.9 or 1.8.
//!
//! 1.9 is native; for 1.8, which knows no AI agent and no attestation, those parts go to `unmapped`. What has no place
//! in a class stays in `unmapped` too, so that nothing of the event is lost. Validated in the tests against the schemas.
#![deny(clippy::wildcard_enum_match_arm)]

mod class;
mod objects;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Selected;
use super::sentence;
use crate::log::verify::Outcome;
use crate::mapping;
use crate::model::{Event, Mode, Verdict};

use class::Class;

/// An object under construction.
type Object = Map<String, Value>;

/// Which version of the schema is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// 1.8.0.
    V1_8,
    /// 1.9.0.
    #[default]
    V1_9,
}

impl Version {
    /// As `metadata.version` has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_8 => "1.8.0",
            Self::V1_9 => "1.9.0",
        }
    }
}

/// What all events of an export share.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    /// The schema.
    pub version: Version,
    /// Name of the host.
    pub host: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Operating system.
    pub os: String,
    /// `uname -r`.
    pub kernel: String,
    /// Origin of the log.
    pub origin: String,
    /// Hash of the key that seals it.
    pub key: String,
    /// The log cannot vouch for the records, because they were renamed.
    pub renamed: bool,
    /// What checking the log showed.
    pub outcome: Option<Outcome>,
}

/// The event as an OCSF object.
#[must_use]
pub fn map(record: &Selected<'_>, shared: &Shared) -> Value {
    let event = record.event;
    let class = class::of(event);
    let mut out = base(record, shared, &class);
    let Class { uid, category, name, activity, mut fields, unmapped, finding, .. } = class;
    out.append(&mut fields);
    let mut rest = unmapped;
    rest.append(&mut leftovers(event));
    let mut put = |key: &str, value: Value| drop(out.insert(key.to_owned(), value));
    put("class_uid", uid.into());
    put("class_name", name.into());
    put("category_uid", category.into());
    put("type_uid", (uid * 100 + activity.id).into());
    put("activity_id", activity.id.into());
    put("activity_name", activity.name.into());
    decision(event, &mut out);
    // The agent and the seal: in 1.9 they have places.
    let agent = event.agent.as_ref().map(|agent| objects::ai_agent(agent));
    let seal = (!shared.renamed).then(|| objects::attestation(record, shared));
    match shared.version {
        Version::V1_9 => {
            if let Some(agent) = agent {
                if finding {
                    rest.insert("ai_agent".to_owned(), agent);
                } else {
                    out.insert("ai_agent".to_owned(), agent);
                }
            }
            out.extend(seal.map(|seal| ("attestation_list".to_owned(), json!([seal]))));
        }
        Version::V1_8 => {
            rest.extend(agent.map(|agent| ("ai_agent".to_owned(), agent)));
            rest.extend(seal.map(|seal| ("attestation_list".to_owned(), json!([seal]))));
        }
    }
    if !rest.is_empty() {
        out.insert("unmapped".to_owned(), rest.into());
    }
    Value::Object(out)
}

/// What every class has.
fn base(record: &Selected<'_>, shared: &Shared, class: &Class) -> Object {
    let event = record.event;
    let millis = i64::try_from(event.time.unix_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX);
    let mut profiles = vec!["host", "security_control", "container"];
    if shared.version == Version::V1_9 {
        profiles.push("record_integrity");
        if !class.finding {
            profiles.push("ai_operation");
        }
    }
    let product = json!({
        "name": "agent-monitor", "version": env!("CARGO_PKG_VERSION"), "feature": {"name": event.source.as_str()}
    });
    let mut metadata = json!({
        "version": shared.version.as_str(), "product": product, "profiles": profiles,
        "uid": format!("{}#{}", shared.origin, record.number), "sequence": record.number,
        "event_code": event.kind.as_str(), "log_name": shared.origin,
        "original_time": event.time.to_string()
    });
    if let Some(outcome) = &shared.outcome {
        metadata["labels"] = json!([outcome.of(record.number)]);
    }
    let (severity, severity_name) = severity(event);
    let mut out = Object::new();
    let mut put = |key: &str, value: Value| drop(out.insert(key.to_owned(), value));
    put("metadata", metadata);
    put("time", millis.into());
    put("severity_id", severity.into());
    put("severity", severity_name.into());
    put("message", sentence::of(event).into());
    put("type_name", format!("{}: {}", class.name, class.activity.name).into());
    put("category_name", class.category_name.into());
    put("device", objects::device(shared));
    let attacks = objects::attacks(event);
    if !attacks.is_empty() {
        put("attacks", attacks.into());
    }
    out
}

fn severity(event: &Event) -> (u64, &'static str) {
    use crate::model::Family;
    let by_family = match event.kind.family() {
        Family::Tamper => 5,
        Family::Finding => 4,
        Family::Gap => 3,
        Family::Process
        | Family::File
        | Family::Network
        | Family::Privilege
        | Family::Agent
        | Family::Session
        | Family::Grant
        | Family::Approval
        | Family::Log => 1,
    };
    let by_verdict = match event.verdict {
        Some(Verdict::Kill) => 4,
        Some(Verdict::Deny | Verdict::Hold) => 3,
        Some(Verdict::Audit) => 2,
        Some(Verdict::Allow) | None => 1,
    };
    const NAMES: [&str; 5] = ["Informational", "Low", "Medium", "High", "Critical"];
    let severity: u64 = by_family.max(by_verdict);
    let name = usize::try_from(severity - 1).ok().and_then(|at| NAMES.get(at));
    (severity, name.copied().unwrap_or("Informational"))
}

/// What was decided and what came of it.
fn decision(event: &Event, out: &mut Object) {
    let enforced = event.mode == Some(Mode::Enforce);
    let (action, disposition) = match (event.verdict, enforced) {
        (Some(Verdict::Allow), _) => ((1, "Allowed"), (1, "Allowed")),
        (Some(Verdict::Audit), _) => ((3, "Observed"), (17, "Logged")),
        (Some(Verdict::Deny | Verdict::Kill), true) => ((2, "Denied"), (2, "Blocked")),
        (Some(Verdict::Hold), true) => ((99, "Held"), (99, "Held")),
        (Some(Verdict::Deny | Verdict::Kill | Verdict::Hold), false) => ((3, "Observed"), (15, "Detected")),
        (None, _) => ((3, "Observed"), (17, "Logged")),
    };
    let mut put = |key: &str, value: Value| drop(out.insert(key.to_owned(), value));
    put("action_id", action.0.into());
    put("action", action.1.into());
    put("disposition_id", disposition.0.into());
    put("disposition", disposition.1.into());
    let failed = event.errno.is_some();
    put("status_id", if failed { 2 } else { 1 }.into());
    put("status", if failed { "Failure" } else { "Success" }.into());
    if let Some(errno) = event.errno {
        put("status_code", errno.to_string().into());
    }
    if let Some(rule) = &event.rule {
        let agent = event.agent.as_ref().map_or("", |agent| agent.id.as_str());
        put("policy", json!({"uid": format!("{agent}/{rule}"), "name": rule, "is_applied": enforced}));
        put("status_detail", format!("decided by {rule}").into());
    }
}

/// Fields of the event that no class has a place for.
fn leftovers(event: &Event) -> Object {
    let mut out = Object::new();
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            out.insert(key.to_owned(), value);
        }
    };
    put("verdict", event.verdict.map(|verdict| verdict.as_str()).into());
    put("unattributed_reason", event.unattributed_reason.clone().into());
    if !event.labels.is_empty() {
        put("labels", event.labels.clone().into());
    }
    put("gap", event.gap.as_ref().and_then(|gap| serde_json::to_value(gap).ok()).into());
    put("detail", event.detail.clone().map_or(Value::Null, Value::Object));
    put("mode", event.mode.and_then(|mode| serde_json::to_value(mode).ok()).into());
    if let Some(agent) = &event.agent {
        put("bound_by", agent.bound_by.as_str().into());
        put("delegation", objects::delegation(agent));
    }
    let lists = mapping::of(event);
    let others: Vec<Value> = lists
        .iter()
        .filter(|entry| !matches!(entry.framework.id.as_str(), "attack" | "atlas"))
        .map(|entry| json!({"framework": entry.framework.name, "version": entry.framework.version, "id": entry.id}))
        .collect();
    if !others.is_empty() {
        put("references", others.into());
    }
    out
}

#[cfg(test)]
pub(crate) mod tests;
