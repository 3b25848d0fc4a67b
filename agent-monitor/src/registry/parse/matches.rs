//! Reads `[[match]]`: by what the agent's processes are recognised.

use toml::de::DeValue;

use super::agent::is_account_name;
use crate::{
    registry::{
        argv::ArgvPattern,
        diagnostic::{Code, Severity},
        reader::{Reader, Section},
        record::{Match, Sha256, UserRef},
        source::Located,
    },
    scope::path::check_absolute,
};

pub(super) const KEYS: &[&str] =
    &["unit", "cgroup", "container", "exe", "script", "sha256", "argv", "user", "launch"];

/// Suffixes of units that hold processes.
const UNIT_SUFFIXES: [&str; 3] = [".service", ".scope", ".slice"];

/// Where the cgroup v2 hierarchy is usually mounted.
const CGROUP_MOUNT: &str = "/sys/fs/cgroup";

/// Reads one table; `None` when nothing in it can be used.
pub(super) fn read(reader: &mut Reader, section: &Section<'_>) -> Option<Located<Match>> {
    reader.keys(section, KEYS);
    let unit = reader.string(section, "unit");
    let cgroup = reader.string(section, "cgroup");
    let exe = reader.string(section, "exe");
    let script = reader.string(section, "script");
    let found = Match {
        name: section.name.clone(),
        unit: unit.filter(|unit| check_unit(reader, unit, &section.key("unit"))),
        cgroup: cgroup.filter(|path| check_cgroup(reader, path, &section.key("cgroup"))),
        container: read_container(reader, section),
        exe: exe.filter(|path| check_path(reader, path, &section.key("exe"))),
        script: script.filter(|path| check_path(reader, path, &section.key("script"))),
        sha256: read_sha256(reader, section),
        argv: read_argv(reader, section),
        user: read_user(reader, section),
        launch: read_launch(reader, section),
    };
    let conditions = found.rank().conditions;
    if conditions == 0 && !found.launch {
        if !KEYS.iter().any(|key| section.has(key)) {
            reader.error(
                Code::TooWide,
                section.at,
                format!("[[{}]] has no condition and would recognise every process", "match"),
                "name the agent's own program or script, or its unit, cgroup or container: exe = \"/opt/bot/bin/bot\"",
            );
        }
        return None;
    }
    check_together(reader, section, &found, conditions);
    check_width(reader, section, &found, conditions);
    Some(Located::new(found, section.at))
}

fn check_together(reader: &mut Reader, section: &Section<'_>, found: &Match, conditions: u8) {
    if found.launch && conditions > 0 {
        reader.error(
            Code::InvalidValue,
            section.at,
            "launch = true says `only by agent-monitor exec`, and other conditions stand beside it",
            "remove launch: `agent-monitor exec` is always possible",
        );
    }
    if let Some(sha256) = &found.sha256 {
        let (problem, hint) = match (section.has("exe"), section.has("script")) {
            (true, true) => ("sha256 with exe and script does not say whose", "keep one of them"),
            (false, false) => ("sha256 needs the file it belongs to", "add exe or script"),
            _ => return,
        };
        reader.error(Code::InvalidValue, sha256.at, problem, hint);
    }
}

fn check_width(reader: &mut Reader, section: &Section<'_>, found: &Match, conditions: u8) {
    if conditions == 1 && found.user.as_ref().is_some_and(|user| user.is_root()) {
        reader.report(
            Severity::Warning,
            Code::TooWide,
            section.at,
            "every process that root starts would be the agent's",
            "add exe, script, argv or unit",
        );
    }
    if let Some(exe) = &found.exe
        && let Some(width) = found.shared_width(exe)
    {
        reader.report(width.severity(), Code::TooWide, exe.at, width.message(exe), width.hint());
    }
}

/// Reports an impossible path; whether it is possible.
pub(super) fn check_path(reader: &mut Reader, path: &Located<String>, name: &str) -> bool {
    let error = match check_absolute(path) {
        Ok(()) if path.as_str() == "/" => {
            reader.error(Code::InvalidPath, path.at, format!("{name} is the root directory"), "name a file");
            return false;
        }
        Ok(()) => return true,
        Err(error) => error,
    };
    reader.error(Code::InvalidPath, path.at, format!("{name}: {}", error.problem), error.hint);
    false
}

/// Reports an impossible unit name; whether it is possible.
pub(super) fn check_unit(reader: &mut Reader, unit: &Located<String>, name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@');
    let suffix = UNIT_SUFFIXES.iter().find(|suffix| unit.ends_with(**suffix));
    let stem = suffix.and_then(|suffix| unit.strip_suffix(suffix));
    let (problem, hint) = match stem {
        None => (
            "has no suffix of a unit with processes".to_owned(),
            format!("write {}.service (or .scope, .slice)", unit.value),
        ),
        Some(stem) if stem.is_empty() || unit.len() > 255 || !unit.chars().all(allowed) => {
            ("is no unit name".to_owned(), "letters, digits and : - _ . \\ @, at most 255 bytes".to_owned())
        }
        Some(stem) if stem.ends_with('@') => {
            ("is a template, not a unit".to_owned(), "name an instance: worker@1.service".to_owned())
        }
        Some(_) => return true,
    };
    reader.error(Code::InvalidValue, unit.at, format!("{name}: `{}` {problem}", unit.value), hint);
    false
}

fn check_cgroup(reader: &mut Reader, path: &Located<String>, name: &str) -> bool {
    if let Some(inner) = path.strip_prefix(CGROUP_MOUNT) {
        let inner = if inner.is_empty() { "/" } else { inner };
        reader.error(
            Code::InvalidPath,
            path.at,
            format!("{name} begins with the mount point"),
            format!("write the path inside the hierarchy: {inner}"),
        );
        return false;
    }
    if path.as_str() == "/" {
        reader.error(
            Code::TooWide,
            path.at,
            format!("{name} is the root of the hierarchy: every process is in it"),
            "name the agent's own cgroup",
        );
        return false;
    }
    check_path(reader, path, name)
}

fn read_container(reader: &mut Reader, section: &Section<'_>) -> Option<Located<String>> {
    let id = reader.string(section, "container")?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if (12..=64).contains(&id.len()) && id.bytes().all(is_hex) {
        return Some(id);
    }
    reader.error(
        Code::InvalidValue,
        id.at,
        format!("`{}` is no container id", id.value),
        "12 to 64 lower-case hexadecimal digits, as `docker ps` and `podman ps` show; names can be given away",
    );
    None
}

fn read_sha256(reader: &mut Reader, section: &Section<'_>) -> Option<Located<Sha256>> {
    let text = reader.string(section, "sha256")?;
    match Sha256::parse(&text) {
        Some(digest) => Some(Located::new(digest, text.at)),
        None => {
            reader.error(
                Code::InvalidValue,
                text.at,
                "sha256 is not 64 hexadecimal digits",
                "as `sha256sum FILE` prints",
            );
            None
        }
    }
}

fn read_argv(reader: &mut Reader, section: &Section<'_>) -> Option<Located<ArgvPattern>> {
    let value = reader.value(section, "argv")?;
    let at = reader.position(value.span());
    let name = section.key("argv");
    let example = "a list of patterns: argv = [\"python3*\", \"/srv/bot.py\"]";
    if !matches!(value.get_ref(), DeValue::Array(_)) {
        reader.wrong_type(value, &name, "a list of strings", example);
        return None;
    }
    let patterns = reader.strings(section, "argv");
    match ArgvPattern::new(patterns.into_iter().map(|pattern| pattern.value).collect()) {
        Ok(argv) => Some(Located::new(argv, at)),
        Err(error) => {
            reader.error(Code::InvalidValue, at, format!("{name}: {error}"), example);
            None
        }
    }
}

/// The same for `[[scope.exec]]`.
pub(crate) fn read_argv_pattern(reader: &mut Reader, section: &Section<'_>) -> Option<Located<ArgvPattern>> {
    read_argv(reader, section)
}

fn read_user(reader: &mut Reader, section: &Section<'_>) -> Option<Located<UserRef>> {
    let value = reader.value(section, "user")?;
    if matches!(value.get_ref(), DeValue::Integer(_)) {
        // The last number is the kernel's `no user`.
        let uid = reader.integer(section, "user", 0..=u64::from(u32::MAX - 1))?;
        let number = u32::try_from(uid.value).ok()?;
        return Some(Located::new(UserRef::Uid(number), uid.at));
    }
    let name = reader.string(section, "user")?;
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        reader.error(
            Code::WrongType,
            name.at,
            format!("`{}` in quotes is a name of digits", name.value),
            format!("for the number write user = {}", name.value),
        );
        return None;
    }
    if is_account_name(&name) {
        return Some(name.map(UserRef::Name));
    }
    reader.error(
        Code::InvalidValue,
        name.at,
        format!("`{}` is no user name", name.value),
        "one user name, or a number without quotes",
    );
    None
}

fn read_launch(reader: &mut Reader, section: &Section<'_>) -> bool {
    let Some(launch) = reader.boolean(section, "launch") else {
        return false;
    };
    if !launch.value {
        reader.error(
            Code::InvalidValue,
            launch.at,
            "launch can only be true: `agent-monitor exec` is always possible",
            "remove it",
        );
    }
    launch.value
}
