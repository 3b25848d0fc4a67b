//! Observations → finds: one per product, owner and place. Pure.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::homes::Users;
use super::observe::{About, Observation, Place, Source};
use super::pack::Pack;
use super::report::{
    Confidence, Evidence, Find, Fix, Owner, Product, ProductKind, Registry, RegistryState, Risk, State,
};

/// What shared names and files say at the most, together: low.
const AMBIGUOUS_MAX: u8 = 45;
/// What an entry that nobody has verified says at the most: medium.
const UNVERIFIED_MAX: u8 = 79;
/// Finds that say less are not told at all.
const IDENTITY_MIN: u8 = 15;
/// Most lines of evidence, paths, processes of a find.
const LINES_MAX: usize = 60;
/// Id of programs that are in no pack.
pub const HOME_MADE: &str = "home-made";
/// Id of MCP servers that are in no pack.
pub const MCP_SERVER: &str = "mcp-server";

/// What independent signs say together, 0 to 100.
#[must_use]
pub fn together(weights: impl Iterator<Item = u8>) -> u8 {
    let against = weights.fold(1.0, |left: f64, weight| left * (1.0 - f64::from(weight.min(100)) / 100.0));
    // 0 to 100 by construction.
    let score = ((1.0 - against) * 100.0).round().clamp(0.0, 99.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0 to 99")]
    let score = score as u8;
    score
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    about: About,
    variant: Option<String>,
    place: Place,
}

/// Who registered what, of files.
pub trait Registered {
    /// The agent whose record names a file at or below one of these paths, and whether the record has expired.
    fn of_paths(&self, paths: &[String], uid: Option<u32>) -> Option<(String, bool)>;
    /// Whether a person has retired an agent.
    fn is_retired(&self, agent: &str) -> bool;
}

/// Makes finds of observations. `keys` are credential files in homes, by owner.
#[must_use]
pub fn correlate(
    pack: &Pack,
    observations: Vec<Observation>,
    users: &Users,
    keys: &BTreeMap<Place, Vec<String>>,
    registered: &dyn Registered,
) -> Vec<Find> {
    let mut groups: BTreeMap<Key, Vec<Observation>> = BTreeMap::new();
    for observation in observations {
        let variant = match &observation.about {
            About::Product(index) => variant_of(pack, *index, observation.variant.as_deref()),
            About::HomeMade(_) | About::McpServer(_) => None,
        };
        let key = Key { about: observation.about.clone(), variant, place: observation.place.clone() };
        groups.entry(key).or_default().push(observation);
    }
    fold_system(&mut groups);
    let mut finds: Vec<Find> =
        groups.into_iter().filter_map(|(key, seen)| find(pack, key, seen, users, keys, registered)).collect();
    inherit(&mut finds);
    finds.sort_by(|a, b| {
        (
            a.registry.state,
            std::cmp::Reverse((a.identity.score, a.state, a.presence.score)),
            &a.product.id,
            &a.id,
        )
            .cmp(&(
                b.registry.state,
                std::cmp::Reverse((b.identity.score, b.state, b.presence.score)),
                &b.product.id,
                &b.id,
            ))
    });
    finds
}

fn kind(pack: &Pack, about: &About) -> ProductKind {
    match about {
        About::Product(index) => {
            pack.product(*index).map_or(ProductKind::Component, |product| product.kind())
        }
        About::HomeMade(_) => ProductKind::Framework,
        About::McpServer(_) => ProductKind::McpServer,
    }
}

/// Groups of servers are told apart by what is run; a program's own name tells nothing else apart.
#[must_use]
pub fn variant_of(pack: &Pack, index: super::pack::ProductIndex, variant: Option<&str>) -> Option<String> {
    let server = pack.product(index).is_some_and(|product| product.kind() == ProductKind::McpServer);
    variant.filter(|_| server && is_group(pack, index)).map(server_name)
}

/// An entry that stands for several servers.
fn is_group(pack: &Pack, index: usize) -> bool {
    pack.product(index).is_some_and(|product| product.list("npm").len() + product.list("pypi").len() > 1)
}

/// `@modelcontextprotocol/server-git`, `mcp_server_git` and `mcp-server-git` are one.
fn server_name(variant: &str) -> String {
    let base = variant.rsplit('/').next().unwrap_or(variant).replace('_', "-");
    match base.strip_prefix("server-") {
        Some(rest) if variant.starts_with("@modelcontextprotocol/") => format!("mcp-server-{rest}"),
        _ if base == "mcp" => variant.trim_start_matches('@').to_owned(),
        _ => base,
    }
}

/// A system-wide installation is part of what its users have of it, not a find beside theirs.
fn fold_system(groups: &mut BTreeMap<Key, Vec<Observation>>) {
    let system: Vec<Key> = groups.keys().filter(|key| key.place.uid.is_none()).cloned().collect();
    for key in system {
        let uses = |other: &Key, seen: &[Observation]| {
            other.place.uid.is_some()
                && other.place.container == key.place.container
                && other.about == key.about
                && (other.variant == key.variant)
                && seen.iter().any(|o| matches!(o.source, Source::Process | Source::State) && !o.ambiguous)
        };
        let users: Vec<Key> =
            groups.iter().filter(|(other, seen)| uses(other, seen)).map(|(k, _)| k.clone()).collect();
        if users.is_empty() {
            continue;
        }
        let shared = groups.remove(&key).unwrap_or_default();
        for user in users {
            groups.entry(user).or_default().extend(shared.iter().cloned());
        }
    }
}

fn find(
    pack: &Pack,
    key: Key,
    mut seen: Vec<Observation>,
    users: &Users,
    keys: &BTreeMap<Place, Vec<String>>,
    registered: &dyn Registered,
) -> Option<Find> {
    seen.sort_by(|a, b| {
        (std::cmp::Reverse(a.weight), a.source, &a.at).cmp(&(std::cmp::Reverse(b.weight), b.source, &b.at))
    });
    let identity = identity(&seen).min(ceiling(pack, &key.about));
    if identity < IDENTITY_MIN {
        return None;
    }
    let kind = kind(pack, &key.about);
    let state =
        seen.iter().filter(|o| counts_for_state(o)).map(|o| o.source.state()).max().unwrap_or(State::Traces);
    let product = product(pack, &key, kind, &seen);
    let paths: Vec<String> = unique(seen.iter().filter_map(|o| o.path.clone()));
    let owner = owner(&key.place, &seen, users);
    let agent = seen.iter().find_map(|o| o.process.as_ref()?.agent.clone());
    let agent = agent.or_else(|| registered.of_paths(&paths, key.place.uid));
    let registry = match agent {
        Some((agent, _)) if registered.is_retired(&agent) => {
            Registry { state: RegistryState::Retired, agent: Some(agent) }
        }
        Some((agent, false)) => Registry { state: RegistryState::Registered, agent: Some(agent) },
        Some((agent, true)) => Registry { state: RegistryState::Expired, agent: Some(agent) },
        None if !kind.is_agent() => Registry { state: RegistryState::Component, agent: None },
        None => Registry { state: RegistryState::Shadow, agent: None },
    };
    let mut processes: Vec<_> =
        seen.iter().filter_map(|o| o.process.as_ref().map(|p| p.shown.clone())).collect();
    processes.sort_by_key(|process| process.pid);
    processes.dedup_by_key(|process| process.pid);
    processes.truncate(LINES_MAX);
    let risks = risks(&seen, state, &key.place, keys);
    let id = id(&product, &key);
    let fix = fix(&product, &registry, identity, &id);
    Some(Find {
        id,
        presence: Confidence::of(presence(&seen, state)),
        identity: Confidence::of(identity),
        state,
        registry,
        owner,
        paths,
        processes,
        mcp_servers: unique(seen.iter().flat_map(|o| o.servers.clone())),
        evidence: unique(seen.iter().map(Observation::evidence).filter(|e: &Evidence| !e.what.is_empty())),
        risks,
        fix,
        change: None,
        history_count: seen.iter().filter_map(|o| o.count).reduce(u64::saturating_add),
        product,
    })
}

/// What nobody has looked at himself is never told with high confidence.
fn ceiling(pack: &Pack, about: &About) -> u8 {
    match about {
        About::Product(index) if pack.product(*index).is_some_and(|product| !product.verified) => {
            UNVERIFIED_MAX
        }
        _ => 100,
    }
}

/// Shared names and dependencies do not make a thing run or be installed, unless nothing else is known.
fn counts_for_state(observation: &Observation) -> bool {
    !observation.ambiguous || observation.source != Source::McpConfig
}

fn unique<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut out: Vec<T> = Vec::new();
    for item in items {
        if out.len() >= LINES_MAX {
            break;
        }
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

/// Each kind of source counts once, with its strongest line; shared signs alone stay low.
fn identity(seen: &[Observation]) -> u8 {
    let mut best: BTreeMap<(Source, bool), u8> = BTreeMap::new();
    for observation in seen {
        let slot = best.entry((observation.source, observation.ambiguous)).or_default();
        *slot = (*slot).max(observation.weight);
    }
    let sure = together(best.iter().filter(|((_, ambiguous), _)| !ambiguous).map(|(_, weight)| *weight));
    let shared = together(best.iter().filter(|((_, ambiguous), _)| *ambiguous).map(|(_, weight)| *weight));
    let shared = shared.min(AMBIGUOUS_MAX);
    if sure == 0 { shared } else { together([sure, shared / 2].into_iter()) }
}

fn presence(seen: &[Observation], state: State) -> u8 {
    let sources: BTreeSet<Source> = seen.iter().map(|o| o.source).collect();
    match state {
        State::Running => 99,
        State::Installed if sources.contains(&Source::Package) || sources.contains(&Source::Extension) => 90,
        State::Installed => 80,
        State::Configured => 60,
        State::Traces => 30,
    }
}

fn product(pack: &Pack, key: &Key, kind: ProductKind, seen: &[Observation]) -> Product {
    let version = version(pack, key, seen);
    match &key.about {
        About::Product(index) => {
            let known = pack.product(*index);
            Product {
                id: known.map(|product| product.id.clone()).unwrap_or_default(),
                name: known.map(|product| product.name.clone()).unwrap_or_default(),
                kind,
                variant: key.variant.clone(),
                version,
            }
        }
        About::HomeMade(path) => Product {
            id: HOME_MADE.to_owned(),
            name: format!("Home-made agent {}", path.rsplit('/').next().unwrap_or(path)),
            kind,
            variant: Some(path.clone()),
            version: None,
        },
        About::McpServer(name) => Product {
            id: MCP_SERVER.to_owned(),
            name: format!("MCP server {}", name.rsplit('/').next().unwrap_or(name)),
            kind,
            variant: Some(name.clone()),
            version: None,
        },
    }
}

/// The version of the package that the pack names first; libraries of a product have versions of their own.
fn version(pack: &Pack, key: &Key, seen: &[Observation]) -> Option<String> {
    let order = |observation: &Observation| {
        let About::Product(index) = &key.about else { return usize::MAX };
        let product = pack.product(*index);
        let names = product.into_iter().flat_map(|p| ["npm", "pypi", "crates"].map(|k| p.list(k))).flatten();
        let variant = observation.variant.as_deref().unwrap_or_default().replace('_', "-");
        names.enumerate().find(|(_, name)| name.replace('_', "-") == variant).map_or(usize::MAX, |(at, _)| at)
    };
    let with = seen.iter().filter(|o| o.version.is_some());
    with.min_by_key(|o| (o.ambiguous, order(o))).and_then(|o| o.version.clone())
}

fn owner(place: &Place, seen: &[Observation], users: &Users) -> Owner {
    // Inside a container a number is another user.
    let name = |uid: u32| users.name(uid).filter(|_| place.container.is_none()).map(str::to_owned);
    let process = seen.iter().find_map(|o| o.process.as_deref());
    Owner {
        uid: place.uid,
        user: place.uid.and_then(name),
        login_user: process
            .and_then(|p| p.login_uid)
            .and_then(|uid| name(uid).or_else(|| Some(uid.to_string()))),
        session: process.and_then(|p| p.session),
        unit: process.and_then(|p| p.shown.unit.clone()),
        container: place.container.clone(),
        started_by: process.map(|p| p.parents.clone()).unwrap_or_default(),
    }
}

fn risks(
    seen: &[Observation],
    state: State,
    place: &Place,
    keys: &BTreeMap<Place, Vec<String>>,
) -> Vec<Risk> {
    let mut risks: BTreeSet<Risk> = seen.iter().flat_map(|o| o.risks.iter().cloned()).collect();
    if state >= State::Installed
        && let Some(files) = keys.get(place).filter(|files| !files.is_empty())
    {
        let shown: Vec<&str> = files.iter().take(8).map(String::as_str).collect();
        let detail = format!("files: {}", shown.join(", "));
        risks.insert(Risk { mark: "keys_in_reach".to_owned(), detail });
    }
    risks.into_iter().take(LINES_MAX).collect()
}

/// The same for the same product, owner and place.
fn id(product: &Product, key: &Key) -> String {
    find_id(&product.id, product.variant.as_deref(), key.place.uid, key.place.container.as_deref())
}

/// Id of a find: what the daemon says at an exec has the same.
#[must_use]
pub fn find_id(product: &str, variant: Option<&str>, uid: Option<u32>, container: Option<&str>) -> String {
    use std::fmt::Write as _;
    let uid = uid.map(|uid| uid.to_string());
    let text =
        [product, variant.unwrap_or("-"), uid.as_deref().unwrap_or("-"), container.unwrap_or("-")].join("\0");
    let mut out = "shadow-".to_owned();
    for byte in Sha256::digest(text.as_bytes()).iter().take(6) {
        // Writing into a String cannot fail.
        write!(out, "{byte:02x}").ok();
    }
    out
}

fn fix(product: &Product, registry: &Registry, identity: u8, id: &str) -> Option<Fix> {
    let record = format!("{}.toml", super::propose::agent_id(product, id));
    let advice = match registry.state {
        RegistryState::Registered | RegistryState::Component | RegistryState::Unknown => return None,
        RegistryState::Expired => format!(
            "its record `{}` has expired: renew it, or remove the agent",
            registry.agent.as_deref().unwrap_or_default()
        ),
        RegistryState::Retired => format!(
            "its agent `{}` is retired and it is still there: remove it, and then its record",
            registry.agent.as_deref().unwrap_or_default()
        ),
        RegistryState::Shadow if identity < 50 => {
            "look whether it is one; others use the same names".to_owned()
        }
        RegistryState::Shadow => format!("register it (agent-monitor agent adopt {id}), or remove it"),
    };
    Some(Fix { advice, record })
}

/// A registered client and the configurations that it reads.
struct Client {
    uid: Option<u32>,
    container: Option<String>,
    configs: Vec<String>,
    agent: String,
}

/// MCP servers that only a registered client is configured with are its own.
fn inherit(finds: &mut [Find]) {
    let is_client = |find: &&Find| {
        find.registry.state == RegistryState::Registered && find.product.kind != ProductKind::McpServer
    };
    let client = |find: &Find| {
        Some(Client {
            uid: find.owner.uid,
            container: find.owner.container.clone(),
            configs: find.mcp_servers.iter().map(|server| server.config.clone()).collect(),
            agent: find.registry.agent.clone()?,
        })
    };
    let clients: Vec<Client> = finds.iter().filter(is_client).filter_map(client).collect();
    for find in finds.iter_mut() {
        if find.product.kind != ProductKind::McpServer || find.registry.state != RegistryState::Shadow {
            continue;
        }
        let all_of = |configs: &[String]| {
            !find.mcp_servers.is_empty()
                && find.mcp_servers.iter().all(|server| configs.contains(&server.config))
        };
        let same = |client: &&Client| {
            client.uid == find.owner.uid
                && client.container == find.owner.container
                && all_of(&client.configs)
        };
        if let Some(client) = clients.iter().find(same) {
            find.registry = Registry { state: RegistryState::Registered, agent: Some(client.agent.clone()) };
            find.fix = None;
        }
    }
}

#[cfg(test)]
mod tests;
