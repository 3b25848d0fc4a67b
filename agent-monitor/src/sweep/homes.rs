//! Whose homes there are in a root: from its own `/etc/passwd` and from what lies in `/home`.

use std::collections::{BTreeMap, BTreeSet};

use super::root::Root;

/// Most homes that are looked at.
const HOMES_MAX: usize = 2000;

/// A home directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The directory inside the root, without a closing slash.
    pub path: String,
    /// Its user.
    pub uid: Option<u32>,
    /// People work in it, so it may hold projects.
    pub of_a_person: bool,
}

/// Users and homes of a root.
#[derive(Debug, Clone, Default)]
pub struct Users {
    /// Homes, in order.
    pub homes: Vec<Home>,
    /// There are more than are looked at.
    pub cut: bool,
    names: BTreeMap<u32, String>,
}

impl Users {
    /// Reads them.
    #[must_use]
    pub fn read(root: &Root) -> Self {
        let passwd = root.text("/etc/passwd", 4 << 20).unwrap_or_default();
        let mut users = parse(&passwd);
        // One whose server may not answer is looked at by its own job, which has a limit.
        users
            .homes
            .retain(|home| root.is_remote(&home.path) || root.meta(&home.path).is_ok_and(|meta| meta.is_dir));
        let known: BTreeSet<String> = users.homes.iter().map(|home| home.path.clone()).collect();
        if let Ok((entries, more)) = root.list("/home", HOMES_MAX) {
            users.cut |= more;
            for entry in entries.iter().filter(|entry| entry.is_dir) {
                let path = format!("/home/{}", entry.name);
                if !known.contains(&path) {
                    let uid =
                        if root.is_remote(&path) { None } else { root.meta(&path).ok().map(|meta| meta.uid) };
                    users.homes.push(Home { path, uid, of_a_person: true });
                }
            }
        }
        users.homes.sort_by(|a, b| a.path.cmp(&b.path));
        users.cut |= users.homes.len() > HOMES_MAX;
        users.homes.truncate(HOMES_MAX);
        users
    }

    /// Number of a user, by name or number.
    #[must_use]
    pub fn uid(&self, user: &str) -> Option<u32> {
        let by_name = self.names.iter().find(|(_, name)| *name == user).map(|(uid, _)| *uid);
        by_name.or_else(|| user.parse().ok())
    }

    /// Name of a user.
    #[must_use]
    pub fn name(&self, uid: u32) -> Option<&str> {
        self.names.get(&uid).map(String::as_str)
    }
}

/// The pure half: users of a `passwd` file.
#[must_use]
pub fn parse(passwd: &str) -> Users {
    let mut users = Users::default();
    let mut seen = BTreeSet::new();
    for line in passwd.lines().take(100_000) {
        let fields: Vec<&str> = line.split(':').collect();
        let (Some(name), Some(Ok(uid)), Some(home)) =
            (fields.first(), fields.get(2).map(|f| f.parse()), fields.get(5))
        else {
            continue;
        };
        users.names.entry(uid).or_insert_with(|| (*name).to_owned());
        let path = home.trim_end_matches('/');
        if !may_be_home(path) || !seen.insert(path.to_owned()) {
            continue;
        }
        let of_a_person = path.starts_with("/home/") || path == "/root" || uid >= 1000;
        users.homes.push(Home { path: path.to_owned(), uid: Some(uid), of_a_person });
    }
    users
}

/// System users have all kinds of directories as homes; programs do not leave their state in these.
fn may_be_home(path: &str) -> bool {
    const NO_HOMES: &[&str] =
        &["/bin", "/sbin", "/dev", "/proc", "/run", "/var/run", "/etc", "/usr", "/boot", "/nonexistent"];
    let system = |top: &str| path == top || path.starts_with(&format!("{top}/"));
    path.starts_with('/')
        && path.len() > 1
        && (path.starts_with("/usr/share/") || !NO_HOMES.iter().any(|top| system(top)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_of_people_and_of_services() {
        let users = parse(
            "root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/usr/sbin:/x\nnobody:x:65534:1::/nonexistent:\n\
             a:x:1000:1000::/home/a/:/bin/bash\nollama:x:998:1::/usr/share/ollama:\nbroken\nx:y:z:::\nn8n:x:997:1::/var/lib/n8n:\n",
        );
        let homes: Vec<(&str, bool)> = users.homes.iter().map(|h| (h.path.as_str(), h.of_a_person)).collect();
        assert_eq!(
            homes,
            [("/root", true), ("/home/a", true), ("/usr/share/ollama", false), ("/var/lib/n8n", false)]
        );
        assert_eq!((users.name(1000), users.name(5)), (Some("a"), None));
        assert_eq!((users.uid("a"), users.uid("77"), users.uid("b")), (Some(1000), Some(77), None));
    }
}
