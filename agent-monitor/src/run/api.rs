//! What the control API asks of the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent_monitor_ebpf::task::{BackfillEntry, BoundBy, ProcEntry, TAG_LAUNCH, TaskTag};

use super::admission::{stale_agent, stale_agents};
use super::core::{Core, Live, lock};
use super::port::LifeState;
use super::reload::{mode, refused};
use crate::attribute::backfill::Plan;
use crate::attribute::boot::same_start;
use crate::attribute::tree::Binding;
use crate::attribute::{TaskKey, identity};
use crate::config::ShadowAct;
use crate::control::api::{
    AgentDetail, AgentSummary, CheckReply, CheckRequest, DaemonStatus, ExecReply, ExecRequest, ProcessRow,
    Reloaded, ShadowStatus,
};
use crate::control::{ApiError, Daemon, Peer};
use crate::engine::{Host as _, Output};
use crate::health::Health;
use crate::health::doctor::{AbilityState, Check, Level, PINS, Report};
use crate::log::recorder::LogStatus;
use crate::model::{Event, Mode, SCHEMA_VERSION, Source, Time};
use crate::record::Store;
use crate::registry::LinuxFacts;
use crate::registry::format::scope_to_toml;
use crate::registry::in_force::Kept;
use crate::registry::report::record_text;
use crate::scope::hold::{self, RuleCounts};

impl Daemon for Core {
    fn binding_of(&self, peer: &Peer) -> Result<Option<String>, String> {
        let entry = lock(&self.port).proc(peer.pid()).map_err(|error| error.to_string())?;
        let entry = entry.filter(|entry| same_start(entry.start, peer.start_ticks()));
        Ok(entry.map(|entry| lock(&self.live).engine.agents().name(entry.tag.agent)))
    }

    fn status(&self) -> DaemonStatus {
        let (agents, refused_records, stale) = {
            let book = lock(&self.book);
            let refused = book.loaded.refused.iter().map(refused).collect();
            (book.loaded.records.len() as u64, refused, stale_agents(&book.kept))
        };
        DaemonStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started,
            kernel: self.report.kernel.clone(),
            level: self.report.level,
            degraded: degraded(&self.report, self.pins_check()),
            unattributed: self.config.unattributed.as_str().to_owned(),
            registry: self.config.registry.display().to_string(),
            agents,
            refused: refused_records,
            stale,
            records_lost: self.kept_damaged.clone(),
            state_dir: self.config.state_dir.display().to_string(),
            bound_processes: self.bound().len() as u64,
            log: self.log_status(),
            shadow: self.shadow_status(),
        }
    }

    fn doctor(&self) -> Report {
        let ShadowStatus { policy, programs, limits } = self.shadow_status();
        let mut report = self.report.clone();
        report.checks.extend(self.pins_check());
        report.checks.extend(self.log_status().iter().flat_map(LogStatus::checks));
        if self.config.shadow.act.stops() {
            let met = format!("{policy}: {programs} known programs are met before their first instruction");
            let found = std::iter::once(met).chain(limits).collect::<Vec<_>>().join("; ");
            let ok = report.level == Level::Full || self.config.shadow.act == ShadowAct::Kill;
            report.checks.push(Check { name: "shadow agents".to_owned(), ok, found, fix: None });
        }
        if self.config.shadow.root_decides_alone() {
            let found = "only root: nobody may decide about shadow agents that run as root".to_owned();
            let fix = Some("set shadow-approvers = [\"group:NAME\"] beside shadow = \"hold\"".to_owned());
            report.checks.push(Check { name: "shadow approvers".to_owned(), ok: false, found, fix });
        }
        report
    }

    fn agents(&self) -> Vec<AgentSummary> {
        let (bound, activity) = (self.bound(), self.activity());
        let book = lock(&self.book);
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        bound.iter().for_each(|(_, entry)| *counts.entry(entry.tag.agent).or_default() += 1);
        let all = book.kept.iter().map(|(id, kept)| {
            let index = book.agents.index(id.as_str());
            let processes = index.and_then(|index| counts.get(&index)).copied().unwrap_or(0);
            self.summary_of(kept, index, processes, activity.get(id.as_str()))
        });
        all.collect()
    }

    fn agent(&self, id: &str) -> Option<AgentDetail> {
        let activity = self.activity();
        let (kept, index) = {
            let book = lock(&self.book);
            let id = id.parse().ok()?;
            (book.kept.get(&id)?.clone(), book.agents.index(id.as_str())?)
        };
        let record = &kept.record;
        let tree = self.tree_of(index);
        Some(AgentDetail {
            schema_version: SCHEMA_VERSION,
            summary: self.summary_of(&kept, Some(index), tree.len() as u64, activity.get(id)),
            record: serde_json::to_value(record).unwrap_or_default(),
            scope: if record.scope.declared { scope_to_toml(&record.scope) } else { String::new() },
            toml: record_text(record, self.clock.now().timestamp()),
            enforced: hold::rules(record, self.report.level, &LinuxFacts),
            tree,
        })
    }

    fn check_record(&self, request: &CheckRequest) -> Result<CheckReply, ApiError> {
        Ok(self.try_record(request))
    }

    fn reload(&self) -> Result<Reloaded, ApiError> {
        self.load().map_err(|error| {
            ApiError::new(409, error.to_string(), "the records in force stay; agent-monitor agent check DIR")
        })
    }

    fn bind_caller(&self, peer: &Peer, request: &ExecRequest) -> Result<ExecReply, ApiError> {
        let index = {
            let book = lock(&self.book);
            let registered = book.loaded.get(&request.agent).is_some();
            book.agents.index(&request.agent).filter(|_| registered)
        };
        let agent = index.ok_or_else(|| match self.is_retired(&request.agent) {
            true => {
                let error = format!("agent {} is retired: nothing of it ever starts again", request.agent);
                ApiError::new(409, error, "register a new agent with another id")
            }
            false => ApiError::no_agent(&request.agent),
        })?;
        let state = self.life_of(agent);
        if state != LifeState::Active {
            let error = format!(
                "agent {} is {}: nothing of it starts",
                request.agent,
                crate::people::life::word(state)
            );
            return Err(ApiError::new(409, error, "agent-monitor agent review ID says by whom and why"));
        }
        let key = self.key_of(peer)?;
        let session = match self.has_people() {
            true => Some(self.launch_session(peer, (&request.agent, agent), key, request)?),
            false => None,
        };
        let number = session.as_ref().map_or(0, |session| session.number);
        if let Err(error) = self.launch(peer, key, agent, number) {
            session.iter().for_each(|session| self.abandon_session(session));
            return Err(error);
        }
        let binding = Binding {
            agent,
            delegator: 0,
            by: BoundBy::Launch,
            session: number,
            delay_ms: None,
            known_from: 0,
        };
        let mut out = Output::default();
        let mut live = lock(&self.live);
        let Live { engine, host } = &mut *live;
        engine.backfilled(&[(key, binding)], Source::Daemon, self.clock.boot_nanos(), host, &mut out);
        if let Some(event) = out.events.last_mut() {
            note_launch(event, request);
        }
        self.append(&mut out);
        Ok(ExecReply { agent: request.agent.clone(), session: session.map(|session| session.id) })
    }

    fn people(&self) -> Option<&dyn crate::control::people::PeopleDaemon> {
        Some(self)
    }

    fn runs(&self) -> Option<&dyn crate::control::people::RunsDaemon> {
        Some(self)
    }

    fn lives(&self) -> Option<&dyn crate::control::people::LivesDaemon> {
        Some(self)
    }

    fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn health(&self) -> &Arc<Health> {
        &self.health
    }
}

/// What the launch says of itself, into the record.
fn note_launch(event: &mut Event, request: &ExecRequest) {
    let mut note = |key: &str, value: serde_json::Value| {
        event.detail.get_or_insert_default().insert(key.to_owned(), value);
    };
    if let Some(task) = &request.task {
        note("task", task.as_str().into());
    }
    if request.landlock {
        note("landlock", true.into());
    }
    if !request.not_held.is_empty() {
        note("not_held", request.not_held.clone().into());
    }
}

/// What people's side knows of an agent.
#[derive(Debug, Default)]
struct Activity {
    last_seen: Option<Time>,
    sessions: u64,
    requests: u64,
}

impl Core {
    /// What `status` and `doctor` say while pins are gone and cannot be put back.
    fn pins_check(&self) -> Option<Check> {
        let missing = self.missing_pins.load(std::sync::atomic::Ordering::Relaxed);
        (missing > 0).then(|| Check {
            name: PINS.to_owned(),
            ok: false,
            found: format!(
                "{missing} pins of programs and maps below {} are gone and cannot be put back: what is in force ends with \
                 this daemon",
                self.config.bpffs.display()
            ),
            fix: Some("mount a BPF file system there; the daemon then pins again within a second".to_owned()),
        })
    }

    /// The bound processes as the kernel has them.
    fn bound(&self) -> Vec<(u32, ProcEntry)> {
        let bound = lock(&self.port).procs();
        bound.map_err(|error| tracing::warn!(%error, "cannot list the bound processes")).unwrap_or_default()
    }

    /// The process that calls.
    fn key_of(&self, peer: &Peer) -> Result<TaskKey, ApiError> {
        let tasks = lock(&self.port).backfill(&Plan::new());
        let tasks = tasks.map_err(|error| not_bound(peer, &error.to_string()))?;
        let task = tasks.iter().find(|task| task.tgid == peer.pid());
        let task = task.filter(|task| same_start(task.start, peer.start_ticks()) && peer.is_alive());
        Ok(task.ok_or_else(|| not_bound(peer, "it has ended"))?.key())
    }

    /// Binds the caller for a launch: its next exec keeps the identity whatever it runs.
    fn launch(&self, peer: &Peer, key: TaskKey, agent: u32, session: u64) -> Result<(), ApiError> {
        let tag = TaskTag {
            agent,
            session,
            since: self.clock.boot_nanos(),
            bound_by: BoundBy::Launch as u8,
            root_by: BoundBy::Launch as u8,
            flags: TAG_LAUNCH,
            ..TaskTag::NONE
        };
        let entry = BackfillEntry { start: key.start, tag, replace: 1, tagged: 0 };
        let tasks = lock(&self.port).backfill(&Plan::from([(key.tgid, entry)]));
        let tasks = tasks.map_err(|error| not_bound(peer, &error.to_string()))?;
        let bound = tasks.iter().any(|now| now.key() == key && now.tag.agent == agent && !now.mixed);
        if bound { Ok(()) } else { Err(not_bound(peer, "the kernel did not take the binding")) }
    }

    /// What people's side knows of each agent; nothing where it cannot be asked.
    fn activity(&self) -> BTreeMap<String, Activity> {
        let mut all: BTreeMap<String, Activity> = BTreeMap::new();
        if !self.has_people() {
            return all;
        }
        let read = self.with_people(|side| {
            let fail = |error: crate::people::StoreError| super::people::api::unusable(&error);
            for row in side.people.lives().map_err(fail)? {
                all.entry(row.agent).or_default().last_seen = row.active;
            }
            for session in side.people.sessions(None, false).map_err(fail)? {
                all.entry(session.agent).or_default().sessions += 1;
            }
            for request in side.people.list(None, false).map_err(fail)? {
                all.entry(request.agent.clone()).or_default().requests += 1;
            }
            Ok(())
        });
        if let Err(error) = read {
            tracing::warn!(%error, "sessions and requests of agents are not known");
        }
        all
    }

    fn summary_of(
        &self,
        kept: &Kept,
        index: Option<u32>,
        processes: u64,
        activity: Option<&Activity>,
    ) -> AgentSummary {
        let record = &kept.record;
        let life = match index.map(|index| self.life_of(index)) {
            Some(LifeState::Active) | None if record.is_expired(self.clock.now().timestamp()) => {
                LifeState::Expired
            }
            state => state.unwrap_or(LifeState::Active),
        };
        let mode = mode(record);
        let state = match (life, &kept.stale, mode) {
            (LifeState::Suspended | LifeState::Retired | LifeState::Expired, _, _) => {
                crate::people::life::word(life)
            }
            (LifeState::Active, Some(_), _) => "stale",
            (LifeState::Active, None, Mode::Observe) => "observing",
            (LifeState::Active, None, Mode::Enforce) => "active",
        };
        let rules = hold::rules(record, self.report.level, &LinuxFacts);
        AgentSummary {
            id: record.id.value.as_str().to_owned(),
            owner: record.owner.value.clone(),
            purpose: record.purpose.value.clone(),
            mode,
            state: state.to_owned(),
            expires: Some(Time::from(record.expires.value)),
            file: Some(record.file().display().to_string()),
            processes: Some(processes),
            stale: stale_agent(&record.id.value, kept),
            rules: RuleCounts::of(&rules),
            sessions: activity.map_or(0, |activity| activity.sessions),
            last_seen: activity.and_then(|activity| activity.last_seen),
            requests: activity.map_or(0, |activity| activity.requests),
        }
    }

    /// The live processes of an agent: each tree from its root down.
    fn tree_of(&self, agent: u32) -> Vec<ProcessRow> {
        let bound = self.bound();
        let mine = bound.iter().filter(|(_, entry)| entry.tag.agent == agent);
        let entries: BTreeMap<u32, ProcEntry> = mine.copied().collect();
        let mut live = lock(&self.live);
        let Live { engine, host } = &mut *live;
        let mut rows: BTreeMap<u32, ProcessRow> = BTreeMap::new();
        for (tgid, entry) in &entries {
            let key = TaskKey { tgid: *tgid, start: entry.start };
            let process = engine.show(key, host);
            let by = BoundBy::from_u8(entry.tag.bound_by).unwrap_or(BoundBy::Inherited);
            let known = engine.tree().get(key).and_then(|proc| proc.binding);
            let user = process.uid.and_then(|uid| host.user(uid)).map(|name| name.to_string());
            rows.insert(
                *tgid,
                ProcessRow {
                    pid: *tgid,
                    ppid: process.ppid,
                    depth: 0,
                    start_time: process.start_time,
                    exe: process.exe.clone(),
                    args: process.args.clone(),
                    user: user.or_else(|| process.uid.map(|uid| uid.to_string())),
                    bound_by: identity::bound_by(by),
                    bound_delay_ms: known.and_then(|binding| binding.delay_ms),
                    session: None,
                    delegator: (entry.tag.delegator != 0).then(|| engine.agents().name(entry.tag.delegator)),
                },
            );
        }
        in_tree_order(rows)
    }
}

fn not_bound(peer: &Peer, why: &str) -> ApiError {
    ApiError::new(500, format!("cannot bind pid {}: {why}", peer.pid()), "agent-monitor doctor")
}

/// Children after their parent, with their depth.
fn in_tree_order(mut rows: BTreeMap<u32, ProcessRow>) -> Vec<ProcessRow> {
    let mut children: BTreeMap<Option<u32>, BTreeSet<u32>> = BTreeMap::new();
    for (pid, row) in &rows {
        let parent = row.ppid.filter(|ppid| rows.contains_key(ppid) && ppid != pid);
        children.entry(parent).or_default().insert(*pid);
    }
    let mut order = Vec::with_capacity(rows.len());
    let roots = children.remove(&None).unwrap_or_default();
    let mut waiting: Vec<(u32, u32)> = roots.into_iter().rev().map(|pid| (pid, 0)).collect();
    while let Some((pid, depth)) = waiting.pop() {
        if let Some(mut row) = rows.remove(&pid) {
            row.depth = depth;
            order.push(row);
        }
        let below = children.remove(&Some(pid)).unwrap_or_default();
        waiting.extend(below.into_iter().rev().map(|pid| (pid, depth.saturating_add(1))));
    }
    // What is left has parents in a circle, which only a reused pid can make.
    order.extend(rows.into_values());
    order
}

fn degraded(report: &Report, pins: Option<Check>) -> Vec<String> {
    let families = report.families.iter().filter(|family| family.see.state != AbilityState::Yes);
    let families = families.map(|family| format!("{}: {}", family.family, family.see.reason));
    let checks = report.checks.iter().chain(&pins).filter(|check| !check.ok);
    families.chain(checks.map(|check| format!("{}: {}", check.name, check.found))).collect()
}
