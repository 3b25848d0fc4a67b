//! Shadow agents: everything on a host that is an agent, and whether the registry knows it (`design.md` §8).
//!
//! ```text
//! signature pack ──► Pack ─────────────┐
//! /proc, files ──► jobs ──► observations ──► correlate ──► finds ──► Report
//! registry ──► Register ───────────────┘
//! ```
//!
//! Jobs read, within bounds, what they are allowed to; nothing that is found is run, nothing is written, secrets are
//! named and never shown. A job that does not come back is left behind and said to be missing. Telling products apart is
//! pure ([`identify`], [`judge`], [`correlate`]), so that the daemon says the same at an exec.

pub mod baseline;
pub mod correlate;
pub mod edits;
pub mod files;
pub mod homes;
pub mod identify;
mod jobs;
pub mod judge;
pub mod known;
pub mod live;
pub mod manifest;
pub mod mcp;
pub mod names;
pub mod observe;
pub mod pack;
pub mod proc;
pub mod propose;
pub mod redact;
pub mod registered;
pub mod report;
pub mod resolved;
pub mod root;
pub mod signatures;
pub mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::clock;
use homes::Users;
use jobs::{Outcome, Pool};
use observe::{About, Harvest, Observation};
use pack::Pack;
use registered::Register;
use report::{Coverage, HostId, Looked, Report, SCHEMA_VERSION, Sweep};
use root::Root;

/// Longest that one job may take, unless told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What is to be swept, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// A directory instead of this host.
    pub root: Option<PathBuf>,
    /// Shell histories are counted.
    pub history: bool,
    /// Network and FUSE file systems are looked at too.
    pub remote: bool,
    /// Names of model providers are looked up, to tell connections to them.
    pub resolve: bool,
    /// Longest that one job may take.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { root: None, history: false, remote: false, resolve: false, patience: PATIENCE }
    }
}

/// Why nothing was swept.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The root is no directory that can be opened.
    #[error("cannot look into {}", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// Sweeps. `progress` is told what was done, of how many.
///
/// # Errors
/// When the root cannot be opened; everything else is in the coverage of the report.
pub fn sweep(
    pack: &Arc<Pack>,
    register: &Arc<Register>,
    options: &Options,
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<Report, SweepError> {
    let (started, begin) = (clock::now(), Instant::now());
    let path = options.root.clone().unwrap_or_else(|| PathBuf::from("/"));
    let root = Root::open(&path, "", options.remote)
        .map_err(|source| SweepError::Root { path: path.clone(), source })?;
    let users = Users::read(&root);
    let mut pool = Pool::start(options.patience);
    let mut harvest = Harvest::default();
    let live = options.root.is_none();
    if live {
        let (pack, register, resolve) = (Arc::clone(pack), Arc::clone(register), options.resolve);
        let patience = options.patience;
        pool.add("processes", Box::new(move || live::processes(&pack, register, resolve, patience)));
    } else {
        let detail = Some("a directory was swept, not a running host".to_owned());
        harvest.coverage.push(Coverage {
            source: "processes".to_owned(),
            looked: Looked::NotLooked,
            count: 0,
            detail,
        });
    }
    let scan = Scan { pack: Arc::clone(pack), options: options.clone() };
    scan.add(&mut pool, &root, &users);
    while let Some((name, outcome)) = pool.next() {
        progress(&name, pool.done(), pool.total());
        let Some(Outcome { harvest: part, containers }) = outcome else {
            let detail = Some(format!("did not answer within {} s", options.patience.as_secs()));
            harvest.coverage.push(Coverage { source: name, looked: Looked::TimedOut, count: 0, detail });
            continue;
        };
        harvest.merge(part);
        containers.into_iter().for_each(|(id, pid)| scan.add_container(&mut pool, id, pid));
    }
    if users.cut {
        let detail = Some("there are more homes than are looked at".to_owned());
        harvest.coverage.push(Coverage {
            source: "homes".to_owned(),
            looked: Looked::Partly,
            count: 0,
            detail,
        });
    }
    if !options.history {
        let detail = Some("counts only with --history".to_owned());
        harvest.coverage.push(Coverage {
            source: "shell histories".to_owned(),
            looked: Looked::NotLooked,
            count: 0,
            detail,
        });
    }
    script_owners(&mut harvest.seen);
    let mut finds = correlate::correlate(pack, harvest.seen, &users, &harvest.keys, register.as_ref());
    if let Some(why) = register.why_unreadable() {
        let detail = Some(format!("whether agents are registered is not known: {why}"));
        let source = "registry".to_owned();
        harvest.coverage.push(Coverage { source, looked: Looked::NotPermitted, count: 0, detail });
        for find in finds.iter_mut().filter(|find| find.registry.state == report::RegistryState::Shadow) {
            find.registry.state = report::RegistryState::Unknown;
            find.fix = None;
        }
    }
    harvest.coverage.sort();
    Ok(Report {
        schema_version: SCHEMA_VERSION,
        sweep: Sweep {
            id: uuid::Uuid::now_v7().to_string(),
            time: started,
            millis: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            pack_version: pack.version.clone(),
            root: options.root.as_ref().map(|root| root.display().to_string()),
            uid: rustix::process::geteuid().as_raw(),
        },
        host: host(&root, live),
        finds,
        gone: Vec::new(),
        coverage: harvest.coverage,
    })
}

/// A script that a unit or cron starts and that runs is one find, whoever it runs as.
fn script_owners(seen: &mut [Observation]) {
    let running: BTreeMap<About, observe::Place> = seen
        .iter()
        .filter(|o| o.process.is_some() && matches!(o.about, About::HomeMade(_)))
        .map(|o| (o.about.clone(), o.place.clone()))
        .collect();
    for observation in seen.iter_mut().filter(|o| o.process.is_none()) {
        if let Some(place) = running.get(&observation.about) {
            observation.place = place.clone();
        }
    }
}

/// What is the same for all file jobs.
struct Scan {
    pack: Arc<Pack>,
    options: Options,
}

impl Scan {
    /// The system's places and each home, side by side.
    fn add(&self, pool: &mut Pool, root: &Root, users: &Users) {
        let homes = users.homes.iter().cloned().map(Some);
        for home in std::iter::once(None).chain(homes) {
            let name = home.as_ref().map_or_else(
                || "system files".to_owned(),
                |home: &homes::Home| format!("home {}", root.shown(&home.path)),
            );
            let (pack, root, options) = (Arc::clone(&self.pack), root.clone(), self.options.clone());
            let work = move || {
                let job = job(&pack, &root, None, &options);
                let harvest = match &home {
                    Some(home) => files::home(job, home),
                    None => files::system(job),
                };
                Outcome { harvest, containers: Vec::new() }
            };
            pool.add(&name, Box::new(work));
        }
    }

    /// A container as a whole, through the root of one of its processes.
    fn add_container(&self, pool: &mut Pool, id: String, pid: u32) {
        let (pack, options) = (Arc::clone(&self.pack), self.options.clone());
        let name = format!("container {}", id.get(..12).unwrap_or(&id));
        let source = name.clone();
        let work = move || {
            let mut harvest = Harvest::default();
            match Root::of_process(pid, &format!("[{source}]"), options.remote) {
                Ok(root) => {
                    let job = job(&pack, &root, Some(&id), &options);
                    harvest = files::system(job);
                    Users::read(&root).homes.iter().for_each(|home| harvest.merge(files::home(job, home)));
                }
                Err(error) => harvest.coverage.push(Coverage {
                    source,
                    looked: Looked::NotPermitted,
                    count: 0,
                    detail: Some(error.to_string()),
                }),
            }
            Outcome { harvest, containers: Vec::new() }
        };
        pool.add(&name, Box::new(work));
    }
}

/// What a job of files looks at; it ends by itself before it is given up.
fn job<'a>(pack: &'a Pack, root: &'a Root, container: Option<&'a str>, options: &Options) -> files::Job<'a> {
    let until = Instant::now() + options.patience.mul_f32(0.8);
    files::Job { pack, root, container, history: options.history, until }
}

/// The host that a root belongs to.
fn host(root: &Root, live: bool) -> HostId {
    let uname = rustix::system::uname();
    let text = |path: &str| root.text(path, 1 << 16).ok().map(|text| text.trim().to_owned());
    let name = if live { uname.nodename().to_str().ok().map(str::to_owned) } else { text("/etc/hostname") };
    let id = text("/etc/machine-id").filter(|id| id.len() >= 32).map(|id| {
        let hash = Sha256::digest(format!("agent-monitor sweep\0{id}").as_bytes());
        hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    });
    let release = text("/etc/os-release").or_else(|| text("/usr/lib/os-release")).unwrap_or_default();
    let os = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    HostId {
        name: name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned()),
        id,
        os: os.map(|os| os.trim_matches('"').to_owned()),
        kernel: live.then(|| uname.release().to_string_lossy().into_owned()),
    }
}

/// A path that is a script: by its ending, or because it is not the program itself.
pub(crate) fn is_script_path(path: &str, exe: Option<&str>) -> bool {
    Some(path) != exe && path.starts_with('/')
}
