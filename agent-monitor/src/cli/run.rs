//! `run`: the flags of the daemon and what they come to.

use std::path::PathBuf;

use agent_monitor::config::{Config, Layer, Stream, Unattributed};
use clap::{Args, ValueEnum};

use super::{Shared, absolute};

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Where links and maps are pinned [default: /sys/fs/bpf/agent-monitor]
    #[arg(long, env = "AGENT_MONITOR_BPFFS", value_name = "DIR", help_heading = "Places")]
    bpffs: Option<PathBuf>,
    /// The kernel's types (BTF) to read in place of /sys/kernel/btf/vmlinux
    #[arg(long, env = "AGENT_MONITOR_BTF", value_name = "FILE", help_heading = "Places")]
    btf: Option<PathBuf>,
    /// Group that may call the control socket, by name or number
    #[arg(long, env = "AGENT_MONITOR_SOCKET_GROUP", value_name = "GROUP")]
    socket_group: Option<String>,
    /// What to report of processes without an agent [default: exec]
    #[arg(long, env = "AGENT_MONITOR_UNATTRIBUTED", value_name = "WHAT")]
    unattributed: Option<UnattributedArg>,
    /// KiB of the kernel's event ring, a power of two [default: 8192]
    #[arg(long, env = "AGENT_MONITOR_RING_KIB", value_name = "KIB")]
    ring_kib: Option<usize>,
    /// Work as on a host without BPF LSM
    #[arg(long, env = "AGENT_MONITOR_FORCE_PARTIAL")]
    force_partial: bool,
    /// Take everything out of the kernel at the end, also while agents are enforced
    #[arg(long, env = "AGENT_MONITOR_DETACH_ON_EXIT")]
    detach_on_exit: bool,
    /// Forget what an earlier daemon left in force in the kernel, and start with none of it
    #[arg(long, hide = true)]
    fresh: bool,
    /// Try it out: throw-away state, an example registry and a scripted example agent
    #[arg(long)]
    demo: bool,
    /// Refuse to start when any record is bad
    #[arg(long, env = "AGENT_MONITOR_STRICT")]
    strict: bool,
    /// What to write to standard output while running [default: text]
    #[arg(
        short = 'o',
        long = "output",
        env = "AGENT_MONITOR_OUTPUT",
        value_name = "FORMAT",
        conflicts_with = "json"
    )]
    output: Option<StreamArg>,
    /// Same as -o jsonl
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum UnattributedArg {
    /// Nothing
    None,
    /// That they start
    Exec,
    /// All they do
    All,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StreamArg {
    /// One readable line per event
    Text,
    /// One JSON event per line
    Jsonl,
    /// No events
    None,
}

impl RunArgs {
    /// The settings of the daemon: flags over environment over file over defaults.
    pub(crate) fn config(&self, shared: &Shared) -> anyhow::Result<Config> {
        let stream = match (self.json, self.output) {
            (true, _) | (false, Some(StreamArg::Jsonl)) => Some(Stream::Jsonl),
            (false, Some(StreamArg::Text)) => Some(Stream::Text),
            (false, Some(StreamArg::None)) => Some(Stream::None),
            (false, None) => None,
        };
        let layer = Layer {
            bpffs: absolute(self.bpffs.as_deref())?,
            btf: absolute(self.btf.as_deref())?,
            socket_group: self.socket_group.clone(),
            unattributed: self.unattributed.map(|what| match what {
                UnattributedArg::None => Unattributed::None,
                UnattributedArg::Exec => Unattributed::Exec,
                UnattributedArg::All => Unattributed::All,
            }),
            strict: self.strict.then_some(true),
            stream,
            ring_kib: self.ring_kib,
            force_partial: self.force_partial.then_some(true),
            detach_on_exit: self.detach_on_exit.then_some(true),
            demo: self.demo,
            fresh: self.fresh,
            ..shared.layer()?
        };
        Ok(layer.over(Layer::from_file(shared.config.as_deref())?).finish()?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        shared: Shared,
        #[command(flatten)]
        run: RunArgs,
    }

    fn config(args: &[&str]) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.toml");
        std::fs::write(&file, "state-dir = \"/file\"\nbpffs = \"/file\"\nstream = \"none\"\nstrict = true\n")
            .unwrap();
        let start = ["run", "--config", file.to_str().unwrap_or_default()];
        let line = Line::parse_from(start.iter().chain(args));
        line.run.config(&line.shared).unwrap()
    }

    #[test]
    fn flags_beat_the_file() {
        let config =
            config(&["--state-dir", "/flag", "--json", "--unattributed", "all", "--demo", "--socket", "s"]);
        assert_eq!(
            (config.state_dir.as_path(), config.bpffs.as_path()),
            (Path::new("/flag"), Path::new("/file"))
        );
        assert_eq!((config.stream, config.unattributed), (Stream::Jsonl, Unattributed::All));
        assert!(config.demo && config.strict && config.socket.is_absolute());
    }

    #[test]
    fn the_file_beats_the_defaults() {
        assert_eq!(config(&[]).stream, Stream::None);
        assert_eq!(config(&["-o", "text"]).stream, Stream::Text);
        assert!(Line::try_parse_from(["run", "--json", "-o", "text"]).is_err());
    }
}
