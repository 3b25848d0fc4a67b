//! The command line: arguments in, text and exit codes out.
//!
//! The only part that prints and that uses anyhow. Data goes to standard output, messages to standard error;
//! a reader that goes away ends the output quietly. Exit codes: 0 ok, 1 failure, 2 usage, 3 daemon not
//! reachable, 4 not enough privilege.

mod adopt;
mod agent;
mod approval;
mod confine;
mod daemon;
mod detach;
mod doctor;
mod event_line;
mod events;
mod exec;
mod exit;
mod explain;
mod export;
mod filters;
mod grant;
mod hold;
mod key;
mod learn;
mod lifecycle;
mod manual;
mod output;
mod place;
mod recorded;
mod replay;
mod review;
mod run;
mod session;
mod source;
mod status;
mod summary;
mod sweep;
mod sweep_text;
mod verify;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use agent_monitor::config::{Config, Layer};
use agent_monitor::control::api::Status;
use agent_monitor::control::client::{Client, ClientError};
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

/// Says which registered AI agent did what on this host.
#[derive(Debug, Parser)]
#[command(name = "agent-monitor", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 ok, 1 failure, 2 usage, 3 daemon not reachable, 4 not enough privilege, \
                  5 the record that was read does not hold."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
struct Shared {
    /// Configuration file [default: /etc/agent-monitor/agent-monitor.toml, where there is one]
    #[arg(long, global = true, env = "AGENT_MONITOR_CONFIG", value_name = "FILE", help_heading = "Places")]
    config: Option<PathBuf>,
    /// Control socket of the daemon [default: /run/agent-monitor/control.sock]
    #[arg(long, global = true, env = "AGENT_MONITOR_SOCKET", value_name = "PATH", help_heading = "Places")]
    socket: Option<PathBuf>,
    /// Directory of agent records [default: /etc/agent-monitor/agents.d]
    #[arg(long, global = true, env = "AGENT_MONITOR_REGISTRY", value_name = "DIR", help_heading = "Places")]
    registry: Option<PathBuf>,
    /// Where the daemon keeps its state and the log [default: /var/lib/agent-monitor]
    #[arg(long, global = true, env = "AGENT_MONITOR_STATE_DIR", value_name = "DIR", help_heading = "Places")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground
    Run(Box<run::RunArgs>),
    /// Say what this host's kernel lets the monitor see, stop, hold, name and budget
    Doctor(doctor::DoctorArgs),
    /// Show the state of the running daemon
    Status(status::StatusArgs),
    /// Register, check and look at agents
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// Take what a daemon left in force out of the kernel
    Detach(detach::DetachArgs),
    /// See what waits for a person, and answer
    #[command(subcommand)]
    Approval(approval::ApprovalCommand),
    /// See and end the runs of agents
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Give something more for a time, and take it back
    #[command(subcommand)]
    Grant(grant::GrantCommand),
    /// Run a command as a registered agent
    Exec(exec::ExecArgs),
    /// Query or follow what was recorded
    Events(Box<events::EventsArgs>),
    /// Say whether an action would be allowed, by which rule, and what this host would really do
    Explain(explain::ExplainArgs),
    /// Say what a changed scope would have done to recorded activity
    Replay(replay::ReplayArgs),
    /// Say whether a log or bundle is what was written: offline, with the public key
    Verify(verify::VerifyArgs),
    /// Write recorded events in forms that others read, or an evidence bundle
    Export(Box<export::ExportArgs>),
    /// Show or change the key that signs the log
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Keep records from being removed by age or size
    #[command(subcommand)]
    Hold(hold::HoldCommand),
    /// Find every agent on this host, and say whether the registry knows it; needs no daemon
    Sweep(Box<sweep::SweepArgs>),
    /// Write completions for a shell
    Completions(manual::CompletionsArgs),
    /// Write the manual page
    Man(manual::ManArgs),
}

/// Parses, runs, reports.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    exit::report(dispatch(cli))
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let shared = cli.shared;
    match cli.command {
        Command::Run(args) => daemon::run(&args, &shared, daemon::open),
        Command::Doctor(args) => doctor::run(&args, &shared),
        Command::Status(args) => status::run(&args, &shared),
        Command::Agent(command) => agent::run(&command, &shared),
        Command::Approval(command) => approval::run(&command, &shared),
        Command::Session(command) => session::run(&command, &shared),
        Command::Grant(command) => grant::run(&command, &shared),
        Command::Detach(args) => detach::run(&args, &shared),
        Command::Exec(args) => exec::run(&args, &shared),
        Command::Events(args) => events::run(&args, &shared),
        Command::Explain(args) => explain::run(&args, &shared),
        Command::Replay(args) => replay::run(&args),
        Command::Verify(args) => verify::run(&args, &shared),
        Command::Export(args) => export::run(&args, &shared),
        Command::Key(command) => key::run(&command, &shared),
        Command::Hold(command) => hold::run(&command, &shared),
        Command::Sweep(args) => sweep::run(&args, &shared),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
    }
}

impl Shared {
    /// These flags as the top layer of the settings.
    fn layer(&self) -> anyhow::Result<Layer> {
        Ok(Layer {
            socket: absolute(self.socket.as_deref())?,
            registry: absolute(self.registry.as_deref())?,
            state_dir: absolute(self.state_dir.as_deref())?,
            ..Layer::default()
        })
    }

    /// The settings that all commands share, after file and defaults.
    fn settings(&self) -> anyhow::Result<Config> {
        Ok(self.layer()?.over(Layer::from_file(self.config.as_deref())?).finish()?)
    }

    /// The registry: the one that was named, else the daemon's, else this host's.
    fn registry(&self) -> anyhow::Result<PathBuf> {
        let (settings, named) = self.named()?;
        if named.registry.is_some() {
            return Ok(settings.registry);
        }
        Ok(self.of_daemon(&settings)?.map_or(settings.registry, |status| status.daemon.registry.into()))
    }

    /// The state directory: the one that was named, else the daemon's, else this host's.
    fn state_dir(&self) -> anyhow::Result<PathBuf> {
        let (settings, named) = self.named()?;
        if named.state_dir.is_some() {
            return Ok(settings.state_dir);
        }
        let status = match self.of_daemon(&settings) {
            // Whoever names the registry does not mean the daemon's; the state directory beside it only completes an answer.
            Err(error) if named.registry.is_some() && is_unreachable(&error) => None,
            status => status?,
        };
        // A daemon of an earlier version does not say.
        let daemons = status.map(|status| status.daemon.state_dir).filter(|dir| !dir.is_empty());
        Ok(daemons.map_or(settings.state_dir, PathBuf::from))
    }

    /// The settings, and what of them somebody named.
    fn named(&self) -> anyhow::Result<(Config, Layer)> {
        let named = self.layer()?.over(Layer::from_file(self.config.as_deref())?);
        Ok((named.clone().finish()?, named))
    }

    /// The daemon's own account of its places; nothing where none runs. Whoever names a socket means the daemon there: when
    /// it does not answer, this host's default places are not those that were meant.
    fn of_daemon(&self, settings: &Config) -> anyhow::Result<Option<Status>> {
        match block_on(Client::new(&settings.socket).get("/v1/status"))? {
            Ok(status) => Ok(Some(status)),
            Err(ClientError::Unreachable { .. }) if self.socket.is_none() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A client of the daemon that the settings name.
    fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.settings()?.socket))
    }
}

/// Whether no daemon answered.
fn is_unreachable(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClientError::Unreachable { .. }))
}

/// Paths on the command line are relative to where it is typed.
fn absolute(path: Option<&std::path::Path>) -> anyhow::Result<Option<PathBuf>> {
    path.map(|path| {
        std::path::absolute(path).with_context(|| format!("no absolute path for {}", path.display()))
    })
    .transpose()
}

/// Waits for the daemon's answer. No other thread is started, so that `exec` can follow.
fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("cannot start the I/O runtime")?.block_on(work))
}
