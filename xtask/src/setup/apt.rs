//! Debian packages of suites the machine does not have configured, fetched by apt itself.
//!
//! Kernels of several releases and the compiler's source come from suites that a host rarely lists.
//! A private source list in a temporary folder brings them in: apt checks the archive's signature and
//! each file's SHA-256, and the host's own configuration stays as it is.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::shell;

/// Debian's signing keys as the distribution installs them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Suites of the main archive that hold the compiler's source, busybox and every kernel series.
const SUITES: &str = "bookworm bookworm-updates bookworm-backports trixie-backports";

/// The newest stable kernel is often a security update, which is an archive of its own.
const SECURITY_SUITE: &str = "bookworm-security";

/// One version of one package, by what the signed index says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// `linux-image-6.1.0-50-cloud-amd64`
    pub(crate) name: String,
    /// Debian version
    pub(crate) version: String,
    /// Of the `.deb` file, lower-case hex
    pub(crate) sha256: String,
}

/// [`Apt`], opened when the first step really needs it: a set-up machine never touches the network.
#[derive(Default)]
pub(crate) struct LazyApt(OnceCell<Apt>);

impl LazyApt {
    /// The opened index.
    pub(crate) fn get(&self) -> Result<&Apt> {
        if let Some(apt) = self.0.get() {
            return Ok(apt);
        }
        let apt = Apt::open()?;
        Ok(self.0.get_or_init(|| apt))
    }
}

/// A private apt state: source list, package lists, archive cache.
pub(crate) struct Apt {
    dir: TempDir,
}

impl Apt {
    fn open() -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            bail!(
                "{KEYRING} is missing: packages could not be verified (apt-get install debian-archive-keyring)"
            );
        }
        let dir = tempfile::Builder::new().prefix("agent-monitor-apt-").tempdir()?;
        for sub in ["sources", "lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.path().join(sub))?;
        }
        fs::write(dir.path().join("sources/private.sources"), sources(&configured()?))?;
        let apt = Self { dir };
        println!("setup: reading the Debian package index …");
        shell::output(apt.tool("apt-get").args(["-q", "update"]))?;
        Ok(apt)
    }

    /// An apt program that sees nothing but our folder; proxies and the like stay as configured.
    fn tool(&self, program: &str) -> Command {
        let dir = self.dir.path().display();
        let mut command = Command::new(program);
        command.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
        for option in [
            "Dir::Etc::sourcelist=/dev/null".to_string(),
            format!("Dir::Etc::sourceparts={dir}/sources"),
            format!("Dir::State::Lists={dir}/lists"),
            format!("Dir::Cache={dir}/cache"),
            // The folder is private to us, so apt's own user could not write there.
            "APT::Sandbox::User=root".to_string(),
            "Acquire::Languages=none".to_string(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_string(),
            "Acquire::Retries=3".to_string(),
            // A suite that could not be read must not look like a suite without kernels.
            "APT::Update::Error-Mode=any".to_string(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }

    /// Every package whose name `wanted` accepts.
    pub(crate) fn packages(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Package>> {
        let text = shell::output(self.tool("apt-cache").arg("dumpavail"))?;
        Ok(text.split("\n\n").filter_map(parse).filter(|package| wanted(&package.name)).collect())
    }

    /// The version of a package that apt itself would install.
    pub(crate) fn candidate(&self, name: &str) -> Result<Package> {
        let text = shell::output(self.tool("apt-cache").args(["show", "--no-all-versions", name]))?;
        parse(&text).with_context(|| format!("the index entry of {name} has no SHA-256"))
    }

    /// Downloads a package, checks it against its SHA-256, and unpacks it into `into`.
    pub(crate) fn unpack(&self, package: &Package, into: &Path) -> Result<()> {
        let drop = tempfile::tempdir()?;
        let spec = format!("{}={}", package.name, package.version);
        shell::output(self.tool("apt-get").args(["-q", "download", &spec]).current_dir(drop.path()))?;
        let file = only_file(drop.path())?;
        check(&file, &package.sha256)?;
        shell::output(Command::new("dpkg-deb").arg("-x").arg(&file).arg(into))?;
        Ok(())
    }
}

/// apt has compared the file with its index; this compares it with what *we* asked for.
fn check(file: &Path, sha256: &str) -> Result<()> {
    let found: String = Sha256::digest(fs::read(file)?).iter().map(|byte| format!("{byte:02x}")).collect();
    if found != sha256 {
        bail!("{} has SHA-256 {found}, expected {sha256}", file.display());
    }
    Ok(())
}

fn only_file(dir: &Path) -> Result<PathBuf> {
    let first = fs::read_dir(dir)?.next().context("apt-get download left no file")?;
    Ok(first?.path())
}

fn parse(paragraph: &str) -> Option<Package> {
    let field = |name: &str| {
        let value = paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map(|value| value.trim().to_string())
    };
    Some(Package { name: field("Package")?, version: field("Version")?, sha256: field("SHA256")? })
}

/// Base URIs of the Debian archive that this machine's apt is configured for.
#[derive(Debug, PartialEq, Eq)]
struct Archive {
    main: String,
    security: Option<String>,
}

/// Taken from apt's configuration at run time: a mirror's name has no place in the repository.
fn configured() -> Result<Archive> {
    let text = shell::output(Command::new("apt-get").args([
        "indextargets",
        "--no-release-info",
        "--format",
        "$(REPO_URI) $(RELEASE) $(COMPONENT)",
    ]))
    .context("apt is needed for this step")?;
    let release = fs::read_to_string("/etc/os-release")?;
    let field = |name: &str| release.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    if field("ID=") != "debian" {
        bail!(
            "this system is `{}`, not Debian: its apt mirror does not carry Debian's packages",
            field("ID=")
        );
    }
    let codename = field("VERSION_CODENAME=");
    find_archive(&text, codename).with_context(|| {
        format!("apt has no entry for the Debian suite {codename} main, so no mirror to ask")
    })
}

fn find_archive(targets: &str, codename: &str) -> Option<Archive> {
    let uri_of = |suite: &str| {
        targets.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let (uri, release, component) = (words.next()?, words.next()?, words.next()?);
            (release == suite && component == "main").then(|| uri.to_string())
        })
    };
    Some(Archive { main: uri_of(codename)?, security: uri_of(&format!("{codename}-security")) })
}

fn sources(archive: &Archive) -> String {
    let entry = |uri: &str, suites: &str| {
        format!(
            "Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nArchitectures: amd64\n\
             Signed-By: {KEYRING}\n\n"
        )
    };
    let security = archive.security.as_deref().map(|uri| entry(uri, SECURITY_SUITE));
    entry(&archive.main, SUITES) + &security.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_comes_from_the_entry_of_the_installed_release() {
        let targets = "https://other.example/apt nodistro main\n\
                       http://mirror.example/debian/ bookworm main\n\
                       http://mirror.example/sec/ bookworm-security main\n";
        let found = find_archive(targets, "bookworm").unwrap();
        assert_eq!(found.main, "http://mirror.example/debian/");
        assert_eq!(found.security.as_deref(), Some("http://mirror.example/sec/"));
        assert_eq!(find_archive(targets, "trixie"), None);
    }

    #[test]
    fn index_paragraph_without_hash_is_no_package() {
        assert_eq!(parse("Package: a\nVersion: 1\n"), None);
        let whole = parse("Package: a\nVersion: 1\nSHA256: 00ff\n").unwrap();
        assert_eq!((whole.name.as_str(), whole.sha256.as_str()), ("a", "00ff"));
    }

    #[test]
    fn wrong_hash_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(check(file.path(), "00").unwrap_err().to_string().contains("expected 00"));
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        check(file.path(), empty).unwrap();
    }
}
