//! What is left to do when an agent is retired, as steps with evidence: what, on what, what came of it, and a hash.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::{OptionalExtension as _, Row, params};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::model::Kind;
use crate::people::api::StepView;
use crate::people::notify::hmac::hex;
use crate::people::sessions::label;
use crate::people::store::{wall_nanos, wall_time};
use crate::people::who::Person;
use crate::people::{Done, Now, People, StoreError, told};
use crate::registry::record::Offboarding;

/// Bytes of a credential file that are hashed; larger ones are hashed in part, and it is said.
const HASHED_MAX: u64 = 64 << 20;

/// One step as it came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// `remove_file`, `disable_unit`, `manual`.
    pub kind: &'static str,
    /// On what.
    pub target: String,
    /// `done`, `absent`, `failed`, `open`.
    pub result: &'static str,
    /// What was seen.
    pub evidence: Value,
    /// SHA-256 of what was removed, or of what the program said.
    pub sha256: Option<String>,
}

/// Takes the steps that a machine can take. Steps for people are left open.
pub fn carry_out(offboarding: &Offboarding) -> Vec<Step> {
    let files = offboarding.remove_files.iter().map(|path| remove(path));
    let units = offboarding.disable_units.iter().map(|unit| disable(unit));
    let manual = offboarding.manual.iter().map(|words| Step {
        kind: "manual",
        target: words.value.clone(),
        result: "open",
        evidence: json!({ "hint": "a person confirms it: agent-monitor agent retire ID --confirm N" }),
        sha256: None,
    });
    files.chain(units).chain(manual).collect()
}

/// Removes a file: the very name, never what a symbolic link leads to, never a directory.
fn remove(path: &str) -> Step {
    let step = |result, evidence, sha256| Step {
        kind: "remove_file",
        target: path.to_owned(),
        result,
        evidence,
        sha256,
    };
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return step("absent", json!({}), None),
        Err(error) => return step("failed", json!({ "error": error.to_string() }), None),
    };
    if meta.is_dir() {
        return step("failed", json!({ "error": "it is a directory; directories are not removed" }), None);
    }
    let hashed = if meta.is_file() { hash(Path::new(path)) } else { Ok(None) };
    let link = fs::read_link(path).ok().map(|target| target.display().to_string());
    let mut evidence = json!({
        "bytes": meta.len(), "mode": format!("{:04o}", meta.mode() & 0o7777), "uid": meta.uid(),
        "gid": meta.gid(), "inode": meta.ino(), "link_to": link, "links": meta.nlink(),
    });
    let sha256 = match hashed {
        Ok(sha256) => sha256,
        Err(error) => {
            evidence["hash_error"] = error.to_string().into();
            None
        }
    };
    if meta.len() > HASHED_MAX {
        evidence["hashed_bytes"] = HASHED_MAX.into();
    }
    if let Err(error) = fs::remove_file(path) {
        evidence["error"] = error.to_string().into();
        return step("failed", evidence, sha256);
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => step("done", evidence, sha256),
        _ => {
            evidence["error"] = "it is there again".into();
            step("failed", evidence, sha256)
        }
    }
}

/// Hash of a regular file. Opened so that neither a link nor a pipe that takes its place is followed or waited for.
fn hash(path: &Path) -> io::Result<Option<String>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut file = file.take(HASHED_MAX);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Some(hex(&hasher.finalize()))),
            len => hasher.update(buffer.get(..len).unwrap_or_default()),
        }
    }
}

/// Stops and disables a unit, and asks how it is afterwards.
fn disable(unit: &str) -> Step {
    let step = |result, evidence, sha256| Step {
        kind: "disable_unit",
        target: unit.to_owned(),
        result,
        evidence,
        sha256,
    };
    if !Path::new("/run/systemd/system").is_dir() {
        return step("failed", json!({ "error": "systemd does not run here" }), None);
    }
    let done = systemctl(&["disable", "--now", "--", unit]);
    let active = systemctl(&["is-active", "--", unit]);
    let enabled = systemctl(&["is-enabled", "--", unit]);
    match (done, active, enabled) {
        (Ok((code, said)), Ok((_, active)), Ok((_, enabled))) => {
            let (active, enabled) = (active.trim().to_owned(), enabled.trim().to_owned());
            let off = !matches!(active.as_str(), "active" | "activating" | "reloading")
                && !matches!(enabled.as_str(), "enabled" | "enabled-runtime");
            let sha256 = hex(&Sha256::digest(said.as_bytes()));
            let said: String = said.chars().take(2000).collect();
            let evidence = json!({ "exit": code, "said": said, "active": active, "enabled": enabled });
            step(if off { "done" } else { "failed" }, evidence, Some(sha256))
        }
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
            step("failed", json!({ "error": error.to_string() }), None)
        }
    }
}

/// Exit code and what it said.
fn systemctl(arguments: &[&str]) -> io::Result<(Option<i32>, String)> {
    let mut command = Command::new("systemctl");
    command.arg("--no-ask-password").args(arguments).stdin(Stdio::null());
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    let output = command.output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

fn step_view(row: &Row<'_>) -> rusqlite::Result<StepView> {
    let evidence: String = row.get(4)?;
    Ok(StepView {
        number: row.get(0)?,
        kind: row.get(1)?,
        target: row.get(2)?,
        result: row.get(3)?,
        evidence: serde_json::from_str(&evidence).unwrap_or_default(),
        sha256: row.get(5)?,
        at: wall_time(row.get(6)?),
        by: label(row.get(7)?, row.get(8)?),
    })
}

const COLUMNS: &str = "number, kind, target, result, evidence, sha256, at_wall, by_uid, by_user";

impl People {
    /// Keeps the steps of a retirement.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep_steps(
        &mut self,
        agent: &str,
        steps: &[Step],
        by: Option<&Person>,
        now: Now,
        done: &mut Done,
    ) -> Result<(), StoreError> {
        self.db.write(|tx| {
            for (number, step) in (1i64..).zip(steps) {
                let sql = "INSERT OR REPLACE INTO step(agent, number, kind, target, result, evidence, sha256, \
                           at_wall, by_uid, by_user) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
                let row = params![
                    agent,
                    number,
                    step.kind,
                    step.target,
                    step.result,
                    step.evidence.to_string(),
                    step.sha256,
                    wall_nanos(now.wall),
                    by.map(|by| by.uid),
                    by.and_then(|by| by.user.as_deref()),
                ];
                tx.execute(sql, row)?;
            }
            Ok(())
        })?;
        for (number, step) in (1i64..).zip(steps) {
            let fields = [
                ("step", json!(number)),
                ("what", json!(step.kind)),
                ("target", json!(step.target)),
                ("result", json!(step.result)),
                ("evidence", step.evidence.clone()),
                ("sha256", json!(step.sha256)),
                ("by", json!(by.map(Person::label))),
                ("caller", json!(by.map(Person::caller_json))),
            ];
            done.events.push(told(now, Kind::AgentOffboarded, agent, fields));
        }
        Ok(())
    }

    /// The steps of an agent's retirement.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn steps(&self, agent: &str) -> Result<Vec<StepView>, StoreError> {
        self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM step WHERE agent = ? ORDER BY number");
            conn.prepare_cached(&sql)?.query_map([agent], step_view)?.collect()
        })
    }

    /// A person confirms a step for people. `None` where there is no such open step.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn confirm_step(
        &mut self,
        agent: &str,
        number: i64,
        by: &Person,
        note: Option<&str>,
        now: Now,
        done: &mut Done,
    ) -> Result<Option<StepView>, StoreError> {
        let evidence = json!({ "note": note }).to_string();
        let changed = self.db.write(|tx| {
            let sql = "UPDATE step SET result = 'done', evidence = ?, sha256 = ?, at_wall = ?, by_uid = ?, \
                       by_user = ? WHERE agent = ? AND number = ? AND kind = 'manual' AND result = 'open'";
            let sha256 = hex(&Sha256::digest(evidence.as_bytes()));
            let row = params![evidence, sha256, wall_nanos(now.wall), by.uid, by.user, agent, number];
            tx.execute(sql, row)
        })?;
        if changed == 0 {
            return Ok(None);
        }
        let step = self.db.read(|conn| {
            let sql = format!("SELECT {COLUMNS} FROM step WHERE agent = ? AND number = ?");
            conn.query_row(&sql, params![agent, number], step_view).optional()
        })?;
        if let Some(step) = &step {
            let fields = [
                ("step", json!(number)),
                ("what", json!(step.kind)),
                ("target", json!(step.target)),
                ("result", json!(step.result)),
                ("evidence", step.evidence.clone()),
                ("by", json!(by.label())),
                ("caller", by.caller_json()),
            ];
            done.events.push(told(now, Kind::AgentOffboarded, agent, fields));
        }
        Ok(step)
    }
}
