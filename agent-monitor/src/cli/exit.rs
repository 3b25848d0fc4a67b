//! Errors as messages and exit codes.

use std::io;
use std::process::ExitCode;

use agent_monitor::config::ConfigError;
use agent_monitor::control::client::ClientError;
use agent_monitor::export::bundle::BundleError;
use agent_monitor::kernel::KernelError;
use agent_monitor::log::verify::Outcome;
use agent_monitor::record::FilterError;
use agent_monitor::registry::diagnostic::escape;
use agent_monitor::run::RunError;

/// Something went wrong.
pub(crate) const FAILURE: u8 = 1;
/// It was asked wrongly.
pub(crate) const USAGE: u8 = 2;
/// No daemon answers.
pub(crate) const UNREACHABLE: u8 = 3;
/// It needs more privilege.
pub(crate) const PRIVILEGE: u8 = 4;
/// What was read is not, or cannot be shown to be, what was written.
pub(crate) const NOT_VERIFIED: u8 = 5;

/// Reports what checking the record showed, and makes the exit code say where it does not hold.
pub(crate) fn checked(outcome: &Outcome, code: ExitCode) -> ExitCode {
    note(&escape(&outcome.text()));
    if outcome.verified { code } else { ExitCode::from(NOT_VERIFIED) }
}

/// A failure whose message says it all.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// What went wrong.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A mistake on the command line.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into(), hint: Some(hint.into()) }
    }

    /// Anything else.
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }
}

/// Ends the program's work: tells what went wrong, where it did.
pub(crate) fn report(result: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    let broken_pipe = error
        .chain()
        .any(|e| e.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe));
    if broken_pipe {
        return ExitCode::SUCCESS;
    }
    let (code, hint) = classify(&error);
    if let Some(ConfigError::Text(diagnostic)) = error.downcast_ref() {
        note(diagnostic.render().trim_end());
    } else {
        note(&format!("error: {}", escape(&format!("{error:#}"))));
        if let Some(hint) = hint {
            note(&format!("hint: {}", escape(&hint)));
        }
    }
    ExitCode::from(code)
}

/// Writes a message to standard error.
#[expect(clippy::print_stderr, reason = "the one place where the CLI speaks to the person, not to the pipe")]
pub(crate) fn note(message: &str) {
    eprintln!("{message}");
}

fn classify(error: &anyhow::Error) -> (u8, Option<String>) {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return (failure.code, failure.hint.clone());
    }
    if let Some(BundleError::NotVerified(_)) = error.downcast_ref() {
        let hint = "see `agent-monitor verify`; leave the damage out with --since and --until, or make an unsigned \
                    bundle with --unsigned";
        return (NOT_VERIFIED, Some(hint.to_owned()));
    }
    if let Some(error) = error.downcast_ref::<FilterError>() {
        return (USAGE, Some(error.hint.to_owned()));
    }
    if error.downcast_ref::<ConfigError>().is_some() {
        return (USAGE, None);
    }
    if let Some(KernelError::Privilege) = error.downcast_ref() {
        return (PRIVILEGE, None);
    }
    if error.downcast_ref::<RunError>().is_some_and(RunError::is_privilege) {
        return (PRIVILEGE, Some("run as root".to_owned()));
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Unreachable { .. }) => (
            UNREACHABLE,
            Some("start it with `agent-monitor run`, or name its socket with --socket".to_owned()),
        ),
        Some(ClientError::Forbidden { .. }) => {
            (PRIVILEGE, Some("run as root, or as a member of the socket's group".to_owned()))
        }
        Some(ClientError::Refused { status: 403, body }) => (PRIVILEGE, Some(body.hint.clone())),
        Some(ClientError::Refused { body, .. }) => (FAILURE, Some(body.hint.clone())),
        Some(ClientError::Broken(_) | ClientError::Answer(_)) => (FAILURE, None),
        None => {
            let refused = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
            let privilege = error.chain().any(|e| e.downcast_ref().is_some_and(refused));
            if privilege { (PRIVILEGE, Some("run as root".to_owned())) } else { (FAILURE, None) }
        }
    }
}
