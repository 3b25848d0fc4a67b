//! `export`: recorded events in the forms that others read, and evidence bundles.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent_monitor::clock;
use agent_monitor::export::bundle::{archive, collect, custody, manifest};
use agent_monitor::export::html::Report;
use agent_monitor::export::ocsf::{self, Version};
use agent_monitor::export::pseudonym::{Pseudonyms, What};
use agent_monitor::export::{Because, Selected, Selection, Setting, bundle, select, setting, timesketch};
use agent_monitor::log::key::Keys;
use agent_monitor::log::note::PublicKey;
use agent_monitor::log::segment;
use agent_monitor::model::Event;
use agent_monitor::record::filter::when;
use agent_monitor::redact::Redactor;
use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};

use super::exit::{Failure, note};
use super::filters::FilterArgs;
use super::hold::who;
use super::{Shared, place};

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
    if args.format == Form::Bundle {
        return args.bundle(&log, selection);
    }
    #[cfg(feature = "parquet")]
    if args.format == Form::Parquet {
        return args.parquet(&log, &selection);
    }
    let write = |out: &mut dyn Write| args.stream(&log, &selection, out);
    let asked = match &args.out {
        None => {
            let mut out = BufWriter::new(std::io::stdout().lock());
            let asked = write(&mut out)?;
            out.flush()?;
            asked
        }
        Some(path) => {
            let file = File::create_new(path).with_context(|| format!("cannot make {}", path.display()))?;
            let mut out = BufWriter::new(file);
            let asked = write(&mut out)?;
            out.flush().with_context(|| format!("cannot write {}", path.display()))?;
            asked
        }
    };
    if asked == 0 {
        return Err(
            Failure::new(super::exit::FAILURE, "no record matches; what was written frames nothing").into()
        );
    }
    note(&format!("{asked} records that were asked for"));
    Ok(ExitCode::SUCCESS)
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

    /// Writes everything but bundles; returns how many records were asked for.
    fn stream(&self, log: &Path, selection: &Selection, out: &mut dyn Write) -> anyhow::Result<u64> {
        let names = self.pseudonyms(log)?;
        let known = setting(log, selection.filter.since(), selection.filter.until())?;
        let host = self.shared_facts(log, &known, names.as_ref());
        let mut report = Report::default();
        let mut asked = 0;
        let read = select(log, selection, |record| -> anyhow::Result<()> {
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
                Form::Timesketch => writeln!(out, "{}", timesketch::line(&record, &host.host))?,
                _ => report.take(record.number, &event, record.because),
            }
            Ok(())
        })?;
        read.damaged.iter().for_each(|problem| note(&format!("note: not read to the end: {problem}")));
        if self.format == Form::Html {
            let frame = names.as_ref().map_or_else(|| known.clone(), |names| known.renamed(names));
            report.frame(&frame, self.words(names.as_ref()), clock::now(), None);
            out.write_all(report.render().as_bytes())?;
        }
        Ok(asked)
    }

    /// Writes Parquet below a new directory.
    #[cfg(feature = "parquet")]
    fn parquet(&self, log: &Path, selection: &Selection) -> anyhow::Result<ExitCode> {
        use agent_monitor::export::parquet::Table;

        let Some(out) = &self.out else {
            return Err(Failure::usage("Parquet needs a directory", "--out DIR").into());
        };
        let names = self.pseudonyms(log)?;
        let known = setting(log, selection.filter.since(), selection.filter.until())?;
        let host = self.shared_facts(log, &known, names.as_ref());
        let mut table = Table::create(out)?;
        let mut rows = 0;
        select(log, selection, |record| -> anyhow::Result<()> {
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
        Ok(ExitCode::SUCCESS)
    }

    /// What all OCSF events of this log share.
    fn shared_facts(&self, log: &Path, known: &Setting, names: Option<&Pseudonyms>) -> ocsf::Shared {
        let host = known.host.as_ref().map(|(_, host)| host.clone()).unwrap_or_default();
        let word = |key: &str| host[key].as_str().unwrap_or_default().to_owned();
        let mut origin = String::new();
        let mut key = String::new();
        if let Some(first) = segment::list(log).ok().and_then(|segments| segments.into_iter().next_back()) {
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
        }
    }

    fn bundle(&self, log: &Path, selection: Selection) -> anyhow::Result<ExitCode> {
        let Some(out) = &self.out else {
            return Err(Failure::usage("a bundle needs a place", "--out DIR or --out FILE.tar.zst").into());
        };
        let packed = out.to_string_lossy().ends_with(".tar.zst");
        let dir = if packed {
            let name = out.file_name().unwrap_or_default().to_string_lossy();
            out.with_file_name(format!(".{}", name.trim_end_matches(".tar.zst")))
        } else {
            out.clone()
        };
        fs::create_dir(&dir).with_context(|| format!("cannot make the bundle {}", dir.display()))?;
        let made = self.fill(log, selection, &dir);
        let made = made.and_then(|made| {
            if packed {
                archive::pack(&dir, out)?;
                fs::remove_dir_all(&dir)?;
            }
            Ok(made)
        });
        if made.is_err() {
            fs::remove_dir_all(&dir).ok();
        }
        let made = made?;
        note(&format!(
            "{} records that were asked for, {} in all, {} gaps",
            made.asked, made.records, made.gaps
        ));
        made.missing.iter().for_each(|missing| note(&format!("missing: {missing}")));
        Ok(ExitCode::SUCCESS)
    }

    fn fill(&self, log: &Path, selection: Selection, dir: &Path) -> anyhow::Result<bundle::Made> {
        let keys = place::keys_beside(log);
        let (trusted, _) = place::trusted(&self.key, log.parent().unwrap_or(Path::new("/")))?;
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
            keys: &trusted,
            rotations: &keys.rotations().unwrap_or_default(),
            sign: sign.as_ref(),
            names: names.as_ref(),
            by: format!("{by}{reason}"),
            command: names.as_ref().map_or_else(|| command.clone(), |names| names.args(&command)),
            tool: tool.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            now: clock::now(),
            clock: clock::synchronised().to_owned(),
        };
        Ok(bundle::write(&asked, dir)?)
    }
}

fn signing(keys: &Keys) -> anyhow::Result<agent_monitor::log::note::SecretKey> {
    keys.load().map_err(|error| {
        let code = if error.source.kind() == std::io::ErrorKind::PermissionDenied {
            super::exit::PRIVILEGE
        } else {
            super::exit::FAILURE
        };
        let hint = "run as root on the host of the log, or make an unsigned bundle with --unsigned";
        Failure { code, message: error.to_string(), hint: Some(hint.to_owned()) }.into()
    })
}
