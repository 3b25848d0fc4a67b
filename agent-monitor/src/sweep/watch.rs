//! Shadow agents live: what an exec without an agent says, at once, by the same signatures as a sweep. Pure.
//!
//! One finding per tree; another one only when something new is learnt of it. The finding's id is the sweep's.

mod behaviour;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::behaviour::Behaviour;
use super::correlate;
use super::identify::{self, Hit};
use super::judge::{FRAMEWORK_IMPORT, MARK};
use super::names::Names;
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

/// Why nobody can decide about what root runs, and what helps.
pub const NO_APPROVER: &str = "runs as root, and only root may decide about shadow agents: nobody decides about a \
     process of their own user; set shadow-approvers, or adopt the finding";

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
    /// Who speaks to models, and who acts.
    behaviour: Behaviour,
    names: Names,
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
        let (names, behaviour) = (Names::new(&pack), Behaviour::default());
        Self { pack: Arc::new(pack), policy, trees: BTreeMap::new(), count: 0, behaviour, names }
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
            return self.acts(event.time, process);
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
        script_of(process)
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

    /// Whether the marks of a process' environment may mean anything: nobody above it was told.
    #[must_use]
    pub fn wants_marks(&self, event: &Event) -> bool {
        self.concerns(event).is_some_and(|process| event.agent.is_none() && !self.is_below(process))
    }

    /// Whether a process comes from one that was told.
    fn is_below(&self, process: &Process) -> bool {
        process.ancestry.iter().any(|parent| self.trees.contains_key(&(parent.pid, parent.start_time)))
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
        if act == ShadowAct::Hold && process.uid == Some(0) && self.policy.root_decides_alone() {
            put("no_approver", NO_APPROVER.into());
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

/// The script that a process runs, where that is not its program.
fn script_of(process: &Process) -> Option<String> {
    let exe = process.exe.as_deref().unwrap_or_default();
    let subject = identify::subject(exe, &process.args, process.cwd.as_deref().unwrap_or_default());
    let script = process.script.clone().or_else(|| subject.main_path().map(str::to_owned))?;
    let other =
        Some(script.as_str()) != process.exe.as_deref() && script.starts_with('/') && !subject.wrapped;
    other.then_some(script)
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
mod tests;
