//! The JSON event as a user reads it. This is a mirror of the contract on purpose: the tests must notice when
//! the product's own types drift from what was promised.

use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Event {
    pub schema_version: u32,
    pub seq: u64,
    pub time: String,
    pub kind: String,
    pub verdict: Option<String>,
    pub errno: Option<String>,
    pub agent: Option<Agent>,
    pub rule: Option<String>,
    pub mode: Option<String>,
    pub source: String,
    pub process: Option<Process>,
    pub file: Option<File>,
    pub network: Option<Network>,
    pub privilege: Option<Privilege>,
    pub labels: Vec<String>,
    pub technique: Vec<String>,
    pub gap: Option<Gap>,
    pub detail: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Agent {
    pub id: String,
    pub session: Option<String>,
    pub bound_by: String,
    pub delegator: Option<String>,
    pub bound_delay_ms: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Process {
    pub pid: u32,
    pub tid: Option<u32>,
    pub start_time: Option<String>,
    pub ppid: Option<u32>,
    pub exe: Option<String>,
    pub args: Vec<String>,
    pub args_truncated: bool,
    pub args_sha256: Option<String>,
    pub cwd: Option<String>,
    pub uid: Option<u32>,
    pub user: Option<String>,
    pub gid: Option<u32>,
    pub container: Option<String>,
    pub unit: Option<String>,
    pub cgroup: Option<String>,
    pub ancestry: Vec<Ancestor>,
    pub script: Option<String>,
    pub exit_code: Option<i32>,
    pub exit_signal: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Ancestor {
    pub pid: u32,
    pub exe: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct File {
    pub path: Option<String>,
    pub access: Vec<String>,
    pub dev: Option<String>,
    pub inode: Option<u64>,
    pub truncated: bool,
    pub new_path: Option<String>,
    pub change: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Network {
    pub family: String,
    pub protocol: Option<String>,
    pub local: Option<String>,
    pub remote: Option<String>,
    pub port: Option<u16>,
    pub name: Option<String>,
    pub path: Option<String>,
    #[serde(rename = "abstract")]
    pub abstract_name: Option<String>,
    pub bytes_sent: Option<u64>,
    pub bytes_received: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Privilege {
    pub target: Option<Target>,
    pub signal: Option<String>,
    pub operation: Option<String>,
    pub capabilities: Vec<String>,
    pub old_uid: Option<u32>,
    pub new_uid: Option<u32>,
    pub old_gid: Option<u32>,
    pub new_gid: Option<u32>,
    pub namespaces: Vec<String>,
    pub object: Option<String>,
    pub mount_point: Option<String>,
    pub fs_type: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Target {
    pub pid: u32,
    pub agent: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Gap {
    pub reason: String,
    pub kind: Option<String>,
    pub agent: Option<String>,
    pub count: u64,
    pub first: String,
    pub last: String,
}

impl Event {
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|p| p.pid)
    }

    pub fn agent_id(&self) -> Option<&str> {
        self.agent.as_ref().map(|a| a.id.as_str())
    }

    pub fn path(&self) -> Option<&str> {
        self.file.as_ref().and_then(|f| f.path.as_deref())
    }

    pub fn is_gap(&self) -> bool {
        self.kind.starts_with("gap.")
    }
}
