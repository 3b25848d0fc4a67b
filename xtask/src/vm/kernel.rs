//! Kernels of the matrix: the newest patch release of each series, as Debian builds it.

use std::cmp::Ordering;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup::apt::{LazyApt, Package};
use crate::setup::packages::Resolved;

/// The matrix. A series is `major.minor`; `newest` is whatever the archive has that is newest.
pub(crate) const SERIES: &[&str] = &["6.1", "6.12", "6.18", "newest"];

/// Suffix of the flavour that is small and has virtio and BTF built in.
const FLAVOUR: &str = "-cloud-amd64";

/// A patch release a week late is no loss; an index fetched on every run is.
const MAX_AGE: u64 = 7 * 24 * 3600;

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// As asked for: `6.12`, `newest`
    pub(crate) series: String,
    /// `uname -r`
    pub(crate) release: String,
    /// The bootable image
    pub(crate) image: PathBuf,
    /// `lib/modules/RELEASE` of the package
    pub(crate) modules: PathBuf,
}

/// Brings a series into the cache, or a newer patch release of it when the last look is old.
pub(crate) fn ensure(series: &str, apt: &LazyApt, refresh: bool) -> Result<Kernel> {
    let name = format!("linux-{series}");
    let known = match Resolved::load(&name)? {
        Some(known) => open(series, &known).ok().map(|kernel| (kernel, known.age())),
        None => None,
    };
    if let Some((kernel, age)) = &known
        && !refresh
        && *age < MAX_AGE
    {
        return Ok(kernel.clone());
    }
    crate::setup::step(&format!("kernel {series}"), || fetch(series, &name, apt)).or_else(|error| {
        // Without a network, last week's patch release still proves more than none.
        let Some((kernel, _)) = known else { return Err(error) };
        println!("setup: kernel {series}: the index could not be used, keeping {}", kernel.release);
        Ok(kernel)
    })
}

fn fetch(series: &str, name: &str, apt: &LazyApt) -> Result<Kernel> {
    let all = apt.get()?.packages(|name| name.starts_with("linux-") && name.ends_with(FLAVOUR))?;
    let image = newest(series, &all)?
        .with_context(|| format!("the archive has no linux-*{FLAVOUR} of series {series}"))?;
    let release = release_of(image).unwrap_or_default().to_string();
    // From 6.19 on the image package is empty and the parts are packages of their own.
    let mut parts = vec![image.clone()];
    let modules = format!("linux-modules-{release}");
    parts.extend(all.iter().find(|package| package.name == modules).cloned());
    open(series, &Resolved::fetch(name, &release, &parts, apt)?)
}

/// `6.12.95+deb12-cloud-amd64` of a package that holds a bootable image.
fn release_of(package: &Package) -> Option<&str> {
    let name = package.name.as_str();
    let release = name.strip_prefix("linux-binary-").or_else(|| name.strip_prefix("linux-image-"))?;
    // Meta packages are called linux-image-cloud-amd64 and linux-image-6.12-cloud-amd64.
    let numbered = release.starts_with(|first: char| first.is_ascii_digit());
    (numbered && release.split('-').next()?.matches('.').count() >= 2).then_some(release)
}

fn newest<'a>(series: &str, all: &'a [Package]) -> Result<Option<&'a Package>> {
    let mut best: Option<&Package> = None;
    for package in all {
        let Some(release) = release_of(package) else { continue };
        if series != "newest" && !in_series(release, series) {
            continue;
        }
        best = match best {
            Some(old) if compare(old, package)? != Ordering::Less => Some(old),
            _ => Some(package),
        };
    }
    Ok(best)
}

fn in_series(release: &str, series: &str) -> bool {
    release.strip_prefix(series).is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
}

/// By Debian's rules; of one version, `linux-binary` (the image itself) is preferred.
fn compare(left: &Package, right: &Package) -> Result<Ordering> {
    if left.version == right.version {
        return Ok(right.name.cmp(&left.name));
    }
    let status = Command::new("dpkg")
        .args(["--compare-versions", &left.version, "lt", &right.version])
        .status()
        .context("dpkg is needed to compare package versions")?;
    Ok(if status.success() { Ordering::Less } else { Ordering::Greater })
}

fn open(series: &str, resolved: &Resolved) -> Result<Kernel> {
    let release = &resolved.version;
    let (mut image, mut modules) = (None, None);
    for dir in resolved.dirs()? {
        let images = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")];
        image = image.or(images.iter().map(|path| dir.join(path)).find(|path| path.is_file()));
        let places = [format!("lib/modules/{release}"), format!("usr/lib/modules/{release}")];
        // The image's own package may have the folder without the modules.
        let places = places.iter().map(|path| dir.join(path)).find(|path| path.join("kernel").is_dir());
        modules = modules.or(places);
    }
    let (Some(image), Some(modules)) = (image, modules) else {
        bail!("the packages of {release} hold no image or no modules");
    };
    fs::File::open(&image).with_context(|| format!("cannot read {}", image.display()))?;
    Ok(Kernel { series: series.to_string(), release: release.clone(), image, modules })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        Package { name: name.to_string(), version: version.to_string(), sha256: String::new() }
    }

    #[test]
    fn series_is_not_a_prefix_of_another() {
        assert!(in_series("6.1.0-50-cloud-amd64", "6.1"));
        assert!(!in_series("6.12.95+deb12-cloud-amd64", "6.1"));
    }

    #[test]
    fn newest_patch_release_and_the_package_with_the_image() {
        let all = [
            package("linux-image-cloud-amd64", "9.9"),
            package("linux-image-6.12-cloud-amd64", "9.9"),
            package("linux-image-6.12.9+deb12-cloud-amd64", "6.12.9-1"),
            package("linux-image-6.12.85+deb12-cloud-amd64", "6.12.85-1"),
            package("linux-image-7.3.4+deb13-cloud-amd64", "7.3.4-1"),
            package("linux-binary-7.3.4+deb13-cloud-amd64", "7.3.4-1"),
            package("linux-modules-7.3.4+deb13-cloud-amd64", "7.3.4-1"),
        ];
        assert_eq!(newest("6.12", &all).unwrap().unwrap().version, "6.12.85-1");
        assert_eq!(newest("newest", &all).unwrap().unwrap().name, "linux-binary-7.3.4+deb13-cloud-amd64");
        assert!(newest("6.18", &all).unwrap().is_none());
    }
}
