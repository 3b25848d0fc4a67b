//! From a command line to products: pure, total on any text.
//!
//! What counts is the program, and for interpreters and runners the script, module or package that they were given. The
//! rest of the line is never searched: `vim claude` is an editor. Wrappers (`env`, `sudo`, `sh -c`, `timeout` …) are
//! looked through.

use crate::attribute::argv::{self, Program};
use crate::registry::argv::glob;

use super::pack::{Ecosystem, Pack, ProductIndex};

/// Wrappers that are looked through, one inside the other.
const NESTED_MAX: usize = 6;

/// What a command line runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Base names that stand for the program: of the file, of `argv[0]`, of the script.
    pub names: Vec<String>,
    /// Names that had an ending taken off (`x` of `x.py`): they say less.
    pub stems: Vec<String>,
    /// Files that are run: program and script.
    pub paths: Vec<String>,
    /// Python module.
    pub module: Option<String>,
    /// Package that a runner was given, without version.
    pub package: Option<(Ecosystem, String)>,
    /// Container image that was given.
    pub image: Option<String>,
    /// A wrapper or runner was looked through; what it starts is a process of its own.
    pub wrapped: bool,
    /// What follows the program.
    pub rest: Vec<String>,
    /// What the process calls itself: `argv[0]`.
    pub title: String,
}

impl Subject {
    /// The script that an interpreter runs, or the program.
    #[must_use]
    pub fn main_path(&self) -> Option<&str> {
        self.paths.last().map(String::as_str)
    }
}

/// A reason to think of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The product.
    pub product: ProductIndex,
    /// 0 to 100.
    pub weight: u8,
    /// Others share what was seen; never enough alone.
    pub ambiguous: bool,
    /// What was seen.
    pub what: String,
    /// Which one, where the product is a group.
    pub variant: Option<String>,
}

/// What a process or configured command runs. `exe` may be empty.
#[must_use]
pub fn subject(exe: &str, args: &[String], cwd: &str) -> Subject {
    let mut found = Subject { title: args.first().cloned().unwrap_or_default(), ..Subject::default() };
    let args = titled(args);
    unwrap(&mut found, exe, &args, cwd, NESTED_MAX);
    found
}

/// A process that wrote one line over its arguments: `npm exec @playwright/mcp@latest`.
fn titled(args: &[String]) -> Vec<String> {
    match args.split_first() {
        Some((title, rest))
            if title.contains(' ') && !title.starts_with('/') && rest.iter().all(String::is_empty) =>
        {
            title.split_whitespace().map(str::to_owned).collect()
        }
        _ => args.to_vec(),
    }
}

fn unwrap(found: &mut Subject, exe: &str, args: &[String], cwd: &str, depth: usize) {
    let name = base(args.first().map_or(exe, String::as_str)).trim_start_matches('-');
    let rest = args.get(1..).unwrap_or_default();
    if depth > 0
        && let Some(inner) = inner(name, rest)
    {
        found.wrapped = true;
        match inner {
            Inner::Command(args) => return unwrap(found, "", &args, cwd, depth - 1),
            Inner::Package(ecosystem, name, rest) => {
                found.names.push(name.rsplit('/').next().unwrap_or(&name).to_owned());
                found.package = Some((ecosystem, name));
                found.rest = rest;
                return;
            }
            Inner::Image(image, rest) => {
                (found.image, found.rest) = (Some(image), rest);
                return;
            }
        }
    }
    let bytes: Vec<&[u8]> = args.iter().map(String::as_bytes).collect();
    match argv::program(exe.as_bytes(), &bytes, cwd.as_bytes()) {
        Some(Program::Script(script)) => {
            let script = String::from_utf8_lossy(&script).into_owned();
            let written = args.iter().position(|arg| !arg.is_empty() && script.ends_with(tail(arg)));
            found.rest = args.get(written.map_or(args.len(), |at| at + 1)..).unwrap_or_default().to_vec();
            found.paths.extend((!exe.is_empty()).then(|| exe.to_owned()));
            let name = base(&script);
            match name.rsplit_once('.') {
                Some((stem, "js" | "mjs" | "cjs" | "py" | "ts" | "sh")) => found.stems.push(stem.to_owned()),
                _ => found.names.push(name.to_owned()),
            }
            // `argv[0]` of a script's interpreter may be what the product calls itself.
            if is_other_name(name, args.first(), exe) {
                found.stems.push(base(args.first().map_or("", String::as_str)).to_owned());
            }
            found.paths.push(script);
        }
        Some(Program::Module(module)) => {
            let module = String::from_utf8_lossy(&module).into_owned();
            let written = args.iter().position(|arg| *arg == module);
            found.rest = args.get(written.map_or(args.len(), |at| at + 1)..).unwrap_or_default().to_vec();
            found.paths.extend((!exe.is_empty()).then(|| exe.to_owned()));
            found.module = Some(module);
        }
        None => plain(found, exe, args),
    }
}

/// The end of a relative argument, as it stands in the absolute path.
fn tail(arg: &str) -> &str {
    arg.trim_start_matches("./").rsplit("../").next().unwrap_or(arg)
}

fn is_other_name(script: &str, first: Option<&String>, exe: &str) -> bool {
    let first = first.map_or("", |first| base(first));
    !first.is_empty() && first != script && first != base(exe) && !is_interpreter(first)
}

fn is_interpreter(name: &str) -> bool {
    ["node", "python", "bun", "deno", "ruby", "perl", "bash", "sh", "dash", "zsh", "tsx"].iter().any(
        |known| name.strip_prefix(known).is_some_and(|v| v.bytes().all(|b| b.is_ascii_digit() || b == b'.')),
    )
}

fn plain(found: &mut Subject, exe: &str, args: &[String]) {
    let first = args.first().map_or("", String::as_str);
    for name in [base(exe), base(first)] {
        if !name.is_empty() && !is_interpreter(name) && !found.names.iter().any(|known| known == name) {
            found.names.push(name.to_owned());
        }
    }
    found.paths.extend((!exe.is_empty()).then(|| exe.to_owned()));
    if first.starts_with('/') && first != exe {
        found.paths.push(first.to_owned());
    }
    found.rest = args.get(1..).unwrap_or_default().to_vec();
}

enum Inner {
    Command(Vec<String>),
    Package(Ecosystem, String, Vec<String>),
    Image(String, Vec<String>),
}

/// What a wrapper or runner was given.
fn inner(name: &str, rest: &[String]) -> Option<Inner> {
    let word = |at: usize| rest.get(at).map(String::as_str);
    let from = |at: usize| rest.get(at..).unwrap_or_default();
    match name {
        "env" => {
            let at = rest.iter().position(|arg| !arg.starts_with('-') && !arg.contains('='))?;
            Some(Inner::Command(from(at).to_vec()))
        }
        "sudo" | "doas" | "nohup" | "setsid" | "nice" | "ionice" | "stdbuf" | "xvfb-run" | "time"
        | "exec" => command_after(rest, &["-u", "-g", "-n", "-c", "-C", "-h", "-p"]).map(Inner::Command),
        "timeout" => command_after(rest, &["-k", "-s"])
            .map(|args| args.get(1..).unwrap_or_default().to_vec())
            .map(Inner::Command),
        "sh" | "bash" | "dash" | "zsh" | "ash" | "cmd" => {
            let at = rest
                .iter()
                .position(|arg| arg.starts_with('-') && arg.ends_with('c') && !arg.starts_with("--"))?;
            Some(Inner::Command(shell_words(word(at + 1)?)))
        }
        "npx" | "bunx" | "pnpx" => package(Ecosystem::Npm, rest),
        "npm" if matches!(word(0), Some("exec" | "x")) => package(Ecosystem::Npm, from(1)),
        "pnpm" | "yarn" if matches!(word(0), Some("dlx" | "exec")) => package(Ecosystem::Npm, from(1)),
        "bun" if word(0) == Some("x") => package(Ecosystem::Npm, from(1)),
        "uvx" => package(Ecosystem::Pypi, rest),
        "uv" if word(0) == Some("tool") && word(1) == Some("run") => package(Ecosystem::Pypi, from(2)),
        "uv" | "poetry" | "pdm" | "hatch" if word(0) == Some("run") => {
            command_after(from(1), &["--directory", "--project", "--with", "-p", "--python", "--env-file"])
                .map(Inner::Command)
        }
        "pipx" if word(0) == Some("run") => package(Ecosystem::Pypi, from(1)),
        "docker" | "podman" | "nerdctl" if word(0) == Some("run") => image(from(1)),
        _ => None,
    }
}

fn command_after(rest: &[String], takes: &[&str]) -> Option<Vec<String>> {
    let mut at = 0;
    while let Some(arg) = rest.get(at) {
        if takes.contains(&arg.as_str()) {
            at += 2;
        } else if arg.starts_with('-') || arg.contains('=') && !arg.contains('/') {
            at += 1;
        } else {
            return Some(rest.get(at..).unwrap_or_default().to_vec());
        }
    }
    None
}

/// The package that a runner fetches: an option that names one, else the first word.
fn package(ecosystem: Ecosystem, rest: &[String]) -> Option<Inner> {
    let mut named = None;
    let mut at = 0;
    while let Some(arg) = rest.get(at) {
        let follows = || rest.get(at + 1).map(String::as_str);
        match arg.as_str() {
            "-p" | "--package" | "--from" | "--spec" => {
                named = named.or(follows().map(str::to_owned));
                at += 2;
            }
            "--with" | "--python" | "--index-url" | "--registry" | "--prefix" => at += 2,
            "-c" | "--call" => return None,
            "--" => at += 1,
            option if option.starts_with('-') => {
                if let Some((_, value)) = option
                    .split_once('=')
                    .filter(|(name, _)| matches!(*name, "--package" | "--from" | "--spec"))
                {
                    named = named.or(Some(value.to_owned()));
                }
                at += 1;
            }
            word => {
                let name = unversioned(named.as_deref().unwrap_or(word));
                return Some(Inner::Package(
                    ecosystem,
                    name,
                    rest.get(at + 1..).unwrap_or_default().to_vec(),
                ));
            }
        }
    }
    named.map(|name| Inner::Package(ecosystem, unversioned(&name), Vec::new()))
}

/// `@a/b@1.2` and `b==1`, `b[extra]>=2` without version and extras.
#[must_use]
pub fn unversioned(name: &str) -> String {
    let name = name.strip_prefix("npm:").unwrap_or(name);
    let at =
        name.char_indices().skip(1).find(|(_, c)| matches!(c, '@' | '=' | '[' | '<' | '>' | '~' | '!' | ';'));
    at.and_then(|(at, _)| name.get(..at)).unwrap_or(name).trim().to_owned()
}

fn image(rest: &[String]) -> Option<Inner> {
    const TAKES: &[&str] = &[
        "-v",
        "--volume",
        "-e",
        "--env",
        "--env-file",
        "--name",
        "-p",
        "--publish",
        "--network",
        "--net",
        "-w",
        "--workdir",
        "-u",
        "--user",
        "--mount",
        "--entrypoint",
        "-l",
        "--label",
        "--cpus",
        "-m",
        "--memory",
        "--platform",
        "--add-host",
        "-h",
        "--hostname",
        "--gpus",
        "--device",
        "--cap-add",
        "--cap-drop",
        "--security-opt",
        "--pull",
        "--restart",
    ];
    let mut at = 0;
    while let Some(arg) = rest.get(at) {
        if TAKES.contains(&arg.as_str()) {
            at += 2;
        } else if arg.starts_with('-') {
            at += 1;
        } else {
            return Some(Inner::Image(untagged(arg), rest.get(at + 1..).unwrap_or_default().to_vec()));
        }
    }
    None
}

/// An image's name without registry, tag and digest.
#[must_use]
pub fn untagged(image: &str) -> String {
    let image = image.split('@').next().unwrap_or(image);
    let (path, last) = image.rsplit_once('/').map_or(("", image), |(path, last)| (path, last));
    let last = last.split(':').next().unwrap_or(last);
    let owner = path.rsplit('/').next().filter(|part| !part.is_empty() && !part.contains(['.', ':']));
    owner.map_or_else(|| last.to_owned(), |owner| format!("{owner}/{last}"))
}

/// The first simple command of a shell's text, quotes taken off. No expansion.
#[must_use]
pub fn shell_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut open) = (Vec::new(), String::new(), None, false);
    let mut chars = text.chars().take(1 << 16).peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => (quote, open) = (Some(c), true),
            (None, '\\') => word.extend(chars.next()),
            (None, ';' | '|' | '\n') | (None, '&') => {
                // `cd x && agent`: what follows counts when so far it only went somewhere.
                if open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                if words.first().is_some_and(|w: &String| {
                    matches!(w.as_str(), "cd" | "export" | "source" | "." | "set" | "umask")
                }) {
                    words.clear();
                    open = false;
                    while chars.next_if(|c| matches!(c, '&' | ';' | '|' | ' ' | '\n')).is_some() {}
                    continue;
                }
                return words;
            }
            (None, c) if c.is_whitespace() => {
                if open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            (None, c) => word.push(c),
        }
    }
    if open || !word.is_empty() {
        words.push(word);
    }
    words
}

/// Every reason to think of a product, the strongest first.
#[must_use]
pub fn identify(pack: &Pack, subject: &Subject) -> Vec<Hit> {
    let mut hits = Vec::new();
    subject.paths.iter().for_each(|path| by_path(pack, path, &mut hits));
    if let Some((ecosystem, name)) = &subject.package
        && let Some(product) = pack.package(*ecosystem, name)
    {
        let what = format!("runs the {} package {name}", ecosystem.as_str());
        hits.push(Hit { product, weight: 90, ambiguous: false, what, variant: Some(name.clone()) });
    }
    if let Some((image, product)) =
        subject.image.as_deref().and_then(|image| Some((image, pack.image(image)?)))
    {
        hits.push(of_image(product, image));
    }
    if let Some(product) = subject.module.as_deref().and_then(|module| pack.module(module)) {
        let what = format!("runs the Python module {}", subject.module.as_deref().unwrap_or_default());
        hits.push(Hit { product, weight: 90, ambiguous: false, what, variant: subject.module.clone() });
    }
    for (glob_text, product) in pack.titles() {
        if glob(glob_text.as_bytes(), subject.title.as_bytes()) {
            let what = format!("calls itself `{glob_text}`");
            hits.push(Hit { product: *product, weight: 80, ambiguous: false, what, variant: None });
        }
    }
    let names = subject.names.iter().map(|name| (name, false));
    for (name, stem) in names.chain(subject.stems.iter().map(|name| (name, true))) {
        by_name(pack, subject, name, stem, &mut hits);
    }
    for (flag, product) in pack.flags() {
        if subject.rest.iter().any(|arg| glob(flag.as_bytes(), arg.as_bytes())) {
            let what = format!("is given {flag}");
            hits.push(Hit { product: *product, weight: 30, ambiguous: true, what, variant: None });
        }
    }
    hits.sort_by_key(|hit| std::cmp::Reverse((hit.weight, !hit.ambiguous)));
    hits
}

/// What a container's image says.
pub(super) fn of_image(product: ProductIndex, image: &str) -> Hit {
    let what = format!("runs the container image {image}");
    Hit { product, weight: 85, ambiguous: false, what, variant: Some(image.to_owned()) }
}

/// The product that a command line most likely is.
#[must_use]
pub fn best(pack: &Pack, args: &[String]) -> Option<Hit> {
    let exe = args.first().filter(|first| first.starts_with('/')).cloned().unwrap_or_default();
    identify(pack, &subject(&exe, args, "/")).into_iter().next()
}

fn by_name(pack: &Pack, subject: &Subject, name: &str, stem: bool, hits: &mut Vec<Hit>) {
    let word = subject.rest.first().map_or("", String::as_str);
    let command = pack.command(name, word);
    for named in pack.named(name) {
        let known = command == Some(named.product);
        let (weight, ambiguous, what) = match (named.ambiguous || stem, known) {
            (true, true) => (65, false, format!("is called `{name} {word}`")),
            (true, false) => (20, true, format!("is called `{name}`, as others are too")),
            (false, _) => (75, false, format!("is called `{name}`")),
        };
        hits.push(Hit { product: named.product, weight, ambiguous, what, variant: Some(name.to_owned()) });
    }
    if let Some(product) = command
        && !pack.named(name).iter().any(|named| named.product == product)
    {
        let what = format!("is called `{name} {word}`");
        hits.push(Hit { product, weight: 65, ambiguous: false, what, variant: None });
    }
}

/// What the place of a file says: package directories, and the pack's own globs.
pub(super) fn by_path(pack: &Pack, path: &str, hits: &mut Vec<Hit>) {
    for (ecosystem, name) in packages_in(path) {
        let product = match ecosystem {
            Ecosystem::Pypi => pack.package(ecosystem, &name).or_else(|| pack.module(&name)),
            Ecosystem::Npm | Ecosystem::Crates => pack.package(ecosystem, &name),
        };
        if let Some(product) = product {
            let what = format!("lies in the {} package {name}", ecosystem.as_str());
            hits.push(Hit { product, weight: 95, ambiguous: false, what, variant: Some(name) });
        }
    }
    for (glob_text, product) in pack.paths() {
        if glob(glob_text.as_bytes(), path.as_bytes()) {
            let what = format!("lies at {glob_text}");
            hits.push(Hit { product: *product, weight: 95, ambiguous: false, what, variant: None });
        }
    }
}

/// The packages in whose directories a path lies, outermost first.
#[must_use]
pub fn packages_in(path: &str) -> Vec<(Ecosystem, String)> {
    let parts: Vec<&str> = path.split('/').collect();
    let mut found = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let next = |n: usize| parts.get(at + n).copied().filter(|part| !part.is_empty());
        match *part {
            "node_modules" => match (next(1), next(2)) {
                (Some(scope), Some(name)) if scope.starts_with('@') => {
                    found.push((Ecosystem::Npm, format!("{scope}/{name}")));
                }
                (Some(name), _) if !name.starts_with(['.', '@']) => {
                    found.push((Ecosystem::Npm, name.to_owned()));
                }
                _ => {}
            },
            "site-packages" | "dist-packages" => {
                let name = next(1).filter(|name| !name.contains(".dist-info"));
                found.extend(name.map(|name| (Ecosystem::Pypi, name.trim_end_matches(".py").to_owned())));
            }
            "tools" if at > 0 && parts.get(at - 1) == Some(&"uv") => {
                found.extend(next(1).map(|name| (Ecosystem::Pypi, name.to_owned())));
            }
            "venvs" if at > 0 && parts.get(at - 1) == Some(&"pipx") => {
                found.extend(next(1).map(|name| (Ecosystem::Pypi, name.to_owned())));
            }
            _ => {}
        }
    }
    found
}

/// The version in a path of self-updating programs: `…/versions/2.1.3`.
#[must_use]
pub fn version_in(path: &str) -> Option<String> {
    let (_, rest) = path.split_once("/versions/")?;
    let version = rest.split('/').next().unwrap_or(rest);
    let plain = version.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    (plain && version.starts_with(|c: char| c.is_ascii_digit()) && version.contains('.'))
        .then(|| version.to_owned())
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests;
