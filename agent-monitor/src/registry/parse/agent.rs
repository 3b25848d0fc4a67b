//! Reads `[agent]`: who the agent is, who answers for it, when and how it ends.

use std::time::Duration;

use jiff::Timestamp;
use toml::{de::DeValue, value::Datetime};

use crate::{
    registry::{
        diagnostic::{Code, Severity},
        reader::{Reader, Section},
        record::{AgentId, Approver, Degrade, Mode, OnDaemonLoss},
        source::{Located, Position},
    },
    scope::Scope,
};

pub(super) const KEYS: &[&str] = &[
    "id",
    "owner",
    "purpose",
    "environment",
    "data_boundary",
    "expires",
    "retire_when_idle",
    "mode",
    "approvers",
    "approvals",
    "degrade",
    "on_daemon_loss",
    "hold_timeout",
];

/// Most people that one action may need.
const MAX_APPROVALS: u64 = 8;

/// Longest time for which an action is held.
const MAX_HOLD: Duration = Duration::from_secs(86_400);

/// Longest text of owner, purpose and the like, in characters.
const MAX_TEXT_CHARS: usize = 500;

const MODES: [(&str, Mode); 2] = [("observe", Mode::Observe), ("enforce", Mode::Enforce)];
const DEGRADE: [(&str, Degrade); 2] = [("allow", Degrade::Allow), ("refuse", Degrade::Refuse)];
const ON_DAEMON_LOSS: [(&str, OnDaemonLoss); 2] =
    [("deny", OnDaemonLoss::Deny), ("wait", OnDaemonLoss::Wait)];

/// `[agent]` with all required keys there.
pub(super) struct Agent {
    pub(super) id: Located<AgentId>,
    pub(super) owner: Located<String>,
    pub(super) purpose: Located<String>,
    pub(super) environment: Option<Located<String>>,
    pub(super) data_boundary: Option<Located<String>>,
    pub(super) expires: Located<Timestamp>,
    pub(super) retire_when_idle: Option<Located<Duration>>,
    pub(super) mode: Located<Mode>,
    pub(super) approvers: Vec<Located<Approver>>,
    pub(super) approvals: u8,
    pub(super) degrade: Degrade,
    pub(super) on_daemon_loss: OnDaemonLoss,
    pub(super) hold_timeout: Option<Located<Duration>>,
}

/// Reads everything, reports everything, and gives an agent only if nothing required is missing.
pub(super) fn read(reader: &mut Reader, section: &Section<'_>) -> Option<Agent> {
    reader.keys(section, KEYS);
    let id = required(reader, section, "id", "add id = \"release-bot\"");
    let id = id.and_then(|text| read_id(reader, text));
    let owner =
        required(reader, section, "owner", "name who answers for the agent: owner = \"team@example.com\"");
    let purpose =
        required(reader, section, "purpose", "say in a sentence what the agent is for: purpose = \"…\"");
    let expires = read_expires(reader, section);
    let mode = reader.choice(section, "mode", &MODES).unwrap_or(Located::new(Mode::default(), section.at));
    let environment = text(reader, section, "environment");
    let data_boundary = text(reader, section, "data_boundary");
    let idle = "a whole number and one of m, h, d, w, from 1m to 520w: \"30d\"";
    let retire_when_idle = read_span(reader, section, "retire_when_idle", Duration::MAX, idle);
    let approvers = read_approvers(reader, section);
    let approvals = reader.integer(section, "approvals", 1..=MAX_APPROVALS);
    let approvals = approvals.and_then(|number| u8::try_from(number.value).ok());
    let degrade = reader.choice(section, "degrade", &DEGRADE);
    let on_daemon_loss = reader.choice(section, "on_daemon_loss", &ON_DAEMON_LOSS);
    let hold = "a whole number and one of s, m, h, from 1s to 24h: \"10m\"";
    let hold_timeout = read_span(reader, section, "hold_timeout", MAX_HOLD, hold);
    Some(Agent {
        id: id?,
        owner: owner?,
        purpose: purpose?,
        environment,
        data_boundary,
        expires: expires?,
        retire_when_idle,
        mode,
        approvers,
        approvals: approvals.unwrap_or(1),
        degrade: degrade.map_or_else(Degrade::default, |degrade| degrade.value),
        on_daemon_loss: on_daemon_loss.map_or_else(OnDaemonLoss::default, |loss| loss.value),
        hold_timeout,
    })
}

/// What can be said only when the parts are seen together.
pub(super) fn check_whole(reader: &mut Reader, document: &Section<'_>, agent: &Agent, scope: &Scope) {
    if !document.has("match") {
        reader.report(
            Severity::Note,
            Code::NoMatch,
            agent.id.at,
            "there is no [[match]]: only `agent-monitor exec` can start this agent",
            "add a [[match]] to recognise processes that something else starts",
        );
    }
    if agent.mode.value == Mode::Enforce && !scope.declared {
        reader.report(
            Severity::Warning,
            Code::InvalidValue,
            agent.mode.at,
            "mode is `enforce` and there is no [scope]: nothing is enforced",
            "add [scope] with a default, or write mode = \"observe\"",
        );
    }
    if scope.can_hold() && agent.approvers.is_empty() {
        reader.report(
            Severity::Warning,
            Code::MissingKey,
            agent.id.at,
            "the scope holds actions for approval and agent.approvers is empty: only root may decide",
            "add approvers = [\"group:oncall\"]",
        );
    }
    let all_users = agent.approvers.iter().all(|a| matches!(a.value, Approver::User(_)));
    let people = agent.approvers.len();
    if let (true, Some(first)) = (all_users, agent.approvers.first())
        && people < usize::from(agent.approvals)
    {
        reader.error(
            Code::InvalidValue,
            first.at,
            format!("{} approvals are asked of {people} approvers", agent.approvals),
            "add approvers or lower approvals",
        );
    }
}

fn required(reader: &mut Reader, section: &Section<'_>, key: &str, hint: &str) -> Option<Located<String>> {
    if !section.has(key) {
        reader.missing(section, key, hint);
        return None;
    }
    text(reader, section, key)
}

fn text(reader: &mut Reader, section: &Section<'_>, key: &str) -> Option<Located<String>> {
    let text = reader.string(section, key)?;
    if text.chars().count() > MAX_TEXT_CHARS {
        reader.error(
            Code::InvalidValue,
            text.at,
            format!("{} is too long", section.key(key)),
            format!("at most {MAX_TEXT_CHARS} characters"),
        );
        return None;
    }
    if text.chars().any(char::is_control) {
        reader.error(
            Code::InvalidValue,
            text.at,
            format!("{} contains control characters", section.key(key)),
            "one line of plain text",
        );
        return None;
    }
    Some(text)
}

fn read_id(reader: &mut Reader, text: Located<String>) -> Option<Located<AgentId>> {
    match text.parse() {
        Ok(id) => Some(Located::new(id, text.at)),
        Err(error) => {
            let error: crate::registry::record::AgentIdError = error;
            reader.error(
                Code::InvalidValue,
                text.at,
                format!("`{}` is no agent id", text.value),
                error.to_string(),
            );
            None
        }
    }
}

fn read_expires(reader: &mut Reader, section: &Section<'_>) -> Option<Located<Timestamp>> {
    let hint = "write expires = 2026-12-31T00:00:00Z";
    let Some(value) = reader.value(section, "expires") else {
        reader.missing(section, "expires", &format!("an agent without an end is refused: {hint}"));
        return None;
    };
    let at = reader.position(value.span());
    let instant = match value.get_ref() {
        DeValue::Datetime(datetime) => instant(*datetime),
        DeValue::String(text) => text.parse().map_err(|error: jiff::Error| error.to_string()),
        _ => {
            reader.wrong_type(value, "agent.expires", "a date with time and offset", hint);
            return None;
        }
    };
    match instant {
        Ok(instant) => Some(Located::new(instant, at)),
        Err(problem) => {
            report_instant(reader, at, &problem, hint);
            None
        }
    }
}

fn report_instant(reader: &mut Reader, at: Position, problem: &str, hint: &str) {
    reader.error(Code::InvalidValue, at, format!("agent.expires is no instant: {problem}"), hint);
}

fn instant(mut datetime: Datetime) -> Result<Timestamp, String> {
    if datetime.offset.is_none() || datetime.time.is_none() {
        return Err("it needs date, time and offset (Z for UTC)".to_owned());
    }
    // TOML 1.1 lets the seconds out, RFC 3339 does not.
    if let Some(time) = &mut datetime.time {
        time.second = time.second.or(Some(0));
    }
    let text = datetime.to_string();
    text.parse().map_err(|error: jiff::Error| error.to_string())
}

/// A time that is written as a whole number and a unit.
fn read_span(
    reader: &mut Reader,
    section: &Section<'_>,
    key: &str,
    longest: Duration,
    hint: &str,
) -> Option<Located<Duration>> {
    let text = reader.string(section, key)?;
    match parse_duration(&text).filter(|span| *span <= longest) {
        Some(duration) => Some(Located::new(duration, text.at)),
        None => {
            let message = format!("`{}` is no duration for {key}", text.value);
            reader.error(Code::InvalidValue, text.at, message, hint);
            None
        }
    }
}

/// `30d`: a whole number with `s`, `m`, `h`, `d` or `w`; from one second to ten years. `None` for
/// anything else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number = text.strip_suffix(unit)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let total = is_number.then(|| number.parse::<u64>().ok()).flatten()?.checked_mul(seconds)?;
    (1..=520 * 604_800).contains(&total).then(|| Duration::from_secs(total))
}

fn read_approvers(reader: &mut Reader, section: &Section<'_>) -> Vec<Located<Approver>> {
    let mut approvers: Vec<Located<Approver>> = Vec::new();
    for text in reader.strings(section, "approvers") {
        let (kind, name) = text.split_once(':').unwrap_or(("", &text));
        let Some(approver) = Approver::of(kind, name) else {
            reader.error(
                Code::InvalidValue,
                text.at,
                format!("`{kind}:` is no kind of approver"),
                "write user:NAME, group:NAME or NAME",
            );
            continue;
        };
        if !is_account_name(name) {
            reader.error(
                Code::InvalidValue,
                text.at,
                format!("`{}` is no user or group name", text.value),
                "write user:NAME, group:NAME or NAME",
            );
        } else if approvers.iter().any(|known| known.value == approver) {
            reader.report(
                Severity::Warning,
                Code::InvalidValue,
                text.at,
                format!("{} is named twice", text.value),
                "remove one",
            );
        } else if approvers.len() < 64 {
            approvers.push(Located::new(approver, text.at));
        } else {
            reader.error(Code::InvalidValue, text.at, "more than 64 approvers", "name a group");
            break;
        }
    }
    approvers
}

/// Whether a text can name a user or group. Directory services allow more than `useradd` does, so
/// this refuses only what can be none.
pub(super) fn is_account_name(name: &str) -> bool {
    (1..=256).contains(&name.len())
        && !name.starts_with('-')
        && !name.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, ':' | '/' | ','))
}
