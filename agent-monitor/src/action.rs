//! What an event asked of a scope: the questions that the hooks would put for it, in the words of the contract.
//!
//! For proposals from the record and for judging recorded activity again. Where an event does not say enough to put
//! the very question, that is told ([`Unclear`]), never left out. Pure.
#![deny(clippy::wildcard_enum_match_arm)]

use std::net::IpAddr;

use agent_monitor_ebpf::policy::{NET_CONNECT, ask, power};

use crate::model::kinds::Asks;
use crate::model::privilege::CAPABILITIES;
use crate::model::{Access, AddressFamily, Event, File, Network};

/// One question to a scope.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// About a place.
    Place {
        /// Host path as the event has it, escaped by [`crate::model::text`].
        path: String,
        /// `major:minor`, where the event has it.
        dev: Option<String>,
        /// Bits of [`ask`].
        asked: u32,
        /// Bits that would be asked too if something was there, or if it was a directory: the event does not say.
        perhaps: Perhaps,
    },
    /// About an internet peer or own address.
    Net {
        /// The address.
        addr: IpAddr,
        /// The port; 0 where there is none.
        port: u16,
        /// `IPPROTO_*`; 0 where it is not known.
        protocol: u8,
        /// A `NET_*` bit.
        action: u8,
    },
    /// About a UNIX socket's abstract name, escaped by [`crate::model::text`].
    Abstract {
        /// The name, without the leading NUL.
        name: String,
        /// Bits of [`ask`].
        asked: u32,
    },
    /// About a power; one of [`power`].
    Power(usize),
    /// About gaining a capability, by number.
    Capability(usize),
}

/// What an event leaves open about a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Perhaps {
    /// Nothing.
    No,
    /// It may have been a directory that was moved with all below it.
    MovedDirectory,
    /// Something may have been there and was replaced.
    Replaced,
}

/// Why an event cannot be put as a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Unclear {
    /// The path was deeper or longer than the kernel side walks.
    #[error("the path is truncated")]
    Truncated,
    /// The event has no path.
    #[error("the event has no path")]
    NoPath,
    /// The path is of a file system that the host does not have mounted.
    #[error("the file system is not mounted on the host")]
    NotMounted,
    /// The event has no address.
    #[error("the event has no address")]
    NoAddress,
    /// A socket family that events do not tell enough about.
    #[error("the event does not say enough about a socket of this family")]
    SocketFamily,
    /// A capability whose name is not known.
    #[error("the capability is not known")]
    Capability,
}

/// The questions of one event. Empty for what scopes do not decide about; an event of a judged kind that lacks what it is
/// about is unclear, never free.
#[must_use]
pub fn of(event: &Event) -> Vec<Result<Action, Unclear>> {
    let file = |of: fn(&File, Asks) -> Vec<Result<Action, Unclear>>, asks| {
        event.file.as_ref().map_or_else(|| vec![Err(Unclear::NoPath)], |file| of(file, asks))
    };
    let one = |power| vec![Ok(Action::Power(power))];
    match event.kind.row().asks {
        Asks::Nothing(_) => Vec::new(),
        Asks::Exec => exec(event),
        asks @ (Asks::Open | Asks::Place(_) | Asks::Rename | Asks::Link) => file(of_file, asks),
        Asks::Net { inet, unix } => event
            .network
            .as_ref()
            .map_or_else(|| vec![Err(Unclear::NoAddress)], |network| of_network(network, inet, unix)),
        Asks::Power(power) => one(power),
        Asks::Capabilities => match &event.privilege {
            Some(privilege) if !privilege.capabilities.is_empty() => {
                privilege.capabilities.iter().map(|name| capability(name)).collect()
            }
            Some(_) | None => vec![Err(Unclear::Capability)],
        },
        Asks::Signal => {
            let own = event.agent.as_ref().map(|agent| agent.id.as_str());
            let target = event.privilege.as_ref().and_then(|privilege| privilege.target.as_ref());
            // Inside the agent's own processes signals are free.
            let inside = own.is_some() && target.and_then(|target| target.agent.as_deref()) == own;
            if inside { Vec::new() } else { one(power::SIGNAL) }
        }
        Asks::Namespaces => {
            namespaces(event.privilege.as_ref().map_or(&[], |privilege| &privilege.namespaces))
        }
    }
}

fn exec(event: &Event) -> Vec<Result<Action, Unclear>> {
    let Some(process) = &event.process else { return vec![Err(Unclear::NoPath)] };
    let image = place(process.exe.as_deref(), None, false, ask::EXEC, Perhaps::No);
    // A script that is an argument is read by its interpreter.
    let script = process.script.as_deref().filter(|_| !process.script_argument);
    let script = script.map(|path| place(Some(path), None, false, ask::EXEC, Perhaps::No));
    std::iter::once(image).chain(script).collect()
}

fn place(
    path: Option<&str>,
    dev: Option<&String>,
    truncated: bool,
    asked: u32,
    perhaps: Perhaps,
) -> Result<Action, Unclear> {
    let path = path.ok_or(Unclear::NoPath)?;
    if truncated {
        return Err(Unclear::Truncated);
    }
    if path.starts_with("//") {
        return Err(Unclear::NotMounted);
    }
    if !path.starts_with('/') {
        return Err(Unclear::NoPath);
    }
    Ok(Action::Place { path: path.to_owned(), dev: dev.cloned(), asked, perhaps })
}

/// Whether it is an object that has no place in a file system, which is free to use: a pipe, a socket, a memory file.
/// They are shown by a name without a slash; a name without a device is a text that could not be resolved.
fn placeless(file: &File) -> bool {
    file.dev.is_some() && file.path.as_deref().is_some_and(|path| !path.is_empty() && !path.starts_with('/'))
}

fn of_file(file: &File, asks: Asks) -> Vec<Result<Action, Unclear>> {
    if placeless(file) {
        return Vec::new();
    }
    let has = |access: Access| file.access.contains(&access);
    let bit = |access: Access, bit: u32| if has(access) { bit } else { 0 };
    let old = |asked, perhaps| place(file.path.as_deref(), file.dev.as_ref(), file.truncated, asked, perhaps);
    let new =
        |asked, perhaps| place(file.new_path.as_deref(), file.dev.as_ref(), file.truncated, asked, perhaps);
    match asks {
        Asks::Open => {
            let asked = bit(Access::Read, ask::READ)
                | bit(Access::Write, ask::WRITE)
                | bit(Access::Create, ask::CREATE)
                | bit(Access::Truncate, ask::WRITE);
            // Opened to be run, or for its path only: judged by what is done with it.
            if asked == 0 { Vec::new() } else { vec![old(asked, Perhaps::No)] }
        }
        Asks::Place(asked) => vec![old(asked, Perhaps::No)],
        Asks::Rename => {
            vec![old(ask::RENAME_OLD, Perhaps::MovedDirectory), new(ask::RENAME_NEW, Perhaps::Replaced)]
        }
        Asks::Link => vec![old(ask::LINK_OLD, Perhaps::No), new(ask::LINK_NEW, Perhaps::No)],
        Asks::Nothing(_)
        | Asks::Exec
        | Asks::Net { .. }
        | Asks::Power(_)
        | Asks::Capabilities
        | Asks::Signal
        | Asks::Namespaces => Vec::new(),
    }
}

fn of_network(network: &Network, action: u8, unix: u32) -> Vec<Result<Action, Unclear>> {
    match network.family {
        AddressFamily::Ipv4 | AddressFamily::Ipv6 => inet(network, action),
        AddressFamily::Unix => match (&network.path, &network.abstract_name) {
            (Some(path), _) => vec![place(Some(path), None, false, unix, Perhaps::No)],
            (None, Some(name)) => vec![Ok(Action::Abstract { name: name.clone(), asked: unix })],
            // Unnamed: a pair, or a name that the kernel picks.
            (None, None) => Vec::new(),
        },
        // Talks to the kernel; what it asks for is judged as a power.
        AddressFamily::Netlink => Vec::new(),
        AddressFamily::Packet => vec![Ok(Action::Power(power::RAW_SOCKET))],
        AddressFamily::Vsock | AddressFamily::Other => vec![Err(Unclear::SocketFamily)],
    }
}

fn inet(network: &Network, action: u8) -> Vec<Result<Action, Unclear>> {
    let at = if action == NET_CONNECT { network.remote } else { network.local };
    let Some(at) = at else { return vec![Err(Unclear::NoAddress)] };
    let raw = network.protocol.as_deref() == Some("raw");
    let protocol = match (network.protocol.as_deref(), network.family) {
        (Some("tcp" | "mptcp"), _) => 6,
        (Some("udp"), _) => 17,
        (Some("icmp"), AddressFamily::Ipv6) => 58,
        (Some("icmp"), _) => 1,
        (Some("sctp"), _) => 132,
        (Some("udplite"), _) => 136,
        (Some("raw"), _) => 255,
        _ => 0,
    };
    let peer = Action::Net { addr: at.ip().to_canonical(), port: at.port(), protocol, action };
    let power = raw.then_some(Ok(Action::Power(power::RAW_SOCKET)));
    std::iter::once(Ok(peer)).chain(power).collect()
}

fn capability(name: &str) -> Result<Action, Unclear> {
    let at = CAPABILITIES.iter().position(|known| *known == name);
    at.map(Action::Capability).ok_or(Unclear::Capability)
}

fn namespaces(names: &[String]) -> Vec<Result<Action, Unclear>> {
    let user = names.iter().any(|name| name == "user").then_some(Ok(Action::Power(power::USERNS)));
    let other = names.is_empty() || names.iter().any(|name| name != "user");
    user.into_iter().chain(other.then_some(Ok(Action::Power(power::NAMESPACE)))).collect()
}

#[cfg(test)]
mod tests;
