//! Who may decide: the record's approvers, by the credentials of the socket.
//!
//! The agent's own users never decide, whatever the record says. Root decides only where the record names nobody. That
//! no process of an agent calls at all is checked by the control API before anything else.

mod caller;
mod linux;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use self::caller::{Caller, Environment};
pub use self::linux::LinuxDirectory;
use crate::registry::record::Approver;

/// A person, as the user that called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Effective user id at the socket.
    pub uid: u32,
    /// Its name, where it has one.
    pub user: Option<String>,
    /// Where the call came from; absent where it was none.
    pub caller: Option<Arc<Caller>>,
}

impl Person {
    /// For people: the name, or the number.
    #[must_use]
    pub fn label(&self) -> String {
        self.user.clone().unwrap_or_else(|| format!("uid {}", self.uid))
    }

    /// Where the call came from, as a field of an event; `null` where it was none.
    #[must_use]
    pub fn caller_json(&self) -> serde_json::Value {
        self.caller.as_ref().map_or(serde_json::Value::Null, |caller| caller.json())
    }

    /// The same as text for the database.
    #[must_use]
    pub fn caller_text(&self) -> Option<String> {
        self.caller.as_ref().and_then(|caller| serde_json::to_string(caller).ok())
    }
}

/// What the host knows of users and groups. Nothing that cannot be looked up allows anything.
pub trait Directory {
    /// Name of a user.
    fn name(&self, uid: u32) -> Option<String>;
    /// Number of a user.
    fn uid(&self, user: &str) -> Option<u32>;
    /// Number of a group.
    fn gid(&self, group: &str) -> Option<u32>;
    /// All groups of a user, primary and supplementary.
    fn groups(&self, uid: u32) -> Vec<u32>;

    /// The person with this user id.
    fn person(&self, uid: u32) -> Person {
        Person { uid, user: self.name(uid), caller: None }
    }

    /// The person with this user id, who calls from there.
    fn calling(&self, uid: u32, caller: &Caller) -> Person {
        let caller = Some(Arc::new(caller.clone().named(|uid| self.name(uid))));
        Person { caller, ..self.person(uid) }
    }
}

/// Who decides for one agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Approvers {
    /// As in the record.
    pub named: Vec<Approver>,
    /// How many different people.
    pub need: usize,
    /// Users the agent runs as.
    pub own: BTreeSet<u32>,
}

/// Why someone may not decide.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// The agent's own user.
    #[error(
        "{0} is a user that the agent runs as, and an agent never approves itself: name other users in `approvers`"
    )]
    Own(String),
    /// Not among the approvers.
    #[error("{who} is not among the approvers of this agent ({approvers})")]
    NotNamed {
        /// Who called.
        who: String,
        /// Who may.
        approvers: String,
    },
    /// Nobody is named, so only root may.
    #[error("{0} may not decide: the record names no approvers, so only root may")]
    NotRoot(String),
}

impl Approvers {
    /// Whether this user may decide, and as what.
    ///
    /// # Errors
    /// Says why not.
    pub fn may(&self, uid: u32, directory: &dyn Directory) -> Result<String, NotAllowed> {
        let label = || directory.person(uid).label();
        if self.own.contains(&uid) {
            return Err(NotAllowed::Own(label()));
        }
        if self.named.is_empty() {
            return if uid == 0 { Ok("root".to_owned()) } else { Err(NotAllowed::NotRoot(label())) };
        }
        let groups = directory.groups(uid);
        let user = |name: &str| directory.uid(name) == Some(uid);
        let group = |name: &str| directory.gid(name).is_some_and(|gid| groups.contains(&gid));
        for approver in &self.named {
            let (by_user, by_group) = match approver {
                Approver::Any(name) => (user(name), group(name)),
                Approver::User(name) => (user(name), false),
                Approver::Group(name) => (false, group(name)),
            };
            if by_user {
                return Ok(format!("user:{}", approver.name()));
            }
            if by_group {
                return Ok(format!("group:{}", approver.name()));
            }
        }
        Err(NotAllowed::NotNamed { who: label(), approvers: self.words() })
    }

    /// Who may decide, for people.
    #[must_use]
    pub fn words(&self) -> String {
        if self.named.is_empty() {
            return "root".to_owned();
        }
        self.named.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! A directory for tests: users 0 root, 100 ann, 101 bob, 102 eve, 200 bot; group 50 oncall of ann and bob.

    use super::Directory;

    #[derive(Debug, Clone, Copy, Default)]
    pub(crate) struct FakeDirectory;

    const USERS: [(u32, &str); 5] = [(0, "root"), (100, "ann"), (101, "bob"), (102, "eve"), (200, "bot")];

    impl Directory for FakeDirectory {
        fn name(&self, uid: u32) -> Option<String> {
            USERS.iter().find(|(known, _)| *known == uid).map(|(_, name)| (*name).to_owned())
        }

        fn uid(&self, user: &str) -> Option<u32> {
            USERS.iter().find(|(_, name)| *name == user).map(|(uid, _)| *uid)
        }

        fn gid(&self, group: &str) -> Option<u32> {
            (group == "oncall").then_some(50)
        }

        fn groups(&self, uid: u32) -> Vec<u32> {
            if matches!(uid, 100 | 101) { vec![uid, 50] } else { vec![uid] }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeDirectory;
    use super::*;

    fn of(named: &[Approver], own: &[u32]) -> Approvers {
        Approvers { named: named.to_vec(), need: 1, own: own.iter().copied().collect() }
    }

    #[test]
    fn users_groups_root_and_the_agent_itself() {
        let d = FakeDirectory;
        let nobody = of(&[], &[200]);
        assert_eq!(nobody.may(0, &d), Ok("root".to_owned()));
        assert!(matches!(nobody.may(100, &d), Err(NotAllowed::NotRoot(who)) if who == "ann"));
        let oncall = of(&[Approver::Group("oncall".to_owned())], &[200]);
        assert_eq!(oncall.may(101, &d), Ok("group:oncall".to_owned()));
        assert!(oncall.may(0, &d).is_err(), "root is no approver by itself");
        assert!(oncall.may(102, &d).is_err() && oncall.may(4242, &d).is_err());
        let any = of(&[Approver::Any("oncall".to_owned()), Approver::Any("eve".to_owned())], &[]);
        assert_eq!(any.may(102, &d), Ok("user:eve".to_owned()));
        assert_eq!(any.may(100, &d), Ok("group:oncall".to_owned()));
        let user = of(&[Approver::User("oncall".to_owned())], &[]);
        assert!(user.may(100, &d).is_err(), "user: does not mean the group");
        let own = of(&[Approver::User("ann".to_owned())], &[100]);
        assert!(matches!(own.may(100, &d), Err(NotAllowed::Own(_))));
        assert!(matches!(of(&[], &[0]).may(0, &d), Err(NotAllowed::Own(_))), "an agent that runs as root");
    }

    #[test]
    fn a_group_is_no_user_of_that_name() {
        let d = FakeDirectory;
        let group = of(&[Approver::Group("eve".to_owned())], &[]);
        assert!(group.may(102, &d).is_err());
        // A group that does not exist has no members, also not those whose groups nobody knows.
        assert!(of(&[Approver::Any("nobody".to_owned())], &[]).may(4242, &d).is_err());
        // The second of two counts as well, and the others are named in the refusal.
        let two = of(&[Approver::User("eve".to_owned()), Approver::User("bob".to_owned())], &[200]);
        assert_eq!(two.may(101, &d), Ok("user:bob".to_owned()));
        let refused = two.may(100, &d).unwrap_err();
        assert_eq!(
            refused,
            NotAllowed::NotNamed { who: "ann".to_owned(), approvers: "user:eve, user:bob".to_owned() }
        );
        assert_eq!((of(&[], &[]).words().as_str(), d.person(100).label().as_str()), ("root", "ann"));
    }

    #[test]
    fn supplementary_groups_of_this_host_are_those_of_its_database() {
        // Some host in a container has one user in a group that is not its own.
        let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let &[group, _, gid, members] = fields.as_slice() else { continue };
            for user in members.split(',').filter(|user| !user.is_empty()) {
                let Some(uid) = LinuxDirectory.uid(user) else { continue };
                let groups = LinuxDirectory.groups(uid);
                assert!(groups.contains(&gid.parse().unwrap()), "{user} {group} {groups:?}");
                assert!(groups.len() < 64 && !groups.contains(&4_000_000_000));
            }
        }
        assert_eq!(LinuxDirectory.gid("root"), Some(0));
        assert_eq!(LinuxDirectory.name(4_000_000_000), None);
    }

    #[test]
    fn this_host_is_looked_up() {
        let d = LinuxDirectory;
        assert_eq!((d.name(0).as_deref(), d.uid("root")), (Some("root"), Some(0)));
        assert!(d.groups(0).contains(&0));
        assert_eq!(d.groups(4_000_000_000), Vec::<u32>::new());
        assert_eq!(d.gid("no-such-group-1b2c"), None);
    }
}
