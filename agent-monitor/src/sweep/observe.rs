//! What collectors hand on: observations of products, and of what could not be looked at. Plain data.

use std::collections::BTreeMap;

use super::pack::{Ecosystem, ProductIndex};
use super::report::{Coverage, Evidence, Looked, McpServer, Parent, ProcessRef, Risk, State, Strength};
use crate::model::Time;

/// Kinds of sources, as evidence names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A process' program, script, arguments or title.
    Process,
    /// Names in a process' environment.
    Environment,
    /// A socket that listens.
    Listener,
    /// A connection.
    Connection,
    /// A library or module that a process has loaded.
    Library,
    /// What a script imports.
    Imports,
    /// What a process does: children, tools.
    Behaviour,
    /// An installed package.
    Package,
    /// An editor extension.
    Extension,
    /// An installed program file.
    Binary,
    /// A state file or directory.
    State,
    /// An MCP configuration.
    McpConfig,
    /// A file in a project directory.
    Project,
    /// A systemd unit or timer.
    Unit,
    /// A cron line.
    Cron,
    /// A container's configuration, or a compose file.
    Container,
    /// A shell history.
    History,
}

impl Source {
    /// The contract name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Environment => "environment",
            Self::Listener => "listener",
            Self::Connection => "connection",
            Self::Library => "library",
            Self::Imports => "imports",
            Self::Behaviour => "behaviour",
            Self::Package => "package",
            Self::Extension => "extension",
            Self::Binary => "binary",
            Self::State => "state",
            Self::McpConfig => "mcp_config",
            Self::Project => "project",
            Self::Unit => "unit",
            Self::Cron => "cron",
            Self::Container => "container",
            Self::History => "history",
        }
    }

    /// How far a product is there when this is seen of it.
    #[must_use]
    pub fn state(self) -> State {
        match self {
            Self::Process | Self::Environment | Self::Listener | Self::Connection | Self::Library => {
                State::Running
            }
            Self::Imports | Self::Behaviour => State::Running,
            Self::Package | Self::Extension | Self::Binary => State::Installed,
            Self::McpConfig | Self::Unit | Self::Cron | Self::Container => State::Configured,
            Self::State | Self::Project | Self::History => State::Traces,
        }
    }
}

/// What an observation is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// A product of the pack.
    Product(ProductIndex),
    /// A program that behaves like an agent: its script or program.
    HomeMade(String),
    /// An MCP server that the pack does not know.
    McpServer(String),
}

/// Whose a thing is.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Uid; `None` for what belongs to the system.
    pub uid: Option<u32>,
    /// Container id.
    pub container: Option<String>,
}

/// One thing that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Of what.
    pub about: About,
    /// Which one, where the product is a group.
    pub variant: Option<String>,
    /// Whose.
    pub place: Place,
    /// Where from.
    pub source: Source,
    /// How much it says about the identity, 0 to 100.
    pub weight: u8,
    /// Others have it too.
    pub ambiguous: bool,
    /// What was seen.
    pub what: String,
    /// Where.
    pub at: String,
    /// When.
    pub when: Option<Time>,
    /// File or directory that is the product.
    pub path: Option<String>,
    /// Version, where it was said.
    pub version: Option<String>,
    /// The process.
    pub process: Option<Box<Seen>>,
    /// MCP servers.
    pub servers: Vec<McpServer>,
    /// What makes it worse.
    pub risks: Vec<Risk>,
    /// Times in a history.
    pub count: Option<u64>,
}

/// A process with what only a live host knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// As reported.
    pub shown: ProcessRef,
    /// Agent that a record binds it to, and whether that record has expired.
    pub agent: Option<(String, bool)>,
    /// User who logged in.
    pub login_uid: Option<u32>,
    /// Login session.
    pub session: Option<u32>,
    /// Parents.
    pub parents: Vec<Parent>,
}

impl Observation {
    /// An observation with what every one has.
    #[must_use]
    pub fn new(
        about: About,
        place: Place,
        source: Source,
        weight: u8,
        what: impl Into<String>,
        at: impl Into<String>,
    ) -> Self {
        Self {
            about,
            variant: None,
            place,
            source,
            weight,
            ambiguous: false,
            what: what.into(),
            at: at.into(),
            when: None,
            path: None,
            version: None,
            process: None,
            servers: Vec::new(),
            risks: Vec::new(),
            count: None,
        }
    }

    /// As a line of evidence.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        let strength = match self.weight {
            _ if self.ambiguous => Strength::Weak,
            80.. => Strength::Strong,
            50..80 => Strength::Medium,
            _ => Strength::Weak,
        };
        Evidence {
            source: self.source.as_str().to_owned(),
            strength,
            what: self.what.clone(),
            at: self.at.clone(),
            when: self.when,
        }
    }
}

/// What one job gave.
#[derive(Debug, Clone, Default)]
pub struct Harvest {
    /// Observations.
    pub seen: Vec<Observation>,
    /// Coverage of what was looked at.
    pub coverage: Vec<Coverage>,
    /// Things that could not be looked at, by reason: how many, and the first.
    pub troubles: BTreeMap<&'static str, (u64, String)>,
    /// Things that were looked at.
    pub count: u64,
    /// Credentials that lie in homes: in reach of what runs as their owner.
    pub keys: BTreeMap<Place, Vec<String>>,
}

impl Harvest {
    /// Notes that something was not looked at. What is missing is no trouble.
    pub fn trouble(&mut self, trouble: super::root::Trouble, at: impl Into<String>) {
        if trouble != super::root::Trouble::Missing {
            self.reason(trouble.as_str(), at);
        }
    }

    /// Notes a reason of another kind.
    pub fn reason(&mut self, reason: &'static str, at: impl Into<String>) {
        let entry = self.troubles.entry(reason).or_insert_with(|| (0, at.into()));
        entry.0 += 1;
    }

    /// Closes the account of a source.
    pub fn cover(&mut self, source: impl Into<String>) {
        let detail: Vec<String> = self
            .troubles
            .iter()
            .map(|(reason, (count, first))| format!("{reason}: {count} (first {first})"))
            .collect();
        let looked = if detail.is_empty() { Looked::Whole } else { Looked::Partly };
        self.coverage.push(Coverage {
            source: source.into(),
            looked,
            count: self.count,
            detail: (!detail.is_empty()).then(|| detail.join("; ")),
        });
        (self.troubles, self.count) = (BTreeMap::new(), 0);
    }

    /// Takes in another one.
    pub fn merge(&mut self, other: Self) {
        self.seen.extend(other.seen);
        self.coverage.extend(other.coverage);
        for (place, keys) in other.keys {
            self.keys.entry(place).or_default().extend(keys);
        }
    }

    /// Adds an installed package, if it is of a product.
    #[expect(clippy::too_many_arguments, reason = "the columns of a package list")]
    pub fn package(
        &mut self,
        pack: &super::pack::Pack,
        place: &Place,
        ecosystem: Ecosystem,
        name: &str,
        version: Option<&str>,
        directory: &str,
        when: Option<Time>,
    ) {
        let Some(product) = pack.package(ecosystem, name) else { return };
        let version = version.map(str::to_owned);
        let shown = version.as_deref().map_or_else(String::new, |version| format!(" {version}"));
        let what = format!("{} package {name}{shown} is installed", ecosystem.as_str());
        self.seen.push(Observation {
            variant: Some(name.to_owned()),
            when,
            path: Some(directory.to_owned()),
            version,
            ..Observation::new(About::Product(product), place.clone(), Source::Package, 95, what, directory)
        });
    }
}
