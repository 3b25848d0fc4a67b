//! The running host: processes read and judged, scripts looked into, providers' addresses known.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::edits;
use super::jobs::Outcome;
use super::judge::{Ask, container_label, judge};
use super::manifest;
use super::observe::Harvest;
use super::pack::Pack;
use super::proc::{self, Proc, Processes};
use super::registered::Register;
use super::resolved;
use super::root::Root;
use crate::model::Time;

/// Bytes of a script that are looked at for imports.
const SCRIPT_HEAD: u64 = 256 << 10;
/// Most containers that are looked into.
const CONTAINERS_MAX: usize = 128;
/// Longest that looking up names may take.
const RESOLVE_TIME: Duration = Duration::from_secs(3);

/// The job: all processes.
pub(super) fn processes(
    pack: &Arc<Pack>,
    register: Arc<Register>,
    resolve: bool,
    patience: Duration,
) -> Outcome {
    let mut harvest = Harvest::default();
    let procs = proc::read_all(pack, Instant::now() + patience.mul_f32(0.6), &mut harvest);
    let mut ask = Live::new(pack, register);
    let cache = ask.cached(pack);
    if resolve {
        ask.resolve(pack, &mut harvest);
    }
    harvest.seen = judge(pack, &procs, &mut ask);
    let containers = containers(&procs);
    harvest.cover("processes");
    if !resolve {
        let detail = format!(
            "connections are told by known networks, /etc/hosts and {cache}; names of providers are looked up only with --resolve"
        );
        harvest.coverage.push(super::report::Coverage {
            source: "provider names".to_owned(),
            looked: super::report::Looked::Partly,
            count: u64::try_from(ask.networks.len() + ask.addresses.len()).unwrap_or(u64::MAX),
            detail: Some(detail),
        });
    }
    Outcome { harvest, containers }
}

/// One process of each container: the longest-running.
fn containers(procs: &Processes) -> Vec<(String, u32)> {
    let mut found: BTreeMap<String, &Proc> = BTreeMap::new();
    for proc in procs.all.values().filter(|proc| proc.elsewhere) {
        let Some(label) = container_label(proc) else { continue };
        let slot = found.entry(label).or_insert(proc);
        if proc.start_ticks < slot.start_ticks {
            *slot = proc;
        }
    }
    found.into_iter().take(CONTAINERS_MAX).map(|(id, proc)| (id, proc.pid)).collect()
}

/// Answers about this host.
struct Live {
    register: Arc<Register>,
    networks: Vec<(ipnet::IpNet, String)>,
    addresses: BTreeMap<IpAddr, String>,
    /// Modules by mount namespace and script.
    scripts: BTreeMap<(Option<u64>, String), Vec<String>>,
    host: Option<Root>,
}

impl Live {
    fn new(pack: &Pack, register: Arc<Register>) -> Self {
        let networks = pack.products().iter().flat_map(|product| {
            product.networks.iter().map(|network| (*network, format!("the provider of {}", product.name)))
        });
        let host = Root::open(&PathBuf::from("/"), "", false).ok();
        let hosts = host.as_ref().and_then(|root| root.text("/etc/hosts", 1 << 20).ok()).unwrap_or_default();
        let names = provider_names(pack);
        Self {
            register,
            networks: networks.collect(),
            addresses: hosts_file(&hosts, &names),
            scripts: BTreeMap::new(),
            host,
        }
    }

    /// The file system that a process sees.
    fn root_of(&self, proc: &Proc) -> Option<Root> {
        if !proc.elsewhere {
            return self.host.clone();
        }
        Root::of_process(proc.pid, "", false).ok()
    }

    /// Takes what the host's resolver has cached; what that was, in words.
    fn cached(&mut self, pack: &Pack) -> String {
        match resolved::addresses(Path::new(resolved::SOCKET), &provider_names(pack)) {
            Ok(found) => {
                let words = format!("the cache of systemd-resolved ({} addresses of providers)", found.len());
                for (address, name) in found {
                    self.addresses.entry(address).or_insert(name);
                }
                words
            }
            Err(error) => format!("not the cache of systemd-resolved ({error})"),
        }
    }

    /// Asks the host's resolver for the addresses of all providers, side by side.
    fn resolve(&mut self, pack: &Pack, out: &mut Harvest) {
        let (send, receive) = channel();
        let names = provider_names(pack);
        let wanted = names.len();
        for name in names {
            let send = send.clone();
            let look_up = move || {
                let found: Vec<IpAddr> = (name.as_str(), 443)
                    .to_socket_addrs()
                    .map(|addresses| addresses.map(|address| address.ip()).collect())
                    .unwrap_or_default();
                // The sweep may have gone on without the answer.
                drop(send.send((name, found)));
            };
            drop(std::thread::Builder::new().stack_size(512 << 10).spawn(look_up));
        }
        drop(send);
        let until = Instant::now() + RESOLVE_TIME;
        let mut answered = 0;
        while let Ok((name, found)) = receive.recv_timeout(until.saturating_duration_since(Instant::now())) {
            answered += usize::from(!found.is_empty());
            for address in
                found.into_iter().filter(|address| !address.is_loopback() && !address.is_unspecified())
            {
                self.addresses.entry(address).or_insert_with(|| name.clone());
            }
        }
        if answered < wanted {
            out.reason(
                "names of model providers without an answer",
                format!("{} of {wanted}", wanted - answered),
            );
        }
    }
}

/// Host names of providers, without wildcards.
fn provider_names(pack: &Pack) -> BTreeSet<String> {
    let plain = |host: &&String| {
        host.contains('.') && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
    };
    pack.provider_hosts().iter().filter(plain).cloned().collect()
}

/// Addresses that `/etc/hosts` gives to providers. Pure.
fn hosts_file(text: &str, names: &BTreeSet<String>) -> BTreeMap<IpAddr, String> {
    let mut found = BTreeMap::new();
    for line in text.lines().take(100_000) {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        if let Some(name) = words.find(|word| names.contains(*word)) {
            found.insert(address, name.to_owned());
        }
    }
    found
}

impl Ask for Live {
    fn caller(&self) -> Option<u32> {
        Some(std::process::id())
    }

    fn imports(&mut self, proc: &Proc, script: &str) -> Vec<String> {
        let key = (proc.mount_ns.filter(|_| proc.elsewhere), script.to_owned());
        if let Some(known) = self.scripts.get(&key) {
            return known.clone();
        }
        let read = |root: &Root| root.head(script, SCRIPT_HEAD).ok();
        let text = if proc.elsewhere {
            Root::open(&PathBuf::from(format!("/proc/{}/root", proc.pid)), "", false)
                .ok()
                .as_ref()
                .and_then(read)
        } else {
            self.host.as_ref().and_then(read)
        };
        let text = text.filter(|text| !text.contains(&0)).unwrap_or_default();
        let modules = manifest::imports(&String::from_utf8_lossy(&text));
        self.scripts.insert(key, modules.clone());
        modules
    }

    fn agent(&mut self, proc: &Proc, script: Option<&str>) -> Option<(String, bool)> {
        self.register.of_process(proc, script)
    }

    fn canonical(&mut self, proc: &Proc, path: &str) -> Option<String> {
        self.root_of(proc)?.canonical(path)
    }

    fn version(&mut self, proc: &Proc, path: &str) -> Option<(String, String)> {
        let root = self.root_of(proc)?;
        let (above, below) = path.split_once("/node_modules/")?;
        let mut parts = below.split('/');
        let first = parts.next()?;
        let name =
            if first.starts_with('@') { format!("{first}/{}", parts.next()?) } else { first.to_owned() };
        let directory = format!("{above}/node_modules/{name}");
        let text = root.read(&format!("{directory}/package.json"), SCRIPT_HEAD).ok()?;
        Some((manifest::package_json(&text)?.version?, directory))
    }

    fn edited(&mut self, proc: &Proc) -> Option<String> {
        // The kernel says in whole seconds when it booted, and starts are told from there.
        let since = Time::from_unix_nanos(proc.start?.unix_nanos() + 1_000_000_000);
        edits::edited(&self.root_of(proc)?, proc.cwd.as_deref()?, proc.uid, since)
    }

    fn provider(&mut self, peer: SocketAddr) -> Option<String> {
        let ip = peer.ip().to_canonical();
        let known = self.addresses.get(&ip).cloned();
        known
            .or_else(|| self.networks.iter().find(|(net, _)| net.contains(&ip)).map(|(_, name)| name.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_files_name_providers() {
        let names = BTreeSet::from(["api.openai.com".to_owned()]);
        let found = hosts_file(
            "127.0.0.1 localhost\n10.0.0.9 proxy api.openai.com # x\n#10.0.0.8 api.openai.com\nx\n",
            &names,
        );
        assert_eq!(found, BTreeMap::from([("10.0.0.9".parse().unwrap(), "api.openai.com".to_owned())]));
    }
}
