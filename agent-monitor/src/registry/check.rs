//! Checks of one record against the time and the host.
//!
//! The time is a parameter and the host is a trait, so that the same record, time and facts always
//! give the same answer.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::{
    diagnostic::{Code, Diagnostic, Severity},
    facts::{HostFacts, Lookup, PathKind, User},
    record::{Approver, Match, Record, UserRef},
    source::{Located, Position},
};

/// An end further away than this is no end.
const FAR: SignedDuration = SignedDuration::from_hours(2 * 366 * 24);

/// Everything that is wrong with a record here and now, in the order of the file.
pub fn check_record(record: &Record, facts: &dyn HostFacts, now: Timestamp) -> Vec<Diagnostic> {
    let mut check = Check { record, facts, problems: Vec::new() };
    check.expiry(now);
    check.matches();
    check.approvers();
    check.offboarding();
    check.scope();
    check.problems.sort_by_key(|problem| (problem.at.line, problem.at.column));
    check.problems
}

struct Check<'a> {
    record: &'a Record,
    facts: &'a dyn HostFacts,
    problems: Vec<Diagnostic>,
}

impl Check<'_> {
    fn report(
        &mut self,
        severity: Severity,
        code: Code,
        at: Position,
        message: String,
        hint: impl Into<String>,
    ) {
        let problem = Diagnostic::new(&self.record.source, severity, code, at, message);
        self.problems.push(problem.hint(hint));
    }

    fn expiry(&mut self, now: Timestamp) {
        let expires = self.record.expires;
        if self.record.is_expired(now) {
            self.report(
                Severity::Error,
                Code::Expired,
                expires.at,
                format!("the agent expired at {}", expires.value),
                "renew it with a later date, or retire the agent and remove the file",
            );
        } else if expires.value.duration_since(now) > FAR {
            self.report(
                Severity::Warning,
                Code::ExpiryFar,
                expires.at,
                format!("the agent expires only at {}", expires.value),
                "choose a date within two years; `agent renew` moves it",
            );
        }
    }

    fn matches(&mut self) {
        let record = self.record;
        for found in &record.matches {
            if let Some(unit) = &found.unit {
                self.unit(unit, &found.name);
            }
            if let Some(user) = &found.user {
                self.user(user, &found.name);
            }
            for (key, path) in [("exe", &found.exe), ("script", &found.script)] {
                if let Some(path) = path {
                    self.program(path, &format!("{}.{key}", found.name), Severity::Warning);
                }
            }
            if let Some(exe) = &found.exe {
                self.shared(found, exe);
            }
        }
    }

    /// What the name of a program does not show: where links lead, and whether the user is who asks.
    fn shared(&mut self, found: &Match, exe: &Located<String>) {
        let by_name = found.shared_width(exe);
        let real = self.facts.real_path(Path::new(exe.as_str()));
        let real = real.as_deref().and_then(Path::to_str).filter(|real| *real != exe.as_str());
        let by_link = real.and_then(|real| found.shared_width(real));
        let Some(width) = by_name.or(by_link) else { return };
        let uid = found.user.as_ref().and_then(|user| self.account(user)).map(|user| user.uid);
        if uid.is_some_and(|uid| uid == 0 || self.facts.callers().contains(&uid)) && width.is_for_people() {
            self.report(
                Severity::Error,
                Code::TooWide,
                exe.at,
                format!("{}: every {} of yours would be the agent's", found.name, exe.value),
                width.hint(),
            );
        } else if by_name.is_none() {
            let message = format!("{} leads there: {}", exe.value, width.message(real.unwrap_or(exe)));
            self.report(width.severity(), Code::TooWide, exe.at, message, width.hint());
        }
    }

    fn unit(&mut self, unit: &Located<String>, name: &str) {
        let (severity, message, hint) = match self.facts.unit(unit) {
            Lookup::Found(()) => return,
            // Scopes and slices come into being when something starts in them.
            Lookup::Absent if !unit.ends_with(".service") => return,
            Lookup::Absent => (
                Severity::Error,
                format!("{name}: this host has no unit `{}`", unit.value),
                "`systemctl list-unit-files` shows the names; for a unit that exists only while it runs use cgroup",
            ),
            Lookup::Unavailable(why) => (
                Severity::Warning,
                format!("{name}: cannot tell whether there is a unit `{}`: {why}", unit.value),
                "nothing is recognised by it as long as systemd does not run",
            ),
        };
        self.report(severity, Code::UnknownUnit, unit.at, message, hint);
    }

    fn user(&mut self, user: &Located<UserRef>, name: &str) {
        let UserRef::Name(login) = &user.value else {
            // A number is a user whether or not it has a name; containers rely on that.
            return;
        };
        let (severity, message, hint) = match self.facts.user_by_name(login) {
            Lookup::Found(_) => return,
            Lookup::Absent => (
                Severity::Error,
                format!("{name}: this host has no user `{login}`"),
                "create the user first, or write its number without quotes",
            ),
            Lookup::Unavailable(why) => (
                Severity::Warning,
                format!("{name}: cannot look up user `{login}`: {why}"),
                "nothing is recognised by it until the look-up works",
            ),
        };
        self.report(severity, Code::UnknownUser, user.at, message, hint);
    }

    fn program(&mut self, path: &Located<String>, name: &str, missing: Severity) {
        match self.facts.path(Path::new(path.as_str())) {
            PathKind::File { .. } | PathKind::Unreadable => {}
            PathKind::Directory => self.report(
                Severity::Error,
                Code::NotAFile,
                path.at,
                format!("{name}: {} is a directory", path.value),
                "name the program in it",
            ),
            PathKind::Special => self.report(
                Severity::Error,
                Code::NotAFile,
                path.at,
                format!("{name}: {} is no regular file", path.value),
                "name the program",
            ),
            PathKind::Missing => self.report(
                missing,
                Code::MissingPath,
                path.at,
                format!("{name}: {} does not exist", path.value),
                "it counts from the moment it exists; check the spelling",
            ),
        }
    }

    fn approvers(&mut self) {
        let record = self.record;
        let own: Vec<User> = record.matches.iter().filter_map(|m| self.account(m.user.as_ref()?)).collect();
        let own_names = record.matches.iter().filter_map(|m| match &m.user.as_ref()?.value {
            UserRef::Name(name) => Some(name.as_str()),
            UserRef::Uid(_) => None,
        });
        let own_names: Vec<&str> = own_names.chain(own.iter().map(|user| user.name.as_str())).collect();
        for approver in &record.approvers {
            self.approver(approver, &own, &own_names);
        }
    }

    fn approver(&mut self, approver: &Located<Approver>, own: &[User], own_names: &[&str]) {
        let name = approver.value.name();
        let may_be_user = !matches!(approver.value, Approver::Group(_));
        let may_be_group = !matches!(approver.value, Approver::User(_));
        let user = if may_be_user { self.facts.user_by_name(name) } else { Lookup::Absent };
        let group = if may_be_group { self.facts.group_by_name(name) } else { Lookup::Absent };
        if may_be_user && own_names.contains(&name) {
            self.self_approval(approver, format!("{name} is the agent's own user"));
        } else if let Lookup::Found(User { uid, .. }) = &user
            && own.iter().any(|agent| agent.uid == *uid)
        {
            self.self_approval(approver, format!("{name} has the agent's own user number {uid}"));
        } else if let Lookup::Found(group) = &group
            && let Some(agent) =
                own.iter().find(|agent| agent.gid == group.gid || group.members.contains(&agent.name))
        {
            let message = format!("the agent's own user {} is in group {name}", agent.name);
            self.self_approval(approver, message);
        }
        let unknown = match (user, group) {
            (Lookup::Absent, Lookup::Absent) => format!("this host has no {}", Self::wanted(approver)),
            (Lookup::Unavailable(why), Lookup::Absent) | (Lookup::Absent, Lookup::Unavailable(why)) => {
                format!("cannot look up {}: {why}", Self::wanted(approver))
            }
            _ => return,
        };
        self.report(
            Severity::Warning,
            Code::UnknownUser,
            approver.at,
            unknown,
            "as long as it does not exist it can approve nothing",
        );
    }

    fn wanted(approver: &Approver) -> String {
        match approver {
            Approver::Any(name) => format!("user or group `{name}`"),
            Approver::Group(name) => format!("group `{name}`"),
            Approver::User(name) => format!("user `{name}`"),
        }
    }

    fn self_approval(&mut self, approver: &Located<Approver>, message: String) {
        self.report(
            Severity::Error,
            Code::SelfApproval,
            approver.at,
            message,
            "an agent never approves itself: name people, or a group without the agent's user",
        );
    }

    fn account(&self, user: &UserRef) -> Option<User> {
        match user {
            UserRef::Name(name) => self.facts.user_by_name(name).found(),
            UserRef::Uid(uid) => self.facts.user_by_uid(*uid).found().or_else(|| {
                // No name and no known group, yet still a user that must not approve.
                Some(User { name: uid.to_string(), uid: *uid, gid: u32::MAX })
            }),
        }
    }

    fn offboarding(&mut self) {
        let record = self.record;
        for path in &record.offboarding.remove_files {
            if self.facts.path(Path::new(path.as_str())) == PathKind::Directory {
                self.report(
                    Severity::Error,
                    Code::NotAFile,
                    path.at,
                    format!("offboarding.remove_files: {} is a directory", path.value),
                    "name the files one by one; retiring an agent removes no trees",
                );
            }
        }
        for unit in &record.offboarding.disable_units {
            self.unit(unit, "offboarding.disable_units");
        }
    }

    fn scope(&mut self) {
        let record = self.record;
        for rule in &record.scope.exec {
            if let Some(path) = rule.path.as_exact() {
                let path = Located::new(path.to_owned(), rule.path.at);
                self.program(&path, &format!("{}.path", rule.name), Severity::Warning);
            }
        }
        for rule in &record.scope.file {
            let Some(path) = rule.path.as_exact() else {
                continue;
            };
            if self.facts.path(Path::new(path)) == PathKind::Directory {
                self.report(
                    Severity::Note,
                    Code::NotAFile,
                    rule.path.at,
                    format!("{}.path: {path} is a directory; the rule is not about what is in it", rule.name),
                    format!("write {path}/** for all of it"),
                );
            }
        }
    }
}

#[cfg(test)]
#[path = "check/tests.rs"]
mod tests;
