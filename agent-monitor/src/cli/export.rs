//! `export`: recorded events in the forms that others read, and evidence bundles.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent_monitor::clock;
use agent_monitor::export::bundle::{BundleError, archive, collect, custody, manifest};
use agent_monitor::export::html::Report;
use agent_monitor::export::ocsf::{self, Version};
use agent_monitor::export::pseudonym::{Pseudonyms, What};
use agent_monitor::export::{
    Because, Selected, Selection, Setting, bundle, check, select, setting, timesketch,
};
use agent_monitor::log::key::Keys;
use agent_monitor::log::note::PublicKey;
use agent_monitor::log::segment;
use agent_monitor::log::verify::Outcome;
use agent_monitor::model::{Event, Time};
use agent_monitor::record::filter::when;
use agent_monitor::redact::Redactor;
use agent_monitor::registry::diagnostic::escape;
use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};

use super::Shared;
use super::exit::{self, Failure, note};
use super::filters::FilterArgs;
use super::hold::who;
use super::place::{self, Trust};
use super::source::Source;

/// Values of one option are alternatives; different options must all hold.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Gaps and what the log says about itself are always part of an export.")]
pub(crate) struct ExportArgs {
    #[command(subcommand)]
    command: Option<ExportCommand>,
    /// The form
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    format: Form,
    /// Where to: a file, for a bundle a directory or FILE.tar.zst [default: standard output, but for bundles]
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// The log [default: the log of this host's daemon]
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Records that carry this finding's id
    #[arg(long, value_name = "ID", conflicts_with = "approval")]
    finding: Option<String>,
    /// Records that carry this approval's id
    #[arg(long, value_name = "ID")]
    approval: Option<String>,
    /// Also all that was recorded so long before the first and after the last of them
    #[arg(long, value_name = "TIME")]
    with_context: Option<String>,
    /// Copy small files that were touched into the bundle; each up to 1 MiB, all up to 64 MiB
    #[arg(long, conflicts_with = "redact")]
    collect: bool,
    /// For outsiders: give users, hosts or paths other names, the same in every export
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    redact: Vec<Rename>,
    /// Version of OCSF
    #[arg(long, value_enum, default_value_t, value_name = "VERSION")]
    ocsf_version: OcsfVersion,
    /// Do not sign the bundle: where the key is not at hand
    #[arg(long)]
    unsigned: bool,
    /// Verifier key of the log, or a file of it [default: beside the log]
    #[arg(long, value_name = "KEY|FILE")]
    key: Vec<String>,
    /// For what, in your words: part of the bundle
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Subcommand)]
enum ExportCommand {
    /// Add a line to the custody log of a bundle
    Annotate(AnnotateArgs),
}

#[derive(Debug, Args)]
struct AnnotateArgs {
    /// The bundle, a directory
    bundle: PathBuf,
    /// What was done: received, handed-over, examined, note
    #[arg(long, default_value = "note", value_name = "WORD")]
    action: String,
    /// In your words
    #[arg(long, value_name = "TEXT")]
    note: String,
    /// Who [default: the user]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// The records as they are, one per line
    #[default]
    Jsonl,
    /// Evidence: records with proofs, and all that belongs to them
    Bundle,
    /// OCSF events, one per line
    Ocsf,
    /// Timesketch's JSON lines
    Timesketch,
    /// One page for people
    Html,
    /// OCSF as Parquet, in a directory of Hive partitions
    #[cfg(feature = "parquet")]
    Parquet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rename {
    Users,
    Hosts,
    Paths,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum OcsfVersion {
    #[value(name = "1.8")]
    V1_8,
    #[default]
    #[value(name = "1.9")]
    V1_9,
}

pub(crate) fn run(args: &ExportArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    if let Some(ExportCommand::Annotate(args)) = &args.command {
        let by = args.by.clone().unwrap_or_else(who);
        custody::add(&args.bundle, clock::now(), &by, &args.action, &args.note)?;
        return Ok(ExitCode::SUCCESS);
    }
    let selection = args.selection()?;
    let log = place::log_or_own(args.log.as_deref(), shared)?;
    let from = From { trust: Trust::of(&args.key, &log)?, log };
    if args.format == Form::Bundle {
        return args.bundle(&from, selection, shared);
    }
    #[cfg(feature = "parquet")]
    if args.format == Form::Parquet {
        return args.parquet(&from, &selection);
    }
    let write = |out: &mut dyn Write| args.stream(&from, &selection, out);
    let (asked, outcome) = match &args.out {
        None => {
            let mut out = BufWriter::new(std::io::stdout().lock());
            let asked = write(&mut out)?;
            out.flush()?;
            asked
        }
        Some(path) => {
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            let file = made.with_context(|| format!("cannot make {}", path.display()))?;
            let mut out = BufWriter::new(file);
            let written = write(&mut out).and_then(|asked| {
                out.flush().with_context(|| format!("cannot write {}", path.display()))?;
                Ok(asked)
            });
            if written.is_err() {
                fs::remove_file(path).ok();
            }
            written?
        }
    };
    if asked == 0 {
        if outcome.verified {
            args.filter.known_to(&from.source(), shared)?;
        }
        note(&escape(&outcome.text()));
        return Err(Failure::new(exit::FAILURE, "no record matches; what was written frames nothing").into());
    }
    note(&format!("{asked} records that were asked for"));
    if outcome.verified {
        args.filter.known_to(&from.source(), shared)?;
    }
    Ok(exit::checked(&outcome, ExitCode::SUCCESS))
}

/// The log, and how it is checked.
struct From {
    log: PathBuf,
    trust: Trust,
}

impl From {
    fn source(&self) -> Source {
        let trust = Trust { options: self.trust.options.clone(), trusted: self.trust.trusted };
        Source::Log(self.log.clone(), trust)
    }

    fn setting(&self, since: Option<Time>, until: Option<Time>) -> anyhow::Result<(Setting, Outcome)> {
        let (known, report) = setting(&self.log, &self.trust.options, since, until)?;
        Ok((known, self.trust.outcome(&report)))
    }
}

/// What checking showed, for outsiders: damage can name the host.
fn renamed(outcome: Outcome, names: Option<&Pseudonyms>) -> Outcome {
    let reason = outcome.reason.clone();
    match names {
        None => outcome,
        Some(_) => Outcome { reason: reason.map(|_| "the log does not hold".to_owned()), ..outcome },
    }
}

impl ExportArgs {
    fn selection(&self) -> anyhow::Result<Selection> {
        let context = self.with_context.as_deref().map(|text| {
            when::duration(text)
                .ok_or_else(|| Failure::usage(format!("`{text}` is not a length of time"), "5m, 90s, 1h30m"))
        });
        Ok(Selection {
            filter: self.filter.spec().compile(clock::now())?,
            about: self.finding.clone().or_else(|| self.approval.clone()),
            context: context.transpose()?,
            end: None,
        })
    }

    /// The selection in words, for readers of the export.
    fn words(&self, names: Option<&Pseudonyms>) -> BTreeMap<String, String> {
        let mut words = self.filter.words();
        if let Some(names) = names {
            for key in ["path", "peer", "text"] {
                words.entry(key.to_owned()).and_modify(|text| *text = names.text(text));
            }
        }
        let single = [
            ("finding", &self.finding),
            ("approval", &self.approval),
            ("context", &self.with_context),
            ("reason", &self.reason),
        ];
        let single = single.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
        words.extend(single);
        words
    }

    fn pseudonyms(&self, log: &Path) -> anyhow::Result<Option<Pseudonyms>> {
        if self.redact.is_empty() {
            return Ok(None);
        }
        let has = |what| self.redact.contains(&what);
        let what = What { users: has(Rename::Users), hosts: has(Rename::Hosts), paths: has(Rename::Paths) };
        let key = place::keys_beside(log).redaction().context("the names need this host's own key")?;
        Ok(Some(Pseudonyms::new(what, Redactor::new(key, &[])?)))
    }

    /// Writes everything but bundles; returns how many records were asked for, and what checking them showed.
    fn stream(
        &self,
        from: &From,
        selection: &Selection,
        out: &mut dyn Write,
    ) -> anyhow::Result<(u64, Outcome)> {
        let names = self.pseudonyms(&from.log)?;
        let (known, framed) = from.setting(selection.filter.since(), selection.filter.until())?;
        let before = match self.format {
            // Each record says what checking showed: so that comes first.
            Form::Ocsf | Form::Timesketch => self.before(from, selection, names.as_ref())?,
            _ => Outcome::default(),
        };
        let host = self.shared_facts(from, &known, names.as_ref(), before);
        let before = host.outcome.clone().unwrap_or_default();
        let mut report = Report::default();
        let mut asked = 0;
        let read = select(&from.log, &from.trust.options, selection, |record| -> anyhow::Result<()> {
            asked += u64::from(record.because == Because::Asked);
            let mut event: Event = record.event.clone();
            if let Some(names) = &names {
                names.event(&mut event);
            }
            let record = Selected { event: &event, ..*record };
            match self.format {
                Form::Jsonl if names.is_none() => {
                    out.write_all(record.json)?;
                    out.write_all(b"\n")?;
                }
                Form::Jsonl => writeln!(out, "{}", event.to_line()?)?,
                Form::Ocsf => writeln!(out, "{}", ocsf::map(&record, &host))?,
                Form::Timesketch => {
                    writeln!(out, "{}", timesketch::line(&record, &host.host, &before))?;
                }
                _ => report.take(record.number, &event, record.because),
            }
            Ok(())
        })?;
        let outcome = framed.and(from.trust.outcome(&read));
        if self.format == Form::Html {
            let frame = names.as_ref().map_or_else(|| known.clone(), |names| known.renamed(names));
            let shown = renamed(outcome.clone(), names.as_ref());
            report.frame(&frame, self.words(names.as_ref()), clock::now(), None, &shown);
            out.write_all(report.render().as_bytes())?;
        }
        Ok((asked, outcome))
    }

    /// What checking the log shows, before anything is written.
    fn before(
        &self,
        from: &From,
        selection: &Selection,
        names: Option<&Pseudonyms>,
    ) -> anyhow::Result<Outcome> {
        let report = check(&from.log, &from.trust.options, selection)?;
        Ok(renamed(from.trust.outcome(&report), names))
    }

    /// Writes Parquet below a new directory.
    #[cfg(feature = "parquet")]
    fn parquet(&self, from: &From, selection: &Selection) -> anyhow::Result<ExitCode> {
        use agent_monitor::export::parquet::Table;

        let Some(out) = &self.out else {
            return Err(Failure::usage("Parquet needs a directory", "--out DIR").into());
        };
        let names = self.pseudonyms(&from.log)?;
        let (known, framed) = from.setting(selection.filter.since(), selection.filter.until())?;
        let before = self.before(from, selection, names.as_ref())?;
        let host = self.shared_facts(from, &known, names.as_ref(), before);
        let mut table = Table::create(out)?;
        let mut rows = 0;
        let read = select(&from.log, &from.trust.options, selection, |record| -> anyhow::Result<()> {
            let mut event: Event = record.event.clone();
            if let Some(names) = &names {
                names.event(&mut event);
            }
            rows += 1;
            let time = event.time;
            Ok(table.take(ocsf::map(&Selected { event: &event, ..*record }, &host), time)?)
        })?;
        let files = table.finish()?;
        note(&format!("{rows} rows in {files} files"));
        Ok(exit::checked(&framed.and(from.trust.outcome(&read)), ExitCode::SUCCESS))
    }

    /// What all OCSF events of this log share.
    fn shared_facts(
        &self,
        from: &From,
        known: &Setting,
        names: Option<&Pseudonyms>,
        outcome: Outcome,
    ) -> ocsf::Shared {
        let host = known.host.as_ref().map(|(_, host)| host.clone()).unwrap_or_default();
        let word = |key: &str| host[key].as_str().unwrap_or_default().to_owned();
        let mut origin = String::new();
        let mut key = String::new();
        if let Some(first) =
            segment::list(&from.log).ok().and_then(|segments| segments.into_iter().next_back())
        {
            let each = &mut |line: &segment::Line<'_>| {
                if let segment::Line::Header(header) = line {
                    origin.clone_from(&header.origin);
                    key = PublicKey::parse(&header.key).map(|key| key.hash_hex()).unwrap_or_default();
                }
                std::ops::ControlFlow::Break(())
            };
            agent_monitor::log::reader::of_one(&first, each).ok();
        }
        let host = |name: String| names.map_or_else(|| name.clone(), |names| names.host(&name));
        ocsf::Shared {
            version: match self.ocsf_version {
                OcsfVersion::V1_8 => Version::V1_8,
                OcsfVersion::V1_9 => Version::V1_9,
            },
            host: host(word("host")),
            machine_id: host(word("machine_id")),
            os: word("os"),
            kernel: word("kernel"),
            origin: names.map_or_else(|| origin.clone(), |names| names.origin(&origin)),
            key,
            renamed: names.is_some(),
            outcome: Some(outcome),
        }
    }

    fn bundle(&self, from: &From, selection: Selection, shared: &Shared) -> anyhow::Result<ExitCode> {
        let Some(out) = &self.out else {
            return Err(Failure::usage("a bundle needs a place", "--out DIR or --out FILE.tar.zst").into());
        };
        let name = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let root = name.strip_suffix(".tar.zst").filter(|root| !root.is_empty());
        if let Some(root) = root {
            if out.symlink_metadata().is_ok() {
                return Err(Failure::new(exit::FAILURE, format!("{} exists already", out.display())).into());
            }
            let scratch = Scratch::beside(out)?;
            let made = self.fill(from, selection, scratch.path(), shared)?;
            archive::pack(scratch.path(), root, out)?;
            return Ok(made);
        }
        DirBuilder::new()
            .mode(0o700)
            .create(out)
            .with_context(|| format!("cannot make the bundle {}", out.display()))?;
        self.fill(from, selection, out, shared).inspect_err(|_error| {
            fs::remove_dir_all(out).ok();
        })
    }

    fn fill(
        &self,
        from: &From,
        selection: Selection,
        dir: &Path,
        shared: &Shared,
    ) -> anyhow::Result<ExitCode> {
        let log = from.log.as_path();
        let keys = place::keys_beside(log);
        let sign = if self.unsigned { None } else { Some(signing(&keys)?) };
        let program = File::open("/proc/self/exe").and_then(manifest::hash).map(|(hash, _)| hash);
        let tool = [
            ("name", "agent-monitor".to_owned()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("sha256", program.unwrap_or_default()),
        ];
        let names = self.pseudonyms(log)?;
        let sign = match &names {
            // The key's own name tells the host's.
            Some(names) => sign.map(|key| key.renamed(&names.origin(key.public().name()))),
            None => sign,
        };
        let redactor = Redactor::new(keys.redaction().unwrap_or([0; 32]), &[])?;
        let command: Vec<String> = std::env::args().collect();
        let command = redactor.args(&command).unwrap_or(command);
        let reason = self.reason.clone().map_or_else(String::new, |reason| format!(": {reason}"));
        let by = names.as_ref().map_or_else(who, |names| names.user(&who()));
        if let (Some(_), Some(key)) = (&names, &sign) {
            note(&format!("signed as {}", key.public()));
        }
        let asked = bundle::Asked {
            log,
            selection,
            words: self.words(names.as_ref()),
            collect: self.collect.then(collect::Limits::default),
            agents: self.filter.agent.clone(),
            options: &from.trust.options,
            trusted: from.trust.trusted,
            rotations: &keys.rotations().unwrap_or_default(),
            sign: sign.as_ref(),
            names: names.as_ref(),
            by: format!("{by}{reason}"),
            command: names.as_ref().map_or_else(|| command.clone(), |names| names.args(&command)),
            tool: tool.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            now: clock::now(),
            clock: clock::synchronised().to_owned(),
        };
        let made = match bundle::write(&asked, dir) {
            Err(error @ BundleError::Cannot(_)) => {
                self.filter.known_to(&from.source(), shared)?;
                return Err(error.into());
            }
            made => made?,
        };
        self.filter.known_to(&from.source(), shared)?;
        note(&format!(
            "{} records that were asked for, {} in all, {} gaps",
            made.asked, made.records, made.gaps
        ));
        made.missing.iter().for_each(|missing| note(&format!("missing: {missing}")));
        Ok(exit::checked(&made.outcome, ExitCode::SUCCESS))
    }
}

/// A directory that goes away with this value, beside what is made from it.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(out: &Path) -> anyhow::Result<Self> {
        let path = out.with_file_name(format!(".agent-monitor-{}", uuid::Uuid::now_v7().simple()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn signing(keys: &Keys) -> anyhow::Result<agent_monitor::log::note::SecretKey> {
    keys.load().map_err(|error| {
        let code = if error.source.kind() == std::io::ErrorKind::PermissionDenied {
            exit::PRIVILEGE
        } else {
            exit::FAILURE
        };
        let hint = "run as root on the host of the log, or make an unsigned bundle with --unsigned";
        Failure { code, message: error.to_string(), hint: Some(hint.to_owned()) }.into()
    })
}
