//! `detach`: takes what a daemon left in force out of the kernel.

use std::path::PathBuf;
use std::process::ExitCode;

use agent_monitor::config::Layer;
use agent_monitor::kernel::pins::{self, DetachError};
use clap::Args;

use super::exit::{FAILURE, Failure, PRIVILEGE};
use super::output::Out;
use super::{Shared, absolute};

#[derive(Debug, Args)]
pub(crate) struct DetachArgs {
    /// Where links and maps are pinned [default: /sys/fs/bpf/agent-monitor]
    #[arg(long, env = "AGENT_MONITOR_BPFFS", value_name = "DIR", help_heading = "Places")]
    bpffs: Option<PathBuf>,
    /// Also while a daemon runs: it goes on blind
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &DetachArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    let layer = Layer { bpffs: absolute(args.bpffs.as_deref())?, ..shared.layer()? };
    let config = layer.over(Layer::from_file(shared.config.as_deref())?).finish()?;
    if !rustix::process::geteuid().is_root() {
        let message = "only root ends enforcement";
        return Err(Failure {
            code: PRIVILEGE,
            message: message.into(),
            hint: Some("run it as root".into()),
        }
        .into());
    }
    match pins::detach(&config.bpffs, args.force) {
        Ok(pins) => {
            let mut out = Out::new();
            out.line(&format!(
                "detached: {pins} pins removed from {}; nothing is enforced or bound there any more",
                config.bpffs.display()
            ))?;
            out.flush()?;
            Ok(ExitCode::SUCCESS)
        }
        Err(
            error @ (DetachError::Nothing(_) | DetachError::Running { .. } | DetachError::Lingering { .. }),
        ) => Err(Failure::new(FAILURE, error.to_string()).into()),
        Err(error @ DetachError::Bound { .. }) => Err(Failure::new(PRIVILEGE, error.to_string()).into()),
        Err(error @ DetachError::Kernel(_)) => Err(Failure {
            code: FAILURE,
            message: error.to_string(),
            hint: Some("an agent's process is refused here by the programs themselves".into()),
        }
        .into()),
    }
}
