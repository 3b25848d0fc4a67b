//! `mutants`: deliberate bugs in the parts that matter most, one at a time, and whether a test notices.
//!
//! The tool of the registry, cargo-mutants, compiles each mutant by itself. This library takes about a minute to
//! compile again after a change of one line and thousands of mutants are tried, which is days. So the bugs are compiled
//! in all at once, each behind a switch of its own that the environment sets (`mutants/switch.rs`): one build, then
//! one process of a test binary for each mutant. The copy that carries them lies in `target/mutants/src`. Each mutant
//! meets the tests of the two libraries that reach it; the tests of the command line are not run, so that the true
//! score is never lower.

mod copy;
mod edit;
mod find;
mod list;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::find::Mutant;
use self::list::Part;
use self::run::Outcome;
use crate::{build, shell, workspace};

/// Options of `mutants`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Parts of xtask/mutants.toml (all of them without a name)
    parts: Vec<String>,
    /// Only files that differ from `--base`
    #[arg(long)]
    changed: bool,
    /// Revision to compare with
    #[arg(long, default_value = "HEAD~1", value_name = "REV")]
    base: String,
    /// Stop after so many seconds, and say what was left out
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Only mutants that the last run did not see noticed; the others count as they did then
    #[arg(long)]
    again: bool,
    /// Without the tests whose names contain this: what these are worth
    #[arg(long, value_name = "NAME")]
    without: Vec<String>,
    /// Only the tests whose names contain this: quick, while tests are written
    #[arg(long, value_name = "NAME")]
    tests: Vec<String>,
    /// Write the scores into the list
    #[arg(long, conflicts_with_all = ["changed", "seconds", "without", "tests"])]
    record: bool,
    /// Only print what would be tried
    #[arg(long)]
    list: bool,
}

/// The command.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    let deadline = args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let root = workspace::root()?;
    let mut parts = list::read(&root)?;
    if let Some(unknown) = args.parts.iter().find(|name| !parts.iter().any(|part| part.name == **name)) {
        let known: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        bail!("no part is called `{unknown}`; there are: {}", known.join(", "));
    }
    // All parts are in the copy, so that one build serves whichever is asked for.
    let all = files(&parts, None)?;
    let plain: Vec<_> = all.iter().filter_map(|path| parts.iter().find(|part| part.has(path))).collect();
    let all: Vec<_> = plain.into_iter().map(|part| part.plain.clone()).zip(all.clone()).collect();
    parts.retain(|part| args.parts.is_empty() || args.parts.contains(&part.name));
    let files: BTreeSet<String> =
        files(&parts, args.changed.then_some(args.base.as_str()))?.into_iter().collect();
    if files.is_empty() {
        println!("mutants: no file of these parts has changed against {}", args.base);
        return Ok(ExitCode::SUCCESS);
    }
    if !build::object_path()?.exists() {
        build::object()?;
    }
    let all: Vec<_> = all.into_iter().map(|(plain, path)| (path, plain)).collect();
    let mut copy = copy::Copy::new(&all)?;
    if args.list {
        let wanted = copy.mutants().into_iter().filter(|mutant| files.contains(&mutant.file));
        wanted.for_each(|mutant| println!("{} {}:{}: {}", mutant.id, mutant.file, mutant.line, mutant.key));
        return Ok(ExitCode::SUCCESS);
    }
    let binaries = copy.build()?;
    println!("mutants: {} taken out because they do not compile", copy.refused());
    let mut reached = Vec::new();
    for binary in binaries {
        let mut reach = run::reach(&binary, &args.tests)?;
        reach.leave_out(|test| args.without.iter().any(|name| test.contains(name.as_str())));
        reached.push((binary, reach));
    }
    let mut mutants = copy.mutants();
    mutants.retain(|mutant| files.contains(&mutant.file));
    if args.seconds.is_some() {
        // What is left out is then spread over all files.
        mutants.sort_by_key(|mutant| mutant.id.wrapping_mul(0x9e37_79b1));
    }
    let noticed = if args.again { load()? } else { BTreeSet::new() };
    let (old, new): (Vec<Mutant>, Vec<Mutant>) =
        mutants.into_iter().partition(|mutant| noticed.contains(&(mutant.file.clone(), mutant.key.clone())));
    let outcomes = run::all(&reached, &new, deadline)?;
    let tried = new.into_iter().zip(outcomes);
    let results: Vec<_> = old.into_iter().map(|mutant| (mutant, Outcome::Noticed)).chain(tried).collect();
    save(&results)?;
    let scores: Vec<Score<'_>> = parts.iter().map(|part| Score::of(part, &results)).collect();
    scores.iter().for_each(Score::print_survivors);
    println!(
        "{:<12} {:>8} {:>8} {:>8} {:>9} {:>7} {:>9}",
        "part", "mutants", "noticed", "accepted", "survivors", "score", "required"
    );
    scores.iter().for_each(Score::print_row);
    if args.record {
        list::record(&root, &scores.iter().map(|score| (score.part.name.clone(), score.text())).collect())?;
    }
    let good = scores.iter().all(Score::is_enough);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Files of the parts, all or those that differ from a revision.
fn files(parts: &[Part], base: Option<&str>) -> Result<Vec<String>> {
    let git = |args: &[&str]| -> Result<Vec<String>> {
        let text = shell::output(Command::new("git").args(args).current_dir(workspace::root()?))?;
        Ok(text.lines().map(str::to_string).collect())
    };
    let mut all: BTreeSet<String> =
        git(&["ls-files", "--cached", "--others", "--exclude-standard"])?.into_iter().collect();
    if let Some(base) = base {
        let mut changed: BTreeSet<String> = git(&["diff", "--name-only", base])?.into_iter().collect();
        changed.extend(git(&["ls-files", "--others", "--exclude-standard"])?);
        all.retain(|path| changed.contains(path));
    }
    let root = workspace::root()?;
    all.retain(|path| parts.iter().any(|part| part.has(path)) && root.join(path).exists());
    Ok(all.into_iter().collect())
}

fn last_path() -> Result<std::path::PathBuf> {
    Ok(workspace::target()?.join("mutants/noticed.json"))
}

/// What was noticed is kept for `--again`.
fn save(results: &[(Mutant, Outcome)]) -> Result<()> {
    let mut noticed = load()?;
    for (mutant, outcome) in results {
        let key = (mutant.file.clone(), mutant.key.clone());
        match outcome {
            Outcome::Noticed | Outcome::TimedOut => _ = noticed.insert(key),
            Outcome::Survived | Outcome::Unreached => _ = noticed.remove(&key),
            Outcome::LeftOut => {}
        }
    }
    fs::write(last_path()?, serde_json::to_string(&noticed)?).context("cannot keep the outcome")
}

fn load() -> Result<BTreeSet<(String, String)>> {
    let text = fs::read_to_string(last_path()?).ok();
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

/// What came of one part.
struct Score<'a> {
    part: &'a Part,
    tried: usize,
    noticed: usize,
    timed_out: usize,
    accepted: usize,
    left_out: BTreeMap<&'a str, usize>,
    survivors: Vec<(&'a Mutant, Outcome)>,
    /// Accepted, but there is no such survivor (any more)
    idle: Vec<&'a list::Accepted>,
}

impl<'a> Score<'a> {
    fn of(part: &'a Part, results: &'a [(Mutant, Outcome)]) -> Self {
        let mut score = Self {
            part,
            tried: 0,
            noticed: 0,
            timed_out: 0,
            accepted: 0,
            left_out: BTreeMap::new(),
            survivors: Vec::new(),
            idle: Vec::new(),
        };
        let mut used = BTreeSet::new();
        for (mutant, outcome) in results.iter().filter(|(mutant, _)| part.has(&mutant.file)) {
            score.tried += 1;
            match outcome {
                Outcome::Noticed => score.noticed += 1,
                Outcome::TimedOut => {
                    score.noticed += 1;
                    score.timed_out += 1;
                }
                Outcome::LeftOut => {
                    score.tried -= 1;
                    *score.left_out.entry(&mutant.file).or_default() += 1;
                }
                Outcome::Survived | Outcome::Unreached => {
                    let by = part.accepted.iter().position(|entry| entry.is(&mutant.file, &mutant.key));
                    if let Some(number) = by {
                        score.accepted += 1;
                        used.insert(number);
                    } else {
                        score.survivors.push((mutant, *outcome));
                    }
                }
            }
        }
        let looked_at: BTreeSet<&str> = results.iter().map(|(mutant, _)| mutant.file.as_str()).collect();
        let idle = part.accepted.iter().enumerate().filter(|(number, entry)| {
            !used.contains(number) && score.left_out.is_empty() && looked_at.contains(entry.file.as_str())
        });
        score.idle = idle.map(|(_, entry)| entry).collect();
        score
    }

    /// Of those that could be noticed.
    fn percent(&self) -> f64 {
        let possible = self.tried - self.accepted;
        if possible == 0 { 100.0 } else { 100.0 * ratio(self.noticed, possible) }
    }

    fn text(&self) -> String {
        format!("{:.1} % of {}", self.percent(), self.tried - self.accepted)
    }

    fn is_enough(&self) -> bool {
        self.percent() >= self.part.required
    }

    fn print_survivors(&self) {
        for (mutant, outcome) in &self.survivors {
            let how = if *outcome == Outcome::Unreached { " (no test comes here)" } else { "" };
            println!("{}: {}:{}: {}{how}", self.part.name, mutant.file, mutant.line, mutant.key);
        }
        for entry in &self.idle {
            println!(
                "{}: accepted, but it does not survive: {}: {}",
                self.part.name, entry.file, entry.mutant
            );
        }
        for (file, count) in &self.left_out {
            println!("{}: left out for lack of time: {count} mutants of {file}", self.part.name);
        }
    }

    fn print_row(&self) {
        let Self { part, tried, noticed, accepted, .. } = self;
        let mark = if self.is_enough() { "" } else { "  BELOW" };
        let overdue =
            if self.timed_out > 0 { format!("  ({} by time-out)", self.timed_out) } else { String::new() };
        let left: usize = self.left_out.values().sum();
        let left = if left > 0 { format!("  ({left} left out)") } else { String::new() };
        let last = if part.measured.is_empty() { "" } else { &part.measured };
        println!(
            "{:<12} {tried:>8} {noticed:>8} {accepted:>8} {:>9} {:>6.1}% {:>8}%{mark}{overdue}{left}  last: {last}",
            part.name,
            self.survivors.len(),
            self.percent(),
            part.required,
        );
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    let float = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    float(part) / float(whole)
}
