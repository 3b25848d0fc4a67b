//! What starts things by itself: systemd units and timers, of the system and of users, and cron.

use super::{FILE_MAX, Job};
use crate::sweep::homes::{self, Home, Users};
use crate::sweep::identify;
use crate::sweep::manifest;
use crate::sweep::observe::{About, Harvest, Observation, Place, Source};
use crate::sweep::redact;
use crate::sweep::report::{Risk, State};

/// Where units of the system are. `/usr/lib` holds those of packages, `/etc` those of people.
const UNITS: &[&str] = &[
    "/etc/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/usr/local/lib/systemd/system",
    "/etc/systemd/user",
    "/usr/lib/systemd/user",
    "/run/systemd/transient",
];
/// Files of whole cron lines with a user.
const CRON_SYSTEM: &[&str] = &["/etc/crontab", "/etc/cron.d/*"];
const CRON_USERS: &[&str] = &["/var/spool/cron/crontabs/*", "/var/spool/cron/*"];

/// Units of a user.
pub(super) fn of_home(job: Job<'_>, home: &Home, place: &Place, out: &mut Harvest) {
    for rest in [".config/systemd/user", ".local/share/systemd/user"] {
        units(job, place, &Users::default(), &format!("{}/{rest}", home.path), out);
    }
}

/// Units and cron tables of the system.
pub(super) fn of_system(job: Job<'_>, place: &Place, out: &mut Harvest) {
    let users = homes::parse(&job.root.text("/etc/passwd", 4 << 20).unwrap_or_default());
    let merged = job.root.canonical("/lib").is_some_and(|lib| lib == "/usr/lib");
    for dir in UNITS.iter().filter(|dir| !(merged && dir.starts_with("/lib/"))) {
        units(job, place, &users, dir, out);
    }
    for (patterns, with_user) in [(CRON_SYSTEM, true), (CRON_USERS, false)] {
        for pattern in patterns {
            for path in files(job, pattern) {
                let Ok(text) = job.root.text(&path, FILE_MAX) else { continue };
                out.count += 1;
                // A user's own table bears his name.
                let owner = if with_user { None } else { path.rsplit('/').next() };
                cron(job, (place, &users), &path, &text, owner, out);
            }
        }
    }
}

fn files(job: Job<'_>, pattern: &str) -> Vec<String> {
    let Some(dir) = pattern.strip_suffix("/*") else { return vec![pattern.to_owned()] };
    let entries = job.root.list(dir, 2000).map(|(entries, _)| entries).unwrap_or_default();
    entries.into_iter().filter(|entry| entry.is_file).map(|entry| format!("{dir}/{}", entry.name)).collect()
}

/// Where what runs as a user belongs.
fn place_of(place: &Place, users: &Users, user: Option<&str>) -> Place {
    let uid = place.uid.or_else(|| user.and_then(|user| users.uid(user)));
    Place { uid, ..place.clone() }
}

fn units(job: Job<'_>, place: &Place, users: &Users, dir: &str, out: &mut Harvest) {
    let entries = match job.root.list(dir, 20_000) {
        Ok((entries, _)) => entries,
        Err(trouble) => return out.trouble(trouble, job.root.shown(dir)),
    };
    for entry in entries.iter().filter(|entry| entry.is_file && entry.name.ends_with(".service")) {
        let path = format!("{dir}/{}", entry.name);
        if job.late(out, &path) {
            return;
        }
        let Ok(text) = job.root.text(&path, 1 << 20) else { continue };
        out.count += 1;
        let timer = entry.name.replace(".service", ".timer");
        let timed = entries.binary_search_by(|other| other.name.cmp(&timer)).is_ok();
        let parsed = parse_unit(&text);
        let place = place_of(place, users, parsed.user.as_deref());
        unit(job, &place, &entry.name, timed, &path, &parsed, out);
    }
}

fn unit(job: Job<'_>, place: &Place, name: &str, timed: bool, path: &str, parsed: &Unit, out: &mut Harvest) {
    let at = job.root.shown(path);
    let when = job.root.meta(path).ok().map(|meta| meta.modified);
    let named = job.pack.unit(name);
    if let Some(product) = named {
        let what = format!("systemd unit {name} starts it");
        let seen =
            Observation::new(About::Product(product), place.clone(), Source::Unit, 85, what, at.clone());
        out.seen.push(Observation { when, ..seen });
    }
    for command in &parsed.commands {
        if let Some(mut seen) = starts(job, place, command, &parsed.directory, Source::Unit, &at) {
            let by = if timed { " by its timer" } else { "" };
            let user = parsed.user.as_ref().map_or_else(String::new, |user| format!(" as {user}"));
            let line = redact::args(command).join(" ");
            seen.what = format!("systemd unit {name}{by} starts{user} `{line}`: {}", seen.what);
            seen.when = when;
            if parsed.user.is_none() && place.uid.is_none() {
                seen.risks.push(Risk {
                    mark: "runs_as_root".to_owned(),
                    detail: format!("unit {name} has no User="),
                });
            }
            out.seen.push(seen);
        }
    }
}

/// A configured command that is a product, or a script that imports a framework.
fn starts(
    job: Job<'_>,
    place: &Place,
    command: &[String],
    cwd: &str,
    source: Source,
    at: &str,
) -> Option<Observation> {
    let exe = command.first().filter(|first| first.starts_with('/')).cloned().unwrap_or_default();
    let subject = identify::subject(&exe, command, cwd);
    let hits = identify::identify(job.pack, &subject);
    if let Some(hit) = hits.into_iter().find(|hit| hit.weight >= 50) {
        let seen =
            Observation::new(About::Product(hit.product), place.clone(), source, hit.weight, hit.what, at);
        return Some(Observation { variant: hit.variant, ..seen });
    }
    let script = subject.main_path().filter(|path| is_script(path))?;
    let text = job.root.head(script, 256 << 10).ok()?;
    let product = manifest::imports(&String::from_utf8_lossy(&text))
        .iter()
        .filter_map(|module| job.pack.import(module))
        .find(|index| job.pack.product(*index).is_some_and(|p| p.kind().is_agent()))?;
    let name = &job.pack.product(product)?.name;
    let what = format!("its script imports {name}");
    let about = About::HomeMade(job.root.shown(script));
    let seen = Observation::new(about, place.clone(), source, 60, what, at);
    Some(Observation { path: Some(job.root.shown(script)), ..seen })
}

/// A text file that may import something.
pub(super) fn is_script(path: &str) -> bool {
    [".py", ".js", ".mjs", ".cjs", ".ts"].iter().any(|end| path.ends_with(end))
}

/// What a unit file says of how it is started.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unit {
    commands: Vec<Vec<String>>,
    user: Option<String>,
    directory: String,
}

fn parse_unit(text: &str) -> Unit {
    let mut unit = Unit { directory: "/".to_owned(), ..Unit::default() };
    let text = text.replace("\\\n", " ");
    for line in text.lines().take(5000) {
        let Some((key, value)) = line.trim().split_once('=') else { continue };
        match key.trim() {
            "ExecStart" | "ExecStartPre" => {
                // `-`, `@`, `+`, `!`, `:` change how systemd runs it, not what.
                let value = value.trim().trim_start_matches(['-', '@', '+', '!', ':']);
                let words = identify::shell_words(value);
                if !words.is_empty() {
                    unit.commands.push(words);
                }
            }
            "User" => {
                unit.user = Some(value.trim().to_owned()).filter(|user| !user.is_empty() && user != "root")
            }
            "WorkingDirectory" => unit.directory = value.trim().trim_start_matches('-').to_owned(),
            _ => {}
        }
    }
    unit
}

/// `owner`: whose table it is; in the system's own tables each line has a user.
fn cron(
    job: Job<'_>,
    (place, users): (&Place, &Users),
    path: &str,
    text: &str,
    owner: Option<&str>,
    out: &mut Harvest,
) {
    let at = job.root.shown(path);
    for (user, command) in cron_commands(text, owner.is_none()) {
        let place = place_of(place, users, owner.or(user.as_deref()).filter(|user| *user != "root"));
        if let Some(mut seen) = starts(job, &place, &command, "/", Source::Cron, &at) {
            debug_assert_eq!(seen.source.state(), State::Configured);
            seen.what = format!("cron starts `{}`: {}", redact::args(&command).join(" "), seen.what);
            out.seen.push(seen);
        }
    }
}

/// The commands of a cron table, with the user that they run as where the line says it.
fn cron_commands(text: &str, with_user: bool) -> Vec<(Option<String>, Vec<String>)> {
    let mut found = Vec::new();
    for line in text.lines().take(5000).map(str::trim) {
        if line.is_empty() || line.starts_with('#') || line.len() > 4096 {
            continue;
        }
        let times = if line.starts_with('@') { 1 } else { 5 };
        // `NAME=value` lines have no times.
        if !line.starts_with(['@', '*']) && !line.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let (mut rest, mut word) = (line, "");
        for _ in 0..times + usize::from(with_user) {
            let after = rest.trim_start();
            let end = after.find(char::is_whitespace).unwrap_or(after.len());
            (word, rest) = after.split_at_checked(end).unwrap_or_default();
        }
        let user = with_user.then(|| word.to_owned());
        let words = identify::shell_words(rest);
        if !words.is_empty() {
            found.push((user, words));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn units_and_cron_lines_are_read() {
        let unit = parse_unit(
            "[Service]\nUser=bot\nWorkingDirectory=/srv\nExecStart=-/usr/bin/python3 \\\n  bot.py --x 'a b'\nExecStart=\n",
        );
        assert_eq!(unit.commands, [["/usr/bin/python3", "bot.py", "--x", "a b"]]);
        assert_eq!((unit.user.as_deref(), unit.directory.as_str()), (Some("bot"), "/srv"));
        let cron = "SHELL=/bin/sh\n# x\n*/5 * * * * root cd /srv && claude -p 'go on' >> log\n@daily bob codex exec x\n";
        assert_eq!(
            cron_commands(cron, true),
            [
                (Some("root".to_owned()), words(&["claude", "-p", "go on", ">>", "log"])),
                (Some("bob".to_owned()), words(&["codex", "exec", "x"]))
            ]
        );
        assert_eq!(cron_commands("0 1 * * * aider\n", false), [(None, words(&["aider"]))]);
        let users = homes::parse("bob:x:1007:1007::/home/bob:/bin/sh\n");
        let system = Place { uid: None, container: None };
        assert_eq!(place_of(&system, &users, Some("bob")).uid, Some(1007));
        assert_eq!(place_of(&system, &users, Some("eve")).uid, None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(?s).{0,300}") {
            let _unit = parse_unit(&text);
            let _cron = cron_commands(&text, true);
        }
    }
}
