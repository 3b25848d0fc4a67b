//! `hold`: legal holds, which keep records from being removed by age or size.

use std::process::ExitCode;

use agent_monitor::clock;
use agent_monitor::log::retention::{self, Hold};
use agent_monitor::record::filter::when;
use clap::{Args, Subcommand};

use super::exit::Failure;
use super::output::{Format, Out, OutputArgs, or_dash};
use super::{Shared, exit, filters};

#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// Keep records from being removed
    Add(AddArgs),
    /// Show the holds
    List(ListArgs),
    /// Lift a hold
    Release(ReleaseArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Records of this agent [default: of all]
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Not before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Before this time [default: also what comes]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    /// Its id
    id: String,
}

pub(crate) fn run(command: &HoldCommand, shared: &Shared) -> anyhow::Result<ExitCode> {
    let state = shared.state_dir()?;
    let mut holds = retention::holds(&state)?;
    let mut out = Out::new();
    match command {
        HoldCommand::Add(args) => {
            if let Some(agent) = &args.agent {
                filters::known_agent(agent, shared)?;
            }
            let now = clock::now();
            let time = |field, text: &Option<String>| {
                text.as_deref().map(|t| when::parse(field, t, now)).transpose()
            };
            let hold = Hold {
                id: next_id(&holds),
                agent: args.agent.clone(),
                since: time("since", &args.since)?,
                until: time("until", &args.until)?,
                reason: args.reason.clone(),
                by: who(),
                time: now,
            };
            out.line(&hold.id)?;
            holds.push(hold);
            retention::keep_holds(&state, &holds)?;
        }
        HoldCommand::List(args) => list(&mut out, &holds, args.output.format)?,
        HoldCommand::Release(args) => {
            let before = holds.len();
            holds.retain(|hold| hold.id != args.id);
            if holds.len() == before {
                return Err(Failure::usage(
                    format!("there is no hold {}", args.id),
                    "agent-monitor hold list",
                )
                .into());
            }
            retention::keep_holds(&state, &holds)?;
            exit::note("the daemon notes it in the log within a minute");
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn next_id(holds: &[Hold]) -> String {
    let last = holds.iter().filter_map(|hold| hold.id.strip_prefix("hold-")?.parse::<u64>().ok()).max();
    format!("hold-{}", last.unwrap_or(0) + 1)
}

/// The person behind `sudo`, where there is one.
pub(crate) fn who() -> String {
    let uid = rustix::process::getuid().as_raw();
    std::env::var("SUDO_USER").map_or_else(|_| format!("uid {uid}"), |user| format!("{user} (uid {uid})"))
}

fn list(out: &mut Out, holds: &[Hold], format: Format) -> anyhow::Result<()> {
    if format != Format::Table {
        return out.json(&holds, format);
    }
    let rows = holds.iter().map(|hold| {
        let Hold { id, agent, since, until, reason, by, .. } = hold;
        let agent = agent.clone().unwrap_or_else(|| "all".to_owned());
        vec![id.clone(), agent, or_dash(*since), or_dash(*until), by.clone(), reason.clone()]
    });
    Ok(out.table(&["HOLD", "AGENT", "SINCE", "UNTIL", "BY", "REASON"], rows)?)
}
