//! A daemon of fixed answers with a real record and real counters: for tests of the API and of the CLI.
//!
//! It knows one agent, `bot`, and really remembers which process bound itself. It touches no kernel.

mod lives;
mod people;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::api::{
    AgentDetail, AgentSummary, ApiError, CheckReply, CheckRequest, DaemonStatus, ExecReply, ExecRequest,
    ProcessRow, Reloaded,
};
use super::{Daemon, Peer};

pub use self::people::FakePeople;

use crate::health::Health;
use crate::health::doctor::{Ability, AbilityState, Check, FamilyReport, Level, Report};
use crate::log::recorder::LogStatus;
use crate::model::{BoundBy, Mode, SCHEMA_VERSION, Time};
use crate::record::{Limits, Store};
use crate::registry::in_force::judge;
use crate::registry::report::diagnostics_text;
use crate::registry::{Diagnostic, LinuxFacts, parse_record};
use crate::scope::hold::{RuleCounts, rules};

/// See the module.
#[derive(Debug)]
pub struct FakeDaemon {
    store: Arc<Store>,
    health: Arc<Health>,
    bindings: Mutex<BTreeMap<u32, String>>,
    blind: Mutex<bool>,
    log: Mutex<Option<LogStatus>>,
    people: Option<FakePeople>,
}

impl FakeDaemon {
    /// The one agent it knows.
    pub const AGENT: &'static str = "bot";

    /// With an empty record.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        let health = Arc::new(Health::new(Time::EPOCH));
        let store = Arc::new(Store::new(limits, Arc::clone(&health)));
        Arc::new(Self {
            store,
            health,
            bindings: Mutex::default(),
            blind: Mutex::default(),
            log: Mutex::default(),
            people: FakePeople::new().ok(),
        })
    }

    /// Which agent each process bound itself to, by pid.
    pub fn bindings(&self) -> MutexGuard<'_, BTreeMap<u32, String>> {
        self.bindings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The side of it that asks people.
    pub fn asks(&self) -> Option<&FakePeople> {
        self.people.as_ref()
    }

    /// From now on its log is so.
    pub fn set_log(&self, log: Option<LogStatus>) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = log;
    }

    fn log(&self) -> Option<LogStatus> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on it cannot tell who is bound, or it can again.
    pub fn set_blind(&self, blind: bool) {
        *self.blind.lock().unwrap_or_else(PoisonError::into_inner) = blind;
    }
}

impl Daemon for FakeDaemon {
    fn binding_of(&self, peer: &Peer) -> Result<Option<String>, String> {
        if *self.blind.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err("the map cannot be read".to_owned());
        }
        Ok(self.bindings().get(&peer.pid()).cloned())
    }

    fn status(&self) -> DaemonStatus {
        DaemonStatus {
            version: "0.0.0".to_owned(),
            pid: std::process::id(),
            started: Time::EPOCH,
            kernel: "6.12.0".to_owned(),
            level: Level::Partial,
            degraded: vec!["files are seen by path arguments only".to_owned()],
            unattributed: "exec".to_owned(),
            registry: "/etc/agent-monitor/agents.d".to_owned(),
            agents: 1,
            refused: Vec::new(),
            stale: Vec::new(),
            records_lost: Vec::new(),
            state_dir: "/var/lib/agent-monitor".to_owned(),
            bound_processes: 2,
            shadow: super::api::ShadowStatus::default(),
            log: self.log(),
        }
    }

    fn doctor(&self) -> Report {
        let ability = |state, confirmed| Ability {
            state,
            confirmed,
            reason: "no BPF LSM".to_owned(),
            fix: Some("lsm=landlock,lockdown,yama,bpf".to_owned()),
        };
        let family = FamilyReport {
            family: "file".to_owned(),
            see: ability(AbilityState::Yes, true),
            stop: ability(AbilityState::No, false),
            hold: ability(AbilityState::No, false),
            name: ability(AbilityState::Partial, true),
            budget: ability(AbilityState::No, false),
        };
        let check = Check {
            name: "btf".to_owned(),
            ok: true,
            found: "/sys/kernel/btf/vmlinux".to_owned(),
            fix: None,
        };
        Report {
            schema_version: SCHEMA_VERSION,
            level: Level::Partial,
            kernel: "6.12.0".to_owned(),
            machine: "x86_64".to_owned(),
            families: vec![family],
            checks: std::iter::once(check).chain(self.log().iter().flat_map(LogStatus::checks)).collect(),
            programs: Vec::new(),
        }
    }

    fn agents(&self) -> Vec<AgentSummary> {
        vec![AgentSummary {
            id: Self::AGENT.to_owned(),
            owner: "team@example.com".to_owned(),
            purpose: "tests".to_owned(),
            mode: Mode::Observe,
            state: "active".to_owned(),
            expires: None,
            file: None,
            processes: Some(1),
            stale: None,
            rules: RuleCounts::default(),
            sessions: 0,
            last_seen: None,
            requests: 0,
        }]
    }

    fn agent(&self, id: &str) -> Option<AgentDetail> {
        let summary = self.agents().into_iter().find(|agent| agent.id == id)?;
        let process = ProcessRow {
            pid: 4121,
            ppid: Some(1),
            depth: 0,
            start_time: Some(Time::EPOCH),
            exe: Some("/usr/bin/cat".to_owned()),
            args: vec!["cat".to_owned(), "\u{1b}[2J".to_owned()],
            user: Some("bot".to_owned()),
            bound_by: BoundBy::Exe,
            bound_delay_ms: None,
            session: None,
            delegator: None,
        };
        let record = serde_json::json!({ "id": id });
        Some(AgentDetail {
            schema_version: SCHEMA_VERSION,
            summary,
            record,
            scope: String::new(),
            toml: String::new(),
            enforced: Vec::new(),
            tree: vec![process],
        })
    }

    fn reload(&self) -> Result<Reloaded, ApiError> {
        Err(ApiError::new(409, "agents.d/a.toml:3:1: unknown key", "agent-monitor agent check"))
    }

    fn check_record(&self, request: &CheckRequest) -> Result<CheckReply, ApiError> {
        let level = Level::Partial;
        let parsed = parse_record(&request.text, std::path::Path::new(&request.name));
        let mut problems = parsed.diagnostics;
        let now = crate::clock::now().timestamp();
        let judged = parsed.record.iter().flat_map(|record| judge(record, &LinuxFacts, now, Some(level)));
        problems.extend(judged);
        let enforced =
            parsed.record.as_ref().map(|record| rules(record, level, &LinuxFacts)).unwrap_or_default();
        Ok(CheckReply {
            schema_version: SCHEMA_VERSION,
            ok: !problems.iter().any(Diagnostic::is_error),
            level,
            agent: parsed.record.map(|record| record.id.as_str().to_owned()),
            errors: problems.iter().filter(|problem| problem.is_error()).map(|p| p.message.clone()).collect(),
            problems: diagnostics_text(&problems),
            changes: Vec::new(),
            rules: RuleCounts::of(&enforced),
            enforced,
            running: vec![4121],
            binds: Vec::new(),
        })
    }

    fn bind_caller(&self, peer: &Peer, request: &ExecRequest) -> Result<ExecReply, ApiError> {
        if request.agent != Self::AGENT {
            return Err(ApiError::no_agent(&request.agent));
        }
        self.bindings().insert(peer.pid(), request.agent.clone());
        Ok(ExecReply { agent: request.agent.clone(), session: request.task.clone() })
    }

    fn people(&self) -> Option<&dyn super::people::PeopleDaemon> {
        self.people.as_ref().map(|people| people as &dyn super::people::PeopleDaemon)
    }

    fn runs(&self) -> Option<&dyn super::people::RunsDaemon> {
        None
    }

    fn lives(&self) -> Option<&dyn super::people::LivesDaemon> {
        self.people.as_ref().map(|people| people as &dyn super::people::LivesDaemon)
    }

    fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn health(&self) -> &Arc<Health> {
        &self.health
    }
}
