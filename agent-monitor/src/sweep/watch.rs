//! Shadow agents live: what an exec without an agent says, at once, by the same signatures as a sweep. Pure.
//!
//! One finding per tree; another one only when something new is learnt of it. The finding's id is the sweep's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::correlate;
use super::identify::{self, Hit};
use super::judge::{FRAMEWORK_IMPORT, MARK, SDK_IMPORT, SHELLS, TOOLS};
use super::pack::{Ecosystem, Pack, ProductIndex};
use super::redact;
use super::report::{Confidence, ProductKind};
use crate::attribute::identity::SHADOW_ID;
use crate::config::{Shadow, ShadowAct};
use crate::model::{Detail, Event, Kind, Process, Source, Time, Verdict};
use crate::registry::argv::glob;

/// Trees that are remembered; the oldest is forgotten first, and would be told again.
const TREES_MAX: usize = 4096;
/// What a single sign at an exec must say.
const WEIGHT_MIN: u8 = 50;

/// A process by pid and start.
type Key = (u32, Option<Time>);

#[derive(Debug, Default)]
struct Tree {
    products: BTreeSet<String>,
    flags: BTreeSet<String>,
    /// Order of arrival.
    number: u64,
}

/// Watches execs.
#[derive(Debug)]
pub struct Watch {
    pack: Arc<Pack>,
    policy: Shadow,
    trees: BTreeMap<Key, Tree>,
    count: u64,
    /// Scripts that speak to models and have not acted so far.
    speakers: BTreeMap<Key, Speaker>,
}

/// A process whose script imports what speaks to models: no agent by that alone.
#[derive(Debug)]
struct Speaker {
    script: String,
    names: BTreeSet<String>,
    process: Arc<Process>,
    /// Order of arrival.
    number: u64,
}

/// What is to be told of a process.
struct Told {
    product: String,
    name: String,
    kind: ProductKind,
    variant: Option<String>,
    score: u8,
    signs: Vec<String>,
    flags: BTreeSet<String>,
    act: ShadowAct,
}

/// What an exec said.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// For the record.
    pub event: Event,
    /// What is still to be done with the process: the kernel has not met it at its exec. `None`: nothing.
    pub late: Option<ShadowAct>,
}

impl Watch {
    /// Watches by a pack and a policy.
    #[must_use]
    pub fn new(pack: Pack, policy: Shadow) -> Self {
        Self { pack: Arc::new(pack), policy, trees: BTreeMap::new(), count: 0, speakers: BTreeMap::new() }
    }

    /// Whether a program would be told and is not excepted by its path: then the kernel may meet it at its exec.
    #[must_use]
    pub fn meets(&self, path: &str) -> bool {
        let excepted = self.policy.excepted("path").any(|pattern| glob(pattern.as_bytes(), path.as_bytes()));
        !excepted && super::known::is_known(&self.pack, path)
    }

    /// The signatures.
    #[must_use]
    pub fn pack(&self) -> Arc<Pack> {
        Arc::clone(&self.pack)
    }

    /// Looks at an event; only execs of processes without an agent mean anything, and of those that the kernel met at
    /// their exec because of this.
    pub fn observe(&mut self, event: &Event) -> Option<Finding> {
        let process = self.concerns(event)?;
        let hits = self.hits(process);
        let Some(hit) = hits.first().filter(|hit| hit.weight >= WEIGHT_MIN && !hit.ambiguous) else {
            return self.acts(event, process);
        };
        let product = self.pack.product(hit.product).filter(|product| product.kind().is_agent())?;
        let line = process.args.join(" ");
        let used = |flag: &&String| {
            if flag.contains(' ') { line.contains(flag.as_str()) } else { process.args.contains(*flag) }
        };
        let signs = hits.iter().filter(|other| other.product == hit.product && !other.ambiguous);
        let told = Told {
            product: product.id.clone(),
            name: product.name.clone(),
            kind: product.kind(),
            variant: correlate::variant_of(&self.pack, hit.product, hit.variant.as_deref()),
            score: hit.weight,
            signs: signs.map(|hit| hit.what.clone()).collect(),
            flags: product.list("unsafe_flags").iter().filter(used).cloned().collect(),
            act: self.policy.act,
        };
        self.tell(event, process, told)
    }

    /// The script of an exec that no signature told, to be looked into by somebody who may read files.
    #[must_use]
    pub fn script_of(&self, event: &Event) -> Option<String> {
        let process = self.concerns(event).filter(|_| event.agent.is_none())?;
        let exe = process.exe.as_deref().unwrap_or_default();
        let subject = identify::subject(exe, &process.args, process.cwd.as_deref().unwrap_or_default());
        let script = process.script.clone().or_else(|| subject.main_path().map(str::to_owned))?;
        let other =
            Some(script.as_str()) != process.exe.as_deref() && script.starts_with('/') && !subject.wrapped;
        other.then_some(script)
    }

    /// What the modules that a script imports say: a home-made agent, where a framework is among them. Such a one is
    /// told and never ended: an import is no proof.
    pub fn script(&mut self, event: &Event, script: &str, modules: &[String]) -> Option<Finding> {
        let process = self.concerns(event)?;
        let npm = |name: &str| self.pack.package(Ecosystem::Npm, name);
        let products = modules.iter().filter_map(|name| self.pack.import(name).or_else(|| npm(name)));
        let mut names: BTreeSet<String> = BTreeSet::new();
        for product in products.filter_map(|index| self.pack.product(index)).filter(|p| p.kind().is_agent()) {
            names.insert(product.name.clone());
        }
        if names.is_empty() {
            self.remember_speaker(event, script, modules);
            return None;
        }
        let told = Told {
            product: correlate::HOME_MADE.to_owned(),
            name: format!("Home-made agent {}", script.rsplit('/').next().unwrap_or(script)),
            kind: ProductKind::Framework,
            variant: Some(script.to_owned()),
            score: FRAMEWORK_IMPORT,
            signs: names.iter().map(|name| format!("{script} imports {name}")).collect(),
            flags: BTreeSet::new(),
            act: ShadowAct::Audit,
        };
        self.tell(event, process, told)
    }

    fn remember_speaker(&mut self, event: &Event, script: &str, modules: &[String]) {
        let npm = |name: &str| self.pack.package(Ecosystem::Npm, name);
        let products = modules.iter().filter_map(|name| self.pack.import(name).or_else(|| npm(name)));
        let sdks =
            products.filter_map(|index| self.pack.product(index)).filter(|p| p.kind() == ProductKind::Sdk);
        let names: BTreeSet<String> = sdks.map(|product| product.name.clone()).collect();
        let Some(process) = event.process.clone().filter(|_| !names.is_empty()) else { return };
        self.count += 1;
        let key = (process.pid, process.start_time);
        self.speakers.insert(key, Speaker { script: script.to_owned(), names, process, number: self.count });
        if self.speakers.len() > TREES_MAX
            && let Some(oldest) = self.speakers.iter().min_by_key(|(_, one)| one.number).map(|(key, _)| *key)
        {
            self.speakers.remove(&oldest);
        }
    }

    /// A script that speaks to models and starts what an agent acts by: told once, with little confidence, never stopped.
    fn acts(&mut self, event: &Event, process: &Process) -> Option<Finding> {
        let exe = process.exe.as_deref().unwrap_or_default();
        let name = exe.rsplit('/').next().unwrap_or(exe);
        let parent = process.ancestry.first().map(|parent| (parent.pid, parent.start_time))?;
        if !SHELLS.contains(&name) {
            return None;
        }
        let Speaker { script, names, process: of, .. } = self.speakers.remove(&parent)?;
        let mut signs: Vec<String> = names.iter().map(|name| format!("{script} imports {name}")).collect();
        signs.push(format!("has started `{name}` (pid {})", process.pid));
        let told = Told {
            product: correlate::HOME_MADE.to_owned(),
            name: format!("Home-made agent {}", script.rsplit('/').next().unwrap_or(&script)),
            kind: ProductKind::Framework,
            variant: Some(script),
            score: correlate::together([SDK_IMPORT, TOOLS].into_iter()),
            signs,
            flags: BTreeSet::new(),
            act: ShadowAct::Audit,
        };
        self.tell(event, &of, told)
    }

    /// Whether the marks of a process' environment may mean anything: nobody above it was told.
    #[must_use]
    pub fn wants_marks(&self, event: &Event) -> bool {
        let above = |process: &Process| {
            process.ancestry.iter().any(|parent| self.trees.contains_key(&(parent.pid, parent.start_time)))
        };
        self.concerns(event).is_some_and(|process| event.agent.is_none() && !above(process))
    }

    /// What the marks in the environment of a process say: an agent started it that nothing else told. Told once for what
    /// the same parent starts, and never stopped: anybody can set a variable.
    pub fn marked(&mut self, event: &Event, products: &BTreeSet<ProductIndex>) -> Option<Finding> {
        let process = self.concerns(event).filter(|_| self.wants_marks(event))?;
        let is_agent =
            |index: &&ProductIndex| self.pack.product(**index).is_some_and(|p| p.kind().is_agent());
        let index = *products.iter().find(is_agent)?;
        let product = self.pack.product(index)?;
        let exe = process.exe.as_deref().unwrap_or_default();
        let what = format!("`{exe}` carries the mark that {} sets for its children", product.name);
        let told = Told {
            product: product.id.clone(),
            name: product.name.clone(),
            kind: product.kind(),
            variant: correlate::variant_of(&self.pack, index, None),
            score: MARK,
            signs: vec![what],
            flags: BTreeSet::new(),
            act: ShadowAct::Audit,
        };
        let finding = self.tell(event, process, told);
        if let Some(parent) = process.ancestry.first() {
            // What else its parent starts is the same tree.
            self.count += 1;
            let tree = Tree { number: self.count, ..Tree::default() };
            self.trees.entry((parent.pid, parent.start_time)).or_insert(tree);
            self.trim();
        }
        finding
    }

    /// The process, if the event is an exec that the policy wants to know of.
    fn concerns<'a>(&self, event: &'a Event) -> Option<&'a Process> {
        let free = event.agent.as_ref().is_none_or(|agent| agent.id == SHADOW_ID);
        let wanted = event.kind == Kind::ProcessExec && free && event.errno.is_none();
        let process = event.process.as_deref().filter(|_| wanted && self.policy.act != ShadowAct::Off)?;
        (!self.policy.excepts(process)).then_some(process)
    }

    fn tell(&mut self, event: &Event, process: &Process, told: Told) -> Option<Finding> {
        let Told { product, name, kind, variant, score, signs, flags, act } = told;
        let met = event.agent.is_some();
        let late = Some(act).filter(|act| act.stops() && !met);
        let which = format!("{product} {}", variant.as_deref().unwrap_or_default());
        let (update, learnt) = self.learn(process, &which, &flags);
        if !learnt && late.is_none() {
            return None;
        }
        let find =
            correlate::find_id(&product, variant.as_deref(), process.uid, process.container.as_deref());
        let mut detail = Detail::new();
        let mut put = |key: &str, value: serde_json::Value| drop(detail.insert(key.to_owned(), value));
        let confidence = Confidence::of(score);
        put("find", find.clone().into());
        put("product", product.into());
        put("name", name.into());
        put("kind", kind.as_str().into());
        put("identity", confidence.score.into());
        put("level", confidence.level.as_str().into());
        put("evidence", signs.into());
        put("unsafe_flags", flags.into_iter().collect::<Vec<_>>().into());
        put("update", update.into());
        put("action", act.as_str().into());
        if act.stops() {
            put("before_first_instruction", met.into());
        }
        put("fix", format!("agent-monitor agent adopt {find}").into());
        let shown = Process { args: redact::args(&process.args), ..process.clone() };
        let verdict = Some(match act {
            ShadowAct::Off | ShadowAct::Audit => Verdict::Audit,
            ShadowAct::Hold => Verdict::Hold,
            ShadowAct::Deny => Verdict::Deny,
            ShadowAct::Kill => Verdict::Kill,
        });
        let told = Event::new(event.time, Kind::FindingShadow, Source::Daemon);
        let event = Event { verdict, process: Some(shown.into()), detail: Some(detail), ..told };
        Some(Finding { event, late })
    }

    fn hits(&self, process: &Process) -> Vec<Hit> {
        let exe = process.exe.as_deref().unwrap_or_default();
        let mut subject = identify::subject(exe, &process.args, process.cwd.as_deref().unwrap_or_default());
        if subject.wrapped {
            // What the wrapper starts has an exec of its own.
            return Vec::new();
        }
        if let Some(script) = &process.script
            && !subject.paths.contains(script)
        {
            subject.paths.push(script.clone());
        }
        identify::identify(&self.pack, &subject)
    }

    /// Forgets the oldest trees beyond the limit.
    fn trim(&mut self) {
        while self.trees.len() > TREES_MAX
            && let Some(oldest) = self.trees.iter().min_by_key(|(_, tree)| tree.number).map(|(key, _)| *key)
        {
            self.trees.remove(&oldest);
        }
    }

    /// Books an exec on its tree; whether the tree was known, and whether anything is new.
    fn learn(&mut self, process: &Process, product: &str, flags: &BTreeSet<String>) -> (bool, bool) {
        let own = (process.pid, process.start_time);
        let parents = process.ancestry.iter().map(|parent| (parent.pid, parent.start_time));
        let root = std::iter::once(own).chain(parents).find(|key| self.trees.contains_key(key));
        let known = root.is_some();
        let root = root.unwrap_or(own);
        self.count += 1;
        let count = self.count;
        let tree = self.trees.entry(root).or_insert_with(|| Tree { number: count, ..Tree::default() });
        let new_product = tree.products.insert(product.to_owned());
        let new_flag = flags.iter().filter(|flag| tree.flags.insert((*flag).clone())).count() > 0;
        self.trim();
        (known, new_product || new_flag)
    }
}

impl Shadow {
    /// Whether somebody excepted this process.
    fn excepts(&self, process: &Process) -> bool {
        let uid = process.uid.map(|uid| uid.to_string());
        let user = |name: &str| Some(name) == process.user.as_deref() || Some(name) == uid.as_deref();
        let path = |pattern: &str| {
            let paths = [process.exe.as_deref(), process.script.as_deref()];
            paths.into_iter().flatten().any(|path| glob(pattern.as_bytes(), path.as_bytes()))
        };
        self.excepted("user").any(user)
            || self.excepted("unit").any(|name| Some(name) == process.unit.as_deref())
            || self.excepted("path").any(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Ancestor;

    fn exec(pid: u32, line: &str, parents: &[u32]) -> Event {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let start = |pid: u32| Some(Time::from_unix_nanos(i128::from(pid)));
        let process = Process {
            pid,
            start_time: start(pid),
            exe: args.first().cloned(),
            args,
            uid: Some(1000),
            user: Some("alice".to_owned()),
            ancestry: parents
                .iter()
                .map(|p| Ancestor { pid: *p, exe: None, start_time: start(*p) })
                .collect(),
            ..Process::default()
        };
        let event = Event::new(Time::from_unix_nanos(7), Kind::ProcessExec, Source::Lsm);
        Event { process: Some(process.into()), ..event }
    }

    fn watch(act: ShadowAct, except: &[&str]) -> Watch {
        let except = except.iter().map(ToString::to_string).collect();
        Watch::new(crate::sweep::pack::embedded().clone(), Shadow { act, except, approvers: Vec::new() })
    }

    fn product(finding: &Option<Finding>) -> Option<&str> {
        finding.as_ref()?.event.detail.as_ref()?.get("product")?.as_str()
    }

    #[test]
    fn one_finding_per_tree_and_one_more_for_what_is_new() {
        let mut watch = watch(ShadowAct::Audit, &[]);
        let first = watch.observe(&exec(10, "/opt/claude -p x --token=abc", &[1]));
        let event = &first.as_ref().unwrap().event;
        assert_eq!((event.kind.as_str(), event.verdict), ("finding.shadow_agent", Some(Verdict::Audit)));
        let text = event.to_line().unwrap();
        assert!(text.contains("shadow-") && !text.contains("abc"), "{text}");
        let sweep_id = correlate::find_id("claude-code", None, Some(1000), None);
        assert_eq!(event.detail.as_ref().unwrap()["find"], sweep_id.as_str());
        // The same again, from within and by itself: nothing new.
        assert_eq!(watch.observe(&exec(11, "/opt/claude", &[10, 1])), None);
        assert_eq!(watch.observe(&exec(10, "/opt/claude", &[1])), None);
        assert_eq!(watch.observe(&exec(12, "/bin/ls", &[10, 1])), None);
        let flagged =
            watch.observe(&exec(13, "/opt/claude --dangerously-skip-permissions", &[10, 1])).unwrap();
        assert_eq!(flagged.event.detail.as_ref().unwrap()["update"], true);
        let server = watch.observe(&exec(14, "/usr/bin/mcp-server-git", &[13, 10, 1]));
        assert_eq!(product(&server), Some("mcp-reference-servers"));
        // Another tree is another finding, and so is a pid that was used before.
        assert_eq!(product(&watch.observe(&exec(20, "/opt/claude", &[1]))), Some("claude-code"));
    }

    #[test]
    fn agents_look_alikes_wrappers_and_failures_are_none() {
        let mut watch = watch(ShadowAct::Audit, &[]);
        for line in [
            "/usr/bin/goose up",
            "/usr/bin/vim claude",
            "/usr/bin/timeout 5 claude",
            "/usr/bin/python3 -m pip",
        ] {
            assert_eq!(watch.observe(&exec(10, line, &[])), None, "{line}");
        }
        let bound = crate::model::Agent {
            id: "a".to_owned(),
            session: None,
            bound_by: crate::model::BoundBy::Exe,
            delegator: None,
            bound_delay_ms: None,
        };
        let registered = Event { agent: Some(bound.into()), ..exec(10, "/opt/claude", &[]) };
        assert_eq!(watch.observe(&registered), None);
    }

    #[test]
    fn policy_and_exceptions() {
        let told = |act, except: &[&str]| watch(act, except).observe(&exec(10, "/opt/claude", &[]));
        assert_eq!(told(ShadowAct::Off, &[]), None);
        for act in [ShadowAct::Hold, ShadowAct::Deny, ShadowAct::Kill] {
            let finding = told(act, &[]).unwrap();
            assert_eq!(finding.late, Some(act));
            assert_eq!(finding.event.detail.unwrap()["before_first_instruction"], false);
        }
        assert_eq!(told(ShadowAct::Audit, &[]).unwrap().late, None);
        for except in ["user:alice", "user:1000", "path:/opt/*"] {
            assert_eq!(told(ShadowAct::Kill, &[except]), None, "{except}");
        }
        assert!(told(ShadowAct::Kill, &["user:bob", "unit:x.service", "path:/srv/*"]).is_some());
        // A policy that kills does so in a tree that is known, too.
        let mut watch = watch(ShadowAct::Kill, &[]);
        assert!(watch.observe(&exec(10, "/opt/claude", &[])).is_some());
        assert!(watch.observe(&exec(11, "/opt/claude", &[10])).is_some());
    }

    #[test]
    fn what_the_kernel_met_is_told_and_done_with() {
        let mut watch = watch(ShadowAct::Deny, &["path:/srv/*"]);
        let met = |id: &str| {
            let agent = crate::model::Agent {
                id: id.to_owned(),
                session: None,
                bound_by: crate::model::BoundBy::Exe,
                delegator: None,
                bound_delay_ms: None,
            };
            Event { agent: Some(agent.into()), ..exec(10, "/opt/claude", &[]) }
        };
        assert_eq!(watch.observe(&met("_shadow-allowed")), None, "a person has let it go on");
        let finding = watch.observe(&met(SHADOW_ID)).unwrap();
        assert_eq!((finding.late, finding.event.verdict), (None, Some(Verdict::Deny)));
        assert_eq!(finding.event.detail.unwrap()["before_first_instruction"], true);
        assert_eq!(watch.observe(&met(SHADOW_ID)), None, "once per tree");
        assert!(
            watch.meets("/usr/bin/claude") && !watch.meets("/srv/claude") && !watch.meets("/usr/bin/vim")
        );
    }

    #[test]
    fn scripts_that_import_frameworks_are_told_and_never_ended() {
        let mut watch = watch(ShadowAct::Kill, &[]);
        let event = exec(10, "/usr/bin/python3 /srv/bot.py --once", &[]);
        assert_eq!(watch.observe(&event), None);
        assert_eq!(watch.script_of(&event).as_deref(), Some("/srv/bot.py"));
        assert_eq!(watch.script_of(&exec(10, "/usr/bin/ls /srv", &[])), None);
        let modules = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(watch.script(&event, "/srv/bot.py", &modules(&["os", "openai"])), None);
        let told = watch.script(&event, "/srv/bot.py", &modules(&["crewai.flow"])).unwrap();
        assert_eq!(told.late, None);
        let sweep_id = correlate::find_id(correlate::HOME_MADE, Some("/srv/bot.py"), Some(1000), None);
        assert_eq!(told.event.detail.unwrap()["find"], sweep_id.as_str());
        assert_eq!(watch.script(&event, "/srv/bot.py", &modules(&["crewai"])), None, "once per tree");
    }

    #[test]
    fn a_script_that_speaks_to_models_is_told_when_it_acts() {
        let mut watch = watch(ShadowAct::Deny, &[]);
        let event = exec(10, "/usr/bin/python3 /srv/bot.py", &[1]);
        assert_eq!(watch.script(&event, "/srv/bot.py", &["openai".to_owned()]), None);
        assert_eq!(watch.observe(&exec(11, "/usr/bin/uname", &[10, 1])), None);
        assert_eq!(watch.observe(&exec(12, "/usr/bin/bash -c ls", &[1])), None, "somebody else's");
        let told = watch.observe(&exec(13, "/usr/bin/bash -c ls", &[10, 1])).unwrap();
        let detail = told.event.detail.as_ref().unwrap();
        assert_eq!((&detail["level"], &detail["action"], told.late), (&"low".into(), &"audit".into(), None));
        assert_eq!(told.event.process.as_ref().unwrap().pid, 10, "the script, not the shell");
        assert_eq!(watch.observe(&exec(14, "/usr/bin/bash -c ls", &[10, 1])), None, "once");
    }

    #[test]
    fn marks_of_children_tell_who_nobody_told() {
        let mut watch = watch(ShadowAct::Kill, &[]);
        let marks = BTreeSet::from([watch.pack.find("claude-code").unwrap()]);
        let child = exec(11, "/usr/bin/make", &[10, 1]);
        assert_eq!(watch.marked(&child, &BTreeSet::new()), None);
        let told = watch.marked(&child, &marks).unwrap();
        let detail = told.event.detail.as_ref().unwrap();
        assert_eq!(
            (&detail["product"], &detail["level"], told.late),
            (&"claude-code".into(), &"medium".into(), None)
        );
        assert_eq!(watch.marked(&exec(12, "/usr/bin/ls", &[10, 1]), &marks), None, "the same parent's");
        assert!(watch.observe(&exec(20, "/opt/claude", &[1])).is_some());
        assert!(!watch.wants_marks(&exec(21, "/usr/bin/ls", &[20, 1])), "its agent is told");
    }

    #[test]
    fn memory_is_bounded() {
        let mut watch = watch(ShadowAct::Audit, &[]);
        for pid in 1..5000 {
            assert!(watch.observe(&exec(pid, "/opt/claude", &[])).is_some());
        }
        assert_eq!(watch.trees.len(), TREES_MAX);
    }
}
