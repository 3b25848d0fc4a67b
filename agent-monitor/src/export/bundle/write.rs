//! Making a bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::Serialize;

use super::manifest::{self, Manifest, Sealed};
use super::{BundleError, collect, custody, proof};
use crate::export::html::Report;
use crate::export::pseudonym::Pseudonyms;
use crate::export::{Because, Selected, Selection, Setting, select, setting};
use crate::log::merkle::{Hash, leaf, root_of};
use crate::log::note::{self, Checkpoint, PublicKey, SecretKey};
use crate::log::reader;
use crate::log::segment::{self, Line};
use crate::log::verify::{Options, Outcome, Report as Checked};
use crate::model::{Event, Family, Gap, Kind, Time};

/// Gaps that the manifest names one by one.
const GAPS_MAX: usize = 1000;
/// Paths that are looked at.
const PATHS_MAX: usize = 10_000;

/// What is asked for.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The log.
    pub log: &'a Path,
    /// Which records.
    pub selection: Selection,
    /// The same in words, for the manifest.
    pub words: BTreeMap<String, String>,
    /// Copies of files, and how large.
    pub collect: Option<collect::Limits>,
    /// Agents whose records are to be in it even without an event.
    pub agents: Vec<String>,
    /// How the log is checked: with the keys that seal it, oldest first.
    pub options: &'a Options,
    /// Those keys do not come from the log itself.
    pub trusted: bool,
    /// Their hand-overs.
    pub rotations: &'a [String],
    /// The key that signs the manifest; `None` leaves it unsigned.
    pub sign: Option<&'a SecretKey>,
    /// Other names for outsiders: in everything that is written.
    pub names: Option<&'a Pseudonyms>,
    /// Who makes it.
    pub by: String,
    /// The command line.
    pub command: Vec<String>,
    /// Name, version and hash of this program.
    pub tool: BTreeMap<String, String>,
    /// When.
    pub now: Time,
    /// State of the clock now.
    pub clock: String,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    /// Records that were asked for.
    pub asked: u64,
    /// All records in it.
    pub records: u64,
    /// Gaps declared.
    pub gaps: u64,
    /// What is missing, and why.
    pub missing: Vec<String>,
    /// What checking the log showed.
    pub outcome: Outcome,
}

/// The last checkpoint of a log, as a note.
fn last_checkpoint(dir: &Path, keys: &[PublicKey]) -> Result<(String, Checkpoint), BundleError> {
    for segment in segment::list(dir)?.into_iter().rev() {
        let mut last = None;
        let each = &mut |line: &Line<'_>| {
            if let Line::Checkpoint(note) = line
                && let Ok((text, _)) = note::open(note, keys)
                && let Ok(checkpoint) = Checkpoint::parse(text)
            {
                last = Some((note.clone(), checkpoint));
            }
            std::ops::ControlFlow::Continue(())
        };
        // What cannot be read is found when the records are.
        let _problem = reader::of_one(&segment, each);
        if let Some(found) = last {
            return Ok(found);
        }
    }
    let message =
        "the log has no checkpoint of a key that is trusted here: there is nothing to prove records with";
    Err(BundleError::Cannot(message.to_owned()))
}

/// A new file for its owner only, whatever the umask allows.
pub(super) fn private(path: &Path) -> std::io::Result<File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

struct Gathered {
    out: PathBuf,
    records: BufWriter<File>,
    findings: BufWriter<File>,
    approvals: BufWriter<File>,
    gaps_file: BufWriter<File>,
    /// Numbers and leaves of the records as they are in the log, whatever names they get here.
    leaves: Vec<(u64, Hash)>,
    because: BTreeMap<String, u64>,
    times: Option<(Time, Time)>,
    gaps: Vec<Gap>,
    more_gaps: u64,
    programs: BTreeSet<String>,
    touched: BTreeSet<String>,
    agents: BTreeSet<String>,
    report: Report,
}

impl Gathered {
    /// Takes a record under its other names. Programs are looked at under their own.
    fn take_as(&mut self, record: &Selected<'_>, names: Option<&Pseudonyms>) -> Result<(), BundleError> {
        if record.because == Because::Asked {
            self.note_paths(record.event);
        }
        self.leaves.push((record.number, leaf(record.json)));
        let Some(names) = names else { return self.take(record) };
        let mut event = record.event.clone();
        names.event(&mut event);
        let json = event.to_line();
        let json = json.map_err(|error| BundleError::on("write to", &self.out)(error.into()))?;
        self.take(&Selected { json: json.as_bytes(), event: &event, ..*record })
    }

    fn new(out: &Path) -> Result<Self, BundleError> {
        let make = |name: &str| {
            let path = out.join(name);
            private(&path).map(BufWriter::new).map_err(BundleError::on("make", &path))
        };
        Ok(Self {
            records: make("records.jsonl")?,
            findings: make("findings.jsonl")?,
            approvals: make("approvals.jsonl")?,
            gaps_file: make("gaps.jsonl")?,
            out: out.to_owned(),
            leaves: Vec::new(),
            because: BTreeMap::new(),
            times: None,
            gaps: Vec::new(),
            more_gaps: 0,
            programs: BTreeSet::new(),
            touched: BTreeSet::new(),
            agents: BTreeSet::new(),
            report: Report::default(),
        })
    }

    fn take(&mut self, record: &Selected<'_>) -> Result<(), BundleError> {
        let Selected { number, json, event, because } = record;
        let word = match because {
            Because::Asked => "asked",
            Because::Frame => "frame",
            Because::Context => "context",
        };
        let out = self.out.clone();
        let wrote = |result: std::io::Result<()>| result.map_err(BundleError::on("write to", &out));
        wrote(write!(self.records, "{{\"number\":{number},\"because\":\"{word}\",\"record\":"))?;
        wrote(self.records.write_all(json).and_then(|()| self.records.write_all(b"}\n")))?;
        let line = [json, b"\n".as_slice()].concat();
        match event.kind.family() {
            Family::Finding | Family::Tamper => wrote(self.findings.write_all(&line))?,
            Family::Approval | Family::Grant => wrote(self.approvals.write_all(&line))?,
            Family::Gap => wrote(self.gaps_file.write_all(&line))?,
            _ => {}
        }
        *self.because.entry(word.to_owned()).or_default() += 1;
        if *because == Because::Asked {
            let (first, last) = self.times.unwrap_or((event.time, event.time));
            self.times = Some((first.min(event.time), last.max(event.time)));
        }
        if let Some(gap) = &event.gap {
            if self.gaps.len() < GAPS_MAX {
                self.gaps.push(gap.clone());
            } else {
                self.more_gaps += 1;
            }
        }
        self.report.take(*number, event, *because);
        Ok(())
    }

    fn note_paths(&mut self, event: &Event) {
        self.agents.extend(event.agent.as_ref().map(|agent| agent.id.clone()));
        if let Some(process) = &event.process
            && self.programs.len() < PATHS_MAX
        {
            self.programs.extend(process.exe.clone());
            self.programs.extend(process.script.clone());
        }
        if event.kind.family() == Family::File
            && event.kind != Kind::FileMmapExec
            && self.touched.len() < PATHS_MAX
            && let Some(file) = &event.file
        {
            self.touched.extend(file.new_path.clone().or_else(|| file.path.clone()));
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BundleError> {
        let path = self.out.join(name);
        if let Some(parent) = path.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
            made.map_err(BundleError::on("make", parent))?;
        }
        let written = private(&path).and_then(|mut file| file.write_all(bytes));
        written.map_err(BundleError::on("write", &path))
    }

    fn put_json(&self, name: &str, value: &impl Serialize) -> Result<(), BundleError> {
        let bytes = serde_json::to_vec_pretty(value);
        let bytes = bytes.map_err(|error| BundleError::on("write", &self.out.join(name))(error.into()))?;
        self.put(name, &bytes)
    }
}

/// Makes the bundle in `out`, an empty directory.
///
/// # Errors
/// When the log cannot be read, nothing matches, or a file cannot be written.
pub fn write(asked: &Asked<'_>, out: &Path) -> Result<Made, BundleError> {
    let (checkpoint_note, checkpoint) = last_checkpoint(asked.log, &asked.options.keys)?;
    let selection = Selection { end: Some(checkpoint.size), ..asked.selection.clone() };
    let mut all = Gathered::new(out)?;
    let read = select(asked.log, asked.options, &selection, |record| all.take_as(record, asked.names))?;
    let mut outcome = checked(&read, asked)?;
    if !all.because.contains_key("asked") {
        let message = "no sealed record matches; the newest are sealed within one checkpoint's interval";
        return Err(BundleError::Cannot(message.to_owned()));
    }
    let mut missing: Vec<String> =
        outcome.reason.iter().map(|reason| format!("NOT verified: {reason}")).collect();
    if all.more_gaps > 0 {
        missing.push(format!("{} more gaps are in gaps.jsonl only", all.more_gaps));
    }
    for file in [&mut all.records, &mut all.findings, &mut all.approvals, &mut all.gaps_file] {
        file.flush().map_err(BundleError::on("write to", out))?;
    }
    prove(&all, asked, &checkpoint_note, &checkpoint, &mut missing)?;
    let after = all.times.map(|(_, last)| Time::from_unix_nanos(last.unix_nanos() + 1));
    let (setting, read) = setting(asked.log, asked.options, all.times.map(|(first, _)| first), after)?;
    outcome = outcome.and(checked(&read, asked)?);
    let setting = asked.names.map_or_else(|| setting.clone(), |names| setting.renamed(names));
    if setting.host.is_none() {
        missing.push("the log does not say what the host was at that time".to_owned());
    }
    policies(&all, asked, &setting, &mut missing)?;
    files(&all, asked, &mut missing)?;
    views(&all)?;
    let host = setting.host.as_ref().map(|(_, host)| host.clone()).unwrap_or_default();
    all.put_json("host.json", &host)?;
    let origin =
        asked.names.map_or_else(|| checkpoint.origin.clone(), |names| names.origin(&checkpoint.origin));
    let sealed = asked.names.is_none().then_some((origin.as_str(), checkpoint.number));
    all.report.frame(&setting, asked.words.clone(), asked.now, sealed, &outcome);
    all.put("report.html", all.report.render().as_bytes())?;
    let signer = match asked.names {
        Some(_) => asked.sign.map(|key| key.public().to_string()),
        None => asked.options.keys.last().map(ToString::to_string),
    };
    let manifest = Manifest {
        version: manifest::VERSION,
        made: asked.now,
        by: asked.by.clone(),
        command: asked.command.clone(),
        tool: asked.tool.clone(),
        log: Sealed {
            origin,
            size: checkpoint.size,
            checkpoint: checkpoint.number,
            key: signer.unwrap_or_default(),
        },
        selection: asked.words.clone(),
        records: all.because.clone(),
        renamed: asked.names.map(|names| names.what().words()).unwrap_or_default(),
        times: all.times,
        host,
        clock: asked.clock.clone(),
        verification: Some(outcome.clone()),
        gaps: all.gaps.clone(),
        missing: missing.clone(),
        files: manifest::entries(out).map_err(BundleError::on("list", out))?,
    };
    seal(&all, &manifest, asked)?;
    let count = |word: &str| all.because.get(word).copied().unwrap_or(0);
    Ok(Made {
        asked: count("asked"),
        records: all.leaves.len() as u64,
        gaps: all.gaps.len() as u64 + all.more_gaps,
        missing,
        outcome,
    })
}

/// Process tree and timeline.
fn views(all: &Gathered) -> Result<(), BundleError> {
    let rows = all
        .report
        .tree
        .rows()
        .into_iter()
        .map(|(depth, node)| serde_json::json!({"depth": depth, "process": node}));
    all.put_json("tree.json", &rows.collect::<Vec<_>>())?;
    let steps =
        all.report.timeline.steps().map(|(time, step)| serde_json::json!({"time": time, "step": step}));
    let timeline = serde_json::json!({
        "step_nanos": i64::try_from(all.report.timeline.width()).unwrap_or(i64::MAX),
        "steps": steps.collect::<Vec<_>>(), "moments": all.report.timeline.moments
    });
    all.put_json("timeline.json", &timeline)
}

/// What checking the log showed; an error where something is to be signed that does not hold.
fn checked(read: &Checked, asked: &Asked<'_>) -> Result<Outcome, BundleError> {
    let outcome = read.sealed_outcome(asked.trusted);
    if outcome.verified || asked.sign.is_none() {
        Ok(outcome)
    } else {
        Err(BundleError::NotVerified(Box::new(outcome)))
    }
}

/// What proves the records, checked before it is written. Under other names nothing is written of it: it does not prove
/// those, and the keys' own names would give the host's away.
fn prove(
    all: &Gathered,
    asked: &Asked<'_>,
    note: &str,
    checkpoint: &Checkpoint,
    missing: &mut Vec<String>,
) -> Result<(), BundleError> {
    let numbers: Vec<u64> = all.leaves.iter().map(|(number, _)| *number).collect();
    let proof = proof::make(asked.log, checkpoint.size, &numbers);
    let holds = proof
        .as_ref()
        .ok()
        .and_then(proof::Proof::read)
        .is_some_and(|hashes| root_of(checkpoint.size, &all.leaves, &hashes) == Some(checkpoint.root));
    match (holds, asked.sign, &proof) {
        (true, ..) => {}
        (false, None, _) => missing.push("the records cannot be proven: the log does not hold".to_owned()),
        (false, Some(_), Err(error)) => {
            return Err(BundleError::NotVerified(Box::new(Outcome::unproven(error.to_string()))));
        }
        (false, Some(_), Ok(_)) => {
            let reason = "one or more records are not those that the last checkpoint seals";
            return Err(BundleError::NotVerified(Box::new(Outcome::unproven(reason))));
        }
    }
    if asked.names.is_some() {
        let key = asked.sign.map(|key| format!("{}\n", key.public())).unwrap_or_default();
        return all.put("keys.txt", key.as_bytes());
    }
    all.put_json("proof.json", &proof.unwrap_or_default())?;
    all.put("checkpoint.txt", note.as_bytes())?;
    let keys: String = asked.options.keys.iter().map(|key| format!("{key}\n")).collect();
    all.put("keys.txt", keys.as_bytes())?;
    let rotations: String = asked.rotations.iter().map(|note| BASE64.encode(note) + "\n").collect();
    all.put("rotations.txt", rotations.as_bytes())
}

fn seal(all: &Gathered, manifest: &Manifest, asked: &Asked<'_>) -> Result<(), BundleError> {
    let bytes = serde_json::to_vec_pretty(manifest);
    let bytes = bytes.map_err(|error| BundleError::on("write", &all.out)(error.into()))?;
    all.put(manifest::FILE, &bytes)?;
    if let Some(key) = asked.sign {
        all.put(manifest::SIGNATURE, manifest::sign(key, &bytes).as_bytes())?;
    }
    let sums: String =
        manifest.files.iter().map(|file| format!("{}  {}\n", file.sha256, file.path)).collect();
    all.put(manifest::SUMS, sums.as_bytes())?;
    custody::add(&all.out, asked.now, &asked.by, "made", "the bundle was made from the log")?;
    Ok(())
}

/// The records of agents in force, with their history.
fn policies(
    all: &Gathered,
    asked: &Asked<'_>,
    setting: &Setting,
    missing: &mut Vec<String>,
) -> Result<(), BundleError> {
    if setting.withheld {
        missing.push("the records of agents are left out: they name users, hosts and paths".to_owned());
        return Ok(());
    }
    let agents: BTreeSet<&String> = all.agents.iter().chain(&asked.agents).collect();
    for agent in agents {
        let plain = agent.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let Some(history) = setting.policies.get(agent).filter(|_| plain) else {
            missing.push(format!("the record of agent {agent} is not in the log"));
            continue;
        };
        all.put_json(&format!("agents/{agent}.history.json"), history)?;
        let before = all.times.map(|(first, _)| first);
        let in_force = history.iter().rfind(|(_, time, _)| before.is_none_or(|first| *time <= first));
        if let Some(text) =
            in_force.or_else(|| history.first()).and_then(|(.., value)| value["record"].as_str())
        {
            all.put(&format!("agents/{agent}.toml"), text.as_bytes())?;
        }
    }
    Ok(())
}

/// Programs that ran and files that were touched, as they are now.
fn files(all: &Gathered, asked: &Asked<'_>, missing: &mut Vec<String>) -> Result<(), BundleError> {
    let mut programs = collect::programs(&all.programs);
    if let Some(names) = asked.names {
        for found in &mut programs {
            found.path = names.path(&found.path);
            found.owner = None;
        }
    }
    let copies = match asked.collect {
        Some(limits) => collect::copies(&all.touched, &all.out.join("collected"), limits),
        None => Vec::new(),
    };
    for (set, what) in [(&all.programs, "programs"), (&all.touched, "touched files")] {
        if set.len() >= PATHS_MAX {
            missing.push(format!("there were more than {PATHS_MAX} {what}; the rest was not looked at"));
        }
    }
    let value = serde_json::json!({"looked_at": asked.now, "programs": programs, "collected": copies});
    all.put_json("files.json", &value)
}
