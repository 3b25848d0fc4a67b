//! `approval watch`: the screen on which a person decides, made for a tired one.
//!
//! `state` is what is on it and what keys mean, `view` is how it looks; both are pure. Here are the terminal, the clock
//! and the calls of the daemon. A new request never moves the one that is looked at, and an answer carries the digest
//! that was on the screen, so that nothing else can be approved by it.

mod state;
mod view;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use agent_monitor::control::client::{Client, ClientError};
use agent_monitor::people::api::{ApprovalDetail, ApprovalList, ApproveRequest, DecisionReply, DenyRequest};
use anyhow::Context as _;
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use self::state::{Answer, App, Key};
use super::Shared;
use super::exit::Failure;

/// Between two looks at what waits.
const REFRESH: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Only of this agent
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// No bell when something new waits
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn run(args: &WatchArgs, shared: &Shared) -> anyhow::Result<ExitCode> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let message = "approval watch needs a terminal";
        return Err(
            Failure::usage(message, "agent-monitor approval list, show, approve and deny do not").into()
        );
    }
    let client = shared.client()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the I/O runtime")?;
    let mut link = Link { client, runtime, agent: args.agent.clone() };
    let mut app = App::new(user());
    app.clock(agent_monitor::clock::now(), Duration::ZERO);
    // A daemon that is not there, or does not let this person in, is said before the screen is taken.
    link.refresh(&mut app)?;
    let mut terminal = ratatui::try_init().context("cannot take the terminal")?;
    let result = watch(&mut terminal, &mut link, &mut app, args.quiet);
    ratatui::try_restore().context("cannot give the terminal back; `reset` helps")?;
    result.map(|()| ExitCode::SUCCESS)
}

fn user() -> String {
    use agent_monitor::people::who::{Directory as _, LinuxDirectory};
    LinuxDirectory.person(rustix::process::geteuid().as_raw()).label()
}

/// The daemon.
struct Link {
    client: Client,
    runtime: tokio::runtime::Runtime,
    agent: Option<String>,
}

impl Link {
    /// Asks what waits, and for the one that is looked at.
    fn refresh(&self, app: &mut App) -> Result<(), ClientError> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(agent) = &self.agent {
            query.append_pair("agent", agent);
        }
        let path = format!("/v1/approvals?{}", query.finish());
        let list: ApprovalList = self.runtime.block_on(self.client.get(&path))?;
        app.list(list);
        let Some(id) = app.chosen() else { return Ok(()) };
        let detail = self.runtime.block_on(self.client.get::<ApprovalDetail>(&format!("/v1/approvals/{id}")));
        match detail {
            Ok(detail) => app.detail(detail),
            // It was decided between the two calls.
            Err(ClientError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn answer(&self, answer: &Answer) -> Result<DecisionReply, ClientError> {
        let Answer { id, digest, says } = answer;
        let approve = |form: &str, seconds| ApproveRequest {
            form: Some(form.to_owned()),
            seconds,
            why: None,
            digest: Some(digest.clone()),
        };
        let deny = |suspend| DenyRequest { why: None, suspend };
        let yes = format!("/v1/approvals/{id}/approve");
        let no = format!("/v1/approvals/{id}/deny");
        self.runtime.block_on(async {
            match says {
                state::Says::Once => self.client.post(&yes, &approve("once", None)).await,
                state::Says::For(minutes) => {
                    self.client.post(&yes, &approve("for", Some(u64::from(*minutes) * 60))).await
                }
                state::Says::Session => self.client.post(&yes, &approve("session", None)).await,
                state::Says::Deny => self.client.post(&no, &deny(false)).await,
                state::Says::DenyAndSuspend => self.client.post(&no, &deny(true)).await,
            }
        })
    }
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    link: &mut Link,
    app: &mut App,
    quiet: bool,
) -> anyhow::Result<()> {
    let mut refreshed = Instant::now();
    loop {
        app.clock(agent_monitor::clock::now(), refreshed.elapsed());
        terminal.draw(|frame| view::draw(frame, app)).context("cannot draw")?;
        if app.take_bell() && !quiet {
            let mut out = std::io::stdout();
            out.write_all(b"\x07").and_then(|()| out.flush()).context("cannot ring")?;
        }
        let left = REFRESH.saturating_sub(refreshed.elapsed());
        if event::poll(left.min(Duration::from_millis(200))).context("cannot read the keyboard")?
            && let Event::Key(key) = event::read().context("cannot read the keyboard")?
            && key.kind != KeyEventKind::Release
        {
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            let key = match key.code {
                KeyCode::Char('c') if control => return Ok(()),
                KeyCode::Char(letter) => Key::Letter(letter),
                KeyCode::Up => Key::Up,
                KeyCode::Down | KeyCode::Tab => Key::Down,
                KeyCode::Esc => Key::Escape,
                _ => continue,
            };
            match app.key(key) {
                state::Do::Nothing => {}
                state::Do::Leave => return Ok(()),
                state::Do::Answer(answer) => {
                    let result = link.answer(&answer);
                    app.answered(&answer, result.map_err(|error| words(&error)));
                    refreshed = Instant::now().checked_sub(REFRESH).unwrap_or(refreshed);
                }
            }
        }
        if refreshed.elapsed() >= REFRESH {
            let result = link.refresh(app);
            app.link(result.err().map(|error| words(&error)));
            refreshed = Instant::now();
        }
    }
}

fn words(error: &ClientError) -> String {
    match error {
        ClientError::Refused { body, .. } => format!("{} ({})", body.error, body.hint),
        error => error.to_string(),
    }
}
