//! The signature pack: how products are recognised. Data; this file holds its form and the look-ups in it.
//!
//! The embedded pack (`pack/default.toml`) is extended by files in `/etc/agent-monitor/signatures.d/`: an entry with a
//! known id takes the place of the known one, or adds to its lists with `extend = true`, or removes it with
//! `disabled = true`.
//!
//! Keys of a `[[product]]`: `id`, `name`, `kind`; `aliases`, former names; `programs`, names of programs, scripts and
//! console commands that are enough alone; `ambiguous`, names that others use too, never enough alone; `commands`, such
//! a name with its first word, which is; `paths`, globs over program and script paths; `modules`, Python modules started
//! with `-m`; `titles`, globs over what a process calls itself; `flags`, globs over arguments, weak; `npm`, `pypi`,
//! `crates`, packages; `images`, container images as `owner/name`; `extensions`, `publisher.name` of editor extensions; `jetbrains`, plugin directories; `imports`,
//! modules by which a script shows that it uses the product; `state`, files and directories that only it makes;
//! `weak_state`, such that others make too; `credentials`; `binaries`; `mcp_configs`, files with MCP servers; `project`,
//! names in project directories; `units`, systemd units; `markers`, variables (`NAME` or `NAME=value`) that it sets for
//! its children; `env`, variables that it reads; `ports`; `hosts`; `networks`; `unsafe_flags`; `sources`; `verified`;
//! `notes`; `examples` and `counterexamples`, command lines that must and must not be told as the product.

mod parse;

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::IpNet;

use super::report::ProductKind;
use crate::registry::diagnostic::Diagnostic;

pub use parse::{PackFile, parse};

/// The embedded pack.
pub const DEFAULT: &str = include_str!("pack/default.toml");
/// Where files that extend it are looked for.
pub const DIRECTORY: &str = "/etc/agent-monitor/signatures.d";

/// One product.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    /// Its id: like an agent id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Its kind; absent in an entry that extends another.
    pub kind: Option<ProductKind>,
    /// All lists of texts, by key.
    pub lists: BTreeMap<&'static str, Vec<String>>,
    /// Ports that it listens on by default.
    pub ports: Vec<u16>,
    /// Addresses of its provider.
    pub networks: Vec<IpNet>,
    /// Adds to the entry of the same id instead of taking its place.
    pub extend: bool,
    /// Removes the entry of the same id.
    pub disabled: bool,
    /// Somebody looked at the product itself.
    pub verified: bool,
}

impl Signature {
    /// A list by its key; empty where there is none.
    #[must_use]
    pub fn list(&self, key: &str) -> &[String] {
        self.lists.get(key).map_or(&[], Vec::as_slice)
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> ProductKind {
        self.kind.unwrap_or(ProductKind::Component)
    }
}

/// A well-known MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownServer {
    /// Package or image.
    pub name: String,
    /// What it reaches, in a word or two.
    pub reach: String,
    /// Its tools write.
    pub writes: bool,
}

/// Index of a product in its pack.
pub type ProductIndex = usize;

/// What a name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// The product.
    pub product: ProductIndex,
    /// Others have the name too.
    pub ambiguous: bool,
}

/// A pack ready for look-ups.
#[derive(Debug, Clone, Default)]
pub struct Pack {
    /// Version of the embedded file, with the number of files over it.
    pub version: String,
    products: Vec<Signature>,
    servers: Vec<KnownServer>,
    provider_hosts: Vec<String>,
    key_names: Vec<String>,
    names: BTreeMap<String, Vec<Named>>,
    commands: BTreeMap<(String, String), ProductIndex>,
    packages: BTreeMap<(Ecosystem, String), ProductIndex>,
    modules: BTreeMap<String, ProductIndex>,
    imports: BTreeMap<String, ProductIndex>,
    extensions: BTreeMap<String, ProductIndex>,
    markers: BTreeMap<String, Vec<(Option<String>, ProductIndex)>>,
    units: BTreeMap<String, ProductIndex>,
    images: BTreeMap<String, ProductIndex>,
    paths: Vec<(String, ProductIndex)>,
    titles: Vec<(String, ProductIndex)>,
    flags: Vec<(String, ProductIndex)>,
}

/// Where a package comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ecosystem {
    /// npm.
    Npm,
    /// PyPI.
    Pypi,
    /// crates.io.
    Crates,
}

impl Ecosystem {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pypi => "PyPI",
            Self::Crates => "cargo",
        }
    }
}

impl Pack {
    /// The embedded pack, with files over it in the order given. Entries with errors are left out.
    #[must_use]
    pub fn build(files: &[PackFile]) -> Self {
        let (base, _) = parse(DEFAULT, &PathBuf::from("default.toml"));
        let mut pack = Self { version: base.version.clone(), ..Self::default() };
        if !files.is_empty() {
            pack.version = format!("{}+{}", pack.version, files.len());
        }
        for file in std::iter::once(&base).chain(files) {
            file.products.iter().for_each(|product| pack.take(product.clone()));
            pack.servers.retain(|known| !file.servers.iter().any(|new| new.name == known.name));
            pack.servers.extend(file.servers.iter().cloned());
            pack.provider_hosts.extend(file.provider_hosts.iter().cloned());
            pack.key_names.extend(file.key_names.iter().cloned());
        }
        pack.index();
        pack
    }

    fn take(&mut self, new: Signature) {
        let known = self.products.iter().position(|product| product.id == new.id);
        match known {
            Some(at) if new.disabled => drop(self.products.remove(at)),
            Some(at) if new.extend => {
                if let Some(known) = self.products.get_mut(at) {
                    for (key, values) in new.lists {
                        known.lists.entry(key).or_default().extend(values);
                    }
                    known.ports.extend(new.ports);
                    known.networks.extend(new.networks);
                }
            }
            Some(at) => {
                if let Some(slot) = self.products.get_mut(at) {
                    *slot = new;
                }
            }
            None if new.disabled || new.extend => {}
            None => self.products.push(new),
        }
    }

    fn index(&mut self) {
        for (at, product) in self.products.iter().enumerate() {
            let each = |key: &str| product.list(key).iter();
            for (key, ambiguous) in [("programs", false), ("ambiguous", true)] {
                for name in each(key) {
                    self.names.entry(name.clone()).or_default().push(Named { product: at, ambiguous });
                }
            }
            for command in each("commands") {
                if let Some((name, word)) = command.split_once(' ') {
                    self.commands.insert((name.to_owned(), word.to_owned()), at);
                }
            }
            for (key, ecosystem) in
                [("npm", Ecosystem::Npm), ("pypi", Ecosystem::Pypi), ("crates", Ecosystem::Crates)]
            {
                for name in each(key) {
                    // Of two products that name one package the first keeps it.
                    self.packages.entry((ecosystem, normal(ecosystem, name))).or_insert(at);
                }
            }
            self.modules.extend(each("modules").map(|name| (name.clone(), at)));
            self.imports.extend(each("imports").map(|name| (name.clone(), at)));
            self.extensions.extend(each("extensions").map(|id| (id.to_ascii_lowercase(), at)));
            self.images.extend(each("images").map(|name| (name.clone(), at)));
            self.units.extend(each("units").map(|name| (name.clone(), at)));
            for marker in each("markers") {
                let (name, value) = match marker.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (marker.as_str(), None),
                };
                self.markers.entry(name.to_owned()).or_default().push((value, at));
            }
            self.paths.extend(each("paths").map(|glob| (glob.clone(), at)));
            self.titles.extend(each("titles").map(|glob| (glob.clone(), at)));
            self.flags.extend(each("flags").map(|glob| (glob.clone(), at)));
        }
    }

    /// All products.
    #[must_use]
    pub fn products(&self) -> &[Signature] {
        &self.products
    }

    /// A product.
    #[must_use]
    pub fn product(&self, index: ProductIndex) -> Option<&Signature> {
        self.products.get(index)
    }

    /// A product by its id or a former name.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<ProductIndex> {
        let by_id = self.products.iter().position(|product| product.id == id);
        by_id.or_else(|| self.products.iter().position(|p| p.list("aliases").iter().any(|a| a == id)))
    }

    /// Products that a program's name speaks for.
    #[must_use]
    pub fn named(&self, name: &str) -> &[Named] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }

    /// The product of a name and its first word.
    #[must_use]
    pub fn command(&self, name: &str, word: &str) -> Option<ProductIndex> {
        self.commands.get(&(name.to_owned(), word.to_owned())).copied()
    }

    /// The product of a package.
    #[must_use]
    pub fn package(&self, ecosystem: Ecosystem, name: &str) -> Option<ProductIndex> {
        self.packages.get(&(ecosystem, normal(ecosystem, name))).copied()
    }

    /// The product of a Python module that is started, or of the package it lies in.
    #[must_use]
    pub fn module(&self, name: &str) -> Option<ProductIndex> {
        let top = name.split('.').next().unwrap_or(name);
        self.modules.get(name).or_else(|| self.modules.get(top)).copied()
    }

    /// The product that a script shows by importing a module.
    #[must_use]
    pub fn import(&self, name: &str) -> Option<ProductIndex> {
        let mut name = name;
        loop {
            if let Some(found) = self.imports.get(name) {
                return Some(*found);
            }
            name = name.rsplit_once('.')?.0;
        }
    }

    /// The product of an editor extension, by `publisher.name`.
    #[must_use]
    pub fn extension(&self, id: &str) -> Option<ProductIndex> {
        self.extensions.get(&id.to_ascii_lowercase()).copied()
    }

    /// The product of a container image, as [`super::identify::untagged`] names it.
    #[must_use]
    pub fn image(&self, name: &str) -> Option<ProductIndex> {
        self.images.get(name).copied()
    }

    /// The product of a systemd unit.
    #[must_use]
    pub fn unit(&self, name: &str) -> Option<ProductIndex> {
        self.units.get(name).copied()
    }

    /// Products whose marker a variable is. The value is compared where it stands and kept nowhere.
    pub fn marked(&self, name: &str, value: &[u8]) -> impl Iterator<Item = ProductIndex> + '_ {
        let value = value.to_vec();
        let rows = self.markers.get(name).map_or(&[][..], Vec::as_slice);
        let fits = move |wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| wanted.as_bytes() == value.as_slice())
        };
        rows.iter().filter(move |(wanted, _)| fits(wanted)).map(|(_, product)| *product)
    }

    /// Globs over program and script paths.
    #[must_use]
    pub fn paths(&self) -> &[(String, ProductIndex)] {
        &self.paths
    }

    /// Globs over what a process calls itself.
    #[must_use]
    pub fn titles(&self) -> &[(String, ProductIndex)] {
        &self.titles
    }

    /// Globs over arguments.
    #[must_use]
    pub fn flags(&self) -> &[(String, ProductIndex)] {
        &self.flags
    }

    /// A well-known MCP server by package or image.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&KnownServer> {
        self.servers.iter().find(|known| known.name == name)
    }

    /// Hosts of model providers.
    #[must_use]
    pub fn provider_hosts(&self) -> &[String] {
        &self.provider_hosts
    }

    /// Whether a variable is where a provider's key or address is kept.
    #[must_use]
    pub fn is_provider_variable(&self, name: &str) -> bool {
        self.key_names.iter().any(|known| known == name)
    }
}

/// Names of PyPI are the same with `-`, `_`, `.` and in any case.
fn normal(ecosystem: Ecosystem, name: &str) -> String {
    match ecosystem {
        Ecosystem::Npm | Ecosystem::Crates => name.to_owned(),
        Ecosystem::Pypi => {
            let mut out = String::with_capacity(name.len());
            for c in name.chars() {
                let c = if matches!(c, '_' | '.') { '-' } else { c.to_ascii_lowercase() };
                if !(c == '-' && out.ends_with('-')) {
                    out.push(c);
                }
            }
            out
        }
    }
}

/// Problems of a pack file and whether it can be used, for `sweep --pack check`.
#[must_use]
pub fn check(text: &str, file: &std::path::Path) -> (PackFile, Vec<Diagnostic>) {
    let (pack, mut problems) = parse(text, file);
    problems.extend(parse::check_examples(text, file, &pack));
    (pack, problems)
}

/// The embedded pack, built once: building one takes milliseconds.
#[cfg(test)]
pub(crate) fn embedded() -> &'static Pack {
    static PACK: std::sync::LazyLock<Pack> = std::sync::LazyLock::new(|| Pack::build(&[]));
    &PACK
}

#[cfg(test)]
mod tests;
