//! Which events: the options that `events` and `export` share.

use std::collections::BTreeMap;

use agent_monitor::record::FilterSpec;
use clap::Args;

/// Values of one option are alternatives; different options must all hold.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// Of this agent
    #[arg(long, value_name = "ID")]
    pub(crate) agent: Vec<String>,
    /// Of this session
    #[arg(long, value_name = "ID")]
    session: Vec<String>,
    /// A kind (file.open) or family (file, file.*)
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    /// allow, audit, deny, hold or kill
    #[arg(long, value_name = "VERDICT")]
    verdict: Vec<String>,
    /// Exact path, /dir/** for all below it, or a glob such as **/.env
    #[arg(long, value_name = "PATTERN")]
    path: Vec<String>,
    /// 10.0.0.7, 10.0.0.0/8, 10.0.0.7:443, :443, *.example.com:443, /run/docker.sock or @abstract
    #[arg(long, value_name = "PEER")]
    peer: Vec<String>,
    /// Process or thread id
    #[arg(long, value_name = "PID")]
    pid: Vec<String>,
    /// Of processes without an agent; with --agent, these too
    #[arg(long)]
    unattributed: bool,
    /// Not before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Words anywhere in the event
    #[arg(long, value_name = "WORDS")]
    text: Vec<String>,
}

impl FilterArgs {
    /// As the library takes it.
    pub(crate) fn spec(&self) -> FilterSpec {
        FilterSpec {
            agent: self.agent.clone(),
            session: self.session.clone(),
            kind: self.kind.clone(),
            verdict: self.verdict.clone(),
            path: self.path.clone(),
            peer: self.peer.clone(),
            pid: self.pid.clone(),
            text: self.text.clone(),
            since: self.since.clone(),
            until: self.until.clone(),
            unattributed: self.unattributed,
        }
    }

    /// What is asked for, for readers of an export.
    pub(crate) fn words(&self) -> BTreeMap<String, String> {
        let mut words: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in self.spec().pairs() {
            let text = words.entry(name.to_owned()).or_default();
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(value);
        }
        words
    }
}
